//! Is the target equal to the source? Compares what clients can see, key by key, in both directions.
//!
//! Compared: the keys of every db, type, value (lists in order, sets and hashes without, scores bit by bit but for the sign of zero), expiry,
//! expiry of hash fields, streams with their groups, consumers, pending entries and producers, arrays, function
//! libraries; values of modules by their DUMP. Encodings and LRU/LFU are not. Keys with `understudy` in their name are left out.
//!
//! Expiries are compared to the millisecond where both servers have PEXPIRETIME (7.0). An older server only tells the
//! time that is left; there the time of death is worked out from its TIME before and after, and may differ by as much
//! as lay between those two plus 2 ms.
//!
//! Both servers should be quiet. A key that differs is read again a few times before it counts, so that one which
//! expires just now is no difference.

mod diff;
mod read;
mod stream;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use crate::argv;
use crate::client::{Client, bytes, items, show_bytes, text};
use crate::version::Version;

pub use read::{Content, Expiry, KeyState};
pub use stream::{Group, Pending, StreamState};

/// Keys are read so many at a time.
const BATCH_KEYS: usize = 128;
/// A key of ours at the target.
const OWN: &[u8] = b"understudy";

/// What to compare and how exactly.
#[derive(Debug, Clone)]
pub struct OracleOptions {
    /// How far expiries may lie apart, on top of what a server without PEXPIRETIME makes unsure. A source before 7.0
    /// sends EXPIRE and its kin as they came in, relative to whenever they arrive: give it some seconds.
    pub expiry_tolerance_ms: i64,
    /// Compare when consumers were last seen and active.
    pub consumer_times: bool,
    /// Compare how many entries groups have read. Redis tells its replicas only after XREADGROUP with NOACK, so no
    /// replica knows it exactly once a source is written to: see [`OracleOptions::live`].
    pub entries_read: bool,
    /// Compare consumers who have nothing pending. Redis creates one for a read or claim that finds nothing, and
    /// does not always tell.
    pub idle_consumers: bool,
    /// Compare expiries of hash fields.
    pub field_expiries: bool,
    /// Compare function libraries.
    pub functions: bool,
    /// Compare these dbs of the source only; `None`: all.
    pub dbs: Option<Vec<u32>>,
    /// How often a key that differs is read again. One whose life ends meanwhile is gone at the source at once, and at the
    /// target when the source's DEL comes, or half a second later.
    pub rounds: u32,
    /// Stop after so many differences.
    pub differences_max: usize,
}

impl Default for OracleOptions {
    fn default() -> Self {
        Self {
            expiry_tolerance_ms: 0,
            consumer_times: false,
            entries_read: true,
            idle_consumers: true,
            field_expiries: true,
            functions: true,
            dbs: None,
            rounds: 20,
            differences_max: 50,
        }
    }
}

impl OracleOptions {
    /// For a source that was written to while it was followed: without what it does not tell its replicas.
    pub fn live(source: &Version) -> Self {
        // A round waits for the tolerance: those of an older source are few and long.
        let (expiry_tolerance_ms, rounds) = if source.redis(7, 0) {
            (0, 60)
        } else {
            (2000, 4)
        };
        Self {
            expiry_tolerance_ms,
            rounds,
            entries_read: false,
            idle_consumers: false,
            ..Self::default()
        }
    }
}

/// One thing that is not the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The db, or `None` for what belongs to none.
    pub db: Option<u32>,
    /// The key, or a function library's name.
    pub key: Vec<u8>,
    /// What differs, with both sides' state.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.db {
            Some(db) => write!(f, "db {db} key {}: {}", show_bytes(&self.key), self.what),
            None => write!(
                f,
                "function library {}: {}",
                show_bytes(&self.key),
                self.what
            ),
        }
    }
}

/// All differences of the two servers, with the default options.
pub fn compare(source: &str, target: &str) -> Vec<Difference> {
    compare_with(source, target, &OracleOptions::default())
}

/// Panics with the differences, if there are any.
pub fn assert_equal(source: &str, target: &str) {
    assert_equal_with(source, target, &OracleOptions::default());
}

/// Panics with the differences, if there are any.
pub fn assert_equal_with(source: &str, target: &str, options: &OracleOptions) {
    let differences = compare_with(source, target, options);
    let shown: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert!(
        shown.is_empty(),
        "source and target differ:\n{}",
        shown.join("\n")
    );
}

/// All differences of a server and a cluster, by the slots that each of its primaries has.
pub fn compare_cluster(
    source: &str,
    slots: &BTreeMap<String, Vec<(u16, u16)>>,
    options: &OracleOptions,
) -> Vec<Difference> {
    let nodes = slots.iter();
    nodes
        .flat_map(|(target, slots)| compare_slots(source, target, Some(slots), options))
        .collect()
}

/// Panics with the differences, if there are any.
pub fn assert_cluster_equal(
    source: &str,
    slots: &BTreeMap<String, Vec<(u16, u16)>>,
    options: &OracleOptions,
) {
    let differences = compare_cluster(source, slots, options);
    let shown: Vec<String> = differences.iter().map(ToString::to_string).collect();
    assert!(
        shown.is_empty(),
        "source and cluster differ:\n{}",
        shown.join("\n")
    );
}

/// Panics with the differences of two clusters, each by the slots that its primaries have; a single server has all slots.
pub fn assert_clusters_equal(
    source: &BTreeMap<String, Vec<(u16, u16)>>,
    target: &BTreeMap<String, Vec<(u16, u16)>>,
    options: &OracleOptions,
) {
    let mut shown = Vec::new();
    for (one, ranges) in source {
        for (other, there) in target {
            let pairs = ranges
                .iter()
                .flat_map(|a| there.iter().map(move |b| (a, b)));
            let both = pairs.map(|(a, b)| (a.0.max(b.0), a.1.min(b.1)));
            let both: Vec<(u16, u16)> = both.filter(|(first, last)| first <= last).collect();
            let found = compare_slots(one, other, Some(&both), options);
            shown.extend(found.iter().map(ToString::to_string));
        }
    }
    assert!(
        shown.is_empty(),
        "the clusters differ:\n{}",
        shown.join("\n")
    );
}

/// All differences of the two servers.
pub fn compare_with(source: &str, target: &str, options: &OracleOptions) -> Vec<Difference> {
    compare_slots(source, target, None, options)
}

/// All differences in some slots, or in all keys.
fn compare_slots(
    source: &str,
    target: &str,
    slots: Option<&[(u16, u16)]>,
    options: &OracleOptions,
) -> Vec<Difference> {
    let mut both = Both {
        source: Side::connect(source),
        target: Side::connect(target),
        slots,
        options,
    };
    let mut differences = Vec::new();
    for db in both.dbs() {
        let mut keys = both.keys(db);
        for _ in 0..options.rounds.max(1) {
            let found = both.compare_keys(db, &keys);
            keys = found
                .iter()
                .map(|difference| difference.key.clone())
                .collect();
            if keys.is_empty() {
                break;
            }
            differences.retain(|difference: &Difference| difference.db != Some(db));
            differences.extend(found);
            // All rounds together wait well longer than the tolerance.
            let tolerance_ms = u64::try_from(options.expiry_tolerance_ms).unwrap_or(0);
            let wait_ms = 100 + tolerance_ms / u64::from((options.rounds / 2).max(1));
            std::thread::sleep(Duration::from_millis(wait_ms));
        }
        if keys.is_empty() {
            differences.retain(|difference| difference.db != Some(db));
        }
        if differences.len() >= options.differences_max {
            return differences;
        }
    }
    if options.functions {
        differences.extend(both.compare_functions());
    }
    differences
}

/// Everything that a server holds, by db and key; keys of ours too.
pub fn read_all(address: &str) -> BTreeMap<(u32, Vec<u8>), KeyState> {
    let mut side = Side::connect(address);
    let mut all = BTreeMap::new();
    for db in side.client.keyspace().into_keys() {
        side.client.select(db);
        let keys = side.client.keys();
        for batch in keys.chunks(BATCH_KEYS) {
            let states = read::keys(&mut side, batch);
            let named = batch.iter().map(|key| (db, key.clone()));
            all.extend(named.zip(states));
        }
    }
    all
}

/// Code by name of every library of functions; none where the server knows none.
pub fn read_functions(address: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
    functions(&mut Side::connect(address))
}

/// The first thing in which two states of a key differ.
pub fn difference(source: &KeyState, target: &KeyState, options: &OracleOptions) -> Option<String> {
    diff::keys(source, target, options)
}

/// DEBUG DIGEST over all dbs. Keys that match the glob `remove` are deleted first (our own, at the target).
pub fn digest(client: &mut Client, remove: Option<&str>) -> String {
    if let Some(glob) = remove {
        for db in client.keyspace().into_keys() {
            client.select(db);
            for key in items(client.command(&argv!["KEYS", glob])) {
                client.command(&argv!["DEL", bytes(key)]);
            }
        }
    }
    text(&client.command(&argv!["DEBUG", "DIGEST"]))
}

/// One server, as the oracle sees it.
struct Side {
    client: Client,
    version: Version,
}

impl Side {
    fn connect(address: &str) -> Self {
        let mut client = Client::connect(address);
        let version = client.version();
        Self { client, version }
    }
}

struct Both<'a> {
    source: Side,
    target: Side,
    /// The slots that the target has, if it is a node of a cluster.
    slots: Option<&'a [(u16, u16)]>,
    options: &'a OracleOptions,
}

impl Both<'_> {
    fn dbs(&mut self) -> BTreeSet<u32> {
        let mut dbs: BTreeSet<u32> = self.source.client.keyspace().into_keys().collect();
        dbs.extend(self.target.client.keyspace().into_keys());
        dbs.retain(|db| {
            self.options
                .dbs
                .as_ref()
                .is_none_or(|wanted| wanted.contains(db))
        });
        dbs
    }

    fn keys(&mut self, db: u32) -> Vec<Vec<u8>> {
        let mut keys = BTreeSet::new();
        for side in [&mut self.source, &mut self.target] {
            // A node of a cluster has one database, and it is selected.
            if db != 0 || self.slots.is_none() {
                side.client.select(db);
            }
            keys.extend(side.client.keys());
        }
        keys.retain(|key: &Vec<u8>| !key.windows(OWN.len()).any(|part| part == OWN));
        let Some(slots) = self.slots else {
            return keys.into_iter().collect();
        };
        // Another opinion than ours on where a key belongs: that of a server which is in a cluster.
        let all: Vec<Vec<u8>> = keys.into_iter().collect();
        let asked: Vec<_> = all
            .iter()
            .map(|key| argv!["CLUSTER", "KEYSLOT", key])
            .collect();
        let is_node =
            self.target.client.info("cluster").get("cluster_enabled") == Some(&"1".into());
        let node = if is_node {
            &mut self.target
        } else {
            &mut self.source
        };
        let told = node.client.commands(&asked);
        let is_here = |slot: i64| {
            let mut ranges = slots.iter();
            ranges.any(|(first, last)| (i64::from(*first)..=i64::from(*last)).contains(&slot))
        };
        let here = all.into_iter().zip(&told);
        here.filter(|(_, slot)| crate::client::number(slot).is_some_and(is_here))
            .map(|(key, _)| key)
            .collect()
    }

    /// At most one difference a key: the first thing that differs.
    fn compare_keys(&mut self, db: u32, keys: &[Vec<u8>]) -> Vec<Difference> {
        let mut differences = Vec::new();
        for batch in keys.chunks(BATCH_KEYS) {
            let source = read::keys(&mut self.source, batch);
            let target = read::keys(&mut self.target, batch);
            for ((key, source), target) in batch.iter().zip(source).zip(target) {
                if let Some(what) = diff::keys(&source, &target, self.options) {
                    differences.push(Difference {
                        db: Some(db),
                        key: key.clone(),
                        what,
                    });
                }
            }
            if differences.len() >= self.options.differences_max {
                break;
            }
        }
        differences
    }

    fn compare_functions(&mut self) -> Vec<Difference> {
        let source = functions(&mut self.source);
        let target = functions(&mut self.target);
        let names: BTreeSet<&Vec<u8>> = source.keys().chain(target.keys()).collect();
        let differs = |name: &Vec<u8>| {
            let what = match (source.get(name), target.get(name)) {
                (Some(_), None) => "is missing at the target",
                (None, Some(_)) => "is only at the target",
                (source, target) if source == target => return None,
                _ => "has other code at the target",
            };
            Some(Difference {
                db: None,
                key: name.clone(),
                what: what.into(),
            })
        };
        names.into_iter().filter_map(differs).collect()
    }
}

/// Code by library name; none where the server knows no functions.
fn functions(side: &mut Side) -> BTreeMap<Vec<u8>, Vec<u8>> {
    if !side.version.has_functions() {
        return BTreeMap::new();
    }
    let libraries = items(side.client.command(&argv!["FUNCTION", "LIST", "WITHCODE"]));
    let libraries = libraries.into_iter().map(|library| {
        let mut fields = stream::fields(library);
        let name = fields.remove("library_name").map(bytes).unwrap_or_default();
        (
            name,
            fields.remove("library_code").map(bytes).unwrap_or_default(),
        )
    });
    libraries.collect()
}

#[cfg(test)]
mod tests;
