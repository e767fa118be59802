//! The stream of a newer source, followed by an older target: what it lacks is rewritten, named, or counted.

use e2e::{LIMIT, Link, catch_up, full_syncs, source_of, wait_stream};
use testkit::client::{bytes, number};
use testkit::oracle::{self, OracleOptions};
use testkit::{Client, Daemon, Server, argv};

const WARN: &str = "losses = \"warn\"";

/// Its entry of a listpack takes 16,383 bytes, whose size servers write in two ways.
const BOUNDARY_BYTES: usize = 16_378;

fn link(source: &Server, target: &Server) -> Link {
    Link::new(source, target)
}

fn run(client: &mut Client, words: &str) {
    let words: Vec<&[u8]> = words.split(' ').map(str::as_bytes).collect();
    client.command(&words.iter().map(|word| word.to_vec()).collect::<Vec<_>>());
}

/// How many commands were dropped since the target lacks something.
fn lacking(daemon: &Daemon) -> u64 {
    let status = daemon.status().expect("a status");
    status["understudy"]["commands_dropped"]["target_lacks"]
        .as_u64()
        .unwrap_or_default()
}

fn ends_well(mut daemon: Daemon) {
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
}

#[test]
fn commands_that_the_target_lacks_are_counted_where_losses_are_allowed() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-3.2"));
    let mut client = source.client();
    run(&mut client, "SET before 1");
    let mut daemon = link(&source, &target).with("redis_writer", WARN).start();
    wait_stream(&mut daemon);
    run(&mut client, "XADD stream 1-0 f v");
    for words in ["MULTI", "SET inside 1", "XADD stream 2-0 f v", "EXEC"] {
        run(&mut client, words);
    }
    run(&mut client, "XGROUP CREATE stream g $");
    run(&mut client, "SET after 1");
    catch_up(&mut daemon, &source);
    assert_eq!(lacking(&daemon), 3);
    // All else is there.
    run(&mut client, "DEL stream");
    catch_up(&mut daemon, &source);
    oracle::assert_equal_with(
        &source.address(),
        &target.address(),
        &OracleOptions::default(),
    );
    ends_well(daemon);
}

#[test]
fn a_command_that_the_target_lacks_stops_the_link_before_it_is_sent() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-3.2"));
    let mut client = source.client();
    let mut daemon = link(&source, &target).start();
    wait_stream(&mut daemon);
    run(&mut client, "SET before 1");
    catch_up(&mut daemon, &source);
    run(&mut client, "XADD stream 1-0 f v");
    assert_ne!(daemon.wait(LIMIT), 0);
    let output = daemon.output();
    assert!(
        output.contains("command XADD is not known to the target"),
        "{output}"
    );
    assert!(
        output.contains("redis_writer.losses = \\\"warn\\\" allows it")
            || output.contains("redis_writer.losses = \"warn\" allows it"),
        "{output}"
    );
    // It has not diverged: with the loss allowed it goes on where it was.
    let mut daemon = link(&source, &target).with("redis_writer", WARN).start();
    wait_stream(&mut daemon);
    run(&mut client, "SET after 1");
    catch_up(&mut daemon, &source);
    assert_eq!(
        number(&target.client().command(&argv!["EXISTS", "after"])),
        Some(1)
    );
    assert_eq!(full_syncs(&source), 1);
    ends_well(daemon);
}

/// Groups of a stream, used while the link stands.
fn groups(from: &str, to: &str) {
    let (source, target) = (source_of(from), Server::of(to));
    let mut client = source.client();
    run(&mut client, "XADD stream 1-0 f v");
    let mut daemon = link(&source, &target).start();
    wait_stream(&mut daemon);
    for words in [
        "XADD stream 2-0 f v",
        "XADD stream 3-0 f v",
        "XGROUP CREATE stream g 0 ENTRIESREAD 0",
        "XGROUP CREATE stream h $",
        "XREADGROUP GROUP g one COUNT 1 STREAMS stream >",
        "XREADGROUP GROUP g two NOACK COUNT 1 STREAMS stream >",
        "XGROUP CREATECONSUMER stream g idle",
        "XGROUP SETID stream h 2-0 ENTRIESREAD 2",
        "XACK stream g 1-0",
        "XSETID stream 9-0 ENTRIESADDED 7 MAXDELETEDID 2-0",
    ] {
        run(&mut client, words);
    }
    catch_up(&mut daemon, &source);
    oracle::assert_equal_with(
        &source.address(),
        &target.address(),
        &OracleOptions::default(),
    );
    ends_well(daemon);
}

#[test]
fn groups_of_redis_7_0_at_redis_6_2() {
    groups("redis-7.0", "redis-6.2");
}

#[test]
fn groups_of_redis_7_0_at_redis_6_0() {
    groups("redis-7.0", "redis-6.0");
}

/// `RESTORE` in the stream, of values that the target does not take as they are.
fn restores(from: &str, to: &str) {
    let (source, target) = (source_of(from), Server::of(to));
    let mut client = source.client();
    let mut daemon = link(&source, &target).start();
    wait_stream(&mut daemon);
    run(&mut client, "CONFIG SET hash-max-listpack-value 20000");
    run(&mut client, "CONFIG SET rdbcompression yes");
    let value = vec![b'x'; BOUNDARY_BYTES];
    client.command(&argv!["HSET", "hash", "a", "b", "field", value]);
    client.command(&argv!["XADD", "stream", "1-0", "field", value]);
    run(&mut client, "XADD stream 2-0 f v");
    run(&mut client, "XGROUP CREATE stream g 0");
    run(
        &mut client,
        "XREADGROUP GROUP g one COUNT 1 STREAMS stream >",
    );
    run(&mut client, "SET old:hash old");
    for key in ["hash", "stream"] {
        let payload = bytes(client.command(&argv!["DUMP", key]));
        let mut restore = |to: &str, ttl: &str, options: &str| {
            let name = format!("{to}:{key}");
            let mut words = argv!["RESTORE", name, ttl, payload];
            let options = options.split(' ').filter(|word| !word.is_empty());
            words.extend(options.map(|word| word.as_bytes().to_vec()));
            client.command(&words);
        };
        restore("plain", "0", "");
        restore("old", "0", "REPLACE");
        restore("ttl", "3600000", "");
        restore("absolute", "4102444800000", "ABSTTL");
        restore("idle", "0", "REPLACE IDLETIME 1000");
        run(&mut client, "MULTI");
        let words = argv![
            "RESTORE",
            format!("inside:{key}"),
            "4102444800000",
            payload,
            "ABSTTL",
            "REPLACE"
        ];
        client.command(&words);
        run(&mut client, "INCR inside");
        run(&mut client, "EXEC");
    }
    catch_up(&mut daemon, &source);
    oracle::assert_equal_with(
        &source.address(),
        &target.address(),
        &OracleOptions::default(),
    );
    // Reading is what a target dies of.
    let read = bytes(target.client().command(&argv!["HGET", "old:hash", "field"]));
    assert_eq!(read, value);
    ends_well(daemon);
}

#[test]
fn restores_of_redis_8_10_at_redis_8_0() {
    restores("redis-8.10", "redis-8.0");
}

#[test]
fn restores_of_redis_8_6_at_redis_8_10() {
    restores("redis-8.6", "redis-8.10");
}

#[test]
fn restores_of_valkey_9_1_at_valkey_8_1() {
    restores("valkey-9.1", "valkey-8.1");
}

/// Above this a value is not restored in one piece.
const LARGE_BYTES: usize = 1 << 20;

/// Values of more than a MiB, of each kind that a target of 3.2 has, some that die.
fn large_values(source: &Server) {
    let mut client = source.client();
    let mut rng = e2e::rng();
    client.command(&argv![
        "SET",
        "large:string",
        rng.bytes(3 * LARGE_BYTES + 5)
    ]);
    client.command(&argv!["SET", "large:dying", rng.bytes(2 * LARGE_BYTES)]);
    client.command(&argv!["SETBIT", "large:zeros", 20 * LARGE_BYTES, 1]);
    client.command(&argv![
        "RPUSH",
        "large:item",
        "a",
        rng.bytes(2 * LARGE_BYTES),
        "z"
    ]);
    for (word, key) in [
        ("RPUSH", "large:list"),
        ("SADD", "large:set"),
        ("ZADD", "large:zset"),
        ("HMSET", "large:hash"),
    ] {
        for chunk in 0..20 {
            let mut words = argv![word, key];
            for index in chunk * 2_000..(chunk + 1) * 2_000 {
                // Not to be compressed below the limit.
                let element = [format!("{index}:").into_bytes(), rng.bytes(30)].concat();
                match word {
                    "ZADD" => words.extend([format!("{}.5", index / 3).into_bytes(), element]),
                    "HMSET" => words.extend([element, rng.bytes(20)]),
                    _ => words.push(element),
                }
            }
            client.command(&words);
        }
    }
    client.command(&argv![
        "ZADD",
        "large:zset",
        "-0.0",
        "negative zero",
        "-inf",
        "least"
    ]);
    for key in ["large:dying", "large:hash", "large:zset"] {
        client.command(&argv!["PEXPIREAT", key, 4_102_444_800_123_u64]);
    }
    client.command(&argv!["SELECT", 3]);
    client.command(&argv!["SET", "large:elsewhere", rng.bytes(2 * LARGE_BYTES)]);
}

/// Keys of the snapshot by type and method, out of the metrics.
fn keys_by(daemon: &Daemon, kind: &str, method: &str) -> f64 {
    let labels = [format!("type=\"{kind}\""), format!("method=\"{method}\"")];
    let metrics = daemon.metrics();
    let of = |name: &str| {
        name.starts_with("understudy_snapshot_keys_total")
            && labels.iter().all(|l| name.contains(l))
    };
    let rows = metrics.iter().filter(|(name, _)| of(name));
    rows.map(|(_, count)| count).sum()
}

fn large_at_3_2(from: &str) {
    let (source, target) = (source_of(from), Server::of("redis-3.2"));
    large_values(&source);
    let mut there = target.client();
    there.command(&argv!["SADD", "large:string", "of another kind"]);
    // So long are the arguments that this target is said to take.
    let bytes_max = format!("target_redis_proto_max_bulk_len = {LARGE_BYTES}");
    let mut daemon = link(&source, &target)
        .with("advanced", &bytes_max)
        .with("redis_writer", "existing_keys = \"replace\"")
        .start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    oracle::assert_equal_with(
        &source.address(),
        &target.address(),
        &OracleOptions::default(),
    );
    // No RESTORE is behind it: SET and APPEND, and the commands of the collections.
    assert_eq!(keys_by(&daemon, "string", "rewrite"), 4.0);
    for (kind, keys) in [("list", 2.0), ("set", 1.0), ("zset", 1.0), ("hash", 1.0)] {
        assert_eq!(keys_by(&daemon, kind, "rewrite"), keys, "{kind}");
    }
    // They are values like others for what follows.
    let mut client = source.client();
    client.command(&argv!["APPEND", "large:string", "more"]);
    client.command(&argv!["SETRANGE", "large:dying", LARGE_BYTES, "more"]);
    client.command(&argv!["ZINCRBY", "large:zset", 1, "negative zero"]);
    client.command(&argv!["LPOP", "large:list"]);
    catch_up(&mut daemon, &source);
    oracle::assert_equal_with(
        &source.address(),
        &target.address(),
        &OracleOptions::default(),
    );
    ends_well(daemon);
}

#[test]
fn large_values_of_redis_3_2_at_redis_3_2() {
    large_at_3_2("redis-3.2");
}

#[test]
fn large_values_of_redis_7_0_at_redis_3_2() {
    large_at_3_2("redis-7.0");
}

/// What is there already stays whole, and what is not comes whole: large values are built beside.
#[test]
fn large_values_beside_keys_of_a_redis_3_2() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-3.2"));
    large_values(&source);
    let mut there = target.client();
    for key in ["large:string", "large:hash"] {
        there.command(&argv!["SET", key, "was there"]);
    }
    let bytes_max = format!("target_redis_proto_max_bulk_len = {LARGE_BYTES}");
    let mut daemon = link(&source, &target)
        .with("advanced", &bytes_max)
        .with("redis_writer", "existing_keys = \"skip\"")
        .start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let mut client = source.client();
    for key in ["large:string", "large:hash"] {
        assert_eq!(bytes(there.command(&argv!["GET", key])), b"was there");
        client.command(&argv!["DEL", key]);
    }
    catch_up(&mut daemon, &source);
    oracle::assert_equal_with(
        &source.address(),
        &target.address(),
        &OracleOptions::default(),
    );
    ends_well(daemon);
}
