//! Pauses between attempts: doubling, capped, with jitter so that many links do not retry as one.

use std::time::Duration;

use crate::chance;

const FIRST_MS: u64 = 50;
const MAX_MS: u64 = 5_000;

/// The pauses of one row of attempts.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// How many pauses there were.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The next pause: between half and the whole of the doubled step.
    pub(crate) fn pause(&mut self) -> Duration {
        let step = FIRST_MS
            .saturating_mul(1 << self.attempts.min(16))
            .min(MAX_MS);
        self.attempts += 1;
        let random = chance::number();
        Duration::from_millis(step / 2 + random % (step / 2 + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_the_cap() {
        let mut backoff = Backoff::default();
        for attempt in 0..40 {
            let step = (FIRST_MS << attempt.min(16)).min(MAX_MS);
            let pause = backoff.pause().as_millis() as u64;
            assert!(
                pause >= step / 2 && pause <= step,
                "attempt {attempt}: {pause}"
            );
        }
        assert_eq!(backoff.attempts(), 40);
    }
}
