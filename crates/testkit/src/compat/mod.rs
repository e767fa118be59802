//! From any version to any other: the samples of a source, brought to a target by the daemon, compared.
//!
//! A pair is run with losses allowed. What is not equal afterwards has to be a loss that the target's version makes
//! unavoidable, which [`losses`] knows by name; anything else is wrong. What the daemon itself says that it has left
//! out is counted beside it, since the oracle sees nothing of what a target cannot be asked about.

mod losses;
mod migrate;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::argv;
use crate::oracle::{self, OracleOptions};
use crate::samples::{self, Samples};
use crate::{Client, Engine, Server, ServerOptions};

pub use losses::{LOSSES, Loss};

/// The engines of the whole matrix, one a minor version, oldest first.
pub const ENGINES: [&str; 18] = [
    "redis-2.8",
    "redis-3.0",
    "redis-3.2",
    "redis-5.0",
    "redis-6.0",
    "redis-6.2",
    "redis-7.0",
    "redis-7.2",
    "redis-7.4",
    "redis-8.0",
    "redis-8.2",
    "redis-8.6",
    "redis-8.10",
    "valkey-8.0",
    "valkey-8.1",
    "valkey-9.0",
    "valkey-9.1",
    "redict-7.3",
];

/// What is said of a target that a payload has killed.
const DIED: &str = "the target died of it";

/// What became of a pair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every key is equal, and these things were lost because the target's version cannot hold them: how many, by name.
    /// None: equal in everything that is compared.
    Done(BTreeMap<&'static str, u64>),
    /// The daemon stopped: its error line, without addresses.
    Refused(String),
    /// What differs and need not.
    Wrong(Vec<String>),
}

/// How a source's samples are brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As a replica of it.
    Sync,
    /// By the file that it saves.
    Rdb,
}

/// A pair that was run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The source's engine.
    pub source: String,
    /// The target's engine.
    pub target: String,
    /// What became of it.
    pub verdict: Verdict,
    /// How long the daemon ran.
    pub ran: Duration,
}

/// A source that holds the samples.
pub fn source(engine: &str) -> Server {
    let server = Server::start(&Engine::of(engine), ServerOptions::default());
    let mut client = server.client();
    let samples = Samples {
        large: true,
        modules: true,
    };
    samples::fill(&mut client, samples);
    if server.engine().version.redis(3, 0) {
        client.command(&argv!["DEBUG", "SET-ACTIVE-EXPIRE", 0]);
    }
    server
}

/// Brings a source's samples to a target, which is emptied first, and compares. `losses` is what `redis_writer.losses`
/// says. A target that dies of it is started again.
pub fn run(binary: &Path, source: &Server, target: &mut Server, losses: &str) -> Outcome {
    run_by(binary, source, target, losses, Way::Sync)
}

/// The same, in one of the ways.
pub fn run_by(
    binary: &Path,
    source: &Server,
    target: &mut Server,
    losses: &str,
    way: Way,
) -> Outcome {
    empty(&mut target.client());
    if source.engine().version.redis(3, 0) {
        samples::fill_expired(&mut source.client());
    }
    if way == Way::Rdb {
        source.client().command(&argv!["SAVE"]);
    }
    let from = Instant::now();
    let ended = migrate::run(binary, source, target, losses, way);
    let ran = from.elapsed();
    let verdict = match ended {
        Err(_) if !target.answers() => Verdict::Wrong(vec![DIED.into()]),
        Err(refusal) => Verdict::Refused(refusal),
        Ok(left_out) => verdict_of_living(source, target, left_out, way),
    };
    if !target.answers() {
        target.restart();
    }
    Outcome {
        source: source.engine().name.clone(),
        target: target.engine().name.clone(),
        verdict,
        ran,
    }
}

fn empty(client: &mut Client) {
    client.command(&argv!["FLUSHALL"]);
    client.command(&argv!["SCRIPT", "FLUSH"]);
    if client.version().has_functions() {
        client.command(&argv!["FUNCTION", "FLUSH"]);
    }
}

/// A payload can kill a target, at once or when it is read: the oracle panics then, and the matrix goes on.
fn verdict_of_living(
    source: &Server,
    target: &Server,
    left_out: BTreeMap<String, u64>,
    way: Way,
) -> Verdict {
    let compared = catch_unwind(AssertUnwindSafe(|| verdict(source, target, left_out, way)));
    match compared {
        Ok(verdict) => verdict,
        Err(_) if target.answers() => Verdict::Wrong(vec!["the comparison failed".into()]),
        Err(_) => Verdict::Wrong(vec![DIED.into()]),
    }
}

/// Compares, and explains what differs; again without what was explained, since a key shows one difference at a time.
fn verdict(source: &Server, target: &Server, left_out: BTreeMap<String, u64>, way: Way) -> Verdict {
    let mut options = OracleOptions {
        consumer_times: true,
        rounds: 1,
        differences_max: usize::MAX,
        ..OracleOptions::default()
    };
    let versions = (source.engine().version, target.engine().version);
    let mut counts = BTreeMap::new();
    let mut unexplained = Vec::new();
    for (reason, count) in left_out {
        match losses::by_reason(versions, &reason) {
            Some(loss) => *counts.entry(loss.name).or_default() += count,
            None if losses::is_seen(&reason) => {}
            None => unexplained.push(format!("the daemon has left out {count} as {reason}")),
        }
    }
    let mut seen = BTreeSet::new();
    loop {
        let found = oracle::compare_with(&source.address(), &target.address(), &options);
        let mut wrong = unexplained.clone();
        let mut again = false;
        for difference in found {
            match losses::explain(versions, &difference) {
                Some(loss) => {
                    again |= loss.ignore(&mut options);
                    seen.insert((loss.name, difference.db, difference.key));
                }
                None => wrong.push(difference.to_string()),
            }
        }
        if !again {
            // A server writes its scripts for a replica alone.
            if way == Way::Sync {
                wrong.extend(scripts(source, target));
            }
            if !wrong.is_empty() {
                return Verdict::Wrong(wrong);
            }
            break;
        }
    }
    for (name, _, _) in seen {
        // The daemon's own count is of single things, the oracle's of keys.
        if !losses::is_counted_by_daemon(name) {
            *counts.entry(name).or_default() += 1;
        } else if !counts.contains_key(name) {
            return Verdict::Wrong(vec![format!("{name}: lost, and the daemon did not say so")]);
        }
    }
    Verdict::Done(counts)
}

/// A script that the snapshot holds has to be at the target.
fn scripts(source: &Server, target: &Server) -> Option<String> {
    let version = source.engine().version;
    if !version.redis(4, 0) || version.has_functions() {
        return None;
    }
    let exists = target
        .client()
        .command(&argv!["SCRIPT", "EXISTS", samples::SCRIPT_SHA]);
    let exists = crate::client::items(exists);
    let there = exists.first().and_then(crate::client::number) == Some(1);
    (!there).then(|| "the script of the snapshot is missing at the target".into())
}
