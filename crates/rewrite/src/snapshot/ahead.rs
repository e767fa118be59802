//! What has to be known of a stream before its first message: the messages that are pending, of which some may be
//! deleted. A file tells it behind the messages, so the caller looks ahead.

use rdb::{Event, KeyHead, StreamId, StreamInfo};

use super::losses::Loss;
use super::skeleton::Skeleton;
use super::{RestoreAs, SnapshotError, SnapshotRewriter};

/// The largest part of a stream beside its messages that goes by `RESTORE`; 41 bytes a pending message. Commands lose
/// consumers' times, so this is far above what a value of another kind may have.
const SKELETON_BYTES_MAX: u64 = 64 << 20;

/// What was found ahead.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    skeleton: Option<Skeleton>,
    /// Messages that groups or producers refer to.
    ids: Vec<StreamId>,
    info: Option<StreamInfo>,
    read_max: u64,
    returned: u64,
    producers: u64,
    whole: bool,
}

/// How the part of a stream beside its messages is written.
#[derive(Debug)]
pub(super) enum Beside {
    /// First, by `RESTORE`.
    Skeleton(Skeleton, RestoreAs),
    /// Last, by commands, for which these messages have to be there.
    Commands {
        ids: Vec<StreamId>,
        /// The most messages that a group has read.
        read_max: u64,
    },
}

impl SnapshotRewriter {
    /// Tells an event of the stream whose `ValueStart` comes next, in order from its `ValueStart` to its `ValueEnd`;
    /// messages may be left out. Whatever a stream's elements are given for has to be looked at ahead like this; the caller
    /// then begins anew with the value's first event. It is no use for other values or bytes.
    pub fn ahead(&mut self, event: &Event) -> Result<(), SnapshotError> {
        let Some(current) = &self.current else {
            return Err(Self::out_of_order());
        };
        if matches!(event, Event::ValueStart { .. }) {
            let layout = current.restore.map(|restore| self.layout(restore));
            let room = self.options.target.bulk_bytes_max.saturating_sub(11);
            let bytes_max = room.min(SKELETON_BYTES_MAX);
            self.ahead = Ahead {
                skeleton: layout.map(|layout| Skeleton::new(layout.type_id, bytes_max)),
                ..Ahead::default()
            };
        }
        self.ahead.take(event);
        Ok(())
    }

    /// A stream without counters is given some where the target has them, just as its own loader would.
    fn layout(&self, restore: RestoreAs) -> RestoreAs {
        if restore.type_id > 15 {
            return restore;
        }
        let version = self.options.target.payload_version(19, false);
        version.map_or(restore, |version| RestoreAs {
            type_id: 19,
            version,
        })
    }

    /// What was found ahead of a stream that begins now, and how it is going to be written.
    pub(super) fn beside(
        &mut self,
        head: &KeyHead,
        restore: Option<RestoreAs>,
    ) -> Result<(StreamInfo, Beside), SnapshotError> {
        let ahead = std::mem::take(&mut self.ahead);
        let (Some(info), true) = (ahead.info, ahead.whole) else {
            return Err(Self::out_of_order());
        };
        let target = &self.options.target;
        let (returns, records) = match &ahead.skeleton {
            Some(skeleton) => (skeleton.type_id() >= 27, skeleton.type_id() >= 26),
            None => (target.stream_returns, target.stream_idempotence),
        };
        if ahead.returned > 0 && !returns {
            self.lose(head, Loss::StreamReturned)?;
        }
        if ahead.producers > 0 && !records {
            self.lose(head, Loss::StreamIdempotence)?;
        }
        if info.counters.is_some() && !self.options.target.stream_counters {
            self.lose(head, Loss::StreamCounters)?;
        }
        let beside = match ahead.skeleton.zip(restore) {
            Some((skeleton, restore)) => Beside::Skeleton(skeleton, self.layout(restore)),
            None => Beside::Commands {
                ids: ahead.ids,
                read_max: ahead.read_max,
            },
        };
        Ok((info, beside))
    }
}

impl Ahead {
    fn take(&mut self, event: &Event) {
        if let Some(skeleton) = &mut self.skeleton
            && !skeleton.event(event)
        {
            self.skeleton = None;
        }
        match event {
            Event::StreamInfo(info) => self.info = Some(StreamInfo::clone(info)),
            Event::StreamPending { id, .. } | Event::StreamProduced { id, .. } => {
                self.ids.push(*id);
            }
            Event::StreamGroup { entries_read, .. } => {
                self.read_max = self.read_max.max(entries_read.unwrap_or_default());
            }
            Event::StreamReturned { .. } => self.returned += 1,
            Event::StreamProducer { .. } => self.producers += 1,
            Event::ValueEnd => {
                if self.skeleton.is_some() {
                    self.ids = Vec::new();
                }
                self.ids.sort_unstable();
                self.ids.dedup();
                self.whole = true;
            }
            _ => {}
        }
    }
}
