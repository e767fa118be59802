//! Which keys are looked at: what the filter lets through, what is not ours, and a sample of that.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;
use resp::Value;
use rewrite::{Db, SLOTS, Slot, SlotSet, slot_of};

use super::end::{End, Origin};
use super::look::Name;
use crate::config::Config;
use crate::error::{Class, SyncError};
use crate::target::cluster::Topology;

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
        self.samples(db, key) && !is_ours(key) && self.takes_db(db) && filter.key(key)
    }

    /// Whether it is in the sample.
    fn samples(&self, db: u32, key: &[u8]) -> bool {
        self.ppm >= crate::config::WHOLE_PPM
            || self.state.hash_one((db, key)) % u64::from(crate::config::WHOLE_PPM)
                < u64::from(self.ppm)
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

/// A database of a node that is walked through.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stage {
    /// Which node of a cluster; none, where it is no cluster.
    node: Option<String>,
    db: u32,
}

/// A walk over all keys of an end, database by database, and in a cluster node by node.
#[derive(Debug)]
pub(crate) struct Walk {
    /// Those that are still to come, the last one first.
    stages: Vec<Stage>,
    at: Option<(Stage, Bytes)>,
    /// Keys that the end has, as it says.
    pub(crate) keys: u64,
    /// Keys that one SCAN looks at.
    count: String,
    /// Keys of the end, under their names there, that none of the source's can be.
    pub(super) strays: Vec<Name>,
    /// In a cluster: what is on its way meanwhile.
    moves: Option<Moves>,
}

/// Slots of a cluster that go to other nodes while it is walked through. SCAN tells of every key that a node has from the
/// beginning of its walk to the end. A key may go from a node that is not walked through yet to one that was already. So in
/// the end the nodes that have got slots are walked through once more, for these; what a slot's former node had was looked at
/// before that.
#[derive(Debug)]
struct Moves {
    /// Who had which slot when the pass began.
    before: Topology,
    /// Slots that were on their way at the beginning of the pass, and are looked at with their new nodes.
    known: BTreeSet<(String, u16)>,
    /// This pass is for these slots alone.
    only: Option<SlotSet>,
    passes: u32,
}

/// Slots move on and on: then it is said.
const PASSES_MAX: u32 = 20;

impl Walk {
    /// Begins; only databases that pass the filter.
    pub(crate) async fn begin(end: &mut End, config: &Config) -> Result<Self, SyncError> {
        let mut keys = 0;
        let mut stages = Vec::new();
        for (node, mut keyspace) in end.keyspaces().await? {
            keyspace.retain(|(db, _)| end.may_hold(config, *db));
            keyspace.sort_unstable();
            for (db, count) in keyspace {
                keys += count;
                let node = node.clone();
                stages.push(Stage { node, db });
            }
        }
        stages.reverse();
        let moves = end.topology().map(|topology| Moves {
            before: topology.clone(),
            known: BTreeSet::new(),
            only: None,
            passes: 0,
        });
        Ok(Self {
            keys,
            stages,
            at: None,
            count: SCAN_COUNT.to_string(),
            strays: Vec::new(),
            moves,
        })
    }

    /// Over these databases, of which it is not told how many keys they have.
    pub(crate) fn over(dbs: &[u32], choice: &Choice<'_>) -> Self {
        let dbs = dbs.iter().rev().copied();
        let stage = |db| Stage { node: None, db };
        Self {
            keys: 0,
            stages: dbs.filter(|db| choice.takes_db(*db)).map(stage).collect(),
            at: None,
            count: SCAN_COUNT.to_string(),
            strays: Vec::new(),
            moves: None,
        }
    }

    /// Only these databases; all, where none is named. One that the end does not tell of is looked at all the same.
    pub(crate) fn only(&mut self, dbs: &[u32], choice: &Choice<'_>) {
        if self.moves.is_some() {
            // Those that its nodes have.
            self.stages
                .retain(|stage| dbs.is_empty() || dbs.contains(&stage.db));
        } else if !dbs.is_empty() {
            let mut walk = Self::over(dbs, choice);
            std::mem::swap(&mut self.stages, &mut walk.stages);
        }
    }

    /// So many keys are looked at by one SCAN.
    pub(crate) fn set_count(&mut self, count: usize) {
        self.count = count.to_string();
    }

    /// Goes to a place that an earlier walk has come to.
    pub(crate) fn go_to(&mut self, db: u32, cursor: u64) {
        self.stages.retain(|other| other.db > db);
        let stage = Stage { node: None, db };
        self.at = Some((stage, cursor.to_string().into()));
    }

    /// Where it is, if that is in the midst of a database of a single server.
    pub(crate) fn place(&self) -> Option<(u32, u64)> {
        let (stage, cursor) = self.at.as_ref().filter(|(stage, _)| stage.node.is_none())?;
        Some((stage.db, std::str::from_utf8(cursor).ok()?.parse().ok()?))
    }

    /// Whether it has given up following slots that moved on and on.
    pub(crate) fn is_unsure(&self) -> bool {
        let moves = self.moves.as_ref();
        moves.is_some_and(|moves| moves.passes > PASSES_MAX)
    }

    /// Some keys that are chosen (perhaps none), under the source's names; nothing behind the last one. A key may come twice, as
    /// with SCAN.
    pub(crate) async fn next(
        &mut self,
        end: &mut End,
        choice: &Choice<'_>,
    ) -> Result<Option<Vec<Name>>, SyncError> {
        if self.at.is_none() {
            if self.stages.is_empty() && !self.pass_again(end, choice).await? {
                return Ok(None);
            }
            let Some(stage) = self.stages.pop() else {
                return Ok(Some(Vec::new()));
            };
            self.at = Some((stage, Bytes::from_static(b"0")));
        }
        let Some((stage, cursor)) = self.at.clone() else {
            return Ok(None);
        };
        let argv: [&[u8]; 4] = [b"SCAN", &cursor, b"COUNT", self.count.as_bytes()];
        let reply = match &stage.node {
            None => end.one_here(stage.db, &argv).await?,
            Some(node) => match end.one_at(node, stage.db, &argv).await {
                // It may be gone for good: then others have its slots, and are walked through once more.
                Err(error) if error.class == Class::Reconnect => {
                    end.look_around().await?;
                    if end.primaries().contains(node) {
                        return Err(error);
                    }
                    self.at = None;
                    return Ok(Some(Vec::new()));
                }
                reply => reply?,
            },
        };
        let (next, keys) = match reply {
            Value::Array(parts) => match <[Value; 2]>::try_from(parts) {
                Ok([Value::Bulk(next), Value::Array(keys)]) => (next, keys),
                _ => return Err(end.strange("SCAN", &Value::Null)),
            },
            other => return Err(end.strange("SCAN", &other)),
        };
        let db = stage.db;
        self.at = (next.as_ref() != b"0").then_some((stage, next));
        let only = self.moves.as_ref().and_then(|moves| moves.only.as_ref());
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let Value::Bulk(key) = key else { continue };
            if only.is_some_and(|only| !only.contains(slot_of(&key))) {
                continue;
            }
            match end.origin(db, &key) {
                Origin::Named(names) => {
                    let taken = names.into_iter().find(|(db, key)| choice.takes(*db, key));
                    found.extend(taken);
                }
                Origin::Nobody if !is_ours(&key) && choice.samples(db, &key) => {
                    self.strays.push((db, key));
                }
                Origin::Nobody => {}
            }
        }
        Ok(Some(found))
    }

    /// In a cluster whose slots have moved meanwhile: whether there is something to be walked through once more.
    async fn pass_again(&mut self, end: &mut End, choice: &Choice<'_>) -> Result<bool, SyncError> {
        let Some(moves) = &mut self.moves else {
            return Ok(false);
        };
        end.look_around().await?;
        let Some(now) = end.topology().cloned() else {
            return Ok(false);
        };
        let mut got: BTreeSet<(String, u16)> = BTreeSet::new();
        for slot in (0..SLOTS).map(Slot) {
            let owner = |topology: &Topology| topology.owner(slot).map(|one| one.address.clone());
            match (owner(&moves.before), owner(&now)) {
                (before, Some(now)) if before.as_ref() != Some(&now) => {
                    got.insert((now, slot.0));
                }
                _ => {}
            }
        }
        let importing = end.importing().await?;
        let on_their_way: BTreeSet<(String, u16)> = importing
            .into_iter()
            .flat_map(|(node, slots)| slots.into_iter().map(move |slot| (node.clone(), slot)))
            .collect();
        got.extend(on_their_way.difference(&moves.known).cloned());
        if got.is_empty() {
            return Ok(false);
        }
        moves.passes += 1;
        if moves.passes > PASSES_MAX {
            return Ok(false);
        }
        let only = SlotSet::new();
        for (_, slot) in &got {
            only.insert(Slot(*slot));
        }
        moves.only = Some(only);
        moves.before = now;
        moves.known = on_their_way;
        let nodes: BTreeSet<String> = got.into_iter().map(|(node, _)| node).collect();
        for (node, keyspace) in end.keyspaces().await? {
            let Some(node) = node.filter(|node| nodes.contains(node)) else {
                continue;
            };
            let dbs = keyspace.into_iter().map(|(db, _)| db);
            for db in dbs.filter(|db| end.may_hold(choice.config, *db)) {
                let node = Some(node.clone());
                self.stages.push(Stage { node, db });
            }
        }
        Ok(true)
    }
}

/// Those of these keys that an end does not have.
pub(crate) async fn absent(end: &mut End, names: &[Name]) -> Result<Vec<Name>, SyncError> {
    let mut absent = Vec::new();
    for run in names.chunk_by(|a, b| a.0 == b.0) {
        let Some((db, _)) = run.first() else { continue };
        // One lookup for all: mostly they are all there. (EXISTS takes several keys since 3.0.3.) In a cluster they are in
        // several slots.
        let mut argv: Vec<&[u8]> = vec![b"EXISTS"];
        argv.extend(run.iter().map(|(_, key)| key.as_ref()));
        if !end.is_cluster() {
            let there = end.one(*db, &argv).await?;
            if there == Value::Int(i64::try_from(run.len()).unwrap_or(i64::MAX)) {
                continue;
            }
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
