//! `cargo xtask test`: everything that has to pass, in one go, with one closing line.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;

const USAGE: &str = "\
usage: cargo xtask test [--quick]

Format, lints, real servers (cargo xtask engines), a release build, the instructions of the hot paths (cargo xtask
instructions), all unit and end-to-end tests, and the rigs under docker/ (cargo xtask rigs).
Everything runs even if something before it failed. The last line sums up. An end-to-end test that fails beside others is run once more,
alone and with the seed that it had; if it passes then, it is named at the end, and has something that wants mending all the same.

  --quick   without the release build, the instructions, the end-to-end tests and the rigs";

/// Passed, failed and ignored tests; a step that is no test adds to `failed` when it fails.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Tally {
    passed: u64,
    failed: u64,
    ignored: u64,
    /// What has failed, a line each, to be said once more at the end.
    lines: Vec<String>,
    /// What has passed at the second try only.
    shaky: Vec<String>,
}

/// An end-to-end test that has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failure {
    test: String,
    seed: Option<String>,
}

/// More failures than these are not a busy machine's.
const TRIED_AGAIN_MAX: usize = 3;

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
    for name in &tally.shaky {
        println!("passed at the second try only, alone: {name}");
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
        self.shaky.extend(other.shaky);
    }

    /// What has failed has passed at the second try.
    fn passes_after_all(&mut self, name: &str, test: &str) {
        let line = failed_line(test);
        let Some(at) = self.lines.iter().position(|said| *said == line) else {
            return;
        };
        self.lines.remove(at);
        self.failed -= 1;
        self.passed += 1;
        self.shaky.push(format!("{name} {test}"));
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
            ..Self::default()
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
        lines,
        ..Tally::default()
    })
}

/// Runs cargo test, shows what it prints as it comes, and counts; then the end-to-end tests.
fn tests(quick: bool) -> Result<Tally, String> {
    let args = ["test", "--workspace", "--no-fail-fast", "--exclude", "e2e"];
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
    if !quick {
        // What was counted so far counts whatever becomes of these.
        tally.add(end_to_end().unwrap_or_else(|error| Tally {
            failed: 1,
            lines: vec![error],
            ..Tally::default()
        }));
    }
    Ok(tally)
}

/// The end-to-end tests, which wait for servers most of their time: some binaries beside one another, a test of each at a time. What
/// one prints is shown when it has ended.
fn end_to_end() -> Result<Tally, String> {
    let args = [
        "test",
        "--package",
        "e2e",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ];
    println!("--- cargo {}", args.join(" "));
    let built = command(&args)
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cargo test: {error}"))?;
    if !built.status.success() {
        return Err(format!(
            "the end-to-end tests cannot be built: {}",
            built.status
        ));
    }
    let queue = binaries(&built.stdout);
    if queue.is_empty() {
        return Err("cargo names no end-to-end test".to_owned());
    }
    let queue = Mutex::new(queue);
    let total = Mutex::new((Tally::default(), Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from) + 1;
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let next = queue
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .pop_front();
                    let Some((name, file)) = next else {
                        break;
                    };
                    let (tally, shown) = binary(&name, &file, None);
                    let failures = failures(&String::from_utf8_lossy(&shown));
                    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                    // Who closed our output may still want the exit code.
                    let _ = std::io::stdout().write_all(&shown);
                    total.0.add(tally);
                    let failures = failures.into_iter();
                    total
                        .1
                        .extend(failures.map(|failure| (name.clone(), file.clone(), failure)));
                }
            });
        }
    });
    let (mut tally, failed) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    if failed.len() <= TRIED_AGAIN_MAX {
        for (name, file, failure) in &failed {
            println!("--- once more, alone: {name} {}", failure.test);
            let (again, shown) = binary(name, file, Some(failure));
            let _ = std::io::stdout().write_all(&shown);
            if again.passed == 1 && again.failed == 0 {
                tally.passes_after_all(name, &failure.test);
            }
        }
    }
    Ok(tally)
}

/// The tests that have failed, by what their binary has printed.
fn failures(shown: &str) -> Vec<Failure> {
    let mut failures = Vec::new();
    for line in shown.lines() {
        let failed = line
            .strip_prefix("---- ")
            .and_then(|line| line.strip_suffix(" stdout ----"));
        if let Some(test) = failed {
            failures.push(Failure {
                test: test.to_owned(),
                seed: None,
            });
        }
        let seed = line.split_once("UNDERSTUDY_SEED=");
        if let (Some((_, seed)), Some(last)) = (seed, failures.last_mut()) {
            let number: String = seed.chars().take_while(char::is_ascii_digit).collect();
            last.seed.get_or_insert(number);
        }
    }
    failures
}

/// Names and files of what cargo has built to be run as tests.
fn binaries(messages: &[u8]) -> VecDeque<(String, PathBuf)> {
    let messages = messages.split(|byte| *byte == b'\n');
    let messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let tests = messages.filter(|message| message["profile"]["test"] == true);
    tests
        .filter_map(|message| {
            let file = message["executable"].as_str()?.into();
            Some((message["target"]["name"].as_str()?.to_owned(), file))
        })
        .collect()
}

/// Runs one of them, or a test of it once more; gives what it has printed.
fn binary(name: &str, file: &PathBuf, once_more: Option<&Failure>) -> (Tally, Vec<u8>) {
    let folder = crate::workspace_root().join("tests");
    let mut command = Command::new(file);
    command.args(["--test-threads", "1"]);
    if let Some(failure) = once_more {
        command.args(["--exact", &failure.test]);
        command.envs(failure.seed.iter().map(|seed| ("UNDERSTUDY_SEED", seed)));
    }
    let ran = command
        .env("UNDERSTUDY_BIN", target().join("release/understudy"))
        .env("CARGO_MANIFEST_DIR", &folder)
        .current_dir(&folder)
        .stdin(Stdio::null())
        .output();
    let mut shown = format!("--- {name}\n").into_bytes();
    let (mut tally, is_well) = match ran {
        Ok(ran) => {
            let tally = show_and_count(&ran.stdout[..], &mut shown);
            if !ran.status.success() {
                shown.extend(&ran.stderr);
            }
            (tally, ran.status.success())
        }
        Err(error) => {
            shown.extend(format!("{}: {error}\n", file.display()).into_bytes());
            (Tally::default(), false)
        }
    };
    if !is_well && tally.failed == 0 {
        tally.failed = 1;
        tally
            .lines
            .push(format!("{name}: it ended before its time"));
    }
    (tally, shown)
}

fn failed_line(test: &str) -> String {
    format!("test {test} ... FAILED")
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
    fn what_cargo_has_built_as_a_test_is_run_and_nothing_else() {
        let messages = br#"{"reason":"compiler-artifact","target":{"name":"kill"},"profile":{"test":true},"executable":"/t/kill-1"}
{"reason":"compiler-artifact","target":{"name":"e2e"},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"name":"cost"},"profile":{"test":false},"executable":"/t/cost"}
{"reason":"build-finished","success":true}
"#;
        assert_eq!(
            binaries(messages),
            [("kill".to_owned(), PathBuf::from("/t/kill-1"))]
        );
    }

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
                shaky: Vec::new(),
            }
        );
        let mut mended = tally.clone();
        mended.passes_after_all("kill", "another");
        assert_eq!(mended, tally);
        mended.passes_after_all("kill", "one::of_them");
        assert_eq!((mended.passed, mended.failed), (16, 1));
        assert_eq!(mended.shaky, ["kill one::of_them"]);
        assert!(mended.lines.is_empty());
    }

    #[test]
    fn what_has_failed_is_known_with_its_seed() {
        let shown = "failures:\n\n---- one stdout ----\nseed: UNDERSTUDY_SEED=17\nand UNDERSTUDY_SEED=18\n\n---- b::two stdout ----\nno\n\nfailures:\n    one\n";
        let failure = |test: &str, seed: Option<&str>| Failure {
            test: test.to_owned(),
            seed: seed.map(str::to_owned),
        };
        assert_eq!(
            failures(shown),
            [failure("one", Some("17")), failure("b::two", None)]
        );
    }
}
