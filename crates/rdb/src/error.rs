//! Errors by cause, with the place in the input.

use std::fmt;

/// What is wrong with the input, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} at byte {at}")]
pub struct Error {
    /// Offset of the item that is wrong (for a packed container: of its string), from the first
    /// byte of the file or payload.
    pub at: u64,
    /// The cause.
    pub kind: ErrorKind,
}

/// The causes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Neither `REDIS` nor `VALKEY` and digits.
    #[error("not an RDB file")]
    BadMagic,
    /// The magic does not go with this version number.
    #[error("RDB version {0} does not exist under this magic")]
    Version(u16),
    /// The byte is no opcode and no value type in the file's dialect.
    #[error("unknown type or opcode {0}")]
    UnknownType(u8),
    /// The type is known by name, but a value of it cannot be delimited.
    #[error("values of type {type_id} ({name}) cannot be read")]
    Unsupported {
        /// The type byte.
        type_id: u8,
        /// Its name in the type table.
        name: &'static str,
    },
    /// The bytes break the format; the text says which rule.
    #[error("corrupt: {0}")]
    Corrupt(&'static str),
    /// A size is legal but above what [`Limits`](crate::Limits) allows.
    #[error("{what} of {got} exceeds the limit of {max}")]
    Limit {
        /// What is too large.
        what: &'static str,
        /// Its size.
        got: u64,
        /// The limit.
        max: u64,
    },
    /// The stored checksum differs from that of the bytes read.
    #[error("{}", ChecksumText(*stored, *computed))]
    Checksum {
        /// As stored in the input.
        stored: u64,
        /// As computed over the input.
        computed: u64,
    },
    /// The input ended within an item.
    #[error("the input ends too early")]
    Truncated,
}

struct ChecksumText(u64, u64);

impl fmt::Display for ChecksumText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "checksum {:#018x} stored, {:#018x} computed",
            self.0, self.1
        )
    }
}

/// Why a step of the decoder did not finish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The item needs this many bytes in all, counted from where it begins.
    Need(usize),
    /// The item is wrong.
    Bad(ErrorKind),
}

impl From<ErrorKind> for Stop {
    fn from(kind: ErrorKind) -> Self {
        Self::Bad(kind)
    }
}

impl Stop {
    pub(crate) const fn corrupt(rule: &'static str) -> Self {
        Self::Bad(ErrorKind::Corrupt(rule))
    }

    /// Within bytes that are all there, more is not to come.
    pub(crate) const fn in_full(self) -> ErrorKind {
        match self {
            Self::Need(_) => ErrorKind::Corrupt("an item runs past the end of what holds it"),
            Self::Bad(kind) => kind,
        }
    }
}
