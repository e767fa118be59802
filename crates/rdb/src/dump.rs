//! DUMP payloads: a value on its own (`cluster.c: createDumpPayload`, `verifyDumpPayload`).
//!
//! ```text
//! [F3 key metadata] | type byte | body | u16 version | u64 CRC-64 of all before it    little-endian
//! ```
//!
//! The version is what the reader checks first, and it never relates it to the type byte: a
//! payload may carry any version its reader knows.

use bytes::Bytes;

use crate::checksum::crc64;
pub use crate::container::listpack::BackLengths;
use crate::decode::Decoder;
use crate::error::{Error, ErrorKind};
use crate::event::{Poll, Want};
use crate::limits::Limits;
use crate::types::{RdbVersion, Row};

const KEY_META: u8 = 243;
/// Version and checksum.
const FOOTER: usize = 2 + 8;

/// Appends the payload of a value: `meta` and `body` as the decoder gave them.
pub fn payload(out: &mut Vec<u8>, meta: Option<&[u8]>, type_id: u8, body: &[u8], version: u16) {
    out.reserve(payload_len(meta, body));
    let start = out.len();
    if let Some(meta) = meta {
        out.push(KEY_META);
        out.extend_from_slice(meta);
    }
    out.push(type_id);
    out.extend_from_slice(body);
    let sum = checksum(0, out.get(start..).unwrap_or_default());
    footer(out, sum, version);
}

/// The checksum of a payload's bytes behind others of which it is `so_far`, at first 0.
#[must_use]
pub fn checksum(so_far: u64, bytes: &[u8]) -> u64 {
    crc64(so_far, bytes)
}

/// Appends what stands at the end of a payload whose bytes have this [`checksum`].
pub fn footer(out: &mut Vec<u8>, checksum: u64, version: u16) {
    let version = version.to_le_bytes();
    out.extend_from_slice(&version);
    out.extend_from_slice(&crc64(checksum, &version).to_le_bytes());
}

/// How many bytes [`payload`] appends.
#[must_use]
pub fn payload_len(meta: Option<&[u8]>, body: &[u8]) -> usize {
    meta.map_or(0, |meta| 1 + meta.len()) + 1 + body.len() + FOOTER
}

/// A payload whose checksum is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Everything before the footer: metadata if any, type byte, body.
    pub value: &'a [u8],
    /// The version in the footer.
    pub version: u16,
    /// The checksum in the footer; 0 if none was computed.
    pub checksum: u64,
}

/// Takes a payload apart; its checksum must be right or 0.
pub fn verify(payload: &[u8]) -> Result<Payload<'_>, Error> {
    let truncated = Error {
        at: payload.len() as u64,
        kind: ErrorKind::Truncated,
    };
    let Some((covered, checksum)) = payload.split_last_chunk::<8>() else {
        return Err(truncated);
    };
    let Some((value, version)) = covered.split_last_chunk::<2>() else {
        return Err(truncated);
    };
    if value.is_empty() {
        return Err(truncated);
    }
    let (version, stored) = (u16::from_le_bytes(*version), u64::from_le_bytes(*checksum));
    let computed = crc64(0, covered);
    if stored != 0 && stored != computed {
        let kind = ErrorKind::Checksum { stored, computed };
        return Err(Error {
            at: covered.len() as u64,
            kind,
        });
    }
    Ok(Payload {
        value,
        version,
        checksum: stored,
    })
}

/// Whether a body, as [`Event::Raw`](crate::Event::Raw) has it, holds listpack entries that servers
/// write differently: Redis up to 8.6, Valkey up to 9.0 and Redict on one side, Redis 8.10 and Valkey
/// from 9.1 on the other. Such a body must not be restored across that line. Compressed listpacks are
/// looked into.
///
/// Types that refer to a template of their file (30 and 32) cannot be restored at all and are an error.
///
/// # Errors
///
/// If `body` is not a good value of the type; the place counts from its first byte.
pub fn back_lengths(row: &'static Row, body: &Bytes, limits: Limits) -> Result<BackLengths, Error> {
    let validate_raw = true;
    let limits = Limits {
        validate_raw,
        ..limits
    };
    // Nothing shorter unpacks to an entry of 16383 bytes.
    if body.len() < 0x3fff / 88 {
        return Ok(BackLengths::default());
    }
    let mut decoder = Decoder::of_body(row, body.clone(), limits);
    decoder.want(Want::Raw {
        bytes_max: u64::MAX,
    });
    loop {
        match decoder.poll()? {
            Poll::Event(_) => {}
            Poll::End => return Ok(decoder.back_lengths()),
            Poll::NeedMore => {
                decoder.finish()?;
            }
        }
    }
}

/// A decoder of a payload's value, once its checksum is found right. It gives one
/// [`Event::Key`](crate::Event::Key) with an empty key, then the value as wanted, then
/// [`Poll::End`](crate::Poll::End). Types that the forks number differently are told apart by the
/// version. Unlike in a file, an empty collection is an error here, as for RESTORE.
pub fn decoder(payload: &Bytes, limits: Limits) -> Result<Decoder, Error> {
    let Payload { value, version, .. } = verify(payload)?;
    let value = payload.slice(..value.len());
    Ok(Decoder::of_value(value, RdbVersion(version), limits))
}
