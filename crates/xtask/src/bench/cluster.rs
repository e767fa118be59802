//! What exactly-once costs at a cluster: a stream of SETs through the daemon, by each fence, beside the same SETs straight to the nodes
//! without any position, in turns in one run.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::client::text;
use testkit::process::{kill_group, tail};
use testkit::{Client, Cluster, Engine, Server, argv};

use crate::children;

use super::link::cpu_of;
use super::usage;

const LIMIT: Duration = Duration::from_secs(300);
const PRIMARIES: usize = 3;

/// How the SETs come to the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Straight,
    Through(&'static str),
}

const FORMS: [Form; 3] = [Form::Straight, Form::Through("kill"), Form::Through("lua")];

impl Form {
    fn name(self) -> &'static str {
        match self {
            Self::Straight => "straight to the nodes, no position",
            Self::Through("lua") => "through the daemon, slot_fence = \"lua\"",
            Self::Through(_) => "through the daemon, slot_fence = \"kill\"",
        }
    }
}

/// One run of one form: commands per second, and seconds of CPU per million of them.
#[derive(Debug, Clone, Copy, Default)]
struct Figures {
    rate: f64,
    nodes: f64,
    daemon: f64,
    rss_mb: f64,
}

/// Measures all forms so often, and prints the medians.
pub(super) fn run(
    engine: &Engine,
    binary: &Path,
    runs: usize,
    commands: u64,
) -> Result<(), String> {
    let benchmark = engine
        .program("redis-benchmark")
        .ok_or_else(|| format!("{} has no redis-benchmark", engine.name))?;
    let mut all: Vec<(Form, Vec<Figures>)> = FORMS.iter().map(|form| (*form, Vec::new())).collect();
    for _ in 0..runs {
        for (form, figures) in &mut all {
            let run = match form {
                Form::Straight => straight(engine, &benchmark, commands),
                Form::Through(fence) => through(engine, &benchmark, binary, fence, commands),
            };
            figures.push(run.map_err(|error| format!("{}: {error}", form.name()))?);
        }
    }
    println!(
        "SETs of 64 bytes on a million keys to {PRIMARIES} nodes; medians of {runs}, CPU in seconds per million"
    );
    println!(
        "{:<46} {:>10} {:>10} {:>10} {:>8}",
        "form", "commands/s", "nodes", "daemon", "MB"
    );
    for (form, figures) in &all {
        let median = |of: fn(&Figures) -> f64| {
            let mut values: Vec<f64> = figures.iter().map(of).collect();
            values.sort_by(f64::total_cmp);
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        println!(
            "{:<46} {:>10.0} {:>10.2} {:>10.2} {:>8.0}",
            form.name(),
            median(|one| one.rate),
            median(|one| one.nodes),
            median(|one| one.daemon),
            median(|one| one.rss_mb)
        );
    }
    Ok(())
}

fn cpu_of_nodes(cluster: &Cluster) -> f64 {
    cluster.servers.iter().map(cpu_of).sum()
}

fn start_cluster(engine: &Engine) -> Cluster {
    let cluster = Cluster::start(&engine.name, PRIMARIES, 0);
    for server in &cluster.servers {
        children::goes_with_us(server.folder());
    }
    cluster
}

/// redis-benchmark at one address.
fn load(program: &Path, port: u16, commands: u64, words: &str) -> Result<Child, String> {
    Command::new(program)
        .args([
            "-p",
            &port.to_string(),
            "-t",
            "set",
            "-n",
            &commands.to_string(),
        ])
        .args("-P 64 -c 16 -r 1000000 -d 64 --csv".split(' '))
        .args(words.split_whitespace())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("redis-benchmark: {error}"))
}

fn straight(engine: &Engine, benchmark: &Path, commands: u64) -> Result<Figures, String> {
    let cluster = start_cluster(engine);
    let before = cpu_of_nodes(&cluster);
    let from = Instant::now();
    let mut child = load(benchmark, cluster.servers[0].port(), commands, "--cluster")?;
    let status = child.wait().map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("redis-benchmark ended with {status}"));
    }
    let seconds = from.elapsed().as_secs_f64();
    let million = commands as f64 / 1e6;
    Ok(Figures {
        rate: commands as f64 / seconds,
        nodes: (cpu_of_nodes(&cluster) - before) / million,
        ..Figures::default()
    })
}

fn through(
    engine: &Engine,
    benchmark: &Path,
    binary: &Path,
    fence: &str,
    commands: u64,
) -> Result<Figures, String> {
    let source = Server::start(engine, testkit::ServerOptions::default());
    let cluster = start_cluster(engine);
    let folder = tempfile::TempDir::with_prefix("understudy-bench-")
        .map_err(|error| format!("a folder for the daemon: {error}"))?;
    children::goes_with_us(source.folder());
    children::goes_with_us(folder.path());
    let config = format!(
        "[sync_reader]\naddress = \"{}\"\n[redis_writer]\naddress = \"{}\"\ncluster = true\nslot_fence = \"{fence}\"\n",
        source.address(),
        cluster.address(0)
    );
    let file = folder.path().join("shake.toml");
    std::fs::write(file, config).map_err(|error| format!("shake.toml: {error}"))?;
    let log = folder.path().join("daemon.log");
    let out = File::create(&log).map_err(|error| format!("the daemon's log: {error}"))?;
    let errors = out.try_clone().map_err(|error| error.to_string())?;
    let binary = std::path::absolute(binary).map_err(|error| error.to_string())?;
    let daemon = Command::new(binary)
        .args(["sync", "shake.toml"])
        .current_dir(folder.path())
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(errors)
        .spawn()
        .map_err(|error| format!("the daemon cannot be started: {error}"))?;
    let mut daemon = Daemon(daemon);
    let mut client = source.client();
    let slot = cluster.slot("bench:marker");
    let mut node = Client::connect(&cluster.owner(slot));
    let mut wait = |number: u64, daemon: &mut Daemon| {
        let from = Instant::now();
        loop {
            client.command(&argv!["SET", "bench:marker", number]);
            let seen = text(&node.command(&argv!["GET", "bench:marker"]));
            if seen == number.to_string() {
                return Ok(());
            }
            let ended = daemon.0.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || from.elapsed() > LIMIT {
                return Err(format!("it does not follow:\n{}", tail(&log, 15)));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    };
    wait(1, &mut daemon)?;
    // The snapshot's child and the first heartbeats are no part of it.
    std::thread::sleep(Duration::from_millis(1_500));
    let (before, own) = (cpu_of_nodes(&cluster), usage::of_group(daemon.0.id()));
    let from = Instant::now();
    let mut child = load(benchmark, source.port(), commands, "")?;
    child.wait().map_err(|error| error.to_string())?;
    wait(2, &mut daemon)?;
    let seconds = from.elapsed().as_secs_f64();
    let million = commands as f64 / 1e6;
    let now = usage::of_group(daemon.0.id());
    Ok(Figures {
        rate: commands as f64 / seconds,
        nodes: (cpu_of_nodes(&cluster) - before) / million,
        daemon: (now.cpu - own.cpu) / million,
        rss_mb: now.rss_mb,
    })
}

/// Killed when it is dropped.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        kill_group(self.0.id());
        let _ = self.0.wait();
    }
}
