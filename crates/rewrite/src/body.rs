//! A value's bytes, walked over and copied with some of them left out or written anew.

/// Walks over a body; what was passed since `mark` is either kept or left out. `None` wherever the body is not what it
/// should be.
pub(crate) struct Body<'a> {
    bytes: &'a [u8],
    at: usize,
    mark: usize,
    out: Vec<u8>,
}

impl<'a> Body<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            mark: 0,
            out: Vec::new(),
        }
    }

    /// A body of which most will be kept.
    pub(crate) fn to_copy(bytes: &'a [u8]) -> Self {
        Self {
            out: Vec::with_capacity(bytes.len()),
            ..Self::new(bytes)
        }
    }

    /// The next byte, which is not passed.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// What was kept, if the body ends here.
    pub(crate) fn finish(self) -> Option<Vec<u8>> {
        (self.at == self.bytes.len()).then_some(self.out)
    }

    pub(crate) fn keep(&mut self) {
        self.keep_if(true);
    }

    pub(crate) fn keep_if(&mut self, kept: bool) {
        if kept {
            let passed = self.bytes.get(self.mark..self.at);
            self.out.extend_from_slice(passed.unwrap_or_default());
        }
        self.mark = self.at;
    }

    /// Writes a number that is not in the body.
    pub(crate) fn put_number(&mut self, number: u64) {
        let bytes = number.to_be_bytes();
        let [.., four, three, two, one] = bytes;
        match number {
            0..=0x3f => self.out.push(one),
            0x40..=0x3fff => self.out.extend_from_slice(&[0x40 | two, one]),
            0x4000..=0xffff_ffff => self.out.extend_from_slice(&[0x80, four, three, two, one]),
            _ => {
                self.out.push(0x81);
                self.out.extend_from_slice(&bytes);
            }
        }
    }

    pub(crate) fn numbers(&mut self, count: usize) -> Option<()> {
        (0..count).try_for_each(|_| self.number().map(drop))
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        let first = *self.bytes(1)?.first()?;
        Some(match first {
            0..=0x3f => u64::from(first),
            0x40..=0x7f => u64::from(first & 0x3f) << 8 | u64::from(*self.bytes(1)?.first()?),
            0x80 => u64::from(u32::from_be_bytes(*self.bytes(4)?.first_chunk()?)),
            0x81 => u64::from_be_bytes(*self.bytes(8)?.first_chunk()?),
            _ => return None,
        })
    }

    /// Passes a string, however it is written.
    pub(crate) fn text(&mut self) -> Option<()> {
        let bytes = match self.peek()? {
            0..=0x81 => self.number()?,
            0xc0 => 2,
            0xc1 => 3,
            0xc2 => 5,
            0xc3 => {
                self.bytes(1)?;
                let compressed = self.number()?;
                self.number()?;
                compressed
            }
            _ => return None,
        };
        self.bytes(usize::try_from(bytes).ok()?).map(drop)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(count)?;
        let bytes = self.bytes.get(self.at..end)?;
        self.at = end;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are_read() {
        for number in [
            0,
            63,
            64,
            16_383,
            16_384,
            u64::from(u32::MAX),
            1 << 32,
            u64::MAX,
        ] {
            let mut writer = Body::new(b"");
            writer.put_number(number);
            let written = writer.finish().unwrap();
            let mut reader = Body::new(&written);
            assert_eq!(reader.number(), Some(number));
            assert_eq!(reader.finish(), Some(Vec::new()), "{number}");
        }
    }

    #[test]
    fn what_is_left_out_is_not_in_the_copy() {
        let mut body = Body::new(b"\x05\x03abc\x07");
        body.number().unwrap();
        body.keep();
        body.text().unwrap();
        body.keep_if(false);
        assert_eq!(body.number(), Some(7));
        body.keep();
        assert_eq!(body.finish().unwrap(), b"\x05\x07");
        assert_eq!(Body::new(b"x").finish(), None);
    }
}
