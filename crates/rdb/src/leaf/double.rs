//! Scores (`rdb.c: rdbLoadDoubleValue`, `rdbLoadBinaryDoubleValue`).
//!
//! ```text
//! type 3:  u8 n, n bytes of decimal text; n = 253 NaN, 254 +inf, 255 -inf
//! type 5:  f64, little-endian
//! ```
//!
//! Text is read as strtod does: rounded correctly, `inf` and `-inf` allowed. NaN is no score.

use crate::error::Stop;
use crate::event::Score;
use crate::leaf::reader::Reader;

const NAN: Stop = Stop::corrupt("a score that is not a number");
const TEXT: Stop = Stop::corrupt("a score whose text is no number");

pub(crate) fn binary(reader: &mut Reader<'_>) -> Result<Score, Stop> {
    score(f64::from_le_bytes(reader.array()?))
}

pub(crate) fn framed_text(reader: &mut Reader<'_>) -> Result<Score, Stop> {
    match reader.u8()? {
        253 => Err(NAN),
        254 => Ok(Score(f64::INFINITY)),
        255 => Ok(Score(f64::NEG_INFINITY)),
        n => text(reader.take(usize::from(n))?),
    }
}

/// Whether [`framed_text`] takes it.
pub(crate) fn check_framed_text(reader: &mut Reader<'_>) -> Result<(), Stop> {
    match reader.u8()? {
        253 => Err(NAN),
        254 | 255 => Ok(()),
        n => check_text(reader.take(usize::from(n))?),
    }
}

pub(crate) fn text(bytes: &[u8]) -> Result<Score, Stop> {
    if let Some(short) = short_decimal(bytes) {
        return Ok(Score(short));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| TEXT)?;
    // The standard parser rounds correctly and takes what strtod takes, except for hexadecimal
    // and leading blanks, which no server writes.
    score(text.parse::<f64>().map_err(|_| TEXT)?)
}

/// Whether [`text`] takes it: most texts are digits with a point among them, which need no more than a look.
#[inline]
pub(crate) fn check_text(bytes: &[u8]) -> Result<(), Stop> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let (mut points, mut others) = (0_usize, 0_usize);
    for byte in digits {
        points += usize::from(*byte == b'.');
        others += usize::from(!byte.is_ascii_digit());
    }
    if others == points && points <= 1 && digits.len() > points {
        return Ok(());
    }
    text(bytes).map(drop)
}

/// The number of a text that has at most fifteen digits, perhaps a point, and nothing else: both the digits and the power
/// of ten are exact, so that their quotient is rounded correctly. `None` for any other text.
#[inline]
fn short_decimal(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15,
    ];
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    if !(1..=16).contains(&digits.len()) {
        return None;
    }
    let (mut number, mut point) = (0_u64, None);
    for (place, &byte) in digits.iter().enumerate() {
        match byte {
            b'0'..=b'9' => number = number * 10 + u64::from(byte - b'0'),
            b'.' if point.is_none() => point = Some(place),
            _ => return None,
        }
    }
    let places = point.map_or(0, |point| digits.len() - point - 1);
    let count = digits.len() - usize::from(point.is_some());
    if !(1..=15).contains(&count) {
        return None;
    }
    let magnitude = number as f64 / POWERS.get(places)?;
    Some(if digits.len() < text.len() {
        -magnitude
    } else {
        magnitude
    })
}

fn score(value: f64) -> Result<Score, Stop> {
    if value.is_nan() {
        Err(NAN)
    } else {
        Ok(Score(value))
    }
}

/// The text of a double in an array, as a server shows it: integers end in `.0`; a fraction stands
/// in full where it is short, else there is an exponent with its sign.
pub(crate) fn array_text(value: f64) -> String {
    if !value.is_finite() {
        return format!("{value}").to_lowercase();
    }
    if value.fract() == 0.0 && value.abs() < INTEGERS {
        return format!("{value:.1}");
    }
    // Digits with a point behind the first, and the power of ten.
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let fraction = digits.split_once('.').map_or(0, |(_, tail)| tail.len());
    let fraction = i32::try_from(fraction).unwrap_or(i32::MAX);
    // The power of ten of the last digit.
    let last = exponent.saturating_sub(fraction);
    if last >= 0 && exponent < fraction + 1 + 7 {
        format!("{value}.0")
    } else if last < 0 && (last > -7 || exponent.abs() < 4) {
        format!("{value}")
    } else {
        format!("{digits}e{exponent:+}")
    }
}

/// What is below in magnitude and has no fraction is shown as an integer.
const INTEGERS: f64 = 9_223_372_036_854_775_808.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_texts_are_what_the_standard_parser_says() {
        let mut state = 1_u64;
        let mut taken = 0;
        for _ in 0..200_000 {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            let number = (state >> 14) % 10_u64.pow(1 + (state >> 8) as u32 % 15);
            let mut text = number.to_string();
            if state & 3 > 0 {
                text.insert((state >> 4) as usize % (text.len() + 1), '.');
            }
            if state & 4 > 0 {
                text.insert(0, '-');
            }
            let short = short_decimal(text.as_bytes()).expect("few digits");
            let whole: f64 = text.parse().expect("a number");
            assert_eq!(short.to_bits(), whole.to_bits(), "{text}");
            taken += 1;
        }
        assert_eq!(taken, 200_000);
        assert_eq!(
            short_decimal(b"-0").map(f64::to_bits),
            Some((-0.0_f64).to_bits())
        );
        for other in [
            "",
            "-",
            ".",
            "-.",
            "1.2.3",
            "1e5",
            "inf",
            "+1",
            " 1",
            "1234567890123456",
        ] {
            assert_eq!(short_decimal(other.as_bytes()), None, "{other:?}");
        }
    }

    /// What Redis 8.10.2 showed for these doubles in a restored array.
    #[test]
    fn doubles_of_arrays() {
        for (value, text) in [
            (5.0, "5.0"),
            (-0.0, "-0.0"),
            (0.5, "0.5"),
            (0.099_999_999_999_999_98, "0.09999999999999998"),
            (9.999_999_999_999_999e-5, "9.999999999999999e-5"),
            (1e-7, "1e-7"),
            (1.5e-10, "1.5e-10"),
            (123_456_789.122_999_97, "1.2345678912299997e+8"),
            (1e16, "10000000000000000.0"),
            (1e18, "1000000000000000000.0"),
            (1e20, "1e+20"),
            (1e300, "1e+300"),
            (9.999_999_999_999_996e21, "9999999999999996000000.0"),
            (1.499_999_999_999_999_4e22, "14999999999999994000000.0"),
            (9.999_999_999_999_998e99, "9.999999999999998e+99"),
            (0.300_000_000_000_000_04, "0.30000000000000004"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(array_text(value), text);
        }
    }
}
