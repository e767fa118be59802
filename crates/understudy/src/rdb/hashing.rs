//! 128-bit digests under a key that each run draws anew.
//!
//! Two keyed hashes of 64 bits (std's SipHash) side by side. Whoever made a file cannot know the key, so two
//! things have the same digest only by chance: among n of them with a probability of about n² / 2^129, which for a
//! thousand million keys is below 1 in 10^20.

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};

/// Makes digests; they compare only with those of the same maker.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hashing {
    high: RandomState,
    low: RandomState,
}

/// A digest in the making.
#[derive(Debug, Clone)]
pub(crate) struct Digest {
    high: DefaultHasher,
    low: DefaultHasher,
}

impl Hashing {
    /// Begins a digest.
    pub(crate) fn begin(&self) -> Digest {
        Digest {
            high: self.high.build_hasher(),
            low: self.low.build_hasher(),
        }
    }

    /// The digest of a key in a database.
    pub(crate) fn key(&self, db: u32, key: &[u8]) -> u128 {
        let mut digest = self.begin();
        digest.number(u64::from(db));
        digest.bytes(key);
        digest.end()
    }
}

impl Digest {
    /// Takes bytes in, as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.high.write(bytes);
        self.low.write(bytes);
    }

    /// Takes a number in.
    pub(crate) fn number(&mut self, number: u64) {
        self.high.write_u64(number);
        self.low.write_u64(number);
    }

    /// Takes a string in, with its length, so that `ab` `c` differs from `a` `bc`.
    pub(crate) fn string(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.bytes(bytes);
    }

    /// The digest.
    pub(crate) fn end(&self) -> u128 {
        u128::from(self.high.finish()) << 64 | u128::from(self.low.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_tell_things_apart() {
        let hashing = Hashing::default();
        let of = |parts: &[&str]| {
            let mut digest = hashing.begin();
            parts.iter().for_each(|part| digest.string(part.as_bytes()));
            digest.end()
        };
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["ab"]), of(&["ab", ""]));
        assert_ne!(hashing.key(0, b"k"), hashing.key(1, b"k"));
        assert_ne!(hashing.key(0, b"k"), Hashing::default().key(0, b"k"));
        assert_ne!(of(&["a"]) >> 64, of(&["a"]) & u128::from(u64::MAX));
    }
}
