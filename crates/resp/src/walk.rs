//! The nesting of a reply: which token may come where, and when the reply is complete.
//!
//! Depth is held in a list, not on the call stack. An attribute is a level whose last item is the
//! value that it precedes, so that a chain of attributes counts as depth, too.

use crate::error::{Error, ErrorKind, Limited};
use crate::limits::Limits;
use crate::token::{Aggregate, Token, Tokenizer};

/// Walks over one reply after the other.
#[derive(Debug)]
pub(crate) struct Walker {
    tokens: Tokenizer,
    levels: Vec<Level>,
    /// Inside a streamed string: the bytes of its chunks so far.
    chunks: Option<u64>,
    /// Where the token last read begins.
    token_at: usize,
    failed: Option<Error>,
}

/// An aggregate that is not complete.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    pub(crate) aggregate: Aggregate,
    /// Items to come; `None` in a streamed aggregate.
    left: Option<u32>,
    /// Items complete.
    pub(crate) seen: u32,
}

impl Level {
    /// An attribute of which only the value is missing.
    pub(crate) fn is_attributed_value(&self) -> bool {
        self.aggregate == Aggregate::Attribute && self.left == Some(1)
    }
}

impl Walker {
    pub(crate) fn new(limits: Limits) -> Self {
        let tokens = Tokenizer::new(limits);
        Self {
            tokens,
            levels: Vec::new(),
            chunks: None,
            token_at: 0,
            failed: None,
        }
    }

    /// Back to the start of a reply.
    #[inline]
    pub(crate) fn reset(&mut self) {
        self.tokens.reset();
        self.levels.clear();
        self.chunks = None;
        self.failed = None;
    }

    /// Whether nothing is remembered of a reply in progress.
    #[inline]
    pub(crate) fn is_at_start(&self) -> bool {
        self.tokens.is_at_start()
    }

    /// Offset behind the last token.
    #[inline]
    pub(crate) fn pos(&self) -> usize {
        self.tokens.pos()
    }

    pub(crate) fn wanted(&self) -> usize {
        self.tokens.wanted()
    }

    /// The aggregates around the next token, outermost first.
    pub(crate) fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Reads the next token, but does not take it: that is [`Self::accept`].
    #[inline]
    pub(crate) fn token(&mut self, buf: &[u8]) -> Result<Option<Token>, Error> {
        let found = self.placed_token(buf);
        if let Err(error) = found {
            self.failed = Some(error);
        }
        found
    }

    #[inline]
    fn placed_token(&mut self, buf: &[u8]) -> Result<Option<Token>, Error> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if let Some(kind) = self.tokens.peek(buf) {
            self.token_at = self.tokens.pos();
            if self.chunks.is_some() || matches!(kind, b';' | b'.' | b'>') {
                self.check_place(kind)?;
            }
        }
        self.tokens.next(buf)
    }

    /// Takes all the items that come next and can be neither an error nor an aggregate, except the
    /// last one of a level. Most of what `EXEC` replies is of this kind.
    #[inline]
    pub(crate) fn skip_plain(&mut self, buf: &[u8]) {
        let Some(Level {
            left: Some(left),
            seen,
            ..
        }) = self.levels.last_mut()
        else {
            return;
        };
        if self.chunks.is_some() {
            return;
        }
        while *left > 1 && self.tokens.skip_plain(buf) {
            *left -= 1;
            *seen += 1;
        }
    }

    /// Takes the token. `true`: the reply is complete with it.
    #[inline]
    pub(crate) fn accept(&mut self, token: Token) -> Result<bool, Error> {
        let accepted = self.try_accept(token);
        if let Err(error) = accepted {
            self.failed = Some(error);
        }
        accepted
    }

    #[inline]
    fn try_accept(&mut self, token: Token) -> Result<bool, Error> {
        let (len, max) = (
            self.tokens.pos() as u64,
            self.tokens.limits().frame_bytes_max,
        );
        if len > max {
            return Err(Error::limit(self.token_at, Limited::FrameBytes, len, max));
        }
        match token {
            Token::Open { aggregate, items } => return self.open(aggregate, items),
            Token::Close => {
                self.levels.pop();
            }
            Token::ChunksBegin => {
                self.chunks = Some(0);
                return Ok(false);
            }
            Token::Chunk(place) => {
                self.add_chunk(place.len() as u64)?;
                return Ok(false);
            }
            Token::ChunksEnd => self.chunks = None,
            Token::Simple(_)
            | Token::Error(_)
            | Token::Int(_)
            | Token::Null
            | Token::Double(_)
            | Token::Bool(_)
            | Token::BigNumber(_)
            | Token::Bulk(_)
            | Token::BulkError(_)
            | Token::Verbatim(_) => {}
        }
        self.item_done()
    }

    fn open(&mut self, aggregate: Aggregate, items: Option<u32>) -> Result<bool, Error> {
        let max = u64::from(self.tokens.limits().depth_max);
        let depth = self.levels.len() as u64 + 1;
        if depth > max {
            return Err(Error::limit(self.token_at, Limited::Depth, depth, max));
        }
        let left = match aggregate {
            Aggregate::Attribute => items.map(|items| items.saturating_add(1)),
            Aggregate::Array | Aggregate::Set | Aggregate::Push | Aggregate::Map => items,
        };
        if left == Some(0) {
            return self.item_done();
        }
        self.levels.push(Level {
            aggregate,
            left,
            seen: 0,
        });
        Ok(false)
    }

    fn add_chunk(&mut self, len: u64) -> Result<(), Error> {
        let total = self.chunks.unwrap_or(0) + len;
        let max = self.tokens.limits().bulk_bytes_max;
        if total > max {
            return Err(Error::limit(self.token_at, Limited::BulkBytes, total, max));
        }
        self.chunks = Some(total);
        Ok(())
    }

    /// Counts a complete item, and every aggregate that is complete with it.
    #[inline]
    fn item_done(&mut self) -> Result<bool, Error> {
        while let Some(level) = self.levels.last_mut() {
            level.seen = level.seen.saturating_add(1);
            match &mut level.left {
                None => return self.check_streamed_count().map(|()| false),
                Some(left) => *left = left.saturating_sub(1),
            }
            if level.left != Some(0) {
                return Ok(false);
            }
            self.levels.pop();
        }
        Ok(true)
    }

    fn check_streamed_count(&self) -> Result<(), Error> {
        let Some(level) = self.levels.last() else {
            return Ok(());
        };
        let got = u64::from(level.seen.div_ceil(level.aggregate.width()));
        let max = self.tokens.limits().items_max;
        if got > max {
            return Err(Error::limit(self.token_at, Limited::Items, got, max));
        }
        Ok(())
    }

    /// Whether a token of this kind may come next.
    #[cold]
    fn check_place(&self, kind: u8) -> Result<(), Error> {
        let allowed = match (self.chunks, kind) {
            (Some(_), kind) => kind == b';',
            (None, b'.') => return self.check_close(),
            (None, b'>') => self.levels.iter().all(Level::is_attributed_value),
            (None, kind) => kind != b';',
        };
        if allowed {
            Ok(())
        } else {
            Err(Error::new(self.token_at, ErrorKind::Misplaced(kind)))
        }
    }

    fn check_close(&self) -> Result<(), Error> {
        match self.levels.last() {
            Some(&Level {
                aggregate,
                left: None,
                seen,
            }) => {
                if seen.is_multiple_of(aggregate.width()) {
                    return Ok(());
                }
                Err(Error::new(self.token_at, ErrorKind::OddMap))
            }
            Some(_) | None => Err(Error::new(self.token_at, ErrorKind::Misplaced(b'.'))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(walker: &mut Walker, buf: &[u8]) -> bool {
        while let Some(token) = walker.token(buf).unwrap() {
            if walker.accept(token).unwrap() {
                return true;
            }
        }
        false
    }

    /// As for commands: what was read is overwritten, so reading it again would fail.
    #[test]
    fn no_byte_is_looked_at_twice() {
        let mut stream = b"*200000\r\n".to_vec();
        for item in 0..50_000 {
            stream.extend_from_slice(
                format!("$6\r\n{:06}\r\n*1\r\n:{item}\r\n+OK\r\n%?\r\n.\r\n", item).as_bytes(),
            );
        }
        let mut walker = Walker::new(Limits::default());
        let mut buf = Vec::new();
        for piece in stream.chunks(4_096) {
            buf.extend_from_slice(piece);
            assert_eq!(walk(&mut walker, &buf), buf.len() == stream.len());
            assert!(buf.len() - walker.pos() < 16, "the rest of one token");
            let pos = walker.pos();
            buf[..pos].fill(0xff);
        }
        assert_eq!(walker.pos(), stream.len());
    }

    #[test]
    fn a_long_line_is_searched_once() {
        let mut walker = Walker::new(Limits::default());
        let mut buf = b"-".to_vec();
        for _ in 0..15 {
            buf.resize(buf.len() + 4_096, b'a');
            assert!(!walk(&mut walker, &buf));
            let end = buf.len();
            buf[1..end].fill(b'\n');
        }
        buf.extend_from_slice(b"\r\n");
        assert!(walk(&mut walker, &buf));
    }

    #[test]
    fn declared_lengths_allocate_nothing() {
        let mut walker = Walker::new(Limits::default());
        assert!(!walk(
            &mut walker,
            b"*67108864\r\n%67108864\r\n$536870912\r\nabc"
        ));
        assert!(walker.levels.capacity() < 16);
        assert_eq!(walker.levels.len(), 2);
    }
}
