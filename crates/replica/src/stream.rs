//! Finds the ends of the commands in a source's stream, whatever chunks it comes in.
//!
//! ```text
//! chunk         |..cmd|cmd|cmd|c..|                    |..md|\n|cmd|
//! passed on     |..cmd|cmd|cmd|c..|  as it came        |..md|   |cmd|   the newline is taken out
//! copied                      |c..|  to `partial`
//! ```
//!
//! Each byte is looked at once, and only the command that a chunk ends in is copied.

use resp::{CommandDecoder, FrameKind, Limits};

use crate::ReplOffset;

/// A command that began in an earlier chunk is continued by at least so many bytes at a time: its
/// end may be near, and a few bytes too many cost less than asking for each header's next byte.
const STEP_MIN: usize = 4 << 10;
/// The room kept for partial commands. A larger one is given back when its command is complete.
const KEPT_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Framer {
    decoder: CommandDecoder,
    /// The stream's bytes after the last whole command.
    partial: Vec<u8>,
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

    pub(crate) fn partial(&self) -> &[u8] {
        &self.partial
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
            if is_getack(&self.decoder, &self.partial) {
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
        let before = self.partial.len();
        let mut taken = 0;
        while taken < chunk.len() {
            let step = self.decoder.wanted().max(STEP_MIN).min(chunk.len() - taken);
            self.partial
                .extend_from_slice(chunk.get(taken..taken + step).unwrap_or_default());
            taken += step;
            match self.decoder.poll(&self.partial) {
                Ok(Some(frame)) => return Ok(Some(frame.len - before)),
                Ok(None) => {}
                Err(error) => return Err(fault(&self.partial, before, Some(error))),
            }
        }
        Ok(None)
    }

    fn clear_partial(&mut self) {
        self.partial.clear();
        if self.partial.capacity() > KEPT_MAX {
            self.partial = Vec::new();
        }
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
