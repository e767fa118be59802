//! The digest of a value: the same for equal values, however they are written.
//!
//! | value | what goes in |
//! |---|---|
//! | string | its bytes |
//! | list | its items in order |
//! | set | the sum of its members' digests |
//! | zset | the sum of the digests of (member, bits of the score) |
//! | hash | the sum of the digests of (field, value, expiry) |
//! | stream | messages in order, last id; groups with last id, pending messages, consumers and what they own |
//! | array, module | everything in order |
//!
//! A stream's counters are a digest of their own, since older files have none. When a consumer was last seen is left
//! out: reading alone changes it.

use rdb::{Event, KeyHead, Kind, ModuleValue, StreamCounters};

use crate::rdb::hashing::{Digest, Hashing};

/// What is kept of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    pub(crate) expire_at_ms: Option<i64>,
    value: u128,
    /// 0: not in the file.
    counters: u64,
}

/// How two entries of one key differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Difference {
    Type,
    Value,
    Counters,
    Expiry,
}

impl Difference {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Value => "value",
            Self::Counters => "stream counters",
            Self::Expiry => "expiry",
        }
    }
}

impl Entry {
    /// A thing that is no key, by its digest.
    pub(crate) const fn other(value: u128) -> Self {
        Self {
            kind: Kind::String,
            expire_at_ms: None,
            value,
            counters: 0,
        }
    }

    /// What differs, if anything does.
    pub(crate) fn differences(&self, other: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        if self.kind != other.kind {
            found.push(Difference::Type);
        } else if self.value != other.value {
            found.push(Difference::Value);
        } else if self.counters != 0 && other.counters != 0 && self.counters != other.counters {
            found.push(Difference::Counters);
        }
        if self.expire_at_ms != other.expire_at_ms {
            found.push(Difference::Expiry);
        }
        found
    }
}

/// The value under way.
#[derive(Debug)]
pub(crate) struct Value<'a> {
    hashing: &'a Hashing,
    kind: Kind,
    expire_at_ms: Option<i64>,
    /// What stands in an order.
    ordered: Digest,
    /// What stands in none.
    sum: u128,
    counters: u64,
}

impl<'a> Value<'a> {
    pub(crate) fn new(hashing: &'a Hashing, head: &KeyHead) -> Self {
        Self {
            hashing,
            kind: head.kind,
            expire_at_ms: head.expire_at_ms,
            ordered: hashing.begin(),
            sum: 0,
            counters: 0,
        }
    }

    /// Takes an event of the value in; the entry with the last one.
    pub(crate) fn event(&mut self, event: &Event) -> Option<Entry> {
        match event {
            Event::String(bytes) => {
                self.ordered.bytes(bytes);
                return Some(self.end());
            }
            Event::Raw(body) => {
                // Only what has no elements is given so: a mark keeps it apart from what has.
                self.ordered.number(u64::MAX);
                self.ordered.bytes(body);
                return Some(self.end());
            }
            Event::ValueEnd => return Some(self.end()),
            Event::StringPart(part) => self.ordered.bytes(part),
            Event::Item(item) if self.kind == Kind::Set => self.add(|digest| digest.string(item)),
            Event::Item(item) => self.ordered.string(item),
            Event::Scored { member, score } => self.add(|digest| {
                digest.string(member);
                digest.number(score.0.to_bits());
            }),
            Event::Pair {
                field,
                value,
                expire_at_ms,
            } => {
                let pair = |digest: &mut Digest| {
                    digest.string(field);
                    digest.string(value);
                    digest.number(expire_at_ms.unwrap_or(u64::MAX));
                };
                if self.kind == Kind::Hash {
                    self.add(pair);
                } else {
                    pair(&mut self.ordered);
                }
            }
            Event::ArrayInsertIndex(index) => self.tagged(1, &[*index]),
            Event::ArrayItem { index, value } => {
                self.tagged(2, &[*index]);
                self.ordered.string(value);
            }
            Event::ModuleType(module) => self.tagged(3, &[module.0]),
            Event::ModulePart(part) => self.module_part(part),
            event => self.stream(event),
        }
        None
    }

    fn add(&mut self, fill: impl FnOnce(&mut Digest)) {
        let mut digest = self.hashing.begin();
        fill(&mut digest);
        self.sum = self.sum.wrapping_add(digest.end());
    }

    /// Numbers of an event, led by one that no other event has.
    fn tagged(&mut self, tag: u64, numbers: &[u64]) {
        self.ordered.number(tag);
        numbers
            .iter()
            .for_each(|number| self.ordered.number(*number));
    }

    fn module_part(&mut self, part: &ModuleValue) {
        match part {
            ModuleValue::Signed(n) => self.tagged(4, &[n.cast_unsigned()]),
            ModuleValue::Unsigned(n) => self.tagged(5, &[*n]),
            ModuleValue::Float(n) => self.tagged(6, &[u64::from(n.to_bits())]),
            ModuleValue::Double(n) => self.tagged(7, &[n.to_bits()]),
            ModuleValue::String(bytes) => {
                self.tagged(8, &[]);
                self.ordered.string(bytes);
            }
        }
    }

    fn stream(&mut self, event: &Event) {
        match event {
            Event::StreamEntry { id, fields } => self.tagged(10, &[id.ms, id.seq, *fields]),
            Event::StreamInfo(info) => {
                self.tagged(11, &[info.last_id.ms, info.last_id.seq]);
                self.counters = info.counters.map_or(0, |counters| self.counted(counters));
            }
            Event::StreamGroup { name, last_id, .. } => {
                self.tagged(12, &[last_id.ms, last_id.seq]);
                self.ordered.string(name);
            }
            Event::StreamPending {
                id,
                delivered_ms,
                deliveries,
            } => self.tagged(
                13,
                &[id.ms, id.seq, delivered_ms.cast_unsigned(), *deliveries],
            ),
            Event::StreamConsumer { name, .. } => {
                self.tagged(14, &[]);
                self.ordered.string(name);
            }
            Event::StreamOwned { id } => self.tagged(15, &[id.ms, id.seq]),
            Event::StreamReturned { id } => self.tagged(16, &[id.ms, id.seq]),
            Event::StreamProducer { name, .. } => {
                self.tagged(17, &[]);
                self.ordered.string(name);
            }
            Event::StreamProduced { iid, id } => {
                self.tagged(18, &[id.ms, id.seq]);
                self.ordered.string(iid);
            }
            _ => {}
        }
    }

    fn counted(&self, counters: StreamCounters) -> u64 {
        let StreamCounters {
            max_deleted_id,
            entries_added,
            ..
        } = counters;
        let mut digest = self.hashing.begin();
        [max_deleted_id.ms, max_deleted_id.seq, entries_added]
            .iter()
            .for_each(|number| digest.number(*number));
        // The low half of it; 0 says that there are none.
        u64::try_from(digest.end() & u128::from(u64::MAX))
            .unwrap_or_default()
            .max(1)
    }

    fn end(&self) -> Entry {
        Entry {
            kind: self.kind,
            expire_at_ms: self.expire_at_ms,
            value: self.sum.wrapping_add(self.ordered.end()),
            counters: self.counters,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use rdb::{Score, StreamId, StreamInfo};

    use super::*;

    fn head(kind: Kind) -> KeyHead {
        KeyHead {
            db: rdb::Db(0),
            key: Bytes::from_static(b"k"),
            type_id: 0,
            kind,
            encoding: rdb::Encoding::Plain,
            expire_at_ms: None,
            idle_seconds: None,
            freq: None,
            meta: None,
            at: 0,
        }
    }

    fn of(hashing: &Hashing, kind: Kind, events: &[Event]) -> Entry {
        let mut value = Value::new(hashing, &head(kind));
        for event in events {
            assert_eq!(value.event(event), None);
        }
        value.event(&Event::ValueEnd).unwrap()
    }

    fn item(text: &'static str) -> Event {
        Event::Item(Bytes::from_static(text.as_bytes()))
    }

    fn pair(field: &'static str, expire_at_ms: Option<u64>) -> Event {
        let (field, value) = (Bytes::from(field), Bytes::from("v"));
        Event::Pair {
            field,
            value,
            expire_at_ms,
        }
    }

    fn scored(member: &'static str, score: f64) -> Event {
        Event::Scored {
            member: Bytes::from(member),
            score: Score(score),
        }
    }

    #[test]
    fn order_counts_where_it_is_one() {
        let hashing = Hashing::default();
        let of = |kind, events: &[Event]| of(&hashing, kind, events);
        let (ab, ba) = ([item("a"), item("b")], [item("b"), item("a")]);
        assert_eq!(of(Kind::Set, &ab), of(Kind::Set, &ba));
        assert_ne!(of(Kind::List, &ab), of(Kind::List, &ba));
        let (fg, gf) = (
            [pair("f", None), pair("g", Some(1))],
            [pair("g", Some(1)), pair("f", None)],
        );
        assert_eq!(of(Kind::Hash, &fg), of(Kind::Hash, &gf));
        let swapped = [pair("f", Some(1)), pair("g", None)];
        assert_ne!(of(Kind::Hash, &fg), of(Kind::Hash, &swapped));
        let zero = of(Kind::Zset, &[scored("m", 0.0), scored("n", 1.0)]);
        assert_eq!(zero, of(Kind::Zset, &[scored("n", 1.0), scored("m", 0.0)]));
        assert_ne!(zero, of(Kind::Zset, &[scored("n", 1.0), scored("m", -0.0)]));
    }

    #[test]
    fn parts_of_a_string_are_the_string() {
        let hashing = Hashing::default();
        let part = |text| Event::StringPart(Bytes::from_static(text));
        let parts = of(&hashing, Kind::String, &[part(b"ab"), part(b"c")]);
        let mut whole = Value::new(&hashing, &head(Kind::String));
        let whole = whole.event(&Event::String(Bytes::from_static(b"abc")));
        assert_eq!(whole, Some(parts));
    }

    #[test]
    fn counters_that_are_not_there_do_not_differ() {
        let hashing = Hashing::default();
        let stream = |added: Option<u64>| {
            let counters = added.map(|entries_added| StreamCounters {
                first_id: StreamId::default(),
                max_deleted_id: StreamId::default(),
                entries_added,
            });
            let info = StreamInfo {
                length: 0,
                last_id: StreamId::default(),
                counters,
                groups: 0,
            };
            of(&hashing, Kind::Stream, &[Event::StreamInfo(Box::new(info))])
        };
        assert_eq!(stream(None).differences(&stream(Some(3))), []);
        assert_eq!(stream(Some(3)).differences(&stream(Some(3))), []);
        assert_eq!(
            stream(Some(2)).differences(&stream(Some(3))),
            [Difference::Counters]
        );
    }

    #[test]
    fn what_differs_is_named() {
        let hashing = Hashing::default();
        let list = of(&hashing, Kind::List, &[item("a")]);
        let set = of(&hashing, Kind::Set, &[item("a")]);
        let timed = Entry {
            expire_at_ms: Some(1),
            ..of(&hashing, Kind::List, &[item("b")])
        };
        assert_eq!(list.differences(&set), [Difference::Type]);
        assert_eq!(
            list.differences(&timed),
            [Difference::Value, Difference::Expiry]
        );
    }
}
