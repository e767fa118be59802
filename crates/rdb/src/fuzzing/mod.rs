//! Bodies of the fuzz targets: what must hold for any input whatsoever.
//!
//! The targets in `fuzz/` are one line each; the tests here run the same bodies over small seeds
//! and over every change of a byte in them.

mod seeds;

pub use seeds::{Seed, seeds};

use bytes::Bytes;

use crate::container::stream_node::{self, Messages};
use crate::container::{Entries, Form, Packed, Shape};
use crate::decode::Decoder;
use crate::dump;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, Poll, StreamId, Want};
use crate::leaf::lzf;
use crate::limits::Limits;
use crate::members::Members;

/// Small enough for short inputs to meet every one of them.
const LIMITS: Limits = Limits {
    string_bytes_max: 1 << 20,
    item_bytes_max: 1 << 16,
    raw_bytes_max: 1 << 18,
    part_bytes_max: 7,
    db_max: 1 << 16,
    template_id_max: 64,
    templates_bytes_max: 1 << 12,
    validate_raw: true,
};

const WANTS: [Want; 4] = [
    Want::Elements,
    Want::Raw {
        bytes_max: u64::MAX,
    },
    Want::Raw { bytes_max: 20 },
    Want::Skip,
];

/// A file: cut or not, it gives the same; it never holds more than it was fed.
pub fn file(data: &[u8]) {
    for want in WANTS {
        let whole = decode(Decoder::new(LIMITS), data, usize::MAX, want);
        for piece in [1, 5] {
            let cut = decode(Decoder::new(LIMITS), data, piece, want);
            assert_eq!(cut, whole, "{want:?} in pieces of {piece}");
        }
    }
}

/// A payload: what decodes into elements is passed on whole as well, and survives that.
pub fn payload(data: &[u8]) {
    let Some((&version, value)) = data.split_last() else {
        return;
    };
    let sealed = sealed(value, version);
    let Ok(found) = dump::verify(&sealed) else {
        return;
    };
    assert_eq!(found.value, value);
    let run = |want| {
        let decoder = dump::decoder(&sealed, LIMITS).ok()?;
        Some(decode(decoder, &[], usize::MAX, want))
    };
    let (Some((elements, end)), Some((raw, raw_end))) = (
        run(Want::Elements),
        run(Want::Raw {
            bytes_max: u64::MAX,
        }),
    ) else {
        return;
    };
    assert_eq!(
        end == Ok(Poll::End),
        raw_end == Ok(Poll::End),
        "{elements:?}, {end:?} and {raw:?}, {raw_end:?}"
    );
    if let ([Event::Key(head), Event::Raw(body)], Ok(Poll::End)) = (raw.as_slice(), raw_end) {
        let mut again = Vec::new();
        let version = u16::from(version);
        dump::payload(
            &mut again,
            head.meta.as_deref(),
            head.type_id,
            body,
            version,
        );
        assert_eq!(again, sealed, "the body is the value");
    }
}

fn sealed(value: &[u8], version: u8) -> Bytes {
    let mut out = value.to_vec();
    out.extend(u16::from(version).to_le_bytes());
    out.extend(crate::crc64(0, &out).to_le_bytes());
    Bytes::from(out)
}

type Decoded = (Vec<Event>, Result<Poll, Error>);

fn decode(mut decoder: Decoder, data: &[u8], piece: usize, want: Want) -> Decoded {
    let mut pieces = data.chunks(piece.min(data.len()).max(1));
    let mut events = Vec::new();
    loop {
        assert!(decoder.buffered() <= data.len() + 64 || data.is_empty());
        match decoder.poll() {
            Ok(Poll::Event(event)) => {
                if let Event::Key(_) = event {
                    decoder.want(want);
                }
                events.push(event);
            }
            Ok(Poll::NeedMore) => match pieces.next() {
                Some(piece) => decoder.feed(Bytes::copy_from_slice(piece)),
                None => return (events, Ok(Poll::NeedMore)),
            },
            end => {
                if let Err(error) = &end {
                    assert_eq!(decoder.poll(), Err(error.clone()), "an error stays");
                }
                return (events, end);
            }
        }
    }
}

/// A listpack: if it passes, its entries are those that were checked.
pub fn listpack(data: &[u8]) {
    for shape in [Shape::Members, Shape::Scored, Shape::Expiring] {
        packed(Form::Listpack, shape, data);
    }
}

/// A stream's node: if it passes, it gives as many messages as were checked, each with its pairs.
pub fn stream_node(data: &[u8]) {
    let base = StreamId { ms: 5, seq: 5 };
    let Ok(checked) = stream_node::check(data, base, None) else {
        return;
    };
    let Ok(mut messages) = Messages::new(Bytes::copy_from_slice(data), base) else {
        unreachable!("a node that was checked has a head");
    };
    let (mut seen, mut last) = (0, None);
    while let Ok(Some(message)) = messages.message() {
        assert!(last < Some(message.id), "ids ascend");
        last = Some(message.id);
        let mut pairs = 0;
        while let Ok(Some(_)) = messages.pair() {
            pairs += 1;
        }
        assert_eq!(pairs, message.fields, "a pair a field");
        seen += 1;
    }
    assert_eq!(seen, checked.live, "as many as were checked");
}

/// A ziplist: if it passes, its entries are those that were checked.
pub fn ziplist(data: &[u8]) {
    packed(Form::Ziplist, Shape::Items, data);
    packed(Form::Ziplist, Shape::Scored, data);
}

/// A zipmap: the same.
pub fn zipmap(data: &[u8]) {
    packed(Form::Zipmap, Shape::Pairs, data);
}

/// An intset: the same.
pub fn intset(data: &[u8]) {
    packed(Form::Intset, Shape::Members, data);
}

/// The value of an array, as [`payload`].
pub fn array(data: &[u8]) {
    payload(&[b"\x1c", data, b"\x0f"].concat());
}

/// The value of a hash with a template of its own, in a listpack or plain, by the first byte, as [`payload`]; and the
/// same bytes as the template of a file and a hash of it behind, as [`file`].
pub fn template(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else {
        return;
    };
    // Types 29 to 32: two with the names, two with a reference to them.
    let type_id = 29 + (choice & 3);
    payload(&[&[type_id][..], body, b"\x0f"].concat());
    file(&[b"REDIS0015\xf2", body].concat());
}

/// A stream of any form: nodes, groups, what is pending, as [`payload`].
pub fn stream(data: &[u8]) {
    let Some((&choice, body)) = data.split_first() else {
        return;
    };
    let type_id = match choice {
        0..50 => 15,
        50..100 => 19,
        100..150 => 21,
        150..200 => 26,
        200.. => 27,
    };
    payload(&[&[type_id][..], body, b"\x0f"].concat());
}

fn packed(form: Form, shape: Shape, data: &[u8]) {
    let Ok(count) = (Packed { form, shape }).check(data, Some(&mut Members::new())) else {
        return;
    };
    let mut entries = Entries::new(form, Bytes::copy_from_slice(data));
    let mut seen = 0;
    while let Ok(Some(_)) = entries.next() {
        seen += 1;
        assert!(seen <= count, "more entries than were checked");
    }
    assert_eq!(seen, count, "fewer entries than were checked");
}

/// LZF: at once, in parts and not at all, the verdict and the output are the same.
pub fn lzf(data: &[u8]) {
    let Some((len, input)) = data.split_first_chunk::<2>() else {
        return;
    };
    let len = usize::from(u16::from_le_bytes(*len));
    let mut whole = vec![0; len];
    let verdict = lzf::decompress(input, &mut whole);
    assert_eq!(lzf::check(input, len).is_ok(), verdict.is_ok());
    for (part, piece) in [(1, 1), (1000, 40), (usize::MAX, usize::MAX)] {
        let output = in_parts(input, len, part, piece);
        assert_eq!(output.is_ok(), verdict.is_ok());
        if let Ok(output) = output {
            assert_eq!(output, whole);
        }
    }
}

fn in_parts(input: &[u8], len: usize, part: usize, piece: usize) -> Result<Vec<u8>, ErrorKind> {
    let mut stream = lzf::Stream::new(input.len(), len, part);
    let (mut at, mut end, mut output) = (0, piece.min(input.len()), Vec::new());
    loop {
        match stream.step(input.get(at..end).unwrap_or_default())? {
            lzf::Step::Took(n) => at += n,
            lzf::Step::Part(n, bytes) => {
                at += n;
                output.extend_from_slice(&bytes);
            }
            lzf::Step::Need(n) => {
                assert!(
                    at + n > end && at + n <= input.len(),
                    "asks for what can come"
                );
                end = end.saturating_add(piece).min(input.len());
            }
            lzf::Step::Done => return Ok(output),
        }
    }
}

#[cfg(test)]
mod tests {
    /// Runs a body over a seed, its prefixes, and changes of each of its bytes.
    fn exercise(body: fn(&[u8]), seed: &[u8]) {
        body(seed);
        for at in 0..seed.len() {
            body(&seed[..at]);
            for change in [1, 2, 0x80, 0xff] {
                let mut bytes = seed.to_vec();
                bytes[at] ^= change;
                body(&bytes);
            }
        }
    }

    #[test]
    fn file() {
        exercise(super::file, b"REDIS0011\xfe\x00\xfc\x01\x00\x00\x00\x00\x00\x00\x00\x00\x01k\x0avalue of 1\
            \x04\x01h\x01\x01f\xc0\x05\x02\x01s\x02\x01a\x01b\x05\x01z\x01\x01m\x00\x00\x00\x00\x00\x00\xf0\x3f\
            \xff\x00\x00\x00\x00\x00\x00\x00\x00");
    }

    /// A compressed string in parts, cut where an instruction begins: what has arrived is given.
    #[test]
    fn file_cut_within_a_compressed_string() {
        let head = b"REDIS0009\x00\x01k\xc3\x14\x40\x64";
        let body = b"\x05abcdef\xe0\x20\x05\x20\x02\x01xy\x1fthe rest";
        exercise(super::file, &[&head[..], body].concat());
    }

    #[test]
    fn payload() {
        exercise(
            super::payload,
            b"\x10\x0c\x0c\x00\x00\x00\x02\x00\x81f\x02\x05\x01\xff\x0a",
        );
        exercise(
            super::payload,
            b"\x12\x02\x01\x05plain\x02\x09\x09\x00\x00\x00\x01\x00\x05\x01\xff\x0a",
        );
        exercise(
            super::payload,
            b"\xf3\x01\x00\x01\x00\x00\x02\x05\x00\x00\x01v\x0d",
        );
    }

    /// Found by fuzzing: an integer as a list's node was decoded, and not passed on whole.
    #[test]
    fn an_integer_as_a_node() {
        super::payload(b"\x12\x01\x01\xc2\0\0\0\0\x01");
        let sealed = super::sealed(b"\x12\x01\x01\xc0\x07", 11);
        let decoder = crate::dump::decoder(&sealed, super::LIMITS).expect("a good checksum");
        let bytes_max = u64::MAX;
        let want = crate::Want::Raw { bytes_max };
        let (events, _) = super::decode(decoder, &[], usize::MAX, want);
        assert!(
            matches!(events.last(), Some(crate::Event::Raw(_))),
            "{events:?}"
        );
    }

    #[test]
    fn containers() {
        exercise(
            super::listpack,
            b"\x0d\x00\x00\x00\x03\x00\x81f\x02\x05\x01\x07\x01\xff",
        );
        exercise(
            super::listpack,
            b"\x0c\x00\x00\x00\x02\x00\x81f\x02\x05\x01\xff",
        );
        exercise(
            super::ziplist,
            b"\x0f\x00\x00\x00\x0d\x00\x00\x00\x02\x00\x00\x01f\x03\xf5\xff",
        );
        exercise(super::zipmap, b"\x01\x01f\x02\x01vv\x00\xff");
        exercise(
            super::intset,
            b"\x02\x00\x00\x00\x02\x00\x00\x00\x01\x00\x02\x00",
        );
    }

    #[test]
    fn values_that_are_looked_into() {
        let node: &[u8] = b"\x23\x00\x00\x00\x0f\x00\x01\x01\x01\x01\x01\x01\x81f\x02\x00\x01\
            \x02\x01\x00\x01\x00\x01\x81v\x02\x04\x01\x03\x01\x00\x01\x01\x01\x81w\x02\x04\x01\xff";
        let mut node = node.to_vec();
        node[0] = node.len() as u8;
        assert!(crate::container::stream_node::check(&node, Default::default(), None).is_ok());
        exercise(super::stream_node, &node);
        let id: &[u8] = b"\x10\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0";
        let group: &[u8] = b"\x01\x05\0\x01\x01g\x01\0\x01\
            \0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x01\
            \x01\x01c\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\0\x09";
        let len = [node.len() as u8];
        let value = [b"\x0f\x01", id, &len, &node, group].concat();
        exercise(super::payload, &value);
        exercise(
            super::payload,
            b"\x1c\x02\x01\x05\x00\x03\x01a\x07\x01\x01\0\0\0\0\0\0\0\x0f",
        );
        exercise(super::payload, b"\x1f\x01\x02\x01a\x01b\x01x\x01y\x0f");
        exercise(super::payload, b"\x07\x05\x02\x07\x05\x01a\x00\x0f");
        let file = [
            b"REDIS0015\xf2\x01\x01\x01f\x20\x01k\x01\x01v\x0f\x01s",
            &value[1..],
            b"\xff\0\0\0\0\0\0\0\0",
        ];
        exercise(super::file, &file.concat());
    }

    #[test]
    fn lzf() {
        exercise(super::lzf, b"\x0b\x00\x01ab\xe0\x00\x01");
        exercise(super::lzf, b"\x04\x00\x00a\x20\x00");
    }
}
