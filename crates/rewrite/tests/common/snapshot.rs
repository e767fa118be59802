//! Events of a snapshot, and what a rewriter makes of them as text.

use bytes::Bytes;
use expect_test::Expect;
use rdb::{Db, Encoding, Event, KeyHead, Kind};
use rewrite::{Abilities, Existing, Fork, SnapshotOptions, SnapshotRewriter};

pub(crate) const NOW_MS: u64 = 1_000_000;

pub(crate) fn options(fork: Fork, version: &str) -> SnapshotOptions {
    let target = Abilities::from_version(fork, version.parse().unwrap());
    SnapshotOptions::new(target, NOW_MS)
}

pub(crate) fn redis(version: &str) -> SnapshotOptions {
    options(Fork::Redis, version)
}

pub(crate) fn skip(options: SnapshotOptions) -> SnapshotOptions {
    SnapshotOptions {
        existing: Existing::Skip,
        ..options
    }
}

pub(crate) fn head(kind: Kind, type_id: u8, encoding: Encoding) -> KeyHead {
    KeyHead {
        db: Db(0),
        key: Bytes::from_static(b"k"),
        type_id,
        kind,
        encoding,
        expire_at_ms: None,
        idle_seconds: None,
        freq: None,
        meta: None,
        at: 0,
    }
}

pub(crate) fn string() -> KeyHead {
    head(Kind::String, 0, Encoding::Plain)
}

pub(crate) fn list() -> KeyHead {
    head(Kind::List, 1, Encoding::Plain)
}

pub(crate) fn hash(type_id: u8) -> KeyHead {
    head(Kind::Hash, type_id, Encoding::Listpack)
}

pub(crate) fn until(head: KeyHead) -> KeyHead {
    KeyHead {
        expire_at_ms: Some(2_000_000),
        ..head
    }
}

pub(crate) fn text(text: &str) -> Bytes {
    Bytes::from(text.to_owned())
}

pub(crate) fn start(kind: Kind) -> Event {
    Event::ValueStart { kind, len: None }
}

pub(crate) fn items(words: &[&str]) -> Vec<Event> {
    let items = words.iter().map(|word| Event::Item(text(word)));
    [start(Kind::List)]
        .into_iter()
        .chain(items)
        .chain([Event::ValueEnd])
        .collect()
}

pub(crate) fn pairs(fields: &[(&str, &str, Option<u64>)]) -> Vec<Event> {
    let pair = |(field, value, expire_at_ms): &(&str, &str, _)| Event::Pair {
        field: text(field),
        value: text(value),
        expire_at_ms: *expire_at_ms,
    };
    let pairs = fields.iter().map(pair);
    [start(Kind::Hash)]
        .into_iter()
        .chain(pairs)
        .chain([Event::ValueEnd])
        .collect()
}

/// What a value becomes (a stream is looked at ahead): what is wanted, then a command a line with method and expected reply (`.`: the last one).
pub(crate) fn rewrite(
    rewriter: &mut SnapshotRewriter,
    head: &KeyHead,
    events: Vec<Event>,
) -> String {
    let (mut out, mut sent, mut text) = (Vec::new(), Vec::new(), String::new());
    match rewriter.key(head) {
        Ok(want) => text += &format!("{want:?}\n"),
        Err(error) => return format!("! {error}\n"),
    }
    let stream = start(Kind::Stream);
    if events.first() == Some(&stream) {
        for event in &events {
            rewriter.ahead(event).unwrap();
        }
    }
    for event in events {
        if let Err(error) = rewriter.event(event, &mut out, &mut sent) {
            return text + &format!("! {error}\n");
        }
        // Who sends units has to know where one may end.
        assert_eq!(
            rewriter.is_in_command(),
            super::ends_within_a_frame(&out),
            "after {} commands",
            sent.len()
        );
    }
    let commands = super::frames(&out);
    assert_eq!(commands.len(), sent.len(), "{sent:?}");
    for (command, sent) in commands.iter().zip(&sent) {
        let last = if sent.last_of_key { "." } else { "" };
        text += &format!(
            "{} -- {:?} {:?}{last}\n",
            super::text(command),
            sent.method,
            sent.expect
        );
        assert!(sent.key.is_empty() || sent.key == head.key);
    }
    let lasts = sent.iter().filter(|sent| sent.last_of_key).count();
    assert!(
        lasts == 1 && sent.last().unwrap().last_of_key || sent.is_empty(),
        "{sent:?}"
    );
    text
}

pub(crate) fn check(options: SnapshotOptions, head: KeyHead, events: Vec<Event>, expected: Expect) {
    expected.assert_eq(&rewrite(&mut SnapshotRewriter::new(options), &head, events));
}
