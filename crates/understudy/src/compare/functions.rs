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

/// Libraries that differ. Of a cluster every primary has to have them.
pub(crate) async fn differing(comparer: &mut Comparer) -> Result<Libraries, SyncError> {
    let source = lists(&mut comparer.source).await?;
    // As sync has it: those of the shard that has slot 0.
    let own = comparer.source.topology().and_then(|topology| {
        let owner = topology.owner(rewrite::Slot(0))?;
        Some(owner.address.clone())
    });
    let source = source
        .into_iter()
        .find(|(address, _)| own.as_ref().is_none_or(|own| own == address));
    let source = match source.map(|(_, list)| list) {
        Some(List::Told(source)) => source,
        Some(List::Refused(reply)) => {
            let side = Side::Source;
            return Ok(Libraries::Refused { side, reply });
        }
        Some(List::Lacking) | None => return Ok(Libraries::Lacking),
    };
    let mut found: BTreeMap<Bytes, Library> = BTreeMap::new();
    let is_cluster = comparer.target.is_cluster();
    for (address, list) in lists(&mut comparer.target).await? {
        let target = match list {
            List::Told(target) => target,
            List::Refused(reply) if !source.is_empty() => {
                let side = Side::Target;
                return Ok(Libraries::Refused { side, reply });
            }
            _ => return Ok(Libraries::Lacking),
        };
        let mut note = |name: &Bytes, code: Option<&Bytes>, word: &str| {
            let library = found.entry(name.clone()).or_insert_with(|| Library {
                name: name.clone(),
                found: Found {
                    what: What::Function,
                    kind: "function",
                    detail: String::new(),
                },
                code: code.cloned(),
            });
            let detail = &mut library.found.detail;
            if !detail.is_empty() {
                detail.push_str(", ");
            }
            detail.push_str(word);
            if is_cluster {
                detail.push_str(" at ");
                detail.push_str(&address);
            }
        };
        for (name, code) in &source {
            match target.get(name) {
                Some(other) if other == code => {}
                Some(_) => note(name, Some(code), "other code"),
                None => note(name, Some(code), "missing"),
            }
        }
        for name in target.keys().filter(|name| !source.contains_key(*name)) {
            note(name, None, "extra");
        }
    }
    Ok(Libraries::Differing(found.into_values().collect()))
}

/// What each primary tells.
async fn lists(end: &mut End) -> Result<Vec<(String, List)>, SyncError> {
    let has_functions = end.has(7, 0);
    let told = end.each(0, &[b"FUNCTION", b"LIST", b"WITHCODE"]).await?;
    let lists = told.into_iter().map(|(address, reply)| {
        let list = match reply {
            Value::Array(rows) => List::Told(rows.iter().filter_map(library).collect()),
            Value::Error(error) if has_functions => {
                List::Refused(String::from_utf8_lossy(&error.text).into_owned())
            }
            _ => List::Lacking,
        };
        (address, list)
    });
    Ok(lists.collect())
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
