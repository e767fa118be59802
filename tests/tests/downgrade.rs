//! A newer source into an older target while both are in use: what the target lacks is said otherwise, or left out and counted by
//! name; nothing else differs.

use e2e::{Every, LIMIT, Link, catch_up, rng, source_of, wait_stream};
use serde_json::Value;
use testkit::client::{Argv, text};
use testkit::oracle::{self, OracleOptions};
use testkit::{Client, Daemon, Server};

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

fn start(source: &Server, target: &Server) -> Daemon {
    Link::new(source, target)
        .with("redis_writer", "losses = \"warn\"")
        .start()
}

/// What was said otherwise, and what was left out, by the names of the source's commands.
fn report(daemon: &Daemon) -> (Vec<String>, Vec<String>) {
    let status = daemon.status().expect("a status");
    let names = |field: &str| match &status["understudy"][field] {
        Value::Object(counts) => counts.keys().cloned().collect(),
        other => panic!("{field}: {other}"),
    };
    let found = (names("commands_rewritten"), names("commands_lacking"));
    println!("rewritten: {:?}\nleft out: {:?}", found.0, found.1);
    found
}

fn get(client: &mut Client, command: &str) -> String {
    text(&client.command(&words(command)))
}

const COMMON: [&str; 11] = [
    "SET plain 1",
    "SET dying 1 PX 3600000",
    "GETEX dying EX 7200",
    "GETDEL plain",
    "ZADD board 1 a 2 b",
    "ZADD board GT 5 a 1 b",
    "RPUSH list a b c d",
    "LPOP list 2",
    "LMOVE list other LEFT RIGHT",
    "XADD events 1-1 f v",
    "XGROUP CREATE events g 0",
];

#[test]
fn redis_8_0_into_redis_6_2() {
    let (source, target) = (source_of("redis-8.0"), Server::of("redis-6.2"));
    let mut client = source.client();
    run(&mut client, &["SET before 1", "HSET old f v"]);
    let mut daemon = start(&source, &target);
    wait_stream(&mut daemon);
    run(&mut client, &COMMON);
    run(
        &mut client,
        &[
            "XREADGROUP GROUP g one COUNT 1 STREAMS events >",
            "XAUTOCLAIM events g two 0 0",
            "HSET hash a 1 b 2",
            "HEXPIRE hash 3600 FIELDS 1 a",
            "HGETDEL hash FIELDS 1 b",
            "HSETEX hash EX 3600 FIELDS 1 c 3",
            "VADD vectors VALUES 2 1 2 one",
        ],
    );
    let code = b"#!lua name=lib\nredis.register_function('f', function() return 1 end)".to_vec();
    client.command(&[b"FUNCTION".to_vec(), b"LOAD".to_vec(), code]);
    run(&mut client, &["INCR behind"]);
    catch_up(&mut daemon, &source);
    let (rewritten, lacking) = report(&daemon);
    for name in ["vadd", "function"] {
        assert!(lacking.iter().any(|lacking| lacking == name), "{lacking:?}");
    }
    assert!(!rewritten.is_empty());
    let mut there = target.client();
    assert_eq!(get(&mut there, "GET behind"), "1");
    assert_eq!(get(&mut there, "ZSCORE board a"), "5");
    assert_eq!(get(&mut there, "ZSCORE board b"), "2");
    assert_eq!(get(&mut there, "EXISTS plain"), "0");
    assert_eq!(get(&mut there, "HGET hash a"), "1");
    assert_eq!(get(&mut there, "HEXISTS hash b"), "0");
    assert_eq!(get(&mut there, "LLEN list"), "1");
    let ttl: i64 = get(&mut there, "PTTL dying").parse().expect("a time");
    assert!((7_140_000..=7_200_000).contains(&ttl), "{ttl}");
    let pending = there.command(&words("XPENDING events g - + 10"));
    let pending = format!("{pending:?}");
    assert!(
        pending.contains("two") || pending.contains("116, 119, 111"),
        "{pending}"
    );
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0);
}

#[test]
fn valkey_9_1_into_redis_7_0() {
    let (source, target) = (source_of("valkey-9.1"), Server::of("redis-7.0"));
    let mut client = source.client();
    run(&mut client, &["SET before 1", "HSET old f v"]);
    let mut daemon = start(&source, &target);
    wait_stream(&mut daemon);
    run(&mut client, &COMMON);
    run(
        &mut client,
        &[
            "HSET hash a 1 b 2",
            "HEXPIRE hash 3600 FIELDS 1 a",
            "HSETEX hash EX 3600 FIELDS 1 c 3",
            "SET owned token",
            "DELIFEQ owned token",
            "INCR behind",
        ],
    );
    catch_up(&mut daemon, &source);
    report(&daemon);
    let mut there = target.client();
    assert_eq!(get(&mut there, "GET behind"), "1");
    assert_eq!(get(&mut there, "ZSCORE board a"), "5");
    assert_eq!(get(&mut there, "EXISTS owned"), "0");
    assert_eq!(get(&mut there, "HGET hash a"), "1");
    assert_eq!(get(&mut there, "HGET hash c"), "3");
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0);
}

/// Every write command that the source has: what differs at the target are keys of commands that are named as lacking there, and
/// nothing else.
fn every_command(from: &str, to: &str) {
    let mut rng = rng();
    let (source, target) = (source_of(from), Server::of(to));
    let mut daemon = start(&source, &target);
    wait_stream(&mut daemon);
    let mut client = source.client();
    let mut every = Every::new(&mut client, from);
    let count = every.run(&mut client, &mut rng, || {});
    catch_up(&mut daemon, &source);
    let (rewritten, lacking) = report(&daemon);
    let options = OracleOptions {
        field_expiries: false,
        functions: false,
        differences_max: 1_000,
        ..OracleOptions::live(&source.engine().version)
    };
    let differences = oracle::compare_with(&source.address(), &target.address(), &options);
    // `every:<command>:<round>:<letter>`
    let of = |key: &[u8]| {
        let key = String::from_utf8_lossy(key).into_owned();
        let name = key.split(':').nth(1).unwrap_or_default().to_owned();
        name.split('|').next().unwrap_or_default().to_owned()
    };
    let names: std::collections::BTreeSet<String> =
        differences.iter().map(|found| of(&found.key)).collect();
    println!(
        "{from} to {to}: {count} commands, {} of them known there; rewritten: {}; lacking: {}; with keys that differ: {names:?}",
        every.names().len(),
        rewritten.len(),
        lacking.len()
    );
    let unexplained: Vec<String> = differences
        .iter()
        .filter(|found| !lacking.contains(&of(&found.key)))
        .map(ToString::to_string)
        .collect();
    assert!(unexplained.is_empty(), "{}", unexplained.join("\n"));
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0);
}

#[test]
fn every_command_of_redis_8_0_into_redis_6_2() {
    every_command("redis-8.0", "redis-6.2");
}

#[test]
fn every_command_of_valkey_9_1_into_redis_7_0() {
    every_command("valkey-9.1", "redis-7.0");
}

/// Before 7.0 a pending entry outlives its message, and an XCLAIM of it; from 7.0 on the XCLAIM forgets it.
#[test]
fn pending_entries_that_a_newer_target_forgets_are_counted() {
    let source = source_of("redis-6.2");
    let cluster = testkit::Cluster::start("redis-7.0", 3, 0);
    let single = Server::of("redis-7.0");
    let to_cluster = |fence: &str| {
        Link::between(&source.address(), &cluster.address(0))
            .with("redis_writer", "cluster = true")
            .with("redis_writer", &format!("slot_fence = \"{fence}\""))
    };
    let links = [
        Link::new(&source, &single),
        to_cluster("kill"),
        to_cluster("lua"),
    ];
    for (at, link) in links.into_iter().enumerate() {
        let mut client = source.client();
        client.command(&words("FLUSHALL"));
        for server in &cluster.servers {
            server.client().command(&words("FLUSHALL"));
        }
        let mut daemon = link.start();
        wait_stream(&mut daemon);
        run(
            &mut client,
            &[
                "XADD events 1-1 f v",
                "XADD events 2-1 f v",
                "XADD events 3-1 f v",
                "XGROUP CREATE events g 0",
                "XREADGROUP GROUP g one STREAMS events >",
                "XDEL events 2-1",
                "XCLAIM events g two 0 1-1 2-1 3-1",
                "INCR behind",
            ],
        );
        catch_up(&mut daemon, &source);
        let metrics = daemon.get("/metrics").expect("metrics").1;
        let line = metrics
            .lines()
            .find(|line| line.contains("pending_forgotten"))
            .unwrap_or_else(|| panic!("{at}: nothing was counted\n{metrics}"));
        assert!(line.ends_with(" 1"), "{line}");
        daemon.terminate();
        assert_eq!(daemon.wait(LIMIT), 0);
    }
}

#[test]
fn without_leave_nothing_is_lost() {
    let (source, target) = (source_of("redis-8.0"), Server::of("redis-6.2"));
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    run(&mut client, &["SET a 1"]);
    catch_up(&mut daemon, &source);
    run(&mut client, &["VADD vectors VALUES 2 1 2 one"]);
    assert_eq!(daemon.wait(LIMIT), 3);
    let output = daemon.output();
    assert!(
        output.to_lowercase().contains("vadd") && output.contains("losses"),
        "{output}"
    );
    assert_eq!(get(&mut target.client(), "GET a"), "1");
}
