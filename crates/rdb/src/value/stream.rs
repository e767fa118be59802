//! Streams (`rdb.c: rdbLoadObject`, the branch of the stream types).
//!
//! ```text
//! stream   = n (id listpack) × n   length last-id [first-id max-deleted-id added]  n group × n  [idmp]
//! group    = name last-id [read]   n (id i64 count) × n   n consumer × n   [n id × n]
//! consumer = name i64 [i64]        n id × n
//! idmp     = seconds max           n (name n (iid id) × n) × n   added duplicates
//! ```
//!
//! Ids of pending messages are 16 bytes, big-endian; those in the head, of the groups and of
//! produced messages are two numbers in length encoding.

use std::collections::HashSet;

use bytes::Bytes;

use crate::container::stream_node::{self, Messages};
use crate::error::Stop;
use crate::event::{Event, StreamCounters, StreamId, StreamInfo};
use crate::leaf::reader::{Reader, Text};
use crate::types::{Kind, StreamForm};
use crate::value::pending::Pending;
use crate::value::{Input, Look, entry_text};

/// Bounds that servers hold to (`t_stream.c`).
const IDMP_SECONDS: std::ops::RangeInclusive<u64> = 1..=86_400;
const IDMP_MESSAGES: std::ops::RangeInclusive<u64> = 1..=10_000;

/// A stream on its way out.
#[derive(Debug)]
pub(crate) struct Stream {
    form: StreamForm,
    look: Look,
    stage: Stage,
    /// Nodes, groups, producers still to come.
    left: u64,
    /// Items of the current group, consumer or producer still to come.
    items: u64,
    consumers: u64,
    messages: Option<Messages>,
    last_node: Option<StreamId>,
    last_message: Option<StreamId>,
    /// Messages that are not deleted.
    live: u64,
    flawed: bool,
    names: HashSet<Box<[u8]>>,
    consumer_names: HashSet<Box<[u8]>>,
    pending: Pending,
}

/// What is read next.
#[derive(Debug, Clone, Copy)]
enum Stage {
    Start,
    Nodes,
    /// That many bytes of a node that is passed over.
    PassNode(u64),
    Info,
    Groups,
    Pending,
    Consumers,
    Consumer,
    Owned,
    ReturnedCount,
    Returned,
    Idempotence,
    Producers,
    Produced,
    Counts,
    End,
}

impl Stream {
    pub(crate) fn new(form: StreamForm, look: Look) -> Self {
        Self {
            form,
            look,
            stage: Stage::Start,
            left: 0,
            items: 0,
            consumers: 0,
            messages: None,
            last_node: None,
            last_message: None,
            live: 0,
            flawed: false,
            names: HashSet::new(),
            consumer_names: HashSet::new(),
            pending: Pending::default(),
        }
    }

    /// Whether something was miscounted, so far. Redis writes and loads such streams, Valkey from
    /// 9.1 on refuses them.
    pub(crate) const fn is_flawed(&self) -> bool {
        self.flawed
    }

    pub(crate) fn next(&mut self, input: &mut Input<'_>) -> Result<Event, Stop> {
        loop {
            let event = match self.stage {
                Stage::Start => self.start(input)?,
                Stage::Nodes => self.message(input)?,
                Stage::PassNode(left) => self.pass_node(left, input)?,
                Stage::Info => self.info(input)?,
                Stage::Groups => self.group(input)?,
                Stage::Pending => self.pending(input)?,
                Stage::Consumers => self.consumers(input)?,
                Stage::Consumer => self.consumer(input)?,
                Stage::Owned => self.owned(input)?,
                Stage::ReturnedCount => self.returned_count(input)?,
                Stage::Returned => self.returned(input)?,
                Stage::Idempotence => self.idempotence(input)?,
                Stage::Producers => self.producer(input)?,
                Stage::Produced => self.produced(input)?,
                Stage::Counts => self.counts(input)?,
                Stage::End => Some(Event::ValueEnd),
            };
            if let Some(event) = event {
                return Ok(event);
            }
        }
    }

    fn start(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        self.left = input.read(|reader, _| reader.number())?;
        self.stage = Stage::Nodes;
        let (kind, len) = (Kind::Stream, None);
        Ok(Some(Event::ValueStart { kind, len }))
    }

    fn message(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        if let Some(messages) = &mut self.messages {
            if let Some((field, value)) = messages.pair()? {
                return Ok(Some(Event::Pair {
                    field: entry_text(messages.entries(), field, input.arena),
                    value: entry_text(messages.entries(), value, input.arena),
                    expire_at_ms: None,
                }));
            }
            if let Some(message) = messages.message()? {
                let (id, fields) = (message.id, message.fields);
                return Ok(Some(Event::StreamEntry { id, fields }));
            }
            self.messages = None;
        }
        if self.left == 0 {
            self.stage = Stage::Info;
            return Ok(None);
        }
        let id = self.node(input)?;
        self.left -= 1;
        // Whoever checks a stream wants to stop at any node, to see how large it is by now.
        let checked = self.look == Look::Check;
        Ok(checked.then_some(Event::StreamEntry { id, fields: 0 }))
    }

    /// Reads a node; returns its id.
    fn node(&mut self, input: &mut Input<'_>) -> Result<StreamId, Stop> {
        let max = input.limits.item_bytes_max;
        let mut reader = Reader::new(input.window.rest());
        let name = reader.text(max)?;
        if name.len() != 16 {
            return Err(Stop::corrupt("a stream node's name of other than 16 bytes"));
        }
        if self.look == Look::Groups {
            let head = reader.string_head(max)?;
            let used = reader.at();
            input.window.consume(used);
            self.stage = Stage::PassNode(head.stored() as u64);
            return Ok(StreamId::default());
        }
        let listpack = reader.text(max)?;
        let used = reader.at();
        let name = input.text(name)?;
        let base = id(&mut Reader::new(&name))?;
        if self.last_node >= Some(base) {
            return Err(Stop::corrupt("stream nodes that do not ascend"));
        }
        let blob = match listpack {
            Text::Int(_) => {
                return Err(Stop::corrupt("an integer where a container must stand"));
            }
            text => input.text(text)?,
        };
        let checked = stream_node::check(&blob, base, self.last_message)?;
        input.back.note(&blob)?;
        input.window.consume(used);
        self.last_node = Some(base);
        self.last_message = checked.last;
        self.live = self.live.saturating_add(checked.live);
        self.flawed |= !checked.counts_agree;
        if self.look == Look::Give {
            self.messages = Some(Messages::new(blob, base)?);
        }
        Ok(base)
    }

    fn pass_node(&mut self, left: u64, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        match left - input.window.skip(left) {
            0 => self.stage = Stage::Nodes,
            left => {
                self.stage = Stage::PassNode(left);
                return Err(Stop::Need(1));
            }
        }
        Ok(None)
    }

    fn info(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        let with_counters = self.form >= StreamForm::V2;
        let without_nodes = self.last_node.is_none() && self.look != Look::Groups;
        let info = input.read(|reader, _| {
            let info = StreamInfo {
                length: reader.number()?,
                last_id: two_numbers(reader)?,
                counters: match with_counters {
                    true => Some(StreamCounters {
                        first_id: two_numbers(reader)?,
                        max_deleted_id: two_numbers(reader)?,
                        entries_added: reader.number()?,
                    }),
                    false => None,
                },
                groups: reader.number()?,
            };
            if info.length > 0 && without_nodes {
                return Err(Stop::corrupt("a stream with messages and without nodes"));
            }
            Ok(info)
        })?;
        self.flawed |= info.length != self.live;
        self.left = info.groups;
        self.stage = Stage::Groups;
        Ok(Some(Event::StreamInfo(Box::new(info))))
    }

    fn group(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        let Some(left) = self.left.checked_sub(1) else {
            self.stage = match self.form {
                StreamForm::V4 | StreamForm::V5 => Stage::Idempotence,
                StreamForm::V1 | StreamForm::V2 | StreamForm::V3 => Stage::End,
            };
            return Ok(None);
        };
        let with_read = self.form >= StreamForm::V2;
        let (name, (last_id, entries_read, pending), used) = named(input, |reader| {
            let last_id = two_numbers(reader)?;
            // All ones are -1, for not known.
            let read = match with_read {
                true => Some(reader.number()?).filter(|read| *read != u64::MAX),
                false => None,
            };
            Ok((last_id, read, reader.number()?))
        })?;
        if !self.names.insert(name.as_ref().into()) {
            return Err(Stop::corrupt("a stream with two groups of one name"));
        }
        input.window.consume(used);
        (self.left, self.items) = (left, pending);
        self.consumer_names.clear();
        self.pending = Pending::default();
        self.stage = Stage::Pending;
        Ok(Some(Event::StreamGroup {
            name,
            last_id,
            entries_read,
            pending,
        }))
    }

    fn pending(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        let Some(left) = self.items.checked_sub(1) else {
            self.pending.settle()?;
            self.stage = Stage::Consumers;
            return Ok(None);
        };
        let (id, delivered_ms, deliveries) = input.read(|reader, _| {
            let id = id(reader)?;
            let delivered_ms = i64::from_le_bytes(reader.array()?);
            Ok((id, delivered_ms, reader.number()?))
        })?;
        self.items = left;
        self.pending.add(id);
        Ok(Some(Event::StreamPending {
            id,
            delivered_ms,
            deliveries,
        }))
    }

    fn consumers(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        self.consumers = input.read(|reader, _| reader.number())?;
        self.stage = Stage::Consumer;
        Ok(None)
    }

    fn consumer(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        let Some(left) = self.consumers.checked_sub(1) else {
            if self.form == StreamForm::V5 {
                self.stage = Stage::ReturnedCount;
            } else {
                self.pending.finish()?;
                self.stage = Stage::Groups;
            }
            return Ok(None);
        };
        let with_active = self.form >= StreamForm::V3;
        let (name, (seen_ms, active_ms, pending), used) = named(input, |reader| {
            let seen = i64::from_le_bytes(reader.array()?);
            let active = match with_active {
                true => Some(i64::from_le_bytes(reader.array()?)).filter(|ms| *ms != -1),
                false => None,
            };
            Ok((seen, active, reader.number()?))
        })?;
        if !self.consumer_names.insert(name.as_ref().into()) {
            return Err(Stop::corrupt("a group with two consumers of one name"));
        }
        input.window.consume(used);
        (self.consumers, self.items) = (left, pending);
        self.stage = Stage::Owned;
        Ok(Some(Event::StreamConsumer {
            name,
            seen_ms,
            active_ms,
            pending,
        }))
    }

    fn owned(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        match self.owner(input)? {
            Some(id) => Ok(Some(Event::StreamOwned { id })),
            None => {
                self.stage = Stage::Consumer;
                Ok(None)
            }
        }
    }

    /// The next pending message that has somebody to answer for it.
    fn owner(&mut self, input: &mut Input<'_>) -> Result<Option<StreamId>, Stop> {
        let Some(left) = self.items.checked_sub(1) else {
            return Ok(None);
        };
        let mut reader = Reader::new(input.window.rest());
        let id = id(&mut reader)?;
        self.pending.own(id)?;
        let used = reader.at();
        input.window.consume(used);
        self.items = left;
        Ok(Some(id))
    }

    fn returned_count(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        self.items = input.read(|reader, _| reader.number())?;
        self.stage = Stage::Returned;
        Ok(None)
    }

    fn returned(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        match self.owner(input)? {
            Some(id) => Ok(Some(Event::StreamReturned { id })),
            None => {
                self.pending.finish()?;
                self.stage = Stage::Groups;
                Ok(None)
            }
        }
    }

    fn idempotence(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        let (duration_seconds, messages_max, producers) = input.read(|reader, _| {
            let (seconds, messages) = (reader.number()?, reader.number()?);
            if !IDMP_SECONDS.contains(&seconds) || !IDMP_MESSAGES.contains(&messages) {
                return Err(Stop::corrupt("a setting of idempotence out of range"));
            }
            Ok((seconds, messages, reader.number()?))
        })?;
        self.left = producers;
        self.stage = Stage::Producers;
        Ok(Some(Event::StreamIdempotence {
            duration_seconds,
            messages_max,
        }))
    }

    fn producer(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        let Some(left) = self.left.checked_sub(1) else {
            self.stage = Stage::Counts;
            return Ok(None);
        };
        let (name, messages, used) = named(input, |reader| reader.number())?;
        input.window.consume(used);
        (self.left, self.items) = (left, messages);
        self.stage = Stage::Produced;
        Ok(Some(Event::StreamProducer { name, messages }))
    }

    fn produced(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        let Some(left) = self.items.checked_sub(1) else {
            self.stage = Stage::Producers;
            return Ok(None);
        };
        let (iid, id, used) = named(input, two_numbers)?;
        input.window.consume(used);
        self.items = left;
        Ok(Some(Event::StreamProduced { iid, id }))
    }

    fn counts(&mut self, input: &mut Input<'_>) -> Result<Option<Event>, Stop> {
        let (added, duplicates) =
            input.read(|reader, _| Ok((reader.number()?, reader.number()?)))?;
        self.stage = Stage::End;
        Ok(Some(Event::StreamIdempotenceCounts { added, duplicates }))
    }
}

/// Reads a name and what follows it as one item, of so many bytes; they are not consumed yet.
fn named<T>(
    input: &mut Input<'_>,
    then: impl FnOnce(&mut Reader<'_>) -> Result<T, Stop>,
) -> Result<(Bytes, T, usize), Stop> {
    let mut reader = Reader::new(input.window.rest());
    let name = reader.text(input.limits.item_bytes_max)?;
    let rest = then(&mut reader)?;
    let used = reader.at();
    Ok((input.text(name)?, rest, used))
}

/// An id in 16 bytes.
fn id(reader: &mut Reader<'_>) -> Result<StreamId, Stop> {
    Ok(StreamId {
        ms: u64::from_be_bytes(reader.array()?),
        seq: u64::from_be_bytes(reader.array()?),
    })
}

/// An id in two lengths.
fn two_numbers(reader: &mut Reader<'_>) -> Result<StreamId, Stop> {
    Ok(StreamId {
        ms: reader.number()?,
        seq: reader.number()?,
    })
}
