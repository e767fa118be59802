//! After the switch: the target is the application's, and nothing of this link is applied any more. The old server is
//! still followed, so that it is known what is written there; the spool keeps it.

use super::{Next, Supervisor, contact};
use crate::error::{Side, SyncError};
use crate::handover::Stage;
use crate::handover::mark::Record;
use crate::pipeline::count_late_forever;
use crate::source::{Opened, spool_error};
use crate::spool::{Feed, Log};
use crate::status;
use crate::target::Visit;

impl Supervisor<'_> {
    /// The switch was made, as the target tells. Nothing that goes on from a snapshot may begin.
    pub(super) fn note_switch(&self, record: &Record) {
        let handover = &self.status.handover;
        let place = record.place(&self.config.link_name).unwrap_or_default();
        handover.late(|late| late.removed_before(place.removed));
        if handover.state().stage != Stage::Go {
            tracing::warn!(
                offset = place.offset,
                "the switch has been made: the target is the application's, and nothing more is applied to it"
            );
            handover.go(place.offset, record.applies_late());
        }
    }

    /// Follows the source without applying anything, until asked to stop, or the switch is undone.
    pub(super) async fn watch_late(
        &self,
        visit: Visit<'_>,
        record: &Record,
        attempts_max: u32,
    ) -> Result<Next, SyncError> {
        let Some(place) = record.place(&self.config.link_name) else {
            return Err(self.came_behind());
        };
        let (start, kept) = self.choose(&visit.found)?;
        // It is not ours any more: nothing is taken, and nothing watched.
        drop(visit);
        let Some(kept) = kept else {
            return Err(self.switched());
        };
        let opened = contact(self.stop, attempts_max, || self.open(start.clone())).await?;
        let (conn, replid) = match opened {
            None => return Ok(Next::Done),
            Some(Opened::Continue { conn, replid }) => (conn, replid),
            Some(Opened::Full { .. }) => return Err(self.switched()),
            Some(Opened::Refused { error, .. }) => return Err(error),
        };
        let mut log = kept.stream;
        log.rename(replid).map_err(spool_error)?;
        let feed = Feed::new(log);
        feed.rewind(place.offset);
        self.status.set_phase(status::Phase::Stream);
        self.status.source_offset.set(feed.end());
        self.status.spooled_offset.set(feed.end());
        self.status.applied_offset.set(place.offset);
        self.status.oldest_unapplied_ms.set(0);
        let receiver = self.receiver(conn, None, &feed);
        let counting = count_late_forever(self.config, self.status, &feed, place.offset);
        let next = tokio::select! {
            biased;
            () = self.stop.requested() => Ok(Next::Done),
            () = self.until_undone() => Ok(Next::Again),
            received = receiver.run() => match received {
                Ok(_) => Err(self.switched()),
                Err(error) => Err(error),
            },
            never = counting => match never {},
        };
        feed.with_log(Log::flush).map_err(spool_error)?;
        next
    }

    async fn until_undone(&self) {
        while self.status.handover.state().is_over() {
            self.status.handover.changed().await;
        }
    }

    /// A switch that this run knows of, and of which the target knows nothing any more: it is the application's all the same.
    pub(super) fn refuse_after_switch(&self, visit: &Visit<'_>) -> Result<(), SyncError> {
        let state = self.status.handover.state();
        if state.stage != Stage::Go || visit.switch().is_some() {
            return Ok(());
        }
        let what = "the switch has been made, and its record is gone from there (FLUSHALL?): nothing is written to it; this link has ended";
        let address = &self.config.target.endpoint.address;
        Err(SyncError::stop(Side::Target, address, what))
    }

    /// The word of a shard that the source cluster did not have at the switch.
    fn came_behind(&self) -> SyncError {
        let what = "the switch has been made, and this shard of the source has come behind it: nothing of it is applied, and what is written there is not known";
        SyncError::stop(Side::Source, &self.config.source.endpoint.address, what)
    }

    /// The word where only a new snapshot could go on.
    pub(super) fn switched(&self) -> SyncError {
        let what = "the switch has been made, and the source no longer has the history from there: what is written there is not known any more, and no snapshot is taken, which would overwrite what the application has written at the target; `understudy cutover --finish` ends this link";
        SyncError::stop(Side::Source, &self.config.source.endpoint.address, what)
    }
}
