//! Compares the clocks of both ends, now and then: the target ends keys by its own.

use std::time::Duration;

use tokio::time::Instant;

use super::tide::Tide;
use crate::client::Client;
use crate::clock::time_ms;
use crate::config::{Config, Endpoint};
use crate::error::{Side, SyncError};
use crate::status::Status;

/// Between two looks.
const EVERY: Duration = Duration::from_secs(60);
/// The most that goes without a word.
const SKEW_MAX_MS: i64 = 500;

/// Looks as long as the link runs; says so when the clocks are too far apart, and when they are together again. Where the
/// target's is ahead, it ends keys that the source may save yet: the tide is told.
pub(crate) async fn compare_forever(
    config: &Config,
    status: &Status,
    tide: &Tide,
) -> std::convert::Infallible {
    let mut is_off = false;
    loop {
        match skew_ms(config).await {
            Ok(Some(skew_ms)) => {
                status.clock_skew_ms.set(skew_ms.unsigned_abs());
                tide.set_ahead(if skew_ms > SKEW_MAX_MS { skew_ms } else { 0 });
                let ahead = if skew_ms > 0 { "target" } else { "source" };
                let was_off = std::mem::replace(&mut is_off, skew_ms.abs() > SKEW_MAX_MS);
                if is_off && !was_off {
                    tracing::warn!(
                        skew_ms = skew_ms.unsigned_abs(),
                        ahead,
                        "the clocks of source and target differ: keys expire early or late at the target; set both by NTP"
                    );
                } else if was_off && !is_off {
                    tracing::info!("the clocks of source and target are together again");
                }
            }
            // A server that does not tell its time.
            Ok(None) => {
                tracing::debug!("the clocks of source and target cannot be compared");
            }
            Err(error) => tracing::debug!(%error, "the clocks are compared later"),
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// How far the target's clock is ahead of the source's, in milliseconds; 0 where the way there is longer than that.
async fn skew_ms(config: &Config) -> Result<Option<i64>, SyncError> {
    let source = offset(&config.source.endpoint, Side::Source).await?;
    let target = offset(&config.target.endpoint, Side::Target).await?;
    Ok(source
        .zip(target)
        .map(|(source, target)| apart(source, target)))
}

fn apart(source: Offset, target: Offset) -> i64 {
    let skew_ms = target.ms - source.ms;
    if skew_ms.abs() > target.unsure_ms + source.unsure_ms {
        skew_ms
    } else {
        0
    }
}

/// How far a server's clock is ahead of ours.
#[derive(Debug, Clone, Copy)]
struct Offset {
    ms: i64,
    unsure_ms: i64,
}

async fn offset(endpoint: &Endpoint, side: Side) -> Result<Option<Offset>, SyncError> {
    let mut client = Client::connect(endpoint, side).await?;
    let (asked, at_ms) = (Instant::now(), crate::clock::now_ms());
    let reply = client.ask(&[b"TIME"]).await?;
    let half_ms = i64::try_from(asked.elapsed().as_millis() / 2).unwrap_or(i64::MAX);
    Ok(time_ms(&reply).map(|server_ms| Offset {
        ms: server_ms - at_ms - half_ms,
        unsure_ms: half_ms + 1,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_line_may_have_done_is_no_skew() {
        let at = |ms, unsure_ms| Offset { ms, unsure_ms };
        assert_eq!(apart(at(-200, 1), at(900, 1)), 1100);
        assert_eq!(apart(at(5000, 30), at(3000, 1)), -2000);
        assert_eq!(apart(at(0, 400), at(600, 300)), 0);
    }
}
