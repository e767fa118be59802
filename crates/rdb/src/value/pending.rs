//! The pending messages of one group: held until every one of them has found its owner.

use crate::error::Stop;
use crate::event::StreamId;

/// Ids and whether somebody owns them; 17 bytes an id.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    ids: Vec<StreamId>,
    owned: Vec<bool>,
    /// Servers write them in ascending order, and anybody may load them in another.
    out_of_order: bool,
    unowned: usize,
}

impl Pending {
    pub(crate) fn add(&mut self, id: StreamId) {
        self.out_of_order |= self.ids.last() >= Some(&id);
        self.ids.push(id);
    }

    /// Says that all have been added; none may be there twice.
    pub(crate) fn settle(&mut self) -> Result<(), Stop> {
        if self.out_of_order {
            self.ids.sort_unstable();
            if self.ids.windows(2).any(|pair| pair.first() == pair.last()) {
                return Err(Stop::corrupt("a group with the same pending message twice"));
            }
        }
        self.unowned = self.ids.len();
        self.owned = vec![false; self.unowned];
        Ok(())
    }

    /// Gives a message its owner.
    pub(crate) fn own(&mut self, id: StreamId) -> Result<(), Stop> {
        let index = self.ids.binary_search(&id);
        match index.ok().and_then(|index| self.owned.get_mut(index)) {
            None => Err(Stop::corrupt(
                "a message that a consumer has and its group has not",
            )),
            Some(true) => Err(Stop::corrupt("a pending message with two owners")),
            Some(owned) => {
                *owned = true;
                self.unowned -= 1;
                Ok(())
            }
        }
    }

    /// Says that all owners have been named.
    pub(crate) const fn finish(&self) -> Result<(), Stop> {
        match self.unowned {
            0 => Ok(()),
            _ => Err(Stop::corrupt("a pending message without an owner")),
        }
    }
}
