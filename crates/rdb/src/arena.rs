//! Space for the strings that are not slices of the input: integers as text, decompressed ones.

use bytes::{Bytes, BytesMut};

use crate::error::{ErrorKind, Stop};
use crate::leaf::lzf;
use crate::leaf::number::Decimal;
use crate::leaf::reader::Text;
use crate::window::Window;

/// Small strings share blocks of this size.
const BLOCK: usize = 16 << 10;
/// What is larger has a block of its own.
const SMALL_MAX: usize = BLOCK / 8;

#[derive(Debug)]
pub(crate) struct Arena(BytesMut);

impl Arena {
    pub(crate) fn new() -> Self {
        Self(BytesMut::new())
    }

    fn room(&mut self, len: usize) -> &mut BytesMut {
        if self.0.capacity() < len {
            self.0 = BytesMut::with_capacity(BLOCK);
        }
        &mut self.0
    }

    /// The decimal text of an integer.
    pub(crate) fn int(&mut self, value: i64) -> Bytes {
        let text = Decimal::new(value);
        let room = self.room(text.as_bytes().len());
        room.extend_from_slice(text.as_bytes());
        room.split().freeze()
    }

    /// What LZF bytes decompress to. `len` is bounded by the size of `packed`.
    pub(crate) fn unpack(&mut self, packed: &[u8], len: usize) -> Result<Bytes, ErrorKind> {
        if len > SMALL_MAX {
            let mut output = vec![0; len];
            lzf::decompress(packed, &mut output)?;
            return Ok(Bytes::from(output));
        }
        let room = self.room(len);
        room.resize(len, 0);
        let result = lzf::decompress(packed, room);
        let output = room.split().freeze();
        result.map(|()| output)
    }

    /// A string read at the window's place.
    #[inline]
    pub(crate) fn text(&mut self, window: &Window, text: Text) -> Result<Bytes, Stop> {
        match text {
            Text::Plain { start, end } => Ok(window.slice(start, end)),
            Text::Int(value) => Ok(self.int(i64::from(value))),
            Text::Lzf { start, end, len } => {
                let packed = window.rest().get(start..end).unwrap_or_default();
                Ok(self.unpack(packed, len)?)
            }
        }
    }

    /// A string read in bytes that are held.
    pub(crate) fn text_in(&mut self, whole: &Bytes, text: Text) -> Result<Bytes, Stop> {
        match text {
            Text::Plain { start, end } => Ok(whole.slice(start..end)),
            Text::Int(value) => Ok(self.int(i64::from(value))),
            Text::Lzf { start, end, len } => {
                Ok(self.unpack(whole.get(start..end).unwrap_or_default(), len)?)
            }
        }
    }
}
