//! CRC-64/REDIS, the checksum of files and DUMP payloads (`crc64.c`): Jones's polynomial,
//! reflected, starting from zero, nothing XORed at the end. `123456789` gives
//! `0xe9c6d914c4b8d9ca`.

use std::sync::LazyLock;

use crc_fast::{CrcParams, Digest};

static PARAMS: LazyLock<CrcParams> = LazyLock::new(|| {
    let (poly, check) = (0xad93_d235_94c9_35a9, 0xe9c6_d914_c4b8_d9ca);
    CrcParams::new("CRC-64/REDIS", 64, poly, 0, true, 0, check)
});

/// The checksum of what `crc` already covers (0 for nothing) followed by `bytes`.
#[must_use]
pub fn crc64(crc: u64, bytes: &[u8]) -> u64 {
    let mut params = *PARAMS;
    params.init_algorithm = crc;
    crc_fast::checksum_with_params(params, bytes)
}

/// A checksum that grows with its input.
#[derive(Debug, Clone)]
pub(crate) struct Running(Digest);

impl Running {
    pub(crate) fn new() -> Self {
        Self(Digest::new_with_params(*PARAMS))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value() {
        assert_eq!(crc64(0, b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn continues_where_it_stopped() {
        let bytes: Vec<u8> = (0..5000_u32).map(|i| (i * 7 % 251) as u8).collect();
        let whole = crc64(0, &bytes);
        for cut in [0, 1, 15, 16, 17, 127, 128, 255, 256, 257, 4999, 5000] {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(crc64(crc64(0, left), right), whole, "cut at {cut}");
            let mut running = Running::new();
            running.update(left);
            running.update(right);
            assert_eq!(running.value(), whole, "cut at {cut}");
        }
    }
}
