//! Groups of a stream by commands: `XGROUP CREATE`, then `XCLAIM ... FORCE` of every pending message for its consumer.
//!
//! Consumers come into being by what they claim; one without pending messages by `XGROUP CREATECONSUMER`, or by an
//! `XREADGROUP` of its own history, which is empty and moves nothing. When a consumer was seen cannot be told.

use bytes::Bytes;
use rdb::{Event, KeyHead, StreamId};
use resp::encode;

use super::losses::Loss;
use super::skeleton::RETURNED;
use super::stream::Stream;
use super::write::{Expect, Method, Sent};
use super::{SnapshotError, SnapshotRewriter};
use crate::number::{Decimal, id_text};

/// The words of `XCLAIM` beside ids; no other command here has more.
const CLAIM_WORDS: usize = 11;

/// The group under way.
#[derive(Debug, Default)]
pub(super) struct Groups {
    name: Bytes,
    /// Its pending messages, ids ascending.
    pending: Vec<Pending>,
    consumer: Bytes,
    producer: Bytes,
    batch: Batch,
}

#[derive(Debug, Clone, Copy)]
struct Pending {
    id: StreamId,
    delivered_ms: i64,
    deliveries: u64,
}

/// Pending messages that one command takes.
#[derive(Debug, Default)]
struct Batch {
    ids: Vec<StreamId>,
    delivered_ms: i64,
    deliveries: u64,
    returned: bool,
}

impl Groups {
    fn find(&self, id: StreamId) -> Option<Pending> {
        let place = self.pending.binary_search_by_key(&id, |pending| pending.id);
        self.pending.get(place.ok()?).copied()
    }
}

impl SnapshotRewriter {
    /// How many ids a command takes.
    pub(super) fn ids_in_a_command(&self) -> usize {
        let args_max = usize::try_from(self.options.target.args_max).unwrap_or(usize::MAX);
        let words_max = self.options.chunk_items.min(args_max);
        words_max.saturating_sub(CLAIM_WORDS).max(1)
    }

    /// What is behind the messages of a stream.
    pub(super) fn group_event(
        &mut self,
        head: &KeyHead,
        stream: &mut Stream,
        event: Event,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        match event {
            Event::StreamGroup {
                name,
                last_id,
                entries_read,
                ..
            } => {
                self.flush_batch(head, stream, out, sent);
                self.group(stream, &name, last_id, entries_read, out);
                sent.push(Sent::new(head, Method::Commands, Expect::Ok));
                stream.groups.name = name;
                stream.groups.pending.clear();
            }
            Event::StreamPending {
                id,
                delivered_ms,
                deliveries,
            } => {
                let pending = Pending {
                    id,
                    delivered_ms,
                    deliveries,
                };
                let known = &mut stream.groups.pending;
                // They ascend in every file that a server wrote.
                let place = known.partition_point(|other| other.id < id);
                known.insert(place, pending);
            }
            Event::StreamConsumer { name, pending, .. } => {
                self.flush_batch(head, stream, out, sent);
                self.lose(head, Loss::ConsumerTimes)?;
                stream.groups.consumer = name;
                if pending == 0 {
                    self.consumer(head, stream, out, sent);
                }
            }
            Event::StreamOwned { id } => self.claim(head, stream, id, false, out, sent),
            Event::StreamReturned { id } => self.claim(head, stream, id, true, out, sent),
            other => {
                self.flush_batch(head, stream, out, sent);
                self.idempotence(head, stream, other, out, sent)?;
            }
        }
        Ok(())
    }

    fn group(
        &self,
        stream: &Stream,
        name: &[u8],
        last_id: StreamId,
        entries_read: Option<u64>,
        out: &mut Vec<u8>,
    ) {
        let counted = self.options.target.stream_counters;
        encode::command_header(out, if counted { 7 } else { 5 });
        encode::bulk(out, b"XGROUP");
        encode::bulk(out, b"CREATE");
        encode::bulk(out, &stream.name);
        encode::bulk(out, name);
        encode::bulk(out, id_text(last_id).text());
        if counted {
            let read = entries_read.or_else(|| stream.estimate(last_id));
            encode::bulk(out, b"ENTRIESREAD");
            match read {
                Some(read) => encode::bulk(out, Decimal::unsigned(read).text()),
                None => encode::bulk(out, b"-1"),
            }
        }
    }

    /// A consumer with nothing pending.
    fn consumer(&self, head: &KeyHead, stream: &Stream, out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
        let (key, group, name) = (
            &*stream.name,
            &*stream.groups.name,
            &*stream.groups.consumer,
        );
        if self.options.target.stream_consumers {
            encode::command(out, &[b"XGROUP", b"CREATECONSUMER", key, group, name]);
            sent.push(Sent::new(head, Method::Commands, Expect::Int));
        } else {
            let words: [&[u8]; 7] = [b"XREADGROUP", b"GROUP", group, name, b"STREAMS", key, b"0"];
            encode::command(out, &words);
            sent.push(Sent::new(head, Method::Commands, Expect::Array));
        }
    }

    /// A pending message of the consumer, or one that nobody owns.
    fn claim(
        &self,
        head: &KeyHead,
        stream: &mut Stream,
        id: StreamId,
        returned: bool,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) {
        let found = stream.groups.find(id).unwrap_or(Pending {
            id,
            delivered_ms: 0,
            deliveries: 0,
        });
        let batch = &stream.groups.batch;
        let same = batch.returned == returned
            && batch.deliveries == found.deliveries
            && (returned || batch.delivered_ms == found.delivered_ms);
        if !same || batch.ids.len() >= self.ids_in_a_command() {
            self.flush_batch(head, stream, out, sent);
        }
        let batch = &mut stream.groups.batch;
        batch.delivered_ms = found.delivered_ms;
        batch.deliveries = found.deliveries;
        batch.returned = returned;
        batch.ids.push(id);
    }

    /// `XCLAIM key group consumer 0 id... TIME ms RETRYCOUNT n FORCE JUSTID`, or
    /// `XNACK key group SILENT IDS n id... RETRYCOUNT n FORCE`.
    pub(super) fn flush_batch(
        &self,
        head: &KeyHead,
        stream: &mut Stream,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) {
        let Groups {
            name,
            consumer,
            batch,
            ..
        } = &mut stream.groups;
        if batch.ids.is_empty() {
            return;
        }
        let nobody = batch.returned && self.options.target.stream_returns;
        let beside = if nobody { 9 } else { CLAIM_WORDS };
        encode::command_header(out, beside + batch.ids.len());
        encode::bulk(out, if nobody { b"XNACK" } else { b"XCLAIM" });
        encode::bulk(out, &stream.name);
        encode::bulk(out, name);
        if nobody {
            encode::bulk(out, b"SILENT");
            encode::bulk(out, b"IDS");
            encode::bulk(out, Decimal::unsigned(batch.ids.len() as u64).text());
        } else {
            let owner = if batch.returned { RETURNED } else { consumer };
            encode::bulk(out, owner);
            encode::bulk(out, b"0");
        }
        for id in &batch.ids {
            encode::bulk(out, id_text(*id).text());
        }
        if !nobody {
            encode::bulk(out, b"TIME");
            encode::bulk(out, Decimal::new(batch.delivered_ms).text());
        }
        encode::bulk(out, b"RETRYCOUNT");
        encode::bulk(out, Decimal::unsigned(batch.deliveries).text());
        encode::bulk(out, b"FORCE");
        if !nobody {
            encode::bulk(out, b"JUSTID");
        }
        let expect = if nobody { Expect::Int } else { Expect::Array };
        sent.push(Sent::new(head, Method::Commands, expect));
        batch.ids.clear();
    }

    /// What producers are remembered by.
    fn idempotence(
        &mut self,
        head: &KeyHead,
        stream: &mut Stream,
        event: Event,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        let records = self.options.target.stream_idempotence;
        let name = &*stream.name;
        match event {
            Event::StreamIdempotence {
                duration_seconds,
                messages_max,
            } if records => {
                let (duration, max) = (
                    Decimal::unsigned(duration_seconds),
                    Decimal::unsigned(messages_max),
                );
                let words: [&[u8]; 6] = [
                    b"XCFGSET",
                    name,
                    b"IDMP-DURATION",
                    duration.text(),
                    b"IDMP-MAXSIZE",
                    max.text(),
                ];
                encode::command(out, &words);
                sent.push(Sent::new(head, Method::Commands, Expect::Ok));
            }
            Event::StreamProducer { name, .. } => stream.groups.producer = name,
            Event::StreamProduced { iid, id } if records => {
                let producer = &*stream.groups.producer;
                let id = id_text(id);
                encode::command(out, &[b"XIDMPRECORD", name, producer, &iid, id.text()]);
                sent.push(Sent::new(head, Method::Commands, Expect::Ok));
            }
            Event::StreamIdempotenceCounts { added, duplicates }
                if (added, duplicates) != (0, 0) =>
            {
                self.lose(head, Loss::StreamIdempotenceCounts)?;
            }
            _ => {}
        }
        Ok(())
    }
}
