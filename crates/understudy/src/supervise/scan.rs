//! A source that offers no PSYNC, or that is to be read by SCAN: the target is taken, and `scan` does the rest, over as many
//! beginnings as it takes.

use std::time::Duration;

use super::{FIRST_CONTACT_ATTEMPTS, Supervisor, contact, take, taken_by};
use crate::backoff::Backoff;
use crate::checkpoint::{Checkpoint, Names, Phase, ScanAt};
use crate::config::{ExistingKeys, ScanWhen};
use crate::error::{Class, Side, SyncError};
use crate::handover::admit;
use crate::scan;
use crate::status;
use crate::target::{self, Found, Target, Visit};

/// What ended after so long did not end for having been begun too soon.
const LASTING: Duration = Duration::from_secs(60);

/// Whether the target holds a position of PSYNC.
pub(super) fn was_exact(found: &Found) -> bool {
    matches!(found, Found::Checkpoint(found) if !matches!(found.phase, Phase::Scan(_)))
}

impl Supervisor<'_> {
    /// Whether a source that refuses PSYNC is read by SCAN now.
    ///
    /// # Errors
    /// The refusal, with what can be done about it.
    pub(super) fn may_scan(&self, found: &Found, refusal: SyncError) -> Result<(), SyncError> {
        let stop = |mend: &str| {
            let what = format!("{}; {mend}", refusal.what);
            SyncError::stop(refusal.side, &refusal.address, what)
        };
        if self.config.shard.is_some() {
            return Err(stop(
                "shards are followed by PSYNC, each by a link of its own, and none is read by SCAN alone: allow it again; to read all of the cluster by SCAN, put its address under [scan_reader] (with cluster = true and ksn = true)",
            ));
        }
        if self.config.scan.when != ScanWhen::PsyncRefused {
            return Err(match self.config.target.db_map {
                Some(_) => stop("reading it by SCAN is not possible with redis_writer.db_map"),
                None if self.config.function.is_some() => {
                    stop("reading it by SCAN is not possible with filter.function")
                }
                None => stop("sync_reader.on_psync_refused = \"scan\" would read it by SCAN"),
            });
        }
        if was_exact(found) {
            // What was exact would be so no more, without anybody having asked for it.
            return Err(stop(
                "it was followed by PSYNC before, and the position is kept: allow it again; to give that up and read the source by SCAN, put its address under [scan_reader] (with ksn = true)",
            ));
        }
        tracing::warn!(
            reason = refusal.what,
            "the source refuses PSYNC: reading it by SCAN and keyspace events instead (docs/scan.md says what that promises)"
        );
        Ok(())
    }

    /// Reads by SCAN until a stop is asked for, or until once was enough.
    ///
    /// # Errors
    /// Stop for what waiting does not mend.
    pub(super) async fn scan(&self) -> Result<(), SyncError> {
        let mut backoff = Backoff::default();
        let mut attempts_max = FIRST_CONTACT_ATTEMPTS;
        loop {
            self.status.set_phase(status::Phase::Handshaking);
            let source = contact(self.stop, attempts_max, || scan::open(self.config)).await?;
            let visit = contact(self.stop, attempts_max, || {
                target::visit(&self.config.target, &self.config.link_name)
            });
            let (Some(source), Some(visit)) = (source, visit.await?) else {
                return Ok(());
            };
            attempts_max = u32::MAX;
            if let Some(record) = visit.switch() {
                self.note_switch(record);
                drop((source, visit));
                match scan::watch_late(self.config, self.status, self.stop).await {
                    scan::Ended::Done => return Ok(()),
                    scan::Ended::Undone => continue,
                }
            }
            self.refuse_after_switch(&visit)?;
            for replid in source.replids() {
                visit.refuse_source(*replid)?;
            }
            let from = tokio::time::Instant::now();
            let ended = async {
                let (target, manner) = self.take_for_scan(visit).await?;
                Box::pin(scan::run(
                    self.config,
                    self.status,
                    self.stop,
                    &self.databases,
                    source,
                    target,
                    manner,
                ))
                .await
            };
            match ended.await {
                Err(error) if error.class != Class::Stop => {
                    tracing::warn!(%error, "beginning again");
                    if from.elapsed() >= LASTING {
                        backoff = Backoff::default();
                    }
                    tokio::time::sleep(backoff.pause()).await;
                }
                Ok(scan::Ended::Undone) => {}
                ended => return ended.map(drop),
            }
        }
    }

    async fn take_for_scan(
        &self,
        mut visit: Visit<'_>,
    ) -> Result<(Target, scan::Manner), SyncError> {
        let manner = self.scan_manner(&mut visit).await?;
        let seen = taken_by(&visit.found);
        self.note_taken(seen);
        let target = take(visit, |found| {
            if taken_by(found) != seen {
                return Err(self.outrun());
            }
            let (epoch, at) = match found {
                Found::Nothing => (0, ScanAt::beginning()),
                Found::Checkpoint(found) => match found.phase {
                    Phase::Scan(at) => (found.epoch, at),
                    _ => (found.epoch, ScanAt::beginning()),
                },
            };
            Ok(Checkpoint {
                epoch,
                owner: self.owner,
                phase: Phase::Scan(at),
                owned: manner.owns,
                leased: false,
                repairs: Names::default(),
                unseen: None,
                slots: None,
            })
        })
        .await?;
        admit(self.config, self.status).await?;
        let mut target = target;
        self.tell_nodes(&mut target);
        if !manner.owns {
            self.remove_unfinished().await?;
        }
        Ok((target, manner))
    }

    /// How keys are put, given what the target holds.
    async fn scan_manner(&self, visit: &mut Visit<'_>) -> Result<scan::Manner, SyncError> {
        if let Found::Checkpoint(found) = &visit.found {
            self.refuse_half_skipped(&visit.found)?;
            return Ok(scan::Manner {
                is_empty: false,
                owns: found.owned,
                existing: ExistingKeys::Replace,
            });
        }
        let (owns, existing, is_empty) = self.fresh(visit).await?;
        if existing == ExistingKeys::Skip && self.config.scan.follows() {
            let what = "it holds keys, and those are to be skipped; of a source that is followed by SCAN nobody can tell later which keys those were: set rdb_restore_command_behavior to \"rewrite\", or empty the target; nothing was written";
            let address = &self.config.target.endpoint.address;
            return Err(SyncError::stop(Side::Target, address, what));
        }
        Ok(scan::Manner {
            // Beside keys that are not to be replaced, SET and RESTORE themselves look.
            is_empty: is_empty || existing == ExistingKeys::Skip,
            owns,
            existing,
        })
    }
}
