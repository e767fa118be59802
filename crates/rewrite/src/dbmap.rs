//! Databases under other numbers, or all in one with a prefix before their keys: commands for the source's databases ->
//! commands for the target's.
//!
//! What is here comes after all other rewriting: filters and rules see the source's own names. A command that acts on a
//! whole database (`FLUSHDB`, `SWAPDB`) cannot be said where several share one at the target: [`MapError::NeedsSnapshot`].

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use resp::encode;

use crate::Db;
use crate::keys::Words;
use crate::number::{Decimal, parse_db};
use crate::outcome::printable;
use crate::table::Table;

/// Where the source's databases go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DbMap {
    /// A database to another number, or `None`: dropped. Those not named keep their number.
    Numbers(BTreeMap<u32, Option<u32>>),
    /// All into database 0; the keys of database n become `dbn:key`.
    Prefix,
}

/// What a command came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapped {
    /// How many there are now.
    pub commands: u32,
    /// The target's database that they leave selected.
    pub db: Db,
}

/// A command that cannot be said for the target's databases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapError {
    /// Only a new snapshot can bring about what it did.
    NeedsSnapshot {
        /// Its name.
        command: String,
    },
    /// The same key in two databases that go into one.
    Collision {
        /// The key, escaped and shortened.
        key: String,
    },
    /// A key that is too large to get a prefix.
    LargeKey,
}

impl std::fmt::Display for MapError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NeedsSnapshot { command } => write!(
                f,
                "{command} acts on a whole database, and redis_writer.db_map brings several into one"
            ),
            Self::Collision { key } => write!(
                f,
                "key \"{key}\" is in two databases that redis_writer.db_map brings into one: remove or rename one of them at the source first, or use db_map = \"prefix\", or a new snapshot stops for it too"
            ),
            Self::LargeKey => write!(f, "a key is too large to get a prefix"),
        }
    }
}

impl std::error::Error for MapError {}

/// A key above this may be a token in the place of something that is not in memory.
const KEY_BYTES_MAX: usize = 512 << 10;

impl DbMap {
    /// The target's database for one of the source's. (For one that is dropped, its own: nothing comes of it.)
    pub fn db(&self, db: Db) -> Db {
        match self {
            Self::Numbers(rules) => rules.get(&db.0).copied().flatten().map_or(db, Db),
            Self::Prefix => Db(0),
        }
    }

    /// Whether keys get other names.
    pub fn changes_keys(&self) -> bool {
        matches!(self, Self::Prefix)
    }

    /// The name of a key at the target.
    pub fn key<'k>(&self, db: Db, key: &'k [u8]) -> Cow<'k, [u8]> {
        match self {
            Self::Numbers(_) => Cow::Borrowed(key),
            Self::Prefix => {
                let mut name = format!("db{}:", db.0).into_bytes();
                name.extend_from_slice(key);
                Cow::Owned(name)
            }
        }
    }

    /// The source's databases, as far as they are known here, that go into this one of the target.
    pub fn sources(&self, target: Db) -> Vec<Db> {
        match self {
            Self::Numbers(rules) => {
                let named = rules.iter().filter(|(_, to)| **to == Some(target.0));
                let mut sources: Vec<Db> = named.map(|(from, _)| Db(*from)).collect();
                if !rules.contains_key(&target.0) {
                    sources.push(target);
                }
                sources
            }
            Self::Prefix => Vec::new(),
        }
    }

    /// The source's databases, as far as they are known here, that go into the first `count` of the target.
    pub fn sources_below(&self, count: u32) -> Vec<Db> {
        let mut sources: Vec<Db> = (0..count).flat_map(|to| self.sources(Db(to))).collect();
        sources.sort_unstable();
        sources.dedup();
        match self {
            Self::Numbers(_) => sources,
            // Any of them.
            Self::Prefix => vec![Db(0)],
        }
    }

    /// Whether keys of several databases may meet in this one of the target under the same name.
    pub fn is_merged(&self, target: Db) -> bool {
        self.sources(target).len() > 1
    }

    /// Whether a command on the whole of this database of the target would be about more than one of the source's.
    fn is_shared(&self, target: Db) -> bool {
        self.changes_keys() || self.is_merged(target)
    }

    /// Whose key this is at the source, where that can be told.
    pub fn origin(&self, target: Db, key: &Bytes) -> Option<(Db, Bytes)> {
        match self {
            Self::Numbers(_) => match self.sources(target).as_slice() {
                [db] => Some((*db, key.clone())),
                _ => None,
            },
            Self::Prefix => {
                let rest = key.strip_prefix(b"db").filter(|_| target == Db(0))?;
                let digits = rest.iter().position(|byte| *byte == b':')?;
                let db = parse_db(rest.get(..digits)?)?;
                Some((db, key.slice(2 + digits + 1..)))
            }
        }
    }

    /// Whether anything of the source may be in this database of the target.
    pub fn may_hold(&self, target: Db) -> bool {
        match self {
            Self::Numbers(_) => !self.sources(target).is_empty(),
            Self::Prefix => target == Db(0),
        }
    }

    /// Writes to `out` what `bytes` come to: whole commands, meant for the source's `db`. The connection is in the target's
    /// database for it.
    ///
    /// # Errors
    /// Where it cannot be said; then `out` is as it was.
    pub fn map(
        &self,
        table: &Table,
        checkpoint_key: &[u8],
        db: Db,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Mapped, MapError> {
        let start = out.len();
        let mut decoder = resp::CommandDecoder::new(resp::Limits {
            bulk_bytes_max: u64::MAX,
            ..resp::Limits::default()
        });
        let (mut rest, mut commands) = (bytes, 0);
        let mut work = Mapping {
            map: self,
            table,
            checkpoint_key,
            db,
            places: Vec::new(),
            out,
        };
        while let Ok(Some(frame)) = decoder.poll(rest) {
            let words = Words {
                frame: rest.get(..frame.len).unwrap_or_default(),
                args: decoder.args(),
            };
            match work.command(words) {
                Ok(count) => commands += count,
                Err(error) => {
                    out.truncate(start);
                    return Err(error);
                }
            }
            rest = rest.get(frame.len..).unwrap_or_default();
        }
        let db = self.db(work.db);
        Ok(Mapped { commands, db })
    }
}

struct Mapping<'a> {
    map: &'a DbMap,
    table: &'a Table,
    checkpoint_key: &'a [u8],
    /// The source's database in force.
    db: Db,
    places: Vec<usize>,
    out: &'a mut Vec<u8>,
}

impl Mapping<'_> {
    fn command(&mut self, words: Words<'_>) -> Result<u32, MapError> {
        let name = words.at(0).to_ascii_lowercase();
        match &*name {
            b"select" => {
                self.db = parse_db(words.at(1)).unwrap_or(self.db);
                self.select(self.map.db(self.db));
                Ok(1)
            }
            b"swapdb" => self.swapdb(words),
            b"move" => self.move_key(words),
            b"copy" => self.copy(words),
            b"flushdb" if self.map.is_shared(self.map.db(self.db)) => Err(needs_snapshot(words)),
            _ if self.map.changes_keys() => self.rename_keys(&name, words),
            _ => {
                self.out.extend_from_slice(words.frame);
                Ok(1)
            }
        }
    }

    fn emit(&mut self, argv: &[&[u8]]) {
        encode::command(self.out, argv);
    }

    fn select(&mut self, db: Db) {
        self.emit(&[b"SELECT", Decimal::new(i64::from(db.0)).text()]);
    }

    /// The checkpoint lives in the target's db 0: when that changes places, the old one goes with it.
    fn swapdb(&mut self, words: Words<'_>) -> Result<u32, MapError> {
        let (Some(a), Some(b)) = (parse_db(words.at(1)), parse_db(words.at(2))) else {
            self.out.extend_from_slice(words.frame);
            return Ok(1);
        };
        let (a, b) = (self.map.db(a), self.map.db(b));
        if self.map.is_shared(a) || self.map.is_shared(b) {
            return Err(needs_snapshot(words));
        }
        let number = |db: Db| Decimal::new(i64::from(db.0));
        self.emit(&[b"SWAPDB", number(a).text(), number(b).text()]);
        let other = if a == Db(0) { b } else { a };
        if (a != Db(0) && b != Db(0)) || a == b || self.checkpoint_key.is_empty() {
            return Ok(1);
        }
        self.select(other);
        let key = self.checkpoint_key;
        self.emit(&[b"DEL", key]);
        self.select(self.map.db(self.db));
        Ok(4)
    }

    /// `MOVE key db`: there was no such key in that db.
    fn move_key(&mut self, words: Words<'_>) -> Result<u32, MapError> {
        let (key, Some(to)) = (words.at(1), parse_db(words.at(2))) else {
            self.out.extend_from_slice(words.frame);
            return Ok(1);
        };
        let target = self.map.db(to);
        if self.map.changes_keys() {
            let (from, to) = (self.name(key)?, self.map.key(to, key));
            self.emit(&[b"RENAME", &from, &to]);
        } else if target == self.map.db(self.db) {
            return Ok(0);
        } else {
            let number = Decimal::new(i64::from(target.0));
            self.emit(&[b"MOVE", key, number.text()]);
        }
        Ok(1)
    }

    /// `COPY source destination [DB db] [REPLACE]`
    fn copy(&mut self, words: Words<'_>) -> Result<u32, MapError> {
        let named = (3..words.len()).find(|at| words.is(*at, b"DB"));
        let to = named.and_then(|at| parse_db(words.at(at + 1)));
        let to = to.unwrap_or(self.db);
        let (source, destination) = (words.at(1), words.at(2));
        let (from_db, to_db) = (self.map.db(self.db), self.map.db(to));
        let (source, destination) = (self.name(source)?, self.map.key(to, destination));
        if from_db == to_db && source == destination {
            return Err(MapError::Collision {
                key: printable(words.at(1)),
            });
        }
        let mut argv: Vec<&[u8]> = vec![b"COPY", &source, &destination];
        let number = Decimal::new(i64::from(to_db.0));
        if from_db != to_db {
            argv.extend([&b"DB"[..], number.text()]);
        }
        if (3..words.len()).any(|at| words.is(at, b"REPLACE")) {
            argv.push(b"REPLACE");
        }
        self.emit(&argv);
        Ok(1)
    }

    fn name<'k>(&self, key: &'k [u8]) -> Result<Cow<'k, [u8]>, MapError> {
        if key.len() > KEY_BYTES_MAX {
            return Err(MapError::LargeKey);
        }
        Ok(self.map.key(self.db, key))
    }

    /// The command with its keys under other names.
    fn rename_keys(&mut self, name: &[u8], words: Words<'_>) -> Result<u32, MapError> {
        self.places.clear();
        match self.table.find(name).and_then(|id| self.table.command(id)) {
            Some(known) => {
                crate::keys::keys_of(known, words.frame, words.args, &mut self.places);
            }
            // As everywhere: a module's command has its key first.
            None => self.places.push(1),
        }
        if name == b"sort" {
            self.places.extend(patterns(words));
        }
        encode::command_header(self.out, words.len());
        for at in 0..words.len() {
            let word = words.at(at);
            if self.places.contains(&at) {
                let renamed = self.name(word)?;
                encode::bulk(self.out, &renamed);
            } else {
                encode::bulk(self.out, word);
            }
        }
        Ok(1)
    }
}

/// The patterns of `SORT` that name other keys.
fn patterns(words: Words<'_>) -> Vec<usize> {
    let follows = |at: &usize| words.is(at - 1, b"BY") || words.is(at - 1, b"GET");
    let names_keys = |at: &usize| words.at(*at).contains(&b'*');
    (3..words.len())
        .filter(follows)
        .filter(names_keys)
        .collect()
}

fn needs_snapshot(words: Words<'_>) -> MapError {
    MapError::NeedsSnapshot {
        command: printable(words.at(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(rules: &[(u32, Option<u32>)]) -> DbMap {
        DbMap::Numbers(rules.iter().copied().collect())
    }

    /// Lines of words -> lines of words, and the database behind them.
    fn map(map: &DbMap, db: u32, lines: &[&str]) -> Result<String, MapError> {
        let mut bytes = Vec::new();
        for line in lines {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            encode::command(&mut bytes, &words);
        }
        let mut out = b"before".to_vec();
        let mapped = map.map(&Table::new(), b"CP", Db(db), &bytes, &mut out);
        let Ok(mapped) = mapped else {
            assert_eq!(out, b"before");
            return Err(mapped.unwrap_err());
        };
        let mut rest = &out["before".len()..];
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        let mut lines = Vec::new();
        while let Some(frame) = decoder.poll(rest).unwrap() {
            let words: Vec<_> = decoder
                .args()
                .iter()
                .map(|arg| String::from_utf8_lossy(arg.of(rest)).into_owned())
                .collect();
            lines.push(words.join(" "));
            rest = &rest[frame.len..];
        }
        assert_eq!(mapped.commands as usize, lines.len());
        Ok(format!("{} @{}", lines.join("; "), mapped.db.0))
    }

    #[test]
    fn numbers_change_and_keys_stay() {
        let swapped = numbers(&[(0, Some(3)), (3, Some(0)), (5, None)]);
        let said = |db, lines: &[&str]| map(&swapped, db, lines).unwrap();
        assert_eq!(said(0, &["SET a 1"]), "SET a 1 @3");
        assert_eq!(said(2, &["SET a 1"]), "SET a 1 @2");
        assert_eq!(said(0, &["MOVE a 3"]), "MOVE a 0 @3");
        assert_eq!(
            said(0, &["COPY a b DB 2 REPLACE"]),
            "COPY a b DB 2 REPLACE @3"
        );
        assert_eq!(said(0, &["COPY a b"]), "COPY a b @3");
        assert_eq!(said(0, &["FLUSHDB"]), "FLUSHDB @3");
        assert_eq!(said(1, &["SWAPDB 1 2"]), "SWAPDB 1 2 @1");
        // The checkpoint is in the target's db 0, whoever's that is.
        assert_eq!(
            said(1, &["SWAPDB 3 2"]),
            "SWAPDB 0 2; SELECT 2; DEL CP; SELECT 1 @1"
        );
        assert_eq!(
            said(1, &["SELECT 0", "FLUSHDB", "SELECT 4"]),
            "SELECT 3; FLUSHDB; SELECT 4 @4"
        );
    }

    #[test]
    fn databases_that_are_brought_together() {
        let merged = numbers(&[(1, Some(0))]);
        assert!(merged.is_merged(Db(0)) && !merged.is_merged(Db(1)) && !merged.is_merged(Db(2)));
        let said = |db, line: &str| map(&merged, db, &[line]);
        assert_eq!(said(1, "SET a 1").unwrap(), "SET a 1 @0");
        assert_eq!(said(1, "MOVE a 0").unwrap(), " @0");
        assert_eq!(said(1, "COPY a b DB 0").unwrap(), "COPY a b @0");
        let collision = MapError::Collision { key: "a".into() };
        assert_eq!(said(1, "COPY a a DB 0").unwrap_err(), collision);
        for (db, line) in [(1, "FLUSHDB"), (0, "FLUSHDB"), (5, "SWAPDB 0 5")] {
            let error = said(db, line).unwrap_err();
            assert!(matches!(error, MapError::NeedsSnapshot { .. }), "{line}");
        }
        assert_eq!(said(2, "FLUSHDB").unwrap(), "FLUSHDB @2");
        assert_eq!(said(1, "FLUSHALL").unwrap(), "FLUSHALL @0");
        // Alone it is no merge.
        let moved = numbers(&[(1, Some(0)), (0, None)]);
        assert!(!moved.is_merged(Db(0)));
        assert_eq!(map(&moved, 1, &["FLUSHDB"]).unwrap(), "FLUSHDB @0");
    }

    #[test]
    fn keys_get_the_number_before_their_names() {
        let said = |db, line: &str| map(&DbMap::Prefix, db, &[line]);
        assert_eq!(said(0, "SET a 1").unwrap(), "SET db0:a 1 @0");
        assert_eq!(said(2, "MSET a 1 b 2").unwrap(), "MSET db2:a 1 db2:b 2 @0");
        assert_eq!(
            said(2, "ZUNIONSTORE d 2 x y WEIGHTS 1 2").unwrap(),
            "ZUNIONSTORE db2:d 2 db2:x db2:y WEIGHTS 1 2 @0"
        );
        assert_eq!(
            said(2, "EVAL script 1 k arg").unwrap(),
            "EVAL script 1 db2:k arg @0"
        );
        assert_eq!(said(2, "MOVE a 3").unwrap(), "RENAME db2:a db3:a @0");
        assert_eq!(said(2, "COPY a b DB 3").unwrap(), "COPY db2:a db3:b @0");
        assert_eq!(
            said(1, "SORT l BY w_* GET # GET o_*->f STORE d").unwrap(),
            "SORT db1:l BY db1:w_* GET # GET db1:o_*->f STORE db1:d @0"
        );
        assert_eq!(
            said(1, "some.module key x").unwrap(),
            "some.module db1:key x @0"
        );
        assert!(said(1, "FLUSHDB").is_err() && said(1, "SWAPDB 1 2").is_err());
        assert_eq!(said(1, "FLUSHALL").unwrap(), "FLUSHALL @0");
    }

    #[test]
    fn the_way_back() {
        let key = |text: &'static str| Bytes::from_static(text.as_bytes());
        let back = |text| DbMap::Prefix.origin(Db(0), &key(text));
        assert_eq!(back("db12:a:b"), Some((Db(12), key("a:b"))));
        assert_eq!(back("db1:"), Some((Db(1), key(""))));
        assert_eq!((back("dbx:a"), back("a"), back("db1")), (None, None, None));
        let map = numbers(&[(1, Some(0)), (0, None), (2, Some(7))]);
        assert_eq!(map.origin(Db(0), &key("a")), Some((Db(1), key("a"))));
        assert_eq!(map.origin(Db(7), &key("a")), None);
        assert_eq!(map.origin(Db(2), &key("a")), None);
        assert!(!map.may_hold(Db(1)) && map.may_hold(Db(0)) && map.may_hold(Db(7)));
    }
}
