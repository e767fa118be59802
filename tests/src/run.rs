//! Runs of the binary that are expected to end by themselves, with both outputs apart.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use testkit::{daemon, process};

use crate::Link;

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code.
    pub code: i32,
    /// What it printed to standard output.
    pub stdout: String,
    /// What it printed to standard error.
    pub stderr: String,
    /// What it wrote to log files.
    pub logs: String,
}

impl Ended {
    /// The one line that begins with `error:`; panics if there is none or more than one.
    pub fn error(&self) -> &str {
        let lines: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error:"))
            .collect();
        let [line] = lines[..] else {
            panic!("not one error line:\n{}", self.stderr);
        };
        line
    }

    /// Everything that a person or a machine could read afterwards.
    pub fn everything(&self) -> String {
        [&*self.stdout, &*self.stderr, &*self.logs].concat()
    }
}

/// Runs `understudy sync` on a link until it ends.
pub fn run(link: &Link) -> Ended {
    let text = link.text().replace(daemon::STATUS_PORT, "0");
    run_file(&["sync", "shake.toml"], Some(text.as_bytes()))
}

/// Runs the binary with these arguments in a folder that holds this shake.toml.
pub fn run_file(args: &[&str], shake_toml: Option<&[u8]>) -> Ended {
    run_in(args, shake_toml, &[])
}

/// The same with these variables in its environment.
pub fn run_in(args: &[&str], shake_toml: Option<&[u8]>, env: &[(&str, &str)]) -> Ended {
    let folder = TempDir::with_prefix("understudy-run-").expect("make a folder");
    if let Some(text) = shake_toml {
        fs::write(folder.path().join("shake.toml"), text).expect("write shake.toml");
    }
    let file = |name: &str| File::create(folder.path().join(name)).expect("make an output file");
    let child = Command::new(daemon::binary())
        .args(args)
        .current_dir(folder.path())
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(file("stdout"))
        .stderr(file("stderr"))
        .spawn();
    let mut child = child.expect("start the binary");
    let read = |name: &str| read(&folder.path().join(name));
    let seconds = std::env::var("UNDERSTUDY_RUN_SECONDS");
    let seconds = seconds.ok().and_then(|text| text.parse().ok());
    let limit = Duration::from_secs(seconds.unwrap_or(50));
    let Some(status) = process::wait(&mut child, limit) else {
        // It is ours, and it is in the way.
        let _ = child.kill();
        let _ = child.wait();
        panic!("{args:?} does not end\n{}", read("stderr"));
    };
    let (stdout, stderr) = (read("stdout"), read("stderr"));
    Ended {
        code: status
            .code()
            .unwrap_or_else(|| panic!("{args:?}: {status}\n{stderr}")),
        stdout,
        stderr,
        logs: read("data/shake.log"),
    }
}

fn read(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}
