//! A tool between two servers, and how it is told that it streams.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::client::{items, text};
use testkit::process::kill_group;
use testkit::{Client, Engine, Server, ServerOptions, argv};

use crate::children;

use super::tls::{self, Certificate};
use super::usage::{self, Foreign, Usage};

/// A tool that does not stream after this much is given up.
const START_LIMIT: Duration = Duration::from_secs(600);

/// What is measured.
pub(super) enum Tool {
    /// This daemon.
    Understudy {
        binary: PathBuf,
        /// Both connections are encrypted.
        tls: Option<Certificate>,
    },
    /// REPLICAOF: the reference.
    Native,
    /// Somebody else's tool, by its adapter.
    Peer { adapter: PathBuf, keys: String },
}

impl Tool {
    /// The one that the environment names.
    pub(super) fn peer() -> Option<Self> {
        let adapter = std::env::var_os("PEER")?.into();
        let keys = std::env::var("PEER_KEYS").unwrap_or_default();
        Some(Self::Peer { adapter, keys })
    }

    pub(super) fn name(&self) -> String {
        match self {
            Self::Understudy { tls: None, .. } => "understudy".into(),
            Self::Understudy { tls: Some(_), .. } => "understudy-tls".into(),
            Self::Native => "native".into(),
            Self::Peer { adapter, .. } => {
                let name = adapter.file_stem().unwrap_or(adapter.as_os_str());
                name.to_string_lossy().into_owned()
            }
        }
    }

    /// How the servers at both its ends are started.
    pub(super) fn servers(&self) -> ServerOptions {
        match self {
            Self::Understudy {
                tls: Some(certificate),
                ..
            } => certificate.servers(),
            _ => ServerOptions::default(),
        }
    }

    /// The keys that it keeps at the target.
    fn own_keys(&self) -> &str {
        match self {
            Self::Understudy { .. } => "*understudy*",
            Self::Native => "",
            Self::Peer { keys, .. } => keys,
        }
    }
}

/// A tool at work between a source and a fresh target.
pub(super) struct Link<'a> {
    tool: &'a Tool,
    pub(super) source: &'a Server,
    pub(super) target: Server,
    child: Option<Child>,
    folder: tempfile::TempDir,
    pub(super) from: Instant,
    before: Used,
    foreign: Foreign,
}

/// CPU seconds of everybody so far.
#[derive(Default, Clone, Copy)]
struct Used {
    tool: Usage,
    source: f64,
    target: f64,
}

impl<'a> Link<'a> {
    /// Starts the tool.
    pub(super) fn start(
        tool: &'a Tool,
        source: &'a Server,
        engine: &Engine,
    ) -> Result<Self, String> {
        let target = Server::start(engine, tool.servers());
        let folder = tempfile::TempDir::with_prefix("understudy-bench-")
            .map_err(|error| format!("a folder for the tool: {error}"))?;
        for folder in [source.folder(), target.folder(), folder.path()] {
            children::goes_with_us(folder);
        }
        let before = Used {
            tool: Usage::default(),
            source: cpu_of(source),
            target: cpu_of(&target),
        };
        let mut link = Self {
            tool,
            source,
            target,
            child: None,
            folder,
            from: Instant::now(),
            before,
            foreign: Foreign::begin(),
        };
        link.launch()?;
        Ok(link)
    }

    /// Starts the tool at a source with one key, and waits until it follows the stream.
    pub(super) fn follow(
        tool: &'a Tool,
        source: &'a Server,
        engine: &Engine,
    ) -> Result<(Self, Marker), String> {
        let mut client = source.client();
        client.command(&argv!["SET", "seed", "1"]);
        let forks = client.info_number("stats", "total_forks");
        let mut link = Self::start(tool, source, engine)?;
        let mut marker = Marker::new(source, &link.target);
        link.wait_streaming(&mut marker, forks)?;
        Ok((link, marker))
    }

    fn launch(&mut self) -> Result<(), String> {
        let (source, target) = (self.source.address(), self.target.address());
        let mut command = match self.tool {
            Tool::Native => {
                let (host, port) = source.split_once(':').unwrap_or_default();
                self.target.client().command(&argv!["SLAVEOF", host, port]);
                return Ok(());
            }
            Tool::Understudy { binary, tls } => {
                let end = |server: &Server| match tls {
                    None => format!("address = \"{}\"\n", server.address()),
                    Some(_) => tls::end(server),
                };
                let config = format!(
                    "[sync_reader]\n{}[redis_writer]\n{}",
                    end(self.source),
                    end(&self.target)
                );
                std::fs::write(self.folder.path().join("shake.toml"), config)
                    .map_err(|error| format!("shake.toml: {error}"))?;
                let binary = std::path::absolute(binary).map_err(|error| error.to_string())?;
                let mut command = Command::new(binary);
                command.args(["sync", "shake.toml"]);
                command
            }
            Tool::Peer { adapter, .. } => {
                let adapter = std::path::absolute(adapter).map_err(|error| error.to_string())?;
                let mut command = Command::new(adapter);
                command.args([&source, &target]).arg(self.folder.path());
                command
            }
        };
        let log = File::create(self.log()).map_err(|error| format!("the tool's log: {error}"))?;
        let errors = log.try_clone().map_err(|error| error.to_string())?;
        command
            .current_dir(self.folder.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors);
        let child = command
            .spawn()
            .map_err(|error| format!("{} cannot be started: {error}", self.tool.name()))?;
        self.child = Some(child);
        Ok(())
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("tool.log")
    }

    /// An error if the tool has ended.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let ended = match &mut self.child {
            Some(child) => child.try_wait().map_err(|error| error.to_string())?,
            None => None,
        };
        match ended {
            None => Ok(()),
            Some(status) => Err(format!(
                "it ended with {status}:\n{}",
                testkit::process::tail(&self.log(), 15)
            )),
        }
    }

    /// Waits until a write that is not part of the snapshot has come to the target; `forks` is what the source's INFO
    /// said before the start.
    pub(super) fn wait_streaming(&mut self, marker: &mut Marker, forks: i64) -> Result<(), String> {
        let mut source = self.source.client();
        let mut first = None;
        loop {
            if first.is_none() && source.info_number("stats", "total_forks") > forks {
                first = Some(marker.number + 1);
            }
            marker.put();
            let seen = marker.seen();
            if first.is_some_and(|first| seen >= first) {
                return Ok(());
            }
            self.check()?;
            if self.from.elapsed() > START_LIMIT {
                return Err(format!("it does not stream after {START_LIMIT:?}"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Counts CPU from now on.
    pub(super) fn begin_counting(&mut self) {
        self.before = self.used();
        self.foreign = Foreign::begin();
    }

    fn used(&self) -> Used {
        Used {
            tool: self
                .child
                .as_ref()
                .map_or_else(Usage::default, |child| usage::of_group(child.id())),
            source: cpu_of(self.source),
            target: cpu_of(&self.target),
        }
    }

    /// What everybody has used since, per `million` of something if it is not 1.
    pub(super) fn costs(&self, million: f64) -> serde_json::Value {
        let foreign = self.foreign.share();
        let (now, before) = (self.used(), &self.before);
        json!({
            "tool_cpu": (now.tool.cpu - before.tool.cpu) / million,
            "source_cpu": (now.source - before.source) / million,
            "target_cpu": (now.target - before.target) / million,
            "tool_rss_mb": now.tool.rss_mb,
            "tool_written_mb": now.tool.written_mb - before.tool.written_mb,
            "foreign": foreign,
        })
    }

    /// Ends the tool, and compares both servers by their digest.
    pub(super) fn end_equal(mut self) -> Result<(), String> {
        // What was on its way when the last marker came is there soon after.
        std::thread::sleep(Duration::from_millis(600));
        self.kill();
        let mut target = self.target.client();
        if !self.tool.own_keys().is_empty() {
            for key in items(target.command(&argv!["KEYS", self.tool.own_keys()])) {
                target.command(&argv!["DEL", testkit::client::bytes(key)]);
            }
        }
        let digest = |server: &Server| text(&server.client().command(&argv!["DEBUG", "DIGEST"]));
        let (source, target) = (digest(self.source), digest(&self.target));
        if source == target {
            Ok(())
        } else {
            Err(format!(
                "the target differs from the source: {target}, {source}"
            ))
        }
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_group(child.id());
            let _ = child.wait();
        }
    }
}

impl Drop for Link<'_> {
    fn drop(&mut self) {
        self.kill();
        // The next one begins when the source has noticed.
        let mut source = self.source.client();
        let from = Instant::now();
        self.target.kill();
        while from.elapsed() < Duration::from_secs(30)
            && (source.info_number("replication", "connected_slaves") > 0
                || source.info_number("persistence", "rdb_bgsave_in_progress") > 0)
        {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

pub(super) fn cpu_of(server: &Server) -> f64 {
    let info = server.client().info("cpu");
    let names = [
        "used_cpu_user",
        "used_cpu_sys",
        "used_cpu_user_children",
        "used_cpu_sys_children",
    ];
    names
        .iter()
        .filter_map(|name| info.get(*name)?.parse::<f64>().ok())
        .sum()
}

/// A key whose value grows: what it is at the target says which writes have come there.
pub(super) struct Marker {
    source: Client,
    target: Client,
    pub(super) number: u64,
    put_at: HashMap<u64, Instant>,
}

impl Marker {
    pub(super) fn new(source: &Server, target: &Server) -> Self {
        Self {
            source: source.client(),
            target: target.client(),
            number: 0,
            put_at: HashMap::new(),
        }
    }

    /// Writes the next number at the source.
    pub(super) fn put(&mut self) -> u64 {
        self.number += 1;
        self.source
            .command(&argv!["SET", "bench:marker", self.number]);
        self.put_at.insert(self.number, Instant::now());
        self.number
    }

    /// The number at the target; 0 while it cannot be read.
    pub(super) fn seen(&mut self) -> u64 {
        let value = self.target.try_command(&argv!["GET", "bench:marker"]);
        value
            .ok()
            .and_then(|value| text(&value).parse().ok())
            .unwrap_or(0)
    }

    /// Age of the oldest number that is not at the target, which shows `seen`.
    pub(super) fn lag(&self, seen: u64) -> Duration {
        self.put_at
            .get(&(seen + 1))
            .map_or(Duration::ZERO, Instant::elapsed)
    }
}
