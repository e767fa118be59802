//! The target: a primary that syncs its AOF every second, its replica, and what can happen to them.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testkit::client::Argv;
use testkit::proxy::{Cut, Proxy};
use testkit::{Client, Engine, Rng, Server, ServerOptions, argv};

use super::shared::{Shared, ms};

/// The most that a power loss takes from the AOF: about what a second writes here.
const LOST_BYTES_MAX: u64 = 300_000;
/// How long a replica may take to be in sync before it takes over.
const SYNC_TIMEOUT: Duration = Duration::from_secs(10);

const ARGS: &str = "--appendonly yes --appendfsync everysec --repl-backlog-size 64mb --lua-time-limit 50 --repl-timeout 10 --repl-diskless-sync yes";

/// Both servers of the target.
pub(super) struct Targets {
    servers: [Server; 2],
    primary: usize,
    /// Lengths of AOF files before which nothing may be lost: there the snapshot was not applied yet.
    floors: BTreeMap<PathBuf, u64>,
}

impl Targets {
    pub(super) fn start(engine: &Engine) -> Self {
        let start = || Server::start(engine, ServerOptions::args(ARGS));
        let targets = Self {
            servers: [start(), start()],
            primary: 0,
            floors: BTreeMap::new(),
        };
        let primary = targets.primary().port();
        let replica = &targets.servers[1];
        replica
            .client()
            .command(&argv!["REPLICAOF", "127.0.0.1", primary]);
        targets
    }

    pub(super) fn primary(&self) -> &Server {
        &self.servers[self.primary]
    }

    pub(super) fn both(&self) -> &[Server; 2] {
        &self.servers
    }

    /// From here on the target may fall back: what both servers hold by now is a copy. False when the replica does not
    /// come to that.
    pub(super) fn note_floors(&mut self) -> bool {
        let offset = |server: &Server, field| server.client().info_number("replication", field);
        let goal = offset(self.primary(), "master_repl_offset");
        let from = Instant::now();
        while offset(&self.servers[1 - self.primary], "slave_repl_offset") < goal {
            if from.elapsed() > 5 * SYNC_TIMEOUT {
                return false;
            }
            std::thread::sleep(ms(20));
        }
        for server in &self.servers {
            if let Some(file) = last_aof(server.folder()) {
                let len = fs::metadata(&file).map_or(0, |data| data.len());
                self.floors.insert(file, len);
            }
        }
        true
    }

    /// Plays one fault after the other until the round is over.
    pub(super) fn suffer(&mut self, shared: &Shared, mut rng: Rng, proxy: &Proxy) {
        while shared.sleep(ms(rng.within(500..4000))) {
            self.one(shared, &mut rng, proxy);
        }
        self.heal();
    }

    fn one(&mut self, shared: &Shared, rng: &mut Rng, proxy: &Proxy) {
        match rng.below(10) {
            0 => {
                shared.fault("target: SIGSTOP");
                self.primary().stop();
                shared.sleep(ms(rng.within(200..4000)));
                self.primary().cont();
            }
            1 => {
                shared.fault("target: kill -9, restart from its AOF");
                self.servers[self.primary].restart();
            }
            2 => {
                shared.fault("target: power loss, the AOF's end is gone");
                self.lose_power(rng);
            }
            3 => self.fail_over(shared, rng, proxy, false),
            4 => self.fail_over(shared, rng, proxy, true),
            5 => {
                shared.fault("target: out of memory");
                self.say(&argv!["CONFIG", "SET", "maxmemory", 1_000_000]);
                shared.sleep(ms(rng.within(300..3000)));
                self.say(&argv!["CONFIG", "SET", "maxmemory", 0]);
            }
            6 => {
                shared.fault("target: busy with a script");
                self.be_busy(rng.within(200..2500));
            }
            7 => {
                shared.fault("target: CLIENT PAUSE");
                let what = *rng.pick(&["ALL", "WRITE"]);
                self.say(&argv!["CLIENT", "PAUSE", rng.within(200..2000), what]);
            }
            8 => {
                shared.fault("target: too few replicas");
                self.say(&argv!["CONFIG", "SET", "min-replicas-to-write", 5]);
                shared.sleep(ms(rng.within(200..2000)));
                self.say(&argv!["CONFIG", "SET", "min-replicas-to-write", 0]);
            }
            _ => {
                shared.fault("target: CLIENT KILL of clients");
                self.say(&argv!["CLIENT", "KILL", "TYPE", "normal"]);
            }
        }
    }

    /// As it is to be between the rounds.
    fn heal(&self) {
        for server in &self.servers {
            server.cont();
        }
        self.say(&argv!["CONFIG", "SET", "maxmemory", 0]);
        self.say(&argv!["CONFIG", "SET", "min-replicas-to-write", 0]);
    }

    /// A command for the primary, on a connection of its own; the fault itself may take its reply.
    fn say(&self, argv: &Argv) {
        let client = Client::try_connect(&self.primary().address());
        let _ = client.and_then(|mut client| client.try_command(argv));
    }

    fn lose_power(&mut self, rng: &mut Rng) {
        let at = self.primary;
        self.servers[at].kill();
        if let Some(file) = last_aof(self.servers[at].folder()) {
            let floor = self.floors.get(&file).copied().unwrap_or(0);
            let len = fs::metadata(&file).map_or(0, |data| data.len());
            let lost = rng.below(LOST_BYTES_MAX).min(len.saturating_sub(floor));
            let opened = OpenOptions::new().write(true).open(&file);
            let cut = opened.and_then(|opened| opened.set_len(len - lost));
            cut.expect("cut the AOF of a server of our own");
        }
        self.servers[at].restart();
        self.rewrite_aof();
    }

    /// A server that finds its AOF torn within a transaction leaves the first half in the file, and appends behind it:
    /// the next restart would run that half a second time (seen on 7.0, 8.0 and Valkey 8.1). So it is written anew, as
    /// docs/operations.md asks for.
    fn rewrite_aof(&self) {
        self.say(&argv!["BGREWRITEAOF"]);
        let from = Instant::now();
        while from.elapsed() < SYNC_TIMEOUT {
            if let Ok(mut client) = Client::try_connect(&self.primary().address()) {
                let info = client.info("persistence");
                let is_zero = |field: &str| info.get(field).is_some_and(|value| value == "0");
                if is_zero("aof_rewrite_in_progress") && is_zero("aof_rewrite_scheduled") {
                    return;
                }
            }
            std::thread::sleep(ms(20));
        }
    }

    /// The replica takes over; when it is stalled first, it is behind.
    fn fail_over(&mut self, shared: &Shared, rng: &mut Rng, proxy: &Proxy, stalled: bool) {
        let (old, new) = (self.primary, 1 - self.primary);
        if !self.in_sync(shared, new) {
            shared.fault("target: (a failover that found no replica in sync)");
            return;
        }
        shared.fault(if stalled {
            "target: failover to a stalled replica"
        } else {
            "target: failover"
        });
        let server = &self.servers[new];
        if stalled {
            server.stop();
            shared.sleep(ms(rng.within(200..2000)));
        }
        promote(server, stalled);
        let demote_first = rng.one_in(2);
        let demote = || {
            let client = Client::try_connect(&self.servers[old].address());
            let argv = argv!["REPLICAOF", "127.0.0.1", server.port()];
            let _ = client.and_then(|mut client| client.try_command(&argv));
        };
        // Demoted first: our connection meets READONLY. Later: the old primary takes writes that are lost.
        shared.set_primary(&server.address());
        if demote_first {
            demote();
        }
        proxy.set_upstream(&server.address());
        if !demote_first {
            shared.sleep(ms(rng.below(400)));
            demote();
        }
        if rng.one_in(2) {
            proxy.cut_now(Cut::Rst);
        }
        self.primary = new;
    }

    fn in_sync(&self, shared: &Shared, replica: usize) -> bool {
        let from = Instant::now();
        while from.elapsed() < SYNC_TIMEOUT {
            if let Ok(mut client) = Client::try_connect(&self.servers[replica].address()) {
                let info = client.info("replication");
                let is = |field: &str, value: &str| info.get(field).is_some_and(|v| v == value);
                if is("role", "slave") && is("master_link_status", "up") {
                    return true;
                }
            }
            if !shared.sleep(ms(50)) {
                return false;
            }
        }
        false
    }

    fn be_busy(&self, for_ms: u64) {
        // Reads only, so that SCRIPT KILL would work; a few million turns are some hundred milliseconds.
        let spin = "local n = 0; while n < tonumber(ARGV[1]) do n = n + 1 end";
        self.say(&argv!["EVAL", spin, 0, for_ms * 20_000]);
    }
}

/// REPLICAOF NO ONE; when the server is stopped, so that it hears of it before the rest of its primary's stream.
fn promote(server: &Server, stalled: bool) {
    let mut stream = TcpStream::connect(server.address()).expect("connect to the replica");
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .expect("set a limit");
    stream
        .write_all(b"REPLICAOF NO ONE\r\n")
        .expect("tell the replica");
    if stalled {
        server.cont();
    }
    let mut answer = [0; 3];
    stream
        .read_exact(&mut answer)
        .expect("an answer of the replica");
    assert_eq!(&answer, b"+OK", "REPLICAOF NO ONE");
}

/// The file that a server is appending to.
fn last_aof(folder: &Path) -> Option<PathBuf> {
    let folder = folder.join("appendonlydir");
    let manifest = fs::read_to_string(folder.join("appendonly.aof.manifest")).ok()?;
    // file appendonly.aof.1.incr.aof seq 1 type i
    let mut names = manifest.lines().filter(|line| line.ends_with("type i"));
    let last = names.next_back()?.split(' ').nth(1)?;
    Some(folder.join(last))
}
