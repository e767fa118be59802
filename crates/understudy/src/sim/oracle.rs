//! What is true: the state of the source at every offset of each of its histories. And who looks whether the target
//! keeps to it.

use std::collections::{BTreeMap, BTreeSet};

use replica::ReplId;

use super::store::{Content, DATABASES, Entry, Keys, Store};
use super::world::World;
use crate::checkpoint::{self, Checkpoint, Phase, Position};

/// Added to an expiry that is a lease: what `pipeline::lease` says, once more.
const LEASE_MS: i64 = 7_777_777_777_777;

/// One history of the source, under one name.
#[derive(Debug)]
struct Branch {
    /// The history that it goes on with up to an offset.
    parent: Option<(ReplId, u64)>,
    states: BTreeMap<u64, Store>,
}

/// The source's past, under all of its names.
#[derive(Debug, Default)]
pub(super) struct Truth {
    branches: BTreeMap<ReplId, Branch>,
}

impl Truth {
    /// A history begins, perhaps out of another one.
    pub(super) fn begin(&mut self, replid: ReplId, parent: Option<(ReplId, u64)>) {
        let branch = Branch {
            parent,
            states: BTreeMap::new(),
        };
        self.branches.insert(replid, branch);
    }

    /// After everything up to `offset` the source is as `store`.
    pub(super) fn record(&mut self, replid: ReplId, offset: u64, store: &Store) {
        if let Some(branch) = self.branches.get_mut(&replid) {
            branch.states.insert(offset, store.clone());
        }
    }

    /// The source at a place between two commands or transactions.
    pub(super) fn at(&self, mut replid: ReplId, offset: u64) -> Option<&Store> {
        loop {
            let branch = self.branches.get(&replid)?;
            match branch.parent {
                Some((parent, end)) if offset <= end => replid = parent,
                _ => return branch.states.get(&offset),
            }
        }
    }

    /// Offsets of a history that a state is known of, from `from` on.
    pub(super) fn offsets(&self, replid: ReplId, from: u64) -> Vec<u64> {
        self.branches.get(&replid).map_or_else(Vec::new, |branch| {
            branch.states.range(from..).map(|(at, _)| *at).collect()
        })
    }
}

/// Keys that are not compared.
pub(super) type Spoilt = BTreeSet<(u32, Vec<u8>)>;

/// Looks at the target after everything that changes it.
#[derive(Debug)]
pub(super) struct Oracle {
    key: String,
    /// Looks made at a position in the stream.
    pub(super) looks: u64,
    /// The furthest offset that the target ever had, whatever its history.
    pub(super) furthest: u64,
    /// Keys that others have written at the target: what it holds of them counts in the end.
    pub(super) spoilt: Spoilt,
    epoch: u64,
    in_stream: bool,
    /// When the target last fell back, or went from a snapshot to the stream or the other way.
    changed_ms: u64,
}

/// A look at the target that is no older than this may have been taken before it changed.
const SETTLED_MS: u64 = 12_000;

impl Oracle {
    pub(super) fn new(link: &str) -> Self {
        Self {
            key: checkpoint::key(link),
            looks: 0,
            furthest: 0,
            spoilt: Spoilt::new(),
            epoch: 0,
            in_stream: false,
            changed_ms: 0,
        }
    }

    /// Whether the target's phase has been for long what it is.
    pub(super) fn is_settled(&self, world: &World) -> bool {
        world.now() > self.changed_ms + SETTLED_MS
    }

    /// What the target's checkpoint says.
    pub(super) fn checkpoint(&self, store: &Store) -> Option<Result<Checkpoint, String>> {
        let entry = store.entry(0, self.key.as_bytes())?;
        match &entry.content {
            Content::Text(text) => Some(Checkpoint::parse(text)),
            Content::List(_) => Some(Err("it is a list".to_owned())),
        }
    }

    pub(super) fn position(&self, store: &Store) -> Option<Position> {
        match self.checkpoint(store)?.ok()?.phase {
            Phase::Stream(position) => Some(position),
            Phase::Snapshot(_) | Phase::Diverged(_) | Phase::Scan(_) => None,
        }
    }

    /// The target was set back by a failure of its own.
    pub(super) fn fell_back(&mut self, store: &Store, world: &World) {
        self.changed_ms = world.now();
        self.epoch = self
            .checkpoint(store)
            .and_then(Result::ok)
            .map_or(0, |found| found.epoch);
    }

    /// Compares, and blames.
    pub(super) fn look(&mut self, world: &World, store: &Store, truth: &Truth) {
        let found = match self.checkpoint(store) {
            None if self.epoch == 0 => return,
            None => return world.blame("the checkpoint is gone".to_owned()),
            Some(Err(why)) => return world.blame(format!("the checkpoint is broken: {why}")),
            Some(Ok(found)) => found,
        };
        if found.epoch < self.epoch {
            world.blame(format!(
                "the epoch fell from {} to {}",
                self.epoch, found.epoch
            ));
        }
        self.epoch = found.epoch;
        let in_stream = matches!(found.phase, Phase::Stream(_));
        if in_stream != self.in_stream {
            (self.in_stream, self.changed_ms) = (in_stream, world.now());
        }
        match found.phase {
            Phase::Snapshot(at) => self.furthest = self.furthest.max(at.offset.0),
            Phase::Diverged(at) => world.blame(format!("diverged at {}", at.offset.0)),
            Phase::Scan(_) => world.blame("a checkpoint of SCAN".to_owned()),
            Phase::Stream(at) => {
                self.looks += 1;
                self.furthest = self.furthest.max(at.offset.0);
                match truth.at(at.replid, at.offset.0) {
                    None => world.blame(format!(
                        "the checkpoint says {} {}, where no command of the source ends",
                        at.replid, at.offset.0
                    )),
                    Some(expected) => {
                        let now_ms = world.unix_ms() as i64;
                        // Keys under repair may be anything, until they are no longer named.
                        let mut excepted = self.spoilt.clone();
                        excepted.extend(found.repairs.iter().map(|(db, key)| (db, key.to_vec())));
                        // What the target had ended before the source saved it is seen by the replies.
                        if let Some(unseen) = found.unseen {
                            excepted.extend(saved_late(world, truth, at, unseen, now_ms));
                        }
                        // What is under repair and has no room there is told of by the unseen part.
                        if let Some(unseen) = found.unseen
                            && world.named_max.get().is_some()
                        {
                            let source = world.source.borrow();
                            match source.words_in(
                                at.offset.0 - unseen.bytes,
                                at.offset.0,
                                unseen.db,
                            ) {
                                Some(words) => excepted.extend(words),
                                None => return,
                            }
                        }
                        let difference = difference(expected, store, now_ms, false, &excepted);
                        // Where the checkpoint cannot name them, nobody knows which: at the end there are none.
                        let difference = difference.filter(|_| !found.repairs.are_unnamed());
                        if let Some(difference) = difference {
                            world.blame(format!("at offset {}: {difference}", at.offset.0));
                        }
                    }
                }
            }
        }
    }
}

/// Keys that commands name whose replies were not looked at, and whose lives before these commands are over by now.
fn saved_late(
    world: &World,
    truth: &Truth,
    at: Position,
    unseen: checkpoint::Unseen,
    now_ms: i64,
) -> Spoilt {
    let (from, to) = (at.offset.0 - unseen.bytes, at.offset.0);
    let words = world.source.borrow().words_in(from, to, unseen.db);
    let mut words = words.unwrap_or_default();
    let before = truth.at(at.replid, from);
    words.retain(|(db, key)| {
        let entry = before.and_then(|before| before.entry(*db, key));
        let expires_ms = entry.and_then(|entry| entry.expires_ms);
        expires_ms.is_some_and(|at_ms| at_ms <= now_ms)
    });
    words
}

/// The first difference between the source's keys and the target's, but for those under repair. `exactly`: every expiry is the source's own.
/// Otherwise a key whose life is over by now, and whose DEL has not come, may be anything: the target may have ended it
/// while it was cut off from us, and what commands did to it in its last moments has made a part of it anew.
pub(super) fn difference(
    source: &Store,
    target: &Store,
    now_ms: i64,
    exactly: bool,
    excepted: &Spoilt,
) -> Option<String> {
    let none = Keys::new();
    for db in 0..DATABASES {
        let (ours, theirs) = (
            source.keys_of(db).unwrap_or(&none),
            target.keys_of(db).unwrap_or(&none),
        );
        let names = ours.keys().chain(theirs.keys());
        for key in names.filter(|key| !key.starts_with(b"understudy:")) {
            if !excepted.is_empty() && excepted.contains(&(db, key.clone())) {
                continue;
            }
            let what = || format!("db{db} \"{}\"", key.escape_ascii());
            let has_expired = |entry: &Entry| entry.expires_ms.is_some_and(|at_ms| at_ms <= now_ms);
            match (ours.get(key), theirs.get(key)) {
                (Some(ours), Some(_)) if !exactly && has_expired(ours) => {}
                // What commands in its last moments have made anew, before its DEL.
                (Some(ours), Some(theirs)) if has_expired(ours) && theirs.expires_ms.is_none() => {}
                (Some(ours), Some(theirs)) if ours.content != theirs.content => {
                    return Some(format!(
                        "{} is {:?} and not {:?}",
                        what(),
                        theirs.content,
                        ours.content
                    ));
                }
                (Some(ours), Some(theirs)) => {
                    let leased = ours.expires_ms.map(|at_ms| at_ms + LEASE_MS);
                    let is_right = theirs.expires_ms == ours.expires_ms
                        || !exactly && theirs.expires_ms == leased;
                    if !is_right {
                        return Some(format!(
                            "{} expires at {:?} and not at {:?}",
                            what(),
                            theirs.expires_ms,
                            ours.expires_ms
                        ));
                    }
                }
                (Some(ours), None) if !has_expired(ours) => {
                    return Some(format!("{} is missing", what()));
                }
                (None, Some(theirs)) if !has_expired(theirs) => {
                    return Some(format!("{} is not at the source", what()));
                }
                _ => {}
            }
        }
    }
    None
}
