//! What a target cannot keep, and what becomes of it by policy.

use rdb::KeyHead;

use super::{SnapshotCounts, SnapshotError, SnapshotErrorKind, SnapshotRewriter};
use crate::stream::Losses;

/// Something that the target cannot keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    FieldTtl,
    Metadata,
    Function,
    StreamReturned,
    StreamIdempotence,
    StreamPending,
    StreamCounters,
    StreamIdempotenceCounts,
    ConsumerTimes,
    UsageHint,
}

impl Loss {
    /// What the target would have to have; `None` for what is no user's data: numbers that the server keeps of its own
    /// work, and that begin anew at the target. They are counted and never an error.
    pub(super) const fn what(self) -> Option<&'static str> {
        match self {
            Self::FieldTtl => Some("TTLs of hash fields (Redis 7.4, Valkey 9.0)"),
            Self::Metadata => Some("metadata of keys (Redis 8.6)"),
            Self::Function => Some("functions (Redis 7.0)"),
            Self::StreamReturned => Some("messages given back to a group (Redis 8.8)"),
            Self::StreamIdempotence => Some("idempotent production to streams (Redis 8.6)"),
            Self::StreamPending => Some("pending messages above a stream's last id (RESTORE)"),
            Self::StreamCounters
            | Self::StreamIdempotenceCounts
            | Self::ConsumerTimes
            | Self::UsageHint => None,
        }
    }

    fn counter(self, counts: &mut SnapshotCounts) -> &mut u64 {
        match self {
            Self::FieldTtl => &mut counts.field_ttls_lost,
            Self::Metadata => &mut counts.metadata_lost,
            Self::Function => &mut counts.functions_dropped,
            Self::StreamReturned => &mut counts.stream_returned_lost,
            Self::StreamIdempotence => &mut counts.stream_idempotence_lost,
            Self::StreamPending => &mut counts.stream_pending_lost,
            Self::StreamCounters => &mut counts.stream_counters_lost,
            Self::StreamIdempotenceCounts => &mut counts.stream_idempotence_counts_lost,
            Self::ConsumerTimes => &mut counts.consumer_times_lost,
            Self::UsageHint => &mut counts.usage_hints_lost,
        }
    }
}

impl SnapshotRewriter {
    /// Something of a key is lost: an error, or counted.
    pub(super) fn lose(&mut self, head: &KeyHead, loss: Loss) -> Result<(), SnapshotError> {
        self.may_lose(loss)
            .map_err(|kind| Self::error(head, kind))?;
        self.count_loss(loss);
        Ok(())
    }

    /// Whether the policy allows a loss.
    pub(super) fn may_lose(&self, loss: Loss) -> Result<(), SnapshotErrorKind> {
        match loss.what() {
            Some(what) if self.options.losses == Losses::Refuse => {
                Err(SnapshotErrorKind::TargetLacks { what })
            }
            _ => Ok(()),
        }
    }

    pub(super) fn count_loss(&mut self, loss: Loss) {
        *loss.counter(&mut self.counts) += 1;
    }
}
