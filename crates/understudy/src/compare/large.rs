//! Values that are too large to be dumped, compared piece by piece in bounded memory.
//!
//! What has an order (strings, lists, messages, what is pending) is read at both ends page by page. What has none (sets,
//! sorted sets, hashes) is scanned at the source, and each page is looked up at the target; with equal sizes, all of the
//! one being in the other makes them equal. Where fields can expire, sizes do not tell, and it is done both ways. Nothing here is read at one moment: a value that is written meanwhile may
//! seem to differ, and is looked at again in the next round.

use bytes::Bytes;
use resp::{ErrorCode, ErrorReply, Value};

use super::end::End;
use super::look::{Compared, Comparer, Name};
use super::what::{Found, What};
use crate::error::{Side, SyncError};

/// Bytes of a string that are read at once.
const PART_BYTES: usize = 256 << 10;
/// Elements that are read at once.
const PAGE: usize = 256;
/// Elements that count as one key for the rate.
const ELEMENTS_A_KEY: usize = 16;
/// How far apart the times of delivery may be: servers tell only how long ago they are.
const IDLE_SLACK_MS: u64 = 2_000;

/// Compares a value of both ends.
pub(super) async fn compare(c: &mut Comparer, name: &Name) -> Result<Compared, SyncError> {
    let (db, key) = (name.0, &name.1);
    let argv: &[&[u8]] = &[b"TYPE", key];
    let types = both(c, db, argv, argv).await?;
    let Some((Value::Simple(a), Value::Simple(b))) = types else {
        return Ok(Compared::Unchecked("TYPE was refused".to_owned()));
    };
    let kind = kind_word(&a);
    if let (Some(streams), "stream") = (&mut c.streams, kind) {
        streams.push(name.clone());
    }
    let mut walk = Walk {
        c,
        db,
        key,
        kind,
        witness: None,
        refused: None,
    };
    if a != b {
        let detail = format!("{kind} / {}", kind_word(&b));
        return Ok(walk.differs(&[&a], What::Type, detail));
    }
    let result = match kind {
        "string" => walk.string().await?,
        "list" => walk.list().await?,
        "set" | "zset" | "hash" => walk.collection().await?,
        "stream" => walk.stream().await?,
        // Gone at both ends.
        "none" => Some(Compared::Equal),
        _ => walk.whole().await?,
    };
    Ok(match (result, walk.refused.take()) {
        (Some(compared), _) => compared,
        (None, Some(refusal)) => Compared::Unchecked(refusal),
        (None, None) => Compared::Unchecked(format!(
            "a piece of it is larger than {} bytes",
            super::look::REPLY_BYTES_MAX
        )),
    })
}

/// What an error tells of a value: `None` where it is gone, or has become another one; else why nothing can be said of it.
pub(super) fn refusal(command: &[u8], error: &ErrorReply) -> Option<String> {
    let text = String::from_utf8_lossy(&error.text);
    let is_changed = matches!(error.code, ErrorCode::WrongType | ErrorCode::NoGroup)
        || text.to_ascii_lowercase().contains("no such key");
    let command = String::from_utf8_lossy(command);
    (!is_changed).then(|| format!("{command} was refused: {text}"))
}

fn kind_word(name: &[u8]) -> &'static str {
    const KNOWN: [&str; 8] = [
        "string", "list", "set", "zset", "hash", "stream", "array", "none",
    ];
    let known = KNOWN.iter().find(|known| known.as_bytes() == name);
    known.copied().unwrap_or("module")
}

/// Asks both ends; none where an answer was too long.
async fn both(
    c: &mut Comparer,
    db: u32,
    source: &[&[u8]],
    target: &[&[u8]],
) -> Result<Option<(Value, Value)>, SyncError> {
    let (source, target) = tokio::join!(c.source.one(db, source), c.target.one(db, target));
    let source = fitting(&mut c.source, source)?;
    let target = fitting(&mut c.target, target)?;
    Ok(source.zip(target))
}

/// None for an answer that was too long.
fn fitting<T>(end: &mut End, answer: Result<T, SyncError>) -> Result<Option<T>, SyncError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(_) if end.take_overrun() => Ok(None),
        Err(error) => Err(error),
    }
}

fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

fn bytes(value: &Value) -> Bytes {
    match value {
        Value::Bulk(bytes) | Value::Simple(bytes) => bytes.clone(),
        Value::Int(number) => number.to_string().into(),
        _ => Bytes::new(),
    }
}

/// One value on its way.
struct Walk<'a> {
    c: &'a mut Comparer,
    db: u32,
    key: &'a Bytes,
    kind: &'static str,
    /// The smallest digest of what differs, so that it is the same in whatever order it comes.
    witness: Option<(u128, What, String)>,
    /// What an end does not let us ask.
    refused: Option<String>,
}

impl Walk<'_> {
    fn note(&mut self, source: &[&[u8]], what: What, detail: String) {
        let mut digest = self.c.reading.hashing.begin();
        source.iter().for_each(|part| digest.string(part));
        let digest = digest.end().max(1);
        if self
            .witness
            .as_ref()
            .is_none_or(|(least, ..)| digest < *least)
        {
            self.witness = Some((digest, what, detail));
        }
    }

    fn differs(&mut self, source: &[&[u8]], what: What, detail: String) -> Compared {
        self.note(source, what, detail);
        self.end()
    }

    fn end(&mut self) -> Compared {
        match self.witness.take() {
            None => Compared::Equal,
            Some((witness, what, detail)) => Compared::Differs {
                witness,
                found: Found {
                    what,
                    kind: self.kind,
                    detail,
                },
            },
        }
    }

    /// The same question for both ends.
    async fn both(&mut self, argv: &[&[u8]]) -> Result<Option<(Value, Value)>, SyncError> {
        let answers = both(self.c, self.db, argv, argv).await?;
        let Some((a, b)) = &answers else {
            return Ok(None);
        };
        Ok(match self.is_refused(argv, &[a, b]) {
            true => None,
            false => answers,
        })
    }

    /// Whether nothing can be said of the value. Two ends that refuse alike do not hold the same for that.
    fn is_refused(&mut self, argv: &[&[u8]], answers: &[&Value]) -> bool {
        let command = argv.first().copied().unwrap_or_default();
        let errors = answers.iter().filter_map(|answer| answer.as_error());
        for error in errors {
            match refusal(command, error) {
                None => self.note(&[b"type"], What::Value, "was replaced".to_owned()),
                refused => self.refused = self.refused.take().or(refused),
            }
        }
        self.refused.is_some()
    }

    /// How many there are, at both ends; whether that is equal.
    async fn sizes(&mut self, command: &[u8], word: &str) -> Result<Option<bool>, SyncError> {
        let key = self.key.clone();
        let Some((a, b)) = self.both(&[command, &key]).await? else {
            return Ok(None);
        };
        if a != b {
            let (a, b) = (bytes(&a), bytes(&b));
            let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
            let detail = format!("{} / {} {word}", text(&a), text(&b));
            let what = match self.kind {
                "stream" => What::Messages,
                _ => What::Value,
            };
            self.note(&[&a], what, detail);
            return Ok(Some(false));
        }
        Ok(Some(true))
    }

    async fn string(&mut self) -> Result<Option<Compared>, SyncError> {
        match self.sizes(b"STRLEN", "bytes").await? {
            Some(true) => {}
            other => return Ok(other.map(|_| self.end())),
        }
        let key = self.key.clone();
        let mut from = 0_usize;
        loop {
            let (first, last) = (from.to_string(), (from + PART_BYTES - 1).to_string());
            let argv: [&[u8]; 4] = [b"GETRANGE", &key, first.as_bytes(), last.as_bytes()];
            self.c.limiter.take(4).await;
            let Some((a, b)) = self.both(&argv).await? else {
                return Ok(None);
            };
            let (a, b) = (bytes(&a), bytes(&b));
            if a != b {
                let detail = format!("between bytes {from} and {}", from + PART_BYTES);
                return Ok(Some(self.differs(&[&a], What::Value, detail)));
            }
            if a.len() < PART_BYTES {
                return Ok(Some(self.end()));
            }
            from += a.len();
        }
    }

    async fn list(&mut self) -> Result<Option<Compared>, SyncError> {
        match self.sizes(b"LLEN", "elements").await? {
            Some(true) => {}
            other => return Ok(other.map(|_| self.end())),
        }
        let key = self.key.clone();
        let (mut from, mut page) = (0_usize, PAGE);
        loop {
            let (first, last) = (from.to_string(), (from + page - 1).to_string());
            let argv: [&[u8]; 4] = [b"LRANGE", &key, first.as_bytes(), last.as_bytes()];
            self.c.limiter.take(page / ELEMENTS_A_KEY).await;
            let Some((a, b)) = self.both(&argv).await? else {
                if page == 1 || self.refused.is_some() {
                    return Ok(None);
                }
                page = (page / 8).max(1);
                continue;
            };
            let (a, b) = (items(a), items(b));
            let differing = a.iter().zip(&b).position(|(a, b)| a != b);
            if a.len() != b.len() || differing.is_some() {
                let at = differing.unwrap_or(a.len().min(b.len()));
                let source = a.get(at).map_or(Bytes::new(), bytes);
                let detail = format!("from element {} on", from + at);
                let place = (from + at).to_string();
                return Ok(Some(self.differs(
                    &[place.as_bytes(), &source],
                    What::Value,
                    detail,
                )));
            }
            if a.is_empty() {
                return Ok(Some(self.end()));
            }
            from += a.len();
        }
    }

    /// Sets, sorted sets and hashes.
    async fn collection(&mut self) -> Result<Option<Compared>, SyncError> {
        let (size, word): (&[u8], &str) = match self.kind {
            "set" => (b"SCARD", "members"),
            "zset" => (b"ZCARD", "members"),
            _ => (b"HLEN", "fields"),
        };
        // Fields that have expired are counted until somebody removes them: numbers say nothing there.
        let is_counted = self.kind != "hash"
            || !(has_field_ttl(&self.c.source) || has_field_ttl(&self.c.target));
        if is_counted && self.sizes(size, word).await?.is_none() {
            return Ok(None);
        }
        if self.scan(Side::Source).await?.is_none() {
            return Ok(None);
        }
        if !is_counted && self.witness.is_none() && self.scan(Side::Target).await?.is_none() {
            return Ok(None);
        }
        Ok(Some(self.end()))
    }

    /// Looks all that one end has up at the other.
    async fn scan(&mut self, side: Side) -> Result<Option<()>, SyncError> {
        let scan: &[u8] = match self.kind {
            "set" => b"SSCAN",
            "zset" => b"ZSCAN",
            _ => b"HSCAN",
        };
        let key = self.key.clone();
        let mut cursor = Bytes::from_static(b"0");
        loop {
            let page = PAGE.to_string();
            let argv: [&[u8]; 5] = [scan, &key, &cursor, b"COUNT", page.as_bytes()];
            self.c.limiter.take(PAGE / ELEMENTS_A_KEY).await;
            let end = self.c.end(side);
            let scanned = end.one(self.db, &argv).await;
            let Some(scanned) = fitting(end, scanned)? else {
                return Ok(None);
            };
            if self.is_refused(&argv, &[&scanned]) {
                return Ok(None);
            }
            let mut scanned = items(scanned).into_iter();
            let (Some(next), Some(found)) = (scanned.next(), scanned.next()) else {
                // It has become another type.
                self.note(&[b"type"], What::Value, "was replaced".to_owned());
                return Ok(Some(()));
            };
            let found: Vec<Bytes> = items(found).iter().map(bytes).collect();
            if !found.is_empty() && self.page(&found, side).await?.is_none() {
                return Ok(None);
            }
            cursor = bytes(&next);
            if cursor.as_ref() == b"0" {
                return Ok(Some(()));
            }
        }
    }

    /// Looks a page of one end's up at the other.
    async fn page(&mut self, found: &[Bytes], side: Side) -> Result<Option<()>, SyncError> {
        let key = self.key.clone();
        let pairs: Vec<(&Bytes, Option<&Bytes>)> = match self.kind {
            "set" => found.iter().map(|member| (member, None)).collect(),
            _ => found
                .chunks_exact(2)
                .map(|pair| (&pair[0], pair.get(1)))
                .collect(),
        };
        let (many, one): (&[u8], &[u8]) = match self.kind {
            "set" => (b"SMISMEMBER", b"SISMEMBER"),
            "zset" => (b"ZMSCORE", b"ZSCORE"),
            _ => (b"HMGET", b"HGET"),
        };
        let other = match side {
            Side::Source => Side::Target,
            _ => Side::Source,
        };
        let takes_many = self.kind == "hash" || self.c.end(other).has(6, 2);
        let commands: Vec<Vec<&[u8]>> = match takes_many {
            true => {
                let mut argv: Vec<&[u8]> = vec![many, &key];
                argv.extend(pairs.iter().map(|(member, _)| member.as_ref()));
                vec![argv]
            }
            false => pairs
                .iter()
                .map(|(member, _)| vec![one, &*key, member.as_ref()])
                .collect(),
        };
        let end = self.c.end(other);
        let replies = end.ask(self.db, &commands).await;
        let Some(mut replies) = fitting(end, replies)? else {
            return Ok(None);
        };
        let answers: Vec<&Value> = replies.iter().collect();
        let asked: &[u8] = if takes_many { many } else { one };
        if self.is_refused(&[asked], &answers) {
            return Ok(None);
        }
        if takes_many {
            replies = replies.pop().map_or_else(Vec::new, items);
        }
        replies.resize(pairs.len(), Value::Null);
        for ((member, value), reply) in pairs.iter().zip(&replies) {
            let what = match (self.kind, value, reply) {
                ("set", _, Value::Int(1)) => None,
                ("set", ..) | (_, _, Value::Null) => Some(What::Value),
                ("zset", Some(score), reply) => {
                    (!is_same_score(score, &bytes(reply))).then_some(What::Score)
                }
                (_, value, reply) => (*value != Some(&bytes(reply))).then_some(What::Value),
            };
            if let Some(what) = what {
                let source = match side {
                    Side::Source => value.map_or(Bytes::new(), Clone::clone),
                    _ => bytes(reply),
                };
                let detail = format!("in \"{}\"", crate::rdb::names::printable(member));
                self.note(&[member, &source], what, detail);
            }
        }
        if self.kind == "hash" && side == Side::Source {
            let fields: Vec<Bytes> = pairs.iter().map(|(field, _)| (*field).clone()).collect();
            return self.field_expiries(&fields).await;
        }
        Ok(Some(()))
    }

    /// Expiries of fields, where both ends have them.
    async fn field_expiries(&mut self, fields: &[Bytes]) -> Result<Option<()>, SyncError> {
        if !has_field_ttl(&self.c.source) || !has_field_ttl(&self.c.target) {
            return Ok(Some(()));
        }
        let (key, count) = (self.key.clone(), fields.len().to_string());
        let mut argv: Vec<&[u8]> = vec![b"HPEXPIRETIME", &key, b"FIELDS", count.as_bytes()];
        argv.extend(fields.iter().map(Bytes::as_ref));
        let Some((a, b)) = self.both(&argv).await? else {
            return Ok(None);
        };
        for ((a, b), field) in items(a).iter().zip(&items(b)).zip(fields) {
            let (Value::Int(at_a), Value::Int(at_b)) = (a, b) else {
                continue;
            };
            // -2: there is no such field, which is looked at elsewhere.
            let is_there = *at_a > -2 && *at_b > -2;
            let own = |at_ms: i64| (at_ms >= 0).then_some(at_ms);
            if is_there && !self.c.are_near(own(*at_a), own(*at_b)) {
                let detail = format!("in \"{}\"", crate::rdb::names::printable(field));
                self.note(&[field, &bytes(a)], What::FieldTtl, detail);
            }
        }
        Ok(Some(()))
    }

    async fn stream(&mut self) -> Result<Option<Compared>, SyncError> {
        match self.sizes(b"XLEN", "messages").await? {
            Some(true) => {}
            other => return Ok(other.map(|_| self.end())),
        }
        let key = self.key.clone();
        let (mut from, mut page) = (Bytes::from_static(b"-"), PAGE);
        loop {
            let count = page.to_string();
            let argv: [&[u8]; 6] = [b"XRANGE", &key, &from, b"+", b"COUNT", count.as_bytes()];
            self.c.limiter.take(page / ELEMENTS_A_KEY).await;
            let Some((a, b)) = self.both(&argv).await? else {
                if page == 1 || self.refused.is_some() {
                    return Ok(None);
                }
                page = (page / 8).max(1);
                continue;
            };
            let (a, b) = (items(a), items(b));
            let differing = a.iter().zip(&b).find(|(a, b)| a != b);
            if a.len() != b.len() || differing.is_some() {
                let id = differing.map_or(Bytes::new(), |(a, _)| message_id(a));
                let detail = format!("from message {} on", String::from_utf8_lossy(&id));
                return Ok(Some(self.differs(&[&id], What::Messages, detail)));
            }
            let Some(last) = a.last() else { break };
            from = after(&message_id(last));
        }
        for (command, what, compared) in [
            ("STREAM", What::Messages, &["last-generated-id"][..]),
            ("GROUPS", What::Group, &["name", "last-delivered-id"]),
        ] {
            let Some((a, b)) = self.both(&[b"XINFO", command.as_bytes(), &key]).await? else {
                return Ok(None);
            };
            if command == "STREAM" && are_counted_otherwise(&a, &b) {
                let detail = "messages that were added, or deleted last".to_owned();
                return Ok(Some(self.differs(&[&told(&a, &COUNTERS)], what, detail)));
            }
            let (a, b) = (told(&a, compared), told(&b, compared));
            if a != b {
                return Ok(Some(self.differs(&[&a], what, String::new())));
            }
        }
        let groups = self
            .c
            .source
            .one(self.db, &[b"XINFO", b"GROUPS", &key])
            .await?;
        for group in items(groups) {
            let name = field(&group, "name");
            match self.group(&name).await? {
                Some(None) => {}
                Some(Some(differs)) => return Ok(Some(differs)),
                None => return Ok(None),
            }
        }
        Ok(Some(self.end()))
    }

    /// What is pending in a group, and whose it is.
    async fn group(&mut self, group: &Bytes) -> Result<Option<Option<Compared>>, SyncError> {
        let key = self.key.clone();
        let mut from = Bytes::from_static(b"-");
        let detail = || format!("in group \"{}\"", crate::rdb::names::printable(group));
        loop {
            let count = PAGE.to_string();
            let argv: [&[u8]; 6] = [b"XPENDING", &key, group, &from, b"+", count.as_bytes()];
            self.c.limiter.take(PAGE / ELEMENTS_A_KEY).await;
            let Some((a, b)) = self.both(&argv).await? else {
                return Ok(None);
            };
            let (a, b) = (items(a), items(b));
            let differing = a.iter().zip(&b).find(|(a, b)| !is_same_pending(a, b));
            if a.len() != b.len() || differing.is_some() {
                let id = differing.map_or(Bytes::new(), |(a, _)| message_id(a));
                return Ok(Some(Some(self.differs(
                    &[group, &id],
                    What::Pending,
                    detail(),
                ))));
            }
            let Some(last) = a.last() else { break };
            from = after(&message_id(last));
        }
        Ok(Some(None))
    }

    /// What has no pieces.
    async fn whole(&mut self) -> Result<Option<Compared>, SyncError> {
        let key = self.key.clone();
        let Some(dumps) = self.both(&[b"DUMP", &key]).await? else {
            return Ok(None);
        };
        let (Value::Bulk(a), Value::Bulk(b)) = dumps else {
            return Ok(Some(self.differs(
                &[],
                What::Value,
                "was replaced".to_owned(),
            )));
        };
        let now_ms = crate::clock::now_ms();
        Ok(Some(match self.c.reading.compare(&a, &b, now_ms) {
            Compared::Differs { found, .. } => self.differs(&[&a], found.what, found.detail),
            other => other,
        }))
    }
}

/// Whether fields of hashes can expire there.
pub(crate) fn has_field_ttl(end: &End) -> bool {
    match end.fork {
        rewrite::Fork::Redis => end.has(7, 4),
        rewrite::Fork::Valkey => end.has(9, 0),
    }
}

/// As numbers, not as texts: versions print them differently.
fn is_same_score(a: &[u8], b: &[u8]) -> bool {
    let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse::<f64>().ok();
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b).is_eq() || (a == 0.0 && b == 0.0),
        _ => a == b,
    }
}

/// Id, consumer, how long ago it was delivered, how often.
fn is_same_pending(a: &Value, b: &Value) -> bool {
    let (Value::Array(a), Value::Array(b)) = (a, b) else {
        return false;
    };
    match (a.as_slice(), b.as_slice()) {
        (
            [id_a, consumer_a, Value::Int(idle_a), count_a],
            [id_b, consumer_b, Value::Int(idle_b), count_b],
        ) => {
            id_a == id_b
                && consumer_a == consumer_b
                && count_a == count_b
                && idle_a.abs_diff(*idle_b) <= IDLE_SLACK_MS
        }
        _ => a == b,
    }
}

fn message_id(message: &Value) -> Bytes {
    match message {
        Value::Array(parts) => parts.first().map_or(Bytes::new(), bytes),
        _ => Bytes::new(),
    }
}

/// The first id behind this one, without `(` (6.2).
fn after(id: &[u8]) -> Bytes {
    let text = String::from_utf8_lossy(id);
    let (ms, seq) = text.split_once('-').unwrap_or((&text, "0"));
    let (ms, seq): (u64, u64) = (ms.parse().unwrap_or(0), seq.parse().unwrap_or(0));
    let next = match seq.checked_add(1) {
        Some(seq) => format!("{ms}-{seq}"),
        None => format!("{}-0", ms.saturating_add(1)),
    };
    next.into()
}

/// What a stream counts (7.0).
const COUNTERS: [&str; 2] = ["entries-added", "max-deleted-entry-id"];
/// No message.
const NO_ID: &[u8] = b"0-0";

/// Whether two streams, the source's first, count otherwise, where both do: one that was put in pieces has its messages
/// before it has these. That nothing was ever deleted cannot be told to a server (XSETID), so what it says then is left.
fn are_counted_otherwise(a: &Value, b: &Value) -> bool {
    let [added, deleted] = COUNTERS.map(|name| (field(a, name), field(b, name)));
    let is_counted = !added.0.is_empty() && !added.1.is_empty();
    is_counted && (added.0 != added.1 || (deleted.0 != deleted.1 && deleted.0 != NO_ID))
}

/// A field of a row of XINFO.
fn field(row: &Value, name: &str) -> Bytes {
    let Value::Array(words) = row else {
        return Bytes::new();
    };
    let pairs = words.chunks_exact(2);
    let mut found = pairs.filter(|pair| bytes(&pair[0]).as_ref() == name.as_bytes());
    found
        .next()
        .and_then(|pair| pair.get(1))
        .map_or(Bytes::new(), bytes)
}

/// These fields of an answer of XINFO, of each of its rows, as bytes to compare.
fn told(reply: &Value, names: &[&str]) -> Vec<u8> {
    let Value::Array(rows) = reply else {
        return Vec::new();
    };
    let is_one = !matches!(rows.first(), Some(Value::Array(_)));
    let rows: Vec<&Value> = match is_one {
        true => vec![reply],
        false => rows.iter().collect(),
    };
    let mut texts: Vec<Vec<u8>> = rows
        .iter()
        .map(|row| {
            let words: Vec<Bytes> = names.iter().map(|name| field(row, name)).collect();
            words.join(&b'\n')
        })
        .collect();
    texts.sort();
    texts.join(&b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_one_another() {
        assert_eq!(after(b"5-7").as_ref(), b"5-8");
        assert_eq!(after(format!("5-{}", u64::MAX).as_bytes()).as_ref(), b"6-0");
    }

    #[test]
    fn a_refusal_is_no_value_and_a_change_is_no_refusal() {
        let said = |text: &str| {
            let mut buffer = bytes::BytesMut::from(format!("-{text}\r\n").as_bytes());
            let mut decoder = resp::ValueDecoder::new(resp::Limits::default());
            let value = decoder.poll(&mut buffer).unwrap().unwrap();
            refusal(b"GETRANGE", value.as_error().unwrap())
        };
        let denied = said("NOPERM User u has no permissions to run the 'getrange' command");
        assert!(denied.unwrap().starts_with("GETRANGE was refused: NOPERM"));
        assert!(said("ERR unknown command 'GETRANGE'").is_some());
        for changed in [
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "NOGROUP No such key 'x' or consumer group 'g'",
            "ERR no such key",
        ] {
            assert_eq!(said(changed), None, "{changed}");
        }
    }

    #[test]
    fn scores_are_numbers() {
        assert!(is_same_score(b"1e3", b"1000") && is_same_score(b"inf", b"inf"));
        assert!(!is_same_score(b"1", b"2") && is_same_score(b"0", b"-0"));
    }

    #[test]
    fn streams_count_where_both_do() {
        let stream = |added: i64, deleted: &str| {
            let bulk = |word: &str| Value::Bulk(Bytes::copy_from_slice(word.as_bytes()));
            Value::Array(vec![
                bulk("length"),
                Value::Int(3),
                bulk("entries-added"),
                Value::Int(added),
                bulk("max-deleted-entry-id"),
                bulk(deleted),
            ])
        };
        let older = Value::Array(Vec::new());
        assert!(!are_counted_otherwise(&stream(4, "2-0"), &stream(4, "2-0")));
        assert!(are_counted_otherwise(&stream(4, "2-0"), &stream(4, "0-0")));
        assert!(are_counted_otherwise(&stream(4, "2-0"), &stream(3, "2-0")));
        // XSETID cannot take it back.
        assert!(!are_counted_otherwise(&stream(4, "0-0"), &stream(4, "2-0")));
        assert!(!are_counted_otherwise(&older, &stream(4, "2-0")));
        assert!(!are_counted_otherwise(&stream(4, "2-0"), &older));
    }

    #[test]
    fn rows_of_xinfo() {
        let row = |name: &str, id: &str| {
            let words = ["name", name, "pending", "3", "last-delivered-id", id];
            let bulk = |word: &str| Value::Bulk(Bytes::copy_from_slice(word.as_bytes()));
            Value::Array(words.into_iter().map(bulk).collect())
        };
        let names = ["name", "last-delivered-id"];
        let a = Value::Array(vec![row("g", "1-0"), row("h", "2-0")]);
        let b = Value::Array(vec![row("h", "2-0"), row("g", "1-0")]);
        assert_eq!(told(&a, &names), told(&b, &names));
        let c = Value::Array(vec![row("h", "2-1"), row("g", "1-0")]);
        assert_ne!(told(&a, &names), told(&c, &names));
        assert_eq!(field(&row("g", "1-0"), "pending").as_ref(), b"3");
    }
}
