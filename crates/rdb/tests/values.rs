//! The three ways to have a value agree with each other, and large values pass in little space.

mod support;

use bytes::Bytes;
use rdb::{Decoder, Event, KeyHead, Limits, Poll, Want, dump};
use support::{Mode, events, files, small_parts, whole};
use testkit::rdb_writer::{self, RdbWriter};

/// Keys with the events of their values.
fn by_key(events: &[Event]) -> Vec<(KeyHead, Vec<Event>)> {
    let mut keys: Vec<(KeyHead, Vec<Event>)> = Vec::new();
    for event in events {
        match event {
            Event::Key(head) => keys.push((head.clone(), Vec::new())),
            Event::Start { .. }
            | Event::Aux { .. }
            | Event::SelectDb(_)
            | Event::ResizeDb { .. }
            | Event::SlotInfo { .. }
            | Event::SlotImport { .. }
            | Event::HashTemplate { .. }
            | Event::Function { .. }
            | Event::FunctionPreGa { .. }
            | Event::ModuleAux { .. }
            | Event::End { .. } => {}
            _ => keys.last_mut().expect("a key").1.push(event.clone()),
        }
    }
    keys
}

#[test]
fn raw_bodies_are_the_bytes_of_the_file() {
    for (name, file) in files::all() {
        let (events, _) = whole(&file, Mode::Raw(u64::MAX), &Limits::default());
        for (head, value) in by_key(&events) {
            let [Event::Raw(body)] = value.as_slice() else {
                panic!("{name}: {value:?}")
            };
            let start = head.at as usize + 1 + 1 + head.key.len();
            assert_eq!(body, &file[start..start + body.len()], "{name}");
        }
    }
}

/// A body that is put behind a key of its own gives the same elements: it begins and ends right.
#[test]
fn raw_bodies_decode_to_the_same_elements() {
    for (name, file) in files::all() {
        let elements = by_key(&whole(&file, Mode::Elements, &Limits::default()).0);
        let raws = by_key(&whole(&file, Mode::Raw(u64::MAX), &Limits::default()).0);
        assert_eq!(elements.len(), raws.len(), "{name}");
        for ((head, elements), (_, raw)) in elements.iter().zip(raws) {
            let [Event::Raw(body)] = raw.as_slice() else {
                panic!("{name}: {raw:?}")
            };
            if !head.encoding.decodes() {
                assert_eq!(elements, &raw, "{name}");
                continue;
            }
            let mut alone = if file.starts_with(b"VALKEY") {
                RdbWriter::valkey(80)
            } else {
                let mut alone = RdbWriter::redis(15);
                alone.hash_template(3, &["a", "bb", "cc"]);
                alone
            };
            alone.key(head.type_id, "k").bytes(body);
            let again = by_key(&support::events(&alone.finish(), Mode::Elements));
            assert_eq!(&again[0].1, elements, "{name}");
        }
    }
}

#[test]
fn what_is_larger_than_wanted_comes_in_elements() {
    for (name, file) in files::all() {
        let elements = by_key(&whole(&file, Mode::Elements, &small_parts()).0);
        let raws = by_key(&whole(&file, Mode::Raw(u64::MAX), &small_parts()).0);
        for bytes_max in [0, 1, 5, 24, 60, 350] {
            let mixed = by_key(&whole(&file, Mode::Raw(bytes_max), &small_parts()).0);
            assert_eq!(mixed.len(), raws.len(), "{name}");
            for (((head, got), (_, elements)), (_, raw)) in mixed.iter().zip(&elements).zip(&raws) {
                let [Event::Raw(body)] = raw.as_slice() else {
                    panic!("{name}: {raw:?}")
                };
                let whole = body.len() as u64 <= bytes_max || !head.encoding.decodes();
                assert_eq!(
                    got,
                    if whole { raw } else { elements },
                    "{name}, {bytes_max}"
                );
            }
        }
    }
}

#[test]
fn skipped_values_leave_the_rest() {
    for (name, file) in files::all() {
        let keys = |mode| {
            let (events, end) = whole(&file, mode, &Limits::default());
            let heads: Vec<KeyHead> = by_key(&events).into_iter().map(|(head, _)| head).collect();
            (heads, end)
        };
        assert_eq!(keys(Mode::Skip), keys(Mode::Elements), "{name}");
    }
}

#[test]
fn empty_collections_are_counted() {
    let files = files::all();
    let (_, file) = files
        .iter()
        .find(|(name, _)| name == "frame_empty_keys_v10")
        .expect("the file");
    let mut decoder = Decoder::new(Limits::default());
    decoder.feed(Bytes::from(file.clone()));
    let mut keys = 0;
    while let Ok(Poll::Event(event)) = decoder.poll() {
        keys += usize::from(matches!(event, Event::Key(_)));
    }
    assert_eq!((keys, decoder.skipped_empty()), (1, 15));
}

#[test]
fn what_follows_the_file_is_left_over() {
    let mut file = RdbWriter::redis(10);
    file.select_db(0).string("k", "v");
    let mut bytes = file.finish();
    let len = bytes.len();
    bytes.extend(b"*1\r\n$4\r\nPING\r\n");
    for chunk in [1, 7, len, bytes.len()] {
        let mut decoder = Decoder::new(Limits::default());
        for chunk in bytes.chunks(chunk) {
            decoder.feed(Bytes::copy_from_slice(chunk));
        }
        while let Ok(Poll::Event(_)) = decoder.poll() {}
        assert_eq!(decoder.poll(), Ok(Poll::End));
        assert_eq!(decoder.offset(), len as u64);
        assert_eq!(decoder.leftover(), "*1\r\n$4\r\nPING\r\n");
        assert_eq!(decoder.finish(), Ok(()));
    }
}

#[test]
fn payloads_are_as_the_writer_makes_them() {
    for (name, file) in files::all() {
        let (events, _) = whole(&file, Mode::Raw(u64::MAX), &Limits::default());
        for (head, value) in by_key(&events) {
            let [Event::Raw(body)] = value.as_slice() else {
                panic!("{name}: {value:?}")
            };
            let meta = head.meta.as_deref();
            let mut payload = b"before".to_vec();
            dump::payload(&mut payload, meta, head.type_id, body, 11);
            let payload = payload.split_off(6);
            let lead = meta.map_or(vec![], |meta| [&[243], meta].concat());
            let value = [&lead[..], &[head.type_id], body].concat();
            assert_eq!(payload, rdb_writer::payload(&value, 11), "{name}");
            assert_eq!(payload.len(), dump::payload_len(meta, body), "{name}");
            let found = dump::verify(&payload).expect("a good payload");
            assert_eq!((found.value, found.version), (&value[..], 11), "{name}");
        }
    }
}

#[test]
fn payloads_that_are_not_whole() {
    let good = rdb_writer::payload(b"\x00\x05value", 9);
    assert_eq!(dump::verify(&good).map(|found| found.version), Ok(9));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x20;
        assert!(dump::verify(&bad).is_err(), "byte {at}");
        assert!(dump::verify(&good[..at]).is_err(), "up to byte {at}");
    }
    let unsummed = [&good[..good.len() - 8], &[0; 8]].concat();
    assert_eq!(dump::verify(&unsummed).map(|found| found.checksum), Ok(0));
}

/// Feeds a file in chunks and reports the largest number of bytes held on the way, and the events.
fn held(file: &[u8], chunk: usize, want: Want, mut each: impl FnMut(Event)) -> usize {
    let mut decoder = Decoder::new(Limits::default());
    let (mut chunks, mut most) = (file.chunks(chunk), 0);
    loop {
        most = most.max(decoder.buffered());
        match decoder.poll().expect("a good file") {
            Poll::Event(event) => {
                if let Event::Key(_) = event {
                    decoder.want(want);
                }
                each(event);
            }
            Poll::NeedMore => {
                decoder.feed(Bytes::copy_from_slice(
                    chunks.next().expect("more of the file"),
                ));
            }
            Poll::End => return most,
        }
    }
}

const MIB: usize = 1 << 20;

#[test]
fn a_large_string_passes_through_a_small_window() {
    let value: Vec<u8> = (0..64 * MIB as u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    let mut file = RdbWriter::redis(11);
    file.key(0, "large").text(&value);
    let file = file.finish();
    for want in [
        Want::Elements,
        Want::Skip,
        Want::Raw {
            bytes_max: MIB as u64,
        },
    ] {
        let (mut seen, mut parts) = (0, 0);
        let most = held(&file, 64 << 10, want, |event| {
            if let Event::StringPart(part) = event {
                assert!(value[seen..].starts_with(&part));
                seen += part.len();
                parts += 1;
            }
        });
        assert!(most <= MIB + (128 << 10), "{want:?} held {most} bytes");
        let wanted = if want == Want::Skip {
            (0, 0)
        } else {
            (64 * MIB, 256)
        };
        assert_eq!((seen, parts), wanted, "{want:?}");
    }
}

#[test]
fn a_large_compressed_string_passes_through_a_small_window() {
    let value = "all work and no play ".repeat(64 * MIB / 21);
    let mut file = RdbWriter::redis(11);
    file.key(0, "large").lzf_text(&value);
    let file = file.finish();
    let mut seen = 0;
    let most = held(&file, 4096, Want::Elements, |event| {
        if let Event::StringPart(part) = event {
            assert!(part.len() <= MIB / 4 && value.as_bytes()[seen..].starts_with(&part));
            seen += part.len();
        }
    });
    assert_eq!(seen, value.len());
    assert!(most <= 3 * 4096, "held {most} bytes");
}

#[test]
fn a_million_elements_pass_through_a_small_window() {
    let mut file = RdbWriter::redis(11);
    file.key(2, "set").len(1_000_000);
    for index in 0..1_000_000_u32 {
        file.server_text(format!("member:{index}"));
    }
    let file = file.finish();
    for want in [
        Want::Elements,
        Want::Raw {
            bytes_max: MIB as u64,
        },
    ] {
        let mut items = 0;
        let most = held(&file, 64 << 10, want, |event| {
            items += usize::from(matches!(event, Event::Item(_)));
        });
        assert_eq!(items, 1_000_000);
        // What was held to be given whole is read again from where it is held.
        assert!(most <= MIB + (192 << 10), "{want:?} held {most} bytes");
    }
}

#[test]
fn a_declared_length_allocates_nothing() {
    let claims: [&[u8]; 4] = [
        b"REDIS0011\x00\x81\x00\x00\x00\x0f\xff\xff\xff\xff",
        b"REDIS0011\x02\x01k\x81\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"REDIS0011\x14\x01k\x80\x3f\xff\xff\xff",
        b"REDIS0011\x00\x01k\xc3\x80\x20\x00\x00\x00\x80\x3f\xff\xff\xff",
    ];
    for claim in claims {
        let mut decoder = Decoder::new(Limits::default());
        decoder.feed(Bytes::copy_from_slice(claim));
        let mut end = decoder.poll();
        while let Ok(Poll::Event(_)) = end {
            end = decoder.poll();
        }
        assert!(decoder.buffered() <= claim.len(), "{end:?}");
    }
}

#[test]
fn integers_and_text_read_alike() {
    let mut file = RdbWriter::redis(11);
    file.key(0, "i").int(-70_000).key(0, "t").text("-70000");
    let strings: Vec<Event> = events(&file.finish(), Mode::Elements)
        .into_iter()
        .filter(|event| matches!(event, Event::String(_)))
        .collect();
    assert_eq!(
        strings,
        [
            Event::String("-70000".into()),
            Event::String("-70000".into())
        ]
    );
}

#[test]
fn payloads_decode_as_the_keys_they_came_from() {
    for (name, file) in files::all() {
        let raws = by_key(&whole(&file, Mode::Raw(u64::MAX), &Limits::default()).0);
        let elements = by_key(&whole(&file, Mode::Elements, &Limits::default()).0);
        for ((head, raw), (_, elements)) in raws.iter().zip(elements) {
            let [Event::Raw(body)] = raw.as_slice() else {
                panic!("{name}: {raw:?}")
            };
            if matches!(head.type_id, 30 | 32) {
                continue; // refers to a template of its file
            }
            let version = if file.starts_with(b"VALKEY") { 80 } else { 15 };
            let mut payload = Vec::new();
            dump::payload(
                &mut payload,
                head.meta.as_deref(),
                head.type_id,
                body,
                version,
            );
            let mut decoder = dump::decoder(&payload.into(), Limits::default()).expect("a payload");
            let mut events = Vec::new();
            while let Poll::Event(event) = decoder.poll().expect("a good value") {
                events.push(event);
            }
            assert_eq!(decoder.poll(), Ok(Poll::End), "{name}");
            let again = by_key(&events);
            assert_eq!(again[0].1, elements, "{name}");
            assert_eq!(
                (&again[0].0.meta, again[0].0.type_id),
                (&head.meta, head.type_id)
            );
        }
    }
}

#[test]
fn payloads_that_do_not_decode() {
    for (value, why) in [
        (&b"\x01\x00"[..], "without elements"),
        (b"\x00\x01ab", "left over"),
        (b"\x00\x05a", "NeedMore"),
        (b"\xfe\x00", "unknown type or opcode 254"),
        (b"\x16\x00", "unknown type or opcode 22"),
    ] {
        let payload = Bytes::from(rdb_writer::payload(value, 11));
        let mut decoder = dump::decoder(&payload, Limits::default()).expect("the right checksum");
        let end = loop {
            match decoder.poll() {
                Ok(Poll::Event(_)) => {}
                Ok(poll) => break format!("{poll:?}"),
                Err(error) => break error.to_string(),
            }
        };
        assert!(end.contains(why), "{end}, not {why}");
        assert!(decoder.finish().is_err());
    }
}
