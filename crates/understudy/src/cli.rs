//! The command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::config::{Config, annotated_default, effective};
use crate::error::{Side, SyncError};
use crate::status::Status;
use crate::stop::Stop;
use crate::{client::Client, http, logging, progress, rdb, supervise};

/// Exit code for configuration and usage errors.
const USAGE: u8 = 2;

/// Moves a live Redis or Valkey to another one, without stopping the service and without losing or
/// doubling one write.
#[derive(Debug, Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
#[command(
    after_help = "Example: understudy sync shake.toml\nA first shake.toml:  understudy config > shake.toml"
)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,
    /// Run the replication that this file describes (the same as `sync FILE`).
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How log lines look on standard error.
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    log_format: logging::Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the replication until asked to stop.
    #[command(after_help = "Example: understudy sync shake.toml")]
    Sync {
        /// The configuration.
        file: PathBuf,
    },
    /// Round-trip time of both ends: min, p50, p99, max, in microseconds.
    #[command(after_help = "Example: understudy ping shake.toml --count 200")]
    Ping {
        /// The configuration.
        file: PathBuf,
        /// How many times each end is asked.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        count: u32,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Look into RDB files: statistics, JSON, commands, soundness, differences.
    #[command(
        after_help = "Example: understudy rdb dump.rdb\n         understudy rdb verify dump.rdb.gz\n         understudy rdb resp dump.rdb | redis-cli --pipe"
    )]
    Rdb(Box<rdb::RdbArgs>),
    /// Print the annotated default, or what FILE comes to with every default filled in.
    #[command(
        after_help = "Example: understudy config > shake.toml\n         understudy config shake.toml"
    )]
    Config {
        /// The configuration to fill in.
        file: Option<PathBuf>,
    },
}

/// Runs the command line; gives the exit code.
pub fn run() -> u8 {
    let args = match Args::try_parse_from(rdb::with_command(std::env::args_os())) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE } else { 0 };
        }
    };
    match (args.command, args.file) {
        (Some(Command::Sync { file }), _) | (None, Some(file)) => sync(&file, args.log_format),
        (Some(Command::Ping { file, count, json }), _) => ping(&file, count, json),
        (Some(Command::Rdb(args)), _) => rdb::run(&args),
        (Some(Command::Config { file }), _) => print_config(file.as_deref()),
        (None, None) => USAGE,
    }
}

/// Says an error in one line, whatever text it quotes.
fn say(error: &impl std::fmt::Display, code: u8) -> u8 {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    logging::tell(format_args!("error: {}", lines.join(" ")));
    code
}

fn print_config(file: Option<&Path>) -> u8 {
    match file.map_or_else(|| Ok(annotated_default()), effective) {
        Ok(text) => {
            print!("{text}");
            0
        }
        Err(error) => say(&error, USAGE),
    }
}

fn sync(file: &Path, format: logging::Format) -> u8 {
    let config = match Config::read(file) {
        Ok(config) => config,
        Err(error) => return say(&error, USAGE),
    };
    let bar = progress::Bar::for_terminal();
    if let Err(error) = logging::init(&config.log, format, bar.clone()) {
        return say(&error, 5);
    }
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        source = config.source.endpoint.address,
        target = config.target.endpoint.address,
        "understudy"
    );
    let status = Arc::new(Status::new(rewrite::Table::new().len()));
    let result = run_link(&config, &status, bar);
    match result {
        Ok(()) => {
            tracing::info!(applied_offset = status.applied_offset.get(), "stopped");
            0
        }
        Err(error) => {
            tracing::error!(%error, "stopped");
            say(&error, error.exit_code())
        }
    }
}

/// The link runs on this thread; HTTP and progress have threads of their own.
fn run_link(config: &Config, status: &Arc<Status>, bar: progress::Bar) -> Result<(), SyncError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| SyncError::local(format!("cannot start: {error}")))?;
    let stop = Stop::default();
    if let Some(http) = &config.http {
        http::spawn(http, config, status.clone())?;
    }
    let progress = progress::spawn(status.clone(), config.log.interval, bar)
        .map_err(|error| SyncError::local(format!("cannot start: {error}")))?;
    let result = runtime.block_on(async {
        watch_signals(&stop)?;
        supervise::run(config, status, &stop).await
    });
    progress.finish();
    result
}

/// The first signal asks for a stop; the second exits at once. Nothing is lost by that: what the target
/// has confirmed carries its position.
fn watch_signals(stop: &Stop) -> Result<(), SyncError> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error: std::io::Error| SyncError::local(format!("cannot watch signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    let stop = stop.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.is_requested() {
                tracing::warn!("asked to stop a second time: exiting at once");
                std::process::exit(0);
            }
            stop.request();
        }
    });
    Ok(())
}

#[derive(Debug, serde::Serialize)]
struct Rtt {
    side: String,
    address: String,
    count: usize,
    min_us: u64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
}

fn ping(file: &Path, count: u32, json: bool) -> u8 {
    let config = match Config::read(file) {
        Ok(config) => config,
        Err(error) => return say(&error, USAGE),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return say(&error, 5),
    };
    let ends = [
        (Side::Source, &config.source.endpoint),
        (Side::Target, &config.target.endpoint),
    ];
    let mut rows = Vec::new();
    for (side, endpoint) in ends {
        match runtime.block_on(round_trips(side, endpoint, count)) {
            Ok(row) => rows.push(row),
            Err(error) => return say(&error, error.exit_code()),
        }
    }
    if json {
        println!("{}", serde_json::json!({ "ends": rows }));
        return 0;
    }
    println!(
        "{:<7} {:<24} {:>8} {:>8} {:>8} {:>8}",
        "end", "address", "min", "p50", "p99", "max"
    );
    for row in rows {
        println!(
            "{:<7} {:<24} {:>8} {:>8} {:>8} {:>8}",
            row.side, row.address, row.min_us, row.p50_us, row.p99_us, row.max_us
        );
    }
    0
}

async fn round_trips(
    side: Side,
    endpoint: &crate::config::Endpoint,
    count: u32,
) -> Result<Rtt, SyncError> {
    let mut client = Client::connect(endpoint, side).await?;
    let mut times = Vec::new();
    for _ in 0..count {
        let start = std::time::Instant::now();
        client.call(&[b"PING"]).await?;
        times.push(u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    times.sort_unstable();
    let at = |percent: usize| {
        times
            .get(times.len() * percent / 100)
            .or(times.last())
            .copied()
            .unwrap_or(0)
    };
    Ok(Rtt {
        side: side.to_string(),
        address: endpoint.address.clone(),
        count: times.len(),
        min_us: at(0),
        p50_us: at(50),
        p99_us: at(99),
        max_us: times.last().copied().unwrap_or(0),
    })
}
