//! Elements written one after the other, each in strings of its own.
//!
//! ```text
//! LIST, SET              string
//! ZSET, ZSET_2           member, score as text or f64
//! HASH                   field, value
//! HASH_METADATA_PRE_GA   expiry (0: none), field, value
//! HASH_METADATA          expiry less the smallest, plus one (0: none), field, value
//! HASH_2                 field, value, i64 expiry (-1: none)
//! ```
//!
//! In front of all: their number; in front of that, for HASH_METADATA, the smallest expiry as i64.

use crate::container::EXPIRY_MAX;
use crate::error::Stop;
use crate::event::{Event, Score};
use crate::leaf::double;
use crate::leaf::reader::{Reader, Text};
use crate::types::{Encoding, Kind, Row};
use crate::value::Input;

const RANGE: Stop = Stop::corrupt("a field's expiry out of range");

/// The smallest expiry (0 where there is none) and the number of elements.
pub(crate) fn head(encoding: Encoding, reader: &mut Reader<'_>) -> Result<(u64, u64), Stop> {
    let mut min_ms = 0;
    if encoding == Encoding::ExpiringRelative {
        min_ms = u64::from_le_bytes(reader.array()?);
        if min_ms > EXPIRY_MAX + 1 {
            return Err(RANGE);
        }
    }
    Ok((min_ms, reader.number()?))
}

/// An element that was read.
pub(crate) enum Read {
    /// An item or a member.
    Item(Text),
    /// A field, its value, and its expiry.
    Pair(Text, Text, Option<u64>),
    /// A member and its score.
    Scored(Text, Score),
}

/// Reads the next element.
#[inline]
pub(crate) fn read(
    row: &Row,
    min_ms: u64,
    reader: &mut Reader<'_>,
    max: u64,
) -> Result<Read, Stop> {
    let mut expire_at_ms = match row.encoding {
        Encoding::ExpiringAbsolute => some(reader.number()?)?,
        Encoding::ExpiringRelative => relative(reader.number()?, min_ms)?,
        _ => None,
    };
    let first = reader.text(max)?;
    Ok(match row.kind {
        Kind::Hash => {
            let second = reader.text(max)?;
            if row.encoding == Encoding::ExpiringTrailing {
                expire_at_ms = trailing(i64::from_le_bytes(reader.array()?))?;
            }
            Read::Pair(first, second, expire_at_ms)
        }
        Kind::Zset => match row.encoding {
            Encoding::TextScores => Read::Scored(first, double::framed_text(reader)?),
            _ => Read::Scored(first, double::binary(reader)?),
        },
        _ => Read::Item(first),
    })
}

/// Gives the next element.
#[inline]
pub(crate) fn next(row: &Row, min_ms: u64, input: &mut Input<'_>) -> Result<Event, Stop> {
    let mut reader = Reader::new(input.window.rest());
    let read = read(row, min_ms, &mut reader, input.limits.item_bytes_max)?;
    let used = reader.at();
    let event = match read {
        Read::Item(item) => Event::Item(input.text(item)?),
        Read::Pair(field, value, expire_at_ms) => Event::Pair {
            field: input.text(field)?,
            value: input.text(value)?,
            expire_at_ms,
        },
        Read::Scored(member, score) => Event::Scored {
            member: input.text(member)?,
            score,
        },
    };
    input.window.consume(used);
    Ok(event)
}

fn some(at_ms: u64) -> Result<Option<u64>, Stop> {
    match at_ms {
        0 => Ok(None),
        1..=EXPIRY_MAX => Ok(Some(at_ms)),
        _ => Err(RANGE),
    }
}

fn relative(above: u64, min_ms: u64) -> Result<Option<u64>, Stop> {
    let Some(above) = above.checked_sub(1) else {
        return Ok(None);
    };
    match min_ms.checked_add(above) {
        Some(at_ms @ ..=EXPIRY_MAX) => Ok(Some(at_ms)),
        _ => Err(RANGE),
    }
}

fn trailing(at_ms: i64) -> Result<Option<u64>, Stop> {
    if at_ms == -1 {
        return Ok(None);
    }
    u64::try_from(at_ms).map(Some).map_err(|_| RANGE)
}
