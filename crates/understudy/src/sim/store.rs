//! The keys of a server, and what the commands that a link sends do to them: as a real server does it, which
//! `fidelity.rs` checks against one.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Buf, Bytes, BytesMut};
use resp::{ErrorReply, Value};

/// A key's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    Text(Vec<u8>),
    List(Vec<Vec<u8>>),
}

/// A key's value and expiry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) content: Content,
    /// Unix milliseconds.
    pub(super) expires_ms: Option<i64>,
}

/// The keys of one database.
pub(super) type Keys = BTreeMap<Vec<u8>, Rc<Entry>>;

/// All databases; a copy costs next to nothing.
#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    dbs: BTreeMap<u32, Rc<Keys>>,
    /// Keys that were changed since this was last emptied.
    touched: Vec<Touch>,
    /// It is a replica's: keys that should have ended are not there for whoever asks, but go with their master's DEL.
    pub(super) is_replica: bool,
}

/// A change of a key, as who watches it is told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Touch {
    pub(super) db: u32,
    pub(super) key: Vec<u8>,
    /// It is there afterwards.
    pub(super) is_there: bool,
}

/// Databases that a server has.
pub(super) const DATABASES: u32 = 16;

/// What COMMAND tells of, and what may be queued.
pub(super) const COMMANDS: [(&str, Kind); 36] = [
    ("append", Kind::Grows),
    ("command", Kind::Reads),
    ("dbsize", Kind::Reads),
    ("decrby", Kind::Grows),
    ("del", Kind::Writes),
    ("discard", Kind::Control),
    ("exec", Kind::Control),
    ("flushall", Kind::Writes),
    ("get", Kind::Reads),
    ("incr", Kind::Grows),
    ("incrby", Kind::Grows),
    ("info", Kind::Reads),
    ("llen", Kind::Reads),
    ("lpop", Kind::Writes),
    ("lpush", Kind::Grows),
    ("lrange", Kind::Reads),
    ("mset", Kind::Grows),
    ("multi", Kind::Control),
    ("persist", Kind::Writes),
    ("pexpireat", Kind::Writes),
    ("pexpiretime", Kind::Reads),
    ("ping", Kind::Reads),
    ("psetex", Kind::Grows),
    ("pttl", Kind::Reads),
    ("rename", Kind::Writes),
    ("replconf", Kind::Reads),
    ("restore", Kind::Grows),
    ("rpush", Kind::Grows),
    ("scan", Kind::Reads),
    ("select", Kind::Reads),
    ("set", Kind::Grows),
    ("time", Kind::Reads),
    ("type", Kind::Reads),
    ("unlink", Kind::Writes),
    ("unwatch", Kind::Control),
    ("watch", Kind::Control),
];

/// What a command is to a server that is short of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Reads,
    Writes,
    /// Writes, and may need memory.
    Grows,
    /// Of a transaction.
    Control,
}

/// The kind of a command; `None` for one that is not known here.
pub(super) fn kind_of(name: &[u8]) -> Option<Kind> {
    COMMANDS
        .iter()
        .find(|(known, _)| known.as_bytes().eq_ignore_ascii_case(name))
        .map(|(_, kind)| *kind)
}

pub(super) fn ok() -> Value {
    Value::Simple(Bytes::from_static(b"OK"))
}

/// The words of the command at the buffer's start, which is taken out of it.
pub(super) fn next_command(
    decoder: &mut resp::CommandDecoder,
    buf: &mut BytesMut,
) -> Result<Option<Vec<Bytes>>, resp::Error> {
    let Some(frame) = decoder.poll(buf)? else {
        return Ok(None);
    };
    let words = decoder.args().iter();
    let argv = words
        .map(|arg| Bytes::copy_from_slice(arg.of(buf)))
        .collect();
    buf.advance(frame.len);
    Ok(Some(argv))
}

pub(super) fn error(text: &str) -> Value {
    Value::Error(ErrorReply::new(Bytes::copy_from_slice(text.as_bytes())))
}

fn bulk(bytes: &[u8]) -> Value {
    Value::Bulk(Bytes::copy_from_slice(bytes))
}

/// As Redis reads it: no sign but a minus, no zero in front.
fn number<T: std::str::FromStr + ToString>(word: &[u8]) -> Result<T, Value> {
    std::str::from_utf8(word)
        .ok()
        .and_then(|text| {
            text.parse()
                .ok()
                .filter(|number: &T| number.to_string() == text)
        })
        .ok_or_else(|| error("ERR value is not an integer or out of range"))
}

fn wrong_type() -> Value {
    error("WRONGTYPE Operation against a key holding the wrong kind of value")
}

impl Store {
    /// `(db, keys)` of every database that holds any.
    pub(super) fn databases(&self) -> impl Iterator<Item = (u32, &Keys)> {
        self.dbs
            .iter()
            .filter(|(_, keys)| !keys.is_empty())
            .map(|(db, keys)| (*db, &**keys))
    }

    pub(super) fn keys_of(&self, db: u32) -> Option<&Keys> {
        self.dbs.get(&db).map(|keys| &**keys)
    }

    pub(super) fn entry(&self, db: u32, key: &[u8]) -> Option<&Rc<Entry>> {
        self.dbs.get(&db)?.get(key)
    }

    /// Whether there is such a key that should have ended by now.
    pub(super) fn has_expired(&self, db: u32, key: &[u8], now_ms: i64) -> bool {
        self.entry(db, key)
            .and_then(|entry| entry.expires_ms)
            .is_some_and(|at_ms| at_ms <= now_ms)
    }

    /// Keys changed since the last call.
    pub(super) fn take_touched(&mut self) -> Vec<Touch> {
        std::mem::take(&mut self.touched)
    }

    fn keys(&mut self, db: u32) -> &mut Keys {
        Rc::make_mut(self.dbs.entry(db).or_default())
    }

    pub(super) fn put(&mut self, db: u32, key: &[u8], entry: Entry) {
        self.touch(db, key, true);
        self.keys(db).insert(key.to_vec(), Rc::new(entry));
    }

    pub(super) fn remove(&mut self, db: u32, key: &[u8]) -> bool {
        let was_there = self.keys(db).remove(key).is_some();
        if was_there {
            self.touch(db, key, false);
        }
        was_there
    }

    fn touch(&mut self, db: u32, key: &[u8], is_there: bool) {
        self.touched.push(Touch {
            db,
            key: key.to_vec(),
            is_there,
        });
    }

    /// Removes a key that has expired; whether there was one.
    pub(super) fn expire(&mut self, db: u32, key: &[u8], now_ms: i64) -> bool {
        self.has_expired(db, key, now_ms) && (self.is_replica || self.remove(db, key))
    }

    fn write(&mut self, db: u32, key: &[u8], content: Content, expires_ms: Option<i64>) {
        let entry = Entry {
            content,
            expires_ms,
        };
        self.put(db, key, entry);
    }

    /// Carries out a command on keys, as a master would.
    pub(super) fn execute(&mut self, db: u32, argv: &[Bytes], now_ms: i64) -> Value {
        self.run(db, argv, now_ms).unwrap_or_else(|error| error)
    }

    fn run(&mut self, db: u32, argv: &[Bytes], now_ms: i64) -> Result<Value, Value> {
        let name = argv[0].to_ascii_lowercase();
        let arg = |at: usize| -> Result<&Bytes, Value> {
            argv.get(at).ok_or_else(|| {
                let name = String::from_utf8_lossy(&name);
                error(&format!(
                    "ERR wrong number of arguments for '{name}' command"
                ))
            })
        };
        match &*name {
            b"dbsize" => {
                let keys = self.keys(db).len();
                return Ok(Value::Int(keys as i64));
            }
            b"flushall" => {
                let all: Vec<_> = self
                    .databases()
                    .flat_map(|(db, keys)| keys.keys().map(move |key| (db, key.clone())))
                    .collect();
                all.iter().for_each(|(db, key)| {
                    self.remove(*db, key);
                });
                return Ok(ok());
            }
            b"scan" => return Ok(self.scan(db, argv, now_ms)),
            b"mset" => {
                arg(2)?;
                for pair in argv[1..].chunks(2) {
                    let value = pair
                        .get(1)
                        .ok_or_else(|| error("ERR wrong number of arguments for 'mset' command"))?;
                    self.expire(db, &pair[0], now_ms);
                    self.write(db, &pair[0], Content::Text(value.to_vec()), None);
                }
                return Ok(ok());
            }
            b"del" | b"unlink" => {
                arg(1)?;
                let gone = argv[1..]
                    .iter()
                    .filter(|key| !self.expire(db, key, now_ms) && self.remove(db, key))
                    .count();
                return Ok(Value::Int(gone as i64));
            }
            _ => {}
        }
        let key = arg(1)?;
        let is_replaced = &*name == b"restore"
            && argv
                .iter()
                .skip(4)
                .any(|word| word.eq_ignore_ascii_case(b"replace"));
        // What is replaced is not looked at.
        let has_ended = !is_replaced && self.expire(db, key, now_ms);
        let old = self.entry(db, key).filter(|_| !has_ended).cloned();
        let expires_ms = old.as_ref().and_then(|old| old.expires_ms);
        let text = || match old.as_ref().map(|old| &old.content) {
            None => Ok(None),
            Some(Content::Text(text)) => Ok(Some(text.clone())),
            Some(Content::List(_)) => Err(wrong_type()),
        };
        let list = || match old.as_ref().map(|old| &old.content) {
            None => Ok(Vec::new()),
            Some(Content::List(items)) => Ok(items.clone()),
            Some(Content::Text(_)) => Err(wrong_type()),
        };
        Ok(match &*name {
            b"get" => text()?.map_or(Value::Null, |text| bulk(&text)),
            b"set" => {
                let (mut at_ms, mut word) = (None, 3);
                while let Some(option) = argv.get(word) {
                    match &*option.to_ascii_lowercase() {
                        b"keepttl" => at_ms = expires_ms,
                        b"pxat" => {
                            word += 1;
                            at_ms = Some(number(arg(word)?)?);
                        }
                        _ => return Err(error("ERR syntax error")),
                    }
                    word += 1;
                }
                // One that has passed ends the key when it is next looked at.
                self.write(db, key, Content::Text(arg(2)?.to_vec()), at_ms);
                ok()
            }
            b"psetex" => {
                let at_ms = now_ms + number::<i64>(arg(2)?)?;
                self.write(db, key, Content::Text(arg(3)?.to_vec()), Some(at_ms));
                ok()
            }
            b"append" => {
                let mut text = text()?.unwrap_or_default();
                text.extend_from_slice(arg(2)?);
                let len = text.len();
                self.write(db, key, Content::Text(text), expires_ms);
                Value::Int(len as i64)
            }
            b"incr" | b"incrby" | b"decrby" => {
                let by: i64 = match &*name {
                    b"incr" => 1,
                    b"incrby" => number(arg(2)?)?,
                    _ => -number::<i64>(arg(2)?)?,
                };
                let sum = text()?.map_or(Ok(0), |text| number::<i64>(&text))? + by;
                self.write(db, key, Content::Text(sum.to_string().into()), expires_ms);
                Value::Int(sum)
            }
            b"rpush" | b"lpush" => {
                arg(2)?;
                let mut items = list()?;
                for item in &argv[2..] {
                    let at = if &*name == b"rpush" { items.len() } else { 0 };
                    items.insert(at, item.to_vec());
                }
                let len = items.len();
                self.write(db, key, Content::List(items), expires_ms);
                Value::Int(len as i64)
            }
            b"lpop" => {
                let mut items = list()?;
                if items.is_empty() {
                    return Ok(Value::Null);
                }
                let first = items.remove(0);
                if items.is_empty() {
                    self.remove(db, key);
                } else {
                    self.write(db, key, Content::List(items), expires_ms);
                }
                bulk(&first)
            }
            b"llen" => Value::Int(list()?.len() as i64),
            b"lrange" => Value::Array(list()?.iter().map(|item| bulk(item)).collect()),
            b"type" => Value::Simple(Bytes::from_static(
                match old.as_ref().map(|old| &old.content) {
                    None => b"none",
                    Some(Content::Text(_)) => b"string",
                    Some(Content::List(_)) => b"list",
                },
            )),
            b"rename" => {
                let Some(old) = old else {
                    return Err(error("ERR no such key"));
                };
                let to = arg(2)?;
                if to == key {
                    return Ok(ok());
                }
                self.expire(db, to, now_ms);
                self.remove(db, key);
                self.put(db, to, (*old).clone());
                ok()
            }
            b"pexpireat" | b"persist" => {
                let at_ms = match &*name {
                    b"persist" => None,
                    _ => Some(number(arg(2)?)?),
                };
                match old {
                    None => Value::Int(0),
                    Some(old) if at_ms.is_none() && old.expires_ms.is_none() => Value::Int(0),
                    Some(old) => {
                        self.write(db, key, old.content.clone(), at_ms);
                        self.expire(db, key, now_ms);
                        Value::Int(1)
                    }
                }
            }
            b"pttl" | b"pexpiretime" => Value::Int(match (&old, expires_ms) {
                (None, _) => -2,
                (Some(_), None) => -1,
                (Some(_), Some(at_ms)) if &*name == b"pttl" => at_ms - now_ms,
                (Some(_), Some(at_ms)) => at_ms,
            }),
            b"restore" => {
                let options: Vec<Vec<u8>> = argv
                    .iter()
                    .skip(4)
                    .map(|word| word.to_ascii_lowercase())
                    .collect();
                let has = |word: &[u8]| options.iter().any(|option| option == word);
                if old.is_some() && !has(b"replace") {
                    return Err(error("BUSYKEY Target key name already exists."));
                }
                let at_ms: i64 = number(arg(2)?)?;
                if at_ms < 0 {
                    return Err(error("ERR Invalid TTL value, must be >= 0"));
                }
                if arg(3)?.first() == Some(&0xfe) {
                    return Err(error("ERR Bad data format"));
                }
                let at_ms = match at_ms {
                    0 => None,
                    at_ms if has(b"absttl") => Some(at_ms),
                    left_ms => Some(now_ms + left_ms),
                };
                let content = undump(arg(3)?)
                    .ok_or_else(|| error("ERR DUMP payload version or checksum are wrong"))?;
                self.write(db, key, content, at_ms);
                self.expire(db, key, now_ms);
                ok()
            }
            _ => {
                let name = String::from_utf8_lossy(&argv[0]);
                return Err(error(&format!("ERR unknown command '{name}'")));
            }
        })
    }

    /// All keys at once.
    fn scan(&mut self, db: u32, argv: &[Bytes], now_ms: i64) -> Value {
        let prefix = argv
            .windows(2)
            .find(|pair| pair[0].eq_ignore_ascii_case(b"match"))
            .map(|pair| pair[1].strip_suffix(b"*").unwrap_or(&pair[1]).to_vec())
            .unwrap_or_default();
        let names: Vec<Vec<u8>> = self.keys(db).keys().cloned().collect();
        let found = names
            .iter()
            .filter(|key| key.starts_with(&prefix) && !self.expire(db, key, now_ms));
        let found = found.map(|key| bulk(key)).collect();
        Value::Array(vec![bulk(b"0"), Value::Array(found)])
    }
}

/// A DUMP payload of a string or a plain list.
fn undump(payload: &[u8]) -> Option<Content> {
    let (body, crc) = payload.split_last_chunk::<8>()?;
    if testkit::rdb_writer::crc64(body) != u64::from_le_bytes(*crc) {
        return None;
    }
    let (kind, rest) = body.get(..body.len() - 2)?.split_first()?;
    let mut rest = rest;
    let text = |rest: &mut &[u8]| {
        let len = length(rest)?;
        let (text, after) = rest.split_at_checked(len)?;
        *rest = after;
        Some(text.to_vec())
    };
    match kind {
        0 => Some(Content::Text(text(&mut rest)?)),
        1 => {
            let count = length(&mut rest)?;
            let items = (0..count).map(|_| text(&mut rest)).collect::<Option<_>>()?;
            Some(Content::List(items))
        }
        _ => None,
    }
}

fn length(rest: &mut &[u8]) -> Option<usize> {
    let (first, after) = rest.split_first()?;
    let (len, after) = match first >> 6 {
        0 => (usize::from(first & 0x3f), after),
        1 => {
            let (low, after) = after.split_first()?;
            (usize::from(first & 0x3f) << 8 | usize::from(*low), after)
        }
        2 => {
            let (len, after) = after.split_first_chunk::<4>()?;
            (u32::from_be_bytes(*len) as usize, after)
        }
        _ => return None,
    };
    *rest = after;
    Some(len)
}
