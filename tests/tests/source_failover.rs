//! The source restarts, comes back empty, fails over to a replica that is equal, behind or ahead, loses its own master, or
//! forgets our position: a new name of the same history costs no snapshot, a lost one costs exactly one, and the target
//! is never emptied on the way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use e2e::{
    LIMIT, Link, catch_up, full_syncs, own, rng, source_of, wait_more, wait_stream, written,
};
use testkit::client::{Argv, items, number, text};
use testkit::process::wait_until;
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::{Client, Counters, Daemon, Engine, Server, ServerOptions, argv, oracle, workload};

/// Long enough that no failover outlasts it.
const BACKLOG: &str = "--repl-backlog-size 128mb";

fn server(words: &str) -> Server {
    Server::start(&Engine::of("redis-7.0"), ServerOptions::args(words))
}

fn run(client: &mut Client, lines: &[&str]) {
    for line in lines {
        let words: Argv = line
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        client.command(&words);
    }
}

fn partial_syncs(source: &Server) -> i64 {
    source.client().info_number("stats", "sync_partial_ok")
}

/// A replica of what listens at `port`, which has all of it.
fn replica_of(master: &Server, port: u16) -> Server {
    let replica = server(BACKLOG);
    replica
        .client()
        .command(&argv!["REPLICAOF", "127.0.0.1", port]);
    wait_until("the replica to be in sync", LIMIT, || {
        written(&replica) == written(master)
            && replica
                .client()
                .info("replication")
                .get("master_link_status")
                .is_some_and(|status| status == "up")
    });
    replica
}

/// `replica` becomes the master that the proxy leads to; the old one is gone.
fn fail_over(proxy: &Proxy, mut master: Server, replica: &Server) {
    master.kill();
    replica.client().command(&argv!["REPLICAOF", "NO", "ONE"]);
    proxy.set_upstream(&replica.address());
    proxy.cut_now(Cut::Rst);
    proxy.release(Direction::ToClient);
}

fn equal(daemon: &mut Daemon, source: &Server, target: &Server) {
    catch_up(daemon, source);
    oracle::assert_equal(&source.address(), &target.address());
}

#[test]
fn a_source_that_restarts_with_its_snapshot_goes_on_under_a_new_name() {
    let (mut source, target) = (
        server("--repl-backlog-size 128mb --save 3600 1000000 --shutdown-timeout 1"),
        Server::of("redis-7.0"),
    );
    workload::fill(&mut source.client(), rng().number(), 500);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    run(&mut source.client(), &["SELECT 3", "SET before 1"]);
    catch_up(&mut daemon, &source);
    for round in 1..=2 {
        source.terminate();
        source.restart();
        run(&mut source.client(), &["SELECT 3", "INCR before"]);
        wait_until("the stream to go on", LIMIT, || partial_syncs(&source) > 0);
        equal(&mut daemon, &source, &target);
        assert_eq!(full_syncs(&source), 0, "restart {round}");
        // The new name is on disk: a run that begins now knows it.
        daemon.restart();
        wait_stream(&mut daemon);
        equal(&mut daemon, &source, &target);
        assert_eq!(full_syncs(&source), 0, "restart {round}");
    }
}

#[test]
fn a_source_that_comes_back_empty_stops_the_link_and_empties_nothing() {
    let (mut source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    workload::fill(&mut source.client(), rng().number(), 500);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let held = target.client().keyspace();
    source.restart();
    assert_eq!(daemon.wait(LIMIT), 3, "{}", daemon.output());
    let output = daemon.output();
    assert!(output.contains("has the source lost its data?"), "{output}");
    assert_eq!(target.client().keyspace(), held);
    // However often it is started again.
    daemon.spawn();
    assert_eq!(daemon.wait(LIMIT), 3, "{}", daemon.output());
    assert_eq!(target.client().keyspace(), held);
}

#[test]
fn a_failover_to_a_replica_that_is_equal_goes_on() {
    let (master, target) = (server(BACKLOG), Server::of("redis-7.0"));
    let proxy = Proxy::start(&master.address());
    workload::fill(&mut master.client(), rng().number(), 300);
    let replica = replica_of(&master, master.port());
    let counters = Counters::start(&master.address(), rng().number(), 1000);
    let mut daemon = Link::new(&master, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    wait_more("operations", 1000, || counters.acknowledged());
    let ledger = counters.stop();
    catch_up(&mut daemon, &master);
    wait_until("the replica to have all", LIMIT, || {
        written(&replica) == written(&master)
    });
    fail_over(&proxy, master, &replica);
    run(
        &mut replica.client(),
        &["SELECT 4", "SET new 1", "INCR new"],
    );
    equal(&mut daemon, &replica, &target);
    ledger.assert_at(&target.address());
    assert_eq!((full_syncs(&replica), partial_syncs(&replica)), (0, 1));
}

#[test]
fn a_failover_while_we_are_behind_goes_on_from_the_new_masters_backlog() {
    let (master, target) = (server(BACKLOG), Server::of("redis-7.0"));
    let proxy = Proxy::start(&master.address());
    let replica = replica_of(&master, master.port());
    let counters = Counters::start(&master.address(), rng().number(), 1000);
    let mut daemon = Link::new(&master, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    wait_more("operations", 500, || counters.acknowledged());
    proxy.swallow(Direction::ToClient);
    wait_more("operations that we do not see", 2000, || {
        counters.acknowledged()
    });
    let ledger = counters.stop();
    wait_until("the replica to have all", LIMIT, || {
        written(&replica) == written(&master)
    });
    assert!(own(&daemon, "applied_offset").is_some_and(|applied| applied < written(&master)));
    fail_over(&proxy, master, &replica);
    run(&mut replica.client(), &["SELECT 4", "SET new 1"]);
    equal(&mut daemon, &replica, &target);
    ledger.assert_at(&target.address());
    assert_eq!((full_syncs(&replica), partial_syncs(&replica)), (0, 1));
}

#[test]
fn a_failover_to_a_replica_that_is_behind_us_takes_back_what_it_never_had() {
    let (master, target) = (server(BACKLOG), Server::of("redis-7.0"));
    let proxy = Proxy::start(&master.address());
    let between = Proxy::start(&master.address());
    let mut client = master.client();
    workload::fill(&mut client, rng().number(), 300);
    run(&mut client, &["SELECT 4", "SET value old", "RPUSH list a"]);
    let replica = replica_of(&master, between.port());
    let mut daemon = Link::new(&master, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &master);
    // What the replica never hears of, and the target does.
    between.swallow(Direction::ToClient);
    run(
        &mut client,
        &[
            "SET value lost",
            "RPUSH list lost",
            "SET lost 1",
            "SELECT 6",
            "SET lost 1",
        ],
    );
    catch_up(&mut daemon, &master);
    let watcher = Watcher::start(&target, 4, &["value", "list"]);
    fail_over(&proxy, master, &replica);
    between.refuse(true);
    between.cut_now(Cut::Rst);
    run(&mut replica.client(), &["SELECT 4", "SET new 1"]);
    wait_until("one full sync", LIMIT, || full_syncs(&replica) == 1);
    wait_stream(&mut daemon);
    equal(&mut daemon, &replica, &target);
    let mut at_target = target.client();
    at_target.select(4);
    assert_eq!(text(&at_target.command(&argv!["GET", "value"])), "old");
    assert_eq!(
        number(&at_target.command(&argv!["EXISTS", "lost"])),
        Some(0)
    );
    assert_eq!(full_syncs(&replica), 1);
    watcher.saw_all();
}

#[test]
fn a_source_that_is_a_replica_may_lose_its_master() {
    let (master, target) = (server(BACKLOG), Server::of("redis-7.0"));
    let between = Proxy::start(&master.address());
    let source = replica_of(&master, between.port());
    let proxy = Proxy::start(&source.address());
    let counters = Counters::start(&master.address(), rng().number(), 1000);
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    wait_more("operations", 500, || counters.acknowledged());
    between.refuse(true);
    between.cut_now(Cut::Rst);
    wait_until("the source to notice", LIMIT, || {
        source
            .client()
            .info("replication")
            .get("master_link_status")
            .is_some_and(|status| status == "down")
    });
    // Whoever asks now is told NOMASTERLINK.
    proxy.cut_now(Cut::Rst);
    daemon.wait_for_output("NOMASTERLINK", LIMIT);
    wait_more("operations meanwhile", 500, || counters.acknowledged());
    between.refuse(false);
    wait_more("operations", 500, || counters.acknowledged());
    let ledger = counters.stop();
    wait_until("the source to have all", LIMIT, || {
        written(&source) == written(&master)
    });
    equal(&mut daemon, &source, &target);
    ledger.assert_at(&target.address());
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn a_backlog_that_is_overrun_while_we_are_away_costs_one_snapshot_and_no_emptiness() {
    let (source, target) = (server("--repl-backlog-size 16kb"), Server::of("redis-7.0"));
    let mut client = source.client();
    client.select(4);
    workload::fill(&mut source.client(), rng().number(), 500);
    for key in 0..400 {
        client.command(&argv!["SET", format!("kept:{key}"), "x".repeat(200)]);
        client.command(&argv!["SET", format!("gone:{}", key % 50), "x"]);
    }
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    daemon.kill();
    for key in 0..400 {
        client.command(&argv!["SET", format!("kept:{key}"), "y".repeat(200)]);
        client.command(&argv!["DEL", format!("gone:{}", key % 50)]);
    }
    let kept: Vec<String> = (0..400)
        .step_by(40)
        .map(|key| format!("kept:{key}"))
        .collect();
    let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
    let watcher = Watcher::start(&target, 4, &kept);
    daemon.spawn();
    wait_stream(&mut daemon);
    equal(&mut daemon, &source, &target);
    watcher.saw_all();
    assert_eq!(full_syncs(&source), 2);
    let mut at_target = target.client();
    at_target.select(4);
    assert_eq!(
        number(&at_target.command(&argv!["EXISTS", "gone:7"])),
        Some(0)
    );
}

#[test]
fn the_sources_own_failover_does_not_pick_us() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    run(&mut client, &["SET a 1"]);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    // A source that has never said anything to a replica is at offset 0, where every replica is: its first ping, or write,
    // ends that.
    run(&mut client, &["INCR a"]);
    catch_up(&mut daemon, &source);
    // It pauses its writers, waits for a replica with its very offset, and finds none.
    client.command(&argv!["FAILOVER", "TIMEOUT", 2000]);
    wait_until("the failover to be given up", LIMIT, || {
        let info = source.client().info("replication");
        info.get("master_failover_state").map(String::as_str) == Some("no-failover")
    });
    let info = client.info("replication");
    assert_eq!(info.get("role").map(String::as_str), Some("master"));
    run(&mut client, &["INCR a"]);
    equal(&mut daemon, &source, &target);
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn wait_on_the_source_tells_what_the_target_has() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    let mut wait = |ms: u64| {
        client.command(&argv!["INCR", "a"]);
        number(&client.command(&argv!["WAIT", 1, ms]))
    };
    for _ in 0..20 {
        assert_eq!(wait(20_000), Some(1));
    }
    assert_eq!(text(&target.client().command(&argv!["GET", "a"])), "20");
    target.stop();
    assert_eq!(wait(1500), Some(0));
    target.cont();
    assert_eq!(wait(20_000), Some(1));
    assert_eq!(text(&target.client().command(&argv!["GET", "a"])), "22");
    catch_up(&mut daemon, &source);
}

/// Reads keys at the target over and over: none may ever be missing.
struct Watcher {
    stopped: Arc<AtomicBool>,
    rounds: Arc<AtomicU64>,
    missing: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Watcher {
    fn start(target: &Server, db: u32, keys: &[&str]) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let (rounds, missing) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let mut client = target.client();
        client.select(db);
        let mut question = argv!["EXISTS"];
        question.extend(keys.iter().map(|key| key.as_bytes().to_vec()));
        let all = i64::try_from(keys.len()).expect("few keys");
        let (stop, seen, lost) = (
            Arc::clone(&stopped),
            Arc::clone(&rounds),
            Arc::clone(&missing),
        );
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                if number(&client.command(&question)) != Some(all) {
                    lost.fetch_add(1, Ordering::Relaxed);
                }
                seen.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(300));
            }
        });
        Self {
            stopped,
            rounds,
            missing,
            thread: Some(thread),
        }
    }

    /// Stops; panics if a key was missing at any time.
    fn saw_all(mut self) {
        wait_more("looks", 10, || self.rounds.load(Ordering::Relaxed));
        self.stopped.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it watches until it is stopped");
        thread.join().expect("the watcher does not panic");
        let rounds = self.rounds.load(Ordering::Relaxed);
        println!("{rounds} looks");
        assert_eq!(self.missing.load(Ordering::Relaxed), 0, "of {rounds} looks");
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

/// A new snapshot over an older copy takes away what is gone at the source: libraries of functions too.
#[test]
fn libraries_that_are_gone_at_the_source_are_removed_by_a_new_snapshot() {
    let (source, target) = (
        server("--repl-backlog-size 16kb"),
        Server::start(&Engine::of("redis-7.0"), ServerOptions::default()),
    );
    let library = |name: &str| {
        format!("#!lua name={name}\nredis.register_function('{name}_f', function() return 1 end)")
    };
    let mut client = source.client();
    for name in ["kept", "gone", "changed"] {
        client.command(&argv!["FUNCTION", "LOAD", library(name)]);
    }
    for key in 0..100 {
        client.command(&argv!["SET", format!("key:{key}"), key]);
    }
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    assert_eq!(libraries(&target), ["changed", "gone", "kept"]);
    daemon.kill();
    client.command(&argv!["FUNCTION", "DELETE", "gone"]);
    let code = library("changed").replace("return 1", "return 2");
    client.command(&argv!["FUNCTION", "LOAD", "REPLACE", code]);
    // A new library has a function of the one that is gone.
    let code = library("gone").replace("name=gone", "name=again");
    client.command(&argv!["FUNCTION", "LOAD", code]);
    for _ in 0..400 {
        client.command(&argv!["SET", "filler", "x".repeat(200)]);
    }
    daemon.spawn();
    wait_stream(&mut daemon);
    equal(&mut daemon, &source, &target);
    assert_eq!(full_syncs(&source), 2);
    assert_eq!(libraries(&target), ["again", "changed", "kept"]);
    let answer = target.client().command(&argv!["FCALL", "changed_f", 0]);
    assert_eq!(number(&answer), Some(2));
}

/// Names of a server's libraries, sorted.
fn libraries(server: &Server) -> Vec<String> {
    let rows = items(server.client().command(&argv!["FUNCTION", "LIST"]));
    let mut names: Vec<String> = rows
        .into_iter()
        .flat_map(|row| {
            items(row)
                .chunks(2)
                .find(|pair| text(&pair[0]) == "library_name")
                .map(|pair| text(&pair[1]))
        })
        .collect();
    names.sort();
    names
}
