//! How old the stream is where it is applied: marks of the source's offset, with the time at which they were read.
//!
//! What lies behind a mark in the stream was done at the source after the mark was read. Commands that are late, because
//! we were away or the target was, find a target that has had time to end keys which they count on: see
//! [`super::stream::late`].

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use replica::ReplId;
use tokio::time::Instant;

use super::lease::WINDOW_MS;
use crate::client::{Client, Info};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::spool::Feed;
use crate::status::Status;

/// Between two marks.
const EVERY: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(500);
/// Between two words about what is late.
const TOLD: Duration = Duration::from_secs(60);
/// What was done this long ago is late.
const LATE: Duration = Duration::from_secs(2);
/// Behind a snapshot nothing with an expiry of its own has ended for so long: what would have has a lease.
const GRACE: Duration = Duration::from_millis(WINDOW_MS as u64 / 10 * 9);

/// The marks of a link.
#[derive(Debug, Default)]
pub(crate) struct Tide {
    /// The oldest first.
    marks: RefCell<VecDeque<(Instant, u64)>>,
    /// The source does not tell its offset: nothing is known to be late.
    is_blind: Cell<bool>,
    /// The stream behind a snapshot is not late before this.
    grace_until: Cell<Option<Instant>>,
    /// By so many milliseconds the target's clock is ahead, where that is so much that whatever comes is late for it.
    ahead_ms: Cell<i64>,
    /// The stream is no live source's: how old it is says nothing.
    is_recording: bool,
    /// When it was last said what comes of what is late.
    told: Cell<Option<Instant>>,
    /// Keys could be read at the source once.
    pub(super) can_read: Cell<bool>,
    pub(super) pace: RefCell<Pace>,
}

/// How slow the target was with the last units.
#[derive(Debug, Default)]
pub(super) struct Pace(VecDeque<(Duration, u64)>);

impl Pace {
    /// So many units are remembered.
    const UNITS: usize = 16;
    /// A unit of at least so many bytes shows how many the target takes in a second;
    const TELLING_BYTES: u64 = 64 << 10;
    /// until one has, it is this.
    const BYTES_PER_SECOND: u64 = 4 << 20;
    /// What has no more than this left may end before any unit arrives.
    const MARGIN: Duration = Duration::from_secs(2);

    /// A unit of so many bytes was answered after so long.
    pub(super) fn note(&mut self, took: Duration, bytes: u64) {
        if self.0.len() >= Self::UNITS {
            self.0.pop_front();
        }
        self.0.push_back((took, bytes));
    }

    /// What has no more than this left may end before a unit of so many bytes is carried out: twice what the slowest of the
    /// last ones lets expect.
    pub(super) fn margin(&self, bytes: u64) -> Duration {
        let slowest = self.0.iter().map(|(took, _)| *took).max();
        let speeds = self.0.iter().filter_map(|(took, bytes)| {
            let took_ms = u64::try_from(took.as_millis()).ok().filter(|ms| *ms > 0)?;
            (*bytes >= Self::TELLING_BYTES).then(|| bytes.saturating_mul(1000) / took_ms)
        });
        let speed = speeds.min().unwrap_or(u64::MAX);
        let speed = speed.clamp(1, Self::BYTES_PER_SECOND);
        let by_size = Duration::from_millis(bytes.saturating_mul(1000) / speed);
        Self::MARGIN + (slowest.unwrap_or_default() + by_size) * 2
    }
}

impl Tide {
    /// Of a stream that is no live source's.
    pub(crate) fn of_a_recording() -> Self {
        Self {
            is_recording: true,
            ..Self::default()
        }
    }

    /// Whether the stream is no live source's.
    pub(super) fn is_recording(&self) -> bool {
        self.is_recording
    }

    /// A stream begins: behind a snapshot whose first key was written at `snapshot_from`, or at a checkpoint.
    pub(crate) fn begin(&self, snapshot_from: Option<Instant>) {
        self.marks.borrow_mut().clear();
        self.is_blind.set(false);
        self.grace_until.set(snapshot_from.map(|from| from + GRACE));
    }

    /// Whether what begins at this offset of the stream may have been done at the source long ago.
    pub(super) fn is_late(&self, offset: u64) -> bool {
        let mut marks = self.marks.borrow_mut();
        while marks
            .front()
            .is_some_and(|(read, _)| read.elapsed() >= LATE)
        {
            marks.pop_front();
        }
        let is_recent = marks.front().is_some_and(|(_, mark)| *mark <= offset);
        if self.is_blind.get() || is_recent {
            self.end_grace();
            return false;
        }
        !self.is_in_grace()
    }

    /// Whether the target ends keys well before the source does, by its clock.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead_ms.get() > 0
    }

    /// By how much, where it does: then leases begin so much earlier.
    pub(super) fn ahead_ms(&self) -> i64 {
        self.ahead_ms.get()
    }

    /// The clocks were compared.
    pub(super) fn set_ahead(&self, ahead_ms: i64) {
        self.ahead_ms.set(ahead_ms);
    }

    /// Whether it is time to say something about what is late: once a minute.
    pub(super) fn may_tell(&self) -> bool {
        let has_told = self.told.get().is_some_and(|told| told.elapsed() < TOLD);
        if !has_told {
            self.told.set(Some(Instant::now()));
        }
        !has_told
    }

    /// Whether nothing with an expiry of its own has ended since the snapshot.
    pub(super) fn is_in_grace(&self) -> bool {
        let until = self.grace_until.get();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Whether the stream behind a snapshot has not caught up yet.
    pub(super) fn has_grace(&self) -> bool {
        self.grace_until.get().is_some()
    }

    /// The stream has caught up.
    pub(super) fn end_grace(&self) {
        self.grace_until.set(None);
    }

    fn note(&self, read: Instant, offset: u64) {
        self.marks.borrow_mut().push_back((read, offset));
    }
}

/// Reads marks as long as the link runs.
pub(crate) async fn read_marks_forever(
    config: &Config,
    status: &Status,
    feed: &Feed,
    tide: &Tide,
) -> Infallible {
    loop {
        if let Err(error) = read_marks(config, status, feed, tide).await {
            tracing::debug!(%error, "the source's offset is read later");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn read_marks(
    config: &Config,
    status: &Status,
    feed: &Feed,
    tide: &Tide,
) -> Result<(), SyncError> {
    let mut source = Client::connect(&config.source.endpoint, Side::Source).await?;
    // Before 4.0 a history has the name of the run.
    let run_id = source.info("server").await.ok();
    let run_id = run_id.and_then(|info| info.get("run_id").map(str::to_owned));
    loop {
        let asked = Instant::now();
        let reply = source.ask(&[b"INFO", b"replication"]).await?;
        let info = reply.as_bytes().map(|text| Info::of(text));
        let told = info.as_ref().and_then(|info| {
            let replid = info.get("master_replid").or(run_id.as_deref());
            let replid: ReplId = replid?.parse().ok()?;
            let offset: u64 = info.get("master_repl_offset")?.parse().ok()?;
            Some((replid, offset))
        });
        match told {
            Some((replid, offset)) if replid == feed.with_log(|log| log.replid()) => {
                tide.note(asked, offset);
                status.source_heard_ms.set(unix_ms());
                if feed.applied() >= offset {
                    tide.end_grace();
                }
            }
            // Another history: the receiver will hear of it.
            Some(_) => {}
            None if !tide.is_blind.replace(true) => tracing::warn!(
                "the source does not tell its offset (INFO replication): keys that the target ends during an outage are not looked for"
            ),
            None => {}
        }
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_margin_grows_with_the_unit_and_with_what_the_last_ones_took() {
        let seconds = Duration::from_secs;
        let mut pace = Pace::default();
        assert_eq!(pace.margin(0), seconds(2));
        assert_eq!(pace.margin(40 << 20), seconds(22));
        pace.note(seconds(3), 10);
        assert_eq!(pace.margin(0), seconds(8));
        pace.note(seconds(4), 4 << 20);
        assert_eq!(pace.margin(2 << 20), seconds(2 + 8 + 4));
        for _ in 0..Pace::UNITS {
            pace.note(Duration::ZERO, 1 << 20);
        }
        assert_eq!(pace.margin(4 << 20), seconds(4));
        assert!(pace.margin(u64::MAX) > seconds(1 << 30));
    }

    #[tokio::test(start_paused = true)]
    async fn late_is_what_no_fresh_mark_lies_before() {
        let tide = Tide::default();
        assert!(tide.is_late(u64::MAX));
        tide.note(Instant::now(), 100);
        assert!(tide.is_late(99) && !tide.is_late(100));
        tokio::time::advance(LATE / 2).await;
        tide.note(Instant::now(), 200);
        assert!(
            !tide.is_late(100),
            "done after the first mark, a second ago"
        );
        tokio::time::advance(LATE / 2).await;
        assert!(tide.is_late(199) && !tide.is_late(200));
        tide.begin(None);
        assert!(tide.is_late(200));
    }

    #[tokio::test(start_paused = true)]
    async fn behind_a_snapshot_nothing_is_late_until_leases_end() {
        let tide = Tide::default();
        tide.begin(Some(Instant::now()));
        assert!(!tide.is_late(5));
        tokio::time::advance(GRACE).await;
        assert!(tide.is_late(5));
        tide.begin(Some(Instant::now()));
        tide.note(Instant::now(), 5);
        assert!(tide.has_grace() && !tide.is_late(5) && !tide.has_grace());
        tokio::time::advance(LATE).await;
        assert!(tide.is_late(5), "it had caught up");
    }
}
