//! Many links in one process.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::port::Port;
use testkit::process::{kill_group, tail};
use testkit::{Engine, Server, ServerOptions};

use super::super::usage;
use crate::children;

const AT_REST: Duration = Duration::from_secs(10);

/// The process; its group is killed when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        kill_group(self.0.id());
        let _ = self.0.wait();
    }
}

/// One run: so many empty sources, a link from each to one target. Seconds and CPU until all of them follow their streams,
/// cores while nothing happens, memory, threads.
pub(super) fn measure(engine: &Engine, binary: &Path, links: usize) -> Result<Value, String> {
    let target = Server::start(engine, ServerOptions::default());
    let quick = || ServerOptions::args("--repl-diskless-sync-delay 0");
    let sources: Vec<Server> = (0..links).map(|_| Server::start(engine, quick())).collect();
    let folder = tempfile::TempDir::with_prefix("understudy-bench-")
        .map_err(|error| format!("a folder for the daemon: {error}"))?;
    children::goes_with_us(folder.path());
    let port = Port::reserve();
    let mut files = Vec::new();
    for (at, source) in sources.iter().enumerate() {
        let config = format!(
            "[sync_reader]\naddress = \"{}\"\n[redis_writer]\naddress = \"{}\"\n[link]\nname = \"l{at}\"\n[advanced]\nstatus_port = {}\n",
            source.address(),
            target.address(),
            port.number(),
        );
        let file = format!("{at}.toml");
        std::fs::write(folder.path().join(&file), config)
            .map_err(|error| format!("{file}: {error}"))?;
        files.push(file);
    }
    let binary = std::path::absolute(binary).map_err(|error| error.to_string())?;
    let log = folder.path().join("tool.log");
    let open = || File::create(&log).map_err(|error| format!("the daemon's log: {error}"));
    let mut command = Command::new(binary);
    command.arg("sync").args(&files).current_dir(folder.path());
    command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(open()?)
        .stderr(open()?);
    let from = Instant::now();
    let child = command.spawn().map_err(|error| error.to_string())?;
    let running = Running(child);
    let ready = format!("http://{}/readyz", port.address());
    while testkit::daemon::get(&port.address(), "/readyz").map_or(true, |(code, _)| code != 200) {
        if from.elapsed() > Duration::from_secs(120) {
            let log = tail(&log, 15);
            return Err(format!("{ready} does not say yes:\n{log}"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let seconds = from.elapsed().as_secs_f64();
    let begun = usage::of_group(running.0.id());
    std::thread::sleep(AT_REST);
    let rested = usage::of_group(running.0.id());
    let threads = std::fs::read_dir(format!("/proc/{}/task", running.0.id()));
    Ok(json!({
        "seconds": seconds,
        "tool_cpu": begun.cpu,
        "cores_at_rest": (rested.cpu - begun.cpu) / AT_REST.as_secs_f64(),
        "tool_rss_mb": rested.rss_mb,
        "threads": threads.map_or(0, Iterator::count),
    }))
}
