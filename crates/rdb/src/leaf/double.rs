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
