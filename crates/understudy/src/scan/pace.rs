//! How fast the source is read: as fast as it goes, as long as others are answered there as quickly as without us.
//!
//! A thread of its own asks the source for a sign of life ten times a second, over a connection of its own, and so sees
//! what any client of the source sees. While that takes much longer than it does at best, less is read at once, and
//! there are pauses in between.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::backoff::Backoff;
use crate::client::Client;
use crate::config::Endpoint;
use crate::error::Side;

/// Between two signs of life.
const EVERY: Duration = Duration::from_millis(100);
/// Of so many the middle one counts.
const WINDOW: usize = 5;
/// Longer by less than this is no trouble to anybody.
const SLACK_US: u64 = 1_000;
/// Most keys that are read at once.
const LOT_MAX: usize = 512;
/// And fewest.
const LOT_MIN: usize = 64;
/// The smallest share of the time in which the source is read.
const SHARE_MIN: f64 = 0.2;
/// A pause is no longer than this.
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// A source that is as slow after so many looks with the smallest share is not slow because of us.
const PATIENCE: u32 = 20;

/// What a client of the source sees, in microseconds.
#[derive(Debug, Default)]
struct Seen {
    latency_us: AtomicU64,
    best_us: AtomicU64,
    /// Counts what was seen.
    count: AtomicU64,
}

/// The share of the time in which the source is read. Of several servers the one that is slow counts.
#[derive(Debug)]
pub(super) struct Pace {
    seen: RefCell<Vec<Arc<Seen>>>,
    share: Cell<f64>,
    judged: Cell<u64>,
    /// How often in a row the smallest share did not help.
    in_vain: Cell<u32>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            seen: RefCell::default(),
            share: Cell::new(1.0),
            judged: Cell::new(0),
            in_vain: Cell::new(0),
        }
    }
}

impl Pace {
    /// Begins to look at a server; ends when this is dropped.
    pub(super) fn watch(&self, endpoint: Endpoint) -> std::io::Result<()> {
        let seen = Arc::downgrade(&self.another());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let thread = std::thread::Builder::new().name("latency".to_owned());
        thread.spawn(move || runtime.block_on(look(&endpoint, &seen)))?;
        Ok(())
    }

    fn another(&self) -> Arc<Seen> {
        let seen = Arc::<Seen>::default();
        self.seen.borrow_mut().push(seen.clone());
        seen
    }

    /// How long the source takes to answer others, in microseconds; 0 as long as it is not known.
    pub(super) fn latency_us(&self) -> u64 {
        let seen = self.seen.borrow();
        let each = seen.iter().map(|one| one.latency_us.load(Relaxed));
        each.max().unwrap_or(0)
    }

    /// The share of the time in which it is read, in percent.
    pub(super) fn percent(&self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 20 and 100"
        )]
        let percent = (self.share.get() * 100.0) as u64;
        percent
    }

    /// How many keys are read at once now.
    pub(super) fn lot(&self) -> usize {
        self.judge();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a size that is clamped next"
        )]
        let lot = (LOT_MAX as f64 * self.share.get()) as usize;
        lot.clamp(LOT_MIN, LOT_MAX)
    }

    /// The pause after reading for so long.
    pub(super) fn pause(&self, read_for: Duration) -> Duration {
        let share = self.share.get();
        if share >= 1.0 {
            return Duration::ZERO;
        }
        read_for.mul_f64(1.0 / share - 1.0).min(PAUSE_MAX)
    }

    fn judge(&self) {
        let seen = self.seen.borrow();
        let count = seen.iter().map(|one| one.count.load(Relaxed)).sum();
        if self.judged.replace(count) == count {
            return;
        }
        let is_slow_one = |one: &&Arc<Seen>| {
            let (now_us, best_us) = (one.latency_us.load(Relaxed), one.best_us.load(Relaxed));
            now_us > best_us.saturating_mul(2).saturating_add(SLACK_US)
        };
        let slow: Vec<&Arc<Seen>> = seen.iter().filter(is_slow_one).collect();
        let is_slow = !slow.is_empty();
        let share = self.share.get();
        let is_least = share <= SHARE_MIN;
        let in_vain = self.in_vain.get() + 1;
        self.in_vain
            .set(if is_slow && is_least { in_vain } else { 0 });
        if in_vain > PATIENCE && is_slow && is_least {
            // That is how it is now.
            for one in slow {
                one.best_us.store(one.latency_us.load(Relaxed), Relaxed);
            }
            self.in_vain.set(0);
        }
        self.share.set(match is_slow {
            true => (share * 0.7).max(SHARE_MIN),
            false => (share + 0.05).min(1.0),
        });
    }
}

/// Looks as long as somebody wants to know.
async fn look(endpoint: &Endpoint, seen: &Weak<Seen>) {
    let mut backoff = Backoff::default();
    let mut latencies = std::collections::VecDeque::new();
    while seen.strong_count() > 0 {
        let Ok(mut client) = Client::connect(endpoint, Side::Source).await else {
            tokio::time::sleep(backoff.pause()).await;
            continue;
        };
        loop {
            tokio::time::sleep(EVERY).await;
            let from = Instant::now();
            if client.ask(&[b"PING"]).await.is_err() {
                break;
            }
            let us = u64::try_from(from.elapsed().as_micros()).unwrap_or(u64::MAX);
            let Some(seen) = seen.upgrade() else {
                return;
            };
            backoff = Backoff::default();
            latencies.push_back(us);
            if latencies.len() > WINDOW {
                latencies.pop_front();
            }
            note(&seen, latencies.make_contiguous());
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}

fn note(seen: &Seen, latencies: &[u64]) {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let middle = sorted.get(sorted.len() / 2).copied().unwrap_or(0);
    // What is best is forgotten slowly: the way there may have become longer.
    let best = match seen.best_us.load(Relaxed) {
        0 => middle,
        best => middle.min(best + best / 1000 + 1),
    };
    seen.best_us.store(best, Relaxed);
    seen.latency_us.store(middle, Relaxed);
    seen.count.fetch_add(1, Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn see(pace: &Pace, us: u64, times: usize) {
        for _ in 0..times {
            let first = pace.seen.borrow().first().cloned();
            note(&first.unwrap_or_else(|| pace.another()), &[us]);
            pace.lot();
        }
    }

    #[test]
    fn a_source_that_answers_slowly_is_read_less() {
        let pace = Pace::default();
        see(&pace, 200, 10);
        assert_eq!((pace.lot(), pace.percent()), (LOT_MAX, 100));
        assert_eq!(pace.pause(Duration::from_millis(3)), Duration::ZERO);
        see(&pace, 5_000, 3);
        assert!(
            pace.lot() < LOT_MAX / 2
                && pace.pause(Duration::from_millis(3)) > Duration::from_millis(3)
        );
        see(&pace, 5_000, 10);
        assert_eq!((pace.lot(), pace.percent()), (LOT_MAX / 5, 20));
        // A little longer is no trouble.
        see(&pace, 1_200, 40);
        assert_eq!(pace.percent(), 100);
    }

    #[test]
    fn a_source_that_is_slow_without_us_is_read_all_the_same() {
        let pace = Pace::default();
        see(&pace, 200, 10);
        see(&pace, 9_000, 10);
        assert_eq!(pace.percent(), 20);
        see(&pace, 9_000, 60);
        assert_eq!(pace.percent(), 100);
    }

    #[test]
    fn without_a_look_nothing_changes() {
        let pace = Pace::default();
        let seen = pace.another();
        note(&seen, &[100]);
        note(&seen, &[9_000]);
        let lot = pace.lot();
        assert_eq!((lot, pace.lot()), (lot, lot));
    }

    #[test]
    fn of_several_servers_the_slow_one_counts() {
        let pace = Pace::default();
        see(&pace, 200, 10);
        let other = pace.another();
        note(&other, &[100]);
        pace.lot();
        note(&other, &[8_000]);
        see(&pace, 200, 5);
        assert!(pace.percent() < 50 && pace.latency_us() == 8_000);
        note(&other, &[100]);
        see(&pace, 200, 40);
        assert_eq!((pace.percent(), pace.latency_us()), (100, 200));
    }

    #[test]
    fn the_middle_of_some_counts() {
        let seen = Seen::default();
        note(&seen, &[100, 90_000, 120]);
        assert_eq!(seen.latency_us.load(Relaxed), 120);
    }
}
