//! Seeds for the fuzz targets, out of whole files.

use bytes::Bytes;

use super::LIMITS;
use crate::container::Form;
use crate::decode::Decoder;
use crate::error::Stop;
use crate::event::{Event, KeyHead, Poll, Want};
use crate::grammar::Piece;
use crate::leaf::lzf;
use crate::leaf::reader::{Reader, StringHead};
use crate::types::{self, Kind};

/// The name of a fuzz target and an input for it.
pub type Seed = (&'static str, Vec<u8>);

/// What a file gives the fuzz targets to begin with: itself, its values as payloads, its packed containers, its
/// compressed strings. Of a file that cannot be read to its end, what could be.
#[must_use]
pub fn seeds(file: &[u8]) -> Vec<Seed> {
    let mut seeds = vec![("file", file.to_vec())];
    if let Some(at) = file.iter().skip(9).position(|byte| *byte == 0xf2) {
        let body = file.get(9 + at + 1..).unwrap_or_default();
        seeds.push(("template", [b"\x01", body].concat()));
    }
    let mut decoder = Decoder::new(LIMITS);
    decoder.feed(Bytes::copy_from_slice(file));
    let (mut dialect, mut version, mut head) = (types::Dialect::Shared, 0, None);
    while let Ok(Poll::Event(event)) = decoder.poll() {
        match event {
            Event::Start {
                dialect: found,
                version: rdb,
            } => (dialect, version) = (found, u8::try_from(rdb.0).unwrap_or_default()),
            Event::Key(found) => {
                decoder.want(Want::Raw {
                    bytes_max: u64::MAX,
                });
                head = Some(found);
            }
            Event::Raw(body) => {
                let Some(head) = head.take() else { continue };
                value(&mut seeds, &head, &body, version);
                if let Some(body_of) = types::row(dialect, head.type_id).and_then(|row| row.body) {
                    // What is left out is only a seed less.
                    let _ = containers(&mut seeds, body_of, &mut Reader::new(&body));
                }
            }
            _ => {}
        }
    }
    seeds
}

fn value(seeds: &mut Vec<Seed>, head: &KeyHead, body: &[u8], version: u8) {
    seeds.push(("payload", [&[head.type_id], body, &[version]].concat()));
    match (head.kind, head.type_id) {
        (Kind::Array, _) => seeds.push(("array", body.to_vec())),
        (Kind::Stream, 15) => seeds.push(("stream", [&[0], body].concat())),
        (Kind::Stream, 19) => seeds.push(("stream", [&[50], body].concat())),
        (Kind::Stream, 21) => seeds.push(("stream", [&[100], body].concat())),
        (Kind::Stream, 26) => seeds.push(("stream", [&[150], body].concat())),
        (Kind::Stream, _) => seeds.push(("stream", [&[200], body].concat())),
        (_, id @ 29..=32) => {
            let choice = id.wrapping_sub(29);
            seeds.push(("template", [&[choice], body].concat()));
        }
        _ => {}
    }
}

/// The containers and compressed strings that the body begins with.
fn containers(
    seeds: &mut Vec<Seed>,
    pieces: &[Piece],
    reader: &mut Reader<'_>,
) -> Result<(), Stop> {
    for piece in pieces {
        match piece {
            Piece::Fixed(n) => drop(reader.take(*n)?),
            Piece::Number => drop(reader.number()?),
            Piece::Packed(packed) => {
                let blob = string(seeds, reader)?;
                seeds.push((target(packed.form), blob));
            }
            Piece::Text | Piece::Member => drop(string(seeds, reader)?),
            Piece::QuicklistNode => {
                let form = reader.number()?;
                let blob = string(seeds, reader)?;
                if form == 2 {
                    seeds.push(("listpack", blob));
                }
            }
            Piece::Each(each) if is_nodes(each) => {
                for _ in 0..reader.number()? {
                    string(seeds, reader)?;
                    let node = string(seeds, reader)?;
                    seeds.push(("stream_node", node));
                }
                return Ok(());
            }
            Piece::Each(each) => {
                for _ in 0..reader.number()? {
                    containers(seeds, each, reader)?;
                }
            }
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Whether these are a stream's nodes: two strings, while a hash has a member and a string.
const fn is_nodes(pieces: &[Piece]) -> bool {
    matches!(pieces, [Piece::Text, Piece::Text])
}

const fn target(form: Form) -> &'static str {
    match form {
        Form::Ziplist => "ziplist",
        Form::Listpack => "listpack",
        Form::Intset => "intset",
        Form::Zipmap => "zipmap",
    }
}

/// A string as it is when decoded; how it was compressed is a seed as well.
fn string(seeds: &mut Vec<Seed>, reader: &mut Reader<'_>) -> Result<Vec<u8>, Stop> {
    let head = reader.string_head(LIMITS.string_bytes_max)?;
    let stored = reader.take(head.stored())?;
    Ok(match head {
        StringHead::Plain { .. } => stored.to_vec(),
        StringHead::Int(_) => Vec::new(),
        StringHead::Lzf { len, .. } => {
            let mut plain = vec![0; len];
            lzf::decompress(stored, &mut plain)?;
            if let Ok(len) = u16::try_from(len) {
                seeds.push(("lzf", [&len.to_le_bytes()[..], stored].concat()));
            }
            plain
        }
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_target_has_seeds_among_the_golden_files() {
        let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
        let names = |dir: &str| {
            let entries = fs::read_dir(crate_dir.join(dir)).expect("a folder of the crate");
            entries.map(|entry| entry.expect("an entry").path())
        };
        let files = names("tests/golden").chain(names("tests/golden/real"));
        let found: BTreeSet<String> = files
            .filter(|path| path.extension().is_some_and(|ending| ending == "rdb"))
            .flat_map(|path| seeds(&fs::read(path).expect("a golden file")))
            .map(|(target, _)| target.to_owned())
            .collect();
        let targets: BTreeSet<String> = names("fuzz/fuzz_targets")
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .collect();
        assert_eq!(found, targets);
    }
}
