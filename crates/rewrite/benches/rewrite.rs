//! What a command of the stream and a string of a snapshot cost: `cargo bench -p rewrite`.

use std::hint::black_box;

use bytes::Bytes;
use divan::Bencher;
use divan::counter::ItemsCount;
use rdb::{Db, Encoding, Event, KeyHead, Kind};
use resp::{Arg, CommandDecoder, Limits, encode};
use rewrite::{
    Abilities, Filter, FilterRules, Fork, SnapshotOptions, SnapshotRewriter, StreamOptions,
    StreamRewriter, Version, table,
};

fn main() {
    divan::main();
}

const COUNT: usize = 1000;

fn target() -> Abilities {
    Abilities::from_version(Fork::Redis, Version::new(7, 0, 15))
}

fn frame(argv: &[&[u8]]) -> (Vec<u8>, Vec<Arg>) {
    let mut frame = Vec::new();
    encode::command(&mut frame, argv);
    let mut decoder = CommandDecoder::new(Limits::default());
    decoder.poll(&frame).expect("valid").expect("whole");
    (frame, decoder.args().to_vec())
}

fn run(bencher: Bencher<'_, '_>, filter: FilterRules, argv: &[&[u8]]) {
    let (frame, args) = frame(argv);
    let mut options = StreamOptions::new(target());
    options.filter = Filter::new(filter).expect("good rules");
    let mut rewriter = StreamRewriter::new(options);
    let mut out = Vec::with_capacity(1 << 20);
    bencher.counter(ItemsCount::new(COUNT)).bench_local(|| {
        out.clear();
        for _ in 0..COUNT {
            let outcome = rewriter.command(black_box(&frame), black_box(&args), 1, &mut out);
            let _ = black_box(outcome);
        }
    });
}

const VALUE: &[u8] = &[b'v'; 64];

#[divan::bench]
fn stream_set(bencher: Bencher<'_, '_>) {
    run(
        bencher,
        FilterRules::default(),
        &[b"SET", b"user:1234567:name", VALUE],
    );
}

#[divan::bench]
fn stream_pexpireat(bencher: Bencher<'_, '_>) {
    run(
        bencher,
        FilterRules::default(),
        &[b"PEXPIREAT", b"user:1234567:name", b"1700000000000"],
    );
}

#[divan::bench]
fn stream_zunionstore(bencher: Bencher<'_, '_>) {
    run(
        bencher,
        FilterRules::default(),
        &[b"ZUNIONSTORE", b"user:1234567", b"2", b"user:1", b"user:2"],
    );
}

#[divan::bench]
fn stream_set_with_key_prefixes(bencher: Bencher<'_, '_>) {
    let rules = FilterRules {
        allow_key_prefix: vec!["order:".into(), "user:".into()],
        block_key_suffix: vec![":tmp".into()],
        ..FilterRules::default()
    };
    run(bencher, rules, &[b"SET", b"user:1234567:name", VALUE]);
}

#[divan::bench]
fn stream_setex_rewritten(bencher: Bencher<'_, '_>) {
    run(
        bencher,
        FilterRules::default(),
        &[b"SETEX", b"user:1234567:name", b"60", VALUE],
    );
}

#[divan::bench(args = ["set", "pexpireat", "georadiusbymember_ro", "json.set"])]
fn lookup(bencher: Bencher<'_, '_>, name: &str) {
    bencher.counter(ItemsCount::new(COUNT)).bench(|| {
        for _ in 0..COUNT {
            let _ = black_box(table::lookup(black_box(name.as_bytes())));
        }
    });
}

fn head(kind: Kind, type_id: u8, encoding: Encoding) -> KeyHead {
    KeyHead {
        db: Db(0),
        key: Bytes::from(b"user:1234567:name".to_vec()),
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

fn snapshot(bencher: Bencher<'_, '_>, head: &KeyHead, event: &Event) {
    let mut rewriter = SnapshotRewriter::new(SnapshotOptions::new(target(), 1));
    let (mut out, mut sent) = (Vec::with_capacity(1 << 20), Vec::with_capacity(COUNT));
    bencher.counter(ItemsCount::new(COUNT)).bench_local(|| {
        out.clear();
        sent.clear();
        for _ in 0..COUNT {
            let _ = black_box(rewriter.key(black_box(head)));
            let _ = black_box(rewriter.event(event.clone(), &mut out, &mut sent));
        }
    });
}

#[divan::bench]
fn snapshot_string_64(bencher: Bencher<'_, '_>) {
    let head = head(Kind::String, 0, Encoding::Plain);
    snapshot(bencher, &head, &Event::String(Bytes::from(VALUE.to_vec())));
}

#[divan::bench]
fn snapshot_hash_200_restored(bencher: Bencher<'_, '_>) {
    let head = head(Kind::Hash, 16, Encoding::Listpack);
    snapshot(bencher, &head, &Event::Raw(Bytes::from(vec![b'x'; 200])));
}
