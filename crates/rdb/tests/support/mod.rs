//! Shared by the tests: running the decoder, and the files they run it over.

#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod files;

use bytes::Bytes;
use rdb::{Decoder, Error, ErrorKind, Event, Limits, Poll, Want};
use testkit::rdb_writer::RdbWriter;

/// How a run wants its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Elements,
    Raw(u64),
    Skip,
}

pub const MODES: [Mode; 5] = [
    Mode::Elements,
    Mode::Raw(u64::MAX),
    Mode::Raw(24),
    Mode::Raw(0),
    Mode::Skip,
];

/// Limits under which small files show every way through the decoder.
pub fn small_parts() -> Limits {
    Limits {
        part_bytes_max: 16,
        ..Limits::default()
    }
}

fn want(mode: Mode) -> Option<Want> {
    match mode {
        Mode::Elements => None,
        Mode::Raw(bytes_max) => Some(Want::Raw { bytes_max }),
        Mode::Skip => Some(Want::Skip),
    }
}

/// Says to a decoder how values are wanted.
pub fn wanted(decoder: &mut Decoder, mode: Mode) {
    if let Some(want) = want(mode) {
        decoder.want(want);
    }
}

/// Everything a decoder gives, fed by `cuts` (lengths of the chunks; the last one is repeated).
pub fn run(
    file: &[u8],
    cuts: impl IntoIterator<Item = usize>,
    mode: Mode,
    limits: &Limits,
) -> (Vec<Event>, Result<Poll, Error>) {
    let mut decoder = Decoder::new(limits.clone());
    let mut events = Vec::new();
    let (mut at, mut cuts, mut size) = (0, cuts.into_iter(), usize::MAX);
    loop {
        match decoder.poll() {
            Ok(Poll::Event(event)) => {
                if let (Event::Key(_), Some(want)) = (&event, want(mode)) {
                    decoder.want(want);
                }
                events.push(event);
            }
            Ok(Poll::NeedMore) if at < file.len() => {
                size = cuts.next().unwrap_or(size).max(1);
                let end = at.saturating_add(size).min(file.len());
                decoder.feed(Bytes::copy_from_slice(&file[at..end]));
                at = end;
            }
            end => return (events, end),
        }
    }
}

/// Everything a decoder gives for a file fed at once.
pub fn whole(file: &[u8], mode: Mode, limits: &Limits) -> (Vec<Event>, Result<Poll, Error>) {
    run(file, [file.len()], mode, limits)
}

/// The events of a file without fault.
pub fn events(file: &[u8], mode: Mode) -> Vec<Event> {
    let (events, end) = whole(file, mode, &Limits::default());
    assert_eq!(end, Ok(Poll::End), "after {events:#?}");
    events
}

/// A generator of numbers that are the same in every run.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

/// Events as text, one a line, strings escaped.
pub fn as_text(events: &[Event], end: &Result<Poll, Error>) -> String {
    let mut text = String::new();
    for event in events {
        text.push_str(&format!("{event:?}\n"));
    }
    match end {
        Ok(poll) => text.push_str(&format!("{poll:?}\n")),
        Err(error) => text.push_str(&format!("error: {error}\n")),
    }
    text
}

/// Expects what is wrong with a value, and where: how far behind the key, in elements and whole.
pub fn refused(mut file: RdbWriter, type_id: u8, body: &[u8], why: &str, at: [u64; 2]) {
    file.key(type_id, "key");
    let start = file.as_bytes().len() as u64;
    file.bytes(body);
    let file = file.finish();
    for (mode, at) in [Mode::Elements, Mode::Raw(u64::MAX)].into_iter().zip(at) {
        let (events, end) = whole(&file, mode, &Limits::default());
        let what =
            format!("type {type_id}, {mode:?}, {body:x?}: not {why}, but {events:?}, {end:?}");
        let error = end.expect_err(&what);
        let text = error.kind.to_string();
        assert!(text.contains(why), "{what}");
        let is_corrupt = matches!(error.kind, ErrorKind::Corrupt(_) | ErrorKind::Limit { .. });
        assert!(is_corrupt, "{what}");
        assert_eq!(
            error.at.checked_sub(start),
            Some(at),
            "{mode:?}, {text}, {body:x?}"
        );
    }
}
