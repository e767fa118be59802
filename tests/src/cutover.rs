//! `understudy cutover` beside a running daemon, and what can be seen of it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::process::{Signal, signal, wait_until};
use testkit::{Client, Daemon, Server, argv, daemon};

use crate::{LIMIT, Link};

/// A link whose daemon takes orders.
pub fn link(source: &Server, target: &Server) -> Link {
    Link::new(source, target)
        .with("advanced", "admin_token = \"hush\"")
        .with("cutover", "watch_clients = \"1s\"")
}

/// A run of `understudy cutover shake.toml` in the daemon's folder.
pub struct Cutover {
    /// The process.
    pub child: Child,
    folder: std::path::PathBuf,
}

/// How it ended.
pub struct Done {
    /// Its exit code.
    pub code: i32,
    /// One a step.
    pub steps: Vec<Value>,
    /// What it has said on standard error.
    pub errors: String,
}

impl Cutover {
    /// Starts it beside this daemon.
    pub fn start(daemon: &Daemon, args: &[&str]) -> Self {
        let folder = daemon.folder().to_owned();
        let file = |name: &str| fs::File::create(folder.join(name)).expect("an output file");
        let child = Command::new(daemon::binary())
            .args(["cutover", "shake.toml", "--json"])
            .args(args)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(file("cutover.out"))
            .stderr(file("cutover.err"))
            .spawn()
            .expect("start the binary");
        Self { child, folder }
    }

    /// What it has told so far.
    pub fn steps(&self) -> Vec<Value> {
        steps_in(&self.folder)
    }

    /// Waits until it has told of a step.
    pub fn wait_step(&self, name: &str) {
        wait_until(&format!("the step {name}"), LIMIT, || {
            self.steps().iter().any(|step| step["step"] == name)
        });
    }

    /// As [`Self::wait_step`]; it goes in small steps and stands still at the end. What comes next takes milliseconds.
    pub fn stop_at(&self, name: &str) {
        self.stop_when(name, |step| step["step"] == name);
    }

    /// The same for any step.
    pub fn stop_when(&self, name: &str, is_it: impl Fn(&Value) -> bool) {
        let until = Instant::now() + LIMIT;
        while !self.steps().iter().any(&is_it) {
            let told = self.steps();
            assert!(Instant::now() < until, "no step {name}: {told:#?}");
            signal(self.child.id(), Signal::CONT);
            std::thread::sleep(Duration::from_micros(200));
            signal(self.child.id(), Signal::STOP);
        }
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        signal(self.child.id(), Signal::CONT);
    }

    /// Kills it.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Waits until it ends.
    pub fn wait(mut self) -> Done {
        let status = testkit::process::wait(&mut self.child, LIMIT);
        let errors = fs::read_to_string(self.folder.join("cutover.err")).unwrap_or_default();
        let Some(status) = status else {
            // It is ours, and it is in the way.
            let _ = self.child.kill();
            panic!("it does not end: {:?}\n{errors}", self.steps());
        };
        Done {
            code: status.code().unwrap_or(-1),
            steps: self.steps(),
            errors,
        }
    }
}

fn steps_in(folder: &Path) -> Vec<Value> {
    let text = fs::read_to_string(folder.join("cutover.out")).unwrap_or_default();
    let whole = text.lines();
    whole
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect()
}

/// Runs it to its end.
pub fn cutover(daemon: &Daemon, args: &[&str]) -> Done {
    Cutover::start(daemon, args).wait()
}

impl Done {
    /// The last step of this name.
    pub fn step(&self, name: &str) -> &Value {
        let found = self.steps.iter().rev().find(|step| step["step"] == name);
        found.unwrap_or_else(|| panic!("no step {name}: {self}"))
    }

    /// Whether there was a step of this name.
    pub fn has(&self, name: &str) -> bool {
        self.steps.iter().any(|step| step["step"] == name)
    }

    /// It went well.
    pub fn assert_ok(self) -> Self {
        assert_eq!(self.code, 0, "{self}");
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "code {}", self.code)?;
        for step in &self.steps {
            writeln!(f, "{} {} {}", step["step"], step["ok"], step["text"])?;
        }
        write!(f, "{}", self.errors)
    }
}

/// The object `cutover` of the status.
pub fn shown(daemon: &Daemon) -> Value {
    daemon.status().unwrap_or_default()["understudy"]["cutover"].clone()
}

/// Keys of ours at a server, in all databases.
pub fn our_keys(server: &Server) -> Vec<String> {
    let mut client = server.client();
    let mut found = Vec::new();
    for db in client.keyspace().into_keys().collect::<Vec<u32>>() {
        client.select(db);
        let keys = client.keys().into_iter();
        found.extend(keys.map(|key| String::from_utf8_lossy(&key).into_owned()));
    }
    found.retain(|key| key.contains("understudy"));
    found
}

/// Whether the default user may write there, now.
pub fn may_write(server: &Server) -> bool {
    let mut client = server.client();
    client
        .raw()
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("set a limit");
    client
        .try_command(&argv!["SET", "probe", 1])
        .is_ok_and(|_| client.try_command(&argv!["DEL", "probe"]).is_ok())
}

/// Writes one after the other until one is not acknowledged; how many were.
pub fn count_until_refused(address: String) -> std::thread::JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut client = Client::connect(&address);
        client.command(&argv!["CLIENT", "SETNAME", "writer"]);
        let mut acknowledged = 0;
        while client.try_command(&argv!["INCR", "app:count"]).is_ok() {
            acknowledged += 1;
        }
        acknowledged
    })
}

/// The way back, as a daemon in a folder of its own that has the same file.
pub fn way_back(daemon: &Daemon) -> Daemon {
    let text = fs::read_to_string(daemon.folder().join("shake.toml")).expect("the file");
    let port = format!("status_port = {}", daemon.status_port());
    // Its port is one more than that of the link.
    let text = text.replace(&port, "status_port = @BACK@");
    let back = Daemon::prepare(&text, &["reverse", "--start", "shake.toml"]);
    let number = back.status_port() - 1;
    back.configure(&text.replace("@BACK@", &number.to_string()));
    back
}
