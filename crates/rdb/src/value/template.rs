//! Hashes whose field names stand elsewhere (Redis 8.10).
//!
//! ```text
//! HASH_TMPL_LP         names  listpack of (any number ≥ 0, values)      in DUMP payloads
//! HASH_TMPL_LP_REF     listpack of (template, values)                   in files
//! HASH_TMPL_ARRAY      names  values                                    in DUMP payloads
//! HASH_TMPL_ARRAY_REF  template  values                                 in files
//!
//! names = 0 listpack of names | 1 n name × n        ascending by length, then by bytes
//! ```

use std::sync::Arc;

use bytes::Bytes;

use crate::container::{Entries, Entry, Form, Packed, Shape};
use crate::error::{ErrorKind, Stop};
use crate::event::Event;
use crate::leaf::reader::Reader;
use crate::types::{Encoding, Kind};
use crate::value::{Input, entry_text};

const ITEMS: Packed = Packed {
    form: Form::Listpack,
    shape: Shape::Items,
};

/// A hash with a template on its way out.
#[derive(Debug)]
pub(crate) struct Template {
    encoding: Encoding,
    stage: Stage,
    names: Names,
    /// The field that comes next.
    next: usize,
    /// The values, where they are packed.
    values: Option<Entries>,
}

#[derive(Debug)]
enum Names {
    /// Those of the value itself; as they come.
    Own(Vec<Bytes>),
    /// Those of a template of the file.
    Shared(Arc<[Bytes]>),
}

#[derive(Debug)]
enum Stage {
    Start,
    /// Names that stand in front of the values.
    Names {
        left: u64,
        bytes: u64,
    },
    /// The listpack of values.
    Listpack,
    Pairs,
}

impl Template {
    pub(crate) const fn new(encoding: Encoding) -> Self {
        Self {
            encoding,
            stage: Stage::Start,
            names: Names::Own(Vec::new()),
            next: 0,
            values: None,
        }
    }

    pub(crate) fn next(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        loop {
            match &mut self.stage {
                Stage::Start => match self.encoding {
                    Encoding::TemplateListpackRef => self.stage = Stage::Listpack,
                    Encoding::TemplateArrayRef => return self.start_of_reference(input),
                    _ => self.start_of_names(input)?,
                },
                Stage::Names { left: 0, .. } => match self.encoding {
                    Encoding::TemplateListpack => self.stage = Stage::Listpack,
                    _ => return self.start_of_pairs(),
                },
                Stage::Names { .. } => self.name(input)?,
                Stage::Listpack => return self.listpack(input),
                Stage::Pairs => return self.pair(input),
            }
        }
    }

    fn names(&self) -> &[Bytes] {
        match &self.names {
            Names::Own(names) => names,
            Names::Shared(names) => names,
        }
    }

    fn start_of_pairs(&mut self) -> Result<Event, Stop> {
        let names = self.names().len();
        if names == 0 {
            return Err(Stop::corrupt("a template without names"));
        }
        self.stage = Stage::Pairs;
        let (kind, len) = (Kind::Hash, Some(names as u64));
        Ok(Event::ValueStart { kind, len })
    }

    fn start_of_reference(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        let templates = input.templates;
        let names = input.read(|reader, _| templates.names(reader.number()?).cloned())?;
        self.names = Names::Shared(names);
        self.start_of_pairs()
    }

    fn start_of_names(&mut self, input: &mut Input<'_>) -> Result<(), Stop> {
        let mut reader = Reader::new(input.window.rest());
        let left = match reader.number()? {
            0 => {
                let lead = reader.at();
                let (mut entries, _, used) = input.container(lead, ITEMS)?;
                while let Some(entry) = entries.next()? {
                    let name = entry_text(&entries, entry, input.arena);
                    self.add_name(name)?;
                }
                input.window.consume(used);
                0
            }
            1 => {
                let left = reader.number()?;
                let used = reader.at();
                input.window.consume(used);
                left
            }
            _ => return Err(Stop::corrupt("a template's names in an unknown format")),
        };
        self.stage = Stage::Names { left, bytes: 0 };
        Ok(())
    }

    fn add_name(&mut self, name: Bytes) -> Result<(), Stop> {
        let Names::Own(names) = &mut self.names else {
            return Ok(());
        };
        if !ascends(names.last(), &name) {
            return Err(Stop::corrupt("a template whose fields do not ascend"));
        }
        names.push(name);
        Ok(())
    }

    fn name(&mut self, input: &mut Input<'_>) -> Result<(), Stop> {
        let mut reader = Reader::new(input.window.rest());
        let text = reader.text(input.limits.item_bytes_max)?;
        let used = reader.at();
        let name = input.text(text)?;
        if let Stage::Names { left, bytes } = &mut self.stage {
            *left -= 1;
            *bytes += (name.len() + size_of::<Bytes>()) as u64;
            let (what, max) = ("template names", input.limits.templates_bytes_max);
            if *bytes > max {
                let got = *bytes;
                return Err(Stop::Bad(ErrorKind::Limit { what, got, max }));
            }
        }
        self.add_name(name)?;
        input.window.consume(used);
        Ok(())
    }

    fn listpack(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        let (mut entries, count, used) = input.container(0, ITEMS)?;
        let id = match entries.next()? {
            Some(Entry::Int(id)) => {
                u64::try_from(id).map_err(|_| Stop::corrupt("a template's number below zero"))?
            }
            Some(Entry::Text { .. }) => {
                return Err(Stop::corrupt("a template's number that is no integer"));
            }
            None => return Err(Stop::corrupt("a container that must not be empty")),
        };
        if self.encoding == Encoding::TemplateListpackRef {
            self.names = Names::Shared(Arc::clone(input.templates.names(id)?));
        }
        if count - 1 != self.names().len() as u64 {
            return Err(Stop::corrupt(
                "a hash with another number of values than its template has names",
            ));
        }
        let start = self.start_of_pairs()?;
        input.window.consume(used);
        self.values = Some(entries);
        Ok(start)
    }

    fn pair(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        let Some(field) = self.names().get(self.next).cloned() else {
            return Ok(Event::ValueEnd);
        };
        let value = match &mut self.values {
            Some(entries) => {
                let entry = entries.next()?.ok_or(ErrorKind::Corrupt(
                    "a container with an incomplete last element",
                ))?;
                entry_text(entries, entry, input.arena)
            }
            None => input.item()?,
        };
        self.next += 1;
        Ok(Event::Pair {
            field,
            value,
            expire_at_ms: None,
        })
    }
}

/// Whether a template's name may follow another: shorter first, then by bytes.
pub(crate) fn ascends(last: Option<&Bytes>, name: &Bytes) -> bool {
    last.is_none_or(|last| (last.len(), last.as_ref()) < (name.len(), name.as_ref()))
}
