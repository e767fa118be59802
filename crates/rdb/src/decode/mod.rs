//! The decoder: bytes in, events out.

use bytes::Bytes;

mod record;
mod value;

pub use record::{Record, Stored};

use crate::arena::Arena;
use crate::container::listpack::BackLengths;
use crate::error::{Error, ErrorKind, Stop};
use crate::event::{Event, KeyHead, Poll, Want};
use crate::leaf::magic;
use crate::leaf::reader::{Reader, Text};
use crate::limits::Limits;
use crate::opcode::{Long, Opcode};
use crate::templates::Templates;
use crate::types::{self, Db, Dialect, RdbVersion, Row};
use crate::value::{Elements, empty};
use crate::walk::{Care, Walk, Walked};
use crate::window::Window;

/// Decodes a file as it arrives.
///
/// For every input and every way to cut it into chunks the events are the same. Bytes in events
/// are slices of the chunks that were fed, except where an item straddles two of them or is
/// compressed.
///
/// ```
/// use rdb::{Decoder, Event, Limits, Poll};
///
/// let mut decoder = Decoder::new(Limits::default());
/// decoder.feed(bytes::Bytes::from_static(b"REDIS0003\xfe\x00\x00\x03key\x05value"));
/// decoder.feed(bytes::Bytes::from_static(b"\xff"));
/// let mut values = Vec::new();
/// while let Poll::Event(event) = decoder.poll()? {
///     if let Event::String(value) = event {
///         values.push(value);
///     }
/// }
/// assert_eq!(values, ["value"]);
/// assert_eq!(decoder.poll(), Ok(Poll::End));
/// # Ok::<(), rdb::Error>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    window: Window,
    limits: Limits,
    state: State,
    dialect: Dialect,
    version: RdbVersion,
    db: Db,
    lead: Lead,
    want: Want,
    walk: Walk,
    arena: Arena,
    templates: Templates,
    skipped_empty: u64,
    scope: Scope,
    back: BackLengths,
}

/// What the bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    File,
    /// One value without a file around it.
    Payload,
    /// One value with a file around it that is read elsewhere.
    Ahead,
}

/// What opcodes have said of the next key.
#[derive(Debug, Default)]
struct Lead {
    expire_at_ms: Option<i64>,
    idle_seconds: Option<u64>,
    freq: Option<u8>,
    meta: Option<Bytes>,
}

#[derive(Debug)]
enum State {
    Magic,
    /// An opcode or a key comes next.
    Between,
    /// The body of an opcode is being held.
    Holding {
        opcode: Long,
    },
    /// A key was given; how its value is wanted is now certain.
    Keyed {
        row: &'static Row,
    },
    /// A value is being held, to be given whole.
    Walking {
        row: &'static Row,
    },
    /// A value is being held and looked into, to be given whole.
    Checking {
        row: &'static Row,
        elements: Elements,
        bytes_max: u64,
    },
    /// A value is being passed over.
    Skipping,
    /// A value is being given in elements.
    Giving {
        elements: Elements,
    },
    /// A payload's type byte comes next.
    Payload,
    /// A payload's value is behind.
    Spent,
    /// The checksum comes next.
    Checksum,
    Ended,
    Failed {
        error: Error,
    },
}

impl Decoder {
    /// A decoder at the beginning of a file.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            window: Window::new(),
            limits,
            state: State::Magic,
            dialect: Dialect::Shared,
            version: RdbVersion(0),
            db: Db::default(),
            lead: Lead::default(),
            want: Want::Elements,
            walk: Walk::new(),
            arena: Arena::new(),
            templates: Templates::default(),
            skipped_empty: 0,
            scope: Scope::File,
            back: BackLengths::default(),
        }
    }

    /// A decoder of one value, as it stands in a DUMP payload before the footer: its key is given
    /// empty, then the value as wanted.
    pub(crate) fn of_value(value: Bytes, version: RdbVersion, limits: Limits) -> Self {
        let mut decoder = Self::new(limits);
        decoder.feed(value);
        decoder.state = State::Payload;
        decoder.dialect = Dialect::of_payload(version);
        decoder.version = version;
        decoder.scope = Scope::Payload;
        decoder
    }

    /// A decoder of one body without its type byte, and of the templates of a file.
    pub(crate) fn of_body(row: &'static Row, body: Bytes, limits: Limits) -> Self {
        let mut decoder = Self::new(limits);
        decoder.feed(body);
        decoder.state = State::Keyed { row };
        decoder.dialect = row.dialect;
        decoder.scope = Scope::Payload;
        decoder
    }

    /// How sizes are written in the listpacks that were looked into.
    pub(crate) const fn back_lengths(&self) -> BackLengths {
        let walked = self.walk.back_lengths();
        BackLengths {
            longer: walked.longer || self.back.longer,
            shorter: walked.shorter || self.back.shorter,
        }
    }

    /// A second decoder that stands before the value of the key just given, to look at what is
    /// behind before what is in front is given: the ids that a stream's groups hold, above all,
    /// before its messages. `None` unless the last event was an [`Event::Key`].
    ///
    /// It has what was fed so far; what follows is to be fed to both. It gives the one value, by
    /// default in elements ([`want`](Self::want) says otherwise, [`Want::Groups`] for instance),
    /// then [`Poll::End`], whatever comes behind. Offsets count from where the file begins.
    #[must_use]
    pub fn lookahead(&self) -> Option<Self> {
        let State::Keyed { row } = self.state else {
            return None;
        };
        Some(Self {
            window: self.window.fork(),
            state: State::Keyed { row },
            dialect: self.dialect,
            version: self.version,
            db: self.db,
            templates: self.templates.clone(),
            scope: Scope::Ahead,
            ..Self::new(self.limits.clone())
        })
    }

    /// Takes the next bytes of the file.
    pub fn feed(&mut self, bytes: Bytes) {
        self.window.feed(bytes);
    }

    /// The next event. An error stays: the format has no place to go on from.
    pub fn poll(&mut self) -> Result<Poll, Error> {
        loop {
            match self.step() {
                Ok(Some(event)) => return Ok(Poll::Event(event)),
                Ok(None) if matches!(self.state, State::Ended) => return Ok(Poll::End),
                Ok(None) => {}
                Err(Stop::Need(bytes)) => {
                    if !self.window.ensure(bytes) {
                        return Ok(Poll::NeedMore);
                    }
                }
                Err(Stop::Bad(kind)) => return Err(self.fail(kind)),
            }
        }
    }

    /// Says what is wanted of the value of the key just given; without it, its elements.
    pub fn want(&mut self, want: Want) {
        self.want = want;
    }

    /// How many bytes of the file are behind.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.window.offset()
    }

    /// How many bytes are held: fed and not decoded, or kept to be given whole.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.window.buffered()
    }

    /// How many keys without elements were left out.
    #[must_use]
    pub const fn skipped_empty(&self) -> u64 {
        self.skipped_empty
    }

    /// Takes the bytes fed and not decoded: after the end, what follows the file.
    pub fn leftover(&mut self) -> Bytes {
        self.window.leftover()
    }

    /// Says that no more bytes will come: right if the file has ended.
    pub fn finish(&self) -> Result<(), Error> {
        match &self.state {
            State::Ended => Ok(()),
            State::Failed { error } => Err(error.clone()),
            _ => Err(Error {
                at: self.offset(),
                kind: ErrorKind::Truncated,
            }),
        }
    }

    fn fail(&mut self, kind: ErrorKind) -> Error {
        let error = match &self.state {
            State::Failed { error } => error.clone(),
            _ => Error {
                at: self.offset(),
                kind,
            },
        };
        self.state = State::Failed {
            error: error.clone(),
        };
        error
    }

    #[inline]
    fn step(&mut self) -> Result<Option<Event>, Stop> {
        match &mut self.state {
            State::Between => self.between(),
            State::Keyed { row } => {
                let row = *row;
                Ok(self.begin_value(row))
            }
            State::Giving { .. } => self.give(),
            State::Checking { .. } => self.check_value(),
            State::Walking { row } => {
                let row = *row;
                self.walk_value(row)
            }
            State::Skipping => {
                self.run_walk()?;
                self.state = self.after_value();
                Ok(None)
            }
            State::Holding { opcode } => {
                let opcode = *opcode;
                self.hold_opcode(opcode)
            }
            State::Magic => self.magic(),
            State::Payload => self.payload(),
            State::Spent if self.window.is_empty() => {
                self.state = State::Ended;
                Ok(None)
            }
            State::Spent => Err(Stop::corrupt("bytes left over behind the value")),
            State::Checksum => self.checksum(),
            State::Ended => Ok(None),
            State::Failed { error } => Err(Stop::Bad(error.kind)),
        }
    }

    fn magic(&mut self) -> Result<Option<Event>, Stop> {
        let (dialect, version) = magic::magic(self.window.rest())?;
        self.window.consume(magic::LEN);
        (self.dialect, self.version) = (dialect, version);
        self.state = State::Between;
        Ok(Some(Event::Start { dialect, version }))
    }

    const fn after_value(&self) -> State {
        match self.scope {
            Scope::File => State::Between,
            Scope::Payload => State::Spent,
            Scope::Ahead => State::Ended,
        }
    }

    fn payload(&mut self) -> Result<Option<Event>, Stop> {
        let byte = Reader::new(self.window.rest()).u8()?;
        if let Some(row) = types::row(self.dialect, byte) {
            return self.key(row);
        }
        match Opcode::new(self.dialect, byte) {
            Some(opcode @ Opcode::Long(Long::KeyMeta)) if self.lead.meta.is_none() => {
                self.opcode(opcode)
            }
            _ => Err(Stop::Bad(ErrorKind::UnknownType(byte))),
        }
    }

    #[inline]
    fn between(&mut self) -> Result<Option<Event>, Stop> {
        let mut reader = Reader::new(self.window.rest());
        let byte = reader.u8()?;
        if let Some(row) = types::row(self.dialect, byte) {
            return self.key(row);
        }
        match Opcode::new(self.dialect, byte) {
            Some(opcode) => self.opcode(opcode),
            None => Err(Stop::Bad(ErrorKind::UnknownType(byte))),
        }
    }

    fn key(&mut self, row: &'static Row) -> Result<Option<Event>, Stop> {
        let Some(body) = row.body else {
            let (type_id, name) = (row.id, row.name);
            return Err(Stop::Bad(ErrorKind::Unsupported { type_id, name }));
        };
        let mut reader = Reader::new(self.window.rest());
        reader.u8()?;
        let text = match self.scope {
            Scope::Payload => Text::Plain { start: 0, end: 0 },
            Scope::File | Scope::Ahead => reader.text(self.limits.item_bytes_max)?,
        };
        let used = reader.at();
        let is_empty = empty::is_empty(row, reader)?;
        let key = self.arena.text(&self.window, text)?;
        let at = self.window.offset();
        self.window.consume(used);
        let Lead {
            expire_at_ms,
            idle_seconds,
            freq,
            meta,
        } = std::mem::take(&mut self.lead);
        if is_empty && self.scope == Scope::Payload {
            return Err(Stop::corrupt("a value without elements"));
        }
        if is_empty {
            self.skipped_empty += 1;
            self.walk.start(body, Care::Skip, u64::MAX);
            self.state = State::Skipping;
            return Ok(None);
        }
        self.want = Want::Elements;
        self.state = State::Keyed { row };
        let (type_id, kind, encoding, db) = (row.id, row.kind, row.encoding, self.db);
        Ok(Some(Event::Key(KeyHead {
            db,
            key,
            type_id,
            kind,
            encoding,
            expire_at_ms,
            idle_seconds,
            freq,
            meta,
            at,
        })))
    }

    fn hold_opcode(&mut self, opcode: Long) -> Result<Option<Event>, Stop> {
        if self.run_walk()? == Walked::TooLarge {
            return Err(self.too_large("opcode body"));
        }
        let raw = self.window.take_marked();
        self.state = match self.scope {
            Scope::Payload => State::Payload,
            Scope::File | Scope::Ahead => State::Between,
        };
        match self.read_opcode(opcode, &raw) {
            Ok(None) => {
                self.lead.meta = Some(raw);
                Ok(None)
            }
            Err(stop) => {
                // The place is where the body begins, which is behind already.
                let (kind, at) = (stop.in_full(), self.offset() - raw.len() as u64);
                let error = Error { at, kind };
                self.state = State::Failed { error };
                Err(Stop::Bad(kind))
            }
            event => event,
        }
    }

    fn read_opcode(&mut self, opcode: Long, raw: &Bytes) -> Result<Option<Event>, Stop> {
        let event = opcode.read(raw, &mut self.arena, &self.limits)?;
        if let Some(Event::HashTemplate { id, fields }) = &event {
            self.templates.add(*id, fields, &self.limits)?;
        }
        Ok(event)
    }

    fn opcode(&mut self, opcode: Opcode) -> Result<Option<Event>, Stop> {
        let mut reader = Reader::new(self.window.rest());
        reader.u8()?;
        let mut event = None;
        match opcode {
            Opcode::ExpireMs => {
                self.lead.expire_at_ms = Some(i64::from_le_bytes(reader.array()?));
            }
            Opcode::ExpireSeconds => {
                let seconds = i32::from_le_bytes(reader.array()?);
                self.lead.expire_at_ms = Some(i64::from(seconds) * 1000);
            }
            Opcode::Idle => self.lead.idle_seconds = Some(reader.number()?),
            Opcode::Freq => self.lead.freq = Some(reader.u8()?),
            Opcode::Ignored => drop(reader.number()?),
            Opcode::SelectDb => {
                self.db = db(reader.number()?, self.limits.db_max)?;
                event = Some(Event::SelectDb(self.db));
            }
            Opcode::ResizeDb => {
                let (keys, expires) = (reader.number()?, reader.number()?);
                event = Some(Event::ResizeDb { keys, expires });
            }
            Opcode::SlotInfo => {
                let (slot, keys) = (reader.number()?, reader.number()?);
                let expires = reader.number()?;
                event = Some(Event::SlotInfo {
                    slot,
                    keys,
                    expires,
                });
            }
            Opcode::Eof => self.state = State::Checksum,
            Opcode::Long(opcode) => self.state = State::Holding { opcode },
        }
        let used = reader.at();
        self.window.consume(used);
        if let Opcode::Long(opcode) = opcode {
            self.window.mark();
            self.walk
                .start(opcode.body(), Care::Stored, self.limits.raw_bytes_max);
        }
        Ok(event)
    }

    fn checksum(&mut self) -> Result<Option<Event>, Stop> {
        let mut stored = 0;
        // Versions before 5 end with the opcode.
        if self.version.0 >= 5 {
            let bytes = Reader::new(self.window.rest()).array()?;
            stored = u64::from_le_bytes(bytes);
            let computed = self.window.checksum();
            if stored != 0 && stored != computed {
                return Err(Stop::Bad(ErrorKind::Checksum { stored, computed }));
            }
            self.window.consume(bytes.len());
        }
        self.state = State::Ended;
        Ok(Some(Event::End { checksum: stored }))
    }
}

fn db(number: u64, max: u32) -> Result<Db, Stop> {
    match u32::try_from(number) {
        Ok(db) if db <= max => Ok(Db(db)),
        _ => {
            let (what, max) = ("database number", u64::from(max));
            Err(Stop::Bad(ErrorKind::Limit {
                what,
                got: number,
                max,
            }))
        }
    }
}
