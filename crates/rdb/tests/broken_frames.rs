//! What is wrong with a file around its values is found, and where.

mod support;

use rdb::{Error, ErrorKind, Limits, Poll};
use testkit::rdb_writer::RdbWriter;

use support::{MODES, Mode, whole};

/// How a file ends, whatever is wanted of its values.
fn end(file: &[u8]) -> Result<Poll, Error> {
    let ends = MODES.map(|mode| whole(file, mode, &Limits::default()).1);
    for other in &ends {
        assert_eq!(other, &ends[0], "{file:x?}");
    }
    let [end, ..] = ends;
    end
}

#[test]
fn magics() {
    for (magic, kind) in [
        ("NONSENSE!", ErrorKind::BadMagic),
        ("REDIS00x1", ErrorKind::BadMagic),
        ("REDIS+011", ErrorKind::BadMagic),
        ("VALKEY 80", ErrorKind::BadMagic),
        ("redis0011", ErrorKind::BadMagic),
        ("REDIS0000", ErrorKind::Version(0)),
        ("REDIS0080", ErrorKind::Version(80)),
        ("REDIS9999", ErrorKind::Version(9999)),
        ("VALKEY079", ErrorKind::Version(79)),
        ("VALKEY011", ErrorKind::Version(11)),
    ] {
        assert_eq!(end(magic.as_bytes()), Err(Error { at: 0, kind }), "{magic}");
    }
}

#[test]
fn bytes_that_are_no_type_and_no_opcode() {
    for (magic, bytes) in [
        ("REDIS0011", 34..=106_u8),
        ("REDIS0011", 108..=120),
        ("REDIS0011", 122..=244),
        ("REDIS0015", 122..=241),
        ("VALKEY080", 122..=242),
        ("VALKEY080", 23..=106),
    ] {
        for byte in bytes {
            let file = [magic.as_bytes(), b"\x00\x01k\x01v", &[byte, 0, 0, 0]].concat();
            let kind = ErrorKind::UnknownType(byte);
            assert_eq!(end(&file), Err(Error { at: 14, kind }), "{magic}");
        }
    }
}

#[test]
fn checksums() {
    let mut file = RdbWriter::redis(11);
    file.string("key", "value");
    let good = file.finish();
    assert_eq!(end(&good), Ok(Poll::End));
    let at = good.len() - 8;
    let computed = u64::from_le_bytes(good[at..].try_into().expect("eight bytes"));
    let mut bad = good.clone();
    bad[at] ^= 1;
    let stored = computed ^ 1;
    let kind = ErrorKind::Checksum { stored, computed };
    let at = at as u64;
    assert_eq!(end(&bad), Err(Error { at, kind }));
    // Zero says that none was computed; and the oldest versions end without one.
    let none = [&good[..good.len() - 8], &[0; 8]].concat();
    assert_eq!(end(&none), Ok(Poll::End));
    assert_eq!(end(b"REDIS0004\x00\x01k\x01v\xff"), Ok(Poll::End));
    assert_eq!(end(b"REDIS0005\x00\x01k\x01v\xff"), Ok(Poll::NeedMore));
}

/// The size of a database is a hint, whatever it says; nothing is allocated by it.
#[test]
fn hints() {
    let huge = [0x81, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let file = [b"REDIS0004\xfb", &huge[..], &huge, b"\xff"].concat();
    assert_eq!(end(&file), Ok(Poll::End));
    let file = [b"REDIS0011\x02\x01k", &huge[..], b"\x01a"].concat();
    assert_eq!(end(&file), Ok(Poll::NeedMore), "a set of 2^64 - 1 members");
}

#[test]
fn opcodes() {
    let job = [b'j'; 40];
    let import = |tail: &[u8]| [&[243, 40][..], &job, tail].concat();
    let ascend = "a template whose fields do not ascend";
    let cases: &[(&str, Vec<u8>, &str, u64)] = &[
        // Whether a list is empty is seen before its key is given.
        (
            "REDIS0012",
            vec![1, 0, 0xc0, 1],
            "string encoding where a number must stand",
            0,
        ),
        (
            "REDIS0012",
            vec![254, 0x81, 0, 0, 1, 0, 0, 0, 0, 0],
            "database number",
            0,
        ),
        (
            "REDIS0012",
            vec![254, 0xc0, 0],
            "string encoding where a number must stand",
            0,
        ),
        (
            "REDIS0012",
            vec![251, 1, 0xc0, 0],
            "string encoding where a number must stand",
            0,
        ),
        (
            "REDIS0012",
            vec![250, 1, b'a', 0xc4],
            "string encoding that does not exist",
            3,
        ),
        (
            "REDIS0012",
            vec![247, 1, 3, 1, 0],
            "a module's data without a time",
            1,
        ),
        (
            "REDIS0012",
            vec![247, 1, 2, 1, 6],
            "a module's value of an unknown form",
            4,
        ),
        (
            "REDIS0012",
            vec![246, 0, 0, 2],
            "a flag that is neither 0 nor 1",
            3,
        ),
        ("REDIS0015", vec![242, 1, 0], "a template without names", 1),
        ("REDIS0015", vec![242, 1, 2, 1, b'b', 1, b'a'], ascend, 1),
        (
            "REDIS0015",
            vec![242, 1, 1, 0, 242, 1, 1, 0],
            "a template's number given twice",
            5,
        ),
        (
            "REDIS0015",
            vec![32, 0, 9],
            "a hash with an unknown template",
            2,
        ),
        (
            "VALKEY080",
            vec![243, 1, b'j', 0],
            "whose name has other than 40 bytes",
            1,
        ),
        (
            "VALKEY080",
            import(&[1, 5, 4]),
            "a range of slots that ends before it begins",
            1,
        ),
        (
            "VALKEY080",
            import(&[1, 0, 0x80, 0, 0, 0x40, 0]),
            "a slot above 16383",
            1,
        ),
    ];
    for (magic, bytes, why, at) in cases {
        let file = [magic.as_bytes(), bytes].concat();
        let error = whole(&file, Mode::Raw(u64::MAX), &Limits::default()).1;
        let error = error.expect_err(why);
        assert!(error.kind.to_string().contains(why), "{error}, not {why}");
        assert_eq!(error.at, magic.len() as u64 + at, "{why}");
    }
}

/// A key whose name is too long, by the limits of whoever reads.
#[test]
fn limits() {
    let limits = Limits {
        item_bytes_max: 8,
        string_bytes_max: 16,
        ..Limits::default()
    };
    for (body, at, got, max) in [
        (&b"\x00\x09keeeeeey!"[..], 9, 9, 8),
        (b"\x00\x01k\x11", 12, 17, 16),
        (b"\x01\x01k\x02\x01a\x09", 15, 9, 8),
        (b"\x02\x01k\x02\x01a\x09", 15, 9, 8),
        (b"\x10\x01k\x09", 12, 9, 8),
    ] {
        let file = [b"REDIS0011", body].concat();
        let what = "string";
        let kind = ErrorKind::Limit { what, got, max };
        let end = whole(&file, Mode::Elements, &limits).1;
        assert_eq!(end, Err(Error { at, kind }), "{body:x?}");
    }
}
