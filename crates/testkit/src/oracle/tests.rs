//! Every kind of difference is found, on real servers.

use super::*;
use crate::server::Server;

struct Case {
    name: &'static str,
    /// Both servers get these.
    both: &'static [&'static str],
    /// Only the target gets these.
    target: &'static [&'static str],
    /// What the difference says.
    says: &'static str,
}

const fn case(
    name: &'static str,
    both: &'static [&'static str],
    target: &'static [&'static str],
    says: &'static str,
) -> Case {
    Case {
        name,
        both,
        target,
        says,
    }
}

const CASES: &[Case] = &[
    case(
        "missing",
        &["SET k v"],
        &["DEL k"],
        "is missing at the target",
    ),
    case("extra", &[], &["SET k v"], "is only at the target"),
    case(
        "type",
        &["SET k v"],
        &["DEL k", "RPUSH k v"],
        "type: source string, target list",
    ),
    case(
        "string",
        &["SET k abcdef"],
        &["SETRANGE k 3 X"],
        "from byte 3",
    ),
    case(
        "list order",
        &["RPUSH k a b c"],
        &["LSET k 1 c", "LSET k 2 b"],
        "item 1",
    ),
    case(
        "list length",
        &["RPUSH k a b"],
        &["RPUSH k c"],
        "2 items at the source, 3 at the target",
    ),
    case(
        "set member missing",
        &["SADD k a b"],
        &["SREM k b"],
        "member b is missing",
    ),
    case(
        "set member extra",
        &["SADD k a b"],
        &["SADD k c"],
        "member c is too much",
    ),
    case(
        "score",
        &["ZADD k 1 a"],
        &["ZADD k 1.0000000000000002 a"],
        "member a: score",
    ),
    case(
        "infinity",
        &["ZADD k inf a"],
        &["ZADD k -inf a"],
        "score: source inf",
    ),
    case(
        "hash value",
        &["HSET k f v"],
        &["HSET k f w"],
        "field f: value",
    ),
    case(
        "hash field",
        &["HSET k f v"],
        &["HSET k g w"],
        "field g is too much",
    ),
    case(
        "expiry missing",
        &["SET k v PXAT 9999999999999"],
        &["PERSIST k"],
        "expiry: source Some",
    ),
    case(
        "expiry extra",
        &["SET k v"],
        &["PEXPIREAT k 9999999999999"],
        "expiry: source None",
    ),
    case(
        "expiry by 1 ms",
        &["SET k v PXAT 9999999999999"],
        &["PEXPIREAT k 9999999999998"],
        "expiry",
    ),
    case(
        "entry",
        &["XADD k 1-1 f v"],
        &["XADD k 2-1 f v"],
        "1 entries at the source",
    ),
    case(
        "last id",
        &["XADD k 1-1 f v"],
        &["XSETID k 5-0"],
        "last id: source \"1-1\"",
    ),
    case(
        "deleted id",
        &["XADD k 1-1 f v", "XADD k 2-1 f v"],
        &[
            "XADD k 3-1 f v",
            "XDEL k 3-1",
            "XSETID k 3-1 ENTRIESADDED 2 MAXDELETEDID 3-1",
        ],
        "last id",
    ),
    case(
        "entries added",
        &["XADD k 1-1 f v"],
        &["XSETID k 1-1 ENTRIESADDED 7 MAXDELETEDID 0-0"],
        "entries added: source 1",
    ),
    case(
        "largest deleted",
        &["XADD k 5-1 f v"],
        &["XSETID k 5-1 ENTRIESADDED 1 MAXDELETEDID 2-0"],
        "largest deleted id",
    ),
    case(
        "group",
        &["XADD k 1-1 f v"],
        &["XGROUP CREATE k g 0"],
        "group g is too much",
    ),
    case(
        "group id",
        &["XADD k 1-1 f v", "XGROUP CREATE k g 0"],
        &["XGROUP SETID k g 1-1"],
        "group g: last id",
    ),
    case(
        "entries read",
        &["XADD k 1-1 f v", "XGROUP CREATE k g 0 ENTRIESREAD 0"],
        &["XGROUP SETID k g 0 ENTRIESREAD 1"],
        "group g: entries read",
    ),
    case(
        "idle consumer",
        &["XGROUP CREATE k g 0 MKSTREAM"],
        &["XGROUP CREATECONSUMER k g c"],
        "consumer c is too much",
    ),
    case(
        "pending",
        &[
            "XADD k 1-1 f v",
            "XGROUP CREATE k g 1-1",
            "XGROUP CREATECONSUMER k g c",
        ],
        &["XCLAIM k g c 0 1-1 FORCE JUSTID TIME 1000 RETRYCOUNT 1"],
        "pending entry 1-1 is too much",
    ),
    case(
        "pending consumer",
        &[
            "XADD k 1-1 f v",
            "XGROUP CREATE k g 1-1",
            "XGROUP CREATECONSUMER k g d",
            "XCLAIM k g c 0 1-1 FORCE JUSTID TIME 1000 RETRYCOUNT 1",
        ],
        &["XCLAIM k g d 0 1-1 JUSTID TIME 1000 RETRYCOUNT 1"],
        "consumer: source \"c\", target \"d\"",
    ),
    case(
        "deliveries",
        &[
            "XADD k 1-1 f v",
            "XGROUP CREATE k g 1-1",
            "XCLAIM k g c 0 1-1 FORCE JUSTID TIME 1000 RETRYCOUNT 1",
        ],
        &["XCLAIM k g c 0 1-1 JUSTID TIME 1000 RETRYCOUNT 9"],
        "deliveries: source 1, target 9",
    ),
    case(
        "delivery time",
        &[
            "XADD k 1-1 f v",
            "XGROUP CREATE k g 1-1",
            "XCLAIM k g c 0 1-1 FORCE JUSTID TIME 1000 RETRYCOUNT 1",
        ],
        &["XCLAIM k g c 0 1-1 JUSTID TIME 1001 RETRYCOUNT 1"],
        "delivered: source 1000, target 1001",
    ),
    case(
        "other db",
        &["SET k v"],
        &["MOVE k 3"],
        "is missing at the target",
    ),
];

fn play(client: &mut Client, lines: &[&str]) {
    for line in lines {
        let argv: Vec<Vec<u8>> = line
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        client.command(&argv);
    }
}

#[test]
fn every_kind_of_difference_is_found_and_nothing_else() {
    let (source, target) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    let (mut at_source, mut at_target) = (source.client(), target.client());
    let options = OracleOptions {
        rounds: 1,
        ..OracleOptions::default()
    };
    for case in CASES {
        for client in [&mut at_source, &mut at_target] {
            client.command(&argv!["FLUSHALL"]);
            play(client, case.both);
        }
        let found = compare_with(&source.address(), &target.address(), &options);
        assert_eq!(found, [], "{}: the same data", case.name);
        play(&mut at_target, case.target);
        let found = compare_with(&source.address(), &target.address(), &options);
        assert!(!found.is_empty(), "{}: not found", case.name);
        let says = found[0].to_string();
        assert!(
            says.contains(case.says) && says.contains("key k"),
            "{}: {says}",
            case.name
        );
    }
}

#[test]
fn functions_and_field_expiries_are_compared() {
    let (source, target) = (Server::of("redis-7.4"), Server::of("redis-7.4"));
    let (mut at_source, mut at_target) = (source.client(), target.client());
    for client in [&mut at_source, &mut at_target] {
        play(
            client,
            &["HSET k f v", "HPEXPIREAT k 9999999999999 FIELDS 1 f"],
        );
        client.command(&argv![
            "FUNCTION",
            "LOAD",
            "#!lua name=l\nredis.register_function('f', function() end)"
        ]);
    }
    assert_equal(&source.address(), &target.address());
    play(
        &mut at_target,
        &["HPEXPIREAT k 9999999999998 FIELDS 1 f", "FUNCTION DELETE l"],
    );
    let found = compare(&source.address(), &target.address());
    let says: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(says.len(), 2, "{says:?}");
    assert!(says[0].contains("field f: expiry"), "{says:?}");
    assert_eq!(says[1], "function library l: is missing at the target");
}

#[test]
fn own_keys_are_left_out_and_digests_can_leave_them_out_too() {
    let (source, target) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    let (mut at_source, mut at_target) = (source.client(), target.client());
    play(&mut at_source, &["SET k v"]);
    play(
        &mut at_target,
        &["SET k v", "SELECT 2", "SET {x}understudy:1 v"],
    );
    assert_equal(&source.address(), &target.address());
    assert_ne!(digest(&mut at_source, None), digest(&mut at_target, None));
    assert_eq!(
        digest(&mut at_source, None),
        digest(&mut at_target, Some("*understudy*"))
    );
}

#[test]
fn zeros_of_both_signs_are_one_score() {
    let (source, target) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    let (mut at_source, mut at_target) = (source.client(), target.client());
    // In a listpack the sign is lost; a long member makes it a skiplist.
    play(&mut at_source, &["ZADD k -0.0 short 1 a"]);
    let long = "m".repeat(70);
    let zadd = format!("ZADD k -0.0 short 1 a 2 {long}");
    play(&mut at_target, &[&zadd, &format!("ZREM k {long}")]);
    assert_equal(&source.address(), &target.address());
}

#[test]
fn an_older_server_is_compared_by_what_it_can_tell() {
    let (source, target) = (Server::of("redis-5.0"), Server::of("redis-8.0"));
    let (mut at_source, mut at_target) = (source.client(), target.client());
    for client in [&mut at_source, &mut at_target] {
        play(
            client,
            &[
                "SET s v",
                "PEXPIREAT s 4000000000000",
                "XADD x 1-1 f v",
                "XGROUP CREATE x g 0",
            ],
        );
        play(
            client,
            &[
                "XADD x 2-1 f v",
                "XCLAIM x g c 0 1-1 FORCE JUSTID TIME 1700000000000 RETRYCOUNT 3",
            ],
        );
    }
    assert_equal(&source.address(), &target.address());
    play(
        &mut at_target,
        &[
            "PEXPIREAT s 4000000001000",
            "XCLAIM x g c 0 1-1 JUSTID TIME 1700000001000 RETRYCOUNT 3",
        ],
    );
    let found = compare(&source.address(), &target.address());
    let says: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(says.len(), 2, "{says:?}");
    assert!(
        says[0].contains("key s: expiry") && says[1].contains("delivered"),
        "{says:?}"
    );
}
