//! Writes of one kind to one key that follow one another go to the target as one command, and do there what each of them
//! did at the source: in transactions and databases, over kills, and where somebody else's write makes them fail.

use std::time::Duration;

use e2e::{LIMIT, Link, catch_up, from_env, full_syncs, own, rng, source_of, wait_stream};
use testkit::client::{Argv, number};
use testkit::{Rng, Server, argv, oracle};

const KEYS: u64 = 4;
const DBS: [u32; 2] = [0, 3];

/// One command that may join others like it, or stands in their way.
fn command(rng: &mut Rng, kind: u64, key: u64, words: u64) -> Argv {
    let name = [
        "LPUSH", "RPUSH", "SADD", "SREM", "HSET", "HMSET", "HDEL", "ZADD", "ZREM", "INCR", "SET",
    ][usize::try_from(kind).expect("a small number")];
    let of = match name {
        "LPUSH" | "RPUSH" => "list",
        "SADD" | "SREM" => "set",
        "HSET" | "HMSET" | "HDEL" => "hash",
        "ZADD" | "ZREM" => "zset",
        _ => "text",
    };
    let mut command = argv![name, format!("{of}:{key}")];
    let element = |rng: &mut Rng| format!("e{}", rng.below(300)).into_bytes();
    for _ in 0..words {
        match name {
            "INCR" => {}
            "SET" => {
                command.push(rng.below(1000).to_string().into_bytes());
                return command;
            }
            "HSET" | "HMSET" => {
                command.push(element(rng));
                let len = if rng.one_in(50) { 6000 } else { rng.below(40) };
                command.push(rng.bytes(usize::try_from(len).expect("small")));
            }
            "ZADD" => {
                command.push(rng.below(100).to_string().into_bytes());
                command.push(element(rng));
            }
            _ => command.push(element(rng)),
        }
    }
    if name == "ZADD" && rng.one_in(30) {
        command.insert(2, b"GT".to_vec());
    }
    command
}

/// A run of commands of one kind at one key, of another number of words now and then.
fn run(rng: &mut Rng) -> Vec<Argv> {
    let (kind, key, words) = (rng.below(11), rng.below(KEYS), rng.within(1..4));
    let in_transaction = rng.one_in(4);
    let mut commands = vec![argv!["SELECT", rng.pick(&DBS)]];
    commands.extend(in_transaction.then(|| argv!["MULTI"]));
    for _ in 0..rng.within(1..300) {
        let words = if rng.one_in(20) { 3 } else { words };
        commands.push(command(rng, kind, key, words));
    }
    if in_transaction {
        commands.push(argv![if rng.one_in(5) { "DISCARD" } else { "EXEC" }]);
    }
    commands
}

fn calls(server: &Server, command: &str) -> u64 {
    let stats = server.client().info("commandstats");
    let line = stats.get(&format!("cmdstat_{command}"));
    let calls = line.and_then(|line| line.strip_prefix("calls=")?.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

/// Puts something of another type in the place of keys at the target.
fn spoil(target: &Server, rng: &mut Rng) {
    let mut client = target.client();
    client.select(*rng.pick(&DBS));
    let (of, key) = (*rng.pick(&["list", "set", "hash", "zset"]), rng.below(KEYS));
    let key = format!("{of}:{key}");
    client.commands(&[
        argv!["MULTI"],
        argv!["DEL", key],
        argv!["SET", key, "wrong"],
        argv!["EXEC"],
    ]);
}

fn go_as_one(from: &str, to: &str) {
    let mut rng = rng();
    let (source, target) = (source_of(from), Server::of(to));
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    for round in 0..from_env("UNDERSTUDY_RUNS", 60) {
        for _ in 0..10 {
            client.commands(&run(&mut rng));
        }
        if round % 7 == 3 {
            spoil(&target, &mut rng);
        }
        if round % 10 == 5 {
            std::thread::sleep(Duration::from_millis(rng.below(30)));
            daemon.restart();
            wait_stream(&mut daemon);
        }
    }
    // Each key is written once more, with what it cannot have yet: a write without effect is not in the stream, and would let
    // damage go unnoticed.
    for db in DBS {
        client.select(db);
        for key in 0..KEYS {
            client.commands(&[
                argv!["RPUSH", format!("list:{key}"), "last"],
                argv!["SADD", format!("set:{key}"), "last"],
                argv!["HSET", format!("hash:{key}"), "last", "1"],
                argv!["ZADD", format!("zset:{key}"), "1", "last"],
            ]);
        }
    }
    catch_up(&mut daemon, &source);
    daemon.wait_for("no key is under repair", LIMIT, |daemon| {
        own(daemon, "repairs_open") == Some(0)
    });
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
    for command in [
        "lpush", "rpush", "sadd", "srem", "hset", "hdel", "zadd", "zrem",
    ] {
        let (there, here) = (calls(&source, command), calls(&target, command));
        assert!(
            here > 0 && here < there,
            "{command}: {there} calls became {here}"
        );
    }
}

#[test]
fn runs_at_one_key_are_one_command_at_the_target() {
    go_as_one("redis-7.0", "redis-7.0");
}

#[test]
fn runs_at_one_key_go_to_an_older_target_too() {
    go_as_one("valkey-8.1", "redis-5.0");
}

#[test]
fn the_same_words_in_another_database_do_not_join() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target)
        .with("filter", "block_db = [9]")
        .start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    let mut commands = Vec::new();
    for at in 0..3_000 {
        commands.push(argv!["SELECT", [0, 3, 9][at % 3]]);
        commands.extend((0..=at % 4).map(|_| argv!["RPUSH", "list", "the same"]));
    }
    client.commands(&commands);
    catch_up(&mut daemon, &source);
    let mut there = target.client();
    for (db, is_there) in [(0, true), (3, true), (9, false)] {
        client.select(db);
        there.select(db);
        let length = client.command(&argv!["LLEN", "list"]);
        let expected = if is_there { number(&length) } else { Some(0) };
        let found = number(&there.command(&argv!["LLEN", "list"]));
        assert_eq!(found, expected, "database {db}");
    }
}
