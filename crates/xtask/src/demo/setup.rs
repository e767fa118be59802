//! Before the show: servers, binary, data.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use testkit::{Engine, Server, ServerOptions};

use super::Demo;
use super::daemon::Daemon;
use super::load::{Load, fill_source};
use super::options::Options;
use super::screen::Screen;
use super::target::{PASSWORD_VARIABLE, Target, USER};
use crate::children;
use crate::text::{bytes, count, seconds};

/// Enough for what the applications write while nobody replicates; Redis's own 1 MB is a fifth of a second here.
const SOURCE_ARGS: &str = "--repl-backlog-size 64mb";

impl Demo {
    /// Fetches, builds, starts and fills.
    pub(super) fn set_up(options: Options, folder: PathBuf) -> Result<Self, String> {
        let screen = Screen::new();
        screen.step("Real servers, brought without installing anything");
        let mut engines = vec![options.source.clone()];
        if options.target != options.source {
            engines.push(options.target.clone());
        }
        crate::engines::run(&engines)?;
        screen.step("understudy, built for release");
        let binary = build()?;
        screen.good(&binary.display().to_string());

        let from = Instant::now();
        screen.step("A source under load, and a target that allows no replication");
        let source_engine = Engine::find(&options.source)?;
        let source = Server::start(&source_engine, source_options(&source_engine));
        children::goes_with_us(source.folder());
        let target = Target::start(&Engine::find(&options.target)?)?;
        children::goes_with_us(target.server.folder());
        let env = vec![(PASSWORD_VARIABLE.to_owned(), target.password.clone())];
        let daemon = Daemon::new(binary, &folder, env);
        let demo = Self {
            options,
            screen,
            folder,
            from,
            source,
            target,
            daemon,
        };
        demo.daemon.configure(&demo.config())?;
        demo.fill();
        Ok(demo)
    }

    fn fill(&self) {
        let from = Instant::now();
        let (screen, source) = (&self.screen, &self.source);
        fill_source(source, self.options.keys, screen);
        let mut client = source.client();
        let keyspace = client.keyspace();
        let memory = u64::try_from(client.info_number("memory", "used_memory")).unwrap_or(0);
        screen.fact(
            "source",
            &format!("{} at {}", source.engine().version, source.address()),
        );
        screen.more(&format!(
            "{} keys in {} databases, {} in memory, filled in {}",
            count(keyspace.values().sum()),
            keyspace.len(),
            bytes(memory),
            seconds(from.elapsed())
        ));
    }

    /// Shows what the target is, and that it refuses; hands back how many commands.
    pub(super) fn show_target(&self) -> Result<usize, String> {
        let server = &self.target.server;
        let what = format!("{} at {}", server.engine().version, server.address());
        self.screen.fact("target", &what);
        let shown = |command: &str, answer: &str| {
            self.screen.quote(&format!("> {command}"));
            self.screen
                .quote(&answer.chars().take(90).collect::<String>());
        };
        shown("PING", &self.target.without_password()?);
        let refused = self.target.try_refused()?;
        for (command, why) in refused.iter().filter(|(command, _)| is_shown(command)) {
            shown(command, why);
        }
        let names: Vec<String> = refused.iter().map(|(name, _)| name_of(name)).collect();
        self.screen.good(&format!(
            "refuses {} commands, each tried just now:",
            names.len()
        ));
        for line in names.chunks(6) {
            self.screen.quote(&line.join(", "));
        }
        Ok(refused.len())
    }

    /// Starts the applications.
    pub(super) fn start_load(&self) -> Load {
        Load::start(&self.source.address())
    }

    /// The shake.toml.
    fn config(&self) -> String {
        format!(
            r#"[sync_reader]
address = "{source}"

[redis_writer]
address = "{target}"
username = "{USER}"
password = "${{{PASSWORD_VARIABLE}}}"

[advanced]
status_port = {port}
"#,
            source = self.source.address(),
            target = self.target.server.address(),
            port = self.daemon.status_port(),
        )
    }

    /// Prints the command and its shake.toml.
    pub(super) fn show_config(&self) {
        self.screen.fact("runs", "understudy sync shake.toml");
        self.screen.quote(&self.config());
    }
}

fn source_options(engine: &Engine) -> ServerOptions {
    let mut options = ServerOptions::args(SOURCE_ARGS);
    if engine.version.redis(4, 0) {
        // One half of the applications would swap the other half's database away under its counters.
        let gone = ["--rename-command", "SWAPDB", ""];
        options.args.extend(gone.map(String::from));
    }
    options
}

fn is_shown(command: &str) -> bool {
    ["REPLICAOF", "CONFIG", "ACL SETUSER"]
        .iter()
        .any(|name| command.starts_with(name))
}

/// The command without its arguments; of ACL and CLUSTER the part too.
fn name_of(command: &str) -> String {
    let words = if command.starts_with("ACL") || command.starts_with("CLUSTER") {
        2
    } else {
        1
    };
    command.split(' ').take(words).collect::<Vec<_>>().join(" ")
}

/// Builds the binary, cargo's own words shown, and says where it is.
pub(crate) fn build() -> Result<PathBuf, String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--package", "understudy"]);
    command.arg("--message-format=json-render-diagnostics");
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.map_err(|error| format!("cargo cannot be started: {error}"))?;
    let messages = child.stdout.take().ok_or("cargo's output is not there")?;
    let mut binary = None;
    for line in BufReader::new(messages).lines().map_while(Result::ok) {
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        if message["target"]["name"] == "understudy"
            && let Some(file) = message["executable"].as_str()
        {
            binary = Some(PathBuf::from(file));
        }
    }
    let status = child.wait().map_err(|error| format!("cargo: {error}"))?;
    if !status.success() {
        return Err(format!("cargo build ended with {status}"));
    }
    binary.ok_or_else(|| "cargo named no understudy binary".into())
}
