//! Pauses between connections to a target that loses them at one place.

use crate::backoff::Backoff;

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
    pub(super) async fn pause(&mut self, at: u64) {
        if self.at != at {
            *self = Self {
                at,
                backoff: Backoff::default(),
            };
        }
        let lost = self.backoff.attempts();
        if lost > 0 {
            tokio::time::sleep(self.backoff.pause()).await;
        } else {
            self.backoff.pause();
        }
        if lost == LOSSES_NOTED {
            tracing::warn!(
                position = at,
                "the connection to the target was lost {lost} times at this place: does the target close it for what it is sent (its log tells; client-query-buffer-limit, proto-max-bulk-len, a proxy's limit)?"
            );
        }
    }
}
