//! Integers as decimal text, and the narrow integers of packed containers.

/// The decimal text of an integer, in place.
pub(crate) struct Decimal {
    digits: [u8; 20],
    start: usize,
}

impl Decimal {
    pub(crate) fn new(value: i64) -> Self {
        let mut digits = [b'0'; 20];
        let mut start = digits.len();
        let mut left = value.unsigned_abs();
        for place in digits.iter_mut().rev() {
            let digit = u8::try_from(left % 10).unwrap_or_default();
            *place = b'0' + digit;
            start -= 1;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        if value < 0 {
            start -= 1;
            if let Some(place) = digits.get_mut(start) {
                *place = b'-';
            }
        }
        Self { digits, start }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.digits.get(self.start..).unwrap_or_default()
    }
}

/// A signed integer of 24 bits, little-endian.
pub(crate) const fn i24_le([low, middle, high]: [u8; 3]) -> i32 {
    i32::from_le_bytes([0, low, middle, high]) >> 8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_text() {
        for value in [
            0,
            1,
            9,
            10,
            99,
            100,
            1234567890,
            i64::MAX,
            -1,
            -10,
            -128,
            i64::MIN,
        ] {
            assert_eq!(Decimal::new(value).as_bytes(), value.to_string().as_bytes());
        }
    }

    #[test]
    fn twenty_four_bits() {
        assert_eq!(i24_le([0xff, 0xff, 0x7f]), 8_388_607);
        assert_eq!(i24_le([0x00, 0x00, 0x80]), -8_388_608);
        assert_eq!(i24_le([0xff, 0xff, 0xff]), -1);
    }
}
