//! Says in words what differs between two states of a key.

use std::collections::BTreeMap;
use std::fmt::Debug;

use super::OracleOptions;
use super::read::{Content, Expiry, KeyState};
use super::stream::{Group, Pending, StreamState};
use crate::client::show_bytes;

/// The first thing that differs, or `None`.
pub(super) fn keys(
    source: &KeyState,
    target: &KeyState,
    options: &OracleOptions,
) -> Option<String> {
    match (source.kind.as_str(), target.kind.as_str()) {
        ("none", "none") => return None,
        (kind, "none") => return Some(format!("is missing at the target ({kind} at the source)")),
        ("none", kind) => return Some(format!("is only at the target ({kind})")),
        (a, b) if a != b => return Some(format!("type: source {a}, target {b}")),
        _ => {}
    }
    contents(&source.content, &target.content, options)
        .or_else(|| expiries(source.expiry, target.expiry, options))
}

fn expiries(source: Expiry, target: Expiry, options: &OracleOptions) -> Option<String> {
    if is_lease(source.at_ms, target.at_ms) {
        return None;
    }
    let tolerance = options.expiry_tolerance_ms + source.unsure_ms + target.unsure_ms;
    let same = match (source.at_ms, target.at_ms) {
        (Some(source), Some(target)) => (source - target).abs() <= tolerance,
        (source, target) => source == target,
    };
    let (source, target) = (source.at_ms, target.at_ms);
    (!same).then(|| {
        format!("expiry: source {source:?}, target {target:?}, may differ by {tolerance} ms")
    })
}

fn contents(source: &Content, target: &Content, options: &OracleOptions) -> Option<String> {
    match (source, target) {
        (Content::Text(a), Content::Text(b)) => texts(a, b),
        (Content::List(a), Content::List(b)) => lists(a, b),
        (Content::Set(a), Content::Set(b)) => {
            let missing = a
                .difference(b)
                .next()
                .map(|m| format!("member {} is missing", show_bytes(m)));
            let extra = || {
                b.difference(a)
                    .next()
                    .map(|m| format!("member {} is too much", show_bytes(m)))
            };
            missing.or_else(extra)
        }
        (Content::Zset(a), Content::Zset(b)) => maps("member", a, b, |a, b| {
            let (a_score, b_score) = (f64::from_bits(*a), f64::from_bits(*b));
            // Zeros of both signs are one score: a listpack keeps -0 as 0 and a skiplist as it is, so which of them
            // a server shows depends on what the key's encoding was when it was written.
            (a != b && (a_score, b_score) != (0.0, 0.0)).then(|| {
                format!("score: source {a_score:?} ({a:016x}), target {b_score:?} ({b:016x})")
            })
        }),
        (Content::Hash(a), Content::Hash(b)) => {
            maps("field", a, b, |a, b| hash_values(a, b, options))
        }
        (Content::Stream(a), Content::Stream(b)) => streams(a, b, options),
        (Content::Array(a, a_next), Content::Array(b, b_next)) => {
            lists(a, b).or_else(|| fact("next index", a_next, b_next))
        }
        (Content::Dump(a), Content::Dump(b)) => {
            (a != b).then(|| format!("dump: source {}, target {}", show_bytes(a), show_bytes(b)))
        }
        (a, b) if a == b => None,
        _ => Some("one of the two could not be read".into()),
    }
}

fn texts(source: &[u8], target: &[u8]) -> Option<String> {
    if source == target {
        return None;
    }
    let at = source
        .iter()
        .zip(target)
        .take_while(|(a, b)| a == b)
        .count();
    let shown = |text: &[u8]| show_bytes(&text[at..(at + 32).min(text.len())]);
    Some(format!(
        "value: {} bytes at the source, {} at the target, from byte {at}: source \"{}\", target \"{}\"",
        source.len(),
        target.len(),
        shown(source),
        shown(target)
    ))
}

fn lists(source: &[Vec<u8>], target: &[Vec<u8>]) -> Option<String> {
    if source == target {
        return None;
    }
    let at = source
        .iter()
        .zip(target)
        .take_while(|(a, b)| a == b)
        .count();
    let shown = |list: &[Vec<u8>]| {
        list.get(at)
            .map_or("nothing".into(), |item| show_bytes(item))
    };
    Some(format!(
        "list: {} items at the source, {} at the target, item {at}: source {}, target {}",
        source.len(),
        target.len(),
        shown(source),
        shown(target)
    ))
}

fn hash_values(
    (source, source_death): &(Vec<u8>, Option<i64>),
    (target, target_death): &(Vec<u8>, Option<i64>),
    options: &OracleOptions,
) -> Option<String> {
    let same = match (source_death, target_death) {
        (Some(a), Some(b)) => (a - b).abs() <= options.expiry_tolerance_ms,
        (a, b) => a == b,
    };
    let expiry = || format!("expiry: source {source_death:?}, target {target_death:?}");
    texts(source, target).or_else(|| (options.field_expiries && !same).then(expiry))
}

/// Compares two maps, entry by entry.
fn maps<K: Ord + AsRef<[u8]>, V>(
    what: &str,
    source: &BTreeMap<K, V>,
    target: &BTreeMap<K, V>,
    values: impl Fn(&V, &V) -> Option<String>,
) -> Option<String> {
    let name = |key: &K| format!("{what} {}", show_bytes(key.as_ref()));
    for (key, value) in source {
        match target.get(key) {
            None => return Some(format!("{} is missing", name(key))),
            Some(other) => {
                if let Some(why) = values(value, other) {
                    return Some(format!("{}: {why}", name(key)));
                }
            }
        }
    }
    let extra = target.keys().find(|key| !source.contains_key(*key));
    extra.map(|key| format!("{} is too much", name(key)))
}

fn fact<T: PartialEq + Debug>(what: &str, source: &T, target: &T) -> Option<String> {
    (source != target).then(|| format!("{what}: source {source:?}, target {target:?}"))
}

/// A fact that an older server does not tell is not compared.
fn told<T: PartialEq + Debug>(
    what: &str,
    source: &Option<T>,
    target: &Option<T>,
) -> Option<String> {
    let (source, target) = source.as_ref().zip(target.as_ref())?;
    fact(what, source, target)
}

fn streams(source: &StreamState, target: &StreamState, options: &OracleOptions) -> Option<String> {
    entries(source, target)
        .or_else(|| fact("last id", &source.last_id, &target.last_id))
        .or_else(|| {
            told(
                "largest deleted id",
                &source.max_deleted_id,
                &target.max_deleted_id,
            )
        })
        .or_else(|| {
            told(
                "entries added",
                &source.entries_added,
                &target.entries_added,
            )
        })
        .or_else(|| {
            told(
                "recorded first id",
                &source.recorded_first_id,
                &target.recorded_first_id,
            )
        })
        .or_else(|| told("producers", &source.idempotence, &target.idempotence))
        .or_else(|| {
            let counts = (&source.idempotence_counts, &target.idempotence_counts);
            told("producers' counts", counts.0, counts.1)
        })
        .or_else(|| {
            maps("group", &source.groups, &target.groups, |a, b| {
                groups(a, b, options)
            })
        })
}

fn entries(source: &StreamState, target: &StreamState) -> Option<String> {
    let (a, b) = (&source.entries, &target.entries);
    if a == b {
        return None;
    }
    let at = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let shown = |entries: &[(String, Vec<Vec<u8>>)]| {
        let entry = entries.get(at).map(|(id, fields)| {
            let fields: Vec<String> = fields
                .iter()
                .take(4)
                .map(|field| show_bytes(field))
                .collect();
            format!("{id} {}", fields.join(" "))
        });
        entry.unwrap_or("nothing".into())
    };
    Some(format!(
        "stream: {} entries at the source, {} at the target, entry {at}: source {}, target {}",
        a.len(),
        b.len(),
        shown(a),
        shown(b)
    ))
}

fn groups(source: &Group, target: &Group, options: &OracleOptions) -> Option<String> {
    fact("last id", &source.last_id, &target.last_id)
        .or_else(|| {
            told("entries read", &source.entries_read, &target.entries_read)
                .filter(|_| options.entries_read)
        })
        .or_else(|| maps("pending entry", &source.pending, &target.pending, pending))
        .or_else(|| {
            let (source, target) = (consumers(source, options), consumers(target, options));
            maps("consumer", &source, &target, |a, b| {
                let times = options
                    .consumer_times
                    .then(|| told("seen", &a.0, &b.0).or_else(|| told("active", &a.1, &b.1)));
                times.flatten()
            })
        })
}

fn consumers<'a>(
    group: &'a Group,
    options: &OracleOptions,
) -> BTreeMap<&'a [u8], &'a (Option<i64>, Option<i64>)> {
    let busy = |name: &[u8]| {
        group
            .pending
            .values()
            .any(|pending| pending.consumer == name)
    };
    let consumers = group
        .consumers
        .iter()
        .map(|(name, times)| (name.as_slice(), times));
    consumers
        .filter(|(name, _)| options.idle_consumers || busy(name))
        .collect()
}

fn pending(source: &Pending, target: &Pending) -> Option<String> {
    let unsure = source.unsure_ms + target.unsure_ms;
    let (a, b) = (source.delivered_at_ms, target.delivered_at_ms);
    fact(
        "consumer",
        &show_bytes(&source.consumer),
        &show_bytes(&target.consumer),
    )
    .or_else(|| fact("deliveries", &source.deliveries, &target.deliveries))
    .or_else(|| ((a - b).abs() > unsure).then(|| format!("delivered: source {a}, target {b}")))
}

/// What the daemon adds to the expiry of a key in its last seconds, so that the key ends with the source's own DEL.
const LEASE_MS: i64 = 7_777_777_777_777;
/// A lease on a life longer than this is a difference.
const LAST_MS: i64 = 5_000;

/// Whether the target has the key on a lease, as it may in its last seconds.
fn is_lease(source_ms: Option<i64>, target_ms: Option<i64>) -> bool {
    let (Some(source_ms), Some(target_ms)) = (source_ms, target_ms) else {
        return false;
    };
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now_ms = since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    });
    (target_ms - source_ms - LEASE_MS).abs() <= LAST_MS && source_ms - now_ms <= LAST_MS
}
