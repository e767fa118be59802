//! What the link does about a switch-over: it stops applying at an offset, says when all up to there is applied and every
//! key has its own expiry, goes on if whoever asked for it has gone, and ends when the switch has been made.

use std::time::Duration;

use super::Stage;
use super::mark;
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::pipeline::Leases;
use crate::spool::Feed;
use crate::status::Status;

/// Between two looks while writers wait.
const SOON: Duration = Duration::from_millis(2);
/// Between two looks while nothing is to be done.
const LATER: Duration = Duration::from_millis(200);
/// After trouble with the target.
const RETRY: Duration = Duration::from_secs(2);

/// The target is the application's: nothing more is to be applied.
#[derive(Debug)]
pub(crate) struct Over;

/// Does what is asked for, until the switch has been made.
pub(crate) async fn obey(config: &Config, status: &Status, feed: &Feed, leases: &Leases) -> Over {
    let handover = &status.handover;
    loop {
        let state = handover.state();
        if state.is_over() {
            return Over;
        }
        let hold = match state.stage {
            Stage::Closing | Stage::Closed => state.hold,
            Stage::Replicating | Stage::Gate | Stage::Fenced | Stage::Go => None,
        };
        if let Some(offset) = hold
            && !feed.hold_at(offset)
        {
            handover.has_passed();
            continue;
        }
        if hold.is_none() {
            feed.let_go();
        }
        if let (Some(offset), Stage::Closing) = (hold, state.stage)
            && is_done(config, status, feed, leases, offset)
        {
            handover.is_closed();
            continue;
        }
        if let (Some(offset), Stage::Closed) = (hold, state.stage)
            && !is_done(config, status, feed, leases, offset)
        {
            // The target was lost, and something of it is applied again.
            handover.is_closing();
            continue;
        }
        if state.is_forgotten() {
            look_for_the_switch(config, status).await;
        }
        let pause = match state.stage {
            Stage::Closing => SOON,
            _ => LATER,
        };
        tokio::select! {
            () = handover.changed() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Everything up to there is applied, every key is as at the source, and has its own expiry.
fn is_done(config: &Config, status: &Status, feed: &Feed, leases: &Leases, offset: u64) -> bool {
    let is_still = config.shard.as_ref().is_none_or(|shard| shard.is_still());
    feed.applied() == offset && status.repairs_open.get() == 0 && leases.are_ended() && is_still
}

/// Whether the record alone decides: no transaction at the target covers everything that writes there.
fn decides_alone(config: &Config) -> bool {
    config.shard.is_some() || config.target.cluster.is_some()
}

/// The target was taken, and nothing is written there yet. A switch that another run of this link was to be part of and that is
/// not made is called off: it was proved without us.
///
/// # Errors
/// Resync where the switch has been made: whoever looks at the target again finds it. Those of the connection.
pub(crate) async fn admit(config: &Config, status: &Status) -> Result<(), SyncError> {
    // (A hold that is in force is kept by this run.)
    if !decides_alone(config) || status.handover.state().stage != Stage::Replicating {
        return Ok(());
    }
    let (target, link) = (&config.target, &config.link_name);
    let record = match mark::read(target, link).await? {
        Some(record) if record.stage == "fenced" => {
            tracing::warn!(
                "a cutover is under way that knows nothing of this run: it is called off"
            );
            mark::call_off(target, link).await?
        }
        other => other,
    };
    match record.is_some_and(|record| record.is_go() && !record.applies_late()) {
        true => {
            let what = "the switch has been made meanwhile: it is the application's";
            Err(SyncError::resync(
                Side::Target,
                &target.endpoint.address,
                what,
            ))
        }
        false => Ok(()),
    }
}

/// Whoever has begun a switch-over is not heard of any more. It may have made the switch and died before it could say so: then
/// the target tells.
pub(crate) async fn look_for_the_switch(config: &Config, status: &Status) {
    let (target, link) = (&config.target, &config.link_name);
    let read = match decides_alone(config) {
        // It may only be slow: it makes no switch any more.
        true => mark::call_off(target, link).await,
        false => mark::read(target, link).await,
    };
    match read {
        Ok(Some(record)) if record.is_go() => {
            let offset = record.place(link).map_or(0, |place| place.offset);
            tracing::warn!(
                offset,
                "the switch was made by a cutover that has gone since"
            );
            status.handover.go(offset, record.applies_late());
        }
        Ok(_) => {
            tracing::warn!("a cutover has gone without making the switch: going on");
            status.handover.open();
        }
        Err(error) => {
            tracing::warn!(%error, "whether the switch was made is not known yet");
            tokio::time::sleep(RETRY).await;
        }
    }
}
