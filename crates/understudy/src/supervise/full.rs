//! A session that begins with a snapshot, or goes on with one that is in the spool.

use replica::{ReplId, ReplOffset};
use tokio::time::Instant;

use super::losses::Losses;
use super::{Next, Supervisor, take, taken_by};
use crate::checkpoint::{Checkpoint, Names, Phase, Position, Progress};
use crate::config::ExistingKeys;
use crate::error::{Class, Side, SyncError};
use crate::handover::admit;
use crate::pipeline::cluster;
use crate::pipeline::{
    Applied, Behind, KeySet, SnapshotApplier, has_old_libraries, remove_unfinished, sweep,
};
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
        if visit.switch().is_some() {
            return Err(self.switched());
        }
        visit.refuse_source(replid)?;
        let manner = self.manner(&mut visit).await?;
        let progress = Progress {
            replid,
            offset,
            rdb_bytes: 0,
        };
        let target = self.take_anew(visit, manner, progress).await?;
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

    /// Takes the target for a snapshot from its beginning.
    pub(super) async fn take_anew(
        &self,
        visit: Visit<'_>,
        manner: Manner,
        progress: Progress,
    ) -> Result<Target, SyncError> {
        let slots = self.claim_slots().await?;
        let seen = taken_by(&visit.found);
        self.note_taken(seen);
        let mut target = take(visit, |found| {
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
                slots: slots.clone(),
            })
        })
        .await?;
        admit(self.config, self.status).await?;
        self.tell_nodes(&mut target);
        self.begin_slots(&target);
        if manner.reason == "snapshot_unfinished" && !manner.owned {
            self.remove_unfinished().await?;
        }
        if manner.is_empty && manner.reason != "first" {
            self.empty(&mut target).await?;
        }
        Ok(target)
    }

    /// Takes the target to go on with a snapshot where its checkpoint says; `None` where it says something else by now.
    pub(super) async fn take_again(
        &self,
        visit: Visit<'_>,
    ) -> Result<Option<(Target, Manner, Progress)>, SyncError> {
        self.refuse_half_skipped(&visit.found)?;
        let target = self.take_as_found(visit).await?;
        let Phase::Snapshot(progress) = target.checkpoint.phase else {
            return Ok(None);
        };
        self.begin_slots(&target);
        if !target.checkpoint.owned {
            self.remove_unfinished().await?;
        }
        // With a script there is an older copy only where that was asked for: else the target was empty before this snapshot.
        let may_be_older = self.config.function.is_none() || self.config.resync_on_history_lost;
        let manner = Manner {
            owned: target.checkpoint.owned,
            sweep: target.checkpoint.owned && may_be_older,
            existing: ExistingKeys::Replace,
            is_empty: target.checkpoint.owned && !may_be_older,
            reason: RESUMED,
        };
        Ok(Some((target, manner, progress)))
    }

    /// Goes on with a snapshot that an earlier run has received and not applied to its end.
    pub(super) async fn snapshot_again(
        &self,
        visit: Visit<'_>,
        conn: Conn,
        snapshot: Log,
        stream: Log,
    ) -> Result<Next, SyncError> {
        let Some((target, manner, progress)) = self.take_again(visit).await? else {
            return Ok(Next::Again);
        };
        tracing::info!(
            applied_bytes = progress.rdb_bytes,
            of_bytes = snapshot.end(),
            "going on with the snapshot in the spool"
        );
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
        let applied = self.apply_snapshot(target, snapshot, manner, progress, Behind::Nothing);
        let (mut target, applied) = Box::pin(applied).await?;
        let position = Position {
            replid: progress.replid,
            offset: progress.offset,
            db: applied.stream_db,
        };
        if !self.config.source.sync_aof {
            tracing::info!("the snapshot is applied, and sync_aof is false: done");
        }
        target.checkpoint.phase = Phase::Stream(position);
        self.show_position(stream, position);
        if !self.config.source.sync_aof {
            stream.close();
        }
        Box::pin(self.apply_stream(target, stream, position, Some(snapshot), from)).await
    }

    /// How a snapshot is to be written, given what the target holds.
    pub(super) async fn manner(&self, visit: &mut Visit<'_>) -> Result<Manner, SyncError> {
        if let Found::Checkpoint(found) = &visit.found {
            let reason = match found.phase {
                _ if found.repairs.are_unnamed() => "diverged",
                Phase::Snapshot(_) => "snapshot_unfinished",
                Phase::Stream(_) => "history_lost",
                Phase::Diverged(_) => "diverged",
                Phase::Scan(_) => "scanned",
            };
            self.refuse_over_made(reason, found.owned)?;
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
                is_empty: self.config.function.is_some() && reason == "snapshot_unfinished",
                reason,
            });
        }
        if let Some(shard) = &self.config.shard {
            // What the target held was looked at for all shards together.
            let owned = shard.group.begun.get().is_some_and(|begun| begun.owned);
            return Ok(Manner {
                owned,
                sweep: owned && shard.sweeps,
                existing: match owned {
                    true => ExistingKeys::Replace,
                    false => self.config.target.existing,
                },
                is_empty: owned,
                reason: "first",
            });
        }
        self.first_manner(visit).await
    }

    /// How a first snapshot is to be written.
    pub(super) async fn first_manner(&self, visit: &mut Visit<'_>) -> Result<Manner, SyncError> {
        let (owned, existing, is_empty) = self.fresh(visit).await?;
        Ok(Manner {
            owned,
            sweep: owned && !is_empty,
            existing,
            is_empty,
            reason: "first",
        })
    }

    /// What is to be done with a target that has no checkpoint of ours: whether every key there is ours from now on, what
    /// becomes of keys that are there, and whether there are none.
    ///
    /// # Errors
    /// Stop where there are keys that were not expected.
    pub(super) async fn fresh(
        &self,
        visit: &mut Visit<'_>,
    ) -> Result<(bool, ExistingKeys, bool), SyncError> {
        let target = &self.config.target;
        if target.empty_before {
            tracing::warn!("advanced.empty_db_before_sync: FLUSHALL at the target");
            visit.flush().await?;
        }
        let foreign = visit.foreign_keys().await?;
        if target.existing == ExistingKeys::Fail && self.config.source.sync_rdb {
            target::refuse_foreign(target, &foreign)?;
        }
        let owned = (foreign.is_empty() || target.mirror) && self.config.source.sync_rdb;
        let existing = if owned {
            ExistingKeys::Replace
        } else {
            target.existing
        };
        Ok((owned, existing, foreign.is_empty()))
    }

    /// Refuses a new snapshot over what a script has made before: what it does may add up, and which keys are its own cannot
    /// be told. Not where a first snapshot broke off, after which all that is there goes; nor where it was asked for.
    fn refuse_over_made(&self, reason: &str, owned: bool) -> Result<(), SyncError> {
        if self.config.function.is_none() {
            return Ok(());
        }
        let why = match reason {
            "snapshot_unfinished" if owned => return Ok(()),
            "snapshot_unfinished" => "an earlier snapshot into a target that held keys broke off",
            "history_lost" if self.config.resync_on_history_lost && owned => return Ok(()),
            "history_lost" => "the source no longer has the history from our position on",
            _ => "a command had failed there",
        };
        let what = format!(
            "a new snapshot is needed ({why}), and filter.function is set: what it has made here cannot be told from what it would make now. Empty the target, delete its checkpoint, and start again; or, where the function only renames, moves and drops keys, set checkpoint.on_history_lost = \"resync\" for the next time"
        );
        let address = &self.config.target.endpoint.address;
        Err(SyncError::stop(Side::Target, address, what))
    }

    /// Removes what an unfinished snapshot has left in a target that was empty before it.
    async fn empty(&self, target: &mut Target) -> Result<(), SyncError> {
        let (none, functions) = (KeySet::default(), target.abilities.functions);
        let removed = match &mut target.cluster {
            None => sweep(self.config, &none, functions, 0, self.owner).await?,
            Some(cluster) => cluster::sweep(self.config, &none, 0, cluster).await?,
        };
        if removed > 0 {
            tracing::info!(removed, "removed what an unfinished snapshot had left");
        }
        Ok(())
    }

    /// Refuses to go on where keys of the target were to be left as they are, and a snapshot broke off.
    pub(super) fn refuse_half_skipped(&self, found: &Found) -> Result<(), SyncError> {
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
    pub(super) async fn apply_snapshot(
        &self,
        mut target: Target,
        feed: &Feed,
        manner: Manner,
        mut progress: Progress,
        behind: Behind,
    ) -> Result<(Target, Applied), SyncError> {
        let mut existing = manner.existing;
        let mut losses = Losses::default();
        // Keys that are gone at the source can wait for the end; a library's functions may be in the way of others.
        let flush_functions =
            manner.sweep && target.abilities.functions && has_old_libraries(self.config).await;
        let mut is_again = progress.rdb_bytes > 0 || manner.is_resumed();
        let mut has_lost = false;
        let applied = loop {
            self.leases.clear();
            self.repairs.clear();
            // To a cluster it goes from its beginning, and what a script makes is not to be done twice.
            if std::mem::replace(&mut is_again, true)
                && self.config.function.is_some()
                && target.cluster.is_some()
            {
                // Keys that are not ours are not for us to remove.
                self.refuse_over_made("snapshot_unfinished", manner.owned)?;
                self.empty(&mut target).await?;
                progress.rdb_bytes = 0;
            }
            if progress.rdb_bytes > 0 {
                // What was written before this run has leases that it does not know.
                self.leases.inherit(&target.abilities);
            }
            let mut applier = SnapshotApplier::new(
                self.common(),
                feed,
                &target,
                progress,
                existing,
                manner.sweep,
                flush_functions,
                manner.is_empty,
            )?
            .followed_by(behind);
            if has_lost {
                applier.in_small_commands();
            }
            match applier.run(&mut target).await {
                Ok(applied) => break applied,
                Err(error) if error.class == Class::Reconnect => {
                    has_lost = true;
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
            self.sweep(keys, &mut target).await?;
        }
        tracing::info!(
            keys = self.status.snapshot_keys_total.get(),
            "snapshot applied"
        );
        Ok((target, applied))
    }

    /// Beside keys that were there before, values are built under names of ours: a run that was killed leaves them.
    pub(super) async fn remove_unfinished(&self) -> Result<(), SyncError> {
        let removed = remove_unfinished(self.config).await?;
        if removed > 0 {
            tracing::info!(removed, "removed values that an earlier run had half built");
        }
        Ok(())
    }

    async fn sweep(&self, keys: &KeySet, target: &mut Target) -> Result<(), SyncError> {
        let functions = target.abilities.functions;
        let removed = match &mut target.cluster {
            None => sweep(self.config, keys, functions, SHRUNK_PERCENT, self.owner).await?,
            Some(cluster) => cluster::sweep(self.config, keys, SHRUNK_PERCENT, cluster).await?,
        };
        if removed > 0 {
            tracing::info!(removed, "removed keys that are gone at the source");
        }
        Ok(())
    }
}

/// Why a snapshot is applied that another run has begun to apply: no new one is taken.
const RESUMED: &str = "";

/// How a snapshot is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) owned: bool,
    pub(super) sweep: bool,
    existing: ExistingKeys,
    /// The target holds none of the keys, or none any more.
    is_empty: bool,
    pub(super) reason: &'static str,
}

impl Manner {
    /// An earlier run may have applied any part of it, whatever its checkpoint says.
    fn is_resumed(self) -> bool {
        self.reason == RESUMED
    }
}
