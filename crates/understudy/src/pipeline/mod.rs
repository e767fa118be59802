//! From the spool to the target: the snapshot, then the stream.

mod lease;
mod snapshot;
mod stream;
mod sweep;
mod unit;

pub(crate) use lease::{Leases, settle, settle_forever};
pub(crate) use snapshot::SnapshotApplier;
pub(crate) use stream::StreamApplier;
pub(crate) use sweep::{KeySet, sweep};
