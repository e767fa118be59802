//! What need not be asked for a while.
//!
//! It is written for every command of what is late, as fast as the stream goes, and so is a table of one size, of which
//! a look touches one cache line. What finds no room there is forgotten, which costs a question at most.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

/// For so long an answer holds: no expiry is written without a lease that is nearer than this.
pub(super) const KNOWN: Duration = Duration::from_secs(10);
const WAYS: usize = 4;
/// A power of two. Half of the slots can be in use before much is forgotten.
const LINES: usize = 1 << 14;

/// Keys and fields that are as at the source, each for [`KNOWN`].
pub(super) struct Known {
    /// Nobody who chooses keys knows which are taken for each other.
    state: RandomState,
    /// None until something is known.
    lines: Vec<Line>,
    began: Instant,
    now_ms: u64,
}

/// Slots that a hash may be in: a cache line of them.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))]
struct Line([Slot; WAYS]);

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    hash: u64,
    /// Since the beginning; 0 is free.
    until_ms: u64,
}

impl Known {
    pub(super) fn new() -> Self {
        Self {
            state: RandomState::new(),
            lines: Vec::new(),
            began: Instant::now(),
            now_ms: 0,
        }
    }

    /// Looks at the clock; to be done before anything is learnt or looked up, and after each wait.
    pub(super) fn tick(&mut self) {
        self.now_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
    }

    /// What stands for a key, or for a field of it.
    pub(super) fn hash(&self, db: u32, key: &[u8], field: Option<&[u8]>) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write_u32(db);
        hasher.write_usize(key.len());
        hasher.write(key);
        if let Some(field) = field {
            hasher.write_u8(1);
            hasher.write(field);
        }
        hasher.finish()
    }

    /// Remembers it; whether it was known.
    pub(super) fn learn(&mut self, hash: u64) -> bool {
        if self.lines.is_empty() {
            self.lines = vec![Line::default(); LINES];
        }
        let until_ms = self.now_ms + KNOWN.as_millis() as u64;
        let Some(Line(slots)) = self.lines.get_mut(Self::place(hash)) else {
            return false;
        };
        if let Some(slot) = slots.iter_mut().find(|slot| slot.hash == hash) {
            let last = std::mem::replace(&mut slot.until_ms, until_ms);
            return last > self.now_ms;
        }
        if let Some(oldest) = slots.iter_mut().min_by_key(|slot| slot.until_ms) {
            *oldest = Slot { hash, until_ms };
        }
        false
    }

    /// Whether it is known.
    pub(super) fn knows(&self, hash: u64) -> bool {
        let is_it = |slot: &Slot| slot.hash == hash && slot.until_ms > self.now_ms;
        let line = self.lines.get(Self::place(hash));
        line.is_some_and(|Line(slots)| slots.iter().any(is_it))
    }

    /// Forgets everything, and gives its memory back.
    pub(super) fn clear(&mut self) {
        self.lines = Vec::new();
    }

    fn place(hash: u64) -> usize {
        usize::try_from(hash & (LINES as u64 - 1)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_learnt_is_known_for_a_while() {
        let mut known = Known::new();
        let key = known.hash(3, b"key", None);
        let others = [
            known.hash(0, b"key", None),
            known.hash(3, b"keys", None),
            known.hash(3, b"key", Some(b"")),
        ];
        assert!(!known.knows(key));
        assert!(!known.learn(key) && known.learn(key) && known.knows(key));
        assert!(others.into_iter().all(|other| !known.knows(other)));
        tokio::time::advance(KNOWN).await;
        assert!(known.knows(key), "nobody looked at the clock");
        known.tick();
        assert!(!known.knows(key) && !known.learn(key) && known.learn(key));
        known.clear();
        assert!(!known.knows(key));
    }

    #[test]
    fn most_of_what_fills_half_of_it_is_known_and_nothing_else() {
        let mut known = Known::new();
        let hashes: Vec<u64> = (0..(LINES * WAYS) as u32)
            .map(|db| known.hash(db, b"", None))
            .collect();
        let (half, rest) = hashes.split_at(hashes.len() / 2);
        for hash in half {
            known.learn(*hash);
        }
        let found = half.iter().filter(|hash| known.knows(**hash)).count();
        assert!(found > half.len() * 8 / 10, "{found}");
        assert!(rest.iter().all(|hash| !known.knows(*hash)));
    }
}
