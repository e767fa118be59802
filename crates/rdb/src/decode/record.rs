//! Keys with short strings, read in one go: most keys of most files.
//!
//! Only what stands whole in the bytes at hand is read so; all else, and all that is wrong, is left to
//! [`Decoder::poll`].

use bytes::Bytes;

use crate::decode::{Decoder, Lead, Scope, State};
use crate::event::KeyHead;
use crate::leaf::lzf;
use crate::leaf::number::Decimal;
use crate::leaf::reader::{Reader, StringHead};
use crate::opcode::Opcode;
use crate::types::{self, Db, Kind, Row};

/// A key with a short string, borrowed: what [`Event::Key`](crate::Event::Key) and
/// [`Event::String`](crate::Event::String) give together.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its database.
    pub db: Db,
    /// The key.
    pub key: &'a [u8],
    /// The string.
    pub value: Stored<'a>,
    /// When it expires, in Unix time; may be in the past, zero and below.
    pub expire_at_ms: Option<i64>,
    /// How long it was not used (LRU).
    pub idle_seconds: Option<u64>,
    /// How often it is used (LFU).
    pub freq: Option<u8>,
    /// Offset of its type byte in the file.
    pub at: u64,
    row: &'static Row,
}

impl Record<'_> {
    /// What [`Event::Key`](crate::Event::Key) would have said.
    #[must_use]
    pub fn head(&self) -> KeyHead {
        KeyHead {
            db: self.db,
            key: Bytes::copy_from_slice(self.key),
            type_id: self.row.id,
            kind: self.row.kind,
            encoding: self.row.encoding,
            expire_at_ms: self.expire_at_ms,
            idle_seconds: self.idle_seconds,
            freq: self.freq,
            meta: None,
            at: self.at,
        }
    }
}

/// A string as it stands in the file: decoded by whoever wants it, where it is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a>(Form<'a>);

#[derive(Debug, Clone, Copy)]
enum Form<'a> {
    Plain(&'a [u8]),
    Int(i32),
    /// It was checked: that many bytes of the input decompress to so many.
    Lzf {
        input: &'a [u8],
        packed: usize,
        len: usize,
    },
}

impl Stored<'_> {
    /// How many bytes it has when decoded.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match self.0 {
            Form::Plain(text) => text.len(),
            Form::Int(value) => Decimal::new(i64::from(value)).as_bytes().len(),
            Form::Lzf { len, .. } => len,
        }
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Decodes it to the end of `out`.
    #[inline]
    pub fn append_to(&self, out: &mut Vec<u8>) {
        match self.0 {
            Form::Plain(text) => out.extend_from_slice(text),
            Form::Int(value) => out.extend_from_slice(Decimal::new(i64::from(value)).as_bytes()),
            Form::Lzf { input, packed, len } => lzf::append(input, packed, len, out),
        }
    }

    /// The string, decoded.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut text = Vec::new();
        self.append_to(&mut text);
        text
    }
}

/// Where the parts of a record stand.
struct Found {
    row: &'static Row,
    lead: Lead,
    /// Bytes before the type byte.
    before: usize,
    key: (usize, usize),
    head: StringHead,
    value: (usize, usize),
}

impl Decoder {
    /// The next key with its value, if that is a short string which is there whole, written in the usual way; `None` for
    /// everything else, which [`poll`](Self::poll) gives.
    ///
    /// ```
    /// use rdb::{Decoder, Limits, Poll};
    ///
    /// let mut decoder = Decoder::new(Limits::default());
    /// decoder.feed(bytes::Bytes::from_static(b"REDIS0003\xfe\x00\x00\x03key\x05value\xff"));
    /// let mut values = Vec::new();
    /// while let Poll::Event(_) = decoder.poll()? {
    ///     while let Some(record) = decoder.record() {
    ///         values.push(record.value.to_vec());
    ///     }
    /// }
    /// assert_eq!(values, [b"value"]);
    /// # Ok::<(), rdb::Error>(())
    /// ```
    #[inline]
    pub fn record(&mut self) -> Option<Record<'_>> {
        if !matches!(self.state, State::Between) || self.scope != Scope::File {
            return None;
        }
        let Found {
            row,
            lead,
            before,
            key,
            head,
            value,
        } = self.find_record()?;
        let at = self.window.offset() + before as u64;
        let used = value.1;
        self.window.consume(used);
        let bytes = self.window.behind(used);
        let stored = bytes.get(value.0..value.1).unwrap_or_default();
        Some(Record {
            db: self.db,
            key: bytes.get(key.0..key.1).unwrap_or_default(),
            value: Stored(match head {
                StringHead::Plain { .. } => Form::Plain(stored),
                StringHead::Int(value) => Form::Int(value),
                StringHead::Lzf { packed, len } => Form::Lzf {
                    input: bytes.get(value.0..).unwrap_or_default(),
                    packed,
                    len,
                },
            }),
            expire_at_ms: lead.expire_at_ms,
            idle_seconds: lead.idle_seconds,
            freq: lead.freq,
            at,
            row,
        })
    }

    #[inline]
    fn find_record(&self) -> Option<Found> {
        if !self.lead.is_empty() {
            return None;
        }
        let mut reader = Reader::new(self.window.rest());
        let mut lead = Lead::default();
        loop {
            let before = reader.at();
            let byte = reader.u8().ok()?;
            if let Some(row) = types::row(self.dialect, byte) {
                if row.kind != Kind::String {
                    return None;
                }
                let StringHead::Plain { len } =
                    reader.string_head(self.limits.item_bytes_max).ok()?
                else {
                    return None;
                };
                let from = reader.at();
                reader.take(len).ok()?;
                let key = (from, reader.at());
                let head = reader.string_head(self.limits.string_bytes_max).ok()?;
                if head.len() as u64 > self.limits.part_bytes_max {
                    return None;
                }
                let from = reader.at();
                let stored = reader.take(head.stored()).ok()?;
                if let StringHead::Lzf { len, .. } = head {
                    lzf::check(stored, len).ok()?;
                }
                return Some(Found {
                    row,
                    lead,
                    before,
                    key,
                    head,
                    value: (from, reader.at()),
                });
            }
            match Opcode::new(self.dialect, byte)? {
                Opcode::ExpireMs => {
                    lead.expire_at_ms = Some(i64::from_le_bytes(reader.array().ok()?));
                }
                Opcode::Idle => lead.idle_seconds = Some(reader.number().ok()?),
                Opcode::Freq => lead.freq = Some(reader.u8().ok()?),
                _ => return None,
            }
        }
    }
}

impl Lead {
    #[inline]
    const fn is_empty(&self) -> bool {
        self.expire_at_ms.is_none()
            && self.idle_seconds.is_none()
            && self.freq.is_none()
            && self.meta.is_none()
    }
}
