//! The table `[cutover]`.

use std::time::Duration;

use super::document::{ConfigError, Document};
use super::key::{Key, Kind, key};
use super::{Auth, Proof, Secret, optional};

/// Its keys.
pub(super) const KEYS: &[Key] = &[
    key(
        "cutover.watch_clients",
        Kind::Time,
        r#""10s""#,
        "How often sync asks the source who is connected (CLIENT LIST, for source_clients and the stragglers); 0: never. After the switch: each second.",
    ),
    key(
        "cutover.fence",
        Kind::Word(&["auto", "pause", "acl", "min-replicas", "command", "manual"]),
        r#""auto""#,
        "What keeps writes away from the source during `cutover`: CLIENT PAUSE, the users' rights (ACL SETUSER), min-replicas-to-write, fence_command, or you. `auto`: pause where it is allowed and holds back writes alone (6.2), else min-replicas, else acl, else a pause of everything.",
    ),
    key(
        "cutover.pause",
        Kind::Time,
        r#""10s""#,
        "One CLIENT PAUSE; it is renewed in time. If cutover dies, writes go on after at most this. (Sources before 6.2 are paused once, reads included.)",
    ),
    key(
        "cutover.fence_limit",
        Kind::Time,
        r#""60s""#,
        "The longest time that writes are held back before the switch; then all is undone.",
    ),
    key(
        "cutover.fence_command",
        Kind::Text,
        r#""""#,
        "For fence = \"command\": run by a shell; it has to keep all writes away from the source, and exit with 0.",
    ),
    key(
        "cutover.unfence_command",
        Kind::Text,
        r#""""#,
        "Takes back what fence_command did.",
    ),
    key(
        "cutover.acl_keep",
        Kind::Texts,
        "[]",
        "Users whose rights are left alone by fence = \"acl\" and by seal; ours is always one of them if the way back is wanted.",
    ),
    key(
        "cutover.seal",
        Kind::Bool,
        "true",
        "After a switch with fence = \"pause\": the source's users may not write any more (ACL SETUSER), so that nobody writes there when the pause ends; `cutover --unfence` gives their rights back.",
    ),
    key(
        "cutover.kill_clients",
        Kind::Bool,
        "false",
        "At the switch, end the clients' connections to the source (CLIENT KILL), so that they connect anew, where their configuration then says.",
    ),
    key(
        "cutover.compare",
        Kind::Word(&["full", "sample", "none"]),
        r#""sample""#,
        "What is compared before the switch, while writes are held back: every key, some 10,000, or nothing.",
    ),
    key(
        "cutover.on_go",
        Kind::Text,
        r#""""#,
        "Run by a shell at the switch (UNDERSTUDY_TARGET and others in its environment): DNS, configuration.",
    ),
    key(
        "cutover.on_reverse",
        Kind::Text,
        r#""""#,
        "Run by a shell, with --reverse, when the way back can begin: it has to start `understudy reverse --start shake.toml`, and come back.",
    ),
    key(
        "cutover.late_writes",
        Kind::Word(&["hold", "apply"]),
        r#""hold""#,
        "What is written at the source after the switch: `hold` keeps it in the spool and counts it; `apply` brings it to the target all the same, expiries of the old server included.",
    ),
    key(
        "cutover.watch",
        Kind::Time,
        r#""30s""#,
        "How long `cutover --yes` watches the old server after the switch, with the fence up.",
    ),
    key(
        "cutover.username",
        Kind::Text,
        r#""""#,
        "User at the source for `cutover`, if not sync_reader's: it needs +client +info, and +acl for fence = \"acl\".",
    ),
    key("cutover.password", Kind::Secret, r#""""#, "Its password."),
];

/// How a switch-over is done.
#[derive(Debug, Clone)]
pub struct CutoverConfig {
    /// How often sync asks the source who is connected; zero: never.
    pub watch_clients: Duration,
    /// What keeps writes away from the source.
    pub fence: FenceKind,
    /// One CLIENT PAUSE.
    pub pause: Duration,
    /// The longest time that writes are held back before all is undone.
    pub fence_limit: Duration,
    /// Keeps writes away, by hook.
    pub fence_command: Option<String>,
    /// Takes that back.
    pub unfence_command: Option<String>,
    /// Users whose rights are left alone.
    pub acl_keep: Vec<String>,
    /// After a pause the users may not write any more.
    pub seal: bool,
    /// Ends connections to the source at the switch.
    pub kill_clients: bool,
    /// What is compared.
    pub compare: CompareExtent,
    /// Run at the switch.
    pub on_go: Option<String>,
    /// Run when the way back can begin.
    pub on_reverse: Option<String>,
    /// What is written at the source after the switch is applied all the same.
    pub applies_late: bool,
    /// How long the source is watched after an unattended switch.
    pub watch: Duration,
    /// Who we are at the source where its clients are held back, if not whom `sync_reader` names.
    pub auth: Option<Auth>,
}

/// What keeps writes away from the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FenceKind {
    /// CLIENT PAUSE where it is allowed and holds back writes alone; else min-replicas, else the users' rights, else a pause of all.
    Auto,
    /// CLIENT PAUSE.
    Pause,
    /// The users lose the right to write.
    Acl,
    /// `min-replicas-to-write` that nobody meets.
    MinReplicas,
    /// A command of the operator's.
    Command,
    /// The operator, by hand.
    Manual,
}

impl FenceKind {
    /// Its name in the configuration.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("auto", Self::Auto),
        ("pause", Self::Pause),
        ("acl", Self::Acl),
        ("min-replicas", Self::MinReplicas),
        ("command", Self::Command),
        ("manual", Self::Manual),
    ];

    pub(crate) fn named(name: &str) -> Self {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map_or(Self::Auto, |(_, kind)| *kind)
    }
}

/// What is compared before the switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CompareExtent {
    /// Every key.
    Full,
    /// Some 10,000 keys.
    Sample,
    /// Nothing.
    None,
}

pub(super) fn read(doc: &Document) -> Result<CutoverConfig, ConfigError> {
    let time = |path: &'static str| Duration::from_millis(doc.int(path));
    let fence = FenceKind::named(&doc.text("cutover.fence"));
    let fence_command = optional(doc.text("cutover.fence_command"));
    let unfence_command = optional(doc.text("cutover.unfence_command"));
    if fence == FenceKind::Command && (fence_command.is_none() || unfence_command.is_none()) {
        let what =
            "cutover.fence = \"command\" needs cutover.fence_command and cutover.unfence_command";
        return Err(doc.error("cutover.fence", what));
    }
    let pause = time("cutover.pause");
    if pause < Duration::from_secs(1) {
        let what = "cutover.pause must be at least 1s: it is renewed in time only then";
        return Err(doc.error("cutover.pause", what));
    }
    let (user, password) = (
        optional(doc.text("cutover.username")),
        optional(doc.text("cutover.password")),
    );
    if user.is_some() && password.is_none() {
        let what = "cutover.username is set without cutover.password";
        return Err(doc.error("cutover.username", what));
    }
    Ok(CutoverConfig {
        watch_clients: time("cutover.watch_clients"),
        fence,
        pause,
        fence_limit: time("cutover.fence_limit"),
        fence_command,
        unfence_command,
        acl_keep: doc.texts("cutover.acl_keep"),
        seal: doc.bool("cutover.seal"),
        kill_clients: doc.bool("cutover.kill_clients"),
        compare: match doc.text("cutover.compare").as_str() {
            "full" => CompareExtent::Full,
            "none" => CompareExtent::None,
            _ => CompareExtent::Sample,
        },
        on_go: optional(doc.text("cutover.on_go")),
        on_reverse: optional(doc.text("cutover.on_reverse")),
        applies_late: doc.text("cutover.late_writes") == "apply",
        watch: time("cutover.watch"),
        auth: password.map(|password| Auth {
            username: user,
            proof: Proof::Password(Secret::new(&password)),
            renew_after: None,
        }),
    })
}
