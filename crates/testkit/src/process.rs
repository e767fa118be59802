//! Signals, waiting and logs of the processes that tests start.

use std::fs::File;
use std::path::Path;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

pub use rustix::process::Signal;

/// Sends a signal to a process that we started.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    let sent = rustix::process::kill_process(pid.expect("a process id"), signal);
    sent.expect("signal a process of our own");
}

/// A terminal: who sits at it, and what a process has for its standard input and outputs.
pub fn terminal() -> (File, File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let person = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&person).expect("a terminal of ours");
    unlockpt(&person).expect("a terminal that opens");
    let name = ptsname(&person, Vec::new()).expect("its name");
    let name = name.to_str().expect("a path").to_owned();
    let process = File::options().read(true).write(true).open(name);
    (File::from(person), process.expect("its other side"))
}

/// No file of this process may grow beyond `bytes` from now on (`None`: as far as it likes): what a full disk is to a
/// writer. A write beyond it fails, in the midst of it if need be; see [`crate::Daemon::endure_full_disks`].
pub fn limit_files(pid: u32, bytes: Option<u64>) {
    use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let maximum = getrlimit(Resource::Fsize).maximum;
    let current = bytes.or(maximum);
    let limited = prlimit(pid, Resource::Fsize, Rlimit { current, maximum });
    limited.expect("limit a process of our own");
}

/// The most memory that a process has had so far, in bytes; 0 when it is gone.
pub fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// SIGKILL to a process group that we started; none may be left.
pub fn kill_group(leader: u32) {
    let leader = i32::try_from(leader)
        .ok()
        .and_then(rustix::process::Pid::from_raw);
    // It may be gone already, which is as good.
    let _ = rustix::process::kill_process_group(leader.expect("a process id"), Signal::KILL);
}

/// The exit status, or `None` if the process still runs after `limit`.
pub fn wait(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let from = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("wait for a process of our own") {
            return Some(status);
        }
        if from.elapsed() > limit {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Tries `done` until it is true; panics with `what` after `limit`.
pub fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) {
    let from = Instant::now();
    while !done() {
        assert!(from.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The last lines of a file.
pub fn tail(file: &Path, lines_max: usize) -> String {
    let text = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(lines_max)..].join("\n")
}
