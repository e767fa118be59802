//! `cargo xtask torture`: faults on every side at once, for as long as one likes, with proof after every round.
//!
//! ```text
//! workload --> source <-- proxy <-- daemon --> proxy --> target (primary, replica)
//!              |          |         |          |         |
//!              stopped,   cut,      killed,    cut,      killed, falls back, fails over,
//!              paused     held ..   doubled    held ..   full, busy, paused
//! ```
//! The snapshot is received in peace, since every break there costs a new one by design; from then on the source may
//! not have to serve a second.

mod evidence;
mod heavy;
mod keeper;
mod lines;
mod options;
mod shared;
mod targets;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use testkit::oracle::{self, OracleOptions};
use testkit::proxy::{Direction, Proxy};
use testkit::{Counters, Daemon, Engine, Ledger, Rng, Server, ServerOptions, Writer, workload};

use crate::children;
use evidence::Evidence;
use heavy::Heavy;
use keeper::Keeper;
use lines::{Line, source_fault};
use options::Options;
use shared::{Shared, ms};
use targets::Targets;

/// How long the daemon may take for the snapshot, or to catch up after a round.
const PATIENCE: Duration = Duration::from_secs(240);
/// `limits.memory` of the daemon.
const MEMORY: u64 = 256 << 20;
/// Keys before the start.
const KEYS: u64 = 4000;
/// Enough for what is written in any outage here: a second full sync would be the daemon's fault.
const SOURCE_ARGS: &str =
    "--repl-backlog-size 256mb --repl-timeout 10 --repl-ping-replica-period 1 --repl-backlog-ttl 0";

/// Runs the task.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let Some(options) = Options::parse(args)? else {
        return Ok(());
    };
    children::stop_them_on_signals();
    let binary = match std::env::var_os("UNDERSTUDY_BIN") {
        Some(binary) => PathBuf::from(binary),
        None => crate::demo::build()?,
    };
    let evidence = Evidence::begin(&options)?;
    println!(
        "torture: seed {}, {}",
        options.seed,
        evidence.folder().display()
    );
    let shared = Shared::default();
    let mut rig = Rig::start(&options, &binary)?;
    let from = Instant::now();
    let played = rig.play(&options, &shared, from);
    evidence.close(&rig, &shared, played, from.elapsed())
}

/// Everything that runs.
struct Rig {
    keeper: Keeper,
    source_line: Proxy,
    target_line: Proxy,
    source: Server,
    targets: Targets,
    rng: Rng,
}

/// What the rounds came to.
#[derive(Debug, Default)]
struct Played {
    rounds: u64,
    /// Counted operations that the source has acknowledged.
    operations: u64,
    /// Commands of every kind.
    commands: u64,
    full_syncs: i64,
    partial_syncs: i64,
}

impl Rig {
    fn start(options: &Options, binary: &Path) -> Result<Self, String> {
        let mut rng = Rng::new(options.seed);
        let source = Server::start(
            &Engine::find(&options.source)?,
            ServerOptions::args(SOURCE_ARGS),
        );
        children::goes_with_us(source.folder());
        let targets = Targets::start(&Engine::find(&options.target)?);
        for server in targets.both() {
            children::goes_with_us(server.folder());
        }
        workload::fill(&mut source.client(), rng.number(), KEYS);
        let source_line = Proxy::start(&source.address());
        let target_line = Proxy::start(&targets.primary().address());
        let config = config(&source_line, &target_line, &mut rng);
        let daemon = || {
            let mut daemon = Daemon::prepare(&config, &["sync", "shake.toml"]);
            daemon.use_binary(binary);
            children::goes_with_us(daemon.folder());
            daemon
        };
        Ok(Self {
            keeper: Keeper::new(daemon(), daemon()),
            source_line,
            target_line,
            source,
            targets,
            rng,
        })
    }

    fn play(&mut self, options: &Options, shared: &Shared, from: Instant) -> Played {
        let mut played = Played::default();
        shared.set_primary(&self.targets.primary().address());
        self.receive_snapshot(shared);
        while from.elapsed() < options.length && shared.violations().is_empty() {
            played.rounds += 1;
            let left = options.length.saturating_sub(from.elapsed());
            let began = Instant::now();
            let done = self.round(shared, options.round.min(left));
            played.operations += done.operations;
            played.commands += done.commands;
            let faults: u64 = shared.faults().values().sum();
            println!(
                "round {:3}  {:6.0} s  {} operations, {} faults so far, daemon {} MiB at most, proved in {:.0} s",
                played.rounds,
                from.elapsed().as_secs_f64(),
                played.operations,
                faults,
                shared.daemon_peak.load(Ordering::SeqCst) >> 20,
                began.elapsed().saturating_sub(options.round).as_secs_f64(),
            );
        }
        let mut client = self.source.client();
        played.full_syncs = client.info_number("stats", "sync_full");
        played.partial_syncs = client.info_number("stats", "sync_partial_ok");
        played
    }

    /// In peace until all of it is in the spool; its application is slow, so that the faults begin within it.
    fn receive_snapshot(&mut self, shared: &Shared) {
        self.target_line
            .throttle(Direction::ToServer, Some(600_000));
        shared.begin();
        self.keeper.start(shared);
        let from = Instant::now();
        while !self.keeper.daemon.output().contains("snapshot received") {
            if from.elapsed() > PATIENCE || !self.keeper.daemon.is_running() {
                shared.violation("the snapshot was not received");
                return;
            }
            std::thread::sleep(ms(20));
        }
        // Kills and cut lines, but no target that falls back to where nothing was applied.
        let (source, target) = (self.rng.number(), self.rng.number());
        let killer = Rng::new(self.rng.number());
        let Self {
            keeper,
            source_line,
            target_line,
            ..
        } = self;
        std::thread::scope(|scope| {
            scope.spawn(|| keeper.suffer(shared, killer));
            scope.spawn(|| watch::watch(shared, MEMORY));
            for (proxy, names, seed) in [
                (&*source_line, &lines::SOURCE, source),
                (&*target_line, &lines::TARGET, target),
            ] {
                scope.spawn(move || {
                    let line = Line { proxy, names };
                    line.suffer(shared, Rng::new(seed), |_| false);
                });
            }
            std::thread::sleep(Duration::from_secs(15));
            shared.end();
        });
        shared.begin();
        let from = Instant::now();
        while shared.violations().is_empty() && self.phase() != "stream" {
            self.keeper.live(shared, ms(50));
            if from.elapsed() > PATIENCE {
                shared.violation("the snapshot was not applied");
            }
        }
        // The position in the stream has to be there too, so that nothing falls back behind it.
        if shared.violations().is_empty() && self.catch_up(shared) && !self.targets.note_floors() {
            shared.violation("the target's replica is not in sync");
        }
        println!(
            "the snapshot is applied, {:.0} s",
            from.elapsed().as_secs_f64()
        );
    }

    /// Faults for `length`, then proof.
    fn round(&mut self, shared: &Shared, length: Duration) -> Played {
        let address = self.source.address();
        let counters = Counters::start(&address, self.rng.number(), 1500);
        let writer = Writer::start(&address, self.rng.number(), 1000);
        let heavy = Heavy::start(&address, self.rng.number());
        self.faults(shared, length);
        let operations = counters.acknowledged();
        let (report, heavy) = (writer.stop(), heavy.stop());
        let ledger = counters.stop();
        shared.begin();
        if shared.violations().is_empty() && self.catch_up(shared) {
            self.prove(shared, &ledger);
        }
        Played {
            operations,
            commands: report.commands + heavy + operations,
            ..Played::default()
        }
    }

    fn faults(&mut self, shared: &Shared, length: Duration) {
        shared.begin();
        let mut seeds = || Rng::new(self.rng.number());
        let (killer, source_rng, target_rng, targets_rng) = (seeds(), seeds(), seeds(), seeds());
        let Self {
            keeper,
            source_line,
            target_line,
            source,
            targets,
            ..
        } = self;
        let (address, pid) = (source.address(), source.pid());
        let (source_line, target_line) = (&*source_line, &*target_line);
        std::thread::scope(|scope| {
            let threads = [
                scope.spawn(move || keeper.suffer(shared, killer)),
                scope.spawn(|| watch::watch(shared, MEMORY)),
                scope.spawn(move || {
                    let line = Line {
                        proxy: source_line,
                        names: &lines::SOURCE,
                    };
                    line.suffer(shared, source_rng, |rng| {
                        source_fault(shared, rng, &address, pid)
                    });
                }),
                scope.spawn(move || {
                    let line = Line {
                        proxy: target_line,
                        names: &lines::TARGET,
                    };
                    line.suffer(shared, target_rng, |_| false);
                }),
                scope.spawn(move || targets.suffer(shared, targets_rng, target_line)),
            ];
            shared.sleep(length);
            shared.end();
            for thread in threads {
                if thread.join().is_err() {
                    shared.violation("a thread of the torture itself has panicked (see above)");
                }
            }
        });
        // A failover may have come between the end of the line's faults and its own.
        self.target_line
            .set_upstream(&self.targets.primary().address());
    }

    fn phase(&self) -> String {
        let status = self.keeper.daemon.status().unwrap_or_default();
        let phase = status["understudy"]["phase"].as_str().unwrap_or_default();
        phase.into()
    }

    /// Waits until all that was written is applied; false when it is not in time.
    fn catch_up(&mut self, shared: &Shared) -> bool {
        let offset = self
            .source
            .client()
            .info_number("replication", "master_repl_offset");
        let from = Instant::now();
        loop {
            let status = self.keeper.daemon.status().unwrap_or_default();
            let applied = status["understudy"]["applied_offset"].as_i64();
            let leases = status["understudy"]["leases_waiting"].as_i64();
            let ready = self
                .keeper
                .daemon
                .get("/readyz")
                .is_some_and(|(code, _)| code == 200);
            if ready && leases == Some(0) && applied.is_some_and(|applied| applied >= offset) {
                return true;
            }
            if from.elapsed() > PATIENCE {
                shared.violation(format!(
                    "not caught up after {PATIENCE:?}: applied {applied:?} of {offset}, ready {ready}, leases {leases:?}"
                ));
                return false;
            }
            if !self.keeper.live(shared, ms(100)) {
                return false;
            }
        }
    }

    fn prove(&self, shared: &Shared, ledger: &Ledger) {
        let (source, target) = (self.source.address(), self.targets.primary().address());
        for wrong in ledger.check(&target) {
            shared.violation(wrong);
        }
        let options = OracleOptions::live(&self.source.engine().version);
        for difference in oracle::compare_with(&source, &target, &options) {
            shared.violation(format!("not equal: {difference}"));
        }
        let full = self.source.client().info_number("stats", "sync_full");
        if full != 1 {
            shared.violation(format!("the source served {full} full syncs, not 1"));
        }
        let output = self.keeper.daemon.output();
        for word in ["panicked", "this is a bug"] {
            if let Some(line) = output.lines().find(|line| line.contains(word)) {
                shared.violation(format!("in the daemon's log: {line}"));
            }
        }
    }
}

/// A shake.toml; the sizes of units are the seed's.
fn config(source: &Proxy, target: &Proxy, rng: &mut Rng) -> String {
    let batch = rng.pick(&[3_u64, 50, 500]);
    let retain = rng.pick(&["64mb", "256mb"]);
    format!(
        r#"[sync_reader]
address = "{source}"

[redis_writer]
address = "{target}"
batch_commands = {batch}

[advanced]
status_port = {port}

[link]
name = "torture"

[spool]
retain_bytes = "{retain}"

[limits]
memory = "{memory}mb"
"#,
        source = source.address(),
        target = target.address(),
        port = testkit::daemon::STATUS_PORT,
        memory = MEMORY >> 20,
    )
}
