//! Values that some servers load, some refuse and some end over: a member twice, an intset out of
//! order. They decode; they are never passed on whole.

mod support;

use rdb::{Event, Limits, Poll};
use testkit::rdb_writer::{Item, RdbWriter, intset, listpack, ziplist, zipmap};

use support::{Mode, whole};

/// A body of one string.
fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    body(|body| body.text(bytes))
}

/// The same string, compressed.
fn lzf_text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    body(|body| body.lzf_text(bytes))
}

fn body(write: impl FnOnce(&mut RdbWriter) -> &mut RdbWriter) -> Vec<u8> {
    let mut body = RdbWriter::body();
    write(&mut body);
    body.as_bytes().to_vec()
}

/// Elements written one by one: their number, then all the parts.
fn plain(count: u64, parts: &[&[u8]]) -> Vec<u8> {
    body(|body| body.len(count).bytes(parts.concat()))
}

fn file(type_id: u8, body: &[u8]) -> Vec<u8> {
    let mut file = match (type_id, body.last()) {
        // Two types have this number; only Valkey's ends with an expiry.
        (22, Some(0xff)) => RdbWriter::valkey(80),
        (22.., _) => RdbWriter::redis(15),
        _ => RdbWriter::redis(11),
    };
    file.key(type_id, "key").bytes(body);
    file.string("next", "value");
    file.finish()
}

/// What is given for the key, between its head and the next key.
fn given(file: &[u8], mode: Mode, limits: &Limits) -> Vec<Event> {
    let (events, end) = whole(file, mode, limits);
    assert_eq!(end, Ok(Poll::End), "{events:?}");
    events
        .into_iter()
        .skip_while(|event| !matches!(event, Event::Key(_)))
        .skip(1)
        .take_while(|event| !matches!(event, Event::Key(_)))
        .collect()
}

/// Whether the value is passed on whole, by either way of validating.
fn is_whole(type_id: u8, body: &[u8], limits: &Limits) -> bool {
    let file = file(type_id, body);
    let raw = given(&file, Mode::Raw(u64::MAX), limits);
    if let [Event::Raw(given)] = raw.as_slice() {
        assert_eq!(given, body, "type {type_id}");
        return true;
    }
    let elements = given(&file, Mode::Elements, limits);
    assert_eq!(raw, elements, "type {type_id}");
    assert!(elements.len() > 3, "both members are given: {elements:?}");
    false
}

const NONE: &[u8] = &[0xff; 8];
const SCORE: &[u8] = &[0, 0, 0, 0, 0, 0, 0xf0, 0x3f];

/// Two members of a name as short as `one` and `other`, in every encoding that has members.
fn bodies(one: &str, other: &str) -> Vec<(u8, Vec<u8>)> {
    let member = |name: &str| text(name);
    let (first, second) = (member(one), member(other));
    let value = b"\x01v";
    let score = b"\x011";
    let items = |rest: &[Item<'static>]| -> Vec<Item<'_>> {
        let of = |name| [Item::from(name)].into_iter().chain(rest.iter().copied());
        of(one).chain(of(other)).collect()
    };
    let min = [1, 0, 0, 0, 0, 0, 0, 0];
    let never = || items(&["v".into(), Item::Int(0)]);
    vec![
        (2, plain(2, &[&first, &second])),
        (3, plain(2, &[&first, score, &second, score])),
        (4, plain(2, &[&first, value, &second, value])),
        (5, plain(2, &[&first, SCORE, &second, SCORE])),
        (
            9,
            text(zipmap(
                &[(one.as_bytes(), b"v"), (other.as_bytes(), b"w")],
                0,
            )),
        ),
        (12, text(ziplist(&items(&[Item::Int(1)])))),
        (13, text(ziplist(&items(&["v".into()])))),
        (16, text(listpack(&items(&["v".into()])))),
        (17, text(listpack(&items(&[Item::Int(1)])))),
        (20, text(listpack(&items(&[])))),
        (22, plain(2, &[&first, value, NONE, &second, value, NONE])),
        (22, plain(2, &[&[0], &first, value, &[0], &second, value])),
        (23, text(listpack(&never()))),
        (
            24,
            [
                &min[..],
                &plain(2, &[&[0], &first, value, &[0], &second, value]),
            ]
            .concat(),
        ),
        (25, [&min[..], &text(listpack(&never()))].concat()),
    ]
}

#[test]
fn a_member_that_comes_twice() {
    for (one, other) in [
        ("a", "b"),
        ("member", "nember"),
        ("", "a"),
        ("7", "07"),
        ("-1", "1"),
    ] {
        for (type_id, body) in bodies(one, other) {
            assert!(
                is_whole(type_id, &body, &Limits::default()),
                "type {type_id}, {one}, {other}"
            );
        }
    }
    for name in [
        "a",
        "",
        "member",
        "a member of some length, in all",
        "7",
        "-300",
    ] {
        for (type_id, body) in bodies(name, name) {
            assert!(
                !is_whole(type_id, &body, &Limits::default()),
                "type {type_id}, {name} twice"
            );
        }
    }
}

/// The same member, written in two ways.
#[test]
fn a_member_in_two_forms() {
    let long = "member".repeat(20);
    for (type_id, body) in [
        (2, plain(2, &[b"\xc0\x07", b"\x017"])),
        (2, plain(2, &[b"\xc0\x07", b"\xc1\x07\x00"])),
        (2, plain(2, &[&text(&long), &lzf_text(&long)])),
        (
            4,
            plain(2, &[b"\xc1\x2c\x01", b"\x01v", b"\x03300", b"\x01v"]),
        ),
        (20, text(b"\x0c\0\0\0\x02\0\x07\x01\x817\x02\xff")),
    ] {
        assert!(
            !is_whole(type_id, &body, &Limits::default()),
            "type {type_id}"
        );
    }
}

/// An item of a list, a value or a score may come twice, and so may a name in two places.
#[test]
fn what_may_come_twice() {
    let twice = [Item::from("a"), "a".into()];
    for (type_id, body) in [
        (1, plain(2, &[b"\x01a", b"\x01a"])),
        (10, text(ziplist(&twice))),
        (14, [&[1][..], &text(ziplist(&twice))].concat()),
        (18, [&[1, 2][..], &text(listpack(&twice))].concat()),
        (4, plain(2, &[b"\x01a", b"\x01b", b"\x01b", b"\x01b"])),
        (
            16,
            text(listpack(&["a".into(), "b".into(), "b".into(), "b".into()])),
        ),
        (28, b"\x02\x00\x05\x03\x01a\x06\x03\x01a".to_vec()),
    ] {
        assert!(
            is_whole(type_id, &body, &Limits::default()),
            "type {type_id}"
        );
    }
    // And the members of one key are nothing to the next.
    let mut file = RdbWriter::redis(11);
    file.set("one", &["a", "b"]).set("two", &["a", "b"]);
    file.key(20, "three").text(listpack(&twice[..1]));
    file.key(16, "four").text(listpack(&twice));
    let (events, _) = whole(&file.finish(), Mode::Raw(u64::MAX), &Limits::default());
    let raw = events.iter().filter(|event| matches!(event, Event::Raw(_)));
    assert_eq!(raw.count(), 4);
}

#[test]
fn an_intset_out_of_order() {
    for (integers, good) in [
        (&[-5, 0, 7][..], true),
        (&[7], true),
        (&[0, -5, 7], false),
        (&[0, 7, 7], false),
    ] {
        for width in [2, 4, 8] {
            let body = text(intset(width, integers));
            assert_eq!(
                is_whole(11, &body, &Limits::default()),
                good,
                "{integers:?}"
            );
        }
    }
    let body = lzf_text(intset(8, &[3, 2, 1, 0]));
    assert!(!is_whole(11, &body, &Limits::default()));
}

/// What is compressed is only looked into if that is asked for.
#[test]
fn compressed_members() {
    let validate_raw = false;
    let stored_only = Limits {
        validate_raw,
        ..Limits::default()
    };
    let pairs = [Item::from("field"), "value".into()].repeat(8);
    for (type_id, blob) in [
        (16, listpack(&pairs)),
        (13, ziplist(&pairs)),
        (20, listpack(&pairs)),
    ] {
        assert!(
            !is_whole(type_id, &lzf_text(&blob), &Limits::default()),
            "type {type_id}"
        );
        assert!(
            is_whole(type_id, &lzf_text(&blob), &stored_only),
            "type {type_id}"
        );
        assert!(
            !is_whole(type_id, &text(&blob), &stored_only),
            "type {type_id}"
        );
    }
    let long = lzf_text("member".repeat(20));
    let body = plain(2, &[&long, &long]);
    assert!(!is_whole(2, &body, &Limits::default()));
    assert!(is_whole(2, &body, &stored_only));
}

/// A large value, whose last member is its first.
#[test]
fn one_of_many() {
    let mut members: Vec<String> = (0..100_000).map(|index| format!("m{index}")).collect();
    for good in [true, false] {
        let body = body(|body| {
            body.len(members.len() as u64);
            members.iter().fold(body, |body, member| body.text(member))
        });
        assert_eq!(is_whole(2, &body, &Limits::default()), good);
        members.push("m0".to_owned());
    }
}

/// A member that cannot fit into what is wanted is not waited for.
#[test]
fn a_long_member_is_not_gathered_in_vain() {
    let mut decoder = rdb::Decoder::new(Limits::default());
    let mut file = RdbWriter::redis(11);
    file.key(2, "key").len(2).text("a").len(1 << 29);
    decoder.feed(file.as_bytes().to_vec().into());
    let mut events = Vec::new();
    while let Ok(Poll::Event(event)) = decoder.poll() {
        decoder.want(rdb::Want::Raw { bytes_max: 1000 });
        events.push(event);
    }
    let last = events.last();
    assert_eq!(last, Some(&Event::Item("a".into())), "in elements by now");
}
