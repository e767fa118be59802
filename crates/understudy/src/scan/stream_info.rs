//! What a stream has beside its messages, by XINFO and XPENDING, as the events that stand behind the messages in an RDB
//! file: what it says of itself, its groups, what is pending in them, and whose that is.

use std::collections::BTreeMap;

use bytes::Bytes;
use rdb::types::StreamForm;
use rdb::{Encoding, Event, StreamCounters, StreamId, StreamInfo};
use resp::Value;
use rewrite::Fork;

use super::words::{bytes, field, items, number, stream_id};
use crate::clock::{now_ms, time_ms};
use crate::compare::End;
use crate::error::SyncError;

/// How often it is tried to have an answer and the time in one millisecond.
const TIMED_ATTEMPTS: u32 = 8;
/// Pending messages that are read at once.
const PAGE: usize = 1000;

/// Type and layout of a stream of this source, as its version would write it.
pub(super) fn layout(end: &End) -> (u8, Encoding) {
    let is_newer = end.fork == Fork::Valkey || end.has(7, 2);
    let (type_id, form) = match (is_newer, end.has(7, 0)) {
        (true, _) => (21, StreamForm::V3),
        (false, true) => (19, StreamForm::V2),
        (false, false) => (15, StreamForm::V1),
    };
    (type_id, Encoding::Stream(form))
}

/// Reads it; nothing where the key is no stream.
///
/// # Errors
/// Those of the connection.
pub(super) async fn read(end: &mut End, db: u32, key: &Bytes) -> Result<Vec<Event>, SyncError> {
    let commands: [Vec<&[u8]>; 2] = [
        vec![b"XINFO", b"STREAM", key],
        vec![b"XINFO", b"GROUPS", key],
    ];
    let answers = end.ask(db, &commands).await?.into_iter();
    let answers: Result<Vec<Value>, SyncError> = answers
        .map(|answer| end.unless_refused("XINFO", answer))
        .collect();
    let mut answers = answers?.into_iter();
    let stream = answers.next().unwrap_or(Value::Null);
    let groups = items(answers.next().unwrap_or(Value::Null));
    let Some(info) = info(&stream, groups.len() as u64) else {
        return Ok(Vec::new());
    };
    let mut events = vec![Event::StreamInfo(Box::new(info))];
    for group in &groups {
        self::group(end, db, key, group, &mut events).await?;
    }
    Ok(events)
}

/// The last id of a stream of which this was read.
pub(super) fn last_id(events: &[Event]) -> Option<Bytes> {
    events.iter().find_map(|event| match event {
        Event::StreamInfo(info) => Some(info.last_id.to_string().into()),
        _ => None,
    })
}

/// The first id behind this one, without `(` (6.2); none behind the last of all.
pub(super) fn after(id: StreamId) -> Option<Bytes> {
    let next = match id.seq.checked_add(1) {
        Some(seq) => StreamId { seq, ..id },
        None => StreamId {
            ms: id.ms.checked_add(1)?,
            seq: 0,
        },
    };
    Some(next.to_string().into())
}

fn info(stream: &Value, groups: u64) -> Option<StreamInfo> {
    let id = |name: &str| field(stream, name).and_then(|id| stream_id(&bytes(id)));
    let first_id = match field(stream, "first-entry") {
        Some(Value::Array(entry)) => entry.first().and_then(|id| stream_id(&bytes(id))),
        _ => None,
    };
    let added = field(stream, "entries-added").and_then(number);
    Some(StreamInfo {
        length: field(stream, "length").and_then(number)?,
        last_id: id("last-generated-id")?,
        counters: added.map(|entries_added| StreamCounters {
            first_id: first_id.unwrap_or_default(),
            max_deleted_id: id("max-deleted-entry-id").unwrap_or_default(),
            entries_added,
        }),
        groups,
    })
}

/// One group: itself, what is pending, its consumers.
async fn group(
    end: &mut End,
    db: u32,
    key: &Bytes,
    group: &Value,
    events: &mut Vec<Event>,
) -> Result<(), SyncError> {
    let name = field(group, "name").map(bytes).unwrap_or_default();
    let last_id = field(group, "last-delivered-id").and_then(|id| stream_id(&bytes(id)));
    let (pending, mut owned) = pending(end, db, key, &name).await?;
    events.push(Event::StreamGroup {
        name: name.clone(),
        last_id: last_id.unwrap_or_default(),
        entries_read: field(group, "entries-read").and_then(number),
        pending: pending.len() as u64,
    });
    events.extend(pending);
    let argv: [&[u8]; 4] = [b"XINFO", b"CONSUMERS", key, &name];
    let (now, consumers) = timed(end, db, &argv).await?;
    for consumer in items(consumers) {
        let name = field(&consumer, "name").map(bytes).unwrap_or_default();
        let before = |field: Option<&Value>| {
            let ms = field.and_then(number)?;
            Some(now.saturating_sub_unsigned(ms))
        };
        let ids = owned.remove(&name).unwrap_or_default();
        events.push(Event::StreamConsumer {
            seen_ms: before(field(&consumer, "idle")).unwrap_or(now),
            active_ms: before(field(&consumer, "inactive")),
            pending: ids.len() as u64,
            name,
        });
        events.extend(ids.into_iter().map(|id| Event::StreamOwned { id }));
    }
    // Whoever came meanwhile.
    for (name, ids) in owned {
        events.push(Event::StreamConsumer {
            name,
            seen_ms: now,
            active_ms: None,
            pending: ids.len() as u64,
        });
        events.extend(ids.into_iter().map(|id| Event::StreamOwned { id }));
    }
    Ok(())
}

/// An answer that tells how long ago something was, and the server's time at which it was given: asked for before and
/// behind it, until both are the same.
async fn timed(end: &mut End, db: u32, argv: &[&[u8]]) -> Result<(i64, Value), SyncError> {
    let mut left = TIMED_ATTEMPTS;
    loop {
        left -= 1;
        let commands: [Vec<&[u8]>; 3] = [vec![b"TIME"], argv.to_vec(), vec![b"TIME"]];
        let answers = end.ask(db, &commands).await?;
        let Ok([before, answer, behind]) = <[Value; 3]>::try_from(answers) else {
            return Ok((now_ms(), Value::Null));
        };
        // Without it our own clock has to do.
        let (before, behind) = (time_ms(&before), time_ms(&behind));
        if before == behind || left == 0 {
            let word = String::from_utf8_lossy(argv.first().copied().unwrap_or_default());
            let answer = end.unless_refused(&word, answer)?;
            return Ok((behind.unwrap_or_else(now_ms), answer));
        }
    }
}

/// What is pending in a group, and whose it is.
type Pending = (Vec<Event>, BTreeMap<Bytes, Vec<StreamId>>);

async fn pending(end: &mut End, db: u32, key: &Bytes, group: &Bytes) -> Result<Pending, SyncError> {
    let (mut events, mut owned) = (Vec::new(), BTreeMap::<Bytes, Vec<StreamId>>::new());
    let (mut from, count) = (Bytes::from_static(b"-"), PAGE.to_string());
    loop {
        let argv: [&[u8]; 6] = [b"XPENDING", key, group, &from, b"+", count.as_bytes()];
        let (now, rows) = timed(end, db, &argv).await?;
        let rows = items(rows);
        let mut last = None;
        for row in &rows {
            let Value::Array(words) = row else { continue };
            let [id, consumer, idle, deliveries] = words.as_slice() else {
                continue;
            };
            let Some(id) = stream_id(&bytes(id)) else {
                continue;
            };
            last = Some(id);
            events.push(Event::StreamPending {
                id,
                delivered_ms: now.saturating_sub_unsigned(number(idle).unwrap_or(0)),
                deliveries: number(deliveries).unwrap_or(1),
            });
            owned.entry(bytes(consumer)).or_default().push(id);
        }
        match last.and_then(after) {
            Some(next) if rows.len() >= PAGE => from = next,
            _ => return Ok((events, owned)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_one_another() {
        let after = |ms, seq| {
            after(StreamId { ms, seq }).map(|id| String::from_utf8_lossy(&id).into_owned())
        };
        assert_eq!(after(5, 7).as_deref(), Some("5-8"));
        assert_eq!(after(5, u64::MAX).as_deref(), Some("6-0"));
        assert_eq!(after(u64::MAX, u64::MAX), None);
    }

    #[test]
    fn what_a_stream_says_of_itself() {
        let bulk = |text: &'static str| Value::Bulk(Bytes::from_static(text.as_bytes()));
        let words = vec![
            bulk("length"),
            Value::Int(2),
            bulk("last-generated-id"),
            bulk("9-1"),
            bulk("max-deleted-entry-id"),
            bulk("3-0"),
            bulk("entries-added"),
            Value::Int(4),
            bulk("first-entry"),
            Value::Array(vec![bulk("5-0"), Value::Array(vec![])]),
        ];
        let told = info(&Value::Array(words.clone()), 3).unwrap();
        assert_eq!(
            (told.length, told.groups, told.last_id),
            (2, 3, StreamId { ms: 9, seq: 1 })
        );
        let counters = told.counters.unwrap();
        assert_eq!(
            (
                counters.first_id.ms,
                counters.max_deleted_id.ms,
                counters.entries_added
            ),
            (5, 3, 4)
        );
        // Before 7.0.
        let told = info(&Value::Array(words[..4].to_vec()), 0).unwrap();
        assert_eq!(told.counters, None);
        assert!(info(&Value::Null, 0).is_none());
    }
}
