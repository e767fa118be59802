//! What can be read of a damaged file: every key before the damage, and none in part.
//!
//! The file is read twice: a first time to find its last whole key, then to print up to there.

use std::path::{Path, PathBuf};

use rdb::{Event, Limits};
use tempfile::NamedTempFile;

use super::bar::Bar;
use super::failure::{Damage, Failure};
use super::reader::Reader;
use crate::logging::tell;

/// How far a file is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    /// The number of keys, if the file's end is not to be reached.
    keys: Option<u64>,
}

/// A file, and how far it can be read.
pub(super) struct Readable {
    path: PathBuf,
    /// Standard input's bytes, which can be had but once.
    _copy: Option<NamedTempFile>,
    damage: Option<Box<Damage>>,
}

impl Readable {
    /// A file to be read to its end, or, if `until_damage`, as far as it can be read.
    pub(super) fn new(file: &Path, until_damage: bool, bar: &Bar) -> Result<Self, Failure> {
        let mut this = Self {
            path: file.to_owned(),
            _copy: None,
            damage: None,
        };
        if !until_damage {
            return Ok(this);
        }
        if file == Path::new("-") {
            let copy = copy_of_stdin().map_err(|error| Failure::spill(&error))?;
            this.path = copy.path().to_owned();
            this._copy = Some(copy);
        }
        match read_through(&this.path, bar) {
            Ok(()) => {}
            Err(Failure::Damage(damage)) => this.damage = Some(damage),
            Err(failure) => return Err(failure),
        }
        Ok(this)
    }

    /// Where to read it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How far to read it.
    pub(super) fn extent(&self) -> Extent {
        Extent {
            keys: self.damage.as_ref().map(|damage| damage.keys),
        }
    }

    /// Says on standard error what could not be read.
    pub(super) fn say_what_is_left(&self) {
        if let Some(damage) = &self.damage {
            let keys = damage.keys;
            tell(format_args!(
                "warning: {damage}; printed the {keys} keys before it"
            ));
        }
    }
}

impl Extent {
    /// Whether the file is to be read to its end.
    pub(super) const fn is_whole(self) -> bool {
        self.keys.is_none()
    }

    /// The next event that is to be printed.
    pub(super) fn next(self, reader: &mut Reader) -> Result<Option<Event>, Failure> {
        let Some(keys) = self.keys else {
            return reader.next();
        };
        match reader.next() {
            Ok(Some(Event::Key(_))) if reader.keys() >= keys => Ok(None),
            Err(Failure::Damage(_)) if reader.keys() >= keys => Ok(None),
            next => next,
        }
    }
}

fn copy_of_stdin() -> std::io::Result<NamedTempFile> {
    let mut copy = NamedTempFile::with_prefix("understudy-rdb-")?;
    std::io::copy(&mut std::io::stdin().lock(), copy.as_file_mut())?;
    Ok(copy)
}

fn read_through(file: &Path, bar: &Bar) -> Result<(), Failure> {
    let mut reader = Reader::open(file, Limits::default(), bar)?;
    while reader.next()?.is_some() {}
    Ok(())
}
