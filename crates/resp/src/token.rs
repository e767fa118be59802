//! The tokens of a reply: one line, one string, one aggregate's head.
//!
//! ```text
//! +text  -text  :int  ,double  (bignum  #t #f  _      a line each
//! $len bytes  !len bytes  =len fmt:bytes              a length line, bytes, line end; $-1 is null
//! *n  ~n  >n  %pairs  |pairs                          heads of aggregates; *-1 is null
//! $?  ;len bytes  ...  ;0                             a streamed string
//! *?  ~?  %?  ...  .                                  a streamed aggregate
//! ```
//!
//! What may follow what is not known here but in [`crate::walk`].

use crate::command::{Arg, bulk_len, missing_line_end};
use crate::error::{Error, ErrorKind, Limited};
use crate::limits::Limits;
use crate::number::number;

/// A token and where its bytes stand in the frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Token {
    Simple(Arg),
    Error(Arg),
    Int(i64),
    Null,
    Double(f64),
    Bool(bool),
    BigNumber(Arg),
    Bulk(Arg),
    BulkError(Arg),
    /// Its bytes begin with the three letters of the format and a colon.
    Verbatim(Arg),
    /// `$?`
    ChunksBegin,
    Chunk(Arg),
    /// `;0`
    ChunksEnd,
    /// The head of an aggregate; `items` counts a map's keys and values one by one.
    Open {
        aggregate: Aggregate,
        items: Option<u32>,
    },
    /// `.`
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Aggregate {
    Array,
    Set,
    Push,
    Map,
    Attribute,
}

impl Aggregate {
    /// How many items one count of the head stands for.
    pub(crate) fn width(self) -> u32 {
        match self {
            Self::Array | Self::Set | Self::Push => 1,
            Self::Map | Self::Attribute => 2,
        }
    }
}

/// Cuts a frame into tokens and keeps its place in it.
#[derive(Debug)]
pub(crate) struct Tokenizer {
    limits: Limits,
    /// Start of the next token, or of its bytes if `string` is set.
    pos: usize,
    /// How far the line in progress was searched for its end.
    searched: usize,
    /// The string whose length line was read.
    string: Option<PendingString>,
    wanted: usize,
}

#[derive(Debug, Clone, Copy)]
struct PendingString {
    kind: u8,
    len: usize,
}

impl Tokenizer {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits: limits.clamped(),
            pos: 0,
            searched: 0,
            string: None,
            wanted: 1,
        }
    }

    pub(crate) fn reset(&mut self) {
        self.pos = 0;
        self.searched = 0;
        self.string = None;
        self.wanted = 1;
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether nothing of a frame was looked at, or only so little that nothing is remembered.
    #[inline]
    pub(crate) fn is_at_start(&self) -> bool {
        self.pos == 0 && self.searched == 0
    }

    /// Offset behind the last token; while a string is awaited, that of its first byte.
    pub(crate) fn pos(&self) -> usize {
        self.pos
    }

    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// The first byte of the next token, if it is there and the token is not begun.
    #[inline]
    pub(crate) fn peek(&self, buf: &[u8]) -> Option<u8> {
        match self.string {
            None => buf.get(self.pos).copied(),
            Some(_) => None,
        }
    }

    /// Reads the next token. `None`: it is not complete.
    #[inline]
    pub(crate) fn next(&mut self, buf: &[u8]) -> Result<Option<Token>, Error> {
        let at = self.pos;
        if self.string.is_none()
            && let Some([b'+', b'O', b'K', b'\r', b'\n', ..]) = buf.get(at..)
        {
            self.pos = at + 5;
            self.searched = 0;
            return Ok(Some(Token::Simple(span(at + 1, at + 3))));
        }
        self.wanted = 1;
        match self.string {
            Some(string) => self.string(buf, string),
            None => self.head(buf),
        }
    }

    /// Goes past an `OK` or a number, if the next token is one. Must not be called within a token.
    #[inline]
    pub(crate) fn skip_plain(&mut self, buf: &[u8]) -> bool {
        let at = self.pos;
        let next = match buf.get(at..) {
            Some([b'+', b'O', b'K', b'\r', b'\n', ..]) => at + 5,
            Some([b':', ..]) => match number(buf, at + 1) {
                Ok(Some(found)) => found.next,
                Ok(None) | Err(_) => return false,
            },
            Some(_) | None => return false,
        };
        // A frame that grows too long here is left to be found, and refused, token by token.
        let fits = next as u64 <= self.limits.frame_bytes_max;
        if fits {
            self.pos = next;
        }
        fits
    }

    fn head(&mut self, buf: &[u8]) -> Result<Option<Token>, Error> {
        let Some(&kind) = buf.get(self.pos) else {
            return Ok(None);
        };
        match kind {
            b'+' | b'-' | b'(' | b',' | b'#' | b'_' => self.line(buf, kind),
            b':' => {
                let Some(found) = number(buf, self.pos + 1)? else {
                    return Ok(None);
                };
                self.pos = found.next;
                Ok(Some(Token::Int(found.value)))
            }
            b'$' | b'!' | b'=' | b';' => self.string_head(buf, kind),
            b'*' => self.aggregate(buf, Aggregate::Array),
            b'~' => self.aggregate(buf, Aggregate::Set),
            b'>' => self.aggregate(buf, Aggregate::Push),
            b'%' => self.aggregate(buf, Aggregate::Map),
            b'|' => self.aggregate(buf, Aggregate::Attribute),
            b'.' => self.bare(buf, 1, Token::Close),
            0..=u8::MAX => Err(Error::new(self.pos, ErrorKind::UnknownType(kind))),
        }
    }

    fn line(&mut self, buf: &[u8], kind: u8) -> Result<Option<Token>, Error> {
        let start = self.pos + 1;
        let from = self.searched.max(start);
        let unsearched = buf.get(from..).unwrap_or_default();
        let found = memchr::memchr2(b'\r', b'\n', unsearched).map(|offset| from + offset);
        let end = found.unwrap_or(buf.len().max(start));
        let (len, max) = ((end - start) as u64, self.limits.line_bytes_max);
        if len > max {
            let at = start.saturating_add(usize::try_from(max).unwrap_or(usize::MAX));
            return Err(Error::limit(at, Limited::LineBytes, max + 1, max));
        }
        self.searched = end;
        match buf.get(end..) {
            None | Some([] | [b'\r']) => return Ok(None),
            Some([b'\r', b'\n', ..]) => {}
            Some([b'\r', ..]) => return Err(Error::new(end + 1, ErrorKind::BadLineEnd)),
            Some(_) => return Err(Error::new(end, ErrorKind::BadLineEnd)),
        }
        let token = line_token(buf, kind, span(start, end))?;
        self.pos = end + 2;
        self.searched = 0;
        Ok(Some(token))
    }

    /// A token that is `width` bytes and a line end, all of the bytes known already.
    fn bare(&mut self, buf: &[u8], width: usize, token: Token) -> Result<Option<Token>, Error> {
        let end = self.pos + width;
        match buf.get(end..) {
            None | Some([] | [b'\r']) => Ok(None),
            Some([b'\r', b'\n', ..]) => {
                self.pos = end + 2;
                Ok(Some(token))
            }
            Some([b'\r', ..]) => Err(Error::new(end + 1, ErrorKind::BadLineEnd)),
            Some(_) => Err(Error::new(end, ErrorKind::BadLineEnd)),
        }
    }

    fn string_head(&mut self, buf: &[u8], kind: u8) -> Result<Option<Token>, Error> {
        let at = self.pos;
        if kind == b'$' && buf.get(at + 1) == Some(&b'?') {
            return self.bare(buf, 2, Token::ChunksBegin);
        }
        let Some(found) = number(buf, at + 1)? else {
            return Ok(None);
        };
        if kind == b'$' && found.value == -1 {
            self.pos = found.next;
            return Ok(Some(Token::Null));
        }
        if kind == b';' && found.value == 0 {
            self.pos = found.next;
            return Ok(Some(Token::ChunksEnd));
        }
        let len = bulk_len(&self.limits, at, found.value, found.next)?;
        if kind == b'!' && len as u64 > self.limits.line_bytes_max {
            let max = self.limits.line_bytes_max;
            return Err(Error::limit(at + 1, Limited::LineBytes, len as u64, max));
        }
        let string = PendingString { kind, len };
        self.pos = found.next;
        self.string = Some(string);
        self.string(buf, string)
    }

    fn string(&mut self, buf: &[u8], string: PendingString) -> Result<Option<Token>, Error> {
        let (start, end) = (self.pos, self.pos + string.len);
        match buf.get(end..) {
            Some([b'\r', b'\n', ..]) => {}
            rest => {
                missing_line_end(rest, end)?;
                self.wanted = (end + 2).saturating_sub(buf.len()).max(1);
                return Ok(None);
            }
        }
        let place = span(start, end);
        let token = match string.kind {
            b'!' => Token::BulkError(place),
            b';' => Token::Chunk(place),
            b'=' => match place.of(buf) {
                [_, _, _, b':', ..] => Token::Verbatim(place),
                _ => return Err(Error::new(start, ErrorKind::BadVerbatim)),
            },
            0..=u8::MAX => Token::Bulk(place),
        };
        self.string = None;
        self.pos = end + 2;
        Ok(Some(token))
    }

    fn aggregate(&mut self, buf: &[u8], aggregate: Aggregate) -> Result<Option<Token>, Error> {
        let at = self.pos;
        let streamable = match aggregate {
            Aggregate::Array | Aggregate::Set | Aggregate::Map => true,
            Aggregate::Push | Aggregate::Attribute => false,
        };
        if streamable && buf.get(at + 1) == Some(&b'?') {
            return self.bare(
                buf,
                2,
                Token::Open {
                    aggregate,
                    items: None,
                },
            );
        }
        let Some(found) = number(buf, at + 1)? else {
            return Ok(None);
        };
        let token = match u64::try_from(found.value) {
            Ok(count) => {
                let items = self.item_count(at, aggregate, count)?;
                Token::Open {
                    aggregate,
                    items: Some(items),
                }
            }
            Err(_) if aggregate == Aggregate::Array && found.value == -1 => Token::Null,
            Err(_) => return Err(Error::new(at + 1, ErrorKind::NegativeLength)),
        };
        self.pos = found.next;
        Ok(Some(token))
    }

    fn item_count(&self, at: usize, aggregate: Aggregate, count: u64) -> Result<u32, Error> {
        let max = self.limits.items_max;
        u32::try_from(count)
            .ok()
            .filter(|_| count <= max)
            .and_then(|count| count.checked_mul(aggregate.width()))
            .ok_or_else(|| Error::limit(at + 1, Limited::Items, count, max))
    }
}

/// Within 32 bits, since a frame is held to that; beyond it the frame is refused right after.
#[inline]
fn span(start: usize, end: usize) -> Arg {
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Arg {
        start: place(start),
        end: place(end),
    }
}

fn line_token(buf: &[u8], kind: u8, place: Arg) -> Result<Token, Error> {
    let bad = |kind| Error::new(place.start as usize, kind);
    let text = place.of(buf);
    match kind {
        b'-' => Ok(Token::Error(place)),
        b',' => double(text)
            .map(Token::Double)
            .ok_or_else(|| bad(ErrorKind::BadDouble)),
        b'#' => match text {
            b"t" => Ok(Token::Bool(true)),
            b"f" => Ok(Token::Bool(false)),
            _ => Err(bad(ErrorKind::BadBool)),
        },
        b'_' if text.is_empty() => Ok(Token::Null),
        b'_' => Err(bad(ErrorKind::BadNull)),
        b'(' if is_big_number(text) => Ok(Token::BigNumber(place)),
        b'(' => Err(bad(ErrorKind::BadBigNumber)),
        0..=u8::MAX => Ok(Token::Simple(place)),
    }
}

pub(crate) fn is_big_number(text: &[u8]) -> bool {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    !digits.is_empty() && digits.iter().all(u8::is_ascii_digit)
}

/// `[-]digits[.digits][e[+-]digits]`, `inf`, `-inf`, `nan`; `-nan` as well, since servers before
/// Redis 7.2 print what the C library prints.
fn double(text: &[u8]) -> Option<f64> {
    let unsigned = text.strip_prefix(b"-").unwrap_or(text);
    let strict = match unsigned {
        b"inf" | b"nan" => true,
        _ => is_decimal(unsigned),
    };
    // The grammar above is a part of what Rust reads, and all of it ASCII.
    std::str::from_utf8(text)
        .ok()
        .filter(|_| strict)?
        .parse()
        .ok()
}

fn is_decimal(text: &[u8]) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let mut halves = text.splitn(2, |byte| matches!(byte, b'e' | b'E'));
    let mut mantissa = halves
        .next()
        .unwrap_or_default()
        .splitn(2, |&byte| byte == b'.');
    let exponent = halves.next().is_none_or(|exponent| match exponent {
        [b'+' | b'-', rest @ ..] => digits(rest),
        rest => digits(rest),
    });
    exponent && mantissa.next().is_some_and(digits) && mantissa.next().is_none_or(digits)
}
