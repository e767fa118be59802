//! Bytes as JSON strings, so that they can be had back.
//!
//! Text is given as it is. What is no UTF-8, or begins with `base64:` itself, is given as `base64:` and its
//! base64. So a string that begins with `base64:` is always to be decoded, and no other is.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// What leads bytes that are not given as text.
const MARK: &str = "base64:";

/// Appends bytes as a JSON string.
pub(crate) fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    match plain(bytes) {
        Some(text) => quoted(out, text),
        None => coded(out, bytes),
    }
}

fn plain(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.starts_with(MARK)).then_some(text)
}

/// Appends a text as a JSON string.
pub(crate) fn quoted(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            ..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(text.as_bytes().get(from..at).unwrap_or_default());
        if escape.is_empty() {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            out.extend_from_slice(escape);
        }
        from = at + 1;
    }
    out.extend_from_slice(text.as_bytes().get(from..).unwrap_or_default());
    out.push(b'"');
}

fn coded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    out.extend_from_slice(MARK.as_bytes());
    Long::default().add(out, bytes).end(out);
}

/// A long string whose parts are given as base64 while they come.
#[derive(Debug, Default)]
pub(crate) struct Long {
    /// What is too short for a group of three.
    rest: Vec<u8>,
}

impl Long {
    /// Begins the JSON string.
    pub(crate) fn begin(out: &mut Vec<u8>) -> Self {
        out.push(b'"');
        out.extend_from_slice(MARK.as_bytes());
        Self::default()
    }

    /// Appends the next part.
    pub(crate) fn add(&mut self, out: &mut Vec<u8>, part: &[u8]) -> &mut Self {
        let missing = if self.rest.is_empty() {
            0
        } else {
            (3 - self.rest.len()).min(part.len())
        };
        let (first, part) = part.split_at(missing);
        self.rest.extend_from_slice(first);
        if self.rest.len() == 3 {
            encode(out, &self.rest);
            self.rest.clear();
        }
        if self.rest.is_empty() {
            let (whole, rest) = part.split_at(part.len() / 3 * 3);
            // In pieces, so that no second copy of a long string is made.
            whole.chunks(3 << 14).for_each(|piece| encode(out, piece));
            self.rest.extend_from_slice(rest);
        }
        self
    }

    /// Ends the JSON string.
    pub(crate) fn end(&mut self, out: &mut Vec<u8>) {
        encode(out, &self.rest);
        self.rest.clear();
        out.push(b'"');
    }
}

fn encode(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(STANDARD.encode(bytes).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(bytes: &[u8]) -> String {
        let mut out = Vec::new();
        string(&mut out, bytes);
        String::from_utf8(out).unwrap()
    }

    /// What a reader of our JSON does.
    fn back(json: &str) -> Vec<u8> {
        let text: String = serde_json::from_str(json).unwrap();
        match text.strip_prefix(MARK) {
            Some(coded) => STANDARD.decode(coded).unwrap(),
            None => text.into_bytes(),
        }
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(json("ключ \"a\"\n".as_bytes()), "\"ключ \\\"a\\\"\\n\"");
        assert_eq!(json(b"\xff"), "\"base64:/w==\"");
        assert_eq!(json(b"base64:"), "\"base64:YmFzZTY0Og==\"");
    }

    proptest::proptest! {
        #[test]
        fn every_string_can_be_had_back(bytes: Vec<u8>, text: String) {
            assert_eq!(back(&json(&bytes)), bytes);
            assert_eq!(back(&json(text.as_bytes())), text.as_bytes());
        }

        #[test]
        fn parts_come_to_the_same(parts: Vec<Vec<u8>>) {
            let mut out = Vec::new();
            let mut long = Long::begin(&mut out);
            for part in &parts {
                long.add(&mut out, part);
            }
            long.end(&mut out);
            assert_eq!(back(std::str::from_utf8(&out).unwrap()), parts.concat());
        }
    }
}
