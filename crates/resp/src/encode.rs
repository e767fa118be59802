//! Commands and values as bytes.

use crate::code::ErrorReply;
use crate::token::is_big_number;
use crate::value::Value;

/// The protocol that a connection speaks, as agreed by `HELLO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// What every server speaks at first.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// Appends the head of a command of `argc` arguments: `*3\r\n`.
#[inline]
pub fn command_header(out: &mut Vec<u8>, argc: usize) {
    length_line(out, b'*', argc);
}

/// Appends the head of a bulk string; its bytes and `\r\n` are to follow.
#[inline]
pub fn bulk_header(out: &mut Vec<u8>, len: usize) {
    length_line(out, b'$', len);
}

/// Appends a bulk string.
#[inline]
pub fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    bulk_header(out, bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a whole command.
#[inline]
pub fn command(out: &mut Vec<u8>, argv: &[&[u8]]) {
    command_header(out, argv.len());
    for arg in argv {
        bulk(out, arg);
    }
}

/// Appends a number as a command's argument.
pub fn int_arg(out: &mut Vec<u8>, value: i64) {
    let magnitude = value.unsigned_abs();
    bulk_header(out, digits(magnitude) + usize::from(value < 0));
    signed(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends a value. It is taken to be of our own making: its nesting is followed by recursion.
///
/// For RESP2, which has fewer types, the servers' own mapping is used: maps become flat arrays,
/// sets and pushes arrays, doubles, big numbers and verbatim strings bulk strings, booleans 1 and
/// 0, bulk errors errors; attributes are left out. A simple string with a line break in it goes
/// out as a bulk string, an error with one has it replaced by blanks.
pub fn value(out: &mut Vec<u8>, value: &Value, protocol: Protocol) {
    match (value, protocol) {
        (Value::Simple(text), _) if is_line(text) => line(out, b'+', text),
        (Value::Simple(text) | Value::Bulk(text), _) => bulk(out, text),
        (Value::Error(reply), _) => error_line(out, reply),
        (Value::Int(value), _) => int_line(out, *value),
        (Value::Null, Protocol::Resp2) => out.extend_from_slice(b"$-1\r\n"),
        (Value::Null, Protocol::Resp3) => out.extend_from_slice(b"_\r\n"),
        (Value::Array(items), _) | (Value::Set(items) | Value::Push(items), Protocol::Resp2) => {
            list(out, b'*', items, protocol);
        }
        (Value::Set(items), Protocol::Resp3) => list(out, b'~', items, protocol),
        (Value::Push(items), Protocol::Resp3) => list(out, b'>', items, protocol),
        (Value::Map(pairs), Protocol::Resp2) => {
            length_line(out, b'*', pairs.len() * 2);
            pair_list(out, pairs, protocol);
        }
        (Value::Map(pairs), Protocol::Resp3) => {
            length_line(out, b'%', pairs.len());
            pair_list(out, pairs, protocol);
        }
        (Value::Attribute { value: inner, .. }, Protocol::Resp2) => {
            self::value(out, inner, protocol);
        }
        (
            Value::Attribute {
                attributes,
                value: inner,
            },
            Protocol::Resp3,
        ) => {
            length_line(out, b'|', attributes.len());
            pair_list(out, attributes, protocol);
            self::value(out, inner, protocol);
        }
        (
            Value::Double(_)
            | Value::Bool(_)
            | Value::BigNumber(_)
            | Value::Verbatim { .. }
            | Value::BulkError(_),
            _,
        ) => scalar(out, value, protocol),
    }
}

/// The types that RESP2 does not have.
fn scalar(out: &mut Vec<u8>, value: &Value, protocol: Protocol) {
    match (value, protocol) {
        (Value::Double(value), Protocol::Resp2) => bulk(out, double_text(*value).as_bytes()),
        (Value::Double(value), Protocol::Resp3) => line(out, b',', double_text(*value).as_bytes()),
        (Value::Bool(value), Protocol::Resp2) => int_line(out, i64::from(*value)),
        (Value::Bool(true), Protocol::Resp3) => out.extend_from_slice(b"#t\r\n"),
        (Value::Bool(false), Protocol::Resp3) => out.extend_from_slice(b"#f\r\n"),
        (Value::BigNumber(text), Protocol::Resp3) if is_big_number(text) => line(out, b'(', text),
        (Value::BigNumber(text), _) | (Value::Verbatim { text, .. }, Protocol::Resp2) => {
            bulk(out, text);
        }
        (Value::Verbatim { format, text }, Protocol::Resp3) => {
            length_line(out, b'=', text.len() + 4);
            out.extend_from_slice(format);
            out.push(b':');
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
        (Value::BulkError(reply), Protocol::Resp2) => error_line(out, reply),
        (Value::BulkError(reply), Protocol::Resp3) => {
            length_line(out, b'!', reply.text.len());
            out.extend_from_slice(&reply.text);
            out.extend_from_slice(b"\r\n");
        }
        // Those of `value` itself.
        (
            Value::Simple(_)
            | Value::Error(_)
            | Value::Int(_)
            | Value::Bulk(_)
            | Value::Null
            | Value::Array(_)
            | Value::Map(_)
            | Value::Set(_)
            | Value::Push(_)
            | Value::Attribute { .. },
            _,
        ) => {}
    }
}

fn list(out: &mut Vec<u8>, kind: u8, items: &[Value], protocol: Protocol) {
    length_line(out, kind, items.len());
    for item in items {
        value(out, item, protocol);
    }
}

fn pair_list(out: &mut Vec<u8>, pairs: &[(Value, Value)], protocol: Protocol) {
    for (key, item) in pairs {
        value(out, key, protocol);
        value(out, item, protocol);
    }
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn error_line(out: &mut Vec<u8>, reply: &ErrorReply) {
    out.push(b'-');
    let blanked = |&byte: &u8| {
        if matches!(byte, b'\r' | b'\n') {
            b' '
        } else {
            byte
        }
    };
    out.extend(reply.text.iter().map(blanked));
    out.extend_from_slice(b"\r\n");
}

fn is_line(text: &[u8]) -> bool {
    memchr::memchr2(b'\r', b'\n', text).is_none()
}

/// The shortest text that reads back as the same number, with an exponent where digits would be
/// many.
fn double_text(value: f64) -> String {
    if value.is_nan() {
        "nan".to_owned()
    } else if value == 0.0 || value.is_infinite() || (1e-5..1e17).contains(&value.abs()) {
        format!("{value}")
    } else {
        format!("{value:e}")
    }
}

#[inline]
fn length_line(out: &mut Vec<u8>, kind: u8, len: usize) {
    // Most are short: one write of a size that the compiler knows.
    let len = len as u64;
    if len < 10 {
        out.extend_from_slice(&[kind, digit(len), b'\r', b'\n']);
    } else if len < 100 {
        out.extend_from_slice(&[kind, digit(len / 10), digit(len), b'\r', b'\n']);
    } else {
        out.push(kind);
        many_digits(out, len);
        out.extend_from_slice(b"\r\n");
    }
}

fn int_line(out: &mut Vec<u8>, value: i64) {
    out.push(b':');
    signed(out, value);
    out.extend_from_slice(b"\r\n");
}

fn signed(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    unsigned(out, value.unsigned_abs());
}

#[inline]
fn unsigned(out: &mut Vec<u8>, value: u64) {
    if value < 10 {
        out.push(digit(value));
    } else if value < 100 {
        out.extend_from_slice(&[digit(value / 10), digit(value % 10)]);
    } else {
        many_digits(out, value);
    }
}

fn many_digits(out: &mut Vec<u8>, mut value: u64) {
    let mut text = [0u8; 20];
    let mut width = 0;
    for place in text.iter_mut().rev() {
        *place = digit(value % 10);
        value /= 10;
        width += 1;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(text.get(text.len() - width..).unwrap_or_default());
}

#[inline]
fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

fn digits(value: u64) -> usize {
    value
        .checked_ilog10()
        .map_or(1, |exponent| exponent as usize + 1)
}
