//! Random numbers, in one place.

use std::hash::{BuildHasher, RandomState};

/// A number that nobody can foresee (but the simulation, which has it from its seed).
pub(crate) fn number() -> u64 {
    #[cfg(test)]
    if let Some(number) = crate::sim::random() {
        return number;
    }
    RandomState::new().hash_one(std::process::id())
}
