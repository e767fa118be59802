//! From the spool to a cluster: windows of transactions, one for each slot, with a barrier between two windows.
//!
//! Order is kept for each slot, and around every command whose keys are in several slots. In the stream the slots' own checkpoints
//! say how far each is; the link's is the low-water mark, and trails behind on purpose: a node that fails over may have lost what it
//! wrote last, and goes on from what its slots' checkpoints say.

mod adopt;
mod collect;
mod gather;
mod heal;
mod low_water;
mod recall;
mod sink;
mod snapshot;
mod stream;
mod sweep;

pub(crate) use low_water::Memory;
pub(crate) use snapshot::{carry_out, window};
pub(crate) use stream::ClusterStream;
pub(crate) use sweep::sweep;

use crate::checkpoint::Names;
use crate::error::SyncError;

/// Why work was not done, or not as it should have been.
#[derive(Debug)]
enum Failed {
    /// As the error says.
    Sync(SyncError),
    /// A command failed inside a transaction that was carried out: what the target holds is not the source's any more.
    Damaged(Box<Damage>),
    /// What a command needs is gone from the target: a node has lost it, and no repetition brings it back.
    Gone(String),
}

impl From<SyncError> for Failed {
    fn from(error: SyncError) -> Self {
        Self::Sync(error)
    }
}

/// What differs from the source after work.
#[derive(Debug, Default)]
struct Damage {
    /// The first command that failed, if one has.
    what: Option<String>,
    /// The words of all errors.
    codes: Vec<&'static str>,
    /// Keys that differ.
    names: Names,
    /// A command that failed names no key.
    is_keyless: bool,
    /// Keys that the target has, or may have, ended before they were saved.
    ended: Names,
    /// The work was carried out, all of it.
    is_whole: bool,
}
