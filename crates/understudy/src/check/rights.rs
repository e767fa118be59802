//! What the users may do: PSYNC at the source, commands at both ends, found out without doing any of it.
//!
//! A command that is queued behind MULTI was looked at for permission, and DISCARD throws it away; nothing is sent before
//! MULTI has said OK. PSYNC is no command for a transaction from 7.0 on: there, an offset that is no number is refused
//! after permission was looked at and before anything is begun. (6.0 and 6.2 would begin a full sync on such an offset;
//! they queue PSYNC. Before 6.0 there are no permissions.)

use resp::{ErrorCode, Value};
use rewrite::Version;

use super::facts::Server;
use super::finding::{Finding, fail, pass, unknown, warn};
use super::provider::Provider;
use crate::client::Client;
use crate::config::{Config, Endpoint, ScanWhen, SlotFence};
use crate::error::{Side, SyncError};
use crate::target::version_of;

/// The least rights of a user at the source.
pub(super) const SOURCE_RIGHTS: &str = "+ping +psync +replconf +info";
/// Those by which it can repair keys, let leases end, compare.
pub(super) const SOURCE_MORE: &str = "~* +multi +exec +select +dump +pttl +pexpiretime +time +memory|usage +scan +exists +type +function|list";
/// The least rights of a user at the target.
pub(super) const TARGET_RIGHTS: &str = "~* +@write +ping +info +select +multi +exec +watch +unwatch +get +scan +command +pttl +pexpiretime +time +pfcount +script|load";
/// Those that a cluster needs beside them.
const CLUSTER_RIGHTS: &str =
    "+cluster|slots +cluster|info +cluster|nodes +asking +wait +dump +lindex +memory|usage";
/// Those that a cluster needs where the source is one too: what is in the slots that are taken over.
const SLOT_RIGHTS: &str = "+cluster|countkeysinslot +cluster|getkeysinslot";
/// By which connections of a writer that was replaced are ended there.
const KILL_RIGHTS: &str = "+client|list +client|kill +client|setname";
/// By which what they write comes to nothing instead.
const SCRIPT_RIGHTS: &str = "+eval +evalsha";
/// Those that compare needs beside them.
const TARGET_MORE: &str = "+dump +exists +type +memory|usage +function|list";

/// A key that is not there; nothing is ever written to it.
const KEY: &[u8] = b"understudy:check";

/// The least rights of the user at this target.
fn target_rights(config: &Config) -> String {
    let fence = match &config.target.cluster {
        None => return TARGET_RIGHTS.to_owned(),
        Some(cluster) => match cluster.fence {
            SlotFence::Lua => SCRIPT_RIGHTS,
            SlotFence::Auto | SlotFence::Kill => KILL_RIGHTS,
        },
    };
    let rights = format!("{TARGET_RIGHTS} {CLUSTER_RIGHTS} {fence}");
    match config.source.cluster {
        true => format!("{rights} {SLOT_RIGHTS}"),
        false => rights,
    }
}

/// The lines that make such users.
pub(super) fn lines(
    source: &Server,
    target: &Server,
    config: &Config,
) -> Vec<(&'static str, String)> {
    let name = |endpoint: &Endpoint| {
        endpoint
            .auth
            .username
            .clone()
            .unwrap_or("understudy".to_owned())
    };
    let own = |server: &Server, rights: &str| {
        let mut rights: Vec<&str> = rights.split(' ').collect();
        // What a server does not know cannot be allowed there.
        if !server.end.has(7, 0) {
            rights.retain(|right| !right.contains("pexpiretime") && !right.contains("function"));
        }
        if has_field_ttl(server) && rights.contains(&"+watch") {
            rights.push("+hpttl");
        }
        rights.join(" ")
    };
    vec![
        (
            "source",
            format!(
                "ACL SETUSER {} on >PASSWORD {}    (and for repairs and compare: {})",
                name(&config.source.endpoint),
                SOURCE_RIGHTS,
                own(source, SOURCE_MORE)
            ),
        ),
        (
            "target",
            format!(
                "ACL SETUSER {} on >PASSWORD {}    (and for compare: {})",
                name(&config.target.endpoint),
                own(target, &target_rights(config)),
                own(target, TARGET_MORE)
            ),
        ),
    ]
}

fn has_field_ttl(server: &Server) -> bool {
    let commands = server.commands.as_ref();
    commands.is_some_and(|commands| commands.contains("hpttl"))
}

/// What came of asking for one command.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Allowed,
    Denied,
    /// There is no such command.
    Lacking(String),
    Unclear(String),
}

fn answer(reply: &Value) -> Answer {
    match reply {
        Value::Error(error) => {
            let text = String::from_utf8_lossy(&error.text).into_owned();
            match error.code {
                ErrorCode::NoPerm => Answer::Denied,
                _ if text.to_ascii_lowercase().contains("unknown command")
                    || text.to_ascii_lowercase().contains("unknown subcommand") =>
                {
                    Answer::Lacking(text)
                }
                _ => Answer::Unclear(text),
            }
        }
        _ => Answer::Allowed,
    }
}

/// Whether PSYNC is offered to us.
///
/// # Errors
/// Those of the connection.
pub(super) async fn psync(config: &Config, source: &Server) -> Result<Finding, SyncError> {
    const CHECK: &str = "psync";
    if config.scan.when == ScanWhen::Always {
        return Ok(pass(CHECK, "not needed: the source is read by SCAN"));
    }
    let command = config
        .source
        .psync_at(&config.source.endpoint.address)
        .as_bytes();
    let mut client = Client::connect(&config.source.endpoint, Side::Source).await?;
    if !command.eq_ignore_ascii_case(b"psync") && takes_no_words(&mut client, command).await? {
        return Ok(fail(
            CHECK,
            "the command that sync_reader.psync_command names takes no words, as SYNC does: it begins a snapshot, and cannot be followed",
            source.provider.psync_mend(),
        ));
    }
    // Too few words: this tells whether the command is there, and no more.
    let text = match client.ask(&[command]).await? {
        Value::Error(error) => String::from_utf8_lossy(&error.text).into_owned(),
        other => format!("{other:?}"),
    };
    let lower = text.to_ascii_lowercase();
    let mend = source.provider.psync_mend();
    if lower.contains("noperm") || lower.contains("no permissions") {
        return Ok(denied(CHECK));
    }
    if !lower.contains("wrong number of arguments") {
        let what = format!("the source does not offer PSYNC ({text})");
        return Ok(fail(CHECK, what, mend));
    }
    let replconf = client.ask(&[b"REPLCONF", b"capa", b"eof"]).await?;
    match answer(&replconf) {
        Answer::Denied => return Ok(denied(CHECK)),
        Answer::Lacking(text) => {
            let what = format!("the source does not offer REPLCONF ({text})");
            return Ok(fail(CHECK, what, mend));
        }
        Answer::Allowed | Answer::Unclear(_) => {}
    }
    if !command.eq_ignore_ascii_case(b"psync") {
        // It is not tried: an ordinary server would take it for SYNC, and begin one.
        return Ok(match source.provider {
            Provider::Own => warn(
                CHECK,
                "the source has the command that sync_reader.psync_command names; an ordinary server answers a renamed PSYNC as SYNC, which cannot be followed",
                "if it is one, take rename-command out of its configuration and start it anew",
            ),
            provider => pass(
                CHECK,
                format!(
                    "{} has the command that sync_reader.psync_command names",
                    provider.name()
                ),
            ),
        });
    }
    let is_allowed = match source.end.has(6, 0) {
        false => Answer::Allowed,
        true => allowed_psync(&mut client, command, source.end.has(7, 0)).await?,
    };
    Ok(match is_allowed {
        Answer::Allowed => pass(CHECK, "the source offers PSYNC"),
        Answer::Denied => denied(CHECK),
        Answer::Lacking(text) => fail(
            CHECK,
            format!("the source does not offer PSYNC ({text})"),
            mend,
        ),
        Answer::Unclear(text) => unknown(
            CHECK,
            format!(
                "the source has PSYNC; whether this user may use it is not to be told without a sync ({text})"
            ),
            format!("it needs {SOURCE_RIGHTS}"),
        ),
    })
}

/// What a server answers that surely does not offer PSYNC to us; nothing of a sync is begun.
///
/// # Errors
/// Those of the connection.
pub(crate) async fn refusal_of_psync(
    config: &Config,
    endpoint: &Endpoint,
) -> Result<Option<String>, SyncError> {
    let command = config.source.psync_at(&endpoint.address).as_bytes();
    let mut client = Client::connect(endpoint, Side::Source).await?;
    // Too few words: this tells whether the command is there, and no more.
    let told = client.ask(&[command]).await?;
    let text = match &told {
        Value::Error(error) => String::from_utf8_lossy(&error.text).into_owned(),
        _ => return Ok(None),
    };
    if matches!(answer(&told), Answer::Denied | Answer::Lacking(_)) {
        return Ok(Some(text));
    }
    let is_own_name = command.eq_ignore_ascii_case(b"psync");
    let version = match client.info("server").await {
        Ok(info) => version_of(&info).and_then(|(_, version)| version.parse::<Version>().ok()),
        Err(_) => None,
    };
    // Before 6.0 there are no rights; and what has another name is not tried.
    let version = version.filter(|version| is_own_name && *version >= Version::new(6, 0, 0));
    let Some(version) = version else {
        return Ok(None);
    };
    let is_7 = version >= Version::new(7, 0, 0);
    Ok(match allowed_psync(&mut client, command, is_7).await? {
        Answer::Denied => Some("NOPERM: its user may not use it".to_owned()),
        Answer::Lacking(text) => Some(text),
        Answer::Allowed | Answer::Unclear(_) => None,
    })
}

/// Whether a command is said alone, where COMMAND tells. That is not tried.
async fn takes_no_words(client: &mut Client, command: &[u8]) -> Result<bool, SyncError> {
    let told = client.ask(&[b"COMMAND", b"INFO", command]).await?;
    let Value::Array(rows) = &told else {
        return Ok(false);
    };
    Ok(match rows.first() {
        Some(Value::Array(facts)) => facts.get(1) == Some(&Value::Int(1)),
        _ => false,
    })
}

fn denied(check: &'static str) -> Finding {
    fail(
        check,
        "the source has PSYNC, but its user may not use it",
        format!("ACL SETUSER <user> {SOURCE_RIGHTS}"),
    )
}

async fn allowed_psync(
    client: &mut Client,
    command: &[u8],
    is_7: bool,
) -> Result<Answer, SyncError> {
    if is_7 {
        let reply = client.ask(&[command, b"?", b"x"]).await?;
        return Ok(match answer(&reply) {
            Answer::Unclear(text) if text.contains("not an integer") => Answer::Allowed,
            other => other,
        });
    }
    if client.ask(&[b"MULTI"]).await? != Value::Simple("OK".into()) {
        return Ok(Answer::Unclear("MULTI was refused".to_owned()));
    }
    let reply = client.ask(&[command, b"?", b"-1"]).await?;
    // The connection is given up behind this, and with it what is queued.
    client.ask(&[b"DISCARD"]).await?;
    Ok(answer(&reply))
}

/// Which of these commands are denied, by their names; an error where MULTI is.
async fn denied_of(
    endpoint: &Endpoint,
    side: Side,
    queued: &[&[&[u8]]],
    plain: &[&[&[u8]]],
) -> Result<Result<Vec<String>, String>, SyncError> {
    let mut client = Client::connect(endpoint, side).await?;
    let mut denied = Vec::new();
    let mut note = |argv: &[&[u8]], reply: &Value| {
        if answer(reply) == Answer::Denied {
            let name = argv.first().copied().unwrap_or_default();
            denied.push(String::from_utf8_lossy(name).to_ascii_lowercase());
        }
    };
    for argv in plain {
        note(argv, &client.ask(argv).await?);
    }
    match client.ask(&[b"MULTI"]).await? {
        Value::Simple(_) => {}
        Value::Error(error) => {
            return Ok(Err(String::from_utf8_lossy(&error.text).into_owned()));
        }
        other => return Ok(Err(format!("{other:?}"))),
    }
    for argv in queued {
        note(argv, &client.ask(argv).await?);
    }
    client.ask(&[b"DISCARD"]).await?;
    Ok(Ok(denied))
}

/// What the user at the source may do beside PSYNC.
///
/// # Errors
/// Those of the connection.
pub(super) async fn source(config: &Config, source: &Server) -> Result<Finding, SyncError> {
    const CHECK: &str = "source_rights";
    if !source.end.has(6, 0) {
        return Ok(pass(
            CHECK,
            "the source has no users with rights of their own",
        ));
    }
    let mut queued: Vec<&[&[u8]]> = vec![
        &[b"DUMP", KEY],
        &[b"PTTL", KEY],
        &[b"TIME"],
        &[b"MEMORY", b"USAGE", KEY],
        &[b"EXISTS", KEY],
        &[b"TYPE", KEY],
        &[b"SCAN", b"0"],
        &[b"SELECT", b"0"],
    ];
    if source.end.has(7, 0) {
        queued.push(&[b"PEXPIRETIME", KEY]);
    }
    let endpoint = &config.source.endpoint;
    let found = denied_of(endpoint, Side::Source, &queued, &[&[b"INFO", b"server"]]).await?;
    let mend = format!("ACL SETUSER <user> {SOURCE_MORE}");
    Ok(match found {
        Ok(denied) if denied.is_empty() => pass(
            CHECK,
            "the user may do all that sync, repairs and compare need",
        ),
        Ok(denied) if denied.iter().any(|name| name == "info") => warn(
            CHECK,
            "the user may not ask INFO: the source's version and offset are not known, and keys that end during an outage are not looked for",
            format!("ACL SETUSER <user> {SOURCE_RIGHTS}"),
        ),
        Ok(denied) => warn(
            CHECK,
            format!(
                "the user may not {}: a key that somebody else writes at the target is not repaired but ends in a new snapshot, and compare cannot read",
                denied.join(", ")
            ),
            mend,
        ),
        Err(text) => warn(
            CHECK,
            format!("the user may not MULTI ({text}): keys cannot be repaired one by one"),
            mend,
        ),
    })
}

/// What the user at the target may do.
///
/// # Errors
/// Those of the connection.
pub(super) async fn target(config: &Config, target: &Server) -> Result<Finding, SyncError> {
    const CHECK: &str = "target_rights";
    if !target.end.has(6, 0) {
        return Ok(pass(
            CHECK,
            "the target has no users with rights of their own",
        ));
    }
    let mut queued: Vec<&[&[u8]]> = vec![
        &[b"SET", KEY, b"v"],
        &[b"GET", KEY],
        &[b"DEL", KEY],
        &[b"MSET", KEY, b"v"],
        &[b"RESTORE", KEY, b"0", b"x"],
        &[b"PEXPIREAT", KEY, b"1"],
        &[b"HSET", KEY, b"f", b"v"],
        &[b"RPUSH", KEY, b"v"],
        &[b"SADD", KEY, b"v"],
        &[b"ZADD", KEY, b"1", b"v"],
        &[b"XADD", KEY, b"*", b"f", b"v"],
        &[b"INCR", KEY],
        &[b"PFCOUNT", KEY],
        &[b"FLUSHALL"],
        &[b"SWAPDB", b"0", b"0"],
        &[b"SCRIPT", b"LOAD", b"return 1"],
        &[b"SCAN", b"0"],
        &[b"SELECT", b"0"],
        &[b"COMMAND"],
        &[b"PTTL", KEY],
        &[b"TIME"],
        &[b"INFO", b"server"],
        // A key of the source may have any name.
        &[b"SET", b"\xff any name", b"v"],
    ];
    if target.end.has(7, 0) {
        queued.push(&[b"PEXPIRETIME", KEY]);
        queued.push(&[b"FUNCTION", b"DELETE", b"understudy"]);
    }
    if has_field_ttl(target) {
        queued.push(&[b"HPTTL", KEY, b"FIELDS", b"1", b"f"]);
    }
    let mut plain: Vec<&[&[u8]]> = vec![&[b"WATCH", KEY], &[b"UNWATCH"]];
    if config.target.cluster.is_some() {
        queued.extend::<[&[&[u8]]; 2]>([&[b"DUMP", KEY], &[b"LINDEX", KEY, b"0"]]);
        plain.extend::<[&[&[u8]]; 3]>([
            &[b"CLUSTER", b"SLOTS"],
            &[b"CLUSTER", b"INFO"],
            &[b"ASKING"],
        ]);
        if config.source.cluster {
            plain.push(&[b"CLUSTER", b"COUNTKEYSINSLOT", b"0"]);
            plain.push(&[b"CLUSTER", b"GETKEYSINSLOT", b"0", b"1"]);
        }
    }
    let endpoint = &config.target.endpoint;
    let found = denied_of(endpoint, Side::Target, &queued, &plain).await?;
    let mend = format!("ACL SETUSER <user> {}", target_rights(config));
    Ok(match found {
        Ok(denied) if denied.is_empty() => pass(CHECK, "the user may do all that sync needs"),
        Ok(mut denied) => {
            denied.dedup();
            fail(
                CHECK,
                format!("the user may not {}", denied.join(", ")),
                mend,
            )
        }
        Err(text) => fail(CHECK, format!("the user may not MULTI ({text})"), mend),
    })
}
