//! Streams and arrays of a snapshot -> commands for the target.

mod common;

use bytes::Bytes;
use expect_test::expect;
use rdb::types::StreamForm;
use rdb::{Encoding, Event, KeyHead, Kind, StreamCounters, StreamId, StreamInfo};
use rewrite::{Fork, Losses, SnapshotOptions, SnapshotRewriter};

use common::snapshot::*;

fn id(ms: u64, seq: u64) -> StreamId {
    StreamId { ms, seq }
}

fn stream(type_id: u8) -> KeyHead {
    head(Kind::Stream, type_id, Encoding::Stream(StreamForm::V5))
}

fn message(ms: u64, pairs: &[(&str, &str)]) -> Vec<Event> {
    let pair = |(field, value): &(&str, &str)| Event::Pair {
        field: text(field),
        value: text(value),
        expire_at_ms: None,
    };
    let entry = Event::StreamEntry {
        id: id(ms, 0),
        fields: pairs.len() as u64,
    };
    [entry].into_iter().chain(pairs.iter().map(pair)).collect()
}

fn info(length: u64, last: u64, counters: Option<(u64, u64)>) -> Event {
    Event::StreamInfo(Box::new(StreamInfo {
        length,
        last_id: id(last, 0),
        counters: counters.map(|(max_deleted, entries_added)| StreamCounters {
            first_id: id(0, 0),
            max_deleted_id: id(max_deleted, 0),
            entries_added,
        }),
        groups: 1,
    }))
}

fn group(last: u64, entries_read: Option<u64>, pending: &[(u64, i64, u64)]) -> Vec<Event> {
    let group = Event::StreamGroup {
        name: text("g"),
        last_id: id(last, 0),
        entries_read,
        pending: pending.len() as u64,
    };
    let pending = pending
        .iter()
        .map(|(ms, delivered_ms, deliveries)| Event::StreamPending {
            id: id(*ms, 0),
            delivered_ms: *delivered_ms,
            deliveries: *deliveries,
        });
    [group].into_iter().chain(pending).collect()
}

fn consumer(name: &str, owned: &[u64]) -> Vec<Event> {
    let consumer = Event::StreamConsumer {
        name: text(name),
        seen_ms: 0x10,
        active_ms: Some(0x11),
        pending: owned.len() as u64,
    };
    let owned = owned.iter().map(|ms| Event::StreamOwned { id: id(*ms, 0) });
    [consumer].into_iter().chain(owned).collect()
}

fn value(parts: Vec<Vec<Event>>) -> Vec<Event> {
    let parts = parts.into_iter().flatten();
    [start(Kind::Stream)]
        .into_iter()
        .chain(parts)
        .chain([Event::ValueEnd])
        .collect()
}

/// Two messages, and two that are deleted but pending; an idle consumer.
fn usual(counters: Option<(u64, u64)>) -> Vec<Event> {
    value(vec![
        message(3, &[("f", "v"), ("g", "w")]),
        message(5, &[("f", "v")]),
        vec![info(2, 9, counters)],
        group(
            7,
            counters.map(|_| 6),
            &[(2, 100, 1), (3, 100, 1), (5, 100, 2), (8, 200, 0)],
        ),
        consumer("c1", &[2, 3, 5]),
        consumer("idle", &[]),
        consumer("c2", &[8]),
    ])
}

fn run(options: SnapshotOptions, head: &KeyHead, events: Vec<Event>) -> String {
    rewrite(&mut SnapshotRewriter::new(options), head, events)
}

fn printable(byte: u64) -> String {
    format!("\\x{byte:02x}")
}

fn without_restore(version: &str) -> SnapshotOptions {
    let mut options = redis(version);
    options.target.restore = false;
    options
}

#[test]
fn a_stream_by_commands() {
    expect![[r#"
        Elements
        UNLINK k -- Commands Int
        XADD k 2-0 - - -- Commands Bulk
        XADD k 3-0 f v g w -- Commands Bulk
        XADD k 5-0 f v -- Commands Bulk
        XADD k 8-0 - - -- Commands Bulk
        XSETID k 9-0 ENTRIESADDED 12 MAXDELETEDID 8-0 -- Commands Ok
        XGROUP CREATE k g 7-0 ENTRIESREAD 6 -- Commands Ok
        XCLAIM k g c1 0 2-0 3-0 TIME 100 RETRYCOUNT 1 FORCE JUSTID -- Commands Array
        XCLAIM k g c1 0 5-0 TIME 100 RETRYCOUNT 2 FORCE JUSTID -- Commands Array
        XGROUP CREATECONSUMER k g idle -- Commands Int
        XCLAIM k g c2 0 8-0 TIME 200 RETRYCOUNT 0 FORCE JUSTID -- Commands Array
        XDEL k 2-0 8-0 -- Commands Int
        XSETID k 9-0 ENTRIESADDED 12 MAXDELETEDID 8-0 -- Commands Ok
        PEXPIREAT k 2000000 -- Commands Int.
    "#]]
    .assert_eq(&run(
        without_restore("7.0.15"),
        &until(stream(19)),
        usual(Some((8, 12))),
    ));
    let mut rewriter = SnapshotRewriter::new(without_restore("5.0.14"));
    expect![[r#"
        Elements
        UNLINK k -- Commands Int
        XADD k 2-0 - - -- Commands Bulk
        XADD k 3-0 f v g w -- Commands Bulk
        XADD k 5-0 f v -- Commands Bulk
        XADD k 8-0 - - -- Commands Bulk
        XSETID k 9-0 -- Commands Ok
        XGROUP CREATE k g 7-0 -- Commands Ok
        XCLAIM k g c1 0 2-0 3-0 TIME 100 RETRYCOUNT 1 FORCE JUSTID -- Commands Array
        XCLAIM k g c1 0 5-0 TIME 100 RETRYCOUNT 2 FORCE JUSTID -- Commands Array
        XREADGROUP GROUP g idle STREAMS k 0 -- Commands Array
        XCLAIM k g c2 0 8-0 TIME 200 RETRYCOUNT 0 FORCE JUSTID -- Commands Array
        XDEL k 2-0 8-0 -- Commands Int
        XSETID k 9-0 -- Commands Ok.
    "#]]
    .assert_eq(&rewrite(&mut rewriter, &stream(19), usual(Some((8, 12)))));
    assert_eq!(rewriter.counts().stream_counters_lost, 1);
    assert_eq!(rewriter.counts().consumer_times_lost, 3);
}

#[test]
fn a_stream_in_two_parts() {
    let mut small = redis("7.2.4");
    small.restore_bytes_max = 0;
    expect![[r#"
        Raw { bytes_max: 0 }
        RESTORE k 0 \x15\x00\x00\x00\x00\x00\x00\x00\x00\x81\x00\x00\x00\x00\x00\x00\x00\x0c\x01\x01g\x07\x00\x81\x00\x00\x00\x00\x00\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00d\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00d\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00d\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\xc8\x00\x00\x00\x00\x00\x00\x00\x00\x81\x00\x00\x00\x00\x00\x00\x00\x03\x02c1\x10\x00\x00\x00\x00\x00\x00\x00\x11\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x04idle\x10\x00\x00\x00\x00\x00\x00\x00\x11\x00\x00\x00\x00\x00\x00\x00\x00\x02c2\x10\x00\x00\x00\x00\x00\x00\x00\x11\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x0b\x00\x88a1\xb4\xa6\xcby\xc2 REPLACE -- Commands Ok
        XADD k 3-0 f v g w -- Commands Bulk
        XADD k 5-0 f v -- Commands Bulk
        XSETID k 9-0 ENTRIESADDED 12 MAXDELETEDID 8-0 -- Commands Ok
        PEXPIREAT k 2000000 -- Commands Int.
    "#]].assert_eq(&run(
        small.clone(),
        &until(stream(21)),
        usual(Some((8, 12))),
    ));
    expect![[r#"
        Raw { bytes_max: 0 }
        RESTORE understudy:tmp:{k} 0 \x15\x00\x00\x00\x00\x00\x00\x00\x00\x81\x00\x00\x00\x00\x00\x00\x00\x0c\x01\x01g\x07\x00\x81\x00\x00\x00\x00\x00\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00d\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00d\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00d\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\xc8\x00\x00\x00\x00\x00\x00\x00\x00\x81\x00\x00\x00\x00\x00\x00\x00\x03\x02c1\x10\x00\x00\x00\x00\x00\x00\x00\x11\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x04idle\x10\x00\x00\x00\x00\x00\x00\x00\x11\x00\x00\x00\x00\x00\x00\x00\x00\x02c2\x10\x00\x00\x00\x00\x00\x00\x00\x11\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x0b\x00\x88a1\xb4\xa6\xcby\xc2 REPLACE -- Commands Ok
        XADD understudy:tmp:{k} 3-0 f v g w -- Commands Bulk
        XADD understudy:tmp:{k} 5-0 f v -- Commands Bulk
        XSETID understudy:tmp:{k} 9-0 ENTRIESADDED 12 MAXDELETEDID 8-0 -- Commands Ok
        PEXPIREAT understudy:tmp:{k} 2000000 -- Commands Int
        RENAMENX understudy:tmp:{k} k -- Commands ZeroMeansExists
        UNLINK understudy:tmp:{k} -- Commands Int.
    "#]].assert_eq(&run(skip(small), &until(stream(21)), usual(Some((8, 12)))));
    let mut old = redis("6.2.14");
    old.restore_bytes_max = 0;
    expect![[r#"
        Raw { bytes_max: 0 }
        RESTORE k 0 \x0f\x00\x00\x00\x00\x01\x01g\x07\x00\x04\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00d\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00d\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00d\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\xc8\x00\x00\x00\x00\x00\x00\x00\x00\x81\x00\x00\x00\x00\x00\x00\x00\x03\x02c1\x10\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x04idle\x10\x00\x00\x00\x00\x00\x00\x00\x00\x02c2\x10\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x00\x09\x00$.\x0fi\xdfcn\xe3 REPLACE -- Commands Ok
        XADD k 3-0 f v g w -- Commands Bulk
        XADD k 5-0 f v -- Commands Bulk
        XSETID k 9-0 -- Commands Ok.
    "#]].assert_eq(&run(old, &stream(15), usual(None)));
}

#[test]
fn a_stream_without_counters_gets_those_that_a_loader_would_guess() {
    let mut options = redis("7.0.15");
    options.restore_bytes_max = 0;
    for (last, read) in [
        (2, Some(0)),
        (3, Some(1)),
        (4, None),
        (9, Some(2)),
        (10, None),
    ] {
        let events = || {
            value(vec![
                message(3, &[("f", "v")]),
                message(5, &[("f", "v")]),
                vec![info(2, 9, None)],
                group(last, None, &[]),
            ])
        };
        let by_commands = run(without_restore("7.0.15"), &stream(15), events());
        let read_text = read.map_or("-1".to_owned(), |read: u64| read.to_string());
        let create = format!("XGROUP CREATE k g {last}-0 ENTRIESREAD {read_text} --");
        assert!(by_commands.contains(&create), "{by_commands}");
        let restored = run(options.clone(), &stream(15), events());
        let bytes = read.unwrap_or(u64::MAX).to_be_bytes();
        let bytes: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        let slot = format!("g{}\\x00\\x81{bytes}", printable(last));
        assert!(restored.contains(&slot), "{slot} in {restored}");
    }
}

#[test]
fn empty_streams() {
    let empty = |last, counters, groups: Vec<Vec<Event>>| {
        let mut parts = vec![vec![info(0, last, counters)]];
        parts.extend(groups);
        value(parts)
    };
    let mut restored = redis("7.2.4");
    restored.restore_bytes_max = 0;
    expect![[r#"
        Elements
        UNLINK k -- Commands Int
        XGROUP CREATE k understudy 0 MKSTREAM -- Commands Ok
        XGROUP DESTROY k understudy -- Commands Int
        XSETID k 0-0 ENTRIESADDED 0 MAXDELETEDID 0-0 -- Commands Ok.
    "#]]
    .assert_eq(&run(
        without_restore("7.0.15"),
        &stream(19),
        empty(0, Some((0, 0)), vec![]),
    ));
    expect![[r#"
        Elements
        UNLINK k -- Commands Int
        XADD k 7-0 - - -- Commands Bulk
        XSETID k 9-0 ENTRIESADDED 4 MAXDELETEDID 9-0 -- Commands Ok
        XGROUP CREATE k g 9-0 ENTRIESREAD 4 -- Commands Ok
        XCLAIM k g c 0 7-0 TIME 1 RETRYCOUNT 1 FORCE JUSTID -- Commands Array
        XDEL k 7-0 -- Commands Int
        XSETID k 9-0 ENTRIESADDED 4 MAXDELETEDID 9-0 -- Commands Ok.
    "#]]
    .assert_eq(&run(
        without_restore("7.0.15"),
        &stream(19),
        empty(
            9,
            Some((9, 4)),
            vec![group(9, Some(4), &[(7, 1, 1)]), consumer("c", &[7])],
        ),
    ));
    expect![[r#"
        Elements
        UNLINK k -- Commands Int
        XGROUP CREATE k understudy 0 MKSTREAM -- Commands Ok
        XGROUP DESTROY k understudy -- Commands Int
        XSETID k 9-0 -- Commands Ok
        XGROUP CREATE k g 9-0 -- Commands Ok.
    "#]]
    .assert_eq(&run(
        without_restore("6.2.14"),
        &stream(15),
        empty(9, None, vec![group(9, None, &[])]),
    ));
    expect![[r#"
        Raw { bytes_max: 0 }
        RESTORE k 0 \x15\x00\x00\x00\x00\x00\x00\x00\x00\x81\x00\x00\x00\x00\x00\x00\x00\x04\x01\x0b\x00<\\xba/\xfa^\x80l REPLACE -- Commands Ok
        XSETID k 9-0 ENTRIESADDED 4 MAXDELETEDID 9-0 -- Commands Ok.
    "#]].assert_eq(&run(restored, &stream(21), empty(9, Some((9, 4)), vec![])));
}

/// `XDEL` would leave a trace of deletion that no command erases.
#[test]
fn trimmed_messages_that_are_pending() {
    let trimmed = |live: &[u64], max_deleted| {
        let mut parts: Vec<_> = live.iter().map(|ms| message(*ms, &[("f", "v")])).collect();
        parts.push(vec![info(live.len() as u64, 9, Some((max_deleted, 4)))]);
        parts.push(group(9, Some(4), &[(2, 1, 1)]));
        parts.push(consumer("c", &[2]));
        let text = run(without_restore("7.0.15"), &stream(19), value(parts));
        let removal = |line: &&str| line.starts_with("XTRIM") || line.starts_with("XDEL");
        text.lines().filter(removal).collect::<String>()
    };
    assert_eq!(trimmed(&[3, 4], 0), "XTRIM k MAXLEN 2 -- Commands Int");
    assert_eq!(trimmed(&[], 0), "XTRIM k MAXLEN 0 -- Commands Int");
    assert_eq!(trimmed(&[1, 3], 0), "XDEL k 2-0 -- Commands Int");
    assert_eq!(trimmed(&[3], 2), "XDEL k 2-0 -- Commands Int");
}

/// Reading again makes a group read more than was ever added.
#[test]
fn a_group_that_has_read_more_than_was_added() {
    let events = value(vec![
        message(3, &[("f", "v")]),
        vec![info(1, 9, Some((0, 1)))],
        group(9, Some(4), &[]),
    ]);
    expect![[r#"
        Elements
        UNLINK k -- Commands Int
        XADD k 3-0 f v -- Commands Bulk
        XSETID k 9-0 ENTRIESADDED 4 MAXDELETEDID 0-0 -- Commands Ok
        XGROUP CREATE k g 9-0 ENTRIESREAD 4 -- Commands Ok
        XSETID k 9-0 ENTRIESADDED 1 MAXDELETEDID 0-0 -- Commands Ok.
    "#]]
    .assert_eq(&run(without_restore("8.6.3"), &stream(26), events));
}

#[test]
fn claims_are_bounded_in_words() {
    let mut options = without_restore("7.0.15");
    options.chunk_items = 13;
    let pending: Vec<_> = (1..=5).map(|ms| (ms, 100, 1)).collect();
    let events = value(vec![
        vec![info(0, 9, Some((5, 5)))],
        group(9, Some(5), &pending),
        consumer("c", &[1, 2, 3, 4, 5]),
    ]);
    let text = run(options, &stream(19), events);
    let claims: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("XCLAIM"))
        .collect();
    assert_eq!(claims.len(), 3, "{text}");
    let deletions: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("XDEL"))
        .collect();
    assert_eq!(deletions.len(), 3, "{text}");
    assert!(
        claims[0].contains(" 1-0 2-0 TIME 100 RETRYCOUNT 1 FORCE JUSTID"),
        "{text}"
    );
}

#[test]
fn a_message_of_more_words_than_the_target_takes() {
    let mut options = without_restore("7.0.15");
    options.target.args_max = 6;
    let events = value(vec![
        message(1, &[("f", "v"), ("g", "w")]),
        vec![info(1, 1, None)],
    ]);
    expect![[r#"
        Elements
        ! key "k": a message takes a command of 7 words, and the target takes 6: trim the stream, or filter it out
    "#]].assert_eq(&run(options, &stream(15), events));
}

/// A producer's record, and a message given back.
fn newest() -> Vec<Event> {
    let produced = vec![
        Event::StreamIdempotence {
            duration_seconds: 200,
            messages_max: 50,
        },
        Event::StreamProducer {
            name: text("p"),
            messages: 1,
        },
        Event::StreamProduced {
            iid: text("i"),
            id: id(6, 0),
        },
        Event::StreamIdempotenceCounts {
            added: 7,
            duplicates: 3,
        },
    ];
    value(vec![
        message(3, &[("f", "v")]),
        vec![info(1, 9, Some((8, 12)))],
        group(7, Some(6), &[(2, 0, 5), (3, 100, 1), (5, 0, 5)]),
        consumer("c1", &[3]),
        vec![
            Event::StreamReturned { id: id(5, 0) },
            Event::StreamReturned { id: id(2, 0) },
        ],
        produced,
    ])
}

#[test]
fn producers_and_messages_given_back() {
    let mut rewriter = SnapshotRewriter::new(without_restore("8.10.2"));
    expect![[r#"
        Elements
        UNLINK k -- Commands Int
        XADD k 2-0 - - -- Commands Bulk
        XADD k 3-0 f v -- Commands Bulk
        XADD k 5-0 - - -- Commands Bulk
        XADD k 6-0 - - -- Commands Bulk
        XSETID k 9-0 ENTRIESADDED 12 MAXDELETEDID 8-0 -- Commands Ok
        XGROUP CREATE k g 7-0 ENTRIESREAD 6 -- Commands Ok
        XCLAIM k g c1 0 3-0 TIME 100 RETRYCOUNT 1 FORCE JUSTID -- Commands Array
        XNACK k g SILENT IDS 2 5-0 2-0 RETRYCOUNT 5 FORCE -- Commands Int
        XCFGSET k IDMP-DURATION 200 IDMP-MAXSIZE 50 -- Commands Ok
        XIDMPRECORD k p i 6-0 -- Commands Ok
        XDEL k 2-0 5-0 6-0 -- Commands Int
        XSETID k 9-0 ENTRIESADDED 12 MAXDELETEDID 8-0 -- Commands Ok.
    "#]]
    .assert_eq(&rewrite(&mut rewriter, &stream(27), newest()));
    assert_eq!(rewriter.counts().stream_idempotence_counts_lost, 1);
    let mut options = redis("8.10.2");
    options.restore_bytes_max = 0;
    let mut rewriter = SnapshotRewriter::new(options);
    expect![[r#"
        Raw { bytes_max: 0 }
        RESTORE k 0 \x1b\x00\x00\x00\x00\x00\x00\x00\x00\x81\x00\x00\x00\x00\x00\x00\x00\x0c\x01\x01g\x07\x00\x81\x00\x00\x00\x00\x00\x00\x00\x06\x03\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00d\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x05\x81\x00\x00\x00\x00\x00\x00\x00\x01\x02c1\x10\x00\x00\x00\x00\x00\x00\x00\x11\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x81\x00\x00\x00\x00\x00\x00\x00\xc82\x81\x00\x00\x00\x00\x00\x00\x00\x01\x01p\x01\x01i\x06\x00\x07\x03\x0f\x008\x9c\x90\xb8\xd7\xadU\x88 REPLACE -- Commands Ok
        XADD k 3-0 f v -- Commands Bulk
        XSETID k 9-0 ENTRIESADDED 12 MAXDELETEDID 8-0 -- Commands Ok.
    "#]].assert_eq(&rewrite(&mut rewriter, &stream(27), newest()));
    assert_eq!(rewriter.counts(), &rewrite::SnapshotCounts::default());
}

#[test]
fn what_an_older_target_cannot_keep_is_refused_or_counted() {
    for restore in [false, true] {
        let mut options = redis("8.0.6");
        options.target.restore = restore;
        options.restore_bytes_max = 0;
        let refused = run(options.clone(), &stream(27), newest());
        assert!(
            refused.contains("! key \"k\": needs messages given back to a group (Redis 8.8)"),
            "{refused}"
        );
        options.losses = Losses::Allow;
        let mut rewriter = SnapshotRewriter::new(options);
        let text = rewrite(&mut rewriter, &stream(27), newest());
        assert!(text.contains("understudy:returned"), "{text}");
        let counts = rewriter.counts();
        assert_eq!(counts.stream_returned_lost, 1);
        assert_eq!(counts.stream_idempotence_lost, 1);
    }
}

/// The bytes of an empty stream of type 27: a group with one pending message, which may have been given back, and
/// producers.
fn raw_27(returned: bool, producers: &[u8]) -> Vec<Event> {
    let id = [&0_u64.to_be_bytes()[..6], &[0, 5], &[0; 8]].concat();
    let mut body = b"\x00\x00\x09\x00".to_vec();
    body.extend_from_slice(b"\x00\x00\x00\x00\x01");
    body.extend_from_slice(b"\x01\x01g\x07\x00\x00\x01");
    body.extend_from_slice(&[&id[..], &[0; 8], b"\x02"].concat());
    if returned {
        body.extend_from_slice(b"\x00\x01");
        body.extend_from_slice(&id);
    } else {
        let seen = 16_u64.to_le_bytes();
        body.extend_from_slice(&[b"\x01\x01c", &seen[..], &seen, b"\x01", &id, b"\x00"].concat());
    }
    body.extend_from_slice(b"\x40\x64\x40\x64");
    body.extend_from_slice(producers);
    vec![Event::Raw(body.into())]
}

#[test]
fn small_streams_lose_what_the_target_lacks_by_policy() {
    let producers = b"\x01\x01p\x01\x01i\x05\x00\x01\x00";
    let cases = [
        (false, &b"\x00\x00\x00"[..], "RESTORE k ", (0, 0), ""),
        (
            false,
            producers,
            "RESTORE k ",
            (0, 1),
            "needs idempotent production",
        ),
        (
            true,
            b"\x00\x00\x00",
            "understudy:returned",
            (1, 0),
            "needs messages given back",
        ),
        (
            true,
            producers,
            "understudy:returned",
            (1, 1),
            "needs messages given back",
        ),
    ];
    for (returned, producers, sent, lost, refusal) in cases {
        let refused = run(redis("8.0.6"), &stream(27), raw_27(returned, producers));
        assert!(refused.contains(refusal), "{refused}");
        assert_eq!(refused.contains('!'), !refusal.is_empty(), "{refused}");
        let mut rewriter = SnapshotRewriter::new(SnapshotOptions {
            losses: Losses::Allow,
            ..redis("8.0.6")
        });
        let text = rewrite(&mut rewriter, &stream(27), raw_27(returned, producers));
        assert!(text.contains(sent) && !text.contains("! "), "{text}");
        let counts = rewriter.counts();
        let counted = (counts.stream_returned_lost, counts.stream_idempotence_lost);
        assert_eq!(counted, lost, "{text}");
        assert_eq!(counts.keys_lost, 0);
    }
}

#[test]
fn keys_that_cannot_be_built_are_left_out_and_counted_where_losses_are_allowed() {
    let cases = [
        (redis("4.0.14"), stream(15)),
        (redis("8.6.3"), head(Kind::Array, 28, Encoding::Array)),
        (
            without_restore("8.6.3"),
            head(Kind::Module, 7, Encoding::Module),
        ),
    ];
    for (options, head) in cases {
        let mut rewriter = SnapshotRewriter::new(SnapshotOptions {
            losses: Losses::Allow,
            ..options
        });
        assert_eq!(rewrite(&mut rewriter, &head, vec![]), "Skip\n");
        let counts = rewriter.counts();
        let is_module = u64::from(head.kind == Kind::Module);
        assert_eq!(
            (counts.keys_lost, counts.modules_lost),
            (1 - is_module, is_module)
        );
    }
}

#[test]
fn a_stream_that_nobody_looked_at_ahead_is_an_error() {
    let mut rewriter = SnapshotRewriter::new(without_restore("7.0.15"));
    rewriter.key(&stream(19)).unwrap();
    let (mut out, mut sent) = (Vec::new(), Vec::new());
    let event = start(Kind::Stream);
    assert!(rewriter.event(event, &mut out, &mut sent).is_err());
    assert!(out.is_empty() && sent.is_empty());
}

#[test]
fn no_streams_or_arrays_for_targets_without_them() {
    let refused = |options, head| run(options, &head, vec![]);
    let array = head(Kind::Array, 28, Encoding::Array);
    expect![[r#"
        ! key "k": a Stream of RDB type 15 cannot be brought to this target's version: migrate to a newer target, or filter the key out
    "#]].assert_eq(&refused(redis("4.0.14"), stream(15)));
    expect![[r#"
        ! key "k": a Array of RDB type 28 cannot be brought to this target's version: migrate to a newer target, or filter the key out
    "#]].assert_eq(&refused(redis("8.6.3"), array.clone()));
    expect![[r#"
        ! key "k": a Array of RDB type 28 cannot be brought to this target's version: migrate to a newer target, or filter the key out
    "#]].assert_eq(&refused(options(Fork::Valkey, "9.1.2"), array));
    let module = head(Kind::Module, 7, Encoding::Module);
    expect![[r#"
        ! key "k": a Module of RDB type 7 cannot be brought to this target's version: migrate to a newer target, or filter the key out
    "#]].assert_eq(&refused(without_restore("8.6.3"), module));
}

#[test]
fn arrays() {
    let item = |index, value: &str| Event::ArrayItem {
        index,
        value: Bytes::from(value.to_owned()),
    };
    let events = vec![
        start(Kind::Array),
        Event::ArrayInsertIndex(u64::MAX - 1),
        item(0, "x"),
        item(7, "007"),
        item(u64::MAX - 1, "1.5"),
        Event::ValueEnd,
    ];
    let mut options = redis("8.10.2");
    options.chunk_items = 8;
    options.restore_bytes_max = 0;
    expect![[r#"
        Raw { bytes_max: 0 }
        UNLINK k -- Commands Int
        ARMSET k 0 x 7 007 18446744073709551614 1.5 -- Commands Int
        ARSEEK k 18446744073709551615 -- Commands Int
        PEXPIREAT k 2000000 -- Commands Int.
    "#]]
    .assert_eq(&run(
        options,
        &until(head(Kind::Array, 28, Encoding::Array)),
        events,
    ));
}
