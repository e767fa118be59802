//! `understudy rdb`: looks into RDB files.
//!
//! [`reader::Reader`] gives the events of a file, plain or compressed; each command is a loop over them. What was asked for
//! goes to standard output, all else to standard error.

mod ahead;
pub(crate) mod bar;
pub(crate) mod diff;
pub(crate) mod failure;
pub(crate) mod hashing;
pub(crate) mod input;
mod json;
pub(crate) mod names;
mod output;
pub(crate) mod reader;
mod resp;
mod salvage;
mod select;
mod stats;
pub(crate) mod text;
mod verify;

use std::ffi::OsString;
use std::path::Path;

use clap::{Args, Subcommand};

use crate::logging::tell;

/// `understudy rdb ...`.
#[derive(Debug, Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct RdbArgs {
    #[command(subcommand)]
    command: RdbCommand,
}

/// A command line with `stats` where `rdb` is followed by no command: `understudy rdb FILE`.
pub(crate) fn with_command(words: impl Iterator<Item = OsString>) -> Vec<OsString> {
    const KNOWN: [&str; 8] = [
        "stats", "json", "resp", "verify", "diff", "help", "--help", "-h",
    ];
    let mut words: Vec<OsString> = words.collect();
    let is_rdb = words.get(1).is_some_and(|word| word == "rdb");
    let named = |word: &OsString| KNOWN.iter().any(|known| word == known);
    // What has a file behind it and is none was meant for a command: clap names the one that is like it.
    let mistyped = |word: &OsString| {
        let is_word = word.to_string_lossy().chars().all(char::is_alphabetic);
        let file = words.get(3).map(|next| next.to_string_lossy());
        let before_file = file.is_some_and(|next| next == "-" || !next.starts_with('-'));
        is_word && before_file && !Path::new(word).exists()
    };
    if is_rdb
        && words
            .get(2)
            .is_some_and(|word| !named(word) && !mistyped(word))
    {
        words.insert(2, "stats".into());
    }
    words
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
    let result = match &args.command {
        RdbCommand::Stats(args) => stats::run(args),
        RdbCommand::Json(args) => json::run(args),
        RdbCommand::Resp(args) => resp::run(args),
        RdbCommand::Verify(args) => verify::run(args),
        RdbCommand::Diff(args) => diff::run(args),
    };
    match result {
        Ok(code) => code,
        Err(failure::Failure::Closed) => 0,
        Err(failure) => {
            tell(format_args!("error: {failure}"));
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_alone_is_for_statistics() {
        let words =
            |text: &str| with_command(text.split(' ').map(OsString::from)).join(" ".as_ref());
        assert_eq!(words("u rdb a.rdb --json"), "u rdb stats a.rdb --json");
        for same in [
            "u rdb",
            "u rdb json a",
            "u rdb --help",
            "u sync json",
            "u",
            "u rdb verfy a",
        ] {
            assert_eq!(words(same), same);
        }
    }
}
