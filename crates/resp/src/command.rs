//! The commands of a source's stream.
//!
//! ```text
//! *3\r\n $3\r\nSET\r\n $1\r\nk\r\n $5\r\nhello\r\n     Command, three arguments
//! *0\r\n   *-1\r\n                                     Command without arguments (ignored by Redis)
//! PING "a b"\r\n                                       Inline (AOF files, people at a terminal)
//! \n   \r\n                                            Newline (a master's keep-alive)
//! ```
//!
//! Mirrors `networking.c: processMultibulkBuffer` and `processInlineBuffer`. The decoder owns no
//! bytes: it finds where a frame ends and where its arguments stand, once, and never looks at an
//! argument's bytes.

use crate::error::{Error, ErrorKind, Limited};
use crate::inline;
use crate::limits::Limits;
use crate::number::number;

/// Where an argument stands within its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arg {
    /// Offset of its first byte. 32 bits, because a frame is held to 4 GiB and the list of a
    /// command's arguments is walked more often than anything else.
    pub start: u32,
    /// Offset behind its last byte.
    pub end: u32,
}

impl Arg {
    /// The argument's bytes. Empty if `frame` is not the frame that it was found in.
    #[inline]
    pub fn of(self, frame: &[u8]) -> &[u8] {
        frame
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// How many bytes it has.
    #[inline]
    pub fn len(self) -> usize {
        self.end.saturating_sub(self.start) as usize
    }

    /// Whether it is the empty string.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A complete frame at the start of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// How many bytes it takes; the next frame begins there.
    pub len: usize,
    /// What it is.
    pub kind: FrameKind,
}

/// The form of a [`Frame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// A multibulk command.
    Command,
    /// A line of words. Without a word on it, [`CommandDecoder::args`] is empty.
    Inline,
    /// An empty line, `\n` or `\r\n`.
    Newline,
}

/// Finds one frame after the other.
///
/// Inline commands are split as redis-cli and the servers do it, quotes included, as long as every
/// argument is a range of the frame: `SET k "a b"` is, `SET k "a\nb"` is not and is refused with
/// [`ErrorKind::InlineEscape`]. No master sends either.
#[derive(Debug)]
pub struct CommandDecoder {
    limits: Limits,
    args: Vec<Arg>,
    phase: Phase,
    /// Start of what comes next: an argument's header, or its bytes, or the part of an inline line
    /// that was not searched yet.
    pos: usize,
    wanted: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Between frames; `args` still belongs to the last one.
    Start,
    /// An argument's header is next.
    Header { left: u64 },
    /// An argument's bytes and line end are next. It is one of the `left`.
    Body { left: u64, len: usize },
    /// Searching the end of an inline command.
    Line,
    /// Malformed input; nothing comes behind it.
    Failed { error: Error },
}

/// How far a decoder is in a multibulk command that is not complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Arguments that are not complete.
    pub left: u64,
    /// Where the first of them stands in the buffer: its bytes if `body` says how many they are, else its header.
    pub at: usize,
    /// The length of the argument in progress, once it is known.
    pub body: Option<usize>,
}

/// A list of arguments longer than this is given back when its frame is done.
const KEPT_ARGS_MAX: usize = 64 << 10;

/// The least an argument takes: `$0\r\n\r\n`.
const ARG_BYTES_MIN: usize = 6;

impl CommandDecoder {
    /// A decoder at the start of a frame.
    pub fn new(limits: Limits) -> Self {
        let (args, phase) = (Vec::with_capacity(16), Phase::Start);
        Self {
            limits: limits.clamped(),
            args,
            phase,
            pos: 0,
            wanted: 1,
        }
    }

    /// Looks for the end of the frame that begins at the first byte of `buf`.
    ///
    /// Between calls `buf` may only have grown. `None`: more bytes are needed. After a frame, the
    /// next call starts a new one, with a `buf` that begins [`Frame::len`] bytes later.
    #[inline]
    pub fn poll(&mut self, buf: &[u8]) -> Result<Option<Frame>, Error> {
        let found = match self.phase {
            Phase::Start => self.start(buf),
            Phase::Header { left } => self.arguments(buf, left),
            Phase::Body { left, len } => self.resume_body(buf, left, len),
            Phase::Line => self.line(buf),
            Phase::Failed { error } => Err(error),
        };
        if let Err(error) = found {
            self.phase = Phase::Failed { error };
        }
        found
    }

    /// The arguments of the frame last returned; none for [`FrameKind::Newline`].
    #[inline]
    pub fn args(&self) -> &[Arg] {
        &self.args
    }

    /// After a `None`: at least so many more bytes are needed before a frame can be complete.
    ///
    /// The peer has declared them, not sent them: read with it, do not allocate by it.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// After a `None`: how far it is; `None` for what is no multibulk command, or has hardly begun.
    pub fn progress(&self) -> Option<Progress> {
        let (left, body) = match self.phase {
            Phase::Header { left } => (left, None),
            Phase::Body { left, len } => (left, Some(len)),
            Phase::Start | Phase::Line | Phase::Failed { .. } => return None,
        };
        Some(Progress {
            left,
            at: self.pos,
            body,
        })
    }

    /// Whoever keeps the bytes of the argument in progress elsewhere puts others in their place: the buffer is from now
    /// on as if an argument of `len` bytes began at `at`. Does nothing where no argument is in progress.
    pub fn replace_body(&mut self, at: usize, len: usize) {
        if let Phase::Body { left, .. } = self.phase {
            self.pos = at;
            self.phase = Phase::Body { left, len };
        }
    }

    /// Whether nothing of a frame was taken yet: what is polled next begins one.
    #[inline]
    pub fn is_between_frames(&self) -> bool {
        self.phase == Phase::Start
    }

    /// Forgets the frame in progress.
    pub fn reset(&mut self) {
        self.clear_args();
        self.phase = Phase::Start;
        self.pos = 0;
        self.wanted = 1;
    }

    fn clear_args(&mut self) {
        self.args.clear();
        if self.args.capacity() > KEPT_ARGS_MAX {
            self.args.shrink_to(KEPT_ARGS_MAX);
        }
    }

    #[inline]
    fn start(&mut self, buf: &[u8]) -> Result<Option<Frame>, Error> {
        match buf {
            [b'*', ..] => {
                self.clear_args();
                let Some(count) = number(buf, 1)? else {
                    return Ok(self.none(1));
                };
                let left = self.argument_count(count.value)?;
                self.pos = count.next;
                self.arguments(buf, left)
            }
            [b'\n', ..] => {
                self.clear_args();
                Ok(Some(Frame {
                    len: 1,
                    kind: FrameKind::Newline,
                }))
            }
            [b'\r', b'\n', ..] => {
                self.clear_args();
                Ok(Some(Frame {
                    len: 2,
                    kind: FrameKind::Newline,
                }))
            }
            [] | [b'\r'] => Ok(self.none(1)),
            [_, ..] => {
                self.clear_args();
                self.phase = Phase::Line;
                self.pos = 0;
                self.line(buf)
            }
        }
    }

    #[inline]
    fn argument_count(&self, declared: i64) -> Result<u64, Error> {
        match u64::try_from(declared) {
            Ok(count) if count <= self.limits.items_max => Ok(count),
            Ok(got) => Err(Error::limit(1, Limited::Items, got, self.limits.items_max)),
            Err(_) if declared == -1 => Ok(0),
            Err(_) => Err(Error::new(1, ErrorKind::NegativeLength)),
        }
    }

    /// Reads arguments from a header on, `self.pos`, until none is left or the bytes end.
    #[inline]
    fn arguments(&mut self, buf: &[u8], mut left: u64) -> Result<Option<Frame>, Error> {
        while left > 0 {
            if let Some((start, end)) = short_bulk(buf, self.pos)
                && self.allows(start, end)
            {
                self.push(start, end);
                left -= 1;
                continue;
            }
            let Some(len) = self.header(buf)? else {
                self.phase = Phase::Header { left };
                return Ok(self.none(1));
            };
            if !self.body(buf, len)? {
                self.phase = Phase::Body { left, len };
                return Ok(self.none_in_body(buf, left, len));
            }
            left -= 1;
        }
        self.phase = Phase::Start;
        Ok(Some(Frame {
            len: self.pos,
            kind: FrameKind::Command,
        }))
    }

    fn resume_body(&mut self, buf: &[u8], left: u64, len: usize) -> Result<Option<Frame>, Error> {
        if !self.body(buf, len)? {
            return Ok(self.none_in_body(buf, left, len));
        }
        self.arguments(buf, left - 1)
    }

    /// Reads `$<len>\r\n` and leaves `self.pos` behind it.
    #[inline]
    fn header(&mut self, buf: &[u8]) -> Result<Option<usize>, Error> {
        let at = self.pos;
        match buf.get(at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(&other) => return Err(Error::new(at, ErrorKind::Misplaced(other))),
        }
        let Some(found) = number(buf, at + 1)? else {
            return Ok(None);
        };
        let len = bulk_len(&self.limits, at, found.value, found.next)?;
        self.pos = found.next;
        Ok(Some(len))
    }

    /// Takes the argument of `len` bytes at `self.pos`, if it and its line end are there.
    #[inline]
    fn body(&mut self, buf: &[u8], len: usize) -> Result<bool, Error> {
        let (start, end) = (self.pos, self.pos.saturating_add(len));
        match buf.get(end..) {
            Some([b'\r', b'\n', ..]) => {}
            rest => return missing_line_end(rest, end).map(|()| false),
        }
        self.push(start, end);
        Ok(true)
    }

    /// Whether the limits allow an argument there; why not, [`bulk_len`] says.
    #[inline]
    fn allows(&self, start: usize, end: usize) -> bool {
        (end - start) as u64 <= self.limits.bulk_bytes_max
            && end as u64 + 2 <= self.limits.frame_bytes_max
    }

    #[inline]
    fn push(&mut self, start: usize, end: usize) {
        // Within 32 bits, since every end is held to `frame_bytes_max`.
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        self.args.push(Arg {
            start: place(start),
            end: place(end),
        });
        self.pos = end + 2;
    }

    #[cold]
    fn line(&mut self, buf: &[u8]) -> Result<Option<Frame>, Error> {
        let max = usize::try_from(self.limits.line_bytes_max).unwrap_or(usize::MAX);
        let unsearched = buf.get(self.pos..).unwrap_or_default();
        let found = memchr::memchr(b'\n', unsearched).map(|offset| self.pos + offset);
        let seen = found.unwrap_or(buf.len());
        if seen > max {
            let got = self.limits.line_bytes_max + 1;
            return Err(Error::limit(
                max,
                Limited::LineBytes,
                got,
                self.limits.line_bytes_max,
            ));
        }
        let Some(end) = found else {
            self.pos = seen;
            return Ok(self.none(1));
        };
        self.args.clear();
        inline::split(buf.get(..end).unwrap_or_default(), &mut self.args)?;
        self.phase = Phase::Start;
        Ok(Some(Frame {
            len: end + 1,
            kind: FrameKind::Inline,
        }))
    }

    #[inline]
    fn none(&mut self, wanted: usize) -> Option<Frame> {
        self.wanted = wanted;
        None
    }

    fn none_in_body(&mut self, buf: &[u8], left: u64, len: usize) -> Option<Frame> {
        let rest = (self.pos + len + 2).saturating_sub(buf.len());
        let others = usize::try_from(left - 1).unwrap_or(0);
        self.none(
            rest.max(1)
                .saturating_add(others.saturating_mul(ARG_BYTES_MIN)),
        )
    }
}

/// Where the bytes of the bulk string at `at` begin and end, if it is there with its line end and has less than a hundred:
/// nearly all of a stream have.
#[inline]
pub(crate) fn short_bulk(buf: &[u8], at: usize) -> Option<(usize, usize)> {
    // No bulk string is shorter, so what is cut off here is not complete.
    let (start, len) = match buf.get(at..)?.first_chunk::<6>()? {
        [b'$', a @ b'0'..=b'9', b'\r', b'\n', ..] => (at + 4, usize::from(a - b'0')),
        [b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', _] => {
            (at + 5, usize::from(a - b'0') * 10 + usize::from(b - b'0'))
        }
        _ => return None,
    };
    is_ended(buf, start + len).then_some((start, start + len))
}

/// Whether a line end stands there.
#[inline]
pub(crate) fn is_ended(buf: &[u8], end: usize) -> bool {
    let line_end = buf.get(end..).and_then(|rest| rest.first_chunk::<2>());
    line_end == Some(b"\r\n")
}

/// Holds a declared bulk length to the limits. `at` is the header's place, `body` its end.
#[inline]
pub(crate) fn bulk_len(
    limits: &Limits,
    at: usize,
    declared: i64,
    body: usize,
) -> Result<usize, Error> {
    let Ok(len) = u64::try_from(declared) else {
        return Err(Error::new(at + 1, ErrorKind::NegativeLength));
    };
    if len > limits.bulk_bytes_max {
        return Err(Error::limit(
            at + 1,
            Limited::BulkBytes,
            len,
            limits.bulk_bytes_max,
        ));
    }
    let frame = body as u64 + len + 2;
    if frame > limits.frame_bytes_max {
        return Err(Error::limit(
            at + 1,
            Limited::FrameBytes,
            frame,
            limits.frame_bytes_max,
        ));
    }
    usize::try_from(len)
        .map_err(|_| Error::limit(at + 1, Limited::BulkBytes, len, usize::MAX as u64))
}

/// Says whether the bytes behind a bulk string, which begin at `end`, may still become `\r\n`.
#[cold]
pub(crate) fn missing_line_end(rest: Option<&[u8]>, end: usize) -> Result<(), Error> {
    match rest {
        None | Some([] | [b'\r']) => Ok(()),
        Some([b'\r', ..]) => Err(Error::new(end + 1, ErrorKind::MissingCrlf)),
        Some(_) => Err(Error::new(end, ErrorKind::MissingCrlf)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;

    /// Overwrites what the decoder is done with before every further piece: were it to look at any
    /// of it again, it would fail. So the work is linear in the bytes, however they are cut.
    #[test]
    fn no_byte_is_looked_at_twice() {
        let items = 200_000;
        let mut stream = Vec::new();
        encode::command_header(&mut stream, items);
        for item in 0..items {
            encode::bulk(&mut stream, format!("item {item}").as_bytes());
        }
        let mut decoder = CommandDecoder::new(Limits::default());
        let mut buf = Vec::new();
        for piece in stream.chunks(4_096) {
            buf.extend_from_slice(piece);
            let done = decoder.poll(&buf).unwrap();
            assert_eq!(done.is_some(), buf.len() == stream.len());
            let pos = decoder.pos;
            assert!(
                done.is_some() || buf.len() - pos < 32,
                "the rest of one argument"
            );
            buf[..pos].fill(0xff);
        }
        assert_eq!(decoder.args().len(), items);
        assert_eq!(decoder.args()[items - 1].of(&stream), b"item 199999");
    }

    #[test]
    fn a_long_line_is_searched_once() {
        let mut decoder = CommandDecoder::new(Limits::default());
        let mut buf = Vec::new();
        for _ in 0..15 {
            buf.resize(buf.len() + 4_096, b'a');
            assert_eq!(decoder.poll(&buf), Ok(None));
            assert_eq!(decoder.pos, buf.len());
        }
        // A line feed where it has already searched is not seen; one behind that is.
        buf[7] = b'\n';
        assert_eq!(decoder.poll(&buf), Ok(None));
        buf[7] = b'a';
        buf.push(b'\n');
        let frame = Frame {
            len: 15 * 4_096 + 1,
            kind: FrameKind::Inline,
        };
        assert_eq!(decoder.poll(&buf), Ok(Some(frame)));
    }

    #[test]
    fn declared_lengths_allocate_nothing() {
        let mut decoder = CommandDecoder::new(Limits::default());
        let before = decoder.args.capacity();
        assert_eq!(decoder.poll(b"*67108864\r\n$536870912\r\nabc"), Ok(None));
        assert_eq!(decoder.args.capacity(), before);
    }

    #[test]
    fn a_huge_list_of_arguments_is_given_back() {
        let mut decoder = CommandDecoder::new(Limits::default());
        let mut stream = Vec::new();
        encode::command(&mut stream, &vec![&b""[..]; KEPT_ARGS_MAX + 1]);
        assert!(decoder.poll(&stream).unwrap().is_some());
        assert!(decoder.args.capacity() > KEPT_ARGS_MAX);
        assert!(decoder.poll(b"\n").unwrap().is_some());
        assert!(decoder.args.capacity() <= KEPT_ARGS_MAX);
    }
}
