//! Values as elements: kind by encoding.

use bytes::Bytes;

use crate::arena::Arena;
use crate::container::listpack::BackLengths;
use crate::container::{self, Entries, Entry, Form, Packed, Shape};
use crate::error::{ErrorKind, Stop};
use crate::event::{Event, Score};
use crate::leaf::double;
use crate::leaf::reader::{Reader, Text};
use crate::limits::Limits;
use crate::templates::Templates;
use crate::types::{Encoding, Kind, Row};
use crate::window::Window;

pub(crate) mod array;
mod borrowed;
pub(crate) mod empty;
pub(crate) mod module;
mod pending;
pub(crate) mod plain;
mod stream;
pub(crate) mod string;
pub(crate) mod template;

/// A value on its way out, element by element.
#[derive(Debug)]
pub(crate) struct Elements {
    row: &'static Row,
    stage: Stage,
}

/// How a value is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// Its elements are given.
    Give,
    /// It is validated; nobody looks at the events, and messages of streams are left out.
    Check,
    /// Of streams, only what stands behind the messages is given.
    Groups,
}

#[derive(Debug)]
enum Stage {
    Start,
    /// A container comes, what leads it is behind.
    Led,
    /// A string too long for one part.
    Parts(string::Parts),
    /// Elements written one after the other.
    Plain {
        left: u64,
        min_ms: u64,
    },
    /// Entries of one container.
    Packed {
        entries: Entries,
        shape: Shape,
    },
    Stream(Box<stream::Stream>),
    Array(array::Array),
    Module(module::Parts),
    Template(Box<template::Template>),
    /// Nodes of a list, each a container or an element.
    Nodes {
        left: u64,
        entries: Option<Entries>,
    },
}

/// Where strings are read from and put.
pub(crate) struct Input<'a> {
    pub(crate) window: &'a mut Window,
    pub(crate) arena: &'a mut Arena,
    pub(crate) limits: &'a Limits,
    pub(crate) templates: &'a Templates,
    /// Of the listpacks that were looked into.
    pub(crate) back: &'a mut BackLengths,
}

impl Input<'_> {
    /// Reads one item off the window.
    #[inline]
    fn read<T>(
        &mut self,
        read: impl FnOnce(&mut Reader<'_>, u64) -> Result<T, Stop>,
    ) -> Result<T, Stop> {
        let mut reader = Reader::new(self.window.rest());
        let item = read(&mut reader, self.limits.item_bytes_max)?;
        let used = reader.at();
        self.window.consume(used);
        Ok(item)
    }

    /// A string that was read from the window's place, where it still is.
    #[inline]
    fn text(&mut self, text: Text) -> Result<Bytes, Stop> {
        self.arena.text(self.window, text)
    }

    /// Reads a string off the window.
    fn item(&mut self) -> Result<Bytes, Stop> {
        let mut reader = Reader::new(self.window.rest());
        let text = reader.text(self.limits.item_bytes_max)?;
        let used = reader.at();
        let item = self.text(text)?;
        self.window.consume(used);
        Ok(item)
    }

    /// Reads a container, led by `lead` bytes: its entries, their number, and how many bytes of
    /// the window it takes with its lead, which are not consumed yet.
    fn container(&mut self, lead: usize, packed: Packed) -> Result<(Entries, u64, usize), Stop> {
        let mut reader = Reader::new(self.window.rest());
        reader.take(lead)?;
        let text = reader.text(self.limits.item_bytes_max)?;
        let used = reader.at();
        if matches!(text, Text::Int(_)) {
            return Err(Stop::corrupt("an integer where a container must stand"));
        }
        let blob = self.text(text)?;
        let count = packed.check(&blob, None)?;
        if packed.form == Form::Listpack {
            self.back.note(&blob)?;
        }
        Ok((Entries::new(packed.form, blob), count, used))
    }
}

impl Elements {
    /// Begins a value of a type that decodes.
    pub(crate) fn new(row: &'static Row, look: Look) -> Self {
        let stage = match row.encoding {
            Encoding::Stream(form) => Stage::Stream(Box::new(stream::Stream::new(form, look))),
            Encoding::Array => Stage::Array(array::Array::default()),
            Encoding::Module => Stage::Module(module::Parts::default()),
            Encoding::TemplateListpack
            | Encoding::TemplateListpackRef
            | Encoding::TemplateArray
            | Encoding::TemplateArrayRef => {
                Stage::Template(Box::new(template::Template::new(row.encoding)))
            }
            _ => Stage::Start,
        };
        Self { row, stage }
    }

    /// Whether the value is good enough to be decoded and not to be passed on whole.
    pub(crate) fn is_flawed(&self) -> bool {
        matches!(&self.stage, Stage::Stream(stream) if stream.is_flawed())
    }

    /// The next event; [`Event::String`] and [`Event::ValueEnd`] are the last.
    pub(crate) fn next(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        match &mut self.stage {
            Stage::Start | Stage::Led => self.start(input),
            Stage::Parts(parts) => parts.next(input),
            Stage::Plain { left: 0, .. } => Ok(Event::ValueEnd),
            Stage::Plain { left, min_ms } => {
                let event = plain::next(self.row, *min_ms, input)?;
                *left -= 1;
                Ok(event)
            }
            Stage::Stream(stream) => stream.next(input),
            Stage::Array(array) => array.next(input),
            Stage::Module(parts) => parts.next(input),
            Stage::Template(template) => template.next(input),
            Stage::Packed { entries, shape } => packed_element(entries, *shape, input.arena),
            Stage::Nodes { left, entries } => {
                next_in_nodes(self.row.encoding, left, entries, input)
            }
        }
    }

    fn start(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        if self.row.kind == Kind::String {
            return self.start_string(input);
        }
        let (stage, len) = match self.row.encoding {
            Encoding::Quicklist | Encoding::Quicklist2 => {
                let left = input.read(|reader, _| reader.number())?;
                (
                    Stage::Nodes {
                        left,
                        entries: None,
                    },
                    None,
                )
            }
            encoding => match packed_in(self.row.kind, encoding) {
                Some((lead, packed)) => {
                    if lead > 0 && matches!(self.stage, Stage::Start) {
                        input.read(|reader, _| reader.take(lead).map(drop))?;
                        self.stage = Stage::Led;
                    }
                    let (entries, count, used) = input.container(0, packed)?;
                    input.window.consume(used);
                    let len = count / packed.shape.entries();
                    (
                        Stage::Packed {
                            entries,
                            shape: packed.shape,
                        },
                        Some(len),
                    )
                }
                None => {
                    let (min_ms, left) = input.read(|reader, _| plain::head(encoding, reader))?;
                    (Stage::Plain { left, min_ms }, Some(left))
                }
            },
        };
        self.stage = stage;
        Ok(Event::ValueStart {
            kind: self.row.kind,
            len,
        })
    }

    #[inline]
    fn start_string(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        let mut reader = Reader::new(input.window.rest());
        let head = reader.string_head(input.limits.string_bytes_max)?;
        let len = head.len() as u64;
        let lead = reader.at();
        if len > input.limits.part_bytes_max {
            input.window.consume(lead);
            self.stage = Stage::Parts(string::Parts::new(head, input.limits));
            return Ok(Event::ValueStart {
                kind: Kind::String,
                len: Some(len),
            });
        }
        reader.take(head.stored())?;
        let end = reader.at();
        let whole = input.text(head.at(lead, end))?;
        input.window.consume(end);
        Ok(Event::String(whole))
    }
}

/// What is packed in a value, behind how many other bytes; `None` if its elements are not packed.
fn packed_in(kind: Kind, encoding: Encoding) -> Option<(usize, Packed)> {
    let shape = match kind {
        Kind::Zset => Shape::Scored,
        Kind::Hash => Shape::Pairs,
        Kind::Set => Shape::Members,
        Kind::String
        | Kind::List
        | Kind::Stream
        | Kind::Module
        | Kind::Array
        | Kind::RateLimiter => Shape::Items,
    };
    let (lead, form, shape) = match encoding {
        Encoding::Zipmap => (0, Form::Zipmap, shape),
        Encoding::Ziplist => (0, Form::Ziplist, shape),
        Encoding::Intset => (0, Form::Intset, shape),
        Encoding::Listpack => (0, Form::Listpack, shape),
        Encoding::ExpiringListpackPreGa => (0, Form::Listpack, Shape::Expiring),
        Encoding::ExpiringListpack => (8, Form::Listpack, Shape::Expiring),
        Encoding::Plain
        | Encoding::TextScores
        | Encoding::BinaryScores
        | Encoding::Quicklist
        | Encoding::Quicklist2
        | Encoding::ExpiringAbsolute
        | Encoding::ExpiringTrailing
        | Encoding::ExpiringRelative
        | Encoding::Stream(_)
        | Encoding::ModulePreGa
        | Encoding::Module
        | Encoding::Array
        | Encoding::TemplateListpack
        | Encoding::TemplateListpackRef
        | Encoding::TemplateArray
        | Encoding::TemplateArrayRef
        | Encoding::Reserved => return None,
    };
    Some((lead, Packed { form, shape }))
}

fn entry_text(entries: &Entries, entry: Entry, arena: &mut Arena) -> Bytes {
    match entry {
        Entry::Text { start, end } => entries.slice(start, end),
        Entry::Int(value) => arena.int(value),
    }
}

fn packed_element(entries: &mut Entries, shape: Shape, arena: &mut Arena) -> Result<Event, Stop> {
    let Some(first) = entries.next()? else {
        return Ok(Event::ValueEnd);
    };
    let first = entry_text(entries, first, arena);
    let event = match shape {
        Shape::Items | Shape::Members => Event::Item(first),
        Shape::Scored => Event::Scored {
            member: first,
            score: score(entries)?,
        },
        Shape::Pairs => {
            let value = more(entries)?;
            let value = entry_text(entries, value, arena);
            Event::Pair {
                field: first,
                value,
                expire_at_ms: None,
            }
        }
        Shape::Expiring => {
            let value = more(entries)?;
            let value = entry_text(entries, value, arena);
            let expire_at_ms = container::expiry(more(entries)?)?;
            Event::Pair {
                field: first,
                value,
                expire_at_ms,
            }
        }
    };
    Ok(event)
}

/// The next entry of an element that has begun.
fn more(entries: &mut Entries) -> Result<Entry, ErrorKind> {
    entries.next()?.ok_or(ErrorKind::Corrupt(
        "a container with an incomplete last element",
    ))
}

fn score(entries: &mut Entries) -> Result<Score, Stop> {
    match more(entries)? {
        // As the server does: a plain conversion.
        Entry::Int(value) => Ok(Score(value as f64)),
        Entry::Text { start, end } => {
            double::text(entries.blob().get(start..end).unwrap_or_default())
        }
    }
}

fn next_in_nodes(
    encoding: Encoding,
    left: &mut u64,
    current: &mut Option<Entries>,
    input: &mut Input<'_>,
) -> Result<Event, Stop> {
    loop {
        if let Some(entries) = current {
            if let Some(entry) = entries.next()? {
                return Ok(Event::Item(entry_text(entries, entry, input.arena)));
            }
            *current = None;
        }
        if *left == 0 {
            return Ok(Event::ValueEnd);
        }
        match node(encoding, input)? {
            Node::Element(item) => {
                *left -= 1;
                return Ok(Event::Item(item));
            }
            Node::Entries(entries) => {
                *left -= 1;
                *current = Some(entries);
            }
        }
    }
}

enum Node {
    Element(Bytes),
    Entries(Entries),
}

fn node(encoding: Encoding, input: &mut Input<'_>) -> Result<Node, Stop> {
    let shape = Shape::Items;
    if encoding == Encoding::Quicklist {
        let packed = Packed {
            form: Form::Ziplist,
            shape,
        };
        return packed_node(0, packed, input);
    }
    let mut reader = Reader::new(input.window.rest());
    match reader.number()? {
        1 => {
            let text = reader.text(input.limits.item_bytes_max)?;
            let used = reader.at();
            let item = input.text(text)?;
            if item.is_empty() {
                return Err(Stop::corrupt("a list node without an element"));
            }
            input.window.consume(used);
            Ok(Node::Element(item))
        }
        2 => {
            let lead = reader.at();
            let packed = Packed {
                form: Form::Listpack,
                shape,
            };
            packed_node(lead, packed, input)
        }
        _ => Err(Stop::corrupt("a list node of an unknown container")),
    }
}

fn packed_node(lead: usize, packed: Packed, input: &mut Input<'_>) -> Result<Node, Stop> {
    let (entries, _, used) = input.container(lead, packed)?;
    input.window.consume(used);
    Ok(Node::Entries(entries))
}
