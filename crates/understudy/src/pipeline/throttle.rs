//! Notices a target that takes less than it did, though there is more to send: burstable nodes (t3, t4g) fall to the baseline
//! of their network and processor when their credits are used up, and say nothing about it.
//!
//! The rate is what went over while units were on their way, window by window. Three windows below half of the best one, with
//! the target busy nearly all the time, are no chance. Then a tenth of its time is left to it, and the log says why.

use std::time::Duration;

use tokio::time::Instant;

use crate::status::Status;

const WINDOW: Duration = Duration::from_secs(5);
/// Windows in a row.
const SLOW_WINDOWS: u32 = 3;
/// Below this share of a window the target is not what we wait for.
const BUSY_SHARE: f64 = 0.8;
/// A target that never took more than this has told nothing of what it can.
const RATE_MIN: f64 = 1e6;
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Something to say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Change {
    /// It takes so many bytes a second, where it has taken so many.
    Throttled { rate: f64, best: f64 },
    /// It is as quick as before, or is not busy any more.
    Free,
}

impl Change {
    /// Says it in the log, and in the status.
    pub(super) fn tell(self, status: &Status) {
        let is_throttled = matches!(self, Self::Throttled { .. });
        status.target_throttled.set(u64::from(is_throttled));
        match self {
            Self::Throttled { rate, best } => tracing::warn!(
                mb_per_second = rate / 1e6,
                best_mb_per_second = best / 1e6,
                "the target takes less than half of what it took: a burstable node at its baseline (CPUCreditBalance, network allowance), or somebody else uses it; going on more slowly"
            ),
            Self::Free => tracing::info!("the target is no longer throttled"),
        }
    }
}

/// What one connection to the target has taken.
#[derive(Debug)]
pub(super) struct Throttle {
    from: Instant,
    busy: Duration,
    bytes: u64,
    best: f64,
    slow: u32,
    last: Duration,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self {
            from: Instant::now(),
            busy: Duration::ZERO,
            bytes: 0,
            best: 0.0,
            slow: 0,
            last: Duration::ZERO,
        }
    }

    fn is_throttled(&self) -> bool {
        self.slow >= SLOW_WINDOWS
    }

    /// How long to wait before the next unit.
    pub(super) fn pause(&self) -> Option<Duration> {
        self.is_throttled().then(|| (self.last / 10).min(PAUSE_MAX))
    }

    /// A unit of so many bytes was on its way for so long, and came back now.
    pub(super) fn took(&mut self, took: Duration, bytes: u64) -> Option<Change> {
        self.busy += took;
        self.bytes += bytes;
        self.last = took;
        let window = self.from.elapsed();
        if window < WINDOW {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a rate")]
        let rate = self.bytes as f64 / self.busy.as_secs_f64().max(1e-6);
        let is_busy = self.busy.as_secs_f64() >= BUSY_SHARE * window.as_secs_f64();
        let was_throttled = self.is_throttled();
        let is_slow = is_busy && self.best >= RATE_MIN && rate < self.best / 2.0;
        self.slow = if is_slow { self.slow + 1 } else { 0 };
        if is_busy {
            self.best = self.best.max(rate);
        }
        (self.from, self.busy, self.bytes) = (Instant::now(), Duration::ZERO, 0);
        match (was_throttled, self.is_throttled()) {
            (false, true) => Some(Change::Throttled {
                rate,
                best: self.best,
            }),
            (true, false) => Some(Change::Free),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units of a megabyte for `seconds`, at so many bytes a second, of which the target is busy with `share`.
    async fn run(throttle: &mut Throttle, seconds: f64, rate: f64, share: f64) -> Vec<Change> {
        let took = Duration::from_secs_f64(1e6 / rate);
        let mut changes = Vec::new();
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < until {
            tokio::time::advance(took.div_f64(share)).await;
            changes.extend(throttle.took(took, 1_000_000));
        }
        changes
    }

    #[tokio::test(start_paused = true)]
    async fn a_baseline_is_noticed_and_its_end_too() {
        let mut throttle = Throttle::new();
        assert!(run(&mut throttle, 60.0, 80e6, 0.95).await.is_empty());
        assert_eq!(throttle.pause(), None);
        let changes = run(&mut throttle, 30.0, 16e6, 0.95).await;
        let [Change::Throttled { rate, best }] = changes[..] else {
            panic!("{changes:?}");
        };
        assert!((15e6..17e6).contains(&rate) && (79e6..81e6).contains(&best));
        assert!(throttle.pause().is_some());
        assert_eq!(run(&mut throttle, 30.0, 70e6, 0.95).await, [Change::Free]);
        assert_eq!(throttle.pause(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn little_to_send_is_no_throttling() {
        let mut throttle = Throttle::new();
        run(&mut throttle, 30.0, 80e6, 0.95).await;
        assert!(run(&mut throttle, 60.0, 10e6, 0.2).await.is_empty());
        let mut throttle = Throttle::new();
        assert!(run(&mut throttle, 60.0, 5e5, 0.95).await.is_empty());
    }
}
