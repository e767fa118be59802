//! Three real Sentinels watch the source. They see us among its replicas, at port 0, and may not do harm to anybody because
//! of it: other servers on this machine stay what they are, the real replica is elected, and the link goes on there.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use e2e::{LIMIT, Link, catch_up, full_syncs, wait_more, wait_stream, written};
use tempfile::TempDir;
use testkit::client::{items, number, text};
use testkit::port::Port;
use testkit::process::wait_until;
use testkit::proxy::{Cut, Proxy};
use testkit::{Client, Counters, Engine, Rng, Server, ServerOptions, argv, oracle};

/// Ports that somebody might take us to listen on: Redis's own, its neighbours, a Sentinel's.
const LIKELY_PORTS: [u16; 4] = [6379, 6380, 7000, 26379];
/// A Sentinel that takes a server for a replica tells it so within some 10 seconds.
const TIME_FOR_HARM: Duration = Duration::from_secs(15);

/// A server program with arguments of its own; killed when dropped.
struct Process {
    child: Child,
    address: String,
    _folder: TempDir,
}

impl Process {
    fn start(engine: &Engine, port: u16, config: &str, args: &[&str]) -> Self {
        let folder = TempDir::with_prefix("understudy-sentinel-").expect("make a folder");
        let file = folder.path().join("server.conf");
        let dir = folder.path().display();
        let text = format!("port {port}\nbind 127.0.0.1\ndir {dir}\n{config}");
        fs::write(&file, text).expect("write a configuration");
        let child = Command::new(engine.server())
            .arg(&file)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start a server");
        let started = Self {
            child,
            address: format!("127.0.0.1:{port}"),
            _folder: folder,
        };
        wait_until("a server to answer", LIMIT, || {
            Client::try_connect(&started.address).is_ok()
        });
        started
    }

    fn client(&self) -> Client {
        Client::connect(&self.address)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Redis servers with one key that have nothing to do with any of this, on the likely ports that are free.
fn bystanders(engine: &Engine) -> Vec<Process> {
    let is_free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let started: Vec<Process> = LIKELY_PORTS
        .into_iter()
        .filter(is_free)
        .map(|port| Process::start(engine, port, "save \"\"\n", &[]))
        .collect();
    assert!(!started.is_empty(), "none of {LIKELY_PORTS:?} is free");
    for server in &started {
        server.client().command(&argv!["SET", "mine", "untouched"]);
    }
    started
}

fn assert_untouched(bystanders: &[Process]) {
    for server in bystanders {
        let mut client = server.client();
        let info = client.info("replication");
        let about = &server.address;
        assert_eq!(
            info.get("role").map(String::as_str),
            Some("master"),
            "{about}"
        );
        assert_eq!(
            info.get("connected_slaves").map(String::as_str),
            Some("0"),
            "{about}"
        );
        assert_eq!(client.keyspace().get(&0), Some(&1), "{about}");
        assert_eq!(
            text(&client.command(&argv!["GET", "mine"])),
            "untouched",
            "{about}"
        );
    }
}

fn sentinel(engine: &Engine, master: &Server) -> (Port, Process) {
    let port = Port::reserve();
    let config = format!(
        "sentinel monitor source 127.0.0.1 {} 2\n\
         sentinel down-after-milliseconds source 1500\n\
         sentinel failover-timeout source 10000\n",
        master.port()
    );
    let process = Process::start(engine, port.number(), &config, &["--sentinel"]);
    (port, process)
}

/// The port of the master that a Sentinel names.
fn master_port(sentinel: &Process) -> u16 {
    let address =
        items(
            sentinel
                .client()
                .command(&argv!["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "source"]),
        );
    text(&address[1]).parse().expect("a port")
}

/// Ports of the replicas that a Sentinel knows.
fn replica_ports(sentinel: &Process) -> Vec<u16> {
    let replicas = sentinel
        .client()
        .command(&argv!["SENTINEL", "REPLICAS", "source"]);
    let port = |replica| {
        let fields: Vec<String> = items(replica).iter().map(text).collect();
        let at = fields.iter().position(|field| field == "port");
        let at = at.expect("a replica has a port");
        fields[at + 1].parse().expect("a port is a number")
    };
    items(replicas).into_iter().map(port).collect()
}

#[test]
fn sentinels_leave_other_servers_alone_and_the_link_follows_their_failover() {
    let engine = Engine::of("redis-7.0");
    let options = || ServerOptions::args("--repl-backlog-size 64mb");
    let mut source = Server::start(&engine, options());
    let (replica, target) = (Server::start(&engine, options()), Server::of("redis-7.0"));
    replica
        .client()
        .command(&argv!["REPLICAOF", "127.0.0.1", source.port()]);
    let bystanders = bystanders(&engine);
    let sentinels: Vec<(Port, Process)> = (0..3).map(|_| sentinel(&engine, &source)).collect();
    let proxy = Proxy::start(&source.address());
    let counters = Counters::start(&source.address(), Rng::seed_from_env(), 300);
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    wait_until(
        "every Sentinel to know the others, the replica and us",
        LIMIT,
        || {
            sentinels.iter().all(|(_, sentinel)| {
                let others =
                    items(
                        sentinel
                            .client()
                            .command(&argv!["SENTINEL", "SENTINELS", "source"]),
                    );
                let ports = replica_ports(sentinel);
                others.len() == 2 && ports.contains(&replica.port()) && ports.contains(&0)
            })
        },
    );
    // They have the time to do what they would do to a replica that does not follow.
    let from = Instant::now();
    wait_until("the time for harm to pass", LIMIT, || {
        assert_untouched(&bystanders);
        from.elapsed() >= TIME_FOR_HARM
    });
    wait_more("operations", 100, || counters.acknowledged());
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    wait_until("the replica to have all", LIMIT, || {
        written(&replica) == written(&source)
    });
    source.kill();
    wait_until("the replica to be elected", LIMIT, || {
        sentinels
            .iter()
            .all(|(_, sentinel)| master_port(sentinel) == replica.port())
    });
    wait_until("the replica to be a master", LIMIT, || {
        replica
            .client()
            .info("replication")
            .get("role")
            .map(String::as_str)
            == Some("master")
    });
    proxy.set_upstream(&replica.address());
    proxy.cut_now(Cut::Rst);
    replica.client().command(&argv!["INCR", "after"]);
    catch_up(&mut daemon, &replica);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&replica.address(), &target.address());
    assert_eq!(full_syncs(&replica), 0);
    assert_eq!(
        number(&target.client().command(&argv!["GET", "after"])),
        Some(1)
    );
    let from = Instant::now();
    wait_until("the time for harm to pass again", LIMIT, || {
        assert_untouched(&bystanders);
        from.elapsed() >= TIME_FOR_HARM
    });
    assert_eq!(
        target
            .client()
            .info("replication")
            .get("role")
            .map(String::as_str),
        Some("master")
    );
    assert!(daemon.is_running());
}

#[test]
fn a_target_behind_sentinels_is_followed_to_its_new_master() {
    let engine = Engine::of("redis-7.0");
    let source = Server::start(&engine, ServerOptions::args("--repl-backlog-size 64mb"));
    let (mut target, replica) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    replica
        .client()
        .command(&argv!["REPLICAOF", "127.0.0.1", target.port()]);
    let sentinels: Vec<(Port, Process)> = (0..3).map(|_| sentinel(&engine, &target)).collect();
    wait_until("every Sentinel to know all", LIMIT, || {
        sentinels.iter().all(|(_, sentinel)| {
            let question = argv!["SENTINEL", "SENTINELS", "source"];
            let others = items(sentinel.client().command(&question));
            others.len() == 2 && replica_ports(sentinel).contains(&replica.port())
        })
    });
    // One that is not there, and one that is: it tells of the others.
    let nobody = Port::reserve();
    let addresses = format!("{}, {}", nobody.address(), sentinels[0].0.address());
    let text = Link::new(&source, &target).text();
    let text = text.replace(
        &format!("[redis_writer]\naddress = \"{}\"", target.address()),
        &format!(
            "[redis_writer.sentinel]\nmaster_name = \"source\"\naddress = \"{addresses}\"\n[redis_writer]"
        ),
    );
    let counters = Counters::start(&source.address(), Rng::seed_from_env(), 300);
    let mut daemon = testkit::Daemon::start(&text);
    wait_stream(&mut daemon);
    wait_more("operations", 300, || counters.acknowledged());
    target.kill();
    wait_until("the replica to be elected", LIMIT, || {
        sentinels
            .iter()
            .all(|(_, sentinel)| master_port(sentinel) == replica.port())
    });
    wait_more("operations", 300, || counters.acknowledged());
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&replica.address());
    oracle::assert_equal(&source.address(), &replica.address());
    assert_eq!(full_syncs(&source), 1);
    // The old form: the address is a Sentinel's.
    let old = "sentinel = true\nmaster = \"source\"";
    let link = Link::between(&source.address(), &sentinels[0].0.address());
    let ping = |link: &Link| {
        let text = link.text().replace(testkit::daemon::STATUS_PORT, "0");
        e2e::run_file(&["ping", "shake.toml"], Some(text.as_bytes()))
    };
    let ended = ping(&link.clone().with("redis_writer", old));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let ended = ping(&link.with("redis_writer", &old.replace("\"source\"", "\"other\"")));
    assert_eq!(ended.code, 4);
    assert!(
        ended.error().contains("no master \"other\""),
        "{}",
        ended.error()
    );
}

#[test]
fn a_source_behind_sentinels_is_followed_to_its_new_master() {
    let engine = Engine::of("redis-7.0");
    let options = || ServerOptions::args("--repl-backlog-size 64mb --repl-diskless-sync-delay 0");
    let mut source = Server::start(&engine, options());
    let (replica, target) = (Server::start(&engine, options()), Server::of("redis-7.0"));
    let follow = argv!["REPLICAOF", "127.0.0.1", source.port()];
    replica.client().command(&follow);
    let sentinels: Vec<(Port, Process)> = (0..3).map(|_| sentinel(&engine, &source)).collect();
    wait_until("every Sentinel to know all", LIMIT, || {
        sentinels.iter().all(|(_, sentinel)| {
            let question = argv!["SENTINEL", "SENTINELS", "source"];
            let others = items(sentinel.client().command(&question));
            others.len() == 2 && replica_ports(sentinel).contains(&replica.port())
        })
    });
    let text = Link::new(&source, &target).text();
    let text = text.replace(
        &format!("[sync_reader]\naddress = \"{}\"", source.address()),
        &format!(
            "[sync_reader.sentinel]\nmaster_name = \"source\"\naddress = \"{}\"\n[sync_reader]",
            sentinels[1].0.address()
        ),
    );
    let counters = Counters::start(&source.address(), Rng::seed_from_env(), 300);
    let mut daemon = testkit::Daemon::start(&text);
    wait_stream(&mut daemon);
    wait_more("operations", 300, || counters.acknowledged());
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    wait_until("the replica to have all", LIMIT, || {
        written(&replica) == written(&source)
    });
    source.kill();
    wait_until("the replica to be elected", LIMIT, || {
        sentinels
            .iter()
            .all(|(_, sentinel)| master_port(sentinel) == replica.port())
    });
    wait_until("the replica to be a master", LIMIT, || {
        replica.client().info("replication")["role"] == "master"
    });
    replica.client().command(&argv!["INCR", "after"]);
    catch_up(&mut daemon, &replica);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&replica.address(), &target.address());
    assert_eq!(full_syncs(&replica), 0);
}

#[test]
fn a_source_behind_sentinels_is_read_at_its_replicas_over_a_failover() {
    let engine = Engine::of("redis-7.0");
    let options = || ServerOptions::args("--repl-backlog-size 64mb");
    let mut source = Server::start(&engine, options());
    let (replicas, target) = (
        [(); 2].map(|()| Server::start(&engine, options())),
        Server::of("redis-7.0"),
    );
    for replica in &replicas {
        let argv = argv!["REPLICAOF", "127.0.0.1", source.port()];
        replica.client().command(&argv);
    }
    let sentinels: Vec<(Port, Process)> = (0..3).map(|_| sentinel(&engine, &source)).collect();
    wait_until("every Sentinel to know all", LIMIT, || {
        sentinels.iter().all(|(_, sentinel)| {
            let question = argv!["SENTINEL", "SENTINELS", "source"];
            let others = items(sentinel.client().command(&question));
            let ports = replica_ports(sentinel);
            others.len() == 2 && replicas.iter().all(|one| ports.contains(&one.port()))
        })
    });
    let link = Link::new(&source, &target).with("sync_reader", "prefer_replica = true");
    let text = link.text().replace(
        &format!("[sync_reader]\naddress = \"{}\"", source.address()),
        &format!(
            "[sync_reader.sentinel]\nmaster_name = \"source\"\naddress = \"{}\"\n[sync_reader]",
            sentinels[0].0.address()
        ),
    );
    let counters = Counters::start(&source.address(), Rng::seed_from_env(), 300);
    let mut daemon = testkit::Daemon::start(&text);
    wait_stream(&mut daemon);
    assert_eq!(full_syncs(&source), 2, "those of its replicas");
    wait_more("operations", 300, || counters.acknowledged());
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    wait_until("the replicas to have all", LIMIT, || {
        replicas.iter().all(|one| written(one) == written(&source))
    });
    source.kill();
    let is_elected = |replica: &Server| {
        let port = replica.port();
        sentinels
            .iter()
            .all(|(_, sentinel)| master_port(sentinel) == port)
    };
    wait_until("a replica to be elected", LIMIT, || {
        replicas.iter().any(is_elected)
    });
    let elected = replicas.iter().position(is_elected).expect("the elected");
    let (master, other) = (&replicas[elected], &replicas[1 - elected]);
    wait_until("the other one to follow it", LIMIT, || {
        let info = other.client().info("replication");
        info["master_port"] == master.port().to_string() && info["master_link_status"] == "up"
    });
    master.client().command(&argv!["INCR", "after"]);
    catch_up(&mut daemon, master);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&master.address(), &target.address());
    let snapshots: i64 = replicas.iter().map(full_syncs).sum();
    assert_eq!(snapshots, 1, "the link's first, at one of them");
    // Killed, it finds the replica of the new master.
    daemon.restart();
    wait_stream(&mut daemon);
    wait_until("the replica to be followed", LIMIT, || {
        other
            .client()
            .info_number("replication", "connected_slaves")
            == 1
    });
    master.client().command(&argv!["INCR", "after"]);
    catch_up(&mut daemon, master);
    oracle::assert_equal(&master.address(), &target.address());
    assert_eq!(replicas.iter().map(full_syncs).sum::<i64>(), 1);
}
