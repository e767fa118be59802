//! What is wrong with a value is found, and where, whichever way it is read. Each function is a row
//! of what has to be checked in a structure.

mod support;

use rdb::{Dialect, ErrorKind};
use testkit::rdb_writer::{Item, RdbWriter, listpack, ziplist};

use support::{Mode, refused, whole};

/// A string that holds these bytes.
fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut body = RdbWriter::body();
    body.text(bytes);
    body.as_bytes().to_vec()
}

fn writer(type_id: u8) -> RdbWriter {
    match type_id {
        ..22 => RdbWriter::redis(11),
        22.. => RdbWriter::redis(15),
    }
}

/// Types by what is packed into them, with what leads the string.
const LISTPACKS: [(u8, &[u8]); 6] = [
    (16, b""),
    (17, b""),
    (20, b""),
    (23, b""),
    (25, &[1, 0, 0, 0, 0, 0, 0, 0]),
    (18, b"\x01\x02"),
];
const ZIPLISTS: [(u8, &[u8]); 4] = [(10, b""), (12, b""), (13, b""), (14, b"\x01")];

/// Expects it of a container in each of the types. The place is that of the string; of a list's
/// node, which is led by its form, that of the node.
fn refused_in(types: &[(u8, &[u8])], blob: &[u8], why: &str) {
    for (type_id, lead) in types {
        let at = match type_id {
            18 => 1,
            _ => lead.len() as u64,
        };
        let body = [lead, &text(blob)[..]].concat();
        refused(writer(*type_id), *type_id, &body, why, [at; 2]);
        let mut body = RdbWriter::body();
        body.bytes(lead).lzf_text(blob);
        refused(writer(*type_id), *type_id, body.as_bytes(), why, [at; 2]);
    }
}

fn sized(mut blob: Vec<u8>) -> Vec<u8> {
    let total = u32::try_from(blob.len()).expect("small");
    blob[..4].copy_from_slice(&total.to_le_bytes());
    blob
}

#[test]
fn listpacks() {
    let head = [0, 0, 0, 0, 1, 0];
    let wrap = |entries: &[u8]| sized([&head[..], entries, &[0xff]].concat());
    let mut count = wrap(&[1, 1]);
    count[4] = 2;
    for (blob, why) in [
        (vec![6, 0, 0, 0, 0, 0], "a listpack without an end"),
        (vec![5, 0, 0, 0, 0], "a listpack without a header"),
        (
            vec![8, 0, 0, 0, 0, 0, 0xff],
            "a listpack of another size than stated",
        ),
        (
            sized(vec![0, 0, 0, 0, 1, 0, 1, 1]),
            "a listpack without an end",
        ),
        (
            wrap(&[1, 2]),
            "a listpack entry with a wrong size behind it",
        ),
        (wrap(&[0x85, b'a', 6]), "a listpack entry runs past the end"),
        (
            wrap(&[0xf0, 0xff, 0xff, 0xff, 0xff]),
            "a listpack entry runs past the end",
        ),
        (
            wrap(&[1, 1, 0xff, 1, 1]),
            "a listpack that ends before its end",
        ),
        (
            count,
            "a listpack with another number of entries than stated",
        ),
    ] {
        refused_in(&LISTPACKS, &blob, why);
    }
    for form in 0xf5..=0xfe {
        refused_in(
            &LISTPACKS,
            &wrap(&[form, 1]),
            "a listpack entry of an unknown form",
        );
    }
}

#[test]
fn ziplists() {
    let good = ziplist(&["a".into(), "5".into()]);
    let changed = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        bad
    };
    let end = good.len() - 1;
    for (blob, why) in [
        (good[..10].to_vec(), "a ziplist of another size than stated"),
        (sized(good[..10].to_vec()), "a ziplist without an end"),
        (
            vec![9, 0, 0, 0, 10, 0, 0, 0, 0],
            "a ziplist without a header",
        ),
        (changed(0, 40), "a ziplist of another size than stated"),
        (changed(end, 0), "a ziplist without an end"),
        (
            changed(4, 10),
            "a ziplist with a wrong offset of its last entry",
        ),
        (
            changed(4, 200),
            "a ziplist with a wrong offset of its last entry",
        ),
        (
            changed(8, 3),
            "a ziplist with another number of entries than stated",
        ),
        (
            changed(10, 1),
            "a ziplist entry with a wrong size before it",
        ),
        (
            changed(13, 2),
            "a ziplist entry with a wrong size before it",
        ),
        (changed(14, 9), "a ziplist entry runs past the end"),
        (changed(14, 0xc1), "a ziplist entry of an unknown form"),
        (changed(13, 0xff), "a ziplist that ends before its end"),
    ] {
        refused_in(&ZIPLISTS, &blob, why);
    }
}

#[test]
fn elements_of_packed_values() {
    let incomplete = "a container with an incomplete last element";
    let (one, three) = ([Item::from("a")], [Item::from("a"), 1.into(), 2.into()]);
    for items in [&one[..], &three] {
        refused_in(&LISTPACKS[..2], &listpack(items), incomplete);
        refused_in(&ZIPLISTS[1..3], &ziplist(items), incomplete);
    }
    let two = [Item::from("a"), 0.into()];
    refused_in(&LISTPACKS[3..5], &listpack(&two), incomplete);
    for (score, why) in [
        ("x", "a score whose text is no number"),
        ("", "a score whose text is no number"),
        ("nan", "a score that is not a number"),
        ("-NaN", "a score that is not a number"),
    ] {
        let items = [Item::from("a"), score.into()];
        refused_in(&LISTPACKS[1..2], &listpack(&items), why);
        refused_in(&ZIPLISTS[1..2], &ziplist(&items), why);
    }
    let range = "a field's expiry out of range";
    for (expiry, why) in [
        (Item::from("x"), "a field's expiry that is no integer"),
        (Item::Int(-1), range),
        (Item::Int(1 << 48), range),
    ] {
        let items = [Item::from("a"), "v".into(), expiry];
        refused_in(&LISTPACKS[3..5], &listpack(&items), why);
    }
    for (type_id, lead) in LISTPACKS.iter().chain(&ZIPLISTS) {
        let body = [lead, &b"\xc0\x05"[..]].concat();
        let at = if *type_id == 18 { 1 } else { lead.len() as u64 };
        let why = "an integer where a container must stand";
        refused(writer(*type_id), *type_id, &body, why, [at; 2]);
    }
}

#[test]
fn intsets() {
    for (blob, why) in [
        (&[2, 0, 0, 0, 0, 0, 0, 0][..], "an intset without integers"),
        (
            &[3, 0, 0, 0, 1, 0, 0, 0, 1, 1, 1],
            "an intset with an unknown width",
        ),
        (
            &[2, 0, 0, 0, 2, 0, 0, 0, 1, 0],
            "an intset of another size than stated",
        ),
        (
            &[2, 0, 0, 0, 1, 0, 0, 0, 1, 0, 2, 0],
            "an intset of another size than stated",
        ),
        (
            &[8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0],
            "an intset of another size than stated",
        ),
        (&[2, 0, 0], "an intset without a header"),
    ] {
        refused_in(&[(11, b"")], blob, why);
    }
}

#[test]
fn zipmaps() {
    for (blob, why) in [
        (&b"\x01\x01f\x01\x00v"[..], "a zipmap without an end"),
        (b"\xff", "a zipmap without an end"),
        (
            b"\x01\x01f\x09\x00v\xff",
            "a zipmap entry runs past the end",
        ),
        (
            b"\x01\x01f\x01\x09v\xff",
            "a zipmap entry runs past the end",
        ),
        (b"\x01\x01f\xff", "a zipmap entry runs past the end"),
        (
            b"\x01\xfe\xff\xff\xff\xfff\xff",
            "a zipmap entry runs past the end",
        ),
        (
            b"\x01\xfe\x01\x00\x00\x00f\x01\x00v\xff",
            "a zipmap length in too long a form",
        ),
        (
            b"\x02\x01f\x01\x00v\xff",
            "a zipmap with another number of fields than stated",
        ),
        (
            b"\x01\x01f\x01\x00v\xff\xff",
            "a zipmap that ends before its end",
        ),
        (b"\x00\xff", "a zipmap without fields"),
    ] {
        refused_in(&[(9, b"")], blob, why);
    }
}

/// Where elements are given, the place is that of the element; whole values know the part.
#[test]
fn strings_and_elements_one_by_one() {
    let cases: &[(u8, &[u8], &str, [u64; 2])] = &[
        (0, b"\xc4", "string encoding that does not exist", [0, 0]),
        (0, b"\xff", "string encoding that does not exist", [0, 0]),
        (0, b"\x82", "length of an unknown form", [0, 0]),
        (0, b"\xc3\x00\x05", "impossible LZF lengths", [0, 0]),
        (0, b"\xc3\x01\x40\x59\x00", "impossible LZF lengths", [0, 0]),
        (
            0,
            b"\xc3\x05\x81\0\0\0\x40\0\0\0\0",
            "string of 274877906944 exceeds",
            [0, 0],
        ),
        (
            0,
            b"\x81\0\0\x80\0\0\0\0\0",
            "string of 140737488355328 exceeds",
            [0, 0],
        ),
        (
            0,
            b"\xc3\x02\x03\x20\x00",
            "LZF copy from before the output",
            [0, 0],
        ),
        (
            0,
            b"\xc3\x02\x02\x00a",
            "LZF output of another length than declared",
            [0, 0],
        ),
        (
            0,
            b"\xc3\x02\x03\x02a",
            "LZF input ends within an instruction",
            [0, 0],
        ),
        (
            2,
            b"\x02\x01a\x81\0\0\0\x01\0\0\0\0",
            "string of 4294967296 exceeds",
            [3, 3],
        ),
        (
            2,
            b"\x02\x01a\xc5",
            "string encoding that does not exist",
            [3, 3],
        ),
        (3, b"\x01\x01m\xfd", "a score that is not a number", [1, 3]),
        (
            3,
            b"\x01\x01m\x00",
            "a score whose text is no number",
            [1, 3],
        ),
        (
            3,
            b"\x01\x01m\x03nan",
            "a score that is not a number",
            [1, 3],
        ),
        (
            3,
            b"\x01\x01m\x021x",
            "a score whose text is no number",
            [1, 3],
        ),
        (
            4,
            b"\x01\x01f\xc4",
            "string encoding that does not exist",
            [1, 3],
        ),
        (
            5,
            b"\x01\x01m\0\0\0\0\0\0\xf8\x7f",
            "a score that is not a number",
            [1, 3],
        ),
        (
            5,
            b"\x01\x01m\0\0\0\0\0\0\xf8\xff",
            "a score that is not a number",
            [1, 3],
        ),
        (
            18,
            b"\x01\x03\x01a",
            "a list node of an unknown container",
            [1, 1],
        ),
        (
            18,
            b"\x01\x01\x00",
            "a list node without an element",
            [1, 1],
        ),
        (
            7,
            b"\x05\x02\x07\x06\0",
            "a module's value of an unknown form",
            [3, 3],
        ),
    ];
    for (type_id, body, why, at) in cases {
        refused(writer(*type_id), *type_id, body, why, *at);
    }
    let below = b"\x01\x01f\x01v\xfe\xff\xff\xff\xff\xff\xff\xff";
    let why = "a field's expiry out of range";
    refused(RdbWriter::valkey(80), 22, below, why, [1, 5]);
}

/// The first module types had no frames: nobody can tell where such a value ends.
#[test]
fn values_that_cannot_be_delimited() {
    for (type_id, version, name) in [(6, 11, "MODULE_PRE_GA"), (33, 15, "GCRA")] {
        let mut file = RdbWriter::redis(version);
        let at = file.as_bytes().len() as u64;
        file.key(type_id, "key").bytes([0; 20]);
        for mode in support::MODES {
            let error = whole(file.as_bytes(), mode, &Default::default()).1;
            let kind = ErrorKind::Unsupported { type_id, name };
            assert_eq!(error, Err(rdb::Error { at, kind }), "{mode:?}");
        }
    }
    assert!(rdb::types::row(Dialect::Shared, 8).is_none());
}

/// Found by fuzzing: such values were passed on whole, and not decoded.
#[test]
fn expiries_of_fields() {
    let why = "a field's expiry out of range";
    let value = b"\x01\x01\x01f\x01v";
    let above = [&[0, 0, 0, 0, 0, 0, 2, 0], &value[..]].concat();
    refused(RdbWriter::redis(12), 24, &above, why, [0; 2]);
    let last = [&[0, 0, 0, 0, 0, 0, 1, 0], &value[..]].concat();
    refused(RdbWriter::redis(12), 24, &last, why, [9; 2]);
    let sum = b"\x01\0\0\0\0\0\0\0\x01\x81\xff\xff\xff\xff\xff\xff\xff\xff\x01f\x01v";
    refused(RdbWriter::redis(12), 24, sum, why, [9; 2]);
    let absolute = b"\x01\x81\0\x01\0\0\0\0\0\0\x01f\x01v";
    refused(RdbWriter::redis(12), 22, absolute, why, [1; 2]);
}

#[test]
fn arrays() {
    for (body, why, at) in [
        (&b"\0\0"[..], "an array without values", 0),
        (b"\x01\x02", "a flag that is neither 0 nor 1", 0),
        (
            b"\x02\0\x05\x03\x01a\x05\x03\x01b",
            "an array whose indexes do not ascend",
            6,
        ),
        (
            b"\x02\0\x05\x03\x01a\x04\x03\x01b",
            "an array whose indexes do not ascend",
            6,
        ),
        (
            b"\x01\0\x05\x04\x01a",
            "an array's value of an unknown form",
            2,
        ),
        (
            b"\x01\0\x81\xff\xff\xff\xff\xff\xff\xff\xff\x03\x01a",
            "an array whose indexes do not ascend",
            2,
        ),
        (
            b"\x01\x01\x81\xff\xff\xff\xff\xff\xff\xff\xff\x01\x03\x01a",
            "an array whose place of insertion is out of range",
            0,
        ),
    ] {
        refused(RdbWriter::redis(15), 28, body, why, [at; 2]);
    }
}

#[test]
fn hashes_with_templates() {
    let packed = |items: &[Item<'_>]| text(listpack(items));
    let file = || {
        let mut file = RdbWriter::redis(15);
        file.hash_template(1, &["a", "b"]);
        file
    };
    let ascend = "a template whose fields do not ascend";
    for (type_id, body, why, at) in [
        (
            29,
            [&b"\x01\x01\x01a"[..], &packed(&[1.into()])].concat(),
            "another number of values",
            4,
        ),
        (
            29,
            [&[0][..], &packed(&["b".into(), "a".into()])].concat(),
            ascend,
            0,
        ),
        (
            30,
            packed(&[1.into(), 2.into()]),
            "another number of values",
            0,
        ),
        (
            30,
            packed(&[2.into(), 2.into()]),
            "a hash with an unknown template",
            0,
        ),
        (
            30,
            packed(&["1".into()]),
            "a template's number that is no integer",
            0,
        ),
        (
            30,
            packed(&[(-1).into()]),
            "a template's number below zero",
            0,
        ),
        (30, packed(&[]), "a container that must not be empty", 0),
        (
            31,
            b"\x02".to_vec(),
            "a template's names in an unknown format",
            0,
        ),
        (31, b"\x01\0".to_vec(), "a template without names", 2),
        (31, b"\x01\x02\x01b\x01a".to_vec(), ascend, 4),
        (31, b"\x01\x02\x01b\x01b".to_vec(), ascend, 4),
        (32, b"\x02".to_vec(), "a hash with an unknown template", 0),
    ] {
        refused(file(), type_id, &body, why, [at; 2]);
    }
}

/// An end within a value is another error than damage, and stands where the input ends.
#[test]
fn an_early_end() {
    for (type_id, body) in [
        (0, &b"\x05abc"[..]),
        (2, b"\x03\x01a\x01"),
        (16, b"\x09\x09\0\0"),
        (5, b"\x01\x01m\0\0"),
        (21, b"\x01\x10\0\0"),
    ] {
        let mut file = writer(type_id);
        file.key(type_id, "key").bytes(body);
        for mode in [Mode::Elements, Mode::Raw(u64::MAX), Mode::Skip] {
            let mut decoder = rdb::Decoder::new(Default::default());
            decoder.feed(file.as_bytes().to_vec().into());
            while let Ok(rdb::Poll::Event(_)) = decoder.poll() {
                support::wanted(&mut decoder, mode);
            }
            assert_eq!(decoder.poll(), Ok(rdb::Poll::NeedMore), "type {type_id}");
            let error = decoder.finish().expect_err("an early end");
            assert_eq!(error.kind, ErrorKind::Truncated);
            assert!(error.at <= file.as_bytes().len() as u64);
        }
    }
}
