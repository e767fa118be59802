//! What files are told by, in the place of a source's replication id: some of their bytes.
//!
//! ```text
//! <8 hex digits: how many of the first bytes> <32: two checksums of the first file's name and of those bytes>
//! ```
//!
//! An append-only file grows, and its beginning stays. So whoever finds an id in a checkpoint looks at as many bytes as it
//! names. Files that do not change are told by the beginning and the end of each.

use std::io;
use std::path::Path;

use replica::ReplId;

use super::Set;

/// So many of the first bytes are looked at.
const HEAD_BYTES: usize = 1 << 20;
/// Of each file that does not change.
const EDGE_BYTES: usize = 4 << 10;

/// The id of an append-only file as it is now.
pub(crate) fn identify(set: &mut Set) -> io::Result<ReplId> {
    of_head(set, HEAD_BYTES)
}

/// Whether the id is that of these files, when they were shorter or as they are.
pub(crate) fn begins_with(set: &mut Set, id: ReplId) -> io::Result<bool> {
    let digits = std::str::from_utf8(id.as_bytes()).unwrap_or_default();
    let len = digits
        .get(..8)
        .and_then(|hex| u32::from_str_radix(hex, 16).ok());
    let Some(len) = len.filter(|len| *len as usize <= HEAD_BYTES) else {
        return Ok(false);
    };
    Ok(u64::from(len) <= set.len() && of_head(set, len as usize)? == id)
}

/// The id of files that do not change.
pub(crate) fn identify_whole(set: &mut Set) -> io::Result<ReplId> {
    let mut sum = Sum::default();
    let files: Vec<(u64, u64)> = set.files().map(|(_, start, len)| (start, len)).collect();
    for (start, len) in files {
        sum.take(&len.to_le_bytes());
        let edge = len.min(EDGE_BYTES as u64);
        for from in [start, start + len - edge] {
            let (mut at, end) = (from, from + edge);
            while at < end
                && let Some(bytes) = set.read_at(at)?
            {
                let left = usize::try_from(end - at).unwrap_or(usize::MAX);
                let bytes = bytes.get(..left).unwrap_or(&bytes);
                sum.take(bytes);
                at += bytes.len() as u64;
            }
        }
    }
    Ok(sum.id(0))
}

/// The id of bytes that come once, by the first of them.
pub(crate) fn identify_bytes(head: &[u8]) -> ReplId {
    let mut sum = Sum::default();
    sum.take(head.get(..EDGE_BYTES).unwrap_or(head));
    sum.id(0)
}

fn of_head(set: &mut Set, bytes_max: usize) -> io::Result<ReplId> {
    let head = set.head(bytes_max)?;
    let mut sum = Sum::default();
    let name = set.files().next().and_then(|(path, ..)| path.file_name());
    sum.take(
        name.map(Path::new)
            .map_or(&b""[..], |name| name.as_os_str().as_encoded_bytes()),
    );
    sum.take(&head);
    Ok(sum.id(u32::try_from(head.len()).unwrap_or(u32::MAX)))
}

/// Two checksums side by side.
#[derive(Default)]
struct Sum {
    xz: crc64fast::Digest,
    redis: u64,
}

impl Sum {
    fn take(&mut self, bytes: &[u8]) {
        self.xz.write(bytes);
        self.redis = rdb::crc64(self.redis, bytes);
    }

    fn id(&self, len: u32) -> ReplId {
        let text = format!("{len:08x}{:016x}{:016x}", self.xz.sum64(), self.redis);
        let Some(id) = ReplId::from_bytes(text.as_bytes()) else {
            unreachable!("{text} is 40 digits")
        };
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_has_grown_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.aof");
        let open = || Set::open(std::slice::from_ref(&file)).unwrap();
        for len in [0, 100, HEAD_BYTES - 1, HEAD_BYTES + 5] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            std::fs::write(&file, &bytes).unwrap();
            let id = identify(&mut open()).unwrap();
            let whole = identify_whole(&mut open()).unwrap();
            assert!(begins_with(&mut open(), id).unwrap());
            std::fs::write(&file, [&bytes[..], b"more"].concat()).unwrap();
            assert!(begins_with(&mut open(), id).unwrap(), "{len}");
            assert_ne!(identify_whole(&mut open()).unwrap(), whole);
            if len > 0 {
                std::fs::write(&file, [b"x", &bytes[1..]].concat()).unwrap();
                assert!(!begins_with(&mut open(), id).unwrap(), "{len}");
                std::fs::write(&file, &bytes[..len - 1]).unwrap();
                let shorter = begins_with(&mut open(), id).unwrap();
                assert_eq!(shorter, len > HEAD_BYTES, "{len}");
            }
        }
        let other: ReplId = "f".repeat(40).parse().unwrap();
        assert!(!begins_with(&mut open(), other).unwrap());
    }
}
