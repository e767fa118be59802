//! Why a command ends early, and its exit code.

use std::fmt;
use std::io;
use std::path::Path;

use rdb::ErrorKind;

use super::reader::Seat;

/// Why a command ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The file is damaged.
    Damage(Box<Damage>),
    /// A key cannot be said in what was asked for.
    Refused(String),
    /// This machine: the disk, a file that is not there.
    Local(String),
    /// The options do not go together.
    Usage(String),
    /// Whoever reads our output has enough.
    Closed,
}

/// Where a file is damaged, and how.
#[derive(Debug)]
pub(crate) struct Damage {
    /// The file's name.
    pub(crate) file: String,
    /// Offset in the file (behind the decompression).
    pub(crate) at: u64,
    /// What is wrong.
    pub(crate) what: String,
    /// What may help, where the damage says it.
    pub(crate) mend: &'static str,
    /// The key that was read last.
    pub(crate) seat: Option<Seat>,
    /// Keys that were read whole.
    pub(crate) keys: u64,
    /// Whether every key could be read, and only the file's end is wrong.
    pub(crate) at_end: bool,
}

impl Failure {
    /// A file that cannot be opened or read.
    pub(crate) fn open(file: &Path, error: &io::Error) -> Self {
        let mend = match error.kind() {
            io::ErrorKind::NotFound => "; is the path right?",
            io::ErrorKind::PermissionDenied => "; run it as a user that may read the file",
            io::ErrorKind::IsADirectory => "; name a file in it",
            _ => "",
        };
        Self::Local(format!("{}: cannot be read: {error}{mend}", name_of(file)))
    }

    /// A write to standard output that failed.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::Closed;
        }
        Self::Local(format!(
            "standard output cannot be written: {error}; is the disk full?"
        ))
    }

    /// A temporary file that cannot be written or read.
    pub(crate) fn spill(error: &io::Error) -> Self {
        Self::Local(format!(
            "a temporary file in {} failed: {error}; make room there, or set TMPDIR to a folder that has some",
            std::env::temp_dir().display()
        ))
    }

    /// The exit code of the contract.
    pub(crate) const fn exit_code(&self) -> u8 {
        match self {
            Self::Damage(_) | Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Local(_) => 5,
            Self::Closed => 0,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damage(damage) => {
                write!(f, "{damage}; {}", damage.salvage())
            }
            Self::Refused(what) | Self::Local(what) | Self::Usage(what) => f.write_str(what),
            Self::Closed => f.write_str("standard output is closed"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: damaged at byte {}", self.file, self.at)?;
        if let Some(seat) = &self.seat {
            write!(f, ", {seat}")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl Damage {
    /// What can be done.
    pub(crate) fn salvage(&self) -> String {
        let mend = match self.mend {
            "" if self.keys == 0 => "take another copy of the file",
            mend => mend,
        };
        if self.keys == 0 {
            return format!("no key can be read: {mend}");
        }
        let file = if self.file == "standard input" {
            "-"
        } else {
            &self.file
        };
        let what = if self.at_end { "all" } else { "the first" };
        let keys = self.keys;
        let salvage =
            format!("{what} {keys} keys can be read: understudy rdb resp {file} --until-damage");
        match mend {
            "" => salvage,
            mend => format!("{mend}; {salvage}"),
        }
    }
}

/// What may help against an error of the decoder; empty if nothing but another copy does.
pub(crate) const fn mend_of(kind: &ErrorKind) -> &'static str {
    match kind {
        ErrorKind::BadMagic => {
            "name a file that SAVE or BGSAVE made, or the base file of an AOF folder"
        }
        ErrorKind::Version(_) | ErrorKind::UnknownType(_) | ErrorKind::Unsupported { .. } => {
            "a newer server may have written it, which a newer understudy knows"
        }
        ErrorKind::Truncated => {
            "the file was cut off: copy it anew, once the server has finished it"
        }
        _ => "",
    }
}

/// A file's name as people know it.
pub(crate) fn name_of(file: &Path) -> String {
    if file == Path::new("-") {
        return "standard input".to_owned();
    }
    file.display().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn damage(kind: ErrorKind, keys: u64) -> Damage {
        Damage {
            file: "a.rdb".to_owned(),
            at: 9,
            what: kind.to_string(),
            mend: mend_of(&kind),
            seat: None,
            keys,
            at_end: false,
        }
    }

    #[test]
    fn a_message_says_what_where_and_what_to_do() {
        let cut = Failure::Damage(Box::new(damage(ErrorKind::Truncated, 7)));
        assert_eq!(
            cut.to_string(),
            "a.rdb: damaged at byte 9: the input ends too early; the file was cut off: copy it anew, once the server has \
             finished it; the first 7 keys can be read: understudy rdb resp a.rdb --until-damage"
        );
        let corrupt = damage(ErrorKind::Corrupt("rule"), 0).salvage();
        assert_eq!(corrupt, "no key can be read: take another copy of the file");
        assert_eq!(cut.exit_code(), 1);
    }

    #[test]
    fn a_closed_pipe_is_no_failure() {
        let closed = Failure::output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(closed.exit_code(), 0);
        let full = Failure::output(&io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(full.exit_code(), 5);
    }
}
