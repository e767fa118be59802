//! Somebody else writes keys at the target, so that commands of the source fail there: the keys are copied again from the
//! source while the stream goes on, over kills, and without a second full sync; where that cannot be, the link stops.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use e2e::{
    LIMIT, Link, catch_up, from_env, full_syncs, own, rng, source_of, wait_more, wait_stream,
};
use testkit::client::{Argv, text};
use testkit::oracle::{self, OracleOptions};
use testkit::proxy::{Direction, Proxy};
use testkit::{Client, Counters, Daemon, Engine, Rng, Server, ServerOptions, argv};

/// Two dbs that the counters of the workload do not use.
const DB: u32 = 5;
const OTHER_DB: u32 = 6;

fn words(line: &str) -> Argv {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

fn run(client: &mut Client, lines: &[&str]) {
    for line in lines {
        client.command(&words(line));
    }
}

/// Keys repaired so far, by all processes that `daemon` has been.
fn repairs(daemon: &Daemon) -> u64 {
    own(daemon, "repairs").unwrap_or(0)
}

/// Waits until at least `count` keys were repaired and none is under repair.
fn wait_repaired(daemon: &mut Daemon, count: u64) {
    daemon.wait_for(&format!("{count} repairs"), LIMIT, |daemon| {
        repairs(daemon) >= count && own(daemon, "repairs_open") == Some(0)
    });
}

/// The workload's counters are in six groups over three dbs.
const KINDS: [&str; 7] = ["incr", "list", "log", "stream", "zset", "hash", "a"];

/// Overwrites a counter at the target with something at which its command fails; gives its name.
fn spoil(target: &Server, rng: &mut Rng) -> String {
    let group = rng.below(6);
    let kind = KINDS[usize::try_from(rng.below(7)).expect("a small number")];
    let key = format!("count:{{g{group}}}:{kind}");
    let mut client = target.client();
    client.select(u32::try_from(group % 3).expect("a small number"));
    let (del, wrong) = match kind {
        "list" | "zset" | "hash" => (argv!["DEL", key], argv!["SET", key, "wrong"]),
        // An id that is ahead makes those of the source too small.
        "stream" if rng.one_in(2) => (argv!["PING"], argv!["XADD", key, "999999999-0", "f", "v"]),
        "incr" | "a" if rng.one_in(2) => (argv!["PING"], argv!["SET", key, "no number"]),
        "stream" => (argv!["DEL", key], argv!["SET", key, "wrong"]),
        _ => (argv!["DEL", key], argv!["RPUSH", key, "wrong"]),
    };
    client.commands(&[argv!["MULTI"], del, wrong, argv!["EXEC"]]);
    key
}

#[test]
fn keys_overwritten_at_the_target_are_repaired_under_load() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    wait_more("operations", 2000, || counters.acknowledged());
    let rounds = from_env("UNDERSTUDY_REPAIRS", 12);
    for round in 1..=rounds {
        println!("round {round}: {}", spoil(&target, &mut rng));
        wait_more("operations", 200 + rng.below(400), || {
            counters.acknowledged()
        });
        wait_repaired(&mut daemon, round);
    }
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
    assert!(
        daemon
            .metric("understudy_divergences_total")
            .is_some_and(|count| count >= rounds as f64)
    );
    assert!(daemon.output().contains("a command failed at the target"));
}

#[test]
fn kills_during_repairs_lose_no_repair() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    wait_more("operations", 2000, || counters.acknowledged());
    for round in 0..from_env("UNDERSTUDY_REPAIR_KILLS", 6) {
        let keys: Vec<String> = (0..4).map(|_| spoil(&target, &mut rng)).collect();
        println!("round {round}: {keys:?}");
        // The moment is what is random here, so this one sleeps.
        std::thread::sleep(Duration::from_millis(rng.below(60)));
        daemon.restart();
        wait_stream(&mut daemon);
    }
    // Each counter is written once more, so that no damage goes unnoticed.
    wait_more("operations", 2000, || counters.acknowledged());
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}

/// Lists whose elements go round among them, at random, in and out of transactions, until it is dropped.
struct Ring {
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

const RING: u64 = 12;

impl Ring {
    fn start(source: &Server, mut rng: Rng) -> Self {
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopped);
        let mut client = source.client();
        client.select(DB);
        let thread = std::thread::spawn(move || {
            let mut done = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut list = || format!("ring:{}", rng.below(RING));
                let (a, b, c) = (list(), list(), list());
                let commands = match rng.below(4) {
                    0 => vec![argv!["RPUSH", a, done]],
                    1 => vec![argv!["RPOPLPUSH", a, b]],
                    2 => vec![
                        argv!["MULTI"],
                        argv!["LMOVE", a, b, "LEFT", "RIGHT"],
                        argv!["INCR", "ring:count"],
                        argv!["RPOPLPUSH", b, c],
                        argv!["EXEC"],
                    ],
                    _ => vec![argv!["LTRIM", a, 0, 20]],
                };
                client.commands(&commands);
                done += 1;
                std::thread::sleep(Duration::from_micros(500));
            }
            done
        });
        Self {
            stopped,
            thread: Some(thread),
        }
    }

    fn stop(mut self) -> u64 {
        self.stopped.store(true, Ordering::Relaxed);
        let thread = self
            .thread
            .take()
            .expect("it goes round until it is stopped");
        thread.join().expect("the ring does not panic")
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

#[test]
fn keys_that_hang_together_are_repaired_together_however_slow_the_source_answers() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let ring = Ring::start(&source, Rng::new(rng.number()));
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    wait_more("operations", 500, || counters.acknowledged());
    let mut at_target = target.client();
    at_target.select(DB);
    for round in 1..=from_env("UNDERSTUDY_REPAIRS", 10) {
        proxy.delay(
            Direction::ToClient,
            Duration::from_millis(rng.below(3) * 20),
        );
        let before = repairs(&daemon);
        for _ in 0..=rng.below(2) {
            let list = format!("ring:{}", rng.below(RING));
            at_target.command(&argv!["SET", list, "wrong"]);
        }
        wait_repaired(&mut daemon, before + 1);
        println!("round {round}: {} repairs", repairs(&daemon) - before);
        wait_more("operations", 50 + rng.below(200), || {
            counters.acknowledged()
        });
    }
    println!("{} times round", ring.stop());
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn a_checkpoint_tells_of_keys_under_repair_while_the_source_cannot_be_read() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    run(&mut client, &["RPUSH k a", "SET other 1"]);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    run(&mut target.client(), &["SET k wrong"]);
    // Only new connections are refused: the stream goes on.
    run(&mut client, &["CONFIG SET maxclients 1"]);
    run(&mut client, &["RPUSH k b", "INCR other"]);
    daemon.wait_for("a key under repair", LIMIT, |daemon| {
        own(daemon, "repairs_open") == Some(1)
    });
    run(&mut client, &["RPUSH k c", "INCR other"]);
    let at_the_target = |line: &str| target.client().command(&words(line));
    daemon.wait_for("what is not under repair", LIMIT, |_| {
        text(&at_the_target("GET other")) == "3"
    });
    let checkpoint = text(&at_the_target("GET understudy:checkpoint:e2e"));
    assert!(checkpoint.ends_with("|0:6b"), "{checkpoint}");
    assert_eq!(text(&at_the_target("GET k")), "wrong");
    assert!(daemon.get("/readyz").is_some_and(|(code, _)| code == 503));
    daemon.kill();
    run(&mut client, &["CONFIG SET maxclients 1000", "RPUSH k d"]);
    daemon.spawn();
    wait_stream(&mut daemon);
    wait_repaired(&mut daemon, 1);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    let checkpoint = text(&at_the_target("GET understudy:checkpoint:e2e"));
    assert_eq!(checkpoint.split('|').count(), 8, "{checkpoint}");
    assert_eq!(full_syncs(&source), 1);
}

/// A name, and three lists of commands.
type Case = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [&'static str],
);

/// What is done before at both ends, at the target alone, and then at the source in one go.
const CASES: &[Case] = &[
    (
        "a stream that is ahead",
        &["XADD s 5-1 f v"],
        &["XADD s 99-1 f v"],
        &["XADD s 6-1 f v", "XADD s 7-1 f v"],
    ),
    (
        "a list that is moved from",
        &["RPUSH a 1 2 3", "RPUSH b 9"],
        &["SET b wrong"],
        &["RPOPLPUSH a b", "RPOPLPUSH a b"],
    ),
    (
        "a set that goes into another",
        &["SADD a 1 2", "SADD b 2 3", "SADD d 9"],
        &["SET b wrong"],
        &["SINTERSTORE d a b", "SUNIONSTORE e d a"],
    ),
    (
        "copied",
        &["RPUSH a 1"],
        &["SET a wrong"],
        &["RPUSH a 2", "COPY a b", "APPEND c x"],
    ),
    (
        "renamed",
        &["RPUSH a 1"],
        &["SET a wrong"],
        &["RPUSH a 2", "RENAME a b", "RPUSH a new"],
    ),
    (
        "moved",
        &["RPUSH a 1"],
        &["SET a wrong"],
        &["RPUSH a 2", "MOVE a 6"],
    ),
    (
        "copied to another db",
        &["RPUSH a 1"],
        &["SET a wrong"],
        &["RPUSH a 2", "COPY a b DB 6"],
    ),
    (
        "swapped",
        &["RPUSH a 1", "SET b 1"],
        &["SET a wrong"],
        &["RPUSH a 2", "SWAPDB 5 6", "RPUSH a other"],
    ),
    (
        "flushed",
        &["RPUSH a 1", "SET b 1"],
        &["SET a wrong"],
        &["RPUSH a 2", "FLUSHDB", "RPUSH a new"],
    ),
    (
        "deleted",
        &["RPUSH a 1"],
        &["SET a wrong"],
        &["RPUSH a 2", "DEL a"],
    ),
    (
        "in a transaction",
        &["RPUSH a 1", "SET n 1"],
        &["SET a wrong"],
        &[
            "MULTI",
            "INCR n",
            "RPUSH a 2",
            "SUNIONSTORE x y z",
            "EXEC",
            "INCR n",
        ],
    ),
    (
        "with an expiry",
        &["RPUSH a 1", "PEXPIREAT a 4102444800000"],
        &["SET a wrong"],
        &["RPUSH a 2"],
    ),
    (
        "with an expiry that is near",
        &["RPUSH a 1", "EXPIRE a 100"],
        &["SET a wrong"],
        &["RPUSH a 2", "EXPIRE a 300"],
    ),
    (
        "a group that is there",
        &["XADD s 1-1 f v"],
        &["XGROUP CREATE s g 0"],
        &["XGROUP CREATE s g $", "XADD s 2-1 f v"],
    ),
    (
        "a number too large",
        &["SET n 1"],
        &["SET n 9223372036854775807"],
        &["INCR n", "INCR n"],
    ),
    (
        "several at once",
        &["RPUSH a 1", "RPUSH b 1", "SET n 1"],
        &["SET a wrong", "SET b wrong", "SET n wrong"],
        &["RPUSH a 2", "RPUSH b 2", "INCR n", "MSET a 1 z 2"],
    ),
];

fn each_case(from: &str, to: &str, options: &OracleOptions) {
    let (source, target) = (source_of(from), Server::of(to));
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    let (mut at_source, mut at_target) = (source.client(), target.client());
    let mut repaired = 0;
    for (name, before, wrong, then) in CASES {
        println!("{name}");
        at_source.commands(&[
            argv!["SELECT", OTHER_DB],
            argv!["FLUSHDB"],
            argv!["SELECT", DB],
            argv!["FLUSHDB"],
        ]);
        run(&mut at_source, before);
        catch_up(&mut daemon, &source);
        at_target.select(DB);
        run(&mut at_target, wrong);
        let commands: Vec<Argv> = then.iter().map(|line| words(line)).collect();
        at_source.commands(&commands);
        catch_up(&mut daemon, &source);
        let now = repairs(&daemon);
        assert!(
            now > repaired,
            "{name}: nothing was repaired\n{}",
            daemon.output()
        );
        repaired = now;
        oracle::assert_equal_with(&source.address(), &target.address(), options);
    }
    assert_eq!(full_syncs(&source), 1);
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
}

#[test]
fn damage_does_not_spread_whatever_is_done_with_the_key() {
    each_case("redis-7.0", "redis-7.0", &OracleOptions::default());
}

#[test]
fn a_source_without_pexpiretime_and_an_older_target_are_repaired_too() {
    let options = OracleOptions::live(&Engine::of("redis-6.2").version);
    each_case("redis-6.2", "redis-6.2", &options);
}

/// A link whose target is spoiled at a key `k`, which the source then writes.
fn spoiled(source: &Server, link: &Link, target: &Server) -> Daemon {
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    run(&mut source.client(), &["RPUSH k a", "SET other 1"]);
    catch_up(&mut daemon, source);
    run(&mut target.client(), &["SET k wrong"]);
    run(&mut source.client(), &["RPUSH k b"]);
    daemon
}

fn stops_and_is_mended_by_a_snapshot(source: &Server, link: &Link, target: &Server, says: &[&str]) {
    let mut daemon = spoiled(source, link, target);
    assert_eq!(daemon.wait(LIMIT), 4, "{}", daemon.output());
    let output = daemon.output();
    for word in says
        .iter()
        .chain(&["start again: a new snapshot mends the target"])
    {
        assert!(output.contains(word), "no {word:?} in\n{output}");
    }
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(source), 2);
}

#[test]
fn with_fail_the_link_stops_and_the_next_start_takes_a_snapshot() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let link = Link::new(&source, &target).with("checkpoint", "on_divergence = \"fail\"");
    stops_and_is_mended_by_a_snapshot(&source, &link, &target, &["RPUSH k was refused: WRONGTYPE"]);
}

#[test]
fn a_source_whose_user_may_not_read_keys_means_a_snapshot() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    run(
        &mut source.client(),
        &["ACL SETUSER mover on >secret +ping +psync +replconf +info +time"],
    );
    let link = Link::new(&source, &target)
        .with("sync_reader", "username = \"mover\"")
        .with("sync_reader", "password = \"secret\"");
    stops_and_is_mended_by_a_snapshot(&source, &link, &target, &["NOPERM", "+dump"]);
}

#[test]
fn a_command_without_keys_that_fails_means_a_snapshot() {
    let (source, target) = (
        source_of("redis-7.0"),
        Server::start(&Engine::of("redis-7.0"), ServerOptions::default()),
    );
    let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let other = library.replace("name=lib", "name=foreign");
    target.client().command(&argv!["FUNCTION", "LOAD", other]);
    source.client().command(&argv!["FUNCTION", "LOAD", library]);
    assert_eq!(daemon.wait(LIMIT), 4, "{}", daemon.output());
    assert!(
        daemon.output().contains("cannot be repaired"),
        "{}",
        daemon.output()
    );
}

/// MEMORY USAGE takes samples, and may tell of far less than there is: then fewer keys are read at once.
#[test]
fn keys_that_are_larger_than_the_source_tells_are_read_in_smaller_portions() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let (rng, mut client) = (&mut rng(), source.client());
    let keys: Vec<String> = (0..8).map(|n| format!("k:{n}")).collect();
    for key in &keys {
        // Each has a node of its own, and the first five are looked at.
        for _ in 0..5 {
            client.command(&argv!["RPUSH", key, rng.bytes(5_000)]);
        }
        client.command(&argv!["RPUSH", key, rng.bytes(400 << 10)]);
    }
    let link = Link::new(&source, &target).with("limits", "memory = \"8mb\"");
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let all = |command: &dyn Fn(&String) -> Argv| {
        let commands = keys.iter().map(command);
        let ends = (vec![argv!["MULTI"]], vec![argv!["EXEC"]]);
        ends.0.into_iter().chain(commands).chain(ends.1).collect()
    };
    let wrong: Vec<Argv> = all(&|key| argv!["SET", key, "wrong"]);
    target.client().commands(&wrong);
    let more: Vec<Argv> = all(&|key| argv!["RPUSH", key, "more"]);
    client.commands(&more);
    wait_repaired(&mut daemon, 8);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}
