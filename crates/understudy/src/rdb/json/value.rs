//! A value as JSON, event by event: nothing of it is held.

use rdb::{Event, Kind, Score, StreamCounters, StreamId, StreamInfo};

use super::module_part;
use crate::rdb::text;

/// A bracket that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// A list, a set or a sorted set.
    Items,
    /// A hash.
    Fields,
    /// A value that is an object of several members.
    Object,
    /// A list that is its object's last member.
    List,
    /// An object that ends with a list.
    ObjectWithList,
    Groups,
    Group,
    Pending,
    Consumers,
    Returned,
    Idempotence,
    Producers,
}

impl Level {
    /// How it ends, and what is opened with that.
    const fn end(self) -> (&'static str, Option<Self>) {
        match self {
            Self::Items | Self::List | Self::Groups | Self::Returned | Self::Producers => {
                ("]", None)
            }
            Self::Fields | Self::Object | Self::Group | Self::Idempotence => ("}", None),
            Self::ObjectWithList => ("]}", None),
            Self::Pending => ("],\"consumers\":[", Some(Self::Consumers)),
            Self::Consumers => ("],\"returned\":[", Some(Self::Returned)),
        }
    }
}

/// The value under way.
#[derive(Debug, Default)]
pub(super) struct Value {
    open: Vec<Level>,
    /// Nothing stands in the innermost bracket yet.
    first: bool,
    long: Option<text::Long>,
}

impl Value {
    /// Appends what an event adds to a key's line; false if it is no part of a value.
    pub(super) fn event(&mut self, event: &Event, out: &mut Vec<u8>) -> bool {
        match event {
            Event::String(value) => {
                text::string(out, value);
                put(out, "}\n");
            }
            Event::Raw(body) => {
                put(out, "{\"raw\":");
                text::string(out, body);
                put(out, "}}\n");
            }
            Event::ValueStart { kind, .. } => self.start(*kind, out),
            Event::StringPart(part) => {
                if let Some(long) = &mut self.long {
                    long.add(out, part);
                }
            }
            Event::Item(item) => {
                self.comma(out);
                text::string(out, item);
            }
            Event::Scored { member, score } => {
                self.comma(out);
                out.push(b'[');
                text::string(out, member);
                out.push(b',');
                put_score(out, *score);
                out.push(b']');
            }
            Event::Pair {
                field,
                value,
                expire_at_ms,
            } => self.pair(field, value, *expire_at_ms, out),
            Event::ArrayInsertIndex(index) => {
                self.to(Level::Object, out);
                put(out, &format!(",\"insert_index\":{index}"));
            }
            Event::ArrayItem { index, value } => {
                self.comma(out);
                put(out, &format!("[{index},"));
                text::string(out, value);
                out.push(b']');
            }
            Event::ModuleType(module) => {
                put(
                    out,
                    &format!(
                        "{{\"module\":\"{module}\",\"version\":{},\"parts\":[",
                        module.version()
                    ),
                );
                self.enter(Level::ObjectWithList);
            }
            Event::ModulePart(part) => {
                self.comma(out);
                module_part(out, part);
            }
            Event::ValueEnd => self.end(out),
            event => return self.stream(event, out),
        }
        true
    }

    fn start(&mut self, kind: Kind, out: &mut Vec<u8>) {
        match kind {
            Kind::String => self.long = Some(text::Long::begin(out)),
            Kind::List | Kind::Set | Kind::Zset => {
                out.push(b'[');
                self.enter(Level::Items);
            }
            Kind::Hash => {
                out.push(b'{');
                self.enter(Level::Fields);
            }
            Kind::Stream => {
                put(out, "{\"entries\":[");
                self.enter(Level::Object);
                self.enter(Level::List);
            }
            Kind::Array => {
                put(out, "{\"items\":[");
                self.enter(Level::Object);
                self.enter(Level::List);
            }
            // A module's value opens with its type.
            Kind::Module | Kind::RateLimiter => {}
        }
    }

    /// A field of a hash, or of a message of a stream, where it may stand twice.
    fn pair(&mut self, field: &[u8], value: &[u8], expire: Option<u64>, out: &mut Vec<u8>) {
        self.comma(out);
        if self.open.last() == Some(&Level::ObjectWithList) {
            out.push(b'[');
            text::string(out, field);
            out.push(b',');
            text::string(out, value);
            out.push(b']');
            return;
        }
        text::string(out, field);
        out.push(b':');
        match expire {
            None => text::string(out, value),
            Some(at) => {
                put(out, "{\"value\":");
                text::string(out, value);
                put(out, &format!(",\"expire_at_ms\":{at}}}"));
            }
        }
    }

    fn stream(&mut self, event: &Event, out: &mut Vec<u8>) -> bool {
        match event {
            Event::StreamEntry { id, .. } => {
                self.next_in(Level::List, out);
                put(out, &format!("{{\"id\":\"{id}\",\"fields\":["));
                self.enter(Level::ObjectWithList);
            }
            Event::StreamInfo(info) => {
                self.to(Level::Object, out);
                put_info(out, info);
                put(out, ",\"groups\":[");
                self.enter(Level::Groups);
            }
            Event::StreamGroup {
                name,
                last_id,
                entries_read,
                ..
            } => {
                self.next_in(Level::Groups, out);
                put(out, "{\"name\":");
                text::string(out, name);
                let read = or_null(*entries_read);
                put(
                    out,
                    &format!(",\"last_id\":\"{last_id}\",\"entries_read\":{read},\"pending\":["),
                );
                self.enter(Level::Group);
                self.enter(Level::Pending);
            }
            Event::StreamPending {
                id,
                delivered_ms,
                deliveries,
            } => {
                self.comma(out);
                let text = format!(
                    "{{\"id\":\"{id}\",\"delivered_ms\":{delivered_ms},\"deliveries\":{deliveries}}}"
                );
                put(out, &text);
            }
            Event::StreamConsumer {
                name,
                seen_ms,
                active_ms,
                ..
            } => {
                self.next_in(Level::Consumers, out);
                put(out, "{\"name\":");
                text::string(out, name);
                let active = or_null(*active_ms);
                put(
                    out,
                    &format!(",\"seen_ms\":{seen_ms},\"active_ms\":{active},\"pending\":["),
                );
                self.enter(Level::ObjectWithList);
            }
            Event::StreamOwned { id } => self.id(*id, out),
            Event::StreamReturned { id } => {
                self.to(Level::Returned, out);
                self.id(*id, out);
            }
            event => return self.idempotence(event, out),
        }
        true
    }

    fn idempotence(&mut self, event: &Event, out: &mut Vec<u8>) -> bool {
        match event {
            Event::StreamIdempotence {
                duration_seconds,
                messages_max,
            } => {
                self.to(Level::Object, out);
                let text = format!(
                    ",\"idempotence\":{{\"duration_seconds\":{duration_seconds},\
                     \"messages_max\":{messages_max},\"producers\":["
                );
                put(out, &text);
                self.enter(Level::Idempotence);
                self.enter(Level::Producers);
            }
            Event::StreamProducer { name, .. } => {
                self.next_in(Level::Producers, out);
                put(out, "{\"name\":");
                text::string(out, name);
                put(out, ",\"messages\":[");
                self.enter(Level::ObjectWithList);
            }
            Event::StreamProduced { iid, id } => {
                self.comma(out);
                put(out, "{\"iid\":");
                text::string(out, iid);
                put(out, &format!(",\"id\":\"{id}\"}}"));
            }
            Event::StreamIdempotenceCounts { added, duplicates } => {
                self.to(Level::Idempotence, out);
                put(
                    out,
                    &format!(",\"added\":{added},\"duplicates\":{duplicates}"),
                );
            }
            _ => return false,
        }
        true
    }

    fn id(&mut self, id: StreamId, out: &mut Vec<u8>) {
        self.comma(out);
        put(out, &format!("\"{id}\""));
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if let Some(mut long) = self.long.take() {
            long.end(out);
        }
        while !self.open.is_empty() {
            self.close(out);
        }
        put(out, "}\n");
    }

    fn enter(&mut self, level: Level) {
        self.open.push(level);
        self.first = true;
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some((end, next)) = self.open.pop().map(Level::end) else {
            return;
        };
        put(out, end);
        // What holds it has it as a member.
        self.first = false;
        if let Some(next) = next {
            self.enter(next);
        }
    }

    /// Closes what is within this level; it is open.
    fn to(&mut self, level: Level, out: &mut Vec<u8>) {
        while self.open.last().is_some_and(|open| *open != level) {
            self.close(out);
        }
    }

    fn next_in(&mut self, level: Level, out: &mut Vec<u8>) {
        self.to(level, out);
        self.comma(out);
    }

    fn comma(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.first, false) {
            out.push(b',');
        }
    }
}

fn put(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(text.as_bytes());
}

fn or_null(number: Option<impl ToString>) -> String {
    number.map_or_else(|| "null".to_owned(), |number| number.to_string())
}

fn put_score(out: &mut Vec<u8>, score: Score) {
    if score.0.is_finite() {
        put(out, &score.to_string());
    } else {
        put(out, &format!("\"{score}\""));
    }
}

fn put_info(out: &mut Vec<u8>, info: &StreamInfo) {
    let StreamInfo {
        length, last_id, ..
    } = info;
    put(
        out,
        &format!(",\"length\":{length},\"last_id\":\"{last_id}\""),
    );
    if let Some(StreamCounters {
        first_id,
        max_deleted_id,
        entries_added,
    }) = info.counters
    {
        let text = format!(
            ",\"first_id\":\"{first_id}\",\"max_deleted_id\":\"{max_deleted_id}\",\"entries_added\":{entries_added}"
        );
        put(out, &text);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn value(events: &[Event]) -> serde_json::Value {
        let (mut value, mut out) = (Value::default(), b"{\"value\":".to_vec());
        for event in events {
            assert!(value.event(event, &mut out), "{event:?}");
        }
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with('\n') && value.open.is_empty());
        let mut line: serde_json::Value =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        line["value"].take()
    }

    fn start(kind: Kind) -> Event {
        Event::ValueStart { kind, len: None }
    }

    fn text(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn pair(field: &'static str, expire_at_ms: Option<u64>) -> Event {
        let (field, value) = (text(field), text("v"));
        Event::Pair {
            field,
            value,
            expire_at_ms,
        }
    }

    const fn id(ms: u64) -> StreamId {
        StreamId { ms, seq: 1 }
    }

    #[test]
    fn plain_values() {
        let item = |name| Event::Item(text(name));
        let list = [start(Kind::List), item("a"), item("b"), Event::ValueEnd];
        assert_eq!(value(&list), serde_json::json!(["a", "b"]));
        let scored = |score| Event::Scored {
            member: text("m"),
            score: Score(score),
        };
        let scores = [f64::INFINITY, -0.0, 1e300, 0.1].map(scored).to_vec();
        let zset = [vec![start(Kind::Zset)], scores, vec![Event::ValueEnd]].concat();
        assert_eq!(
            value(&zset).to_string(),
            "[[\"m\",\"inf\"],[\"m\",-0.0],[\"m\",1e+300],[\"m\",0.1]]"
        );
        let hash = [
            start(Kind::Hash),
            pair("f", None),
            pair("t", Some(7)),
            Event::ValueEnd,
        ];
        assert_eq!(
            value(&hash),
            serde_json::json!({"f": "v", "t": {"value": "v", "expire_at_ms": 7}})
        );
        assert_eq!(value(&[Event::String(text("s"))]), "s");
        let parts = ["ab", "cd"].map(|part| Event::StringPart(text(part)));
        let long = [start(Kind::String), parts[0].clone(), parts[1].clone()];
        let long = [&long[..], &[Event::ValueEnd]].concat();
        assert_eq!(value(&long), "base64:YWJjZA==");
    }

    #[test]
    fn arrays_and_modules() {
        let item = |index| Event::ArrayItem {
            index,
            value: text("v"),
        };
        let array = [start(Kind::Array), item(0), item(9), Event::ValueEnd];
        assert_eq!(
            value(&array),
            serde_json::json!({"items": [[0, "v"], [9, "v"]]})
        );
        use rdb::{ModuleId, ModuleValue};
        let module = [
            start(Kind::Module),
            Event::ModuleType(ModuleId(1)),
            Event::ModulePart(ModuleValue::Signed(-1)),
            Event::ModulePart(ModuleValue::Double(f64::NAN)),
            Event::ModulePart(ModuleValue::Float(0.5)),
            Event::ModulePart(ModuleValue::String(text("s"))),
            Event::ValueEnd,
        ];
        assert_eq!(
            value(&module),
            serde_json::json!({
                "module": "AAAAAAAAA", "version": 1,
                "parts": [{"signed": -1}, {"double": "NaN"}, {"float": 0.5}, {"string": "s"}]
            })
        );
    }

    fn info(groups: u64) -> Event {
        Event::StreamInfo(Box::new(StreamInfo {
            length: 1,
            last_id: id(5),
            counters: None,
            groups,
        }))
    }

    #[test]
    fn a_stream_with_everything() {
        let pending = |ms| Event::StreamPending {
            id: id(ms),
            delivered_ms: 9,
            deliveries: 2,
        };
        let group = |name| Event::StreamGroup {
            name: text(name),
            last_id: id(5),
            entries_read: None,
            pending: 0,
        };
        let consumer = |name| Event::StreamConsumer {
            name: text(name),
            seen_ms: 3,
            active_ms: None,
            pending: 1,
        };
        let events = [
            start(Kind::Stream),
            Event::StreamEntry {
                id: id(5),
                fields: 2,
            },
            pair("f", None),
            pair("f", None),
            info(2),
            group("g"),
            pending(4),
            pending(5),
            consumer("c"),
            Event::StreamOwned { id: id(4) },
            consumer("idle"),
            Event::StreamReturned { id: id(5) },
            group("empty"),
            Event::StreamIdempotence {
                duration_seconds: 100,
                messages_max: 10,
            },
            Event::StreamProducer {
                name: text("p"),
                messages: 1,
            },
            Event::StreamProduced {
                iid: text("i"),
                id: id(5),
            },
            Event::StreamIdempotenceCounts {
                added: 1,
                duplicates: 0,
            },
            Event::ValueEnd,
        ];
        let pel =
            |ms| serde_json::json!({"id": format!("{ms}-1"), "delivered_ms": 9, "deliveries": 2});
        let expected = serde_json::json!({
            "entries": [{"id": "5-1", "fields": [["f", "v"], ["f", "v"]]}],
            "length": 1, "last_id": "5-1",
            "groups": [
                {"name": "g", "last_id": "5-1", "entries_read": null, "pending": [pel(4), pel(5)],
                 "consumers": [
                    {"name": "c", "seen_ms": 3, "active_ms": null, "pending": ["4-1"]},
                    {"name": "idle", "seen_ms": 3, "active_ms": null, "pending": []}],
                 "returned": ["5-1"]},
                {"name": "empty", "last_id": "5-1", "entries_read": null, "pending": [],
                 "consumers": [], "returned": []}],
            "idempotence": {"duration_seconds": 100, "messages_max": 10, "added": 1, "duplicates": 0,
                "producers": [{"name": "p", "messages": [{"iid": "i", "id": "5-1"}]}]}
        });
        assert_eq!(value(&events), expected);
        let empty = [start(Kind::Stream), info(0), Event::ValueEnd];
        let expected =
            serde_json::json!({"entries": [], "length": 1, "last_id": "5-1", "groups": []});
        assert_eq!(value(&empty), expected);
    }
}
