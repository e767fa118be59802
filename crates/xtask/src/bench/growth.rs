//! How the daemon grows: with the keys of a full sync, with the rate of a stream, with the links of one process.

mod links;
mod plot;
mod rate;

use std::path::Path;

use serde_json::{Value, json};
use testkit::Engine;

use super::link::Tool;
use super::{data, full};
use plot::Panel;

/// Writes per second at the source; the last ones are more than a target takes on a small machine.
const RATES: [u64; 6] = [300, 1_000, 10_000, 30_000, 100_000, 300_000];
const LINKS: [usize; 5] = [1, 3, 10, 30, 100];

/// One point of a curve: what grew, and what it came to, by name.
struct Point {
    x: f64,
    figures: Value,
}

/// Measures all three, prints them, and draws them into `svg`.
pub(super) fn run(
    engine: &Engine,
    tool: &Tool,
    keys: u64,
    runs: usize,
    svg: &Path,
) -> Result<(), String> {
    let sizes: Vec<u64> = [100, 32, 10, 3, 1].iter().map(|part| keys / part).collect();
    let mut by_keys = Vec::new();
    for size in sizes {
        let file = data::prepare(engine, size)?;
        let figures = median(runs, || full::measure(engine, tool, &file))?;
        by_keys.push(tell("keys", size as f64, figures));
    }
    let mut by_rate = Vec::new();
    for rate in RATES {
        let figures = median(runs, || rate::measure(engine, tool, rate))?;
        by_rate.push(tell("writes/s", rate as f64, figures));
    }
    let Tool::Understudy { binary, .. } = tool else {
        return Err("only understudy has several links in a process".into());
    };
    let mut by_links = Vec::new();
    for links in LINKS {
        let figures = median(runs, || links::measure(engine, binary, links))?;
        by_links.push(tell("links", links as f64, figures));
    }
    let panels = [
        Panel::new(
            "Full sync",
            "strings in the data set",
            &by_keys,
            &[
                ("seconds", "seconds"),
                ("tool_cpu", "CPU seconds"),
                ("tool_rss_mb", "MB"),
            ],
        ),
        Panel::new(
            "Stream",
            "writes per second",
            &by_rate,
            &[
                ("cores", "cores"),
                ("lag_ms", "lag, ms"),
                ("tool_rss_mb", "MB"),
            ],
        ),
        Panel::new(
            "Links in one process, sources at rest",
            "links",
            &by_links,
            &[
                ("seconds", "seconds until ready"),
                ("cores_at_rest", "cores at rest"),
                ("tool_rss_mb", "MB"),
            ],
        ),
    ];
    std::fs::write(svg, plot::svg(&panels))
        .map_err(|error| format!("{}: {error}", svg.display()))?;
    println!("drawn: {}", svg.display());
    Ok(())
}

fn tell(what: &str, x: f64, figures: Value) -> Point {
    println!("{x:>10} {what:<9} {figures}");
    Point { x, figures }
}

/// The median of each figure of several runs.
fn median(runs: usize, run: impl Fn() -> Result<Value, String>) -> Result<Value, String> {
    let runs: Vec<Value> = (0..runs).map(|_| run()).collect::<Result<_, _>>()?;
    let mut medians = json!({});
    let names = runs.first().and_then(Value::as_object);
    for name in names.into_iter().flat_map(|figures| figures.keys()) {
        let mut values: Vec<f64> = runs.iter().filter_map(|run| run[name].as_f64()).collect();
        values.sort_by(f64::total_cmp);
        if let Some(value) = values.get(values.len() / 2) {
            medians[name] = ((value * 1e4).round() / 1e4).into();
        }
    }
    Ok(medians)
}
