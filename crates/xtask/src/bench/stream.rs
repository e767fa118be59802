//! A stream of commands at the full speed of redis-benchmark.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Engine, Server};

use super::link::{Link, Tool};

/// A tool that has not caught up after this much is given up.
const LIMIT: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_millis(20);

/// One run of `commands` commands, of the kinds that redis-benchmark calls `tests`. Rates in commands per second, CPU in seconds per
/// million commands.
pub(super) fn measure(
    engine: &Engine,
    tool: &Tool,
    tests: &str,
    commands: u64,
) -> Result<Value, String> {
    let benchmark = engine
        .program("redis-benchmark")
        .ok_or_else(|| format!("{} has no redis-benchmark", engine.name))?;
    let source = Server::start(engine, tool.servers());
    let (mut link, mut marker) = Link::follow(tool, &source, engine)?;
    // The snapshot's child and the first heartbeats are no part of it.
    std::thread::sleep(Duration::from_millis(1_500));
    link.begin_counting();

    let each = commands / tests.split(',').count() as u64;
    let total = each * tests.split(',').count() as u64;
    let from = Instant::now();
    let mut load = Command::new(benchmark)
        .args([
            "-p",
            &source.port().to_string(),
            "-t",
            tests,
            "-n",
            &each.to_string(),
        ])
        .args("-P 64 -c 16 -r 1000000 -d 64 --csv".split(' '))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("redis-benchmark: {error}"))?;
    let mut observer = source.client();
    let mut processed = BTreeMap::new();
    let (mut lag_commands, mut lag) = (0, Duration::ZERO);
    let mut ended = None;
    let mut last = None;
    loop {
        if ended.is_none()
            && load
                .try_wait()
                .map_err(|error| error.to_string())?
                .is_some()
        {
            ended = Some(from.elapsed());
        }
        if last.is_none() {
            let number = marker.put();
            processed.insert(
                number,
                observer.info_number("stats", "total_commands_processed"),
            );
            last = ended.map(|_| number);
        }
        let seen = marker.seen();
        if last.is_some_and(|last| seen >= last) {
            break;
        }
        if let (Some(there), Some(here)) = (processed.get(&seen), processed.values().next_back()) {
            lag_commands = lag_commands.max(here - there);
            lag = lag.max(marker.lag(seen));
        }
        link.check()?;
        if from.elapsed() > LIMIT {
            let _ = load.kill();
            return Err(format!("it has not caught up after {LIMIT:?}"));
        }
        std::thread::sleep(PAUSE);
    }
    let caught_up = from.elapsed();
    let ended = ended.unwrap_or(caught_up);
    let mut figures = link.costs(total as f64 / 1e6);
    figures["source_rate"] = (total as f64 / ended.as_secs_f64()).into();
    figures["applied_rate"] = (total as f64 / caught_up.as_secs_f64()).into();
    figures["catch_up_seconds"] = caught_up.saturating_sub(ended).as_secs_f64().into();
    figures["lag_commands"] = lag_commands.into();
    figures["lag_seconds"] = lag.as_secs_f64().into();
    let full_syncs = source.client().info_number("stats", "sync_full");
    figures["full_syncs"] = full_syncs.into();
    link.end_equal()?;
    Ok(figures)
}
