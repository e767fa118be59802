//! How fast a link passes the command stream on: the cost of finding the ends of commands.

use bytes::Bytes;
use divan::{Bencher, black_box, counter::BytesCount};
use replica::{Link, Options, Poll, ReplId, ReplOffset, Start};

fn main() {
    divan::main();
}

/// A link in the stream.
fn connected() -> Link {
    let replid = ReplId::from_bytes(&[b'a'; 40]).unwrap();
    let start = Start::Resume {
        replid,
        received: ReplOffset(0),
        partial: Bytes::new(),
    };
    let mut link = Link::new(Options::default(), start, 0);
    link.feed(Bytes::from_static(b"+PONG\r\n+OK\r\n+CONTINUE\r\n"));
    while link.poll().unwrap() != Poll::NeedMore {}
    link
}

/// 8 MiB of SETs with values of this size.
fn stream(value: usize) -> Bytes {
    let value = "v".repeat(value);
    let mut out = String::new();
    let mut key = 0;
    while out.len() < 8 << 20 {
        key += 1;
        out += &format!(
            "*3\r\n$3\r\nSET\r\n$12\r\nkey:{key:08}\r\n${}\r\n{value}\r\n",
            value.len()
        );
    }
    out.into()
}

#[divan::bench(args = [8, 64, 1024, 100_000, 4_000_000], consts = [16_384, 65_536, 1_048_576])]
fn value_bytes<const CHUNK: usize>(bencher: Bencher<'_, '_>, value: usize) {
    let stream = stream(value);
    bencher
        .counter(BytesCount::new(stream.len()))
        .bench_local(|| {
            let mut link = connected();
            let mut rest = stream.clone();
            while !rest.is_empty() {
                link.feed(rest.split_to(CHUNK.min(rest.len())));
                while let Poll::Event(event) = link.poll().unwrap() {
                    black_box(event);
                }
            }
        });
}
