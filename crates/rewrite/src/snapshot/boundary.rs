//! Bytes that not every server reads in the same way: entries of listpacks of just 16,383, 2,097,151 or 268,435,455
//! bytes.
//!
//! Behind each entry stands its size, seven bits a byte. Valkey from 9.1 and Redis from 8.10 write those three sizes in
//! one byte less than all before them (`listpack.c: lpEncodeBacklen`), and each kind of server dies of the other's
//! entries, some at `RESTORE` and some when the value is read. Such a value is built by commands, whoever the target is.

use bytes::Bytes;
use memchr::memmem;
use rdb::{Event, Limits, Poll, Want, dump};

use crate::body::Body;

/// Strings whose entries have those sizes: five bytes less, the head of a long string.
const LENGTHS: [usize; 3] = [16_378, 2_097_146, 268_435_450];
/// No smaller listpack has such an entry.
const LISTPACK_BYTES_MIN: u64 = 16_383;
/// No smaller body has one, even compressed: three bytes stand for 264 at the most.
const BODY_BYTES_MIN: usize = 16_383 / 88;

/// The elements of a value that is to be built by commands for this reason; `None` if its bytes are good for all. `Err`:
/// the bytes are not what they are said to be.
pub(super) fn elements(type_id: u8, body: &[u8]) -> Result<Option<Vec<Event>>, ()> {
    if body.len() < BODY_BYTES_MIN || !suspicious(type_id, body).unwrap_or(true) {
        return Ok(None);
    }
    let events = decode(type_id, body).ok_or(())?;
    Ok(events.iter().any(is_at_a_boundary).then_some(events))
}

fn is_at_a_boundary(event: &Event) -> bool {
    let at = |text: &Bytes| LENGTHS.contains(&text.len());
    match event {
        Event::Item(item) => at(item),
        Event::Pair { field, value, .. } => at(field) || at(value),
        Event::Scored { member, .. } => at(member),
        _ => false,
    }
}

/// The elements of a value's bytes.
pub(super) fn decode(type_id: u8, body: &[u8]) -> Option<Vec<Event>> {
    let mut payload = Vec::new();
    // The version tells whose type numbers these are; Valkey's own types have no listpacks.
    dump::payload(
        &mut payload,
        None,
        type_id,
        body,
        if type_id < 22 { 11 } else { 15 },
    );
    let mut decoder = dump::decoder(&payload.into(), Limits::default()).ok()?;
    let mut events = Vec::new();
    loop {
        match decoder.poll().ok()? {
            Poll::Event(Event::Key(_)) => decoder.want(Want::Elements),
            Poll::Event(event) => events.push(event),
            Poll::End => return Some(events),
            Poll::NeedMore => return None,
        }
    }
}

/// Whether a listpack of the body may have such an entry; `None` if the body ends too early.
fn suspicious(type_id: u8, body: &[u8]) -> Option<bool> {
    let mut walk = Body::new(body);
    match type_id {
        // A listpack on its own, or behind the smallest expiry.
        16 | 17 | 20 | 23 => listpack(&mut walk),
        25 => {
            walk.bytes(8)?;
            listpack(&mut walk)
        }
        // A quicklist: containers with listpacks, and plain elements.
        18 => {
            for _ in 0..walk.number()? {
                let packed = walk.number()? == 2;
                if listpack(&mut walk)? && packed {
                    return Some(true);
                }
            }
            Some(false)
        }
        // A stream's nodes.
        15 | 19 | 21 | 26 | 27 => {
            for _ in 0..walk.number()? {
                listpack(&mut walk)?;
                if listpack(&mut walk)? {
                    return Some(true);
                }
            }
            Some(false)
        }
        _ => Some(false),
    }
}

/// Passes a string; whether such an entry may be in it. Compressed bytes do not show what is in them, so their length
/// alone decides.
fn listpack(walk: &mut Body<'_>) -> Option<bool> {
    match walk.peek()? {
        0xc0..=0xc2 => walk.text().map(|()| false),
        0xc3 => {
            walk.bytes(1)?;
            let compressed = walk.number()?;
            let length = walk.number()?;
            walk.bytes(usize::try_from(compressed).ok()?)?;
            Some(length >= LISTPACK_BYTES_MIN)
        }
        _ => {
            let length = walk.number()?;
            let bytes = walk.bytes(usize::try_from(length).ok()?)?;
            Some(length >= LISTPACK_BYTES_MIN && has_long_entry(bytes))
        }
    }
}

/// Whether the head of such an entry is among the bytes: `F0` and the string's length.
fn has_long_entry(listpack: &[u8]) -> bool {
    LENGTHS.into_iter().any(|length| {
        let length = u32::try_from(length).unwrap_or_default().to_le_bytes();
        let head = [&[0xf0], &length[..]].concat();
        memmem::find(listpack, &head).is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A string's length in five bytes, and the string.
    fn string(text: &[u8]) -> Vec<u8> {
        let length = u32::try_from(text.len()).unwrap().to_be_bytes();
        [&[0x80], &length[..], text].concat()
    }

    /// The same, compressed by a compressor that finds nothing to compress.
    fn compressed(text: &[u8]) -> Vec<u8> {
        let packed: Vec<u8> = text
            .chunks(32)
            .flat_map(|run| [&[run.len() as u8 - 1], run].concat())
            .collect();
        let length = |len: usize| {
            string(&[])
                .into_iter()
                .take(1)
                .chain((len as u32).to_be_bytes())
        };
        let head: Vec<u8> = [0xc3].into_iter().chain(length(packed.len())).collect();
        [head, length(text.len()).collect(), packed].concat()
    }

    /// A listpack of two strings, the first of which is long; its size behind it in the form given.
    fn listpack(length: usize, rear: &[u8]) -> Vec<u8> {
        let mut entries = vec![0xf0];
        entries.extend_from_slice(&(length as u32).to_le_bytes());
        entries.extend(std::iter::repeat_n(b'x', length));
        entries.extend_from_slice(rear);
        entries.extend_from_slice(b"\x81y\x02\xff");
        let total = u32::try_from(6 + entries.len()).unwrap().to_le_bytes();
        [&total[..], &[2, 0], &entries].concat()
    }

    const LONG: &[u8] = &[0x00, 0xff, 0xff];
    const SHORT: &[u8] = &[0x7f, 0xff];

    #[test]
    fn both_forms_are_found_stored_and_compressed() {
        for rear in [LONG, SHORT] {
            let pack = listpack(16_378, rear);
            for string in [string(&pack), compressed(&pack)] {
                let pair = Event::Pair {
                    field: vec![b'x'; 16_378].into(),
                    value: Bytes::from_static(b"y"),
                    expire_at_ms: None,
                };
                let found = elements(16, &string).unwrap().unwrap();
                assert!(found.contains(&pair), "{rear:?}");
                let list = [&[1, 2], &string[..]].concat();
                let found = elements(18, &list).unwrap().unwrap();
                assert_eq!(found.len(), 4);
            }
        }
    }

    #[test]
    fn nothing_else_is_found() {
        for (length, rear) in [(16_377, &[0x7f, 0xfe][..]), (16_379, &[0x01, 0x80, 0x80])] {
            let pack = listpack(length, rear);
            for string in [string(&pack), compressed(&pack)] {
                assert_eq!(elements(16, &string), Ok(None), "{length}");
            }
        }
        let plain = [&[1, 1], &string(&[b'x'; 16_378])[..]].concat();
        assert_eq!(elements(18, &plain), Ok(None));
        assert_eq!(elements(4, &[0; 500]), Ok(None));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let mut pack = listpack(16_378, LONG);
        pack.truncate(16_384);
        assert_eq!(elements(16, &string(&pack)), Err(()));
    }
}
