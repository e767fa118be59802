//! The hash templates of a file: how many fields each number stands for.

use std::collections::HashMap;

use crate::error::Stop;

#[derive(Debug, Default)]
pub(crate) struct Templates(HashMap<u64, u64>);

impl Templates {
    /// Notes a template; a number can be given once.
    pub(crate) fn add(&mut self, id: u64, fields: u64) -> Result<(), Stop> {
        match self.0.insert(id, fields) {
            None => Ok(()),
            Some(_) => Err(Stop::corrupt("a template's number given twice")),
        }
    }

    /// The number of fields.
    pub(crate) fn fields(&self, id: u64) -> Result<u64, Stop> {
        self.0
            .get(&id)
            .copied()
            .ok_or(Stop::corrupt("a hash with an unknown template"))
    }
}
