//! Sparse arrays.
//!
//! ```text
//! array = n  flag  [index of insertion, if flag is 1]  (index  tag  value) × n
//! value = string (tags 0 and 3) | i64 (tag 1) | f64 (tag 2)          little-endian
//! ```

use crate::error::Stop;
use crate::event::Event;
use crate::leaf::double;
use crate::leaf::reader::Reader;
use crate::types::Kind;
use crate::value::Input;

/// An array on its way out.
#[derive(Debug, Default)]
pub(crate) struct Array {
    begun: bool,
    left: u64,
    insert_index: Option<u64>,
    last_index: Option<u64>,
}

impl Array {
    pub(crate) fn next(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        if !self.begun {
            return self.start(input);
        }
        if let Some(index) = self.insert_index.take() {
            return Ok(Event::ArrayInsertIndex(index));
        }
        if self.left == 0 {
            return Ok(Event::ValueEnd);
        }
        let mut reader = Reader::new(input.window.rest());
        let index = reader.number()?;
        if index == u64::MAX || self.last_index >= Some(index) {
            return Err(Stop::corrupt("an array whose indexes do not ascend"));
        }
        let value = match reader.number()? {
            0 | 3 => {
                let text = reader.text(input.limits.item_bytes_max)?;
                input.arena.text(input.window, text)?
            }
            1 => input.arena.int(i64::from_le_bytes(reader.array()?)),
            2 => double::array_text(f64::from_le_bytes(reader.array()?)).into(),
            _ => return Err(Stop::corrupt("an array's value of an unknown form")),
        };
        let used = reader.at();
        input.window.consume(used);
        self.left -= 1;
        self.last_index = Some(index);
        Ok(Event::ArrayItem { index, value })
    }

    fn start(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        (self.left, self.insert_index) = input.read(|reader, _| head(reader))?;
        self.begun = true;
        let (kind, len) = (Kind::Array, Some(self.left));
        Ok(Event::ValueStart { kind, len })
    }
}

/// The number of values, and where the next one would be inserted, less one.
pub(crate) fn head(reader: &mut Reader<'_>) -> Result<(u64, Option<u64>), Stop> {
    let values = reader.number()?;
    if values == 0 {
        return Err(Stop::corrupt("an array without values"));
    }
    match reader.number()? {
        0 => Ok((values, None)),
        1 => match reader.number()? {
            u64::MAX => Err(Stop::corrupt(
                "an array whose place of insertion is out of range",
            )),
            index => Ok((values, Some(index))),
        },
        _ => Err(Stop::corrupt("a flag that is neither 0 nor 1")),
    }
}
