//! What the parts of a session share, all on one thread: the dirty set, the state of the subscriptions, and how often
//! something happened after which only a sweep makes sure.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use bytes::Bytes;
use replica::ReplId;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::dirty::{Dirty, Marked};
use super::events;
use super::hold::Hold;
use super::pace::Pace;
use crate::checkpoint::ScanAt;
use crate::compare::{Choice, Library, Name};
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::status::Status;

/// How long a subscription may take to answer PING.
const PONG_TIMEOUT: Duration = Duration::from_secs(3);
/// Where it never does, events that were published have this long to arrive.
const WITHOUT_PONG: Duration = Duration::from_millis(300);

/// What the parts of a session share.
pub(super) struct Shared<'a> {
    pub(super) config: &'a Config,
    pub(super) status: &'a Status,
    pub(super) choice: Choice<'a>,
    pub(super) dirty: RefCell<Dirty>,
    /// Something was marked.
    pub(super) marked: Notify,
    /// Something was confirmed by the target.
    pub(super) confirmed: Notify,
    pub(super) doubt: Doubt,
    pub(super) listeners: Listeners,
    pub(super) pace: Pace,
    /// What a switch-over wants.
    pub(super) hold: Hold,
    /// The source's process that is known to hold what it held: see [`super::origin::process`].
    pub(super) process: Cell<Option<ReplId>>,
    /// Whether events are wanted at all.
    pub(super) wants_events: bool,
    /// Libraries of functions that are to be put at the target.
    pub(super) libraries: RefCell<Vec<Library>>,
    /// Values that were never read whole in a single pass.
    pub(super) torn: RefCell<Vec<Name>>,
    /// Streams that were read, some of them.
    pub(super) streams: RefCell<BTreeSet<Name>>,
    next_stream: RefCell<Option<Name>>,
    /// So many streams are still to be read again.
    streams_owed: Cell<usize>,
    /// There are more streams than are remembered.
    has_more_streams: Cell<bool>,
    /// How far the sweep is, behind so many keys that it has marked.
    positions: RefCell<VecDeque<(u64, ScanAt)>>,
}

/// After so many connections in a row that came to nothing, a subscription is not waited for.
const LOSSES_MAX: u32 = 5;
/// Streams that are remembered.
const STREAMS_MAX: usize = 50_000;
/// Places of a sweep that are remembered.
const POSITIONS_MAX: usize = 64;

impl<'a> Shared<'a> {
    pub(super) fn new(
        config: &'a Config,
        status: &'a Status,
        servers: usize,
        wants_events: bool,
    ) -> Self {
        let share = usize::try_from(config.memory_bytes / 4).unwrap_or(usize::MAX);
        Self {
            config,
            status,
            choice: Choice::new(config, crate::config::WHOLE_PPM).of(&config.scan.dbs),
            dirty: RefCell::new(Dirty::new(share)),
            marked: Notify::new(),
            confirmed: Notify::new(),
            doubt: Doubt::default(),
            listeners: Listeners::new(if wants_events { servers } else { 0 }),
            pace: Pace::default(),
            hold: Hold::default(),
            process: Cell::default(),
            wants_events,
            libraries: RefCell::default(),
            torn: RefCell::default(),
            streams: RefCell::default(),
            next_stream: RefCell::default(),
            streams_owed: Cell::default(),
            has_more_streams: Cell::default(),
            positions: RefCell::default(),
        }
    }

    /// The end of a single pass.
    ///
    /// # Errors
    /// Stop where values may stand at the target as they never were.
    pub(super) fn torn_for_good(&self, source: &str) -> Result<(), SyncError> {
        let torn = self.torn.borrow();
        let Some((db, key)) = torn.first() else {
            return Ok(());
        };
        let what = format!(
            "{} large values were written each time they were read, the first of them \"{}\" (db {db}), and may stand at the target as they never were; all else is copied; stop who writes them, or follow the source (scan_reader.ksn = true), and start again",
            torn.len(),
            crate::rdb::names::printable(key),
        );
        Err(SyncError::stop(Side::Source, source, what))
    }

    /// This key is a stream.
    pub(super) fn note_stream(&self, name: &Name) {
        let mut streams = self.streams.borrow_mut();
        if streams.contains(name) {
            return;
        }
        if streams.len() < STREAMS_MAX {
            // A copy: a slice would keep the buffer that it was read into.
            streams.insert((name.0, Bytes::copy_from_slice(&name.1)));
        } else {
            self.has_more_streams.set(true);
        }
    }

    /// The groups of some stream have changed, and nobody tells of which: all have to be read again.
    pub(super) fn owe_streams(&self) {
        self.streams_owed.set(self.streams.borrow().len());
        if self.has_more_streams.get() {
            self.raise("groups");
        }
    }

    /// Marks up to so many of the streams that have to be read again, others each time.
    pub(super) fn mark_streams(&self, most: usize) {
        let most = most.min(self.streams_owed.get());
        if most == 0 {
            return;
        }
        let streams = self.streams.borrow();
        let after = self.next_stream.borrow_mut().take();
        let from = match &after {
            Some(name) => Bound::Excluded(name),
            None => Bound::Unbounded,
        };
        let some: Vec<&Name> = streams
            .range::<Name, _>((from, Bound::Unbounded))
            .take(most)
            .collect();
        let rest = streams.iter().take(most - some.len());
        let (mut last, mut marked) = (None, 0);
        let (mut dirty, now) = (self.dirty.borrow_mut(), Instant::now());
        for name in some.iter().copied().chain(rest) {
            // Those that do not fit have their turn later.
            if dirty.mark(name.0, &name.1, now) == Marked::Full {
                break;
            }
            (last, marked) = (Some(name), marked + 1);
        }
        *self.next_stream.borrow_mut() = last.cloned().or(after);
        // Some may be gone by now.
        let owed = self.streams_owed.get() - marked;
        self.streams_owed.set(owed.min(streams.len()));
        self.marked.notify_one();
    }

    /// The sweep has come to this place, and all keys before it are marked.
    pub(super) fn swept_to(&self, at: ScanAt) {
        let mut positions = self.positions.borrow_mut();
        if positions.len() < POSITIONS_MAX {
            positions.push_back((self.dirty.borrow().swept_marked(), at));
        }
    }

    /// How far the sweep is as far as its keys are confirmed by the target, if that is further than when it was asked
    /// last.
    pub(super) fn confirmed_position(&self) -> Option<ScanAt> {
        let (mut positions, mut found) = (self.positions.borrow_mut(), None);
        let done = self.dirty.borrow().swept_done();
        while let Some((marked, at)) = positions.front() {
            if *marked > done {
                break;
            }
            found = Some(*at);
            positions.pop_front();
        }
        found
    }

    /// Tells the status how the source is.
    pub(super) fn show_pace(&self) {
        self.status.scan.latency_us.set(self.pace.latency_us());
        self.status.scan.pace_percent.set(self.pace.percent());
    }

    /// What is subscribed to.
    pub(super) fn patterns(&self) -> Vec<String> {
        events::patterns(&self.config.scan.dbs)
    }

    /// Something happened after which only a sweep makes sure.
    pub(super) fn raise(&self, why: &'static str) {
        self.status.scan.is_clean.set(0);
        self.doubt.raise(why);
    }

    /// A changed key did not fit into the set.
    pub(super) fn overflowed(&self) {
        let overflows = &self.status.scan.overflows;
        if overflows.get() == 0 {
            tracing::warn!(
                keys = self.dirty.borrow().len(),
                "the set of changed keys is full (a quarter of limits.memory): keys that change now are left to the next sweep"
            );
        }
        overflows.add(1);
        self.raise("overflow");
    }

    /// The source's keys, or those of a database, have gone, or changed places with others.
    pub(super) fn flushed(&self, why: &'static str) {
        self.doubt.has_flushed.set(true);
        self.raise(why);
    }

    /// Tells the status how many keys wait, and since when.
    pub(super) fn show_dirty(&self) {
        let dirty = self.dirty.borrow();
        let waiting = dirty.len() + self.streams_owed.get();
        self.status.scan.dirty.set(waiting as u64);
        let since_ms = dirty.oldest().map_or(0, |at| {
            let age = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
            crate::clock::unix_ms().saturating_sub(age)
        });
        self.status.oldest_unapplied_ms.set(since_ms);
    }
}

/// How often something happened that events do not tell of.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    count: Cell<u64>,
    raised: Notify,
    /// Keys may have gone in masses: the target's are looked through first.
    has_flushed: Cell<bool>,
}

impl Doubt {
    /// It happened again.
    fn raise(&self, why: &'static str) {
        tracing::debug!(why, "only a sweep makes sure now");
        self.count.set(self.count.get() + 1);
        self.raised.notify_waiters();
    }

    /// Whether they have, since it was asked last.
    pub(super) fn take_flushed(&self) -> bool {
        self.has_flushed.take()
    }

    /// How often so far.
    pub(super) fn count(&self) -> u64 {
        self.count.get()
    }

    /// Waits until it happens again.
    pub(super) async fn beyond(&self, count: u64) {
        loop {
            let raised = self.raised.notified();
            if self.count.get() != count {
                return;
            }
            raised.await;
        }
    }
}

/// The state of one subscription.
#[derive(Debug, Default)]
struct Listener {
    is_on: Cell<bool>,
    /// It has come to something, one way or the other.
    is_settled: Cell<bool>,
    refused: RefCell<Option<String>>,
    /// Connections in a row on which it did not come to stand.
    losses: Cell<u32>,
    asked: Notify,
    pings: Cell<u64>,
    pongs: Cell<u64>,
    /// None as long as it is not known.
    answers_pings: Cell<Option<bool>>,
    /// Counts connections.
    epoch: Cell<u64>,
}

/// The subscriptions of all servers of the source.
#[derive(Debug)]
pub(super) struct Listeners {
    each: Vec<Listener>,
    changed: Notify,
}

impl Listeners {
    fn new(count: usize) -> Self {
        Self {
            each: (0..count).map(|_| Listener::default()).collect(),
            changed: Notify::new(),
        }
    }

    fn with<T>(&self, place: usize, default: T, of: impl FnOnce(&Listener) -> T) -> T {
        self.each.get(place).map_or(default, of)
    }

    /// The subscription stands; gives whether that was known to be otherwise before.
    pub(super) fn on(&self, place: usize) -> bool {
        let was_settled = self.with(place, false, |one| {
            one.is_on.set(true);
            let was_settled = one.is_settled.replace(true);
            one.pings.set(0);
            one.pongs.set(0);
            one.epoch.set(one.epoch.get() + 1);
            one.refused.take();
            one.losses.set(0);
            was_settled
        });
        self.changed.notify_waiters();
        was_settled
    }

    /// It is not allowed.
    pub(super) fn refused(&self, place: usize, text: &str) {
        self.with(place, (), |one| {
            one.is_on.set(false);
            one.is_settled.set(true);
            let before = one.refused.replace(Some(text.to_owned()));
            if before.as_deref() != Some(text) {
                tracing::warn!(
                    reply = text,
                    "the source refuses PSUBSCRIBE: changes are found by sweeps alone; for an ACL user: +psubscribe +ping allchannels"
                );
            }
        });
        self.changed.notify_waiters();
    }

    /// The connection is gone, or did not come about.
    pub(super) fn lost(&self, place: usize, error: &SyncError) {
        self.with(place, (), |one| {
            if one.is_on.replace(false) {
                return;
            }
            one.losses.set(one.losses.get().saturating_add(1));
            if one.losses.get() >= LOSSES_MAX && !one.is_settled.replace(true) {
                tracing::warn!(
                    %error,
                    attempts = LOSSES_MAX,
                    "no subscription to keyspace events comes to stand: changes are found by sweeps alone, and it is tried again all the time; if a proxy stands in between that does not know PSUBSCRIBE, give the server's own address; if the source has no room for another client, raise maxclients there"
                );
            }
        });
        self.changed.notify_waiters();
    }

    pub(super) fn is_on(&self, place: usize) -> bool {
        self.with(place, false, |one| one.is_on.get())
    }

    /// Whether all of them stand.
    pub(super) fn are_on(&self) -> bool {
        !self.each.is_empty() && self.each.iter().all(|one| one.is_on.get())
    }

    /// Why one of them does not, if that is known.
    pub(super) fn refusal(&self) -> Option<String> {
        self.each
            .iter()
            .find_map(|one| one.refused.borrow().clone())
    }

    /// Waits until each has come to something.
    pub(super) async fn settled(&self) {
        loop {
            let changed = self.changed.notified();
            if self.each.iter().all(|one| one.is_settled.get()) {
                return;
            }
            changed.await;
        }
    }

    /// Waits until all of them stand.
    pub(super) async fn stand(&self) {
        loop {
            let changed = self.changed.notified();
            if self.are_on() {
                return;
            }
            changed.await;
        }
    }

    pub(super) async fn asked(&self, place: usize) {
        match self.each.get(place) {
            Some(one) => one.asked.notified().await,
            None => std::future::pending().await,
        }
    }

    pub(super) fn pinged(&self, place: usize) {
        self.with(place, (), |one| one.pings.set(one.pings.get() + 1));
        self.changed.notify_waiters();
    }

    pub(super) fn ponged(&self, place: usize) {
        self.with(place, (), |one| {
            one.pongs.set(one.pongs.get() + 1);
            one.answers_pings.set(Some(true));
        });
        self.changed.notify_waiters();
    }

    pub(super) fn answers_pings(&self, place: usize) -> bool {
        self.with(place, false, |one| one.answers_pings.get() == Some(true))
    }

    /// Waits until every event that was published before this is in the dirty set; false where nobody listens, or not all
    /// the time.
    pub(super) async fn barrier(&self) -> bool {
        if !self.are_on() {
            return false;
        }
        for one in &self.each {
            if !self.barrier_of(one).await {
                return false;
            }
        }
        true
    }

    async fn barrier_of(&self, one: &Listener) -> bool {
        if one.answers_pings.get() == Some(false) {
            tokio::time::sleep(WITHOUT_PONG).await;
            return one.is_on.get();
        }
        let (epoch, pings) = (one.epoch.get(), one.pings.get());
        one.asked.notify_one();
        let answered = async {
            // One that was sent after this was asked for.
            let mut ours = None;
            loop {
                let changed = self.changed.notified();
                if one.epoch.get() != epoch || !one.is_on.get() {
                    return false;
                }
                if ours.is_none() && one.pings.get() > pings {
                    ours = Some(one.pings.get());
                }
                if ours.is_some_and(|ours| one.pongs.get() >= ours) {
                    return true;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(PONG_TIMEOUT, answered).await {
            Ok(answered) => answered,
            // It does answer, and has not: what was published before may still be on its way.
            Err(_) if one.answers_pings.get() == Some(true) => false,
            Err(_) => {
                one.answers_pings.set(Some(false));
                one.is_on.get()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_barrier_waits_for_a_pong_that_was_asked_for_behind_it() {
        let listeners = Listeners::new(1);
        assert!(!listeners.barrier().await);
        listeners.on(0);
        // A PING of before, still unanswered.
        listeners.pinged(0);
        let answer = async {
            listeners.asked(0).await;
            listeners.pinged(0);
            listeners.ponged(0);
            tokio::task::yield_now().await;
            assert_eq!(listeners.with(0, 0, |one| one.pongs.get()), 1);
            listeners.ponged(0);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            reached = listeners.barrier() => assert!(reached),
            () = answer => {}
        }
        assert!(listeners.answers_pings(0));
        let lose = async {
            tokio::time::sleep(Duration::from_millis(1)).await;
            listeners.lost(0, &lost());
            std::future::pending::<()>().await;
        };
        tokio::select! {
            reached = listeners.barrier() => assert!(!reached),
            () = lose => {}
        }
    }

    fn lost() -> SyncError {
        SyncError::reconnect(Side::Source, "a:1", "the server closed")
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscription_that_never_stands_is_not_waited_for_but_taken_when_it_does() {
        let listeners = Listeners::new(1);
        for _ in 1..LOSSES_MAX {
            listeners.lost(0, &lost());
        }
        let early = tokio::time::timeout(Duration::from_secs(60), listeners.settled()).await;
        assert!(early.is_err());
        listeners.lost(0, &lost());
        listeners.settled().await;
        assert!(!listeners.are_on() && listeners.refusal().is_none());
        // Whatever was swept meanwhile has to be looked at again.
        assert!(listeners.on(0) && listeners.are_on());
    }

    #[tokio::test(start_paused = true)]
    async fn all_streams_are_read_again_whichever_has_changed() {
        let text =
            "[scan_reader]\naddress = \"a:1\"\nksn = true\n[redis_writer]\naddress = \"b:1\"\n";
        let config = Config::parse(std::path::Path::new("shake.toml"), text).unwrap();
        let status = Status::default();
        let shared = Shared::new(&config, &status, 1, true);
        let name = |n: u32| (n % 2, Bytes::from(format!("stream:{n}")));
        (0..1200).for_each(|n| shared.note_stream(&name(n)));
        let take = || {
            let works = shared.dirty.borrow_mut().take(usize::MAX, Instant::now());
            shared.dirty.borrow_mut().done(&works);
            works.into_iter().map(|work| work.name)
        };
        shared.mark_streams(500);
        assert_eq!(take().count(), 0);
        // One XACK, and nothing more: three looks later every stream was read, each of them once.
        shared.owe_streams();
        let mut read = Vec::new();
        for expected in [500, 500, 200, 0] {
            shared.show_dirty();
            let owed = 1200 - read.len() as u64;
            assert_eq!(status.scan.dirty.get(), owed);
            shared.mark_streams(500);
            let before = read.len();
            read.extend(take());
            assert_eq!(read.len() - before, expected);
        }
        let all: BTreeSet<Name> = read.iter().cloned().collect();
        assert_eq!((read.len(), all.len()), (1200, 1200));
        // Another one in the midst of that begins the round anew, where it is.
        shared.owe_streams();
        shared.mark_streams(500);
        shared.owe_streams();
        (0..3).for_each(|_| shared.mark_streams(500));
        let read: BTreeSet<Name> = take().collect();
        assert_eq!(read, all);
        assert_eq!(shared.doubt.count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_answers_pings_is_given_time() {
        let listeners = Listeners::new(1);
        listeners.on(0);
        assert!(listeners.barrier().await && !listeners.answers_pings(0));
        let from = tokio::time::Instant::now();
        assert!(listeners.barrier().await);
        assert_eq!(from.elapsed(), WITHOUT_PONG);
    }
}
