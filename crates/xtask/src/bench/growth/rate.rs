//! A stream at a given rate.

use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::client::Argv;
use testkit::{Engine, Server, argv};

use super::super::link::{Link, Tool};

const SECONDS: f64 = 5.0;

/// One run: SETs at so many a second, sent as they fall due; the daemon's processor time in cores, its memory, and the
/// median age of a write at the target.
pub(super) fn measure(engine: &Engine, tool: &Tool, per_second: u64) -> Result<Value, String> {
    let source = Server::start(engine, tool.servers());
    let (mut link, mut marker) = Link::follow(tool, &source, engine)?;
    let mut client = source.client();
    let value = vec![b'x'; 64];
    link.begin_counting();
    let from = Instant::now();
    let mut done = 0;
    let mut lags = Vec::new();
    while from.elapsed().as_secs_f64() < SECONDS {
        let due = (from.elapsed().as_secs_f64() * per_second as f64) as u64;
        let commands: Vec<Argv> = (done..due.min(done + 5_000))
            .map(|at| argv!["SET", format!("load:{}", at % 100_000), value])
            .collect();
        if !commands.is_empty() {
            client.commands(&commands);
            done += commands.len() as u64;
        }
        let wanted = marker.put();
        let put = Instant::now();
        while marker.seen() < wanted {
            std::thread::yield_now();
        }
        lags.push(put.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(Duration::from_millis(1));
    }
    let seconds = from.elapsed().as_secs_f64();
    let mut figures = link.costs(1.0);
    lags.sort_by(f64::total_cmp);
    figures["cores"] = (figures["tool_cpu"].as_f64().unwrap_or(0.0) / seconds).into();
    figures["written_per_second"] = (done as f64 / seconds).into();
    figures["lag_ms"] = lags.get(lags.len() / 2).copied().into();
    link.end_equal()?;
    Ok(figures)
}
