//! Values rebuilt by commands are to a client the same as those restored: every type, on targets without RESTORE, and
//! streams that are too large to be restored.
//!
//! Not compared where there is no RESTORE: when consumers were last seen and active, which no command can set, and how
//! many messages of producers a stream has recognised.

use e2e::{LIMIT, Link, catch_up, rng, source_of, wait_stream};
use testkit::client::{items, text};
use testkit::oracle::{self, OracleOptions};
use testkit::{Client, Daemon, Server, argv, workload};

/// Its entry of a listpack takes 16,383 bytes, whose size servers write in two ways.
const BOUNDARY_BYTES: usize = 16_378;

/// Turns RESTORE off.
const NO_RESTORE: &str = "target_redis_proto_max_bulk_len = 0";

/// Brings everything to the target and compares.
fn copies(source: &Server, target: &Server, link: Link, options: &OracleOptions) -> Daemon {
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, source);
    let mut found = oracle::compare_with(&source.address(), &target.address(), options);
    if !options.consumer_times {
        // Like the times of consumers: no command sets how many doubles were refused.
        found.retain(|difference| !difference.what.starts_with("producers' counts: "));
    }
    assert!(
        found.is_empty(),
        "{}",
        found
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
    );
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    daemon
}

fn by_commands(from: &str, to: &str) {
    let (source, target) = (source_of(from), Server::of(to));
    fill(&source);
    let link = Link::new(&source, &target).with("advanced", NO_RESTORE);
    copies(&source, &target, link, &OracleOptions::default());
    for key in ["stream:produced", "stream:configured"] {
        let info = |server: &Server| idempotence(&mut server.client(), key);
        assert_eq!(info(&source), info(&target), "{key}");
    }
}

/// Everything that a source of this version can have and that needs care.
fn fill(source: &Server) {
    let mut client = source.client();
    workload::fill(&mut client, rng().number(), 600);
    let version = source.engine().version;
    let mut run = |words: &str| {
        client.command(&argv_of(words));
    };
    for (place, number) in [
        "007",
        "-0",
        "9223372036854775808",
        "-9223372036854775808",
        "+1",
    ]
    .iter()
    .enumerate()
    {
        run(&format!("SET special:text:{place} {number}"));
        run(&format!("RPUSH special:list {number}"));
        run(&format!("HSET special:hash {place} {number}"));
    }
    for member in 0..200 {
        run(&format!("ZADD special:zset {member}.5 m{member}"));
    }
    run("ZADD special:zset -0.0 negative-zero inf infinite 5e-324 least");
    run("SET special:\\xff\\x00\\r\\n binary");
    let long = "long".repeat(9000 / 4);
    run(&format!("RPUSH special:long a {long} b {long}"));
    streams(&mut run, version.redis(7, 0));
    if version.has_functions() {
        run(
            "FUNCTION LOAD REPLACE #!lua\\x20name=special\\nredis.register_function('f',function()return\\x201\\x20end)",
        );
    }
    if version.has_field_ttl() {
        for field in 0..5000 {
            run(&format!("HSET special:ttl f{field} v"));
        }
        run("HPEXPIREAT special:ttl 4102444800000 FIELDS 3 f1 f2 f4999");
        run("HPEXPIREAT special:ttl 4102444900000 FIELDS 1 f7");
    }
    if version.redis(8, 8) {
        run("XGROUP CREATE stream:pending third 5-0");
        run("XNACK stream:pending group SILENT IDS 2 4-0 2-0 RETRYCOUNT 5");
        run("ARMSET array 0 x 1 007 99 1.5 18446744073709551614 last");
        run("ARSEEK array 18446744073709551614");
        run("ARSET array:plain 5 x y z");
        run("HIMPORT PREPARE template f g h");
        run("HIMPORT SET template:hash template a b c");
    }
    if version.redis(8, 6) {
        run("XADD stream:produced 1-0 f v");
        run("XADD stream:produced IDMP producer first * f v");
        run("XADD stream:produced IDMP producer second * f v");
        run("XADD stream:produced IDMP producer second * f v");
        run("XADD stream:configured 1-0 f v");
        run("XCFGSET stream:configured IDMP-DURATION 300 IDMP-MAXSIZE 7");
    }
}

/// Streams with something that is easily lost.
fn streams(run: &mut impl FnMut(&str), counters: bool) {
    for ms in 1..=9 {
        run(&format!("XADD stream:pending {ms}-0 f v{ms}"));
    }
    run("XGROUP CREATE stream:pending group 0");
    run("XGROUP CREATE stream:pending other $");
    run("XREADGROUP GROUP group one COUNT 4 STREAMS stream:pending >");
    run("XREADGROUP GROUP group two COUNT 3 STREAMS stream:pending >");
    run("XREADGROUP GROUP group idle STREAMS stream:pending 0");
    run("XCLAIM stream:pending group two 0 3-0 TIME 1700000000000 RETRYCOUNT 9");
    run("XDEL stream:pending 2-0 7-0 9-0");
    run("XADD stream:trimmed 1-0 f v");
    run("XADD stream:trimmed 2-0 f v");
    run("XGROUP CREATE stream:trimmed group 0");
    run("XREADGROUP GROUP group one STREAMS stream:trimmed >");
    run("XADD stream:trimmed MAXLEN 1 3-0 f v");
    run("XGROUP CREATE stream:empty:new group $ MKSTREAM");
    run("XADD stream:empty:deleted 5-0 f v");
    run("XDEL stream:empty:deleted 5-0");
    run("XADD stream:empty:pending 5-0 f v");
    run("XGROUP CREATE stream:empty:pending group 0");
    run("XREADGROUP GROUP group one STREAMS stream:empty:pending >");
    run("XDEL stream:empty:pending 5-0");
    run("XADD stream:ahead 5-0 f v");
    run("XSETID stream:ahead 99-7");
    if counters {
        run("XADD stream:counted 5-0 f v");
        run("XSETID stream:counted 99-7 ENTRIESADDED 1000 MAXDELETEDID 80-1");
        run("XGROUP CREATE stream:counted group 90-0 ENTRIESREAD 900");
    }
    let value = "v".repeat(BOUNDARY_BYTES);
    run(&format!("XADD stream:boundary 1-0 field {value}"));
    run("XADD stream:boundary 2-0 field v");
}

/// Words with `\xff`, `\n` and `\r` for bytes.
fn argv_of(words: &str) -> Vec<Vec<u8>> {
    words.split(' ').map(bytes_of).collect()
}

fn bytes_of(word: &str) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), word);
    while let Some((before, after)) = rest.split_once('\\') {
        out.extend_from_slice(before.as_bytes());
        let (byte, len) = match after.as_bytes()[0] {
            b'n' => (b'\n', 1),
            b'r' => (b'\r', 1),
            _ => (
                u8::from_str_radix(&after[1..3], 16).expect("hexadecimal"),
                3,
            ),
        };
        out.push(byte);
        rest = &after[len..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

/// What a stream says of its producers, but for the numbers that no command sets.
fn idempotence(client: &mut Client, key: &str) -> Vec<(String, String)> {
    let Ok(reply) = client.try_command(&argv!["XINFO", "STREAM", key]) else {
        return Vec::new();
    };
    let words: Vec<String> = items(reply).iter().map(text).collect();
    let pairs = words
        .chunks_exact(2)
        .map(|pair| (pair[0].clone(), pair[1].clone()));
    let known = [
        "idmp-duration",
        "idmp-maxsize",
        "pids-tracked",
        "iids-tracked",
    ];
    pairs
        .filter(|(name, _)| known.contains(&name.as_str()))
        .collect()
}

#[test]
fn redis_5_0_by_commands() {
    by_commands("redis-5.0", "redis-5.0");
}

#[test]
fn redis_6_0_by_commands() {
    by_commands("redis-6.0", "redis-6.0");
}

#[test]
fn redis_6_2_to_redis_6_2_by_commands() {
    by_commands("redis-6.2", "redis-6.2");
}

#[test]
fn redis_7_0_to_redis_7_2_by_commands() {
    by_commands("redis-7.0", "redis-7.2");
}

#[test]
fn redis_7_4_to_redis_8_0_by_commands() {
    by_commands("redis-7.4", "redis-8.0");
}

#[test]
fn redis_8_6_by_commands() {
    by_commands("redis-8.6", "redis-8.6");
}

#[test]
fn redis_8_10_by_commands() {
    by_commands("redis-8.10", "redis-8.10");
}

#[test]
fn redis_7_2_to_valkey_9_1_by_commands() {
    by_commands("redis-7.2", "valkey-9.1");
}

#[test]
fn valkey_9_1_by_commands() {
    by_commands("valkey-9.1", "valkey-9.1");
}

/// With RESTORE, the values that it would not take well across the line between the two ways of writing a size, and
/// streams of several megabytes, whose messages follow what is restored.
fn in_two_parts(from: &str, to: &str) {
    let (source, target) = (source_of(from), Server::of(to));
    let mut client = source.client();
    let version = source.engine().version;
    streams(
        &mut |words| {
            client.command(&argv_of(words));
        },
        version.redis(7, 0),
    );
    at_the_boundary(&mut client);
    let filler = "f".repeat(20_000);
    for ms in 1..=150 {
        let id = format!("{ms}-1");
        client.command(&argv!["XADD", "stream:large", id, "f", filler, "g", ms]);
    }
    client.command(&argv!["XGROUP", "CREATE", "stream:large", "group", "0"]);
    for consumer in ["one", "two", "idle"] {
        let read = [
            "XREADGROUP",
            "GROUP",
            "group",
            consumer,
            "COUNT",
            "30",
            "STREAMS",
            "stream:large",
        ];
        let from = if consumer == "idle" { "0" } else { ">" };
        let words: Vec<Vec<u8>> = read
            .iter()
            .chain([&from])
            .map(|word| word.as_bytes().to_vec())
            .collect();
        client.command(&words);
    }
    client.command(&argv!["XDEL", "stream:large", "7-1", "50-1", "150-1"]);
    let link = Link::new(&source, &target);
    let options = OracleOptions {
        consumer_times: true,
        ..OracleOptions::default()
    };
    copies(&source, &target, link, &options);
    assert_eq!(
        items(
            target
                .client()
                .command(&argv!["XREVRANGE", "stream:boundary", "+", "-"])
        )
        .len(),
        2
    );
}

/// Small collections with an element at the boundary.
fn at_the_boundary(client: &mut Client) {
    let value = vec![b'x'; BOUNDARY_BYTES];
    let other: Vec<u8> = (0..BOUNDARY_BYTES)
        .map(|place| (place * 7 % 251) as u8)
        .collect();
    for name in [
        "hash-max-ziplist-value",
        "zset-max-ziplist-value",
        "set-max-listpack-value",
    ] {
        // Older servers have no sets of listpacks.
        let _ = client.try_command(&argv!["CONFIG", "SET", name, 20_000]);
    }
    client.command(&argv!["CONFIG", "SET", "list-max-ziplist-size", 1000]);
    for (place, value) in [value, other].iter().enumerate() {
        let key = |kind: &str| format!("boundary:{kind}:{place}");
        client.command(&argv![
            "HSET",
            key("hash"),
            "a",
            "b",
            "field",
            value,
            "c",
            "d"
        ]);
        client.command(&argv!["RPUSH", key("list"), "a", value, "b"]);
        client.command(&argv!["SADD", key("set"), "a", value, "b"]);
        client.command(&argv!["ZADD", key("zset"), 1, "a", 2, value, 3, "b"]);
    }
}

#[test]
fn redis_5_0_in_two_parts() {
    in_two_parts("redis-5.0", "redis-5.0");
}

#[test]
fn redis_6_2_to_redis_7_0_in_two_parts() {
    in_two_parts("redis-6.2", "redis-7.0");
}

#[test]
fn redis_7_2_to_redis_8_10_in_two_parts() {
    in_two_parts("redis-7.2", "redis-8.10");
}

#[test]
fn redis_8_10_to_redis_8_0_in_two_parts() {
    in_two_parts("redis-8.10", "redis-8.0");
}

#[test]
fn redis_8_6_to_redis_8_6_in_two_parts() {
    in_two_parts("redis-8.6", "redis-8.6");
}

#[test]
fn redis_7_2_to_valkey_9_1_in_two_parts() {
    in_two_parts("redis-7.2", "valkey-9.1");
}

#[test]
fn valkey_9_1_to_redis_8_0_in_two_parts() {
    in_two_parts("valkey-9.1", "redis-8.0");
}

#[test]
fn valkey_8_1_to_valkey_9_1_in_two_parts() {
    in_two_parts("valkey-8.1", "valkey-9.1");
}
