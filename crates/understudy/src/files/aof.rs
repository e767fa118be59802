//! The commands of append-only files as a feed.
//!
//! What the applier is given ends behind the last whole command before whatever is wrong: a file that is cut short, bytes
//! that are no command, or the time up to which the file is to be played. Annotations are given as empty lines of their
//! length, so that every position is the file's own.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::scan::{Annotation, Scan};
use super::set::Set;
use crate::spool::Outside;

/// A command of which so much has come is given before its end is known.
const LARGE_BYTES: u64 = 1 << 20;

/// Where the commands end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fate {
    /// With the files.
    Whole,
    /// In the middle of a command or a transaction, which begins at `from`; its file ends there, and it is the last one.
    CutShort { from: u64 },
    /// At bytes that are no command.
    Broken { at: u64, what: String },
    /// At the time up to which the files are played.
    Until { at: u64 },
}

/// What the reader says of itself to whoever waits for its end.
#[derive(Debug, Default)]
pub(crate) struct Course {
    fate: RefCell<Option<Fate>>,
    stopped: Cell<bool>,
}

impl Course {
    /// Where the commands end; `None` as long as nobody has come there.
    pub(crate) fn fate(&self) -> Option<Fate> {
        self.fate.borrow().clone()
    }

    /// Nothing more is to be read.
    pub(crate) fn stop(&self) {
        self.stopped.set(true);
    }
}

/// The commands of files, read in the place of a log.
#[derive(Debug)]
pub(crate) struct Commands {
    set: Set,
    scan: Scan,
    /// Annotations from `floor` on.
    notes: VecDeque<Range<u64>>,
    /// What lies before is read from the beginning of a command on.
    floor: u64,
    /// The first position that is not wanted.
    until: u64,
    /// The first one that is not given, as far as is known.
    end: u64,
    course: Rc<Course>,
}

impl Commands {
    /// The commands from `from` on, where one begins, up to `until`.
    pub(crate) fn new(set: Set, from: u64, until: Option<u64>, course: Rc<Course>) -> Self {
        let until = until.unwrap_or(set.len());
        Self {
            until,
            end: until,
            set,
            scan: Scan::at(from),
            notes: VecDeque::new(),
            floor: from,
            course,
        }
    }

    /// The commands end at `at`.
    fn ends(&mut self, at: u64, fate: Fate) {
        self.end = at;
        *self.course.fate.borrow_mut() = Some(fate);
    }

    /// Up to where bytes may be given.
    fn given(&self) -> u64 {
        let (frame, pos) = (self.scan.frame(), self.scan.pos());
        let is_large = pos - frame > LARGE_BYTES;
        let end = if is_large { pos } else { frame };
        end.min(self.end)
    }

    /// Looks at the next bytes.
    fn look(&mut self) -> io::Result<()> {
        let (pos, whole) = (self.scan.pos(), self.scan.whole());
        if pos >= self.until && self.until < self.set.len() {
            self.ends(self.until, Fate::Until { at: self.until });
            return Ok(());
        }
        let is_within = whole < pos;
        if is_within && self.set.is_seam(pos) {
            let what = "the file ends in the middle of a command or transaction, and another one follows it";
            let what = what.to_owned();
            self.ends(whole, Fate::Broken { at: whole, what });
            return Ok(());
        }
        let Some(bytes) = self.set.read_at(pos)? else {
            match is_within {
                false => self.ends(pos, Fate::Whole),
                true => self.ends(whole, Fate::CutShort { from: whole }),
            }
            return Ok(());
        };
        let left = usize::try_from(self.until.saturating_sub(pos)).unwrap_or(usize::MAX);
        let bytes = bytes.get(..left).unwrap_or(&bytes);
        let notes = &mut self.notes;
        let taken = self.scan.take(bytes, |note| notes.push_back(note.place));
        if let Err(broken) = taken {
            let (at, what) = (broken.at, broken.to_string());
            // Of a command that is broken nothing is given.
            self.ends(self.scan.frame(), Fate::Broken { at, what });
        }
        Ok(())
    }

    /// The bytes with the annotations in them made empty lines.
    fn without_notes(&self, pos: u64, bytes: Bytes) -> Bytes {
        let end = pos + bytes.len() as u64;
        let from = self.notes.partition_point(|note| note.end <= pos);
        let mut notes = self.notes.range(from..).peekable();
        if notes.peek().is_none_or(|note| note.start >= end) {
            return bytes;
        }
        let mut bytes = Vec::from(bytes);
        for note in notes.take_while(|note| note.start < end) {
            let place = |at: u64| usize::try_from(at.clamp(pos, end) - pos).unwrap_or(0);
            let part = bytes.get_mut(place(note.start)..place(note.end));
            part.unwrap_or_default().fill(b'\n');
        }
        bytes.into()
    }
}

impl Outside for Commands {
    fn read(&mut self, pos: u64) -> io::Result<Option<Bytes>> {
        if self.course.stopped.get() {
            return Ok(None);
        }
        if pos < self.floor {
            // A target that has fallen back: a command begins there.
            self.scan = Scan::at(pos);
            self.notes.clear();
            self.floor = pos;
            self.end = self.until;
            *self.course.fate.borrow_mut() = None;
        }
        while self.given() <= pos && self.course.fate.borrow().is_none() {
            self.look()?;
        }
        let given = self.given();
        if given <= pos {
            return Ok(None);
        }
        let Some(bytes) = self.set.read_at(pos)? else {
            return Ok(None);
        };
        let left = usize::try_from(given - pos).unwrap_or(usize::MAX);
        let bytes = bytes.slice(..left.min(bytes.len()));
        Ok(Some(self.without_notes(pos, bytes)))
    }

    fn end(&self) -> u64 {
        self.end
    }

    fn release(&mut self, kept: u64) {
        while self.notes.front().is_some_and(|note| note.end <= kept) {
            self.notes.pop_front();
        }
        self.floor = self.floor.max(kept.min(self.scan.frame()));
    }
}

/// The snapshot that append-only files begin with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Preamble {
    /// Where it ends.
    pub(crate) end: u64,
    /// When it was written, in seconds of Unix time, where it says that.
    pub(crate) written_at: Option<u64>,
}

/// Walks over the snapshot that files begin with.
///
/// # Errors
/// What is wrong with it, and where.
pub(crate) fn preamble(set: &mut Set) -> Result<Preamble, String> {
    let mut decoder = rdb::Decoder::new(rdb::Limits::default());
    let (mut pos, mut written_at) = (0, None);
    loop {
        match decoder.poll().map_err(|error| error.to_string())? {
            rdb::Poll::Event(rdb::Event::Key(_)) => decoder.want(rdb::Want::Skip),
            rdb::Poll::Event(rdb::Event::Aux { name, value }) if name == "ctime" => {
                let text = std::str::from_utf8(&value).unwrap_or_default();
                written_at = text.parse().ok();
            }
            rdb::Poll::Event(_) => {}
            rdb::Poll::End => {
                let end = decoder.offset();
                return Ok(Preamble { end, written_at });
            }
            rdb::Poll::NeedMore => match set.read_at(pos).map_err(|error| error.to_string())? {
                Some(bytes) => {
                    pos += bytes.len() as u64;
                    decoder.feed(bytes);
                }
                None => return Err(format!("its snapshot is cut short at byte {pos}")),
            },
        }
    }
}

/// What there is in append-only files.
#[derive(Debug)]
pub(crate) struct Survey {
    /// They begin with a snapshot.
    pub(crate) has_rdb: bool,
    pub(crate) has_times: bool,
    /// Where the commands end.
    pub(crate) fate: Fate,
}

/// Goes through all of the files.
///
/// # Errors
/// What is wrong with the snapshot that they begin with, or they cannot be read.
pub(crate) fn survey(set: &mut Set) -> Result<Survey, String> {
    let head = set.head(6).map_err(|error| error.to_string())?;
    let has_rdb = head.starts_with(b"REDIS") || head.starts_with(b"VALKEY");
    let from = if has_rdb { preamble(set)?.end } else { 0 };
    let (mut scan, mut has_times) = (Scan::at(from), false);
    let fate = loop {
        let (pos, whole) = (scan.pos(), scan.whole());
        if whole < pos && set.is_seam(pos) {
            let what = "the file ends in the middle of a command or transaction, and another one follows it";
            let what = what.to_owned();
            break Fate::Broken { at: whole, what };
        }
        let Some(bytes) = set.read_at(pos).map_err(|error| error.to_string())? else {
            break match whole < pos {
                true => Fate::CutShort { from: whole },
                false => Fate::Whole,
            };
        };
        let taken = scan.take(&bytes, |note| has_times |= note.at_seconds.is_some());
        if let Err(broken) = taken {
            let (at, what) = (broken.at, broken.to_string());
            break Fate::Broken { at, what };
        }
    };
    Ok(Survey {
        has_rdb,
        has_times,
        fate,
    })
}

/// Where files that are played up to a time end: before the first annotation of a later one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// There.
    At(u64),
    /// All of them are older.
    Nowhere,
    /// They tell no times.
    NoTimes,
}

/// Looks for the place at which files that are played up to `until_seconds` end, from `from` on.
pub(crate) fn cut(set: &mut Set, from: u64, until_seconds: u64) -> io::Result<Cut> {
    let mut scan = Scan::at(from);
    let (mut found, mut has_times) = (None, false);
    while let Some(bytes) = set.read_at(scan.pos())? {
        let mut noted = |note: Annotation| {
            has_times |= note.at_seconds.is_some();
            if note.at_seconds.is_some_and(|at| at > until_seconds) {
                found.get_or_insert(note.place.start);
            }
        };
        // What is broken is said when it is reached.
        if scan.take(&bytes, &mut noted).is_err() || found.is_some() {
            break;
        }
    }
    Ok(match (found, has_times) {
        (Some(at), _) => Cut::At(at),
        (None, true) => Cut::Nowhere,
        (None, false) => Cut::NoTimes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SET: &[u8] = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n";
    const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
    const EXEC: &[u8] = b"*1\r\n$4\r\nEXEC\r\n";

    /// The bytes that come out of files with this in them, and how they end.
    fn played(files: &[&[u8]], from: u64, until: Option<u64>) -> (Vec<u8>, Option<Fate>) {
        let (_folder, set) = set(files);
        let course = Rc::new(Course::default());
        let mut commands = Commands::new(set, from, until, course.clone());
        let mut read = Vec::new();
        while let Some(bytes) = commands.read(from + read.len() as u64).unwrap() {
            read.extend_from_slice(&bytes);
        }
        (read, course.fate())
    }

    fn set(files: &[&[u8]]) -> (tempfile::TempDir, Set) {
        let folder = tempfile::tempdir().unwrap();
        let path = |index: usize| folder.path().join(format!("{index}.aof"));
        let paths: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(index, bytes)| {
                std::fs::write(path(index), bytes).unwrap();
                path(index)
            })
            .collect();
        let set = Set::open(&paths).unwrap();
        (folder, set)
    }

    #[test]
    fn annotations_are_empty_lines() {
        let note = b"#TS:1700000000\r\n";
        let all = [SET, note, SET, note].concat();
        let blank = [
            SET,
            &b"\n".repeat(note.len()),
            SET,
            &b"\n".repeat(note.len()),
        ]
        .concat();
        assert_eq!(played(&[&all], 0, None), (blank.clone(), Some(Fate::Whole)));
        let (from, rest) = (SET.len() as u64, blank[SET.len()..].to_vec());
        assert_eq!(played(&[&all], from, None), (rest, Some(Fate::Whole)));
        assert_eq!(played(&[&all, b"", &all], 0, None).0, blank.repeat(2));
    }

    #[test]
    fn what_is_cut_short_ends_before_it() {
        let whole = SET.repeat(3);
        for cut in 1..SET.len() {
            let bytes = [&whole[..], &SET[..cut]].concat();
            let from = whole.len() as u64;
            let expected = (whole.clone(), Some(Fate::CutShort { from }));
            assert_eq!(played(&[&bytes], 0, None), expected, "{cut}");
        }
        let open = [SET, MULTI, SET].concat();
        let from = SET.len() as u64;
        let (read, fate) = played(&[&open], 0, None);
        assert!(read.starts_with(SET) && fate == Some(Fate::CutShort { from }));
        let (read, fate) = played(&[&open, SET], 0, None);
        // An open transaction is given and never applied.
        assert!(read.starts_with(SET) && read.len() <= open.len());
        assert!(matches!(fate, Some(Fate::Broken { at, .. }) if at == from));
    }

    #[test]
    fn nothing_comes_behind_what_is_broken() {
        for bad in [&b"junk"[..], b"*1\r\n$4\r\nINCRx", b"*3\r\n$3\r\nSET\r\n$x"] {
            let bytes = [SET, SET, bad, SET].concat();
            let (read, fate) = played(&[&bytes], 0, None);
            assert_eq!(read, SET.repeat(2));
            let after = 2 * SET.len() as u64;
            assert!(matches!(fate, Some(Fate::Broken { at, .. }) if at >= after));
        }
    }

    #[test]
    fn a_large_command_comes_in_parts() {
        let value = vec![b'#'; 3 * LARGE_BYTES as usize];
        let mut large = Vec::new();
        resp::encode::command(&mut large, &[b"SET", b"k", &value]);
        let all = [SET, &large, SET].concat();
        assert!(played(&[&all], 0, None) == (all.clone(), Some(Fate::Whole)));
    }

    #[test]
    fn a_time_is_found_and_kept_to() {
        let (early, late) = (&b"#TS:100\r\n"[..], &b"#TS:200\r\n"[..]);
        let all = [early, SET, late, MULTI, SET, EXEC].concat();
        let (_folder, mut files) = set(&[&all]);
        let at = (early.len() + SET.len()) as u64;
        assert_eq!(cut(&mut files, 0, 99).unwrap(), Cut::At(0));
        assert_eq!(cut(&mut files, 0, 100).unwrap(), Cut::At(at));
        assert_eq!(cut(&mut files, 0, 199).unwrap(), Cut::At(at));
        assert_eq!(cut(&mut files, 0, 200).unwrap(), Cut::Nowhere);
        let (_folder, mut without) = set(&[SET]);
        assert_eq!(cut(&mut without, 0, 200).unwrap(), Cut::NoTimes);
        let (read, fate) = played(&[&all], 0, Some(at));
        assert_eq!(fate, Some(Fate::Until { at }));
        assert!(read.ends_with(SET) && read.len() as u64 == at);
    }

    #[test]
    fn who_falls_back_reads_the_same_again() {
        let note = b"#TS:1700000000\r\n";
        let all = [SET, note, SET, SET].concat();
        let (_folder, files) = set(&[&all]);
        let mut commands = Commands::new(files, 0, None, Rc::default());
        let first = commands.read(0).unwrap().unwrap();
        commands.release(first.len() as u64);
        let from = SET.len() as u64;
        let again = commands.read(from).unwrap().unwrap();
        assert_eq!(again, first[SET.len()..]);
    }

    #[test]
    fn who_is_stopped_reads_nothing_more() {
        let (_folder, files) = set(&[SET]);
        let course = Rc::new(Course::default());
        let mut commands = Commands::new(files, 0, None, course.clone());
        assert!(commands.read(0).unwrap().is_some());
        course.stop();
        assert_eq!(commands.read(0).unwrap(), None);
        assert_eq!(course.fate(), None);
    }
}
