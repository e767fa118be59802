//! Filters let through what they should and nothing else, in the snapshot and in the stream alike.

use std::collections::{BTreeMap, BTreeSet};

use e2e::{Link, catch_up, source_of, wait_stream};
use testkit::client::{bytes, text};
use testkit::oracle::{self, OracleOptions};
use testkit::{Server, argv};

const DBS: [u32; 4] = [0, 1, 2, 3];
const NAMES: [&str; 5] = ["user:1", "user:2", "cart:1", "cart:tmp", "session"];

/// Keys of three types under each name, in each db; `round` tells when they were written.
fn write(source: &Server, round: &str) {
    let mut client = source.client();
    for db in DBS {
        client.select(db);
        for name in NAMES {
            client.command(&argv!["SET", format!("{name}:{round}:text"), db]);
            client.command(&argv!["RPUSH", format!("{name}:{round}:list"), "a", db]);
            client.command(&argv!["HSET", format!("{name}:{round}:hash"), "f", db]);
        }
        // Commands with keys on both sides of a filter.
        let (user, cart) = (format!("user:{round}:m"), format!("cart:{round}:m"));
        client.command(&argv!["MSET", user, 1, cart, 2]);
        client.command(&argv![
            "MSET",
            format!("user:{round}:d"),
            1,
            format!("cart:{round}:d"),
            2
        ]);
        client.command(&argv![
            "DEL",
            format!("user:{round}:d"),
            format!("cart:{round}:d")
        ]);
        // From one side to the other.
        for (from, to) in [("user", "cart"), ("cart", "user")] {
            let (from, to) = (format!("{from}:{round}:from"), format!("{to}:{round}:to"));
            client.command(&argv!["SADD", format!("{from}:set"), "a", "b"]);
            client.command(&argv![
                "SMOVE",
                format!("{from}:set"),
                format!("{to}:set"),
                "a"
            ]);
            client.command(&argv!["RPUSH", format!("{from}:list"), "a", "b", "c"]);
        }
        let (user, cart) = (format!("user:{round}:gone"), format!("cart:{round}:gone"));
        client.command(&argv!["SET", user, 1]);
        client.command(&argv!["RENAME", user, cart]);
        client.command(&argv!["RPUSH", format!("user:{round}:q"), "a", "b", "c"]);
        for (pop, side) in [("LEFT", "RIGHT"), ("RIGHT", "LEFT")] {
            let (user, cart) = (format!("user:{round}:q"), format!("cart:{round}:q"));
            client.command(&argv!["LMOVE", user, cart, pop, side]);
        }
        client.command(&argv![
            "COPY",
            format!("user:{round}:q"),
            format!("cart:{round}:copy")
        ]);
        client.command(&argv!["MULTI"]);
        client.command(&argv!["INCR", format!("user:{round}:tx")]);
        client.command(&argv!["INCR", format!("cart:{round}:tx")]);
        client.command(&argv!["EXEC"]);
    }
}

/// Value of every key by db and name, as DUMP writes it.
fn contents(server: &Server) -> BTreeMap<(u32, String), Vec<u8>> {
    let mut client = server.client();
    let mut found = BTreeMap::new();
    for db in client.keyspace().into_keys() {
        client.select(db);
        for key in client.keys() {
            let value = bytes(client.command(&argv!["DUMP", key]));
            found.insert((db, String::from_utf8_lossy(&key).into_owned()), value);
        }
    }
    found.retain(|(_, key), _| !key.contains("understudy"));
    found
}

/// Runs a filter over both phases; `passes` says what it should let through.
fn lets_through(line: &str, passes: impl Fn(u32, &str) -> bool) {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    write(&source, "before");
    let mut link = Link::new(&source, &target);
    for line in line.split('\n') {
        link = link.with("filter", line.trim());
    }
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    write(&source, "after");
    catch_up(&mut daemon, &source);
    let mut expected = contents(&source);
    expected.retain(|(db, key), _| passes(*db, key));
    let found = contents(&target);
    let (expected_keys, found_keys): (BTreeSet<_>, BTreeSet<_>) =
        (expected.keys().collect(), found.keys().collect());
    assert_eq!(found_keys, expected_keys, "{line}");
    assert_eq!(found, expected, "{line}");
    assert!(!expected.is_empty());
}

#[test]
fn by_db() {
    lets_through("allow_db = [1, 3]", |db, _| [1, 3].contains(&db));
    lets_through("block_db = [0, 2]", |db, _| ![0, 2].contains(&db));
}

#[test]
fn by_prefix() {
    lets_through("allow_key_prefix = [\"user:\", \"sess\"]", |_, key| {
        key.starts_with("user:") || key.starts_with("sess")
    });
    lets_through("block_key_prefix = [\"cart:\"]", |_, key| {
        !key.starts_with("cart:")
    });
}

#[test]
fn by_suffix_key_and_pattern() {
    lets_through("allow_key_suffix = [\":list\", \":m\"]", |_, key| {
        key.ends_with(":list") || key.ends_with(":m")
    });
    lets_through("block_key_regex = [\"^cart:tmp:\", \"hash$\"]", |_, key| {
        !key.starts_with("cart:tmp:") && !key.ends_with("hash")
    });
    lets_through(
        "block_keys = [\"session:after:text\", \"user:before:m\"]",
        |_, key| key != "session:after:text" && key != "user:before:m",
    );
}

#[test]
fn by_db_and_prefix_together() {
    lets_through(
        "allow_db = [0, 1]\nallow_key_prefix = [\"user:\"]\nblock_key_suffix = [\":hash\"]",
        |db, key| db < 2 && key.starts_with("user:") && !key.ends_with(":hash"),
    );
}

/// What was filtered is counted, so that nobody looks for it elsewhere.
#[test]
fn what_is_dropped_is_counted() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target)
        .with("filter", "allow_db = [1]")
        .start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    for _ in 0..10 {
        client.command(&argv!["INCR", "a"]);
    }
    client.select(1);
    client.command(&argv!["INCR", "a"]);
    catch_up(&mut daemon, &source);
    let metrics = daemon.metrics();
    let dropped: f64 = metrics
        .iter()
        .filter(|(name, _)| name.starts_with("understudy_commands_dropped_total"))
        .map(|(_, count)| count)
        .sum();
    assert!(dropped >= 10.0, "{metrics:?}");
    let options = OracleOptions {
        dbs: Some(vec![1]),
        ..OracleOptions::default()
    };
    oracle::assert_equal_with(&source.address(), &target.address(), &options);
    let mut client = target.client();
    assert_eq!(text(&client.command(&argv!["EXISTS", "a"])), "0");
}
