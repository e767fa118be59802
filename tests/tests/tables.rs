//! Large sets, sorted sets and hashes of a snapshot: one RESTORE each, in pieces out of the spool, where the target holds
//! nothing but our copy; by commands elsewhere.

use std::collections::BTreeMap;

use e2e::{LIMIT, Link, catch_up, from_env, full_syncs, own, phase, rng, source_of, wait_stream};
use testkit::client::Argv;
use testkit::process::peak_memory;
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::rng::Rng;
use testkit::{Counters, Daemon, Server, argv, oracle};

const MIB: u64 = 1 << 20;

/// A table of each kind with so many elements of some thirty bytes, one of them with an expiry, between small keys.
fn tables(rng: &mut Rng, source: &Server, elements: u64) {
    let mut client = source.client();
    client.command(&argv!["SET", "before", 1]);
    for from in (0..elements).step_by(500) {
        let mut hash: Argv = argv!["HMSET", "table:hash"];
        let mut set: Argv = argv!["SADD", "table:set"];
        let mut zset: Argv = argv!["ZADD", "table:zset"];
        for n in from..(from + 500).min(elements) {
            let word = format!("element:{n}:{}", rng.number());
            hash.extend(argv![word, n]);
            set.extend(argv![word]);
            zset.extend(argv![n, word]);
        }
        client.commands(&[hash, set, zset]);
    }
    client.command(&argv!["PEXPIREAT", "table:set", 4_102_444_800_123_u64]);
    client.command(&argv!["SELECT", 3]);
    client.command(&argv!["SET", "behind", 1]);
}

/// How the tables were written: keys by method.
fn methods(daemon: &Daemon) -> BTreeMap<String, u64> {
    let mut methods = BTreeMap::new();
    for (name, count) in daemon.metrics() {
        let is_a_table = ["hash", "set", "zset"]
            .iter()
            .any(|kind| name.contains(&format!("type=\"{kind}\"")));
        if is_a_table && name.starts_with("understudy_snapshot_keys_total") {
            let method = name
                .split("method=\"")
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            *methods
                .entry(method.expect("a method").to_owned())
                .or_default() += count as u64;
        }
    }
    methods
}

fn brought(
    from: &str,
    to: &str,
    prepare: impl FnOnce(&Server),
    link: impl FnOnce(Link) -> Link,
) -> (BTreeMap<String, u64>, u64) {
    let (source, target) = (source_of(from), Server::of(to));
    tables(&mut rng(), &source, 100_000);
    prepare(&target);
    let mut daemon = link(Link::new(&source, &target)).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let peak = peak_memory(daemon.pid());
    target.client().command(&argv!["DEL", "foreign"]);
    oracle::assert_equal(&source.address(), &target.address());
    println!(
        "{from} to {to}: {:?}, {} MiB at most",
        methods(&daemon),
        peak / MIB
    );
    (methods(&daemon), peak)
}

#[test]
fn a_table_goes_as_one_restore_to_a_target_of_ours_alone() {
    let three = |method: &str| BTreeMap::from([(method.to_owned(), 3)]);
    for (from, to) in [
        ("redis-7.0", "redis-7.0"),
        ("redis-6.2", "valkey-9.1"),
        ("valkey-9.1", "redis-8.0"),
        ("redis-3.2", "redis-5.0"),
    ] {
        let (methods, peak) = brought(
            from,
            to,
            |_| {},
            |link| link.with("limits", "memory = \"32mb\""),
        );
        assert_eq!(methods, three("restore"), "{from} to {to}");
        assert!(peak < 32 * MIB, "{peak}");
    }
    // Who does not want it, or whose table is larger than that, has them built.
    let (methods, _) = brought(
        "redis-7.0",
        "redis-7.0",
        |_| {},
        |link| link.with("limits", "restore_bytes = 0"),
    );
    assert_eq!(methods, three("rewrite"));
    let (methods, _) = brought(
        "redis-7.0",
        "redis-7.0",
        |_| {},
        |link| link.with("limits", "restore_bytes = \"2mb\""),
    );
    assert_eq!(methods, three("rewrite"));
    // Others may wait for their own keys.
    let foreign = |target: &Server| {
        target.client().command(&argv!["SET", "foreign", 1]);
    };
    let (methods, _) = brought("redis-7.0", "redis-7.0", foreign, |link| {
        link.with("redis_writer", "existing_keys = \"replace\"")
    });
    assert_eq!(methods, three("rewrite"));
}

/// What lies between us and the target may not let a command of some megabytes pass, or take its silence for its end.
#[test]
fn after_a_lost_connection_tables_are_built() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    tables(&mut rng, &source, 100_000);
    let proxy = Proxy::start(&target.address());
    proxy.throttle(Direction::ToServer, Some(2 << 20));
    let mut daemon = Link::new(&source, &target).target(&proxy.address()).start();
    daemon.wait_for("the snapshot", LIMIT, |daemon| {
        daemon.output().contains("snapshot received")
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
    proxy.cut_now(Cut::Rst);
    proxy.throttle(Direction::ToServer, None);
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    let methods = methods(&daemon);
    assert!(methods.get("rewrite") >= Some(&2), "{methods:?}");
}

/// Killed again and again on a slow line, most of the time in the midst of a table.
#[test]
fn kills_in_the_midst_of_a_table_lose_and_double_nothing() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    tables(&mut rng, &source, 60_000);
    let proxy = Proxy::start(&target.address());
    let counters = Counters::start(&source.address(), rng.number(), 300);
    proxy.throttle(Direction::ToServer, Some(3 << 20));
    let mut daemon = Link::new(&source, &target).target(&proxy.address()).start();
    daemon.wait_for("the snapshot", LIMIT, |daemon| {
        daemon.output().contains("snapshot received")
    });
    for _ in 0..from_env("UNDERSTUDY_KILLS", 5) {
        std::thread::sleep(std::time::Duration::from_millis(rng.below(900)));
        if phase(&daemon) == "snapshot" {
            // What a half of a RESTORE comes to at the target: nothing.
            println!(
                "killed at byte {:?}",
                own(&daemon, "snapshot_applied_bytes")
            );
        }
        daemon.restart();
    }
    proxy.throttle(Direction::ToServer, None);
    wait_stream(&mut daemon);
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}
