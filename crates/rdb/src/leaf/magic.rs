//! The nine bytes a file begins with (`rdb.c: rdbLoadRioWithLoadingCtx`).
//!
//! ```text
//! R E D I S d d d d        versions 1-11 shared by the forks, 12-79 Redis's own
//! V A L K E Y d d d        versions from 80 on
//! ```

use nom::branch::alt;
use nom::bytes::streaming::{tag, take};
use nom::combinator::{map, map_opt};
use nom::{IResult, Parser};

use crate::error::{ErrorKind, Stop};
use crate::types::{Dialect, RdbVersion};

/// Length of the magic, under either name.
pub(crate) const LEN: usize = 9;

fn digits(n: usize) -> impl FnMut(&[u8]) -> IResult<&[u8], u16> {
    move |input| {
        map_opt(take(n), |text: &[u8]| {
            text.iter().try_fold(0_u16, |number, byte| {
                byte.is_ascii_digit()
                    .then(|| number * 10 + u16::from(byte - b'0'))
            })
        })
        .parse(input)
    }
}

/// Reads the magic at the beginning of `input`.
pub(crate) fn magic(input: &[u8]) -> Result<(Dialect, RdbVersion), Stop> {
    let redis = map((tag("REDIS"), digits(4)), |(_, version)| (false, version));
    let valkey = map((tag("VALKEY"), digits(3)), |(_, version)| (true, version));
    let read: IResult<&[u8], (bool, u16)> = alt((redis, valkey)).parse(input);
    let (valkey, version) = match read {
        Ok((_, read)) => read,
        Err(nom::Err::Incomplete(_)) => return Err(Stop::Need(LEN)),
        Err(_) => return Err(Stop::Bad(ErrorKind::BadMagic)),
    };
    let dialect = match (valkey, version) {
        (false, 1..=11) => Dialect::Shared,
        (false, 12..=79) => Dialect::Redis,
        (true, 80..) => Dialect::Valkey,
        _ => return Err(Stop::Bad(ErrorKind::Version(version))),
    };
    Ok((dialect, RdbVersion(version)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects() {
        assert_eq!(
            magic(b"REDIS0011..."),
            Ok((Dialect::Shared, RdbVersion(11)))
        );
        assert_eq!(magic(b"REDIS0012"), Ok((Dialect::Redis, RdbVersion(12))));
        assert_eq!(magic(b"VALKEY080"), Ok((Dialect::Valkey, RdbVersion(80))));
        for (bytes, version) in [(b"REDIS0080", 80), (b"VALKEY079", 79), (b"REDIS0000", 0)] {
            assert_eq!(magic(bytes), Err(Stop::Bad(ErrorKind::Version(version))));
        }
        for bytes in [&b"REDIX0011"[..], b"REDIS00x1", b"RESP", b"VALKEY0a0"] {
            assert_eq!(magic(bytes), Err(Stop::Bad(ErrorKind::BadMagic)));
        }
        for n in 0..LEN {
            assert_eq!(magic(&b"VALKEY080"[..n]), Err(Stop::Need(LEN)));
            assert_eq!(magic(&b"REDIS0006"[..n]), Err(Stop::Need(LEN)));
        }
    }
}
