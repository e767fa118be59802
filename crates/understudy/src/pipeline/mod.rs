//! From the spool to the target: the snapshot, then the stream.

pub(crate) mod answers;
mod called;
mod claims;
mod clocks;
pub(crate) mod cluster;
mod growing;
mod lane;
mod late_writes;
mod lease;
mod lookahead;
mod mapper;
mod merged;
mod repair;
mod rivals;
mod sets;
mod slots;
mod snapshot;
mod stream;
mod sweep;
mod throttle;
mod tide;
pub(crate) mod to_file;
mod torn;
mod unit;

use crate::config::Config;
use crate::status::Status;
use crate::target::Databases;

pub(crate) use clocks::compare_forever;
pub(crate) use lane::{Lane, Reply};
pub(crate) use late_writes::{count_forever as count_late_forever, prefix_of};
pub(crate) use lease::{LEASE_MS, Leases, end_all, settle_forever};
pub(crate) use repair::{Copied, Copies, Repairs, copied_time, read as read_copies};
pub use rivals::Rival;
pub(crate) use snapshot::{
    Applied, Behind, SnapshotApplier, is_unknown_module, kind_name, left_out, method_name,
    rdb_limits, say_left_out,
};
pub(crate) use stream::Hole;
pub(crate) use stream::StreamApplier;
pub(crate) use stream::{NOT_OURS, show, stream_limits};
pub(crate) use sweep::{KeySet, has_old_libraries, is_own, remove_unfinished, sweep};
pub(crate) use tide::{Tide, read_marks_forever};
pub(crate) use unit::{End, Gap, each_command, gaps_of, guard, items_of, words_of, zeros};

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
pub(crate) const ALLOW_LOSS: &str = "; redis_writer.losses = \"warn\" allows it";
