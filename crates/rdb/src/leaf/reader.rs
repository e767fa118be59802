//! Lengths and strings (`rdb.c: rdbLoadLenByRef`, `rdbGenericLoadStringObject`).
//!
//! ```text
//! 00xxxxxx                    length, 6 bits
//! 01xxxxxx xxxxxxxx           length, 14 bits, big-endian
//! 10000000 + 4 bytes          length, u32 big-endian
//! 10000001 + 8 bytes          length, u64 big-endian
//! 110000nn                    instead of a string's length: n = 0, 1, 2 integer of 1, 2, 4 bytes,
//!                             little-endian; 3 = LZF: length compressed, length plain, bytes
//! ```
//!
//! A [`Reader`] runs over bytes at hand. Where they end, it says how many the item needs
//! ([`Stop::Need`]); the caller begins the item again when they are there.

use crate::error::{ErrorKind, Stop};
use crate::leaf::number::Decimal;

/// A place within bytes at hand.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

enum Length {
    Value(u64),
    Special(u8),
}

/// What stands before a string's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StringHead {
    Plain { len: usize },
    Int(i32),
    Lzf { packed: usize, len: usize },
}

impl StringHead {
    /// How many bytes follow in the input.
    pub(crate) const fn stored(self) -> usize {
        match self {
            Self::Plain { len } => len,
            Self::Int(_) => 0,
            Self::Lzf { packed, .. } => packed,
        }
    }

    /// How many bytes the string has when decoded; of an integer, none.
    pub(crate) const fn len(self) -> usize {
        match self {
            Self::Plain { len } | Self::Lzf { len, .. } => len,
            Self::Int(_) => 0,
        }
    }

    /// The string whose stored bytes stand from `start` to `end`.
    #[inline]
    pub(crate) const fn at(self, start: usize, end: usize) -> Text {
        match self {
            Self::Plain { .. } => Text::Plain { start, end },
            Self::Int(value) => Text::Int(value),
            Self::Lzf { len, .. } => Text::Lzf { start, end, len },
        }
    }
}

/// A whole string: where it stands in the bytes read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Text {
    Plain {
        start: usize,
        end: usize,
    },
    Int(i32),
    Lzf {
        start: usize,
        end: usize,
        len: usize,
    },
}

impl Text {
    /// Its length when decoded.
    pub(crate) fn len(self) -> usize {
        match self {
            Self::Plain { start, end } => end - start,
            Self::Int(value) => Decimal::new(i64::from(value)).as_bytes().len(),
            Self::Lzf { len, .. } => len,
        }
    }
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// How many bytes were read.
    #[inline]
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    /// What was not read yet.
    #[inline]
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    #[inline]
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], Stop> {
        let end = self.at.saturating_add(n);
        let Some(bytes) = self.bytes.get(self.at..end) else {
            return Err(Stop::Need(end));
        };
        self.at = end;
        Ok(bytes)
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Stop> {
        let Some(&byte) = self.bytes.get(self.at) else {
            return Err(Stop::Need(self.at + 1));
        };
        self.at += 1;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let bytes = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>);
        let Some(bytes) = bytes else {
            return Err(Stop::Need(self.at.saturating_add(N)));
        };
        self.at += N;
        Ok(*bytes)
    }

    #[inline]
    fn length_or_special(&mut self) -> Result<Length, Stop> {
        let first = self.u8()?;
        Ok(match first >> 6 {
            0 => Length::Value(u64::from(first)),
            1 => Length::Value(u64::from(first & 0x3f) << 8 | u64::from(self.u8()?)),
            2 => Length::Value(match first {
                0x80 => u64::from(u32::from_be_bytes(self.array()?)),
                0x81 => u64::from_be_bytes(self.array()?),
                _ => return Err(Stop::corrupt("length of an unknown form")),
            }),
            _ => Length::Special(first & 0x3f),
        })
    }

    /// A plain number in length encoding.
    #[inline]
    pub(crate) fn number(&mut self) -> Result<u64, Stop> {
        match self.length_or_special()? {
            Length::Value(value) => Ok(value),
            Length::Special(_) => Err(Stop::corrupt("string encoding where a number must stand")),
        }
    }

    /// What stands before a string; the string may be up to `max` bytes long when decoded.
    #[inline]
    pub(crate) fn string_head(&mut self, max: u64) -> Result<StringHead, Stop> {
        // Most lengths have six bits, or fourteen.
        let rest = self.rest();
        let (len, taken) = match *rest {
            [first @ ..0x40, ..] => (u64::from(first), 1),
            [first @ 0x40..0x80, low, ..] => (u64::from(first & 0x3f) << 8 | u64::from(low), 2),
            _ => return self.other_head(max),
        };
        self.at += taken;
        let len = bounded(len, max)?;
        Ok(StringHead::Plain { len })
    }

    fn other_head(&mut self, max: u64) -> Result<StringHead, Stop> {
        match self.length_or_special()? {
            Length::Value(len) => Ok(StringHead::Plain {
                len: bounded(len, max)?,
            }),
            Length::Special(0) => Ok(StringHead::Int(i32::from(i8::from_le_bytes(self.array()?)))),
            Length::Special(1) => Ok(StringHead::Int(i32::from(i16::from_le_bytes(
                self.array()?,
            )))),
            Length::Special(2) => Ok(StringHead::Int(i32::from_le_bytes(self.array()?))),
            Length::Special(3) => self.lzf_head(max),
            Length::Special(_) => Err(Stop::corrupt("string encoding that does not exist")),
        }
    }

    fn lzf_head(&mut self, max: u64) -> Result<StringHead, Stop> {
        let packed = self.number()?;
        let len = bounded(self.number()?, max)?;
        // Three bytes give at most 264, and two at least one.
        if (len as u64).div_ceil(88) > packed || packed.div_ceil(2) > len as u64 || packed == 0 {
            return Err(Stop::corrupt("impossible LZF lengths"));
        }
        Ok(StringHead::Lzf {
            packed: bounded(packed, u64::MAX)?,
            len,
        })
    }

    /// A whole string.
    #[inline]
    pub(crate) fn text(&mut self, max: u64) -> Result<Text, Stop> {
        let head = self.string_head(max)?;
        let start = self.at;
        self.take(head.stored())?;
        Ok(head.at(start, self.at))
    }

    /// Within bytes that are all there, the end must come here.
    pub(crate) fn finish(&self) -> Result<(), Stop> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Stop::corrupt("bytes left over behind the last item"))
        }
    }
}

#[inline]
fn bounded(got: u64, max: u64) -> Result<usize, Stop> {
    match usize::try_from(got) {
        Ok(len) if got <= max => Ok(len),
        _ => Err(Stop::Bad(ErrorKind::Limit {
            what: "string",
            got,
            max,
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(bytes: &[u8]) -> Result<u64, Stop> {
        Reader::new(bytes).number()
    }

    #[test]
    fn lengths() {
        assert_eq!(number(&[0x3f]), Ok(63));
        assert_eq!(number(&[0x41, 0x02]), Ok(0x102));
        assert_eq!(number(&[0x80, 0, 0, 1, 0]), Ok(256));
        assert_eq!(
            number(&[0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Ok(u64::MAX)
        );
        assert_eq!(number(&[0x40, 0x05]), Ok(5), "longer than it had to be");
        assert_eq!(
            number(&[0x82]),
            Err(Stop::corrupt("length of an unknown form"))
        );
        assert!(matches!(number(&[0xc0, 1]), Err(Stop::Bad(_))));
    }

    #[test]
    fn says_what_is_missing() {
        assert_eq!(number(&[]), Err(Stop::Need(1)));
        assert_eq!(number(&[0x40]), Err(Stop::Need(2)));
        assert_eq!(number(&[0x80, 0]), Err(Stop::Need(5)));
        assert_eq!(Reader::new(&[5, b'a']).text(100), Err(Stop::Need(6)));
    }

    #[test]
    fn strings() {
        let text = |bytes: &[u8]| Reader::new(bytes).text(1000);
        assert_eq!(text(&[2, b'a', b'b']), Ok(Text::Plain { start: 1, end: 3 }));
        assert_eq!(text(&[0xc0, 0x80]), Ok(Text::Int(-128)));
        assert_eq!(text(&[0xc1, 0x00, 0x80]), Ok(Text::Int(-32768)));
        assert_eq!(text(&[0xc2, 0, 0, 0, 0x80]), Ok(Text::Int(i32::MIN)));
        assert!(matches!(
            text(&[0xc4]),
            Err(Stop::Bad(ErrorKind::Corrupt(_)))
        ));
        assert!(matches!(
            text(&[0xc3, 1, 0x40, 89]),
            Err(Stop::Bad(ErrorKind::Corrupt(_)))
        ));
        assert!(matches!(
            text(&[0xc3, 0, 0]),
            Err(Stop::Bad(ErrorKind::Corrupt(_)))
        ));
        let got = ErrorKind::Limit {
            what: "string",
            got: 1001,
            max: 1000,
        };
        assert_eq!(text(&[0x43, 0xe9]), Err(Stop::Bad(got)));
    }
}
