//! Numbers in commands: read strictly, written without allocation.

/// A decimal number as servers read them: an optional minus, digits, no leading zero, no blank.
pub(crate) fn parse_i64(text: &[u8]) -> Option<i64> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let canonical = match digits {
        [b'0'] => text.len() == 1,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !canonical {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The number of a db.
pub(crate) fn parse_db(text: &[u8]) -> Option<crate::Db> {
    parse_i64(text)
        .and_then(|number| u32::try_from(number).ok())
        .map(crate::Db)
}

/// The decimal text of a number, on the stack.
pub(crate) struct Decimal {
    bytes: [u8; 20],
    start: usize,
}

/// The text of a stream's id, on the stack: two numbers of twenty digits and a dash.
pub(crate) struct IdText {
    bytes: [u8; 41],
    len: usize,
}

pub(crate) fn id_text(id: rdb::StreamId) -> IdText {
    let mut text = IdText {
        bytes: [0; 41],
        len: 0,
    };
    text.push(Decimal::unsigned(id.ms).text());
    text.push(b"-");
    text.push(Decimal::unsigned(id.seq).text());
    text
}

impl IdText {
    fn push(&mut self, part: &[u8]) {
        let end = self.len + part.len();
        if let Some(place) = self.bytes.get_mut(self.len..end) {
            place.copy_from_slice(part);
            self.len = end;
        }
    }

    pub(crate) fn text(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Decimal {
    pub(crate) fn new(number: i64) -> Self {
        let mut decimal = Self::unsigned(number.unsigned_abs());
        if number < 0 {
            decimal.push(b'-');
        }
        decimal
    }

    pub(crate) fn unsigned(number: u64) -> Self {
        let mut decimal = Self {
            bytes: [0; 20],
            start: 20,
        };
        let mut rest = number;
        loop {
            // Ten's remainder fits in a byte.
            decimal.push(b'0' + u8::try_from(rest % 10).unwrap_or_default());
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        decimal
    }

    fn push(&mut self, byte: u8) {
        self.start = self.start.saturating_sub(1);
        if let Some(place) = self.bytes.get_mut(self.start) {
            *place = byte;
        }
    }

    pub(crate) fn text(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

/// Writes a number that has at most fifteen digits, up to six of them behind the point: no other text so short reads back
/// as the same number. `None` for any other number, -0 among them; nothing is to be seen in `buffer` then.
#[inline]
pub(crate) fn short_decimal(number: f64, buffer: &mut [u8]) -> Option<usize> {
    let magnitude = number.abs();
    if !(1e-5..1e15).contains(&magnitude) {
        return None;
    }
    let (mut digits, mut places) = scaled(magnitude, 1.0)
        .map(|digits| (digits, 0_u32))
        .or_else(|| scaled(magnitude, 1e3).map(|digits| (digits, 3)))
        .or_else(|| scaled(magnitude, 1e6).map(|digits| (digits, 6)))?;
    while places > 0 && digits.is_multiple_of(10) {
        digits /= 10;
        places -= 1;
    }
    let mut power = 10_u64.pow(places);
    let mut whole = Decimal::unsigned(digits / power);
    if number < 0.0 {
        whole.push(b'-');
    }
    let mut len = whole.text().len();
    buffer.get_mut(..len)?.copy_from_slice(whole.text());
    if places > 0 {
        *buffer.get_mut(len)? = b'.';
        len += 1;
    }
    let mut fraction = digits % power;
    while power > 1 {
        power /= 10;
        *buffer.get_mut(len)? = b'0' + u8::try_from(fraction / power).unwrap_or_default();
        fraction %= power;
        len += 1;
    }
    Some(len)
}

/// The integer that is this many times the number, if their quotient is the number to the bit.
#[inline]
fn scaled(magnitude: f64, times: f64) -> Option<u64> {
    const LIMIT: f64 = 1e15;
    let nearest = magnitude * times + 0.5;
    if nearest >= LIMIT {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1e15; the fraction is to be cut off"
    )]
    let digits = nearest as u64;
    (digits as f64 / times == magnitude).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_round_trip() {
        for number in [0, 7, -7, 10, 1_700_000_000_000, i64::MAX, i64::MIN] {
            let decimal = Decimal::new(number);
            assert_eq!(decimal.text(), number.to_string().as_bytes());
            assert_eq!(parse_i64(decimal.text()), Some(number));
        }
    }

    #[test]
    fn short_decimals_are_what_the_standard_library_writes() {
        let mut state = 1_u64;
        let mut taken = 0;
        for _ in 0..200_000 {
            state = state
                .wrapping_mul(0x5851_f42d_4c95_7f2d)
                .wrapping_add(0x1405_7b7e_f767_814f);
            let digits = (state >> 14) % 10_u64.pow(1 + (state >> 8) as u32 % 16);
            let power = 10_u64.pow((state >> 4) as u32 % 8) as f64;
            for number in [
                digits as f64 / power,
                -(digits as f64) / power,
                f64::from_bits(state),
            ] {
                let mut buffer = [0; 40];
                if let Some(len) = short_decimal(number, &mut buffer) {
                    assert_eq!(&buffer[..len], number.to_string().as_bytes());
                    taken += 1;
                }
            }
        }
        assert!(taken > 200_000, "{taken}");
        for other in [0.0, -0.0, 1e-6, 1e15, 0.1 + 0.2, f64::INFINITY, f64::NAN] {
            assert_eq!(short_decimal(other, &mut [0; 40]), None, "{other}");
        }
    }

    #[test]
    fn ids_are_written() {
        let id = |ms, seq| rdb::StreamId { ms, seq };
        assert_eq!(id_text(id(0, 0)).text(), b"0-0");
        let largest = "18446744073709551615-18446744073709551615";
        assert_eq!(id_text(id(u64::MAX, u64::MAX)).text(), largest.as_bytes());
    }

    #[test]
    fn only_canonical_numbers_are_read() {
        for text in [
            "",
            "-",
            "-0",
            "01",
            "+1",
            " 1",
            "1 ",
            "1.0",
            "9223372036854775808",
            "x",
        ] {
            assert_eq!(parse_i64(text.as_bytes()), None, "{text:?}");
        }
    }
}
