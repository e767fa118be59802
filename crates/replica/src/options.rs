//! What a link is told when it is made.

use std::fmt;

use bytes::Bytes;

use crate::{ReplId, ReplOffset};

/// How to speak to the source.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// The ACL user; used only together with a password.
    pub username: Option<String>,
    /// No AUTH is sent without one.
    pub password: Option<String>,
    /// `PSYNC`, or the name a managed service gave it.
    pub psync_command: String,
    /// Whether to take the snapshot straight from the source's child process (`$EOF` form). Without
    /// it the source writes its RDB to disk first and then sends that file (`$len` form).
    pub capa_eof: bool,
    /// Whether to offer that the snapshot comes on a connection of its own, where one is asked for
    /// ([`Start::Full`]): see [`RdbChannel`](crate::RdbChannel).
    pub rdb_channel: bool,
    /// The version to announce by `REPLCONF version`. Valkey 9 sends hash-field TTLs only to a
    /// replica that announced one, and Valkey clusters then make `SETSLOT` wait for our ACKs.
    pub version: Option<String>,
    /// Which offset the source is told.
    pub ack: AckMode,
    /// How long each phase may stay silent.
    pub timeouts: Timeouts,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            username: None,
            password: None,
            psync_command: "PSYNC".to_owned(),
            capa_eof: true,
            rdb_channel: false,
            version: None,
            ack: AckMode::Applied,
            timeouts: Timeouts::default(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            username,
            password,
            psync_command,
            capa_eof,
            rdb_channel,
            version,
            ack,
            timeouts,
        } = self;
        f.debug_struct("Options")
            .field("username", username)
            .field("password", &password.as_ref().map(|_| "***"))
            .field("psync_command", psync_command)
            .field("capa_eof", capa_eof)
            .field("rdb_channel", rdb_channel)
            .field("version", version)
            .field("ack", ack)
            .field("timeouts", timeouts)
            .finish()
    }
}

/// Which offset a `REPLCONF ACK` carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AckMode {
    /// What the target confirmed, less one byte: dashboards and WAIT see the truth, and `FAILOVER`
    /// at the source, which wants a replica with exactly its own offset, can never choose us.
    #[default]
    Applied,
    /// Always 0: the source's WAIT never counts us.
    Zero,
}

/// How long the source may stay silent, by phase. Any byte starts the time anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// A reply of the handshake before PSYNC's.
    pub reply_ms: u64,
    /// PSYNC's reply and the snapshot's header: the source may wait for another child process and
    /// sends a newline a second meanwhile.
    pub bgsave_ms: u64,
    /// The snapshot's bytes.
    pub snapshot_ms: u64,
    /// The command stream; a master pings every `repl-ping-replica-period`, 10 s by default.
    pub stream_ms: u64,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            reply_ms: 10_000,
            bgsave_ms: 60_000,
            snapshot_ms: 60_000,
            stream_ms: 60_000,
        }
    }
}

/// Where a link begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With a snapshot of everything.
    Full,
    /// After the last byte a former link received. The source may still answer with a snapshot.
    Resume {
        /// The history of `received`.
        replid: ReplId,
        /// The offset of the last byte received.
        received: ReplOffset,
        /// The last bytes received: those after the end of the last whole command, which the first
        /// new byte goes on from. Not more than `received` of them.
        partial: Bytes,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_does_not_tell_the_password() {
        let options = Options {
            password: Some("hunter2".to_owned()),
            ..Options::default()
        };
        let text = format!("{options:?}");
        assert!(text.contains("***") && !text.contains("hunter2"), "{text}");
    }
}
