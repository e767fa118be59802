//! From the spool to the target: the snapshot, then the stream.

mod clocks;
mod lane;
mod lease;
mod lookahead;
mod repair;
mod sets;
mod snapshot;
mod stream;
mod sweep;
mod tide;
mod unit;

use crate::config::Config;
use crate::status::Status;
use crate::target::Databases;

pub(crate) use clocks::compare_forever;
pub(crate) use lease::{Leases, end_all, settle_forever};
pub(crate) use repair::Repairs;
pub(crate) use snapshot::SnapshotApplier;
pub(crate) use stream::StreamApplier;
use stream::stream_limits;
pub(crate) use sweep::{KeySet, has_old_libraries, remove_unfinished, sweep};
pub(crate) use tide::{Tide, read_marks_forever};

/// What both appliers of a link work with.
#[derive(Clone, Copy)]
pub(crate) struct Common<'a> {
    pub(crate) config: &'a Config,
    pub(crate) status: &'a Status,
    pub(crate) leases: &'a Leases,
    pub(crate) repairs: &'a Repairs,
    pub(crate) databases: &'a Databases,
    pub(crate) tide: &'a Tide,
}

/// Said behind an error about what the target lacks.
const ALLOW_LOSS: &str = "; redis_writer.losses = \"warn\" allows it";
