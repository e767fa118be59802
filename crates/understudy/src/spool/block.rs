//! Blocks and segment headers on disk.
//!
//! ```text
//! segment   magic(8) replid(40) start(u64 LE) crc(u64 LE)          64 bytes, then blocks
//! block     len(u32 LE) zero(u32) at_ms(u64 LE) start(u64 LE) crc(u64 LE) payload(len)
//! ```
//! Both checksums are CRC-64/XZ: over the 56 bytes before it, and over the 24 bytes before it plus the
//! payload. `start` is the position of the first byte, so a block that was copied to the wrong place, or
//! left over from an older file, is never taken for good.

use std::io::{self, Read};

use crc64fast::Digest;
use replica::ReplId;

pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const BLOCK_HEADER_BYTES: usize = 32;
/// No block is longer: a length above it is damage, not data.
pub(super) const BLOCK_BYTES_MAX: usize = 16 << 20;
const MAGIC: &[u8; 8] = b"UNDSPL1\n";

/// The head of a segment file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) replid: ReplId,
    pub(super) start: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[..8].copy_from_slice(MAGIC);
        out[8..48].copy_from_slice(self.replid.as_bytes());
        out[48..56].copy_from_slice(&self.start.to_le_bytes());
        let crc = checksum(&[&out[..56]]);
        out[56..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `None` when these bytes are no header of ours.
    pub(super) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Option<Self> {
        let crc = u64_at(bytes, 56);
        if &bytes[..8] != MAGIC || crc != checksum(&[&bytes[..56]]) {
            return None;
        }
        Some(Self {
            replid: ReplId::from_bytes(&bytes[8..48])?,
            start: u64_at(bytes, 48),
        })
    }
}

/// The head of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BlockHeader {
    pub(super) len: usize,
    pub(super) at_ms: u64,
    pub(super) start: u64,
    crc: u64,
}

impl BlockHeader {
    /// Writes the header of the block whose bytes are `block[BLOCK_HEADER_BYTES..]` in front of them.
    pub(super) fn seal(block: &mut [u8], start: u64, at_ms: u64) {
        let (head, payload) = block.split_at_mut(BLOCK_HEADER_BYTES);
        let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        head[..4].copy_from_slice(&len.to_le_bytes());
        head[4..8].fill(0);
        head[8..16].copy_from_slice(&at_ms.to_le_bytes());
        head[16..24].copy_from_slice(&start.to_le_bytes());
        let crc = checksum(&[&head[..24], payload]);
        head[24..32].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header; `None` at the clean or torn end of the file.
    pub(super) fn read(
        file: &mut impl Read,
    ) -> io::Result<Option<(Self, [u8; BLOCK_HEADER_BYTES])>> {
        let mut head = [0; BLOCK_HEADER_BYTES];
        if !read_whole(file, &mut head)? {
            return Ok(None);
        }
        let len = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        if len == 0 || len > BLOCK_BYTES_MAX {
            return Ok(None);
        }
        let header = Self {
            len,
            at_ms: u64_at(&head, 8),
            start: u64_at(&head, 16),
            crc: u64_at(&head, 24),
        };
        Ok(Some((header, head)))
    }

    /// Reads the payload and checks it; `None` when it is torn or damaged.
    pub(super) fn payload(
        &self,
        head: &[u8; BLOCK_HEADER_BYTES],
        file: &mut impl Read,
    ) -> io::Result<Option<Vec<u8>>> {
        let mut payload = vec![0; self.len];
        if !read_whole(file, &mut payload)? || checksum(&[&head[..24], &payload]) != self.crc {
            return Ok(None);
        }
        Ok(Some(payload))
    }
}

/// Fills `buf`; false when the file ends before.
pub(super) fn read_whole(file: &mut impl Read, buf: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(buf) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn checksum(parts: &[&[u8]]) -> u64 {
    let mut digest = Digest::new();
    for part in parts {
        digest.write(part);
    }
    digest.sum64()
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_header_round_trip_and_damage() {
        let header = SegmentHeader {
            replid: ReplId::from_bytes(&[b'a'; 40]).unwrap(),
            start: 77,
        };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Some(header));
        for at in 0..SEGMENT_HEADER_BYTES {
            let mut bad = bytes;
            bad[at] ^= 1;
            assert_eq!(SegmentHeader::decode(&bad), None, "byte {at}");
        }
    }

    #[test]
    fn every_flipped_byte_of_a_block_is_found() {
        let mut block = vec![0; BLOCK_HEADER_BYTES];
        block.extend_from_slice(b"*1\r\n$4\r\nPING\r\n");
        BlockHeader::seal(&mut block, 10, 99);
        let read = |bytes: &[u8]| {
            let mut file = bytes;
            let (header, head) = BlockHeader::read(&mut file).unwrap()?;
            Some((
                header.start,
                header.at_ms,
                header.payload(&head, &mut file).unwrap()?,
            ))
        };
        assert_eq!(
            read(&block),
            Some((10, 99, block[BLOCK_HEADER_BYTES..].to_vec()))
        );
        for at in 0..block.len() {
            let mut bad = block.clone();
            bad[at] ^= 0x40;
            assert_eq!(read(&bad), None, "byte {at}");
            assert_eq!(read(&block[..at]), None, "cut at {at}");
        }
    }
}
