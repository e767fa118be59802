//! An append-only log of bytes addressed by position, on disk, with its newest part in memory.
//!
//! A position is the number of bytes before it in the history: for the stream that is the replication
//! offset, for a snapshot the byte in the RDB. What was just appended is read back from memory (the
//! tail); a reader that fell behind reads from disk. Invariant: `start <= released`,
//! `tail start <= flushed <= end`, and segments are contiguous.

use std::collections::VecDeque;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use replica::ReplId;

use super::block::{
    BLOCK_HEADER_BYTES, BlockHeader, SEGMENT_HEADER_BYTES, SegmentHeader, read_whole,
};
use super::disk::{self, File};
use crate::clock::unix_ms;

/// Bytes collected before a block is written.
const BLOCK_BYTES: usize = 256 << 10;

/// Bytes of the log at a position.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Chunk {
    /// Position of the first byte.
    pub(crate) start: u64,
    /// When these bytes were received, Unix milliseconds.
    pub(crate) at_ms: u64,
    pub(crate) bytes: Bytes,
}

impl Chunk {
    fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }

    /// The part from `pos` on; `pos` lies in the chunk.
    fn from(&self, pos: u64) -> Self {
        let skip = usize::try_from(pos - self.start).unwrap_or(usize::MAX);
        Self {
            start: pos,
            at_ms: self.at_ms,
            bytes: self.bytes.slice(skip..),
        }
    }
}

/// Bytes that are kept elsewhere, in files of somebody's, and read in the place of a log.
pub(crate) trait Outside: std::fmt::Debug {
    /// As [`Log::read`].
    fn read(&mut self, pos: u64) -> io::Result<Option<Bytes>>;

    /// Position after the last byte.
    fn end(&self) -> u64;

    /// What lies before `kept` is not wanted again, but for a target that falls back.
    fn release(&mut self, kept: u64);
}

/// How much a log keeps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keep {
    /// Bytes kept in memory for a reader that follows closely.
    pub(crate) tail_bytes: usize,
    /// Released bytes kept on disk.
    pub(crate) retain_bytes: u64,
}

#[derive(Debug)]
struct Segment {
    path: PathBuf,
    start: u64,
    end: u64,
    replid: ReplId,
}

/// The log.
#[derive(Debug)]
pub(crate) struct Log {
    dir: PathBuf,
    kind: &'static str,
    keep: Keep,
    replid: ReplId,
    /// The name before, which no segment may bear: nothing was written under it, or it is gone.
    earlier: Option<ReplId>,
    segments: VecDeque<Segment>,
    file: Option<Arc<File>>,
    /// The block being collected, with room for its header in front.
    pending: Vec<u8>,
    pending_at_ms: u64,
    flushed: u64,
    end: u64,
    /// Where the next block goes in the file. What a write that failed has left there is written over.
    file_bytes: u64,
    /// Files that were written to since they were last synced.
    unsynced: Vec<Arc<File>>,
    /// A note to be written behind the last block: see `note_whole`.
    note: Option<String>,
    /// Why the disk does not take what is pending, as long as it does not.
    full: Option<String>,
    tail: VecDeque<Chunk>,
    tail_bytes: usize,
    reader: Option<DiskReader>,
    /// What is read in its place.
    outside: Option<Box<dyn Outside>>,
}

/// Where the last read from disk stopped, so that the next one goes on there.
#[derive(Debug)]
struct DiskReader {
    file: io::BufReader<File>,
    pos: u64,
}

impl Log {
    /// Removes the files of a log that is of no use any more.
    pub(crate) fn discard(dir: &Path, kind: &str) -> io::Result<()> {
        remove_if_there(&whole_file(dir, kind))?;
        segment_files(dir, kind)?
            .into_iter()
            .try_for_each(|path| disk::remove(&path))
    }

    /// Begins an empty log at `start`, removing older files of the same kind.
    pub(crate) fn create(
        dir: &Path,
        kind: &'static str,
        replid: ReplId,
        start: u64,
        keep: Keep,
    ) -> io::Result<Self> {
        disk::create_dir_all(dir)?;
        Self::discard(dir, kind)?;
        Ok(Self::at(dir, kind, replid, start, keep))
    }

    /// Notes on disk that the log is whole: nothing more belongs to it. `at` is the offset in the history that it was
    /// taken at, since one history can have many snapshots.
    pub(crate) fn note_whole(&mut self, at: u64) -> io::Result<()> {
        self.note = Some(whole_note(self.replid, at, self.end));
        self.flush()
    }

    /// Opens what an earlier run left, if it was noted as whole, taken at `at` in the history `replid`, and all of it is
    /// there.
    pub(crate) fn recover_whole(
        dir: &Path,
        kind: &'static str,
        (replid, at): (ReplId, u64),
        keep: Keep,
    ) -> io::Result<Option<Self>> {
        // After a loss of power it may hold anything, and then it notes nothing.
        let noted = match disk::read(&whole_file(dir, kind)) {
            Ok(noted) => noted,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let log = Self::recover(dir, kind, keep)?;
        Ok(log.filter(|log| {
            log.start() == 0
                && log.replid == replid
                && noted == whole_note(replid, at, log.end).as_bytes()
        }))
    }

    fn at(dir: &Path, kind: &'static str, replid: ReplId, start: u64, keep: Keep) -> Self {
        Self {
            dir: dir.to_owned(),
            kind,
            keep,
            replid,
            earlier: None,
            segments: VecDeque::new(),
            file: None,
            pending: Vec::new(),
            pending_at_ms: 0,
            flushed: start,
            end: start,
            file_bytes: 0,
            unsynced: Vec::new(),
            note: None,
            full: None,
            tail: VecDeque::new(),
            tail_bytes: 0,
            reader: None,
            outside: None,
        }
    }

    /// What stands for a log and is kept elsewhere, from its first byte on: nothing is appended, and no file is touched.
    pub(crate) fn over(outside: Box<dyn Outside>, replid: ReplId) -> Self {
        let keep = Keep {
            tail_bytes: 0,
            retain_bytes: 0,
        };
        Self {
            outside: Some(outside),
            ..Self::at(Path::new(""), "", replid, 0, keep)
        }
    }

    /// Opens what an earlier run left: the longest contiguous run of good blocks. What is torn or
    /// damaged, and all that follows it, is cut off. `None` when there is nothing.
    pub(crate) fn recover(dir: &Path, kind: &'static str, keep: Keep) -> io::Result<Option<Self>> {
        let mut log: Option<Self> = None;
        let mut broken = false;
        for path in segment_files(dir, kind)? {
            let expected = log.as_ref().map(|log| log.end);
            let segment = if broken {
                None
            } else {
                check_segment(&path, expected)?
            };
            let Some((segment, whole)) = segment else {
                tracing::info!(
                    file = %path.display(),
                    "this part of the spool holds nothing, or does not go on where the sound part before it ends: removed"
                );
                disk::remove(&path)?;
                broken = log.is_some();
                continue;
            };
            if !whole {
                tracing::info!(
                    file = %path.display(),
                    position = segment.end,
                    "the spool is torn or damaged here, and was cut off"
                );
            }
            broken = !whole;
            let log =
                log.get_or_insert_with(|| Self::at(dir, kind, segment.replid, segment.start, keep));
            log.replid = segment.replid;
            log.end = segment.end;
            log.flushed = segment.end;
            log.segments.push_back(segment);
        }
        Ok(log)
    }

    /// First position that can still be read.
    pub(crate) fn start(&self) -> u64 {
        self.segments
            .front()
            .map_or(self.flushed, |segment| segment.start)
    }

    /// Position after the last byte.
    pub(crate) fn end(&self) -> u64 {
        self.outside
            .as_ref()
            .map_or(self.end, |outside| outside.end())
    }

    /// Id of the history at the end.
    pub(crate) fn replid(&self) -> ReplId {
        self.replid
    }

    /// Whether `replid` is one of the names that this history had within the log.
    pub(crate) fn knows(&self, replid: ReplId) -> bool {
        self.replid == replid
            || self.earlier == Some(replid)
            || self.segments.iter().any(|segment| segment.replid == replid)
    }

    /// Bytes on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.flushed - self.start()
    }

    /// The history goes on under a new name.
    pub(crate) fn rename(&mut self, replid: ReplId) -> io::Result<()> {
        if replid != self.replid {
            self.flush()?;
            self.earlier = Some(std::mem::replace(&mut self.replid, replid));
            self.file = None;
        }
        Ok(())
    }

    /// Appends bytes received at `at_ms`.
    pub(crate) fn append(&mut self, bytes: Bytes, at_ms: u64) -> io::Result<()> {
        if self.pending.is_empty() {
            self.pending.resize(BLOCK_HEADER_BYTES, 0);
            self.pending_at_ms = at_ms;
        }
        self.pending.extend_from_slice(&bytes);
        let start = self.end;
        self.end += bytes.len() as u64;
        self.tail_bytes += bytes.len();
        self.tail.push_back(Chunk {
            start,
            at_ms,
            bytes,
        });
        if self.pending.len() >= BLOCK_BYTES {
            self.flush()?;
        }
        while self.tail_bytes > self.keep.tail_bytes && self.drop_tail_before(self.flushed) {}
        Ok(())
    }

    /// Writes what is collected to the file (not yet to the platter). A disk that is full is no error: what is pending
    /// stays in memory, [`Log::full`] says so, and the next call tries again.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self.write_pending() {
            Ok(()) => {
                self.full = None;
                Ok(())
            }
            Err(error) if is_full(&error) => {
                self.full = Some(format!("{}: {error}", self.dir.display()));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    fn write_pending(&mut self) -> io::Result<()> {
        let payload_len = self.pending.len().saturating_sub(BLOCK_HEADER_BYTES);
        if payload_len > 0 {
            let file = self.writable()?;
            BlockHeader::seal(&mut self.pending, self.flushed, self.pending_at_ms);
            file.write_all_at(&self.pending, self.file_bytes)?;
            self.file_bytes += self.pending.len() as u64;
            if self.full.is_some() {
                // It may have read ahead what the writes that failed had left.
                self.reader = None;
            }
            self.flushed += payload_len as u64;
            self.pending.clear();
            if !self
                .unsynced
                .last()
                .is_some_and(|last| Arc::ptr_eq(last, &file))
            {
                self.unsynced.push(file);
            }
            if let Some(segment) = self.segments.back_mut() {
                segment.end = self.flushed;
                if segment.end - segment.start >= disk::segment_bytes() {
                    self.file = None;
                }
            }
        }
        if let Some(note) = &self.note {
            disk::write(&whole_file(&self.dir, self.kind), note)?;
            self.note = None;
        }
        Ok(())
    }

    /// Why the disk does not take what was appended last; `None` while it does.
    pub(crate) fn full(&self) -> Option<&str> {
        self.full.as_deref()
    }

    /// Bytes that wait in memory for the disk.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// The files to sync: all that were written to since the last call, those that are complete by now too.
    pub(crate) fn take_unsynced(&mut self) -> Vec<Arc<File>> {
        std::mem::take(&mut self.unsynced)
    }

    fn writable(&mut self) -> io::Result<Arc<File>> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let start = self.flushed;
        let path = self.dir.join(format!("{}-{start:020}.seg", self.kind));
        let file = File::create(&path)?;
        (&file).write_all(
            &SegmentHeader {
                replid: self.replid,
                start,
            }
            .encode(),
        )?;
        if let Some(last) = self.segments.back()
            && last.start == start
        {
            self.segments.pop_back();
        }
        self.segments.push_back(Segment {
            path,
            start,
            end: start,
            replid: self.replid,
        });
        self.file_bytes = SEGMENT_HEADER_BYTES as u64;
        Ok(self.file.insert(Arc::new(file)).clone())
    }

    /// Bytes from `pos` on, as many as lie together; `None` at the end.
    ///
    /// # Errors
    /// I/O, damage found on disk, or a position that is no longer kept.
    pub(crate) fn read(&mut self, pos: u64) -> io::Result<Option<Chunk>> {
        if let Some(outside) = &mut self.outside {
            let bytes = outside.read(pos)?;
            return Ok(bytes.map(|bytes| Chunk {
                start: pos,
                at_ms: unix_ms(),
                bytes,
            }));
        }
        if pos >= self.end {
            return Ok(None);
        }
        let index = self.tail.partition_point(|chunk| chunk.end() <= pos);
        match self.tail.get(index) {
            Some(chunk) if chunk.start <= pos => Ok(Some(chunk.from(pos))),
            _ => self.read_disk(pos).map(Some),
        }
    }

    fn read_disk(&mut self, pos: u64) -> io::Result<Chunk> {
        let mut reader = match self.reader.take() {
            Some(reader) if reader.pos == pos => reader,
            _ => self.seek(pos)?,
        };
        loop {
            let Some((header, head)) = BlockHeader::read(&mut reader.file)? else {
                // The end of this segment: the next one begins at the reader's position.
                reader = self.seek(reader.pos)?;
                continue;
            };
            let Some(payload) = header.payload(&head, &mut reader.file)? else {
                return Err(damage(pos));
            };
            let chunk = Chunk {
                start: header.start,
                at_ms: header.at_ms,
                bytes: Bytes::from(payload),
            };
            if header.start != reader.pos {
                return Err(damage(pos));
            }
            reader.pos = chunk.end();
            if chunk.end() > pos {
                self.reader = Some(reader);
                return Ok(chunk.from(pos));
            }
        }
    }

    /// A reader at the first block that may hold `pos`.
    fn seek(&self, pos: u64) -> io::Result<DiskReader> {
        let segment = self
            .segments
            .iter()
            .find(|segment| segment.start <= pos && pos < segment.end)
            .ok_or_else(|| {
                io::Error::other(format!(
                    "position {pos} is not in the spool ({}..{})",
                    self.start(),
                    self.end
                ))
            })?;
        let mut file = io::BufReader::with_capacity(1 << 20, File::open(&segment.path)?);
        file.seek(SeekFrom::Start(SEGMENT_HEADER_BYTES as u64))?;
        let mut at = segment.start;
        loop {
            let Some((header, _)) = BlockHeader::read(&mut file)? else {
                return Err(damage(pos));
            };
            if header.start != at {
                return Err(damage(pos));
            }
            if at + header.len as u64 > pos {
                file.seek_relative(-(BLOCK_HEADER_BYTES as i64))?;
                return Ok(DiskReader { file, pos: at });
            }
            file.seek_relative(header.len as i64)?;
            at += header.len as u64;
        }
    }

    /// Everything before `pos` is applied: memory is freed, and disk beyond what is retained, but for what begins at
    /// `kept`.
    pub(crate) fn release(&mut self, pos: u64, kept: u64) -> io::Result<()> {
        if let Some(outside) = &mut self.outside {
            outside.release(kept);
            return Ok(());
        }
        while self.drop_tail_before(pos.min(self.flushed)) {}
        let keep_from = pos.saturating_sub(self.keep.retain_bytes).min(kept);
        while self.segments.len() > 1 && self.segments.front().is_some_and(|s| s.end <= keep_from) {
            if let Some(segment) = self.segments.pop_front() {
                disk::remove(&segment.path)?;
            }
        }
        Ok(())
    }

    fn drop_tail_before(&mut self, pos: u64) -> bool {
        if self.tail.front().is_none_or(|chunk| chunk.end() > pos) {
            return false;
        }
        if let Some(chunk) = self.tail.pop_front() {
            self.tail_bytes -= chunk.bytes.len();
        }
        true
    }

    /// Forgets everything and removes the files; the log stays at its end.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        if self.outside.is_some() {
            return Ok(());
        }
        self.file = None;
        self.reader = None;
        self.pending.clear();
        self.note = None;
        self.full = None;
        // A file that is open keeps its room on the disk.
        self.unsynced.clear();
        self.flushed = self.end;
        self.tail.clear();
        self.tail_bytes = 0;
        remove_if_there(&whole_file(&self.dir, self.kind))?;
        for segment in self.segments.drain(..) {
            disk::remove(&segment.path)?;
        }
        Ok(())
    }
}

/// Where it is noted that a log is whole.
fn whole_file(dir: &Path, kind: &str) -> PathBuf {
    dir.join(format!("{kind}-whole"))
}

fn whole_note(replid: ReplId, at: u64, end: u64) -> String {
    format!("{replid} {at} {end}\n")
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match disk::remove(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether room can mend it: no space, no quota, or a file that may not grow further.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

fn damage(pos: u64) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the spool is damaged near position {pos}"),
    )
}

/// Files of this kind in ascending order of position.
fn segment_files(dir: &Path, kind: &str) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in disk::list(dir)? {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let number = name
            .strip_prefix(kind)
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.strip_suffix(".seg"));
        if number.is_some_and(|n| n.len() == 20 && n.bytes().all(|b| b.is_ascii_digit())) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Walks a segment's blocks and cuts it after the last good one. `None` when it is not usable at all
/// (not ours, empty, or not at `expected`); the flag says whether it was whole.
fn check_segment(path: &Path, expected: Option<u64>) -> io::Result<Option<(Segment, bool)>> {
    let mut file = io::BufReader::with_capacity(1 << 20, File::open(path)?);
    let mut head = [0; SEGMENT_HEADER_BYTES];
    let header = if read_whole(&mut file, &mut head)? {
        SegmentHeader::decode(&head)
    } else {
        None
    };
    let Some(header) = header.filter(|header| expected.is_none_or(|at| at == header.start)) else {
        return Ok(None);
    };
    let mut end = header.start;
    let mut good_bytes = SEGMENT_HEADER_BYTES as u64;
    while let Some((block, raw)) = BlockHeader::read(&mut file)? {
        if block.start != end || block.payload(&raw, &mut file)?.is_none() {
            break;
        }
        end += block.len as u64;
        good_bytes += (BLOCK_HEADER_BYTES + block.len) as u64;
    }
    if end == header.start {
        return Ok(None);
    }
    let whole = file.get_ref().len()? == good_bytes;
    if !whole {
        disk::truncate(path, good_bytes)?;
    }
    let segment = Segment {
        path: path.to_owned(),
        start: header.start,
        end,
        replid: header.replid,
    };
    Ok(Some((segment, whole)))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};

    use super::*;
    use proptest::prelude::*;

    const KEEP: Keep = Keep {
        tail_bytes: 1 << 20,
        retain_bytes: 0,
    };
    fn id(letter: u8) -> ReplId {
        ReplId::from_bytes(&[letter; 40]).unwrap()
    }

    fn read_all(log: &mut Log, mut pos: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(chunk) = log.read(pos).unwrap() {
            assert_eq!(chunk.start, pos);
            pos = chunk.end();
            out.extend_from_slice(&chunk.bytes);
        }
        out
    }

    fn bytes(seed: u64, len: usize) -> Vec<u8> {
        let mut state = seed | 1;
        (0..len)
            .map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .collect()
    }

    proptest! {
        #[test]
        fn reads_back_what_was_appended_from_any_position(
            sizes in proptest::collection::vec(1usize..200_000, 1..20),
            tail in 1usize..400_000,
            base in 0u64..1 << 40,
            seed in any::<u64>(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let keep = Keep { tail_bytes: tail, retain_bytes: u64::MAX };
            let mut log = Log::create(dir.path(), "stream", id(b'a'), base, keep).unwrap();
            let all = bytes(seed, sizes.iter().sum());
            let mut at = 0;
            for size in sizes {
                log.append(Bytes::copy_from_slice(&all[at..at + size]), 5).unwrap();
                at += size;
            }
            let from = seed as usize % (all.len() + 1);
            prop_assert!(read_all(&mut log, base + from as u64) == all[from..]);
            log.flush().unwrap();
            drop(log);
            let mut log = Log::recover(dir.path(), "stream", keep).unwrap().unwrap();
            prop_assert_eq!((log.start(), log.end()), (base, base + all.len() as u64));
            prop_assert!(read_all(&mut log, base + from as u64) == all[from..]);
        }

        #[test]
        fn a_torn_or_flipped_file_keeps_its_good_prefix(cut in 0usize..3000, flip in any::<bool>()) {
            let dir = tempfile::tempdir().unwrap();
            let mut log = Log::create(dir.path(), "stream", id(b'a'), 7, KEEP).unwrap();
            let all = bytes(3, 2000);
            for part in all.chunks(500) {
                log.append(Bytes::copy_from_slice(part), 1).unwrap();
                log.flush().unwrap();
            }
            drop(log);
            let path = &segment_files(dir.path(), "stream").unwrap()[0];
            let mut raw = fs::read(path).unwrap();
            let cut = cut % raw.len();
            if flip { raw[cut] ^= 4 } else { raw.truncate(cut) }
            fs::write(path, &raw).unwrap();
            match Log::recover(dir.path(), "stream", KEEP).unwrap() {
                None => prop_assert!(cut < 64 + 532),
                Some(mut log) => {
                    let got = read_all(&mut log, 7);
                    prop_assert!(got.len().is_multiple_of(500) && got == all[..got.len()]);
                    prop_assert!(got.len() >= (cut.saturating_sub(64)) / 532 * 500);
                    // What is appended next goes on after the good part.
                    log.append(Bytes::from_static(b"next"), 1).unwrap();
                    log.flush().unwrap();
                    let end = log.end();
                    drop(log);
                    let mut log = Log::recover(dir.path(), "stream", KEEP).unwrap().unwrap();
                    prop_assert_eq!(log.end(), end);
                    prop_assert_eq!(read_all(&mut log, end - 4), b"next".to_vec());
                }
            }
        }
    }

    #[test]
    fn release_frees_memory_and_old_segments() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::create(dir.path(), "stream", id(b'a'), 0, KEEP).unwrap();
        let block = Bytes::from(bytes(1, 1 << 20));
        for _ in 0..200 {
            log.append(block.clone(), 1).unwrap();
        }
        assert!(log.tail_bytes <= 2 << 20);
        log.release(150 << 20, u64::MAX).unwrap();
        assert!(log.start() > 0 && log.start() <= 150 << 20);
        assert!(segment_files(dir.path(), "stream").unwrap().len() <= 3);
        log.release(log.end(), u64::MAX).unwrap();
        assert_eq!(log.tail_bytes, 0);
    }

    #[test]
    fn what_a_failed_write_left_is_written_over() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::create(dir.path(), "stream", id(b'a'), 0, KEEP).unwrap();
        log.append(Bytes::from_static(b"one"), 1).unwrap();
        log.flush().unwrap();
        // A write that broke off in the midst of a block.
        let path = segment_files(dir.path(), "stream").unwrap().remove(0);
        let mut torn = OpenOptions::new().append(true).open(path).unwrap();
        torn.write_all(&[9; 40]).unwrap();
        log.append(Bytes::from_static(b"two"), 1).unwrap();
        log.append(Bytes::from(bytes(1, 100)), 1).unwrap();
        log.flush().unwrap();
        assert_eq!((log.full(), log.pending_bytes()), (None, 0));
        let end = log.end();
        drop(log);
        let log = Log::recover(dir.path(), "stream", KEEP).unwrap().unwrap();
        assert_eq!(log.end(), end);
    }

    #[test]
    fn every_file_that_was_written_to_is_handed_out_for_syncing_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::create(dir.path(), "stream", id(b'a'), 0, KEEP).unwrap();
        let block = Bytes::from(bytes(1, 1 << 20));
        for _ in 0..70 {
            log.append(block.clone(), 1).unwrap();
        }
        // The first one is complete, and would be forgotten if only the current file were synced.
        assert_eq!(log.take_unsynced().len(), 2);
        assert!(log.take_unsynced().is_empty());
        // What is removed is not held open: its room would not come back.
        log.append(block, 1).unwrap();
        log.flush().unwrap();
        let file = log.file.clone().unwrap();
        log.clear().unwrap();
        assert_eq!(Arc::strong_count(&file), 1);
    }

    #[test]
    fn a_renamed_history_stays_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::create(dir.path(), "stream", id(b'a'), 0, KEEP).unwrap();
        log.append(Bytes::from_static(b"one"), 1).unwrap();
        log.rename(id(b'b')).unwrap();
        log.append(Bytes::from_static(b"two"), 1).unwrap();
        log.flush().unwrap();
        drop(log);
        let mut log = Log::recover(dir.path(), "stream", KEEP).unwrap().unwrap();
        assert!(log.knows(id(b'a')) && log.knows(id(b'b')) && !log.knows(id(b'c')));
        assert_eq!(log.replid(), id(b'b'));
        assert_eq!(read_all(&mut log, 0), b"onetwo");
    }

    #[test]
    fn a_history_renamed_before_anything_came_stays_known() {
        let dir = tempfile::tempdir().unwrap();
        let mut log = Log::create(dir.path(), "stream", id(b'a'), 5, KEEP).unwrap();
        log.rename(id(b'b')).unwrap();
        log.rename(id(b'b')).unwrap();
        assert!(log.knows(id(b'a')) && log.knows(id(b'b')) && !log.knows(id(b'c')));
    }

    #[test]
    fn only_what_was_noted_as_whole_and_is_all_there_comes_back_whole() {
        let dir = tempfile::tempdir().unwrap();
        let taken = |letter, at| {
            Log::recover_whole(dir.path(), "snapshot", (id(letter), at), KEEP).unwrap()
        };
        let whole = || taken(b'a', 42);
        let mut log = Log::create(dir.path(), "snapshot", id(b'a'), 0, KEEP).unwrap();
        for _ in 0..3 {
            log.append(Bytes::from(bytes(1, 1000)), 1).unwrap();
            log.flush().unwrap();
        }
        assert!(whole().is_none(), "not noted");
        log.note_whole(42).unwrap();
        assert_eq!(whole().unwrap().end(), 3000);
        assert!(taken(b'a', 43).is_none(), "another snapshot of the history");
        assert!(taken(b'b', 42).is_none(), "another history");
        let path = &segment_files(dir.path(), "snapshot").unwrap()[0];
        let raw = fs::read(path).unwrap();
        fs::write(path, &raw[..raw.len() - 1]).unwrap();
        assert!(whole().is_none(), "torn");
        Log::create(dir.path(), "snapshot", id(b'a'), 0, KEEP).unwrap();
        assert!(!whole_file(dir.path(), "snapshot").exists());
    }

    #[test]
    fn files_of_others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("stream-notes.seg");
        fs::write(&other, "mine").unwrap();
        Log::create(dir.path(), "stream", id(b'a'), 0, KEEP).unwrap();
        assert!(other.exists());
    }
}
