//! Medians, spread, and the ratio to native.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;

use serde_json::{Value, json};

/// Every run so far.
pub(super) struct Report {
    file: Option<File>,
    /// By measurement and tool, in the order of their first run.
    runs: Vec<((String, String), Vec<Value>)>,
}

/// Figures in the order in which they are shown, with what they are in and how many places they need.
const FIGURES: [(&str, &str, usize); 16] = [
    ("seconds", "s", 2),
    ("source_rate", "commands/s", 0),
    ("applied_rate", "commands/s", 0),
    ("catch_up_seconds", "s", 3),
    ("lag_commands", "", 0),
    ("lag_seconds", "s", 3),
    ("p50_ms", "ms", 3),
    ("p99_ms", "ms", 3),
    ("max_ms", "ms", 3),
    ("tool_cpu", "s", 2),
    ("target_cpu", "s", 2),
    ("source_cpu", "s", 2),
    ("tool_rss_mb", "MB", 1),
    ("tool_written_mb", "MB", 0),
    ("full_syncs", "", 0),
    ("foreign", "", 3),
];

impl Report {
    /// Appends runs to `file` too, if there is one.
    pub(super) fn new(file: Option<&Path>) -> Result<Self, String> {
        let open = |file: &Path| {
            let opened = File::options().create(true).append(true).open(file);
            opened.map_err(|error| format!("{}: {error}", file.display()))
        };
        Ok(Self {
            file: file.map(open).transpose()?,
            runs: Vec::new(),
        })
    }

    /// One more run.
    pub(super) fn add(&mut self, what: &str, tool: &str, figures: Value) -> Result<(), String> {
        if let Some(file) = &mut self.file {
            let line = json!({ "measurement": what, "tool": tool, "figures": &figures });
            writeln!(file, "{line}").map_err(|error| format!("--json: {error}"))?;
        }
        eprintln!("{what} {tool}: {}", brief(&figures));
        let key = (what.to_owned(), tool.to_owned());
        match self.runs.iter_mut().find(|(known, _)| *known == key) {
            Some((_, runs)) => runs.push(figures),
            None => self.runs.push((key, vec![figures])),
        }
        Ok(())
    }

    /// The table of one measurement.
    pub(super) fn print(&self, what: &str) {
        let of: Vec<(&str, BTreeMap<&str, Spread>)> = self
            .runs
            .iter()
            .filter(|((measurement, _), _)| measurement == what)
            .map(|((_, tool), runs)| (tool.as_str(), spreads(runs)))
            .collect();
        let runs = self
            .runs
            .iter()
            .find(|((measurement, _), _)| measurement == what)
            .map_or(0, |(_, runs)| runs.len());
        let native = of.iter().find(|(tool, _)| *tool == "native");
        println!("\n{what}: medians of {runs}, lowest and highest, and the ratio to native");
        for (name, unit, places) in FIGURES {
            for (tool, figures) in &of {
                let Some(spread) = figures.get(name) else {
                    continue;
                };
                // Native is no process of its own.
                if *tool == "native" && name.starts_with("tool_") {
                    continue;
                }
                let reference = native
                    .filter(|_| name != "foreign" && name != "full_syncs")
                    .and_then(|(_, figures)| figures.get(name));
                let ratio = match reference {
                    Some(reference) if *tool != "native" && reference.median > 0.0 => {
                        format!("{:.2}x", spread.median / reference.median)
                    }
                    _ => String::new(),
                };
                let range = format!("{:.places$} - {:.places$}", spread.low, spread.high);
                println!(
                    "  {name:<17}{tool:<14}{:>12.places$} {unit:<11}{range:>24} {ratio:>8}",
                    spread.median
                );
            }
        }
    }
}

/// The first figures, for the line that says that a run is done.
fn brief(figures: &Value) -> String {
    let shown = FIGURES
        .iter()
        .filter_map(|(name, unit, places)| {
            let figure = figures.get(name)?.as_f64()?;
            Some(format!("{name} {figure:.places$} {unit}"))
        })
        .take(3);
    shown.collect::<Vec<_>>().join(", ")
}

#[derive(Debug, PartialEq)]
struct Spread {
    median: f64,
    low: f64,
    high: f64,
}

fn spreads(runs: &[Value]) -> BTreeMap<&'static str, Spread> {
    let spread = |name: &str| {
        let mut figures: Vec<f64> = runs
            .iter()
            .filter_map(|run| run.get(name)?.as_f64())
            .collect();
        figures.sort_by(f64::total_cmp);
        let middle = figures.len() / 2;
        let median = if figures.len() % 2 == 1 {
            *figures.get(middle)?
        } else {
            (figures.get(middle.checked_sub(1)?)? + figures.get(middle)?) / 2.0
        };
        Some(Spread {
            median,
            low: *figures.first()?,
            high: *figures.last()?,
        })
    };
    FIGURES
        .iter()
        .filter_map(|(name, ..)| Some((*name, spread(name)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let runs: Vec<Value> = [3.0, 1.0, 2.0, 10.0]
            .iter()
            .map(|seconds| json!({ "seconds": seconds }))
            .collect();
        let of = |runs: &[Value]| spreads(runs).remove("seconds");
        let spread = |median, low, high| Some(Spread { median, low, high });
        assert_eq!(of(&runs), spread(2.5, 1.0, 10.0));
        assert_eq!(of(&runs[..3]), spread(2.0, 1.0, 3.0));
        assert_eq!(of(&[]), None);
    }
}
