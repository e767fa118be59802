//! Names for people: types, keys, sizes, times.

use rdb::{Dialect, Kind, types};

use crate::clock;

/// What a value is called.
pub(crate) const fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "string",
        Kind::List => "list",
        Kind::Set => "set",
        Kind::Zset => "zset",
        Kind::Hash => "hash",
        Kind::Stream => "stream",
        Kind::Module => "module",
        Kind::Array => "array",
        Kind::RateLimiter => "rate_limiter",
    }
}

/// Every kind, by name.
pub(crate) const KINDS: [(&str, Kind); 9] = [
    ("string", Kind::String),
    ("list", Kind::List),
    ("set", Kind::Set),
    ("zset", Kind::Zset),
    ("hash", Kind::Hash),
    ("stream", Kind::Stream),
    ("module", Kind::Module),
    ("array", Kind::Array),
    ("rate_limiter", Kind::RateLimiter),
];

/// Redis's name of a type byte.
pub(crate) fn type_name(dialect: Dialect, type_id: u8) -> &'static str {
    types::row(dialect, type_id).map_or("unknown", |row| row.name)
}

/// At most 100 bytes of a key: text as it is, all else escaped.
pub(crate) fn printable(bytes: &[u8]) -> String {
    const BYTES_MAX: usize = 100;
    let head = bytes.get(..BYTES_MAX).unwrap_or(bytes);
    let dots = if head.len() < bytes.len() { "..." } else { "" };
    let mut text = String::new();
    for chunk in head.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                c if c.is_control() => text.extend(c.escape_default()),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("\\x{byte:02x}"));
        }
    }
    text + dots
}

/// A moment, from Unix milliseconds: `2026-11-25 16:20:00 UTC`.
pub(crate) fn moment(at_ms: i64) -> String {
    match u64::try_from(at_ms) {
        Ok(at_ms) => format!("{} UTC", clock::date_time(at_ms)),
        Err(_) => "before 1970".to_owned(),
    }
}

/// A number with its thousands apart: `1_234_567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_name() {
        for (name, kind) in KINDS {
            assert_eq!(kind_name(kind), name);
        }
    }

    #[test]
    fn keys_are_readable() {
        assert_eq!(printable("ключ".as_bytes()), "ключ");
        assert_eq!(printable(b"a\xff\"\n\0"), "a\\xff\\\"\\n\\u{0}");
        assert!(printable(&[b'k'; 200]).ends_with("kkk..."));
    }

    #[test]
    fn numbers_and_moments() {
        let numbers = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(numbers, ["0", "999", "1_000", "1_234_567"]);
        assert_eq!(moment(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(moment(-1), "before 1970");
    }
}
