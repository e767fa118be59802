//! Which keys are looked at: what the filter lets through, what is not ours, and a sample of that.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use resp::Value;
use rewrite::Db;

use super::end::End;
use super::look::Name;
use crate::config::Config;
use crate::error::SyncError;

/// Keys that one SCAN looks at.
const SCAN_COUNT: usize = 256;
/// What one SCAN costs, in keys of the rate.
pub(super) const SCAN_COST: usize = 4;
/// In the names of all keys that we keep.
const OURS: &[u8] = b"understudy";

/// Chooses keys by chance: the same ones at both ends, others in each run.
#[derive(Debug, Clone)]
pub(crate) struct Choice<'a> {
    config: &'a Config,
    ppm: u32,
    state: RandomState,
    /// Only these databases; all, where none is named.
    dbs: Vec<u32>,
}

impl<'a> Choice<'a> {
    pub(crate) fn new(config: &'a Config, ppm: u32) -> Self {
        Self {
            config,
            ppm,
            state: RandomState::new(),
            dbs: Vec::new(),
        }
    }

    /// Only keys of these databases; of all, where none is named.
    pub(crate) fn of(self, dbs: &[u32]) -> Self {
        Self {
            dbs: dbs.to_vec(),
            ..self
        }
    }

    /// Whether keys of this database may be looked at.
    pub(crate) fn takes_db(&self, db: u32) -> bool {
        self.config.filter.db(Db(db)) && (self.dbs.is_empty() || self.dbs.contains(&db))
    }

    /// Whether this key is looked at.
    pub(crate) fn takes(&self, db: u32, key: &[u8]) -> bool {
        let filter = &self.config.filter;
        let is_sampled = self.ppm >= crate::config::WHOLE_PPM
            || self.state.hash_one((db, key)) % u64::from(crate::config::WHOLE_PPM)
                < u64::from(self.ppm);
        is_sampled && !is_ours(key) && self.takes_db(db) && filter.key(key)
    }

    /// Whether anything is left out.
    pub(crate) fn is_sample(&self) -> bool {
        self.ppm < crate::config::WHOLE_PPM
    }
}

/// Whether a key is one that we keep, for whatever link.
pub(crate) fn is_ours(key: &[u8]) -> bool {
    key.windows(OURS.len()).any(|part| part == OURS)
}

/// A walk over all keys of an end, database by database.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Those that are still to come, the last one first.
    dbs: Vec<u32>,
    at: Option<(u32, Bytes)>,
    /// Keys that the end has, as it says.
    pub(crate) keys: u64,
    /// Keys that one SCAN looks at.
    count: String,
}

impl Walk {
    /// Begins; only databases that pass the filter.
    pub(crate) async fn begin(end: &mut End, config: &Config) -> Result<Self, SyncError> {
        let mut keyspace = end.info("keyspace").await?.keyspace();
        keyspace.retain(|(db, _)| config.filter.db(Db(*db)));
        keyspace.sort_unstable();
        Ok(Self {
            keys: keyspace.iter().map(|(_, keys)| keys).sum(),
            dbs: keyspace.into_iter().rev().map(|(db, _)| db).collect(),
            at: None,
            count: SCAN_COUNT.to_string(),
        })
    }

    /// Over these databases, of which it is not told how many keys they have.
    pub(crate) fn over(dbs: &[u32], choice: &Choice<'_>) -> Self {
        let dbs = dbs.iter().rev().copied();
        Self {
            keys: 0,
            dbs: dbs.filter(|db| choice.takes_db(*db)).collect(),
            at: None,
            count: SCAN_COUNT.to_string(),
        }
    }

    /// Only these databases; all, where none is named. One that the end does not tell of is looked at all the same.
    pub(crate) fn only(&mut self, dbs: &[u32], choice: &Choice<'_>) {
        if !dbs.is_empty() {
            self.dbs = dbs.iter().rev().copied().collect();
            self.dbs.retain(|db| choice.takes_db(*db));
        }
    }

    /// So many keys are looked at by one SCAN.
    pub(crate) fn set_count(&mut self, count: usize) {
        self.count = count.to_string();
    }

    /// Goes to a place that an earlier walk has come to.
    pub(crate) fn go_to(&mut self, db: u32, cursor: u64) {
        self.dbs.retain(|other| *other > db);
        self.at = Some((db, cursor.to_string().into()));
    }

    /// Where it is, if that is in the midst of a database.
    pub(crate) fn place(&self) -> Option<(u32, u64)> {
        let (db, cursor) = self.at.as_ref()?;
        Some((*db, std::str::from_utf8(cursor).ok()?.parse().ok()?))
    }

    /// Some keys that are chosen (perhaps none); nothing behind the last one. A key may come twice, as with SCAN.
    pub(crate) async fn next(
        &mut self,
        end: &mut End,
        choice: &Choice<'_>,
    ) -> Result<Option<Vec<Name>>, SyncError> {
        if self.at.is_none() {
            let Some(db) = self.dbs.pop() else {
                return Ok(None);
            };
            self.at = Some((db, Bytes::from_static(b"0")));
        }
        let Some((db, cursor)) = self.at.clone() else {
            return Ok(None);
        };
        let argv: [&[u8]; 4] = [b"SCAN", &cursor, b"COUNT", self.count.as_bytes()];
        let (next, keys) = match end.one(db, &argv).await? {
            Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
                Ok([Value::Bulk(next), Value::Array(keys)]) => (next, keys),
                _ => return Err(end.strange("SCAN", &Value::Null)),
            },
            other => return Err(end.strange("SCAN", &other)),
        };
        self.at = (next.as_ref() != b"0").then_some((db, next));
        let keys = keys.into_iter().filter_map(|key| match key {
            Value::Bulk(key) if choice.takes(db, &key) => Some((db, key)),
            _ => None,
        });
        Ok(Some(keys.collect()))
    }
}

/// Those of these keys that an end does not have.
pub(crate) async fn absent(end: &mut End, names: &[Name]) -> Result<Vec<Name>, SyncError> {
    let mut absent = Vec::new();
    for run in names.chunk_by(|a, b| a.0 == b.0) {
        let Some((db, _)) = run.first() else { continue };
        // One lookup for all: mostly they are all there. (EXISTS takes several keys since 3.0.3.)
        let mut argv: Vec<&[u8]> = vec![b"EXISTS"];
        argv.extend(run.iter().map(|(_, key)| key.as_ref()));
        let there = end.one(*db, &argv).await?;
        if there == Value::Int(i64::try_from(run.len()).unwrap_or(i64::MAX)) {
            continue;
        }
        let each: Vec<Vec<&[u8]>> = run
            .iter()
            .map(|(_, key)| vec![&b"EXISTS"[..], key])
            .collect();
        let replies = end.ask(*db, &each).await?;
        for (name, reply) in run.iter().zip(replies) {
            match reply {
                Value::Int(0) => absent.push(name.clone()),
                Value::Int(_) => {}
                other => return Err(end.strange("EXISTS", &other)),
            }
        }
    }
    Ok(absent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_as_large_as_it_is_said_to_be() {
        let text = "[sync_reader]\naddress = \"a:1\"\n[redis_writer]\naddress = \"b:1\"\n";
        let config = Config::parse(std::path::Path::new("shake.toml"), text).unwrap();
        let choice = Choice::new(&config, 50_000);
        let takes = |choice: &Choice<'_>| -> Vec<u32> {
            let keys = 0..20_000_u32;
            keys.filter(|n| choice.takes(n % 3, &n.to_le_bytes()))
                .collect()
        };
        let taken = takes(&choice);
        assert!((700..1300).contains(&taken.len()), "{}", taken.len());
        assert_eq!(taken, takes(&choice));
        assert_ne!(taken, takes(&Choice::new(&config, 50_000)));
        assert_eq!(takes(&Choice::new(&config, 1_000_000)).len(), 20_000);
    }

    #[test]
    fn our_keys_are_left_out_wherever_the_name_stands() {
        for key in [
            "understudy:checkpoint:x",
            "{06S}understudy:checkpoint:x",
            "x:understudy",
        ] {
            assert!(is_ours(key.as_bytes()), "{key}");
        }
        assert!(!is_ours(b"understud") && !is_ours(b""));
    }
}
