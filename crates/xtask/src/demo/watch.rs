//! Looks at both ends while the daemon works: a line of progress, and the highest lag.

use std::time::{Duration, Instant};

use testkit::Client;

use super::daemon::{Daemon, Status};
use super::load::Load;
use super::screen::Screen;
use super::source_offset;
use crate::text::{bytes, count, seconds};

const PAUSE: Duration = Duration::from_millis(50);
/// Less lag than this is none to speak of: what is written in a few milliseconds.
const LITTLE_LAG: Duration = Duration::from_millis(100);
/// Writes a second are a mean over this.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// One look.
pub(super) struct At {
    pub(super) keys: u64,
    pub(super) snapshot_bytes: u64,
    phase: String,
    ready: bool,
    lag: Duration,
    behind: u64,
}

impl At {
    pub(super) fn is_streaming(&self) -> bool {
        self.phase == "stream"
    }

    /// Nothing old waits, and what the source has written since is little.
    pub(super) fn is_caught_up(&self) -> bool {
        self.is_streaming() && self.ready && self.lag < LITTLE_LAG && self.behind < 1 << 20
    }
}

/// How far the target is behind.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Lag {
    /// Age of the oldest write that is received and not yet applied.
    pub(super) time: Duration,
    /// From what is applied to the end of what the source has written.
    pub(super) bytes: u64,
}

/// Looks on.
pub(super) struct Watch<'a> {
    screen: &'a Screen,
    source: Client,
    load: &'a Load,
    keys: u64,
    /// Counts only once the stream has caught up.
    highest_lag: Lag,
    caught_up: bool,
    rate: Rate,
    line: String,
}

impl<'a> Watch<'a> {
    /// `keys` are all there are at the source, for the percentage.
    pub(super) fn new(screen: &'a Screen, source: Client, load: &'a Load, keys: u64) -> Self {
        Self {
            screen,
            source,
            load,
            keys,
            highest_lag: Lag::default(),
            caught_up: false,
            rate: Rate::new(load.written()),
            line: String::new(),
        }
    }

    pub(super) fn header(&self) {
        let cells = [
            "phase", "done", "keys", "offset", "behind", "lag", "writes/s",
        ];
        self.screen.columns(&row(cells));
    }

    /// Ends the line of progress with what is true now.
    pub(super) fn settle(&mut self) {
        if !self.line.is_empty() {
            self.screen.last(&std::mem::take(&mut self.line));
        }
    }

    pub(super) fn highest_lag(&self) -> Lag {
        self.highest_lag
    }

    /// Looks until `done`; an error when the daemon ends, or after `limit`.
    pub(super) fn until(
        &mut self,
        what: &str,
        limit: Duration,
        daemon: &mut Daemon,
        done: impl Fn(&At) -> bool,
    ) -> Result<At, String> {
        self.caught_up = false;
        let from = Instant::now();
        loop {
            if let Some(at) = self.look(daemon)?
                && done(&at)
            {
                self.settle();
                return Ok(at);
            }
            if from.elapsed() > limit {
                let waited = seconds(limit);
                return Err(format!("waited {waited} for {what}\n{}", daemon.log_tail()));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Looks for this long, in a stream that has caught up.
    pub(super) fn go_on(&mut self, time: Duration, daemon: &mut Daemon) -> Result<(), String> {
        self.caught_up = true;
        let from = Instant::now();
        while from.elapsed() < time {
            self.look(daemon)?;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Looks at the source alone, while there is no daemon.
    pub(super) fn alone(&mut self, time: Duration) {
        let from = Instant::now();
        while from.elapsed() < time {
            let offset = source_offset(&mut self.source);
            let writes = self.rate.per_second(self.load.written());
            let offset = count(offset);
            self.line = row(["killed", "", "", &offset, "", "", &count(writes)]);
            self.screen.live(&self.line);
            std::thread::sleep(PAUSE);
        }
        self.settle();
    }

    /// `None` while the daemon does not answer.
    fn look(&mut self, daemon: &mut Daemon) -> Result<Option<At>, String> {
        daemon.check()?;
        let writes = self.rate.per_second(self.load.written());
        let Some(status) = daemon.status() else {
            return Ok(None);
        };
        // Asked after the daemon, so that what is behind is rather too much than too little.
        let offset = source_offset(&mut self.source);
        let at = At {
            keys: status.keys,
            snapshot_bytes: status.snapshot_bytes,
            behind: offset.saturating_sub(status.applied_offset),
            lag: status.lag,
            ready: status.ready,
            phase: status.phase.clone(),
        };
        if self.caught_up && at.is_streaming() {
            self.highest_lag.time = self.highest_lag.time.max(at.lag);
            self.highest_lag.bytes = self.highest_lag.bytes.max(at.behind);
        }
        self.line = self.row_of(&status, &at, offset, writes);
        self.screen.live(&self.line);
        Ok(Some(at))
    }

    fn row_of(&self, status: &Status, at: &At, offset: u64, writes: u64) -> String {
        let writes = count(writes);
        if at.is_streaming() {
            let offset = count(offset);
            let (behind, lag) = (bytes(at.behind), seconds(at.lag));
            return row(["stream", "", "", &offset, &behind, &lag, &writes]);
        }
        // Keys that die on the way are never counted: 100 is for the stream.
        let percent = (status.keys * 100 / self.keys.max(1)).min(99);
        let (percent, keys) = (format!("{percent} %"), count(status.keys));
        row([
            &status.phase,
            &percent,
            &keys,
            &count(offset),
            "",
            "",
            &writes,
        ])
    }
}

fn row(cells: [&str; 7]) -> String {
    let [phase, done, keys, offset, behind, lag, writes] = cells;
    format!("{phase:<14} {done:>5} {keys:>9} {offset:>13} {behind:>9} {lag:>8} {writes:>9}")
}

/// Counts a second, over the last [`RATE_WINDOW`].
struct Rate {
    at: Instant,
    count: u64,
    per_second: u64,
}

impl Rate {
    fn new(count: u64) -> Self {
        Self {
            at: Instant::now(),
            count,
            per_second: 0,
        }
    }

    fn per_second(&mut self, count: u64) -> u64 {
        let passed = self.at.elapsed();
        if passed >= RATE_WINDOW || self.per_second == 0 {
            let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX).max(1);
            self.per_second = count.saturating_sub(self.count) * 1000 / millis;
        }
        if passed >= RATE_WINDOW {
            (self.at, self.count) = (Instant::now(), count);
        }
        self.per_second
    }
}
