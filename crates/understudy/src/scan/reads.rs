//! Reading keys at the source: by DUMP, or by the commands of their types where DUMP is not allowed.

use bytes::Bytes;
use rdb::{Event, Kind};
use resp::Value;

use super::pages::{elements, expiries, field_expiries, kind_of};
use super::words::{bytes, items};
use crate::clock::now_ms;
use crate::compare::{End, Held, Name, Shape, has_field_ttl, read, shapes};
use crate::error::SyncError;

/// Values up to this size are read as a whole by the commands of their type.
const WHOLE_BYTES_MAX: u64 = 64 << 10;
/// So many bytes of values are asked for at once.
const AT_ONCE_BYTES: u64 = 512 << 10;

/// How values are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// By DUMP.
    Payloads,
    /// By GET, HGETALL, LRANGE and so on.
    Types,
}

/// What was read of a key.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) found: Found,
    /// When it expires, in Unix milliseconds.
    pub(super) at_ms: Option<i64>,
}

/// The value.
#[derive(Debug)]
pub(super) enum Found {
    /// There is no such key.
    Nothing,
    Payload(Bytes),
    /// A value of this kind, whole.
    Events(Kind, Vec<Event>),
    /// It has to be read in pieces.
    Large,
    /// Only DUMP could read it.
    Unreadable(String),
}

/// Keys as they are at the source now, in this order: the first of these, as many as have about so many bytes, but one
/// at least.
///
/// # Errors
/// Those of the connection.
pub(super) async fn keys(
    end: &mut End,
    way: Way,
    names: &[Name],
    bytes_max: u64,
) -> Result<Vec<Read>, SyncError> {
    match way {
        Way::Payloads => {
            let lot = read(end, names, bytes_max).await?;
            let found = lot.held.into_iter().map(|held| match held {
                Held::Nothing => (Found::Nothing, None),
                Held::Whole { payload, at_ms } => (Found::Payload(payload), at_ms),
                Held::Large { at_ms } | Held::Digested { at_ms, .. } => (Found::Large, at_ms),
                Held::Unknown => (Found::Large, None),
            });
            let now_ms = lot.now_ms;
            Ok(found
                .map(|(found, at_ms)| Read::new(found, at_ms, now_ms))
                .collect())
        }
        Way::Types => {
            let (mut all, mut left) = (Vec::with_capacity(names.len()), bytes_max);
            for run in names.chunk_by(|a, b| a.0 == b.0) {
                let Some((db, _)) = run.first() else { continue };
                let keys: Vec<&Bytes> = run.iter().map(|(_, key)| key).collect();
                if !by_types(end, *db, &keys, &mut all, &mut left).await? {
                    break;
                }
            }
            Ok(all)
        }
    }
}

impl Read {
    fn new(found: Found, at_ms: Option<i64>, now_ms: i64) -> Self {
        // It is about to go, and is as good as gone.
        match at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            true => Self {
                found: Found::Nothing,
                at_ms: None,
            },
            false => Self { found, at_ms },
        }
    }

    /// About how many bytes were read.
    pub(super) fn bytes(&self) -> u64 {
        match &self.found {
            Found::Payload(payload) => payload.len() as u64,
            Found::Events(_, events) => events.len() as u64 * 16,
            _ => 0,
        }
    }
}

/// True where all of them were read.
async fn by_types(
    end: &mut End,
    db: u32,
    keys: &[&Bytes],
    all: &mut Vec<Read>,
    left: &mut u64,
) -> Result<bool, SyncError> {
    let mut now = now_ms();
    let shapes = shapes(end, db, keys, &mut now).await?;
    let types: Vec<Vec<&[u8]>> = keys.iter().map(|key| vec![&b"TYPE"[..], key]).collect();
    let types = end.ask(db, &types).await?;
    let base = all.len();
    let mut part: Vec<(usize, Kind)> = Vec::new();
    let mut part_bytes = 0;
    for (at, (shape, kind)) in shapes.iter().zip(&types).enumerate() {
        let Shape::There { bytes: size, at_ms } = *shape else {
            all.push(Read::new(Found::Nothing, None, now));
            continue;
        };
        let word = bytes(kind);
        let found = match (kind_of(&word), word.as_ref()) {
            (_, b"none") => Found::Nothing,
            (None, _) => Found::Unreadable(String::from_utf8_lossy(&word).into_owned()),
            (Some(Kind::Stream), _) => Found::Large,
            (Some(_), _) if size > WHOLE_BYTES_MAX => Found::Large,
            (Some(_), _) if size > *left && !all.is_empty() => {
                whole(end, db, keys, &part, all, base).await?;
                return Ok(false);
            }
            (Some(kind), _) => {
                *left = left.saturating_sub(size);
                if part_bytes + size > AT_ONCE_BYTES && !part.is_empty() {
                    whole(end, db, keys, &std::mem::take(&mut part), all, base).await?;
                    part_bytes = 0;
                }
                part.push((at, kind));
                part_bytes += size;
                Found::Large
            }
        };
        all.push(Read::new(found, at_ms, now));
    }
    whole(end, db, keys, &part, all, base).await?;
    Ok(true)
}

/// Fills in the values of the keys at these places.
async fn whole(
    end: &mut End,
    db: u32,
    keys: &[&Bytes],
    part: &[(usize, Kind)],
    all: &mut [Read],
    base: usize,
) -> Result<(), SyncError> {
    if part.is_empty() {
        return Ok(());
    }
    let key_of = |at: &usize| keys.get(*at).map_or(&[][..], |key| key.as_ref());
    let questions = part.iter().map(|(at, kind)| question(*kind, key_of(at)));
    let commands: Vec<Vec<&[u8]>> = questions.collect();
    let answers = match end.ask(db, &commands).await {
        // Larger than they were said to be: they stay what `all` says they are.
        Err(_) if end.take_overrun() => return Ok(()),
        answers => answers?,
    };
    for ((at, kind), answer) in part.iter().zip(answers) {
        let Some(place) = all.get_mut(base + at) else {
            continue;
        };
        if matches!(place.found, Found::Nothing) {
            continue;
        }
        place.found = match (kind, answer) {
            (Kind::String, Value::Bulk(value)) => {
                Found::Events(Kind::String, vec![Event::String(value)])
            }
            (_, Value::Null) => Found::Nothing,
            (kind, answer @ Value::Array(_)) => {
                let words: Vec<Bytes> = items(answer).iter().map(bytes).collect();
                let times = match kind {
                    Kind::Hash if has_field_ttl(end) && !words.is_empty() => {
                        let key = Bytes::copy_from_slice(key_of(at));
                        let argv = field_expiries(&key, &words);
                        let argv: Vec<&[u8]> = argv.iter().map(Bytes::as_ref).collect();
                        let answer = end.one(db, &argv).await?;
                        expiries(&end.unless_refused("HPEXPIRETIME", answer)?)
                    }
                    _ => Vec::new(),
                };
                of_elements(*kind, elements(*kind, &words, &times))
            }
            // Another kind by now, for which there is an event, or the way in pieces.
            _ => Found::Large,
        };
    }
    Ok(())
}

/// What asks for a whole value of this kind.
fn question(kind: Kind, key: &[u8]) -> Vec<&[u8]> {
    match kind {
        Kind::String => vec![b"GET", key],
        Kind::List => vec![b"LRANGE", key, b"0", b"-1"],
        Kind::Set => vec![b"SMEMBERS", key],
        Kind::Zset => vec![b"ZRANGE", key, b"0", b"-1", b"WITHSCORES"],
        _ => vec![b"HGETALL", key],
    }
}

fn of_elements(kind: Kind, elements: Vec<Event>) -> Found {
    if elements.is_empty() {
        return Found::Nothing;
    }
    let mut events = Vec::with_capacity(elements.len() + 2);
    events.push(Event::ValueStart { kind, len: None });
    events.extend(elements);
    events.push(Event::ValueEnd);
    Found::Events(kind, events)
}
