//! A stream without its messages, as the body of a payload: what no command can set (when consumers were seen, pending
//! messages that are deleted, counters) goes by `RESTORE`, and the messages follow by `XADD`.
//!
//! ```text
//! skeleton = 0 nodes | length 0 | last-id 0-0 | [19: first-id 0-0 | max-deleted-id 0-0 | added]
//!            n group* | [26: duration max n producer* added duplicates]
//! group    = name last-id [19: read] n (id delivered deliveries)* n consumer* [27: n id*]
//! consumer = name seen [21: active] n id*
//! producer = name n (iid id)*
//! ```
//!
//! The last id is 0-0 so that `XADD` takes every message; the last command sets the real one. What is not known when
//! its place is written has eight bytes there and is filled in later.

use rdb::{Event, StreamId, StreamInfo};

/// The type from which on a stream has counters.
const WITH_COUNTERS: u8 = 19;
/// The type from which on consumers have a time of activity.
const WITH_ACTIVITY: u8 = 21;
/// The type from which on producers are remembered.
const WITH_PRODUCERS: u8 = 26;
/// The type from which on messages may be owned by nobody.
const WITH_RETURNED: u8 = 27;

/// Who owns messages that were given back, where the target wants every pending message owned.
pub(super) const RETURNED: &[u8] = b"understudy:returned";

/// Takes what is found behind the messages of a stream, event by event.
#[derive(Debug)]
pub(super) struct Skeleton {
    type_id: u8,
    body: Vec<u8>,
    bytes_max: u64,
    too_large: bool,
    /// Where the number of messages ever added is.
    added: Option<Slot>,
    /// Where groups' numbers of messages read are that the source did not say, and the groups' last ids.
    unread: Vec<(Slot, StreamId)>,
    read_max: u64,
    group: bool,
    consumers: Option<Slot>,
    consumer_count: u64,
    returned: Vec<StreamId>,
    producers: Option<Slot>,
    producer_count: u64,
}

/// The place of a number that is filled in later.
#[derive(Debug, Clone, Copy)]
struct Slot(usize);

impl Skeleton {
    /// One in the layout of a type, of at most `bytes_max` bytes.
    pub(super) fn new(type_id: u8, bytes_max: u64) -> Self {
        Self {
            type_id,
            // No nodes, no messages, no last id.
            body: vec![0; 4],
            bytes_max,
            too_large: false,
            added: None,
            unread: Vec::new(),
            read_max: 0,
            group: false,
            consumers: None,
            consumer_count: 0,
            returned: Vec::new(),
            producers: None,
            producer_count: 0,
        }
    }

    /// The type it is in the layout of.
    pub(super) fn type_id(&self) -> u8 {
        self.type_id
    }

    /// The next event of the stream; `false` if there is no room for it, and then all was in vain.
    pub(super) fn event(&mut self, event: &Event) -> bool {
        if !self.too_large {
            self.take(event);
            self.too_large = self.body.len() as u64 > self.bytes_max;
        }
        if self.too_large {
            self.body = Vec::new();
        }
        !self.too_large
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::StreamInfo(info) => self.info(info),
            Event::StreamGroup {
                name,
                last_id,
                entries_read,
                pending,
            } => self.group(name, *last_id, *entries_read, *pending),
            Event::StreamPending {
                id,
                delivered_ms,
                deliveries,
            } => {
                self.raw_id(*id);
                self.body.extend_from_slice(&delivered_ms.to_le_bytes());
                self.number(*deliveries);
            }
            Event::StreamConsumer {
                name,
                seen_ms,
                active_ms,
                pending,
            } => self.consumer(name, *seen_ms, active_ms.unwrap_or(-1), *pending),
            Event::StreamOwned { id } => self.raw_id(*id),
            Event::StreamReturned { id } => self.returned.push(*id),
            Event::StreamIdempotence {
                duration_seconds,
                messages_max,
            } => {
                self.close_group();
                if self.type_id >= WITH_PRODUCERS {
                    self.number(*duration_seconds);
                    self.number(*messages_max);
                    self.producers = Some(self.slot());
                }
            }
            Event::StreamProducer { name, messages } if self.producers.is_some() => {
                self.producer_count += 1;
                self.text(name);
                self.number(*messages);
            }
            Event::StreamProduced { iid, id } if self.producers.is_some() => {
                self.text(iid);
                self.id(*id);
            }
            Event::StreamIdempotenceCounts { added, duplicates } if self.producers.is_some() => {
                self.number(*added);
                self.number(*duplicates);
            }
            Event::ValueEnd => self.end(),
            // Messages, and what the layout has no room for.
            _ => {}
        }
    }

    fn info(&mut self, info: &StreamInfo) {
        if self.type_id >= WITH_COUNTERS {
            self.id(StreamId::default());
            self.id(StreamId::default());
            self.added = Some(self.slot());
            let added = info
                .counters
                .map_or(info.length, |counters| counters.entries_added);
            self.read_max = added;
        }
        self.number(info.groups);
    }

    fn group(&mut self, name: &[u8], last_id: StreamId, read: Option<u64>, pending: u64) {
        self.close_group();
        self.group = true;
        self.text(name);
        self.id(last_id);
        if self.type_id >= WITH_COUNTERS {
            let slot = self.slot();
            match read {
                Some(read) => {
                    // Redis 8.10 refuses a group that has read more than was ever added.
                    self.read_max = self.read_max.max(read);
                    self.fill(slot, read);
                }
                None => {
                    self.fill(slot, u64::MAX);
                    self.unread.push((slot, last_id));
                }
            }
        }
        self.number(pending);
    }

    fn consumer(&mut self, name: &[u8], seen_ms: i64, active_ms: i64, pending: u64) {
        self.open_consumers();
        self.consumer_count += 1;
        self.text(name);
        self.body.extend_from_slice(&seen_ms.to_le_bytes());
        if self.type_id >= WITH_ACTIVITY {
            self.body.extend_from_slice(&active_ms.to_le_bytes());
        }
        self.number(pending);
    }

    fn open_consumers(&mut self) {
        if self.consumers.is_none() {
            self.consumers = Some(self.slot());
        }
    }

    fn close_group(&mut self) {
        if !std::mem::replace(&mut self.group, false) {
            return;
        }
        self.open_consumers();
        let returned = std::mem::take(&mut self.returned);
        if self.type_id >= WITH_RETURNED {
            self.number(returned.len() as u64);
        } else if !returned.is_empty() {
            self.consumer(RETURNED, 0, -1, returned.len() as u64);
        }
        for id in returned {
            self.raw_id(id);
        }
        if let Some(slot) = self.consumers.take() {
            self.fill(slot, self.consumer_count);
        }
        self.consumer_count = 0;
    }

    fn end(&mut self) {
        self.close_group();
        if let Some(slot) = self.producers.take() {
            self.fill(slot, self.producer_count);
        }
        if let Some(slot) = self.added {
            self.fill(slot, self.read_max);
        }
    }

    /// The whole body. `estimate` says how much a group had read whose source did not say, by its last id.
    pub(super) fn finish(mut self, estimate: impl Fn(StreamId) -> Option<u64>) -> Vec<u8> {
        for (slot, last_id) in std::mem::take(&mut self.unread) {
            self.fill(slot, estimate(last_id).unwrap_or(u64::MAX));
        }
        self.body
    }

    /// Nine bytes for a number, the length form of eight bytes.
    fn slot(&mut self) -> Slot {
        self.body.push(0x81);
        let slot = Slot(self.body.len());
        self.body.extend_from_slice(&[0; 8]);
        slot
    }

    fn fill(&mut self, slot: Slot, number: u64) {
        let place = self
            .body
            .get_mut(slot.0..)
            .and_then(<[u8]>::first_chunk_mut);
        if let Some(place) = place {
            *place = number.to_be_bytes();
        }
    }

    fn number(&mut self, number: u64) {
        match u8::try_from(number) {
            Ok(small @ 0..=0x3f) => self.body.push(small),
            _ => {
                let slot = self.slot();
                self.fill(slot, number);
            }
        }
    }

    fn id(&mut self, id: StreamId) {
        self.number(id.ms);
        self.number(id.seq);
    }

    fn raw_id(&mut self, id: StreamId) {
        self.body.extend_from_slice(&id.ms.to_be_bytes());
        self.body.extend_from_slice(&id.seq.to_be_bytes());
    }

    fn text(&mut self, text: &[u8]) {
        self.number(text.len() as u64);
        self.body.extend_from_slice(text);
    }
}
