//! A session that goes on in the stream, over as many connections to the target as it takes.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::Instant;

use super::losses::Losses;
use super::{Next, Supervisor};
use crate::checkpoint::{Phase, Position};
use crate::compare::verify_forever;
use crate::error::{Class, Side, SyncError};
use crate::handover::{Over, Stage, obey};
use crate::pipeline::{
    StreamApplier, compare_forever, count_late_forever, end_all, read_marks_forever, settle_forever,
};
use crate::source::{Conn, spool_error};
use crate::spool::{Feed, Log};
use crate::target::{Target, Visit};

impl Supervisor<'_> {
    /// A session that goes on in the stream.
    pub(super) async fn stream(
        &self,
        visit: Visit<'_>,
        conn: Conn,
        log: Log,
    ) -> Result<Next, SyncError> {
        let target = self.take_as_found(visit).await?;
        let Phase::Stream(position) = target.checkpoint.phase else {
            return Ok(Next::Again);
        };
        if target.checkpoint.leased {
            self.leases.suspect(0);
        }
        self.begin_slots(&target);
        tracing::info!(
            offset = position.offset.0,
            db = position.db,
            "resuming the stream"
        );
        // A kill may have come between the first position in the stream and the end of the snapshot's files.
        Log::discard(&self.config.spool.dir, "snapshot").map_err(spool_error)?;
        let feed = Feed::new(log);
        // What is kept behind it may be wanted still: the first unit to be confirmed lets it go.
        feed.rewind(position.offset.0);
        if !self.config.source.sync_aof {
            tracing::info!("the snapshot is applied already, and sync_aof is false: done");
            feed.close();
        }
        self.show_position(&feed, position);
        let receiver = self.receiver(conn, None, &feed);
        let applier = self.apply_stream(target, &feed, position, None, None);
        Box::pin(self.session(receiver.run(), applier, &feed)).await
    }

    /// Applies the stream, and ends leases as it passes them.
    pub(super) async fn apply_stream(
        &self,
        target: Target,
        feed: &Feed,
        position: Position,
        snapshot: Option<&Feed>,
        snapshot_from: Option<Instant>,
    ) -> Result<(), SyncError> {
        self.tide.begin(snapshot_from);
        let settling = settle_forever(
            self.config,
            self.status,
            feed,
            &self.leases,
            &self.tide,
            self.owner,
        );
        let mut verifying = Box::pin(verify_forever(self.config, self.status));
        tokio::select! {
            biased;
            result = self.apply_units(target, feed, position, snapshot) => result?,
            error = settling => return Err(error),
            Over = obey(self.config, self.status, feed, &self.leases) => return Ok(()),
            never = self.count_late(feed) => match never {},
            never = compare_forever(self.config, self.status, &self.tide) => match never {},
            never = &mut verifying => match never {},
            never = read_marks_forever(self.config, self.status, feed, &self.tide) => match never {},
        }
        // The stream has ended in good order: from here on the target ends its keys by itself. Not where the source or the
        // spool has failed: the next run goes on, and what was done at the source meanwhile may count on a key.
        if self.stop.is_requested() || !self.config.source.sync_aof {
            end_all(self.config, &self.leases, self.owner).await?;
        }
        Ok(())
    }

    /// Counts late writes where they are applied all the same.
    async fn count_late(&self, feed: &Feed) -> Infallible {
        loop {
            let state = self.status.handover.state();
            if let (Stage::Go, Some(from)) = (state.stage, state.hold) {
                return count_late_forever(self.config, self.status, feed, from).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Applies the stream from `position` on, over as many connections as it takes. Behind a snapshot, that position is
    /// made known first.
    pub(super) async fn apply_units(
        &self,
        mut target: Target,
        feed: &Feed,
        mut position: Position,
        mut snapshot: Option<&Feed>,
    ) -> Result<(), SyncError> {
        if target.cluster.is_some() {
            let applied = self.apply_units_in_cluster(target, feed, position, snapshot);
            return Box::pin(applied).await;
        }
        let mut losses = Losses::default();
        loop {
            self.begin_slots(&target);
            let ours = target.checkpoint.clone();
            let mut applier = StreamApplier::new(
                self.common(),
                feed,
                target,
                position,
                self.source_version.version,
            )?;
            if let Some(snapshot) = snapshot {
                applier.announce(position);
                applier.after_snapshot(snapshot);
            }
            if !self.config.source.sync_aof {
                applier.end_here();
            }
            let error = match Box::pin(applier.run()).await {
                Ok(_) => return Ok(()),
                Err(error) if error.class != Class::Reconnect => return Err(error),
                Err(error) => error,
            };
            losses.pause(feed.applied(), &error).await;
            target = self.retake(&error, &ours).await?;
            let resync = |what: &str| {
                SyncError::resync(Side::Target, &self.config.target.endpoint.address, what)
            };
            position = match target.checkpoint.phase {
                Phase::Stream(found) => found,
                // Behind a snapshot, the first unit may never have arrived, or the target may have lost the end of the
                // snapshot too: only going on with the snapshot itself makes sure.
                Phase::Snapshot(_) | Phase::Diverged(_) | Phase::Scan(_) => {
                    return Err(resync("its checkpoint fell back"));
                }
            };
            if position.offset.0 != feed.applied()
                && let Some(snapshot) = snapshot.take()
            {
                snapshot.with_log(Log::clear).map_err(spool_error)?;
            }
            let kept = feed.with_log(|log| log.start()..=log.end());
            let is_known = feed.with_log(|log| log.knows(position.replid));
            let unseen = target.checkpoint.unseen;
            let unseen = unseen.filter(|_| !self.repairs.has_seen(position.offset.0));
            let unseen_bytes = unseen.map_or(0, |unseen| unseen.bytes);
            let from = position.offset.0.saturating_sub(unseen_bytes);
            if !is_known || !kept.contains(&position.offset.0) || !kept.contains(&from) {
                return Err(resync("its checkpoint is outside of what is kept here"));
            }
            tracing::info!(
                offset = position.offset.0,
                "the target is back; going on from its checkpoint"
            );
            if target.checkpoint.leased {
                self.leases.suspect(0);
            }
            let is_older = position.offset.0 < feed.applied()
                || self.repairs.may_be_before_mends(position.offset.0);
            if target.checkpoint.repairs.are_unnamed() && is_older {
                // Which they were then, nobody knows any more.
                return Err(resync("it fell back to when many keys were under repair"));
            }
            feed.rewind(position.offset.0);
            self.status.applied_offset.set(position.offset.0);
        }
    }
}
