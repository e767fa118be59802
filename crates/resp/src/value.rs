//! A reply as a value.

use bytes::Bytes;

use crate::code::ErrorReply;

/// Any RESP2 or RESP3 value. Its bytes are slices of the buffer that it was read from.
///
/// RESP3's streamed strings and aggregates come as the plain ones, and all forms of null as one.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `+OK`
    Simple(Bytes),
    /// `-ERR ...`
    Error(ErrorReply),
    /// `:42`
    Int(i64),
    /// `$5 hello`
    Bulk(Bytes),
    /// `$-1`, `*-1`, `_`
    Null,
    /// `*2 ...`
    Array(Vec<Self>),
    /// `,3.14`
    Double(f64),
    /// `#t`
    Bool(bool),
    /// `(3492890328409238509324850943850943825024385`: sign and digits
    BigNumber(Bytes),
    /// `=15 txt:Some string`
    Verbatim {
        /// What the text is: `txt`, `mkd`.
        format: [u8; 3],
        /// The text alone.
        text: Bytes,
    },
    /// `!21 SYNTAX invalid syntax`
    BulkError(ErrorReply),
    /// `%2 ...`
    Map(Vec<(Self, Self)>),
    /// `~3 ...`
    Set(Vec<Self>),
    /// `>3 ...`: sent by the server on its own account, it answers nothing.
    Push(Vec<Self>),
    /// `|1 ...` and the value that it precedes.
    Attribute {
        /// What is said about the value.
        attributes: Vec<(Self, Self)>,
        /// The value itself.
        value: Box<Self>,
    },
}

impl Value {
    /// The bytes of any kind of string.
    pub fn as_bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Simple(text) | Self::Bulk(text) | Self::Verbatim { text, .. } => Some(text),
            Self::Attribute { value, .. } => value.as_bytes(),
            Self::Error(_)
            | Self::Int(_)
            | Self::Null
            | Self::Array(_)
            | Self::Double(_)
            | Self::Bool(_)
            | Self::BigNumber(_)
            | Self::BulkError(_)
            | Self::Map(_)
            | Self::Set(_)
            | Self::Push(_) => None,
        }
    }

    /// The error of an error reply of either form.
    pub fn as_error(&self) -> Option<&ErrorReply> {
        match self {
            Self::Error(error) | Self::BulkError(error) => Some(error),
            Self::Attribute { value, .. } => value.as_error(),
            Self::Simple(_)
            | Self::Int(_)
            | Self::Bulk(_)
            | Self::Null
            | Self::Array(_)
            | Self::Double(_)
            | Self::Bool(_)
            | Self::BigNumber(_)
            | Self::Verbatim { .. }
            | Self::Map(_)
            | Self::Set(_)
            | Self::Push(_) => None,
        }
    }
}
