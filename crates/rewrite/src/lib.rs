//! From what a source says to what a target is told.
//!
//! - [`StreamRewriter`]: a command of the replication stream -> the same bytes, other commands, or nothing.
//! - [`SnapshotRewriter`]: the events of an RDB file -> `SET`, `RESTORE`, or commands in chunks.
//! - [`Filter`]: which keys, dbs and commands pass.
//! - [`table`] and [`keys_of`]: the commands there are, and which of their arguments are keys.
//! - [`route`], [`parts`] and [`apart`]: where a command goes in a cluster, and what becomes of one that crosses slots.
//! - [`Abilities`]: what a target can take.
//!
//! Pure: no socket, no clock, no file.

#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]
#![warn(missing_docs)]

mod abilities;
mod body;
mod cross_slot;
mod dbmap;
mod filter;
mod idempotence;
mod keys;
mod modules;
mod number;
mod outcome;
mod own;
mod payload;
mod slot;
mod slots;
mod snapshot;
mod stream;
mod streams;
pub mod table;

pub use abilities::{Abilities, BadVersion, Fork, Version};
pub use cross_slot::{Apart, Part, Route, apart, copy_db, parts, route};
pub use dbmap::{DbMap, MapError, Mapped};
pub use filter::{BadRule, Blocked, Filter, FilterRules};
pub use keys::keys_of;
pub use outcome::{DropReason, Error, ErrorKind, Outcome};
pub use rdb::{Db, Kind};
pub use slot::{SLOTS, Slot, hash_tag, slot_of, slot_tags, temporary_key};
pub use slots::SlotSet;
pub use snapshot::{
    Existing, Expect, Method, PlainSet, Sent, SnapshotCounts, SnapshotError, SnapshotErrorKind,
    SnapshotOptions, SnapshotRewriter,
};
pub use stream::{Databases, Granted, LeaseRule, Losses, Publish, StreamOptions, StreamRewriter};
pub use table::{Command, CommandId, Group, Table};

/// Every key that is ours has this in its name.
pub const OWN_KEY_MARK: &[u8] = b"understudy";

/// A key under construction: the name of the key to be, in braces, follows, so that both are in one slot.
pub const TEMPORARY_KEY_PREFIX: &[u8] = b"understudy:tmp:";
