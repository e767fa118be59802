//! `cargo xtask test`: everything that has to pass, in one go, with one closing line.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

const USAGE: &str = "\
usage: cargo xtask test [--quick]

Format, lints, real servers (cargo xtask engines), a release build, the instructions of the hot paths (cargo xtask
instructions), all unit and end-to-end tests, and the rigs under docker/ (cargo xtask rigs).
Everything runs even if something before it failed. The last line sums up.

  --quick   without the release build, the instructions, the end-to-end tests and the rigs";

/// Passed, failed and ignored tests; a step that is no test adds to `failed` when it fails.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// What has failed, a line each, to be said once more at the end.
    lines: Vec<String>,
}

/// Runs the task.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let quick = match args {
        [] => false,
        [flag] if flag == "--quick" => true,
        [flag] if flag == "--help" || flag == "-h" => {
            println!("{USAGE}");
            return Ok(());
        }
        _ => return Err(USAGE.into()),
    };
    let mut tally = Tally::default();
    let mut step = |name: &str, result: Result<Tally, String>| match result {
        Ok(more) => tally.add(more),
        Err(error) => {
            let line = format!("{name}: {error}");
            eprintln!("--- failed: {line}");
            tally.failed += 1;
            tally.lines.push(line);
        }
    };
    step("format", cargo(&["fmt", "--all", "--check"]));
    step(
        "lints",
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ]),
    );
    step(
        "engines",
        crate::engines::bring_small().map(|()| Tally::default()),
    );
    if !quick {
        step(
            "release build",
            cargo(&["build", "--release", "--package", "understudy"]),
        );
        println!("--- instructions of the hot paths");
        step(
            "instructions",
            crate::instructions::check().map(|()| Tally::default()),
        );
    }
    step("tests", tests(quick));
    if !quick {
        println!("--- rigs under docker/");
        step("rigs", rigs());
    }
    if tally.ignored > 0 {
        println!("{} ignored", tally.ignored);
    }
    for line in &tally.lines {
        println!("failed: {line}");
    }
    println!("{} passed, {} failed", tally.passed, tally.failed);
    if tally.failed == 0 {
        Ok(())
    } else {
        Err("not everything passed".into())
    }
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        self.lines.extend(other.lines);
    }

    /// `test result: ok. 12 passed; 0 failed; 1 ignored; ...`
    fn parse(line: &str) -> Option<Self> {
        let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
        let count = |what: &str| {
            let mut parts = counts.split("; ");
            let number = parts.find_map(|part| part.trim().strip_suffix(what))?;
            number.trim().parse().ok()
        };
        Some(Self {
            passed: count("passed")?,
            failed: count("failed")?,
            ignored: count("ignored")?,
            lines: Vec::new(),
        })
    }
}

/// The cargo that runs this task.
pub(crate) fn command(args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(args).stdin(Stdio::null());
    command
}

fn cargo(args: &[&str]) -> Result<Tally, String> {
    let from = Instant::now();
    let line = format!("cargo {}", args.join(" "));
    println!("--- {line}");
    let status = command(args)
        .status()
        .map_err(|error| format!("{line}: {error}"))?;
    println!("--- {:.0} s", from.elapsed().as_secs_f64());
    if status.success() {
        Ok(Tally::default())
    } else {
        Err(format!("{line}: {status}"))
    }
}

fn rigs() -> Result<Tally, String> {
    let (passed, lines) = crate::rigs::check()?;
    Ok(Tally {
        passed,
        failed: lines.len() as u64,
        ignored: 0,
        lines,
    })
}

/// Runs cargo test, shows what it prints as it comes, and counts.
fn tests(quick: bool) -> Result<Tally, String> {
    let mut args = vec!["test", "--workspace", "--no-fail-fast"];
    if quick {
        args.extend(["--exclude", "e2e"]);
    }
    println!("--- cargo {}", args.join(" "));
    let mut cargo = command(&args);
    cargo.stdout(Stdio::piped());
    if !quick {
        cargo.env("UNDERSTUDY_BIN", target().join("release/understudy"));
    }
    let mut child = cargo
        .spawn()
        .map_err(|error| format!("cargo test: {error}"))?;
    let mut tally = Tally::default();
    if let Some(output) = child.stdout.take() {
        tally = show_and_count(BufReader::new(output), &mut std::io::stdout());
    }
    let status = child
        .wait()
        .map_err(|error| format!("cargo test: {error}"))?;
    // A test that does not compile, or ends its process, shows in no result line.
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
        tally.lines.push(format!("cargo test: {status}"));
    }
    Ok(tally)
}

fn show_and_count(mut output: impl BufRead, shown: &mut dyn Write) -> Tally {
    let mut tally = Tally::default();
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
        // Who closed our output may still want the exit code.
        let _ = shown.write_all(&line);
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end();
        if let Some(more) = Tally::parse(text) {
            tally.add(more);
        } else if text.starts_with("test ") && text.ends_with(" ... FAILED") {
            tally.lines.push(text.to_owned());
        }
        line.clear();
    }
    tally
}

pub(crate) fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    crate::workspace_root().join(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_result_lines_and_nothing_else() {
        let output = b"running 2 tests\n\
            test one::of_them ... FAILED\ntest another ... ok\n\
            test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
            the test result: ok. 5 passed; 0 failed\n\xff\n\
            test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out; finished in 1s\n";
        let mut shown = Vec::new();
        let tally = show_and_count(&output[..], &mut shown);
        assert_eq!(shown, output);
        assert_eq!(
            tally,
            Tally {
                passed: 15,
                failed: 2,
                ignored: 1,
                lines: vec!["test one::of_them ... FAILED".to_owned()],
            }
        );
    }
}
