//! Commands as text, for golden files: words with blanks between, `""` for an empty one, `\x00` escapes for bytes.
#![allow(dead_code, reason = "each test file uses its own part of this module")]

pub(crate) mod snapshot;

use resp::{Arg, CommandDecoder, Limits, encode};

pub(crate) fn frame(words: &str) -> Vec<u8> {
    let words: Vec<Vec<u8>> = words.split_whitespace().map(word).collect();
    let argv: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    let mut frame = Vec::new();
    encode::command(&mut frame, &argv);
    frame
}

fn word(text: &str) -> Vec<u8> {
    if text == "\"\"" {
        return Vec::new();
    }
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.extend_from_slice(before.as_bytes());
        out.push(u8::from_str_radix(&after[..2], 16).expect("two hexadecimal digits"));
        rest = &after[2..];
    }
    out.extend_from_slice(rest.as_bytes());
    out
}

pub(crate) fn args(frame: &[u8]) -> Vec<Arg> {
    let mut decoder = CommandDecoder::new(Limits::default());
    let found = decoder
        .poll(frame)
        .expect("a valid frame")
        .expect("a whole frame");
    assert_eq!(found.len, frame.len());
    decoder.args().to_vec()
}

/// The frames that `bytes` consists of.
pub(crate) fn frames(bytes: &[u8]) -> Vec<&[u8]> {
    let mut decoder = CommandDecoder::new(Limits::default());
    let (mut rest, mut frames) = (bytes, Vec::new());
    while !rest.is_empty() {
        let found = decoder
            .poll(rest)
            .expect("valid commands")
            .expect("whole commands");
        let (frame, after) = rest.split_at(found.len);
        frames.push(frame);
        rest = after;
    }
    frames
}

/// Whether the last command of `bytes` is not complete.
pub(crate) fn ends_within_a_frame(bytes: &[u8]) -> bool {
    let mut decoder = CommandDecoder::new(Limits::default());
    let mut rest = bytes;
    while !rest.is_empty() {
        match decoder.poll(rest).expect("valid commands") {
            Some(found) => rest = &rest[found.len..],
            None => return true,
        }
    }
    false
}

/// Every command in `bytes` as text, with `;` between.
pub(crate) fn text(bytes: &[u8]) -> String {
    let command = |frame: &&[u8]| {
        let words = args(frame).into_iter().map(|arg| readable(arg.of(frame)));
        words.collect::<Vec<_>>().join(" ")
    };
    frames(bytes)
        .iter()
        .map(command)
        .collect::<Vec<_>>()
        .join(" ; ")
}

fn readable(word: &[u8]) -> String {
    if word.is_empty() {
        return "\"\"".into();
    }
    word.iter()
        .map(|byte| match byte {
            b'!'..=b'~' | b' ' => char::from(*byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        })
        .collect()
}
