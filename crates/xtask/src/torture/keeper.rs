//! Keeps the daemon running, and kills it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use testkit::{Daemon, Rng};

use super::shared::{Shared, ms};

/// The longest that a daemon lives.
const LIFE_MS: u64 = 3000;
/// How many attempts it makes at the first contact.
const ATTEMPTS: usize = 6;

/// The daemon, and a second one for the same link.
pub(super) struct Keeper {
    pub(super) daemon: Daemon,
    pub(super) other: Daemon,
    /// How much of the daemon's output was there when it was started last.
    started_at: usize,
}

impl Keeper {
    pub(super) fn new(daemon: Daemon, other: Daemon) -> Self {
        Self {
            daemon,
            other,
            started_at: 0,
        }
    }

    /// Kills and starts until the round is over; then it runs.
    pub(super) fn suffer(&mut self, shared: &Shared, mut rng: Rng) {
        loop {
            let life = ms(rng.within(150..LIFE_MS));
            if !self.live(shared, life) {
                break;
            }
            if rng.one_in(12) {
                self.be_two(shared, &mut rng);
                continue;
            }
            shared.fault("daemon: kill -9");
            self.daemon.kill();
            shared.daemon_pid.store(0, Ordering::SeqCst);
            let down = *rng.pick(&[0, 0, 0, 500, 2000]);
            shared.sleep(ms(rng.below(down + 1)));
            self.start(shared);
        }
    }

    pub(super) fn start(&mut self, shared: &Shared) {
        self.started_at = self.daemon.output().len();
        self.daemon.spawn();
        shared.daemon_pid.store(self.daemon.pid(), Ordering::SeqCst);
    }

    /// Waits; false when the round is over. A daemon that has ended by itself is looked at and started again.
    pub(super) fn live(&mut self, shared: &Shared, life: Duration) -> bool {
        let from = std::time::Instant::now();
        while from.elapsed() < life {
            if !self.daemon.is_running() {
                self.judge_end(shared, false);
                shared.sleep(ms(300));
                self.start(shared);
            }
            if !shared.sleep(ms(20)) {
                return false;
            }
        }
        true
    }

    /// Only the first contact may be given up, and only by name; or another one has taken over.
    pub(super) fn judge_end(&mut self, shared: &Shared, may_be_fenced: bool) {
        let code = self.daemon.wait(Duration::from_secs(5));
        let output = self.daemon.output();
        let life = output.get(self.started_at..).unwrap_or(&output);
        let error = life.lines().rev().find(|line| line.starts_with("error:"));
        let attempts = life.matches("no contact yet").count();
        let contact_given_up = matches!(code, 3 | 4) && attempts + 1 >= ATTEMPTS;
        let fenced = may_be_fenced && code == 4 && life.contains("another understudy");
        if contact_given_up {
            shared.fault("daemon: (gave up the first contact)");
        } else if !fenced {
            let error = error.unwrap_or("no error line");
            shared.violation(format!("the daemon ended by itself, code {code}: {error}"));
        }
    }

    /// A second daemon takes the link over for a while; then the first one has it again.
    fn be_two(&mut self, shared: &Shared, rng: &mut Rng) {
        shared.fault("daemon: two of them on one link");
        self.other.spawn();
        shared.sleep(ms(rng.within(100..LIFE_MS)));
        self.other.kill();
        if self.daemon.is_running() {
            self.daemon.kill();
        } else {
            self.judge_end(shared, true);
        }
        self.start(shared);
    }
}
