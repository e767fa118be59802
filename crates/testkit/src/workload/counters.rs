//! Writes that leave a proof: applied twice, or not at all, they show in the target alone.
//!
//! Every counter key lives in a group with a hash tag of its own (`count:{g3}:list`), and a group lives in one db:
//!
//! | key | command | must be, after n commands |
//! |---|---|---|
//! | incr | `INCR` | n |
//! | list | `RPUSH key i` | exactly 1, 2 ... n |
//! | log | `APPEND key "i;"` | exactly `1;2;...n;` |
//! | stream | `XADD key i-1 n i` | exactly the entries 1-1, 2-1 ... n-1 |
//! | zset | `ZINCRBY key 1 m` | score n |
//! | hash | `HINCRBY key f 1` | n |
//! | a, b | `MULTI INCRBY a x DECRBY b x EXEC` | a + b = 0, a = the sum of all x |

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redis::Value;

use crate::argv;
use crate::client::{Argv, Client, bytes, items, number, text};
use crate::rng::Rng;

const GROUPS: usize = 6;
/// The groups' dbs, in turn.
const COUNTER_DBS: [u32; 3] = [0, 1, 2];
/// Operations that go out in one round trip.
const BATCH: u64 = 16;

/// What is counted in a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Incr,
    List,
    Log,
    Stream,
    Zset,
    Hash,
    Pair,
}

const KINDS: [Kind; 7] = [
    Kind::Incr,
    Kind::List,
    Kind::Log,
    Kind::Stream,
    Kind::Zset,
    Kind::Hash,
    Kind::Pair,
];

/// How far every counter is, by what the source has acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    /// The seventh is the sum that a pair has moved.
    counts: [[u64; KINDS.len()]; GROUPS],
    /// Whether the server knows streams.
    streams: bool,
    /// All groups are in db 0.
    one_db: bool,
}

/// A running counter workload; ends when it is dropped.
#[derive(Debug)]
pub struct Counters {
    stopped: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    thread: Option<JoinHandle<Ledger>>,
}

impl Counters {
    /// Starts counting at `address`, from where its counters are, `rate` operations a second (0: as fast as the server
    /// answers). When the connection breaks, it is made anew and the counts are taken from the source, so that what was
    /// in flight is neither lost nor guessed.
    pub fn start(address: &str, seed: u64, rate: u64) -> Self {
        Self::start_in(address, seed, rate, false)
    }

    /// The same with all groups in db 0, for a target that has no other.
    pub fn start_in_db_0(address: &str, seed: u64, rate: u64) -> Self {
        Self::start_in(address, seed, rate, true)
    }

    fn start_in(address: &str, seed: u64, rate: u64, one_db: bool) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let mut client = Client::connect(address);
        let streams = client.version().redis(5, 0);
        let name = format!("counters-{}-{seed:x}", std::process::id());
        client.command(&argv!["CLIENT", "SETNAME", name]);
        let job = Job {
            address: address.into(),
            name,
            ledger: Ledger {
                counts: Default::default(),
                streams,
                one_db,
            },
            rng: Rng::new(seed),
            stopped: Arc::clone(&stopped),
            acknowledged: Arc::clone(&acknowledged),
        };
        Self {
            stopped,
            acknowledged,
            thread: Some(std::thread::spawn(move || job.run(client, rate))),
        }
    }

    /// Operations acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Stops after the operations in flight and tells where the counters are at the source.
    pub fn stop(mut self) -> Ledger {
        self.stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it counts until it is stopped");
        thread.join().expect("the counting thread does not panic")
    }
}

impl Drop for Counters {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // A panic of the thread has been printed; a second one here would only abort.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Ledger {
    /// Everything that is wrong at `address`, given what the source has acknowledged; nothing if all is right.
    pub fn check(&self, address: &str) -> Vec<String> {
        let mut client = Client::connect(address);
        self.check_with(&mut reader(&mut client))
    }

    /// Panics with everything that is wrong.
    pub fn assert_at(&self, address: &str) {
        let wrong = self.check(address);
        assert!(
            wrong.is_empty(),
            "counters at {address}:\n{}",
            wrong.join("\n")
        );
    }

    /// Like `check`, by way of `read` (db and command), for a cluster or a target whose dbs were mapped.
    pub fn check_with(&self, read: &mut dyn FnMut(u32, Argv) -> Value) -> Vec<String> {
        let mut wrong = Vec::new();
        self.each(
            |group, kind, expected| match self.found(group, kind, read) {
                Ok(found) if found == expected => {}
                Ok(found) => wrong.push(format!(
                    "{}: {found}, acknowledged at the source: {expected}",
                    key(group, kind)
                )),
                Err(error) => wrong.push(error),
            },
        );
        wrong
    }

    /// Everything that is wrong if the target may be behind: no counter may have a hole, a double or more than the
    /// source. Counters that only count cannot show a hole while they are behind.
    pub fn check_prefix(&self, address: &str) -> Vec<String> {
        let mut client = Client::connect(address);
        let mut read = reader(&mut client);
        let mut wrong = Vec::new();
        self.each(
            |group, kind, most| match self.found(group, kind, &mut read) {
                Ok(found) if found <= most => {}
                Ok(found) => {
                    wrong.push(format!(
                        "{}: {found}, more than the source's {most}",
                        key(group, kind)
                    ));
                }
                Err(error) => wrong.push(error),
            },
        );
        wrong
    }

    /// The sum of all counts.
    pub fn total(&self) -> u64 {
        self.counts.iter().flatten().sum()
    }

    fn each(&self, mut visit: impl FnMut(usize, Kind, u64)) {
        for (group, counts) in self.counts.iter().enumerate() {
            for (kind, count) in KINDS.into_iter().zip(counts) {
                if kind != Kind::Stream || self.streams {
                    visit(group, kind, *count);
                }
            }
        }
    }

    fn db(&self, group: usize) -> u32 {
        if self.one_db {
            return 0;
        }
        COUNTER_DBS[group % COUNTER_DBS.len()]
    }

    /// How far a counter is, or what is wrong inside it.
    fn found(
        &self,
        group: usize,
        kind: Kind,
        read: &mut dyn FnMut(u32, Argv) -> Value,
    ) -> Result<u64, String> {
        let name = key(group, kind);
        let mut ask = |argv: Argv| read(self.db(group), argv);
        match kind {
            Kind::Incr => Ok(count(&ask(argv!["GET", name]))),
            Kind::Zset => Ok(text(&ask(argv!["ZSCORE", name, "m"]))
                .parse::<f64>()
                .unwrap_or(0.0) as u64),
            Kind::Hash => Ok(count(&ask(argv!["HGET", name, "f"]))),
            Kind::List => sequence(
                &name,
                items(ask(argv!["LRANGE", name, 0, -1])).iter().map(text),
            ),
            Kind::Log => {
                let log = text(&ask(argv!["GET", name]));
                if !log.is_empty() && !log.ends_with(';') {
                    return Err(format!("{name}: ends within a number"));
                }
                sequence(&name, log.split_terminator(';').map(String::from))
            }
            Kind::Stream => {
                let entries = items(ask(argv!["XRANGE", name, "-", "+"])).into_iter();
                let ids = entries.map(|entry| items(entry).into_iter().next().map(bytes));
                let ids =
                    ids.map(|id| String::from_utf8_lossy(&id.unwrap_or_default()).into_owned());
                sequence(
                    &name,
                    ids.map(|id| id.strip_suffix("-1").map(String::from).unwrap_or(id)),
                )
            }
            Kind::Pair => {
                let a = number(&ask(argv!["GET", name])).unwrap_or(0);
                let b = number(&ask(argv!["GET", other(group)])).unwrap_or(0);
                let torn = || {
                    format!(
                        "{name} + {}: {a} + {b}, a transaction was torn",
                        other(group)
                    )
                };
                if a + b == 0 {
                    Ok(a as u64)
                } else {
                    Err(torn())
                }
            }
        }
    }
}

/// The length of 1, 2 ... n, or where it goes wrong.
fn sequence(name: &str, numbers: impl Iterator<Item = String>) -> Result<u64, String> {
    let mut last = 0;
    for number in numbers {
        if number.parse() != Ok(last + 1) {
            return Err(format!("{name}: {number} follows {last}"));
        }
        last += 1;
    }
    Ok(last)
}

fn count(reply: &Value) -> u64 {
    number(reply)
        .and_then(|number| u64::try_from(number).ok())
        .unwrap_or(0)
}

fn key(group: usize, kind: Kind) -> String {
    let name = match kind {
        Kind::Incr => "incr",
        Kind::List => "list",
        Kind::Log => "log",
        Kind::Stream => "stream",
        Kind::Zset => "zset",
        Kind::Hash => "hash",
        Kind::Pair => "a",
    };
    format!("count:{{g{group}}}:{name}")
}

fn other(group: usize) -> String {
    format!("count:{{g{group}}}:b")
}

fn reader(client: &mut Client) -> impl FnMut(u32, Argv) -> Value {
    let mut selected = None;
    move |db, argv| {
        if selected != Some(db) {
            client.select(db);
            selected = Some(db);
        }
        client.command(&argv)
    }
}

struct Job {
    address: String,
    /// The connections' name, by which an old one is found and ended.
    name: String,
    ledger: Ledger,
    rng: Rng,
    stopped: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

/// One counted operation: which counter, by how much.
struct Operation {
    group: usize,
    kind: usize,
    step: u64,
}

impl Job {
    fn run(mut self, mut client: Client, rate: u64) -> Ledger {
        let mut known = self.reload(&mut client);
        let from = Instant::now();
        let mut done = 0;
        while !self.stopped.load(Ordering::Relaxed) || !known {
            if !known {
                known = self.reconnect(&mut client);
                continue;
            }
            known = self.batch(&mut client);
            done += BATCH;
            if rate > 0 {
                let due = Duration::from_secs_f64(done as f64 / rate as f64);
                std::thread::sleep(due.saturating_sub(from.elapsed()));
            }
        }
        self.ledger
    }

    /// Once told to stop, the last state has to be read all the same: the source must come back.
    fn reconnect(&mut self, client: &mut Client) -> bool {
        std::thread::sleep(Duration::from_millis(20));
        match Client::try_connect(&self.address) {
            Ok(new) => {
                *client = new;
                self.end_old_connections(client) && self.reload(client)
            }
            Err(_) => false,
        }
    }

    /// Commands of a broken connection may still lie in the source's buffers (or a proxy's), and would be run after
    /// the counts are read. False if the source is gone.
    fn end_old_connections(&self, client: &mut Client) -> bool {
        let list = match client.try_command(&argv!["CLIENT", "LIST"]) {
            Ok(list) => text(&list),
            Err(_) => return false,
        };
        let name = format!(" name={} ", self.name);
        let old = list.lines().filter(|line| line.contains(&name));
        let ids = old.filter_map(|line| line.strip_prefix("id=")?.split(' ').next());
        let mut commands: Vec<Argv> = ids.map(|id| argv!["CLIENT", "KILL", "ID", id]).collect();
        commands.push(argv!["CLIENT", "SETNAME", self.name]);
        client.pipeline(&commands).1.is_none()
    }

    /// Takes the counts from the source; false if it is gone or cannot tell.
    fn reload(&mut self, client: &mut Client) -> bool {
        let mut gone = false;
        let mut read = |db: u32, argv: Argv| {
            let (mut results, error) = client.pipeline(&[argv!["SELECT", db], argv]);
            // A server that is still loading refuses, and knows no counts yet.
            gone |= error.is_some() || results.iter().any(Result::is_err);
            results.pop().and_then(Result::ok).unwrap_or(Value::Nil)
        };
        let mut counts = self.ledger.counts;
        self.ledger.each(|group, kind, _| {
            let at = KINDS.iter().position(|other| *other == kind).unwrap_or(0);
            counts[group][at] = self.ledger.found(group, kind, &mut read).unwrap_or(0);
        });
        if !gone {
            self.ledger.counts = counts;
        }
        !gone
    }

    /// False if the connection broke, or the source refused, so that the counts are not known.
    fn batch(&mut self, client: &mut Client) -> bool {
        let mut counts = self.ledger.counts;
        let mut operations = Vec::new();
        let mut commands = Vec::new();
        let mut ends = Vec::new();
        for _ in 0..BATCH {
            let operation = self.operation();
            let count = &mut counts[operation.group][operation.kind];
            *count += operation.step;
            commands.push(argv!["SELECT", self.ledger.db(operation.group)]);
            commands.extend(written(&operation, *count));
            ends.push(commands.len());
            operations.push(operation);
        }
        let (results, error) = client.pipeline(&commands);
        let mut from = 0;
        for (operation, end) in operations.iter().zip(ends) {
            let Some(replies) = results.get(from..end) else {
                return false;
            };
            if replies.iter().any(Result::is_err) {
                return false;
            }
            from = end;
            self.ledger.counts[operation.group][operation.kind] += operation.step;
            self.acknowledged.fetch_add(1, Ordering::Relaxed);
        }
        error.is_none()
    }

    fn operation(&mut self) -> Operation {
        let group = self.rng.below(GROUPS as u64) as usize;
        let kind = match self.rng.below(KINDS.len() as u64) as usize {
            kind if KINDS[kind] == Kind::Stream && !self.ledger.streams => 0,
            kind => kind,
        };
        let step = if KINDS[kind] == Kind::Pair {
            self.rng.within(1..100)
        } else {
            1
        };
        Operation { group, kind, step }
    }
}

/// The commands that bring a counter to `count`.
fn written(operation: &Operation, count: u64) -> Vec<Argv> {
    let kind = KINDS[operation.kind];
    let name = key(operation.group, kind);
    vec![match kind {
        Kind::Incr => argv!["INCR", name],
        Kind::List => argv!["RPUSH", name, count],
        Kind::Log => argv!["APPEND", name, format!("{count};")],
        Kind::Stream => argv!["XADD", name, format!("{count}-1"), "n", count],
        Kind::Zset => argv!["ZINCRBY", name, 1, "m"],
        Kind::Hash => argv!["HINCRBY", name, "f", 1],
        Kind::Pair => {
            return vec![
                argv!["MULTI"],
                argv!["INCRBY", name, operation.step],
                argv!["DECRBY", other(operation.group), operation.step],
                argv!["EXEC"],
            ];
        }
    }]
}
