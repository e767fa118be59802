//! Strict decimal numbers at the head of a frame or item: `[-]digits\r\n`.
//!
//! Mirrors Redis's `string2ll`: no `+`, no leading zero, no `-0`, no blank, 64 bits. Because such a
//! line has at most 22 bytes, one that is incomplete is simply read again when more has arrived;
//! it is the only thing the decoders ever look at twice.

use crate::error::{Error, ErrorKind};

/// A complete number line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) value: i64,
    /// Offset behind the line end.
    pub(crate) next: usize,
}

/// Reads the number line at `at`. `None`: the line is not complete.
#[inline]
pub(crate) fn number(buf: &[u8], at: usize) -> Result<Option<Number>, Error> {
    // Lengths of one and two digits are nearly all there are in a command stream.
    match buf.get(at..) {
        Some(&[a @ b'0'..=b'9', b'\r', b'\n', ..]) => Ok(Some(Number {
            value: i64::from(a - b'0'),
            next: at + 3,
        })),
        Some(&[a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..]) => {
            let value = i64::from(a - b'0') * 10 + i64::from(b - b'0');
            Ok(Some(Number {
                value,
                next: at + 4,
            }))
        }
        Some(_) => any_number(buf, at),
        None => Ok(None),
    }
}

fn any_number(buf: &[u8], at: usize) -> Result<Option<Number>, Error> {
    let negative = buf.get(at) == Some(&b'-');
    let first = at + usize::from(negative);
    let mut pos = first;
    let mut value: i64 = 0;
    while let Some(&byte) = buf.get(pos) {
        match byte {
            b'0'..=b'9' => {
                // `0` and nothing else may begin with a zero, and `-0` is no number.
                if (value == 0 && pos > first) || (negative && byte == b'0' && pos == first) {
                    return Err(Error::new(pos, ErrorKind::BadNumber));
                }
                value = push_digit(value, byte - b'0', negative)
                    .ok_or_else(|| Error::new(pos, ErrorKind::Overflow))?;
                pos += 1;
            }
            b'\r' if pos > first => return line_end(buf, pos, value),
            0..=u8::MAX => return Err(Error::new(pos, ErrorKind::BadNumber)),
        }
    }
    Ok(None)
}

/// Negative numbers grow downwards, so that `i64::MIN` needs no care.
fn push_digit(value: i64, digit: u8, negative: bool) -> Option<i64> {
    let tens = value.checked_mul(10)?;
    if negative {
        tens.checked_sub(i64::from(digit))
    } else {
        tens.checked_add(i64::from(digit))
    }
}

fn line_end(buf: &[u8], pos: usize, value: i64) -> Result<Option<Number>, Error> {
    match buf.get(pos + 1) {
        None => Ok(None),
        Some(b'\n') => Ok(Some(Number {
            value,
            next: pos + 2,
        })),
        Some(_) => Err(Error::new(pos + 1, ErrorKind::BadLineEnd)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<Option<i64>, (u64, ErrorKind)> {
        let whole = number(text.as_bytes(), 0);
        if let Ok(Some(found)) = whole {
            assert_eq!(found.next, text.len());
        }
        whole
            .map(|n| n.map(|n| n.value))
            .map_err(|e| (e.at, e.kind))
    }

    #[test]
    fn reads_every_width() {
        for value in [
            0,
            1,
            9,
            10,
            42,
            99,
            100,
            12_345,
            -1,
            -10,
            i64::MAX,
            i64::MIN,
        ] {
            assert_eq!(check(&format!("{value}\r\n")), Ok(Some(value)));
        }
    }

    #[test]
    fn every_prefix_waits() {
        for text in ["7\r\n", "42\r\n", "-1\r\n", "9223372036854775807\r\n"] {
            for cut in 0..text.len() {
                assert_eq!(check(&text[..cut]), Ok(None), "{:?}", &text[..cut]);
            }
        }
    }

    #[test]
    fn refuses_what_string2ll_refuses() {
        use ErrorKind::{BadLineEnd, BadNumber, Overflow};
        for (text, at, kind) in [
            ("\r\n", 0, BadNumber),
            ("-\r\n", 1, BadNumber),
            ("+1\r\n", 0, BadNumber),
            ("01\r\n", 1, BadNumber),
            ("00", 1, BadNumber),
            ("-0\r\n", 1, BadNumber),
            ("-01\r\n", 1, BadNumber),
            (" 1\r\n", 0, BadNumber),
            ("1 \r\n", 1, BadNumber),
            ("1\n", 1, BadNumber),
            ("1\r\r", 2, BadLineEnd),
            ("12\rx", 3, BadLineEnd),
            ("--1\r\n", 1, BadNumber),
            ("9223372036854775808\r\n", 18, Overflow),
            ("-9223372036854775809\r\n", 19, Overflow),
            ("99999999999999999999999", 18, Overflow),
        ] {
            assert_eq!(check(text), Err((at, kind)), "{text:?}");
        }
    }
}
