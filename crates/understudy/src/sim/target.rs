//! The target: a master with transactions and WATCH, which can run out of memory, be busy, lose its primary and with
//! it the newest transactions.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use replica::ReplId;
use resp::{CommandDecoder, Limits, Value, encode};

use super::oracle::Oracle;
use super::store::{
    self, COMMANDS, Content, DATABASES, Entry, Kind, Store, Touch, error, next_command, ok,
};
use super::world::World;

/// So many states are kept to fall back to.
const PAST_MAX: usize = 200;

/// What keeps a target from taking writes for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    OutOfMemory,
    ReadOnly,
    Misconf,
    NoReplicas,
    Loading,
    /// A script runs; before 7.0 a busy server refuses WATCH and MULTI too.
    Busy {
        old: bool,
    },
}

impl Trouble {
    /// What a command of this kind is told.
    fn refusal(self, name: &[u8], kind: Kind) -> Option<&'static str> {
        let writes = matches!(kind, Kind::Writes | Kind::Grows);
        let is = |names: &[&str]| {
            names
                .iter()
                .any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
        };
        match self {
            Self::OutOfMemory if kind == Kind::Grows => {
                Some("OOM command not allowed when used memory > 'maxmemory'.")
            }
            Self::ReadOnly if writes => {
                Some("READONLY You can't write against a read only replica.")
            }
            Self::Misconf if writes || is(&["ping"]) => Some(
                "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            ),
            Self::NoReplicas if writes => Some("NOREPLICAS Not enough good replicas to write."),
            Self::Loading if !is(&["info", "multi", "discard", "watch", "unwatch", "select"]) => {
                Some("LOADING Redis is loading the dataset in memory")
            }
            Self::Busy { old: false } if !is(&["multi", "discard", "watch", "unwatch"]) => Some(
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            ),
            Self::Busy { old: true } if !is(&["auth", "shutdown"]) => Some(
                "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
            ),
            _ => None,
        }
    }
}

/// A key that a client watches.
struct Watched {
    db: u32,
    key: Bytes,
    /// It should have ended already when the watch began, and is still there: nothing is changed when it goes.
    has_expired: bool,
    /// Its place among all watches.
    number: u64,
}

struct Client {
    decoder: CommandDecoder,
    buf: BytesMut,
    db: u32,
    queued: Option<Vec<Vec<Bytes>>>,
    /// A command was not queued.
    is_spoilt: bool,
    watched: Vec<Watched>,
    /// A watched key was changed.
    is_dirty: bool,
}

impl Client {
    fn new() -> Self {
        Self {
            decoder: CommandDecoder::new(Limits::default()),
            buf: BytesMut::new(),
            db: 0,
            queued: None,
            is_spoilt: false,
            watched: Vec::new(),
            is_dirty: false,
        }
    }

    fn end_transaction(&mut self) {
        self.queued = None;
        self.is_spoilt = false;
        self.unwatch();
    }

    fn unwatch(&mut self) {
        self.watched.clear();
        self.is_dirty = false;
    }
}

/// The target.
pub(super) struct Target {
    pub(super) store: Store,
    clients: BTreeMap<u64, Client>,
    /// States after every change, the newest last: what a replica may have got.
    past: VecDeque<Store>,
    replid: ReplId,
    is_up: bool,
    trouble: Option<Trouble>,
    watches: u64,
    pub(super) oracle: Oracle,
    said: Vec<(u64, Vec<u8>)>,
    hung_up: Vec<u64>,
}

impl Target {
    pub(super) fn new(replid: ReplId, oracle: Oracle) -> Self {
        Self {
            store: Store::default(),
            clients: BTreeMap::new(),
            past: VecDeque::from([Store::default()]),
            replid,
            is_up: true,
            trouble: None,
            watches: 0,
            oracle,
            said: Vec::new(),
            hung_up: Vec::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    pub(super) fn set_trouble(&mut self, trouble: Option<Trouble>) {
        self.trouble = trouble;
        self.store.is_replica = trouble == Some(Trouble::ReadOnly);
    }

    /// It goes down, and with it the last `lost` changes: a replica that had not got them takes its place, or it
    /// comes back with what its AOF has.
    pub(super) fn fall_back(&mut self, lost: usize, world: &World) {
        let lost = lost.min(self.past.len() - 1);
        self.past.truncate(self.past.len() - lost);
        if let Some(store) = self.past.back() {
            self.store = store.clone();
        }
        self.set_trouble(self.trouble);
        self.hung_up.extend(self.clients.keys().copied());
        self.clients.clear();
        self.is_up = false;
        world.say(|| format!("the target is down, {lost} changes are lost"));
        self.oracle.fell_back(&self.store, world);
    }

    pub(super) fn come_up(&mut self) {
        self.is_up = true;
    }

    pub(super) fn accept(&mut self, conn: u64) {
        self.clients.insert(conn, Client::new());
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
                    world.blame(format!("the target got no RESP: {error}"));
                    break;
                }
            };
            let reply = self.command(world, &mut client, argv);
            encode::value(&mut out, &reply, encode::Protocol::Resp2);
        }
        self.clients.insert(conn, client);
        if !out.is_empty() {
            self.said.push((conn, out));
        }
    }

    fn command(&mut self, world: &Rc<World>, client: &mut Client, argv: Vec<Bytes>) -> Value {
        let name = argv[0].to_ascii_lowercase();
        let kind = store::kind_of(&name);
        let is_exec = &*name == b"exec";
        let refusal = match (self.trouble, kind) {
            (_, None) => Some(format!(
                "ERR unknown command '{}'",
                String::from_utf8_lossy(&argv[0])
            )),
            (Some(trouble), Some(kind)) => {
                let queued = client.queued.iter().flatten();
                // EXEC needs what its commands need.
                let kinds = queued
                    .filter(|_| is_exec)
                    .filter_map(|argv| store::kind_of(&argv[0]));
                // A transaction is not to grow while memory is short, whatever is to be queued.
                let grows = trouble == Trouble::OutOfMemory
                    && client.queued.is_some()
                    && !matches!(&*name, b"exec" | b"discard");
                let kind = if grows { Kind::Grows } else { kind };
                let strictest = kinds
                    .chain([kind])
                    .find_map(|kind| trouble.refusal(&name, kind));
                strictest.map(str::to_owned)
            }
            (None, Some(_)) => None,
        };
        if let Some(refusal) = refusal {
            if is_exec && client.queued.is_some() {
                client.end_transaction();
                return error(&format!(
                    "EXECABORT Transaction discarded because of: {refusal}"
                ));
            }
            client.is_spoilt |= client.queued.is_some();
            return error(&refusal);
        }
        match &*name {
            b"multi" if client.queued.is_some() => error("ERR MULTI calls can not be nested"),
            b"multi" => {
                client.queued = Some(Vec::new());
                ok()
            }
            b"exec" => self.exec(world, client),
            b"discard" if client.queued.is_none() => error("ERR DISCARD without MULTI"),
            b"discard" => {
                client.end_transaction();
                ok()
            }
            b"watch" if client.queued.is_some() => error("ERR WATCH inside MULTI is not allowed"),
            b"watch" => {
                self.watch(client, &argv[1..], world.unix_ms() as i64);
                ok()
            }
            b"unwatch" if client.queued.is_none() => {
                client.unwatch();
                ok()
            }
            _ => match &mut client.queued {
                Some(queued) => {
                    // A transaction that will have no effect grows no further: EXEC is then judged by what is in it.
                    if !client.is_spoilt && !client.is_dirty {
                        queued.push(argv);
                    }
                    Value::Simple(Bytes::from_static(b"QUEUED"))
                }
                None => {
                    let reply = self.run(world, client, &argv);
                    self.changed(world, client);
                    reply
                }
            },
        }
    }

    fn watch(&mut self, client: &mut Client, keys: &[Bytes], now_ms: i64) {
        let db = client.db;
        for key in keys.iter().filter(|_| !client.is_dirty) {
            let is_watched = |watched: &Watched| watched.db == db && watched.key == *key;
            if client.watched.iter().any(is_watched) {
                continue;
            }
            self.watches += 1;
            client.watched.push(Watched {
                db,
                key: key.clone(),
                has_expired: self.store.has_expired(db, key, now_ms),
                number: self.watches,
            });
        }
    }

    fn exec(&mut self, world: &Rc<World>, client: &mut Client) -> Value {
        let Some(queued) = client.queued.take() else {
            return error("ERR EXEC without MULTI");
        };
        let now_ms = world.unix_ms() as i64;
        let mut watched = client.watched.iter();
        let has_ended = watched.any(|watched| {
            !watched.has_expired && self.store.has_expired(watched.db, &watched.key, now_ms)
        });
        let (is_spoilt, is_dirty) = (client.is_spoilt, client.is_dirty || has_ended);
        client.end_transaction();
        if is_spoilt {
            return error("EXECABORT Transaction discarded because of previous errors.");
        }
        if is_dirty {
            return Value::Null;
        }
        let replies = queued
            .iter()
            .map(|argv| self.run(world, client, argv))
            .collect();
        self.changed(world, client);
        Value::Array(replies)
    }

    fn run(&mut self, world: &Rc<World>, client: &mut Client, argv: &[Bytes]) -> Value {
        let now_ms = world.unix_ms() as i64;
        match &*argv[0].to_ascii_lowercase() {
            b"ping" => Value::Simple(Bytes::from_static(b"PONG")),
            b"unwatch" => ok(),
            b"select" => match argv
                .get(1)
                .and_then(|db| std::str::from_utf8(db).ok()?.parse().ok())
            {
                Some(db) if db < DATABASES => {
                    client.db = db;
                    ok()
                }
                _ => error("ERR DB index is out of range"),
            },
            b"time" => time(now_ms),
            b"command" => command(),
            b"info" => self.info(argv),
            _ => self.store.execute(client.db, argv, now_ms),
        }
    }

    fn info(&self, argv: &[Bytes]) -> Value {
        let text = match argv.get(1).map(|section| section.to_ascii_lowercase()) {
            Some(section) if section == b"server" => {
                "redis_version:7.2.5\r\nredis_mode:standalone\r\n".to_owned()
            }
            Some(section) if section == b"replication" => format!(
                "role:{}\r\nmaster_replid:{}\r\n",
                match self.trouble {
                    Some(Trouble::ReadOnly) => "slave",
                    _ => "master",
                },
                self.replid
            ),
            _ => self
                .store
                .databases()
                .map(|(db, keys)| format!("db{db}:keys={},expires=0\r\n", keys.len()))
                .collect(),
        };
        Value::Bulk(text.into())
    }

    /// Somebody who is not the daemon replaces a key, where the daemon has begun to write.
    pub(super) fn write_of_others(&mut self, world: &World, db: u32, key: &[u8], content: Content) {
        if !self.is_up || self.oracle.checkpoint(&self.store).is_none() {
            return;
        }
        self.oracle.spoilt.insert((db, key.to_vec()));
        let entry = Entry {
            content,
            expires_ms: None,
        };
        self.store.put(db, key, entry);
        self.tell_others(world, None);
    }

    /// The operator empties it, with the checkpoint.
    pub(super) fn be_emptied(&mut self, world: &World) {
        self.store.execute(0, &[Bytes::from_static(b"FLUSHALL")], 0);
        self.oracle.fell_back(&self.store, world);
        self.tell_others(world, None);
    }

    /// Whatever `client` did is done: others that watch are told, and the oracle looks.
    fn changed(&mut self, world: &World, client: &mut Client) {
        self.tell_others(world, Some(client));
    }

    fn tell_others(&mut self, world: &World, client: Option<&mut Client>) {
        let touched = self.store.take_touched();
        if touched.is_empty() {
            return;
        }
        let mut clients: Vec<&mut Client> = self.clients.values_mut().chain(client).collect();
        for touch in &touched {
            tell_watchers(&mut clients, touch);
        }
        self.past.push_back(self.store.clone());
        if self.past.len() > PAST_MAX {
            self.past.pop_front();
        }
        let source = world.source.borrow();
        self.oracle.look(world, &self.store, &source.truth);
    }
}

/// Who watches a key is told of a change, in the order in which they began to.
fn tell_watchers(clients: &mut [&mut Client], touch: &Touch) {
    let mut watchers = Vec::new();
    for (at, client) in clients.iter().enumerate() {
        let is_it = |watched: &Watched| watched.db == touch.db && watched.key == touch.key;
        let place = client.watched.iter().position(is_it);
        watchers.extend(place.map(|place| (client.watched[place].number, at, place)));
    }
    watchers.sort_unstable();
    for (_, at, place) in watchers {
        let client = &mut clients[at];
        match &mut client.watched[place].has_expired {
            has_expired @ true if !touch.is_there => *has_expired = false,
            // As Redis has it: what takes the place of a key that should have ended tells nobody else.
            true => break,
            false => {
                client.is_dirty = true;
                client.watched.clear();
            }
        }
    }
}

/// The reply to TIME.
pub(super) fn time(now_ms: i64) -> Value {
    let part = |number: i64| Value::Bulk(number.to_string().into());
    Value::Array(vec![part(now_ms / 1000), part(now_ms % 1000 * 1000)])
}

fn command() -> Value {
    let rows = COMMANDS.iter().map(|(name, _)| {
        Value::Array(vec![
            Value::Bulk(Bytes::from_static(name.as_bytes())),
            Value::Int(-1),
        ])
    });
    Value::Array(rows.collect())
}
