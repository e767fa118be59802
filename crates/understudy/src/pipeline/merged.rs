//! Databases of the source that `redis_writer.db_map` brings into one of the target: no key may be in two of them.
//!
//! A snapshot has every key, so that a set of hashes tells. In the stream the source is asked whether another of these
//! databases has a key too, whenever a command touches it in another database than the last one that did.

use std::collections::HashMap;
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

/// Keys of the stream that are to be asked about.
#[derive(Default)]
pub(super) struct Asks {
    state: RandomState,
    /// Names at the target, and in which of the source's databases they were touched last.
    known: HashMap<u64, u32>,
    open: Vec<(u32, Bytes)>,
    client: Option<Client>,
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
        // Two commands give a key to another database than that in which they are said.
        let name = args.first().map(|arg| arg.of(frame)).unwrap_or_default();
        let gives_away = name.eq_ignore_ascii_case(b"move") || name.eq_ignore_ascii_case(b"copy");
        if !gives_away && !map.is_merged(map.db(db)) {
            return;
        }
        for (db, key) in Touched::by(table, db.0, frame, args).names.iter() {
            let target = map.db(Db(db));
            if map.is_merged(target) && self.is_news(target, db, key) {
                self.open.push((db, key.clone()));
            }
        }
    }

    /// Whether this name of the target was touched in another database of the source before, as far as that is known.
    fn is_news(&mut self, target: Db, db: u32, key: &Bytes) -> bool {
        if self.known.len() >= KNOWN_MAX {
            self.known.clear();
        }
        let name = self.state.hash_one((target.0, key));
        self.known.insert(name, db) != Some(db)
    }

    /// The next question goes over a new connection.
    pub(super) fn hang_up(&mut self) {
        self.client = None;
    }

    /// Asks the source about what was noted.
    ///
    /// # Errors
    /// Stop, where a key is in two databases; as the connection's, of the target's side so that the unit is made again.
    pub(super) async fn ask(&mut self, config: &Config) -> Result<(), SyncError> {
        let Some(map) = &config.target.db_map else {
            return Ok(());
        };
        if self.open.is_empty() {
            return Ok(());
        }
        let open = std::mem::take(&mut self.open);
        let mut pairs = Vec::new();
        for (db, key) in &open {
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

    #[test]
    fn a_key_is_asked_about_whenever_it_changes_its_database() {
        let mut asks = Asks::default();
        let key = Bytes::from_static(b"lock");
        let mut is_news = |db| asks.is_news(Db(0), db, &key);
        let told = [0, 0, 1, 1, 0, 1].map(&mut is_news);
        assert_eq!(told, [true, false, true, false, true, true]);
    }
}
