//! How much may go each way in a second, and a pause: set by the configuration, changed over HTTP while it runs.
//!
//! What was let through is a debt that is worked off at the rate in force; nothing more goes until it is (but for half a
//! second's worth, so that small pieces are not held up one by one).

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// So much may have gone ahead of the rate.
const AHEAD: Duration = Duration::from_millis(500);
/// A wait is looked at again after this time: the rate may be another one by then.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Reads are not made smaller than this.
const READ_BYTES_MIN: u64 = 4 << 10;

/// A rate, and what it has let through.
#[derive(Debug)]
pub struct Rate {
    /// A second; 0: no limit.
    per_second: AtomicU64,
    /// Until when what has gone would have taken at the rate.
    paid_until: Mutex<Option<Instant>>,
}

impl Rate {
    const fn new() -> Self {
        Self {
            per_second: AtomicU64::new(0),
            paid_until: Mutex::new(None),
        }
    }

    /// What it is; 0: no limit.
    pub fn get(&self) -> u64 {
        self.per_second.load(Ordering::Relaxed)
    }

    /// Sets it. What has gone by then is forgotten.
    pub fn set(&self, per_second: u64) {
        self.per_second.store(per_second, Ordering::Relaxed);
        *self.paid() = None;
    }

    fn paid(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.paid_until
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// So much has gone.
    pub(crate) fn took(&self, amount: u64) {
        let per_second = self.get();
        if per_second == 0 || amount == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a time to wait")]
        let time = Duration::from_secs_f64(amount as f64 / per_second as f64);
        let mut paid = self.paid();
        let from = paid.unwrap_or_else(Instant::now).max(Instant::now());
        *paid = Some(from + time);
    }

    /// How long nothing more may go.
    fn wait(&self) -> Duration {
        if self.get() == 0 {
            return Duration::ZERO;
        }
        let until = *self.paid();
        until.map_or(Duration::ZERO, |until| {
            until.saturating_duration_since(Instant::now() + AHEAD)
        })
    }
}

/// The limits of a link.
#[derive(Debug)]
pub struct Limits {
    /// Bytes read from the source.
    pub source_bytes: Rate,
    /// Commands sent to the target.
    pub target_commands: Rate,
    /// Bytes sent to the target.
    pub target_bytes: Rate,
    paused: AtomicBool,
    changed: Notify,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            source_bytes: Rate::new(),
            target_commands: Rate::new(),
            target_bytes: Rate::new(),
            paused: AtomicBool::new(false),
            changed: Notify::new(),
        }
    }
}

impl Limits {
    /// Nothing more is sent to the target until [`Self::resume`]. The source goes on being read into the spool.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    /// What was paused goes on.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Whether there is a limit at all towards the target: where there is none, nothing has to be counted.
    fn is_free(&self) -> bool {
        !self.is_paused() && self.target_bytes.get() == 0 && self.target_commands.get() == 0
    }

    /// Whether the target may be sent something now.
    pub(crate) fn is_open(&self) -> bool {
        self.is_free()
            || (!self.is_paused()
                && self.target_bytes.wait().is_zero()
                && self.target_commands.wait().is_zero())
    }

    /// Waits until the target may be sent something.
    pub(crate) async fn open(&self) {
        while !self.is_open() {
            let wait = self.target_bytes.wait().max(self.target_commands.wait());
            let wait = wait.clamp(Duration::from_millis(1), LOOK_AGAIN);
            tokio::select! {
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Whether the source may be read now.
    pub(crate) fn may_read(&self) -> bool {
        self.source_bytes.wait().is_zero()
    }

    /// The most bytes that are read at once, where there is a limit.
    pub(crate) fn read_bytes_max(&self) -> Option<u64> {
        match self.source_bytes.get() {
            0 => None,
            per_second => Some((per_second / 8).max(READ_BYTES_MIN)),
        }
    }

    /// Waits until it may be.
    pub(crate) async fn reading(&self) {
        while !self.may_read() {
            tokio::time::sleep(self.source_bytes.wait().min(LOOK_AGAIN)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept() {
        let limits = Limits::default();
        limits.target_bytes.set(1_000);
        let from = Instant::now();
        for _ in 0..100 {
            limits.open().await;
            limits.target_bytes.took(100);
        }
        limits.open().await;
        let took = from.elapsed();
        assert!((9_000..10_500).contains(&took.as_millis()), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_that_is_raised_holds_at_once() {
        let limits = std::sync::Arc::new(Limits::default());
        limits.target_commands.set(1);
        limits.target_commands.took(1_000_000);
        let waiting = tokio::spawn({
            let limits = limits.clone();
            async move { limits.open().await }
        });
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(!waiting.is_finished());
        limits.target_commands.set(0);
        let from = Instant::now();
        waiting.await.unwrap();
        assert!(from.elapsed() <= LOOK_AGAIN);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_goes_while_it_is_paused() {
        let limits = Limits::default();
        assert!(limits.is_open() && limits.may_read());
        limits.pause();
        assert!(!limits.is_open() && limits.may_read());
        let waited = tokio::time::timeout(Duration::from_secs(3600), limits.open()).await;
        assert!(waited.is_err());
        limits.resume();
        limits.open().await;
    }
}
