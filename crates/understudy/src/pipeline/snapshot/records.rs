//! Keys with short strings without an expiry: most keys of most snapshots. They go from the bytes of the RDB into the run
//! of SETs that waits, without an event.

use rewrite::PlainSet;

use super::SnapshotApplier;
use crate::error::SyncError;

/// What stands around a key and a value of some digits' length.
const FRAME_BYTES: usize = 32;

impl SnapshotApplier<'_> {
    /// Takes as many of them as follow one another and have room.
    pub(super) fn records(&mut self) -> Result<(), SyncError> {
        if !self.config.source.sync_rdb || !self.lane.merges() || self.scripted.is_some() {
            return Ok(());
        }
        while self.lane.has_room() && !self.lane.is_full() {
            let Some(record) = self.decoder.record() else {
                break;
            };
            // Written and confirmed by an earlier connection, or an earlier run.
            let is_behind = self.base + record.at < self.progress.rdb_bytes;
            let mut fate = match record.expire_at_ms {
                None if is_behind && !self.is_mapped => PlainSet::LeftOut,
                _ => PlainSet::Other,
            };
            if record.expire_at_ms.is_none() && !is_behind && !self.is_mapped {
                let bytes = record.key.len() + record.value.len() + FRAME_BYTES;
                self.lane.add_pair(record.db, record.key, bytes, |out| {
                    fate = self.rewriter.plain_set(&record, out);
                    fate == PlainSet::Appended
                });
            }
            if fate == PlainSet::Appended
                && let Some(rival) = &self.config.rival
            {
                rival.writes(self.status, record.db.0, record.key);
            }
            if fate == PlainSet::Other {
                let (head, value) = (record.head(), record.value.to_vec());
                self.key(&head)?;
                // What is passed over has been read.
                if self.in_key.is_some() {
                    self.rewrite(rdb::Event::String(value.into()))?;
                }
            } else if let Some(keys) = &mut self.applied.keys {
                keys.insert(record.db.0, record.key);
            }
        }
        Ok(())
    }
}
