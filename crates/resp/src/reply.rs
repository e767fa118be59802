//! The replies of a target: counted, and looked at for errors alone.

use bytes::Bytes;

use crate::code::ErrorReply;
use crate::command::Arg;
use crate::error::Error;
use crate::limits::Limits;
use crate::number::{Number, number};
use crate::token::{Aggregate, Token};
use crate::walk::{Level, Walker};

/// A complete reply at the start of the buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// How many bytes it takes; the next reply begins there.
    pub len: usize,
    /// What it is.
    pub kind: ReplyKind,
    /// The errors inside an aggregate, each with the index of the item of the outermost aggregate
    /// (a map's pair counts once) at or under which it stands. Those inside RESP3 attributes are
    /// left out, since they say nothing about the reply.
    pub errors: Vec<(usize, ErrorReply)>,
}

/// What a reply is, at its outermost level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyKind {
    /// `+OK`
    Simple,
    /// `-ERR ...` or `!...`
    Error(ErrorReply),
    /// `:42`
    Int(i64),
    /// A bulk string that is not null, streamed ones included.
    Bulk,
    /// Any form of null.
    Null,
    /// An array, set or map with so many items or pairs.
    Array(usize),
    /// A RESP3 push with so many items. The server sends it on its own account: it answers no
    /// command and must not be counted as a reply.
    Push(usize),
    /// A type that holds neither errors nor a count, by its type byte: `,` `#` `(` `=`.
    Other(u8),
}

/// Finds one reply after the other, in RESP2 or RESP3.
#[derive(Debug)]
pub struct ReplyScanner {
    walker: Walker,
    kind: Option<ReplyKind>,
    errors: Vec<(usize, ErrorReply)>,
}

impl ReplyScanner {
    /// A scanner at the start of a reply.
    pub fn new(limits: Limits) -> Self {
        Self {
            walker: Walker::new(limits),
            kind: None,
            errors: Vec::new(),
        }
    }

    /// Looks for the end of the reply that begins at the first byte of `buf`.
    ///
    /// Between calls `buf` may only have grown. `None`: more bytes are needed. After a reply, the
    /// next call starts a new one, with a `buf` that begins [`Summary::len`] bytes later.
    #[inline]
    pub fn poll(&mut self, buf: &[u8]) -> Result<Option<Summary>, Error> {
        if self.walker.is_at_start() {
            match buf {
                [b'+', b'O', b'K', b'\r', b'\n', ..] => return Ok(Some(simple(5))),
                [b'+', b'Q', b'U', b'E', b'U', b'E', b'D', b'\r', b'\n', ..] => {
                    return Ok(Some(simple(9)));
                }
                // A malformed number is for `scan` to find again, and to remember.
                [b':', ..] => {
                    if let Ok(Some(Number { value, next })) = number(buf, 1) {
                        let kind = ReplyKind::Int(value);
                        return Ok(Some(Summary {
                            len: next,
                            kind,
                            errors: Vec::new(),
                        }));
                    }
                }
                _ => {}
            }
        }
        self.scan(buf)
    }

    /// After a `None`: at least so many more bytes are needed before the reply can be complete.
    ///
    /// The peer has declared them, not sent them: read with it, do not allocate by it.
    pub fn wanted(&self) -> usize {
        self.walker.wanted()
    }

    /// Forgets the reply in progress.
    pub fn reset(&mut self) {
        self.walker.reset();
        self.kind = None;
        self.errors.clear();
    }

    fn scan(&mut self, buf: &[u8]) -> Result<Option<Summary>, Error> {
        while let Some(token) = self.walker.token(buf)? {
            self.note(token, buf);
            if self.walker.accept(token)? {
                let kind = self.kind.take().unwrap_or(ReplyKind::Null);
                let len = self.walker.pos();
                self.walker.reset();
                return Ok(Some(Summary {
                    len,
                    kind,
                    errors: std::mem::take(&mut self.errors),
                }));
            }
            self.walker.skip_plain(buf);
        }
        Ok(None)
    }

    /// Keeps of a token what the summary tells.
    #[inline]
    fn note(&mut self, token: Token, buf: &[u8]) {
        let error = match token {
            Token::Error(place) | Token::BulkError(place) => Some(place),
            Token::Close => return self.note_close(),
            Token::Simple(_)
            | Token::Int(_)
            | Token::Null
            | Token::Double(_)
            | Token::Bool(_)
            | Token::BigNumber(_)
            | Token::Bulk(_)
            | Token::Verbatim(_)
            | Token::ChunksBegin
            | Token::Chunk(_)
            | Token::ChunksEnd
            | Token::Open { .. } => None,
        };
        if self.kind.is_none() && self.levels_below_attributes().is_empty() {
            self.kind = kind_of(token, buf);
        } else if let Some(place) = error {
            self.note_error(place, buf);
        }
    }

    /// The aggregates around the next token, without the attributes that precede the whole reply.
    fn levels_below_attributes(&self) -> &[Level] {
        let levels = self.walker.levels();
        let inner = levels.iter().position(|level| !level.is_attributed_value());
        inner
            .and_then(|inner| levels.get(inner..))
            .unwrap_or_default()
    }

    #[cold]
    fn note_error(&mut self, place: Arg, buf: &[u8]) {
        let levels = self.levels_below_attributes();
        let is_attribute =
            |level: &Level| level.aggregate == Aggregate::Attribute && !level.is_attributed_value();
        if levels.iter().any(is_attribute) {
            return;
        }
        let Some(outermost) = levels.first() else {
            return;
        };
        let index = (outermost.seen / outermost.aggregate.width()) as usize;
        self.errors.push((index, error_reply(place, buf)));
    }

    /// A streamed aggregate tells its number of items at its end.
    fn note_close(&mut self) {
        if let [outermost] = self.levels_below_attributes() {
            let count = (outermost.seen / outermost.aggregate.width()) as usize;
            self.kind = Some(ReplyKind::Array(count));
        }
    }
}

fn simple(len: usize) -> Summary {
    Summary {
        len,
        kind: ReplyKind::Simple,
        errors: Vec::new(),
    }
}

fn error_reply(place: Arg, buf: &[u8]) -> ErrorReply {
    ErrorReply::new(Bytes::copy_from_slice(place.of(buf)))
}

/// The kind of a reply that begins with the token; `None` for an attribute, which only precedes it.
fn kind_of(token: Token, buf: &[u8]) -> Option<ReplyKind> {
    Some(match token {
        Token::Simple(_) => ReplyKind::Simple,
        Token::Error(place) | Token::BulkError(place) => ReplyKind::Error(error_reply(place, buf)),
        Token::Int(value) => ReplyKind::Int(value),
        Token::Null => ReplyKind::Null,
        Token::Double(_) => ReplyKind::Other(b','),
        Token::Bool(_) => ReplyKind::Other(b'#'),
        Token::BigNumber(_) => ReplyKind::Other(b'('),
        Token::Verbatim(_) => ReplyKind::Other(b'='),
        Token::Bulk(_) | Token::ChunksBegin | Token::Chunk(_) | Token::ChunksEnd => ReplyKind::Bulk,
        Token::Open { aggregate, items } => {
            let count = (items.unwrap_or(0) / aggregate.width()) as usize;
            match aggregate {
                Aggregate::Array | Aggregate::Set | Aggregate::Map => ReplyKind::Array(count),
                Aggregate::Push => ReplyKind::Push(count),
                Aggregate::Attribute => return None,
            }
        }
        Token::Close => return None,
    })
}
