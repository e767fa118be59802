//! Libraries of functions at both ends.

use std::collections::BTreeMap;

use bytes::Bytes;
use resp::Value;

use super::end::End;
use super::look::Comparer;
use super::what::{Found, What};
use crate::error::{Side, SyncError};

/// A library that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Library {
    pub(crate) name: Bytes,
    pub(super) found: Found,
    /// Its code at the source; none: it has no such library.
    pub(crate) code: Option<Bytes>,
}

/// What came of looking at the libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Libraries {
    Differing(Vec<Library>),
    /// One of both does not have functions (7.0).
    Lacking,
    /// One of both has them and does not tell them.
    Refused {
        side: Side,
        reply: String,
    },
}

/// What an end told.
enum List {
    Told(BTreeMap<Bytes, Bytes>),
    Lacking,
    Refused(String),
}

/// Libraries that differ.
pub(crate) async fn differing(comparer: &mut Comparer) -> Result<Libraries, SyncError> {
    let source = list(&mut comparer.source).await?;
    let target = list(&mut comparer.target).await?;
    let (source, target) = match (source, target) {
        (List::Told(source), List::Told(target)) => (source, target),
        (List::Refused(reply), _) => {
            let side = Side::Source;
            return Ok(Libraries::Refused { side, reply });
        }
        (List::Told(source), List::Refused(reply)) if !source.is_empty() => {
            let side = Side::Target;
            return Ok(Libraries::Refused { side, reply });
        }
        _ => return Ok(Libraries::Lacking),
    };
    let mut found = Vec::new();
    let library = |name: &Bytes, code: Option<&Bytes>, detail: &str| Library {
        name: name.clone(),
        found: Found {
            what: What::Function,
            kind: "function",
            detail: detail.to_owned(),
        },
        code: code.cloned(),
    };
    for (name, code) in &source {
        match target.get(name) {
            Some(other) if other == code => {}
            Some(_) => found.push(library(name, Some(code), "other code")),
            None => found.push(library(name, Some(code), "missing")),
        }
    }
    for name in target.keys().filter(|name| !source.contains_key(*name)) {
        found.push(library(name, None, "extra"));
    }
    Ok(Libraries::Differing(found))
}

async fn list(end: &mut End) -> Result<List, SyncError> {
    let reply = end.one(0, &[b"FUNCTION", b"LIST", b"WITHCODE"]).await?;
    Ok(match reply {
        Value::Array(rows) => List::Told(rows.iter().filter_map(library).collect()),
        Value::Error(error) if end.has(7, 0) => {
            List::Refused(String::from_utf8_lossy(&error.text).into_owned())
        }
        _ => List::Lacking,
    })
}

/// Name and code of a row.
fn library(row: &Value) -> Option<(Bytes, Bytes)> {
    let Value::Array(words) = row else {
        return None;
    };
    let field = |name: &[u8]| {
        let mut pairs = words.chunks_exact(2);
        pairs.find_map(|pair| match pair {
            [word, Value::Bulk(value)] if word.as_bytes().is_some_and(|word| word == name) => {
                Some(value.clone())
            }
            _ => None,
        })
    };
    Some((field(b"library_name")?, field(b"library_code")?))
}
