//! Whatever is done to a file, the decoder says so and goes on living.

mod support;

use rdb::{Dialect, ErrorKind, Event, Limits, Poll};
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
