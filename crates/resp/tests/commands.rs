//! The command decoder: golden pairs, cuts, malformed input, limits.

use resp::{CommandDecoder, Error, ErrorKind, Frame, FrameKind, Limited, Limits, encode};

/// All frames of a stream: kind and arguments.
fn frames(stream: &[u8]) -> Result<Vec<(FrameKind, Vec<String>)>, Error> {
    let mut decoder = CommandDecoder::new(Limits::default());
    let (mut rest, mut frames) = (stream, Vec::new());
    while let Some(frame) = decoder.poll(rest)? {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let args = decoder
            .args()
            .iter()
            .map(|arg| text(arg.of(rest)))
            .collect();
        frames.push((frame.kind, args));
        rest = &rest[frame.len..];
    }
    assert!(rest.is_empty(), "{} bytes are left over", rest.len());
    Ok(frames)
}

fn check(stream: &str, expected: &[(FrameKind, &[&str])]) {
    let found = frames(stream.as_bytes()).unwrap();
    let found: Vec<(FrameKind, Vec<&str>)> = found
        .iter()
        .map(|(kind, args)| (*kind, args.iter().map(|s| &**s).collect()))
        .collect();
    let expected: Vec<(FrameKind, Vec<&str>)> = expected
        .iter()
        .map(|(kind, args)| (*kind, args.to_vec()))
        .collect();
    assert_eq!(found, expected, "{stream:?}");
}

fn refuse(stream: &str, at: u64, kind: ErrorKind) {
    assert_eq!(
        frames(stream.as_bytes()),
        Err(Error { at, kind }),
        "{stream:?}"
    );
}

#[test]
fn golden() {
    use FrameKind::{Command, Inline, Newline};
    check("*1\r\n$4\r\nPING\r\n", &[(Command, &["PING"])]);
    check(
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nhello\r\nworld\r\n*2\r\n$3\r\nDEL\r\n$0\r\n\r\n",
        &[
            (Command, &["SET", "k", "hello\r\nworld"]),
            (Command, &["DEL", ""]),
        ],
    );
    check("*0\r\n*-1\r\n", &[(Command, &[]), (Command, &[])]);
    check(
        "\n\r\n\n*1\r\n$1\r\na\r\n",
        &[
            (Newline, &[]),
            (Newline, &[]),
            (Newline, &[]),
            (Command, &["a"]),
        ],
    );
    check(
        "PING\r\nPING\n",
        &[(Inline, &["PING"]), (Inline, &["PING"])],
    );
    check(" \t SET  k v \r\n", &[(Inline, &["SET", "k", "v"])]);
    check("  \r\n", &[(Inline, &[])]);
    check("\rPING\n", &[(Inline, &["PING"])]);
}

#[test]
fn inline_quotes() {
    use FrameKind::Inline;
    check("SET \"a b\" 'c d'\r\n", &[(Inline, &["SET", "a b", "c d"])]);
    check("SET \"\" ''\n", &[(Inline, &["SET", "", ""])]);
    check(
        "SET \"it's\" 'a \"b\"'\n",
        &[(Inline, &["SET", "it's", "a \"b\""])],
    );
    // A backslash means something in double quotes alone.
    check("SET 'a\\n' b\\n\n", &[(Inline, &["SET", "a\\n", "b\\n"])]);
    refuse("SET \"a\\n\"\n", 6, ErrorKind::InlineEscape);
    refuse("SET 'it\\'s'\n", 7, ErrorKind::InlineEscape);
    refuse("SET a\"b\"\n", 5, ErrorKind::InlineEscape);
    refuse("SET \"a\n", 4, ErrorKind::UnbalancedQuotes);
    refuse("SET 'a\"\r\n", 4, ErrorKind::UnbalancedQuotes);
    refuse("SET \"a\"b\n", 7, ErrorKind::UnbalancedQuotes);
    refuse("SET a\0b\n", 5, ErrorKind::Misplaced(0));
    refuse("SET 'a\0b'\n", 6, ErrorKind::Misplaced(0));
}

#[test]
fn malformed() {
    use ErrorKind::{BadLineEnd, BadNumber, Misplaced, MissingCrlf, NegativeLength, Overflow};
    refuse("*x\r\n", 1, BadNumber);
    refuse("*\r\n", 1, BadNumber);
    refuse("*+1\r\n", 1, BadNumber);
    refuse("*01\r\n", 2, BadNumber);
    refuse("*1\n", 2, BadNumber);
    refuse("*1\rx", 3, BadLineEnd);
    refuse("*-2\r\n", 1, NegativeLength);
    refuse("*99999999999999999999\r\n", 19, Overflow);
    refuse("*1\r\n+OK\r\n", 4, Misplaced(b'+'));
    refuse("*1\r\n*1\r\n", 4, Misplaced(b'*'));
    refuse("*1\r\n\n", 4, Misplaced(b'\n'));
    refuse("*1\r\n$-1\r\n", 5, NegativeLength);
    refuse("*1\r\n$ 1\r\n", 5, BadNumber);
    refuse("*1\r\n$3x\r\n", 6, BadNumber);
    refuse("*1\r\n$3\r\nabcd\r\n", 11, MissingCrlf);
    refuse("*1\r\n$3\r\nab\r\n*", 11, MissingCrlf);
    refuse("*1\r\n$3\r\nabc\r\r", 12, MissingCrlf);
    refuse("*1\r\n$3\r\nabc\n", 11, MissingCrlf);
}

#[test]
fn limits() {
    let limits = Limits {
        bulk_bytes_max: 10,
        items_max: 3,
        line_bytes_max: 8,
        frame_bytes_max: 40,
        ..Limits::default()
    };
    let refused = |stream: &str| {
        let mut decoder = CommandDecoder::new(limits);
        let error = decoder.poll(stream.as_bytes()).unwrap_err();
        let ErrorKind::Limit { what, got, max } = error.kind else {
            panic!("{error}");
        };
        (error.at, what, got, max)
    };
    assert_eq!(refused("*4\r\n"), (1, Limited::Items, 4, 3));
    assert_eq!(refused("*1\r\n$11\r\n"), (5, Limited::BulkBytes, 11, 10));
    assert_eq!(refused("123456789"), (8, Limited::LineBytes, 9, 8));
    assert_eq!(refused("123456789\n"), (8, Limited::LineBytes, 9, 8));
    let long = "*3\r\n$9\r\n123456789\r\n$9\r\n123456789\r\n$1\r\n";
    assert_eq!(refused(long), (35, Limited::FrameBytes, 41, 40));
    let fits = "*3\r\n$9\r\n123456789\r\n$9\r\n123456789\r\n$0\r\n\r\n";
    let frame = CommandDecoder::new(limits)
        .poll(fits.as_bytes())
        .unwrap()
        .unwrap();
    assert_eq!(frame.len, 40);
    assert!(
        CommandDecoder::new(limits)
            .poll(b"12345678\n")
            .unwrap()
            .is_some()
    );
}

#[test]
fn hard_limits_hold_whatever_is_asked_for() {
    let max = u64::MAX;
    let limits = Limits {
        bulk_bytes_max: max,
        items_max: max,
        depth_max: u32::MAX,
        line_bytes_max: max,
        frame_bytes_max: max,
    };
    for stream in [
        "*1\r\n$2147483649\r\n",
        "*1073741825\r\n",
        "*1\r\n$9223372036854775807\r\n",
    ] {
        let error = CommandDecoder::new(limits)
            .poll(stream.as_bytes())
            .unwrap_err();
        assert!(matches!(error.kind, ErrorKind::Limit { .. }), "{error}");
    }
    assert_eq!(
        CommandDecoder::new(limits).poll(b"*1\r\n$2147483648\r\n"),
        Ok(None)
    );
}

#[test]
fn every_prefix_waits_and_says_for_how_much() {
    let stream = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nhello\r\nworld\r\n";
    let mut grown = CommandDecoder::new(Limits::default());
    for cut in 0..stream.len() {
        let mut fresh = CommandDecoder::new(Limits::default());
        for decoder in [&mut fresh, &mut grown] {
            assert_eq!(decoder.poll(&stream[..cut]), Ok(None), "cut at {cut}");
            assert!(
                (1..=stream.len() - cut).contains(&decoder.wanted()),
                "cut at {cut}"
            );
        }
    }
    let frame = Frame {
        len: stream.len(),
        kind: FrameKind::Command,
    };
    assert_eq!(grown.poll(stream), Ok(Some(frame)));
    // Within the last argument the decoder knows exactly.
    assert_eq!(grown.poll(&stream[..30]), Ok(None));
    assert_eq!(grown.wanted(), stream.len() - 30);
}

#[test]
fn big_streams_survive_random_cuts() {
    let mut stream = Vec::new();
    let value = vec![b'\n'; 70_000];
    for argc in [1, 2, 3, 500] {
        let mut argv: Vec<&[u8]> = vec![&value[..]];
        argv.resize(argc, b"*1\r\n");
        encode::command(&mut stream, &argv);
        stream.push(b'\n');
    }
    let expected = frames(&stream).unwrap().len();
    // A linear congruential generator: the cuts differ, the test does not.
    let mut seed = 7u64;
    for _ in 0..50 {
        let mut decoder = CommandDecoder::new(Limits::default());
        let (mut start, mut end, mut count) = (0, 0, 0);
        while start < stream.len() {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            end = stream.len().min(end + (seed >> 33) as usize % 9_000);
            while let Some(frame) = decoder.poll(&stream[start..end]).unwrap() {
                start += frame.len;
                count += 1;
            }
        }
        assert_eq!((count, start), (expected, stream.len()));
    }
}

#[test]
fn reset_forgets_the_frame_and_the_error() {
    let mut decoder = CommandDecoder::new(Limits::default());
    assert_eq!(decoder.poll(b"*2\r\n$1\r\na\r\n$5\r\nhe"), Ok(None));
    decoder.reset();
    assert!(decoder.args().is_empty());
    let error = decoder.poll(b"*x").unwrap_err();
    assert_eq!(decoder.poll(b"*x1"), Err(error));
    decoder.reset();
    let frame = Frame {
        len: 11,
        kind: FrameKind::Command,
    };
    assert_eq!(decoder.poll(b"*1\r\n$1\r\na\r\n"), Ok(Some(frame)));
    assert_eq!(decoder.args().len(), 1);
}

#[test]
fn errors_read_well() {
    let error = frames(b"*1\r\n$3\r\nabcd\r\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "no line end after a bulk string, at byte 11 of the frame"
    );
    let error = frames(b"*1\r\n$600000000\r\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "bulk string bytes of 600000000, more than the allowed 536870912, at byte 5 of the frame"
    );
    let error = frames(b"*1\r\n\n").unwrap_err();
    assert_eq!(
        error.to_string(),
        "type '\\n' does not belong here, at byte 4 of the frame"
    );
}
