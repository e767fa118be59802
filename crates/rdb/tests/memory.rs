//! Values of any size pass in little space: what the decoder has at hand, and the whole heap.
//!
//! The files are made as they are read. `UNDERSTUDY_FULL_SIZES=1 cargo test --release -p rdb --test
//! memory -- --nocapture` runs the sizes that are promised and prints what was needed.

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use rdb::{Decoder, Event, Limits, Poll, Want};
use testkit::rdb_writer::{RdbWriter, stream_node};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const CHUNK: usize = 64 << 10;
const BOUND: usize = 1 << 20;

/// A file with one key, made piece by piece.
struct Source<F> {
    pieces: u64,
    made: u64,
    /// Writes the piece of this number.
    make: F,
    ready: Vec<u8>,
}

impl<F: FnMut(u64, &mut RdbWriter)> Source<F> {
    /// The next chunk; empty at the end.
    fn chunk(&mut self) -> Bytes {
        while self.ready.len() < CHUNK && self.made < self.pieces {
            let mut piece = RdbWriter::body();
            (self.make)(self.made, &mut piece);
            self.ready.extend_from_slice(piece.as_bytes());
            self.made += 1;
        }
        let rest = self.ready.split_off(CHUNK.min(self.ready.len()));
        Bytes::from(std::mem::replace(&mut self.ready, rest))
    }
}

struct Case<F> {
    name: &'static str,
    want: Want,
    /// Type byte and key, and what stands in front of the pieces.
    head: RdbWriter,
    pieces: u64,
    make: F,
    /// What stands behind them.
    tail: RdbWriter,
    events: u64,
}

/// The most that was at hand and on the heap, both in bytes, while a case was decoded.
fn decode(case: Case<impl FnMut(u64, &mut RdbWriter)>) {
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let mut source = Source {
        pieces: case.pieces,
        made: 0,
        make: case.make,
        ready: case.head.as_bytes().to_vec(),
    };
    let mut tail = Some([case.tail.as_bytes(), &[255], &[0; 8]].concat());
    let mut decoder = Decoder::new(Limits::default());
    let (mut events, mut at_hand) = (0, 0);
    loop {
        at_hand = at_hand.max(decoder.buffered());
        match decoder.poll().expect("a good file") {
            Poll::Event(Event::Key(_)) => decoder.want(case.want),
            Poll::Event(_) => events += 1,
            Poll::NeedMore => {
                let chunk = source.chunk();
                let chunk = match chunk.is_empty() {
                    true => Bytes::from(tail.take().expect("an end")),
                    false => chunk,
                };
                decoder.feed(chunk);
            }
            Poll::End => break,
        }
    }
    let heap = HEAP.peak_usage() - before;
    println!(
        "{}, {:?}: {} bytes of file, {events} events, at most {at_hand} bytes at hand, {heap} on the heap",
        case.name,
        case.want,
        decoder.offset()
    );
    assert_eq!(events, case.events, "{}", case.name);
    assert!(at_hand <= BOUND, "{}: {at_hand} bytes at hand", case.name);
    assert!(heap <= BOUND, "{}: {heap} bytes on the heap", case.name);
}

fn file(type_id: u8, then: impl FnOnce(&mut RdbWriter)) -> RdbWriter {
    let mut file = RdbWriter::redis(12);
    file.key(type_id, "key");
    then(&mut file);
    file
}

/// One number of `full` in an ordinary run.
fn size(full: u64) -> u64 {
    match std::env::var_os("UNDERSTUDY_FULL_SIZES") {
        Some(_) => full,
        None => full / 50,
    }
}

/// Start of the file, of the value; end of the value, of the file.
const FRAME: u64 = 4;

fn sorted_set(want: Want) {
    let members = size(10_000_000);
    decode(Case {
        name: "sorted set",
        want,
        head: file(5, |file| {
            file.len(members);
        }),
        pieces: members,
        make: |index, piece: &mut RdbWriter| {
            piece
                .text(format!("member:{index:08}"))
                .bytes((index as f64).to_le_bytes());
        },
        tail: RdbWriter::body(),
        events: members + FRAME,
    });
}

fn hash() {
    let fields = size(1_000_000);
    decode(Case {
        name: "hash",
        want: Want::Elements,
        head: file(24, |file| {
            file.bytes([0; 8]).len(fields);
        }),
        pieces: fields,
        make: |index, piece: &mut RdbWriter| {
            piece
                .len(0)
                .text(format!("field:{index:08}"))
                .lzf_text(format!("{index:08}").repeat(20));
        },
        tail: RdbWriter::body(),
        events: fields + FRAME,
    });
}

fn string(name: &'static str, compressed: bool) {
    let bytes = size(512 << 20);
    // Literals of 32 bytes, or copies of 264 out of the first of them.
    let (per_piece, made) = if compressed { (3, 264) } else { (33, 32) };
    let pieces = (bytes - 32) / made;
    let len = 32 + pieces * made;
    decode(Case {
        name,
        want: Want::Elements,
        head: file(0, |file| {
            file.byte(0xc3).len(33 + pieces * per_piece).len(len);
            file.byte(31).bytes([b'x'; 32]);
        }),
        pieces,
        make: |index, piece: &mut RdbWriter| {
            match compressed {
                true => piece.bytes([0xe0, 0xff, 31]),
                false => piece.byte(31).bytes(format!("{index:032}")),
            };
        },
        tail: RdbWriter::body(),
        events: len.div_ceil(Limits::default().part_bytes_max) + FRAME,
    });
}

fn plain_string(want: Want) {
    let pieces = size(512 << 20) / 32;
    decode(Case {
        name: "plain string",
        want,
        head: file(0, |file| {
            file.len(pieces * 32);
        }),
        pieces,
        make: |index, piece: &mut RdbWriter| {
            piece.bytes(format!("{index:032}"));
        },
        tail: RdbWriter::body(),
        events: (pieces * 32).div_ceil(Limits::default().part_bytes_max) + FRAME,
    });
}

fn stream(want: Want) {
    const PER_NODE: u64 = 100;
    let nodes = size(10_000_000) / PER_NODE;
    let values: Vec<String> = (0..PER_NODE).map(|seq| format!("value {seq}")).collect();
    let values: Vec<[&str; 1]> = values.iter().map(|value| [value.as_str()]).collect();
    let messages: Vec<((i64, i64), &[&str])> = (0..)
        .zip(&values)
        .map(|(seq, value)| ((0, seq), &value[..]))
        .collect();
    let node = stream_node(&["field"], &messages);
    let mut tail = RdbWriter::body();
    tail.len(nodes * PER_NODE)
        .len(nodes)
        .len(0)
        .bytes([0; 5])
        .len(0);
    decode(Case {
        name: "stream",
        want,
        head: file(21, |file| {
            file.len(nodes);
        }),
        pieces: nodes,
        make: |index, piece: &mut RdbWriter| {
            let id = u128::from(index + 1) << 64;
            piece.text(id.to_be_bytes()).text(&node);
        },
        tail,
        events: FRAME
            + 1
            + match want {
                Want::Groups => 0,
                _ => nodes * PER_NODE * 2,
            },
    });
}

/// One test, since the heap is everybody's.
#[test]
fn values_of_any_size_pass_in_one_mebibyte() {
    sorted_set(Want::Elements);
    sorted_set(Want::Raw {
        bytes_max: 64 << 10,
    });
    hash();
    plain_string(Want::Elements);
    plain_string(Want::Raw {
        bytes_max: 64 << 10,
    });
    string("string in LZF", false);
    string("string in LZF, copies alone", true);
    stream(Want::Elements);
    stream(Want::Groups);
    stream(Want::Raw {
        bytes_max: 64 << 10,
    });
}
