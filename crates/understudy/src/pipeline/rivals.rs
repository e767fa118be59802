//! Links of one process that write into one target: a key that two of them write is told, since the target then holds whatever
//! came last.
//!
//! A table of a fixed size remembers who has written which key, by hashes alone. Each key has one line of it, of eight places. Seven keep the
//! keys with the least hashes of all that were written, so that both links remember the *same* keys however many
//! there are; the eighth keeps the one that came last, so that keys which two links write one soon after the other are seen
//! too. What it misses: with more keys than places (2^20), a key that has no place when the other link comes to it. What it
//! sees twice is counted once. It is shared by threads without a lock: two links that touch one place at the same moment may miss each
//! other.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use resp::Arg;
use rewrite::{Command, Table};

use crate::status::Status;

/// Places in a line: what a processor fetches at once.
const WAYS: usize = 8;
/// Lines of the table: 2^17, which is 8 MiB.
const LINE_BITS: u32 = 17;
/// Lowest bits of a place: who has written the key, from 1 on. Above them is the key's hash, without what the line says.
const OWNER_BITS: u32 = 16;
const OWNERS: u64 = (1 << OWNER_BITS) - 1;
/// Two have.
const SEVERAL: u64 = OWNERS;
/// So many keys are named.
const NAMED_MAX: u64 = 20;
/// No more of a key is shown.
const SHOWN_BYTES: usize = 200;

#[derive(Default)]
#[repr(align(64))]
struct Line([AtomicU64; WAYS]);

/// What is known of the keys that links write into one target.
struct Rivals {
    lines: Box<[Line]>,
    state: RandomState,
    links: Vec<String>,
    found: AtomicU64,
}

/// One of these links.
#[derive(Clone)]
pub struct Rival {
    all: Arc<Rivals>,
    /// Its place among them, from 1 on.
    own: u64,
}

impl fmt::Debug for Rival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rival").field("own", &self.own).finish()
    }
}

impl Rival {
    /// Links of these names that write into one target.
    pub(crate) fn among(links: Vec<String>) -> Vec<Self> {
        Self::with_lines(links, LINE_BITS)
    }

    fn with_lines(links: Vec<String>, bits: u32) -> Vec<Self> {
        let count = links.len() as u64;
        let all = Arc::new(Rivals {
            lines: (0..1_usize << bits).map(|_| Line::default()).collect(),
            state: RandomState::new(),
            links,
            found: AtomicU64::new(0),
        });
        (1..=count.min(SEVERAL - 1))
            .map(|own| Self {
                all: all.clone(),
                own,
            })
            .collect()
    }

    /// The link writes what the target calls `key` in its database `db`.
    #[inline]
    pub(crate) fn writes(&self, status: &Status, db: u32, key: &[u8]) {
        if let Some(other) = self.note(db, key) {
            self.tell(status, db, key, other);
        }
    }

    /// The link sends this command, as the table knows it, for the target's database `db`.
    pub(crate) fn sends(
        &self,
        status: &Status,
        command: Option<&Command>,
        db: u32,
        frame: &[u8],
        args: &[Arg],
    ) {
        let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
        let mut places = Vec::new();
        match command {
            Some(command) => rewrite::keys_of(command, frame, args, &mut places),
            // As everywhere: a module's command has its key first.
            None if args.len() > 1 => places.push(1),
            None => {}
        }
        for place in places {
            self.writes(status, db, word(place));
        }
    }

    /// The link sends these commands, the first of which is said in database 0.
    pub(crate) fn sends_all(
        &self,
        status: &Status,
        table: &Table,
        each: impl FnOnce(&mut dyn FnMut(&[u8], &[Arg])),
    ) {
        let mut db = 0;
        each(&mut |frame, args| {
            let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
            if word(0).eq_ignore_ascii_case(b"select") {
                let number = std::str::from_utf8(word(1)).ok();
                db = number.and_then(|number| number.parse().ok()).unwrap_or(db);
                return;
            }
            let command = table.lookup(&word(0).to_ascii_lowercase());
            self.sends(status, command, db, frame, args);
        });
    }

    /// Who else has written the key, where that is news.
    #[inline]
    fn note(&self, db: u32, key: &[u8]) -> Option<u64> {
        let hash = self.all.state.hash_one((db, key));
        // Bits 32 and up choose the line; what stands there are 48 others.
        let lines = self.all.lines.len();
        let line = usize::try_from(hash >> 32).unwrap_or(usize::MAX) & (lines - 1);
        let tag = hash.rotate_right(32) & !OWNERS;
        let places = &self.all.lines.get(line)?.0;
        let mut free = None;
        let (mut greatest, mut at_greatest) = (0, 0);
        for (at, place) in places.iter().enumerate() {
            let held = place.load(Ordering::Relaxed);
            if held == 0 {
                // The last place is never the first to be taken: what stands there goes with the next key.
                free = free.or(Some(place).filter(|_| at < WAYS - 1));
                continue;
            }
            if held & !OWNERS == tag {
                return self.meets(place, held);
            }
            if at < WAYS - 1 && held > greatest {
                (greatest, at_greatest) = (held, at);
            }
        }
        let ours = tag | self.own;
        if let Some(place) = free {
            place.store(ours, Ordering::Relaxed);
            return None;
        }
        let (kept, last) = (places.get(at_greatest)?, places.get(WAYS - 1)?);
        if tag < greatest & !OWNERS {
            kept.store(ours, Ordering::Relaxed);
            last.store(greatest, Ordering::Relaxed);
        } else {
            last.store(ours, Ordering::Relaxed);
        }
        None
    }

    /// The key has a place.
    #[inline]
    fn meets(&self, place: &AtomicU64, held: u64) -> Option<u64> {
        let owner = held & OWNERS;
        if owner == self.own || owner == SEVERAL {
            return None;
        }
        let told =
            place.compare_exchange(held, held | SEVERAL, Ordering::Relaxed, Ordering::Relaxed);
        told.is_ok().then_some(owner)
    }

    #[cold]
    fn tell(&self, status: &Status, db: u32, key: &[u8], other: u64) {
        status.key_conflicts.add(1);
        let found = self.all.found.fetch_add(1, Ordering::Relaxed) + 1;
        if found > NAMED_MAX {
            return;
        }
        let name = |place: u64| {
            let at = usize::try_from(place.saturating_sub(1)).unwrap_or(usize::MAX);
            self.all.links.get(at).map_or("", String::as_str)
        };
        let shown = key.get(..SHOWN_BYTES).unwrap_or(key);
        tracing::warn!(
            key = %shown.escape_ascii(),
            db,
            first = name(other),
            then = name(self.own),
            "two links write this key: the target holds whatever comes last; keep their keys apart (filter, redis_writer.db_map)"
        );
        if found == NAMED_MAX {
            tracing::warn!("further keys that two links write are only counted (key_conflicts)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(bits: u32) -> (Rival, Rival) {
        let mut all = Rival::with_lines(vec!["a".to_owned(), "b".to_owned()], bits).into_iter();
        (all.next().unwrap(), all.next().unwrap())
    }

    #[test]
    fn a_key_of_two_links_is_told_once() {
        let (a, b) = pair(8);
        assert_eq!(a.note(0, b"k"), None);
        assert_eq!(a.note(0, b"k"), None);
        assert_eq!(b.note(1, b"k"), None, "another database");
        assert_eq!(b.note(0, b"k"), Some(1));
        assert_eq!((a.note(0, b"k"), b.note(0, b"k")), (None, None));
    }

    #[test]
    fn keys_that_have_room_are_all_told() {
        let (a, b) = pair(10);
        let keys: Vec<String> = (0..2000).map(|n| format!("key:{n}")).collect();
        for key in &keys {
            assert_eq!(a.note(0, key.as_bytes()), None);
        }
        let told = keys
            .iter()
            .filter(|key| b.note(0, key.as_bytes()).is_some());
        assert!(told.count() >= 1995);
    }

    #[test]
    fn of_more_keys_than_places_both_remember_the_same() {
        let (a, b) = pair(6);
        let key = |n: u64| format!("key:{n}").into_bytes();
        // A hundred times as many as there is room for, and long after.
        for n in 0..51_200 {
            a.note(0, &key(n));
        }
        let told = (0..51_200)
            .filter(|n| b.note(0, &key(*n)).is_some())
            .count();
        assert!(told >= 64 * (WAYS - 1), "{told}");
        // One soon after the other is seen whatever its hash.
        let told = (60_000..61_000).filter(|n| {
            a.note(0, &key(*n));
            b.note(0, &key(*n)).is_some()
        });
        assert_eq!(told.count(), 1000);
    }

    #[test]
    fn commands_are_taken_apart() {
        let (a, b) = pair(8);
        let status = Status::new(4);
        let table = Table::new();
        let mut bytes = Vec::new();
        for line in [
            "MSET x 1 y 2",
            "SELECT 3",
            "SET z 1",
            "SELECT 0",
            "NOSUCH m 1",
        ] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            resp::encode::command(&mut bytes, &words);
        }
        a.sends_all(&status, &table, |each| {
            super::super::unit::each_command(&bytes, |_, frame, args| each(frame, args));
        });
        let theirs = [(0, "x"), (0, "y"), (3, "z"), (0, "m"), (0, "z")];
        let told = theirs.map(|(db, key)| b.note(db, key.as_bytes()).is_some());
        assert_eq!(told, [true, true, true, true, false]);
        assert_eq!(status.key_conflicts.get(), 0);
        b.sends_all(&status, &table, |each| {
            super::super::unit::each_command(&bytes, |_, frame, args| each(frame, args));
        });
        assert_eq!(status.key_conflicts.get(), 0, "all told already");
    }
}
