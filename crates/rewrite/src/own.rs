//! Which keys are ours.

use memchr::memchr_iter;

/// The keys that are ours: checkpoints, fences, leases. A key under construction (`understudy:tmp:`) is not one of them:
/// it holds a value of somebody else's and will be renamed to that value's own key.
#[derive(Debug)]
pub(crate) struct OwnKeys {
    mark: Vec<u8>,
}

impl OwnKeys {
    /// The keys with this in their names; with nothing, none.
    pub(crate) fn new(mark: &[u8]) -> Self {
        Self {
            mark: mark.to_vec(),
        }
    }

    /// Asked about every key there is: most have no more than a few letters in common with the mark, and a search made for
    /// long texts would cost them more than this.
    #[inline]
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        let Some(first) = self.mark.first() else {
            return false;
        };
        if key.len() < self.mark.len() {
            return false;
        }
        let places = memchr_iter(*first, key).filter_map(|place| key.get(place..));
        let mut marked = places.filter(|rest| rest.starts_with(&self.mark));
        marked
            .next()
            .is_some_and(|rest| !rest.starts_with(crate::TEMPORARY_KEY_PREFIX))
    }
}
