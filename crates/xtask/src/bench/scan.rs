//! What a source that is read by SCAN notices of it, and how soon both ends are equal whatever has happened: PSYNC is refused by what
//! stands in between, which also loses 15 % of the keyspace events; keys are written at a rate, flushed and swapped.

use std::path::Path;
use std::time::{Duration, Instant};

use testkit::gate::{Gate, Refusal};
use testkit::oracle::{self, OracleOptions};
use testkit::{Churn, Client, Daemon, Engine, Rng, Server, ServerOptions, argv, workload};

use crate::children;

use super::usage;

/// Of a hundred events so many are lost.
const LOST_PERCENT: u64 = 15;
/// So long what a GET takes is measured before there is a daemon.
const BEFORE: Duration = Duration::from_secs(10);
/// Between two GETs.
const GET_EVERY: Duration = Duration::from_millis(2);
const LIMIT: Duration = Duration::from_secs(300);

/// The writes at the source.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// In a second.
    pub(super) rate: u64,
    /// For so many seconds behind the daemon's start.
    pub(super) seconds: u64,
}

/// How long GETs took, in milliseconds.
#[derive(Debug, Default)]
struct Gets(Vec<f64>);

impl Gets {
    /// Asks for so long.
    fn measure(&mut self, client: &mut Client, time: Duration) {
        let from = Instant::now();
        while from.elapsed() < time {
            let asked = Instant::now();
            client.command(&argv!["GET", "load:s:1"]);
            self.0.push(asked.elapsed().as_secs_f64() * 1e3);
            std::thread::sleep(GET_EVERY);
        }
    }

    fn at(&mut self, share: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        let place = (self.0.len() as f64 * share) as usize;
        let last = self.0.len().saturating_sub(1);
        self.0.get(place.min(last)).copied().unwrap_or_default()
    }

    /// At the median, at 99 % and at 99.9 %.
    fn words(&mut self) -> String {
        let [half, most, all] = [0.5, 0.99, 0.999].map(|share| self.at(share));
        format!("{half:.2} / {most:.2} / {all:.2} ms")
    }
}

/// Measures so often, and prints each run.
pub(super) fn run(engine: &Engine, binary: &Path, runs: usize, load: Load) -> Result<(), String> {
    println!(
        "{} writes/s for {} s at {}, {LOST_PERCENT} % of the events lost, three FLUSHALLs and two SWAPDBs; GET at the source at 50 / 99 / 99.9 %",
        load.rate, load.seconds, engine.name
    );
    for run in 1..=runs {
        once(engine, binary, load, run as u64)?;
    }
    Ok(())
}

fn once(engine: &Engine, binary: &Path, load: Load, seed: u64) -> Result<(), String> {
    let mut rng = Rng::new(seed);
    let options = ServerOptions::args("--notify-keyspace-events KEA");
    let source = Server::start(engine, options);
    let target = Server::start(engine, ServerOptions::default());
    for server in [&source, &target] {
        children::goes_with_us(server.folder());
    }
    let gate = Gate::start(
        &source.address(),
        &["psync", "replconf"],
        Refusal::Unknown,
        rng.number(),
    );
    gate.lose(LOST_PERCENT);
    let mut client = source.client();
    workload::fill(&mut client, rng.number(), 5_000);
    let churn = Churn::start(&source.address(), rng.number(), load.rate);
    // As many keys as there will be.
    std::thread::sleep(Duration::from_secs(5));
    let mut asking = source.client();
    let (mut before, mut during) = (Gets::default(), Gets::default());
    before.measure(&mut asking, BEFORE);
    let config = format!(
        "[sync_reader]\naddress = \"{}\"\n[redis_writer]\naddress = \"{}\"\n[scan_reader]\nrepair_interval = \"5s\"\n[advanced]\nstatus_port = {}\n",
        gate.address(),
        target.address(),
        testkit::daemon::STATUS_PORT
    );
    let mut daemon = Daemon::prepare(&config, &["sync", "shake.toml"]);
    children::goes_with_us(daemon.folder());
    let binary = std::path::absolute(binary).map_err(|error| error.to_string())?;
    daemon.use_binary(&binary);
    daemon.spawn();
    let part = Duration::from_millis(load.seconds * 1000 / 6);
    for step in 0..6 {
        during.measure(&mut asking, part);
        match step {
            0 | 2 => drop(client.command(&argv!["FLUSHALL"])),
            1 | 3 => drop(client.command(&argv!["SWAPDB", "0", "2"])),
            4 => {
                client.command(&argv!["FLUSHALL"]);
                workload::fill(&mut client, rng.number(), 2_000);
            }
            _ => {}
        }
    }
    let written = churn.stop();
    let quiet = Instant::now();
    let scan = |daemon: &Daemon, field: &str| -> u64 {
        let status = daemon.status().unwrap_or_default();
        status["understudy"]["scan"][field].as_u64().unwrap_or(0)
    };
    let is_ready = |daemon: &Daemon| daemon.get("/readyz").is_some_and(|(code, _)| code == 200);
    let sweeps = scan(&daemon, "sweeps");
    daemon.wait_for("a clean sweep, and nothing that waits", LIMIT, |daemon| {
        scan(daemon, "sweeps") >= sweeps + 2 && is_ready(daemon) && scan(daemon, "dirty") == 0
    });
    let healed = quiet.elapsed().as_secs_f64();
    let options = OracleOptions::live(&engine.version);
    let differences = oracle::compare_with(&source.address(), &target.address(), &options);
    if let Some(first) = differences.first() {
        return Err(format!(
            "{} keys differ, the first: {first}",
            differences.len()
        ));
    }
    let (passed, lost) = gate.messages();
    // Its child processes are none, so it leads no group of its own.
    let used = usage::of_process(daemon.pid());
    println!(
        "before {}; during {}; {written} writes, events {passed} passed, {lost} lost, {} keys put; every key equal {healed:.1} s after the last write; daemon {:.1} s of CPU, {:.0} MB",
        before.words(),
        during.words(),
        scan(&daemon, "keys"),
        used.cpu,
        used.rss_mb
    );
    daemon.terminate();
    Ok(())
}
