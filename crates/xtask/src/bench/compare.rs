//! What a comparison finds among many keys under live writes, and what it costs the source: a hundred differences of every kind, all
//! of which have to be found and nothing else, and the p99 of an application that asks meanwhile.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::client::{Argv, text};
use testkit::plants::{PLANTS, Scribbler, make, spoil};
use testkit::{Engine, Rng, Server, argv};

use super::link::{Link, Tool, cpu_of};

/// Differences of each kind.
const EACH: u64 = 100;
/// A database that no other key is in.
const DB: u32 = 5;
/// Strings that are written all the while; the others are left alone.
const WRITTEN: u64 = 100_000;
/// Commands of one pipeline.
const PIPELINE: u64 = 2_000;
/// The source alone, for so long.
const ALONE: Duration = Duration::from_secs(20);
/// `compare.qps`: its default, more, and without a limit.
const RATES: [&str; 3] = ["5000", "20000", "0"];

/// Measures each rate once, and prints what was found and what it cost.
pub(super) fn run(engine: &Engine, binary: &Path, keys: u64) -> Result<(), String> {
    let options = testkit::ServerOptions::args("--repl-backlog-size 256mb");
    let source = Server::start(engine, options);
    fill(&source, keys);
    let planted = EACH * PLANTS.len() as u64;
    let expected = make(&mut source.client(), DB, planted);
    let tool = Tool::Understudy {
        binary: binary.to_owned(),
        tls: None,
    };
    let (link, _) = Link::follow(&tool, &source, engine)?;
    spoil(&mut link.target.client(), DB, planted);
    let scribbler = Scribbler::start(&source, Rng::new(Rng::seed_from_env()), WRITTEN);
    println!(
        "{keys} strings of 100 bytes and {planted} keys with a difference each, {EACH} of {} kinds; {WRITTEN} strings are written all the while",
        PLANTS.len()
    );
    println!(
        "{:<26} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>9} {:>9}",
        "", "seconds", "keys/s", "found", "false", "CPU-s", "% core", "p50 ms", "p99 ms"
    );
    let alone = measured(&source, || {
        std::thread::sleep(ALONE);
        Ok(())
    })?;
    alone.1.print("without a comparison", "", "", "");
    for rate in RATES {
        let (report, cost) = measured(&source, || compare(&source, &link.target, binary, rate))?;
        let found = found(&report);
        let right = found
            .iter()
            .filter(|(key, kind)| expected.get(*key) == Some(*kind))
            .count();
        let wrong = found.len() - right;
        let equal = report["sums"]["source_keys"].as_f64().unwrap_or(0.0);
        let name = match rate {
            "0" => "compare, no limit".to_owned(),
            rate => format!("compare, {rate} keys/s"),
        };
        cost.print(
            &name,
            &format!("{:.0}", equal / cost.seconds),
            &format!("{right}/{planted}"),
            &wrong.to_string(),
        );
        if right != expected.len() || wrong > 0 {
            return Err(format!(
                "{right} of {planted} differences were found, and {wrong} that are none: {}",
                report["sums"]
            ));
        }
    }
    let commands = scribbler.stop();
    println!("{commands} commands were written meanwhile");
    Ok(())
}

fn fill(source: &Server, keys: u64) {
    let mut client = source.client();
    let value = vec![b'x'; 100];
    for from in (0..keys).step_by(PIPELINE as usize) {
        let numbers = from..(from + PIPELINE).min(keys);
        let commands: Vec<Argv> = numbers
            .map(|number| argv!["SET", format!("scribble:{number}"), value])
            .collect();
        client.commands(&commands);
    }
}

/// One comparison; its report.
fn compare(source: &Server, target: &Server, binary: &Path, rate: &str) -> Result<Value, String> {
    let folder = tempfile::TempDir::with_prefix("understudy-bench-")
        .map_err(|error| format!("a folder for the comparison: {error}"))?;
    let config = format!(
        "[sync_reader]\naddress = \"{}\"\n[redis_writer]\naddress = \"{}\"\n",
        source.address(),
        target.address()
    );
    std::fs::write(folder.path().join("shake.toml"), config)
        .map_err(|error| format!("shake.toml: {error}"))?;
    let binary = std::path::absolute(binary).map_err(|error| error.to_string())?;
    let out = Command::new(binary)
        .args(["compare", "shake.toml", "--json", "--qps", rate])
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("the comparison cannot be started: {error}"))?;
    serde_json::from_slice(&out.stdout).map_err(|error| {
        let said = String::from_utf8_lossy(&out.stderr);
        format!("{error}: it ended with {}: {said}", out.status)
    })
}

/// The differences that a report names: kind by (db, key).
fn found(report: &Value) -> BTreeMap<(i64, String), String> {
    let rows = report["differences"].as_array().into_iter().flatten();
    let word = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    rows.map(|row| {
        let db = row["db"].as_i64().unwrap_or(-1);
        ((db, word(row, "key")), word(row, "difference"))
    })
    .collect()
}

/// What something cost the source.
struct Cost {
    seconds: f64,
    cpu: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Cost {
    fn print(&self, name: &str, rate: &str, found: &str, wrong: &str) {
        println!(
            "{name:<26} {:>8.1} {rate:>8} {found:>8} {wrong:>8} {:>9.2} {:>9.1} {:>9.3} {:>9.3}",
            self.seconds,
            self.cpu,
            self.cpu / self.seconds * 100.0,
            self.p50_ms,
            self.p99_ms
        );
    }
}

/// Does something while an application asks the source a thousand times a second.
fn measured<T>(
    source: &Server,
    work: impl FnOnce() -> Result<T, String>,
) -> Result<(T, Cost), String> {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask(source, &stop));
        let (cpu, from) = (cpu_of(source), Instant::now());
        let done = work();
        let seconds = from.elapsed().as_secs_f64();
        let cpu = cpu_of(source) - cpu;
        stop.store(true, Ordering::Relaxed);
        let times = asking
            .join()
            .map_err(|_| "the application has panicked".to_owned())?;
        let at = |share: f64| {
            let place = (times.len().saturating_sub(1) as f64 * share) as usize;
            times.get(place).copied().unwrap_or_default()
        };
        let cost = Cost {
            seconds,
            cpu,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
        };
        Ok((done?, cost))
    })
}

/// Milliseconds that GETs took, in order.
fn ask(source: &Server, stop: &AtomicBool) -> Vec<f64> {
    let mut client = source.client();
    let mut times = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let from = Instant::now();
        let _: String = text(&client.command(&argv!["GET", "scribble:999"]));
        times.push(from.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(1));
    }
    times.sort_by(f64::total_cmp);
    times
}
