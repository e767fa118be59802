//! Files at an end of the link: what is in them, and whether they can be written.

use std::path::Path;

use super::Check;
use super::facts::Server;
use super::file;
use super::finding::{Finding, fail, pass, unknown, warn};
use crate::config::{FileKind, FileWriter, Reader, Writer, human_bytes};
use crate::error::{Side, SyncError};
use crate::files::aof::{Fate, survey};
use crate::files::{self, Set};

impl Check<'_> {
    /// A link of which at least one end is a file.
    pub(super) async fn with_files(&mut self) -> Result<(), SyncError> {
        let config = self.config;
        let target = match &config.writer {
            Writer::Redis => Some(Server::look(&config.target.endpoint, Side::Target).await),
            Writer::File(to) => {
                self.add(written(to));
                None
            }
        };
        let mut target = match (&config.reader, target) {
            (Reader::Rdb(paths), target) => {
                let mut paths = paths.iter().filter(|path| path.as_os_str() != "-");
                let first = paths.next();
                for path in paths {
                    let contents = file::read(path)?;
                    self.findings.extend(contents.finding);
                }
                match (first, target) {
                    (Some(first), Some(target)) => return self.with_file(first, target).await,
                    (Some(first), None) => {
                        let contents = file::read(first)?;
                        self.findings.extend(contents.finding);
                        return Ok(());
                    }
                    (None, target) => {
                        let mend =
                            "name a file to have it looked at, or use `understudy rdb verify -`";
                        self.add(unknown("source", "standard input is not looked at", mend));
                        target
                    }
                }
            }
            (Reader::Aof(reader), target) => {
                let finding = append_only(&reader.path)?;
                self.add(finding);
                target
            }
            (Reader::Sync | Reader::Scan, target) => {
                let source = Server::look(&config.source.endpoint, Side::Source).await?;
                self.source(&source).await?;
                target
            }
        };
        if let Some(target) = &mut target {
            match target {
                Ok(target) => self.target(target).await?,
                Err(error) => self.trouble(error),
            }
        }
        Ok(())
    }
}

/// What there is to say of an append-only file.
fn append_only(path: &Path) -> Result<Finding, SyncError> {
    const CHECK: &str = "source";
    let paths = files::parts(path)?;
    let mut set = Set::open(&paths)?;
    let (bytes, count) = (set.len(), paths.len());
    let found = match survey(&mut set) {
        Ok(found) => found,
        Err(what) => {
            let what = format!("{}: {what}", path.display());
            return Ok(fail(CHECK, what, "redis-check-aof says more of the file"));
        }
    };
    let times = match (found.has_times, found.has_rdb) {
        (true, _) => "with times (aof_reader.timestamp can be used)",
        (false, _) => "without times",
    };
    let begins = if found.has_rdb {
        "begins with a snapshot"
    } else {
        "commands from the beginning"
    };
    let what = format!(
        "{}: {count} files, {}, {begins}, {times}",
        path.display(),
        human_bytes(bytes)
    );
    let place = |at: u64| {
        let mut files = set.files();
        let of = files.find(|(_, start, len)| (*start..=start + len).contains(&at));
        of.map_or(String::new(), |(path, start, _)| {
            format!("{} at byte {}", path.display(), at - start)
        })
    };
    Ok(match found.fate {
        Fate::Whole | Fate::Until { .. } => pass(CHECK, what),
        Fate::CutShort { from } => warn(
            CHECK,
            format!(
                "{what}; it ends in the middle of a command, which begins in {}",
                place(from)
            ),
            "that command is left out; if the server still writes, start again later",
        ),
        Fate::Broken { at, what: why } => fail(
            CHECK,
            format!("{what}; damaged: {}: {why}", place(at)),
            "redis-check-aof --fix cuts it off there",
        ),
    })
}

/// Whether a file can be written.
fn written(to: &FileWriter) -> Finding {
    const CHECK: &str = "target";
    let path = to.path.display();
    let folder = match to.path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
        Some(folder) => folder,
        None => Path::new("/"),
    };
    if !folder.is_dir() {
        let what = format!("{} is no folder", folder.display());
        return fail(CHECK, what, "make it, or change file_writer.filepath");
    }
    if rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_err() {
        let what = format!("{} may not be written to", folder.display());
        return fail(
            CHECK,
            what,
            "run as another user, or change file_writer.filepath",
        );
    }
    let side = format!("{path}.understudy");
    match (to.path.exists(), Path::new(&side).exists(), to.kind) {
        (false, ..) => pass(CHECK, format!("{path} will be made")),
        (true, true, FileKind::Cmd | FileKind::Aof | FileKind::Json) => {
            pass(CHECK, format!("{path} is there and will be gone on with"))
        }
        (true, ..) => fail(
            CHECK,
            format!("{path} is there already"),
            "move it away, or change file_writer.filepath",
        ),
    }
}
