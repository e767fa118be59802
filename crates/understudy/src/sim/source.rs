//! The source: a master that is written to, with a backlog of a limited length, which can restart and be replaced by a
//! replica that had not got everything.

use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use replica::ReplId;
use resp::{CommandDecoder, Limits, Value, encode};
use testkit::rdb_writer::{RdbWriter, payload};

use super::oracle::{Spoilt, Truth};
use super::store::{Content, Store, error, next_command, ok};
use super::target::time;
use super::world::World;

/// A client, or a replica in some stage.
struct Client {
    decoder: CommandDecoder,
    buf: BytesMut,
    stage: Stage,
    db: u32,
    queued: Option<Vec<Vec<Bytes>>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Stage {
    Client,
    /// Its snapshot is made or sent; the stream from this offset on waits for it.
    Waits {
        from: u64,
    },
    /// The same, and only the replica's next ACK lets the stream go.
    WaitsForAck {
        from: u64,
    },
    Online,
}

/// A name for the `n`th history.
pub(super) fn replid(n: u64) -> ReplId {
    ReplId::from_bytes(format!("{n:040x}").as_bytes()).expect("40 hex digits")
}

/// Why a snapshot was asked for, and how many.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct FullSyncs {
    /// Nothing else was asked for.
    pub(super) asked: u64,
    /// The history that was asked for is not to be had.
    pub(super) refused: u64,
}

/// The source.
pub(super) struct Source {
    pub(super) store: Store,
    pub(super) truth: Truth,
    pub(super) replid: ReplId,
    other: Option<(ReplId, u64)>,
    names: u64,
    /// The stream, from `base` to the offset; the backlog is its end.
    stream: Vec<u8>,
    base: u64,
    backlog_from: u64,
    backlog_bytes: u64,
    selected: Option<u32>,
    clients: BTreeMap<u64, Client>,
    is_up: bool,
    pub(super) full_syncs: FullSyncs,
    said: Vec<(u64, Vec<u8>)>,
    hung_up: Vec<u64>,
}

impl Source {
    /// A source with `store`, whose history begins at `base`.
    pub(super) fn new(store: Store, base: u64, backlog_bytes: u64) -> Self {
        let mut truth = Truth::default();
        truth.begin(replid(1), None);
        truth.record(replid(1), base, &store);
        Self {
            store,
            truth,
            replid: replid(1),
            other: None,
            names: 1,
            stream: Vec::new(),
            base,
            backlog_from: base,
            backlog_bytes,
            selected: None,
            clients: BTreeMap::new(),
            is_up: true,
            full_syncs: FullSyncs::default(),
            said: Vec::new(),
            hung_up: Vec::new(),
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.base + self.stream.len() as u64
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    pub(super) fn come_up(&mut self) {
        self.is_up = true;
    }

    pub(super) fn accept(&mut self, conn: u64) {
        let client = Client {
            decoder: CommandDecoder::new(Limits::default()),
            buf: BytesMut::new(),
            stage: Stage::Client,
            db: 0,
            queued: None,
        };
        self.clients.insert(conn, client);
    }

    pub(super) fn forget(&mut self, conn: u64) {
        self.clients.remove(&conn);
    }

    pub(super) fn take_output(&mut self) -> (Vec<(u64, Vec<u8>)>, Vec<u64>) {
        (
            std::mem::take(&mut self.said),
            std::mem::take(&mut self.hung_up),
        )
    }

    /// It hangs up on everybody.
    pub(super) fn go_down(&mut self, world: &World) {
        world.say(|| format!("the source is down at {}", self.offset()));
        self.is_up = false;
        self.hung_up.extend(self.clients.keys().copied());
        self.clients.clear();
    }

    /// A replica takes its place that had got nothing of the last `lost` commands.
    pub(super) fn fail_over(&mut self, lost: usize, world: &World) {
        let known = self.truth.offsets(self.replid, self.backlog_from);
        let at = known
            .iter()
            .rev()
            .nth(lost)
            .copied()
            .unwrap_or(self.offset());
        if let Some(store) = self.truth.at(self.replid, at) {
            self.store = store.clone();
            self.stream.truncate((at - self.base) as usize);
        }
        self.rename(true);
        world.say(|| format!("the source is now {} from {at} on", self.replid));
    }

    /// It comes back with its data, but knows nothing of its history.
    pub(super) fn forget_history(&mut self, world: &World) {
        self.rename(false);
        self.backlog_from = self.offset();
        world.say(|| format!("the source is now {} and knows no other", self.replid));
    }

    fn rename(&mut self, knows_the_old: bool) {
        let (old, at) = (self.replid, self.offset());
        self.names += 1;
        self.replid = replid(self.names);
        self.other = knows_the_old.then_some((old, at));
        self.truth.begin(self.replid, Some((old, at)));
        self.truth.record(old, at, &self.store);
        self.truth.record(self.replid, at, &self.store);
        self.selected = None;
    }

    /// The backlog is as short as it can be.
    pub(super) fn shrink_backlog(&mut self) {
        self.backlog_from = self.offset();
    }

    /// Commands that were carried out as one, into the stream.
    pub(super) fn propagate(&mut self, db: u32, commands: &[Vec<Bytes>], is_transaction: bool) {
        let mut out = Vec::new();
        if self.selected != Some(db) {
            encode::command(&mut out, &[b"SELECT", db.to_string().as_bytes()]);
            self.selected = Some(db);
            // What follows is carried out here already, but not before this in the stream.
            let before = self.truth.at(self.replid, self.offset()).cloned();
            self.emit(&out, &before.unwrap_or_default());
            out.clear();
        }
        if is_transaction {
            encode::command(&mut out, &[b"MULTI"]);
        }
        for argv in commands {
            let words: Vec<&[u8]> = argv.iter().map(|word| &word[..]).collect();
            encode::command(&mut out, &words);
        }
        if is_transaction {
            encode::command(&mut out, &[b"EXEC"]);
        }
        self.emit(&out, &self.store.clone());
    }

    /// All words of the commands in a part of the stream, each with its database: the keys that they touch are among them.
    /// `None` where it is no longer the stream, or the part does not begin with a command.
    pub(super) fn words_in(&self, from: u64, to: u64, mut db: u32) -> Option<Spoilt> {
        let at = |offset: u64| usize::try_from(offset.checked_sub(self.base)?).ok();
        let mut part = BytesMut::from(self.stream.get(at(from)?..at(to)?)?);
        let mut decoder = CommandDecoder::new(Limits::default());
        let mut words = Spoilt::new();
        while let Some(argv) = next_command(&mut decoder, &mut part).ok()? {
            if argv.first()? == "SELECT" {
                db = std::str::from_utf8(argv.get(1)?).ok()?.parse().ok()?;
            }
            words.extend(argv.iter().map(|word| (db, word.to_vec())));
        }
        Some(words)
    }

    /// PING, or a question for an ACK.
    pub(super) fn control(&mut self, argv: &[&[u8]]) {
        let mut out = Vec::new();
        encode::command(&mut out, argv);
        self.emit(&out, &self.store.clone());
    }

    /// Puts bytes into the stream, after which a copy is as `state`.
    fn emit(&mut self, bytes: &[u8], state: &Store) {
        self.stream.extend_from_slice(bytes);
        self.truth.record(self.replid, self.offset(), state);
        self.backlog_from = self
            .backlog_from
            .max(self.offset().saturating_sub(self.backlog_bytes));
        for (conn, client) in &self.clients {
            if client.stage == Stage::Online {
                self.said.push((*conn, bytes.to_vec()));
            }
        }
    }

    pub(super) fn receive(&mut self, world: &Rc<World>, conn: u64, bytes: &Bytes) {
        let Some(mut client) = self.clients.remove(&conn) else {
            return;
        };
        client.buf.extend_from_slice(bytes);
        let mut out = Vec::new();
        loop {
            let argv = match next_command(&mut client.decoder, &mut client.buf) {
                Ok(Some(argv)) => argv,
                Ok(None) => break,
                Err(error) => {
                    world.blame(format!("the source got no RESP: {error}"));
                    break;
                }
            };
            self.command(world, conn, &mut client, &argv, &mut out);
        }
        self.clients.insert(conn, client);
        if !out.is_empty() {
            self.said.push((conn, out));
        }
    }

    fn command(
        &mut self,
        world: &Rc<World>,
        conn: u64,
        client: &mut Client,
        argv: &[Bytes],
        out: &mut Vec<u8>,
    ) {
        let mut say = |value: &Value| encode::value(out, value, encode::Protocol::Resp2);
        match (&*argv[0].to_ascii_lowercase(), &mut client.queued) {
            (b"exec", queued @ Some(_)) => {
                let queued = queued.take().unwrap_or_default();
                let answers = queued
                    .iter()
                    .map(|argv| self.answer(world, &mut client.db, argv))
                    .collect();
                say(&Value::Array(answers));
            }
            (_, Some(queued)) => {
                queued.push(argv.to_vec());
                say(&Value::Simple(Bytes::from_static(b"QUEUED")));
            }
            (b"multi", None) => {
                client.queued = Some(Vec::new());
                say(&ok());
            }
            (b"replconf", None) if argv[1].eq_ignore_ascii_case(b"ack") => {
                self.acknowledged(world, client, &argv[2], out);
            }
            (b"replconf", None) => say(&ok()),
            (b"psync", None) => self.psync(world, conn, client, argv, out),
            _ => say(&self.answer(world, &mut client.db, argv)),
        }
    }

    /// What a client may ask of it.
    fn answer(&mut self, world: &Rc<World>, db: &mut u32, argv: &[Bytes]) -> Value {
        let now_ms = world.unix_ms() as i64;
        match &*argv[0].to_ascii_lowercase() {
            b"ping" => Value::Simple(Bytes::from_static(b"PONG")),
            b"time" => time(now_ms),
            b"info" => {
                let text = format!(
                    "redis_version:7.2.5\r\nredis_mode:standalone\r\nrole:master\r\nmaster_replid:{}\r\nmaster_repl_offset:{}\r\n",
                    self.replid,
                    self.offset()
                );
                Value::Bulk(text.into())
            }
            b"select" => {
                let text = std::str::from_utf8(&argv[1]).unwrap_or_default();
                *db = text.parse().unwrap_or(*db);
                ok()
            }
            b"dump" => {
                self.end_expired(*db, &argv[1], now_ms);
                let entry = self.store.entry(*db, &argv[1]);
                entry.map_or(Value::Null, |entry| {
                    Value::Bulk(dump(&entry.content).into())
                })
            }
            b"memory" => {
                let entry = self.store.entry(*db, &argv[2]);
                entry.map_or(Value::Null, |entry| {
                    Value::Int(dump(&entry.content).len() as i64)
                })
            }
            b"pexpiretime" | b"pttl" => {
                self.end_expired(*db, &argv[1], now_ms);
                self.store.execute(*db, argv, now_ms)
            }
            _ => error("ERR not to be asked of a source"),
        }
    }

    /// A master ends a key that has expired before anything else is done to it.
    pub(super) fn end_expired(&mut self, db: u32, key: &[u8], now_ms: i64) {
        if self.store.expire(db, key, now_ms) {
            self.store.take_touched();
            let del = vec![Bytes::from_static(b"DEL"), Bytes::copy_from_slice(key)];
            self.propagate(db, &[del], false);
        }
    }

    fn acknowledged(&self, world: &World, client: &mut Client, offset: &[u8], out: &mut Vec<u8>) {
        let offset: u64 = std::str::from_utf8(offset)
            .ok()
            .and_then(|text| text.parse().ok())
            .unwrap_or(u64::MAX);
        let confirmed = world.target.borrow().oracle.furthest;
        if offset > confirmed {
            world.blame(format!(
                "{offset} was acknowledged, but the target has never been beyond {confirmed}"
            ));
        }
        if let Stage::WaitsForAck { from } = client.stage {
            out.extend_from_slice(&self.stream[(from - self.base) as usize..]);
            client.stage = Stage::Online;
        }
    }

    fn psync(
        &mut self,
        world: &Rc<World>,
        conn: u64,
        client: &mut Client,
        argv: &[Bytes],
        out: &mut Vec<u8>,
    ) {
        let asked = ReplId::from_bytes(&argv[1]);
        let wanted: Option<u64> = std::str::from_utf8(&argv[2])
            .ok()
            .and_then(|text| text.parse().ok());
        if let (Some(asked), Some(wanted)) = (asked, wanted) {
            let from = wanted.saturating_sub(1);
            let is_known = asked == self.replid
                || self
                    .other
                    .is_some_and(|(other, end)| asked == other && from <= end);
            if is_known && (self.backlog_from..=self.offset()).contains(&from) {
                out.extend_from_slice(format!("+CONTINUE {}\r\n", self.replid).as_bytes());
                out.extend_from_slice(&self.stream[(from - self.base) as usize..]);
                client.stage = Stage::Online;
                return;
            }
            self.full_syncs.refused += 1;
        } else {
            self.asked_for_all(world);
        }
        let offset = self.offset();
        // Whoever begins with a snapshot knows of no database.
        self.selected = None;
        out.extend_from_slice(format!("+FULLRESYNC {} {offset}\r\n", self.replid).as_bytes());
        client.stage = Stage::Waits { from: offset };
        let rdb = rdb(&self.store);
        let is_diskless = world.one_in(2);
        let wait = world.below(300);
        world.then(wait / 2, move |world| {
            world.source.borrow_mut().say(conn, b"\n".to_vec());
        });
        world.then(wait, move |world| {
            world
                .source
                .borrow_mut()
                .send_snapshot(conn, &rdb, is_diskless);
        });
    }

    /// Nobody may ask for a snapshot who could go on.
    fn asked_for_all(&mut self, world: &World) {
        self.full_syncs.asked += 1;
        let target = world.target.borrow();
        // A target that has just fallen back, or was taken over, may have been looked at before.
        if !target.is_up() {
            return;
        }
        let checkpoint = target.oracle.checkpoint(&target.store);
        if let Some(Ok(found)) = checkpoint
            && found.repairs.are_unnamed()
        {
            return;
        }
        if let Some(position) = target.oracle.position(&target.store)
            && target.oracle.is_settled(world)
        {
            world.blame(format!(
                "a snapshot is asked for, but the target is at {} in the stream",
                position.offset.0
            ));
        }
    }

    fn say(&mut self, conn: u64, bytes: Vec<u8>) {
        if self.clients.contains_key(&conn) {
            self.said.push((conn, bytes));
        }
    }

    fn send_snapshot(&mut self, conn: u64, rdb: &[u8], is_diskless: bool) {
        let Some(client) = self.clients.get_mut(&conn) else {
            return;
        };
        let Stage::Waits { from } = client.stage else {
            return;
        };
        let mut out = Vec::new();
        if is_diskless {
            // A digit more than once in a row could end a snapshot early that ends in it.
            let mark = *b"0123456789abcdef0123456789abcdef01234567";
            out.extend_from_slice(b"$EOF:");
            out.extend_from_slice(&mark);
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(rdb);
            out.extend_from_slice(&mark);
            client.stage = Stage::WaitsForAck { from };
        } else {
            out.extend_from_slice(format!("${}\r\n", rdb.len()).as_bytes());
            out.extend_from_slice(rdb);
            out.extend_from_slice(&self.stream[(from - self.base) as usize..]);
            client.stage = Stage::Online;
        }
        self.said.push((conn, out));
    }
}

/// What DUMP says.
fn dump(content: &Content) -> Vec<u8> {
    let mut body = RdbWriter::body();
    match content {
        Content::Text(text) => body.byte(0).text(text),
        Content::List(items) => {
            body.byte(1).len(items.len() as u64);
            items.iter().fold(&mut body, |body, item| body.text(item))
        }
    };
    payload(body.as_bytes(), 11)
}

/// All keys as an RDB file.
fn rdb(store: &Store) -> Vec<u8> {
    let mut file = RdbWriter::redis(11);
    file.aux("redis-ver", "7.2.5").aux("repl-stream-db", "0");
    for (db, keys) in store.databases() {
        file.select_db(u64::from(db));
        for (key, entry) in keys {
            if let Some(at_ms) = entry.expires_ms {
                file.expire_ms(at_ms);
            }
            match &entry.content {
                Content::Text(text) => file.key(0, key).text(text),
                Content::List(items) => {
                    file.key(1, key).len(items.len() as u64);
                    items.iter().fold(&mut file, |file, item| file.text(item))
                }
            };
        }
    }
    file.finish()
}
