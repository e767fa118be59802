//! Opcodes: the bytes that can stand where a value type can.

use bytes::Bytes;

use crate::arena::Arena;
use crate::error::{ErrorKind, Stop};
use crate::event::{Event, ModuleId};
use crate::grammar::{self, Piece};
use crate::leaf::reader::Reader;
use crate::limits::Limits;
use crate::types::Dialect;
use crate::value::template::ascends;

/// An opcode, by what is done with its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Eof,
    SelectDb,
    ExpireSeconds,
    ExpireMs,
    ResizeDb,
    Freq,
    Idle,
    SlotInfo,
    /// Redis Enterprise's slot number and idle time: one number each, of no use.
    Ignored,
    /// A body that is held whole before it is read.
    Long(Long),
}

/// An opcode with a body of any length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Long {
    Aux,
    ModuleAux,
    Function,
    FunctionPreGa,
    KeyMeta,
    SlotImport,
    HashTemplate,
}

impl Opcode {
    pub(crate) const fn new(dialect: Dialect, byte: u8) -> Option<Self> {
        Some(match (byte, dialect) {
            (255, _) => Self::Eof,
            (254, _) => Self::SelectDb,
            (253, _) => Self::ExpireSeconds,
            (252, _) => Self::ExpireMs,
            (251, _) => Self::ResizeDb,
            (250, _) => Self::Long(Long::Aux),
            (249, _) => Self::Freq,
            (248, _) => Self::Idle,
            (247, _) => Self::Long(Long::ModuleAux),
            (246, _) => Self::Long(Long::FunctionPreGa),
            (245, _) => Self::Long(Long::Function),
            (244, Dialect::Redis | Dialect::Valkey) => Self::SlotInfo,
            (243, Dialect::Redis) => Self::Long(Long::KeyMeta),
            (243, Dialect::Valkey) => Self::Long(Long::SlotImport),
            (242, Dialect::Redis) => Self::Long(Long::HashTemplate),
            (121 | 107, _) => Self::Ignored,
            _ => return None,
        })
    }
}

impl Long {
    pub(crate) const fn body(self) -> &'static [Piece] {
        match self {
            Self::Aux => grammar::AUX,
            Self::ModuleAux => grammar::MODULE_AUX,
            Self::Function => grammar::FUNCTION,
            Self::FunctionPreGa => grammar::FUNCTION_PRE_GA,
            Self::KeyMeta => grammar::KEY_META,
            Self::SlotImport => grammar::SLOT_IMPORT,
            Self::HashTemplate => grammar::HASH_TEMPLATE,
        }
    }

    /// Reads a whole body; `None` if it belongs to the key that follows.
    pub(crate) fn read(
        self,
        raw: &Bytes,
        arena: &mut Arena,
        limits: &Limits,
    ) -> Result<Option<Event>, Stop> {
        let mut body = Body {
            raw,
            reader: Reader::new(raw),
            arena,
            max: limits.raw_bytes_max,
        };
        let event = match self {
            Self::KeyMeta => return Ok(None),
            Self::Aux => Event::Aux {
                name: body.text()?,
                value: body.text()?,
            },
            Self::Function => Event::Function { code: body.text()? },
            Self::FunctionPreGa => body.function_pre_ga()?,
            Self::ModuleAux => return body.module_aux().map(Some),
            Self::SlotImport => body.slot_import()?,
            Self::HashTemplate => body.hash_template(limits)?,
        };
        body.reader.finish()?;
        Ok(Some(event))
    }
}

struct Body<'a> {
    raw: &'a Bytes,
    reader: Reader<'a>,
    arena: &'a mut Arena,
    max: u64,
}

impl Body<'_> {
    fn text(&mut self) -> Result<Bytes, Stop> {
        let text = self.reader.text(self.max)?;
        self.arena.text_in(self.raw, text)
    }

    fn function_pre_ga(&mut self) -> Result<Event, Stop> {
        let (name, engine) = (self.text()?, self.text()?);
        let description = match self.reader.number()? {
            0 => None,
            _ => Some(Box::new(self.text()?)),
        };
        Ok(Event::FunctionPreGa {
            name,
            engine,
            description,
            code: self.text()?,
        })
    }

    fn module_aux(&mut self) -> Result<Event, Stop> {
        let module = ModuleId(self.reader.number()?);
        if self.reader.number()? != 2 {
            return Err(Stop::corrupt("a module's data without a time"));
        }
        let when = self.reader.number()?;
        Ok(Event::ModuleAux {
            module,
            when,
            raw: self.raw.clone(),
        })
    }

    fn slot_import(&mut self) -> Result<Event, Stop> {
        let job = self.text()?;
        if job.len() != 40 {
            return Err(Stop::corrupt(
                "a slot import whose name has other than 40 bytes",
            ));
        }
        let mut ranges = Vec::new();
        for _ in 0..self.reader.number()? {
            let (start, end) = (self.slot()?, self.slot()?);
            if start > end {
                return Err(Stop::corrupt("a range of slots that ends before it begins"));
            }
            ranges.push((start, end));
        }
        Ok(Event::SlotImport { job, ranges })
    }

    fn slot(&mut self) -> Result<u16, Stop> {
        match u16::try_from(self.reader.number()?) {
            Ok(slot @ ..16384) => Ok(slot),
            _ => Err(Stop::corrupt("a slot above 16383")),
        }
    }

    fn hash_template(&mut self, limits: &Limits) -> Result<Event, Stop> {
        let id = self.reader.number()?;
        if id > limits.template_id_max {
            let (what, max) = ("template number", limits.template_id_max);
            return Err(Stop::Bad(ErrorKind::Limit { what, got: id, max }));
        }
        let mut fields: Vec<Bytes> = Vec::new();
        for _ in 0..self.reader.number()? {
            let field = self.text()?;
            if !ascends(fields.last(), &field) {
                return Err(Stop::corrupt("a template whose fields do not ascend"));
            }
            fields.push(field);
        }
        if fields.is_empty() {
            return Err(Stop::corrupt("a template without names"));
        }
        Ok(Event::HashTemplate { id, fields })
    }
}
