//! The daemon as a process in target/demo, whose files stay after it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use testkit::port::Port;
use testkit::process::{self, Signal};

/// How much of its log an error shows.
const LOG_LINES: usize = 15;
/// How long it may take to stop: its own limit is 10 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// `understudy sync shake.toml`.
pub(super) struct Daemon {
    binary: PathBuf,
    folder: PathBuf,
    port: Port,
    env: Vec<(String, String)>,
    child: Option<Child>,
}

/// What it says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct Status {
    pub(super) phase: String,
    pub(super) keys: u64,
    pub(super) snapshot_bytes: u64,
    pub(super) applied_offset: u64,
    /// The target is a faithful copy: what it still owes is no more than a moment's writes.
    pub(super) ready: bool,
    pub(super) lag: Duration,
}

impl Daemon {
    /// Not started yet. `env` is for what the shake.toml takes from its environment.
    pub(super) fn new(binary: PathBuf, folder: &Path, env: Vec<(String, String)>) -> Self {
        Self {
            binary,
            folder: folder.into(),
            port: Port::reserve(),
            env,
            child: None,
        }
    }

    /// The port for `advanced.status_port`.
    pub(super) fn status_port(&self) -> u16 {
        self.port.number()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.port.address())
    }

    pub(super) fn binary(&self) -> &Path {
        &self.binary
    }

    pub(super) fn config_file(&self) -> PathBuf {
        self.folder.join("shake.toml")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.folder.join("understudy.log")
    }

    pub(super) fn log_tail(&self) -> String {
        process::tail(&self.log_file(), LOG_LINES)
    }

    /// Writes its shake.toml.
    pub(super) fn configure(&self, config: &str) -> Result<(), String> {
        let file = self.config_file();
        fs::write(&file, config).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Starts the process (again); its log goes on below.
    pub(super) fn start(&mut self) -> Result<(), String> {
        let at = |error: std::io::Error| format!("{}: {error}", self.binary.display());
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file());
        let log = log.map_err(at)?;
        let mut command = Command::new(&self.binary);
        command
            .args(["sync", "shake.toml"])
            .current_dir(&self.folder);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(at)?)
            .stderr(log);
        self.child = Some(command.spawn().map_err(at)?);
        Ok(())
    }

    /// SIGKILL; says which process it was.
    pub(super) fn kill(&mut self) -> u32 {
        let Some(mut child) = self.child.take() else {
            return 0;
        };
        let pid = child.id();
        // It may be gone already, which is as good.
        let _ = child.kill();
        let _ = child.wait();
        pid
    }

    /// SIGTERM; an error unless it ends with exit code 0.
    pub(super) fn terminate(&mut self) -> Result<(), String> {
        self.check()?;
        let Some(mut child) = self.child.take() else {
            return Err("the daemon does not run".into());
        };
        process::signal(child.id(), Signal::TERM);
        let status = process::wait(&mut child, STOP_TIMEOUT);
        if status.is_some_and(|status| status.success()) {
            return Ok(());
        }
        let how = match status {
            Some(status) => format!("ended with {status}"),
            None => format!("did not end within {STOP_TIMEOUT:?}"),
        };
        self.child = Some(child);
        Err(format!("the daemon {how} on SIGTERM\n{}", self.log_tail()))
    }

    /// An error with the end of its log if it has ended.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let ended = self.child.as_mut().and_then(|child| child.try_wait().ok()?);
        match ended {
            Some(status) => Err(format!(
                "the daemon ended with {status}; the end of {}:\n{}",
                self.log_file().display(),
                self.log_tail()
            )),
            None => Ok(()),
        }
    }

    /// `None` while it does not answer.
    pub(super) fn status(&self) -> Option<Status> {
        let (_, body) = testkit::daemon::get(&self.port.address(), "/status").ok()?;
        let status: Value = serde_json::from_str(&body).ok()?;
        let own = &status["understudy"];
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        Some(Status {
            phase: own["phase"].as_str()?.into(),
            keys: number(&own["snapshot_keys"]),
            snapshot_bytes: number(&status["reader"]["rdb_received_bytes"]),
            applied_offset: number(&own["applied_offset"]),
            ready: own["ready"] == true,
            lag: Duration::from_secs_f64(own["lag_seconds"].as_f64().unwrap_or(0.0)),
        })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}
