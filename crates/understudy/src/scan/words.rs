//! Replies taken apart.

use bytes::Bytes;
use rdb::StreamId;
use resp::Value;

pub(super) fn items(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

pub(super) fn bytes(value: &Value) -> Bytes {
    match value {
        Value::Bulk(bytes) | Value::Simple(bytes) => bytes.clone(),
        Value::Int(number) => number.to_string().into(),
        _ => Bytes::new(),
    }
}

/// A number that is not negative.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    }
}

/// A field of a reply that is a list of names and values.
pub(super) fn field<'v>(row: &'v Value, name: &str) -> Option<&'v Value> {
    let Value::Array(words) = row else {
        return None;
    };
    let mut pairs = words.chunks_exact(2);
    pairs.find_map(|pair| match pair {
        [word, value] if word.as_bytes().is_some_and(|word| *word == name) => Some(value),
        _ => None,
    })
}

/// `1526919030474-55`.
pub(super) fn stream_id(text: &[u8]) -> Option<StreamId> {
    let (ms, seq) = std::str::from_utf8(text).ok()?.split_once('-')?;
    Some(StreamId {
        ms: ms.parse().ok()?,
        seq: seq.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_name() {
        let bulk = |text: &'static str| Value::Bulk(Bytes::from_static(text.as_bytes()));
        let row = Value::Array(vec![
            bulk("length"),
            Value::Int(3),
            bulk("last"),
            bulk("1-2"),
        ]);
        assert_eq!(field(&row, "length").and_then(number), Some(3));
        assert_eq!(field(&row, "last").map(bytes).as_deref(), Some(&b"1-2"[..]));
        assert!(field(&row, "1-2").is_none() && field(&Value::Null, "length").is_none());
        assert_eq!(number(&Value::Int(-1)), None);
    }

    #[test]
    fn ids_of_messages() {
        let id = StreamId { ms: 5, seq: 7 };
        assert_eq!(
            (stream_id(b"5-7"), stream_id(b"5"), stream_id(b"x-1")),
            (Some(id), None, None)
        );
    }
}
