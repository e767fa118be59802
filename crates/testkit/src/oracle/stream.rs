//! The whole state of a stream: entries, counters, groups, consumers and what is pending.

use std::collections::BTreeMap;

use redis::Value;

use super::Side;
use crate::argv;
use crate::client::{Error, bytes, items, number, text};

/// A stream. What an older server cannot tell is `None`, and then not compared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamState {
    /// Id and fields in turn.
    pub entries: Vec<(String, Vec<Vec<u8>>)>,
    /// Last generated id.
    pub last_id: String,
    /// Since 7.0.
    pub max_deleted_id: Option<String>,
    /// Since 7.0.
    pub entries_added: Option<i64>,
    /// Since 7.0.
    pub recorded_first_id: Option<String>,
    /// Settings of idempotent production and how much is remembered, by the name that XINFO gives it. Since Redis 8.6.
    pub idempotence: Option<BTreeMap<&'static str, i64>>,
    /// What idempotent production has counted, likewise.
    pub idempotence_counts: Option<BTreeMap<&'static str, i64>>,
    /// By name.
    pub groups: BTreeMap<Vec<u8>, Group>,
}

/// What XINFO tells of idempotent production.
const IDEMPOTENCE: &[&str] = &[
    "idmp-duration",
    "idmp-maxsize",
    "pids-tracked",
    "iids-tracked",
];
const IDEMPOTENCE_COUNTS: &[&str] = &["iids-added", "iids-duplicates"];

/// A consumer group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Last delivered id.
    pub last_id: String,
    /// Since 7.0; the inner `None` says that the server does not know.
    pub entries_read: Option<Option<i64>>,
    /// What is delivered and not acknowledged, by id.
    pub pending: BTreeMap<String, Pending>,
    /// Seen and active times by consumer, where the server tells them.
    pub consumers: BTreeMap<Vec<u8>, (Option<i64>, Option<i64>)>,
}

/// A pending entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// Whose it is.
    pub consumer: Vec<u8>,
    /// When it was delivered last, in Unix milliseconds.
    pub delivered_at_ms: i64,
    /// How far off that may be: XPENDING only tells how long ago it was.
    pub unsure_ms: i64,
    /// How often it was delivered.
    pub deliveries: i64,
}

/// Reads everything but the entries, which are handed in.
pub(super) fn read(side: &mut Side, key: &[u8], entries: Value) -> Result<StreamState, Error> {
    let entries = items(entries).into_iter().map(|entry| {
        let mut parts = items(entry).into_iter();
        let id = parts.next().map(|id| text(&id)).unwrap_or_default();
        let fields = parts.next().map(items).unwrap_or_default();
        (id, fields.into_iter().map(bytes).collect())
    });
    let entries = entries.collect();
    let state = if side.version.redis(6, 0) {
        full(side, key)?
    } else {
        piecewise(side, key)?
    };
    Ok(StreamState { entries, ..state })
}

/// Names and values of a reply like XINFO's.
pub(super) fn fields(reply: Value) -> BTreeMap<String, Value> {
    let mut words = items(reply).into_iter();
    let pairs = std::iter::from_fn(move || words.next().zip(words.next()));
    pairs.map(|(name, value)| (text(&name), value)).collect()
}

/// COUNT 0 means all. Entries are asked for apart, since the oracle has read them already.
fn full(side: &mut Side, key: &[u8]) -> Result<StreamState, Error> {
    let mut info = fields(
        side.client
            .try_command(&argv!["XINFO", "STREAM", key, "FULL", "COUNT", 0])?,
    );
    let groups = info.remove("groups").map(items).unwrap_or_default();
    let mut state = StreamState {
        last_id: told(&info, "last-generated-id"),
        max_deleted_id: info.get("max-deleted-entry-id").map(text),
        entries_added: info.get("entries-added").and_then(number),
        recorded_first_id: info.get("recorded-first-entry-id").map(text),
        idempotence: numbers(&info, IDEMPOTENCE),
        idempotence_counts: numbers(&info, IDEMPOTENCE_COUNTS),
        ..StreamState::default()
    };
    for group in groups {
        let mut group = fields(group);
        let name = group.remove("name").map(bytes).unwrap_or_default();
        state.groups.insert(name, full_group(group));
    }
    Ok(state)
}

/// The numbers of these names; `None` where the server tells none of them.
fn numbers(
    info: &BTreeMap<String, Value>,
    names: &[&'static str],
) -> Option<BTreeMap<&'static str, i64>> {
    let told = names
        .iter()
        .filter_map(|name| Some((*name, info.get(*name).and_then(number)?)));
    let told: BTreeMap<&'static str, i64> = told.collect();
    (!told.is_empty()).then_some(told)
}

fn full_group(mut info: BTreeMap<String, Value>) -> Group {
    let pending = info
        .remove("pel")
        .or_else(|| info.remove("pending"))
        .map(items)
        .unwrap_or_default();
    let pending = pending.into_iter().map(|entry| {
        let mut parts = items(entry).into_iter();
        let id = parts.next().map(|id| text(&id)).unwrap_or_default();
        let consumer = parts.next().map(bytes).unwrap_or_default();
        let mut next = || parts.next().as_ref().and_then(number).unwrap_or(0);
        let (delivered_at_ms, deliveries) = (next(), next());
        (
            id,
            Pending {
                consumer,
                delivered_at_ms,
                unsure_ms: 0,
                deliveries,
            },
        )
    });
    let pending = pending.collect();
    let consumers = info.remove("consumers").map(items).unwrap_or_default();
    let consumers = consumers.into_iter().map(|consumer| {
        let mut consumer = fields(consumer);
        let name = consumer.remove("name").map(bytes).unwrap_or_default();
        let time = |name: &str| consumer.get(name).and_then(number);
        (name, (time("seen-time"), time("active-time")))
    });
    let consumers = consumers.collect();
    let entries_read = info.get("entries-read").map(number);
    Group {
        last_id: told(&info, "last-delivered-id"),
        entries_read,
        pending,
        consumers,
    }
}

fn told(info: &BTreeMap<String, Value>, name: &str) -> String {
    info.get(name).map(text).unwrap_or_default()
}

/// 5.0 knows no FULL.
fn piecewise(side: &mut Side, key: &[u8]) -> Result<StreamState, Error> {
    let info = fields(side.client.try_command(&argv!["XINFO", "STREAM", key])?);
    let mut state = StreamState {
        last_id: told(&info, "last-generated-id"),
        ..StreamState::default()
    };
    for group in items(side.client.try_command(&argv!["XINFO", "GROUPS", key])?) {
        let mut info = fields(group);
        let name = info.remove("name").map(bytes).unwrap_or_default();
        let mut group = Group {
            last_id: told(&info, "last-delivered-id"),
            ..Group::default()
        };
        for consumer in items(
            side.client
                .try_command(&argv!["XINFO", "CONSUMERS", key, name])?,
        ) {
            let consumer = fields(consumer)
                .remove("name")
                .map(bytes)
                .unwrap_or_default();
            group.consumers.insert(consumer, (None, None));
        }
        let count = info.get("pending").and_then(number).unwrap_or(0);
        group.pending = pending(side, key, &name, count)?;
        state.groups.insert(name, group);
    }
    Ok(state)
}

fn pending(
    side: &mut Side,
    key: &[u8],
    group: &[u8],
    count: i64,
) -> Result<BTreeMap<String, Pending>, Error> {
    if count == 0 {
        return Ok(BTreeMap::new());
    }
    let before = server_ms(side)?;
    let entries = side
        .client
        .try_command(&argv!["XPENDING", key, group, "-", "+", count])?;
    let unsure_ms = server_ms(side)? - before + 2;
    let entries = items(entries).into_iter().map(|entry| {
        let mut parts = items(entry).into_iter();
        let id = parts.next().map(|id| text(&id)).unwrap_or_default();
        let consumer = parts.next().map(bytes).unwrap_or_default();
        let mut next = || parts.next().as_ref().and_then(number).unwrap_or(0);
        let (idle_ms, deliveries) = (next(), next());
        (
            id,
            Pending {
                consumer,
                delivered_at_ms: before - idle_ms,
                unsure_ms,
                deliveries,
            },
        )
    });
    Ok(entries.collect())
}

fn server_ms(side: &mut Side) -> Result<i64, Error> {
    let parts = items(side.client.try_command(&argv!["TIME"])?);
    let parts: Vec<i64> = parts.iter().filter_map(number).collect();
    Ok(parts.first().unwrap_or(&0) * 1000 + parts.get(1).unwrap_or(&0) / 1000)
}
