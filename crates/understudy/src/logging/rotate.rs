//! The log file, which begins anew when it has become large: RedisShake's `log_rotation` and its kin.
//!
//! `shake.log` is renamed to `shake-2026-11-28T18-52-11.123.log` then, and packed to `.log.gz` where that is wanted, by a thread
//! of its own. Those that are too many or too old go. Only files with such a name are ever removed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

/// When a file begins anew, and what is kept of those before it.
#[derive(Debug, Clone, Copy)]
pub struct Rotation {
    /// A file of so many bytes is full.
    pub bytes_max: u64,
    /// Older ones than this go; `None`: at no age.
    pub age_max: Option<Duration>,
    /// So many are kept; 0: all.
    pub backups_max: usize,
    /// They are packed.
    pub compresses: bool,
}

/// A log file that is only appended to.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    bytes: u64,
    rotation: Option<Rotation>,
}

impl LogFile {
    /// Opens the file, and makes its folder where there is none.
    pub(super) fn open(path: &Path, rotation: Option<Rotation>) -> io::Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = append(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self {
            path: path.to_owned(),
            file,
            bytes,
            rotation,
        })
    }

    /// The file gets another name, and a new one begins. Where that cannot be, the old one goes on.
    fn begin_anew(&mut self, rotation: Rotation) {
        // Whoever looks at the file sees the reason in it, not here: a log has nowhere to log to.
        let Ok(backup) = self.set_aside() else { return };
        let path = self.path.clone();
        let tidy = move || {
            if rotation.compresses {
                let _ = compress(&backup);
            }
            let _ = remove_old(&path, rotation);
        };
        let _ = std::thread::Builder::new()
            .name("log".to_owned())
            .spawn(tidy);
    }

    fn set_aside(&mut self) -> io::Result<PathBuf> {
        let backup = backup_name(&self.path, SystemTime::now());
        fs::rename(&self.path, &backup)?;
        self.file = append(&self.path)?;
        self.bytes = 0;
        Ok(backup)
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(rotation) = self.rotation
            && self.bytes > 0
            && self.bytes + line.len() as u64 > rotation.bytes_max
        {
            self.begin_anew(rotation);
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn append(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

/// What stands before and behind the time in the name of a backup.
fn name_parts(path: &Path) -> (String, String) {
    let part =
        |text: Option<&std::ffi::OsStr>| text.unwrap_or_default().to_string_lossy().into_owned();
    let end = match path.extension() {
        Some(end) => format!(".{}", end.to_string_lossy()),
        None => String::new(),
    };
    (format!("{}-", part(path.file_stem())), end)
}

fn backup_name(path: &Path, at: SystemTime) -> PathBuf {
    let (begin, end) = name_parts(path);
    path.with_file_name(format!("{begin}{}{end}", stamp(at)))
}

/// `2026-11-28T18-52-11.123`, in UTC.
fn stamp(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (seconds / 3600, seconds / 60 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{:02}.{:03}",
        seconds % 60,
        since.subsec_millis()
    )
}

/// Year, month and day of a day since 1970-01-01: years that begin in March, so that a leap day is a year's last.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

fn compress(backup: &Path) -> io::Result<()> {
    let mut name = backup.as_os_str().to_owned();
    name.push(".gz");
    let packed = PathBuf::from(name);
    let mut encoder = GzEncoder::new(File::create(&packed)?, Compression::default());
    io::copy(&mut File::open(backup)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::remove_file(backup)
}

fn remove_old(path: &Path, rotation: Rotation) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let mut backups = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(stamp) = stamp_of(path, &name) {
            backups.push((stamp.to_owned(), entry.path()));
        }
    }
    backups.sort_unstable_by(|a, b| b.cmp(a));
    let oldest = rotation
        .age_max
        .and_then(|age| SystemTime::now().checked_sub(age));
    let oldest = oldest.map(stamp);
    for (at, (stamp, backup)) in backups.iter().enumerate() {
        let is_too_many = rotation.backups_max > 0 && at >= rotation.backups_max;
        let is_too_old = oldest.as_ref().is_some_and(|oldest| stamp < oldest);
        if is_too_many || is_too_old {
            fs::remove_file(backup)?;
        }
    }
    Ok(())
}

/// The time in a backup's name; `None` for any other file.
fn stamp_of<'n>(path: &Path, name: &'n str) -> Option<&'n str> {
    let (begin, end) = name_parts(path);
    let rest = name.strip_prefix(&begin)?;
    let stamp = rest
        .strip_suffix(".gz")
        .unwrap_or(rest)
        .strip_suffix(&end)?;
    let is_like = |(at, c): (usize, char)| match at {
        4 | 7 | 13 | 16 => c == '-',
        10 => c == 'T',
        19 => c == '.',
        _ => c.is_ascii_digit(),
    };
    (stamp.len() == 23 && stamp.char_indices().all(is_like)).then_some(stamp)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn times_as_people_write_them() {
        let at = |seconds: u64| stamp(UNIX_EPOCH + Duration::from_millis(seconds * 1000 + 7));
        assert_eq!(at(0), "1970-01-01T00-00-00.007");
        assert_eq!(at(951_782_399), "2000-02-28T23-59-59.007");
        assert_eq!(at(951_782_400), "2000-02-29T00-00-00.007");
        assert_eq!(at(1_767_225_600), "2026-01-01T00-00-00.007");
        let name = backup_name(Path::new("data/shake.log"), UNIX_EPOCH);
        assert_eq!(name, Path::new("data/shake-1970-01-01T00-00-00.000.log"));
    }

    #[test]
    fn a_full_file_is_set_aside_and_only_the_newest_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shake.log");
        let stranger = folder.path().join("shake-notes.log");
        fs::write(&stranger, "somebody else's").unwrap();
        fs::write(
            folder.path().join("shake-2001-01-01T00-00-00.000.log"),
            "old",
        )
        .unwrap();
        let rotation = Rotation {
            bytes_max: 100,
            age_max: None,
            backups_max: 2,
            compresses: false,
        };
        let mut log = LogFile::open(&path, Some(rotation)).unwrap();
        for _ in 0..9 {
            log.write_all(&[b'x'; 60]).unwrap();
            // A backup's name has milliseconds.
            std::thread::sleep(Duration::from_millis(3));
        }
        assert_eq!(fs::read(&path).unwrap().len(), 60);
        remove_old(&path, rotation).unwrap();
        let kept: Vec<String> = names(folder.path());
        let backups = kept.iter().filter(|name| stamp_of(&path, name).is_some());
        assert_eq!(backups.count(), 2, "{kept:?}");
        assert!(stranger.exists() && !kept.iter().any(|name| name.contains("2001")));
    }

    #[test]
    fn old_ones_go_and_packed_ones_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shake.log");
        let backup = backup_name(&path, SystemTime::now());
        fs::write(&backup, "a line\n").unwrap();
        compress(&backup).unwrap();
        let old = folder.path().join("shake-2001-01-01T00-00-00.000.log.gz");
        fs::write(&old, "old").unwrap();
        let rotation = Rotation {
            bytes_max: 1,
            age_max: Some(Duration::from_secs(3600)),
            backups_max: 0,
            compresses: true,
        };
        remove_old(&path, rotation).unwrap();
        let kept = names(folder.path());
        assert_eq!(kept.len(), 1, "{kept:?}");
        let packed = File::open(folder.path().join(&kept[0])).unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(packed)
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "a line\n");
    }

    #[test]
    fn without_rotation_it_only_grows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/shake.log");
        for _ in 0..3 {
            let mut log = LogFile::open(&path, None).unwrap();
            log.write_all(&[b'x'; 600]).unwrap();
        }
        assert_eq!(fs::read(&path).unwrap().len(), 1800);
    }
}
