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

pub(crate) fn text(bytes: &[u8]) -> Result<Score, Stop> {
    let text = std::str::from_utf8(bytes).map_err(|_| TEXT)?;
    // The standard parser rounds correctly and takes what strtod takes, except for hexadecimal
    // and leading blanks, which no server writes.
    score(text.parse::<f64>().map_err(|_| TEXT)?)
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
