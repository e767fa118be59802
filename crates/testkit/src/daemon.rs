//! The built `understudy` binary as a process: started on a shake.toml, killed, asked over HTTP.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::port::Port;
use crate::process::{self, Signal};

/// In a shake.toml, stands for the port that the daemon is to serve its status on.
pub const STATUS_PORT: &str = "@STATUS_PORT@";

/// A daemon on a folder of its own; killed when dropped.
#[derive(Debug)]
pub struct Daemon {
    binary: Option<PathBuf>,
    ignores_xfsz: bool,
    disk_kib: Option<u64>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    folder: TempDir,
    status_port: Port,
    child: Option<Child>,
}

impl Daemon {
    /// Starts `understudy sync shake.toml` on this text (see [`STATUS_PORT`]).
    pub fn start(config: &str) -> Self {
        let mut daemon = Self::prepare(config, &["sync", "shake.toml"]);
        daemon.spawn();
        daemon
    }

    /// Lays out the folder only; `args` are for `spawn`.
    pub fn prepare(config: &str, args: &[&str]) -> Self {
        let folder = TempDir::with_prefix("understudy-daemon-").expect("make the daemon's folder");
        let daemon = Self {
            binary: None,
            ignores_xfsz: false,
            disk_kib: None,
            args: args.iter().map(|arg| (*arg).into()).collect(),
            env: Vec::new(),
            folder,
            status_port: Port::reserve(),
            child: None,
        };
        daemon.configure(config);
        daemon
    }

    /// A variable for its environment, from the next `spawn` on.
    pub fn env(&mut self, name: &str, value: &str) {
        self.env.push((name.into(), value.into()));
    }

    /// Runs this binary instead of [`binary`], from the next `spawn` on.
    pub fn use_binary(&mut self, binary: &Path) {
        self.binary = Some(binary.into());
    }

    /// From the next `spawn` on a write beyond [`process::limit_files`] is an error, and no signal.
    pub fn endure_full_disks(&mut self) {
        self.ignores_xfsz = true;
    }

    /// From the next `spawn` on its spool is on a disk of its own with so much room, half of which [`Self::make_room`]
    /// gives: a tmpfs in a mount namespace of the daemon's. False where this machine does not allow that.
    pub fn on_small_disk(&mut self, kib: u64) -> bool {
        let try_it = "mount -t tmpfs -o size=64k tmpfs /mnt";
        let mut command = Command::new("unshare");
        command.args(["-r", "-m", "sh", "-c", try_it]);
        let tried = command.stderr(Stdio::null()).status();
        let allowed = tried.is_ok_and(|status| status.success());
        self.disk_kib = Some(kib).filter(|_| allowed);
        allowed
    }

    /// Removes what fills half of the small disk.
    pub fn make_room(&self) {
        let spool = self.folder.path().join("data/spool/ballast");
        let spool = spool.strip_prefix("/").expect("a path from the root");
        let seen_by_it = Path::new("/proc").join(self.pid().to_string()).join("root");
        fs::remove_file(seen_by_it.join(spool)).expect("remove the ballast");
    }

    /// Writes another shake.toml, for the next `spawn`.
    pub fn configure(&self, config: &str) {
        let text = config.replace(STATUS_PORT, &self.status_port.number().to_string());
        fs::write(self.folder.path().join("shake.toml"), text).expect("write shake.toml");
    }

    /// Starts the process (again); everything it kept in its folder is still there.
    pub fn spawn(&mut self) {
        assert!(self.child.is_none(), "the daemon runs already");
        let output = File::options()
            .create(true)
            .append(true)
            .open(self.output_file());
        let output = output.expect("open the daemon's output");
        let errors = output.try_clone().expect("share the daemon's output");
        let binary = self.binary.clone().unwrap_or_else(binary);
        let mut command = if let Some(kib) = self.disk_kib {
            let script = format!(
                "mkdir -p data/spool && mount -t tmpfs -o size={kib}k tmpfs data/spool && head -c {}k /dev/zero > data/spool/ballast && exec \"$@\"",
                kib / 2
            );
            let mut unshare = Command::new("unshare");
            unshare.args(["-r", "-m", "sh", "-c", &script, "sh"]);
            unshare.arg(&binary);
            unshare
        } else if self.ignores_xfsz {
            let mut shell = Command::new("sh");
            shell.args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"]);
            shell.arg(&binary);
            shell
        } else {
            Command::new(&binary)
        };
        command.args(&self.args).current_dir(self.folder.path());
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        match command.spawn() {
            Ok(child) => self.child = Some(child),
            Err(error) => panic!("{}: {error}", binary.display()),
        }
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may be gone already, which is as good.
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `kill` and `spawn`.
    pub fn restart(&mut self) {
        self.kill();
        self.spawn();
    }

    /// SIGTERM.
    pub fn terminate(&self) {
        process::signal(self.pid(), Signal::TERM);
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("the daemon runs").id()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        self.child
            .as_mut()
            .is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// The exit code once it has ended; panics with its output after `limit`, or if a signal ended it.
    pub fn wait(&mut self, limit: Duration) -> i32 {
        let mut child = self.child.take().expect("the daemon runs");
        let Some(status) = process::wait(&mut child, limit) else {
            self.child = Some(child);
            panic!(
                "the daemon does not end within {limit:?}\n{}",
                self.output()
            );
        };
        status
            .code()
            .unwrap_or_else(|| panic!("the daemon ended with {status}\n{}", self.output()))
    }

    /// Everything it has printed, over all its starts.
    pub fn output(&self) -> String {
        let bytes = fs::read(self.output_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until it has printed `text`.
    pub fn wait_for_output(&mut self, text: &str, limit: Duration) {
        self.wait_for(&format!("output {text:?}"), limit, |daemon| {
            daemon.output().contains(text)
        });
    }

    /// Waits until `done`; panics with the output after `limit` or when the daemon has ended.
    pub fn wait_for(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&Self) -> bool) {
        let from = std::time::Instant::now();
        while !done(self) {
            let runs = self.is_running();
            if !runs && done(self) {
                return;
            }
            if !runs || from.elapsed() > limit {
                let why = if runs {
                    "in vain"
                } else {
                    "but the daemon has ended"
                };
                panic!(
                    "waited {:?} for {what}, {why}\n{}",
                    from.elapsed(),
                    self.output()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its folder, where shake.toml and its data are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The port that `@STATUS_PORT@` stands for.
    pub fn status_port(&self) -> u16 {
        self.status_port.number()
    }

    /// Status code and body of a GET; `None` while nobody answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        get(&self.status_port.address(), path).ok()
    }

    /// The status JSON; `None` while nobody answers.
    pub fn status(&self) -> Option<serde_json::Value> {
        let (_, body) = self.get("/status")?;
        serde_json::from_str(&body).ok()
    }

    /// All samples of /metrics, by name with labels as they are printed; empty while nobody answers.
    pub fn metrics(&self) -> BTreeMap<String, f64> {
        let body = self
            .get("/metrics")
            .map(|(_, body)| body)
            .unwrap_or_default();
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.filter_map(|line| line.rsplit_once(' '));
        samples
            .filter_map(|(name, value)| Some((name.into(), value.parse().ok()?)))
            .collect()
    }

    /// The sum over all labels of one metric; `None` if there is no such sample.
    pub fn metric(&self, name: &str) -> Option<f64> {
        let samples = self.metrics();
        let mut values = samples
            .iter()
            .filter(|(sample, _)| sample.split('{').next() == Some(name))
            .map(|(_, value)| value);
        let first = *values.next()?;
        Some(values.fold(first, |sum, value| sum + value))
    }

    fn output_file(&self) -> PathBuf {
        self.folder.path().join("output.log")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "--- the daemon's output\n{}",
                process::tail(&self.output_file(), 60)
            );
        }
        self.kill();
    }
}

/// A plain HTTP GET of `http://address/path`: status code and body.
pub fn get(address: &str, path: &str) -> std::io::Result<(u16, String)> {
    exchange(
        address,
        &format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: */*\r\n\r\n"),
    )
}

/// A POST of `body`, with a bearer token if there is one.
pub fn post(
    address: &str,
    path: &str,
    token: Option<&str>,
    body: &str,
) -> std::io::Result<(u16, String)> {
    let token = token.map_or_else(String::new, |token| {
        format!("Authorization: Bearer {token}\r\n")
    });
    let length = body.len();
    exchange(
        address,
        &format!(
            "POST {path} HTTP/1.0\r\nHost: {address}\r\n{token}Content-Length: {length}\r\n\r\n{body}"
        ),
    )
}

fn exchange(address: &str, request: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    // HTTP/1.0 answers with the body as it is, not in chunks, and ends it with the connection.
    // One write: a server that answers after its first read must not find the rest unread when it closes.
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let bad = || std::io::Error::other(format!("no HTTP answer: {answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(bad)?;
    let code = head
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .ok_or_else(bad)?;
    Ok((code, body.into()))
}

/// UNDERSTUDY_BIN, or the binary that was built beside this test.
pub fn binary() -> PathBuf {
    if let Some(binary) = std::env::var_os("UNDERSTUDY_BIN") {
        return binary.into();
    }
    let test = std::env::current_exe().expect("know this test's own file");
    // target/PROFILE/deps/test-hash
    let profile = test.ancestors().nth(2).unwrap_or(&test).to_path_buf();
    let target = profile.parent().unwrap_or(&profile).to_path_buf();
    let places = [profile, target.join("release"), target.join("debug")];
    let found = places
        .iter()
        .map(|place| place.join("understudy"))
        .find(|file| file.exists());
    found.unwrap_or_else(|| {
        panic!(
            "there is no understudy binary under {}; run: cargo build",
            target.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers GETs on the daemon's status port.
    fn serve(daemon: &Daemon, answers: [&'static str; 2]) -> std::thread::JoinHandle<()> {
        let listener = TcpListener::bind(daemon.status_port.address()).expect("listen");
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("accept");
                let mut request = [0; 1024];
                let len = stream.read(&mut request).expect("read");
                assert!(request[..len].starts_with(b"GET /"));
                stream.write_all(answer.as_bytes()).expect("write");
            }
        })
    }

    #[test]
    fn reads_status_and_metrics() {
        let daemon = Daemon::prepare("status_port = @STATUS_PORT@\n", &[]);
        let text = fs::read_to_string(daemon.folder().join("shake.toml")).expect("the file");
        assert_eq!(text, format!("status_port = {}\n", daemon.status_port()));
        assert_eq!(daemon.status(), None);
        let server = serve(
            &daemon,
            [
                "HTTP/1.0 200 OK\r\nX: y\r\n\r\n{\"lag\": 3}",
                "HTTP/1.0 200 OK\r\n\r\n# HELP a b\na{x=\"1 2\"} 2\na{x=\"y\"} 3.5\nab 7\n",
            ],
        );
        assert_eq!(daemon.status().expect("an answer")["lag"], 3);
        assert_eq!(daemon.metric("a"), Some(5.5));
        server.join().expect("the server");
    }
}
