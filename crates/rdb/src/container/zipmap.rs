//! Zipmaps (`zipmap.c`), written by servers before 2.6.
//!
//! ```text
//! u8 count (254 and more: not known) | entries | FF
//!
//! entry: length, field, length, u8 free, value, free bytes
//! length: u8 below 254, or FE + u32 little-endian for 254 and more
//! ```

use crate::container::Entry;
use crate::error::ErrorKind;

const END: u8 = 0xff;
const RUNS_OUT: ErrorKind = ErrorKind::Corrupt("a zipmap entry runs past the end");

/// Where an entry stands, and which of the two: the lowest bit is set for a value.
pub(crate) struct Place {
    at: usize,
    value: bool,
}

impl Place {
    /// The place of the first field.
    pub(crate) const FIRST: usize = 1 << 1;

    const fn unpack(packed: usize) -> Self {
        Self {
            at: packed >> 1,
            value: packed & 1 == 1,
        }
    }

    fn pack(&self) -> usize {
        self.at << 1 | usize::from(self.value)
    }
}

/// Validates a zipmap and shows fields and values by turns; returns how many they are in all.
pub(crate) fn walk(
    blob: &[u8],
    mut each: impl FnMut(u64, Entry) -> Result<(), ErrorKind>,
) -> Result<u64, ErrorKind> {
    let (Some(&declared), Some(&END)) = (blob.first(), blob.get(1..).and_then(<[u8]>::last)) else {
        return Err(ErrorKind::Corrupt("a zipmap without an end"));
    };
    let (mut place, mut count) = (Place::FIRST, 0);
    while let Some((next, after)) = entry(blob, place)? {
        each(count, next)?;
        count += 1;
        place = after;
    }
    if Place::unpack(place).at + 1 != blob.len() {
        return Err(ErrorKind::Corrupt("a zipmap that ends before its end"));
    }
    if declared < 254 && u64::from(declared) != count / 2 {
        return Err(ErrorKind::Corrupt(
            "a zipmap with another number of fields than stated",
        ));
    }
    if count == 0 {
        return Err(ErrorKind::Corrupt("a zipmap without fields"));
    }
    Ok(count)
}

/// The entry at a place and the next place; `None` at the end.
pub(crate) fn entry(blob: &[u8], place: usize) -> Result<Option<(Entry, usize)>, ErrorKind> {
    let Place { at, value } = Place::unpack(place);
    let Some((len, mut start)) = length(blob, at)? else {
        return if value { Err(RUNS_OUT) } else { Ok(None) };
    };
    let mut free = 0;
    if value {
        free = usize::from(*blob.get(start).ok_or(RUNS_OUT)?);
        start += 1;
    }
    let end = start.checked_add(len).ok_or(RUNS_OUT)?;
    // The end byte comes behind every entry.
    let after = end
        .checked_add(free)
        .filter(|after| *after < blob.len())
        .ok_or(RUNS_OUT)?;
    Ok(Some((
        Entry::Text { start, end },
        Place {
            at: after,
            value: !value,
        }
        .pack(),
    )))
}

/// A length and where what it measures begins; `None` for the end byte.
fn length(blob: &[u8], at: usize) -> Result<Option<(usize, usize)>, ErrorKind> {
    match blob.get(at) {
        None => Err(RUNS_OUT),
        Some(&END) => Ok(None),
        Some(254) => {
            let bytes = blob
                .get(at + 1..)
                .and_then(<[u8]>::first_chunk)
                .ok_or(RUNS_OUT)?;
            let len = u32::from_le_bytes(*bytes);
            if len < 254 {
                return Err(ErrorKind::Corrupt("a zipmap length in too long a form"));
            }
            Ok(Some((usize::try_from(len).map_err(|_| RUNS_OUT)?, at + 5)))
        }
        Some(&short) => Ok(Some((usize::from(short), at + 1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(blob: &[u8]) -> Result<Vec<&[u8]>, ErrorKind> {
        let mut seen = Vec::new();
        walk(blob, |_, entry| {
            if let Entry::Text { start, end } = entry {
                seen.extend(blob.get(start..end));
            }
            Ok(())
        })?;
        Ok(seen)
    }

    #[test]
    fn fields_and_values() {
        let blob = [2, 1, b'a', 2, 3, b'b', b'c', 9, 9, 9, 0, 0, 0, END];
        assert_eq!(texts(&blob), Ok(vec![&b"a"[..], b"bc", b"", b""]));
        let mut long = vec![254, 1, b'f', 254, 44, 1, 0, 0, 0];
        long.resize(long.len() + 300, b'v');
        long.push(END);
        assert_eq!(texts(&long), Ok(vec![&b"f"[..], &[b'v'; 300]]));
    }

    #[test]
    fn refuses() {
        for (blob, why) in [
            (&[0, END][..], "without fields"),
            (&[1, 1, b'a', END], "past the end"),
            (&[1, 1, b'a', 1, 0, b'b', 0], "without an end"),
            (&[2, 1, b'a', 1, 0, b'b', END], "number of fields"),
            (&[1, 1, b'a', 9, 0, b'b', END], "past the end"),
            (&[1, 1, b'a', 1, 9, b'b', END], "past the end"),
            (
                &[1, 254, 1, 0, 0, 0, b'a', 1, 0, b'b', END],
                "too long a form",
            ),
            (&[1, 1, b'a', 1, 0, b'b', END, END], "before its end"),
            (&[], "without an end"),
        ] {
            let got = texts(blob).expect_err("a bad zipmap").to_string();
            assert!(got.contains(why), "{got} for {why}");
        }
    }
}
