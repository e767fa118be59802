//! What becomes of a command of the source's stream.

use std::fmt;

use crate::Db;
use crate::table::CommandId;

/// What goes to the target for one command of the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The frame's own bytes.
    Forward {
        /// Which command it is.
        command: CommandId,
    },
    /// The commands that were appended to `out` instead.
    Rewritten {
        /// Which command the source sent.
        command: CommandId,
        /// How many there are now.
        commands: u32,
    },
    /// Nothing.
    Dropped(DropReason),
    /// Nothing by itself: the next command, rewritten or not, is for this db.
    Select(Db),
    /// A transaction begins.
    Multi,
    /// A transaction ends.
    Exec,
    /// A transaction ends without effect: what came since `MULTI` is not to be sent.
    Discard,
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $reason:ident = $label:literal,)*) => {
        /// Why nothing goes to the target for a command.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DropReason {
            $($(#[$doc])* $reason,)*
        }

        impl DropReason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$reason),*];

            /// The label of its counter.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Self::$reason => $label,)*
                }
            }
        }
    };
}

reasons! {
    /// A frame without a command in it.
    Empty = "empty",
    /// `PING`: the source is alive.
    Ping = "ping",
    /// `REPLCONF`: the link answers it.
    Replconf = "replconf",
    /// `OPINFO`: bookkeeping of Alibaba's servers.
    Opinfo = "opinfo",
    /// A command about the server, a connection or the cluster, which means nothing elsewhere.
    Control = "control",
    /// The source's slots have moved: the keys live on, in another of its nodes.
    SlotMigration = "slot_migration",
    /// A message to a channel, which is not data.
    Publish = "publish",
    /// Sentinel's own message, which would mix the source's Sentinels with the target's.
    SentinelHello = "sentinel_hello",
    /// `SCRIPT FLUSH`: the target's scripts may be in use by others.
    ScriptFlush = "script_flush",
    /// A key of ours: it tells of another link, or of this one's way back.
    OwnKey = "own_key",
    /// The db is filtered out.
    FilterDb = "filter_db",
    /// Every key is filtered out.
    FilterKey = "filter_key",
    /// Some keys or dbs are filtered out, and the command cannot be cut down to the others.
    FilterMixed = "filter_mixed",
    /// The command is filtered out.
    FilterCommand = "filter_command",
    /// The command's group is filtered out.
    FilterGroup = "filter_group",
    /// It changes nothing.
    NoEffect = "no_effect",
    /// The target has nothing of this kind, and losses are allowed.
    TargetLacks = "target_lacks",
    /// The rest went: only some words were left out, which the target does not know; losses are allowed.
    TargetLacksWords = "target_lacks_words",
}

/// A command that cannot be brought to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The command's name, as the source wrote it (shortened).
    pub command: String,
    /// The cause.
    pub kind: ErrorKind,
}

/// Why a command cannot be brought to the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorKind {
    /// `MULTI` within `MULTI`.
    NestedMulti,
    /// `EXEC` or `DISCARD` without `MULTI`.
    NoMulti,
    /// `SELECT` of something that is no db.
    BadDb,
    /// The target has no such thing.
    TargetLacks {
        /// What it would have to have.
        what: &'static str,
    },
    /// The target has no command of that name.
    CommandUnknown,
    /// The target does not know a value's type, and the value comes as a payload that only `RESTORE` can take.
    TypeUnknown {
        /// The key, escaped and shortened.
        key: String,
        /// The RDB type byte.
        type_id: u8,
    },
    /// The value in the payload is a module's, and the target does not have the module.
    ModuleUnknown {
        /// The key, escaped and shortened.
        key: String,
        /// The module's name for the type.
        module: String,
    },
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NestedMulti => write!(f, "stands within another transaction"),
            Self::NoMulti => write!(f, "stands outside a transaction"),
            Self::BadDb => write!(f, "names no db"),
            Self::TargetLacks { what } => write!(f, "needs {what}, which the target does not have"),
            Self::CommandUnknown => write!(
                f,
                "is not known to the target: migrate to a newer target, or filter the command out"
            ),
            Self::TypeUnknown { key, type_id } => write!(
                f,
                "of key \"{key}\" carries a value of RDB type {type_id}, which the target's version does not know: \
                 migrate to a newer target, or filter the key out"
            ),
            Self::ModuleUnknown { key, module } => write!(
                f,
                "of key \"{key}\" carries a value of a module (\"{module}\") that the target does not have: load the \
                 module there, or filter the key out"
            ),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command {} {}", self.command, self.kind)
    }
}

impl std::error::Error for Error {}

/// At most 64 bytes of a name or key, escaped, for people to read.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let head = bytes.get(..64).unwrap_or(bytes);
    let dots = if head.len() < bytes.len() { "..." } else { "" };
    format!("{}{dots}", head.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_snake_case_and_differ() {
        let mut labels: Vec<&str> = DropReason::ALL
            .iter()
            .map(|reason| reason.label())
            .collect();
        assert!(
            labels
                .iter()
                .all(|label| label.bytes().all(|b| b == b'_' || b.is_ascii_lowercase()))
        );
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), DropReason::ALL.len());
    }

    #[test]
    fn long_and_binary_names_are_readable() {
        assert_eq!(printable(b"a\xff\"\n"), "a\\xff\\\"\\n");
        assert!(printable(&[b'a'; 100]).ends_with("aaa..."));
    }
}
