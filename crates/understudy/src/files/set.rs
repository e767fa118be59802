//! Files, read as one: the bytes of each behind those of the one before.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::error::{Side, SyncError};
use crate::spool::Outside;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

#[derive(Debug)]
struct Part {
    path: PathBuf,
    file: File,
    start: u64,
    len: u64,
}

/// Files as long as they were when they were opened: one that grows meanwhile is read up to there.
#[derive(Debug)]
pub(crate) struct Set {
    parts: Vec<Part>,
    end: u64,
    /// What was read last.
    last: (u64, Bytes),
}

impl Set {
    /// Opens all of them.
    ///
    /// # Errors
    /// Stop, with the file's name.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, SyncError> {
        let mut parts = Vec::new();
        let mut end = 0;
        for path in paths {
            let opened = File::open(path).and_then(|file| Ok((file.metadata()?, file)));
            let (about, file) = opened.map_err(|error| read_failed(path, &error))?;
            if !about.is_file() {
                let what = "it is no ordinary file; name the file itself";
                return Err(SyncError::stop(
                    Side::Source,
                    &path.display().to_string(),
                    what,
                ));
            }
            parts.push(Part {
                path: path.clone(),
                file,
                start: end,
                len: about.len(),
            });
            end += about.len();
        }
        Ok(Self {
            parts,
            end,
            last: (0, Bytes::new()),
        })
    }

    /// No file at all.
    pub(crate) fn empty() -> Self {
        Self {
            parts: Vec::new(),
            end: 0,
            last: (0, Bytes::new()),
        }
    }

    /// Bytes of all of them.
    pub(crate) fn len(&self) -> u64 {
        self.end
    }

    /// Name and first position of each.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&Path, u64, u64)> {
        let parts = self.parts.iter();
        parts.map(|part| (part.path.as_path(), part.start, part.len))
    }

    /// Whether a file ends there, and another one follows.
    pub(super) fn is_seam(&self, pos: u64) -> bool {
        pos < self.end && self.parts.iter().any(|part| part.start == pos) && pos > 0
    }

    /// Bytes of one file from `pos` on; `None` at the end.
    pub(crate) fn read_at(&mut self, pos: u64) -> io::Result<Option<Bytes>> {
        let (start, bytes) = &self.last;
        if let Some(skip) = pos.checked_sub(*start)
            && skip < bytes.len() as u64
        {
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            return Ok(Some(bytes.slice(skip..)));
        }
        let holds = |part: &&Part| (part.start..part.start + part.len).contains(&pos);
        let Some(part) = self.parts.iter().find(holds) else {
            return Ok(None);
        };
        let at = pos - part.start;
        let len = usize::try_from(part.len - at).unwrap_or(CHUNK).min(CHUNK);
        let mut buffer = vec![0; len];
        part.file.read_exact_at(&mut buffer, at).map_err(|error| {
            let short = error.kind() == io::ErrorKind::UnexpectedEof;
            let what = match short {
                true => "it has become shorter while it was read".to_owned(),
                false => error.to_string(),
            };
            io::Error::new(
                error.kind(),
                format!("{} at byte {at}: {what}", part.path.display()),
            )
        })?;
        let bytes = Bytes::from(buffer);
        self.last = (pos, bytes.clone());
        Ok(Some(bytes))
    }

    /// The first bytes, up to so many.
    pub(crate) fn head(&mut self, bytes_max: usize) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        while head.len() < bytes_max
            && let Some(bytes) = self.read_at(head.len() as u64)?
        {
            let left = bytes_max - head.len();
            head.extend_from_slice(bytes.get(..left).unwrap_or(&bytes));
        }
        Ok(head)
    }
}

impl Outside for Set {
    fn read(&mut self, pos: u64) -> io::Result<Option<Bytes>> {
        self.read_at(pos)
    }

    fn end(&self) -> u64 {
        self.end
    }

    fn release(&mut self, _: u64) {}
}

/// A file that cannot be read.
pub(crate) fn read_failed(path: &Path, error: &io::Error) -> SyncError {
    let what = match error.kind() {
        io::ErrorKind::NotFound => "there is no such file; look at filepath".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "it may not be read; run as its owner, or make it readable".to_owned()
        }
        _ => format!("it cannot be read: {error}"),
    };
    SyncError::stop(Side::Source, &path.display().to_string(), what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_one_from_any_place() {
        let folder = tempfile::tempdir().unwrap();
        let (mut paths, mut all) = (Vec::new(), Vec::new());
        for (name, len) in [("a", CHUNK + 7), ("b", 0), ("c", 5)] {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + name.len()) as u8).collect();
            paths.push(folder.path().join(name));
            std::fs::write(paths.last().unwrap(), &bytes).unwrap();
            all.extend(bytes);
        }
        let mut set = Set::open(&paths).unwrap();
        assert_eq!(set.len(), all.len() as u64);
        for from in [0, 1, CHUNK - 1, CHUNK, CHUNK + 6, CHUNK + 7, CHUNK + 11] {
            let mut read = Vec::new();
            while let Some(bytes) = set.read_at((from + read.len()) as u64).unwrap() {
                read.extend_from_slice(&bytes);
            }
            assert!(read == all[from..], "from {from}");
        }
        assert_eq!(set.head(CHUNK + 9).unwrap(), all[..CHUNK + 9]);
        assert!(set.is_seam(CHUNK as u64 + 7) && !set.is_seam(0) && !set.is_seam(5));
        std::fs::write(&paths[0], b"short").unwrap();
        let error = Set::open(&paths).unwrap().read_at(99).unwrap();
        assert_eq!(error, None);
        let error = set.read_at(10).unwrap_err().to_string();
        assert!(error.contains("shorter"), "{error}");
    }
}
