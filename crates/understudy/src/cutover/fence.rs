//! What keeps writes away from the source, at each of its nodes, and takes that back exactly.
//!
//! Of a source cluster every primary is fenced, or none. What outlives a change of roles (rights, parameters) is set at the
//! replicas too: one that is made a primary meanwhile keeps writes away as its predecessor did.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::{join_all, select_all};
use resp::{ErrorCode, Value};
use rewrite::Version;
use tokio::time::Instant;

use super::acl;
use super::hooks;
use crate::check::{Provider, provider};
use crate::client::{Client, Info};
use crate::config::{Config, Endpoint, FenceKind};
use crate::error::{Class, Side, SyncError};
use crate::handover::mark::Undo;
use crate::shard::survey::Survey;
use crate::target::version_of;

/// CLIENT PAUSE .. WRITE and CLIENT UNPAUSE came with it.
const PAUSES_WRITES: Version = Version::new(6, 2, 0);
/// No source has so many replicas.
const REPLICAS: &str = "999";

/// What a source lets us do.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) version: Version,
    pub(super) provider: Provider,
    /// Why not, where it does not.
    pause: Result<(), String>,
    acl: Result<(), String>,
    config: Result<(), String>,
}

/// Where it is put up.
#[derive(Debug, Clone)]
pub(super) struct Sites {
    primaries: Vec<Endpoint>,
    replicas: Vec<Endpoint>,
    is_cluster: bool,
}

impl Sites {
    /// One server.
    pub(super) fn one(endpoint: Endpoint) -> Self {
        Self {
            primaries: vec![endpoint],
            replicas: Vec::new(),
            is_cluster: false,
        }
    }

    /// The nodes of a cluster, which are reached as `endpoint` is.
    pub(super) fn of(endpoint: &Endpoint, survey: &Survey) -> Self {
        let node = |address: String| Endpoint {
            address,
            ..endpoint.clone()
        };
        Self {
            primaries: survey.addresses().into_iter().map(node).collect(),
            replicas: survey.replicas.keys().cloned().map(node).collect(),
            is_cluster: true,
        }
    }

    pub(super) fn primaries(&self) -> &[Endpoint] {
        &self.primaries
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Endpoint> {
        self.primaries.iter().chain(&self.replicas)
    }

    /// What takes the right to write at all of them, with what gives it back; see [`acl::plan`].
    ///
    /// # Errors
    /// Those of the connections; what was refused.
    pub(super) async fn without_writes(&self, keep: &[String]) -> Result<Vec<Change>, SyncError> {
        let mut planned = Vec::new();
        for site in self.all() {
            planned.extend(self.at(site, acl::plan(site, keep).await?));
        }
        Ok(planned)
    }

    /// The node is named where there are several.
    fn at(&self, site: &Endpoint, planned: Vec<Change>) -> Vec<Change> {
        let mut planned = planned;
        if self.is_cluster {
            for (_, undo) in &mut planned {
                site.address.clone_into(&mut undo.node);
            }
        }
        planned
    }
}

/// The words of a command, and what takes it back.
pub(super) type Change = (Vec<String>, Undo);

/// A fence.
#[derive(Debug)]
pub(super) struct Fence {
    /// As the source is reached.
    endpoint: Endpoint,
    sites: Sites,
    kind: FenceKind,
    pause: Duration,
    /// The pause is one of writes alone.
    only_writes: bool,
    commands: [Option<String>; 2],
    /// What takes back what it does.
    pub(super) undo: Vec<Undo>,
    /// What puts it up, where it is one of rights or parameters.
    changes: Vec<Change>,
    up_since: Cell<Option<Instant>>,
    paused_until: Cell<Option<Instant>>,
    /// It is not to be kept up any more.
    is_lifted: Cell<bool>,
}

/// The source as `cutover` reaches it.
pub(super) fn endpoint(config: &Config) -> Endpoint {
    let mut endpoint = config.source.endpoint.clone();
    if let Some(auth) = &config.cutover.auth {
        endpoint.auth = auth.clone();
    }
    endpoint
}

impl Means {
    /// Finds out, without doing any of it: commands are queued behind MULTI and thrown away.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn look(endpoint: &Endpoint) -> Result<Self, SyncError> {
        let mut client = Client::connect(endpoint, Side::Source).await?;
        let info = client.info("server").await?;
        let version = version_of(&info).and_then(|(_, version)| version.parse().ok());
        let version = version.unwrap_or(Version::new(2, 8, 0));
        let questions: [&[&[u8]]; 3] = [
            &[b"CLIENT", b"PAUSE", b"0"],
            &[b"ACL", b"SETUSER", b"understudy"],
            &[b"CONFIG", b"SET", b"min-replicas-to-write", b"0"],
        ];
        let mut answers = Vec::new();
        if let Value::Error(error) = client.ask(&[b"MULTI"]).await? {
            answers.resize(3, Err(String::from_utf8_lossy(&error.text).into_owned()));
        } else {
            for question in questions {
                answers.push(match client.ask(question).await? {
                    Value::Error(error) => Err(String::from_utf8_lossy(&error.text).into_owned()),
                    _ => Ok(()),
                });
            }
            client.ask(&[b"DISCARD"]).await?;
        }
        let mut answers = answers.into_iter();
        let mut next = || answers.next().unwrap_or(Ok(()));
        Ok(Self {
            version,
            provider: provider(endpoint.host(), &info),
            pause: next(),
            acl: next(),
            config: next(),
        })
    }

    /// What all of several nodes let us do.
    ///
    /// # Errors
    /// Those of the connections.
    pub(super) async fn look_at(sites: &Sites) -> Result<Self, SyncError> {
        let looks = join_all(sites.all().map(Self::look)).await;
        let mut all: Option<Self> = None;
        for (site, look) in sites.all().zip(looks) {
            let mut look = look?;
            if sites.is_cluster {
                for refusal in [&mut look.pause, &mut look.acl, &mut look.config] {
                    if let Err(why) = refusal {
                        *why = format!("{}: {why}", site.address);
                    }
                }
            }
            all = Some(match all {
                None => look,
                Some(all) => all.and(look),
            });
        }
        let none = || {
            let what = "no node of the source is known";
            SyncError::stop(Side::Source, "", what)
        };
        all.ok_or_else(none)
    }

    fn and(self, other: Self) -> Self {
        Self {
            version: self.version.min(other.version),
            provider: self.provider,
            pause: self.pause.and(other.pause),
            acl: self.acl.and(other.acl),
            config: self.config.and(other.config),
        }
    }

    /// What `auto` comes to.
    fn best(&self) -> Result<FenceKind, String> {
        let has_write = self.version >= PAUSES_WRITES;
        match (&self.pause, &self.config, &self.acl) {
            (Ok(()), _, _) if has_write => Ok(FenceKind::Pause),
            (_, Ok(()), _) => Ok(FenceKind::MinReplicas),
            (_, _, Ok(())) => Ok(FenceKind::Acl),
            (Ok(()), _, _) => Ok(FenceKind::Pause),
            (Err(pause), Err(config), Err(acl)) => Err(format!(
                "{} lets this user neither pause clients ({pause}), nor set parameters ({config}), nor users' rights ({acl}): give cutover.username a user that may (+client +acl), or fence by yourself (cutover.fence = \"command\" or \"manual\")",
                self.provider.name()
            )),
        }
    }

    /// Whether the users can be kept from writing.
    pub(super) fn may_seal(&self) -> bool {
        self.acl.is_ok()
    }

    fn refusal(&self, kind: FenceKind) -> Option<&String> {
        match kind {
            FenceKind::Pause => self.pause.as_ref().err(),
            FenceKind::Acl => self.acl.as_ref().err(),
            FenceKind::MinReplicas => self.config.as_ref().err(),
            FenceKind::Auto | FenceKind::Command | FenceKind::Manual => None,
        }
    }
}

impl Fence {
    /// The one that is wished for, with what takes it back.
    ///
    /// # Errors
    /// A sentence: it cannot be had.
    pub(super) async fn plan(
        config: &Config,
        kind: FenceKind,
        means: &Means,
        sites: &Sites,
        keep: &[String],
    ) -> Result<Self, String> {
        let kind = match kind {
            FenceKind::Auto => means.best()?,
            kind => kind,
        };
        if let Some(why) = means.refusal(kind) {
            return Err(format!(
                "the fence is not allowed to this user at {}: {why}",
                means.provider.name()
            ));
        }
        let cutover = &config.cutover;
        let mut fence = Self {
            sites: sites.clone(),
            kind,
            pause: cutover.pause,
            only_writes: means.version >= PAUSES_WRITES,
            commands: [
                cutover.fence_command.clone(),
                cutover.unfence_command.clone(),
            ],
            undo: Vec::new(),
            changes: Vec::new(),
            up_since: Cell::default(),
            paused_until: Cell::default(),
            is_lifted: Cell::default(),
            endpoint: endpoint(config),
        };
        let words = |error: SyncError| error.to_string();
        let planned = match kind {
            FenceKind::Acl => sites.without_writes(keep).await.map_err(words)?,
            FenceKind::MinReplicas => {
                let mut planned = Vec::new();
                for site in sites.all() {
                    planned.extend(sites.at(site, min_replicas(site).await.map_err(words)?));
                }
                planned
            }
            _ => Vec::new(),
        };
        if sites.is_cluster && fence.is_deaf() {
            return Err("a pause before 6.2 stops our own questions too, and the nodes of a cluster have to be asked under the fence: fence by acl or min-replicas, where cutover.username may do that, or by cutover.fence_command".to_owned());
        }
        if kind == FenceKind::Acl && planned.is_empty() {
            return Err("there is no user at the source whose rights could be taken (cutover.acl_keep, or ours)".to_owned());
        }
        fence.undo = planned.iter().map(|(_, undo)| undo.clone()).collect();
        fence.changes = planned;
        Ok(fence)
    }

    /// In words.
    pub(super) fn words(&self) -> String {
        let words = self.kind_in_words();
        let own_means = matches!(self.kind, FenceKind::Command | FenceKind::Manual);
        match self.sites.is_cluster && !own_means {
            true => format!("{words}, at {} primaries", self.sites.primaries.len()),
            false => words,
        }
    }

    fn kind_in_words(&self) -> String {
        match self.kind {
            FenceKind::Pause if self.only_writes => "CLIENT PAUSE .. WRITE".to_owned(),
            FenceKind::Pause => format!(
                "CLIENT PAUSE of everything, for {} s, which cannot be taken back sooner",
                self.pause.as_secs()
            ),
            FenceKind::Acl => format!("{} users lose the right to write", self.undo.len()),
            FenceKind::MinReplicas => "min-replicas-to-write that nobody meets".to_owned(),
            FenceKind::Command => "cutover.fence_command".to_owned(),
            FenceKind::Manual | FenceKind::Auto => "by hand".to_owned(),
        }
    }

    pub(super) fn kind(&self) -> FenceKind {
        self.kind
    }

    /// Nothing can be asked of the source while it is up.
    pub(super) fn is_deaf(&self) -> bool {
        self.kind == FenceKind::Pause && !self.only_writes
    }

    /// It keeps us from writing too.
    pub(super) fn stops_us(&self) -> bool {
        matches!(self.kind, FenceKind::Pause | FenceKind::MinReplicas)
    }

    /// Puts it up, at all nodes at once. Gives the source's history and offset at that moment, where it is one server; none where
    /// somebody else puts it up.
    ///
    /// # Errors
    /// Those of the connection; what was refused. It may be up at some nodes then.
    pub(super) async fn put_up(
        &self,
        env: &[(&'static str, String)],
    ) -> Result<Option<(String, u64)>, SyncError> {
        let ms = self.pause.as_millis().to_string();
        let found = match self.kind {
            FenceKind::Pause => {
                let mut pause = vec!["CLIENT".to_owned(), "PAUSE".to_owned(), ms];
                if self.only_writes {
                    pause.push("WRITE".to_owned());
                }
                self.paused_until.set(Some(Instant::now() + self.pause));
                let pause = [pause];
                let sites = self.sites.primaries.iter();
                let up = join_all(sites.map(|site| change(site, &pause))).await;
                self.only(up.into_iter().collect::<Result<_, _>>()?)
            }
            FenceKind::Acl | FenceKind::MinReplicas => {
                self.only(change_each(&self.endpoint, &self.changes).await?)
            }
            FenceKind::Command => {
                let command = self.commands[0].clone().unwrap_or_default();
                let ran = hooks::run("cutover.fence_command", &command, env).await;
                ran.map_err(SyncError::local)?;
                None
            }
            FenceKind::Manual | FenceKind::Auto => None,
        };
        self.up_since.set(Some(Instant::now()));
        Ok(found)
    }

    fn only(&self, found: Vec<(String, u64)>) -> Option<(String, u64)> {
        found.into_iter().next().filter(|_| !self.sites.is_cluster)
    }

    /// How long it has been up.
    pub(super) fn age(&self) -> Duration {
        self.up_since
            .get()
            .map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Keeps it up; comes back only when that is not possible any more.
    pub(super) async fn keep(&self) -> SyncError {
        if self.kind != FenceKind::Pause {
            return std::future::pending().await;
        }
        let each = self.sites.primaries.iter();
        let each = each.map(|site| Box::pin(self.keep_at(site)));
        select_all(each).await.0
    }

    async fn keep_at(&self, site: &Endpoint) -> SyncError {
        let mut until = self.paused_until.get().unwrap_or_else(Instant::now);
        let lost = |why: &str| {
            let what = format!("the pause of the source's clients has ended: {why}");
            SyncError::stop(Side::Source, &site.address, what)
        };
        if !self.only_writes {
            // Our own commands wait too: it can only run out.
            tokio::time::sleep_until(until - self.pause / 10).await;
            return lost("before 6.2 it cannot be renewed; a longer cutover.pause gives more time");
        }
        let ms = self.pause.as_millis().to_string();
        let mut client = None;
        loop {
            tokio::time::sleep(self.pause / 4).await;
            if self.is_lifted.get() {
                return std::future::pending().await;
            }
            let asked = Instant::now();
            let argv: [&[u8]; 4] = [b"CLIENT", b"PAUSE", ms.as_bytes(), b"WRITE"];
            let renew = async {
                let client = match &mut client {
                    Some(client) => client,
                    none => none.insert(Client::connect(site, Side::Source).await?),
                };
                client.call(&argv).await
            };
            match tokio::time::timeout_at(until, renew).await {
                Ok(Ok(_)) => until = asked + self.pause,
                Ok(Err(error)) if error.class == Class::Stop => return lost(&error.to_string()),
                Ok(Err(error)) => {
                    client = None;
                    tracing::debug!(%error, "the pause is renewed once more");
                }
                Err(_) => return lost("the source did not answer"),
            }
        }
    }

    /// Waits until the source listens again, where it does not while the fence is up.
    pub(super) async fn heard(&self) {
        if let (true, Some(until)) = (self.is_deaf(), self.paused_until.get()) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Takes it back, at every node, whatever becomes of one.
    ///
    /// # Errors
    /// Those of the connection; what was refused first.
    pub(super) async fn release(&self, env: &[(&'static str, String)]) -> Result<(), SyncError> {
        self.is_lifted.set(true);
        match self.kind {
            FenceKind::Pause if self.only_writes => unpause_each(&self.sites.primaries).await?,
            FenceKind::Acl | FenceKind::MinReplicas => undo(&self.endpoint, &self.undo).await?,
            FenceKind::Command => {
                let command = self.commands[1].clone().unwrap_or_default();
                let ran = hooks::run("cutover.unfence_command", &command, env).await;
                ran.map_err(SyncError::local)?;
            }
            FenceKind::Pause | FenceKind::Manual | FenceKind::Auto => {}
        }
        Ok(())
    }
}

/// Lets writes go on that were paused.
///
/// # Errors
/// Those of the connection; what was refused.
pub(super) async fn unpause(endpoint: &Endpoint) -> Result<(), SyncError> {
    let mut client = Client::connect(endpoint, Side::Source).await?;
    client.call(&[b"CLIENT", b"UNPAUSE"]).await.map(drop)
}

/// The same at each of them, whatever becomes of one.
///
/// # Errors
/// What was refused first.
pub(super) async fn unpause_each(sites: &[Endpoint]) -> Result<(), SyncError> {
    let done = join_all(sites.iter().map(unpause)).await;
    done.into_iter().collect()
}

/// Those of a node together, by the node that each names; without one it is the source itself.
fn by_node<'a, T>(
    endpoint: &Endpoint,
    all: impl Iterator<Item = (&'a str, T)>,
) -> Vec<(Endpoint, Vec<T>)> {
    let mut nodes: BTreeMap<&str, Vec<T>> = BTreeMap::new();
    for (node, one) in all {
        nodes.entry(node).or_default().push(one);
    }
    let endpoint = |node: &str| match node {
        "" => endpoint.clone(),
        node => Endpoint {
            address: node.to_owned(),
            ..endpoint.clone()
        },
    };
    let nodes = nodes.into_iter();
    nodes.map(|(node, all)| (endpoint(node), all)).collect()
}

/// Does changes at the nodes that they name, each node's at once; gives what [`change`] does of each.
///
/// # Errors
/// As [`change`], of the first that fails; the others are done.
pub(super) async fn change_each(
    endpoint: &Endpoint,
    changes: &[Change],
) -> Result<Vec<(String, u64)>, SyncError> {
    let changes = changes.iter();
    let changes = changes.map(|(words, undo)| (undo.node.as_str(), words.clone()));
    let nodes = by_node(endpoint, changes);
    let done = join_all(nodes.iter().map(|(node, changes)| change(node, changes))).await;
    done.into_iter().collect()
}

/// Does changes at once. Gives the source's history and offset at that very moment: whatever clients have written lies
/// before it.
///
/// # Errors
/// Those of the connection; what was refused.
pub(super) async fn change(
    endpoint: &Endpoint,
    changes: &[Vec<String>],
) -> Result<(String, u64), SyncError> {
    let mut client = Client::connect(endpoint, Side::Source).await?;
    let mut commands: Vec<Vec<&[u8]>> = vec![vec![b"MULTI"]];
    for change in changes {
        commands.push(change.iter().map(String::as_bytes).collect());
    }
    commands.push(vec![b"INFO", b"replication"]);
    commands.push(vec![b"EXEC"]);
    let replies = client.ask_all(&commands).await?;
    for (command, reply) in commands.iter().zip(&replies) {
        if let Value::Error(error) = reply
            && error.code != ErrorCode::ExecAbort
        {
            return Err(client.refused(command, error));
        }
    }
    let Some(Value::Array(done)) = replies.last() else {
        let what = "EXEC answered something that a Redis would not say";
        return Err(SyncError::stop(Side::Source, &endpoint.address, what));
    };
    for (command, reply) in commands.iter().skip(1).zip(done) {
        if let Value::Error(error) = reply {
            return Err(client.refused(command, error));
        }
    }
    let info = done
        .last()
        .and_then(Value::as_bytes)
        .map(|text| Info::of(text));
    let told = info.as_ref().and_then(position);
    told.ok_or_else(|| {
        let what = "INFO replication tells no offset";
        SyncError::stop(Side::Source, &endpoint.address, what)
    })
}

/// History and offset out of INFO replication.
pub(super) fn position(info: &Info) -> Option<(String, u64)> {
    let replid = info.get("master_replid")?.trim().to_owned();
    Some((replid, info.get("master_repl_offset")?.trim().parse().ok()?))
}

/// Does what takes changes back, the last one first; all of them, whatever becomes of one.
///
/// # Errors
/// Those of the connection; what was refused first.
pub(super) async fn undo(endpoint: &Endpoint, all: &[Undo]) -> Result<(), SyncError> {
    let nodes = by_node(endpoint, all.iter().map(|undo| (undo.node.as_str(), undo)));
    let done = join_all(nodes.iter().map(|(node, all)| undo_at(node, all))).await;
    done.into_iter().collect()
}

async fn undo_at(endpoint: &Endpoint, all: &[&Undo]) -> Result<(), SyncError> {
    let mut client = Client::connect(endpoint, Side::Source).await?;
    let mut first = Ok(());
    for undo in all.iter().rev() {
        let argv: Vec<&[u8]> = undo.command.iter().map(|word| word.as_bytes()).collect();
        let done = client.call(&argv).await.map(drop);
        first = first.and(done);
    }
    first
}

/// Parameters that no set of replicas meets, and what they are now.
async fn min_replicas(endpoint: &Endpoint) -> Result<Vec<(Vec<String>, Undo)>, SyncError> {
    let mut client = Client::connect(endpoint, Side::Source).await?;
    let mut planned = Vec::new();
    // Without a lag that counts, the number is not looked at.
    for (name, value) in [
        ("min-replicas-max-lag", "10"),
        ("min-replicas-to-write", REPLICAS),
    ] {
        let reply = client.call(&[b"CONFIG", b"GET", name.as_bytes()]).await?;
        let words = match reply {
            Value::Array(words) => words,
            Value::Map(pairs) => pairs.into_iter().flat_map(|(a, b)| [a, b]).collect(),
            _ => Vec::new(),
        };
        let now = words.get(1).and_then(Value::as_bytes);
        let Some(now) = now.map(|now| String::from_utf8_lossy(now).into_owned()) else {
            let what = format!("CONFIG GET tells nothing of {name} (5.0 has it): fence otherwise");
            return Err(SyncError::stop(Side::Source, &endpoint.address, what));
        };
        if name == "min-replicas-max-lag" && now != "0" {
            continue;
        }
        let set = |value: &str| {
            ["CONFIG", "SET", name, value]
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<String>>()
        };
        let undo = Undo {
            what: name.to_owned(),
            command: set(&now),
            node: String::new(),
        };
        planned.push((set(value), undo));
    }
    Ok(planned)
}
