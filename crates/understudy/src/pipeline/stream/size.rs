//! How many commands go into a unit.
//!
//! A unit has to be so long that the wait for its replies hardly shows, and should be no longer: the words of all its
//! commands wait in the target's memory for EXEC, and those of a short unit are still in its processor's cache by then. So
//! it depends on how far away the target is, for which the quickest answer so far stands.

use std::time::Duration;

/// Not fewer, however near the target is. And no more on a near one: a thread of the target's allocator (jemalloc, as servers come) has up to 200
/// free blocks of a size at hand, and what a longer unit takes and gives back has to go through what all threads share.
const LEAST: usize = 192;
/// A target carries out a simple command in about a microsecond: then waiting costs a quarter at most.
const PER_MICROSECOND: usize = 3;
/// With more than this to be collected as much as may be goes into a turn, until this is worked off: it costs the target more, and
/// is what brings us up again. Before a target that is not near, where turns are what lacks, sooner than before a near one.
const BEHIND_BYTES: u64 = 512 << 10;
const NEAR_BEHIND_BYTES: u64 = 4 << 20;

/// What is known of the way to the target, and what follows from it.
#[derive(Debug)]
pub(super) struct Size {
    most: usize,
    quickest: Duration,
    commands: usize,
    is_behind: bool,
}

impl Size {
    /// For a target that took `round_trip` to answer; `most` is what the configuration allows.
    pub(super) fn new(most: usize, round_trip: Duration) -> Self {
        Self {
            most,
            quickest: round_trip,
            commands: commands(round_trip, most),
            is_behind: false,
        }
    }

    /// So many bytes of the stream wait to be collected.
    pub(super) fn waiting(&mut self, bytes: u64) {
        let limit = match self.commands > LEAST {
            true => BEHIND_BYTES,
            false => NEAR_BEHIND_BYTES,
        };
        self.is_behind = bytes > limit;
    }

    /// A unit was answered after so long.
    pub(super) fn took(&mut self, took: Duration) {
        if took < self.quickest {
            self.quickest = took;
            self.commands = commands(took, self.most);
        }
    }

    /// Most commands in the next unit.
    pub(super) fn commands(&self) -> usize {
        if self.is_behind {
            self.most
        } else {
            self.commands
        }
    }
}

fn commands(quickest: Duration, most: usize) -> usize {
    let microseconds = usize::try_from(quickest.as_micros()).unwrap_or(usize::MAX);
    let wanted = microseconds.saturating_mul(PER_MICROSECOND);
    wanted.max(LEAST).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearer_the_target_the_shorter_the_unit() {
        let mut size = Size::new(1_024, Duration::from_millis(3));
        assert_eq!(size.commands(), 1_024);
        size.took(Duration::from_micros(150));
        size.took(Duration::from_millis(9));
        assert_eq!(size.commands(), 450);
        size.waiting(BEHIND_BYTES + 1);
        assert_eq!(size.commands(), 1_024, "all at once where much waits");
        size.waiting(BEHIND_BYTES);
        assert_eq!(size.commands(), 450);
        size.took(Duration::ZERO);
        assert_eq!(size.commands(), LEAST);
        size.waiting(NEAR_BEHIND_BYTES);
        assert_eq!(size.commands(), LEAST, "a near target has the short ones");
        size.waiting(NEAR_BEHIND_BYTES + 1);
        assert_eq!(size.commands(), 1_024);
        let size = Size::new(10, Duration::from_secs(9));
        assert_eq!(size.commands(), 10, "no more than is allowed");
    }
}
