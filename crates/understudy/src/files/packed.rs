//! Files that are compressed, and standard input: unpacked by a thread of their own and spooled, since a snapshot is read
//! at more than one place.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{identify_bytes, read_failed};
use crate::clock::unix_ms;
use crate::error::{Side, SyncError};
use crate::rdb::bar::Bar;
use crate::rdb::input::{self, Input};
use crate::source::spool_error;
use crate::spool::{Feed, Log};
use replica::ReplId;

/// Pieces that wait for the link's thread.
const PIECES: usize = 8;
/// Between two attempts to write to a disk that is full.
const FULL_PAUSE: Duration = Duration::from_millis(100);

enum Piece {
    /// The bytes of this file come.
    Begin(String),
    Bytes(Bytes),
    /// The file cannot be read on.
    Failed(SyncError),
}

/// Files on their way through a thread.
pub(crate) struct Packed {
    pieces: mpsc::Receiver<Piece>,
    /// What was looked at already.
    first: Vec<Piece>,
}

/// Whether the bytes of any of these files are not at hand as they are.
///
/// # Errors
/// Stop, with the name of a file that cannot be read.
pub(crate) fn is_needed(paths: &[PathBuf]) -> Result<bool, SyncError> {
    for path in paths {
        if is_stdin(path) {
            return Ok(true);
        }
        let mut magic = [0; input::MAGIC_BYTES];
        let read = std::fs::metadata(path).and_then(|about| {
            // A pipe is opened once alone.
            if !about.is_file() {
                return Ok(true);
            }
            let len = File::open(path)?.read(&mut magic)?;
            Ok(input::is_packed(magic.get(..len).unwrap_or_default()))
        });
        if read.map_err(|error| read_failed(path, &error))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the files can be read once more from their beginning.
pub(crate) fn come_once(paths: &[PathBuf]) -> bool {
    let is_file = |path: &PathBuf| std::fs::metadata(path).is_ok_and(|about| about.is_file());
    !paths.iter().all(|path| !is_stdin(path) && is_file(path))
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

impl Packed {
    /// Begins to read.
    ///
    /// # Errors
    /// Local, where no thread can be had.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<Self, SyncError> {
        let (sender, pieces) = mpsc::channel(PIECES);
        let paths = paths.to_vec();
        let thread = std::thread::Builder::new().name("unpack".to_owned());
        let thread = thread.spawn(move || {
            for path in paths {
                if let Err(error) = send(&path, &sender) {
                    // Whoever waits for it may have stopped.
                    let _ = sender.blocking_send(Piece::Failed(error));
                    return;
                }
            }
        });
        thread.map_err(|error| SyncError::local(format!("cannot start: {error}")))?;
        Ok(Self {
            pieces,
            first: Vec::new(),
        })
    }

    /// The id of what comes, by its first bytes.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub(crate) async fn identify(&mut self) -> Result<ReplId, SyncError> {
        while let Some(piece) = self.pieces.recv().await {
            match piece {
                Piece::Failed(error) => return Err(error),
                Piece::Begin(_) => self.first.push(piece),
                Piece::Bytes(bytes) => {
                    let id = identify_bytes(&bytes);
                    self.first.push(Piece::Bytes(bytes));
                    return Ok(id);
                }
            }
        }
        Ok(identify_bytes(&[]))
    }

    /// Spools what comes into `feed`, up to `bytes_max`, and closes it.
    ///
    /// # Errors
    /// Where a file cannot be read, or the disk does not take it.
    pub(crate) async fn spool(mut self, feed: &Feed, bytes_max: u64) -> Result<(), SyncError> {
        let mut first = std::mem::take(&mut self.first).into_iter();
        loop {
            let piece = match first.next() {
                Some(piece) => Some(piece),
                None => self.pieces.recv().await,
            };
            match piece {
                None => break,
                Some(Piece::Failed(error)) => return Err(error),
                Some(Piece::Begin(name)) => feed.begin_file(feed.end(), name),
                Some(Piece::Bytes(bytes)) => {
                    feed.append(bytes, unix_ms()).map_err(spool_error)?;
                    crate::source::check_room(feed.end(), bytes_max)?;
                    wait_for_room(feed).await?;
                }
            }
        }
        feed.with_log(Log::flush).map_err(spool_error)?;
        // Its files are not synced: who loses them reads the others once more.
        drop(feed.with_log(Log::take_unsynced));
        feed.close();
        Ok(())
    }
}

/// Waits while the disk is full.
async fn wait_for_room(feed: &Feed) -> Result<(), SyncError> {
    let mut is_said = false;
    while feed.is_full() {
        if !std::mem::replace(&mut is_said, true) {
            let error = feed.with_log(|log| log.full().map(str::to_owned));
            tracing::error!(
                error = error.unwrap_or_default(),
                "the disk under the spool is full: waiting for room"
            );
        }
        tokio::time::sleep(FULL_PAUSE).await;
        feed.with_log(Log::flush).map_err(spool_error)?;
    }
    Ok(())
}

/// Reads a file to its end; not further than somebody listens.
fn send(path: &Path, sender: &mpsc::Sender<Piece>) -> Result<(), SyncError> {
    let name = match is_stdin(path) {
        true => "stdin".to_owned(),
        false => path.display().to_string(),
    };
    let failed = |what: String| SyncError::stop(Side::Source, &name, what);
    let mut input = Input::open(path, &Bar::none()).map_err(|error| failed(error.to_string()))?;
    if sender.blocking_send(Piece::Begin(name.clone())).is_err() {
        return Ok(());
    }
    let mut at = 0;
    loop {
        match input.read() {
            Ok(None) => return Ok(()),
            Ok(Some(bytes)) => {
                at += bytes.len();
                if sender.blocking_send(Piece::Bytes(bytes)).is_err() {
                    return Ok(());
                }
            }
            Err(error) if input.is_damage(&error) => {
                return Err(failed(format!(
                    "the compressed file is damaged: {error}, behind {at} bytes of its content; take another copy of it"
                )));
            }
            Err(error) => return Err(failed(format!("it cannot be read: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::spool::Keep;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[tokio::test]
    async fn files_are_unpacked_one_behind_the_other() {
        let folder = tempfile::tempdir().unwrap();
        let paths = ["a.gz", "b"].map(|name| folder.path().join(name));
        let (one, two) = (b"one".repeat(300_000), b"two".repeat(5));
        std::fs::write(&paths[0], gzip(&one)).unwrap();
        std::fs::write(&paths[1], &two).unwrap();
        assert!(is_needed(&paths).unwrap() && !is_needed(&paths[1..]).unwrap());
        assert!(!come_once(&paths) && come_once(&[PathBuf::from("-")]));
        let mut packed = Packed::open(&paths).unwrap();
        let id = packed.identify().await.unwrap();
        assert_eq!(id, identify_bytes(&one));
        let keep = Keep {
            tail_bytes: 1 << 20,
            retain_bytes: u64::MAX,
        };
        let log = Log::create(&folder.path().join("spool"), "snapshot", id, 0, keep).unwrap();
        let feed = Feed::new(log);
        packed.spool(&feed, u64::MAX).await.unwrap();
        let mut all = Vec::new();
        while let Some(chunk) = feed.read(all.len() as u64).unwrap() {
            all.extend_from_slice(&chunk.bytes);
        }
        assert!(feed.is_complete() && all == [one.clone(), two].concat());
        let place = feed.place(one.len() as u64 + 3).unwrap();
        assert!(place.ends_with("b at byte 3"), "{place}");
    }

    #[tokio::test]
    async fn what_is_damaged_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.gz");
        let packed = gzip(&b"one".repeat(300_000));
        std::fs::write(&file, &packed[..packed.len() / 2]).unwrap();
        let paths = [file];
        let keep = Keep {
            tail_bytes: 1 << 20,
            retain_bytes: u64::MAX,
        };
        let id = identify_bytes(&[]);
        let log = Log::create(&folder.path().join("spool"), "snapshot", id, 0, keep).unwrap();
        let feed = Feed::new(log);
        let packed = Packed::open(&paths).unwrap();
        let error = packed.spool(&feed, u64::MAX).await.unwrap_err();
        assert!(error.what.contains("damaged"), "{error}");
    }
}
