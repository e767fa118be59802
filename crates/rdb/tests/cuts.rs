//! However a file is cut into chunks, it decodes the same; cut short, it only waits.

mod support;

use rdb::{ErrorKind, Limits, Poll};
use support::{MODES, Mode, Random, files, run, small_parts, whole};
use testkit::rdb_writer::{Item, RdbWriter, listpack};

#[test]
fn every_cut_in_two() {
    for (name, file) in files::all() {
        for mode in MODES {
            let wanted = whole(&file, mode, &small_parts());
            for cut in 1..file.len() {
                let got = run(&file, [cut, file.len()], mode, &small_parts());
                assert_eq!(got, wanted, "{name}, {mode:?}, cut at {cut}");
            }
        }
    }
}

#[test]
fn chunks_of_one_size() {
    for (name, file) in files::all() {
        for mode in MODES {
            let wanted = whole(&file, mode, &small_parts());
            for size in 1..16 {
                let got = run(&file, [size], mode, &small_parts());
                assert_eq!(got, wanted, "{name}, {mode:?}, chunks of {size}");
            }
        }
    }
}

#[test]
fn every_prefix_waits_for_more() {
    for (name, file) in files::all() {
        for mode in MODES {
            let (events, end) = whole(&file, mode, &small_parts());
            // Where a file ends in an error, the prefixes before it wait, too.
            let good = end.map_or_else(|error| error.at as usize, |_| file.len());
            for cut in 0..good {
                let (seen, end) = run(&file[..cut], [cut], mode, &small_parts());
                assert_eq!(end, Ok(Poll::NeedMore), "{name}, {mode:?}, up to {cut}");
                assert!(events.starts_with(&seen), "{name}, {mode:?}, up to {cut}");
            }
        }
    }
}

#[test]
fn an_end_too_early_is_told_from_corruption() {
    let mut decoder = rdb::Decoder::new(Limits::default());
    decoder.feed(bytes::Bytes::from_static(b"REDIS0011\xfe\x00\x00\x03ke"));
    while let Ok(Poll::Event(_)) = decoder.poll() {}
    let error = decoder.finish().expect_err("half a key");
    assert_eq!((error.at, error.kind), (11, ErrorKind::Truncated));
}

/// A file of some hundred KiB with values of every size.
fn larger(random: &mut Random) -> Vec<u8> {
    let mut file = RdbWriter::redis(11);
    file.select_db(0);
    let noise: Vec<u8> = (0..20_000).map(|_| random.next() as u8).collect();
    for index in 0..300 {
        let key = format!("key:{index}");
        let some = |random: &mut Random, max| {
            let len = random.below(max);
            noise[..len].to_vec()
        };
        let texts: Vec<Vec<u8>> = (0..random.below(30) + 1)
            .map(|_| some(random, 60))
            .collect();
        let items: Vec<Item<'_>> = texts
            .iter()
            .map(|text| Item::from(text.as_slice()))
            .collect();
        match random.below(6) {
            0 => file.string(key, some(random, 20_000)),
            1 => file.list(key, &texts),
            2 => file
                .key(0, key)
                .lzf_text("repeated ".repeat(random.below(900) + 1)),
            3 => file.key(20, key).text(listpack(&items)),
            4 => file
                .key(18, key)
                .len(2)
                .len(2)
                .text(listpack(&items))
                .len(1)
                .text("x"),
            _ => file.hash(key, &[("field", "value")]),
        };
    }
    file.finish()
}

#[test]
fn random_cuts_of_a_larger_file() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let file = larger(&mut random);
    for mode in [
        Mode::Elements,
        Mode::Raw(u64::MAX),
        Mode::Raw(500),
        Mode::Skip,
    ] {
        let limits = Limits {
            part_bytes_max: 1000,
            ..Limits::default()
        };
        let wanted = whole(&file, mode, &limits);
        assert_eq!(wanted.1, Ok(Poll::End), "{mode:?}");
        for round in 0..40 {
            let largest = [3, 50, 700, 9000, 70_000][round % 5];
            let cuts: Vec<usize> = (0..file.len()).map(|_| random.below(largest) + 1).collect();
            let got = run(&file, cuts, mode, &limits);
            assert!(got == wanted, "{mode:?}, round {round}");
        }
    }
}
