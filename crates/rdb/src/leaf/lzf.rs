//! LZF decompression (`lzf_d.c`).
//!
//! ```text
//! 000lllll + l+1 bytes              copy l+1 bytes of the input
//! lllddddd dddddddd                 copy l+2 bytes of the output, from d+1 bytes back
//! 111ddddd llllllll dddddddd        the same with l+9 bytes
//! ```
//!
//! A copy of the output may overlap itself; the farthest reaches 8192 bytes back, the longest
//! gives 264. [`decompress`] fills a slice of the declared length; [`Stream`] gives a long string
//! in parts and never holds more than a part and the window behind it.

use bytes::Bytes;

use crate::error::ErrorKind;

/// How far back a copy can reach.
const WINDOW: usize = 8192;

const OUTSIDE: ErrorKind = ErrorKind::Corrupt("LZF copy from before the output");
const SHORT: ErrorKind = ErrorKind::Corrupt("LZF input ends within an instruction");
const LENGTH: ErrorKind = ErrorKind::Corrupt("LZF output of another length than declared");

enum Instruction<'a> {
    Literal(&'a [u8]),
    Copy { len: usize, back: usize },
}

/// The instruction that `input` begins with and the rest; `None` if the input is too short.
#[inline]
fn instruction(input: &[u8]) -> Option<(Instruction<'_>, &[u8])> {
    let (&control, rest) = input.split_first()?;
    if control < 32 {
        let (literal, rest) = rest.split_at_checked(usize::from(control) + 1)?;
        return Some((Instruction::Literal(literal), rest));
    }
    let copied = copy(control, rest)?;
    let (len, back) = (copied.len, copied.back);
    Some((Instruction::Copy { len, back }, input.get(copied.taken..)?))
}

/// A copy of the output: how long, from how far back, and how many bytes say so.
struct Copied {
    len: usize,
    back: usize,
    taken: usize,
}

/// What the control byte of a copy and the bytes behind it say.
#[inline]
fn copy(control: u8, behind: &[u8]) -> Option<Copied> {
    let short = usize::from(control >> 5);
    let (len, low, taken) = match (short, behind) {
        (7, [more, low, ..]) => (usize::from(*more) + 9, low, 3),
        (..7, [low, ..]) => (short + 2, low, 2),
        _ => return None,
    };
    let back = (usize::from(control & 31) << 8 | usize::from(*low)) + 1;
    Some(Copied { len, back, taken })
}

/// How many bytes the instruction with this control byte has.
const fn instruction_len(control: Option<&u8>) -> usize {
    match control {
        None => 1,
        Some(&literal @ ..32) => literal as usize + 2,
        Some(32..224) => 2,
        Some(224..) => 3,
    }
}

/// A fixed number of bytes is copied in few moves; those too many are written over, or lie behind the end.
pub(crate) const WIDE: usize = 32;

/// Fills `output` exactly from `input`.
pub(crate) fn decompress(input: &[u8], output: &mut [u8]) -> Result<(), ErrorKind> {
    decompress_within(input, input.len(), output.len(), output)
}

/// Fills the first `len` bytes of `output` from the first `packed` of `input`; quickest if there are [`WIDE`] more of
/// both, of which those of `output` may be overwritten.
pub(crate) fn decompress_within(
    input: &[u8],
    packed: usize,
    len: usize,
    output: &mut [u8],
) -> Result<(), ErrorKind> {
    if output.len() < len {
        return Err(LENGTH);
    }
    run(input, packed, output, len)
}

/// Appends what the first `packed` bytes of `input` decompress to, which was [`check`]ed to be `len` bytes. The more
/// there is behind them, the less is copied byte by byte.
#[inline]
pub(crate) fn append(input: &[u8], packed: usize, len: usize, out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + len + WIDE, 0);
    let output = out.get_mut(start..).unwrap_or_default();
    let done = run(input, packed, output, len);
    debug_assert_eq!(done, Ok(()), "it was checked");
    out.truncate(start + len);
}

/// Decompresses the first `packed` bytes of `input` into the first `len` of `output`. What stands behind either may be
/// read and overwritten.
#[inline]
fn run(input: &[u8], packed: usize, output: &mut [u8], len: usize) -> Result<(), ErrorKind> {
    let (mut pos, mut at) = (0, 0);
    while pos < packed {
        let rest = input.get(pos..).unwrap_or_default();
        let Some((&control, body)) = rest.split_first() else {
            return Err(SHORT);
        };
        if control < 32 {
            let count = usize::from(control) + 1;
            pos += 1 + count;
            if pos > packed {
                return Err(SHORT);
            }
            if count > len - at {
                return Err(LENGTH);
            }
            let room = output.get_mut(at..).unwrap_or_default();
            if let (Some(wide), Some(place)) = (body.first_chunk(), room.first_chunk_mut::<WIDE>())
            {
                *place = *wide;
            } else {
                copy_exactly(body, room, count)?;
            }
            at += count;
            continue;
        }
        let copied = copy(control, body).ok_or(SHORT)?;
        pos += copied.taken;
        if pos > packed {
            return Err(SHORT);
        }
        let from = at.checked_sub(copied.back).ok_or(OUTSIDE)?;
        if copied.len > len - at {
            return Err(LENGTH);
        }
        copy_within(output, from, at, copied.len);
        at += copied.len;
    }
    if at == len { Ok(()) } else { Err(LENGTH) }
}

/// Apart from the wide move, lest the compiler make one call of both.
#[cold]
#[inline(never)]
fn copy_exactly(body: &[u8], room: &mut [u8], count: usize) -> Result<(), ErrorKind> {
    let literal = body.get(..count).ok_or(SHORT)?;
    let place = room.get_mut(..count).ok_or(LENGTH)?;
    place.copy_from_slice(literal);
    Ok(())
}

/// Repeats what stands from `from` on at `at`, where `from < at` and all is within `output`; what stands behind may be
/// overwritten.
#[inline]
fn copy_within(output: &mut [u8], from: usize, at: usize, len: usize) {
    // Most copies are short and do not overlap.
    if len <= 16 && at - from >= 16 && copy_sixteen(output, from, at) {
        return;
    }
    copy_longer(output, from, at, len);
}

#[inline]
fn copy_sixteen(output: &mut [u8], from: usize, at: usize) -> bool {
    let (before, behind) = output.split_at_mut(at);
    let source = before.get(from..).and_then(<[u8]>::first_chunk::<16>);
    let (Some(source), Some(place)) = (source, behind.first_chunk_mut::<16>()) else {
        return false;
    };
    *place = *source;
    true
}

#[inline(never)]
fn copy_longer(output: &mut [u8], mut from: usize, mut at: usize, mut len: usize) {
    let apart = at - from;
    while apart >= 16 && len > 0 && copy_sixteen(output, from, at) {
        let step = len.min(16);
        (from, at, len) = (from + step, at + step, len - step);
    }
    // What is written lengthens what can be copied next, so an overlap takes few rounds.
    while len > 0 {
        let step = len.min(at - from);
        output.copy_within(from..from + step, at);
        at += step;
        len -= step;
    }
}

/// Checks that `input` decompresses to `len` bytes, without doing it.
#[inline]
pub(crate) fn check(input: &[u8], len: usize) -> Result<(), ErrorKind> {
    let (mut pos, mut at) = (0, 0);
    while let Some(&control) = input.get(pos) {
        if control < 32 {
            let count = usize::from(control) + 1;
            pos += 1 + count;
            at += count;
            continue;
        }
        let body = input.get(pos + 1..).unwrap_or_default();
        let copied = copy(control, body).ok_or(SHORT)?;
        if copied.back > at {
            return Err(OUTSIDE);
        }
        pos += copied.taken;
        at += copied.len;
    }
    if pos > input.len() {
        return Err(SHORT);
    }
    if at == len { Ok(()) } else { Err(LENGTH) }
}

/// A long string that decompresses in parts.
#[derive(Debug)]
pub(crate) struct Stream {
    /// Compressed bytes not yet taken.
    packed_left: u64,
    /// Decompressed bytes not yet made.
    left: u64,
    /// The end of what was given out (up to [`WINDOW`] bytes), then what was not.
    output: Vec<u8>,
    given: usize,
    part: usize,
}

/// What a [`Stream`] does with its input.
#[derive(Debug)]
pub(crate) enum Step {
    /// It took this many bytes and has no part yet.
    Took(usize),
    /// It took this many bytes, and here is a part.
    Part(usize, Bytes),
    /// It takes nothing before this many bytes are there.
    Need(usize),
    /// Everything was given.
    Done,
}

impl Stream {
    pub(crate) fn new(packed: usize, len: usize, part: usize) -> Self {
        let (packed_left, left) = (packed as u64, len as u64);
        Self {
            packed_left,
            left,
            output: Vec::new(),
            given: 0,
            part: part.max(1),
        }
    }

    pub(crate) fn step(&mut self, input: &[u8]) -> Result<Step, ErrorKind> {
        let mine = usize::try_from(self.packed_left).map_or(input.len(), |n| n.min(input.len()));
        let mut rest = input.get(..mine).unwrap_or_default();
        while self.output.len() - self.given < self.part {
            let Some((next, after)) = instruction(rest) else {
                break;
            };
            match self.run(&next) {
                Ok(()) => rest = after,
                // What is good before it is taken first, so that the error has its place.
                Err(_) if rest.len() < mine => break,
                Err(kind) => return Err(kind),
            }
        }
        let took = mine - rest.len();
        self.packed_left -= took as u64;
        let ready = self.output.len() - self.given;
        if ready >= self.part || self.packed_left == 0 && ready > 0 {
            return Ok(Step::Part(took, self.give(ready.min(self.part))));
        }
        if took > 0 {
            return Ok(Step::Took(took));
        }
        let wanted = instruction_len(rest.first());
        match self.packed_left {
            0 if self.left == 0 => Ok(Step::Done),
            0 => Err(LENGTH),
            left if left < wanted as u64 => Err(SHORT),
            // Not a byte more than the instruction has: what has arrived is given, however it
            // was cut.
            _ => Ok(Step::Need(wanted)),
        }
    }

    /// Runs an instruction, or changes nothing.
    fn run(&mut self, next: &Instruction<'_>) -> Result<(), ErrorKind> {
        let at = self.output.len();
        let (made, from) = match next {
            Instruction::Literal(literal) => (literal.len(), at),
            Instruction::Copy { len, back } => (*len, at.checked_sub(*back).ok_or(OUTSIDE)?),
        };
        self.left = self.left.checked_sub(made as u64).ok_or(LENGTH)?;
        match next {
            Instruction::Literal(literal) => self.output.extend_from_slice(literal),
            Instruction::Copy { len, .. } => {
                self.output.resize(at + len, 0);
                copy_within(&mut self.output, from, at, *len);
            }
        }
        Ok(())
    }

    fn give(&mut self, n: usize) -> Bytes {
        let end = self.given + n;
        let part = Bytes::copy_from_slice(self.output.get(self.given..end).unwrap_or_default());
        let keep_from = end.saturating_sub(WINDOW);
        self.output.drain(..keep_from);
        self.given = end - keep_from;
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(input: &[u8], len: usize) -> Result<Vec<u8>, ErrorKind> {
        let mut output = vec![0; len];
        decompress(input, &mut output)?;
        check(input, len)?;
        Ok(output)
    }

    #[test]
    fn literals_and_copies() {
        assert_eq!(plain(&[2, b'a', b'b', b'c'], 3), Ok(b"abc".to_vec()));
        assert_eq!(plain(&[0, b'a', 0x20, 0], 4), Ok(b"aaaa".to_vec()));
        assert_eq!(
            plain(&[1, b'a', b'b', 0xe0, 0, 1], 11),
            Ok(b"ababababab\x61".to_vec())
        );
    }

    #[test]
    fn refuses() {
        for (input, len, why) in [
            (&[0x20, 0][..], 3, OUTSIDE),
            (&[0, b'a', 0x20, 1], 4, OUTSIDE),
            (&[0, b'a', 0x20, 0], 5, LENGTH),
            (&[0, b'a', 0x20, 0], 3, LENGTH),
            (&[4, b'a'], 5, SHORT),
            (&[0, b'a', 0xe0, 0], 10, SHORT),
        ] {
            assert_eq!(plain(input, len), Err(why));
        }
    }

    #[test]
    fn parts_are_the_whole() {
        let mut input = vec![3, b'w', b'x', b'y', b'z'];
        for _ in 0..500 {
            input.extend([0xe0, 200, 3, 1, b'!', b'?']);
        }
        let len = 4 + 500 * 211;
        let whole = plain(&input, len).expect("good input");
        for (part, cut) in [(1, 3), (100, 7), (9000, 33), (1 << 20, 1)] {
            let mut stream = Stream::new(input.len(), len, part);
            let (mut at, mut seen, mut end) = (0, Vec::new(), cut);
            loop {
                match stream
                    .step(&input[at..end.min(input.len())])
                    .expect("good input")
                {
                    Step::Took(n) => at += n,
                    Step::Part(n, bytes) => {
                        at += n;
                        assert!(bytes.len() <= part);
                        seen.extend_from_slice(&bytes);
                    }
                    Step::Need(n) => end = end.max(at + n).max(end + cut),
                    Step::Done => break,
                }
            }
            assert_eq!(seen, whole, "parts of {part}");
        }
    }
}
