//! The spool: a log on disk between the source, which is always read at line rate, and the target.

mod block;
mod disk;
mod log;

use std::cell::{Cell, RefCell};
use std::fs::TryLockError;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use tokio::sync::Notify;

use disk::File;
pub(crate) use log::{Chunk, Keep, Log, Outside};

/// A log with one writer (the receiver) and one reader (the applier), on one thread.
#[derive(Debug)]
pub(crate) struct Feed {
    log: RefCell<Log>,
    /// Data came, or the end.
    data: Notify,
    /// The applier moved on.
    room: Notify,
    applied: Cell<u64>,
    complete: Cell<bool>,
    /// Nothing behind it is read.
    hold: Cell<u64>,
    /// What was read ends here.
    taken: Cell<u64>,
    /// The files that the bytes come from, with the position of the first byte of each.
    files: RefCell<Vec<(u64, String)>>,
}

impl Feed {
    pub(crate) fn new(log: Log) -> Self {
        let applied = Cell::new(log.start());
        Self {
            log: RefCell::new(log),
            data: Notify::new(),
            room: Notify::new(),
            applied,
            complete: Cell::new(false),
            hold: Cell::new(u64::MAX),
            taken: Cell::new(0),
            files: RefCell::default(),
        }
    }

    /// Nothing behind `pos` is read from here on; false where it was already.
    pub(crate) fn hold_at(&self, pos: u64) -> bool {
        if self.taken.get() > pos {
            return false;
        }
        if self.hold.replace(pos) != pos {
            // Whoever has to come to rest under it looks at once.
            self.data.notify_one();
        }
        true
    }

    /// Takes a hold back.
    pub(crate) fn let_go(&self) {
        if self.hold.replace(u64::MAX) != u64::MAX {
            self.data.notify_one();
        }
    }

    /// Whether there is a hold.
    pub(crate) fn is_held(&self) -> bool {
        self.hold.get() != u64::MAX
    }

    /// Whether everything up to a hold is applied.
    pub(crate) fn is_at_hold(&self) -> bool {
        self.applied.get() == self.hold.get()
    }

    pub(crate) fn append(&self, bytes: Bytes, at_ms: u64) -> io::Result<()> {
        self.log.borrow_mut().append(bytes, at_ms)?;
        self.data.notify_one();
        Ok(())
    }

    /// Nothing more will come.
    pub(crate) fn close(&self) {
        self.complete.set(true);
        self.data.notify_one();
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.complete.get()
    }

    pub(crate) fn read(&self, pos: u64) -> io::Result<Option<Chunk>> {
        let hold = self.hold.get();
        if pos >= hold {
            return Ok(None);
        }
        let mut chunk = self.log.borrow_mut().read(pos)?;
        if let Some(chunk) = &mut chunk {
            let room = usize::try_from(hold - pos).unwrap_or(usize::MAX);
            chunk.bytes.truncate(room);
            let end = pos + chunk.bytes.len() as u64;
            self.taken.set(self.taken.get().max(end));
        }
        Ok(chunk)
    }

    /// Waits until something was appended or the feed was closed since the last wait.
    pub(crate) async fn changed(&self) {
        self.data.notified().await;
    }

    /// Waits until the applier has moved since the last wait.
    pub(crate) async fn moved(&self) {
        self.room.notified().await;
    }

    pub(crate) fn end(&self) -> u64 {
        self.log.borrow().end()
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied.get()
    }

    /// Everything before `pos` is confirmed by the target. What begins at `kept` may be wanted once more.
    pub(crate) fn set_applied(&self, pos: u64, kept: u64) -> io::Result<()> {
        self.applied.set(pos);
        self.room.notify_one();
        self.log.borrow_mut().release(pos, kept)
    }

    /// The target was found at an older position than we had confirmed.
    pub(crate) fn rewind(&self, pos: u64) {
        self.applied.set(pos);
    }

    pub(crate) fn unapplied_bytes(&self) -> u64 {
        self.end().saturating_sub(self.applied())
    }

    /// Whether the disk does not take what was appended last.
    pub(crate) fn is_full(&self) -> bool {
        self.log.borrow().full().is_some()
    }

    /// From here on the bytes are those of a file of this name.
    pub(crate) fn begin_file(&self, start: u64, name: String) {
        self.files.borrow_mut().push((start, name));
    }

    /// Which file's byte this is, for words; `None` where the bytes are no file's.
    pub(crate) fn place(&self, pos: u64) -> Option<String> {
        let files = self.files.borrow();
        let (start, name) = files.iter().rev().find(|(start, _)| *start <= pos)?;
        Some(format!("{name} at byte {}", pos - start))
    }

    /// Gives access to the log for what is not part of the hot path.
    pub(crate) fn with_log<T>(&self, f: impl FnOnce(&mut Log) -> T) -> T {
        f(&mut self.log.borrow_mut())
    }
}

/// Syncs files to the platter on a thread of its own, so that no fsync is in the latency of a write.
#[derive(Debug)]
pub(crate) struct Syncer(mpsc::Sender<Arc<File>>);

impl Syncer {
    pub(crate) fn spawn() -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel::<Arc<File>>();
        #[cfg(test)]
        if disk::is_simulated() {
            return Ok(Self(sender));
        }
        std::thread::Builder::new()
            .name("spool-sync".to_owned())
            .spawn(move || {
                while let Ok(file) = receiver.recv() {
                    if let Err(error) = file.sync_data() {
                        tracing::error!(%error, "cannot sync the spool to disk");
                    }
                }
            })?;
        Ok(Self(sender))
    }

    pub(crate) fn sync(&self, file: Arc<File>) {
        #[cfg(test)]
        if let File::Simulated(file) = &*file {
            return file.sync_in_time();
        }
        // The thread only ends with the process.
        let _ = self.0.send(file);
    }
}

/// Takes the spool directory for this process.
///
/// # Errors
/// The directory cannot be made, or another process has it.
pub(crate) fn lock(dir: &Path) -> io::Result<File> {
    disk::create_dir_all(dir)?;
    let file = File::to_lock(&dir.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(io::Error::other(
            "another understudy is using it; stop that one, or give this link its own link.name or spool.dir",
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_read_behind_a_hold() {
        let folder = tempfile::tempdir().unwrap();
        let keep = Keep {
            tail_bytes: 1 << 20,
            retain_bytes: 0,
        };
        let replid = "0123456789abcdef0123456789abcdef01234567".parse().unwrap();
        let feed = Feed::new(Log::create(folder.path(), "stream", replid, 100, keep).unwrap());
        let read = |pos| {
            let chunk = feed.read(pos).unwrap();
            chunk.map(|chunk| chunk.bytes)
        };
        feed.append(Bytes::from_static(b"0123456789"), 1).unwrap();
        assert!(feed.hold_at(104) && feed.is_held() && !feed.is_at_hold());
        assert_eq!(read(100).as_deref(), Some(&b"0123"[..]));
        assert_eq!(read(104), None);
        feed.set_applied(104, 104).unwrap();
        assert!(feed.is_at_hold() && feed.hold_at(106));
        assert_eq!(read(104).as_deref(), Some(&b"45"[..]));
        // What was read was perhaps sent.
        assert!(!feed.hold_at(105) && feed.is_held());
        feed.let_go();
        assert_eq!(read(106).as_deref(), Some(&b"6789"[..]));
    }
}
