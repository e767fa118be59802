//! What is wrong with a stream is found, and where: in its nodes, its groups, and between them.

mod support;

use rdb::{Event, Limits, Poll};
use testkit::rdb_writer::{Item, RdbWriter, listpack};

use support::{Mode, refused, whole};

/// The end of a stream of type 26 or 27 without producers.
const NO_IDMP: &[u8] = b"\x40\x64\x40\x64\0\0\0";

/// A stream of one group: its name, ids and number of reads are there, the rest is given.
fn group(pending: &[u8], consumers: &[u8]) -> Vec<u8> {
    [&[0; 9][..], b"\x01\x01g\0\0\0", pending, consumers].concat()
}

fn pending(ids: &[u8]) -> Vec<u8> {
    let of = |id: &u8| [&[0; 15][..], &[*id], &[0; 8], &[1]].concat();
    [
        vec![ids.len() as u8],
        ids.iter().flat_map(of).collect::<Vec<u8>>(),
    ]
    .concat()
}

fn consumers(all: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = vec![all.len() as u8];
    for (name, ids) in all {
        out.push(name.len() as u8);
        out.extend(name.bytes().chain([0; 16]).chain([ids.len() as u8]));
        ids.iter()
            .for_each(|id| out.extend([&[0; 15][..], &[*id]].concat()));
    }
    out
}

#[test]
fn broken_groups() {
    let one = pending(&[1]);
    let cases: [(Vec<u8>, &str, u64); 7] = [
        (group(&one, &consumers(&[])), "without an owner", 42),
        (
            group(&one, &consumers(&[("a", &[1]), ("b", &[1])])),
            "two owners",
            96,
        ),
        (
            group(&one, &consumers(&[("a", &[2])])),
            "its group has not",
            61,
        ),
        (
            group(&pending(&[1, 1]), &consumers(&[("a", &[1])])),
            "same pending message twice",
            66,
        ),
        (
            group(&pending(&[]), &consumers(&[("a", &[]), ("a", &[])])),
            "two consumers of one name",
            36,
        ),
        (
            [&[0; 9][..], b"\x02\x01g\0\0\0\0\0\x01g\0\0\0\0\0"].concat(),
            "two groups of one name",
            17,
        ),
        (
            [&[0, 1][..], &[0; 8]].concat(),
            "with messages and without nodes",
            1,
        ),
    ];
    for (body, why, at) in cases {
        refused(RdbWriter::redis(11), 21, &body, why, [at; 2]);
        refused(
            RdbWriter::redis(13),
            26,
            &[&body, NO_IDMP].concat(),
            why,
            [at; 2],
        );
    }
    let good = group(&pending(&[2, 1]), &consumers(&[("a", &[1]), ("b", &[2])]));
    let mut file = RdbWriter::redis(11);
    file.key(21, "key").bytes(good);
    assert_eq!(
        whole(&file.finish(), Mode::Raw(u64::MAX), &Limits::default()).1,
        Ok(Poll::End),
        "any order will do"
    );
    for settings in [
        &b"\0\x40\x64"[..],
        b"\x40\x64\0",
        b"\x80\0\x01\x51\x81\x01",
        b"\x01\x80\0\0\x27\x11",
    ] {
        let body = [&[0; 10][..], settings, &[0; 3]].concat();
        refused(
            RdbWriter::redis(13),
            26,
            &body,
            "idempotence out of range",
            [10; 2],
        );
    }
}

#[test]
fn broken_nodes() {
    let node = |items: &[Item<'_>]| {
        let mut body = RdbWriter::body();
        body.len(1).text([&[0; 7][..], &[1], &[0; 8]].concat());
        body.text(listpack(items)).len(1).bytes([0; 8]).len(0);
        body.as_bytes().to_vec()
    };
    let ints = |values: &[i64]| values.iter().map(|value| Item::Int(*value)).collect();
    // count, deleted, fields, end | flags, ms, seq, fields, size
    let cases: [(Vec<Item<'_>>, &str); 12] = [
        (vec![], "must not be empty"),
        (ints(&[1, 0, 0, 1]), "do not end with 0"),
        (ints(&[1, -1, 0, 0]), "none or below zero"),
        (vec!["x".into()], "none or below zero"),
        (ints(&[i64::MAX, 0, 0, 0]), "past the end of its node"),
        (ints(&[1, 0, 0, 0, 0, 0, 0, 0, 5]), "wrong size"),
        (ints(&[1, 0, 0, 0, 4, 0, 0, 0, 4]), "unknown flags"),
        (ints(&[0, 0, 0, 0, 0, 0, 0, 0, 4]), "more messages"),
        (ints(&[2, 0, 0, 0, 0, 0, 0, 0, 4]), "past the end of its"),
        (ints(&[1, 0, 5, 0]), "past the end of its node"),
        (
            ints(&[1, 0, 0, 0, 0, 0, 0, i64::MAX]),
            "past the end of its",
        ),
        (
            ints(&[2, 0, 0, 0, 0, 0, 1, 0, 4, 0, 0, 1, 0, 4]),
            "do not ascend",
        ),
    ];
    for (items, why) in cases {
        refused(RdbWriter::redis(11), 21, &node(&items), why, [1; 2]);
    }
}

/// Redis loads a stream that counts its messages wrong; it is never passed on whole.
#[test]
fn a_stream_that_miscounts_comes_in_elements() {
    let node = |count, deleted| {
        let ints = [count, deleted, 0, 0, 2, 0, 0, 3].map(Item::Int);
        listpack(&ints)
    };
    for (node, length, whole_too) in [
        (node(1, 0), 1, true),
        (node(1, 0), 2, false),
        (node(0, 1), 1, false),
    ] {
        let mut file = RdbWriter::redis(11);
        file.key(21, "key").len(1).text([1; 16]).text(&node);
        file.len(length).bytes([0; 8]);
        file.string("next", "value");
        let file = file.finish();
        let (raw, end) = whole(&file, Mode::Raw(u64::MAX), &Limits::default());
        assert_eq!(end, Ok(Poll::End));
        let is_whole = matches!(raw.get(2), Some(Event::Raw(_)));
        assert_eq!(is_whole, whole_too, "{raw:?}");
        if !whole_too {
            let (elements, _) = whole(&file, Mode::Elements, &Limits::default());
            assert_eq!(
                raw[..6],
                elements[..6],
                "start, key, value, message, info, end"
            );
        }
    }
}
