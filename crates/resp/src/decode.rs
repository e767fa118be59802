//! Whole replies as values.
//!
//! While a reply is incomplete, its tokens are noted with their places; when it is complete, it is
//! taken out of the read buffer in one piece and every string becomes a slice of that piece.

use bytes::{Bytes, BytesMut};

use crate::code::ErrorReply;
use crate::command::Arg;
use crate::error::Error;
use crate::limits::Limits;
use crate::token::{Aggregate, Token};
use crate::value::Value;
use crate::walk::Walker;

/// Decodes one value after the other, in RESP2 or RESP3.
#[derive(Debug)]
pub struct ValueDecoder {
    walker: Walker,
    tokens: Vec<Token>,
}

/// A list of tokens longer than this is given back when its value is done.
const KEPT_TOKENS_MAX: usize = 4 << 10;

impl ValueDecoder {
    /// A decoder at the start of a value.
    pub fn new(limits: Limits) -> Self {
        Self {
            walker: Walker::new(limits),
            tokens: Vec::new(),
        }
    }

    /// Takes the value at the start of `buf` out of it, if it is complete.
    ///
    /// Otherwise `buf` stays as it is, and may only have grown until the next call.
    pub fn poll(&mut self, buf: &mut BytesMut) -> Result<Option<Value>, Error> {
        while let Some(token) = self.walker.token(buf)? {
            self.tokens.push(token);
            if self.walker.accept(token)? {
                let frame = buf.split_to(self.walker.pos()).freeze();
                let mut builder = Builder::new(&frame, self.tokens.len());
                let value = self.tokens.iter().find_map(|&token| builder.push(token));
                self.reset();
                return Ok(value);
            }
        }
        Ok(None)
    }

    /// After a `None`: at least so many more bytes are needed before the value can be complete.
    ///
    /// The peer has declared them, not sent them: read with it, do not allocate by it.
    pub fn wanted(&self) -> usize {
        self.walker.wanted()
    }

    /// Forgets the value in progress.
    pub fn reset(&mut self) {
        self.walker.reset();
        self.tokens.clear();
        self.tokens.shrink_to(KEPT_TOKENS_MAX);
    }
}

/// Puts a value together from its tokens, which the walker has found to be well nested.
struct Builder<'a> {
    frame: &'a Bytes,
    /// How many tokens the value has: a bound for what is allocated.
    tokens: usize,
    open: Vec<Open>,
    chunks: Vec<Bytes>,
}

struct Open {
    aggregate: Aggregate,
    items: Vec<Value>,
    /// How many items make it complete; `None` in a streamed aggregate.
    full: Option<usize>,
}

impl<'a> Builder<'a> {
    fn new(frame: &'a Bytes, tokens: usize) -> Self {
        Self {
            frame,
            tokens,
            open: Vec::new(),
            chunks: Vec::new(),
        }
    }

    /// Returns the outermost value with its last token.
    fn push(&mut self, token: Token) -> Option<Value> {
        let value = match token {
            Token::Simple(place) => Value::Simple(self.slice(place)),
            Token::Error(place) => Value::Error(ErrorReply::new(self.slice(place))),
            Token::Int(value) => Value::Int(value),
            Token::Null => Value::Null,
            Token::Double(value) => Value::Double(value),
            Token::Bool(value) => Value::Bool(value),
            Token::BigNumber(place) => Value::BigNumber(self.slice(place)),
            Token::Bulk(place) => Value::Bulk(self.slice(place)),
            Token::BulkError(place) => Value::BulkError(ErrorReply::new(self.slice(place))),
            Token::Verbatim(place) => self.verbatim(place),
            Token::ChunksBegin => return None,
            Token::Chunk(place) => {
                self.chunks.push(self.slice(place));
                return None;
            }
            Token::ChunksEnd => Value::Bulk(joined(&mut self.chunks)),
            Token::Open { aggregate, items } => self.open(aggregate, items)?,
            Token::Close => self.open.pop()?.finish(),
        };
        self.add(value)
    }

    fn slice(&self, place: Arg) -> Bytes {
        self.frame.slice_ref(place.of(self.frame))
    }

    fn verbatim(&self, place: Arg) -> Value {
        let whole = self.slice(place);
        match *whole {
            [a, b, c, b':', ..] => Value::Verbatim {
                format: [a, b, c],
                text: whole.slice(4..),
            },
            // Not reached: the tokenizer has looked.
            _ => Value::Bulk(whole),
        }
    }

    /// Begins an aggregate, or returns it if it is empty.
    fn open(&mut self, aggregate: Aggregate, items: Option<u32>) -> Option<Value> {
        let value_of_attribute = usize::from(aggregate == Aggregate::Attribute);
        let full = items.map(|items| items as usize + value_of_attribute);
        // All items of a complete value have tokens of their own, so what is allocated here was
        // not just declared but has arrived.
        let items = Vec::with_capacity(full.unwrap_or(0).min(self.tokens));
        let open = Open {
            aggregate,
            items,
            full,
        };
        if full == Some(0) {
            return Some(open.finish());
        }
        self.open.push(open);
        None
    }

    /// Puts a complete value where it belongs, and every aggregate that is complete with it.
    fn add(&mut self, mut value: Value) -> Option<Value> {
        loop {
            let Some(open) = self.open.last_mut() else {
                return Some(value);
            };
            open.items.push(value);
            if open.full != Some(open.items.len()) {
                return None;
            }
            value = self.open.pop()?.finish();
        }
    }
}

impl Open {
    fn finish(mut self) -> Value {
        match self.aggregate {
            Aggregate::Array => Value::Array(self.items),
            Aggregate::Set => Value::Set(self.items),
            Aggregate::Push => Value::Push(self.items),
            Aggregate::Map => Value::Map(pairs(self.items)),
            Aggregate::Attribute => {
                let value = Box::new(self.items.pop().unwrap_or(Value::Null));
                Value::Attribute {
                    attributes: pairs(self.items),
                    value,
                }
            }
        }
    }
}

fn pairs(items: Vec<Value>) -> Vec<(Value, Value)> {
    let mut pairs = Vec::with_capacity(items.len() / 2);
    let mut items = items.into_iter();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}

/// A streamed string in one piece; a single chunk stays a slice.
fn joined(chunks: &mut Vec<Bytes>) -> Bytes {
    match chunks.len() {
        0 | 1 => chunks.pop().unwrap_or_default(),
        _ => Bytes::from(std::mem::take(chunks).concat()),
    }
}
