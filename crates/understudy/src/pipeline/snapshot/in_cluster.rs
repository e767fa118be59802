//! What the cluster's way of a snapshot needs of the applier: see [`crate::pipeline::cluster`].

use resp::ReplyKind;
use rewrite::Sent;

use super::{Applied, SnapshotApplier};
use crate::checkpoint::{Checkpoint, Phase};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::error::SyncError;
use crate::status::Status;

/// What was collected, its commands with how many keys each is for, and the byte of the RDB that it reaches.
pub(in crate::pipeline) type Collected = (Vec<u8>, Vec<(Sent, u32)>, u64);

impl<'a> SnapshotApplier<'a> {
    pub(in crate::pipeline) fn config(&self) -> &'a Config {
        self.config
    }

    pub(in crate::pipeline) fn status(&self) -> &'a Status {
        self.status
    }

    /// Decodes and rewrites as much as there is room for; true when the feed has no more.
    pub(in crate::pipeline) async fn produce_some(&mut self) -> Result<bool, SyncError> {
        self.rewriter.tick(unix_ms());
        let starved = self.produce()?;
        if let Some(db) = self.unchecked.take() {
            self.databases.check(&self.config.target, db).await?;
            return Ok(false);
        }
        self.has_more_to_look_at = false;
        Ok(starved)
    }

    /// What was collected, its commands, and the byte of the RDB that it reaches, if it is to go now.
    pub(in crate::pipeline) fn take_open(&mut self, starved: bool) -> Option<Collected> {
        let is_due = self.lane.is_full() || starved || self.done;
        if self.rewriter.is_in_command() {
            self.lane.stretch();
        }
        if !is_due || self.lane.is_empty() || self.rewriter.is_in_command() {
            return None;
        }
        let reached = self
            .in_key
            .unwrap_or_else(|| self.base + self.decoder.offset());
        let (bytes, sent) = self.lane.take_open();
        Some((bytes, sent, reached))
    }

    /// The link's checkpoint when all before this byte of the snapshot is written.
    pub(in crate::pipeline) fn checkpoint_at(&mut self, rdb_bytes: u64) -> &Checkpoint {
        self.progress.rdb_bytes = rdb_bytes;
        self.checkpoint.phase = Phase::Snapshot(self.progress);
        &self.checkpoint
    }

    /// Where this run began.
    pub(in crate::pipeline) fn began_at(&self) -> u64 {
        self.progress.rdb_bytes
    }

    /// Whether the end of the snapshot is reached.
    pub(in crate::pipeline) fn is_done(&self) -> bool {
        self.done
    }

    /// Waits until the feed has more.
    pub(in crate::pipeline) async fn more(&self) {
        self.feed.changed().await;
    }

    /// A reply has come.
    pub(in crate::pipeline) fn answered(
        &mut self,
        sent: &Sent,
        keys: u32,
        kind: &ReplyKind,
    ) -> Result<(), SyncError> {
        self.reply(sent, keys, kind)
    }

    /// What the snapshot said beside its keys; all its replies are in.
    pub(in crate::pipeline) fn into_applied(mut self) -> Applied {
        self.count_left_out();
        self.flush_counts();
        self.applied
    }
}
