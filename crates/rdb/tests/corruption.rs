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
