//! Finds the ends of the commands in a source's stream, whatever chunks it comes in.
//!
//! ```text
//! chunk         |..cmd|cmd|cmd|c..|                    |..md|\n|cmd|
//! passed on     |..cmd|cmd|cmd|c..|  as it came        |..md|   |cmd|   the newline is taken out
//! copied                      |c..|  to `partial`
//! ```
//!
//! Each byte is looked at once, and only the command that a chunk ends in is copied; of a long one not even that, but only
//! what is still to come of it is remembered.

use std::borrow::Cow;

use bytes::Bytes;
use resp::{CommandDecoder, FrameKind, Limits};

use crate::ReplOffset;

/// A command that began in an earlier chunk is continued by at least so many bytes at a time: its
/// end may be near, and a few bytes too many cost less than asking for each header's next byte.
const STEP_MIN: usize = 4 << 10;
/// Of a command more than this is not kept: it is no GETACK.
const KEPT_MAX: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Framer {
    decoder: CommandDecoder,
    /// The stream's bytes after the last whole command; of a long command, fewer that are followed by the same.
    partial: Vec<u8>,
    /// So many bytes of an argument come before what follows `partial`, where that argument is empty.
    skip: u64,
    /// Bytes of the command in `partial` that came so far.
    came: u64,
    /// `partial` is not what came.
    is_long: bool,
}

/// The unfinished command at the end of a stream that is kept somewhere.
#[derive(Debug, Default)]
pub struct Tail(Framer);

impl Tail {
    /// The next bytes, from between two commands on.
    ///
    /// # Errors
    /// For what is no stream of commands.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), resp::ErrorKind> {
        while !bytes.is_empty() {
            let scan = self.0.scan(bytes, ReplOffset(0), |_| {});
            let scan = scan.map_err(|fault| {
                let first = fault.got.first().copied().unwrap_or_default();
                fault.kind.unwrap_or(resp::ErrorKind::Misplaced(first))
            })?;
            bytes = bytes.get(scan.stream + scan.newlines..).unwrap_or_default();
        }
        Ok(())
    }

    /// What [`crate::Start::Resume`] wants as `partial` behind all that was fed.
    #[must_use]
    pub fn partial(&self) -> Bytes {
        Bytes::copy_from_slice(&self.0.partial())
    }
}

impl Default for Framer {
    fn default() -> Self {
        Self::new()
    }
}

/// What a chunk begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Scan {
    /// Bytes of the stream.
    pub(crate) stream: usize,
    /// Newlines behind them, which are none.
    pub(crate) newlines: usize,
}

/// A stream out of step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The first wrong byte, counted from the command's beginning.
    pub(crate) at: u64,
    /// Bytes of that command that came before the chunk in hand.
    pub(crate) before: u64,
    pub(crate) got: Vec<u8>,
    /// None: it does not even begin like a command.
    pub(crate) kind: Option<resp::ErrorKind>,
}

/// Bytes of a faulty command to show.
const FAULT_SHOWN: usize = 64;

impl Framer {
    pub(crate) fn new() -> Self {
        // The source took the command: if its own limits are raised, that is no error of ours.
        let limits = Limits {
            bulk_bytes_max: 2 << 30,
            ..Limits::default()
        };
        Self {
            decoder: CommandDecoder::new(limits),
            partial: Vec::new(),
            skip: 0,
            came: 0,
            is_long: false,
        }
    }

    /// A framer that has already seen `bytes`, which a former link received last. A fault comes
    /// with the number of bytes that are left from its chunk on.
    pub(crate) fn primed(bytes: &[u8]) -> Result<Self, (Fault, usize)> {
        let mut framer = Self::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let scan = framer
                .scan(rest, ReplOffset(0), |_| {})
                .map_err(|f| (f, rest.len()))?;
            rest = rest.get(scan.stream + scan.newlines..).unwrap_or_default();
        }
        Ok(framer)
    }

    /// A beginning of a command that is followed by what follows here.
    pub(crate) fn partial(&self) -> Cow<'_, [u8]> {
        let progress = self.decoder.progress().filter(|_| self.skip > 0);
        match progress {
            Some(progress) => {
                let short = format!("*{}\r\n${}\r\n", progress.left, self.skip);
                Cow::Owned(short.into_bytes())
            }
            None => Cow::Borrowed(&self.partial),
        }
    }

    /// Looks through a chunk up to its end or behind the first newlines between commands. `base`
    /// is the offset before it; `getack` is called with the end of each GETACK.
    ///
    /// A fault is reported only at the head of a chunk: what comes before it is passed on first.
    pub(crate) fn scan(
        &mut self,
        chunk: &[u8],
        base: ReplOffset,
        mut getack: impl FnMut(ReplOffset),
    ) -> Result<Scan, Fault> {
        let mut at = 0;
        if !self.partial.is_empty() {
            let Some(end) = self.complete(chunk)? else {
                return Ok(Scan {
                    stream: chunk.len(),
                    newlines: 0,
                });
            };
            if !self.is_long && is_getack(&self.decoder, &self.partial) {
                getack(base.after(end));
            }
            self.clear_partial();
            at = end;
        }
        while let Some(rest) = chunk.get(at..).filter(|rest| !rest.is_empty()) {
            if rest.first() != Some(&b'*') {
                let newlines = rest.iter().take_while(|byte| **byte == b'\n').count();
                if at == 0 && newlines == 0 {
                    return Err(fault(rest, 0, None));
                }
                return Ok(Scan {
                    stream: at,
                    newlines,
                });
            }
            if let Some(set) = resp::plain_set(rest) {
                at += set.len;
                continue;
            }
            match self.decoder.poll(rest) {
                Ok(Some(frame)) => {
                    debug_assert_eq!(frame.kind, FrameKind::Command, "it begins with `*`");
                    at += frame.len;
                    if is_getack(&self.decoder, rest) {
                        getack(base.after(at));
                    }
                }
                Ok(None) => {
                    self.partial.extend_from_slice(rest);
                    self.came = rest.len() as u64;
                    self.shorten()
                        .map_err(|error| fault(rest, 0, Some(error)))?;
                    break;
                }
                Err(error) if at == 0 => return Err(fault(rest, 0, Some(error))),
                Err(_) => {
                    self.decoder.reset();
                    return Ok(Scan {
                        stream: at,
                        newlines: 0,
                    });
                }
            }
        }
        Ok(Scan {
            stream: chunk.len(),
            newlines: 0,
        })
    }

    /// Goes on with the partial command. Gives the place in `chunk` where it ends, or none if all
    /// of the chunk belongs to it.
    fn complete(&mut self, chunk: &[u8]) -> Result<Option<usize>, Fault> {
        let before = self.came;
        let mut taken = 0;
        while let Some(rest) = chunk.get(taken..).filter(|rest| !rest.is_empty()) {
            if self.skip > 0 {
                let skipped =
                    usize::try_from(self.skip).map_or(rest.len(), |skip| skip.min(rest.len()));
                self.skip -= skipped as u64;
                taken += skipped;
                self.came += skipped as u64;
                continue;
            }
            let step = self.decoder.wanted().max(STEP_MIN).min(rest.len());
            let (had, came) = (self.partial.len(), self.came);
            self.partial
                .extend_from_slice(rest.get(..step).unwrap_or_default());
            let fault = |framer: &Self, error: resp::Error| {
                // Counted from where the step began, since what is before it may have been shortened.
                let at = (came + error.at).saturating_sub(had as u64);
                Fault {
                    at,
                    before,
                    ..fault(&framer.partial, 0, Some(error))
                }
            };
            match self.decoder.poll(&self.partial) {
                Ok(Some(frame)) => return Ok(Some(taken + frame.len.saturating_sub(had))),
                Ok(None) => {}
                Err(error) => return Err(fault(self, error)),
            }
            taken += step;
            self.came += step as u64;
            self.shorten().map_err(|error| fault(self, error))?;
        }
        Ok(None)
    }

    /// Puts a short beginning in the place of a long one, of which as much is still to come.
    fn shorten(&mut self) -> Result<(), resp::Error> {
        if self.partial.len() <= KEPT_MAX {
            return Ok(());
        }
        let Some(progress) = self.decoder.progress() else {
            return Ok(());
        };
        let rest = self.partial.get(progress.at..).unwrap_or_default();
        let mut short = format!("*{}\r\n", progress.left).into_bytes();
        match progress.body {
            Some(len) => {
                short.extend_from_slice(b"$0\r\n");
                short.extend_from_slice(rest.get(len..).unwrap_or_default());
                self.skip = len.saturating_sub(rest.len()) as u64;
            }
            None => short.extend_from_slice(rest),
        }
        self.partial = short;
        self.is_long = true;
        self.decoder.reset();
        self.decoder.poll(&self.partial).map(|_| ())
    }

    fn clear_partial(&mut self) {
        self.partial.clear();
        self.came = 0;
        self.is_long = false;
    }
}

/// Whether the decoder's last frame, which `frame` begins with, is `REPLCONF GETACK *`.
fn is_getack(decoder: &CommandDecoder, frame: &[u8]) -> bool {
    match decoder.args() {
        [name, option, _] => {
            name.of(frame).eq_ignore_ascii_case(b"REPLCONF")
                && option.of(frame).eq_ignore_ascii_case(b"GETACK")
        }
        _ => false,
    }
}

#[cold]
fn fault(frame: &[u8], before: usize, error: Option<resp::Error>) -> Fault {
    Fault {
        at: error.map_or(0, |error| error.at),
        before: before as u64,
        got: frame.get(..FAULT_SHOWN).unwrap_or(frame).to_vec(),
        kind: error.map(|error| error.kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn long_stream() -> (Vec<u8>, Vec<u64>) {
        let (mut stream, mut asked) = (Vec::new(), Vec::new());
        let getack: &[&[u8]] = &[b"REPLCONF", b"GETACK", b"*"];
        let (large, middle) = (vec![b'\n'; 700_000], vec![b'*'; 70_000]);
        let many = vec![&b"small"[..]; 20_000];
        let few: &[&[u8]] = &[b"HSET", b"k", &large, b"", &middle, &large];
        // Its last words are those of a GETACK.
        let sly: &[&[u8]] = &[b"RPUSH", b"k", &large, b"REPLCONF", b"GETACK", b"*"];
        for argv in [getack, few, getack, &many, sly, &[b"PING"], getack] {
            resp::encode::command(&mut stream, argv);
            if argv == getack {
                asked.push(stream.len() as u64);
            }
        }
        (stream, asked)
    }

    #[test]
    fn a_long_command_is_followed_by_its_lengths_however_it_is_cut() {
        let (stream, expected) = long_stream();
        for step in [1_000, 65_537, 70_001, 262_144, usize::MAX] {
            let (mut framer, mut asked, mut at) = (Framer::new(), Vec::new(), 0);
            for chunk in stream.chunks(step.min(stream.len())) {
                let base = ReplOffset(at as u64);
                let scan = framer.scan(chunk, base, |end| asked.push(end.0)).unwrap();
                assert_eq!((scan.stream, scan.newlines), (chunk.len(), 0));
                at += chunk.len();
                assert!(framer.partial.len() <= KEPT_MAX + 64, "{step}");
                assert!(framer.partial.capacity() < 2 << 20, "{step}");
                // A new link takes over.
                let partial = framer.partial().into_owned();
                assert!(partial.len() <= KEPT_MAX + 64, "{step}");
                let Ok(primed) = Framer::primed(&partial) else {
                    panic!("cut at {at}: {:?}", partial.escape_ascii().to_string());
                };
                framer = primed;
            }
            assert_eq!(asked, expected, "pieces of {step}");
            assert!(framer.partial().is_empty());
        }
    }

    #[test]
    fn a_fault_in_a_long_command_is_named_by_its_place() {
        let mut frame = Vec::new();
        let large = vec![b'x'; 300_000];
        resp::encode::command(&mut frame, &[b"SET", b"k", &large, b"EX", b"9"]);
        let place = frame.len() - 15;
        assert_eq!(frame[place], b'$');
        frame[place] = b'!';
        for step in [7_000, 100_000, 299_999] {
            let (mut framer, mut before) = (Framer::new(), 0);
            let fault = frame.chunks(step).find_map(|chunk| {
                let found = framer.scan(chunk, ReplOffset(0), |_| {}).err();
                before += if found.is_none() { chunk.len() } else { 0 };
                found
            });
            let fault = fault.unwrap();
            assert_eq!((fault.at, fault.before), (place as u64, before as u64));
        }
    }
}
