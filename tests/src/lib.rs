//! End-to-end tests of Understudy against real servers live in `tests/`, one file by subject; this is what they share.
//!
//! A test starts servers, describes a [`Link`], starts a daemon on it, does harm, and asks the oracles at the end:
//! is every key equal, is every counter exact, how many full syncs did the source have to serve?
//!
//! `UNDERSTUDY_SEED` repeats a run's random moments; `UNDERSTUDY_KILLS`, `UNDERSTUDY_CUTS` and
//! `UNDERSTUDY_STOP_SECONDS` make the long proofs of the short tests; `UNDERSTUDY_RUN_SECONDS` is how long a command may take in them.

mod browser;
pub mod checked;
mod cluster;
pub mod cutover;
mod every;
mod fake;
mod link;
pub mod plants;
mod run;
mod scanned;
pub mod shards;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use testkit::process::wait_until;
use testkit::{Daemon, Engine, Rng, Server, ServerOptions};

pub use browser::Browser;
pub use cluster::{assert_same_in_cluster, link_to_cluster};
pub use every::Every;
pub use fake::Fake;
pub use link::Link;
pub use run::{Ended, run, run_file, run_in};
pub use scanned::{fast, is_ready, scan, settle};

/// How long anything may take that takes a moment on an idle machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// An engine as a source whose backlog outlasts every test.
pub fn source_of(engine: &str) -> Server {
    Server::start(
        &Engine::of(engine),
        ServerOptions::args("--repl-backlog-size 128mb"),
    )
}

/// A number from the environment, or the default of a short run.
pub fn from_env(name: &str, default: u64) -> u64 {
    let number = match std::env::var(name) {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("{name}={text} is no number")),
        Err(_) => default,
    };
    println!("{name}={number}");
    number
}

/// A generator whose seed is printed.
pub fn rng() -> Rng {
    Rng::new(Rng::seed_from_env())
}

/// A field of the daemon's own part of the status JSON.
pub fn own(daemon: &Daemon, field: &str) -> Option<u64> {
    daemon.status()?["understudy"][field].as_u64()
}

/// The phase that the status JSON names; empty while nobody answers.
pub fn phase(daemon: &Daemon) -> String {
    let status = daemon.status().unwrap_or_default();
    status["understudy"]["phase"]
        .as_str()
        .unwrap_or_default()
        .into()
}

/// Compiles `code`, a file of this crate, to be preloaded into a program (`LD_PRELOAD`). The folder that it is in has to
/// live as long as the program.
pub fn preload(code: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a folder");
    let library = folder.path().join(code).with_extension("so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library);
    cc.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(code));
    assert!(cc.status().expect("a C compiler").success(), "{code}");
    (folder, library)
}

/// Waits until the snapshot is applied and the stream is followed.
pub fn wait_stream(daemon: &mut Daemon) {
    daemon.wait_for("the stream phase", LIMIT, |daemon| {
        phase(daemon) == "stream"
    });
}

/// The offset that the source has written to its replicas.
pub fn written(source: &Server) -> u64 {
    source
        .client()
        .info_number("replication", "master_repl_offset")
        .try_into()
        .expect("an offset is not negative")
}

/// Waits until everything that the source has written so far is confirmed by the target, and the copy is ready: the
/// expiries that were put off while it was behind are as they are at the source.
pub fn catch_up(daemon: &mut Daemon, source: &Server) {
    let goal = written(source);
    daemon.wait_for(&format!("applied offset {goal}"), LIMIT, |daemon| {
        own(daemon, "applied_offset").is_some_and(|applied| applied >= goal)
    });
    daemon.wait_for("readiness", LIMIT, |daemon| {
        daemon.get("/readyz").is_some_and(|(code, _)| code == 200)
            && own(daemon, "leases_waiting") == Some(0)
    });
}

/// Full syncs that the source has served.
pub fn full_syncs(source: &Server) -> i64 {
    source.client().info_number("stats", "sync_full")
}

/// Waits until a workload has gone on by `more`.
pub fn wait_more(what: &str, more: u64, count: impl Fn() -> u64) {
    let goal = count() + more;
    wait_until(what, LIMIT, || count() >= goal);
}
