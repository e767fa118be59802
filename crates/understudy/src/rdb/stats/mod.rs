//! `understudy rdb stats`: what is in a file.

mod count;
mod heavy;
mod print;
mod table;
mod top;

use std::path::PathBuf;

use clap::Args;
use rdb::{Event, Limits, Want};

use super::bar::Bar;
use super::failure::Failure;
use super::output::Output;
use super::reader::Reader;
use super::select::Selection;
use crate::clock;
use count::{Current, Stats};

/// Options of `rdb stats`.
#[derive(Debug, Args)]
#[command(after_help = "\
Bytes are those of a key in the file: its type, name and value, without its expiry. Memory in a server is another thing.
Prefixes are counted in bounded memory: in files with very many of them a count may be too low, by not more than is said.

Example: understudy rdb stats dump.rdb --top 20
         understudy rdb stats dump.rdb --json | jq .types")]
pub(super) struct StatsArgs {
    /// The file, or - for standard input.
    file: PathBuf,
    #[command(flatten)]
    selection: Selection,
    /// How many of the biggest keys and prefixes are listed.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// What ends a prefix of a key.
    #[arg(long, value_name = "TEXT", default_value = ":")]
    separator: String,
    /// How many separators a prefix has at most.
    #[arg(long, value_name = "N", default_value_t = 2)]
    depth: usize,
    /// Print JSON.
    #[arg(long, conflicts_with = "chart")]
    json: bool,
    /// Draw bars instead of tables.
    #[arg(long)]
    chart: bool,
}

/// Runs `rdb stats`.
pub(super) fn run(args: &StatsArgs) -> Result<u8, Failure> {
    let bar = Bar::beside_a_report();
    let mut reader = Reader::open(&args.file, Limits::default(), &bar)?;
    let now_ms = i64::try_from(clock::unix_ms()).unwrap_or(i64::MAX);
    let mut stats = Stats::new(args.top, &args.separator, args.depth, now_ms);
    let result = read(&mut stats, args, &mut reader);
    bar.clear();
    let mut output = Output::stdout();
    if stats.file.format.is_some() {
        let text = match (args.json, args.chart) {
            (true, _) => format!("{}\n", print::json(&stats)),
            (false, true) => print::chart(&stats),
            (false, false) => print::tables(&stats),
        };
        output.text(&text)?;
        output.flush()?;
    }
    result?;
    Ok(0)
}

/// Counts what is there, up to the damage where there is some.
fn read(stats: &mut Stats, args: &StatsArgs, reader: &mut Reader) -> Result<(), Failure> {
    let result = keys(stats, args, reader);
    stats.file.bytes = reader.offset();
    stats.file.skipped_empty = reader.skipped_empty();
    result
}

fn keys(stats: &mut Stats, args: &StatsArgs, reader: &mut Reader) -> Result<(), Failure> {
    let mut current: Option<Current> = None;
    while let Some(event) = reader.next()? {
        match event {
            Event::Key(head) if !args.selection.takes(&head) => {
                current = None;
                reader.want(Want::Skip);
            }
            Event::Key(head) => current = Some(Current::new(head)),
            Event::Start { dialect, version } => stats.file.format = Some((dialect, version)),
            event => {
                let Some(one) = &mut current else {
                    stats.file.event(&event);
                    continue;
                };
                if one.event(&event) {
                    stats.add(one, reader.offset(), reader.dialect());
                    current = None;
                }
            }
        }
    }
    Ok(())
}
