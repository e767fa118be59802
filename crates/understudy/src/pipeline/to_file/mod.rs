//! A file in the place of a target: the snapshot, then the stream, as commands; or a snapshot as an RDB file.
//!
//! What is written is for a server of the source's version or a newer one. No position is in a transaction here: the file
//! is appended to, and what lies beside it ([`Output`]) says how far it is good.

mod form;
mod output;
mod rdb;
mod snapshot;
mod stream;

pub(crate) use output::{Output, found};
pub(crate) use rdb::{expect_none, write_rdb};
pub(crate) use snapshot::SnapshotToFile;
pub(crate) use stream::StreamToFile;

use crate::config::Config;
use crate::supervise::SourceVersion;
use rewrite::{Abilities, Fork, Version};

/// A larger string is written in parts.
const BULK_BYTES_MAX: u64 = 8 << 20;

/// What the server that will read the file can do; where nobody tells the source's version, it is a recent one.
fn abilities(source: SourceVersion) -> Abilities {
    let (fork, version) = match (source.fork, source.version) {
        (Some(fork), Some(version)) => (fork, version),
        _ => (Fork::Redis, Version::new(8, 10, 0)),
    };
    let mut abilities = Abilities::from_version(fork, version);
    // A payload is for one version alone, and nobody can read it.
    abilities.restore = false;
    abilities.bulk_bytes_max = abilities.bulk_bytes_max.min(BULK_BYTES_MAX);
    abilities
}

/// Said behind an error about what cannot be written as commands.
fn cannot_write(config: &Config, what: &str) -> crate::error::SyncError {
    crate::error::SyncError::stop(
        crate::error::Side::Target,
        &config.target.endpoint.address,
        format!(
            "this cannot be written as commands: {what}{}",
            super::ALLOW_LOSS
        ),
    )
}
