//! Whole values: golden pairs, slices of the buffer, and round trips through the encoder.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use resp::{CommandDecoder, Error, ErrorReply, Limits, Protocol, Value, ValueDecoder, encode};

fn decode(bytes: &[u8]) -> Result<Option<Value>, Error> {
    let mut buf = BytesMut::from(bytes);
    let value = ValueDecoder::new(Limits::default()).poll(&mut buf)?;
    assert!(
        value.is_none() || buf.is_empty(),
        "{} bytes are left over",
        buf.len()
    );
    Ok(value)
}

fn encode(value: &Value, protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    encode::value(&mut out, value, protocol);
    out
}

fn bulk(text: &'static str) -> Value {
    Value::Bulk(Bytes::from(text))
}

fn simple(text: &'static str) -> Value {
    Value::Simple(Bytes::from(text))
}

/// What is read, and how it is written in RESP3 and RESP2.
fn golden() -> Vec<(&'static str, Value, &'static str, &'static str)> {
    let error = || ErrorReply::new("ERR a\r\nb");
    vec![
        ("+OK\r\n", simple("OK"), "+OK\r\n", "+OK\r\n"),
        (
            "-ERR x\r\n",
            Value::Error(ErrorReply::new("ERR x")),
            "-ERR x\r\n",
            "-ERR x\r\n",
        ),
        (":-7\r\n", Value::Int(-7), ":-7\r\n", ":-7\r\n"),
        (
            "$2\r\n\r\n\r\n",
            bulk("\r\n"),
            "$2\r\n\r\n\r\n",
            "$2\r\n\r\n\r\n",
        ),
        ("$-1\r\n", Value::Null, "_\r\n", "$-1\r\n"),
        ("*-1\r\n", Value::Null, "_\r\n", "$-1\r\n"),
        ("_\r\n", Value::Null, "_\r\n", "$-1\r\n"),
        ("*0\r\n", Value::Array(vec![]), "*0\r\n", "*0\r\n"),
        (
            "*2\r\n*1\r\n:1\r\n+a\r\n",
            Value::Array(vec![Value::Array(vec![Value::Int(1)]), simple("a")]),
            "*2\r\n*1\r\n:1\r\n+a\r\n",
            "*2\r\n*1\r\n:1\r\n+a\r\n",
        ),
        (",1.50\r\n", Value::Double(1.5), ",1.5\r\n", "$3\r\n1.5\r\n"),
        (
            ",1e+20\r\n",
            Value::Double(1e20),
            ",1e20\r\n",
            "$4\r\n1e20\r\n",
        ),
        (
            ",inf\r\n",
            Value::Double(f64::INFINITY),
            ",inf\r\n",
            "$3\r\ninf\r\n",
        ),
        (
            ",-inf\r\n",
            Value::Double(f64::NEG_INFINITY),
            ",-inf\r\n",
            "$4\r\n-inf\r\n",
        ),
        ("#t\r\n", Value::Bool(true), "#t\r\n", ":1\r\n"),
        ("#f\r\n", Value::Bool(false), "#f\r\n", ":0\r\n"),
        (
            "(-12\r\n",
            Value::BigNumber(Bytes::from("-12")),
            "(-12\r\n",
            "$3\r\n-12\r\n",
        ),
        (
            "!8\r\nERR a\r\nb\r\n",
            Value::BulkError(error()),
            "!8\r\nERR a\r\nb\r\n",
            "-ERR a  b\r\n",
        ),
        (
            "=7\r\nmkd:*a*\r\n",
            Value::Verbatim {
                format: *b"mkd",
                text: Bytes::from("*a*"),
            },
            "=7\r\nmkd:*a*\r\n",
            "$3\r\n*a*\r\n",
        ),
        (
            "%1\r\n+k\r\n~1\r\n:1\r\n",
            Value::Map(vec![(simple("k"), Value::Set(vec![Value::Int(1)]))]),
            "%1\r\n+k\r\n~1\r\n:1\r\n",
            "*2\r\n+k\r\n*1\r\n:1\r\n",
        ),
        (
            ">1\r\n+m\r\n",
            Value::Push(vec![simple("m")]),
            ">1\r\n+m\r\n",
            "*1\r\n+m\r\n",
        ),
        (
            "|1\r\n+k\r\n:1\r\n:2\r\n",
            Value::Attribute {
                attributes: vec![(simple("k"), Value::Int(1))],
                value: Box::new(Value::Int(2)),
            },
            "|1\r\n+k\r\n:1\r\n:2\r\n",
            ":2\r\n",
        ),
        (
            "$?\r\n;2\r\nab\r\n;1\r\nc\r\n;0\r\n",
            bulk("abc"),
            "$3\r\nabc\r\n",
            "$3\r\nabc\r\n",
        ),
        ("$?\r\n;0\r\n", bulk(""), "$0\r\n\r\n", "$0\r\n\r\n"),
        (
            "*?\r\n%?\r\n.\r\n~?\r\n:1\r\n.\r\n.\r\n",
            Value::Array(vec![Value::Map(vec![]), Value::Set(vec![Value::Int(1)])]),
            "*2\r\n%0\r\n~1\r\n:1\r\n",
            "*2\r\n*0\r\n*1\r\n:1\r\n",
        ),
    ]
}

#[test]
fn golden_pairs() {
    for (text, value, resp3, resp2) in golden() {
        assert_eq!(decode(text.as_bytes()), Ok(Some(value.clone())), "{text:?}");
        assert_eq!(
            encode(&value, Protocol::Resp3),
            resp3.as_bytes(),
            "{text:?}"
        );
        assert_eq!(
            encode(&value, Protocol::Resp2),
            resp2.as_bytes(),
            "{text:?}"
        );
    }
    let nan = decode(b",nan\r\n").unwrap().unwrap();
    assert!(matches!(nan, Value::Double(value) if value.is_nan()));
    assert_eq!(encode(&nan, Protocol::Resp3), b",nan\r\n");
}

#[test]
fn every_prefix_waits_and_leaves_the_buffer() {
    for (text, value, ..) in golden() {
        let mut grown = ValueDecoder::new(Limits::default());
        let mut buf = BytesMut::new();
        for (cut, byte) in text.bytes().enumerate() {
            assert_eq!(
                decode(&text.as_bytes()[..cut]),
                Ok(None),
                "{text:?} cut at {cut}"
            );
            assert_eq!(grown.poll(&mut buf), Ok(None), "{text:?} cut at {cut}");
            assert_eq!(buf.len(), cut);
            buf.extend_from_slice(&[byte]);
        }
        buf.extend_from_slice(b"+behind");
        assert_eq!(grown.poll(&mut buf), Ok(Some(value)), "{text:?}");
        assert_eq!(&buf[..], b"+behind");
    }
}

#[test]
fn strings_are_slices_of_the_buffer() {
    let mut buf = BytesMut::from(&b"*2\r\n$5\r\nhello\r\n=9\r\ntxt:world\r\n"[..]);
    let buffer = buf.as_ptr_range();
    let value = ValueDecoder::new(Limits::default())
        .poll(&mut buf)
        .unwrap()
        .unwrap();
    let Value::Array(items) = value else {
        panic!("{value:?}");
    };
    for (item, text) in items.iter().zip(["hello", "world"]) {
        let bytes = item.as_bytes().unwrap();
        assert_eq!(bytes, text);
        assert!(buffer.contains(&bytes.as_ptr()));
    }
}

#[test]
fn texts_that_do_not_fit_a_line_are_not_put_on_one() {
    assert_eq!(
        encode(&simple("a\r\nb"), Protocol::Resp3),
        b"$4\r\na\r\nb\r\n"
    );
    let error = Value::Error(ErrorReply::new("ERR a\nb"));
    assert_eq!(encode(&error, Protocol::Resp3), b"-ERR a b\r\n");
    let number = Value::BigNumber(Bytes::from("12x"));
    assert_eq!(encode(&number, Protocol::Resp3), b"$3\r\n12x\r\n");
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from)
}

fn line() -> impl Strategy<Value = Bytes> {
    bytes().prop_map(|text| {
        text.iter()
            .copied()
            .filter(|b| !b"\r\n".contains(b))
            .collect()
    })
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        line().prop_map(Value::Simple),
        line().prop_map(|text| Value::Error(ErrorReply::new(text))),
        any::<i64>().prop_map(Value::Int),
        bytes().prop_map(Value::Bulk),
        Just(Value::Null),
        any::<f64>()
            .prop_filter("a NaN equals nothing", |x| !x.is_nan())
            .prop_map(Value::Double),
        any::<bool>().prop_map(Value::Bool),
        "-?[0-9]{1,40}".prop_map(|digits| Value::BigNumber(Bytes::from(digits))),
        (any::<[u8; 3]>(), bytes()).prop_map(|(format, text)| Value::Verbatim { format, text }),
        bytes().prop_map(|text| Value::BulkError(ErrorReply::new(text))),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 60, 6, |inner| {
        let pairs = prop::collection::vec((inner.clone(), inner.clone()), 0..4);
        let items = prop::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            items.clone().prop_map(Value::Array),
            items.prop_map(Value::Set),
            pairs.clone().prop_map(Value::Map),
            (pairs, inner).prop_map(|(attributes, value)| Value::Attribute {
                attributes,
                value: Box::new(value)
            }),
        ]
    })
}

proptest! {
    #[test]
    fn resp3_round_trip(value in value(), pushed: bool, cuts in prop::collection::vec(1..40usize, 1..20)) {
        let value = if pushed { Value::Push(vec![value]) } else { value };
        let bytes = encode(&value, Protocol::Resp3);
        prop_assert_eq!(decode(&bytes), Ok(Some(value.clone())));
        let mut decoder = ValueDecoder::new(Limits::default());
        let (mut buf, mut rest, mut cuts) = (BytesMut::new(), &bytes[..], cuts.iter().cycle());
        while !rest.is_empty() {
            prop_assert_eq!(decoder.poll(&mut buf), Ok(None));
            let (piece, behind) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            buf.extend_from_slice(piece);
            rest = behind;
        }
        prop_assert_eq!(decoder.poll(&mut buf), Ok(Some(value)));
    }

    #[test]
    fn resp2_is_stable(value in value()) {
        let once = encode(&value, Protocol::Resp2);
        let reduced = decode(&once).unwrap().unwrap();
        prop_assert_eq!(encode(&reduced, Protocol::Resp2), once);
    }

    #[test]
    fn commands_round_trip(argv in prop::collection::vec(bytes(), 0..12), number: i64) {
        let mut argv: Vec<Vec<u8>> = argv.iter().map(|arg| arg.to_vec()).collect();
        let mut frame = Vec::new();
        encode::command_header(&mut frame, argv.len() + 1);
        for arg in &argv {
            encode::bulk(&mut frame, arg);
        }
        encode::int_arg(&mut frame, number);
        argv.push(number.to_string().into_bytes());
        let mut decoder = CommandDecoder::new(Limits::default());
        let found = decoder.poll(&frame).unwrap().unwrap();
        prop_assert_eq!(found.len, frame.len());
        let args: Vec<Vec<u8>> = decoder.args().iter().map(|arg| arg.of(&frame).to_vec()).collect();
        prop_assert_eq!(args, argv);
    }

    #[test]
    fn any_bytes_hold(data: Vec<u8>) {
        resp::fuzzing::commands(&data);
        resp::fuzzing::replies(&data);
        resp::fuzzing::values(&data);
    }

    #[test]
    fn bytes_of_the_protocol_hold(text in "([-+:$*%~|>#,_(!=;.?0123]{0,3}(\r\n)?){0,20}") {
        resp::fuzzing::commands(text.as_bytes());
        resp::fuzzing::replies(text.as_bytes());
        resp::fuzzing::values(text.as_bytes());
    }
}
