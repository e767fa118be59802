//! What the socket gave and nobody has read yet.
//!
//! Before the command stream the source speaks in lines; in the snapshot and the stream, chunks are
//! handed on as they came.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use resp::ErrorReply;

use crate::{ErrorKind, error::quoted};

/// The longest line of a handshake. Redis's replicas read at most 1 KiB of one; error texts that
/// echo arguments stay below that as well.
const LINE_MAX: usize = 8 << 10;
/// So much of something that is no Redis is gathered before we say so.
const JUNK_SHOWN: usize = 64;

/// A line of the handshake.
#[derive(Debug, PartialEq)]
pub(crate) enum Line {
    /// `+..`, without the `+`.
    Status(Vec<u8>),
    /// `-..`
    Error(ErrorReply),
    /// `$..`, without the `$`.
    Header(Vec<u8>),
}

#[derive(Debug, Default)]
pub(crate) struct Input {
    chunks: VecDeque<Bytes>,
    /// The line in progress.
    line: Vec<u8>,
}

impl Input {
    pub(crate) fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.chunks.push_back(bytes);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.chunks.clear();
    }

    /// The next chunk, never empty. What is not used goes back by [`Input::put_back`].
    pub(crate) fn chunk(&mut self) -> Option<Bytes> {
        self.chunks.pop_front()
    }

    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.chunks.push_front(bytes);
        }
    }

    /// The line in progress, as far as it came.
    pub(crate) fn unfinished(&self) -> &[u8] {
        &self.line
    }

    /// The next line; empty ones, a waiting source's signs of life, are passed over.
    pub(crate) fn line(&mut self) -> Result<Option<Line>, ErrorKind> {
        loop {
            let whole = self.gather();
            match self.line.as_slice() {
                [] | [b'\r'] => return Ok(None),
                [b'\n'] | [b'\r', b'\n'] => self.line.clear(),
                [b'+' | b'-' | b'$', ..] if whole => return Ok(self.take_line()),
                [b'+' | b'-' | b'$', ..] if self.line.len() < LINE_MAX => return Ok(None),
                [b'+' | b'-' | b'$' | b':' | b'*', ..] => {
                    return self.unexpected(whole).map(|()| None);
                }
                _ => return self.junk(whole).map(|()| None),
            }
        }
    }

    /// Moves bytes into `line` up to its end; tells whether that came.
    fn gather(&mut self) -> bool {
        while let Some(mut chunk) = self.chunks.pop_front() {
            let room = LINE_MAX.saturating_sub(self.line.len());
            let window = chunk.get(..room).unwrap_or(&chunk);
            let end = memchr::memchr(b'\n', window);
            let taken = end.map_or(window.len(), |at| at + 1);
            self.line
                .extend_from_slice(window.get(..taken).unwrap_or_default());
            chunk.advance(taken);
            self.put_back(chunk);
            if end.is_some() || self.line.len() >= LINE_MAX {
                break;
            }
        }
        self.line.last() == Some(&b'\n')
    }

    fn take_line(&mut self) -> Option<Line> {
        let mut line = std::mem::take(&mut self.line);
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        let first = *line.first()?;
        line.remove(0);
        match first {
            b'+' => Some(Line::Status(line)),
            b'-' => Some(Line::Error(ErrorReply::new(line))),
            _ => Some(Line::Header(line)),
        }
    }

    /// RESP, but a type that no reply of a handshake has, or a line without an end.
    fn unexpected(&self, whole: bool) -> Result<(), ErrorKind> {
        if !whole && self.line.len() <= JUNK_SHOWN {
            return Ok(());
        }
        let got = quoted(self.line.trim_ascii_end(), JUNK_SHOWN);
        Err(ErrorKind::Protocol {
            expected: "a status or an error",
            got,
        })
    }

    fn junk(&self, whole: bool) -> Result<(), ErrorKind> {
        match self.line.as_slice() {
            // A TLS record of type alert, any version.
            [0x15, 0x03, ..] => Err(ErrorKind::Tls),
            line if whole || line.len() > JUNK_SHOWN => Err(not_redis(line)),
            _ => Ok(()),
        }
    }

    /// The error for a peer that says no more, when what it said is no RESP.
    pub(crate) fn junk_at_end(&self) -> Option<ErrorKind> {
        match self.line.first() {
            None | Some(b'+' | b'-' | b'$' | b':' | b'*' | b'\r') => None,
            Some(_) => Some(not_redis(&self.line)),
        }
    }
}

fn not_redis(line: &[u8]) -> ErrorKind {
    ErrorKind::NotRedis {
        begins: quoted(line, JUNK_SHOWN),
    }
}
