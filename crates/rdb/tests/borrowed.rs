//! What is given borrowed is what events give, for every type and however the file is cut.

mod support;

use std::ops::ControlFlow;

use bytes::Bytes;
use rdb::{Decoder, Element, Error, Event, Limits, Poll};
use support::{Mode, files, run, small_parts};

/// All that is given of a file in chunks of one size, where what can be borrowed is, and how much that was.
fn borrowed(
    file: &[u8],
    chunk: usize,
    limits: &Limits,
) -> ((Vec<Event>, Result<Poll, Error>), usize) {
    let mut decoder = Decoder::new(limits.clone());
    let mut chunks = file.chunks(chunk).map(Bytes::copy_from_slice);
    let (mut seen, mut count) = (Vec::new(), 0);
    loop {
        while let Some(record) = decoder.record() {
            seen.push(Event::Key(record.head()));
            seen.push(Event::String(record.value.to_vec().into()));
            count += 1;
        }
        // Every third breaks off, so that what follows goes another way.
        decoder.elements(|element| {
            seen.push(owned(element));
            count += 1;
            if count % 3 == 0 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match decoder.poll() {
            Ok(Poll::Event(event)) => seen.push(event),
            Ok(Poll::NeedMore) => match chunks.next() {
                Some(chunk) => decoder.feed(chunk),
                None => return ((seen, Ok(Poll::NeedMore)), count),
            },
            end => return ((seen, end), count),
        }
    }
}

fn owned(element: Element<'_>) -> Event {
    match element {
        Element::Item(item) => Event::Item(Bytes::copy_from_slice(item)),
        Element::Pair {
            field,
            value,
            expire_at_ms,
        } => Event::Pair {
            field: Bytes::copy_from_slice(field),
            value: Bytes::copy_from_slice(value),
            expire_at_ms,
        },
        Element::Scored { member, score } => Event::Scored {
            member: Bytes::copy_from_slice(member),
            score,
        },
    }
}

#[test]
fn every_type_in_every_cut() {
    let mut borrowed_at_all = 0;
    for (name, file) in files::all() {
        for limits in [Limits::default(), small_parts()] {
            for chunk in (1..16).chain([file.len()]) {
                let wanted = run(&file, [chunk], Mode::Elements, &limits);
                let (got, count) = borrowed(&file, chunk, &limits);
                assert_eq!(got, wanted, "{name} in chunks of {chunk}");
                borrowed_at_all += count;
            }
        }
    }
    assert!(borrowed_at_all > 1000, "{borrowed_at_all}");
}

#[test]
fn the_same_is_wrong_with_damaged_files() {
    for (name, file) in files::all() {
        for place in 0..file.len() {
            for damage in [0x01, 0x80, 0xff] {
                let mut file = file.clone();
                file[place] ^= damage;
                let limits = Limits::default();
                let wanted = run(&file, [file.len()], Mode::Elements, &limits);
                let (got, _) = borrowed(&file, file.len(), &limits);
                assert_eq!(got, wanted, "{name}, byte {place} ^ {damage:#x}");
            }
        }
    }
}
