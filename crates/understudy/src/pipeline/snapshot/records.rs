//! Keys with short strings without an expiry: most keys of most snapshots. They go from the bytes of the RDB into the run
//! of SETs that waits, without an event.

use rewrite::PlainSet;

use super::SnapshotApplier;
use crate::error::SyncError;

impl SnapshotApplier<'_> {
    /// Takes as many of them as follow one another and have room.
    pub(super) fn records(&mut self) -> Result<(), SyncError> {
        if !self.config.source.sync_rdb {
            return Ok(());
        }
        while self.lane.has_room() && !self.lane.is_full() {
            let Some(record) = self.decoder.record() else {
                break;
            };
            let is_new = record.at >= self.progress.rdb_bytes;
            let pair = match record.expire_at_ms {
                None if is_new => self.rewriter.plain_set(&record, &mut self.pair),
                // Written and confirmed by an earlier connection, or an earlier run.
                None => PlainSet::LeftOut,
                Some(_) => PlainSet::Other,
            };
            if pair != PlainSet::Other
                && let Some(keys) = &mut self.applied.keys
            {
                keys.insert(record.db.0, record.key);
            }
            match pair {
                PlainSet::LeftOut => {}
                PlainSet::Appended => {
                    self.lane.add_pair(&self.pair, record.db, record.key);
                    self.pair.clear();
                }
                PlainSet::Other => {
                    let (head, value) = (record.head(), record.value.to_vec());
                    self.key(&head)?;
                    // What is passed over has been read.
                    if self.in_key.is_some() {
                        self.rewrite(rdb::Event::String(value.into()))?;
                    }
                }
            }
        }
        Ok(())
    }
}
