//! Pauses between connections to a target that loses them at one place.

use crate::backoff::Backoff;
use crate::error::SyncError;

/// Connections to the target that were lost at one place.
#[derive(Default)]
pub(super) struct Losses {
    at: u64,
    backoff: Backoff,
}

/// So many losses at one place are no chance.
const LOSSES_NOTED: u32 = 5;

impl Losses {
    /// Pauses before the next connection, the longer the more of them have come no further than `at`.
    pub(super) async fn pause(&mut self, at: u64, error: &SyncError) {
        if self.at != at {
            *self = Self {
                at,
                backoff: Backoff::default(),
            };
        }
        let lost = self.backoff.attempts();
        let pause = self.backoff.pause();
        if lost > 0 {
            tokio::time::sleep(pause).await;
        }
        if lost == LOSSES_NOTED {
            tracing::warn!(
                position = at,
                lost,
                %error,
                "the target was lost again and again at this place: does it close the connection for what it is sent? Its log tells (client-query-buffer-limit, proto-max-bulk-len, a proxy's limit)"
            );
        }
    }
}
