//! What the threads of a torture know of each other.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How soon a thread that waits looks up.
const LOOK_UP: Duration = Duration::from_millis(20);

/// Shared by all threads.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The round's faults are over.
    over: AtomicBool,
    faults: Mutex<BTreeMap<&'static str, u64>>,
    violations: Mutex<Vec<String>>,
    /// Address of the target that is the primary now.
    primary: Mutex<String>,
    /// Process id of the daemon; 0 while there is none.
    pub(super) daemon_pid: AtomicU32,
    /// The most memory that a daemon has had, bytes.
    pub(super) daemon_peak: AtomicU64,
}

impl Shared {
    /// Counts a fault that was injected.
    pub(super) fn fault(&self, name: &'static str) {
        *lock(&self.faults).entry(name).or_default() += 1;
    }

    /// How often each fault was injected.
    pub(super) fn faults(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.faults).clone()
    }

    /// Notes what must not be, and ends the round.
    pub(super) fn violation(&self, what: impl Into<String>) {
        let what = what.into();
        println!("VIOLATION: {what}");
        lock(&self.violations).push(what);
        self.end();
    }

    /// What must not be and was.
    pub(super) fn violations(&self) -> Vec<String> {
        lock(&self.violations).clone()
    }

    /// The address of the target that is the primary now.
    pub(super) fn primary(&self) -> String {
        lock(&self.primary).clone()
    }

    pub(super) fn set_primary(&self, address: &str) {
        *lock(&self.primary) = address.into();
    }

    /// A round begins.
    pub(super) fn begin(&self) {
        self.over.store(false, Ordering::SeqCst);
    }

    /// The round's faults end, as soon as their threads look up.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Sleeps; false when the round was over before.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let from = Instant::now();
        while from.elapsed() < time {
            if self.is_over() {
                return false;
            }
            std::thread::sleep(LOOK_UP.min(time.saturating_sub(from.elapsed())));
        }
        !self.is_over()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A thread that has panicked is a violation of its own; the rest is still to be told.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// So many milliseconds.
pub(super) fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}
