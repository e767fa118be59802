//! The hash templates of a file: the field names that each number stands for.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::error::{ErrorKind, Stop};
use crate::limits::Limits;

/// The registry. A clone shares the names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Templates {
    names: Arc<HashMap<u64, Arc<[Bytes]>>>,
    /// What the names take, with what it costs to keep them.
    bytes: u64,
}

impl Templates {
    /// Notes a template; a number can be given once.
    pub(crate) fn add(&mut self, id: u64, fields: &[Bytes], limits: &Limits) -> Result<(), Stop> {
        if self.names.contains_key(&id) {
            return Err(Stop::corrupt("a template's number given twice"));
        }
        let text: usize = fields.iter().map(Bytes::len).sum();
        let (what, max) = ("hash templates", limits.templates_bytes_max);
        self.bytes += (text + (fields.len() + 1) * size_of::<Bytes>()) as u64;
        if self.bytes > max {
            let got = self.bytes;
            return Err(Stop::Bad(ErrorKind::Limit { what, got, max }));
        }
        Arc::make_mut(&mut self.names).insert(id, owned(fields, text));
        Ok(())
    }

    /// The names, in the order of the values.
    pub(crate) fn names(&self, id: u64) -> Result<&Arc<[Bytes]>, Stop> {
        self.names
            .get(&id)
            .ok_or(Stop::corrupt("a hash with an unknown template"))
    }
}

/// A copy of the names in a space of their own: a slice would keep the whole chunk it came in.
fn owned(fields: &[Bytes], text: usize) -> Arc<[Bytes]> {
    let mut space = BytesMut::with_capacity(text);
    for field in fields {
        space.extend_from_slice(field);
    }
    let mut space = space.freeze();
    fields
        .iter()
        .map(|field| space.split_to(field.len()))
        .collect()
}
