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

/// Pauses between failures of something that gets on in between: what went well ends a row of them.
#[derive(Debug)]
pub(crate) struct Patience {
    backoff: Backoff,
    most: u32,
    /// How much was done when it failed last.
    done: u64,
}

impl Patience {
    /// One that bears so many failures in a row.
    pub(crate) fn new(most: u32) -> Self {
        Self {
            backoff: Backoff::default(),
            most,
            done: 0,
        }
    }

    /// It failed, having done so much since the beginning: the pause to take, or none where it failed too often in a row.
    pub(crate) fn failed(&mut self, done: u64) -> Option<Duration> {
        if done != self.done {
            self.done = done;
            self.backoff = Backoff::default();
        }
        (self.backoff.attempts() < self.most).then(|| self.backoff.pause())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_count_while_nothing_is_done_in_between() {
        let mut patience = Patience::new(3);
        for done in 1..50 {
            let first = patience.failed(done).unwrap();
            assert!(first <= Duration::from_millis(FIRST_MS));
            assert!(patience.failed(done).is_some() && patience.failed(done).is_some());
        }
        assert!(patience.failed(49).is_none() && patience.failed(49).is_none());
        assert!(patience.failed(50).is_some());
    }

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
