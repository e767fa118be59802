//! What the link does about a switch-over: it stops applying at an offset, says when all up to there is applied and every
//! key has its own expiry, goes on if whoever asked for it has gone, and ends when the switch has been made.

use std::time::Duration;

use super::Stage;
use super::mark;
use crate::config::Config;
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
            && is_done(status, feed, leases, offset)
        {
            handover.is_closed();
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
fn is_done(status: &Status, feed: &Feed, leases: &Leases, offset: u64) -> bool {
    feed.applied() == offset && status.repairs_open.get() == 0 && leases.are_ended()
}

/// Whoever has begun a switch-over is not heard of any more. It may have made the switch and died before it could say so: then
/// the target tells.
pub(crate) async fn look_for_the_switch(config: &Config, status: &Status) {
    match mark::read(&config.target, &config.link_name).await {
        Ok(Some(record)) if record.is_go() => {
            tracing::warn!(
                offset = record.offset,
                "the switch was made by a cutover that has gone since"
            );
            status.handover.go(record.offset, record.applies_late());
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
