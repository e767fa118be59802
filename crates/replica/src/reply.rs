//! What the source's replies to the handshake mean.
//!
//! Mirrors `replication.c: syncWithMaster` and `slaveTryPartialResynchronization`, and knows some
//! replies more: those of proxies and managed services, and of a chained source.

use resp::{ErrorCode, ErrorReply};

use crate::{ErrorKind, Options, RdbChannel, ReplId, ReplOffset, error::quoted};

/// More of a source's text than this helps nobody.
const TEXT_SHOWN: usize = 512;

/// What a reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Ping,
    Auth,
    Capa,
    Version,
    /// Of REPLCONF, by which the two connections of an RDB channel are told to belong together.
    Channel,
    Psync,
}

/// An error reply to the handshake: the cause it ends the link with, or none to go on.
pub(crate) fn refusal(asked: Asked, error: &ErrorReply, options: &Options) -> Option<ErrorKind> {
    let reply = shown(&error.text, options);
    let by_code = match (error.code, asked) {
        // AUTH may come next, and PSYNC may be permitted where PING is not.
        (ErrorCode::NoAuth, Asked::Ping) if options.password.is_some() => return None,
        (ErrorCode::NoPerm, Asked::Ping) => return None,
        // A master that cannot save answers PING so; a snapshot by socket may still work.
        (ErrorCode::Misconf, Asked::Ping) => return None,
        (ErrorCode::NoAuth | ErrorCode::WrongPass, _) => ErrorKind::Auth { reply },
        (ErrorCode::NoPerm, _) => ErrorKind::NoPerm { reply },
        (ErrorCode::Loading, _) => ErrorKind::Loading { reply },
        (ErrorCode::Busy, _) => ErrorKind::Busy { reply },
        (ErrorCode::MasterDown, _) => ErrorKind::MasterDown { reply },
        (ErrorCode::NoMasterLink, _) => ErrorKind::NoMasterLink { reply },
        (ErrorCode::NoProto, _) => ErrorKind::NoProto { reply },
        (ErrorCode::Denied, _) => ErrorKind::Denied { reply },
        (ErrorCode::Err, _) => return refusal_by_text(asked, error, reply, options),
        _ => ErrorKind::Refused { reply },
    };
    Some(by_code)
}

/// `-ERR`: the text alone says what is meant.
fn refusal_by_text(
    asked: Asked,
    error: &ErrorReply,
    reply: String,
    options: &Options,
) -> Option<ErrorKind> {
    let text = error.text.to_ascii_lowercase();
    let says = |words: &str| memchr::memmem::find(&text, words.as_bytes()).is_some();
    if says("max number of clients") {
        return Some(ErrorKind::MaxClients { reply });
    }
    let unauthenticated = says("operation not permitted"); // NOAUTH before 2.8
    match asked {
        Asked::Ping if unauthenticated && options.password.is_some() => None,
        Asked::Ping if unauthenticated => Some(ErrorKind::Auth { reply }),
        Asked::Ping => Some(ErrorKind::Refused { reply }),
        Asked::Auth => Some(ErrorKind::Auth { reply }),
        // Older sources do not know the option, and none needs it to be known.
        Asked::Capa | Asked::Version => None,
        // Here a wrong id, or an option that is not known, means that nothing comes of it.
        Asked::Channel => Some(ErrorKind::Refused { reply }),
        Asked::Psync => Some(psync_refusal(says, reply)),
    }
}

fn psync_refusal(says: impl Fn(&str) -> bool, reply: String) -> ErrorKind {
    const NOT_OFFERED: [&str; 11] = [
        "unknown command",
        // The name that was given is another command's, such as SYNC's.
        "wrong number of arguments",
        "unsupported",
        "not supported",
        "not allowed",
        "not permitted",
        "disabled",
        "blocked",
        "disallowed",
        "invalid command",
        "forbidden",
    ];
    if says("not connected with my master") {
        ErrorKind::NoMasterLink { reply } // without a code before 3.0
    } else if says("bgsave failed") || says("background save") {
        ErrorKind::SnapshotFailed { reply }
    } else if NOT_OFFERED.iter().any(|words| says(words)) {
        ErrorKind::PsyncRefused { reply }
    } else {
        ErrorKind::Refused { reply }
    }
}

/// A source's text, fit for a log. "unknown command" replies echo the arguments: after our AUTH
/// that would be the password.
pub(crate) fn shown(text: &[u8], options: &Options) -> String {
    let Some(password) = options
        .password
        .as_deref()
        .filter(|password| !password.is_empty())
    else {
        return quoted(text, TEXT_SHOWN);
    };
    let text = match memchr::memmem::find(text, b", with args") {
        Some(at) => text.get(..at).unwrap_or_default(),
        None => text,
    };
    let mut clean = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = memchr::memmem::find(rest, password.as_bytes()) {
        clean.extend_from_slice(rest.get(..at).unwrap_or_default());
        clean.extend_from_slice(b"***");
        rest = rest.get(at + password.len()..).unwrap_or_default();
    }
    clean.extend_from_slice(rest);
    quoted(&clean, TEXT_SHOWN)
}

/// A status reply to PSYNC.
#[derive(Debug, PartialEq)]
pub(crate) enum Psync {
    FullResync {
        replid: ReplId,
        offset: ReplOffset,
    },
    /// Without an id, the one we asked with stays: sources before 4.0.
    Continue {
        replid: Option<ReplId>,
    },
    RdbChannel(RdbChannel),
}

impl Psync {
    /// Reads `FULLRESYNC <id> <offset>` or `CONTINUE [<id>]`, and what announces an RDB channel if
    /// that was offered. Further words are passed over: Tair has some after FULLRESYNC.
    pub(crate) fn parse(status: &[u8], offered: bool) -> Result<Self, ErrorKind> {
        let mut words = status
            .split(|byte| *byte == b' ')
            .filter(|word| !word.is_empty());
        let parsed = match words.next() {
            Some(b"FULLRESYNC") => {
                let (replid, offset) = (words.next(), words.next());
                replid
                    .and_then(ReplId::from_bytes)
                    .zip(offset.and_then(number))
                    .map(|(replid, offset)| Self::FullResync {
                        replid,
                        offset: ReplOffset(offset),
                    })
            }
            Some(b"CONTINUE") => match words.next() {
                None => Some(Self::Continue { replid: None }),
                Some(id) => ReplId::from_bytes(id).map(|id| Self::Continue { replid: Some(id) }),
            },
            Some(word) if offered => RdbChannel::parse(word, words.next()).map(Self::RdbChannel),
            _ => None,
        };
        parsed.ok_or_else(|| ErrorKind::Protocol {
            expected: "+FULLRESYNC <id> <offset> or +CONTINUE [<id>]",
            got: quoted(&[b"+", status].concat(), TEXT_SHOWN),
        })
    }
}

/// A decimal number of digits alone.
pub(crate) fn number(digits: &[u8]) -> Option<u64> {
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echoed_password_is_not_shown() {
        let options = Options {
            password: Some("hunter2".to_owned()),
            ..Options::default()
        };
        let echo = b"ERR unknown command 'AUTH', with args beginning with: 'bob' 'hunte";
        assert_eq!(shown(echo, &options), "ERR unknown command 'AUTH'");
        assert_eq!(shown(b"ERR hunter2, hunter2!", &options), "ERR ***, ***!");
        assert_eq!(shown(b"ERR hunter2", &Options::default()), "ERR hunter2");
    }

    #[test]
    fn numbers_are_digits_that_fit() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for wrong in [b"".as_slice(), b"18446744073709551616", b"-1", b"+1", b"1x"] {
            assert_eq!(number(wrong), None, "{wrong:?}");
        }
    }
}
