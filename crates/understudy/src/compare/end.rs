//! One of both ends: connections that are made anew when they are lost, what the server is, and what a key is called there.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use resp::{ErrorCode, ErrorReply, Value};
use rewrite::{Db, DbMap, Fork, Version, slot_of};

use super::large::refusal;
use super::look::Name;
use super::nodes::{self, Nodes, key_at};
use crate::backoff::Backoff;
use crate::client::{Client, Info, class_of};
use crate::config::{Config, Endpoint};
use crate::error::{Class, Side, SyncError};
use crate::target::cluster::{self, Topology, redirects};
use crate::target::version_of;

/// Everything here only reads, so it is asked again when a connection is lost; so often in a row.
const ATTEMPTS: u32 = 6;
/// Another node of a cluster may take over first.
const CLUSTER_ATTEMPTS: u32 = 12;
/// A server that answers nothing for so long is lost.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Redirections of one command that are followed.
const REDIRECTS_MAX: u32 = 8;

/// A server, or a cluster, that is read from.
pub(crate) struct End {
    pub(crate) endpoint: Endpoint,
    pub(crate) side: Side,
    pub(crate) fork: Fork,
    /// Of a cluster the oldest of its primaries'.
    pub(crate) version: Version,
    /// Connections by the node's address; where it is no cluster, one at most.
    conns: BTreeMap<String, Conn>,
    reply_bytes_max: u64,
    overran: bool,
    /// Connections that were made.
    opened: u64,
    /// MEMORY USAGE is not there, or not allowed.
    pub(super) tells_no_sizes: bool,
    cluster: Option<Nodes>,
    /// Databases and keys that are asked for have these names here.
    names: Option<DbMap>,
}

/// A connection, and the database that is selected on it.
struct Conn {
    client: Client,
    db: u32,
}

/// Whose key a key of this end is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It has this name at the source; or this is the first of several that it can have.
    Named(Vec<Name>),
    /// No key of the source has this name here.
    Nobody,
}

impl End {
    /// Connects, and asks for the version. No reply may be longer than `reply_bytes_max`.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub(crate) async fn connect(
        endpoint: &Endpoint,
        side: Side,
        reply_bytes_max: u64,
    ) -> Result<Self, SyncError> {
        Self::open(endpoint, side, reply_bytes_max, None).await
    }

    /// The same for a cluster, of which this is the address of any node.
    ///
    /// # Errors
    /// The same; stop for what is no cluster.
    pub(super) async fn connect_cluster(
        endpoint: &Endpoint,
        side: Side,
        reply_bytes_max: u64,
    ) -> Result<Self, SyncError> {
        Self::connect_cluster_by(endpoint, side, reply_bytes_max, &[]).await
    }

    /// The same for a cluster of which these nodes were seen before: they are asked first, as the one that was given may be gone.
    ///
    /// # Errors
    /// The same.
    pub(crate) async fn connect_cluster_by(
        endpoint: &Endpoint,
        side: Side,
        reply_bytes_max: u64,
        seen: &[String],
    ) -> Result<Self, SyncError> {
        let nodes = Nodes::find(endpoint, side, seen).await?;
        Self::open(endpoint, side, reply_bytes_max, Some(nodes)).await
    }

    async fn open(
        endpoint: &Endpoint,
        side: Side,
        reply_bytes_max: u64,
        cluster: Option<Nodes>,
    ) -> Result<Self, SyncError> {
        let mut end = Self {
            endpoint: endpoint.clone(),
            side,
            fork: Fork::Redis,
            version: Version::new(2, 8, 0),
            conns: BTreeMap::new(),
            reply_bytes_max,
            overran: false,
            opened: 0,
            tells_no_sizes: false,
            cluster,
            names: None,
        };
        let mut versions = Vec::new();
        for (_, told) in end.each(0, &[b"INFO", b"server"]).await? {
            // A user who may not ask gets the oldest way of doing things.
            if let Value::Bulk(text) = told
                && let Some((fork, version)) = version_of(&Info::of(&text))
            {
                end.fork = fork;
                versions.extend(version.parse::<Version>().ok());
            }
        }
        end.version = versions.into_iter().min().unwrap_or(end.version);
        Ok(end)
    }

    /// From here on databases and keys are asked for under the names that the source has for them.
    pub(super) fn name_by(&mut self, names: Option<DbMap>) {
        self.names = names;
    }

    /// Whether it is a cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        self.cluster.is_some()
    }

    /// Who has which slot, if it is a cluster.
    pub(crate) fn topology(&self) -> Option<&Topology> {
        self.cluster.as_ref().map(|nodes| &nodes.topology)
    }

    /// Asks the nodes anew who has which slot.
    ///
    /// # Errors
    /// As [`Nodes::find`].
    pub(super) async fn look_around(&mut self) -> Result<(), SyncError> {
        if let Some(nodes) = &self.cluster {
            let seen = nodes.topology.nodes();
            self.cluster = Some(Nodes::find(&self.endpoint, self.side, &seen).await?);
        }
        Ok(())
    }

    /// Addresses of all primaries; of a single server its own.
    pub(crate) fn primaries(&self) -> Vec<String> {
        match &self.cluster {
            Some(nodes) => nodes.topology.primaries(),
            None => vec![self.endpoint.address.clone()],
        }
    }

    /// The address of the primary that has this key of this end.
    pub(super) fn node_of(&self, key: &[u8]) -> String {
        let owner = self
            .cluster
            .as_ref()
            .and_then(|nodes| nodes.owner(slot_of(key)));
        owner.map_or_else(|| self.endpoint.address.clone(), str::to_owned)
    }

    /// Whose key this one of this end is.
    pub(super) fn origin(&self, db: u32, key: &Bytes) -> Origin {
        let Some(map) = &self.names else {
            return Origin::Named(vec![(db, key.clone())]);
        };
        if let Some((db, key)) = map.origin(Db(db), key) {
            return Origin::Named(vec![(db.0, key)]);
        }
        let sources = map.sources(Db(db));
        match sources.is_empty() {
            true => Origin::Nobody,
            false => Origin::Named(sources.iter().map(|db| (db.0, key.clone())).collect()),
        }
    }

    /// Other keys of the source that have the name here that this one has.
    pub(super) fn siblings(&self, (db, key): &Name) -> Vec<Name> {
        let Some(map) = self.names.as_ref().filter(|map| !map.changes_keys()) else {
            return Vec::new();
        };
        let sources = map.sources(map.db(Db(*db))).into_iter();
        let others = sources.filter(|other| other.0 != *db);
        others.map(|other| (other.0, key.clone())).collect()
    }

    /// The name that a key of the source has here, where it is another one.
    pub(super) fn name_of(&self, (db, key): &Name) -> Option<Name> {
        let map = self.names.as_ref()?;
        let name = (map.db(Db(*db)).0, map.key(Db(*db), key).into_owned().into());
        (name != (*db, key.clone())).then_some(name)
    }

    /// Whether this database of this end may hold anything that is looked at.
    pub(super) fn may_hold(&self, config: &Config, db: u32) -> bool {
        let Some(map) = &self.names else {
            return config.filter.db(Db(db));
        };
        let sources = map.sources(Db(db));
        // What is in a database that nothing goes to is somebody else's.
        sources.is_empty() || sources.iter().any(|db| config.filter.db(*db))
    }

    /// Whether it has what came with this version of Redis; Valkey parted from it after 7.2.
    pub(crate) fn has(&self, major: u16, minor: u16) -> bool {
        self.version >= Version::new(major, minor, 0)
    }

    /// `redis 7.0.15`.
    pub(crate) fn name(&self) -> String {
        let fork = match self.fork {
            Fork::Redis => "redis",
            Fork::Valkey => "valkey",
        };
        match &self.cluster {
            None => format!("{fork} {}", self.version),
            Some(nodes) => {
                let count = nodes.topology.primaries().len();
                format!("{fork} {}, a cluster of {count}", self.version)
            }
        }
    }

    /// One command; its reply, whatever it is, but one that waiting mends.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn one(&mut self, db: u32, argv: &[&[u8]]) -> Result<Value, SyncError> {
        let mut replies = self.ask(db, &[argv.to_vec()]).await?;
        Ok(replies.pop().unwrap_or(Value::Null))
    }

    /// Sends commands that only read to a database at once; gives their replies, whatever they are. Databases and keys are
    /// those of the source.
    ///
    /// # Errors
    /// Those of the connection, when it does not come back.
    pub(crate) async fn ask(
        &mut self,
        db: u32,
        commands: &[Vec<&[u8]>],
    ) -> Result<Vec<Value>, SyncError> {
        let Some(map) = &self.names else {
            return self.ask_here(db, commands).await;
        };
        let here = map.db(Db(db)).0;
        if !map.changes_keys() {
            return self.ask_here(here, commands).await;
        }
        let keys: Vec<Option<(usize, Vec<u8>)>> = commands
            .iter()
            .map(|argv| {
                let place = key_at(argv)?;
                let key = map.key(Db(db), argv.get(place)?).into_owned();
                Some((place, key))
            })
            .collect();
        let mut named = commands.to_vec();
        for (argv, key) in named.iter_mut().zip(&keys) {
            if let Some((place, key)) = key
                && let Some(word) = argv.get_mut(*place)
            {
                *word = key;
            }
        }
        self.ask_here(here, &named).await
    }

    /// The same with databases and keys as they are called here.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) async fn ask_here(
        &mut self,
        db: u32,
        commands: &[Vec<&[u8]>],
    ) -> Result<Vec<Value>, SyncError> {
        let most = match self.cluster {
            None => ATTEMPTS,
            Some(_) => CLUSTER_ATTEMPTS,
        };
        let mut backoff = Backoff::default();
        loop {
            let asked = tokio::time::timeout(TIMEOUT, self.try_ask(db, commands)).await;
            let result = asked.unwrap_or_else(|_| {
                let what = format!("it has not answered for {} s", TIMEOUT.as_secs());
                Err(SyncError::reconnect(
                    self.side,
                    &self.endpoint.address,
                    what,
                ))
            });
            match result {
                Err(error) if error.class == Class::Reconnect && backoff.attempts() < most => {
                    tracing::debug!(%error, "asking again");
                    tokio::time::sleep(backoff.pause()).await;
                }
                result => return result,
            }
        }
    }

    /// One command with the name that its key has here.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) async fn one_here(&mut self, db: u32, argv: &[&[u8]]) -> Result<Value, SyncError> {
        let mut replies = self.ask_here(db, &[argv.to_vec()]).await?;
        Ok(replies.pop().unwrap_or(Value::Null))
    }

    /// One command without a key for every primary, by its address.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn each(
        &mut self,
        db: u32,
        argv: &[&[u8]],
    ) -> Result<Vec<(String, Value)>, SyncError> {
        if self.cluster.as_ref().is_some_and(|nodes| nodes.is_stale) {
            self.look_around().await?;
        }
        let mut all = Vec::new();
        for address in self.primaries() {
            let reply = self.one_at(&address, db, argv).await?;
            all.push((address, reply));
        }
        Ok(all)
    }

    /// One command without a key for a node, which may be asked again.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn one_at(
        &mut self,
        address: &str,
        db: u32,
        argv: &[&[u8]],
    ) -> Result<Value, SyncError> {
        if self.cluster.is_none() {
            return self.one_here(db, argv).await;
        }
        let mut backoff = Backoff::default();
        loop {
            let commands = [argv.to_vec()];
            let asked = tokio::time::timeout(TIMEOUT, self.at(address, db, &commands)).await;
            let what = "it does not answer";
            let result =
                asked.unwrap_or_else(|_| Err(SyncError::reconnect(self.side, address, what)));
            match result {
                Err(error) if error.class == Class::Reconnect && backoff.attempts() < ATTEMPTS => {
                    tokio::time::sleep(backoff.pause()).await;
                }
                result => return Ok(result?.pop().unwrap_or(Value::Null)),
            }
        }
    }

    /// Commands for a node, once.
    async fn at(
        &mut self,
        address: &str,
        db: u32,
        commands: &[Vec<&[u8]>],
    ) -> Result<Vec<Value>, SyncError> {
        let conn = self.conn(address).await?;
        let (conn, replies) = exchange(conn, db, commands).await;
        self.done(address, conn, replies)
    }

    /// Takes the connection to a node, or makes one.
    async fn conn(&mut self, address: &str) -> Result<Conn, SyncError> {
        if let Some(conn) = self.conns.remove(address) {
            return Ok(conn);
        }
        let endpoint = match self.cluster {
            None => self.endpoint.clone(),
            Some(_) => Endpoint {
                address: address.to_owned(),
                ..self.endpoint.clone()
            },
        };
        let mut client = Client::connect(&endpoint, self.side)
            .await
            .inspect_err(|_| {
                if let Some(nodes) = &mut self.cluster {
                    nodes.is_stale = true;
                }
            })?;
        client.limit_replies(self.reply_bytes_max);
        self.opened += 1;
        Ok(Conn { client, db: 0 })
    }

    /// Puts a connection back; with an error it is of no use any more.
    fn done(
        &mut self,
        address: &str,
        conn: Conn,
        replies: Result<Vec<Value>, SyncError>,
    ) -> Result<Vec<Value>, SyncError> {
        match &replies {
            Ok(_) => {
                self.conns.insert(address.to_owned(), conn);
            }
            Err(_) => {
                self.overran |= conn.client.has_overrun();
                if let Some(nodes) = &mut self.cluster {
                    nodes.is_stale = true;
                }
            }
        }
        replies
    }

    async fn try_ask(&mut self, db: u32, commands: &[Vec<&[u8]>]) -> Result<Vec<Value>, SyncError> {
        if self.cluster.as_ref().is_some_and(|nodes| nodes.is_stale) {
            self.look_around().await?;
        }
        let Some(nodes) = &self.cluster else {
            let address = self.endpoint.address.clone();
            let replies = self.at(&address, db, commands).await?;
            return self.judged(&address, commands, replies);
        };
        let routes = nodes.routes(commands);
        let routes =
            routes.map_err(|what| SyncError::reconnect(self.side, &self.endpoint.address, what))?;
        let mut exchanges = Vec::with_capacity(routes.len());
        for (address, places) in routes {
            let conn = self.conn(&address).await?;
            let part: Vec<Vec<&[u8]>> = places
                .iter()
                .filter_map(|place| commands.get(*place).cloned())
                .collect();
            exchanges.push(async move {
                let (conn, replies) = exchange(conn, db, &part).await;
                (address, places, part, conn, replies)
            });
        }
        let mut answers = vec![Value::Null; commands.len()];
        let mut failed = None;
        for (address, places, part, conn, replies) in join_all(exchanges).await {
            let replies = match self.done(&address, conn, replies) {
                Ok(replies) => replies,
                Err(error) => {
                    failed = failed.or(Some(error));
                    continue;
                }
            };
            for ((place, argv), reply) in places.into_iter().zip(&part).zip(replies) {
                let reply = match reply.as_error() {
                    Some(error) if error.redirect().is_some() => {
                        self.follow(&address, db, argv, error.clone()).await?
                    }
                    _ => reply,
                };
                if let Some(answer) = answers.get_mut(place) {
                    *answer = reply;
                }
            }
        }
        match failed {
            Some(error) => Err(error),
            None => self.judged("", commands, answers),
        }
    }

    /// Follows a redirection to the answer.
    async fn follow(
        &mut self,
        asked: &str,
        db: u32,
        argv: &[&[u8]],
        error: ErrorReply,
    ) -> Result<Value, SyncError> {
        let (mut asked, mut error) = (asked.to_owned(), error);
        for _ in 0..REDIRECTS_MAX {
            let Some(to) = error.redirect() else { break };
            let slot = rewrite::Slot(to.slot);
            let address = cluster::address(to.host, to.port, &asked);
            let mut commands = vec![argv.to_vec()];
            if error.code == ErrorCode::Ask {
                commands.insert(0, vec![b"ASKING"]);
            } else if let Some(nodes) = &mut self.cluster {
                nodes.moved(slot, &address);
            }
            let reply = self.at(&address, db, &commands).await?.pop();
            match reply {
                Some(Value::Error(next)) if next.redirect().is_some() => error = next,
                reply => return Ok(reply.unwrap_or(Value::Null)),
            }
            asked = address;
        }
        let what = format!("the nodes do not agree on where a key is: {error}");
        Err(SyncError::reconnect(self.side, &asked, what))
    }

    /// Replies, unless waiting mends one of them.
    fn judged(
        &self,
        address: &str,
        commands: &[Vec<&[u8]>],
        replies: Vec<Value>,
    ) -> Result<Vec<Value>, SyncError> {
        for (reply, argv) in replies.iter().zip(commands) {
            let Value::Error(error) = reply else { continue };
            let command = || String::from_utf8_lossy(argv.first().copied().unwrap_or_default());
            if self.cluster.is_none() && redirects(error.code) && error.redirect().is_some() {
                return Err(self.strange(&command(), reply));
            }
            if class_of(error.code) == Class::Reconnect {
                let address = match address {
                    "" => &self.endpoint.address,
                    address => address,
                };
                let what = format!("{} was refused: {error}", command());
                return Err(SyncError::reconnect(self.side, address, what));
            }
        }
        Ok(replies)
    }

    /// How many connections were made so far: behind a new one there may be another process.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// Whether the last error was an answer longer than may be read. Forgets it.
    pub(crate) fn take_overrun(&mut self) -> bool {
        std::mem::take(&mut self.overran)
    }

    /// Keys of each node by database: of a single server, and of each primary of a cluster, by its address.
    ///
    /// # Errors
    /// Those of the connection; stop where it does not tell.
    pub(crate) async fn keyspaces(
        &mut self,
    ) -> Result<Vec<(Option<String>, Vec<(u32, u64)>)>, SyncError> {
        let is_cluster = self.is_cluster();
        let told = self.each(0, &[b"INFO", b"keyspace"]).await?;
        told.into_iter()
            .map(|(address, reply)| match reply {
                Value::Bulk(text) => {
                    let address = is_cluster.then_some(address);
                    Ok((address, Info::of(&text).keyspace()))
                }
                other => Err(self.strange("INFO", &other)),
            })
            .collect()
    }

    /// Slots on their way to a primary, by its address.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn importing(&mut self) -> Result<BTreeMap<String, Vec<u16>>, SyncError> {
        let told = self.each(0, &[b"CLUSTER", b"NODES"]).await?;
        let slots = told.into_iter().map(|(address, reply)| {
            let text = reply.as_bytes().cloned().unwrap_or_default();
            (address, nodes::importing(&String::from_utf8_lossy(&text)))
        });
        Ok(slots.filter(|(_, slots)| !slots.is_empty()).collect())
    }

    /// `INFO section`.
    ///
    /// # Errors
    /// Those of the connection; stop where it does not tell.
    pub(crate) async fn info(&mut self, section: &str) -> Result<Info, SyncError> {
        match self.one(0, &[b"INFO", section.as_bytes()]).await? {
            Value::Bulk(text) => Ok(Info::of(&text)),
            other => Err(self.strange("INFO", &other)),
        }
    }

    /// An answer, unless it says that we may not ask: a value that is gone, or of another kind by now, is an answer.
    ///
    /// # Errors
    /// As [`Self::strange`].
    pub(crate) fn unless_refused(&self, command: &str, answer: Value) -> Result<Value, SyncError> {
        match &answer {
            Value::Error(error) if refusal(command.as_bytes(), error).is_some() => {
                Err(self.strange(command, &answer))
            }
            _ => Ok(answer),
        }
    }

    /// An answer of no use: an error reply, or nothing that a Redis would say.
    pub(crate) fn strange(&self, command: &str, reply: &Value) -> SyncError {
        let what = match reply {
            Value::Error(error) => {
                let text = String::from_utf8_lossy(&error.text);
                let mend = match (error.code, self.side) {
                    (resp::ErrorCode::NoPerm, Side::Source) => {
                        "; comparing needs ~* +info +scan +exists +dump +type +pttl +pexpiretime +time +select +memory|usage at the source"
                    }
                    (resp::ErrorCode::NoPerm, _) => {
                        "; comparing needs ~* +info +get +scan +exists +dump +type +pttl +pexpiretime +time +select +memory|usage at the target"
                    }
                    (resp::ErrorCode::Moved | resp::ErrorCode::CrossSlot, _) => {
                        "; this is a node of a cluster: set sync_reader.cluster, or redis_writer.cluster, to true for this end"
                    }
                    _ => "",
                };
                format!("{command} was refused: {text}{mend}")
            }
            _ => format!("{command} answered something that a Redis would not say"),
        };
        SyncError::stop(self.side, &self.endpoint.address, what)
    }
}

/// Selects the database and asks; the connection is of no use behind an error.
async fn exchange(
    mut conn: Conn,
    db: u32,
    commands: &[Vec<&[u8]>],
) -> (Conn, Result<Vec<Value>, SyncError>) {
    if db != conn.db {
        let number = db.to_string();
        if let Err(error) = conn.client.call(&[b"SELECT", number.as_bytes()]).await {
            return (conn, Err(error));
        }
        conn.db = db;
    }
    let replies = conn.client.ask_all(commands).await;
    (conn, replies)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn end(map: Option<DbMap>) -> End {
        let text = "[sync_reader]\naddress = \"a:1\"\n[redis_writer]\naddress = \"b:1\"\n";
        let config = Config::parse(std::path::Path::new("shake.toml"), text).unwrap();
        End {
            endpoint: config.target.endpoint,
            side: Side::Target,
            fork: Fork::Redis,
            version: Version::new(7, 0, 0),
            conns: BTreeMap::new(),
            reply_bytes_max: 1,
            overran: false,
            opened: 0,
            tells_no_sizes: false,
            cluster: None,
            names: map,
        }
    }

    #[tokio::test]
    async fn names_go_both_ways() {
        let key = |text: &'static str| Bytes::from_static(text.as_bytes());
        let numbers =
            |rules: &[(u32, Option<u32>)]| Some(DbMap::Numbers(rules.iter().copied().collect()));
        let plain = end(None).await;
        assert_eq!(
            plain.origin(3, &key("a")),
            Origin::Named(vec![(3, key("a"))])
        );
        assert_eq!(
            (
                plain.name_of(&(3, key("a"))),
                plain.siblings(&(3, key("a")))
            ),
            (None, vec![])
        );
        let merged = end(numbers(&[(1, Some(0))])).await;
        let both = Origin::Named(vec![(1, key("a")), (0, key("a"))]);
        assert_eq!(merged.origin(0, &key("a")), both);
        assert_eq!(merged.origin(1, &key("a")), Origin::Nobody);
        assert_eq!(merged.siblings(&(0, key("a"))), [(1, key("a"))]);
        assert_eq!(merged.name_of(&(1, key("a"))), Some((0, key("a"))));
        assert_eq!(merged.name_of(&(0, key("a"))), None);
        let prefix = end(Some(DbMap::Prefix)).await;
        assert_eq!(
            prefix.origin(0, &key("db2:a")),
            Origin::Named(vec![(2, key("a"))])
        );
        assert_eq!(prefix.origin(0, &key("a")), Origin::Nobody);
        assert_eq!(prefix.name_of(&(2, key("a"))), Some((0, key("db2:a"))));
        assert!(prefix.siblings(&(2, key("a"))).is_empty());
    }
}
