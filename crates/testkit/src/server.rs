//! A real server in a process of its own, on a port of its own, in a folder of its own.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::client::{Client, Error};
use crate::engines::Engine;
use crate::port::Port;
use crate::process::{self, Signal};

/// How long a server may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of the log a panic shows.
const LOG_LINES: usize = 40;

/// How to start it.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Words for the command line, after those that the testkit gives (and stronger than they are).
    pub args: Vec<String>,
    /// Environment variables, on top of ours.
    pub env: Vec<(String, String)>,
}

impl ServerOptions {
    /// With these words, split at spaces: `"--appendonly yes"`.
    pub fn args(words: &str) -> Self {
        Self {
            args: words.split_whitespace().map(String::from).collect(),
            env: Vec::new(),
        }
    }
}

/// A running (or stopped) server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    engine: Engine,
    options: ServerOptions,
    port: Port,
    folder: TempDir,
    child: Option<Child>,
}

impl Server {
    /// Starts and waits until it answers.
    pub fn start(engine: &Engine, options: ServerOptions) -> Self {
        let folder = TempDir::with_prefix("understudy-server-").expect("make the server's folder");
        let mut server = Self {
            engine: engine.clone(),
            options,
            port: Port::reserve(),
            folder,
            child: None,
        };
        server.spawn();
        server.wait_until_up();
        server
    }

    /// The small set's engine of this name, with nothing special.
    pub fn of(name: &str) -> Self {
        Self::start(&Engine::of(name), ServerOptions::default())
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The engine it runs.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where it keeps its files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The snapshot that SAVE writes.
    pub fn rdb_file(&self) -> PathBuf {
        self.folder().join("dump.rdb")
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        match Client::try_connect(&self.address()) {
            Ok(client) => client,
            Err(error) => panic!("{}: {error}\n{}", self.engine.name, self.log_tail()),
        }
    }

    /// Whether it is there and answers.
    pub fn answers(&self) -> bool {
        is_up(&self.address())
    }

    /// The process id; there is none after `kill`.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the server runs").id()
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self) -> ExitStatus {
        process::signal(self.pid(), Signal::TERM);
        let mut child = self.child.take().expect("the server runs");
        process::wait(&mut child, START_TIMEOUT).unwrap_or_else(|| {
            let _ = child.kill();
            let _ = child.wait();
            panic!(
                "{} does not end on SIGTERM\n{}",
                self.engine.name,
                self.log_tail()
            )
        })
    }

    /// SIGSTOP: the process hangs, its connections stay.
    pub fn stop(&self) {
        process::signal(self.pid(), Signal::STOP);
    }

    /// SIGCONT, after `stop`.
    pub fn cont(&self) {
        process::signal(self.pid(), Signal::CONT);
    }

    /// Kills it if it runs, and starts it on the same port and folder: what it saved is there again.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
        self.wait_until_up();
    }

    /// `restart` with other options from now on.
    pub fn restart_with(&mut self, options: ServerOptions) {
        self.options = options;
        self.restart();
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        process::tail(&self.log_file(), LOG_LINES)
    }

    fn log_file(&self) -> PathBuf {
        self.folder().join("server.log")
    }

    fn spawn(&mut self) {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_file());
        let log = log.expect("open the server's log");
        let errors = log.try_clone().expect("share the server's log");
        let mut command = Command::new(self.engine.server());
        command.args(self.base_args()).args(&self.options.args);
        let env = self.options.env.iter();
        command.envs(env.map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        match command.spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => panic!("{}: {error}", self.engine.server().display()),
        }
    }

    fn base_args(&self) -> Vec<String> {
        let mut args = vec!["--port".to_owned(), self.port().to_string()];
        let mut add = |name: &str, value: &str| args.extend([name.into(), value.into()]);
        add("--bind", "127.0.0.1");
        add("--dir", &self.folder().to_string_lossy());
        add("--save", "");
        add("--daemonize", "no");
        let version = &self.engine.version;
        if version.redis(3, 0) {
            add("--repl-diskless-sync-delay", "0");
        }
        if version.redis(7, 0) {
            add("--enable-debug-command", "yes");
            add("--enable-module-command", "yes");
        }
        args
    }

    fn wait_until_up(&mut self) {
        let from = Instant::now();
        loop {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok()?) {
                panic!(
                    "{} ended with {status}\n{}",
                    self.engine.name,
                    self.log_tail()
                );
            }
            if is_up(&self.address()) {
                return;
            }
            if from.elapsed() > START_TIMEOUT {
                panic!("{} does not answer\n{}", self.engine.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- log of {} on {}\n{}",
                self.engine.name,
                self.port(),
                self.log_tail()
            );
        }
        self.kill();
    }
}

/// PONG, or an answer that wants a password: only a server that is loading is not up.
fn is_up(address: &str) -> bool {
    let Ok(mut client) = Client::try_connect(address) else {
        return false;
    };
    match client.try_command(&crate::argv!["PING"]) {
        Ok(_) => true,
        Err(Error::Reply(text)) => !text.starts_with("LOADING"),
        Err(Error::Connection(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::argv;
    use crate::client::text;

    #[test]
    fn keeps_what_it_saved_over_a_restart() {
        let mut server = Server::of("redis-7.0");
        let mut client = server.client();
        client.command(&argv!["SET", "a", "1"]);
        client.command(&argv!["SAVE"]);
        server.restart();
        assert_eq!(text(&server.client().command(&argv!["GET", "a"])), "1");
        assert!(server.terminate().success());
    }

    #[test]
    fn every_engine_of_the_small_set_starts_and_is_what_it_says() {
        for name in crate::engines::SMALL_SET {
            let server = Server::of(name);
            assert_eq!(server.client().version(), server.engine().version, "{name}");
            server.client().command(&argv!["DEBUG", "SLEEP", "0"]);
        }
    }

    #[test]
    fn a_stopped_server_hangs_until_it_is_continued() {
        let server = Server::of("redis-7.0");
        let mut client = server.client();
        server.stop();
        client
            .raw()
            .set_read_timeout(Some(Duration::from_millis(100)))
            .expect("set a limit");
        assert!(matches!(
            client.try_command(&argv!["PING"]),
            Err(Error::Connection(_))
        ));
        server.cont();
        assert_eq!(text(&server.client().command(&argv!["PING"])), "PONG");
    }
}
