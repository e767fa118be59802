//! Commands that are late: what the target has ended meanwhile, and the source has saved, is copied again.
//!
//! The target ends keys by its own clock. Where that is ahead of the source's, or we were away (killed, stopped, cut off),
//! or it was, it may have ended a key that the source has given another life meanwhile: PERSIST or a later PEXPIREAT then
//! find nothing, or what commands before them made anew in part. So before a unit of late commands goes out (see [`Tide`];
//! what was received before a connection to the target began counts as late), the target is asked about the keys that are
//! saved in it, and about those that others are made from. Who is missing, or has no expiry that could be changed, is in
//! doubt and is repaired (see [`super::super::repair`]) as a key that differs. A key that was rightly made anew looks the
//! same; it is copied in vain, which does no harm. What is overwritten or removed as a whole in what is late is in no doubt
//! afterwards. The same goes for the fields of a hash that have expiries of their own. What is not late may come too late
//! all the same, by the lag: PERSIST and PEXPIREAT answer 0 then, and their keys are in doubt.
//!
//! A key that is not saved needs nothing: whatever is left of it ends with the DEL that follows.

use std::time::Duration;

use bytes::Bytes;
use resp::{Arg, ErrorCode, Value};
use rewrite::{Abilities, CommandId, Losses, Table, Version, slot_of};

use super::known::{KNOWN, Known};
use super::{End, StreamApplier, show};
use crate::checkpoint::{Names, Phase};
use crate::client::Client;
use crate::config::{Config, ExistingKeys};
use crate::error::{Class, Side, SyncError};
use crate::pipeline::repair::{self, Repairs, Touched};
use crate::pipeline::tide::Tide;
use crate::status::{Number, Status};
use crate::target::Cluster;
use crate::target::cluster::Question;

/// What a command does to the life of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Nothing that outlives their end.
    Plain,
    /// Its key gets another life, and it answers 1: at the source it did, or it would not be in the stream.
    Saves,
    /// Its keys do not depend on what they were.
    Overwrites,
    /// It takes something out of the first key into another one,
    ReadsFirst,
    /// out of all but the first,
    ReadsRest,
    /// out of any.
    ReadsAll,
    /// Fields of its hash get another life.
    SavesFields,
    /// Fields of its hash do not depend on what they were; they stand from this word on, this far apart.
    OverwritesFields(usize, usize),
}

/// Commands that answer 0 where the target has ended the key.
pub(in crate::pipeline) const SAVES: &[&str] =
    &["expire", "expireat", "pexpire", "pexpireat", "persist"];

const ROLES: [(&[&str], Role); 9] = [
    (SAVES, Role::Saves),
    (
        &[
            "del", "getdel", "getset", "mset", "msetex", "psetex", "restore", "set", "setex",
            "unlink",
        ],
        Role::Overwrites,
    ),
    (
        &[
            "blmove",
            "brpoplpush",
            "copy",
            "lmove",
            "move",
            "rename",
            "renamenx",
            "rpoplpush",
            "smove",
        ],
        Role::ReadsFirst,
    ),
    (
        &[
            "bitop",
            "geosearchstore",
            "sdiffstore",
            "sinterstore",
            "sunionstore",
            "zdiffstore",
            "zinterstore",
            "zrangestore",
            "zunionstore",
        ],
        Role::ReadsRest,
    ),
    (
        &["georadius", "georadiusbymember", "pfmerge", "sort"],
        Role::ReadsAll,
    ),
    (
        &[
            "hexpire",
            "hexpireat",
            "hgetex",
            "hpersist",
            "hpexpire",
            "hpexpireat",
        ],
        Role::SavesFields,
    ),
    (&["hset", "hmset"], Role::OverwritesFields(2, 2)),
    (&["hdel"], Role::OverwritesFields(2, 1)),
    (&["hsetnx"], Role::OverwritesFields(2, 2)),
];

/// What the target is asked before a unit goes out.
#[derive(Debug)]
pub(in crate::pipeline) struct Ask {
    /// Where its command ends in the stream.
    end: u64,
    db: u32,
    key: Bytes,
    /// Of a hash.
    fields: Vec<Bytes>,
    /// What is in doubt with it.
    names: Names,
}

impl Ask {
    /// Others are made from it.
    fn is_read(&self) -> bool {
        self.names.len() > 1
    }
}

/// What one connection to the target knows of late commands.
pub(in crate::pipeline) struct Late<'a> {
    tide: &'a Tide,
    /// By id; empty where keys that differ are not to be repaired, or where the copy is not one of all keys.
    roles: Vec<Role>,
    /// What lies before this in the stream has waited for the target, and may be late however recent it is.
    waited_until: u64,
    /// What is collected now is late.
    is_late: bool,
    asks: Vec<Ask>,
    /// Keys and fields that are as at the source.
    known: Known,
    /// Keys may be missing for other reasons, which were allowed.
    allows_losses: bool,
    /// For the places of a command's keys.
    places: Vec<usize>,
    client: Option<Client>,
    /// Where the unit ended that was thrown away for what was in doubt in it: what is collected anew goes out there.
    again_until: Option<u64>,
    /// XCLAIM, where the target forgets what the source keeps: see [`crate::pipeline::claims`].
    claims: Option<CommandId>,
}

impl<'a> Late<'a> {
    /// Over a connection that begins with the stream at hand up to `waited_until`.
    pub(in crate::pipeline) fn new(
        config: &Config,
        table: &Table,
        tide: &'a Tide,
        waited_until: u64,
    ) -> Self {
        let is_whole = config.source.sync_rdb
            && config.function.is_none()
            && config.target.existing != ExistingKeys::Skip
            && !config.filter.may_leave_keys_out();
        let mut roles = Vec::new();
        if is_whole && config.repair {
            roles = vec![Role::Plain; table.len()];
            for (names, role) in ROLES {
                for id in names.iter().filter_map(|name| table.find(name.as_bytes())) {
                    if let Some(known) = roles.get_mut(usize::from(id.0)) {
                        *known = role;
                    }
                }
            }
        }
        Self {
            tide,
            roles,
            waited_until,
            is_late: true,
            asks: Vec::new(),
            known: Known::new(),
            allows_losses: config.target.losses == Losses::Allow,
            places: Vec::new(),
            client: None,
            again_until: None,
            claims: None,
        }
    }

    /// Between a source and a target of these kinds.
    pub(in crate::pipeline) fn between(
        mut self,
        table: &Table,
        source: Option<Version>,
        target: &Abilities,
    ) -> Self {
        let is_older = source.is_some_and(|version| version < Version::new(7, 0, 0));
        let forgets = is_older && target.stream_counters;
        self.claims = table.find(b"xclaim").filter(|_| forgets);
        self
    }

    /// What is known of the age of the stream, and of the clocks.
    pub(in crate::pipeline) fn tide(&self) -> &'a Tide {
        self.tide
    }

    /// Whether keys that the target has ended are looked for.
    pub(in crate::pipeline) fn looks(&self) -> bool {
        !self.roles.is_empty()
    }

    /// Whether nothing is to be known about what overwrites keys, nor where a unit has to end.
    pub(in crate::pipeline) fn is_at_ease(&self) -> bool {
        self.again_until.is_none() && !(self.is_late && self.looks())
    }

    /// Whether what was thrown away is collected anew, up to here. Once.
    pub(in crate::pipeline) fn has_come_again(&mut self, offset: u64) -> bool {
        self.again_until.take_if(|until| offset >= *until).is_some()
    }

    /// What was thrown away is collected anew, up to here.
    pub(in crate::pipeline) fn come_again(&mut self, until: u64) {
        self.again_until = Some(until);
    }

    /// The next question goes over a new connection.
    pub(in crate::pipeline) fn hang_up(&mut self) {
        self.client = None;
    }

    /// The source's value of this key is in the unit: nothing behind it is in doubt for what the target holds now.
    pub(in crate::pipeline) fn is_copied(&mut self, db: u32, key: &[u8]) {
        let hash = self.known.hash(db, key, None);
        self.learn(hash);
    }

    /// Whether what begins at this offset may have been done at the source long ago, or before the target was lost.
    fn is_behind_at(&self, offset: u64) -> bool {
        self.tide.is_late(offset) || (offset < self.waited_until && !self.tide.is_in_grace())
    }

    /// Whether the target may have ended keys that were saved before what begins at this offset. Where its clock is ahead
    /// it may have at any time.
    fn is_late_at(&self, offset: u64) -> bool {
        self.is_behind_at(offset) || self.tide.is_ahead()
    }

    /// What is collected from here on begins at this offset; whether it may be behind.
    pub(in crate::pipeline) fn begin(&mut self, offset: u64) -> bool {
        let is_behind = self.is_behind_at(offset);
        self.is_late = is_behind || self.tide.is_ahead();
        is_behind || self.tide.has_grace()
    }

    /// A unit of so many bytes was answered after so long.
    pub(in crate::pipeline) fn took(&self, took: Duration, bytes: u64) {
        self.tide.pace.borrow_mut().note(took, bytes);
    }

    /// What has no more than this left may end before a unit of so many bytes is carried out.
    pub(in crate::pipeline) fn margin(&self, bytes: u64) -> Duration {
        self.tide.pace.borrow().margin(bytes)
    }

    /// What was collected is thrown away.
    pub(in crate::pipeline) fn forget(&mut self) {
        self.asks.clear();
        self.known.clear();
        self.again_until = None;
    }

    /// Looks at the clock: after each wait, before more is collected.
    pub(in crate::pipeline) fn tick(&mut self) {
        self.known.tick();
    }

    /// Remembers it, where that is of use; whether it was known.
    fn learn(&mut self, hash: u64) -> bool {
        self.is_late && self.known.learn(hash)
    }

    /// Looks at a command that is put into the unit, and ends there in the stream. Whether it has to answer 1: 0 says that
    /// the target has ended its key before it was saved, by the lag alone.
    pub(in crate::pipeline) fn collect(
        &mut self,
        table: &Table,
        id: CommandId,
        db: u32,
        frame: &[u8],
        args: &[Arg],
        end: u64,
    ) -> bool {
        let role = self.roles.get(usize::from(id.0)).copied();
        let role = role.unwrap_or(Role::Plain);
        let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
        let keeps = || (3..args.len()).any(|at| word(at).eq_ignore_ascii_case(b"keepttl"));
        let find = |places: &mut Vec<usize>| {
            places.clear();
            if let Some(command) = table.command(id) {
                rewrite::keys_of(command, frame, args, places);
            }
        };
        match role {
            Role::Plain => {}
            Role::Overwrites if !self.is_late || keeps() => {}
            Role::Overwrites => {
                let mut places = std::mem::take(&mut self.places);
                find(&mut places);
                for place in &places {
                    let hash = self.known.hash(db, word(*place), None);
                    self.learn(hash);
                }
                self.places = places;
            }
            Role::OverwritesFields(from, step) if self.is_late => {
                for at in (from..args.len()).step_by(step) {
                    let hash = self.known.hash(db, word(1), Some(word(at)));
                    self.learn(hash);
                }
            }
            Role::OverwritesFields(..) => {}
            Role::Saves => self.ask_of(db, word(1), end, || {
                let mut names = Names::default();
                names.insert(db, Bytes::copy_from_slice(word(1)));
                names
            }),
            Role::ReadsFirst | Role::ReadsRest | Role::ReadsAll => {
                let mut places = Vec::new();
                find(&mut places);
                // SORT and the like may only read.
                if role == Role::ReadsAll && places.len() < 2 {
                    return false;
                }
                let inputs = match role {
                    Role::ReadsFirst => places.get(..1),
                    Role::ReadsRest => places.get(1..),
                    _ => Some(places.as_slice()),
                };
                for place in inputs.unwrap_or_default() {
                    self.ask_of(db, word(*place), end, || {
                        Touched::by(table, db, frame, args).names
                    });
                }
            }
            Role::SavesFields => {
                let at = (2..args.len()).find(|at| word(*at).eq_ignore_ascii_case(b"fields"));
                let key = word(1);
                if self.known.knows(self.known.hash(db, key, None)) {
                    return false;
                }
                let mut fields = Vec::new();
                for at in at.map_or(args.len(), |at| at + 2)..args.len() {
                    let hash = self.known.hash(db, key, Some(word(at)));
                    if !self.learn(hash) {
                        fields.push(Bytes::copy_from_slice(word(at)));
                    }
                }
                if !fields.is_empty() {
                    let key = Bytes::copy_from_slice(key);
                    let mut names = Names::default();
                    names.insert(db, key.clone());
                    self.asks.push(Ask {
                        end,
                        db,
                        key,
                        fields,
                        names,
                    });
                }
            }
        }
        (role == Role::Saves && !self.allows_losses) || self.claims == Some(id)
    }

    fn ask_of(&mut self, db: u32, key: &[u8], end: u64, names: impl FnOnce() -> Names) {
        let hash = self.known.hash(db, key, None);
        if !self.learn(hash) {
            self.asks.push(Ask {
                end,
                db,
                key: Bytes::copy_from_slice(key),
                fields: Vec::new(),
                names: names(),
            });
        }
    }

    /// What is to be asked before a unit goes out that begins and ends there; nothing if it is not late.
    pub(in crate::pipeline) fn take(&mut self, begin: u64, end: u64) -> Vec<Ask> {
        // What is in a transaction of which the end has not come goes with a later unit.
        let later = self.asks.iter().position(|ask| ask.end > end);
        let rest = self.asks.split_off(later.unwrap_or(self.asks.len()));
        let asks = std::mem::replace(&mut self.asks, rest);
        if asks.is_empty() || self.is_late_at(begin) {
            return asks;
        }
        self.known.clear();
        Vec::new()
    }

    /// Asks the target; gives what is in doubt. What it does not let us ask is counted in `unchecked`.
    async fn ask(
        &mut self,
        config: &Config,
        asks: &[Ask],
        margin: Duration,
        unchecked: &Number,
    ) -> Result<Names, SyncError> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&config.target.endpoint, Side::Target).await?,
        };
        let (mut commands, mut places): (Vec<Vec<&[u8]>>, _) = (Vec::new(), Vec::new());
        let names: Vec<_> = asks
            .iter()
            .map(|ask| config.target.name_of(ask.db, &ask.key))
            .collect();
        let dbs: Vec<String> = names.iter().map(|(db, _)| db.to_string()).collect();
        let counts: Vec<String> = asks
            .iter()
            .map(|ask| ask.fields.len().to_string())
            .collect();
        let mut selected = None;
        let asked = asks.iter().zip(&names);
        for (((ask, (_, key)), db), count) in asked.zip(&dbs).zip(&counts) {
            if selected.replace(db) != Some(db) {
                commands.push(vec![b"SELECT", db.as_bytes()]);
            }
            places.push(commands.len());
            if ask.fields.is_empty() {
                commands.push(vec![b"PTTL", key]);
            } else {
                let mut argv: Vec<&[u8]> = vec![b"HPTTL", key, b"FIELDS", count.as_bytes()];
                argv.extend(ask.fields.iter().map(|field| &field[..]));
                commands.push(argv);
            }
        }
        let replies = client.ask_all(&commands).await?;
        for (reply, argv) in replies.iter().zip(&commands) {
            match reply {
                Value::Error(error) if error.code == ErrorCode::WrongType => {}
                Value::Error(error) => {
                    let (is_barred, error) =
                        (error.code == ErrorCode::NoPerm, client.refused(argv, error));
                    if !is_barred {
                        return Err(error);
                    }
                    if self.tide.may_tell() {
                        tracing::error!(%error, "the target may have ended keys during an outage, and cannot be asked about them");
                    }
                }
                _ => {}
            }
        }
        let replies: Vec<Value> = places
            .into_iter()
            .map(|place| replies.get(place).cloned().unwrap_or(Value::Null))
            .collect();
        self.client = Some(client);
        Ok(judge(asks, &replies, margin, unchecked))
    }

    /// The same of a cluster.
    pub(in crate::pipeline) async fn ask_cluster(
        &self,
        config: &Config,
        cluster: &mut Cluster,
        asks: &[Ask],
        margin: Duration,
        unchecked: &Number,
    ) -> Result<Names, SyncError> {
        let questions = asks.iter().map(|ask| {
            let count = ask.fields.len().to_string();
            let (db, key) = config.target.name_of(ask.db, &ask.key);
            let mut argv: Vec<&[u8]> = match ask.fields.is_empty() {
                true => vec![b"PTTL", &key],
                false => vec![b"HPTTL", &key, b"FIELDS", count.as_bytes()],
            };
            argv.extend(ask.fields.iter().map(|field| &field[..]));
            Question::new(db, slot_of(&key), &argv)
        });
        let replies = cluster.ask_in(questions.collect()).await?;
        for error in replies.iter().filter_map(Value::as_error) {
            match error.code {
                ErrorCode::WrongType => {}
                ErrorCode::NoPerm if self.tide.may_tell() => {
                    tracing::error!(%error, "the target may have ended keys during an outage, and cannot be asked about them");
                }
                ErrorCode::NoPerm => {}
                _ => return Err(cluster.refusal_of("PTTL", error)),
            }
        }
        Ok(judge(asks, &replies, margin, unchecked))
    }
}

/// What is in doubt by these answers.
fn judge(asks: &[Ask], replies: &[Value], margin: Duration, unchecked: &Number) -> Names {
    // What gets no other life has to live on for as long as the answer is taken to hold.
    let (margin, margin_read) = (margin_ms(margin), margin_ms(KNOWN + margin));
    let mut names = Names::default();
    for (ask, reply) in asks.iter().zip(replies) {
        let is_well = match reply {
            Value::Error(error) if error.code == ErrorCode::NoPerm => {
                unchecked.add(ask.names.len() as u64);
                true
            }
            Value::Array(fields) => fields.iter().all(|left| lives_on(left, margin)),
            // That what others are made from has no expiry is nothing strange.
            left if ask.is_read() => *left == Value::Int(-1) || lives_on(left, margin_read),
            left => lives_on(left, margin),
        };
        if !is_well {
            names.extend(&ask.names);
        }
    }
    names
}

fn margin_ms(margin: Duration) -> i64 {
    i64::try_from(margin.as_millis()).unwrap_or(i64::MAX)
}

/// Whether it has an expiry, which is not too near.
fn lives_on(left: &Value, margin_ms: i64) -> bool {
    matches!(left, Value::Int(left_ms) if *left_ms > margin_ms)
}

impl StreamApplier<'_> {
    /// Before the unit goes out: whether keys in it are in doubt. Then they are under repair from here on, and what was
    /// collected is collected anew.
    pub(super) async fn doubts(&mut self, end: End) -> Result<bool, SyncError> {
        let Phase::Stream(position) = self.target.checkpoint.phase else {
            return Ok(false);
        };
        let asks = self.late.take(position.offset.0, end.offset);
        if asks.is_empty() {
            return Ok(false);
        }
        let mut names = Names::default();
        let unchecked = &self.status.unchecked;
        let margin = self.late.margin(self.next.bytes() as u64);
        let asked = self.late.ask(self.config, &asks, margin, unchecked).await?;
        for (db, key) in asked.iter() {
            if repair::is_copied(self.config, db, key) {
                names.insert(db, key.clone());
            }
        }
        if !self.is_in_doubt(&mut names).await {
            return Ok(false);
        }
        // What was collected was meant for a target without a flaw.
        self.collect_again(End {
            offset: position.offset.0,
            db: rewrite::Db(position.db),
            received_ms: end.received_ms,
        });
        self.late.come_again(end.offset);
        self.heal.hold(&names);
        self.show_repairs();
        Ok(true)
    }

    /// Puts those of these keys that can be copied again under repair; false if there are none.
    pub(super) async fn is_in_doubt(&self, names: &mut Names) -> bool {
        let doubts = Doubts {
            config: self.config,
            status: self.status,
            repairs: self.repairs,
            tide: self.late.tide,
            tells_time: self.tells_time,
        };
        doubts.hold(names).await
    }
}

/// What puts keys that are in doubt under repair.
#[derive(Clone, Copy)]
pub(in crate::pipeline) struct Doubts<'a> {
    pub(in crate::pipeline) config: &'a Config,
    pub(in crate::pipeline) status: &'a Status,
    pub(in crate::pipeline) repairs: &'a Repairs,
    pub(in crate::pipeline) tide: &'a Tide,
    pub(in crate::pipeline) tells_time: bool,
}

impl Doubts<'_> {
    /// Puts those of these keys that can be copied again under repair; false if there are none.
    pub(in crate::pipeline) async fn hold(&self, names: &mut Names) -> bool {
        self.let_go_of_large_doubts(names).await;
        if names.is_empty() {
            return false;
        }
        if !self.can_be_read(names).await || !self.repairs.add_doubtful(names) {
            self.status.unchecked.add(names.len() as u64);
            return false;
        }
        if self.tide.may_tell() {
            tracing::warn!(
                keys = names.len(),
                "the target has, or may have, ended keys before it heard that they were saved at the source: they are copied again"
            );
        }
        self.status.doubtful.add(names.len() as u64);
        true
    }

    /// A key that is too large to be copied for a mere doubt is named, and let go.
    async fn let_go_of_large_doubts(&self, names: &mut Names) {
        if names.is_empty() {
            return;
        }
        let mut large = Names::default();
        for (db, key, bytes) in repair::too_large(self.config, names).await {
            tracing::error!(
                db,
                key = show(&key),
                bytes,
                "the target may have ended this key during an outage, and it is too large to be copied again within limits.memory: compare it with the source"
            );
            large.insert(db, key);
        }
        self.status.unchecked.add(large.len() as u64);
        names.remove(&large);
    }

    /// Whether the source lets us read keys. A mere doubt is no reason to end the link where it does not.
    async fn can_be_read(&self, names: &Names) -> bool {
        let can_read = &self.tide.can_read;
        if can_read.get() {
            return true;
        }
        match repair::read(self.config, names.first(1), self.tells_time).await {
            Err(error) if error.class == Class::Stop => {
                if self.tide.may_tell() {
                    tracing::error!(%error, "the target may have ended keys that were saved at the source during an outage, and they cannot be copied again");
                }
                return false;
            }
            Err(_) => {}
            Ok(_) => can_read.set(true),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config() -> Config {
        let text = "[sync_reader]\naddress = \"s:1\"\n[redis_writer]\naddress = \"t:1\"\n";
        Config::parse(Path::new("test.toml"), text).unwrap()
    }

    /// The questions about late commands, each behind its database.
    fn asks(commands: &[(u32, &str)]) -> Vec<String> {
        let (table, tide) = (Table::new(), Tide::default());
        let mut late = Late::new(&config(), &table, &tide, 0);
        late.begin(0);
        for (db, words) in commands {
            let argv: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
            let mut frame = Vec::new();
            resp::encode::command(&mut frame, &argv);
            let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
            decoder.poll(&frame).unwrap().unwrap();
            let id = table.find(&argv[0].to_ascii_lowercase()).unwrap();
            late.collect(&table, id, *db, &frame, decoder.args(), 10);
        }
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let asks = late.take(0, 10);
        asks.iter()
            .map(|ask| {
                let fields = ask.fields.iter().map(|field| format!(".{}", text(field)));
                let fields: String = fields.collect();
                let names = ask
                    .names
                    .iter()
                    .map(|(db, key)| format!("{db}{}", text(key)));
                let names: Vec<String> = names.collect();
                format!("{}{}{fields}>{}", ask.db, text(&ask.key), names.join(","))
            })
            .collect()
    }

    #[tokio::test]
    async fn who_is_saved_or_read_is_asked_about_once() {
        assert_eq!(
            asks(&[
                (0, "PERSIST a"),
                (0, "pexpireat a 5"),
                (3, "PEXPIREAT a 5"),
                (0, "INCR b")
            ]),
            ["0a>0a", "3a>3a"]
        );
        assert_eq!(asks(&[(0, "RENAME a b")]), ["0a>0a,0b"]);
        assert_eq!(
            asks(&[(0, "SUNIONSTORE d a b")]),
            ["0a>0a,0b,0d", "0b>0a,0b,0d"]
        );
        assert_eq!(asks(&[(1, "MOVE a 2")]), ["1a>1a,2a"]);
        assert_eq!(
            asks(&[(0, "SORT a BY nosort STORE d")]),
            ["0a>0a,0d", "0d>0a,0d"]
        );
        assert!(asks(&[(0, "SORT a"), (0, "APPEND a x"), (0, "LPOP a")]).is_empty());
    }

    #[tokio::test]
    async fn who_is_overwritten_is_in_no_doubt() {
        let written = [
            "SET a 1",
            "DEL a",
            "MSET b 1 a 2",
            "GETDEL a",
            "PSETEX a 5 x",
        ];
        for words in written {
            assert!(
                asks(&[(0, words), (0, "INCR a"), (0, "PERSIST a")]).is_empty(),
                "{words}"
            );
            assert_eq!(asks(&[(1, words), (0, "PERSIST a")]), ["0a>0a"]);
        }
        assert_eq!(asks(&[(0, "SET a 1 KEEPTTL"), (0, "PERSIST a")]), ["0a>0a"]);
    }

    #[tokio::test]
    async fn fields_are_asked_about_by_themselves() {
        assert_eq!(
            asks(&[
                (0, "HSET h f 1 g f"),
                (0, "HPEXPIREAT h 5 FIELDS 3 f g i"),
                (0, "HPERSIST h FIELDS 1 i")
            ]),
            ["0h.i>0h"]
        );
        assert_eq!(
            asks(&[(0, "HINCRBY h f 1"), (0, "HPERSIST h FIELDS 1 f")]),
            ["0h.f>0h"]
        );
        assert!(
            asks(&[
                (0, "DEL h"),
                (0, "HSET h f 1"),
                (0, "HPEXPIREAT h 5 FIELDS 1 f")
            ])
            .is_empty()
        );
    }

    #[test]
    fn a_copy_that_is_not_one_of_all_keys_is_not_looked_at() {
        let mut config = config();
        config.repair = false;
        let (table, tide) = (Table::new(), Tide::default());
        assert!(Late::new(&config, &table, &tide, 0).roles.is_empty());
        config.repair = true;
        config.source.sync_rdb = false;
        assert!(Late::new(&config, &table, &tide, 0).roles.is_empty());
    }
}
