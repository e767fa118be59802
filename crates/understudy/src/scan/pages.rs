//! A value read by commands of its type, piece by piece, as the events that an RDB file would give: what is too large to be
//! dumped, and everything where DUMP is not allowed. Memory holds a page, and of a stream what is pending in its groups.
//!
//! Nothing here is read at one moment. A value that is written meanwhile may come out as it never was; then it is marked
//! again, by the event of that write or by the next sweep.

use std::hash::{DefaultHasher, Hasher};

use bytes::Bytes;
use rdb::{Encoding, Event, KeyHead, Kind, Score};
use resp::Value;
use rewrite::Db;

use super::stream_info;
use super::words::{bytes, items, number, stream_id};
use crate::compare::{End, Name, has_field_ttl};
use crate::error::{Side, SyncError};

/// Bytes of a string that are read at once.
const PART_BYTES: usize = 256 << 10;
/// Elements that are read at once, to begin with.
const PAGE: usize = 512;
/// A page that is larger makes the next one smaller.
const PAGE_BYTES: usize = 512 << 10;

/// A value that is being read.
pub(super) struct Pages<'a> {
    end: &'a mut End,
    db: u32,
    key: Bytes,
    kind: Kind,
    state: State,
    page: usize,
    /// Elements, or bytes of a string, that were read.
    count: u64,
    /// The value's end was reached.
    is_whole: bool,
    /// Of what has an order: it stands for what was read.
    print: DefaultHasher,
    beside: Vec<Event>,
}

enum State {
    Begin,
    /// From this byte or element on.
    From(usize),
    Cursor(Bytes),
    /// Messages from this id on, up to that one.
    Messages {
        from: Bytes,
        to: Bytes,
    },
    Behind,
    Ended,
}

impl<'a> Pages<'a> {
    /// Begins with a key of this kind.
    pub(super) fn new(end: &'a mut End, name: &Name, kind: Kind) -> Self {
        Self {
            end,
            db: name.0,
            key: name.1.clone(),
            kind,
            state: State::Begin,
            page: PAGE,
            count: 0,
            is_whole: false,
            print: DefaultHasher::new(),
            beside: Vec::new(),
        }
    }

    /// What stands behind the messages of a stream and has to be known before them; nothing for other values.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn beside(&mut self) -> Result<&[Event], SyncError> {
        if self.kind == Kind::Stream && self.beside.is_empty() {
            self.beside = stream_info::read(self.end, self.db, &self.key).await?;
        }
        Ok(&self.beside)
    }

    /// The next events; none behind the last, or where the key is gone or has become another kind.
    ///
    /// # Errors
    /// Those of the connection; stop for an element that does not fit into memory.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Event>>, SyncError> {
        loop {
            let events = self.some().await?;
            match events {
                Some(events) if events.is_empty() => {}
                events => return Ok(events),
            }
        }
    }

    /// Whether there was anything.
    pub(super) fn is_nothing(&self) -> bool {
        self.count == 0
    }

    /// Whether its end was not reached, or it has another size now than what was read: it was written meanwhile.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn is_torn(&mut self) -> Result<bool, SyncError> {
        if !self.is_whole {
            return Ok(true);
        }
        let command: &[u8] = match self.kind {
            Kind::String => b"STRLEN",
            Kind::List => b"LLEN",
            _ => return Ok(false),
        };
        let length = self.end.one(self.db, &[command, &self.key]).await?;
        Ok(number(&length) != Some(self.count))
    }

    /// Stands for the value, where it was read to its end and its elements have an order: of others no element is read
    /// twice, or left out, because others were written.
    pub(super) fn print(&self) -> Option<(u64, u64)> {
        let has_order = matches!(self.kind, Kind::String | Kind::List);
        (has_order && self.is_whole).then(|| (self.count, self.print.finish()))
    }

    async fn some(&mut self) -> Result<Option<Vec<Event>>, SyncError> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        match state {
            State::Begin => self.begin().await,
            State::From(from) if self.kind == Kind::String => self.string(from).await,
            State::From(from) => self.list(from).await,
            State::Cursor(cursor) => self.scanned(cursor).await,
            State::Messages { from, to } => self.messages(from, to).await,
            State::Behind => {
                let mut events = std::mem::take(&mut self.beside);
                events.push(Event::ValueEnd);
                self.is_whole = true;
                Ok(Some(events))
            }
            State::Ended => Ok(None),
        }
    }

    /// The value's first page, behind its beginning.
    async fn begin(&mut self) -> Result<Option<Vec<Event>>, SyncError> {
        self.state = match self.kind {
            Kind::String | Kind::List => State::From(0),
            Kind::Set | Kind::Zset | Kind::Hash => State::Cursor(Bytes::from_static(b"0")),
            Kind::Stream => {
                self.beside().await?;
                let Some(last) = stream_info::last_id(&self.beside) else {
                    return Ok(None);
                };
                // A stream without messages is one, too.
                self.count += 1;
                State::Messages {
                    from: Bytes::from_static(b"-"),
                    to: last,
                }
            }
            Kind::Module | Kind::Array | Kind::RateLimiter => return Err(self.unreadable()),
        };
        let kind = self.kind;
        loop {
            let first = Box::pin(self.some()).await?;
            match first {
                Some(events) if events.is_empty() => {}
                Some(mut events) => {
                    events.insert(0, Event::ValueStart { kind, len: None });
                    return Ok(Some(events));
                }
                None => return Ok(None),
            }
        }
    }

    fn unreadable(&self) -> SyncError {
        let what = format!(
            "the value of \"{}\" (db {}) is of a kind that only DUMP can read, and the source does not allow it, or the value is too large for it",
            crate::rdb::names::printable(&self.key),
            self.db
        );
        SyncError::stop(Side::Source, &self.end.endpoint.address, what)
    }

    /// A question whose answer may be too long: then none, and the page becomes smaller.
    async fn ask(&mut self, argv: &[&[u8]]) -> Result<Option<Value>, SyncError> {
        match self.end.one(self.db, argv).await {
            Err(_) if self.end.take_overrun() && self.page > 1 => {
                self.page = (self.page / 8).max(1);
                Ok(None)
            }
            Err(error) if self.page == 1 => {
                let key = crate::rdb::names::printable(&self.key);
                let what = format!("a piece of \"{key}\" (db {}): {}", self.db, error.what);
                Err(SyncError { what, ..error })
            }
            answer => {
                let word = String::from_utf8_lossy(argv.first().copied().unwrap_or_default());
                self.end.unless_refused(&word, answer?).map(Some)
            }
        }
    }

    /// Pages are about as large as they should be.
    fn fit(&mut self, bytes: usize, elements: usize) {
        if bytes > PAGE_BYTES && elements > 1 {
            self.page = (elements * PAGE_BYTES / bytes).clamp(1, PAGE);
        }
    }

    async fn string(&mut self, from: usize) -> Result<Option<Vec<Event>>, SyncError> {
        let (first, last) = (from.to_string(), (from + PART_BYTES - 1).to_string());
        let argv: [&[u8]; 4] = [b"GETRANGE", &self.key, first.as_bytes(), last.as_bytes()];
        let answer = self.end.one(self.db, &argv).await?;
        let Value::Bulk(part) = self.end.unless_refused("GETRANGE", answer)? else {
            // Another kind by now.
            return Ok(None);
        };
        self.count += part.len() as u64;
        self.print.write(&part);
        let is_last = part.len() < PART_BYTES;
        self.state = match is_last {
            true => State::Behind,
            false => State::From(from + part.len()),
        };
        if part.is_empty() {
            // An empty string is a string; but a key that is gone reads as one too.
            return Ok((from > 0).then(Vec::new));
        }
        Ok(Some(vec![Event::StringPart(part)]))
    }

    async fn list(&mut self, from: usize) -> Result<Option<Vec<Event>>, SyncError> {
        let (first, last) = (from.to_string(), (from + self.page - 1).to_string());
        let key = self.key.clone();
        let argv: [&[u8]; 4] = [b"LRANGE", &key, first.as_bytes(), last.as_bytes()];
        let page = self.page;
        let Some(answer) = self.ask(&argv).await? else {
            self.state = State::From(from);
            return Ok(Some(Vec::new()));
        };
        let Value::Array(found) = answer else {
            return Ok(None);
        };
        let (mut events, mut size) = (Vec::with_capacity(found.len()), 0);
        for item in &found {
            let item = bytes(item);
            size += item.len();
            self.print.write_usize(item.len());
            self.print.write(&item);
            events.push(Event::Item(item));
        }
        self.count += found.len() as u64;
        self.fit(size, found.len());
        self.state = match found.len() < page {
            true => State::Behind,
            false => State::From(from + found.len()),
        };
        match events.is_empty() && from == 0 {
            true => Ok(None),
            false => Ok(Some(events)),
        }
    }

    async fn scanned(&mut self, cursor: Bytes) -> Result<Option<Vec<Event>>, SyncError> {
        let command: &[u8] = match self.kind {
            Kind::Set => b"SSCAN",
            Kind::Zset => b"ZSCAN",
            _ => b"HSCAN",
        };
        let (count, key) = (self.page.to_string(), self.key.clone());
        let argv: [&[u8]; 5] = [command, &key, &cursor, b"COUNT", count.as_bytes()];
        let Some(answer) = self.ask(&argv).await? else {
            self.state = State::Cursor(cursor);
            return Ok(Some(Vec::new()));
        };
        let mut answer = items(answer).into_iter();
        let (Some(next), Some(found)) = (answer.next(), answer.next()) else {
            return Ok(None);
        };
        let found: Vec<Bytes> = items(found).iter().map(bytes).collect();
        let expiries = match self.kind {
            Kind::Hash => self.field_expiries(&found).await?,
            _ => Vec::new(),
        };
        let events = elements(self.kind, &found, &expiries);
        self.count += events.len() as u64;
        self.fit(found.iter().map(Bytes::len).sum(), events.len());
        let next = bytes(&next);
        let is_last = next.as_ref() == b"0";
        if is_last && self.count == 0 {
            return Ok(None);
        }
        self.state = match is_last {
            true => State::Behind,
            false => State::Cursor(next),
        };
        Ok(Some(events))
    }

    /// When the fields of these pairs expire, in Unix milliseconds.
    async fn field_expiries(&mut self, pairs: &[Bytes]) -> Result<Vec<Option<u64>>, SyncError> {
        if !has_field_ttl(self.end) || pairs.is_empty() {
            return Ok(Vec::new());
        }
        let argv = field_expiries(&self.key, pairs);
        let argv: Vec<&[u8]> = argv.iter().map(Bytes::as_ref).collect();
        let answer = self.end.one(self.db, &argv).await?;
        Ok(expiries(&self.end.unless_refused("HPEXPIRETIME", answer)?))
    }

    async fn messages(&mut self, from: Bytes, to: Bytes) -> Result<Option<Vec<Event>>, SyncError> {
        let (count, key) = (self.page.to_string(), self.key.clone());
        let argv: [&[u8]; 6] = [b"XRANGE", &key, &from, &to, b"COUNT", count.as_bytes()];
        let page = self.page;
        let Some(answer) = self.ask(&argv).await? else {
            self.state = State::Messages { from, to };
            return Ok(Some(Vec::new()));
        };
        let Value::Array(found) = answer else {
            return Ok(None);
        };
        let (mut events, mut size, mut last) = (Vec::new(), 0, None);
        for message in &found {
            let Value::Array(parts) = message else {
                continue;
            };
            let [id, fields] = parts.as_slice() else {
                continue;
            };
            let Some(id) = stream_id(&bytes(id)) else {
                continue;
            };
            let fields: Vec<Bytes> = match fields {
                Value::Array(fields) => fields.iter().map(bytes).collect(),
                _ => continue,
            };
            last = Some(id);
            size += fields.iter().map(Bytes::len).sum::<usize>();
            let count = fields.len() as u64 / 2;
            events.push(Event::StreamEntry { id, fields: count });
            for pair in fields.chunks_exact(2) {
                let (Some(field), Some(value)) = (pair.first(), pair.get(1)) else {
                    continue;
                };
                events.push(Event::Pair {
                    field: field.clone(),
                    value: value.clone(),
                    expire_at_ms: None,
                });
            }
        }
        self.fit(size, found.len());
        let next = last.and_then(stream_info::after);
        self.state = match next {
            Some(from) if found.len() >= page => State::Messages { from, to },
            _ => State::Behind,
        };
        Ok(Some(events))
    }
}

/// The question when the fields of these pairs expire.
pub(super) fn field_expiries(key: &Bytes, pairs: &[Bytes]) -> Vec<Bytes> {
    let mut argv = vec![
        Bytes::from_static(b"HPEXPIRETIME"),
        key.clone(),
        Bytes::from_static(b"FIELDS"),
        Bytes::from((pairs.len() / 2).to_string()),
    ];
    argv.extend(pairs.iter().step_by(2).cloned());
    argv
}

/// What it is answered.
pub(super) fn expiries(answer: &Value) -> Vec<Option<u64>> {
    match answer {
        Value::Array(times) => times.iter().map(number).collect(),
        _ => Vec::new(),
    }
}

/// Members, or fields and values, or members and scores, as events.
pub(super) fn elements(kind: Kind, found: &[Bytes], expiries: &[Option<u64>]) -> Vec<Event> {
    if matches!(kind, Kind::Set | Kind::List) {
        return found.iter().cloned().map(Event::Item).collect();
    }
    let pairs = found.chunks_exact(2).enumerate();
    let event = |(at, pair): (usize, &[Bytes])| {
        let [first, second] = pair else { return None };
        Some(match kind {
            Kind::Zset => Event::Scored {
                member: first.clone(),
                score: Score(std::str::from_utf8(second).ok()?.parse().ok()?),
            },
            _ => Event::Pair {
                field: first.clone(),
                value: second.clone(),
                expire_at_ms: expiries.get(at).copied().flatten(),
            },
        })
    };
    pairs.filter_map(event).collect()
}

/// The kind that TYPE names; none for a key that is not there, and for those that only DUMP can read.
pub(super) fn kind_of(name: &[u8]) -> Option<Kind> {
    Some(match name {
        b"string" => Kind::String,
        b"list" => Kind::List,
        b"set" => Kind::Set,
        b"zset" => Kind::Zset,
        b"hash" => Kind::Hash,
        b"stream" => Kind::Stream,
        _ => return None,
    })
}

/// The head of a value that is read by commands.
pub(super) fn head(end: &End, (db, key): &Name, kind: Kind, at_ms: Option<i64>) -> KeyHead {
    let (type_id, encoding) = match kind {
        Kind::List => (1, Encoding::Plain),
        Kind::Set => (2, Encoding::Plain),
        Kind::Zset => (5, Encoding::BinaryScores),
        Kind::Hash => (4, Encoding::Plain),
        Kind::Stream => stream_info::layout(end),
        _ => (0, Encoding::Plain),
    };
    KeyHead {
        db: Db(*db),
        key: key.clone(),
        type_id,
        kind,
        encoding,
        expire_at_ms: at_ms,
        idle_seconds: None,
        freq: None,
        meta: None,
        at: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_what_their_kind_makes_of_them() {
        let words = ["a", "1.5", "b", "-inf"].map(|word| Bytes::from_static(word.as_bytes()));
        let scored = elements(Kind::Zset, &words, &[]);
        assert_eq!(scored.len(), 2);
        assert!(
            matches!(&scored[1], Event::Scored { member, score } if member == "b" && *score == Score(f64::NEG_INFINITY))
        );
        let pairs = elements(Kind::Hash, &words, &[None, Some(7)]);
        assert!(matches!(
            &pairs[0],
            Event::Pair {
                expire_at_ms: None,
                ..
            }
        ));
        assert!(matches!(
            &pairs[1],
            Event::Pair {
                expire_at_ms: Some(7),
                ..
            }
        ));
        assert_eq!(elements(Kind::Set, &words, &[]).len(), 4);
    }

    #[test]
    fn expiries_of_fields_are_asked_for_by_name() {
        let words = ["a", "1", "b", "2"].map(|word| Bytes::from_static(word.as_bytes()));
        let argv = field_expiries(&Bytes::from_static(b"k"), &words);
        assert_eq!(argv.join(&b' '), b"HPEXPIRETIME k FIELDS 2 a b");
        let answer = Value::Array(vec![Value::Int(-1), Value::Int(5), Value::Int(-2)]);
        assert_eq!(expiries(&answer), [None, Some(5), None]);
        assert!(expiries(&Value::Null).is_empty());
    }
}
