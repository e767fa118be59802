//! The words of an inline command.
//!
//! The rules of Redis's `sdssplitargs`: words stand between blanks; a word may be quoted, `"..."`
//! with C-like escapes or `'...'` with `\'` alone; behind the closing quote comes a blank or the
//! end. What is refused instead of followed: escapes and quotes within a word, since the value then
//! is no range of the line, and a NUL byte, at which a server would silently stop reading.

use crate::command::Arg;
use crate::error::{Error, ErrorKind};

/// Appends the words of `line` (its `\n` taken off, a `\r` before that is a blank) to `args`.
pub(crate) fn split(line: &[u8], args: &mut Vec<Arg>) -> Result<(), Error> {
    let mut pos = 0;
    loop {
        while line.get(pos).is_some_and(|&byte| is_blank(byte)) {
            pos += 1;
        }
        let word = match line.get(pos) {
            None => return Ok(()),
            Some(&quote @ (b'"' | b'\'')) => quoted(line, pos, quote)?,
            Some(_) => plain(line, pos)?,
        };
        args.push(word.arg);
        pos = word.next;
    }
}

struct Word {
    arg: Arg,
    next: usize,
}

impl Word {
    fn new(start: usize, end: usize, next: usize) -> Self {
        // A line is held to 32 bits by `Limits`.
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            arg: Arg {
                start: place(start),
                end: place(end),
            },
            next,
        }
    }
}

fn plain(line: &[u8], start: usize) -> Result<Word, Error> {
    let mut pos = start;
    while let Some(&byte) = line.get(pos) {
        match byte {
            _ if is_blank(byte) => break,
            b'"' | b'\'' => return Err(Error::new(pos, ErrorKind::InlineEscape)),
            0 => return Err(Error::new(pos, ErrorKind::Misplaced(0))),
            1..=u8::MAX => pos += 1,
        }
    }
    Ok(Word::new(start, pos, pos))
}

fn quoted(line: &[u8], open: usize, quote: u8) -> Result<Word, Error> {
    let mut pos = open + 1;
    while let Some(&byte) = line.get(pos) {
        if byte == quote {
            return match line.get(pos + 1) {
                Some(&behind) if !is_blank(behind) => {
                    Err(Error::new(pos + 1, ErrorKind::UnbalancedQuotes))
                }
                Some(_) | None => Ok(Word::new(open + 1, pos, pos + 1)),
            };
        }
        let escape = byte == b'\\' && (quote == b'"' || line.get(pos + 1) == Some(&b'\''));
        if escape {
            return Err(Error::new(pos, ErrorKind::InlineEscape));
        }
        if byte == 0 {
            return Err(Error::new(pos, ErrorKind::Misplaced(0)));
        }
        pos += 1;
    }
    Err(Error::new(open, ErrorKind::UnbalancedQuotes))
}

/// C's `isspace` in the plain locale.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}
