//! So many keys a second, evenly.

use std::time::Duration;

use tokio::time::Instant;

/// Lets through so many a second.
#[derive(Debug)]
pub(super) struct Limiter {
    /// 0: no limit.
    per_second: u64,
    free_at: Instant,
}

impl Limiter {
    pub(super) fn new(per_second: u64) -> Self {
        Self {
            per_second,
            free_at: Instant::now(),
        }
    }

    /// Waits until `count` more may go. Time that was not used is not made up for.
    pub(super) async fn take(&mut self, count: usize) {
        if self.per_second == 0 {
            return;
        }
        let now = Instant::now();
        if self.free_at > now {
            tokio::time::sleep_until(self.free_at).await;
        }
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let seconds = count as f64 / self.per_second as f64;
        self.free_at = self.free_at.max(now) + Duration::from_secs_f64(seconds);
    }

    /// As many as go at once without a rush: a tenth of a second's, at least one.
    pub(super) fn lot(&self, most: usize) -> usize {
        if self.per_second == 0 {
            return most;
        }
        usize::try_from(self.per_second / 10)
            .unwrap_or(most)
            .clamp(1, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn goes_at_its_rate() {
        let mut limiter = Limiter::new(100);
        let from = Instant::now();
        for _ in 0..10 {
            limiter.take(50).await;
        }
        // The first goes at once.
        assert_eq!(from.elapsed().as_millis() / 100, 45);
        assert_eq!((limiter.lot(64), Limiter::new(5).lot(64)), (10, 1));
        assert_eq!(Limiter::new(0).lot(64), 64);
    }
}
