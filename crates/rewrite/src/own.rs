//! Which keys are ours.

use memchr::memmem::Finder;

/// The keys that are ours: checkpoints, fences, leases. A key under construction (`understudy:tmp:`) is not one of them:
/// it holds a value of somebody else's and will be renamed to that value's own key.
#[derive(Debug)]
pub(crate) struct OwnKeys {
    mark: Finder<'static>,
    len: usize,
}

impl OwnKeys {
    /// The keys with this in their names; with nothing, none.
    pub(crate) fn new(mark: &[u8]) -> Self {
        Self {
            mark: Finder::new(mark).into_owned(),
            len: mark.len().max(1),
        }
    }

    #[inline]
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        key.len() >= self.len && self.search(key)
    }

    fn search(&self, key: &[u8]) -> bool {
        if self.mark.needle().is_empty() {
            return false;
        }
        let Some(place) = self.mark.find(key) else {
            return false;
        };
        !key.get(place..)
            .is_some_and(|rest| rest.starts_with(crate::TEMPORARY_KEY_PREFIX))
    }
}
