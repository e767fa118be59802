//! Databases of the source that `redis_writer.db_map` brings into one of the target: no key may be in two of them.
//!
//! A snapshot has every key, so that a set of hashes tells. In the stream the source is asked whether another of these
//! databases has a key too, whenever a command touches it in another database than the last one that did. The source answers
//! for a later time than that of the command: a key that was in two for a moment only is seen at the target, which still holds
//! it then, though nobody has said in the other database that it is gone. Only a new snapshot tells what it is.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use rdb::KeyHead;
use resp::{Arg, ErrorCode, Value};
use rewrite::{Db, Table};

use super::repair::Touched;
use super::stream::show;
use crate::client::Client;
use crate::config::Config;
use crate::error::{Class, Side, SyncError};
use crate::target::cluster::{Cluster, Question};

/// So many keys that were asked about are remembered; beyond that they are asked about again.
const KNOWN_MAX: usize = 1 << 20;

/// The keys of a snapshot that go into databases with more than one origin.
#[derive(Debug, Default)]
pub(super) struct Merged {
    state: RandomState,
    /// Names at the target, and from which of the source's databases they come.
    seen: HashMap<u64, u32>,
}

impl Merged {
    /// The next key of the snapshot, which goes into `db` of the target.
    ///
    /// # Errors
    /// Stop, where a key of that name has come before from another database. (From the same one it comes again where several
    /// files are one snapshot: the later one's value holds.)
    pub(super) fn meets(
        &mut self,
        config: &Config,
        head: &KeyHead,
        db: u32,
    ) -> Result<(), SyncError> {
        let map = config.target.db_map.as_ref();
        let is_merged = map.is_some_and(|map| map.is_merged(Db(db)));
        if !is_merged || !config.filter.db(head.db) || !config.filter.key(&head.key) {
            return Ok(());
        }
        let name = self.state.hash_one((db, &head.key));
        match self.seen.insert(name, head.db.0) {
            Some(other) if other != head.db.0 => {
                Err(collision(config, head.db.0, &head.key, other))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A key that another of the source's databases had touched last.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    db: u32,
    key: Bytes,
    other: u32,
}

impl Change {
    fn told(&self) -> String {
        let Self { db, key, other } = self;
        format!(
            "key \"{}\" was in database {db} and in database {other} at once, of which redis_writer.db_map makes one: what it is now tells only a new snapshot",
            show(key)
        )
    }
}

/// Keys of the stream that are to be asked about.
#[derive(Default)]
pub(super) struct Asks {
    state: RandomState,
    /// Names at the target, and in which of the source's databases they were touched last.
    known: HashMap<u64, u32>,
    /// Names that the collected unit touches.
    in_unit: HashSet<u64>,
    /// To be asked of the source.
    open: Vec<(u32, Bytes)>,
    /// To be asked of the target.
    changes: Vec<Change>,
    /// Two databases touch it in one unit, and no command between says that it is gone.
    met: Option<Change>,
    client: Option<Client>,
    target: Option<Client>,
}

impl Asks {
    /// A command for `db` of the source is in the unit.
    pub(super) fn note(
        &mut self,
        config: &Config,
        table: &Table,
        db: Db,
        frame: &[u8],
        args: &[Arg],
    ) {
        let Some(map) = &config.target.db_map else {
            return;
        };
        let name = args.first().map(|arg| arg.of(frame)).unwrap_or_default();
        let is = |words: &[&str]| {
            let mut words = words.iter();
            words.any(|word| name.eq_ignore_ascii_case(word.as_bytes()))
        };
        if is(&["flushall"]) {
            self.known.clear();
            self.in_unit.clear();
        }
        // Two commands give a key to another database than that in which they are said.
        let gives_away = is(&["move", "copy"]);
        if !gives_away && !map.is_merged(map.db(db)) {
            return;
        }
        let is_gone = is(&["del", "unlink", "getdel"]);
        let renames = is(&["rename", "renamenx"]);
        let names = Touched::by(table, db.0, frame, args).names;
        for (at, key) in names.iter() {
            let target = map.db(Db(at));
            if !map.is_merged(target) {
                continue;
            }
            let id = self.id(target, key);
            if is(&["move"]) && map.db(db) == target {
                // It was in the one and not in the other: nothing meets.
                if at != db.0 {
                    self.known.insert(id, at);
                }
                continue;
            }
            self.touched(id, at, key);
            let is_old_name = renames && args.get(1).is_some_and(|arg| arg.of(frame) == &key[..]);
            if is_gone || is_old_name {
                self.known.remove(&id);
            }
        }
    }

    fn id(&self, target: Db, key: &Bytes) -> u64 {
        self.state.hash_one((target.0, key))
    }

    /// A name of the target is touched in this database of the source.
    fn touched(&mut self, id: u64, db: u32, key: &Bytes) {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let before = self.known.insert(id, db);
        let is_first = self.in_unit.insert(id);
        if before == Some(db) {
            return;
        }
        self.open.push((db, key.clone()));
        if let Some(other) = before {
            let key = key.clone();
            let change = Change { db, key, other };
            match is_first {
                true => self.changes.push(change),
                false => self.met = Some(change),
            }
        }
    }

    /// The next question goes over a new connection, and the unit is collected anew.
    pub(super) fn hang_up(&mut self) {
        self.client = None;
        self.target = None;
        self.in_unit.clear();
    }

    /// Asks the source, then the target, about what was noted for the unit that is to be sent. All before it is applied. Gives
    /// why only a new snapshot helps: a key was in two databases for a while.
    ///
    /// # Errors
    /// Stop, where a key is in two databases; as the connection's, of the target's side so that the unit is made again.
    pub(super) async fn ask(
        &mut self,
        config: &Config,
        cluster: Option<&mut Cluster>,
    ) -> Result<Option<String>, SyncError> {
        self.ask_source(config).await?;
        self.open.clear();
        if let Some(change) = self.met.take() {
            return Ok(Some(change.told()));
        }
        if !self.changes.is_empty() {
            let held = self.held(config, cluster).await?;
            if let Some(change) = held.and_then(|at| self.changes.get(at)) {
                return Ok(Some(change.told()));
            }
            self.changes.clear();
        }
        self.in_unit.clear();
        Ok(None)
    }

    /// The first of the keys to ask about that the target holds.
    async fn held(
        &mut self,
        config: &Config,
        cluster: Option<&mut Cluster>,
    ) -> Result<Option<usize>, SyncError> {
        let names: Vec<_> = self
            .changes
            .iter()
            .map(|change| config.target.name_of(change.db, &change.key))
            .collect();
        let replies: Vec<Value> = match cluster {
            Some(cluster) => {
                let questions = names
                    .iter()
                    .map(|(db, key)| Question::new(*db, rewrite::slot_of(key), &[b"EXISTS", key]));
                let replies = cluster.ask_in(questions.collect()).await?;
                if let Some(error) = replies.iter().find_map(Value::as_error) {
                    return Err(cluster.refusal_of("EXISTS", error));
                }
                replies
            }
            None => {
                let mut client = match self.target.take() {
                    Some(client) => client,
                    None => Client::connect(&config.target.endpoint, Side::Target).await?,
                };
                let dbs: Vec<String> = names.iter().map(|(db, _)| db.to_string()).collect();
                let mut commands: Vec<Vec<&[u8]>> = Vec::new();
                for ((_, key), db) in names.iter().zip(&dbs) {
                    commands.push(vec![b"SELECT", db.as_bytes()]);
                    commands.push(vec![b"EXISTS", key]);
                }
                let replies = client.ask_all(&commands).await?;
                for (reply, argv) in replies.iter().zip(&commands) {
                    if let Value::Error(error) = reply {
                        return Err(client.refused(argv, error));
                    }
                }
                self.target = Some(client);
                replies.into_iter().skip(1).step_by(2).collect()
            }
        };
        Ok(replies.iter().position(|reply| *reply != Value::Int(0)))
    }

    async fn ask_source(&mut self, config: &Config) -> Result<(), SyncError> {
        let Some(map) = &config.target.db_map else {
            return Ok(());
        };
        if self.open.is_empty() {
            return Ok(());
        }
        let mut pairs = Vec::new();
        for (db, key) in &self.open {
            for other in map.sources(map.db(Db(*db))) {
                if other != Db(*db) && config.filter.db(other) {
                    pairs.push((*db, other.0, key));
                }
            }
        }
        if pairs.is_empty() {
            return Ok(());
        }
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&config.source.endpoint, Side::Source).await?,
        };
        let mut both = in_both(&mut client, pairs).await?;
        if !both.is_empty() {
            // It may have been moved from one to the other just between the two questions.
            both = in_both(&mut client, both).await?;
        }
        if let Some((db, other, key)) = both.first() {
            return Err(collision(config, *db, key, *other));
        }
        self.client = Some(client);
        Ok(())
    }
}

/// Two databases of the source, and a key.
type Pair<'a> = (u32, u32, &'a Bytes);

/// Those keys that both databases have.
async fn in_both<'a>(
    client: &mut Client,
    pairs: Vec<Pair<'a>>,
) -> Result<Vec<Pair<'a>>, SyncError> {
    let numbers: Vec<_> = pairs
        .iter()
        .map(|(db, other, _)| (db.to_string(), other.to_string()))
        .collect();
    let mut commands = Vec::new();
    for ((_, _, key), (db, other)) in pairs.iter().zip(&numbers) {
        for number in [db, other] {
            commands.push(vec![&b"SELECT"[..], number.as_bytes()]);
            commands.push(vec![b"EXISTS", key]);
        }
    }
    let replies = client.ask_all(&commands).await?;
    let mut both = Vec::new();
    for (pair, replies) in pairs.into_iter().zip(replies.chunks(4)) {
        let [here_db, here, there_db, there] = replies else {
            continue;
        };
        for (command, reply) in [("SELECT", here_db), ("EXISTS", here), ("EXISTS", there)] {
            if let Value::Error(error) = reply {
                return Err(client.refused(&[command.as_bytes()], error));
            }
        }
        match there_db {
            // A rule may name a database that the source does not have: nothing is in it.
            Value::Error(error) if error.code == ErrorCode::NoPerm => {
                return Err(client.refused(&[b"SELECT"], error));
            }
            Value::Error(_) => continue,
            _ => {}
        }
        if *here != Value::Int(0) && *there != Value::Int(0) {
            both.push(pair);
        }
    }
    Ok(both)
}

fn collision(config: &Config, db: u32, key: &[u8], other: u32) -> SyncError {
    SyncError {
        side: Side::Source,
        address: config.source.endpoint.address.clone(),
        class: Class::Stop,
        what: format!(
            "key \"{}\" is in database {db} and in database {other}, which redis_writer.db_map brings into one; rename it at the source, or use db_map = \"prefix\"",
            show(key)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(lines: &[(u32, &str)]) -> Asks {
        let mut asks = Asks::default();
        let text = "[sync_reader]\naddress = \"s:1\"\n[redis_writer]\naddress = \"t:1\"\ndb_map = { 1 = 0 }\n";
        let config = Config::parse(std::path::Path::new("shake.toml"), text).unwrap();
        let table = Table::new();
        for (db, line) in lines {
            let mut frame = Vec::new();
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            resp::encode::command(&mut frame, &words);
            crate::pipeline::each_command(&frame, |_, frame, args| {
                asks.note(&config, &table, Db(*db), frame, args);
            });
        }
        asks
    }

    #[test]
    fn a_key_is_asked_about_whenever_it_changes_its_database() {
        let asks = notes(&[(0, "SET a 1"), (0, "SET a 2"), (0, "DEL a"), (1, "SET a 1")]);
        assert_eq!(asks.open.len(), 2);
        assert!(asks.met.is_none() && asks.changes.is_empty());
        let asks = notes(&[
            (0, "SET a 1"),
            (1, "MOVE b 0"),
            (0, "MOVE a 1"),
            (1, "SET a 1"),
        ]);
        assert_eq!(asks.open.len(), 1);
        assert!(asks.met.is_none() && asks.changes.is_empty());
    }

    #[test]
    fn what_two_databases_touch_has_met_unless_it_is_gone_between() {
        let asks = notes(&[(1, "SET a 1"), (0, "DEL a")]);
        let change = Change {
            db: 0,
            key: Bytes::from_static(b"a"),
            other: 1,
        };
        assert_eq!(asks.met, Some(change.clone()));
        let mut asks = notes(&[(1, "SET a 1")]);
        // The unit is sent.
        asks.in_unit.clear();
        let id = asks.id(Db(0), &change.key);
        asks.touched(id, 0, &change.key);
        assert_eq!(
            (asks.met.is_none(), &asks.changes[..]),
            (true, &[change][..])
        );
        let asks = notes(&[
            (1, "SET a 1"),
            (1, "RENAME a b"),
            (0, "SET a 1"),
            (0, "FLUSHALL"),
            (1, "SET a 2"),
        ]);
        assert!(asks.met.is_none() && asks.changes.is_empty());
    }
}
