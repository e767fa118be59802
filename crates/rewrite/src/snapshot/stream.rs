//! Streams by commands: `XADD` for every message, then `XSETID`.
//!
//! Where the target has `RESTORE`, a [skeleton](super::skeleton) goes first, with all that is beside the messages: nothing
//! is lost but the nodes' boundaries, which nobody sees. Otherwise [groups](super::groups) follow by commands. They need
//! every pending message to be there, also the deleted ones; so these get a message to stand in for them, which is
//! deleted in the end. `XSETID` comes last, since all of this moves the counters.

use std::iter::Peekable;
use std::vec::IntoIter;

use bytes::Bytes;
use rdb::{Event, KeyHead, StreamId, StreamInfo, dump};
use resp::encode;

use super::ahead::Beside;
use super::groups::Groups;
use super::losses::Loss;
use super::skeleton::Skeleton;
use super::write::{self, Expect, Method, Sent};
use super::{Progress, RestoreAs, SnapshotError, SnapshotErrorKind, SnapshotRewriter};
use crate::number::{Decimal, id_text};

/// The words of `XADD key id`.
const ADD_WORDS: u64 = 3;

/// A stream under way.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) name: Bytes,
    info: StreamInfo,
    way: Way,
    begun: bool,
    first: Option<StreamId>,
    top: StreamId,
    live: u64,
    /// Pairs of the message begun that are still to come.
    fields_left: u64,
    pub(super) groups: Groups,
}

#[derive(Debug)]
enum Way {
    Skeleton(Option<(Skeleton, RestoreAs)>),
    Commands {
        /// Messages that have to be there and did not come yet.
        needed: Peekable<IntoIter<StreamId>>,
        /// Those that stand in for deleted ones.
        stand_ins: Vec<StreamId>,
        /// The most messages that a group has read. Reading again makes it more than were ever added, and Redis from 8.6
        /// makes no group that has.
        read_max: u64,
    },
}

impl Stream {
    /// Whether the command of a message is begun, and fields of it are to come.
    pub(super) fn is_in_message(&self) -> bool {
        self.fields_left > 0
    }

    /// Whether groups and producers go by commands.
    pub(super) fn by_commands(&self) -> bool {
        matches!(self.way, Way::Commands { .. })
    }

    /// What a group had read whose source did not say, as the servers' loaders guess it
    /// (`t_stream.c: streamEstimateDistanceFromFirstEverEntry`): a source without counters has no deleted messages to know of.
    pub(super) fn estimate(&self, group_last_id: StreamId) -> Option<u64> {
        estimate(&self.info, self.first, group_last_id)
    }
}

fn estimate(info: &StreamInfo, first: Option<StreamId>, group_last_id: StreamId) -> Option<u64> {
    if info.counters.is_some() {
        return None;
    }
    let Some(first) = first else {
        return Some(0);
    };
    match group_last_id {
        id if id == info.last_id => Some(info.length),
        id if id > info.last_id => None,
        id if id < first => Some(0),
        id if id == first => Some(1),
        _ => None,
    }
}

impl SnapshotRewriter {
    pub(super) fn stream_start(&mut self) -> Result<(), SnapshotError> {
        let mut current = self.take()?;
        if !matches!(current.value, Progress::Expected) {
            return Err(Self::out_of_order());
        }
        if current.restore.is_some() {
            self.count_hints(&current.head);
        }
        let (info, beside) = self.beside(&current.head, current.restore)?;
        let way = match beside {
            Beside::Skeleton(skeleton, restore) => Way::Skeleton(Some((skeleton, restore))),
            Beside::Commands { ids, read_max } => Way::Commands {
                needed: ids.into_iter().peekable(),
                stand_ins: Vec::new(),
                read_max,
            },
        };
        current.value = Progress::Stream(Box::new(Stream {
            name: self.build_name(&current),
            info,
            way,
            begun: false,
            first: None,
            top: StreamId::default(),
            live: 0,
            fields_left: 0,
            groups: Groups::default(),
        }));
        self.current = Some(current);
        Ok(())
    }

    /// The next event of a stream.
    pub(super) fn stream(
        &mut self,
        event: Event,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        let mut current = self.take()?;
        let Progress::Stream(stream) = &mut current.value else {
            return Err(Self::out_of_order());
        };
        let head = &current.head;
        match event {
            Event::StreamEntry { id, fields } => {
                self.message(head, stream, id, fields, out, sent)?
            }
            Event::Pair { field, value, .. } => {
                let Some(left) = stream.fields_left.checked_sub(1) else {
                    return Err(Self::error(head, SnapshotErrorKind::WrongLength));
                };
                stream.fields_left = left;
                encode::bulk(out, &field);
                encode::bulk(out, &value);
                if left == 0 {
                    sent.push(Sent::new(head, Method::Commands, Expect::Bulk));
                }
            }
            _ if stream.fields_left > 0 => {
                return Err(Self::error(head, SnapshotErrorKind::WrongLength));
            }
            Event::StreamInfo(_) => self.messages_end(head, stream, out, sent)?,
            Event::ValueEnd => {
                self.stream_end(head, stream, out, sent);
                let name = stream.name.clone();
                self.finish(head, &name, Method::Commands, out, sent);
                return Ok(());
            }
            other if stream.by_commands() => self.group_event(head, stream, other, out, sent)?,
            // It is in the skeleton.
            _ => {}
        }
        self.current = Some(current);
        Ok(())
    }

    /// The head of a message's `XADD`, which its pairs complete.
    fn message(
        &mut self,
        head: &KeyHead,
        stream: &mut Stream,
        id: StreamId,
        fields: u64,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        if stream.fields_left > 0 {
            return Err(Self::error(head, SnapshotErrorKind::WrongLength));
        }
        let words = fields.saturating_mul(2).saturating_add(ADD_WORDS);
        let max = self.options.target.args_max;
        let (Ok(count), true) = (usize::try_from(words), words <= max) else {
            return Err(Self::error(
                head,
                SnapshotErrorKind::TooManyWords { words, max },
            ));
        };
        if fields == 0 {
            let what = "messages without fields";
            return Err(Self::error(head, SnapshotErrorKind::TargetLacks { what }));
        }
        stream.first = stream.first.or(Some(id));
        self.stream_begin(head, stream, out, sent);
        Self::stand_in(head, stream, |needed| needed < id, out, sent);
        if let Way::Commands { needed, .. } = &mut stream.way {
            needed.next_if_eq(&id);
        }
        add_head(&stream.name, id, count, out);
        stream.fields_left = fields;
        stream.top = stream.top.max(id);
        stream.live += 1;
        Ok(())
    }

    /// Messages that stand in for those that are needed and deleted, as long as they are wanted.
    fn stand_in(
        head: &KeyHead,
        stream: &mut Stream,
        wanted: impl Fn(StreamId) -> bool,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) {
        let Way::Commands {
            needed, stand_ins, ..
        } = &mut stream.way
        else {
            return;
        };
        while let Some(id) = needed.next_if(|id| wanted(*id)) {
            add_head(&stream.name, id, 5, out);
            encode::bulk(out, b"-");
            encode::bulk(out, b"-");
            sent.push(Sent::new(head, Method::Commands, Expect::Bulk));
            stand_ins.push(id);
        }
    }

    /// Makes room for the stream, once.
    fn stream_begin(
        &mut self,
        head: &KeyHead,
        stream: &mut Stream,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) {
        if std::mem::replace(&mut stream.begun, true) {
            return;
        }
        self.select(head.db, out, sent);
        let Way::Skeleton(skeleton) = &mut stream.way else {
            if self.options.deletes {
                write::delete(&stream.name, self.options.target.unlink, out);
                sent.push(Sent::new(head, Method::Commands, Expect::Int));
            }
            return;
        };
        let Some((skeleton, restore)) = skeleton.take() else {
            return;
        };
        let body = skeleton.finish(|last_id| estimate(&stream.info, stream.first, last_id));
        let meta = head.meta.as_deref();
        encode::command_header(out, 5);
        encode::bulk(out, b"RESTORE");
        encode::bulk(out, &stream.name);
        encode::bulk(out, b"0");
        encode::bulk_header(out, dump::payload_len(meta, &body));
        dump::payload(out, meta, restore.type_id, &body, restore.version);
        out.extend_from_slice(b"\r\n");
        encode::bulk(out, b"REPLACE");
        sent.push(Sent::new(head, Method::Commands, Expect::Ok));
    }

    /// Behind the last message.
    fn messages_end(
        &mut self,
        head: &KeyHead,
        stream: &mut Stream,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) -> Result<(), SnapshotError> {
        self.stream_begin(head, stream, out, sent);
        let last_id = stream.info.last_id;
        Self::stand_in(head, stream, |needed| needed <= last_id, out, sent);
        if let Way::Commands {
            needed, stand_ins, ..
        } = &mut stream.way
        {
            // No message can be above the last id, so none can stand in for these.
            for _ in needed.by_ref() {
                self.lose(head, Loss::StreamPending)?;
            }
            if stream.live == 0 && stand_ins.is_empty() {
                empty(head, &stream.name, out, sent);
            }
        }
        let added = match &stream.way {
            Way::Commands {
                stand_ins,
                read_max,
                ..
            } => (stream.live + stand_ins.len() as u64).max(*read_max),
            Way::Skeleton(_) => stream.live,
        };
        self.set_last_id(head, stream, added, out, sent);
        Ok(())
    }

    /// `XSETID key last-id [ENTRIESADDED n MAXDELETEDID id]`, with at least so many messages added.
    fn set_last_id(
        &self,
        head: &KeyHead,
        stream: &Stream,
        added_min: u64,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) {
        let info = &stream.info;
        let counted = self.options.target.stream_counters;
        encode::command_header(out, if counted { 7 } else { 3 });
        encode::bulk(out, b"XSETID");
        encode::bulk(out, &stream.name);
        encode::bulk(out, id_text(info.last_id.max(stream.top)).text());
        if counted {
            let (added, max_deleted) = info.counters.map_or_else(
                || (info.length, StreamId::default()),
                |counters| (counters.entries_added, counters.max_deleted_id),
            );
            let added = added.max(added_min);
            encode::bulk(out, b"ENTRIESADDED");
            encode::bulk(out, Decimal::unsigned(added).text());
            encode::bulk(out, b"MAXDELETEDID");
            encode::bulk(out, id_text(max_deleted).text());
        }
        sent.push(Sent::new(head, Method::Commands, Expect::Ok));
    }

    /// Deletes what stood in for others and sets the counters right again.
    fn stream_end(
        &self,
        head: &KeyHead,
        stream: &mut Stream,
        out: &mut Vec<u8>,
        sent: &mut Vec<Sent>,
    ) {
        self.flush_batch(head, stream, out, sent);
        let Way::Commands {
            stand_ins,
            read_max,
            ..
        } = &mut stream.way
        else {
            return;
        };
        let stand_ins = std::mem::take(stand_ins);
        let added = stream.info.counters.map(|counters| counters.entries_added);
        if stand_ins.is_empty() && added.is_none_or(|added| *read_max <= added) {
            return;
        }
        if !stand_ins.is_empty() && only_trimmed(&stream.info, &stand_ins, stream.first) {
            // Nothing was ever deleted but by trimming, which leaves no trace. XDEL would, and XSETID cannot erase it.
            let live = Decimal::unsigned(stream.live);
            encode::command(out, &[b"XTRIM", &stream.name, b"MAXLEN", live.text()]);
            sent.push(Sent::new(head, Method::Commands, Expect::Int));
            self.set_last_id(head, stream, stream.live, out, sent);
            return;
        }
        for ids in stand_ins.chunks(self.ids_in_a_command()) {
            encode::command_header(out, 2 + ids.len());
            encode::bulk(out, b"XDEL");
            encode::bulk(out, &stream.name);
            for id in ids {
                encode::bulk(out, id_text(*id).text());
            }
            sent.push(Sent::new(head, Method::Commands, Expect::Int));
        }
        self.set_last_id(head, stream, stream.live, out, sent);
    }
}

/// Whether all messages that were stood in for had been trimmed away, and none deleted otherwise.
fn only_trimmed(info: &StreamInfo, stand_ins: &[StreamId], first: Option<StreamId>) -> bool {
    let deleted = info.counters.map(|counters| counters.max_deleted_id);
    let before_all = match (first, stand_ins.last()) {
        (Some(first), Some(last)) => *last < first,
        _ => true,
    };
    deleted == Some(StreamId::default()) && before_all
}

fn add_head(name: &[u8], id: StreamId, words: usize, out: &mut Vec<u8>) {
    encode::command_header(out, words);
    encode::bulk(out, b"XADD");
    encode::bulk(out, name);
    encode::bulk(out, id_text(id).text());
}

/// An empty stream: a group makes one. `XADD` with `MAXLEN 0` would, too, but leave a deleted message behind.
fn empty(head: &KeyHead, name: &[u8], out: &mut Vec<u8>, sent: &mut Vec<Sent>) {
    let group = crate::OWN_KEY_MARK;
    encode::command(out, &[b"XGROUP", b"CREATE", name, group, b"0", b"MKSTREAM"]);
    sent.push(Sent::new(head, Method::Commands, Expect::Ok));
    encode::command(out, &[b"XGROUP", b"DESTROY", name, group]);
    sent.push(Sent::new(head, Method::Commands, Expect::Int));
}
