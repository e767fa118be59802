//! What can end a link, by cause, and what to do about each.

use crate::ReplOffset;

/// The end of a link: nothing more comes out of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} ({state})")]
pub struct Error {
    /// The state it ended in, in Redis's words (`REPL_STATE_..`).
    pub state: &'static str,
    /// The cause.
    pub kind: ErrorKind,
}

impl Error {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        self.kind.class()
    }
}

/// What to do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// Time may heal it: connect again after a pause, and go on where this link ended.
    Reconnect,
    /// The source does not let anybody replicate from it. Reading it by SCAN may be possible.
    PsyncRefused,
    /// Trying again would end the same way: somebody has to look at it.
    Fatal,
}

/// The cause of an [`Error`]. `reply` is the source's text without the `-`, escaped and cut, and
/// never with our password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// It wants a password, or another one.
    #[error("the source does not accept our credentials: {reply}")]
    Auth {
        /// The source's text.
        reply: String,
    },
    /// The user lacks a permission.
    #[error("the source's user may not replicate (it needs +ping +psync +replconf): {reply}")]
    NoPerm {
        /// The source's text.
        reply: String,
    },
    /// PSYNC is unknown, renamed or blocked there, as managed services have it.
    #[error("the source does not offer PSYNC: {reply}")]
    PsyncRefused {
        /// The source's text.
        reply: String,
    },
    /// It is reading its dataset.
    #[error("the source is loading its dataset: {reply}")]
    Loading {
        /// The source's text.
        reply: String,
    },
    /// A script blocks it.
    #[error("the source is busy: {reply}")]
    Busy {
        /// The source's text.
        reply: String,
    },
    /// It is a replica that lost its master and may not serve stale data.
    #[error("the source has lost its own master: {reply}")]
    MasterDown {
        /// The source's text.
        reply: String,
    },
    /// It is a replica that is not in sync with its master, or a failover is going on.
    #[error("the source has no link to its own master: {reply}")]
    NoMasterLink {
        /// The source's text.
        reply: String,
    },
    /// It could not make a snapshot.
    #[error("the source failed to make a snapshot: {reply}")]
    SnapshotFailed {
        /// The source's text.
        reply: String,
    },
    /// It does not speak RESP2 with us.
    #[error("the source refuses our protocol: {reply}")]
    NoProto {
        /// The source's text.
        reply: String,
    },
    /// Protected mode: it has no password and takes local connections only.
    #[error("the source denies connections: {reply}")]
    Denied {
        /// The source's text.
        reply: String,
    },
    /// It has as many clients as it may.
    #[error("the source has no room for another client: {reply}")]
    MaxClients {
        /// The source's text.
        reply: String,
    },
    /// Any other error reply where one is critical.
    #[error("the source refuses: {reply}")]
    Refused {
        /// The source's text.
        reply: String,
    },
    /// The connection ended.
    #[error("the source closed the connection; we waited for {waited_for}{}", Unfinished(.unfinished))]
    Closed {
        /// What should have come.
        waited_for: &'static str,
        /// The beginning of a reply that came without its end.
        unfinished: String,
    },
    /// Nothing came for too long.
    #[error("the source was silent for {silent_ms} ms; we waited for {waited_for}")]
    Timeout {
        /// What should have come.
        waited_for: &'static str,
        /// How long nothing came.
        silent_ms: u64,
    },
    /// A TLS alert: the source wants TLS and we came without.
    #[error("the source speaks TLS, and we do not on this connection")]
    Tls,
    /// Whoever answers is no Redis.
    #[error("what answers is no Redis: it begins with `{begins}`")]
    NotRedis {
        /// Its first bytes, escaped.
        begins: String,
    },
    /// RESP, but not what PSYNC allows here.
    #[error("expected {expected}, got `{got}`")]
    Protocol {
        /// What the protocol allows.
        expected: &'static str,
        /// What came, escaped.
        got: String,
    },
    /// The command stream is no sequence of commands.
    #[error("the stream is no RESP at offset {at}: {}, got `{got}`", Fault(.fault))]
    Stream {
        /// The offset of the first wrong byte.
        at: ReplOffset,
        /// What came, from the beginning of that command on, escaped.
        got: String,
        /// What is wrong; none: a command begins with another byte than `*`.
        fault: Option<resp::ErrorKind>,
    },
}

impl ErrorKind {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Loading { .. }
            | Self::Busy { .. }
            | Self::MasterDown { .. }
            | Self::NoMasterLink { .. }
            | Self::SnapshotFailed { .. }
            | Self::MaxClients { .. }
            | Self::Closed { .. }
            | Self::Timeout { .. } => Class::Reconnect,
            Self::PsyncRefused { .. } => Class::PsyncRefused,
            // A stream out of step is in this list because a length misread earlier may have
            // swallowed commands: what was passed on before the fault is not to be trusted.
            Self::Auth { .. }
            | Self::NoPerm { .. }
            | Self::NoProto { .. }
            | Self::Denied { .. }
            | Self::Refused { .. }
            | Self::Tls
            | Self::NotRedis { .. }
            | Self::Protocol { .. }
            | Self::Stream { .. } => Class::Fatal,
        }
    }
}

struct Unfinished<'a>(&'a str);

impl std::fmt::Display for Unfinished<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, " and had got `{}`", self.0)
        }
    }
}

struct Fault<'a>(&'a Option<resp::ErrorKind>);

impl std::fmt::Display for Fault<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(kind) => kind.fmt(f),
            None => f.write_str("a command begins with `*`"),
        }
    }
}

/// Up to `max` of these bytes as printable text.
pub(crate) fn quoted(bytes: &[u8], max: usize) -> String {
    let mut text = String::new();
    for &byte in bytes.iter().take(max) {
        match byte {
            b' '..=b'~' if byte != b'\\' => text.push(char::from(byte)),
            _ => text.extend(byte.escape_ascii().map(char::from)),
        }
    }
    if bytes.len() > max {
        text.push_str("..");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_class() {
        use Class::{Fatal, PsyncRefused, Reconnect};
        let reply = || "text".to_owned();
        let table = [
            (ErrorKind::Auth { reply: reply() }, Fatal),
            (ErrorKind::NoPerm { reply: reply() }, Fatal),
            (ErrorKind::PsyncRefused { reply: reply() }, PsyncRefused),
            (ErrorKind::Loading { reply: reply() }, Reconnect),
            (ErrorKind::Busy { reply: reply() }, Reconnect),
            (ErrorKind::MasterDown { reply: reply() }, Reconnect),
            (ErrorKind::NoMasterLink { reply: reply() }, Reconnect),
            (ErrorKind::SnapshotFailed { reply: reply() }, Reconnect),
            (ErrorKind::NoProto { reply: reply() }, Fatal),
            (ErrorKind::Denied { reply: reply() }, Fatal),
            (ErrorKind::MaxClients { reply: reply() }, Reconnect),
            (ErrorKind::Refused { reply: reply() }, Fatal),
            (
                ErrorKind::Closed {
                    waited_for: "x",
                    unfinished: reply(),
                },
                Reconnect,
            ),
            (
                ErrorKind::Timeout {
                    waited_for: "x",
                    silent_ms: 1,
                },
                Reconnect,
            ),
            (ErrorKind::Tls, Fatal),
            (ErrorKind::NotRedis { begins: reply() }, Fatal),
            (
                ErrorKind::Protocol {
                    expected: "x",
                    got: reply(),
                },
                Fatal,
            ),
            (
                ErrorKind::Stream {
                    at: ReplOffset(1),
                    got: reply(),
                    fault: None,
                },
                Fatal,
            ),
        ];
        for (kind, class) in table {
            assert_eq!(
                Error {
                    state: "CONNECTED",
                    kind: kind.clone()
                }
                .class(),
                class,
                "{kind:?}"
            );
        }
    }

    #[test]
    fn quoted_text_is_printable_and_cut() {
        assert_eq!(
            quoted(b"unknown 'PSYNC'\r\n\x00\\\xff", 99),
            r"unknown 'PSYNC'\r\n\x00\\\xff"
        );
        assert_eq!(quoted(b"abcd", 3), "abc..");
    }
}
