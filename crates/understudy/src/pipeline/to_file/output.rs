//! A file that is written, and how far the source is in it.
//!
//! Beside the file lies a small one (`<file>.understudy`) that says how many of its bytes are good, and which position of
//! the source they bring it to. It is written once a second, when those bytes are on the platter. Whoever goes on cuts
//! the file off there: what stands behind was not known to be whole.
//!
//! ```text
//! understudy-file v1 <type> <bytes>
//! <checkpoint, as at a target>
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::checkpoint::{Checkpoint, Names, Phase, Position};
use crate::config::{FileKind, FileWriter};
use crate::error::SyncError;

/// Between two notes of the position.
const EVERY: Duration = Duration::from_secs(1);
/// So much is collected before it is written.
const BUFFER_BYTES: usize = 256 << 10;
const HEAD: &str = "understudy-file v1";

/// The file, open.
#[derive(Debug)]
pub(crate) struct Output {
    path: PathBuf,
    side: PathBuf,
    kind: FileKind,
    file: Arc<File>,
    /// Bytes that were written.
    written: u64,
    /// Bytes that are to be.
    pub(super) buffer: Vec<u8>,
    /// Up to here the file is whole, and what that brings the source to.
    mark: Option<(u64, Phase)>,
    noted: Option<(u64, Phase)>,
    noted_at: Instant,
    /// Who brings it to the platter and notes that.
    syncing: Option<JoinHandle<()>>,
}

impl Drop for Output {
    /// Whoever opens the file next finds what was noted: nobody writes a note behind its back.
    fn drop(&mut self) {
        self.end_syncing();
    }
}

impl Output {
    /// Opens the file as an earlier run left it, or makes it.
    ///
    /// # Errors
    /// Local, with the file and the mend: it is somebody's, or is not as it was left.
    pub(crate) fn open(writer: &FileWriter) -> Result<Self, SyncError> {
        let path = writer.path.clone();
        let side = beside(&path, "understudy");
        let failed = |path: &Path, error: &io::Error| {
            SyncError::local(format!(
                "{}: {error}; look at file_writer.filepath",
                path.display()
            ))
        };
        let about = match std::fs::metadata(&path) {
            Ok(about) => Some(about),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&path, &error)),
        };
        let note = match std::fs::read(&side) {
            Ok(note) => Some(note),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(&side, &error)),
        };
        let mark = match (&about, &note) {
            (None, _) => None,
            (Some(about), None) if about.len() == 0 => None,
            (Some(_), None) => {
                return Err(SyncError::local(format!(
                    "{} is there already, and {} is not beside it, which would say how far it is written; move it away, or name another file_writer.filepath",
                    path.display(),
                    side.display()
                )));
            }
            (Some(about), Some(note)) => {
                read_note(note, writer.kind, about.len()).map_err(|what| {
                    SyncError::local(format!(
                        "{}: {what}; move both files away and start again",
                        side.display()
                    ))
                })?
            }
        };
        if mark.is_none() {
            // From the first byte on the file is known to be ours.
            replace(&side, nothing(writer.kind).as_bytes())
                .map_err(|error| failed(&side, &error))?;
        }
        let opened = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|file| {
                let bytes = mark.as_ref().map_or(0, |(bytes, _)| *bytes);
                file.set_len(bytes)?;
                Ok((file, bytes))
            });
        let (file, written) = opened.map_err(|error| failed(&path, &error))?;
        Ok(Self {
            path,
            side,
            kind: writer.kind,
            file: Arc::new(file),
            written,
            buffer: Vec::new(),
            noted: mark.clone(),
            mark,
            noted_at: Instant::now(),
            syncing: None,
        })
    }

    /// Waits for the thread of a note that was given up, or is done.
    fn end_syncing(&mut self) {
        if let Some(thread) = self.syncing.take() {
            // It tells what went wrong, to whoever waits for that.
            let _ = thread.join();
        }
    }

    /// What the file brings the source to; `None` for a file that is new.
    pub(crate) fn phase(&self) -> Option<Phase> {
        self.mark.as_ref().map(|(_, phase)| phase.clone())
    }

    /// Throws away what an earlier run has written.
    ///
    /// # Errors
    /// Local.
    pub(crate) fn begin_anew(&mut self) -> Result<(), SyncError> {
        self.end_syncing();
        let failed = |error: &io::Error| self.failed(error);
        self.file.set_len(0).map_err(|error| failed(&error))?;
        replace(&self.side, nothing(self.kind).as_bytes()).map_err(|error| failed(&error))?;
        (self.written, self.mark, self.noted) = (0, None, None);
        self.buffer.clear();
        Ok(())
    }

    pub(super) fn kind(&self) -> FileKind {
        self.kind
    }

    /// What was appended so far is whole.
    pub(super) fn mark(&mut self, phase: Phase) {
        let bytes = self.written + self.buffer.len() as u64;
        self.mark = Some((bytes, phase));
    }

    /// Writes what was collected, if it is much.
    pub(super) fn settle(&mut self) -> Result<(), SyncError> {
        match self.buffer.len() < BUFFER_BYTES {
            true => Ok(()),
            false => self.flush(),
        }
    }

    fn flush(&mut self) -> Result<(), SyncError> {
        (&*self.file)
            .write_all(&self.buffer)
            .map_err(|error| self.failed(&error))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Whether it is time to note the position.
    pub(super) fn is_due(&self) -> bool {
        self.mark != self.noted && self.noted_at.elapsed() >= EVERY
    }

    /// Waits until it is.
    pub(super) async fn due(&self) {
        match self.mark != self.noted {
            true => tokio::time::sleep_until(self.noted_at + EVERY).await,
            false => std::future::pending().await,
        }
    }

    /// Brings what was marked to the platter, and notes it. Gives the position that is noted.
    ///
    /// # Errors
    /// Local: the disk does not take it.
    pub(super) async fn note(&mut self) -> Result<Option<Phase>, SyncError> {
        let Some((bytes, phase)) = self.mark.clone().filter(|_| self.mark != self.noted) else {
            return Ok(None);
        };
        self.end_syncing();
        self.flush()?;
        let note = format!(
            "{HEAD} {} {bytes}\n{}\n",
            word(self.kind),
            checkpoint(&phase)
        );
        let (file, side) = (self.file.clone(), self.side.clone());
        let (told, synced) = oneshot::channel();
        let thread = std::thread::Builder::new().name("file-sync".to_owned());
        let thread = thread.spawn(move || {
            let synced = file
                .sync_data()
                .and_then(|()| replace(&side, note.as_bytes()));
            // Whoever waits for it may have stopped.
            let _ = told.send(synced);
        });
        let synced = match thread.map(|thread| self.syncing = Some(thread)) {
            Ok(()) => synced.await.map_err(io::Error::other).and_then(|done| done),
            Err(error) => Err(error),
        };
        self.end_syncing();
        synced.map_err(|error| self.failed(&error))?;
        self.noted = Some((bytes, phase.clone()));
        self.noted_at = Instant::now();
        Ok(Some(phase))
    }

    /// The snapshot is whole: the stream follows, from there.
    ///
    /// # Errors
    /// As [`Self::note`].
    pub(crate) async fn end_snapshot(&mut self, position: Position) -> Result<(), SyncError> {
        self.mark(Phase::Stream(position));
        self.note().await.map(drop)
    }

    /// Notes the end, and cuts off what stands behind it.
    ///
    /// # Errors
    /// As [`Self::note`].
    pub(super) async fn finish(&mut self) -> Result<Option<Phase>, SyncError> {
        let noted = self.note().await?;
        let bytes = self.mark.as_ref().map_or(0, |(bytes, _)| *bytes);
        self.buffer.clear();
        if self.written > bytes {
            self.file
                .set_len(bytes)
                .map_err(|error| self.failed(&error))?;
            self.written = bytes;
        }
        Ok(noted)
    }

    fn failed(&self, error: &io::Error) -> SyncError {
        SyncError::local(format!(
            "{} cannot be written: {error}; make room, and start again: it is gone on with where it is good",
            self.path.display()
        ))
    }
}

/// A name beside a file's.
pub(super) fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

/// The note of a file in which nothing is good yet.
fn nothing(kind: FileKind) -> String {
    format!("{HEAD} {} 0\n\n", word(kind))
}

/// Puts a file in the place of an older one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = beside(path, "new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&new, path)
}

fn word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Cmd => "cmd",
        FileKind::Aof => "aof",
        FileKind::Json => "json",
        FileKind::Rdb => "rdb",
    }
}

fn checkpoint(phase: &Phase) -> Checkpoint {
    Checkpoint {
        epoch: 0,
        owner: 0,
        phase: phase.clone(),
        owned: true,
        leased: false,
        repairs: Names::default(),
        unseen: None,
        slots: None,
    }
}

/// The checkpoint of a file, as a target's would be.
pub(crate) fn found(phase: &Phase) -> Checkpoint {
    checkpoint(phase)
}

/// What the small file says of one of so many bytes.
fn read_note(note: &[u8], kind: FileKind, len: u64) -> Result<Option<(u64, Phase)>, String> {
    let text = std::str::from_utf8(note).map_err(|_| "it is not text".to_owned())?;
    let (head, value) = text.split_once('\n').ok_or("it is cut short")?;
    let rest = head.strip_prefix(HEAD).ok_or("it is not of this program")?;
    let (of, bytes) = rest.trim().split_once(' ').ok_or("it is cut short")?;
    if of != word(kind) {
        return Err(format!(
            "the file is of type {of:?}, and file_writer.type is {:?}",
            word(kind)
        ));
    }
    let bytes: u64 = bytes.parse().map_err(|_| "it is cut short")?;
    if bytes > len {
        return Err(format!(
            "it says that the file has {bytes} bytes, but it has {len}"
        ));
    }
    if bytes == 0 && value.trim_end().is_empty() {
        return Ok(None);
    }
    let found = Checkpoint::parse(value.trim_end().as_bytes())?;
    Ok(Some((bytes, found.phase)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use replica::{ReplId, ReplOffset};

    fn at(offset: u64) -> Phase {
        let replid: ReplId = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        Phase::Stream(Position {
            replid,
            offset: ReplOffset(offset),
            db: 3,
        })
    }

    #[tokio::test]
    async fn what_was_not_noted_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let writer = FileWriter {
            path: folder.path().join("a.aof"),
            kind: FileKind::Aof,
        };
        let mut output = Output::open(&writer).unwrap();
        assert_eq!(output.phase(), None);
        output.buffer.extend_from_slice(b"before the first note");
        output.flush().unwrap();
        let mut output = Output::open(&writer).unwrap();
        assert_eq!(output.phase(), None);
        output.buffer.extend_from_slice(b"whole");
        output.mark(at(5));
        output.buffer.extend_from_slice(b"half");
        assert_eq!(output.note().await.unwrap(), Some(at(5)));
        assert_eq!(output.note().await.unwrap(), None);
        output.buffer.extend_from_slice(b"more");
        output.flush().unwrap();
        drop(output);
        assert_eq!(std::fs::read(&writer.path).unwrap(), b"wholehalfmore");
        let mut output = Output::open(&writer).unwrap();
        assert_eq!(output.phase(), Some(at(5)));
        assert_eq!(std::fs::read(&writer.path).unwrap(), b"whole");
        output.buffer.extend_from_slice(b" again");
        output.mark(at(9));
        output.buffer.extend_from_slice(b"open");
        output.finish().await.unwrap();
        assert_eq!(std::fs::read(&writer.path).unwrap(), b"whole again");
    }

    #[tokio::test]
    async fn a_note_that_was_given_up_is_written_before_the_file_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let writer = FileWriter {
            path: folder.path().join("a.aof"),
            kind: FileKind::Aof,
        };
        for offset in 1..20 {
            let mut output = Output::open(&writer).unwrap();
            output.buffer.extend_from_slice(b"more");
            output.mark(at(offset));
            {
                let mut note = std::pin::pin!(output.note());
                std::future::poll_fn(|context| {
                    let _ = note.as_mut().poll(context);
                    std::task::Poll::Ready(())
                })
                .await;
            }
            drop(output);
            assert_eq!(Output::open(&writer).unwrap().phase(), Some(at(offset)));
        }
    }

    #[tokio::test]
    async fn what_is_somebodys_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, b"dear diary").unwrap();
        let writer = |kind| FileWriter {
            path: path.clone(),
            kind,
        };
        let error = Output::open(&writer(FileKind::Cmd)).unwrap_err();
        assert!(error.what.contains("there already"), "{error}");
        assert_eq!(std::fs::read(&path).unwrap(), b"dear diary");
        std::fs::remove_file(&path).unwrap();
        let mut output = Output::open(&writer(FileKind::Cmd)).unwrap();
        output.buffer.extend_from_slice(b"SET k v\n");
        output.mark(at(1));
        output.note().await.unwrap();
        let error = Output::open(&writer(FileKind::Json)).unwrap_err();
        assert!(error.what.contains("type \"cmd\""), "{error}");
        std::fs::write(&path, b"SET").unwrap();
        let error = Output::open(&writer(FileKind::Cmd)).unwrap_err();
        assert!(error.what.contains("but it has 3"), "{error}");
    }
}
