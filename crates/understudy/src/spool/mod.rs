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
pub(crate) use log::{Chunk, Keep, Log};

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
        }
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
        self.log.borrow_mut().read(pos)
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
