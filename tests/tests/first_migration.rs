//! docs/first-migration.md from its first line to its last: its file and every command on it, as they stand there, against servers
//! that are like those it tells of. (`cargo xtask rigs scan` plays it in containers.)

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::LIMIT;
use e2e::cutover::{count_until_refused, our_keys};
use serde_json::Value;
use tempfile::TempDir;
use testkit::certs::{Ca, server_words};
use testkit::client::text;
use testkit::port::Port;
use testkit::process::{self, wait_until};
use testkit::{Client, Engine, Server, ServerOptions, argv, daemon};

/// What stands in the environment of all commands.
const ENV: [(&str, &str); 6] = [
    ("SOURCE_PASSWORD", "old-secret"),
    ("TARGET_PASSWORD", "new-secret"),
    ("ADMIN_TOKEN", "hush"),
    ("UNDERSTUDY_SOURCE_PASSWORD", "new-secret"),
    ("UNDERSTUDY_TARGET_PASSWORD", "old-secret"),
    ("UNDERSTUDY_ADMIN_TOKEN", "hush"),
];

/// A process of ours that goes on until it is told to end.
struct Running(Child);

impl Running {
    fn ended(&mut self) -> bool {
        process::wait(&mut self.0, LIMIT).is_some_and(|status| status.success())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The page, both servers that it tells of, and a folder to do it in.
struct Story {
    commands: Vec<String>,
    files: Vec<String>,
    folder: TempDir,
    old: Server,
    new: Server,
    new_port: Port,
    /// The status port; the way back has the next one.
    status: u16,
    /// Nobody else has those two.
    _ports: [Port; 2],
    ran: Vec<String>,
    ca: Ca,
}

impl Story {
    fn begin() -> Self {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/first-migration.md");
        let page = fs::read_to_string(page).expect("docs/first-migration.md");
        let commands = page.lines().filter_map(|line| line.strip_prefix("    "));
        let commands: Vec<String> = commands.map(str::to_owned).collect();
        let mut files = Vec::new();
        for part in page.split("```toml\n").skip(1) {
            files.push(part.split("```").next().unwrap_or_default().to_owned());
        }
        // A small hosted Redis, which keeps PSYNC, REPLICAOF and CONFIG to itself.
        let words = "--notify-keyspace-events KEA --rename-command PSYNC no-psync --rename-command SYNC no-sync --rename-command REPLICAOF no-replicaof --rename-command CONFIG no-config";
        let old = Server::start(&Engine::of("redis-6.2"), ServerOptions::args(words));
        // What ElastiCache is like: another version, TLS, commands that are gone.
        let (ca, new_port) = (Ca::new(), Port::reserve());
        let certificate = ca.server(&["127.0.0.1"]);
        let tls = server_words(new_port.number(), &certificate, &ca.file(), "no");
        let words = format!(
            "{tls} --notify-keyspace-events KEA --rename-command PSYNC no-psync --rename-command SYNC no-sync --rename-command REPLICAOF no-replicaof"
        );
        let new = Server::start(&Engine::of("redis-7.2"), ServerOptions::args(&words));
        for (server, password) in [(&old, ">old-secret"), (&new, ">new-secret")] {
            server.client().command(&argv![
                "ACL", "SETUSER", "mover", "on", password, "~*", "&*", "+@all", "-acl"
            ]);
        }
        let follows = || {
            let ports = [Port::reserve(), Port::reserve()];
            (ports[1].number() == ports[0].number() + 1).then_some(ports)
        };
        let ports = (0..100)
            .find_map(|_| follows())
            .expect("two ports in a row");
        Self {
            commands,
            files,
            folder: TempDir::with_prefix("understudy-first-").expect("a folder"),
            old,
            new,
            new_port,
            status: ports[0].number(),
            _ports: ports,
            ran: Vec::new(),
            ca,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The page's file, with the addresses of the servers here and their authority.
    fn write_file(&self) {
        let text = &self.files[0];
        for said in [
            "redis.hoster.example:6379",
            "master.shop.cache.example:6379",
            "status_port = 8080",
            "tls = true",
        ] {
            assert!(text.contains(said), "{said}");
        }
        let ca = format!("tls = true\ntls_config.ca_cert = {:?}", self.ca.file());
        let text = text
            .replace("redis.hoster.example:6379", &self.old.address())
            .replace("master.shop.cache.example:6379", &self.new_port.address())
            .replace(
                "status_port = 8080",
                &format!("status_port = {}", self.status),
            )
            .replace("tls = true", &ca);
        fs::write(self.path("shake.toml"), text).expect("to write");
        for name in [
            "point-the-application-to-elasticache.sh",
            "point-the-application-to-the-old-server.sh",
        ] {
            let script = self.path(name);
            fs::write(
                &script,
                format!("#!/bin/sh\necho \"$UNDERSTUDY_TARGET\" > {name}.ran\n"),
            )
            .expect("to write");
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            fs::set_permissions(&script, mode).expect("to set its mode");
        }
    }

    /// Starts the command of the page that begins so; nobody is there to be asked.
    fn start(&mut self, begins: &str, more: &[&str]) -> Command {
        let found = self.commands.iter().find(|line| line.starts_with(begins));
        let line = found
            .unwrap_or_else(|| panic!("the page does not say: {begins}"))
            .clone();
        self.ran.push(line.clone());
        let file = self.path("shake.toml").display().to_string();
        let line = line.replace("/etc/understudy/shake.toml", &file);
        let line = line.split(" > ").next().unwrap_or_default().to_owned();
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("understudy"), "{line}");
        let mut command = Command::new(daemon::binary());
        command
            .args(words)
            .args(more)
            .envs(ENV)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end; what it has said.
    #[track_caller]
    fn run(&mut self, begins: &str, more: &[&str]) -> String {
        let out = self.start(begins, more).output().expect("the binary");
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let errors = String::from_utf8_lossy(&out.stderr);
        assert!(
            out.status.success(),
            "{begins}: {}\n{said}\n{errors}",
            out.status
        );
        said
    }

    /// Leaves it running; its log is a file of the folder.
    fn leave(&mut self, begins: &str, log: &str) -> Running {
        let file = fs::File::create(self.path(log)).expect("a file");
        let mut command = self.start(begins, &[]);
        let child = command.stdout(Stdio::null()).stderr(file).spawn();
        Running(child.expect("the binary"))
    }

    fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The link of a status port.
    fn link(&self, port: u16) -> Value {
        let told = daemon::get(&format!("127.0.0.1:{port}"), "/status");
        let told = told.ok().map(|(_, body)| body).unwrap_or_default();
        let told: Value = serde_json::from_str(&told).unwrap_or_default();
        told["understudy"].clone()
    }

    /// Waits until the gate can be passed.
    fn wait_ready(&self, port: u16, log: &str) {
        let from = Instant::now();
        loop {
            let link = self.link(port);
            if link["phase"] == "scan" && link["cutover"]["ready"] == true {
                break;
            }
            let reasons = &link["cutover"]["reasons"];
            // The way back finds no difference at first, and looks again after a minute.
            assert!(from.elapsed() < LIMIT * 2, "{reasons}: {}", self.log(log));
            std::thread::sleep(Duration::from_millis(100));
        }
        let log = self.log(log);
        let line = "the source refuses PSYNC: reading it by SCAN and keyspace events instead";
        assert!(log.contains(line), "{log}");
    }

    /// Steps 1 to 4: the copy, the switch, and who is left behind. Gives the first sync.
    fn moved(&mut self) -> Running {
        self.write_file();
        let mut client = self.old.client();
        for key in 0..300 {
            client.commands(&[
                argv!["SET", format!("page:{key}"), "x".repeat(key)],
                argv!["HSET", format!("user:{key}"), "name", key],
            ]);
        }
        self.run("understudy check ", &["--seconds", "1"]);
        let sync = self.leave("understudy sync /etc", "sync.log");
        self.wait_ready(self.status, "sync.log");
        let writer = count_until_refused(self.old.address());
        self.run("understudy cutover /etc/understudy/shake.toml --check", &[]);
        let said = self.run(
            "understudy cutover /etc/understudy/shake.toml --reverse --kill-clients",
            &["--yes", "--watch", "1s"],
        );
        assert!(said.contains("has found no difference"), "{said}");
        assert!(
            self.path("point-the-application-to-elasticache.sh.ran")
                .exists()
        );
        let acknowledged = writer.join().expect("a writer");
        assert!(acknowledged > 0);
        let found = text(&self.new.client().command(&argv!["GET", "app:count"]));
        assert_eq!(found, acknowledged.to_string());
        // One has the old address in its code.
        let mut left = self.old.client();
        left.command(&argv!["CLIENT", "SETNAME", "nightly-report"]);
        for number in 0..17 {
            left.command(&argv!["SET", format!("legacy:{number}"), number]);
        }
        wait_until("what was written late to be counted", LIMIT, || {
            left.command(&argv!["PING"]);
            let cutover = &self.link(self.status)["cutover"];
            cutover["late_writes"]["by_prefix"]["legacy:"].as_u64() >= Some(17)
        });
        wait_until("the client to be named", LIMIT, || {
            left.command(&argv!["SET", "legacy:0", 1]);
            let said = self.run(
                "understudy cutover /etc/understudy/shake.toml --stragglers",
                &[],
            );
            said.contains("nightly-report") && said.contains("legacy:")
        });
        assert!(!our_keys(&self.new).is_empty());
        let late = self.new.client().command(&argv!["KEYS", "legacy:*"]);
        assert_eq!(testkit::client::items(late).len(), 0);
        sync
    }

    /// Step 5: the way back is followed.
    fn follow_back(&mut self) -> Running {
        let back = self.run("understudy reverse /etc", &[]);
        assert!(!back.contains("[filter]"), "{back}");
        assert!(self.files[1].contains("block_key_prefix"));
        fs::write(self.path("back.toml"), format!("{back}\n{}", self.files[1])).expect("to write");
        let sync = self.leave("understudy sync back.toml", "back.log");
        self.wait_ready(self.status + 1, "back.log");
        sync
    }

    /// Keys of the client that was left behind are where they were.
    fn assert_late_kept(&self) {
        let late = self.old.client().command(&argv!["KEYS", "legacy:*"]);
        assert_eq!(testkit::client::items(late).len(), 17);
    }

    fn assert_nothing_left(&self) {
        assert_eq!((our_keys(&self.old), our_keys(&self.new)), (vec![], vec![]));
    }
}

#[test]
fn the_first_migration_and_its_rollback() {
    let mut story = Story::begin();
    let mut sync = story.moved();
    let mut back = story.follow_back();
    // The application is at the new server, and comes back.
    let writer = count_until_refused(story.new.address());
    std::thread::sleep(Duration::from_millis(500));
    let said = story.run(
        "understudy cutover back.toml --kill-clients",
        &["--yes", "--watch", "1s"],
    );
    assert!(said.contains("has found no difference"), "{said}");
    assert!(
        story
            .path("point-the-application-to-the-old-server.sh.ran")
            .exists()
    );
    let more = writer.join().expect("a writer");
    assert!(more > 0);
    let count = |server: &Server| text(&server.client().command(&argv!["GET", "app:count"]));
    assert_eq!(count(&story.old), count(&story.new));
    story.assert_late_kept();
    story.run("understudy cutover back.toml --finish", &["--yes"]);
    story.run(
        "understudy cutover /etc/understudy/shake.toml --finish",
        &["--yes"],
    );
    assert!(sync.ended() && back.ended());
    story.assert_nothing_left();
    // Every command of the page has been run.
    let missing: Vec<&String> = story
        .commands
        .iter()
        .filter(|line| !story.ran.contains(line))
        .collect();
    assert_eq!(missing, Vec::<&String>::new());
}

/// All is well at the new server: both links are ended.
#[test]
fn the_first_migration_and_its_end() {
    let mut story = Story::begin();
    let mut sync = story.moved();
    let mut back = story.follow_back();
    let mut client = Client::connect(&story.new.address());
    client.command(&argv!["SET", "app:count", "at the new server"]);
    wait_until(
        "what the application writes to be at the old server too",
        LIMIT,
        || text(&story.old.client().command(&argv!["GET", "app:count"])) == "at the new server",
    );
    story.assert_late_kept();
    story.run("understudy cutover back.toml --finish", &["--yes"]);
    story.run(
        "understudy cutover /etc/understudy/shake.toml --finish",
        &["--yes"],
    );
    assert!(sync.ended() && back.ended());
    story.assert_nothing_left();
}
