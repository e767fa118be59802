//! What can be wrong with a peer's bytes, by cause and with the place.

use std::fmt;

/// Malformed or oversized input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{kind}, at byte {at} of the frame")]
pub struct Error {
    /// Offset, within the frame, of the first byte that is wrong.
    pub at: u64,
    /// What is wrong.
    pub kind: ErrorKind,
}

impl Error {
    #[cold]
    pub(crate) fn new(at: usize, kind: ErrorKind) -> Self {
        Self {
            at: at as u64,
            kind,
        }
    }

    #[cold]
    pub(crate) fn limit(at: usize, what: Limited, got: u64, max: u64) -> Self {
        Self::new(at, ErrorKind::Limit { what, got, max })
    }
}

/// The cause of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ErrorKind {
    /// The byte begins no type of the protocol.
    #[error("unknown type byte {}", Printable(*.0))]
    UnknownType(u8),
    /// The type exists, but not in this place: no bulk string in a command, a push inside an
    /// aggregate, a chunk outside a streamed string.
    #[error("type {} does not belong here", Printable(*.0))]
    Misplaced(u8),
    /// Not a strict decimal number: no digit, a leading zero, a sign or byte that cannot stand here.
    #[error("malformed number")]
    BadNumber,
    /// The number does not fit into 64 bits.
    #[error("number out of range")]
    Overflow,
    /// A negative length other than the `-1` of a null.
    #[error("negative length")]
    NegativeLength,
    /// A carriage return without a line feed, or the other way round, inside a line.
    #[error("malformed line end")]
    BadLineEnd,
    /// A bulk string is not followed by `\r\n`: its length is wrong.
    #[error("no line end after a bulk string")]
    MissingCrlf,
    /// Not a floating-point number.
    #[error("malformed double")]
    BadDouble,
    /// Neither `#t` nor `#f`.
    #[error("malformed boolean")]
    BadBool,
    /// Not a big number.
    #[error("malformed big number")]
    BadBigNumber,
    /// A `_` with something behind it.
    #[error("malformed null")]
    BadNull,
    /// A verbatim string without its three-letter format and colon.
    #[error("malformed verbatim string")]
    BadVerbatim,
    /// A streamed map ended between a key and its value.
    #[error("a key without a value")]
    OddMap,
    /// A quote of an inline command is not closed, or something follows the closing one directly.
    #[error("unbalanced quotes in an inline command")]
    UnbalancedQuotes,
    /// An argument of an inline command holds an escape or quotes within a word. Its value differs
    /// from its bytes, so no range of the frame can stand for it.
    #[error("an inline argument that would have to be unescaped")]
    InlineEscape,
    /// More than [`Limits`](crate::Limits) allows.
    #[error("{what} of {got}, more than the allowed {max}")]
    Limit {
        /// Which bound.
        what: Limited,
        /// The declared size, or the size reached so far.
        got: u64,
        /// The bound.
        max: u64,
    },
}

/// What a [limit](crate::Limits) bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limited {
    /// Bytes of a bulk string.
    BulkBytes,
    /// Items of an aggregate or arguments of a command.
    Items,
    /// Nesting of aggregates.
    Depth,
    /// Bytes of a line.
    LineBytes,
    /// Bytes of a frame.
    FrameBytes,
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BulkBytes => "bulk string bytes",
            Self::Items => "item count",
            Self::Depth => "nesting",
            Self::LineBytes => "line bytes",
            Self::FrameBytes => "frame bytes",
        })
    }
}

struct Printable(u8);

impl fmt::Display for Printable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.escape_ascii())
    }
}
