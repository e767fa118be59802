//! `DUMP` payloads that come within commands, made to fit the target: type, value, version (u16 LE), CRC-64 (u64 LE).
//!
//! A server takes a payload of a newer version if the version is rewritten, as long as it knows the type; and it wants
//! a real checksum, where Redis 8.10 writes 0.

use std::borrow::Cow;

use crate::abilities::{Abilities, Fork};
use crate::modules::{self, Fit};
use crate::streams;

const FOOTER_BYTES: usize = 10;
const KEY_META: u8 = 0xf3;

/// The target does not know the type of the value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unloadable {
    pub(crate) type_id: u8,
    /// The name of the type, if it is a module's.
    pub(crate) module: Option<String>,
}

/// A payload that this target takes. One that is damaged stays as it is: the target refuses it as the source would have.
pub(crate) fn fit<'a>(payload: &'a [u8], target: &Abilities) -> Result<Cow<'a, [u8]>, Unloadable> {
    let Some(parts) = Parts::of(payload) else {
        return Ok(Cow::Borrowed(payload));
    };
    let Some(&type_id) = parts.body.first() else {
        return Ok(Cow::Borrowed(payload));
    };
    let valkey = parts.version >= 80;
    let version = if type_id == KEY_META {
        // The type stands behind the metadata, which older servers do not know either.
        (target.fork == Fork::Redis && parts.version <= target.rdb_version_max)
            .then_some(parts.version)
    } else {
        target.payload_version(type_id, valkey)
    };
    let Some(version) = version else {
        return parts.older_stream(type_id, target).ok_or(Unloadable {
            type_id,
            module: None,
        });
    };
    if type_id == modules::TYPE_ID
        && let Some(body) = parts.body.get(1..)
        && let Some(id) = modules::type_of(body)
    {
        match modules::fit(id, body, target) {
            Fit::Lacks => {
                let module = Some(id.to_string());
                return Err(Unloadable { type_id, module });
            }
            Fit::Known(Cow::Owned(body)) if parts.is_sound() => {
                let mut out = Vec::with_capacity(body.len() + 1 + FOOTER_BYTES);
                rdb::dump::payload(&mut out, None, type_id, &body, version);
                return Ok(Cow::Owned(out));
            }
            Fit::Known(_) | Fit::Perhaps => {}
        }
    }
    Ok(parts.stamped(payload, takes(target, parts.version), version))
}

/// [`fit`] for the payload of `FUNCTION RESTORE`, which holds libraries.
pub(crate) fn fit_functions<'a>(payload: &'a [u8], target: &Abilities) -> Cow<'a, [u8]> {
    match Parts::of(payload) {
        Some(parts) => {
            let version = target.rdb_version_max.min(11);
            parts.stamped(payload, takes(target, parts.version), version)
        }
        None => Cow::Borrowed(payload),
    }
}

/// Whether the target takes this version as it is.
fn takes(target: &Abilities, version: u16) -> bool {
    if version >= 80 {
        return target.fork == Fork::Valkey && target.version.major >= 9 && version == 80;
    }
    if target.rdb_version_exact {
        version == target.rdb_version_max
    } else {
        version <= target.rdb_version_max
    }
}

struct Parts<'a> {
    body: &'a [u8],
    version: u16,
    checksum: u64,
}

impl<'a> Parts<'a> {
    fn of(payload: &'a [u8]) -> Option<Self> {
        let (body, footer) = payload.split_at_checked(payload.len().checked_sub(FOOTER_BYTES)?)?;
        let (version, checksum) = footer.split_first_chunk::<2>()?;
        Some(Self {
            body,
            version: u16::from_le_bytes(*version),
            checksum: u64::from_le_bytes(*checksum.first_chunk::<8>()?),
        })
    }

    /// The payload of a stream in an older layout that the target takes, if nothing is lost by it.
    fn older_stream(&self, type_id: u8, target: &Abilities) -> Option<Cow<'a, [u8]>> {
        if !streams::TYPES.contains(&type_id) || !self.is_sound() {
            return None;
        }
        let (older, version) = target.stream_as(type_id)?;
        let body = streams::older(self.body.get(1..)?, type_id, older, true).ok()?;
        let mut out = Vec::with_capacity(body.len() + 1 + FOOTER_BYTES);
        rdb::dump::payload(&mut out, None, older, &body, version);
        Some(Cow::Owned(out))
    }

    /// Whether the checksum is right, or not there.
    fn is_sound(&self) -> bool {
        let body = rdb::crc64(0, self.body);
        self.checksum == 0 || self.checksum == rdb::crc64(body, &self.version.to_le_bytes())
    }

    /// The payload with this version, or as it is if the target takes that.
    fn stamped(&self, payload: &'a [u8], taken: bool, version: u16) -> Cow<'a, [u8]> {
        if taken && self.checksum != 0 {
            return Cow::Borrowed(payload);
        }
        if !self.is_sound() {
            return Cow::Borrowed(payload);
        }
        let mut out = Vec::with_capacity(payload.len());
        out.extend_from_slice(self.body);
        out.extend_from_slice(&version.to_le_bytes());
        let checksum = rdb::crc64(0, &out);
        out.extend_from_slice(&checksum.to_le_bytes());
        Cow::Owned(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(body: &[u8], version: u16, checksum: bool) -> Vec<u8> {
        let mut out = [body, &version.to_le_bytes()].concat();
        let crc = if checksum { rdb::crc64(0, &out) } else { 0 };
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }

    fn target(fork: Fork, version: &str) -> Abilities {
        Abilities::from_version(fork, version.parse().unwrap())
    }

    #[test]
    fn what_the_target_takes_is_not_touched() {
        let new = payload(b"\x00\x01a", 10, true);
        assert!(matches!(
            fit(&new, &target(Fork::Redis, "7.0.15")),
            Ok(Cow::Borrowed(_))
        ));
        let valkey = payload(b"\x16...", 80, true);
        assert!(matches!(
            fit(&valkey, &target(Fork::Valkey, "9.1.2")),
            Ok(Cow::Borrowed(_))
        ));
    }

    #[test]
    fn versions_and_zero_checksums_are_rewritten() {
        let body = b"\x00\x01a";
        let cases = [
            (payload(body, 12, true), target(Fork::Redis, "7.0.15"), 10),
            (payload(body, 15, false), target(Fork::Redis, "8.10.2"), 11),
            (payload(body, 12, true), target(Fork::Valkey, "8.1.1"), 11),
            (payload(body, 80, true), target(Fork::Redis, "8.0.6"), 11),
            (payload(body, 7, true), target(Fork::Redis, "3.0.5"), 6),
            (payload(body, 6, true), target(Fork::Redis, "3.2.6"), 7),
        ];
        for (given, target, version) in cases {
            let fitted = fit(&given, &target).unwrap();
            assert_eq!(
                fitted.as_ref(),
                payload(body, version, true),
                "{}",
                target.version
            );
        }
    }

    #[test]
    fn unknown_types_are_named() {
        let stream = payload(b"\x1a...", 13, true);
        let error = fit(&stream, &target(Fork::Redis, "8.0.6"));
        assert_eq!(
            error,
            Err(Unloadable {
                type_id: 26,
                module: None
            })
        );
        let meta = payload(b"\xf3...", 13, true);
        assert!(fit(&meta, &target(Fork::Redis, "8.0.6")).is_err());
        assert!(fit(&meta, &target(Fork::Redis, "8.6.3")).is_ok());
    }

    #[test]
    fn damaged_payloads_stay_damaged() {
        let mut bad = payload(b"\x00\x01a", 12, true);
        bad[1] ^= 1;
        for bytes in [&bad[..], b"", b"short", &[0; 10]] {
            assert_eq!(fit(bytes, &target(Fork::Redis, "7.0.15")).unwrap(), bytes);
        }
    }

    #[test]
    fn functions_keep_their_libraries() {
        let given = payload(b"\xf5\x03abc", 12, true);
        let fitted = fit_functions(&given, &target(Fork::Redis, "7.0.15"));
        assert_eq!(fitted.as_ref(), payload(b"\xf5\x03abc", 10, true));
    }
}
