//! `cargo xtask instructions`: how many instructions the hot paths take, beside a table that is kept in the repository.
//!
//! Unlike a time, the count does not hang on what else the machine does. It does hang on the compiler, which is pinned, and
//! a little on the processor, since checksums and searches choose their code by it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{program, test};

const USAGE: &str = "\
usage: cargo xtask instructions [--bless]

Counts the instructions of each hot path (crates/rewrite/examples/hot.rs) under valgrind, and compares them with those that
are noted in crates/xtask/src/instructions/baseline.tsv. More than 5 % above what is noted is an error; so is a path that
is noted and gone, or there and not noted.

  --bless   notes what was counted";

const BASELINE: &str = "crates/xtask/src/instructions/baseline.tsv";
/// So much may another processor, or another version of the system's library, make.
const ALLOWED: f64 = 1.05;
/// Times a path is gone over; what the process needs beside that is counted once more, and taken off.
const TIMES: u64 = 20;

/// Runs the task.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    match args {
        [] => check(),
        [flag] if flag == "--bless" => bless(),
        [flag] if flag == "--help" || flag == "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.into()),
    }
}

/// Counts and compares.
pub(crate) fn check() -> Result<(), String> {
    let text = fs::read_to_string(BASELINE).map_err(|error| format!("{BASELINE}: {error}"))?;
    let noted = parse(&text)?;
    let counted = count()?;
    let mut wrong = Vec::new();
    for (path, now) in &counted {
        let was = noted.get(path).copied();
        let change = was.map_or_else(String::new, |was| {
            format!("{:+.1} %", (now / was - 1.0) * 100.0)
        });
        println!("  {path:<18}{now:>10.1} {change:>9}");
        match was {
            Some(was) if *now > was * ALLOWED => wrong.push(format!(
                "{path} takes {now:.1} instructions an item, {was:.1} are noted"
            )),
            Some(_) => {}
            None => wrong.push(format!("{path} is not noted")),
        }
    }
    let gone = noted.keys().filter(|path| !counted.contains_key(*path));
    wrong.extend(gone.map(|path| format!("{path} is noted, and there is no such path")));
    if wrong.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{}; if that is meant, note it: cargo xtask instructions --bless",
        wrong.join("; ")
    ))
}

fn bless() -> Result<(), String> {
    let mut text = "# Instructions for each item (command, reply, round over the files): written by cargo xtask instructions --bless\n".to_owned();
    for (path, count) in count()? {
        println!("  {path:<18}{count:>10.1}");
        text += &format!("{path}\t{count:.1}\n");
    }
    fs::write(BASELINE, text).map_err(|error| format!("{BASELINE}: {error}"))
}

fn parse(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            let noted = line
                .split_once('\t')
                .and_then(|(path, count)| Some((path.to_owned(), count.trim().parse().ok()?)));
            noted.ok_or_else(|| format!("{BASELINE}:{}: not a path, a tab and a count", at + 1))
        })
        .collect()
}

/// Instructions an item, by path.
fn count() -> Result<BTreeMap<String, f64>, String> {
    if program::on_path("valgrind").is_none() {
        return Err("valgrind is not installed: apt-get install valgrind".into());
    }
    let args = "build --release --package rewrite --example hot";
    let args: Vec<&str> = args.split(' ').collect();
    program::output(&mut test::command(&args))?;
    let binary = test::target().join("release/examples/hot");
    let listed = program::output(&mut Command::new(&binary))?;
    let mut counts = BTreeMap::new();
    for line in listed.lines() {
        let (path, items) = line.split_once(' ').unwrap_or_default();
        let items: f64 = items.parse().map_err(|_| format!("hot says {line:?}"))?;
        let of = |times: u64| instructions(&binary, path, times);
        let (once, often) = (of(1)?, of(1 + TIMES)?);
        counts.insert(
            path.to_owned(),
            often.saturating_sub(once) as f64 / TIMES as f64 / items,
        );
    }
    Ok(counts)
}

fn instructions(binary: &Path, path: &str, times: u64) -> Result<u64, String> {
    let result = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(binary)
        .args([path, &times.to_string()])
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let said = String::from_utf8_lossy(&result.stderr);
    if !result.status.success() {
        return Err(format!(
            "hot {path} under valgrind: {}:\n{said}",
            result.status
        ));
    }
    collected(&said).ok_or_else(|| format!("valgrind does not tell what it has counted:\n{said}"))
}

/// `==123== Collected : 456`
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected"))?;
    line.rsplit(':').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_found_in_what_valgrind_says() {
        let said = "==7== Events    : Ir\n==7== Collected : 123456\n==7== \n";
        assert_eq!(collected(said), Some(123_456));
        assert_eq!(collected("==7== \n"), None);
    }

    #[test]
    fn a_table_is_read_and_its_faults_have_a_place() {
        let table = parse("# words\na\t1.5\n\nb\t20\n").unwrap();
        assert_eq!(table.get("a"), Some(&1.5));
        assert_eq!(table.get("b"), Some(&20.0));
        assert_eq!(
            parse("a\t1\nb 2\n").unwrap_err(),
            format!("{BASELINE}:2: not a path, a tab and a count")
        );
    }
}
