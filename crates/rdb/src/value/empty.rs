//! Whether a value has no elements. Old servers could write such keys; servers since 6.2.6 leave
//! them out when they load a file, and so does the decoder.

use crate::error::Stop;
use crate::leaf::lzf;
use crate::leaf::reader::{Reader, StringHead};
use crate::types::{Encoding, Kind, Row};

const EMPTY_LISTPACK: &[u8] = &[7, 0, 0, 0, 0, 0, 0xff];
const EMPTY_ZIPLIST: &[u8] = &[11, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0xff];
/// As many empty nodes in front of a list are looked at; no server writes any.
const NODES_MAX: u64 = 64;

/// Looks at the value that `reader` stands before. An empty intset or zipmap is not among these:
/// servers refuse it.
pub(crate) fn is_empty(row: &Row, mut reader: Reader<'_>) -> Result<bool, Stop> {
    if row.kind == Kind::String {
        return Ok(false);
    }
    match row.encoding {
        Encoding::Plain
        | Encoding::TextScores
        | Encoding::BinaryScores
        | Encoding::ExpiringAbsolute
        | Encoding::ExpiringTrailing => Ok(reader.number()? == 0),
        Encoding::ExpiringRelative => {
            reader.take(8)?;
            Ok(reader.number()? == 0)
        }
        Encoding::Ziplist => holds(&mut reader, EMPTY_ZIPLIST),
        Encoding::Listpack | Encoding::ExpiringListpackPreGa => holds(&mut reader, EMPTY_LISTPACK),
        Encoding::ExpiringListpack => {
            reader.take(8)?;
            holds(&mut reader, EMPTY_LISTPACK)
        }
        Encoding::Quicklist => nodes(&mut reader, |reader| holds(reader, EMPTY_ZIPLIST)),
        Encoding::Quicklist2 => nodes(&mut reader, |reader| {
            Ok(reader.number()? == 2 && holds(reader, EMPTY_LISTPACK)?)
        }),
        Encoding::Zipmap
        | Encoding::Intset
        | Encoding::Stream(_)
        | Encoding::ModulePreGa
        | Encoding::Module
        | Encoding::Array
        | Encoding::TemplateListpack
        | Encoding::TemplateListpackRef
        | Encoding::TemplateArray
        | Encoding::TemplateArrayRef
        | Encoding::Reserved => Ok(false),
    }
}

/// Whether all nodes of a list are empty.
fn nodes(
    reader: &mut Reader<'_>,
    mut is_empty: impl FnMut(&mut Reader<'_>) -> Result<bool, Stop>,
) -> Result<bool, Stop> {
    let count = reader.number()?;
    for _ in 0..count.min(NODES_MAX) {
        if !is_empty(reader)? {
            return Ok(false);
        }
    }
    if count > NODES_MAX {
        return Err(Stop::corrupt(
            "a list that begins with too many empty nodes",
        ));
    }
    Ok(true)
}

/// Whether the string that follows is this one. Only the length of another one is read.
fn holds(reader: &mut Reader<'_>, wanted: &[u8]) -> Result<bool, Stop> {
    let mut ahead = reader.clone();
    let head = ahead.string_head(u64::MAX)?;
    if head.len() != wanted.len() {
        return Ok(false);
    }
    let rest = ahead.take(head.stored())?;
    let same = match head {
        StringHead::Plain { .. } => rest == wanted,
        StringHead::Int(_) => false,
        StringHead::Lzf { len, .. } => {
            let mut bytes = vec![0; len];
            lzf::decompress(rest, &mut bytes).is_ok() && bytes == wanted
        }
    };
    *reader = ahead;
    Ok(same)
}
