//! Values of modules, and what modules keep elsewhere (`rdb.c: rdbLoadCheckModuleValue`).
//!
//! ```text
//! value    = module-id part × n  0                      type 7
//! aux      = module-id  2 when  part × n  0             opcode MODULE_AUX; when: 1 before the keys, 2 after
//! key meta = n (u32 class  part × n  0) × n             opcode KEY_META
//! part     = 1 number, signed | 2 number | 3 f32 | 4 f64 | 5 string
//! ```
//!
//! The opcodes and numbers are in length encoding, floats are little-endian.

use std::fmt;

use bytes::Bytes;

use crate::arena::Arena;
use crate::error::{Error, Stop};
use crate::event::{Event, ModuleId, ModuleValue};
use crate::leaf::reader::{Reader, Text};
use crate::types::Kind;
use crate::value::Input;

/// A module's value on its way out.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    stage: Stage,
}

#[derive(Debug, Default)]
enum Stage {
    #[default]
    Start,
    Type,
    Parts,
    End,
}

impl Parts {
    pub(crate) fn next(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        match self.stage {
            Stage::Start => {
                self.stage = Stage::Type;
                let (kind, len) = (Kind::Module, None);
                Ok(Event::ValueStart { kind, len })
            }
            Stage::Type => {
                let id = input.read(|reader, _| reader.number())?;
                self.stage = Stage::Parts;
                Ok(Event::ModuleType(ModuleId(id)))
            }
            Stage::Parts => {
                let mut reader = Reader::new(input.window.rest());
                let part = part(&mut reader, input.limits.item_bytes_max)?;
                let used = reader.at();
                let value = part
                    .map(|part| part.value(|text| input.text(text)))
                    .transpose()?;
                input.window.consume(used);
                if value.is_none() {
                    self.stage = Stage::End;
                }
                Ok(value.map_or(Event::ValueEnd, Event::ModulePart))
            }
            Stage::End => Ok(Event::ValueEnd),
        }
    }
}

/// A part that was read; a string is still where it stands.
enum Part {
    Value(ModuleValue),
    Text(Text),
}

impl Part {
    fn value(self, text: impl FnOnce(Text) -> Result<Bytes, Stop>) -> Result<ModuleValue, Stop> {
        match self {
            Self::Value(value) => Ok(value),
            Self::Text(at) => text(at).map(ModuleValue::String),
        }
    }
}

/// The next part; `None` for the end.
fn part(reader: &mut Reader<'_>, max: u64) -> Result<Option<Part>, Stop> {
    let value = match reader.number()? {
        0 => return Ok(None),
        1 => ModuleValue::Signed(reader.number()?.cast_signed()),
        2 => ModuleValue::Unsigned(reader.number()?),
        3 => ModuleValue::Float(f32::from_le_bytes(reader.array()?)),
        4 => ModuleValue::Double(f64::from_le_bytes(reader.array()?)),
        5 => return Ok(Some(Part::Text(reader.text(max)?))),
        _ => return Err(Stop::corrupt("a module's value of an unknown form")),
    };
    Ok(Some(Part::Value(value)))
}

/// What a module keeps with a key (Redis 8.6).
#[derive(Debug, Clone, PartialEq)]
pub struct KeyMeta {
    /// Whose it is.
    pub class: KeyMetaClass,
    /// What it is.
    pub values: Vec<ModuleValue>,
}

/// Who keeps it: four characters of six bits, five bits of a version, three of flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyMetaClass(pub u32);

impl KeyMetaClass {
    /// The version of the encoding.
    #[must_use]
    pub const fn version(self) -> u32 {
        self.0 >> 3 & 0x1f
    }

    /// Whether a server without the module may load the key without this.
    #[must_use]
    pub const fn may_be_ignored(self) -> bool {
        self.0 & 1 == 1
    }
}

impl fmt::Display for KeyMetaClass {
    /// The name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ModuleId::characters(u64::from(self.0 >> 8), 4, f)
    }
}

/// What [`Event::ModuleAux`] holds, from its `raw`. Strings are slices of it where they can be.
///
/// # Errors
///
/// If `raw` is not such a body; the place counts from its first byte.
pub fn module_aux(raw: &Bytes) -> Result<Vec<ModuleValue>, Error> {
    let mut body = Body::new(raw);
    body.read(|body| {
        // Name and version; the opcode of a number, and the number: both are in the event.
        body.reader.number()?;
        body.reader.number()?;
        body.reader.number()?;
        body.values()
    })
}

/// What [`KeyHead::meta`](crate::KeyHead::meta) holds.
///
/// # Errors
///
/// If `raw` is not such a body; the place counts from its first byte.
pub fn key_meta(raw: &Bytes) -> Result<Vec<KeyMeta>, Error> {
    let mut body = Body::new(raw);
    body.read(|body| {
        let mut metas = Vec::new();
        for _ in 0..body.reader.number()? {
            let class = KeyMetaClass(u32::from_le_bytes(body.reader.array()?));
            let values = body.values()?;
            metas.push(KeyMeta { class, values });
        }
        Ok(metas)
    })
}

struct Body<'a> {
    raw: &'a Bytes,
    reader: Reader<'a>,
    arena: Arena,
}

impl<'a> Body<'a> {
    fn new(raw: &'a Bytes) -> Self {
        let (reader, arena) = (Reader::new(raw), Arena::new());
        Self { raw, reader, arena }
    }

    fn read<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Stop>) -> Result<T, Error> {
        let result = read(self).and_then(|read| self.reader.finish().map(|()| read));
        result.map_err(|stop| Error {
            at: self.reader.at() as u64,
            kind: stop.in_full(),
        })
    }

    fn values(&mut self) -> Result<Vec<ModuleValue>, Stop> {
        let (mut values, raw, arena) = (Vec::new(), self.raw, &mut self.arena);
        while let Some(part) = part(&mut self.reader, u64::MAX)? {
            values.push(part.value(|text| arena.text_in(raw, text))?);
        }
        Ok(values)
    }
}
