//! The command line.

use std::path::{Path, PathBuf};

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::{Config, ConfigError, Writer, annotated_default, effective, reverse};
use crate::error::{Side, SyncError};
use crate::{
    check, client::Client, compare, confirm, cutover, links, logging, manual, progress, rdb,
    version, view,
};

/// Exit code for configuration and usage errors.
pub(crate) const USAGE: u8 = 2;

/// Moves a live Redis or Valkey to another one, without stopping the service and without losing or
/// doubling one write.
#[derive(Debug, Parser)]
#[command(
    version = version::LONG,
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
    /// Do not ask before a target is emptied (advanced.empty_db_before_sync).
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the replication until asked to stop.
    #[command(
        after_help = "Example: understudy sync shake.toml\n         understudy sync one.toml two.toml    several links in one process"
    )]
    Sync {
        /// The configuration; with several, each is a link of its own.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Do not ask before the target is emptied (advanced.empty_db_before_sync).
        #[arg(long)]
        yes: bool,
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
    /// What a running daemon is doing: drawn anew each second on a terminal.
    #[command(
        after_help = "Example: understudy status http://127.0.0.1:9090\n         understudy status --json shake.toml"
    )]
    Status(view::StatusArgs),
    /// What would happen: looks at both ends before anything is done, and says what to mend.
    Check(Box<check::CheckArgs>),
    /// Is the target equal to the source? Prints the differences.
    Compare(Box<compare::CompareArgs>),
    /// Switch the application over to the target: gate, fence, proof, GO, stragglers; and the end of it all.
    Cutover(Box<cutover::CutoverArgs>),
    /// Print the shake.toml of the way back, from the target to the source: for a rollback that loses nothing.
    #[command(
        after_help = "Example: understudy reverse shake.toml > back.toml\n         understudy sync back.toml    when the application writes to the new server only\n         understudy reverse --start shake.toml    after `cutover --reverse`: goes on from the switch, without a snapshot"
    )]
    Reverse {
        /// The configuration of the way there.
        file: PathBuf,
        /// Follow the new server from the switch on, as `cutover --reverse` has noted it.
        #[arg(long)]
        start: bool,
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
    /// Print what a shell needs to complete these commands and their options.
    #[command(
        after_help = "Example: understudy completions bash > /etc/bash_completion.d/understudy\n         understudy completions zsh > ~/.zfunc/_understudy"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages: one for the program, one for each of its commands.
    #[command(
        after_help = "Example: understudy man /usr/local/share/man/man1\n         man understudy-sync"
    )]
    Man {
        /// The folder for them, which is made if need be.
        folder: PathBuf,
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
        (Some(Command::Sync { files, yes }), _) => sync(&files, args.log_format, yes || args.yes),
        (None, Some(file)) => sync(&[file], args.log_format, args.yes),
        (Some(Command::Ping { file, count, json }), _) => ping(&file, count, json),
        (Some(Command::Status(args)), _) => view::run(&args),
        (Some(Command::Check(args)), _) => check::run(&args),
        (Some(Command::Compare(args)), _) => compare::run(&args),
        (Some(Command::Rdb(args)), _) => rdb::run(&args),
        (Some(Command::Cutover(args)), _) => cutover::run(&args),
        (Some(Command::Reverse { file, start: false }), _) => print_text(reverse(&file)),
        (Some(Command::Reverse { file, start: true }), _) => match cutover::start_way_back(&file) {
            Ok(config) => run_links(vec![config], args.log_format),
            Err((code, what)) => say(&what, code),
        },
        (Some(Command::Config { file }), _) => print_text(
            file.as_deref()
                .map_or_else(|| Ok(annotated_default()), effective),
        ),
        (Some(Command::Completions { shell }), _) => {
            match manual::completions(Args::command(), shell) {
                Ok(()) => 0,
                Err(error) => say(&format!("standard output: {error}"), 5),
            }
        }
        (Some(Command::Man { folder }), _) => match manual::man_pages(Args::command(), &folder) {
            Ok(pages) => {
                logging::tell(format_args!("{}: {pages} pages", folder.display()));
                0
            }
            Err(error) => say(&format!("{}: {error}", folder.display()), 5),
        },
        (None, None) => USAGE,
    }
}

/// Says an error in one line, whatever text it quotes.
pub(crate) fn say(error: &impl std::fmt::Display, code: u8) -> u8 {
    let text = error.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    logging::tell(format_args!("error: {}", lines.join(" ")));
    code
}

fn print_text(text: Result<String, ConfigError>) -> u8 {
    match text {
        Ok(text) => {
            print!("{text}");
            0
        }
        Err(error) => say(&error, USAGE),
    }
}

/// Runs the links that `files` describe. What concerns the process, its log, is as the first file has it.
fn sync(files: &[PathBuf], format: logging::Format, yes: bool) -> u8 {
    let mut configs = Vec::new();
    for file in files {
        match Config::read(file) {
            Ok(config) => configs.push(config),
            Err(error) => return say(&error, USAGE),
        }
    }
    let pairs: Vec<_> = files.iter().map(PathBuf::as_path).zip(&configs).collect();
    if let Err(error) = links::check(&pairs) {
        return say(&error, USAGE);
    }
    let empties = |config: &&Config| config.target.empty_before && config.writer == Writer::Redis;
    for config in configs.iter().filter(empties) {
        if !yes && let Err(refusal) = confirm::emptying(&config.target.endpoint.address) {
            return say(&refusal, USAGE);
        }
    }
    run_links(configs, format)
}

/// Runs links until they end; gives the exit code.
fn run_links(configs: Vec<Config>, format: logging::Format) -> u8 {
    let Some(first) = configs.first() else {
        return USAGE;
    };
    let bar = progress::Bar::for_terminal();
    let notices = match logging::init(&first.log, format, bar.clone()) {
        Ok(notices) => notices,
        Err(error) => return say(&error, 5),
    };
    for config in &configs {
        tracing::info!(
            version = version::VERSION,
            commit = version::COMMIT,
            source = config.source.endpoint.address,
            target = config.target.endpoint.address,
            "understudy"
        );
        for note in &config.notes {
            tracing::warn!("{note}");
        }
    }
    match links::run(configs, bar, &notices) {
        Ok(()) => 0,
        Err(error) => {
            tracing::error!(%error, "stopped");
            say(&error, error.exit_code())
        }
    }
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
        (
            Side::Source,
            &config.source.endpoint,
            config.reader.is_of_files(),
        ),
        (
            Side::Target,
            &config.target.endpoint,
            config.writer != Writer::Redis,
        ),
    ];
    let (mut rows, mut files) = (Vec::new(), Vec::new());
    for (side, endpoint, is_file) in ends {
        if is_file {
            files.push(format!(
                "{:<7} {:<24} a file",
                side.to_string(),
                endpoint.address
            ));
            continue;
        }
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
    for file in files {
        println!("{file}");
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
