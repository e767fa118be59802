//! Libraries of functions at both ends.

use std::collections::BTreeMap;

use bytes::Bytes;
use resp::Value;

use super::end::End;
use super::look::Comparer;
use super::what::{Found, What};
use crate::error::SyncError;

/// A library that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Library {
    pub(crate) name: Bytes,
    pub(super) found: Found,
    /// Its code at the source; none: it has no such library.
    pub(crate) code: Option<Bytes>,
}

/// Libraries that differ; none where one of both does not have functions (7.0) or does not tell them.
pub(crate) async fn differing(comparer: &mut Comparer) -> Result<Option<Vec<Library>>, SyncError> {
    let source = list(&mut comparer.source).await?;
    let target = list(&mut comparer.target).await?;
    let (Some(source), Some(target)) = (source, target) else {
        return Ok(None);
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
    Ok(Some(found))
}

async fn list(end: &mut End) -> Result<Option<BTreeMap<Bytes, Bytes>>, SyncError> {
    let reply = end.one(0, &[b"FUNCTION", b"LIST", b"WITHCODE"]).await?;
    let Value::Array(rows) = reply else {
        return Ok(None);
    };
    Ok(Some(rows.iter().filter_map(library).collect()))
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
