//! Elements without events: borrowed from the bytes at hand, for whoever only copies them.
//!
//! What an element is and what is wrong with it is decided by the same functions as for events.

use std::ops::ControlFlow;

use bytes::Bytes;

use crate::arena::Arena;
use crate::container::{self, Entries, Entry, Shape};
use crate::error::Stop;
use crate::event::Element;
use crate::leaf::number::Decimal;
use crate::leaf::reader::{Reader, Text};
use crate::value::{Elements, Input, Node, Stage, more, node, plain, score};

/// A text that is no part of the input.
enum Made {
    Nothing,
    Decimal(Decimal),
    Unpacked(Bytes),
}

impl Made {
    fn entry<'a>(&'a mut self, blob: &'a [u8], entry: Entry) -> &'a [u8] {
        match entry {
            Entry::Text { start, end } => blob.get(start..end).unwrap_or_default(),
            Entry::Int(value) => self.decimal(value),
        }
    }

    fn decimal(&mut self, value: i64) -> &[u8] {
        *self = Self::Decimal(Decimal::new(value));
        self.as_bytes()
    }

    /// A string that was read from the beginning of `rest`.
    #[inline]
    fn text<'a>(
        &'a mut self,
        rest: &'a [u8],
        text: Text,
        arena: &mut Arena,
    ) -> Result<&'a [u8], Stop> {
        match text {
            Text::Plain { start, end } => Ok(rest.get(start..end).unwrap_or_default()),
            Text::Int(value) => Ok(self.decimal(i64::from(value))),
            Text::Lzf { start, end, len } => {
                let packed = rest.get(start..end).unwrap_or_default();
                *self = Self::Unpacked(arena.unpack(packed, len)?);
                Ok(self.as_bytes())
            }
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Nothing => &[],
            Self::Decimal(decimal) => decimal.as_bytes(),
            Self::Unpacked(bytes) => bytes,
        }
    }
}

impl Elements {
    /// Gives the elements that are at hand, until `each` breaks off. Of what is no collection, or not yet begun, none.
    pub(crate) fn drain<E>(&mut self, input: &mut Input<'_>, each: &mut E) -> Result<(), Stop>
    where
        E: FnMut(Element<'_>) -> ControlFlow<()>,
    {
        match &mut self.stage {
            Stage::Plain { left, min_ms } => {
                while *left > 0 {
                    let flow = plain_element(self.row, *min_ms, input, each)?;
                    *left -= 1;
                    if flow.is_break() {
                        break;
                    }
                }
            }
            Stage::Packed { entries, shape } => drop(packed_elements(entries, *shape, each)?),
            Stage::Nodes { left, entries } => {
                return node_elements(self.row.encoding, left, entries, input, each);
            }
            Stage::Start
            | Stage::Led
            | Stage::Parts(_)
            | Stage::Stream(_)
            | Stage::Array(_)
            | Stage::Module(_)
            | Stage::Template(_) => {}
        }
        Ok(())
    }
}

#[inline]
fn plain_element<E>(
    row: &crate::types::Row,
    min_ms: u64,
    input: &mut Input<'_>,
    each: &mut E,
) -> Result<ControlFlow<()>, Stop>
where
    E: FnMut(Element<'_>) -> ControlFlow<()>,
{
    let rest = input.window.rest();
    let mut reader = Reader::new(rest);
    let read = plain::read(row, min_ms, &mut reader, input.limits.item_bytes_max)?;
    let (mut one, mut two) = (Made::Nothing, Made::Nothing);
    let flow = match read {
        plain::Read::Item(item) => each(Element::Item(one.text(rest, item, input.arena)?)),
        plain::Read::Pair(field, value, expire_at_ms) => each(Element::Pair {
            field: one.text(rest, field, input.arena)?,
            value: two.text(rest, value, input.arena)?,
            expire_at_ms,
        }),
        plain::Read::Scored(member, score) => each(Element::Scored {
            member: one.text(rest, member, input.arena)?,
            score,
        }),
    };
    let used = reader.at();
    input.window.consume(used);
    Ok(flow)
}

fn packed_elements<E>(
    entries: &mut Entries,
    shape: Shape,
    each: &mut E,
) -> Result<ControlFlow<()>, Stop>
where
    E: FnMut(Element<'_>) -> ControlFlow<()>,
{
    let (mut one, mut two) = (Made::Nothing, Made::Nothing);
    while let Some(first) = entries.next()? {
        let flow = match shape {
            Shape::Items | Shape::Members => each(Element::Item(one.entry(entries.blob(), first))),
            Shape::Scored => {
                let score = score(entries)?;
                let member = one.entry(entries.blob(), first);
                each(Element::Scored { member, score })
            }
            Shape::Pairs | Shape::Expiring => {
                let value = more(entries)?;
                let expire_at_ms = match shape {
                    Shape::Expiring => container::expiry(more(entries)?)?,
                    Shape::Pairs | Shape::Items | Shape::Members | Shape::Scored => None,
                };
                each(Element::Pair {
                    field: one.entry(entries.blob(), first),
                    value: two.entry(entries.blob(), value),
                    expire_at_ms,
                })
            }
        };
        if flow.is_break() {
            return Ok(flow);
        }
    }
    Ok(ControlFlow::Continue(()))
}

fn node_elements<E>(
    encoding: crate::types::Encoding,
    left: &mut u64,
    current: &mut Option<Entries>,
    input: &mut Input<'_>,
    each: &mut E,
) -> Result<(), Stop>
where
    E: FnMut(Element<'_>) -> ControlFlow<()>,
{
    loop {
        if let Some(entries) = current {
            if packed_elements(entries, Shape::Items, each)?.is_break() {
                return Ok(());
            }
            *current = None;
        }
        if *left == 0 {
            return Ok(());
        }
        let node = node(encoding, input)?;
        *left -= 1;
        match node {
            Node::Entries(entries) => *current = Some(entries),
            Node::Element(item) if each(Element::Item(&item)).is_break() => return Ok(()),
            Node::Element(_) => {}
        }
    }
}
