//! The hot paths, each a number of times, for whoever counts their instructions: `cargo xtask instructions`.
//!
//! `hot PATH TIMES` goes so often over an input that is always the same; `hot` alone lists the paths and the items (commands,
//! replies; one for all files) that each goes over at a time.

use std::hint::black_box;

use bytes::Bytes;
use rdb::{Decoder, Event, Poll, Want};
use replica::{Link, Options, ReplId, ReplOffset, Start};
use resp::{CommandDecoder, Limits, ReplyScanner, encode};
use rewrite::{
    Abilities, Fork, SnapshotOptions, SnapshotRewriter, StreamOptions, StreamRewriter, Version,
};

type Failed = Box<dyn std::error::Error>;

const COMMANDS: usize = 1_000;
/// As a socket gives them.
const CHUNK: usize = 16 << 10;

/// Files with every kind of value that most snapshots hold.
const FILES: [&str; 6] = [
    "string_plain_v1",
    "list_quicklist_2_v10",
    "set_intset_v2",
    "set_listpack_v11",
    "hash_listpack_v10",
    "zset_listpack_v10",
];
/// Walked, and not rewritten: the daemon looks ahead in one that it does not restore.
const STREAM: &str = "stream_listpacks_2_v10";

struct Path {
    name: &'static str,
    items: usize,
    run: Run,
}

const PATHS: [Path; 9] = [
    path("frames_of_set", |inputs| frames(&inputs.sets)),
    path("frames_of_mixed", |inputs| frames(&inputs.mixed)),
    path("plain_sets", |inputs| Ok(plain_sets(&inputs.sets))),
    path("replies", |inputs| replies(&inputs.replies)),
    path("link_of_set", |inputs| link(&inputs.sets)),
    path("link_of_mixed", |inputs| link(&inputs.mixed)),
    path("stream_of_mixed", |inputs| stream(&inputs.mixed)),
    round("walk", walk),
    round("snapshot", |inputs| snapshot(&inputs.files)),
];

type Run = fn(&Inputs) -> Result<usize, Failed>;

/// Over so many commands or replies at a time.
const fn path(name: &'static str, run: Run) -> Path {
    let items = COMMANDS;
    Path { name, items, run }
}

/// Over all files at a time.
const fn round(name: &'static str, run: Run) -> Path {
    let items = 1;
    Path { name, items, run }
}

struct Inputs {
    sets: Bytes,
    mixed: Bytes,
    replies: Bytes,
    files: Vec<Bytes>,
    stream: Bytes,
}

impl Inputs {
    fn new() -> Result<Self, Failed> {
        let value = [b'v'; 64];
        let (mut sets, mut mixed, mut replies) = (Vec::new(), Vec::new(), Vec::new());
        for at in 0..COMMANDS {
            let key = format!("key:{at:012}");
            let key = key.as_bytes();
            encode::command(&mut sets, &[b"SET", key, &value]);
            match at % 4 {
                0 => encode::command(&mut mixed, &[b"INCR", key]),
                1 => encode::command(&mut mixed, &[b"LPUSH", key, &value]),
                2 => encode::command(&mut mixed, &[b"HSET", key, b"field", &value]),
                _ => encode::command(&mut mixed, &[b"ZADD", key, b"0", &value]),
            }
            replies.extend_from_slice(b"+QUEUED\r\n");
        }
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../rdb/tests/golden/");
        let read = |name: &str| -> Result<Bytes, Failed> {
            let file = format!("{folder}{name}.rdb");
            let bytes = std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?;
            Ok(bytes.into())
        };
        Ok(Self {
            sets: sets.into(),
            mixed: mixed.into(),
            replies: replies.into(),
            files: FILES.into_iter().map(read).collect::<Result<_, _>>()?,
            stream: read(STREAM)?,
        })
    }
}

fn main() -> Result<(), Failed> {
    let mut args = std::env::args().skip(1);
    let Some(name) = args.next() else {
        for path in &PATHS {
            println!("{} {}", path.name, path.items);
        }
        return Ok(());
    };
    let times: usize = args.next().ok_or("usage: hot [PATH TIMES]")?.parse()?;
    let path = PATHS.iter().find(|path| path.name == name);
    let path = path.ok_or_else(|| format!("there is no path {name}"))?;
    let inputs = Inputs::new()?;
    for _ in 0..times {
        black_box((path.run)(black_box(&inputs))?);
    }
    Ok(())
}

fn frames(stream: &[u8]) -> Result<usize, Failed> {
    let mut decoder = CommandDecoder::new(Limits::default());
    let (mut rest, mut args) = (stream, 0);
    while let Some(frame) = decoder.poll(rest)? {
        args += black_box(decoder.args()).len();
        rest = rest.get(frame.len..).unwrap_or_default();
    }
    Ok(args)
}

fn plain_sets(stream: &[u8]) -> usize {
    let (mut rest, mut bytes) = (stream, 0);
    while let Some(set) = resp::plain_set(rest) {
        bytes += black_box(set.key.of(rest)).len();
        rest = rest.get(set.len..).unwrap_or_default();
    }
    bytes
}

fn replies(bytes: &[u8]) -> Result<usize, Failed> {
    let mut scanner = ReplyScanner::new(Limits::default());
    let (mut rest, mut count) = (bytes, 0);
    while let Some(summary) = scanner.poll(rest)? {
        rest = rest.get(summary.len..).unwrap_or_default();
        count += usize::from(black_box(summary).errors.is_empty());
    }
    Ok(count)
}

fn link(stream: &Bytes) -> Result<usize, Failed> {
    let start = Start::Resume {
        replid: ReplId::from_bytes(&[b'a'; 40]).ok_or("a replication id")?,
        received: ReplOffset(0),
        partial: Bytes::new(),
    };
    let mut link = Link::new(Options::default(), start, 0);
    link.feed(Bytes::from_static(b"+PONG\r\n+OK\r\n+CONTINUE\r\n"));
    let (mut rest, mut events) = (stream.clone(), 0);
    loop {
        while let replica::Poll::Event(event) = link.poll()? {
            black_box(event);
            events += 1;
        }
        if rest.is_empty() {
            return Ok(events);
        }
        link.feed(rest.split_to(CHUNK.min(rest.len())));
    }
}

fn target() -> Abilities {
    Abilities::from_version(Fork::Redis, Version::new(7, 0, 15))
}

fn stream(stream: &[u8]) -> Result<usize, Failed> {
    let mut rewriter = StreamRewriter::new(StreamOptions::new(target()));
    let mut decoder = CommandDecoder::new(Limits::default());
    let (mut rest, mut out) = (stream, Vec::new());
    while let Some(frame) = decoder.poll(rest)? {
        let bytes = rest.get(..frame.len).unwrap_or_default();
        black_box(rewriter.command(bytes, decoder.args(), 1, &mut out)?);
        rest = rest.get(frame.len..).unwrap_or_default();
    }
    Ok(out.len())
}

fn decoder(file: &Bytes) -> Decoder {
    let mut decoder = Decoder::new(rdb::Limits::default());
    decoder.feed(file.clone());
    decoder
}

fn walk(inputs: &Inputs) -> Result<usize, Failed> {
    let mut keys = 0;
    for file in inputs.files.iter().chain([&inputs.stream]) {
        let mut decoder = decoder(file);
        loop {
            match decoder.poll()? {
                Poll::Event(Event::Key(_)) => {
                    keys += 1;
                    decoder.want(Want::Raw { bytes_max: 1 << 20 });
                }
                Poll::Event(event) => drop(black_box(event)),
                Poll::End => break,
                Poll::NeedMore => return Err("a file ends too early".into()),
            }
        }
    }
    Ok(keys)
}

fn snapshot(files: &[Bytes]) -> Result<usize, Failed> {
    let (mut out, mut sent) = (Vec::new(), Vec::new());
    for file in files {
        // All values as commands: what is restored is hardly looked at.
        let mut options = SnapshotOptions::new(target(), 1);
        options.restore_bytes_max = 0;
        let mut rewriter = SnapshotRewriter::new(options);
        let mut decoder = decoder(file);
        loop {
            match decoder.poll()? {
                Poll::Event(Event::Key(head)) => decoder.want(rewriter.key(&head)?),
                Poll::Event(event) => rewriter.event(event, &mut out, &mut sent)?,
                Poll::End => break,
                Poll::NeedMore => return Err("a file ends too early".into()),
            }
        }
    }
    Ok(black_box(out).len() + sent.len())
}
