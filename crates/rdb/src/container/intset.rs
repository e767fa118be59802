//! Intsets (`intset.c`).
//!
//! ```text
//! u32 width in bytes (2, 4, 8) | u32 count | integers, little-endian, strictly ascending
//! ```
//!
//! Redis loads one that does not ascend, and then does not find its members.

use nom::Parser;
use nom::number::complete::le_u32;

use crate::container::Entry;
use crate::error::ErrorKind;

pub(crate) const HEADER: usize = 8;

/// Validates an intset and shows its integers; returns their number.
pub(crate) fn walk(
    blob: &[u8],
    mut each: impl FnMut(u64, Entry) -> Result<(), ErrorKind>,
) -> Result<u64, ErrorKind> {
    let (width, count, body) = header(blob)?;
    if count == 0 {
        return Err(ErrorKind::Corrupt("an intset without integers"));
    }
    if Some(body.len() as u64) != u64::from(count).checked_mul(width as u64) {
        return Err(ErrorKind::Corrupt("an intset of another size than stated"));
    }
    for (index, integer) in (0..).zip(body.chunks_exact(width)) {
        each(index, Entry::Int(signed(integer)))?;
    }
    Ok(u64::from(count))
}

fn header(blob: &[u8]) -> Result<(usize, u32, &[u8]), ErrorKind> {
    let read: nom::IResult<&[u8], (u32, u32)> = (le_u32, le_u32).parse(blob);
    let Ok((body, (width, count))) = read else {
        return Err(ErrorKind::Corrupt("an intset without a header"));
    };
    let width = match width {
        2 => 2,
        4 => 4,
        8 => 8,
        _ => return Err(ErrorKind::Corrupt("an intset with an unknown width")),
    };
    Ok((width, count, body))
}

/// The integer at `at` and where the next one begins; `None` at the end.
pub(crate) fn entry(blob: &[u8], at: usize) -> Result<Option<(Entry, usize)>, ErrorKind> {
    let (width, _, _) = header(blob)?;
    if at == blob.len() {
        return Ok(None);
    }
    let Some(integer) = blob.get(at..at + width) else {
        return Err(ErrorKind::Corrupt("an intset of another size than stated"));
    };
    Ok(Some((Entry::Int(signed(integer)), at + width)))
}

/// A signed integer of two, four or eight bytes.
#[inline]
fn signed(bytes: &[u8]) -> i64 {
    if let Ok(bytes) = <[u8; 2]>::try_from(bytes) {
        i64::from(i16::from_le_bytes(bytes))
    } else if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        i64::from(i32::from_le_bytes(bytes))
    } else {
        i64::from_le_bytes(bytes.try_into().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ints(blob: &[u8]) -> Result<Vec<Entry>, ErrorKind> {
        let mut seen = Vec::new();
        walk(blob, |_, entry| {
            seen.push(entry);
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn reads_ascending_integers() {
        let blob = [2, 0, 0, 0, 3, 0, 0, 0, 0x00, 0x80, 0, 0, 5, 0];
        assert_eq!(ints(&blob), Ok([-32768, 0, 5].map(Entry::Int).to_vec()));
    }

    #[test]
    fn refuses() {
        for (blob, why) in [
            (&[2, 0, 0, 0, 0, 0, 0, 0][..], "without integers"),
            (&[3, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1], "unknown width"),
            (&[2, 0, 0, 0, 2, 0, 0, 0, 1, 0], "another size"),
            (&[2, 0, 0], "without a header"),
        ] {
            let got = ints(blob).expect_err("a bad intset").to_string();
            assert!(got.contains(why), "{got} for {why}");
        }
    }
}
