//! Whatever is done to a file, the decoder says so and goes on living.

mod support;

use rdb::{Dialect, ErrorKind, Event, Limits, Poll};
use testkit::rdb_writer::{Item, RdbWriter, listpack};

use support::{MODES, Mode, Random, files, run, small_parts, whole};

/// A file is long enough that a poll that does nothing would be noticed.
fn survives(name: &str, file: &[u8], mode: Mode) -> Result<Poll, rdb::Error> {
    let (events, end) = whole(file, mode, &small_parts());
    assert!(
        events.len() <= file.len() * 90,
        "{name}: more events than the file can hold"
    );
    if let Err(error) = &end {
        assert!(
            error.at <= file.len() as u64,
            "{name}: {error} is outside of it"
        );
    }
    end
}

#[test]
fn every_changed_byte_is_found() {
    for (name, file) in files::all() {
        let summed = whole(&file, Mode::Skip, &Limits::default())
            .0
            .last()
            .is_some_and(|last| matches!(last, Event::End { checksum } if *checksum != 0));
        let trailer = file.len() - 8;
        for at in 0..file.len() {
            for change in [0x01, 0x80, 0xff, 0x40, file[at]] {
                let mut bad = file.clone();
                bad[at] ^= change;
                if bad == file {
                    continue;
                }
                for mode in MODES {
                    let end = survives(&name, &bad, mode);
                    // A checksum of zero says that none was computed; a version below 5 has none.
                    let unsummed = bad[trailer..] == [0; 8] || at < 9;
                    if summed && !unsummed {
                        let what = format!("{name}, {mode:?}, byte {at} changed by {change:#x}");
                        assert_ne!(end, Ok(Poll::End), "{what}");
                    }
                }
            }
        }
    }
}

#[test]
fn random_damage_in_chunks() {
    let mut random = Random(0x0dd0_5eed);
    let files = files::all();
    for round in 0..20_000 {
        let (name, file) = &files[round % files.len()];
        let mut bad = file.clone();
        for _ in 0..random.below(4) + 1 {
            let at = random.below(bad.len());
            match random.below(3) {
                0 => bad[at] = random.next() as u8,
                1 => drop(bad.remove(at)),
                _ => bad.insert(at, random.next() as u8),
            }
        }
        let mode = MODES[random.below(MODES.len())];
        let wanted = whole(&bad, mode, &small_parts());
        let cut = random.below(40) + 1;
        assert_eq!(
            run(&bad, [cut], mode, &small_parts()),
            wanted,
            "{name}, chunks of {cut}"
        );
        assert_eq!(survives(name, &bad, mode), wanted.1);
    }
}

fn ends_in(file: &[u8], mode: Mode) -> ErrorKind {
    whole(file, mode, &Limits::default())
        .1
        .expect_err("a bad file")
        .kind
}

#[test]
fn an_error_stays() {
    let mut decoder = rdb::Decoder::new(Limits::default());
    decoder.feed(bytes::Bytes::from_static(b"NONSENSE!"));
    let first = decoder.poll().expect_err("no magic");
    decoder.feed(bytes::Bytes::from_static(b"REDIS0011"));
    assert_eq!(decoder.poll(), Err(first.clone()));
    assert_eq!(decoder.finish(), Err(first));
}

#[test]
fn numbers_that_belong_to_another_dialect() {
    for (magic, byte) in [
        ("REDIS0011", 22),
        ("REDIS0011", 242),
        ("REDIS0011", 243),
        ("REDIS0011", 244),
        ("REDIS0012", 34),
        ("REDIS0012", 8),
        ("REDIS0012", 101),
        ("VALKEY080", 23),
        ("VALKEY080", 242),
    ] {
        let file = [magic.as_bytes(), &[byte, 0, 0, 0, 0]].concat();
        assert_eq!(
            ends_in(&file, Mode::Elements),
            ErrorKind::UnknownType(byte),
            "{magic}"
        );
    }
}

#[test]
fn a_type_byte_means_what_the_magic_says() {
    let kinds = |dialect| rdb::types::row(dialect, 22).map(|row| row.encoding);
    assert_eq!(kinds(Dialect::Redis), Some(rdb::Encoding::ExpiringAbsolute));
    assert_eq!(
        kinds(Dialect::Valkey),
        Some(rdb::Encoding::ExpiringTrailing)
    );
}

/// A value of a type, and the error that both ways of reading it must give.
#[test]
fn broken_values() {
    let cases: &[(u8, &[u8], &str)] = &[
        (0, b"\xc4", "encoding that does not exist"),
        (0, b"\x82", "unknown form"),
        (0, b"\xc3\x01\x40\x59\x00", "impossible LZF"),
        (0, b"\xc3\x02\x03\x20\x00", "before the output"),
        (0, b"\xc3\x02\x02\x00a", "another length"),
        (1, b"\xc0\x01", "where a number must stand"),
        (3, b"\x01\x01m\xfd", "not a number"),
        (3, b"\x01\x01m\x00", "no number"),
        (3, b"\x01\x01m\x03nan", "not a number"),
        (3, b"\x01\x01m\x021x", "no number"),
        (
            5,
            b"\x01\x01m\x00\x00\x00\x00\x00\x00\xf8\x7f",
            "not a number",
        ),
        (9, b"\x02\x00\xff", "without fields"),
        (
            11,
            b"\x08\x02\x00\x00\x00\x00\x00\x00\x00",
            "without integers",
        ),
        (
            16,
            b"\x09\x09\x00\x00\x00\x01\x00\x01\x01\xff",
            "incomplete last element",
        ),
        (16, b"\xc0\x05", "where a container must stand"),
        (
            17,
            b"\x0c\x0c\x00\x00\x00\x02\x00\x01\x01\x81x\x02\xff",
            "no number",
        ),
        (18, b"\x01\x03\x01a", "unknown container"),
        (18, b"\x01\x01\x00", "without an element"),
        (
            22,
            b"\x01\x01f\x01v\xfe\xff\xff\xff\xff\xff\xff\xff",
            "out of range",
        ),
    ];
    for (type_id, body, why) in cases {
        let mut file = match type_id {
            22 => testkit::rdb_writer::RdbWriter::valkey(80),
            _ => testkit::rdb_writer::RdbWriter::redis(11),
        };
        file.key(*type_id, "key").bytes(body);
        let file = file.finish();
        for mode in [Mode::Elements, Mode::Raw(u64::MAX)] {
            let error = ends_in(&file, mode).to_string();
            assert!(
                error.contains(why),
                "type {type_id}, {mode:?}: {error}, not {why}"
            );
        }
    }
}

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

/// What is wrong with a value, whichever way it is read.
fn refused(magic: RdbWriter, type_id: u8, body: &[u8], why: &str) {
    let mut file = magic;
    file.key(type_id, "key").bytes(body);
    let file = file.finish();
    for mode in [Mode::Elements, Mode::Raw(u64::MAX)] {
        let error = ends_in(&file, mode).to_string();
        assert!(
            error.contains(why),
            "type {type_id}, {mode:?}: {error}, not {why}"
        );
    }
}

#[test]
fn broken_groups() {
    let one = pending(&[1]);
    let cases: [(Vec<u8>, &str); 7] = [
        (group(&one, &consumers(&[])), "without an owner"),
        (
            group(&one, &consumers(&[("a", &[1]), ("b", &[1])])),
            "two owners",
        ),
        (group(&one, &consumers(&[("a", &[2])])), "its group has not"),
        (
            group(&pending(&[1, 1]), &consumers(&[("a", &[1])])),
            "same pending message twice",
        ),
        (
            group(&pending(&[]), &consumers(&[("a", &[]), ("a", &[])])),
            "two consumers of one name",
        ),
        (
            [&[0; 9][..], b"\x02\x01g\0\0\0\0\0\x01g\0\0\0\0\0"].concat(),
            "two groups of one name",
        ),
        (
            [&[0, 1][..], &[0; 8]].concat(),
            "with messages and without nodes",
        ),
    ];
    for (body, why) in cases {
        refused(RdbWriter::redis(11), 21, &body, why);
        refused(RdbWriter::redis(13), 26, &[&body, NO_IDMP].concat(), why);
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
        refused(RdbWriter::redis(13), 26, &body, "idempotence out of range");
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
        refused(RdbWriter::redis(11), 21, &node(&items), why);
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

#[test]
fn broken_arrays_and_templates() {
    for (body, why) in [
        (&b"\0\0"[..], "without values"),
        (b"\x01\x02", "neither 0 nor 1"),
        (b"\x02\0\x05\x03\x01a\x05\x03\x01b", "do not ascend"),
        (b"\x01\0\x05\x04\x01a", "unknown form"),
        (
            b"\x01\0\x81\xff\xff\xff\xff\xff\xff\xff\xff\x03\x01a",
            "do not ascend",
        ),
        (
            b"\x01\x01\x81\xff\xff\xff\xff\xff\xff\xff\xff\x01\x03\x01a",
            "insertion is out of range",
        ),
    ] {
        refused(RdbWriter::redis(15), 28, body, why);
    }
    let packed = |items: &[Item<'_>]| {
        let blob = listpack(items);
        [&[blob.len() as u8][..], &blob].concat()
    };
    let file = || {
        let mut file = RdbWriter::redis(15);
        file.hash_template(1, &["a", "b"]);
        file
    };
    for (type_id, body, why) in [
        (
            30,
            packed(&[1.into(), 2.into()]),
            "another number of values",
        ),
        (30, packed(&[2.into(), 2.into()]), "unknown template"),
        (30, packed(&["1".into()]), "no integer"),
        (30, packed(&[(-1).into()]), "below zero"),
        (30, packed(&[]), "must not be empty"),
        (31, b"\x02".to_vec(), "unknown format"),
        (31, b"\x01\0".to_vec(), "without names"),
        (31, b"\x01\x02\x01b\x01a".to_vec(), "do not ascend"),
        (31, b"\x01\x02\x01b\x01b".to_vec(), "do not ascend"),
        (32, b"\x02".to_vec(), "unknown template"),
    ] {
        refused(file(), type_id, &body, why);
    }
}

/// Sizes at the line between Valkey 9.1 and all others.
#[test]
fn forms_of_sizes_that_forks_write_differently() {
    let row = |id| rdb::types::row(Dialect::Shared, id).expect("a type");
    let long = "x".repeat(0x3fff - 5);
    let longer = listpack(&["f".into(), long.as_str().into()]);
    let mut shorter = longer.clone();
    // The size behind the long entry: 00 FF FF becomes 7F FF, and there is a byte less in all.
    let at = shorter.len() - 4;
    shorter.splice(at..at + 3, [0x7f, 0xff]);
    let total = shorter.len() as u32;
    shorter[..4].copy_from_slice(&total.to_le_bytes());
    let other = listpack(&["f".into(), long[1..].into()]);
    for (blob, wanted) in [
        (&longer, (true, false)),
        (&shorter, (false, true)),
        (&other, (false, false)),
    ] {
        for compressed in [true, false] {
            let mut body = RdbWriter::body();
            match compressed {
                true => body.lzf_text(blob),
                false => body.text(blob),
            };
            let body = bytes::Bytes::copy_from_slice(body.as_bytes());
            let found = rdb::dump::back_lengths(row(16), &body, Limits::default());
            let found = found.map(|found| (found.longer, found.shorter));
            assert_eq!(found, Ok(wanted), "compressed: {compressed}");
        }
    }
}

#[test]
fn broken_opcodes() {
    let job = [b'j'; 40];
    let import = |tail: &[u8]| [&[243, 40][..], &job, tail].concat();
    let cases: &[(&str, Vec<u8>, &str)] = &[
        (
            "REDIS0012",
            vec![254, 0x81, 0, 0, 1, 0, 0, 0, 0, 0],
            "database number",
        ),
        ("REDIS0012", vec![254, 0xc0, 0], "where a number must stand"),
        ("REDIS0012", vec![247, 1, 3, 1, 0], "without a time"),
        ("REDIS0012", vec![247, 1, 2, 1, 6], "unknown form"),
        ("REDIS0012", vec![246, 0, 0, 2], "neither 0 nor 1"),
        ("REDIS0015", vec![242, 1, 0], "without names"),
        (
            "REDIS0015",
            vec![242, 1, 2, 1, b'b', 1, b'a'],
            "do not ascend",
        ),
        ("REDIS0015", vec![242, 1, 1, 0, 242, 1, 1, 0], "given twice"),
        ("REDIS0015", vec![32, 0, 9], "unknown template"),
        ("VALKEY080", vec![243, 1, b'j', 0], "other than 40 bytes"),
        ("VALKEY080", import(&[1, 5, 4]), "ends before it begins"),
        (
            "VALKEY080",
            import(&[1, 0, 0x80, 0, 0, 0x40, 0]),
            "above 16383",
        ),
    ];
    for (magic, bytes, why) in cases {
        let file = [magic.as_bytes(), bytes].concat();
        let error = ends_in(&file, Mode::Raw(u64::MAX)).to_string();
        assert!(error.contains(why), "{error}, not {why}");
    }
}
