//! A session that begins with a snapshot, or goes on with one that is in the spool.

use replica::{ReplId, ReplOffset};
use tokio::time::Instant;

use super::losses::Losses;
use super::{Next, Supervisor, take, taken_by};
use crate::checkpoint::{Checkpoint, Names, Phase, Position, Progress};
use crate::config::ExistingKeys;
use crate::error::{Class, Side, SyncError};
use crate::pipeline::{KeySet, SnapshotApplier, has_old_libraries, remove_unfinished, sweep};
use crate::source::{Conn, spool_error};
use crate::spool::{Feed, Log};
use crate::status;
use crate::target::{self, Found, Target, Visit};

/// A new snapshot with fewer than this share of the target's keys is taken for a mishap.
const SHRUNK_PERCENT: u64 = 50;

impl Supervisor<'_> {
    /// A session that begins with a snapshot.
    pub(super) async fn full(
        &self,
        mut visit: Visit<'_>,
        conn: Conn,
        replid: ReplId,
        offset: ReplOffset,
    ) -> Result<Next, SyncError> {
        visit.refuse_source(replid)?;
        let manner = self.manner(&mut visit).await?;
        let progress = Progress {
            replid,
            offset,
            rdb_bytes: 0,
        };
        let seen = taken_by(&visit.found);
        self.note_taken(seen);
        let target = take(visit, |found| {
            let epoch = match found {
                Found::Nothing => 0,
                Found::Checkpoint(found) => found.epoch,
            };
            if taken_by(found) != seen {
                // The manner was chosen by what was there before: keys may have come that nothing would remove.
                return Err(self.outrun());
            }
            Ok(Checkpoint {
                epoch,
                owner: self.owner,
                phase: Phase::Snapshot(progress),
                owned: manner.owned,
                leased: true,
                repairs: Names::default(),
                unseen: None,
            })
        })
        .await?;
        if manner.reason == "snapshot_unfinished" && !manner.owned {
            self.remove_unfinished().await?;
        }
        self.status.full_resyncs.add(manner.reason, 1);
        tracing::info!(%replid, offset = offset.0, reason = manner.reason, "full sync");
        let dir = &self.config.spool.dir;
        let snapshot = Feed::new(
            Log::create(dir, "snapshot", replid, 0, self.keep_whole()).map_err(spool_error)?,
        );
        let stream = Feed::new(
            Log::create(dir, "stream", replid, offset.0, self.keep()).map_err(spool_error)?,
        );
        self.status.snapshot_read.set(0);
        self.status.source_offset.set(offset.0);
        let receiver = self.receiver(conn, Some(&snapshot), &stream);
        let applier = self.apply_all(target, &snapshot, &stream, manner, progress);
        Box::pin(self.session(receiver.run(), applier, &stream)).await
    }

    /// Goes on with a snapshot that an earlier run has received and not applied to its end.
    pub(super) async fn snapshot_again(
        &self,
        visit: Visit<'_>,
        conn: Conn,
        snapshot: Log,
        stream: Log,
    ) -> Result<Next, SyncError> {
        self.refuse_half_skipped(&visit.found)?;
        let target = self.take_as_found(visit).await?;
        let Phase::Snapshot(progress) = target.checkpoint.phase else {
            return Ok(Next::Again);
        };
        if !target.checkpoint.owned {
            self.remove_unfinished().await?;
        }
        tracing::info!(
            applied_bytes = progress.rdb_bytes,
            of_bytes = snapshot.end(),
            "going on with the snapshot in the spool"
        );
        let manner = Manner {
            owned: target.checkpoint.owned,
            sweep: target.checkpoint.owned,
            existing: ExistingKeys::Replace,
            reason: "",
        };
        self.status.snapshot_bytes.set(snapshot.end());
        self.status.snapshot_read.set(snapshot.end());
        self.status.source_offset.set(stream.end());
        self.status.set_phase(status::Phase::Snapshot);
        let (snapshot, stream) = (Feed::new(snapshot), Feed::new(stream));
        snapshot.close();
        let receiver = self.receiver(conn, None, &stream);
        let applier = self.apply_all(target, &snapshot, &stream, manner, progress);
        Box::pin(self.session(receiver.run(), applier, &stream)).await
    }

    /// Applies the snapshot, then the stream.
    async fn apply_all(
        &self,
        target: Target,
        snapshot: &Feed,
        stream: &Feed,
        manner: Manner,
        progress: Progress,
    ) -> Result<(), SyncError> {
        // What an earlier run wrote of it, it wrote nobody knows when.
        let from = (progress.rdb_bytes == 0).then(Instant::now);
        let (target, position) = self
            .apply_snapshot(target, snapshot, manner, progress)
            .await?;
        if !self.config.source.sync_aof {
            tracing::info!("the snapshot is applied, and sync_aof is false: done");
        }
        self.show_position(stream, position);
        if !self.config.source.sync_aof {
            stream.close();
        }
        Box::pin(self.apply_stream(target, stream, position, Some(snapshot), from)).await
    }

    /// How a snapshot is to be written, given what the target holds.
    async fn manner(&self, visit: &mut Visit<'_>) -> Result<Manner, SyncError> {
        let target = &self.config.target;
        let refuse = |what: String| SyncError::stop(Side::Target, &target.endpoint.address, what);
        if let Found::Checkpoint(found) = &visit.found {
            let reason = match found.phase {
                _ if found.repairs.are_unnamed() => "diverged",
                Phase::Snapshot(_) => "snapshot_unfinished",
                Phase::Stream(_) => "history_lost",
                Phase::Diverged(_) => "diverged",
            };
            if reason == "history_lost" && !self.config.resync_on_history_lost {
                let what = "it no longer has the history from our position on, and checkpoint.on_history_lost is \"fail\"";
                return Err(SyncError::stop(
                    Side::Source,
                    &self.config.source.endpoint.address,
                    what,
                ));
            }
            self.refuse_half_skipped(&visit.found)?;
            return Ok(Manner {
                owned: found.owned,
                sweep: found.owned,
                existing: ExistingKeys::Replace,
                reason,
            });
        }
        if target.empty_before {
            tracing::warn!("advanced.empty_db_before_sync: FLUSHALL at the target");
            visit.flush().await?;
        }
        let foreign = visit.foreign_keys().await?;
        if target.existing == ExistingKeys::Fail
            && !foreign.is_empty()
            && self.config.source.sync_rdb
        {
            let list: Vec<String> = foreign
                .iter()
                .map(|(db, keys)| format!("db{db}: {keys}"))
                .collect();
            return Err(refuse(format!(
                "the target holds keys already ({}); empty it, or set rdb_restore_command_behavior to \"rewrite\" (replace them) or \"skip\" (leave them); nothing was written",
                list.join(", ")
            )));
        }
        let owned = foreign.is_empty() && self.config.source.sync_rdb;
        let existing = if owned {
            ExistingKeys::Replace
        } else {
            target.existing
        };
        Ok(Manner {
            owned,
            sweep: false,
            existing,
            reason: "first",
        })
    }

    /// Refuses to go on where keys of the target were to be left as they are, and a snapshot broke off.
    fn refuse_half_skipped(&self, found: &Found) -> Result<(), SyncError> {
        let target = &self.config.target;
        let Found::Checkpoint(found) = found else {
            return Ok(());
        };
        if found.owned || target.existing != ExistingKeys::Skip {
            return Ok(());
        }
        let what = format!(
            "an earlier snapshot into a target that held keys was left as {}; with existing keys \"skip\" nobody can tell whose a key is: set rdb_restore_command_behavior to \"rewrite\", or empty the target and delete its checkpoint",
            target::phase_word(&found.phase)
        );
        Err(SyncError::stop(
            Side::Target,
            &target.endpoint.address,
            what,
        ))
    }

    /// Applies the snapshot from `progress` on, over as many connections as it takes.
    async fn apply_snapshot(
        &self,
        mut target: Target,
        feed: &Feed,
        manner: Manner,
        mut progress: Progress,
    ) -> Result<(Target, Position), SyncError> {
        let mut existing = manner.existing;
        let mut losses = Losses::default();
        // Keys that are gone at the source can wait for the end; a library's functions may be in the way of others.
        let flush_functions = manner.sweep && has_old_libraries(self.config).await;
        let applied = loop {
            self.leases.clear();
            self.repairs.clear();
            if progress.rdb_bytes > 0 {
                // What was written before this run has leases that it does not know.
                self.leases.suspect(0);
            }
            let applier = SnapshotApplier::new(
                self.common(),
                feed,
                &target,
                progress,
                existing,
                manner.sweep,
                flush_functions,
            );
            match applier.run(&mut target).await {
                Ok(applied) => break applied,
                Err(error) if error.class == Class::Reconnect => {
                    losses
                        .pause(self.status.snapshot_applied.get(), &error)
                        .await;
                    target = self.retake(&error, &target.checkpoint).await?;
                    // What is there now may be our own half-done work.
                    if manner.owned || existing != ExistingKeys::Skip {
                        existing = ExistingKeys::Replace;
                    }
                    progress.rdb_bytes = match target.checkpoint.phase {
                        Phase::Snapshot(found)
                            if (found.replid, found.offset)
                                == (progress.replid, progress.offset) =>
                        {
                            found.rdb_bytes
                        }
                        // It has fallen back to a time before this snapshot.
                        _ => 0,
                    };
                    target.checkpoint.phase = Phase::Snapshot(progress);
                    target.checkpoint.unseen = None;
                    target.checkpoint.repairs = Names::default();
                    tracing::info!(
                        applied_bytes = progress.rdb_bytes,
                        "going on with the snapshot"
                    );
                }
                Err(error) => return Err(error),
            }
        };
        if let Some(keys) = &applied.keys {
            self.sweep(keys).await?;
        }
        tracing::info!(
            keys = self.status.snapshot_keys_total.get(),
            "snapshot applied"
        );
        let position = Position {
            replid: progress.replid,
            offset: progress.offset,
            db: applied.stream_db,
        };
        target.checkpoint.phase = Phase::Stream(position);
        Ok((target, position))
    }

    /// Beside keys that were there before, values are built under names of ours: a run that was killed leaves them.
    async fn remove_unfinished(&self) -> Result<(), SyncError> {
        let removed = remove_unfinished(self.config).await?;
        if removed > 0 {
            tracing::info!(removed, "removed values that an earlier run had half built");
        }
        Ok(())
    }

    async fn sweep(&self, keys: &KeySet) -> Result<(), SyncError> {
        let removed = sweep(self.config, keys, SHRUNK_PERCENT, self.owner).await?;
        if removed > 0 {
            tracing::info!(removed, "removed keys that are gone at the source");
        }
        Ok(())
    }
}

/// How a snapshot is written.
#[derive(Debug, Clone, Copy)]
struct Manner {
    owned: bool,
    sweep: bool,
    existing: ExistingKeys,
    reason: &'static str,
}
