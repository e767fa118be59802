//! Bodies of the fuzz targets: what must hold for any input whatsoever.
//!
//! The targets in `fuzz/` are one line each; the tests here run the same bodies over the seeds,
//! over every prefix of them and over a mutation at every byte.

use bytes::{Bytes, BytesMut};

use crate::{
    Arg, CommandDecoder, Error, ErrorReply, Frame, FrameKind, Limits, Protocol, ReplyKind,
    ReplyScanner, Summary, Value, ValueDecoder, encode,
};

/// Small enough for short inputs to meet every one of them.
const LIMITS: Limits = Limits {
    bulk_bytes_max: 1_024,
    items_max: 16,
    depth_max: 5,
    line_bytes_max: 64,
    frame_bytes_max: 4_096,
};

/// Sizes of the pieces that an input is fed in, beside being fed at once.
const PIECES: [usize; 4] = [1, 2, 3, 7];

/// Commands: cuts change nothing, arguments stand inside the frame and encode back to it.
pub fn commands(data: &[u8]) {
    let whole = all_commands(data, data.len().max(1));
    for piece in PIECES {
        assert_eq!(all_commands(data, piece), whole, "in pieces of {piece}");
    }
    let mut rest = data;
    for (frame, args) in &whole.0 {
        let Some((bytes, behind)) = rest.split_at_checked(frame.len) else {
            unreachable!("a frame longer than the input");
        };
        check_arguments(*frame, args, bytes);
        rest = behind;
    }
}

type Commands = (Vec<(Frame, Vec<Arg>)>, Result<(), Error>);

fn all_commands(data: &[u8], piece: usize) -> Commands {
    let mut decoder = CommandDecoder::new(LIMITS);
    let mut frames: Vec<(Frame, Vec<Arg>)> = Vec::new();
    let (mut start, mut end, mut needed) = (0, 0, 0);
    while end < data.len() {
        end = data.len().min(end + piece);
        loop {
            let seen = data.get(start..end).unwrap_or_default();
            match decoder.poll(seen) {
                Ok(Some(frame)) => {
                    assert!(frame.len >= needed, "more was wanted than the frame has");
                    frames.push((frame, decoder.args().to_vec()));
                    start += frame.len;
                    needed = 0;
                }
                Ok(None) => {
                    assert!(decoder.wanted() > 0);
                    needed = seen.len() + decoder.wanted();
                    break;
                }
                Err(error) => {
                    assert_eq!(
                        decoder.poll(data.get(start..).unwrap_or_default()),
                        Err(error)
                    );
                    return (frames, Err(error));
                }
            }
        }
    }
    (frames, Ok(()))
}

fn check_arguments(frame: Frame, args: &[Arg], bytes: &[u8]) {
    let mut behind = 0;
    for arg in args {
        assert!(behind <= arg.start && arg.start <= arg.end && arg.end as usize <= bytes.len());
        behind = arg.end;
    }
    let argv: Vec<&[u8]> = args.iter().map(|arg| arg.of(bytes)).collect();
    match frame.kind {
        // Numbers are strict, so there is only one way to write a command (and one to write none).
        FrameKind::Command => {
            let mut again = Vec::new();
            encode::command(&mut again, &argv);
            assert!(again == bytes || bytes == b"*-1\r\n");
        }
        FrameKind::Inline => assert_eq!(bytes.last(), Some(&b'\n')),
        FrameKind::Newline => assert!(args.is_empty() && matches!(bytes, b"\n" | b"\r\n")),
    }
}

/// Replies: cuts change nothing, and the scanner agrees with the decoder of whole values.
pub fn replies(data: &[u8]) {
    let scanned = all_replies(data, data.len().max(1));
    let decoded = all_values(data, data.len().max(1));
    for piece in PIECES {
        assert_eq!(all_replies(data, piece), scanned, "in pieces of {piece}");
        let values = all_values(data, piece);
        assert_eq!(
            format!("{values:?}"),
            format!("{decoded:?}"),
            "in pieces of {piece}"
        );
    }
    assert_eq!(scanned.1, decoded.1);
    assert_eq!(scanned.0.len(), decoded.0.len());
    for (summary, (len, value)) in scanned.0.iter().zip(&decoded.0) {
        assert_eq!(summary.len, *len);
        assert_eq!(summary.kind, kind_of(value), "{value:?}");
        assert_eq!(summary.errors, errors_of(value), "{value:?}");
    }
}

fn all_replies(data: &[u8], piece: usize) -> (Vec<Summary>, Result<(), Error>) {
    let mut scanner = ReplyScanner::new(LIMITS);
    let mut summaries: Vec<Summary> = Vec::new();
    let (mut start, mut end, mut needed) = (0, 0, 0);
    while end < data.len() {
        end = data.len().min(end + piece);
        loop {
            let seen = data.get(start..end).unwrap_or_default();
            match scanner.poll(seen) {
                Ok(Some(summary)) => {
                    assert!(summary.len >= needed, "more was wanted than the reply has");
                    start += summary.len;
                    needed = 0;
                    summaries.push(summary);
                }
                Ok(None) => {
                    assert!(scanner.wanted() > 0);
                    needed = seen.len() + scanner.wanted();
                    break;
                }
                Err(error) => {
                    assert_eq!(
                        scanner.poll(data.get(start..).unwrap_or_default()),
                        Err(error)
                    );
                    return (summaries, Err(error));
                }
            }
        }
    }
    (summaries, Ok(()))
}

fn all_values(data: &[u8], piece: usize) -> (Vec<(usize, Value)>, Result<(), Error>) {
    let mut decoder = ValueDecoder::new(LIMITS);
    let mut values = Vec::new();
    let mut buf = BytesMut::new();
    for bytes in data.chunks(piece) {
        buf.extend_from_slice(bytes);
        loop {
            let before = buf.len();
            match decoder.poll(&mut buf) {
                Ok(Some(value)) => values.push((before - buf.len(), value)),
                Ok(None) => {
                    assert_eq!(buf.len(), before, "an incomplete value was taken");
                    break;
                }
                Err(error) => {
                    assert_eq!(decoder.poll(&mut buf), Err(error));
                    return (values, Err(error));
                }
            }
        }
    }
    (values, Ok(()))
}

fn kind_of(value: &Value) -> ReplyKind {
    match value {
        Value::Simple(_) => ReplyKind::Simple,
        Value::Error(error) | Value::BulkError(error) => ReplyKind::Error(error.clone()),
        Value::Int(value) => ReplyKind::Int(*value),
        Value::Bulk(_) => ReplyKind::Bulk,
        Value::Null => ReplyKind::Null,
        Value::Array(items) | Value::Set(items) => ReplyKind::Array(items.len()),
        Value::Map(pairs) => ReplyKind::Array(pairs.len()),
        Value::Push(items) => ReplyKind::Push(items.len()),
        Value::Double(_) => ReplyKind::Other(b','),
        Value::Bool(_) => ReplyKind::Other(b'#'),
        Value::BigNumber(_) => ReplyKind::Other(b'('),
        Value::Verbatim { .. } => ReplyKind::Other(b'='),
        Value::Attribute { value, .. } => kind_of(value),
    }
}

fn errors_of(value: &Value) -> Vec<(usize, ErrorReply)> {
    let mut errors = Vec::new();
    match value {
        Value::Attribute { value, .. } => return errors_of(value),
        Value::Array(items) | Value::Set(items) | Value::Push(items) => {
            for (index, item) in items.iter().enumerate() {
                errors_under(index, item, &mut errors);
            }
        }
        Value::Map(pairs) => {
            for (index, (key, item)) in pairs.iter().enumerate() {
                errors_under(index, key, &mut errors);
                errors_under(index, item, &mut errors);
            }
        }
        Value::Simple(_)
        | Value::Error(_)
        | Value::Int(_)
        | Value::Bulk(_)
        | Value::Null
        | Value::Double(_)
        | Value::Bool(_)
        | Value::BigNumber(_)
        | Value::Verbatim { .. }
        | Value::BulkError(_) => {}
    }
    errors
}

fn errors_under(index: usize, value: &Value, errors: &mut Vec<(usize, ErrorReply)>) {
    if let Some(error) = value.as_error() {
        errors.push((index, error.clone()));
    }
    errors.extend(
        errors_of(value)
            .into_iter()
            .map(|(_, error)| (index, error)),
    );
}

/// Values: what was decoded survives encoding, in full for RESP3 and from then on for RESP2.
pub fn values(data: &[u8]) {
    for (_, value) in all_values(data, data.len().max(1)).0 {
        let third = encoded(&value, Protocol::Resp3);
        let again = decoded(&third);
        assert_eq!(format!("{again:?}"), format!("{value:?}"));
        let second = encoded(&value, Protocol::Resp2);
        assert_eq!(encoded(&decoded(&second), Protocol::Resp2), second);
    }
}

fn encoded(value: &Value, protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    encode::value(&mut out, value, protocol);
    out
}

fn decoded(bytes: &[u8]) -> Value {
    let mut buf = BytesMut::from(bytes);
    match ValueDecoder::new(Limits::default()).poll(&mut buf) {
        Ok(Some(value)) if buf.is_empty() => value,
        other => unreachable!("{other:?} from {:?}", Bytes::copy_from_slice(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn seeds(name: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/seeds")
            .join(name);
        let files = fs::read_dir(folder).unwrap();
        let seeds: Vec<_> = files
            .map(|file| fs::read(file.unwrap().path()).unwrap())
            .collect();
        assert!(seeds.len() >= 3);
        seeds
    }

    fn exercise(seeds: &[Vec<u8>], body: fn(&[u8])) {
        for seed in seeds {
            for cut in 0..=seed.len() {
                body(&seed[..cut]);
            }
            let mut mutated = seed.clone();
            for at in 0..seed.len() {
                for byte in *b"\r\n0129-+*$%|>.;?!=,#_:\x00\xff" {
                    mutated[at] = byte;
                    body(&mutated);
                }
                mutated[at] = seed[at];
            }
        }
    }

    #[test]
    fn commands_hold() {
        exercise(&seeds("commands"), commands);
    }

    #[test]
    fn replies_hold() {
        exercise(&seeds("replies"), replies);
    }

    #[test]
    fn values_hold() {
        exercise(&seeds("replies"), values);
    }
}
