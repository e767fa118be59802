//! Speed of the hot paths: finding commands and scanning replies, all of them already in memory.
//!
//! `cargo bench -p resp`. The counters give time per frame as items per second.

use std::hint::black_box;

use bytes::BytesMut;
use divan::Bencher;
use divan::counter::{BytesCount, ItemsCount};
use resp::{CommandDecoder, Limits, ReplyScanner, ValueDecoder, encode};

const FRAMES: usize = 1_000;

fn main() {
    divan::main();
}

fn commands(argc: usize, value_bytes: usize) -> Vec<u8> {
    let value = vec![b'v'; value_bytes];
    let mut argv: Vec<&[u8]> = vec![b"SET", b"key:000000012345"];
    argv.resize(argc, &value);
    let mut stream = Vec::new();
    for _ in 0..FRAMES {
        encode::command(&mut stream, &argv);
    }
    stream
}

fn count_commands(decoder: &mut CommandDecoder, stream: &[u8]) -> usize {
    let (mut rest, mut args) = (stream, 0);
    while let Ok(Some(frame)) = decoder.poll(rest) {
        args += black_box(decoder.args()).len();
        rest = &rest[frame.len..];
    }
    assert!(rest.is_empty());
    args
}

#[divan::bench(args = [64, 1_024, 16_384])]
fn command_set(bencher: Bencher<'_, '_>, value_bytes: usize) {
    let stream = commands(3, value_bytes);
    let mut decoder = CommandDecoder::new(Limits::default());
    bencher
        .counter(ItemsCount::new(FRAMES))
        .counter(BytesCount::new(stream.len()))
        .bench_local(|| count_commands(&mut decoder, black_box(&stream)));
}

#[divan::bench]
fn command_of_100_arguments(bencher: Bencher<'_, '_>) {
    let stream = commands(100, 8);
    let mut decoder = CommandDecoder::new(Limits::default());
    bencher
        .counter(ItemsCount::new(FRAMES * 100))
        .counter(BytesCount::new(stream.len()))
        .bench_local(|| count_commands(&mut decoder, black_box(&stream)));
}

/// The way a socket delivers: the unfinished frame is polled again when more has come.
#[divan::bench(args = [1_460, 16_384])]
fn command_set_in_pieces(bencher: Bencher<'_, '_>, piece: usize) {
    let stream = commands(3, 64);
    let mut decoder = CommandDecoder::new(Limits::default());
    bencher.counter(ItemsCount::new(FRAMES)).bench_local(|| {
        let (mut start, mut args) = (0, 0);
        for end in (piece..stream.len() + piece).step_by(piece) {
            let seen = &stream[..end.min(stream.len())];
            while let Ok(Some(frame)) = decoder.poll(&seen[start..]) {
                args += black_box(decoder.args()).len();
                start += frame.len;
            }
        }
        assert_eq!(args, FRAMES * 3);
    });
}

fn scan_replies(bencher: Bencher<'_, '_>, reply: &[u8], items: usize) {
    let stream = reply.repeat(FRAMES);
    let mut scanner = ReplyScanner::new(Limits::default());
    bencher
        .counter(ItemsCount::new(FRAMES * items))
        .counter(BytesCount::new(stream.len()))
        .bench_local(|| {
            let mut rest = black_box(&stream[..]);
            while let Ok(Some(summary)) = scanner.poll(rest) {
                rest = &rest[black_box(summary).len..];
            }
            assert!(rest.is_empty());
        });
}

#[divan::bench]
fn reply_ok(bencher: Bencher<'_, '_>) {
    scan_replies(bencher, b"+OK\r\n", 1);
}

#[divan::bench]
fn reply_int(bencher: Bencher<'_, '_>) {
    scan_replies(bencher, b":12345\r\n", 1);
}

#[divan::bench]
fn reply_bulk(bencher: Bencher<'_, '_>) {
    scan_replies(bencher, b"$16\r\n0123456789abcdef\r\n", 1);
}

#[divan::bench]
fn reply_error(bencher: Bencher<'_, '_>) {
    scan_replies(bencher, b"-BUSYKEY Target key name already exists.\r\n", 1);
}

#[divan::bench]
fn reply_exec_of_256(bencher: Bencher<'_, '_>) {
    let mut reply = b"*256\r\n".to_vec();
    reply.extend_from_slice(&b"+OK\r\n:1\r\n:4711\r\n+OK\r\n".repeat(64));
    scan_replies(bencher, &reply, 256);
}

#[divan::bench]
fn value_scan_page(bencher: Bencher<'_, '_>) {
    let mut page = b"*2\r\n$2\r\n17\r\n*1000\r\n".to_vec();
    page.extend_from_slice(&b"$16\r\nkey:000000012345\r\n".repeat(FRAMES));
    let mut decoder = ValueDecoder::new(Limits::default());
    bencher
        .counter(ItemsCount::new(FRAMES))
        .with_inputs(|| BytesMut::from(&page[..]))
        .bench_local_values(|mut buf| decoder.poll(&mut buf).map(black_box).is_ok());
}

#[divan::bench]
fn encode_set(bencher: Bencher<'_, '_>) {
    let value = [b'v'; 64];
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(FRAMES)).bench_local(|| {
        out.clear();
        for _ in 0..FRAMES {
            encode::command(&mut out, black_box(&[b"SET", b"key:000000012345", &value]));
        }
        out.len()
    });
}
