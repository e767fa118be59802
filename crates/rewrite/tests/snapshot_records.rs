//! Keys with short strings that are taken from the file at once become what their events become.

mod common;

use bytes::Bytes;
use rdb::{Decoder, Event, Limits, Poll, Want};
use rewrite::{Filter, FilterRules, PlainSet, SnapshotOptions, SnapshotRewriter};

use common::snapshot::redis;

/// Two databases; plain, integer, compressed, empty and large strings; expiries, past and to come; a hint; a key of ours;
/// a set between.
fn file() -> Vec<u8> {
    let mut file = b"REDIS0011\xfe\x00".to_vec();
    file.extend(b"\x00\x01a\x05value\x00\x01b\xc1\x39\x30\x00\x01c\xc3\x05\x14\x00x\xe0\x0a\x00");
    file.extend(b"\x00\x01d\x00\xf9\x05\x00\x01e\x01v");
    file.push(0xfc);
    file.extend(2_000_000_i64.to_le_bytes());
    file.extend(b"\x00\x01f\x01v\xfc");
    file.extend(7_i64.to_le_bytes());
    file.extend(
        b"\x00\x01g\x01v\x02\x01s\x02\x01x\x01y\x00\x01h\x01v\x00\x05large\x80\x00\x00\x20\x00",
    );
    file.resize(file.len() + 0x2000, b'z');
    file.extend(
        b"\x00\x10understudy:lease\x01v\x00\x02no\x01v\xfe\x03\x00\x01i\x01v\x00\x01j\x01v\xff",
    );
    file.extend([0; 8]);
    file
}

fn rewriter() -> SnapshotRewriter {
    let rules = FilterRules {
        block_keys: vec!["no".into()],
        ..FilterRules::default()
    };
    SnapshotRewriter::new(SnapshotOptions {
        filter: Filter::new(rules).unwrap(),
        ..redis("7.0.15")
    })
}

/// The commands for the file, with or without the short way, and how many went it.
fn commands(short: bool) -> (Vec<String>, usize, rewrite::SnapshotCounts) {
    let mut decoder = Decoder::new(Limits::default());
    decoder.feed(Bytes::from(file()));
    let (mut rewriter, mut out, mut sent, mut count) = (rewriter(), Vec::new(), Vec::new(), 0);
    loop {
        while let Some(record) = short.then(|| decoder.record()).flatten() {
            let mut pair = Vec::new();
            match rewriter.plain_set(&record, &mut pair) {
                PlainSet::Appended => {
                    count += 1;
                    out.extend(b"*3\r\n$3\r\nSET\r\n");
                    out.extend(pair);
                }
                PlainSet::LeftOut => count += 1,
                PlainSet::Other => {
                    assert!(pair.is_empty());
                    let value = Event::String(record.value.to_vec().into());
                    if rewriter.key(&record.head()).unwrap() != Want::Skip {
                        rewriter.event(value, &mut out, &mut sent).unwrap();
                    }
                }
            }
        }
        match decoder.poll().unwrap() {
            Poll::Event(Event::Key(head)) => decoder.want(rewriter.key(&head).unwrap()),
            Poll::Event(event) => rewriter.event(event, &mut out, &mut sent).unwrap(),
            Poll::NeedMore => panic!("the file is whole"),
            Poll::End => break,
        }
    }
    let frames = common::frames(&out);
    let texts = frames.iter().map(|frame| common::text(frame)).collect();
    (texts, count, rewriter.counts().clone())
}

#[test]
fn the_short_way_is_the_long_way() {
    let (texts, none, counts) = commands(false);
    assert_eq!(none, 0, "{texts:?}");
    assert!(
        texts
            .iter()
            .any(|text| text == "SET c xxxxxxxxxxxxxxxxxxxx"),
        "{texts:?}"
    );
    assert_eq!(
        texts.iter().filter(|text| text.starts_with("SET ")).count(),
        10
    );
    // The first of another db, those with an expiry, and the large one go the long way.
    assert_eq!(commands(true), (texts, 9, counts));
}
