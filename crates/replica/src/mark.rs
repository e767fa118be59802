//! Finds the end mark of a snapshot sent in `$EOF:<mark>` form, however the bytes are cut.
//!
//! ```text
//!  chunk 1                      chunk 2
//! |.. snapshot bytes .. mmmmm| |mmmmmmm.. stream bytes ..|
//!                       └ held ┘
//! ```
//!
//! Held back between chunks is only what may be the beginning of the mark: a proper prefix of it,
//! and with a mark of random digits that is nearly always nothing. Everything else passes on as a
//! slice of the chunk it came in.

use bytes::{Buf, Bytes};
use memchr::memmem::{Finder, find};

/// Redis's `CONFIG_RUN_ID_SIZE`.
pub(crate) const MARK_LEN: usize = 40;

#[derive(Debug)]
pub(crate) struct MarkSearch {
    finder: Finder<'static>,
    /// A proper prefix of the mark, seen at the end of what came before.
    held: Vec<u8>,
}

/// What one look at a chunk gives. `snapshot` may be empty.
#[derive(Debug, PartialEq)]
pub(crate) enum Found {
    /// Bytes of the snapshot; the chunk may have more.
    Part { snapshot: Bytes },
    /// The snapshot's last bytes; the mark is taken out of the chunk.
    End { snapshot: Bytes },
}

impl MarkSearch {
    pub(crate) fn new(mark: &[u8; MARK_LEN]) -> Self {
        Self {
            finder: Finder::new(mark).into_owned(),
            held: Vec::new(),
        }
    }

    /// Takes bytes off the front of `chunk`.
    pub(crate) fn next(&mut self, chunk: &mut Bytes) -> Found {
        if self.held.is_empty() {
            self.in_chunk(chunk)
        } else {
            self.across(chunk)
        }
    }

    fn in_chunk(&mut self, chunk: &mut Bytes) -> Found {
        if let Some(at) = self.finder.find(chunk) {
            let snapshot = chunk.split_to(at);
            chunk.advance(MARK_LEN);
            return Found::End { snapshot };
        }
        let held = self.prefix_at_end(chunk);
        let snapshot = chunk.split_to(chunk.len() - held);
        self.held.extend_from_slice(chunk);
        chunk.clear();
        Found::Part { snapshot }
    }

    /// The mark may begin in `held` and end in `chunk`.
    fn across(&mut self, chunk: &mut Bytes) -> Found {
        let before = self.held.len();
        let fresh = chunk.len().min(MARK_LEN - 1);
        let mut seam = std::mem::take(&mut self.held);
        seam.extend_from_slice(chunk.get(..fresh).unwrap_or_default());
        match find(&seam, self.finder.needle()) {
            Some(at) if at < before => {
                chunk.advance(at + MARK_LEN - before);
                seam.truncate(at);
                return Found::End {
                    snapshot: seam.into(),
                };
            }
            Some(_) | None => {}
        }
        let held = self.prefix_at_end(&seam);
        if held > fresh {
            // A mark that begins before this chunk is still possible, so the chunk is all in it.
            chunk.clear();
            self.held
                .extend_from_slice(seam.get(seam.len() - held..).unwrap_or_default());
            seam.truncate(seam.len() - held);
        } else {
            seam.truncate(before);
        }
        Found::Part {
            snapshot: seam.into(),
        }
    }

    /// The length of the longest end of `bytes` that is a proper prefix of the mark.
    fn prefix_at_end(&self, bytes: &[u8]) -> usize {
        let longest = bytes.len().min(MARK_LEN - 1);
        (1..=longest)
            .rev()
            .find(|len| {
                self.finder
                    .needle()
                    .get(..*len)
                    .is_some_and(|mark| bytes.ends_with(mark))
            })
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The snapshot and what follows the mark, from these pieces.
    fn split(mark: &[u8; MARK_LEN], pieces: &[&[u8]]) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut search = MarkSearch::new(mark);
        let (mut snapshot, mut rest) = (Vec::new(), None);
        for piece in pieces {
            let mut chunk = Bytes::copy_from_slice(piece);
            while !chunk.is_empty() && rest.is_none() {
                match search.next(&mut chunk) {
                    Found::Part { snapshot: part } => snapshot.extend_from_slice(&part),
                    Found::End { snapshot: part } => {
                        snapshot.extend_from_slice(&part);
                        rest = Some(Vec::new());
                    }
                }
            }
            if let Some(rest) = &mut rest {
                rest.extend_from_slice(&chunk);
            }
        }
        (snapshot, rest)
    }

    #[test]
    fn split_at_each_place() {
        let mark = *b"0123456789abcdef0123456789abcdef01234567";
        let whole = [b"REDIS".as_slice(), &mark, b"*1"].concat();
        for cut in 0..=whole.len() {
            let (a, b) = whole.split_at(cut);
            assert_eq!(
                split(&mark, &[a, b]),
                (b"REDIS".to_vec(), Some(b"*1".to_vec())),
                "{cut}"
            );
        }
    }

    #[test]
    fn split_at_two_places_with_a_mark_that_repeats_itself() {
        // The hardest mark: each of its prefixes is also a suffix of a longer one.
        let mark = [b'a'; MARK_LEN];
        let mut whole = b"aab".to_vec();
        whole.extend([b'a'; 30]);
        whole.push(b'b');
        whole.extend(mark);
        whole.extend(b"aaa*");
        let wanted = (whole[..34].to_vec(), Some(b"aaa*".to_vec()));
        for first in 0..=whole.len() {
            for second in first..=whole.len() {
                let pieces = [&whole[..first], &whole[first..second], &whole[second..]];
                assert_eq!(split(&mark, &pieces), wanted, "{first} {second}");
            }
        }
        let bytes: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(split(&mark, &bytes), wanted);
    }

    #[test]
    fn what_passes_is_a_slice_of_the_chunk() {
        let mut chunk = Bytes::from(vec![7; 100_000]);
        let start = chunk.as_ptr();
        let Found::Part { snapshot } = MarkSearch::new(&[b'x'; MARK_LEN]).next(&mut chunk) else {
            panic!("no mark was sent");
        };
        assert_eq!((snapshot.as_ptr(), snapshot.len()), (start, 100_000));
    }
}
