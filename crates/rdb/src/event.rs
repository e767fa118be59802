//! What the decoder gives.

use std::fmt;

use bytes::Bytes;

use crate::types::{Db, Dialect, Encoding, Kind, RdbVersion};

/// What [`Decoder::poll`](crate::Decoder::poll) found.
#[derive(Debug, Clone, PartialEq)]
pub enum Poll {
    /// Nothing more until bytes are fed.
    NeedMore,
    /// The next event.
    Event(Event),
    /// The file ended with its checksum; bytes behind it are left over.
    End,
}

/// What is wanted of the value of the key just given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// The whole body as one [`Event::Raw`] if it has at most `bytes_max` bytes; otherwise its
    /// elements where the encoding decodes, and else the body all the same. A value that some
    /// servers load and others refuse or end over comes in elements, too: a set, sorted set or
    /// hash with a member twice, an intset out of order, a stream that miscounts its messages.
    Raw {
        /// The largest body worth having in one piece.
        bytes_max: u64,
    },
    /// The elements, where the encoding decodes; else the body as [`Event::Raw`].
    Elements,
    /// As [`Want::Elements`], but of a stream without its messages: they are passed over unread,
    /// and what follows them is given.
    Groups,
    /// Nothing.
    Skip,
}

/// A part of a file.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The magic.
    Start {
        /// Whose numbers these are.
        dialect: Dialect,
        /// The version of the format.
        version: RdbVersion,
    },
    /// A note of the writer.
    Aux {
        /// Its name.
        name: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// The keys that follow are in this database.
    SelectDb(Db),
    /// How large the database is: a hint.
    ResizeDb {
        /// Keys.
        keys: u64,
        /// Keys with an expiry.
        expires: u64,
    },
    /// How large a slot is: a hint.
    SlotInfo {
        /// The slot.
        slot: u64,
        /// Its keys.
        keys: u64,
        /// Its keys with an expiry.
        expires: u64,
    },
    /// Slots that are being imported (Valkey).
    SlotImport {
        /// Name of the job.
        job: Bytes,
        /// First and last slot of each range.
        ranges: Vec<(u16, u16)>,
    },
    /// Field names that hashes later in the file refer to by number (Redis).
    HashTemplate {
        /// The number.
        id: u64,
        /// The names.
        fields: Vec<Bytes>,
    },
    /// A library of functions.
    Function {
        /// Its source, header line included.
        code: Bytes,
    },
    /// A library of functions as release candidates of 7.0 wrote it.
    FunctionPreGa {
        /// Its name.
        name: Bytes,
        /// Its engine.
        engine: Bytes,
        /// What it says of itself; boxed, so that an event moves in registers and not by a call.
        description: Option<Box<Bytes>>,
        /// Its source, without a header line.
        code: Bytes,
    },
    /// Data that a module keeps beside the keys.
    ModuleAux {
        /// Name and version of the module's type.
        module: ModuleId,
        /// 1: before the keys; 2: after them.
        when: u64,
        /// The body of the opcode as in the file.
        raw: Bytes,
    },
    /// A key; its value follows as wanted.
    Key(KeyHead),
    /// The value's body as in the file, without type byte and key.
    Raw(Bytes),
    /// A string value that fits into one part.
    String(Bytes),
    /// A value begins.
    ValueStart {
        /// What it is.
        kind: Kind,
        /// Its elements, or a string's bytes, where the file tells beforehand.
        len: Option<u64>,
    },
    /// The next part of a string.
    StringPart(Bytes),
    /// The next item of a list or member of a set.
    Item(Bytes),
    /// The next field of a hash.
    Pair {
        /// The field.
        field: Bytes,
        /// Its value.
        value: Bytes,
        /// When it expires, in Unix time.
        expire_at_ms: Option<u64>,
    },
    /// The next member of a sorted set.
    Scored {
        /// The member.
        member: Bytes,
        /// Its score.
        score: Score,
    },
    /// The next message of a stream; as many [`Event::Pair`]s follow. Ids ascend, deleted messages are left out.
    StreamEntry {
        /// Its id.
        id: StreamId,
        /// Its fields.
        fields: u64,
    },
    /// What a stream says of itself, behind its last message.
    StreamInfo(Box<StreamInfo>),
    /// A group of a stream; its pending messages follow, then its consumers.
    StreamGroup {
        /// Its name.
        name: Bytes,
        /// The last message handed out.
        last_id: StreamId,
        /// Messages read so far; `None` where that is not known or (type 15) not written.
        entries_read: Option<u64>,
        /// How many [`Event::StreamPending`] follow.
        pending: u64,
    },
    /// A message that the group handed out and nobody has acknowledged. It may be deleted by now.
    StreamPending {
        /// Its id.
        id: StreamId,
        /// When it was last handed out, in Unix time.
        delivered_ms: i64,
        /// How often it was handed out.
        deliveries: u64,
    },
    /// A consumer of the group; the pending messages that are its own follow.
    StreamConsumer {
        /// Its name.
        name: Bytes,
        /// When it was last seen, in Unix time.
        seen_ms: i64,
        /// When it last got or claimed a message; `None` for never, or (before type 21) where that is not written.
        active_ms: Option<i64>,
        /// How many [`Event::StreamOwned`] follow.
        pending: u64,
    },
    /// A pending message of the consumer.
    StreamOwned {
        /// Its id.
        id: StreamId,
    },
    /// A pending message of the group that a consumer gave back: nobody owns it (type 27).
    StreamReturned {
        /// Its id.
        id: StreamId,
    },
    /// How a stream recognises messages that are produced twice; behind the groups (from type 26 on).
    StreamIdempotence {
        /// How long a message is remembered.
        duration_seconds: u64,
        /// How many messages of a producer are remembered.
        messages_max: u64,
    },
    /// A producer; the messages remembered of it follow.
    StreamProducer {
        /// Its name.
        name: Bytes,
        /// How many [`Event::StreamProduced`] follow.
        messages: u64,
    },
    /// A message that is remembered.
    StreamProduced {
        /// The producer's own id of it.
        iid: Bytes,
        /// The stream's.
        id: StreamId,
    },
    /// How many messages were remembered, and how many refused as doubles; behind the producers.
    StreamIdempotenceCounts {
        /// Remembered.
        added: u64,
        /// Refused.
        duplicates: u64,
    },
    /// Where the next value of an array would be inserted, less one; only if the array has such a place.
    ArrayInsertIndex(u64),
    /// The next value of an array. Integers and doubles are given as the text that a client sees.
    ArrayItem {
        /// Its place.
        index: u64,
        /// The value.
        value: Bytes,
    },
    /// The type of a module's value; its parts follow.
    ModuleType(ModuleId),
    /// The next part of a module's value.
    ModulePart(ModuleValue),
    /// The value ends.
    ValueEnd,
    /// The checksum was read and, unless it is 0, found right; 0 for a version without one.
    End {
        /// As stored.
        checksum: u64,
    },
}

/// An element of a collection, borrowed: what [`Event::Item`], [`Event::Pair`] and [`Event::Scored`] give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element<'a> {
    /// An item of a list or a member of a set.
    Item(&'a [u8]),
    /// A field of a hash.
    Pair {
        /// The field.
        field: &'a [u8],
        /// Its value.
        value: &'a [u8],
        /// When it expires, in Unix time.
        expire_at_ms: Option<u64>,
    },
    /// A member of a sorted set.
    Scored {
        /// The member.
        member: &'a [u8],
        /// Its score.
        score: Score,
    },
}

/// A key and what the file says of it beside its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyHead {
    /// Its database.
    pub db: Db,
    /// The key.
    pub key: Bytes,
    /// The type byte.
    pub type_id: u8,
    /// What the value is.
    pub kind: Kind,
    /// How it is written.
    pub encoding: Encoding,
    /// When it expires, in Unix time; may be in the past, zero and below.
    pub expire_at_ms: Option<i64>,
    /// How long it was not used (LRU).
    pub idle_seconds: Option<u64>,
    /// How often it is used (LFU).
    pub freq: Option<u8>,
    /// Body of the KEY_META opcode, which belongs into a DUMP payload.
    pub meta: Option<Bytes>,
    /// Offset of its type byte in the file.
    pub at: u64,
}

/// A score: never NaN. Equal when the bits are, so that -0 is not 0.
#[derive(Debug, Clone, Copy)]
pub struct Score(pub f64);

impl PartialEq for Score {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl Eq for Score {}

impl fmt::Display for Score {
    /// The shortest text that reads back as the same score, in a form every server takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magnitude = self.0.abs();
        if magnitude == 0.0 || (1e-5..1e17).contains(&magnitude) || magnitude.is_infinite() {
            write!(f, "{}", self.0)
        } else {
            write!(f, "{:e}", self.0)
        }
    }
}

/// The id of a message in a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Unix time in milliseconds.
    pub ms: u64,
    /// Tells messages of the same millisecond apart.
    pub seq: u64,
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

/// What a stream says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamInfo {
    /// How many messages it says it has, which may differ from those given.
    pub length: u64,
    /// The last id ever given.
    pub last_id: StreamId,
    /// What only layouts from type 19 on have.
    pub counters: Option<StreamCounters>,
    /// How many [`Event::StreamGroup`] follow.
    pub groups: u64,
}

/// Counters of a stream (from type 19 on).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamCounters {
    /// The id of the first message, 0-0 if there is none.
    pub first_id: StreamId,
    /// The highest id that was deleted.
    pub max_deleted_id: StreamId,
    /// Messages ever added.
    pub entries_added: u64,
}

/// A part of what a module writes. Floats are equal when their bits are, NaN to itself above all.
#[derive(Debug, Clone)]
pub enum ModuleValue {
    /// A signed number.
    Signed(i64),
    /// An unsigned number.
    Unsigned(u64),
    /// A float.
    Float(f32),
    /// A double.
    Double(f64),
    /// Bytes.
    String(Bytes),
}

impl PartialEq for ModuleValue {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Signed(one), Self::Signed(other)) => one == other,
            (Self::Unsigned(one), Self::Unsigned(other)) => one == other,
            (Self::Float(one), Self::Float(other)) => one.to_bits() == other.to_bits(),
            (Self::Double(one), Self::Double(other)) => one.to_bits() == other.to_bits(),
            (Self::String(one), Self::String(other)) => one == other,
            _ => false,
        }
    }
}

/// Name and version of a module's type: nine characters of six bits, then ten bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModuleId(pub u64);

impl ModuleId {
    /// The version of the encoding.
    #[must_use]
    pub const fn version(self) -> u64 {
        self.0 & 0x3ff
    }

    /// Writes so many characters of six bits each, the last one lowest.
    pub(crate) fn characters(bits: u64, count: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARSET: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        (0..count).rev().try_for_each(|place| {
            let index = usize::try_from(bits >> (6 * place) & 63).unwrap_or_default();
            let character = CHARSET.get(index).copied().unwrap_or(b'?');
            write!(f, "{}", char::from(character))
        })
    }
}

impl fmt::Display for ModuleId {
    /// The name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Self::characters(self.0 >> 10, 9, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_read_back_as_themselves() {
        for value in [
            0.0,
            -0.0,
            1.0,
            -1.5,
            0.1,
            1e-5,
            1e17,
            1e300,
            -5e-324,
            3.0e-7,
            f64::MAX,
        ] {
            let text = Score(value).to_string();
            assert!(text.len() < 26, "{text}");
            assert_eq!(
                Score(text.parse().expect("a number")),
                Score(value),
                "{text}"
            );
        }
        assert_eq!(Score(f64::INFINITY).to_string(), "inf");
        assert_eq!(Score(f64::NEG_INFINITY).to_string(), "-inf");
        assert_ne!(Score(0.0), Score(-0.0));
    }

    #[test]
    fn events_are_small_enough_to_be_moved_cheaply() {
        assert!(size_of::<Poll>() <= 128, "{} bytes", size_of::<Poll>());
    }

    #[test]
    fn module_names() {
        let name = b"vectorset"
            .iter()
            .fold(0_u64, |id, c| (id << 6) | (u64::from(c - b'a') + 26));
        let id = ModuleId((name << 10) | 3);
        assert_eq!(id.to_string(), "vectorset");
        assert_eq!(id.version(), 3);
    }
}
