//! The events of a file, one after the other, and where each stands.

use std::fmt;
use std::io;
use std::path::Path;

use std::ops::ControlFlow;

use rdb::{
    Db, Decoder, Element, Error, ErrorKind, Event, KeyHead, Kind, Limits, Poll, Record, Want,
};

use super::ahead::{Ahead, Peek};
use super::bar::Bar;
use super::failure::{Damage, Failure, mend_of, name_of};
use super::names::{kind_name, printable, type_name};

/// A key that was read, for messages.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    pub(crate) db: Db,
    pub(crate) key: Vec<u8>,
    pub(crate) kind: Kind,
    /// The type's name.
    pub(crate) type_name: &'static str,
    /// Where its type byte stands.
    pub(crate) at: u64,
    /// Whether its value is not read to the end.
    pub(crate) inside: bool,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.inside { "in" } else { "behind" };
        write!(
            f,
            "{place} key \"{}\" (db {}, {}, {})",
            printable(&self.key),
            self.db.0,
            kind_name(self.kind),
            self.type_name
        )
    }
}

/// A file on its way through the decoder.
pub(crate) struct Reader {
    name: String,
    input: Ahead,
    decoder: Decoder,
    /// A second decoder, before the value of the key just given.
    second: Option<Decoder>,
    dialect: rdb::Dialect,
    seat: Option<Seat>,
    /// The value wanted last is passed over, so that no event tells its end.
    skipping: bool,
    keys: u64,
    /// No key follows.
    ended: bool,
}

impl Reader {
    /// Opens a file; `-` is standard input.
    pub(crate) fn open(file: &Path, limits: Limits, bar: &Bar) -> Result<Self, Failure> {
        Ok(Self {
            name: name_of(file),
            input: Ahead::open(file, bar)?,
            decoder: Decoder::new(limits),
            second: None,
            dialect: rdb::Dialect::Shared,
            seat: None,
            skipping: false,
            keys: 0,
            ended: false,
        })
    }

    /// The next event; none behind the last.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Event>, Failure> {
        loop {
            match self.decoder.poll() {
                Ok(Poll::Event(event)) => {
                    self.note(&event);
                    return Ok(Some(event));
                }
                Ok(Poll::End) => return Ok(None),
                Ok(Poll::NeedMore) => self.feed()?,
                Err(error) => return Err(self.damage(&error)),
            }
        }
    }

    /// The next key with its value, if that is a short string which is at hand; else none, and [`Self::next`] goes on.
    #[inline]
    pub(crate) fn record(&mut self) -> Option<Record<'_>> {
        let record = self.decoder.record()?;
        self.keys += 1 + u64::from(std::mem::take(&mut self.skipping));
        self.second = None;
        match &mut self.seat {
            // The last one's room is used again.
            Some(Seat {
                db,
                key,
                kind: Kind::String,
                at,
                inside,
                ..
            }) => {
                (*db, *at, *inside) = (record.db, record.at, false);
                key.clear();
                key.extend_from_slice(record.key);
            }
            seat => {
                *seat = Some(Seat {
                    db: record.db,
                    key: record.key.to_vec(),
                    kind: Kind::String,
                    type_name: type_name(self.dialect, 0),
                    at: record.at,
                    inside: false,
                });
            }
        }
        Some(record)
    }

    /// The elements at hand of the collection under way; [`Self::next`] goes on behind them.
    #[inline]
    pub(crate) fn elements(&mut self, each: impl FnMut(Element<'_>) -> ControlFlow<()>) {
        self.decoder.elements(each);
    }

    fn feed(&mut self) -> Result<(), Failure> {
        match self.input.next() {
            Ok(Some(chunk)) => {
                if let Some(second) = &mut self.second {
                    second.feed(chunk.clone());
                }
                self.decoder.feed(chunk);
                Ok(())
            }
            Ok(None) => match self.decoder.finish() {
                Ok(()) => Ok(()),
                Err(error) => Err(self.damage(&error)),
            },
            Err(error) => Err(self.broken(&error)),
        }
    }

    #[inline]
    fn note(&mut self, event: &Event) {
        match event {
            Event::Key(head) => {
                self.end_skipped();
                self.second = None;
                self.seat_of(head);
            }
            Event::String(_) | Event::Raw(_) | Event::ValueEnd => self.value_ended(),
            Event::Start { dialect, .. } => self.dialect = *dialect,
            _ => self.note_other(event),
        }
    }

    fn note_other(&mut self, event: &Event) {
        if self.skipping {
            self.end_skipped();
        }
        // The end comes with the checksum; what can be wrong there is no key's.
        self.ended |= matches!(event, Event::End { .. });
    }

    fn seat_of(&mut self, head: &KeyHead) {
        let mut key = self.seat.take().map_or_else(Vec::new, |seat| seat.key);
        key.clear();
        key.extend_from_slice(&head.key);
        self.seat = Some(Seat {
            db: head.db,
            key,
            kind: head.kind,
            type_name: type_name(self.dialect, head.type_id),
            at: head.at,
            inside: true,
        });
    }

    fn end_skipped(&mut self) {
        if std::mem::take(&mut self.skipping) {
            self.value_ended();
        }
    }

    #[inline]
    fn value_ended(&mut self) {
        self.keys += 1;
        if let Some(seat) = &mut self.seat {
            seat.inside = false;
        }
    }

    /// Says what is wanted of the value of the key just given.
    pub(crate) fn want(&mut self, want: Want) {
        self.skipping = want == Want::Skip;
        self.decoder.want(want);
    }

    /// Keeps the place before the value of the key just given, for [`Self::look_ahead`].
    pub(crate) fn keep_place(&mut self) {
        self.second = self.decoder.lookahead();
    }

    /// Gives what stands behind the messages of a stream whose first event was just given, if its place was kept.
    pub(crate) fn look_ahead(
        &mut self,
        mut each: impl FnMut(&Event) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let Some(mut second) = self.second.take() else {
            return Ok(());
        };
        second.want(Want::Groups);
        let mut peek = Peek::default();
        loop {
            match second.poll() {
                Ok(Poll::Event(event)) => each(&event)?,
                Ok(Poll::End) => return Ok(()),
                Ok(Poll::NeedMore) => match self.input.peek(&mut peek) {
                    Ok(Some(chunk)) => second.feed(chunk),
                    Ok(None) => return second.finish().map_err(|error| self.damage(&error)),
                    Err(error) => return Err(self.broken(&error)),
                },
                Err(error) => return Err(self.damage(&error)),
            }
        }
    }

    /// Whose numbers the types are.
    pub(crate) const fn dialect(&self) -> rdb::Dialect {
        self.dialect
    }

    /// How many bytes are behind.
    pub(crate) fn offset(&self) -> u64 {
        self.decoder.offset()
    }

    /// How many keys were read whole.
    pub(crate) const fn keys(&self) -> u64 {
        self.keys
    }

    /// How many keys without elements the decoder left out.
    pub(crate) const fn skipped_empty(&self) -> u64 {
        self.decoder.skipped_empty()
    }

    /// How many bytes follow the file's end.
    pub(crate) fn trailing(&mut self) -> Result<u64, Failure> {
        let mut bytes = self.decoder.leftover().len() as u64;
        loop {
            match self.input.next() {
                Ok(Some(chunk)) => bytes += chunk.len() as u64,
                Ok(None) => return Ok(bytes),
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    /// Damage that the format knows nothing of.
    pub(crate) fn damage_at(&self, at: u64, what: &str) -> Failure {
        Failure::Damage(Box::new(Damage {
            file: self.name.clone(),
            at,
            what: what.to_owned(),
            mend: "",
            seat: self.seat.clone(),
            keys: self.keys,
            at_end: false,
        }))
    }

    fn damage(&self, error: &Error) -> Failure {
        let mut seat = self.seat.clone();
        let mut keys = self.keys;
        let at_end = matches!(error.kind, ErrorKind::Checksum { .. });
        if let Some(seat) = seat.as_mut().filter(|_| self.skipping && at_end) {
            // A value that was passed over gives no event at its end.
            seat.inside = false;
            keys += 1;
        }
        Failure::Damage(Box::new(Damage {
            file: self.name.clone(),
            at: error.at,
            what: error.kind.to_string(),
            mend: mend_of(&error.kind),
            seat,
            keys,
            at_end,
        }))
    }

    /// A file that cannot be read on, or not be decompressed.
    fn broken(&self, error: &io::Error) -> Failure {
        if !self.input.is_damage(error) {
            return Failure::Local(format!("{}: cannot be read: {error}", self.name));
        }
        Failure::Damage(Box::new(Damage {
            file: self.name.clone(),
            at: self.decoder.offset() + self.decoder.buffered() as u64,
            what: format!("the compressed file is damaged: {error}"),
            mend: "",
            seat: self.seat.clone(),
            keys: self.keys,
            at_end: self.ended,
        }))
    }
}
