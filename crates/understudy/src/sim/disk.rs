//! A disk in memory that knows what of it is on the platter.
//!
//! A file is appended to and synced. Names come and go in the order of `journal`; syncing any file makes all of them
//! before it last, as journalling file systems do. A loss of power takes back any suffix of the journal, and of every
//! file any suffix that was not synced; what is left of a file's end may be garbage.

use std::collections::BTreeMap;
use std::fs::TryLockError;
use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use testkit::rng::Rng;

use super::process::{self, Effect};

/// What is wrong with a disk for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// ENOSPC.
    Full,
    /// EIO.
    Broken,
}

/// The disk of one machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Shared>,
    journal: Vec<Change>,
    locked: bool,
    trouble: Option<Trouble>,
    random: u64,
}

/// A change of names that is not on the platter.
#[derive(Debug)]
enum Change {
    Created(PathBuf, Option<Shared>),
    Removed(PathBuf, Shared),
}

#[derive(Debug, Default)]
struct Content {
    bytes: Vec<u8>,
    /// So many of them are on the platter.
    synced: usize,
}

type Shared = Arc<Mutex<Content>>;

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Disk {
    pub(super) fn set_trouble(&self, trouble: Option<Trouble>) {
        lock(&self.0).trouble = trouble;
    }

    /// The process that held the lock is gone.
    pub(super) fn unlock(&self) {
        lock(&self.0).locked = false;
    }

    /// The power was cut.
    pub(super) fn lose_power(&self, rng: &mut Rng) {
        let state = &mut *lock(&self.0);
        let kept = rng.below(state.journal.len() as u64 + 1) as usize;
        for change in state.journal.drain(kept..).rev() {
            match change {
                Change::Created(path, None) => drop(state.files.remove(&path)),
                Change::Created(path, Some(old)) | Change::Removed(path, old) => {
                    state.files.insert(path, old);
                }
            }
        }
        state.journal.clear();
        for file in state.files.values() {
            let content = &mut *lock(file);
            let unsynced = content.bytes.len() - content.synced;
            let kept = content.synced + rng.below(unsynced as u64 + 1) as usize;
            if rng.one_in(3) {
                // The length was written, not all of the bytes.
                content.bytes[kept..].fill(if rng.one_in(2) { 0 } else { 0xa5 });
            } else {
                content.bytes.truncate(kept);
            }
            content.synced = content.bytes.len();
        }
    }

    fn check(&self) -> io::Result<()> {
        match lock(&self.0).trouble {
            Some(Trouble::Full) => Err(io::ErrorKind::StorageFull.into()),
            Some(Trouble::Broken) => Err(io::Error::other("input/output error")),
            None => Ok(()),
        }
    }
}

/// An open file: a place to read at, or to append to.
#[derive(Debug)]
pub(crate) struct File {
    disk: Disk,
    content: Shared,
    pos: usize,
    is_lock: bool,
    holds_lock: Mutex<bool>,
}

impl File {
    fn new(disk: Disk, content: Shared, is_lock: bool) -> Self {
        Self {
            disk,
            content,
            pos: 0,
            is_lock,
            holds_lock: Mutex::new(false),
        }
    }

    pub(crate) fn try_lock(&self) -> Result<(), TryLockError> {
        let state = &mut *lock(&self.disk.0);
        assert!(self.is_lock, "only the lock's file is locked");
        if state.locked {
            return Err(TryLockError::WouldBlock);
        }
        state.locked = true;
        *lock(&self.holds_lock) = true;
        Ok(())
    }

    pub(crate) fn len(&self) -> u64 {
        lock(&self.content).bytes.len() as u64
    }

    /// `fdatasync`.
    pub(crate) fn sync_data(&self) -> io::Result<()> {
        let content = &mut *lock(&self.content);
        content.synced = content.bytes.len();
        lock(&self.disk.0).journal.clear();
        Ok(())
    }

    /// Asks a thread to sync it: whether that is done before the power is cut, nobody knows.
    pub(crate) fn sync_in_time(&self) {
        if !process::current().is_some_and(|process| process.effect("sync") == Effect::Whole) {
            return;
        }
        let is_done = {
            let state = &mut *lock(&self.disk.0);
            let mut rng = Rng::new(state.random);
            state.random = rng.number();
            !rng.one_in(4)
        };
        if is_done {
            let _ = self.sync_data();
        }
    }

    pub(crate) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let content = lock(&self.content);
        let rest = content.bytes.get(self.pos..).unwrap_or_default();
        let len = rest.len().min(buf.len());
        buf[..len].copy_from_slice(&rest[..len]);
        self.pos += len;
        Ok(len)
    }

    pub(crate) fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let (base, by) = match to {
            SeekFrom::Start(at) => (0, at as i64),
            SeekFrom::End(by) => (self.len() as i64, by),
            SeekFrom::Current(by) => (self.pos as i64, by),
        };
        self.pos =
            usize::try_from(base + by).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.pos as u64)
    }

    /// Writes at a place, over what is there.
    pub(crate) fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        {
            let content = &mut *lock(&self.content);
            content.bytes.truncate(at as usize);
            content.synced = content.synced.min(content.bytes.len());
        }
        self.append(bytes).map(drop)
    }

    pub(crate) fn append(&self, bytes: &[u8]) -> io::Result<usize> {
        let process = process::alive()?;
        let written = match process.effect("write") {
            Effect::None => return Err(process::gone()),
            Effect::Half => bytes.len() / 2,
            Effect::Whole => bytes.len(),
        };
        if let Err(error) = self.disk.check() {
            // A full disk takes what still fits.
            lock(&self.content)
                .bytes
                .extend_from_slice(&bytes[..bytes.len() / 3]);
            return Err(error);
        }
        lock(&self.content)
            .bytes
            .extend_from_slice(&bytes[..written]);
        Ok(bytes.len())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        if *lock(&self.holds_lock) {
            self.disk.unlock();
        }
    }
}

/// Whether the spool is on a simulated disk.
pub(crate) fn is_on() -> bool {
    process::current().is_some()
}

fn disk() -> Option<Disk> {
    process::current().map(|process| process.disk.clone())
}

fn not_found<T>() -> io::Result<T> {
    Err(io::ErrorKind::NotFound.into())
}

pub(crate) fn create(path: &Path) -> Option<io::Result<File>> {
    let disk = disk()?;
    let create = || {
        let process = process::alive()?;
        if process.effect("create") != Effect::Whole {
            return Err(process::gone());
        }
        disk.check()?;
        let content = Shared::default();
        let state = &mut *lock(&disk.0);
        let old = state.files.insert(path.to_owned(), content.clone());
        state.journal.push(Change::Created(path.to_owned(), old));
        Ok(File::new(disk.clone(), content, false))
    };
    Some(create())
}

pub(crate) fn open(path: &Path) -> Option<io::Result<File>> {
    let disk = disk()?;
    let content = lock(&disk.0).files.get(path).cloned();
    Some(content.map_or_else(not_found, |content| Ok(File::new(disk, content, false))))
}

pub(crate) fn to_lock(_: &Path) -> Option<io::Result<File>> {
    Some(Ok(File::new(disk()?, Shared::default(), true)))
}

pub(crate) fn list(_: &Path) -> Option<Vec<PathBuf>> {
    Some(lock(&disk()?.0).files.keys().cloned().collect())
}

pub(crate) fn remove(path: &Path) -> Option<io::Result<()>> {
    let disk = disk()?;
    let remove = || {
        let process = process::alive()?;
        if !lock(&disk.0).files.contains_key(path) {
            return not_found();
        }
        if process.effect("remove") != Effect::Whole {
            return Err(process::gone());
        }
        let state = &mut *lock(&disk.0);
        if let Some(old) = state.files.remove(path) {
            state.journal.push(Change::Removed(path.to_owned(), old));
        }
        Ok(())
    };
    Some(remove())
}

pub(crate) fn truncate(path: &Path, len: u64) -> Option<io::Result<()>> {
    let disk = disk()?;
    let truncate = || {
        let process = process::alive()?;
        if process.effect("truncate") != Effect::Whole {
            return Err(process::gone());
        }
        let file = lock(&disk.0).files.get(path).cloned();
        let Some(file) = file else {
            return not_found();
        };
        let content = &mut *lock(&file);
        content.bytes.truncate(len as usize);
        content.synced = content.synced.min(content.bytes.len());
        Ok(())
    };
    Some(truncate())
}
