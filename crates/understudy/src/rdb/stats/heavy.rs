//! Which prefixes of keys hold the most bytes, in bounded memory.
//!
//! Every prefix is counted in a table until that is full; then all but its heavier half is dropped, and the heaviest count
//! that was dropped becomes the error bound: a prefix that comes anew may have had up to that many bytes before. So a
//! prefix that holds more than the bound is never missing, and no count is too high.

use std::collections::HashMap;

/// Prefixes that are counted at a time.
const PREFIXES_MAX: usize = 1 << 16;
/// Longer prefixes are not counted on their own.
const PREFIX_BYTES_MAX: usize = 256;

/// What keys with one prefix hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Weight {
    pub(super) bytes: u64,
    pub(super) keys: u64,
}

/// The prefixes that weigh most.
#[derive(Debug)]
pub(super) struct Heavy {
    separator: Vec<u8>,
    depth: usize,
    max: usize,
    table: HashMap<Box<[u8]>, Weight>,
    bound: u64,
}

impl Heavy {
    /// Prefixes that end with the separator, up to so many of them in a prefix.
    pub(super) fn new(separator: &str, depth: usize) -> Self {
        Self {
            separator: separator.as_bytes().to_vec(),
            depth,
            max: PREFIXES_MAX,
            table: HashMap::new(),
            bound: 0,
        }
    }

    /// Counts a key under each of its prefixes.
    pub(super) fn add(&mut self, key: &[u8], bytes: u64) {
        if self.separator.is_empty() {
            return;
        }
        let mut end = 0;
        for _ in 0..self.depth {
            let rest = key.get(end..).unwrap_or_default();
            let Some(at) = find(rest, &self.separator) else {
                return;
            };
            end += at + self.separator.len();
            if end > PREFIX_BYTES_MAX {
                return;
            }
            self.count(key.get(..end).unwrap_or_default(), bytes);
        }
    }

    fn count(&mut self, prefix: &[u8], bytes: u64) {
        if let Some(weight) = self.table.get_mut(prefix) {
            weight.bytes += bytes;
            weight.keys += 1;
            return;
        }
        if self.table.len() >= self.max {
            self.drop_light();
        }
        self.table.insert(prefix.into(), Weight { bytes, keys: 1 });
    }

    fn drop_light(&mut self) {
        let mut weights: Vec<u64> = self.table.values().map(|weight| weight.bytes).collect();
        let middle = weights.len() / 2;
        let (_, &mut median, _) = weights.select_nth_unstable(middle);
        self.table.retain(|_, weight| weight.bytes > median);
        // What is dropped may have been dropped before.
        self.bound += median;
    }

    /// The heaviest, and how many bytes a count may miss.
    pub(super) fn heaviest(&self, max: usize) -> (Vec<(&[u8], Weight)>, u64) {
        let mut all: Vec<(&[u8], Weight)> = self
            .table
            .iter()
            .map(|(prefix, weight)| (&**prefix, *weight))
            .collect();
        all.sort_by(|one, other| {
            let by_weight = other.1.bytes.cmp(&one.1.bytes);
            by_weight.then_with(|| one.0.cmp(other.0))
        });
        all.truncate(max);
        (all, self.bound)
    }
}

fn find(text: &[u8], word: &[u8]) -> Option<usize> {
    text.windows(word.len()).position(|window| window == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_is_counted() {
        let mut heavy = Heavy::new(":", 2);
        heavy.add(b"user:1:cart:x", 10);
        heavy.add(b"user:2", 5);
        heavy.add(b"plain", 100);
        let (found, bound) = heavy.heaviest(10);
        let of = |bytes, keys| Weight { bytes, keys };
        let expected: [(&[u8], Weight); 2] = [(b"user:", of(15, 2)), (b"user:1:", of(10, 1))];
        assert_eq!((found.as_slice(), bound), (expected.as_slice(), 0));
        assert_eq!(heavy.heaviest(1).0.len(), 1);
    }

    #[test]
    fn the_heavy_ones_stay_and_the_bound_holds() {
        let mut heavy = Heavy::new("/", 1);
        heavy.max = 64;
        for round in 0..2000_u32 {
            heavy.add(b"big/", 50);
            heavy.add(
                format!("small{round}/x").as_bytes(),
                1 + u64::from(round % 3),
            );
        }
        let (found, bound) = heavy.heaviest(1);
        assert!(heavy.table.len() <= 64);
        assert_eq!(found[0].0, b"big/");
        assert!(found[0].1.bytes <= 100_000);
        assert!(found[0].1.bytes + bound >= 100_000, "{found:?} {bound}");
        assert!(bound < 1000, "{bound}");
    }
}
