//! Ziplists (`ziplist.c`).
//!
//! ```text
//! u32 total | u32 offset of the last entry | u16 count (65535: not known) | entries | FF
//!
//! entry: size of the one before it, u8 below 254 or FE + u32, then
//!
//! 00llllll + l                    string
//! 01llllll llllllll + l           string
//! 10------ + u32 be + l           string
//! C0 D0 E0 F0 FE                  integer of 16, 32, 64, 24, 8 bits, little-endian
//! F1 .. FD                        integer 0 .. 12
//! ```
//!
//! A small size in the long form is legal: shrinking leaves it behind.

use crate::container::Entry;
use crate::error::ErrorKind;
use crate::leaf::number::i24_le;

pub(crate) const HEADER: usize = 10;
const END: u8 = 0xff;
const UNKNOWN_COUNT: u16 = u16::MAX;

const RUNS_OUT: ErrorKind = ErrorKind::Corrupt("a ziplist entry runs past the end");

/// Validates a ziplist and shows its entries; returns their number.
#[inline]
pub(crate) fn walk(
    blob: &[u8],
    mut each: impl FnMut(u64, Entry) -> Result<(), ErrorKind>,
) -> Result<u64, ErrorKind> {
    let (tail, declared) = header(blob)?;
    let (mut at, mut last, mut count) = (HEADER, HEADER, 0);
    while let Some((next, after)) = entry(blob, at)? {
        // What stands before the first entry has no size.
        let before = at - last;
        if size_before(blob, at) != Some(before) {
            return Err(ErrorKind::Corrupt(
                "a ziplist entry with a wrong size before it",
            ));
        }
        each(count, next)?;
        count += 1;
        last = at;
        at = after;
    }
    if at + 1 != blob.len() {
        return Err(ErrorKind::Corrupt("a ziplist that ends before its end"));
    }
    if usize::try_from(tail) != Ok(last) {
        return Err(ErrorKind::Corrupt(
            "a ziplist with a wrong offset of its last entry",
        ));
    }
    if declared != UNKNOWN_COUNT && u64::from(declared) != count {
        return Err(ErrorKind::Corrupt(
            "a ziplist with another number of entries than stated",
        ));
    }
    Ok(count)
}

fn header(blob: &[u8]) -> Result<(u32, u16), ErrorKind> {
    let Some(([b0, b1, b2, b3, t0, t1, t2, t3, c0, c1], _)) = blob.split_first_chunk::<HEADER>()
    else {
        return Err(ErrorKind::Corrupt("a ziplist without a header"));
    };
    if usize::try_from(u32::from_le_bytes([*b0, *b1, *b2, *b3])) != Ok(blob.len()) {
        return Err(ErrorKind::Corrupt("a ziplist of another size than stated"));
    }
    if blob.len() == HEADER || blob.last() != Some(&END) {
        return Err(ErrorKind::Corrupt("a ziplist without an end"));
    }
    Ok((
        u32::from_le_bytes([*t0, *t1, *t2, *t3]),
        u16::from_le_bytes([*c0, *c1]),
    ))
}

/// What the entry at `at` says of the size of the one before it.
#[inline]
fn size_before(blob: &[u8], at: usize) -> Option<usize> {
    let (&first, rest) = blob.get(at..)?.split_first()?;
    match first {
        ..254 => Some(usize::from(first)),
        254 => usize::try_from(u32::from_le_bytes(*rest.first_chunk()?)).ok(),
        255 => None,
    }
}

/// The entry at `at` and where the next one begins; `None` at the end.
#[inline]
pub(crate) fn entry(blob: &[u8], at: usize) -> Result<Option<(Entry, usize)>, ErrorKind> {
    let at = match blob.get(at) {
        Some(&END) => return Ok(None),
        Some(254) => at + 5,
        Some(_) => at + 1,
        None => return Err(RUNS_OUT),
    };
    let rest = blob.get(at..).unwrap_or_default();
    let Some((&first, body)) = rest.split_first() else {
        return Err(RUNS_OUT);
    };
    let (entry, size) = match first {
        0x00..=0x3f => text(at, 1, usize::from(first)),
        0x40..=0x7f => {
            let low = body.first().copied().ok_or(RUNS_OUT)?;
            text(at, 2, usize::from(u16::from_be_bytes([first & 0x3f, low])))
        }
        0x80..=0xbf => {
            let len = u32::from_be_bytes(array(body)?);
            text(at, 5, usize::try_from(len).map_err(|_| RUNS_OUT)?)
        }
        0xc0 => (Entry::Int(i64::from(i16::from_le_bytes(array(body)?))), 3),
        0xd0 => (Entry::Int(i64::from(i32::from_le_bytes(array(body)?))), 5),
        0xe0 => (Entry::Int(i64::from_le_bytes(array(body)?)), 9),
        0xf0 => (Entry::Int(i64::from(i24_le(array(body)?))), 4),
        0xf1..=0xfd => (Entry::Int(i64::from(first - 0xf1)), 1),
        0xfe => (Entry::Int(i64::from(i8::from_le_bytes(array(body)?))), 2),
        0xc1..=0xcf | 0xd1..=0xdf | 0xe1..=0xef | END => {
            return Err(ErrorKind::Corrupt("a ziplist entry of an unknown form"));
        }
    };
    // The end byte comes behind every entry.
    if size >= rest.len() {
        return Err(RUNS_OUT);
    }
    Ok(Some((entry, at + size)))
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
fn array<const N: usize>(body: &[u8]) -> Result<[u8; N], ErrorKind> {
    body.first_chunk::<N>().copied().ok_or(RUNS_OUT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrap(entries: &[&[u8]], count: u16) -> Vec<u8> {
        let body = entries.concat();
        let total = u32::try_from(body.len() + 11).expect("small");
        let tail = entries
            .split_last()
            .map_or(10, |(last, _)| total - 1 - last.len() as u32);
        let mut blob = total.to_le_bytes().to_vec();
        blob.extend(tail.to_le_bytes());
        blob.extend(count.to_le_bytes());
        blob.extend(body);
        blob.push(END);
        blob
    }

    fn ints(blob: &[u8]) -> Result<Vec<i64>, ErrorKind> {
        let mut seen = Vec::new();
        walk(blob, |_, entry| {
            seen.extend(if let Entry::Int(value) = entry {
                Some(value)
            } else {
                None
            });
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn every_form() {
        let blob = wrap(
            &[
                &[0, 0x02, b'a', b'b'],
                &[4, 0x40, 1, b'c'],
                &[4, 0x80, 0, 0, 0, 1, b'd'],
                &[7, 0xc0, 0, 0x80],
                &[0xfe, 4, 0, 0, 0, 0xd0, 0, 0, 0, 0x80],
                &[10, 0xe0, 0, 0, 0, 0, 0, 0, 0, 0x80],
                &[10, 0xf0, 0, 0, 0x80],
                &[5, 0xfe, 0x80],
                &[3, 0xf1],
                &[2, 0xfd],
            ],
            10,
        );
        let wanted = [
            -32768,
            i64::from(i32::MIN),
            i64::MIN,
            -8_388_608,
            -128,
            0,
            12,
        ];
        assert_eq!(ints(&blob), Ok(wanted.to_vec()));
    }

    #[test]
    fn refuses() {
        let mut tail = wrap(&[&[0, 0xf1]], 1);
        tail[4] = 11;
        for (blob, why) in [
            (wrap(&[&[0, 0xf1]], 2), "number of entries"),
            (wrap(&[&[1, 0xf1]], 1), "wrong size before"),
            (wrap(&[&[0, 0xf1], &[3, 0xf1]], 2), "wrong size before"),
            (wrap(&[&[0, 0xc1, 0]], 1), "unknown form"),
            (wrap(&[&[0, 0x05, b'a']], 1), "past the end"),
            (
                wrap(&[&[0, 0x80, 0xff, 0xff, 0xff, 0xff]], 1),
                "past the end",
            ),
            (wrap(&[&[0, 0xf1], &[0xff, 0xf1]], 2), "before its end"),
            (tail, "offset of its last"),
            (vec![11, 0, 0, 0, 10, 0, 0, 0, 0, 0], "another size"),
            (vec![10, 0, 0, 0, 10, 0, 0, 0, 0, 0], "without an end"),
        ] {
            let got = ints(&blob).expect_err("a bad ziplist").to_string();
            assert!(got.contains(why), "{got} for {why}");
        }
        assert_eq!(ints(&wrap(&[], 0)), Ok(vec![]));
    }
}
