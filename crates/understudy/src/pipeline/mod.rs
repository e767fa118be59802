//! From the spool to the target: the snapshot, then the stream.

mod snapshot;
mod stream;
mod sweep;
mod unit;

pub(crate) use snapshot::SnapshotApplier;
pub(crate) use stream::StreamApplier;
pub(crate) use sweep::{KeySet, sweep};
