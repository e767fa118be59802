//! The few things that the spool asks of a disk, in one place: the simulation answers them from memory, and loses
//! what was not synced.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

#[cfg(test)]
use crate::sim::disk as simulated;

/// A new segment begins when the current one is this long.
pub(super) fn segment_bytes() -> u64 {
    #[cfg(test)]
    if simulated::is_on() {
        return 1_500;
    }
    64 << 20
}

/// A file of the spool.
#[derive(Debug)]
pub(crate) enum File {
    Real(fs::File),
    #[cfg(test)]
    Simulated(simulated::File),
}

impl File {
    /// An empty file for writing; what was there is gone.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        #[cfg(test)]
        if let Some(file) = simulated::create(path) {
            return file.map(Self::Simulated);
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .open(path)?;
        Ok(Self::Real(file))
    }

    /// A file for reading.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        #[cfg(test)]
        if let Some(file) = simulated::open(path) {
            return file.map(Self::Simulated);
        }
        fs::File::open(path).map(Self::Real)
    }

    /// A file that is only there to be locked.
    pub(super) fn to_lock(path: &Path) -> io::Result<Self> {
        #[cfg(test)]
        if let Some(file) = simulated::to_lock(path) {
            return file.map(Self::Simulated);
        }
        let file = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        Ok(Self::Real(file))
    }

    pub(super) fn try_lock(&self) -> Result<(), TryLockError> {
        match self {
            Self::Real(file) => file.try_lock(),
            #[cfg(test)]
            Self::Simulated(file) => file.try_lock(),
        }
    }

    pub(super) fn len(&self) -> io::Result<u64> {
        match self {
            Self::Real(file) => Ok(file.metadata()?.len()),
            #[cfg(test)]
            Self::Simulated(file) => Ok(file.len()),
        }
    }

    /// Writes all of `bytes` at a place: over what a write that failed has left there.
    pub(super) fn write_all_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        match self {
            Self::Real(file) => file.write_all_at(bytes, at),
            #[cfg(test)]
            Self::Simulated(file) => file.write_at(bytes, at),
        }
    }

    /// Puts the file's bytes on the platter.
    pub(super) fn sync_data(&self) -> io::Result<()> {
        match self {
            Self::Real(file) => file.sync_data(),
            #[cfg(test)]
            Self::Simulated(file) => file.sync_data(),
        }
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Real(file) => file.read(buf),
            #[cfg(test)]
            Self::Simulated(file) => file.read(buf),
        }
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        match self {
            Self::Real(file) => file.seek(to),
            #[cfg(test)]
            Self::Simulated(file) => file.seek(to),
        }
    }
}

impl Write for &File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            File::Real(file) => (&*file).write(bytes),
            #[cfg(test)]
            File::Simulated(file) => file.append(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether this disk is one of the simulation.
#[cfg(test)]
pub(super) fn is_simulated() -> bool {
    simulated::is_on()
}

pub(super) fn create_dir_all(dir: &Path) -> io::Result<()> {
    #[cfg(test)]
    if simulated::is_on() {
        return Ok(());
    }
    fs::create_dir_all(dir)
}

/// The paths of all files in `dir`, in no order; none when there is no such directory.
pub(super) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    #[cfg(test)]
    if let Some(paths) = simulated::list(dir) {
        return Ok(paths);
    }
    if !dir.exists() {
        return Ok(Vec::new());
    }
    fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect()
}

pub(super) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    if let Some(removed) = simulated::remove(path) {
        return removed;
    }
    fs::remove_file(path)
}

/// Cuts a file off after `len` bytes.
pub(super) fn truncate(path: &Path, len: u64) -> io::Result<()> {
    #[cfg(test)]
    if let Some(cut) = simulated::truncate(path, len) {
        return cut;
    }
    OpenOptions::new().write(true).open(path)?.set_len(len)
}

/// A small file, written whole.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    let file = File::create(path)?;
    (&file).write_all(text.as_bytes())
}

/// A small file, read whole.
pub(super) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}
