//! Where the commands of an append-only file begin and end.
//!
//! ```text
//! #TS:1700000000\r\n                     an annotation (from 7.0 on): when what follows was written
//! *2\r\n $6\r\nSELECT\r\n $1\r\n0\r\n    a command; nothing else is in the file
//! ```
//!
//! Only lengths are read, so that a file's end, and what is wrong in it, is known before anything behind its last good
//! command is applied. The bytes may come in any pieces.

use std::fmt;
use std::ops::Range;

/// Longest line of an annotation, or of a length.
const LINE_BYTES_MAX: usize = 1024;
/// Longest word, as a server's proto-max-bulk-len may allow it.
const BULK_BYTES_MAX: u64 = 2 << 30;
/// Most words of a command.
const WORDS_MAX: u64 = 1 << 31;
/// Longest name that is of interest.
const NAME_BYTES: usize = 5;

/// What is no append-only file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Broken {
    /// Position of the byte.
    pub(super) at: u64,
    what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Between,
    Annotation,
    /// How many words the command has.
    Count,
    /// How long the next word is, of so many.
    Len {
        left: u64,
    },
    /// So many bytes of it are to come, then its line end; it is one of `left`.
    Body {
        left: u64,
        bytes: u64,
    },
    Return {
        left: u64,
    },
    Newline {
        left: u64,
    },
}

/// Goes through a file, piece by piece.
#[derive(Debug)]
pub(super) struct Scan {
    phase: Phase,
    /// Position of the next byte.
    pos: u64,
    /// Where the command in progress begins; `pos` between two of them.
    frame: u64,
    /// Where the transaction in progress begins.
    transaction: Option<u64>,
    line: Vec<u8>,
    name: Vec<u8>,
    is_first_word: bool,
}

/// An annotation, its line end included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Annotation {
    pub(super) place: Range<u64>,
    /// The time, where it is one.
    pub(super) at_seconds: Option<u64>,
}

impl Scan {
    /// From a place between two commands on.
    pub(super) fn at(pos: u64) -> Self {
        Self {
            phase: Phase::Between,
            pos,
            frame: pos,
            transaction: None,
            line: Vec::new(),
            name: Vec::new(),
            is_first_word: false,
        }
    }

    /// Position of the next byte.
    pub(super) fn pos(&self) -> u64 {
        self.pos
    }

    /// Where the command in progress begins, or the next one.
    pub(super) fn frame(&self) -> u64 {
        self.frame
    }

    /// Where a file that ends here would have its last whole command or transaction behind it.
    pub(super) fn whole(&self) -> u64 {
        self.transaction.unwrap_or(self.frame)
    }

    /// Takes the next bytes; gives what annotations they complete.
    pub(super) fn take(
        &mut self,
        bytes: &[u8],
        mut annotation: impl FnMut(Annotation),
    ) -> Result<(), Broken> {
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            if let Phase::Body { left, bytes } = self.phase {
                rest = self.body(rest, left, bytes);
                continue;
            }
            self.byte(byte, &mut annotation)?;
            rest = after;
        }
        Ok(())
    }

    /// Takes what is there of a word; gives the rest.
    fn body<'b>(&mut self, rest: &'b [u8], left: u64, bytes: u64) -> &'b [u8] {
        let here = usize::try_from(bytes).unwrap_or(usize::MAX).min(rest.len());
        let (word, after) = rest.split_at(here);
        if self.is_first_word && self.name.len() <= NAME_BYTES {
            let room = NAME_BYTES + 1 - self.name.len();
            self.name
                .extend_from_slice(word.get(..room).unwrap_or(word));
        }
        self.pos += here as u64;
        self.phase = match bytes - here as u64 {
            0 => Phase::Return { left },
            bytes => Phase::Body { left, bytes },
        };
        after
    }

    fn byte(&mut self, byte: u8, annotation: &mut impl FnMut(Annotation)) -> Result<(), Broken> {
        let at = self.pos;
        let broken = |what: &str| {
            let what = format!("{what}, not \"{}\"", byte.escape_ascii());
            Err(Broken { at, what })
        };
        self.pos += 1;
        match (self.phase, byte) {
            (Phase::Between, b'#') => self.phase = Phase::Annotation,
            (Phase::Between, b'*') => {
                self.name.clear();
                self.is_first_word = true;
                self.phase = Phase::Count;
            }
            (Phase::Between, _) => return broken("a command begins with \"*\""),
            (Phase::Annotation, b'\n') => {
                annotation(self.annotation());
                self.line.clear();
                self.end();
            }
            (Phase::Count, b'\n') => {
                let count = self.number(at)?;
                if count == 0 || count > WORDS_MAX {
                    let what = format!("a command of {count} words");
                    return Err(Broken { at, what });
                }
                self.phase = Phase::Len { left: count };
            }
            (Phase::Len { .. }, b'$') if self.line.is_empty() => self.line.push(byte),
            (Phase::Len { .. }, _) if self.line.is_empty() => {
                return broken("a word's length begins with \"$\"");
            }
            (Phase::Len { left }, b'\n') => {
                self.line.remove(0);
                let bytes = self.number(at)?;
                if bytes > BULK_BYTES_MAX {
                    let what = format!("a word of {bytes} bytes");
                    return Err(Broken { at, what });
                }
                self.phase = match bytes {
                    0 => Phase::Return { left },
                    bytes => Phase::Body { left, bytes },
                };
            }
            (Phase::Annotation | Phase::Count | Phase::Len { .. }, _) => {
                if self.line.len() >= LINE_BYTES_MAX {
                    return broken("a line ends by now");
                }
                self.line.push(byte);
            }
            (Phase::Return { left }, b'\r') => self.phase = Phase::Newline { left },
            (Phase::Newline { left }, b'\n') => self.word(left),
            (Phase::Return { .. } | Phase::Newline { .. }, _) => {
                return broken("a line end follows a word of that length");
            }
            // Handled before.
            (Phase::Body { .. }, _) => {}
        }
        Ok(())
    }

    /// A word is whole; it was one of so many.
    fn word(&mut self, left: u64) {
        self.is_first_word = false;
        if left > 1 {
            self.phase = Phase::Len { left: left - 1 };
            return;
        }
        let begins = self.frame;
        self.end();
        if self.name.eq_ignore_ascii_case(b"multi") {
            self.transaction.get_or_insert(begins);
        } else if self.name.eq_ignore_ascii_case(b"exec") {
            self.transaction = None;
        }
    }

    fn end(&mut self) {
        self.phase = Phase::Between;
        self.frame = self.pos;
    }

    fn annotation(&self) -> Annotation {
        let text = std::str::from_utf8(&self.line).unwrap_or_default();
        let time = text.strip_prefix("TS:").map(str::trim);
        Annotation {
            place: self.frame..self.pos,
            at_seconds: time.and_then(|time| time.parse().ok()),
        }
    }

    /// The number on the line, which ends with `\r`.
    fn number(&mut self, at: u64) -> Result<u64, Broken> {
        let line = std::mem::take(&mut self.line);
        let digits = line.strip_suffix(b"\r").unwrap_or_default();
        let number = std::str::from_utf8(digits).ok();
        let number = number.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        number
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Broken {
                at,
                what: format!("\"{}\" is no length", line.escape_ascii()),
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(bytes: &[u8], step: usize) -> (Scan, Vec<Annotation>, Result<(), Broken>) {
        let (mut scan, mut found) = (Scan::at(1000), Vec::new());
        let mut ended = Ok(());
        for piece in bytes.chunks(step) {
            ended = scan.take(piece, |annotation| found.push(annotation));
            if ended.is_err() {
                break;
            }
        }
        (scan, found, ended)
    }

    #[test]
    fn commands_and_annotations_however_they_are_cut() {
        let one = b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n".as_slice();
        let stamp = b"#TS:1700000000\r\n".as_slice();
        let two = b"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\n\r\n*#\r\n".as_slice();
        let other = b"#word\n".as_slice();
        let half = b"*2\r\n$3\r\nGET\r\n$9\r\nabc".as_slice();
        let all = [one, stamp, two, other, half].concat();
        for step in [1, 2, 3, 7, all.len()] {
            let (scan, found, ended) = scan(&all, step);
            assert_eq!(ended, Ok(()));
            let end = 1000 + (all.len() - half.len()) as u64;
            assert_eq!((scan.frame(), scan.whole()), (end, end), "{step}");
            assert_eq!(scan.pos(), 1000 + all.len() as u64);
            let times: Vec<_> = found.iter().map(|found| found.at_seconds).collect();
            assert_eq!(times, [Some(1_700_000_000), None]);
            let from = 1000 + one.len() as u64;
            assert_eq!(found[0].place, from..from + stamp.len() as u64);
        }
    }

    #[test]
    fn a_transaction_is_whole_with_its_end() {
        let multi = b"*1\r\n$5\r\nMULTI\r\n".as_slice();
        let incr = b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n".as_slice();
        let exec = b"*1\r\n$4\r\nexec\r\n".as_slice();
        let all = [incr, multi, incr, incr, exec, incr].concat();
        let until = |count: usize| {
            let bytes = [incr, multi, incr, incr, exec, incr][..count].concat();
            let (scan, _, ended) = scan(&bytes, 3);
            assert_eq!(ended, Ok(()));
            scan.whole() - 1000
        };
        let begins = incr.len() as u64;
        assert_eq!([until(1), until(2), until(3), until(4)], [begins; 4]);
        let end = (all.len() - incr.len()) as u64;
        assert_eq!([until(5), until(6)], [end, all.len() as u64]);
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let good = b"*1\r\n$4\r\nPING\r\n".as_slice();
        for (bad, at) in [
            (b"hello".as_slice(), 0),
            (b"*x\r\n", 3),
            (b"*0\r\n", 3),
            (b"*1\r\n%4\r\n", 4),
            (b"*1\r\n$-1\r\n", 8),
            (b"*1\r\n$3\r\nPING\r\n", 11),
            (b"*1\r\n$5\r\nPING\r\n*", 13),
            (b"*1\r\n$99999999999\r\n", 17),
            (b"\0\0\0", 0),
        ] {
            for step in [1, 64] {
                let (scan, _, ended) = scan(&[good, bad].concat(), step);
                let place = ended.map_err(|broken| broken.at - 1000 - good.len() as u64);
                assert_eq!(place, Err(at), "{}", bad.escape_ascii());
                assert_eq!(scan.frame(), 1000 + good.len() as u64);
            }
        }
    }
}
