//! Lines and servers that are slow, silent or deaf for a while, and targets that change places: each alone, by name.
//! `cargo xtask torture` has them all at once.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use e2e::{
    LIMIT, Link, catch_up, from_env, full_syncs, own, rng, source_of, wait_more, wait_stream,
    written,
};
use testkit::client::Error;
use testkit::process::wait_until;
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::{Counters, Daemon, Engine, Server, ServerOptions, argv, oracle};

/// All counted, nothing twice, one full sync.
fn exact(mut daemon: Daemon, counters: Counters, source: &Server, target: &Server) {
    let ledger = counters.stop();
    catch_up(&mut daemon, source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(source), 1);
}

fn source_with(words: &str) -> Server {
    let words = format!("--repl-backlog-size 128mb {words}");
    Server::start(&Engine::of("redis-7.0"), ServerOptions::args(&words))
}

fn partial_syncs(source: &Server) -> i64 {
    source.client().info_number("stats", "sync_partial_ok")
}

/// Our ACKs get lost: the source takes us for dead and drops us, and goes on with us when we ask.
#[test]
fn a_source_that_hears_no_ack_drops_us_and_takes_us_back() {
    let mut rng = rng();
    let source = source_with("--repl-timeout 2");
    let target = Server::of("redis-7.0");
    let proxy = Proxy::start(&source.address());
    let counters = Counters::start(&source.address(), rng.number(), 1000);
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    for round in 0..2 {
        let before = partial_syncs(&source);
        proxy.swallow(Direction::ToServer);
        wait_until("the source to drop us", LIMIT, || {
            let slaves = source
                .client()
                .info_number("replication", "connected_slaves");
            slaves == 0
        });
        proxy.release(Direction::ToServer);
        // What was begun on the dead line stays dead.
        proxy.cut_now(Cut::Rst);
        daemon.wait_for("a partial sync", LIMIT, |_| partial_syncs(&source) > before);
        println!("round {round}");
    }
    exact(daemon, counters, &source, &target);
}

/// Much slower than the source writes: its output buffer for us overflows, and the backlog has the rest.
#[test]
fn a_line_slower_than_the_writes_costs_the_link_and_no_write() {
    let mut rng = rng();
    let source = source_with("");
    let limit = argv![
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "replica 4mb 1mb 2"
    ];
    source.client().command(&limit);
    let target = Server::of("redis-7.0");
    let proxy = Proxy::start(&source.address());
    let counters = Counters::start(&source.address(), rng.number(), 1000);
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    proxy.throttle(Direction::ToClient, Some(10_000));
    let mut client = source.client();
    let value = "x".repeat(100_000);
    // More than both sockets and the proxy hold, and the limit on top.
    wait_until("the source to drop us", LIMIT, || {
        let batch: Vec<_> = (0..10)
            .map(|n| argv!["SET", format!("much:{n}"), value])
            .collect();
        client.commands(&batch);
        std::thread::sleep(Duration::from_millis(50));
        client.info_number("replication", "connected_slaves") == 0
    });
    proxy.cut_now(Cut::Fin);
    proxy.throttle(Direction::ToClient, None);
    exact(daemon, counters, &source, &target);
}

/// `UNDERSTUDY_STOP_SECONDS=90` is longer than any patience: the link is given up and made anew.
#[test]
fn a_source_that_hangs_is_waited_for() {
    let mut rng = rng();
    let stop = Duration::from_secs(from_env("UNDERSTUDY_STOP_SECONDS", 3));
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 1000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    wait_more("operations", 300, || counters.acknowledged());
    source.stop();
    std::thread::sleep(stop);
    source.cont();
    wait_more("operations", 300, || counters.acknowledged());
    exact(daemon, counters, &source, &target);
}

/// PSYNC is refused while a script runs, and again while the source, started anew, loads its keys.
#[test]
fn a_source_that_is_busy_or_loading_is_waited_for() {
    const SLOW: &str = "--lua-time-limit 50 --loading-process-events-interval-bytes 1024";
    let (mut source, target) = (source_with(SLOW), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    let busy = std::thread::spawn({
        let mut busy = source.client();
        move || busy.try_command(&argv!["EVAL", "while true do end", 0])
    });
    let is_busy = || {
        let answer = source.client().try_command(&argv!["DBSIZE"]);
        matches!(answer, Err(Error::Reply(text)) if text.starts_with("BUSY"))
    };
    wait_until("the script to run", LIMIT, is_busy);
    proxy.cut_now(Cut::Rst);
    daemon.wait_for("BUSY", LIMIT, |daemon| daemon.output().contains("BUSY"));
    source.client().command(&argv!["SCRIPT", "KILL"]);
    assert!(busy.join().expect("the client").is_err(), "killed");
    let mut client = source.client();
    for chunk in 0..10 {
        let keys: Vec<_> = (0..300)
            .map(|n| argv!["SET", format!("key:{chunk}:{n}"), "x".repeat(100)])
            .collect();
        client.commands(&keys);
    }
    catch_up(&mut daemon, &source);
    assert_eq!(full_syncs(&source), 1);
    client.command(&argv!["SAVE"]);
    // Three seconds, for three thousand keys.
    let loading = format!("--repl-backlog-size 128mb {SLOW} --key-load-delay 1000");
    source.restart_with(ServerOptions::args(&loading));
    assert!(daemon.output().contains("LOADING"), "{}", daemon.output());
    wait_stream(&mut daemon);
    source.client().command(&argv!["INCR", "after"]);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 0, "it goes on where it was saved");
}

#[test]
fn paused_clients_are_waited_for_on_either_side() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 1000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    for what in ["ALL", "WRITE"] {
        for server in [&source, &target] {
            let pause = argv!["CLIENT", "PAUSE", 1000, what];
            server.client().command(&pause);
            wait_more("operations", 500, || counters.acknowledged());
        }
    }
    exact(daemon, counters, &source, &target);
}

/// One write at a time, and the line to the target ends after each byte of what that write becomes.
#[test]
fn a_cut_at_each_byte_of_a_unit_loses_and_doubles_nothing() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&target.address());
    let mut daemon = Link::new(&source, &target).target(&proxy.address()).start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    // 1 takes every byte, and some minutes.
    let step = from_env("UNDERSTUDY_BYTE_STEP", 13);
    // INCR, RPUSH, the checkpoint, EXEC, WATCH, GET, MULTI: more than this many bytes each way.
    let mut cuts = 0;
    for (direction, most) in [(Direction::ToServer, 300), (Direction::ToClient, 150)] {
        for bytes in (1..most).step_by(step.max(1) as usize) {
            // The line is at rest, so that the count begins with the unit.
            let goal = written(&source);
            daemon.wait_for("the write before", LIMIT, |daemon| {
                own(daemon, "applied_offset").is_some_and(|applied| applied >= goal)
            });
            proxy.cut_after(direction, bytes, Cut::Rst);
            client.commands(&[argv!["INCR", "count"], argv!["RPUSH", "list", bytes]]);
            wait_until("a cut", LIMIT, || proxy.cuts() > cuts);
            cuts += 1;
        }
    }
    println!("{cuts} cuts");
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}

/// A primary and its replica as the target.
struct Pair {
    old: Server,
    new: Server,
    proxy: Proxy,
}

impl Pair {
    fn start() -> Self {
        let (old, new) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
        new.client()
            .command(&argv!["REPLICAOF", "127.0.0.1", old.port()]);
        let proxy = Proxy::start(&old.address());
        Self { old, new, proxy }
    }

    /// The replica has all that the primary has written by now.
    fn wait_in_sync(&self) {
        let offset = |server: &Server, field| server.client().info_number("replication", field);
        let goal = offset(&self.old, "master_repl_offset");
        wait_until("the replica in sync", LIMIT, || {
            let info = self.new.client().info("replication");
            info.get("master_link_status").is_some_and(|up| up == "up")
                && offset(&self.new, "slave_repl_offset") >= goal
        });
    }

    fn demote_old(&self) {
        let argv = argv!["REPLICAOF", "127.0.0.1", self.new.port()];
        self.old.client().command(&argv);
    }
}

/// The replica that takes over has not seen the last second: its checkpoint says so, and the spool has the rest.
#[test]
fn a_failover_to_a_replica_that_was_stalled_is_made_up_for_from_the_spool() {
    let mut rng = rng();
    let source = source_of("redis-7.0");
    let pair = Pair::start();
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let mut daemon = Link::new(&source, &pair.old)
        .target(&pair.proxy.address())
        .start();
    wait_stream(&mut daemon);
    pair.wait_in_sync();
    wait_more("operations", 1000, || counters.acknowledged());
    pair.new.stop();
    wait_more("operations that will be lost", 2000, || {
        counters.acknowledged()
    });
    // It hears of its new part before the rest of its primary's stream.
    let mut stream = TcpStream::connect(pair.new.address()).expect("connect to the replica");
    stream
        .write_all(b"REPLICAOF NO ONE\r\n")
        .expect("tell the replica");
    pair.new.cont();
    stream.read_exact(&mut [0; 3]).expect("an answer");
    pair.proxy.set_upstream(&pair.new.address());
    pair.proxy.cut_now(Cut::Rst);
    // Until then the status shows what the old one had confirmed.
    daemon.wait_for_output("the target is back", LIMIT);
    exact(daemon, counters, &source, &pair.new);
}

/// The old primary answers READONLY until the name points to the new one.
#[test]
fn a_target_that_has_become_a_replica_is_left_for_the_new_primary() {
    let mut rng = rng();
    let source = source_of("redis-7.0");
    let pair = Pair::start();
    let counters = Counters::start(&source.address(), rng.number(), 1000);
    let mut daemon = Link::new(&source, &pair.old)
        .target(&pair.proxy.address())
        .start();
    wait_stream(&mut daemon);
    pair.wait_in_sync();
    pair.new.client().command(&argv!["REPLICAOF", "NO", "ONE"]);
    pair.demote_old();
    daemon.wait_for("a word for it", LIMIT, |daemon| {
        let output = daemon.output();
        output.contains("READONLY") || output.contains("this is a replica")
    });
    wait_more("operations meanwhile", 500, || counters.acknowledged());
    pair.proxy.set_upstream(&pair.new.address());
    exact(daemon, counters, &source, &pair.new);
}
