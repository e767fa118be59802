//! What was left out of a snapshot, and why a key of it cannot be brought to the target.

use std::fmt;

use crate::Kind;

/// What was left out, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SnapshotCounts {
    /// Keys of ours.
    pub own_keys: u64,
    /// Keys in dbs that are filtered out.
    pub filtered_dbs: u64,
    /// Keys that are filtered out.
    pub filtered_keys: u64,
    /// Keys of kinds that are filtered out.
    pub filtered_kinds: u64,
    /// Keys whose time has come.
    pub expired_keys: u64,
    /// Fields whose time has come.
    pub expired_fields: u64,
    /// Keys of kinds that the target does not know and no command can build.
    pub keys_lost: u64,
    /// Keys of modules that the target does not have.
    pub modules_lost: u64,
    /// TTLs of fields that the target cannot keep.
    pub field_ttls_lost: u64,
    /// Metadata of keys that the target cannot keep.
    pub metadata_lost: u64,
    /// How long keys were not used or how often, where they are not restored. Never an error.
    pub usage_hints_lost: u64,
    /// Streams whose counters (messages ever added, read by groups) the target does not have. Never an error.
    pub stream_counters_lost: u64,
    /// Consumers whose times (last seen, last active) begin anew. Never an error.
    pub consumer_times_lost: u64,
    /// Pending messages that no command can make pending.
    pub stream_pending_lost: u64,
    /// Streams with messages that consumers gave back, which belong to a consumer of ours at the target.
    pub stream_returned_lost: u64,
    /// Streams whose producers the target does not remember.
    pub stream_idempotence_lost: u64,
    /// Streams whose numbers of messages recognised begin anew. Never an error.
    pub stream_idempotence_counts_lost: u64,
    /// Libraries of functions that are filtered out, or that the target cannot keep.
    pub functions_dropped: u64,
    /// Data that modules keep beside the keys, which no command can carry.
    pub module_data_dropped: u64,
}

impl SnapshotCounts {
    /// Whole keys that the target cannot have.
    pub const fn lost(&self) -> u64 {
        self.keys_lost + self.modules_lost
    }
}

/// A key that cannot be brought to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotError {
    /// The key, escaped and shortened; empty for what is no key's.
    pub key: String,
    /// The cause.
    pub kind: SnapshotErrorKind,
}

/// Why a key cannot be brought to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotErrorKind {
    /// The target does not know the type, and there is no way to build such a value by commands.
    TypeUnknown {
        /// The RDB type byte.
        type_id: u8,
        /// What the value is.
        kind: Kind,
    },
    /// The target does not have the module that the value is of, or an older one that does not read it.
    ModuleUnknown {
        /// The module's name for the type.
        module: String,
    },
    /// The target has no such thing.
    TargetLacks {
        /// What it would have to have.
        what: &'static str,
    },
    /// A value that goes in one piece is larger than the target takes.
    TooLarge {
        /// Its bytes.
        bytes: u64,
        /// What the target takes.
        max: u64,
    },
    /// A message of a stream has more fields than fit into a command.
    TooManyWords {
        /// The words its command would have.
        words: u64,
        /// The words that the target takes.
        max: u64,
    },
    /// A string has not the length that was announced for it, or a message not as many fields.
    WrongLength,
    /// A part of a value came without its beginning.
    OutOfOrder,
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "key \"{}\": ", self.key)?;
        }
        match &self.kind {
            SnapshotErrorKind::TypeUnknown { type_id, kind } => write!(
                f,
                "a {kind:?} of RDB type {type_id} cannot be brought to this target's version: \
                 migrate to a newer target, or filter the key out"
            ),
            SnapshotErrorKind::ModuleUnknown { module } => write!(
                f,
                "a value of a module (\"{module}\") that the target does not have: load the module there, allow the loss, \
                 or filter the key out"
            ),
            SnapshotErrorKind::TargetLacks { what } => write!(
                f,
                "needs {what}, which the target does not have: allow the loss, or filter it out"
            ),
            SnapshotErrorKind::TooLarge { bytes, max } => write!(
                f,
                "{bytes} bytes go in one piece, and the target takes {max}: raise its proto-max-bulk-len"
            ),
            SnapshotErrorKind::TooManyWords { words, max } => write!(
                f,
                "a message takes a command of {words} words, and the target takes {max}: trim the stream, or filter it out"
            ),
            SnapshotErrorKind::WrongLength => write!(f, "not as long as announced"),
            SnapshotErrorKind::OutOfOrder => write!(f, "a part of a value without its beginning"),
        }
    }
}

impl std::error::Error for SnapshotError {}
