//! Events of a snapshot -> commands for the target.

mod common;

use bytes::Bytes;
use expect_test::expect;
use rdb::types::StreamForm;
use rdb::{Db, Dialect, Encoding, Event, KeyHead, Kind, RdbVersion, Score, Want};
use rewrite::{Filter, FilterRules, Fork, LeaseRule, Losses, SnapshotOptions, SnapshotRewriter};

use common::snapshot::*;

#[test]
fn strings() {
    let value = || vec![Event::String(text("v"))];
    check(
        redis("7.0.15"),
        string(),
        value(),
        expect![[r#"
        Elements
        SET k v -- Set Ok.
    "#]],
    );
    check(
        redis("7.0.15"),
        until(string()),
        value(),
        expect![[r#"
        Elements
        SET k v PXAT 2000000 -- Set Ok.
    "#]],
    );
    check(
        skip(redis("7.0.15")),
        until(string()),
        value(),
        expect![[r#"
            Elements
            SET k v PXAT 2000000 NX -- Set NilMeansExists.
        "#]],
    );
    check(
        redis("6.0.16"),
        until(string()),
        value(),
        expect![[r#"
        Elements
        SET k v -- Set Ok
        PEXPIREAT k 2000000 -- Set Int.
    "#]],
    );
    check(
        skip(redis("6.0.16")),
        until(string()),
        value(),
        expect![[r#"
            Elements
            SET understudy:tmp:{k} v -- Commands Ok
            PEXPIREAT understudy:tmp:{k} 2000000 -- Commands Int
            RENAMENX understudy:tmp:{k} k -- Commands ZeroMeansExists
            UNLINK understudy:tmp:{k} -- Commands Int.
        "#]],
    );
}

#[test]
fn strings_in_parts() {
    let parts = |len| {
        let start = Event::ValueStart {
            kind: Kind::String,
            len,
        };
        vec![
            start,
            Event::StringPart(text("ab")),
            Event::StringPart(text("cde")),
            Event::ValueEnd,
        ]
    };
    check(
        redis("7.0.15"),
        until(string()),
        parts(Some(5)),
        expect![[r#"
            Elements
            SET k abcde PXAT 2000000 -- Set Ok.
        "#]],
    );
    check(
        redis("7.0.15"),
        string(),
        parts(Some(4)),
        expect![[r#"
        Elements
        ! key "k": not as long as announced
    "#]],
    );
    check(
        redis("7.0.15"),
        string(),
        parts(Some(6)),
        expect![[r#"
        Elements
        ! key "k": not as long as announced
    "#]],
    );
    check(
        redis("7.0.15"),
        until(string()),
        parts(None),
        expect![[r#"
        Elements
        SET k ab -- Commands Ok
        APPEND k cde -- Commands Int
        PEXPIREAT k 2000000 -- Commands Int.
    "#]],
    );
    let mut small = redis("7.0.15");
    small.target.bulk_bytes_max = 2;
    check(
        small.clone(),
        string(),
        parts(Some(5)),
        expect![[r#"
        Elements
        SET k ab -- Commands Ok
        APPEND k cd -- Commands Int
        APPEND k e -- Commands Int.
    "#]],
    );
    check(
        skip(small.clone()),
        until(string()),
        vec![Event::String(text("abc"))],
        expect![[r#"
            Elements
            SET understudy:tmp:{k} ab -- Commands Ok
            APPEND understudy:tmp:{k} c -- Commands Int
            PEXPIREAT understudy:tmp:{k} 2000000 -- Commands Int
            RENAMENX understudy:tmp:{k} k -- Commands ZeroMeansExists
            UNLINK understudy:tmp:{k} -- Commands Int.
        "#]],
    );
    let none = vec![
        Event::ValueStart {
            kind: Kind::String,
            len: None,
        },
        Event::ValueEnd,
    ];
    check(
        small,
        string(),
        none,
        expect![[r#"
        Elements
        SET k "" -- Commands Ok.
    "#]],
    );
}

#[test]
fn restored_values() {
    let body = || vec![Event::Raw(text("body"))];
    let idle = KeyHead {
        idle_seconds: Some(7),
        ..until(hash(16))
    };
    check(
        redis("7.0.15"),
        hash(16),
        body(),
        expect![[r#"
        Raw { bytes_max: 524288 }
        RESTORE k 0 \x10body\x0a\x00\x1e\x04ap\xb2Ru= REPLACE -- Restore Ok.
    "#]],
    );
    check(
        redis("7.0.15"),
        idle.clone(),
        body(),
        expect![[r#"
        Raw { bytes_max: 524288 }
        RESTORE k 2000000 \x10body\x0a\x00\x1e\x04ap\xb2Ru= REPLACE ABSTTL IDLETIME 7 -- Restore Ok.
    "#]],
    );
    check(
        redis("8.6.3"),
        KeyHead {
            freq: Some(200),
            ..hash(16)
        },
        body(),
        expect![[r#"
            Raw { bytes_max: 524288 }
            RESTORE k 0 \x10body\x0b\x00w\xdb\xdc\x03O\xcd\x9c\xb4 REPLACE FREQ 200 -- Restore Ok.
        "#]],
    );
    check(
        skip(redis("7.0.15")),
        until(hash(16)),
        body(),
        expect![[r#"
            Raw { bytes_max: 524288 }
            RESTORE k 2000000 \x10body\x0a\x00\x1e\x04ap\xb2Ru= ABSTTL -- Restore OkOrBusyKey.
        "#]],
    );
    check(
        redis("4.0.14"),
        KeyHead {
            type_id: 13,
            ..idle.clone()
        },
        body(),
        expect![[r#"
            Raw { bytes_max: 524288 }
            RESTORE k 0 \x0dbody\x08\x00\x81\xb4\xe3\xear\xc9H\x7f REPLACE -- Restore Ok
            PEXPIREAT k 2000000 -- Restore Int.
        "#]],
    );
    check(
        skip(redis("4.0.14")),
        KeyHead {
            type_id: 13,
            ..idle
        },
        body(),
        expect![[r#"
            Raw { bytes_max: 524288 }
            UNLINK understudy:tmp:{k} -- Restore Int
            RESTORE understudy:tmp:{k} 0 \x0dbody\x08\x00\x81\xb4\xe3\xear\xc9H\x7f -- Restore Ok
            PEXPIREAT understudy:tmp:{k} 2000000 -- Restore Int
            RENAMENX understudy:tmp:{k} k -- Restore ZeroMeansExists
            UNLINK understudy:tmp:{k} -- Restore Int.
        "#]],
    );
    check(
        redis("2.8.17"),
        hash(13),
        body(),
        expect![[r#"
        Raw { bytes_max: 524288 }
        DEL k -- Restore Int
        RESTORE k 0 \x0dbody\x06\x00\xaetg\xd5.\x85\xfe\xd4 -- Restore Ok.
    "#]],
    );
    let mut small = redis("7.0.15");
    small.target.bulk_bytes_max = 10;
    check(
        small,
        hash(16),
        body(),
        expect![[r#"
            Raw { bytes_max: 0 }
            ! key "k": 15 bytes go in one piece, and the target takes 10: raise its proto-max-bulk-len
        "#]],
    );
}

#[test]
fn metadata_of_keys() {
    let with = |head| KeyHead {
        meta: Some(text("m")),
        ..head
    };
    let body = || vec![Event::Raw(text("body"))];
    check(
        redis("8.6.3"),
        with(string()),
        body(),
        expect![[r#"
        Raw { bytes_max: 18446744073709551615 }
        RESTORE k 0 \xf3m\x00body\x0d\x00\xe8IT\xd0\x15ac< REPLACE -- Restore Ok.
    "#]],
    );
    check(
        redis("8.0.6"),
        with(string()),
        body(),
        expect![[r#"
        ! key "k": needs metadata of keys (Redis 8.6), which the target does not have: allow the loss, or filter it out
    "#]],
    );
    let lossy = SnapshotOptions {
        losses: Losses::Allow,
        ..redis("8.0.6")
    };
    check(
        lossy,
        with(string()),
        vec![Event::String(text("v"))],
        expect![[r#"
            Elements
            SET k v -- Set Ok.
        "#]],
    );
}

#[test]
fn collections_by_commands() {
    let mut chunked = redis("6.0.16");
    chunked.chunk_items = 8;
    let words = ["a", "b", "c", "d", "e", "f", "g"];
    check(
        chunked.clone(),
        until(list()),
        items(&words),
        expect![[r#"
        Raw { bytes_max: 524288 }
        UNLINK k -- Commands Int
        RPUSH k a b c d e f -- Commands Int
        RPUSH k g -- Commands Int
        PEXPIREAT k 2000000 -- Commands Int.
    "#]],
    );
    check(
        skip(chunked.clone()),
        until(list()),
        items(&["a"]),
        expect![[r#"
            Raw { bytes_max: 524288 }
            UNLINK understudy:tmp:{k} -- Commands Int
            RPUSH understudy:tmp:{k} a -- Commands Int
            PEXPIREAT understudy:tmp:{k} 2000000 -- Commands Int
            RENAMENX understudy:tmp:{k} k -- Commands ZeroMeansExists
            UNLINK understudy:tmp:{k} -- Commands Int.
        "#]],
    );
    chunked.chunk_bytes = 25;
    check(
        chunked,
        list(),
        items(&["a", "b", "a long item", "c"]),
        expect![[r#"
            Raw { bytes_max: 524288 }
            UNLINK k -- Commands Int
            RPUSH k a b -- Commands Int
            RPUSH k a long item -- Commands Int
            RPUSH k c -- Commands Int.
        "#]],
    );
    let scored = |score| Event::Scored {
        member: text("m"),
        score: Score(score),
    };
    let scores = [
        0.1,
        1e300,
        -5e-324,
        f64::INFINITY,
        f64::NEG_INFINITY,
        -0.0,
        17.0,
    ];
    let zset = [start(Kind::Zset)]
        .into_iter()
        .chain(scores.map(scored))
        .chain([Event::ValueEnd]);
    let mut options = redis("7.0.15");
    options.restore_bytes_max = 0;
    check(
        options,
        head(Kind::Zset, 5, Encoding::BinaryScores),
        zset.collect(),
        expect![[r#"
            Raw { bytes_max: 0 }
            UNLINK k -- Commands Int
            ZADD k 0.1 m 1e300 m -5e-324 m inf m -inf m 17 m -0 m -- Commands Int.
        "#]],
    );
    let two = [("f", "v", None), ("g", "w", None)];
    check(
        redis("3.2.6"),
        hash(16),
        pairs(&two),
        expect![[r#"
        Elements
        DEL k -- Commands Int
        HMSET k f v g w -- Commands Ok.
    "#]],
    );
}

/// A packed set, as small ones are, would keep -0 as 0.
#[test]
fn negative_zeros_come_last() {
    let mut options = redis("7.0.15");
    options.chunk_items = 10;
    let zset = |scores: &[f64]| {
        let scored = scores
            .iter()
            .enumerate()
            .map(|(place, score)| Event::Scored {
                member: text(&format!("m{place}")),
                score: Score(*score),
            });
        [start(Kind::Zset)]
            .into_iter()
            .chain(scored)
            .chain([Event::ValueEnd])
            .collect::<Vec<_>>()
    };
    let head = head(Kind::Zset, 5, Encoding::BinaryScores);
    check(
        options.clone(),
        head.clone(),
        zset(&[1.0, -0.0, 2.0, 3.0, 4.0]),
        expect![[r#"
            Raw { bytes_max: 524288 }
            UNLINK k -- Commands Int
            ZADD k 1 m0 2 m2 3 m3 4 m4 -- Commands Int
            ZADD k -0 m1 -- Commands Int.
        "#]],
    );
    check(
        options,
        head,
        zset(&[-0.0; 6]),
        expect![[r#"
        Raw { bytes_max: 524288 }
        UNLINK k -- Commands Int
        ZADD k 1 m0 1 m1 1 m2 1 m3 -- Commands Int
        ZADD k -0 m0 -0 m1 -0 m2 -0 m3 -- Commands Int
        ZADD k -0 m4 -0 m5 -- Commands Int.
    "#]],
    );
}

#[test]
fn fields_with_times() {
    let fields = [
        ("a", "1", Some(3_000_000)),
        ("b", "2", None),
        ("c", "3", Some(2_000_000)),
        ("d", "4", Some(3_000_000)),
        ("gone", "5", Some(NOW_MS)),
    ];
    check(
        redis("8.0.6"),
        hash(22),
        pairs(&fields),
        expect![[r#"
        Raw { bytes_max: 524288 }
        UNLINK k -- Commands Int
        HSET k a 1 b 2 c 3 d 4 -- Commands Int
        HPEXPIREAT k 2000000 FIELDS 1 c -- Commands Array
        HPEXPIREAT k 3000000 FIELDS 2 a d -- Commands Array.
    "#]],
    );
    check(
        redis("7.2.4"),
        hash(25),
        pairs(&fields),
        expect![[r#"
        Elements
        ! key "k": needs TTLs of hash fields (Redis 7.4, Valkey 9.0), which the target does not have: allow the loss, or filter it out
    "#]],
    );
    let lossy = SnapshotOptions {
        losses: Losses::Allow,
        ..redis("7.2.4")
    };
    check(
        lossy,
        hash(25),
        pairs(&fields),
        expect![[r#"
        Elements
        UNLINK k -- Commands Int
        HSET k a 1 b 2 c 3 d 4 -- Commands Int.
    "#]],
    );
    let gone = [("gone", "5", Some(NOW_MS))];
    check(
        redis("7.2.4"),
        hash(25),
        pairs(&gone),
        expect![[r#"
        Elements
        UNLINK k -- Commands Int.
    "#]],
    );
    check(
        skip(redis("7.2.4")),
        hash(25),
        pairs(&gone),
        expect![[r#"
        Elements
    "#]],
    );
}

#[test]
fn streams_of_newer_types() {
    let stream = |type_id, form| head(Kind::Stream, type_id, Encoding::Stream(form));
    let raw = |bytes: &'static [u8]| vec![Event::Raw(Bytes::from_static(bytes))];
    let unused = b"body\x40\x64\x40\x64\x00\x00\x00";
    check(
        redis("8.6.3"),
        stream(26, StreamForm::V4),
        raw(unused),
        expect![[r#"
            Raw { bytes_max: 524288 }
            RESTORE k 0 \x1abody@d@d\x00\x00\x00\x0d\x00\xaf,\xa9\x02\x02\xd0!\x15 REPLACE -- Restore Ok.
        "#]],
    );
    check(
        redis("8.0.6"),
        stream(26, StreamForm::V4),
        raw(unused),
        expect![[r#"
            Raw { bytes_max: 524288 }
            ! key "k": a Stream of RDB type 26 cannot be brought to this target's version: migrate to a newer target, or filter the key out
        "#]],
    );
    check(
        redis("8.0.6"),
        stream(26, StreamForm::V4),
        raw(b"body"),
        expect![[r#"
            Raw { bytes_max: 524288 }
            ! key "k": a Stream of RDB type 26 cannot be brought to this target's version: migrate to a newer target, or filter the key out
        "#]],
    );
    check(
        redis("7.0.15"),
        stream(26, StreamForm::V4),
        raw(unused),
        expect![[r#"
            Raw { bytes_max: 524288 }
            ! key "k": a Stream of RDB type 26 cannot be brought to this target's version: migrate to a newer target, or filter the key out
        "#]],
    );
    check(
        redis("6.2.14"),
        stream(19, StreamForm::V2),
        raw(b"body"),
        expect![[r#"
            Raw { bytes_max: 524288 }
            ! key "k": a Stream of RDB type 19 cannot be brought to this target's version: migrate to a newer target, or filter the key out
        "#]],
    );
}

#[test]
fn what_is_told_of_use_goes_only_with_restore() {
    let idle = |head| KeyHead {
        idle_seconds: Some(7),
        ..head
    };
    let mut rewriter = SnapshotRewriter::new(redis("7.0.15"));
    rewrite(&mut rewriter, &idle(list()), items(&["a"]));
    rewrite(
        &mut rewriter,
        &idle(string()),
        vec![Event::String(text("v"))],
    );
    rewrite(
        &mut rewriter,
        &idle(hash(16)),
        vec![Event::Raw(text("body"))],
    );
    assert_eq!(rewriter.counts().usage_hints_lost, 2);
    let mut rewriter = SnapshotRewriter::new(redis("4.0.14"));
    rewrite(
        &mut rewriter,
        &idle(hash(13)),
        vec![Event::Raw(text("body"))],
    );
    assert_eq!(rewriter.counts().usage_hints_lost, 1);
}

#[test]
fn expiries_of_fields_are_moved() {
    let lease = |options| SnapshotOptions {
        field_lease: Some(LeaseRule {
            before_ms: 3_000_000,
            add_ms: 7_000_000,
        }),
        ..options
    };
    let fields = [
        ("a", "1", Some(3_000_000)),
        ("b", "2", None),
        ("c", "3", Some(2_000_000)),
        ("past", "5", Some(NOW_MS - 1)),
    ];
    check(
        lease(redis("8.0.6")),
        hash(24),
        pairs(&fields),
        expect![[r#"
            Elements
            UNLINK k -- Commands Int
            HSET k a 1 b 2 c 3 past 5 -- Commands Int
            HPEXPIREAT k 3000000 FIELDS 1 a -- Commands Array
            HPEXPIREAT k 7999999 FIELDS 1 past -- Commands Array
            HPEXPIREAT k 9000000 FIELDS 1 c -- Commands Array.
        "#]],
    );
    let mut rewriter = SnapshotRewriter::new(lease(redis("8.0.6")));
    let without = [("a", "1", Some(3_000_000)), ("b", "2", None)];
    for (fields, are_moved) in [(&without[..], false), (&fields[..], true)] {
        rewrite(&mut rewriter, &hash(25), pairs(fields));
        assert_eq!(rewriter.take_leased_fields(), are_moved);
        assert!(!rewriter.take_leased_fields());
    }
    // Others go as they stand.
    let want = rewriter.key(&hash(16)).unwrap();
    assert!(matches!(want, rdb::Want::Raw { .. }));
    // A target without expiries of fields has none that could be moved.
    let lossy = lease(SnapshotOptions {
        losses: Losses::Allow,
        ..redis("7.2.4")
    });
    let mut rewriter = SnapshotRewriter::new(lossy);
    rewrite(&mut rewriter, &hash(25), pairs(&fields));
    assert!(!rewriter.take_leased_fields());
    assert_eq!(rewriter.counts().expired_fields, 1);
}

#[test]
fn expiries_of_fields_are_bounded_in_words() {
    let names: Vec<String> = (0..7).map(|field| format!("f{field}")).collect();
    let fields: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), "v", Some(3_000_000)))
        .collect();
    let mut options = redis("8.0.6");
    options.target.args_max = 9;
    check(
        options,
        hash(22),
        pairs(&fields),
        expect![[r#"
        Raw { bytes_max: 524288 }
        UNLINK k -- Commands Int
        HSET k f0 v f1 v f2 v -- Commands Int
        HPEXPIREAT k 3000000 FIELDS 3 f0 f1 f2 -- Commands Array
        HSET k f3 v f4 v f5 v -- Commands Int
        HPEXPIREAT k 3000000 FIELDS 3 f3 f4 f5 -- Commands Array
        HSET k f6 v -- Commands Int
        HPEXPIREAT k 3000000 FIELDS 1 f6 -- Commands Array.
    "#]],
    );
}

#[test]
fn the_two_types_22() {
    let body = || vec![Event::Raw(text("body"))];
    let start = |dialect| Event::Start {
        dialect,
        version: RdbVersion(80),
    };
    let mut rewriter = SnapshotRewriter::new(options(Fork::Valkey, "9.1.2"));
    rewriter
        .event(start(Dialect::Valkey), &mut Vec::new(), &mut Vec::new())
        .unwrap();
    expect![[r#"
        Raw { bytes_max: 524288 }
        RESTORE k 0 \x16bodyP\x00\x96\xdd1\xf3)\xea\xbc\xad REPLACE -- Restore Ok.
    "#]]
    .assert_eq(&rewrite(&mut rewriter, &hash(22), body()));
    let mut rewriter = SnapshotRewriter::new(redis("8.0.6"));
    rewriter
        .event(start(Dialect::Valkey), &mut Vec::new(), &mut Vec::new())
        .unwrap();
    assert_eq!(rewriter.key(&hash(22)), Ok(Want::Elements));
}

#[test]
fn dbs_are_selected_when_they_change() {
    let mut rewriter = SnapshotRewriter::new(redis("7.0.15"));
    let mut run = |db, events| {
        let head = KeyHead {
            db: Db(db),
            ..string()
        };
        rewrite(&mut rewriter, &head, events)
    };
    let value = || vec![Event::String(text("v"))];
    let all: String = [0, 3, 3, 0].map(|db| run(db, value())).concat();
    expect![[r#"
        Elements
        SET k v -- Set Ok.
        Elements
        SELECT 3 -- Select Ok
        SET k v -- Set Ok.
        Elements
        SET k v -- Set Ok.
        Elements
        SELECT 0 -- Select Ok
        SET k v -- Set Ok.
    "#]]
    .assert_eq(&all);
    rewriter.reconnected();
    expect![[r#"
        Elements
        SELECT 0 -- Select Ok
        SET k v -- Set Ok.
    "#]]
    .assert_eq(&rewrite(&mut rewriter, &string(), value()));
}

#[test]
fn what_is_left_out_is_counted() {
    let mut options = redis("7.0.15");
    options.filter = Filter::new(FilterRules {
        block_keys: vec!["blocked".into()],
        block_db: vec![5],
        block_command_group: vec![rewrite::Group::List],
        ..FilterRules::default()
    })
    .unwrap();
    let mut rewriter = SnapshotRewriter::new(options);
    let named = |name| KeyHead {
        key: text(name),
        ..string()
    };
    let past = KeyHead {
        expire_at_ms: Some(1_000_000),
        ..string()
    };
    let heads = [
        named("understudy:x"),
        named("blocked"),
        KeyHead {
            db: Db(5),
            ..string()
        },
        list(),
        past,
    ];
    for head in heads {
        assert_eq!(rewriter.key(&head), Ok(Want::Skip), "{head:?}");
    }
    let counts = rewriter.counts();
    let all = [
        counts.own_keys,
        counts.filtered_keys,
        counts.filtered_dbs,
        counts.filtered_kinds,
        counts.expired_keys,
    ];
    assert_eq!(all, [1; 5]);
    assert_eq!(rewriter.key(&until(string())), Ok(Want::Elements));
}

#[test]
fn functions_and_scripts() {
    let run = |options: SnapshotOptions, event: Event| {
        let (mut out, mut sent) = (Vec::new(), Vec::new());
        match SnapshotRewriter::new(options).event(event, &mut out, &mut sent) {
            Ok(()) => format!(
                "{} {:?}",
                common::text(&out),
                sent.iter().map(|s| s.expect).collect::<Vec<_>>()
            ),
            Err(error) => format!("! {error}"),
        }
    };
    let function = || Event::Function {
        code: text("#!lua name=l\ncode"),
    };
    expect![[r#"FUNCTION LOAD REPLACE #!lua name=l\x0acode [Bulk]"#]]
        .assert_eq(&run(redis("7.0.15"), function()));
    let mirror = SnapshotOptions {
        flush_functions: true,
        ..redis("7.0.15")
    };
    let mut rewriter = SnapshotRewriter::new(mirror);
    let (mut out, mut sent) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        rewriter.event(function(), &mut out, &mut sent).unwrap();
    }
    expect![[r#"FUNCTION FLUSH ; FUNCTION LOAD REPLACE #!lua name=l\x0acode ; FUNCTION LOAD REPLACE #!lua name=l\x0acode"#]].assert_eq(&common::text(&out));
    expect![[r#"FUNCTION LOAD #!lua name=l\x0acode [BulkOrExists]"#]]
        .assert_eq(&run(skip(redis("7.0.15")), function()));
    expect!["! needs functions (Redis 7.0), which the target does not have: allow the loss, or filter it out"].assert_eq(&run(redis("6.2.14"), function()));
    let lossy = SnapshotOptions {
        losses: Losses::Allow,
        ..redis("6.2.14")
    };
    expect![" []"].assert_eq(&run(lossy, function()));
    let early = Event::FunctionPreGa {
        name: text("l"),
        engine: text("LUA"),
        description: None,
        code: text("code"),
    };
    expect![[r#"FUNCTION LOAD REPLACE #!lua name=l\x0acode [Bulk]"#]]
        .assert_eq(&run(redis("7.0.15"), early));
    let script = Event::Aux {
        name: text("lua"),
        value: text("return 1"),
    };
    expect!["SCRIPT LOAD return 1 [Bulk]"].assert_eq(&run(redis("6.2.14"), script));
}

#[test]
fn parts_without_a_beginning_are_errors() {
    let mut rewriter = SnapshotRewriter::new(redis("7.0.15"));
    let (mut out, mut sent) = (Vec::new(), Vec::new());
    let parts = [
        Event::String(text("v")),
        Event::Raw(text("v")),
        Event::StringPart(text("v")),
        start(Kind::List),
        Event::ValueEnd,
    ];
    for event in parts {
        assert!(rewriter.event(event, &mut out, &mut sent).is_err());
    }
    rewriter.key(&list()).unwrap();
    assert!(
        rewriter
            .event(Event::StringPart(text("v")), &mut out, &mut sent)
            .is_err()
    );
    assert!(out.is_empty() && sent.is_empty());
}

#[test]
fn a_table_in_pieces_is_the_restore_that_it_is_whole() {
    let body = text("a table's bytes, which nobody looks at here");
    let cases = [
        (redis("7.0.15"), hash(4)),
        (redis("7.0.15"), until(hash(4))),
        (redis("4.0.14"), until(hash(5))),
        (skip(redis("4.0.14")), until(hash(2))),
        (skip(redis("6.2.14")), hash(3)),
    ];
    for (options, head) in cases {
        let (mut whole, mut sent_whole) = (Vec::new(), Vec::new());
        let mut rewriter = SnapshotRewriter::new(options.clone());
        rewriter.key(&head).unwrap();
        let raw = Event::Raw(body.clone());
        rewriter.event(raw, &mut whole, &mut sent_whole).unwrap();
        for size in [1, 7, body.len()] {
            let (mut out, mut sent) = (Vec::new(), Vec::new());
            let mut rewriter = SnapshotRewriter::new(SnapshotOptions {
                restore_bytes_max: 10,
                restore_pieces_bytes_max: 1000,
                ..options.clone()
            });
            rewriter.key(&head).unwrap();
            assert_eq!(rewriter.pieces_max(), Some(1000));
            let len = body.len() as u64;
            rewriter.pieces(len, &mut out, &mut sent).unwrap();
            let mut is_done = false;
            for piece in body.chunks(size) {
                assert!(rewriter.is_in_command() && !is_done);
                is_done = rewriter.piece(piece, &mut out, &mut sent).unwrap();
            }
            assert!(is_done && !rewriter.is_in_command());
            assert_eq!((&out, &sent), (&whole, &sent_whole), "{size}");
        }
    }
}

#[test]
fn what_is_packed_does_not_go_in_pieces() {
    let allows = |options: &SnapshotOptions, head: &KeyHead| {
        let mut rewriter = SnapshotRewriter::new(SnapshotOptions {
            restore_pieces_bytes_max: 64 << 20,
            ..options.clone()
        });
        rewriter.key(head).unwrap();
        rewriter.pieces_max()
    };
    assert_eq!(allows(&redis("7.0.15"), &hash(4)), Some(64 << 20));
    assert_eq!(allows(&redis("7.0.15"), &hash(16)), None);
    assert_eq!(allows(&redis("7.0.15"), &list()), None);
    let mut small = redis("7.0.15");
    small.target.bulk_bytes_max = 1 << 20;
    assert_eq!(allows(&small, &hash(4)), Some((1 << 20) - 11));
    small.target.bulk_bytes_max = 1 << 10;
    assert_eq!(allows(&small, &hash(4)), None);
    // Without RESTORE there is nothing to send.
    let mut lacks = redis("7.0.15");
    lacks.target.restore = false;
    assert_eq!(allows(&lacks, &hash(4)), None);
}
