//! Looking ahead: chunks that were read before their turn, in memory and beyond that in a temporary file.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;

use super::bar::Bar;
use super::failure::Failure;
use super::input::{CHUNK, Input};

/// Bytes that are kept in memory until their turn; what is beyond goes to a temporary file.
const MEMORY_MAX: usize = 32 << 20;

/// An input of which one can see what comes.
pub(super) struct Ahead {
    input: Input,
    chunks: VecDeque<Bytes>,
    chunk_bytes: usize,
    memory_max: usize,
    spill: Option<Spill>,
}

/// A place ahead of the input's; good until the next chunk is taken.
#[derive(Debug, Default)]
pub(super) struct Peek {
    chunk: usize,
    spilled: u64,
}

/// Bytes on disk.
struct Spill {
    file: File,
    taken: u64,
    len: u64,
}

impl Spill {
    fn read(&self, at: u64) -> io::Result<Bytes> {
        let len = usize::try_from(self.len - at).unwrap_or(CHUNK).min(CHUNK);
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(Bytes::from(bytes))
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.len)?;
        self.len += bytes.len() as u64;
        Ok(())
    }
}

impl Ahead {
    pub(super) fn open(file: &Path, bar: &Bar) -> Result<Self, Failure> {
        Ok(Self::new(Input::open(file, bar)?, MEMORY_MAX))
    }

    const fn new(input: Input, memory_max: usize) -> Self {
        Self {
            input,
            chunks: VecDeque::new(),
            chunk_bytes: 0,
            memory_max,
            spill: None,
        }
    }

    pub(super) fn is_damage(&self, error: &io::Error) -> bool {
        self.input.is_damage(error)
    }

    /// The next chunk; none at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Bytes>> {
        if let Some(chunk) = self.chunks.pop_front() {
            self.chunk_bytes -= chunk.len();
            return Ok(Some(chunk));
        }
        let Some(spill) = &mut self.spill else {
            return self.input.read();
        };
        if spill.taken == spill.len {
            self.spill = None;
            return self.input.read();
        }
        let chunk = spill.read(spill.taken).map_err(spill_failed)?;
        spill.taken += chunk.len() as u64;
        Ok(Some(chunk))
    }

    /// The chunk at a place ahead, which moves on; none at the end.
    pub(super) fn peek(&mut self, peek: &mut Peek) -> io::Result<Option<Bytes>> {
        if let Some(chunk) = self.chunks.get(peek.chunk) {
            peek.chunk += 1;
            return Ok(Some(chunk.clone()));
        }
        if let Some(spill) = &self.spill {
            let at = peek.spilled.max(spill.taken);
            if at < spill.len {
                let chunk = spill.read(at).map_err(spill_failed)?;
                peek.spilled = at + chunk.len() as u64;
                return Ok(Some(chunk));
            }
        }
        let Some(chunk) = self.input.read()? else {
            return Ok(None);
        };
        self.keep(&chunk, peek).map_err(spill_failed)?;
        Ok(Some(chunk))
    }

    fn keep(&mut self, chunk: &Bytes, peek: &mut Peek) -> io::Result<()> {
        if self.spill.is_none() && self.chunk_bytes + chunk.len() <= self.memory_max {
            self.chunk_bytes += chunk.len();
            self.chunks.push_back(chunk.clone());
            peek.chunk += 1;
            return Ok(());
        }
        let spill = match &mut self.spill {
            Some(spill) => spill,
            none => none.insert(Spill {
                file: tempfile::tempfile()?,
                taken: 0,
                len: 0,
            }),
        };
        spill.write(chunk)?;
        peek.spilled = spill.len;
        Ok(())
    }
}

/// Keeps the temporary file's trouble apart from the compressed file's.
fn spill_failed(error: io::Error) -> io::Error {
    io::Error::new(
        io::ErrorKind::StorageFull,
        Failure::spill(&error).to_string(),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn ahead(bytes: &[u8], memory_max: usize) -> Ahead {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let input = Input::open(file.path(), &Bar::beside_output()).unwrap();
        Ahead::new(input, memory_max)
    }

    fn sample() -> Vec<u8> {
        (0..9 * CHUNK + 5).map(|i| (i / 3 % 253) as u8).collect()
    }

    #[test]
    fn what_was_seen_ahead_comes_again_in_its_turn() {
        let sample = sample();
        for memory_max in [0, 3 * CHUNK, 100 * CHUNK] {
            let mut ahead = ahead(&sample, memory_max);
            let mut all = ahead.next().unwrap().unwrap().to_vec();
            for times in [2, 6, 1, 100] {
                let mut peek = Peek::default();
                let mut seen = Vec::new();
                for _ in 0..times {
                    seen.extend(ahead.peek(&mut peek).unwrap().unwrap_or_default());
                }
                assert_eq!(seen, sample[all.len()..][..seen.len()], "{memory_max}");
                assert!(seen.len() >= CHUNK);
                all.extend(ahead.next().unwrap().unwrap());
            }
            while let Some(chunk) = ahead.next().unwrap() {
                all.extend_from_slice(&chunk);
            }
            assert!(all == sample, "{memory_max}");
        }
    }
}
