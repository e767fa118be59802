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
