//! What the decoder says of a file, beside what a server says that holds the same keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use rdb::{Decoder, Event, KeyHead, Kind, Limits, ModuleId, Poll, StreamId, Want};
use testkit::client::{bytes, number, show_bytes};
use testkit::oracle::{
    self, Content, Expiry, Group, KeyState, OracleOptions, Pending, StreamState,
};
use testkit::{Client, Server, argv};

/// A server counts seconds that a key was not used on while we ask.
const IDLE_TOLERANCE_SECONDS: u64 = 5;

type States = BTreeMap<(u32, Vec<u8>), KeyState>;

/// How many keys are the same; or the first that is not.
pub(super) fn same(file: &[u8], server: &Server) -> Result<usize, String> {
    let decoded = decode(file)?;
    // Before anything is read: reading changes how often a key was used.
    hints(&decoded.heads, &mut server.client())?;
    let told = oracle::read_all(&server.address());
    let options = OracleOptions {
        consumer_times: true,
        ..OracleOptions::default()
    };
    for (name, state) in &told {
        let shown = format!("db {} key {}", name.0, show_bytes(&name.1));
        let Some(mine) = decoded.states.get(name) else {
            return Err(format!("{shown}: the decoder has no such key"));
        };
        if let Content::Dump(body) = &mine.content {
            payload(body, name, &mut server.client())
                .map_err(|error| format!("{shown}: {error}"))?;
        } else if let Some(what) = oracle::difference(state, mine, &options) {
            return Err(format!("{shown}: {what} (target: the decoder)"));
        }
    }
    if let Some((db, key)) = decoded.states.keys().find(|name| !told.contains_key(*name)) {
        let shown = show_bytes(key);
        return Err(format!("db {db} key {shown}: the server has no such key"));
    }
    let functions = oracle::read_functions(&server.address());
    let codes: Vec<&Vec<u8>> = functions.values().collect();
    if codes != decoded.functions.iter().collect::<Vec<_>>() {
        return Err("other functions".into());
    }
    Ok(told.len())
}

/// A module's value has no meaning but its bytes: DUMP gives the same, with a footer of ten bytes behind them. What a
/// server has loaded it may write otherwise (a vector set's links): then both are loaded, and told alike.
fn payload(body: &[u8], (db, key): &(u32, Vec<u8>), client: &mut Client) -> Result<(), String> {
    client.select(*db);
    let dump = bytes(client.command(&argv!["DUMP", key]));
    let Some((told, [v0, v1, ..])) = dump.split_last_chunk::<10>() else {
        return Err("the server's DUMP is too short".into());
    };
    if told == body {
        return Ok(());
    }
    let mut mine = [body, &[*v0, *v1]].concat();
    mine.extend(rdb::crc64(0, &mine).to_le_bytes());
    let probe: &[u8] = b"golden:probe";
    let restored = client.try_command(&argv!["RESTORE", probe, "0", mine]);
    restored.map_err(|error| format!("the server does not take the value: {error:?}"))?;
    let again = bytes(client.command(&argv!["DUMP", probe]));
    // A TopK's bytes hold addresses of the process: it is asked for what is in it.
    let mut top = |key: &[u8]| client.try_command(&argv!["TOPK.LIST", key, "WITHCOUNT"]);
    let same =
        again == dump || matches!((top(key), top(probe)), (Ok(one), Ok(other)) if one == other);
    client.command(&argv!["DEL", probe]);
    if same {
        return Ok(());
    }
    Err("the server's DUMP is another".into())
}

/// How long a key was not used, or how often it is.
fn hints(heads: &[KeyHead], client: &mut Client) -> Result<(), String> {
    for head in heads {
        client.select(head.db.0);
        let mut ask = |word: &str| {
            let reply = client.try_command(&argv!["OBJECT", word, head.key.as_ref()]);
            reply
                .ok()
                .as_ref()
                .and_then(number)
                .and_then(|told| u64::try_from(told).ok())
        };
        let shown = show_bytes(&head.key);
        if let Some(freq) = head.freq {
            let told = ask("FREQ");
            if told != Some(u64::from(freq)) {
                return Err(format!(
                    "key {shown}: freq {freq}, the server says {told:?}"
                ));
            }
        }
        if let Some(idle) = head.idle_seconds {
            let told = ask("IDLETIME");
            if told.is_none_or(|told| told.abs_diff(idle) > IDLE_TOLERANCE_SECONDS) {
                return Err(format!(
                    "key {shown}: idle {idle}, the server says {told:?}"
                ));
            }
        }
    }
    Ok(())
}

/// A file, as the decoder sees it.
#[derive(Default)]
struct Decoded {
    states: States,
    heads: Vec<KeyHead>,
    functions: Vec<Vec<u8>>,
}

fn decode(file: &[u8]) -> Result<Decoded, String> {
    let mut decoder = Decoder::new(Limits::default());
    decoder.feed(Bytes::copy_from_slice(file));
    let mut decoded = Decoded::default();
    let mut value: Option<Value> = None;
    loop {
        let event = match decoder.poll() {
            Ok(Poll::Event(event)) => event,
            Ok(Poll::End) => break,
            Ok(Poll::NeedMore) => return Err("the file ends too early".into()),
            Err(error) => return Err(error.to_string()),
        };
        match event {
            Event::Key(head) => {
                decoded.finish(value.take())?;
                // A module's value has no meaning but its bytes.
                decoder.want(if head.kind == Kind::Module {
                    Want::Raw {
                        bytes_max: u64::MAX,
                    }
                } else {
                    Want::Elements
                });
                value = Some(Value::new(head));
            }
            Event::Function { code } => decoded.functions.push(code.to_vec()),
            event => {
                if let Some(value) = &mut value {
                    value.event(event)?;
                }
            }
        }
    }
    decoded.finish(value)?;
    decoded.functions.sort();
    Ok(decoded)
}

impl Decoded {
    fn finish(&mut self, value: Option<Value>) -> Result<(), String> {
        let Some(value) = value else { return Ok(()) };
        let head = value.head;
        let name = (head.db.0, head.key.to_vec());
        let state = KeyState {
            kind: kind_name(&head, &value.content),
            expiry: Expiry {
                at_ms: head.expire_at_ms,
                unsure_ms: 0,
            },
            content: value.content,
        };
        self.heads.push(head);
        match self.states.insert(name, state) {
            None => Ok(()),
            Some(_) => Err("a key comes twice".into()),
        }
    }
}

/// What TYPE says: for a module's value the name of its type, which its body begins with.
fn kind_name(head: &KeyHead, content: &Content) -> String {
    if let Content::Dump(dump) = content
        && let Some(id) = dump.get(2..10).and_then(|id| id.try_into().ok())
    {
        return ModuleId(u64::from_be_bytes(id)).to_string();
    }
    format!("{:?}", head.kind).to_lowercase()
}

/// A value in the making.
struct Value {
    head: KeyHead,
    content: Content,
    /// The group that is under way, and the consumer of it.
    group: Vec<u8>,
    consumer: Vec<u8>,
}

impl Value {
    fn new(head: KeyHead) -> Self {
        let content = match head.kind {
            Kind::String => Content::Text(Vec::new()),
            Kind::List => Content::List(Vec::new()),
            Kind::Set => Content::Set(Default::default()),
            Kind::Zset => Content::Zset(BTreeMap::new()),
            Kind::Hash => Content::Hash(BTreeMap::new()),
            Kind::Stream => Content::Stream(Box::default()),
            // A server says 0 where nothing was inserted yet.
            Kind::Array => Content::Array(Vec::new(), Some(0)),
            Kind::Module | Kind::RateLimiter => Content::None,
        };
        Self {
            head,
            content,
            group: Vec::new(),
            consumer: Vec::new(),
        }
    }

    fn event(&mut self, event: Event) -> Result<(), String> {
        let twice = || Err("an element comes twice".to_owned());
        match (&mut self.content, event) {
            (Content::Text(text), Event::String(part) | Event::StringPart(part)) => {
                text.extend_from_slice(&part);
            }
            (Content::List(items), Event::Item(item)) => items.push(item.to_vec()),
            (Content::Set(set), Event::Item(item)) => {
                let is_new = set.insert(item.to_vec());
                if !is_new {
                    return twice();
                }
            }
            (Content::Zset(scores), Event::Scored { member, score }) => {
                let before = scores.insert(member.to_vec(), score.0.to_bits());
                if before.is_some() {
                    return twice();
                }
            }
            (
                Content::Hash(fields),
                Event::Pair {
                    field,
                    value,
                    expire_at_ms,
                },
            ) => {
                let death = expire_at_ms.and_then(|at_ms| i64::try_from(at_ms).ok());
                let value = (value.to_vec(), death);
                if fields.insert(field.to_vec(), value).is_some() {
                    return twice();
                }
            }
            (Content::Array(values, _), Event::ArrayItem { index, value }) => {
                values.extend([index.to_string().into_bytes(), value.to_vec()]);
            }
            (Content::Array(_, next), Event::ArrayInsertIndex(last)) => {
                *next = i64::try_from(last)
                    .ok()
                    .and_then(|last| last.checked_add(1));
            }
            (Content::Stream(stream), event) => {
                part(stream, &mut self.group, &mut self.consumer, event)?;
            }
            (content @ Content::None, Event::Raw(raw)) => {
                *content = Content::Dump([&[self.head.type_id], raw.as_ref()].concat());
            }
            (_, Event::ValueStart { .. } | Event::ValueEnd) => {}
            (_, Event::Raw(_)) => return Err(format!("{:?} is not decoded", self.head.encoding)),
            // Between keys: hints, notes, the end.
            _ => {}
        }
        Ok(())
    }
}

/// A part of a stream.
fn part(
    stream: &mut StreamState,
    group_name: &mut Vec<u8>,
    consumer_name: &mut Vec<u8>,
    event: Event,
) -> Result<(), String> {
    let group = |stream: &mut StreamState, name: &[u8]| -> Group {
        stream.groups.get(name).cloned().unwrap_or_default()
    };
    match event {
        Event::StreamEntry { id, .. } => stream.entries.push((id.to_string(), Vec::new())),
        Event::Pair { field, value, .. } => match stream.entries.last_mut() {
            Some((_, fields)) => fields.extend([field.to_vec(), value.to_vec()]),
            None => return Err("a field before the first message".into()),
        },
        Event::StreamInfo(info) => {
            stream.last_id = info.last_id.to_string();
            if let Some(counters) = info.counters {
                stream.max_deleted_id = Some(counters.max_deleted_id.to_string());
                stream.recorded_first_id = Some(counters.first_id.to_string());
                stream.entries_added = i64::try_from(counters.entries_added).ok();
            }
        }
        Event::StreamGroup {
            name,
            last_id,
            entries_read,
            ..
        } => {
            *group_name = name.to_vec();
            let counted = stream.entries_added.is_some();
            let entries_read = entries_read.and_then(|read| i64::try_from(read).ok());
            let group = Group {
                last_id: last_id.to_string(),
                entries_read: counted.then_some(entries_read),
                ..Group::default()
            };
            stream.groups.insert(group_name.clone(), group);
        }
        Event::StreamPending {
            id,
            delivered_ms,
            deliveries,
        } => {
            let pending = Pending {
                consumer: Vec::new(),
                delivered_at_ms: delivered_ms,
                unsure_ms: 0,
                deliveries: i64::try_from(deliveries).unwrap_or(i64::MAX),
            };
            let mut of = group(stream, group_name);
            of.pending.insert(id.to_string(), pending);
            stream.groups.insert(group_name.clone(), of);
        }
        Event::StreamConsumer {
            name,
            seen_ms,
            active_ms,
            ..
        } => {
            *consumer_name = name.to_vec();
            let mut of = group(stream, group_name);
            let times = (Some(seen_ms), active_ms);
            of.consumers.insert(name.to_vec(), times);
            stream.groups.insert(group_name.clone(), of);
        }
        Event::StreamOwned { id } => owned(stream, group_name, consumer_name, id)?,
        event => produced(stream, event),
    }
    Ok(())
}

fn owned(
    stream: &mut StreamState,
    group: &[u8],
    consumer: &[u8],
    id: StreamId,
) -> Result<(), String> {
    let group = stream.groups.get_mut(group);
    let pending = group.and_then(|group| group.pending.get_mut(&id.to_string()));
    match pending {
        Some(pending) if pending.consumer.is_empty() => pending.consumer = consumer.to_vec(),
        Some(_) => return Err(format!("{id} has two owners")),
        None => return Err(format!("{id} is owned and not pending")),
    }
    Ok(())
}

fn produced(stream: &mut StreamState, event: Event) {
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let facts = match event {
        Event::StreamIdempotence {
            duration_seconds,
            messages_max,
        } => vec![
            ("idmp-duration", number(duration_seconds)),
            ("idmp-maxsize", number(messages_max)),
            ("pids-tracked", 0),
            ("iids-tracked", 0),
        ],
        Event::StreamProducer { .. } => vec![("pids-tracked", 1)],
        Event::StreamProduced { .. } => vec![("iids-tracked", 1)],
        Event::StreamIdempotenceCounts { added, duplicates } => vec![
            ("iids-added", number(added)),
            ("iids-duplicates", number(duplicates)),
        ],
        _ => return,
    };
    for (name, value) in facts {
        let told = if name == "iids-added" || name == "iids-duplicates" {
            &mut stream.idempotence_counts
        } else {
            &mut stream.idempotence
        };
        *told.get_or_insert_default().entry(name).or_insert(0) += value;
    }
}
