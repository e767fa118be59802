//! The dirty set: keys that have to be read at the source and put at the target.
//!
//! It is a set and no queue of changes: a key that was marked ten times is read once. Marks come from events, which go
//! first as long as a sweep's get their share, and from sweeps. A key that is marked while it is being worked on is read
//! once more. Memory is bounded by the keys' count and bytes; what does not fit is left to the next sweep.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::compare::Name;

/// About what a key takes here beside its own bytes: it stands in a set and in a queue.
const KEY_BYTES: usize = 160;
/// A sweep waits while so many of its keys do.
const SWEPT_MAX: usize = 4096;
/// Of a lot, what a sweep's keys get while events have more.
const SWEPT_SHARE: usize = 4;

/// What came of marking a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Marked {
    New,
    /// It was there already.
    Again,
    /// There is no room.
    Full,
}

/// Keys of one origin, in order.
#[derive(Debug, Default)]
struct Queue {
    order: VecDeque<(Name, Instant)>,
    /// Those of `order` that are still wanted.
    names: HashSet<Name>,
}

impl Queue {
    fn push(&mut self, name: Name, at: Instant) -> bool {
        let is_new = self.names.insert(name.clone());
        if is_new {
            self.order.push_back((name, at));
        }
        is_new
    }

    fn push_front(&mut self, name: Name, at: Instant) {
        if self.names.insert(name.clone()) {
            self.order.push_front((name, at));
        }
    }

    /// The next one; entries that are no longer wanted are passed over.
    fn pop(&mut self) -> Option<(Name, Instant)> {
        while let Some((name, at)) = self.order.pop_front() {
            if self.names.remove(&name) {
                return Some((name, at));
            }
        }
        None
    }

    fn oldest(&self) -> Option<Instant> {
        let mut order = self.order.iter();
        order.find_map(|(name, at)| self.names.contains(name).then_some(*at))
    }
}

/// A key that is being worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) name: Name,
    /// When it was marked.
    pub(super) at: Instant,
    is_swept: bool,
}

/// The set.
#[derive(Debug)]
pub(super) struct Dirty {
    events: Queue,
    swept: Queue,
    bytes: usize,
    bytes_max: usize,
    /// Taken and not yet confirmed by the target; since when an event has waited for it.
    in_work: HashMap<Name, Option<Instant>>,
    /// Keys that were worked on since somebody wanted to know.
    recent: Option<HashSet<Name>>,
    /// Large keys that were read a moment ago, and when they may be read again.
    resting: HashMap<Name, Instant>,
    /// How many keys of sweeps were marked, and how many of those are done.
    swept_marked: u64,
    swept_done: u64,
}

impl Dirty {
    /// One that takes about so much memory at most.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            events: Queue::default(),
            swept: Queue::default(),
            bytes: 0,
            bytes_max,
            in_work: HashMap::new(),
            recent: None,
            resting: HashMap::new(),
            swept_marked: 0,
            swept_done: 0,
        }
    }

    /// An event has named this key.
    pub(super) fn mark(&mut self, db: u32, key: &[u8], now: Instant) -> Marked {
        // A copy: a slice would keep the buffer that it was read into.
        let name = (db, Bytes::copy_from_slice(key));
        if self.events.names.contains(&name) {
            return Marked::Again;
        }
        if self.bytes + KEY_BYTES + key.len() > self.bytes_max {
            return Marked::Full;
        }
        self.bytes += KEY_BYTES + key.len();
        self.events.push(name, now);
        Marked::New
    }

    /// A sweep has found this key.
    pub(super) fn mark_swept(&mut self, (db, key): &Name, now: Instant) {
        let name = (*db, Bytes::copy_from_slice(key));
        if self.events.names.contains(&name) {
            return;
        }
        if self.swept.push(name, now) {
            self.bytes += KEY_BYTES + key.len();
            self.swept_marked += 1;
        }
    }

    /// Whether a sweep may mark more.
    pub(super) fn has_room_for_sweep(&self) -> bool {
        self.swept.names.len() < SWEPT_MAX && self.bytes < self.bytes_max / 2
    }

    /// So many keys of sweeps were marked so far.
    pub(super) fn swept_marked(&self) -> u64 {
        self.swept_marked
    }

    /// So many of them are done.
    pub(super) fn swept_done(&self) -> u64 {
        self.swept_done
    }

    /// Up to so many keys to work on now.
    pub(super) fn take(&mut self, most: usize, now: Instant) -> Vec<Work> {
        let mut taken = Vec::new();
        let swept_share = match self.swept.names.is_empty() {
            true => 0,
            false => (most / SWEPT_SHARE).max(1),
        };
        self.resting.retain(|_, due| *due > now);
        let mut rested: Vec<(Name, Instant)> = Vec::new();
        while taken.len() < most.saturating_sub(swept_share) {
            let Some((name, at)) = self.events.pop() else {
                break;
            };
            if self.resting.contains_key(&name) {
                rested.push((name, at));
                continue;
            }
            self.bytes -= KEY_BYTES + name.1.len();
            // One reading does for both.
            let is_swept = self.swept.names.remove(&name);
            if is_swept {
                self.bytes -= KEY_BYTES + name.1.len();
            }
            taken.push(Work { name, at, is_swept });
        }
        for (name, at) in rested.drain(..).rev() {
            self.events.push_front(name, at);
        }
        while taken.len() < most {
            let Some((name, at)) = self.swept.pop() else {
                break;
            };
            if self.resting.contains_key(&name) {
                rested.push((name, at));
                continue;
            }
            self.bytes -= KEY_BYTES + name.1.len();
            let is_swept = true;
            taken.push(Work { name, at, is_swept });
        }
        for (name, at) in rested.into_iter().rev() {
            self.swept.push_front(name, at);
        }
        for work in &taken {
            let at = (!work.is_swept).then_some(work.at);
            self.in_work.insert(work.name.clone(), at);
            if let Some(recent) = &mut self.recent {
                recent.insert(work.name.clone());
            }
        }
        taken
    }

    /// The target has confirmed these.
    pub(super) fn done(&mut self, works: &[Work]) {
        for work in works {
            self.in_work.remove(&work.name);
            self.swept_done += u64::from(work.is_swept);
        }
    }

    /// These came to nothing: they go first.
    pub(super) fn put_back(&mut self, works: Vec<Work>) {
        for Work { name, at, is_swept } in works.into_iter().rev() {
            self.in_work.remove(&name);
            let queue = match is_swept {
                true => &mut self.swept,
                false => &mut self.events,
            };
            if !queue.names.contains(&name) {
                // Beyond the limit, if need be: it is one lot at most.
                self.bytes += KEY_BYTES + name.1.len();
                queue.push_front(name, at);
            } else if is_swept {
                // It was marked again meanwhile, and counted again.
                self.swept_done += 1;
            }
        }
    }

    /// This key took long to read: not again before that has passed.
    pub(super) fn rest(&mut self, name: &Name, pause: Duration, now: Instant) {
        self.resting.insert(name.clone(), now + pause);
    }

    /// When the first of the keys that wait for nothing else may be read again.
    pub(super) fn rested_at(&self) -> Option<Instant> {
        let is_wanted =
            |name: &Name| self.events.names.contains(name) || self.swept.names.contains(name);
        let wanted = self.resting.iter().filter(|(name, _)| is_wanted(name));
        wanted.map(|(_, due)| *due).min()
    }

    /// From here on it is noted what is worked on.
    pub(super) fn watch(&mut self) {
        self.recent = Some(self.in_work.keys().cloned().collect());
    }

    /// Whether a change of this key is on its way, or was since [`Self::watch`].
    pub(super) fn is_on_its_way(&self, name: &Name) -> bool {
        self.events.names.contains(name)
            || self
                .recent
                .as_ref()
                .is_some_and(|recent| recent.contains(name))
    }

    /// Ends [`Self::watch`].
    pub(super) fn unwatch(&mut self) {
        self.recent = None;
    }

    /// Keys that wait or are worked on.
    pub(super) fn len(&self) -> usize {
        self.events.names.len() + self.swept.names.len() + self.in_work.len()
    }

    /// Since when the oldest event waits for being seen at the target.
    pub(super) fn oldest(&self) -> Option<Instant> {
        let in_work = self.in_work.values().flatten().min().copied();
        let waiting = self.events.oldest();
        match (in_work, waiting) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: u32) -> Name {
        (n % 3, Bytes::from(format!("key:{n}")))
    }

    fn keys(works: &[Work]) -> Vec<String> {
        works
            .iter()
            .map(|work| String::from_utf8_lossy(&work.name.1).into_owned())
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_read_once_however_often_it_was_marked() {
        let (mut dirty, now) = (Dirty::new(1 << 20), Instant::now());
        assert_eq!(dirty.mark(0, b"a", now), Marked::New);
        assert_eq!(dirty.mark(0, b"a", now), Marked::Again);
        assert_eq!(dirty.mark(1, b"a", now), Marked::New);
        dirty.mark_swept(&(0, Bytes::from_static(b"a")), now);
        let works = dirty.take(10, now);
        assert_eq!(keys(&works), ["a", "a"]);
        assert_eq!(dirty.len(), 2);
        // Marked while it is worked on: once more.
        assert_eq!(dirty.mark(0, b"a", now), Marked::New);
        dirty.done(&works);
        assert_eq!(keys(&dirty.take(10, now)), ["a"]);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_and_given_back() {
        let (mut dirty, now) = (Dirty::new(10 * (KEY_BYTES + 5)), Instant::now());
        for n in 10..20 {
            assert_eq!(
                dirty.mark(0, format!("key{n}").as_bytes(), now),
                Marked::New
            );
        }
        assert_eq!(dirty.mark(0, b"key20", now), Marked::Full);
        assert_eq!(dirty.mark(0, b"key10", now), Marked::Again);
        assert!(!dirty.has_room_for_sweep());
        let works = dirty.take(100, now);
        assert_eq!((works.len(), dirty.bytes), (10, 0));
        dirty.put_back(works);
        assert_eq!(dirty.bytes, 10 * (KEY_BYTES + 5));
        let works = dirty.take(100, now);
        assert_eq!(keys(&works).first().map(String::as_str), Some("key10"));
        dirty.done(&works);
        assert_eq!((dirty.len(), dirty.bytes, dirty.oldest()), (0, 0, None));
    }

    #[tokio::test(start_paused = true)]
    async fn sweeps_get_their_share_and_are_counted() {
        let (mut dirty, now) = (Dirty::new(1 << 20), Instant::now());
        for n in 0..40 {
            dirty.mark(0, format!("event:{n}").as_bytes(), now);
            dirty.mark_swept(&name(n), now);
        }
        let works = dirty.take(8, now);
        let swept = keys(&works)
            .iter()
            .filter(|key| key.starts_with("key"))
            .count();
        assert_eq!((works.len(), swept), (8, 2));
        dirty.done(&works);
        assert_eq!((dirty.swept_marked(), dirty.swept_done()), (40, 2));
        while dirty.len() > 0 {
            let works = dirty.take(7, now);
            if works.len() % 2 == 0 {
                dirty.put_back(works);
            } else {
                dirty.done(&works);
            }
            let works = dirty.take(3, now);
            dirty.done(&works);
        }
        assert_eq!((dirty.swept_marked(), dirty.swept_done()), (40, 40));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_on_its_way_is_known() {
        let (mut dirty, now) = (Dirty::new(1 << 20), Instant::now());
        for n in [0, 3, 6] {
            dirty.mark(0, format!("key:{n}").as_bytes(), now);
        }
        let before = dirty.take(2, now);
        dirty.watch();
        dirty.done(&before);
        let during = dirty.take(4, now);
        dirty.done(&during);
        let (a, b, c) = (name(0), name(3), name(9));
        assert!(dirty.is_on_its_way(&a) && dirty.is_on_its_way(&b) && !dirty.is_on_its_way(&c));
        dirty.mark(0, b"key:9", now);
        assert!(dirty.is_on_its_way(&c));
        dirty.unwatch();
        assert!(!dirty.is_on_its_way(&a));
    }

    #[tokio::test(start_paused = true)]
    async fn large_keys_rest() {
        let (mut dirty, now) = (Dirty::new(1 << 20), Instant::now());
        let large = (0, Bytes::from_static(b"large"));
        dirty.rest(&large, Duration::from_secs(2), now);
        dirty.mark(0, b"large", now);
        dirty.mark(0, b"small", now);
        assert_eq!(keys(&dirty.take(8, now)), ["small"]);
        let later = now + Duration::from_secs(2);
        assert_eq!(dirty.rested_at(), Some(later));
        assert_eq!(keys(&dirty.take(8, later)), ["large"]);
        assert!(dirty.resting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_found_a_large_key_it_rests_and_is_forgotten_then() {
        let (mut dirty, now) = (Dirty::new(1 << 20), Instant::now());
        let (large, other) = ((0, Bytes::from_static(b"large")), name(1));
        for (key, seconds) in [(&large, 2), (&other, 1)] {
            dirty.rest(key, Duration::from_secs(seconds), now);
        }
        // Nobody waits for either.
        assert_eq!(dirty.rested_at(), None);
        dirty.mark_swept(&large, now);
        assert!(dirty.take(8, now).is_empty());
        let later = now + Duration::from_secs(2);
        assert_eq!(dirty.rested_at(), Some(later));
        let works = dirty.take(8, later);
        assert_eq!((keys(&works), dirty.bytes), (vec!["large".to_owned()], 0));
        assert!(dirty.resting.is_empty());
        dirty.done(&works);
        assert_eq!((dirty.swept_marked(), dirty.swept_done()), (1, 1));
    }
}
