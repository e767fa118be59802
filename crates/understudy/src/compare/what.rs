//! In what two values differ.
//!
//! The digests of [`crate::rdb::diff::digest`] say whether two payloads hold the same; where they do not, digests of
//! their parts say which part it is, in words.

use bytes::Bytes;
use rdb::{Event, Kind, Limits, Poll, Score, dump};

use super::look::{Compared, Held};
use crate::rdb::diff::digest::{Difference, Entry, Value};
use crate::rdb::hashing::{Digest, Hashing};
use crate::rdb::names::kind_name;

/// A kind of difference; its name is a label of metrics and a word of reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// The target does not have the key.
    Missing,
    /// The source does not have the key.
    Extra,
    Type,
    /// Other bytes, elements or fields.
    Value,
    /// The elements of a list are the same, in another order.
    Order,
    /// The members of a sorted set are the same, with other scores.
    Score,
    /// The fields of a hash are the same, with other expiries.
    FieldTtl,
    Ttl,
    /// The messages of a stream, or the last id it has given.
    Messages,
    /// The groups of a stream, or where they stand.
    Group,
    /// What is pending in the groups of a stream.
    Pending,
    /// How many messages a stream ever had, or what was deleted.
    Counters,
    /// A library of functions.
    Function,
}

impl What {
    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Extra => "extra",
            Self::Type => "type",
            Self::Value => "value",
            Self::Order => "order",
            Self::Score => "score",
            Self::FieldTtl => "field_ttl",
            Self::Ttl => "ttl",
            Self::Messages => "messages",
            Self::Group => "group",
            Self::Pending => "pending",
            Self::Counters => "counters",
            Self::Function => "function",
        }
    }
}

/// A difference in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) what: What,
    /// The type of the value, as the source has it.
    pub(crate) kind: &'static str,
    pub(crate) detail: String,
}

/// Types up to this one have the same number in both forks.
const SHARED_TYPE_MAX: u8 = 21;

/// How values are read.
#[derive(Debug, Clone)]
pub(super) struct Reading {
    pub(super) hashing: Hashing,
    /// A value that is larger than this in parts is not read.
    pub(super) limits: Limits,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self {
            hashing: Hashing::default(),
            limits: Limits::default(),
        }
    }

    /// Compares two payloads of DUMP, the source's first. Fields of hashes that have expired are none.
    pub(super) fn compare(&self, source: &Bytes, target: &Bytes, now_ms: i64) -> Compared {
        if source == target || are_same(source, target) {
            return Compared::Equal;
        }
        let sides = self
            .value(source, now_ms)
            .and_then(|a| Ok((a, self.value(target, now_ms)?)));
        match sides {
            Ok((a, b)) => match a.entry.differences(&b.entry).first() {
                None => Compared::Equal,
                Some(difference) => Compared::Differs {
                    witness: 0,
                    found: a.found(*difference, &b),
                },
            },
            Err(why) => Compared::Unchecked(why),
        }
    }

    /// Compares a digest of the source's value with a payload of the target's; expiries apart.
    pub(super) fn is_equal(&self, source: &Entry, target: &Bytes, now_ms: i64) -> bool {
        self.value(target, now_ms).is_ok_and(|parts| {
            let differences = source.differences(&parts.entry);
            let mut differences = differences.iter();
            differences.all(|difference| *difference == Difference::Expiry)
        })
    }

    /// The digests of a value of which the payload is at hand.
    fn value(&self, payload: &Bytes, now_ms: i64) -> Result<Parts, String> {
        let cannot = |error: rdb::Error| format!("its payload cannot be read: {error}");
        let mut decoder = dump::decoder(payload, self.limits.clone()).map_err(cannot)?;
        let Poll::Event(Event::Key(head)) = decoder.poll().map_err(cannot)? else {
            return Err("its payload cannot be read: it holds no value".to_owned());
        };
        let mut value = Value::new(&self.hashing, &head);
        let mut parts = PartsUnderWay::new(&self.hashing, head.kind);
        loop {
            match decoder.poll().map_err(cannot)? {
                Poll::Event(event) => {
                    if self.is_nothing(&event, now_ms) {
                        continue;
                    }
                    let event = plain(event);
                    parts.event(&event);
                    if let Some(entry) = value.event(&event) {
                        return Ok(parts.end(entry));
                    }
                }
                Poll::NeedMore => decoder.finish().map_err(cannot)?,
                Poll::End => return Err("its payload cannot be read: it ends early".to_owned()),
            }
        }
    }

    /// Whether a part of a value does not count.
    pub(super) fn is_nothing(&self, event: &Event, now_ms: i64) -> bool {
        match event {
            Event::Pair {
                expire_at_ms: Some(at_ms),
                ..
            } => i64::try_from(*at_ms).is_ok_and(|at_ms| at_ms <= now_ms),
            // A read or claim that finds nothing makes a consumer, and not every source tells its replicas.
            Event::StreamConsumer { pending: 0, .. } => true,
            _ => false,
        }
    }
}

/// Zeros of both signs are one score: a server keeps the sign in one encoding and loses it in another.
pub(super) fn plain(event: Event) -> Event {
    match event {
        Event::Scored { member, score } if score.0 == 0.0 => Event::Scored {
            member,
            score: Score(0.0),
        },
        event => event,
    }
}

/// Whether two payloads have the same bytes but for the version and the checksum behind them.
fn are_same(a: &[u8], b: &[u8]) -> bool {
    const FOOTER: usize = 10;
    let value = |payload: &[u8]| payload.len().checked_sub(FOOTER);
    let (Some(end_a), Some(end_b)) = (value(a), value(b)) else {
        return false;
    };
    end_a == end_b
        && a.get(..end_a) == b.get(..end_b)
        && a.first().is_some_and(|type_id| *type_id <= SHARED_TYPE_MAX)
}

/// The type of what is held, as far as it is known without asking.
pub(super) fn kind_of(held: &Held) -> &'static str {
    match held {
        Held::Whole { payload, .. } => dump::decoder(payload, Limits::default())
            .and_then(|mut decoder| decoder.poll())
            .map_or("", |poll| match poll {
                Poll::Event(Event::Key(head)) => kind_name(head.kind),
                _ => "",
            }),
        Held::Large { .. } | Held::Digested { .. } | Held::Unknown | Held::Nothing => "",
    }
}

/// A value's digest, and those of its parts.
#[derive(Debug)]
struct Parts {
    entry: Entry,
    kind: Kind,
    items: u64,
    /// Elements, members or fields with their values, in any order and without scores or expiries.
    members: u128,
    messages: u128,
    groups: u128,
    pending: u128,
}

impl Parts {
    fn found(&self, difference: Difference, other: &Self) -> Found {
        let is_stream = self.kind == Kind::Stream;
        let have_same_members = self.members == other.members && self.items == other.items;
        let what = match difference {
            Difference::Type => What::Type,
            Difference::Counters => What::Counters,
            Difference::Expiry => What::Ttl,
            Difference::Value if is_stream => self.of_stream(other),
            Difference::Value if have_same_members => match self.kind {
                Kind::List => What::Order,
                Kind::Zset => What::Score,
                Kind::Hash => What::FieldTtl,
                _ => What::Value,
            },
            Difference::Value => What::Value,
        };
        let detail = match what {
            What::Type => format!("{} / {}", kind_name(self.kind), kind_name(other.kind)),
            What::Value | What::Messages if self.items != other.items => {
                let word = match self.kind {
                    Kind::Hash => "fields",
                    Kind::Set | Kind::Zset => "members",
                    Kind::Stream => "messages",
                    Kind::String => "bytes",
                    _ => "elements",
                };
                format!("{} / {} {word}", self.items, other.items)
            }
            _ => String::new(),
        };
        Found {
            what,
            kind: kind_name(self.kind),
            detail,
        }
    }

    fn of_stream(&self, other: &Self) -> What {
        if self.messages != other.messages {
            What::Messages
        } else if self.groups != other.groups {
            What::Group
        } else if self.pending != other.pending {
            What::Pending
        } else {
            What::Value
        }
    }
}

struct PartsUnderWay<'a> {
    hashing: &'a Hashing,
    kind: Kind,
    items: u64,
    members: u128,
    messages: Digest,
    groups: Digest,
    pending: Digest,
}

impl<'a> PartsUnderWay<'a> {
    fn new(hashing: &'a Hashing, kind: Kind) -> Self {
        Self {
            hashing,
            kind,
            items: 0,
            members: 0,
            messages: hashing.begin(),
            groups: hashing.begin(),
            pending: hashing.begin(),
        }
    }

    fn member(&mut self, strings: [&[u8]; 2]) {
        self.items += 1;
        let mut digest = self.hashing.begin();
        strings.iter().for_each(|string| digest.string(string));
        self.members = self.members.wrapping_add(digest.end());
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::String(bytes) | Event::StringPart(bytes) => self.items += bytes.len() as u64,
            Event::Item(item) => self.member([item, b""]),
            Event::Scored { member, .. } => self.member([member, b""]),
            Event::Pair { field, value, .. } if self.kind == Kind::Hash => {
                self.member([field, value]);
            }
            Event::Pair { field, value, .. } => {
                self.messages.string(field);
                self.messages.string(value);
            }
            Event::StreamEntry { id, .. } => {
                self.items += 1;
                [id.ms, id.seq]
                    .iter()
                    .for_each(|n| self.messages.number(*n));
            }
            Event::StreamInfo(info) => {
                let id = info.last_id;
                [id.ms, id.seq]
                    .iter()
                    .for_each(|n| self.messages.number(*n));
            }
            Event::StreamGroup { name, last_id, .. } => {
                let ends = [last_id.ms, last_id.seq];
                self.groups.string(name);
                ends.iter().for_each(|n| self.groups.number(*n));
                self.pending.string(name);
            }
            Event::StreamPending {
                id,
                delivered_ms,
                deliveries,
            } => [id.ms, id.seq, delivered_ms.cast_unsigned(), *deliveries]
                .iter()
                .for_each(|n| self.pending.number(*n)),
            // Whose a pending message is belongs to what is pending.
            Event::StreamConsumer { name, .. } => self.pending.string(name),
            Event::StreamOwned { id } | Event::StreamReturned { id } => {
                [id.ms, id.seq].iter().for_each(|n| self.pending.number(*n));
            }
            _ => {}
        }
    }

    fn end(self, entry: Entry) -> Parts {
        Parts {
            entry,
            kind: self.kind,
            items: self.items,
            members: self.members,
            messages: self.messages.end(),
            groups: self.groups.end(),
            pending: self.pending.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(type_id: u8, body: &[u8], version: u16) -> Bytes {
        let mut out = Vec::new();
        dump::payload(&mut out, None, type_id, body, version);
        out.into()
    }

    fn what(a: &Bytes, b: &Bytes) -> Option<(What, String)> {
        match Reading::new().compare(a, b, 0) {
            Compared::Equal => None,
            Compared::Differs { found, .. } => Some((found.what, found.detail)),
            Compared::Unchecked(why) => panic!("{why}"),
        }
    }

    #[test]
    fn what_differs_is_named() {
        let list = |body: &[u8]| payload(1, body, 9);
        let (ab, ba, a) = (
            list(b"\x02\x01a\x01b"),
            list(b"\x02\x01b\x01a"),
            list(b"\x01\x01a"),
        );
        assert_eq!(what(&ab, &ba).unwrap().0, What::Order);
        let (shorter, detail) = what(&ab, &a).unwrap();
        assert_eq!((shorter, &*detail), (What::Value, "2 / 1 elements"));
        let set = payload(2, b"\x02\x01a\x01b", 9);
        assert_eq!(
            what(&ab, &set).unwrap(),
            (What::Type, "list / set".to_owned())
        );
        let zset = |score: u8| payload(3, &[1, 1, b'm', 1, score], 9);
        assert_eq!(what(&zset(b'1'), &zset(b'2')).unwrap().0, What::Score);
        let zero = |score: f64| payload(5, &[b"\x01\x01m", &score.to_le_bytes()[..]].concat(), 9);
        assert_eq!(what(&zero(0.0), &zero(-0.0)), None);
        let hash = |value: &[u8]| payload(4, &[b"\x01\x01f\x01", value].concat(), 9);
        assert_eq!(what(&hash(b"v"), &hash(b"w")).unwrap().0, What::Value);
    }

    #[test]
    fn encoding_and_version_do_not_matter() {
        let plain = |version| payload(0, b"\x0212", version);
        assert_eq!(what(&plain(6), &plain(11)), None);
        // 12 as an integer.
        assert_eq!(what(&plain(9), &payload(0, b"\xc0\x0c", 9)), None);
        assert_eq!(
            what(
                &payload(2, b"\x02\x01a\x01b", 9),
                &payload(2, b"\x02\x01b\x01a", 9)
            ),
            None
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_called_equal() {
        let odd = Bytes::from_static(b"not a payload at all");
        let good = payload(0, b"\x01a", 9);
        for (a, b) in [(&odd, &good), (&good, &odd)] {
            assert!(matches!(
                Reading::new().compare(a, b, 0),
                Compared::Unchecked(_)
            ));
        }
    }
}
