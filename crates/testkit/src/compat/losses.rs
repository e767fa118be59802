//! What a target's version makes unavoidable, by name.

use crate::oracle::{Difference, OracleOptions};
use crate::version::Version;

/// A kind of loss.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    /// The word in the table.
    pub name: &'static str,
    /// What is lost and which targets cannot hold it.
    pub meaning: &'static str,
    /// The reason under which the daemon counts it, if it does.
    pub reason: Option<&'static str>,
    /// Whether a pair of versions can lose it.
    possible: fn(Version, Version) -> bool,
    /// Whether a difference is this loss.
    shows: fn(&Difference) -> bool,
    /// Leaves it out of the next comparison; false if there is nothing to leave out.
    ignore: fn(&mut OracleOptions) -> bool,
}

/// Every kind of loss that a pair may have.
pub static LOSSES: &[Loss] = &[
    Loss {
        name: "field expiries",
        meaning: "Expiries of hash fields: the fields stay and do not expire. Targets before Redis 7.4 and Valkey 9.0. \
                  Counted by field.",
        reason: Some("snapshot_field_ttl_lost"),
        possible: |_, target| !target.has_field_ttl(),
        shows: |difference| {
            difference.what.starts_with("field ")
                && difference.what.contains(": expiry: source Some")
                && difference.what.ends_with("target None")
        },
        ignore: |options| std::mem::take(&mut options.field_expiries),
    },
    Loss {
        name: "functions",
        meaning: "Libraries of functions. Targets before Redis 7.0. Counted by library.",
        reason: Some("snapshot_function"),
        possible: |_, target| !target.has_functions(),
        shows: |difference| {
            difference.db.is_none() && difference.what == "is missing at the target"
        },
        ignore: |options| std::mem::take(&mut options.functions),
    },
    Loss {
        name: "stream counters",
        meaning: "Messages ever added to a stream and read by a group, and the largest id deleted. Targets before Redis 7.0, \
                  which do not have them. Counted by stream.",
        reason: Some("snapshot_stream_counters_lost"),
        possible: |_, target| !target.redis(7, 0),
        shows: |_| false,
        ignore: |_| false,
    },
    Loss {
        name: "returned messages",
        meaning: "That nobody owns a pending message: it belongs to a consumer of ours instead. Targets before Redis 8.8, and \
                  Valkey. Counted by stream.",
        reason: Some("snapshot_stream_returned_lost"),
        possible: |_, target| !target.is_redis(8, 8),
        shows: |difference| {
            difference.key == b"stream:returned" && difference.what.contains("pending entry")
        },
        ignore: |_| false,
    },
    Loss {
        name: "producers",
        meaning: "What a stream remembers of its producers, by which it knows a message that comes twice. Targets before Redis \
                  8.6, and Valkey. Counted by stream.",
        reason: Some("snapshot_stream_idempotence_lost"),
        possible: |_, target| !target.is_redis(8, 6),
        shows: |_| false,
        ignore: |_| false,
    },
    Loss {
        name: "producers' counts",
        meaning: "How many messages were recognised so far. Targets that have no RESTORE for the source's streams. Counted by \
                  stream.",
        reason: Some("snapshot_stream_idempotence_counts_lost"),
        possible: |_, target| target.is_redis(8, 6),
        shows: |difference| difference.what.starts_with("producers' counts: "),
        ignore: |_| false,
    },
    Loss {
        name: "streams",
        meaning: "Streams, whole. Targets before Redis 5.0. Counted by key.",
        reason: None,
        possible: |_, target| !target.redis(5, 0),
        shows: |difference| difference.what == "is missing at the target (stream at the source)",
        ignore: |_| false,
    },
    Loss {
        name: "arrays",
        meaning: "Arrays, whole. Targets before Redis 8.8, and Valkey. Counted by key.",
        reason: None,
        possible: |_, target| !target.is_redis(8, 8),
        shows: |difference| difference.what == "is missing at the target (array at the source)",
        ignore: |_| false,
    },
    Loss {
        name: "vector sets",
        meaning: "Vector sets, whole. Targets before Redis 8.0, and Valkey, which do not have the module. Counted by key.",
        reason: Some("snapshot_module_lost"),
        possible: |_, target| !target.is_redis(8, 0),
        shows: |difference| difference.what == "is missing at the target (vectorset at the source)",
        ignore: |_| false,
    },
];

impl Loss {
    pub(super) fn ignore(&self, options: &mut OracleOptions) -> bool {
        (self.ignore)(options)
    }
}

/// The loss that a difference is, if the versions make it possible.
pub(super) fn explain(
    (source, target): (Version, Version),
    difference: &Difference,
) -> Option<&'static Loss> {
    LOSSES
        .iter()
        .find(|loss| (loss.possible)(source, target) && (loss.shows)(difference))
}

/// The loss that the daemon counts under a reason, if the versions make it possible.
pub(super) fn by_reason(
    (source, target): (Version, Version),
    reason: &str,
) -> Option<&'static Loss> {
    LOSSES
        .iter()
        .find(|loss| loss.reason == Some(reason) && (loss.possible)(source, target))
}

/// Whether the daemon leaves something out that the oracle sees for itself: keys that have expired, keys of a kind that
/// the target does not know.
pub(super) fn is_seen(reason: &str) -> bool {
    reason.starts_with("snapshot_expired_") || reason == "snapshot_key_lost"
}

pub(super) fn is_counted_by_daemon(name: &str) -> bool {
    LOSSES
        .iter()
        .any(|loss| loss.name == name && loss.reason.is_some())
}
