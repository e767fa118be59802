//! Listpacks (`listpack.c`).
//!
//! ```text
//! u32 total | u16 count (65535: not known) | entries | FF          little-endian
//!
//! 0xxxxxxx                        integer 0..127
//! 10llllll + l                    string
//! 110xxxxx xxxxxxxx               integer of 13 bits, signed
//! 1110llll llllllll + l           string
//! 11110000 + u32 le + l           string
//! 11110001 .. 11110100            integer of 16, 24, 32, 64 bits, little-endian
//!
//! behind each: its size, 7 bits a byte, the most significant first, bit 7 set in all but the first
//! ```
//!
//! Where an entry has exactly 16383, 2097151 or 268435455 bytes, Redis up to 8.6 and Valkey
//! up to 9.0 write its size with one byte more than Redis 8.10 and Valkey 9.1 do. Both are accepted.

use crate::container::Entry;
use crate::error::ErrorKind;
use crate::leaf::number::i24_le;

pub(crate) const HEADER: usize = 6;
const END: u8 = 0xff;
const UNKNOWN_COUNT: u16 = u16::MAX;

const RUNS_OUT: ErrorKind = ErrorKind::Corrupt("a listpack entry runs past the end");
const BACK: ErrorKind = ErrorKind::Corrupt("a listpack entry with a wrong size behind it");

/// Validates a listpack and shows its entries; returns their number.
#[inline]
pub(crate) fn walk(
    blob: &[u8],
    mut each: impl FnMut(u64, Entry) -> Result<(), ErrorKind>,
) -> Result<u64, ErrorKind> {
    let declared = header(blob)?;
    let (mut at, mut count) = (HEADER, 0);
    loop {
        let (next, after) = match short(blob, at) {
            Some(found) => found,
            None => match entry(blob, at)? {
                Some(found) => found,
                None => return end(blob, at, declared, count),
            },
        };
        each(count, next)?;
        count += 1;
        at = after;
    }
}

/// Validates a listpack of elements of `N` entries each and shows these: the first of each to `first`, the others with
/// their places to `other`. Returns the number of entries, of which the last element may lack some.
#[inline]
pub(crate) fn walk_elements<const N: u64>(
    blob: &[u8],
    mut first: impl FnMut(Entry),
    mut other: impl FnMut(u64, Entry) -> Result<(), ErrorKind>,
) -> Result<u64, ErrorKind> {
    let declared = header(blob)?;
    let (mut at, mut count) = (HEADER, 0);
    loop {
        for place in 0..N {
            let (next, after) = match short(blob, at) {
                Some(found) => found,
                None => match entry(blob, at)? {
                    Some(found) => found,
                    None => return end(blob, at, declared, count),
                },
            };
            if place == 0 {
                first(next);
            } else {
                other(place, next)?;
            }
            count += 1;
            at = after;
        }
    }
}

/// The entry at `at` and where the next one begins, if it is a short text or a small number: most entries are.
#[inline]
fn short(blob: &[u8], at: usize) -> Option<(Entry, usize)> {
    let &first = blob.get(at)?;
    if first >= 0xc0 {
        return None;
    }
    let size = SIZES.get(usize::from(first)).copied().unwrap_or_default();
    let behind = at + usize::from(size);
    if blob.get(behind) != Some(&size) {
        return None;
    }
    let next = if first < 0x80 {
        Entry::Int(i64::from(first))
    } else {
        Entry::Text {
            start: at + 1,
            end: behind,
        }
    };
    Some((next, behind + 1))
}

/// What has to be so behind the last entry.
fn end(blob: &[u8], at: usize, declared: u16, count: u64) -> Result<u64, ErrorKind> {
    if at + 1 != blob.len() {
        return Err(ErrorKind::Corrupt("a listpack that ends before its end"));
    }
    if declared != UNKNOWN_COUNT && u64::from(declared) != count {
        return Err(ErrorKind::Corrupt(
            "a listpack with another number of entries than stated",
        ));
    }
    Ok(count)
}

/// How many bytes an entry has, by its first one: 0 where more has to be looked at.
static SIZES: [u8; 256] = sizes();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated by the compiler, which would refuse a wrong index; no size is above 64"
)]
const fn sizes() -> [u8; 256] {
    let mut sizes = [0; 256];
    let mut first = 0;
    while first < sizes.len() {
        sizes[first] = match first {
            0x00..=0x7f => 1,
            0x80..=0xbf => 1 + (first as u8 & 0x3f),
            0xc0..=0xdf => 2,
            0xf1 => 3,
            0xf2 => 4,
            0xf3 => 5,
            0xf4 => 9,
            _ => 0,
        };
        first += 1;
    }
    sizes
}

/// Validates a listpack without a look at what its entries are; returns their number.
pub(crate) fn count(blob: &[u8]) -> Result<u64, ErrorKind> {
    let declared = header(blob)?;
    let (mut at, mut count) = (HEADER, 0);
    loop {
        // Most entries are short: their size stands in one byte behind them.
        while let Some(&first) = blob.get(at) {
            let size = SIZES.get(usize::from(first)).copied().unwrap_or_default();
            let behind = at + usize::from(size);
            if size == 0 || blob.get(behind) != Some(&size) {
                break;
            }
            at = behind + 1;
            count += 1;
        }
        let Some((_, after)) = entry(blob, at)? else {
            break;
        };
        at = after;
        count += 1;
    }
    end(blob, at, declared, count)
}

fn header(blob: &[u8]) -> Result<u16, ErrorKind> {
    let Some(([t0, t1, t2, t3, c0, c1], _)) = blob.split_first_chunk::<HEADER>() else {
        return Err(ErrorKind::Corrupt("a listpack without a header"));
    };
    let total = u32::from_le_bytes([*t0, *t1, *t2, *t3]);
    if usize::try_from(total) != Ok(blob.len()) {
        return Err(ErrorKind::Corrupt("a listpack of another size than stated"));
    }
    if blob.len() == HEADER || blob.last() != Some(&END) {
        return Err(ErrorKind::Corrupt("a listpack without an end"));
    }
    Ok(u16::from_le_bytes([*c0, *c1]))
}

/// The entry at `at` and where the next one begins; `None` at the end.
#[inline]
pub(crate) fn entry(blob: &[u8], at: usize) -> Result<Option<(Entry, usize)>, ErrorKind> {
    let rest = blob.get(at..).unwrap_or_default();
    let Some((&first, body)) = rest.split_first() else {
        return Err(RUNS_OUT);
    };
    let (entry, size) = match first {
        0x00..=0x7f => (Entry::Int(i64::from(first)), 1),
        0x80..=0xbf => text(at, 1, usize::from(first & 0x3f)),
        0xc0..=0xdf => {
            let raw = u16::from_be_bytes([first & 0x1f, byte(body)?]);
            // Thirteen bits: shifted up to the sign bit and back.
            (Entry::Int(i64::from((raw << 3).cast_signed() >> 3)), 2)
        }
        0xe0..=0xef => {
            let len = u16::from_be_bytes([first & 0x0f, byte(body)?]);
            text(at, 2, usize::from(len))
        }
        0xf0 => {
            let len = u32::from_le_bytes(array(body)?);
            text(at, 5, usize::try_from(len).map_err(|_| RUNS_OUT)?)
        }
        0xf1 => (Entry::Int(i64::from(i16::from_le_bytes(array(body)?))), 3),
        0xf2 => (Entry::Int(i64::from(i24_le(array(body)?))), 4),
        0xf3 => (Entry::Int(i64::from(i32::from_le_bytes(array(body)?))), 5),
        0xf4 => (Entry::Int(i64::from_le_bytes(array(body)?)), 9),
        END => return Ok(None),
        0xf5..=0xfe => return Err(ErrorKind::Corrupt("a listpack entry of an unknown form")),
    };
    let behind = rest.get(size..).ok_or(RUNS_OUT)?;
    let back = match (size, behind) {
        (..0x80, [only, ..]) if usize::from(*only) == size => 1,
        (..0x80, _) => return Err(BACK),
        // Most of the others have two bytes; nothing here takes another form.
        (0x80..0x3fff, [high, low, ..])
            if usize::from(*high) << 7 | usize::from(*low & 0x7f) == size && *low >= 0x80 =>
        {
            2
        }
        _ => back_length(behind, size)?,
    };
    Ok(Some((entry, at + size + back)))
}

#[inline]
fn text(at: usize, header: usize, len: usize) -> (Entry, usize) {
    let start = at + header;
    (
        Entry::Text {
            start,
            end: start.saturating_add(len),
        },
        header.saturating_add(len),
    )
}

#[inline]
fn byte(body: &[u8]) -> Result<u8, ErrorKind> {
    body.first().copied().ok_or(RUNS_OUT)
}

#[inline]
fn array<const N: usize>(body: &[u8]) -> Result<[u8; N], ErrorKind> {
    body.first_chunk::<N>().copied().ok_or(RUNS_OUT)
}

/// Checks the size written behind an entry; returns how many bytes it takes.
fn back_length(behind: &[u8], size: usize) -> Result<usize, ErrorKind> {
    let shortest = match size {
        ..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        0x1000_0000.. => 5,
    };
    let longest = match size {
        0x3fff | 0x1f_ffff | 0x0fff_ffff => shortest + 1,
        _ => shortest,
    };
    (shortest..=longest)
        .find(|&len| is_back_length(behind, size, len))
        .ok_or(BACK)
}

/// How the sizes behind entries are written where the forks write them differently: where an entry
/// has exactly 16383, 2097151 or 268435455 bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackLengths {
    /// Some entry has the form of Redis up to 8.6, Valkey up to 9.0 and Redict, of one byte more.
    /// Valkey 9.1 refuses it.
    pub longer: bool,
    /// Some entry has the form of Redis 8.10 and of Valkey from 9.1 on. Older servers may end over it.
    pub shorter: bool,
}

impl BackLengths {
    /// Notes the entries of a listpack that was checked.
    pub(crate) fn note(&mut self, blob: &[u8]) -> Result<(), ErrorKind> {
        // Such an entry does not fit into less.
        if blob.len() < 0x3fff {
            return Ok(());
        }
        let mut at = HEADER;
        while let Some((next, after)) = entry(blob, at)? {
            if let Entry::Text { end, .. } = next {
                // Only text gets so long.
                if let 0x3fff | 0x1f_ffff | 0x0fff_ffff = end - at {
                    let longer = blob.get(end) == Some(&0);
                    self.longer |= longer;
                    self.shorter |= !longer;
                }
            }
            at = after;
        }
        Ok(())
    }
}

fn is_back_length(behind: &[u8], size: usize, len: usize) -> bool {
    let Some(bytes) = behind.get(..len) else {
        return false;
    };
    bytes.iter().enumerate().all(|(index, byte)| {
        let seven = size >> (7 * (len - 1 - index)) & 0x7f;
        let follows = if index == 0 { 0 } else { 0x80 };
        usize::from(*byte) == seven | follows
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(entries: &[u8], count: u16) -> Vec<u8> {
        let total = u32::try_from(entries.len() + 7).expect("small");
        let mut blob = total.to_le_bytes().to_vec();
        blob.extend(count.to_le_bytes());
        blob.extend(entries);
        blob.push(END);
        blob
    }

    fn all(blob: &[u8]) -> Result<Vec<Entry>, ErrorKind> {
        let mut seen = Vec::new();
        let walked = walk(blob, |_, entry| {
            seen.push(entry);
            Ok(())
        });
        assert_eq!(count(blob), walked, "counted as walked");
        walked.map(|_| seen)
    }

    #[test]
    fn every_form() {
        let entries = [
            &[0x7f, 1][..],
            &[0x82, b'a', b'b', 3],
            &[0xdf, 0xff, 2],
            &[0xd0, 0x00, 2],
            &[0xcf, 0xff, 2],
            &[0xe0, 1, b'c', 3],
            &[0xf0, 1, 0, 0, 0, b'd', 6],
            &[0xf1, 0x00, 0x80, 3],
            &[0xf2, 0x00, 0x00, 0x80, 4],
            &[0xf3, 0, 0, 0, 0x80, 5],
            &[0xf4, 0, 0, 0, 0, 0, 0, 0, 0x80, 9],
        ];
        let blob = wrap(&entries.concat(), 11);
        let ints = [
            127,
            -1,
            -4096,
            4095,
            -32768,
            -8_388_608,
            i64::from(i32::MIN),
            i64::MIN,
        ];
        let seen = all(&blob).expect("a good listpack");
        let found: Vec<i64> = seen
            .iter()
            .filter_map(|e| {
                if let Entry::Int(i) = e {
                    Some(*i)
                } else {
                    None
                }
            })
            .collect();
        assert_eq!(found, ints);
        let texts: Vec<&[u8]> = seen
            .iter()
            .filter_map(|e| {
                if let Entry::Text { start, end } = e {
                    blob.get(*start..*end)
                } else {
                    None
                }
            })
            .collect();
        assert_eq!(texts, [&b"ab"[..], b"c", b"d"]);
    }

    #[test]
    fn both_forms_of_a_size_at_its_limit() {
        let len = 0x3fff_u32 - 5;
        let mut entry = vec![0xf0];
        entry.extend(len.to_le_bytes());
        entry.resize(0x3fff, b'x');
        for (back, good) in [
            (&[0x7f, 0xff][..], true),
            (&[0x00, 0xff, 0xff], true),
            (&[0x00, 0x00, 0xff, 0xff], false),
            (&[0x7f, 0x7f], false),
        ] {
            let blob = wrap(&[&entry[..], back].concat(), 1);
            assert_eq!(all(&blob).is_ok(), good, "{back:x?}");
        }
        // One byte less or more, and there is one form only.
        entry.pop();
        let less = (len - 1).to_le_bytes();
        entry[1..5].copy_from_slice(&less);
        assert!(all(&wrap(&[&entry[..], &[0x7f, 0xfe]].concat(), 1)).is_ok());
        assert!(all(&wrap(&[&entry[..], &[0x00, 0xff, 0xfe]].concat(), 1)).is_err());
    }

    #[test]
    fn refuses() {
        for (blob, why) in [
            (wrap(&[1, 1], 2), "number of entries"),
            (wrap(&[1, 2], 1), "wrong size"),
            (wrap(&[0xf5, 1], 1), "unknown form"),
            (wrap(&[0x85, b'a', 6], 1), "past the end"),
            (wrap(&[1, 1, 0xff, 1, 1], 1), "before its end"),
            (vec![7, 0, 0, 0, 0, 0], "another size"),
            (vec![6, 0, 0, 0, 0, 0], "without an end"),
            (vec![7, 0, 0], "without a header"),
        ] {
            let got = all(&blob).expect_err("a bad listpack").to_string();
            assert!(got.contains(why), "{got} for {why}");
        }
        assert_eq!(all(&wrap(&[1, 1], UNKNOWN_COUNT)), Ok(vec![Entry::Int(1)]));
        assert_eq!(all(&wrap(&[], 0)), Ok(vec![]));
    }
}
