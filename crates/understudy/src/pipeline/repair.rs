//! Repairs: keys of the target that differ from the source's are copied again, one by one, while the stream goes on.
//!
//! `MULTI; DUMP k; PEXPIRETIME k; INFO replication; EXEC` at the source gives a value and the very offset at which it is
//! that. Until the stream has come to that offset its commands on the key are passed over; there the value is put in
//! place. A command that touches other keys as well brings them under repair with it, and all are read again: no value is
//! ever made from one that is wrong. The checkpoint lists the keys under repair, so that whoever goes on from it does
//! the same; it may list too many, since a copy of the source's value is right for every key.

use std::cell::{Cell, RefCell};

use bytes::Bytes;
use replica::ReplId;
use resp::{Arg, Value};
use rewrite::{Db, Table};

use super::sweep::is_own;
use super::unit::{Sealed, each_command};
use crate::checkpoint::{NAMED_BYTES_MAX, NAMED_MAX, Names};
use crate::client::{Client, Info};
use crate::config::Config;
use crate::error::{Class, Side, SyncError};
use crate::target::cluster::redirects;

/// Most keys in doubt after an outage, with those; some may be copied in vain.
const DOUBTFUL_MAX: usize = 400_000;
/// Most bytes of their names.
const DOUBTFUL_BYTES_MAX: usize = 32 << 20;

/// The keys of a link that are under repair, whichever connection is on it.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    open: RefCell<Names>,
    /// How many of them came by doubt.
    doubtful: Cell<usize>,
    /// Bytes of their names, since there were none.
    doubtful_bytes: Cell<usize>,
    /// The offset up to which this run has looked at the replies: what failed before it is in `open`.
    seen: Cell<Option<u64>>,
    /// The offset at which keys were last found to be repaired: a checkpoint that says no more may be from before.
    mended: Cell<Option<u64>>,
}

impl Repairs {
    /// All of them.
    pub(super) fn names(&self) -> Names {
        self.open.borrow().clone()
    }

    /// What a checkpoint says of them.
    pub(super) fn for_checkpoint(&self) -> Names {
        self.open.borrow().for_checkpoint()
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.open.borrow().len()
    }

    /// Adds some; whether they can be repaired at all, being so many.
    pub(super) fn add(&self, names: &Names) -> bool {
        let mut open = self.open.borrow_mut();
        open.extend(names);
        // Beyond that a new snapshot is cheaper, but for keys in doubt, which have a limit of their own.
        let doubtful = self.doubtful.get();
        open.len() <= NAMED_MAX + doubtful && (doubtful > 0 || open.bytes() <= NAMED_BYTES_MAX)
    }

    /// Whether all of them could be added and be named in the checkpoint.
    pub(super) fn has_room(&self, names: &Names) -> bool {
        let mut open = self.names();
        open.extend(names);
        open.can_be_named()
    }

    /// Adds some that may differ, all or none of them; false: they are too many.
    pub(super) fn add_doubtful(&self, names: &Names) -> bool {
        let mut open = self.open.borrow_mut();
        let fits = open.len() + names.len() <= DOUBTFUL_MAX
            && self.doubtful_bytes.get() + names.bytes() <= DOUBTFUL_BYTES_MAX;
        if fits {
            let before = open.len();
            open.extend(names);
            self.doubtful.set(self.doubtful.get() + open.len() - before);
            self.doubtful_bytes
                .set(self.doubtful_bytes.get() + names.bytes());
        }
        fits
    }

    /// These are as at the source.
    pub(super) fn remove(&self, names: &Names) {
        let mut open = self.open.borrow_mut();
        open.remove(names);
        self.doubtful.set(self.doubtful.get().min(open.len()));
        if open.is_empty() {
            self.doubtful_bytes.set(0);
        }
    }

    /// This run has looked at all replies up to `offset`.
    pub(super) fn set_seen(&self, offset: u64) {
        self.seen.set(Some(offset));
    }

    /// The target is at another place than the one where it was seen last: what it comes to from there has not been seen.
    pub(super) fn forget_seen(&self) {
        self.seen.set(None);
    }

    /// Whether it has looked at those up to `offset`, and at no other since.
    pub(crate) fn has_seen(&self, offset: u64) -> bool {
        self.seen.get() == Some(offset) && !self.may_be_before_mends(offset)
    }

    /// Keys were repaired in the unit that ends at `offset`.
    pub(super) fn set_mended(&self, offset: u64) {
        self.mended.set(Some(offset));
    }

    /// Whether a target whose checkpoint says `offset` may have lost repairs.
    pub(crate) fn may_be_before_mends(&self, offset: u64) -> bool {
        self.mended.get().is_some_and(|mended| offset <= mended)
    }

    /// Forgets all: a new snapshot begins.
    pub(crate) fn clear(&self) {
        *self.open.borrow_mut() = Names::default();
        self.doubtful.set(0);
        self.doubtful_bytes.set(0);
        self.seen.set(None);
        self.mended.set(None);
    }
}

/// Whether a key of the source is ours to write at the target.
pub(super) fn is_copied(config: &Config, db: u32, key: &[u8]) -> bool {
    // Where several databases go into one, the value of one of them might not be the key's.
    let map = config.target.db_map.as_ref();
    let is_merged = map.is_some_and(|map| map.is_merged(map.db(Db(db))));
    config.filter.db(Db(db)) && config.filter.key(key) && !is_own(key) && !is_merged
}

/// What the source calls these keys of the target; `None` where that of one cannot be told.
pub(super) fn at_source(config: &Config, names: &Names) -> Option<Names> {
    let mut found = Names::default();
    for (db, key) in names.iter() {
        let (db, key) = config.target.origin_of(db, key)?;
        found.insert(db, key);
    }
    Some(found)
}

/// What a command of `db` touches.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) names: Names,
    pub(super) whole: Whole,
}

/// What it does to whole databases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Whole {
    #[default]
    Nothing,
    /// One is emptied; `None`: all are.
    Flush(Option<u32>),
    Swap(u32, u32),
}

impl Touched {
    /// What the command with these words touches.
    pub(super) fn by(table: &Table, db: u32, frame: &[u8], args: &[Arg]) -> Self {
        let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
        let name = word(0).to_ascii_lowercase();
        let mut touched = Self::default();
        let mut places = Vec::new();
        match table.lookup(&name) {
            Some(command) => rewrite::keys_of(command, frame, args, &mut places),
            // As everywhere: a module's command has its key first.
            None if args.len() > 1 => places.push(1),
            None => {}
        }
        let other = match name.as_slice() {
            b"move" => number(word(2)),
            b"copy" => (3..args.len())
                .find(|at| word(*at).eq_ignore_ascii_case(b"db"))
                .and_then(|at| number(word(at + 1))),
            _ => None,
        };
        for place in places {
            let key = Bytes::copy_from_slice(word(place));
            if let Some(other) = other {
                touched.names.insert(other, key.clone());
            }
            touched.names.insert(db, key);
        }
        touched.whole = match (name.as_slice(), number(word(1)), number(word(2))) {
            (b"swapdb", Some(a), Some(b)) => Whole::Swap(a, b),
            (b"flushdb", ..) => Whole::Flush(Some(db)),
            (b"flushall", ..) => Whole::Flush(None),
            _ => Whole::Nothing,
        };
        touched
    }

    /// Whether it touches any of `held`.
    pub(super) fn hits(&self, held: &Names) -> bool {
        let whole = match self.whole {
            Whole::Nothing => false,
            Whole::Flush(None) => true,
            Whole::Flush(Some(db)) => held.has_db(db),
            Whole::Swap(a, b) => held.has_db(a) || held.has_db(b),
        };
        whole || self.names.iter().any(|(db, key)| held.contains(db, key))
    }

    /// What differs after it, if `held` differed before.
    pub(super) fn spread(self, held: &Names) -> Names {
        let mut names = self.names;
        if let Whole::Swap(a, b) = self.whole {
            for (db, key) in held.iter() {
                if db == a || db == b {
                    names.insert(a, key.clone());
                    names.insert(b, key.clone());
                }
            }
        }
        names
    }
}

fn number(word: &[u8]) -> Option<u32> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// The keys that differ after a unit in which the commands at the places `failed`, in order, failed: theirs, and those
/// that later commands of the unit made from them. `None` where a command that failed names no key.
pub(super) fn damaged(table: &Table, sealed: &Sealed, failed: &[usize]) -> Option<Names> {
    damage(table, failed, |each| sealed.each(each))
}

/// The same of these encoded commands.
pub(super) fn damaged_in(table: &Table, commands: &[u8], failed: &[usize]) -> Option<Names> {
    damage(table, failed, |each| each_command(commands, each))
}

fn damage(
    table: &Table,
    failed: &[usize],
    each: impl FnOnce(&mut dyn FnMut(usize, &[u8], &[Arg])),
) -> Option<Names> {
    if failed.is_empty() {
        return Some(Names::default());
    }
    let (mut names, mut db, mut is_known) = (Names::default(), 0, true);
    each(&mut |at, frame, args| {
        let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
        if word(0).eq_ignore_ascii_case(b"select") {
            db = number(word(1)).unwrap_or(db);
        }
        let has_failed = failed.binary_search(&at).is_ok();
        // These take nothing from one key to another.
        let is_plain = ["mset", "msetex", "del", "unlink"]
            .iter()
            .any(|name| word(0).eq_ignore_ascii_case(name.as_bytes()));
        if !has_failed && (names.is_empty() || is_plain) {
            return;
        }
        let touched = Touched::by(table, db, frame, args);
        if has_failed {
            is_known &= !touched.names.is_empty();
            names.extend(&touched.names);
        } else if touched.hits(&names) {
            let more = touched.spread(&names);
            names.extend(&more);
        }
    });
    is_known.then_some(names)
}

/// Values of the source at one moment of its history.
#[derive(Debug)]
pub(crate) struct Copies {
    pub(crate) replid: Option<ReplId>,
    pub(crate) offset: u64,
    pub(crate) keys: Vec<Copied>,
}

impl Copies {
    /// Keys at the moment that this INFO tells.
    pub(crate) fn at(info: &[u8], keys: Vec<Copied>) -> Option<Self> {
        let info = Info::of(info);
        Some(Self {
            replid: info.get("master_replid").and_then(|id| id.parse().ok()),
            offset: info.get("master_repl_offset")?.parse().ok()?,
            keys,
        })
    }
}

/// When a key expires, in Unix milliseconds; 0 for never: by PEXPIRETIME, or by PTTL and TIME.
pub(crate) fn copied_time(time: &Value, now: Option<&Value>) -> Option<i64> {
    let Value::Int(time) = time else {
        return None;
    };
    let now_ms = now.map_or(Some(0), crate::clock::time_ms)?;
    Some(if *time < 0 { 0 } else { now_ms + time })
}

/// A key and what it holds.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) db: u32,
    pub(crate) key: Bytes,
    /// The payload of DUMP; `None`: there is no such key.
    pub(crate) value: Option<Bytes>,
    /// When it expires, in Unix milliseconds; 0 for never.
    pub(crate) at_ms: i64,
}

/// A key, and what it takes at the source, if the source tells.
pub(super) type Sized = (u32, Bytes, Option<u64>);

/// Those of `names` that are too large to be copied, as far as the source tells now: before anything is read of a key, it
/// is asked again.
pub(super) async fn too_large(config: &Config, names: &Names) -> Vec<(u32, Bytes, u64)> {
    let sized = match connect(config).await {
        Ok(mut client) => sizes(&mut client, names).await,
        Err(error) => Err(error),
    };
    let large = |(db, key, bytes): Sized| {
        let bytes = bytes.filter(|bytes| *bytes > config.repair_bytes_max())?;
        Some((db, key, bytes))
    };
    sized
        .unwrap_or_default()
        .into_iter()
        .filter_map(large)
        .collect()
}

/// A connection to the source, at which keys can be read.
///
/// # Errors
/// As the source's client, but all of them pass.
pub(super) async fn connect(config: &Config) -> Result<Client, SyncError> {
    // The link itself has got in: what keeps us out (too many clients, say) passes.
    let client = Client::connect(&config.source.endpoint, Side::Source).await;
    client.map_err(|error| SyncError {
        class: Class::Reconnect,
        ..error
    })
}

/// What keys take in the source's memory, by MEMORY USAGE: a sample of large values, so not to the byte.
///
/// # Errors
/// Those of the connection.
pub(super) async fn sizes(client: &mut Client, names: &Names) -> Result<Vec<Sized>, SyncError> {
    let mut sized = Vec::with_capacity(names.len());
    for (text, db) in dbs_of(names) {
        let keys: Vec<&Bytes> = names
            .iter()
            .filter(|(of, _)| *of == db)
            .map(|(_, key)| key)
            .collect();
        for part in keys.chunks(1000) {
            let mut commands: Vec<Vec<&[u8]>> = vec![vec![b"SELECT", text.as_bytes()]];
            commands.extend(
                part.iter()
                    .map(|key| vec![&b"MEMORY"[..], b"USAGE", key.as_ref()]),
            );
            let replies = client.ask_all(&commands).await?;
            for (key, reply) in part.iter().zip(replies.iter().skip(1)) {
                let bytes = match reply {
                    Value::Int(bytes) => u64::try_from(*bytes).ok(),
                    Value::Null => Some(0),
                    _ => None,
                };
                sized.push((db, (*key).clone(), bytes));
            }
        }
    }
    Ok(sized)
}

/// As many keys as may be read at once; at least one, so an error if that is too large.
fn portion(config: &Config, sized: &[Sized]) -> Result<Names, SyncError> {
    let (mut names, mut left) = (Names::default(), config.repair_bytes_max());
    for (db, key, bytes) in sized {
        // Where nothing is known, it is one at a time.
        let bytes = bytes.unwrap_or(left);
        if bytes > left && names.is_empty() {
            let what = format!(
                "key \"{}\" (db {db}) takes {bytes} bytes, and no more than {left} are copied anew at once (a sixteenth of limits.memory)",
                super::stream::show(key)
            );
            return Err(SyncError::stop(
                Side::Source,
                &config.source.endpoint.address,
                what,
            ));
        }
        if bytes > left || (left == 0 && !names.is_empty()) {
            break;
        }
        left -= bytes;
        names.insert(*db, key.clone());
    }
    Ok(names)
}

/// Reads keys at the source: all of `names`, or as many as fit. `tells_time`: it has PEXPIRETIME (7.0).
///
/// # Errors
/// As the source's client; stop where it does not allow to read keys this way, or where one is too large.
pub(crate) async fn read(
    config: &Config,
    names: Names,
    tells_time: bool,
) -> Result<Copies, SyncError> {
    let mut client = connect(config).await?;
    let names = match &config.shard {
        Some(_) => of_one_slot(&names),
        None => names,
    };
    let sized = sizes(&mut client, &names).await?;
    let mut names = portion(config, &sized)?;
    loop {
        client.limit_replies(config.repair_bytes_max().saturating_mul(2));
        match read_portion(config, &mut client, &names, tells_time).await {
            // What they take was told by samples: fewer are asked for.
            Err(_) if client.has_overrun() && names.len() > 1 => {
                names = names.first(names.len() / 2);
                client = connect(config).await?;
            }
            read => return read,
        }
    }
}

/// Those in the slot of the first one: a transaction of a cluster has room for no others.
fn of_one_slot(names: &Names) -> Names {
    let mut some = Names::default();
    let slot = names.iter().next().map(|(_, key)| rewrite::slot_of(key));
    for (db, key) in names.iter() {
        if Some(rewrite::slot_of(key)) == slot {
            some.insert(db, key.clone());
        }
    }
    some
}

/// Reads these keys, and no fewer.
async fn read_portion(
    config: &Config,
    client: &mut Client,
    names: &Names,
    tells_time: bool,
) -> Result<Copies, SyncError> {
    let endpoint = &config.source.endpoint;
    let dbs: Vec<(String, u32)> = dbs_of(names);
    let mut commands: Vec<Vec<&[u8]>> = vec![vec![b"MULTI"]];
    for (text, db) in &dbs {
        commands.push(vec![b"SELECT", text.as_bytes()]);
        for (_, key) in names.iter().filter(|(of, _)| of == db) {
            commands.push(vec![b"DUMP", key]);
            if tells_time {
                commands.push(vec![b"PEXPIRETIME", key]);
            } else {
                commands.push(vec![b"PTTL", key]);
                commands.push(vec![b"TIME"]);
            }
        }
    }
    commands.push(vec![b"INFO", b"replication"]);
    commands.push(vec![b"INFO", b"server"]);
    commands.push(vec![b"EXEC"]);
    let mut replies = client.ask_all(&commands).await?;
    let answers = match replies.pop() {
        Some(Value::Array(answers)) => answers,
        _ => Vec::new(),
    };
    // What was not queued says why; EXEC only says that something was not.
    let refused = replies.iter().zip(&commands);
    let refused = refused.chain(answers.iter().zip(commands.iter().skip(1)));
    for (reply, argv) in refused {
        if let Value::Error(error) = reply {
            let code = error.code;
            let mut error = client.refused(argv, error);
            if config.shard.is_some() && redirects(code) {
                // The slot moves, and its keys are the new owner's.
                error.class = Class::Reconnect;
            }
            if error.class == Class::Stop {
                error.what.push_str("; to repair a key, the user at the source also needs ~* +multi +exec +select +dump +memory|usage +pexpiretime +pttl +time");
            }
            return Err(error);
        }
    }
    let strange = || {
        let what = "the answers to MULTI, DUMP, INFO, EXEC are not what a Redis would say";
        SyncError::stop(Side::Source, &endpoint.address, what)
    };
    parse(names, &dbs, answers, tells_time).ok_or_else(strange)
}

fn dbs_of(names: &Names) -> Vec<(String, u32)> {
    let mut dbs: Vec<u32> = names.iter().map(|(db, _)| db).collect();
    dbs.dedup();
    dbs.into_iter().map(|db| (db.to_string(), db)).collect()
}

fn parse(
    names: &Names,
    dbs: &[(String, u32)],
    answers: Vec<Value>,
    tells_time: bool,
) -> Option<Copies> {
    let mut answers = answers.into_iter();
    let mut keys = Vec::with_capacity(names.len());
    for (_, db) in dbs {
        answers.next()?;
        for (_, key) in names.iter().filter(|(of, _)| of == db) {
            let value = match answers.next()? {
                Value::Bulk(payload) => Some(payload),
                Value::Null => None,
                _ => return None,
            };
            let time = answers.next()?;
            let now = match tells_time {
                true => None,
                false => answers.next(),
            };
            keys.push(Copied {
                db: *db,
                key: key.clone(),
                value,
                at_ms: copied_time(&time, now.as_ref())?,
            });
        }
    }
    let (info, server) = (answers.next()?, answers.next()?);
    // Before 4.0 a history has the name of the run.
    let server = Info::of(server.as_bytes()?);
    let run_id = server.get("run_id").and_then(|id| id.parse().ok());
    let mut copies = Copies::at(info.as_bytes()?, keys)?;
    copies.replid = copies.replid.or(run_id);
    Some(copies)
}

#[cfg(test)]
mod tests {
    use super::super::unit::Unit;
    use super::*;

    fn put(unit: &mut Unit, db: u32, words: &str) {
        let argv: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
        resp::encode::command(unit.body(Db(db)), &argv);
        unit.added(1, Db(db));
    }

    /// The damage of a unit of `commands` (each behind its database) of which those marked with `!` failed.
    fn damage(commands: &[(u32, &str)]) -> Option<Vec<String>> {
        let mut unit = Unit::default();
        for (db, words) in commands {
            put(&mut unit, *db, words.trim_start_matches('!'));
        }
        let sealed = unit.close(b"K", b"v", &mut Unit::default());
        let mut failed = Vec::new();
        let wanted: Vec<&str> = commands
            .iter()
            .filter_map(|(_, words)| words.strip_prefix('!'))
            .collect();
        sealed.each(|at, frame, args| {
            let words: Vec<_> = args
                .iter()
                .map(|arg| String::from_utf8_lossy(arg.of(frame)))
                .collect();
            if wanted.contains(&words.join(" ").as_str()) {
                failed.push(at);
            }
        });
        assert_eq!(failed.len(), wanted.len());
        let names = damaged(&Table::new(), &sealed, &failed)?;
        Some(
            names
                .iter()
                .map(|(db, key)| format!("{db}:{}", String::from_utf8_lossy(key)))
                .collect(),
        )
    }

    #[test]
    fn damage_spreads_to_what_is_made_from_it_and_no_further() {
        let of = |commands: &[(u32, &str)]| damage(commands).unwrap().join(" ");
        assert_eq!(of(&[(0, "INCR a"), (0, "!INCR b"), (0, "INCR c")]), "0:b");
        assert_eq!(
            of(&[(0, "COPY b c"), (3, "!LPUSH b 1"), (3, "COPY b d")]),
            "3:b 3:d"
        );
        assert_eq!(
            of(&[(0, "!RPOPLPUSH a b"), (0, "SINTERSTORE c d e")]),
            "0:a 0:b"
        );
        assert_eq!(
            of(&[(0, "!XADD a 1-1 f v"), (0, "MSET a 1 b 2"), (0, "DEL a c")]),
            "0:a"
        );
        assert_eq!(
            of(&[(0, "!INCR a"), (0, "RENAME a b"), (0, "SUNIONSTORE c d b")]),
            "0:a 0:b 0:c 0:d"
        );
        assert_eq!(of(&[(0, "!INCR a"), (0, "MOVE a 2")]), "0:a 2:a");
        assert_eq!(
            of(&[(0, "!INCR a"), (0, "COPY a b DB 4 REPLACE")]),
            "0:a 0:b 4:a 4:b"
        );
        assert_eq!(of(&[(1, "!INCR a"), (0, "SWAPDB 1 5")]), "1:a 5:a");
        assert_eq!(damage(&[(0, "!INCR a"), (0, "!SWAPDB 0 99")]), None);
    }

    #[test]
    fn whole_databases_hit_what_is_in_them() {
        let mut held = Names::default();
        held.insert(2, Bytes::from_static(b"k"));
        let hits = |db: u32, words: &str| {
            let argv: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
            let mut frame = Vec::new();
            resp::encode::command(&mut frame, &argv);
            let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
            decoder.poll(&frame).unwrap().unwrap();
            Touched::by(&Table::new(), db, &frame, decoder.args()).hits(&held)
        };
        assert!(hits(0, "FLUSHALL") && hits(2, "flushdb async") && !hits(0, "FLUSHDB"));
        assert!(hits(7, "swapdb 2 3") && hits(7, "SWAPDB 0 2") && !hits(2, "SWAPDB 0 1"));
        assert!(hits(2, "APPEND k x") && !hits(0, "APPEND k x") && hits(0, "MOVE k 2"));
    }
}
