//! A newer source into an older target while both are in use: what the target lacks is said otherwise, or left out and counted by
//! name; nothing else differs.

use e2e::{LIMIT, Link, catch_up, source_of, wait_stream};
use serde_json::Value;
use testkit::client::{Argv, text};
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
