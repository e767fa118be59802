//! `understudy rdb`: looks into RDB files.
//!
//! [`reader::Reader`] gives the events of a file, plain or compressed; each command is a loop over them. What was asked for
//! goes to standard output, all else to standard error.

mod bar;
mod diff;
mod failure;
mod hashing;
mod input;
mod json;
mod names;
mod output;
mod reader;
mod resp;
mod salvage;
mod select;
mod stats;
mod text;
mod verify;

use clap::{Args, Subcommand};

/// `understudy rdb ...`.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    arg_required_else_help = true
)]
pub(crate) struct RdbArgs {
    #[command(subcommand)]
    command: Option<RdbCommand>,
    #[command(flatten)]
    stats: Option<stats::StatsArgs>,
}

/// What can be done with a file. FILE may be compressed by gzip or zstd, and - is standard input.
#[derive(Debug, Subcommand)]
enum RdbCommand {
    /// Keys, bytes, types, encodings, databases, expiries, biggest keys and prefixes (the same as `rdb FILE`).
    Stats(stats::StatsArgs),
    /// Everything in the file as JSON, one document a line.
    Json(json::JsonArgs),
    /// Commands that load the keys into a server, for `redis-cli --pipe`.
    Resp(resp::RespArgs),
    /// Is the file sound? Where is the first damage, and what can be read before it?
    Verify(verify::VerifyArgs),
    /// What differs between two files, by value.
    Diff(diff::DiffArgs),
}

/// Runs the command; gives the exit code.
pub(crate) fn run(args: &RdbArgs) -> u8 {
    let result = match (&args.command, &args.stats) {
        (Some(RdbCommand::Stats(args)), _) | (None, Some(args)) => stats::run(args),
        (Some(RdbCommand::Json(args)), _) => json::run(args),
        (Some(RdbCommand::Resp(args)), _) => resp::run(args),
        (Some(RdbCommand::Verify(args)), _) => verify::run(args),
        (Some(RdbCommand::Diff(args)), _) => diff::run(args),
        (None, None) => Err(failure::Failure::Usage(
            "no file is named; see understudy rdb --help".to_owned(),
        )),
    };
    match result {
        Ok(code) => code,
        Err(failure::Failure::Closed) => 0,
        Err(failure) => {
            eprintln!("error: {failure}");
            failure.exit_code()
        }
    }
}
