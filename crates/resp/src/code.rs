//! The errors a server replies with.

use std::fmt;

use bytes::Bytes;

/// An error reply: `-MOVED 3999 127.0.0.1:6381\r\n`.
#[derive(Clone, PartialEq, Eq)]
pub struct ErrorReply {
    /// Its first word.
    pub code: ErrorCode,
    /// The whole text, first word included, without the `-` and the line end.
    pub text: Bytes,
}

impl ErrorReply {
    /// Reads the code off a text.
    pub fn new(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Self {
            code: ErrorCode::of(&text),
            text,
        }
    }

    /// Where a `MOVED` or `ASK` points to. `None` for other errors and for a malformed one.
    pub fn redirect(&self) -> Option<Redirect<'_>> {
        if !matches!(self.code, ErrorCode::Moved | ErrorCode::Ask) {
            return None;
        }
        let text = std::str::from_utf8(&self.text).ok()?;
        let mut words = text.split(' ');
        let (_, slot, address) = (words.next()?, words.next()?, words.next()?);
        // The last colon: an IPv6 host has some of its own and comes without brackets.
        let (host, port) = address.rsplit_once(':')?;
        let slot = slot.parse().ok().filter(|&slot| slot < Redirect::SLOTS)?;
        Some(Redirect {
            slot,
            host,
            port: port.parse().ok()?,
        })
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.text))
    }
}

impl fmt::Debug for ErrorReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ErrorReply({:?}, \"{}\")",
            self.code,
            self.text.escape_ascii()
        )
    }
}

/// The node that a cluster sends a client to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect<'a> {
    /// The slot in question.
    pub slot: u16,
    /// Its host; empty means the one that was asked.
    pub host: &'a str,
    /// Its port.
    pub port: u16,
}

impl Redirect<'_> {
    const SLOTS: u16 = 16_384;
}

/// Declares [`ErrorCode`] and the word of each code in one table.
macro_rules! codes {
    ($( $(#[$doc:meta])* $name:ident = $word:literal, )*) => {
        /// The first word of an error reply.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ErrorCode {
            $( $(#[$doc])* $name, )*
            /// A word that is not in this list, as modules have them.
            Other,
        }

        impl ErrorCode {
            /// Every code that has a word.
            pub const ALL: &'static [Self] = &[$( Self::$name, )*];

            /// The code of a word; upper case, as all servers write it.
            pub fn of_word(word: &[u8]) -> Self {
                match std::str::from_utf8(word) {
                    $( Ok($word) => Self::$name, )*
                    Ok(_) | Err(_) => Self::Other,
                }
            }

            /// Its word on the wire; empty for [`ErrorCode::Other`].
            pub fn word(self) -> &'static str {
                match self {
                    $( Self::$name => $word, )*
                    Self::Other => "",
                }
            }
        }
    };
}

codes! {
    /// Anything without a code of its own.
    Err = "ERR",
    /// The slot lives on another node.
    Moved = "MOVED",
    /// The key may already be on another node.
    Ask = "ASK",
    /// The keys of a command are on two nodes while a slot migrates.
    TryAgain = "TRYAGAIN",
    /// The cluster does not serve the slot.
    ClusterDown = "CLUSTERDOWN",
    /// The keys of a command hash to different slots.
    CrossSlot = "CROSSSLOT",
    /// A primary hands its clients to another node (Valkey, without cluster mode).
    Redirect = "REDIRECT",
    /// The server reads its dataset.
    Loading = "LOADING",
    /// A script or function runs for too long.
    Busy = "BUSY",
    /// `RESTORE` or `MIGRATE` without `REPLACE` found the key.
    BusyKey = "BUSYKEY",
    /// A replica without its master, told not to serve stale data.
    MasterDown = "MASTERDOWN",
    /// Too few good replicas to accept writes.
    NoReplicas = "NOREPLICAS",
    /// `maxmemory` is reached.
    Oom = "OOM",
    /// A replica was written to.
    ReadOnly = "READONLY",
    /// Writes are stopped because a snapshot or AOF write failed.
    Misconf = "MISCONF",
    /// Authentication is needed first.
    NoAuth = "NOAUTH",
    /// Wrong user or password.
    WrongPass = "WRONGPASS",
    /// The user may not do this.
    NoPerm = "NOPERM",
    /// `HELLO` with a protocol that is not supported.
    NoProto = "NOPROTO",
    /// `EVALSHA` of an unknown script.
    NoScript = "NOSCRIPT",
    /// A transaction was thrown away because a command in it was refused.
    ExecAbort = "EXECABORT",
    /// The key holds another kind of value.
    WrongType = "WRONGTYPE",
    /// The consumer group exists.
    BusyGroup = "BUSYGROUP",
    /// The consumer group does not exist.
    NoGroup = "NOGROUP",
    /// Protected mode refuses the connection.
    Denied = "DENIED",
    /// A replica is not in sync with its own master and cannot serve replicas.
    NoMasterLink = "NOMASTERLINK",
    /// A script that has written cannot be killed.
    Unkillable = "UNKILLABLE",
    /// No script to kill.
    NotBusy = "NOTBUSY",
    /// A failover is in progress.
    InProg = "INPROG",
    /// A blocked client was released by force.
    Unblocked = "UNBLOCKED",
    /// `MIGRATE` could not talk to the other server.
    IoErr = "IOERR",
    /// Sentinel: not enough of them agree.
    NoQuorum = "NOQUORUM",
    /// Sentinel: no replica fit to be promoted.
    NoGoodReplica = "NOGOODSLAVE",
}

impl ErrorCode {
    /// The code at the head of an error's text.
    pub fn of(text: &[u8]) -> Self {
        let end = memchr::memchr(b' ', text).unwrap_or(text.len());
        text.get(..end).map_or(Self::Other, Self::of_word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_reads_back() {
        for &code in ErrorCode::ALL {
            assert_eq!(ErrorCode::of_word(code.word().as_bytes()), code);
            let text = format!("{} and why", code.word());
            assert_eq!(ErrorReply::new(text).code, code);
        }
        for word in ["", "err", "MOVEDX", "ERR:", "FOO", "\u{e9}"] {
            assert_eq!(ErrorCode::of(word.as_bytes()), ErrorCode::Other, "{word}");
        }
        assert_eq!(ErrorCode::of(b"\xff\xfe x"), ErrorCode::Other);
    }

    #[test]
    fn redirects_name_slot_and_node() {
        let check = |text: &'static str| {
            let reply = ErrorReply::new(text);
            reply
                .redirect()
                .map(|to| (to.slot, to.host.to_owned(), to.port))
        };
        let node = |slot, host: &str, port| Some((slot, host.to_owned(), port));
        assert_eq!(
            check("MOVED 3999 127.0.0.1:6381"),
            node(3999, "127.0.0.1", 6381)
        );
        assert_eq!(check("ASK 16383 ::1:7000"), node(16_383, "::1", 7000));
        assert_eq!(check("MOVED 0 :6381"), node(0, "", 6381));
        for bad in [
            "MOVED",
            "MOVED 16384 h:1",
            "MOVED x h:1",
            "MOVED 1 h",
            "MOVED 1 h:65536",
            "ERR 1 h:1",
            "MOVED 1",
        ] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }
}
