//! The reply scanner: what it tells about every type, and what it refuses.

use resp::{Error, ErrorCode, ErrorKind, Limited, Limits, ReplyKind, ReplyScanner, Summary};

fn scan(reply: &str) -> Result<Option<Summary>, Error> {
    ReplyScanner::new(Limits::default()).poll(reply.as_bytes())
}

fn check(reply: &str, expected: &str) {
    // What follows a reply is not looked at.
    let summary = scan(&format!("{reply}?")).unwrap().unwrap();
    assert_eq!(summary.len, reply.len(), "{reply:?}");
    let errors: Vec<_> = summary
        .errors
        .iter()
        .map(|(at, error)| format!(" {at}:{error}"))
        .collect();
    assert_eq!(
        format!("{:?}{}", summary.kind, errors.concat()),
        expected,
        "{reply:?}"
    );
    for cut in 0..reply.len() {
        assert_eq!(scan(&reply[..cut]), Ok(None), "{:?}", &reply[..cut]);
    }
}

fn refuse(reply: &str, at: u64, kind: ErrorKind) {
    assert_eq!(scan(reply), Err(Error { at, kind }), "{reply:?}");
}

#[test]
fn resp2() {
    check("+OK\r\n", "Simple");
    check("+QUEUED\r\n", "Simple");
    check("+\r\n", "Simple");
    check("-ERR no\r\n", "Error(ErrorReply(Err, \"ERR no\"))");
    check("-\r\n", "Error(ErrorReply(Other, \"\"))");
    check(":0\r\n", "Int(0)");
    check(":-9223372036854775808\r\n", "Int(-9223372036854775808)");
    check("$0\r\n\r\n", "Bulk");
    check("$7\r\na\r\nb\r\nc\r\n", "Bulk");
    check("$-1\r\n", "Null");
    check("*-1\r\n", "Null");
    check("*0\r\n", "Array(0)");
    check("*2\r\n:1\r\n$1\r\na\r\n", "Array(2)");
}

#[test]
fn resp3() {
    check("_\r\n", "Null");
    check(",3.25\r\n", "Other(44)");
    check("#t\r\n", "Other(35)");
    check("(-12345678901234567890\r\n", "Other(40)");
    check("=7\r\ntxt:abc\r\n", "Other(61)");
    check("!5\r\nERR x\r\n", "Error(ErrorReply(Err, \"ERR x\"))");
    check("~1\r\n:1\r\n", "Array(1)");
    check("%2\r\n:1\r\n:2\r\n:3\r\n:4\r\n", "Array(2)");
    check("%0\r\n", "Array(0)");
    check(">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n", "Push(2)");
    check("$?\r\n;3\r\nabc\r\n;1\r\nd\r\n;0\r\n", "Bulk");
    check("$?\r\n;0\r\n", "Bulk");
    check("*?\r\n.\r\n", "Array(0)");
    check("*?\r\n:1\r\n*?\r\n:2\r\n.\r\n$1\r\na\r\n.\r\n", "Array(3)");
    check("%?\r\n:1\r\n:2\r\n.\r\n", "Array(1)");
    check("~?\r\n+a\r\n.\r\n", "Array(1)");
}

#[test]
fn errors_inside_are_placed() {
    check("*3\r\n:1\r\n-OOM x\r\n+OK\r\n", "Array(3) 1:OOM x");
    check(
        "*2\r\n*2\r\n-ERR a\r\n*1\r\n-ERR b\r\n-ERR c\r\n",
        "Array(2) 0:ERR a 0:ERR b 1:ERR c",
    );
    check("%2\r\n+k\r\n:1\r\n+l\r\n-ERR v\r\n", "Array(2) 1:ERR v");
    check("*?\r\n:1\r\n-ERR s\r\n.\r\n", "Array(2) 1:ERR s");
    check("*2\r\n:1\r\n!5\r\nERR z\r\n", "Array(2) 1:ERR z");
}

#[test]
fn attributes_precede_and_do_not_count() {
    check("|1\r\n+ttl\r\n:3600\r\n:7\r\n", "Int(7)");
    check("|0\r\n+OK\r\n", "Simple");
    check(
        "|1\r\n+a\r\n-ERR inside\r\n*2\r\n:1\r\n-ERR b\r\n",
        "Array(2) 1:ERR b",
    );
    check(
        "*2\r\n|1\r\n+a\r\n*1\r\n-ERR in\r\n:1\r\n|0\r\n-ERR b\r\n",
        "Array(2) 1:ERR b",
    );
    check("|0\r\n|0\r\n*1\r\n:1\r\n", "Array(1)");
    check("|0\r\n-ERR x\r\n", "Error(ErrorReply(Err, \"ERR x\"))");
    check("|0\r\n>1\r\n:1\r\n", "Push(1)");
    check("|0\r\n*?\r\n:1\r\n.\r\n", "Array(1)");
}

#[test]
fn codes_are_read() {
    let code = |reply| match scan(reply).unwrap().unwrap().kind {
        ReplyKind::Error(error) => error.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        code("-BUSYKEY Target key name already exists.\r\n"),
        ErrorCode::BusyKey
    );
    assert_eq!(code("-MOVED 3999 127.0.0.1:6381\r\n"), ErrorCode::Moved);
    assert_eq!(code("-MISCONF\r\n"), ErrorCode::Misconf);
    assert_eq!(code("-REDISEARCH x\r\n"), ErrorCode::Other);
}

#[test]
fn malformed() {
    use ErrorKind::{
        BadBigNumber, BadBool, BadDouble, BadLineEnd, BadNull, BadNumber, BadVerbatim, Misplaced,
        MissingCrlf, NegativeLength, OddMap, Overflow, UnknownType,
    };
    refuse("PONG\r\n", 0, UnknownType(b'P'));
    refuse("\r\n", 0, UnknownType(b'\r'));
    refuse("*1\r\nx", 4, UnknownType(b'x'));
    refuse("+a\n", 2, BadLineEnd);
    refuse("+a\rb", 3, BadLineEnd);
    refuse("-a\nb\r\n", 2, BadLineEnd);
    refuse(":\r\n", 1, BadNumber);
    refuse(":+1\r\n", 1, BadNumber);
    refuse(":1a\r\n", 2, BadNumber);
    refuse(":9223372036854775808\r\n", 19, Overflow);
    refuse("$-2\r\n", 1, NegativeLength);
    refuse("$3\r\nabcd", 7, MissingCrlf);
    refuse("$3\r\nabc\ra", 8, MissingCrlf);
    refuse("*-2\r\n", 1, NegativeLength);
    refuse("%-1\r\n", 1, NegativeLength);
    refuse("~-1\r\n", 1, NegativeLength);
    refuse("=-1\r\n", 1, NegativeLength);
    refuse("!-1\r\n", 1, NegativeLength);
    refuse("_x\r\n", 1, BadNull);
    refuse("#\r\n", 1, BadBool);
    refuse("#true\r\n", 1, BadBool);
    refuse("=3\r\nabc\r\n", 4, BadVerbatim);
    refuse("=5\r\nabcde\r\n", 4, BadVerbatim);
    for bad in [
        "", "-", "+1", ".5", "1.", "1e", "1e+", "infinity", "NaN", "1 ", "0x1", "1e5.0",
    ] {
        refuse(&format!(",{bad}\r\n"), 1, BadDouble);
    }
    for bad in ["", "-", "+1", "1a", "--1"] {
        refuse(&format!("({bad}\r\n"), 1, BadBigNumber);
    }
    refuse(";1\r\na\r\n", 0, Misplaced(b';'));
    refuse(".\r\n", 0, Misplaced(b'.'));
    refuse("*1\r\n.\r\n", 4, Misplaced(b'.'));
    refuse("|0\r\n.\r\n", 4, Misplaced(b'.'));
    refuse("*1\r\n>0\r\n", 4, Misplaced(b'>'));
    refuse("|1\r\n>0\r\n", 4, Misplaced(b'>'));
    refuse("$?\r\n+a\r\n", 4, Misplaced(b'+'));
    refuse("$?\r\n;-1\r\n", 5, NegativeLength);
    refuse("$?x", 2, BadLineEnd);
    refuse(">?\r\n", 1, BadNumber);
    refuse("|?\r\n", 1, BadNumber);
    refuse("*?\r\n.x", 5, BadLineEnd);
    refuse("%?\r\n:1\r\n.\r\n", 8, OddMap);
}

#[test]
fn limits() {
    let limits = Limits {
        bulk_bytes_max: 10,
        items_max: 3,
        depth_max: 2,
        line_bytes_max: 8,
        frame_bytes_max: 40,
    };
    let refused = |reply: &str| {
        let error = ReplyScanner::new(limits)
            .poll(reply.as_bytes())
            .unwrap_err();
        let ErrorKind::Limit { what, got, max } = error.kind else {
            panic!("{error}");
        };
        (error.at, what, got, max)
    };
    assert_eq!(refused("$11\r\n"), (1, Limited::BulkBytes, 11, 10));
    assert_eq!(refused("!9\r\n"), (1, Limited::LineBytes, 9, 8));
    assert_eq!(
        refused("$?\r\n;8\r\n12345678\r\n;3\r\nabc\r\n"),
        (18, Limited::BulkBytes, 11, 10)
    );
    assert_eq!(refused("*4\r\n"), (1, Limited::Items, 4, 3));
    assert_eq!(refused("%4\r\n"), (1, Limited::Items, 4, 3));
    assert_eq!(
        refused("%9223372036854775807\r\n"),
        (1, Limited::Items, i64::MAX as u64, 3)
    );
    assert_eq!(
        refused("*?\r\n_\r\n_\r\n_\r\n_\r\n"),
        (13, Limited::Items, 4, 3)
    );
    assert_eq!(refused("*1\r\n*1\r\n*0\r\n"), (8, Limited::Depth, 3, 2));
    assert_eq!(refused("|0\r\n|0\r\n|0\r\n"), (8, Limited::Depth, 3, 2));
    assert_eq!(refused("+123456789"), (9, Limited::LineBytes, 9, 8));
    assert_eq!(refused("-123456789\r\n"), (9, Limited::LineBytes, 9, 8));
    let long = format!("*3\r\n*3\r\n{}", ":1234\r\n".repeat(5));
    assert_eq!(refused(&long), (36, Limited::FrameBytes, 43, 40));
    assert!(
        ReplyScanner::new(limits)
            .poll(b"+12345678\r\n")
            .unwrap()
            .is_some()
    );
}

#[test]
fn depth_bombs_are_refused_at_the_limit() {
    for head in ["*1\r\n", "~1\r\n", "%1\r\n:1\r\n", "*?\r\n", "|0\r\n"] {
        let error = scan(&head.repeat(1_000_000)).unwrap_err();
        let kind = ErrorKind::Limit {
            what: Limited::Depth,
            got: 33,
            max: 32,
        };
        assert_eq!(
            error,
            Error {
                at: 32 * head.len() as u64,
                kind
            }
        );
    }
}

#[test]
fn replies_follow_one_another() {
    let stream = b"+OK\r\n:1\r\n*1\r\n-ERR a\r\n+OK\r\n";
    let mut scanner = ReplyScanner::new(Limits::default());
    let (mut rest, mut errors) = (&stream[..], Vec::new());
    while let Some(summary) = scanner.poll(rest).unwrap() {
        rest = &rest[summary.len..];
        errors.push(summary.errors.len());
    }
    assert_eq!((errors, rest.len()), (vec![0, 0, 1, 0], 0));
    assert!(scanner.poll(b":x").is_err());
    assert!(scanner.poll(b":x").is_err());
    scanner.reset();
    assert!(scanner.poll(b":1\r\n").unwrap().is_some());
}
