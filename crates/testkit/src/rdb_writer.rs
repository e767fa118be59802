//! Writes RDB files: every opcode, every length and string form, packed containers.
//!
//! It shares no code with the decoder it tests, down to the checksum. A value is written by
//! [`RdbWriter::key`] and then whatever its type asks for, so that corrupt and unusual files can be
//! written as well; [`RdbWriter::string`], [`RdbWriter::list`] and so on write the plain types.
//!
//! ```
//! let mut file = testkit::rdb_writer::RdbWriter::redis(11);
//! file.aux("redis-ver", "7.2.0").select_db(0).expire_ms(1_700_000_000_000).string("key", "value");
//! assert!(file.finish().starts_with(b"REDIS0011"));
//! ```

mod compress;
mod packed;

pub use compress::lzf;
pub use packed::{Item, Message, intset, listpack, stream_messages, stream_node, ziplist, zipmap};

/// A file that is being written.
#[derive(Debug, Clone)]
pub struct RdbWriter {
    out: Vec<u8>,
    version: u16,
}

impl RdbWriter {
    /// A file with Redis's magic.
    #[must_use]
    pub fn redis(version: u16) -> Self {
        Self {
            out: format!("REDIS{version:04}").into_bytes(),
            version,
        }
    }

    /// A file with Valkey's magic.
    #[must_use]
    pub fn valkey(version: u16) -> Self {
        Self {
            out: format!("VALKEY{version:03}").into_bytes(),
            version,
        }
    }

    /// The bodies of values, for DUMP payloads: no magic.
    #[must_use]
    pub fn body() -> Self {
        Self {
            out: Vec::new(),
            version: 0,
        }
    }

    /// What was written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.out
    }

    /// Ends the file with its checksum, from version 5 on.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        let mut out = self.out;
        out.push(255);
        if self.version >= 5 {
            out.extend(crc64(&out).to_le_bytes());
        }
        out
    }

    /// Ends the file as a writer does that computes no checksum.
    #[must_use]
    pub fn finish_without_checksum(self) -> Vec<u8> {
        let mut out = self.out;
        out.extend([255, 0, 0, 0, 0, 0, 0, 0, 0]);
        out
    }
}

/// Opcodes.
impl RdbWriter {
    /// AUX.
    pub fn aux(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.byte(250).text(name).text(value)
    }

    /// SELECTDB.
    pub fn select_db(&mut self, db: u64) -> &mut Self {
        self.byte(254).len(db)
    }

    /// RESIZEDB.
    pub fn resize_db(&mut self, keys: u64, expires: u64) -> &mut Self {
        self.byte(251).len(keys).len(expires)
    }

    /// EXPIRETIME_MS.
    pub fn expire_ms(&mut self, at_ms: i64) -> &mut Self {
        self.byte(252).bytes(at_ms.to_le_bytes())
    }

    /// EXPIRETIME.
    pub fn expire_seconds(&mut self, at: i32) -> &mut Self {
        self.byte(253).bytes(at.to_le_bytes())
    }

    /// IDLE.
    pub fn idle(&mut self, seconds: u64) -> &mut Self {
        self.byte(248).len(seconds)
    }

    /// FREQ.
    pub fn freq(&mut self, freq: u8) -> &mut Self {
        self.byte(249).byte(freq)
    }

    /// SLOT_INFO.
    pub fn slot_info(&mut self, slot: u64, keys: u64, expires: u64) -> &mut Self {
        self.byte(244).len(slot).len(keys).len(expires)
    }

    /// FUNCTION2.
    pub fn function(&mut self, code: impl AsRef<[u8]>) -> &mut Self {
        self.byte(245).text(code)
    }

    /// HASH_TEMPLATE.
    pub fn hash_template(&mut self, id: u64, fields: &[&str]) -> &mut Self {
        self.byte(242).len(id).len(fields.len() as u64);
        fields.iter().fold(self, |file, field| file.text(field))
    }

    /// A type byte and a key.
    pub fn key(&mut self, type_id: u8, key: impl AsRef<[u8]>) -> &mut Self {
        self.byte(type_id).text(key)
    }
}

/// Whole values of the plain types.
impl RdbWriter {
    /// A string (type 0); integers and long strings are encoded as servers do.
    pub fn string(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.key(0, key).server_text(value)
    }

    /// A list (type 1).
    pub fn list<T: AsRef<[u8]>>(&mut self, key: impl AsRef<[u8]>, items: &[T]) -> &mut Self {
        self.key(1, key).texts(items)
    }

    /// A set (type 2).
    pub fn set<T: AsRef<[u8]>>(&mut self, key: impl AsRef<[u8]>, members: &[T]) -> &mut Self {
        self.key(2, key).texts(members)
    }

    /// A sorted set (type 5).
    pub fn zset<T: AsRef<[u8]>>(
        &mut self,
        key: impl AsRef<[u8]>,
        members: &[(T, f64)],
    ) -> &mut Self {
        self.key(5, key).len(members.len() as u64);
        members.iter().fold(self, |file, (member, score)| {
            file.server_text(member).bytes(score.to_le_bytes())
        })
    }

    /// A hash (type 4).
    pub fn hash<T: AsRef<[u8]>>(&mut self, key: impl AsRef<[u8]>, pairs: &[(T, T)]) -> &mut Self {
        self.key(4, key).len(pairs.len() as u64);
        pairs.iter().fold(self, |file, (field, value)| {
            file.server_text(field).server_text(value)
        })
    }
}

/// The parts that values are made of.
impl RdbWriter {
    /// One byte.
    pub fn byte(&mut self, byte: u8) -> &mut Self {
        self.out.push(byte);
        self
    }

    /// Bytes as they are.
    pub fn bytes(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.out.extend_from_slice(bytes.as_ref());
        self
    }

    /// A number in the shortest length encoding.
    pub fn len(&mut self, n: u64) -> &mut Self {
        match n {
            0..64 => self.byte(n as u8),
            64..0x4000 => self.bytes((n as u16 | 0x4000).to_be_bytes()),
            0x4000..0x1_0000_0000 => self.byte(0x80).bytes((n as u32).to_be_bytes()),
            _ => self.len_64(n),
        }
    }

    /// A number in the longest length encoding.
    pub fn len_64(&mut self, n: u64) -> &mut Self {
        self.byte(0x81).bytes(n.to_be_bytes())
    }

    /// A string as it is.
    pub fn text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let text = text.as_ref();
        self.len(text.len() as u64).bytes(text)
    }

    /// A number of strings, and the strings.
    pub fn texts<T: AsRef<[u8]>>(&mut self, texts: &[T]) -> &mut Self {
        self.len(texts.len() as u64);
        texts.iter().fold(self, |file, text| file.server_text(text))
    }

    /// A string that is an integer, in the shortest integer encoding.
    pub fn int(&mut self, value: i32) -> &mut Self {
        match (i8::try_from(value), i16::try_from(value)) {
            (Ok(value), _) => self.byte(0xc0).bytes(value.to_le_bytes()),
            (_, Ok(value)) => self.byte(0xc1).bytes(value.to_le_bytes()),
            _ => self.byte(0xc2).bytes(value.to_le_bytes()),
        }
    }

    /// A string in LZF, whether it gains by it or not.
    pub fn lzf_text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let text = text.as_ref();
        let packed = lzf(text);
        self.byte(0xc3)
            .len(packed.len() as u64)
            .len(text.len() as u64)
            .bytes(packed)
    }

    /// A string as a server writes it: integers as such, long ones in LZF if that is shorter.
    pub fn server_text(&mut self, text: impl AsRef<[u8]>) -> &mut Self {
        let text = text.as_ref();
        let int = std::str::from_utf8(text)
            .ok()
            .and_then(|text| text.parse::<i32>().ok());
        if let Some(value) = int.filter(|value| value.to_string().as_bytes() == text) {
            return self.int(value);
        }
        if text.len() > 20 && lzf(text).len() < text.len() - 4 {
            return self.lzf_text(text);
        }
        self.text(text)
    }
}

/// A DUMP payload: what stands before the footer, and the version to put into it.
#[must_use]
pub fn payload(value: &[u8], version: u16) -> Vec<u8> {
    let mut out = [value, &version.to_le_bytes()].concat();
    out.extend(crc64(&out).to_le_bytes());
    out
}

/// CRC-64/REDIS, bit by bit.
#[must_use]
pub fn crc64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0_u64, |sum, byte| {
        (0..8).fold(sum ^ u64::from(*byte), |sum, _| {
            (sum >> 1)
                ^ (if sum & 1 == 1 {
                    0x95ac_9329_ac4b_c9b5
                } else {
                    0
                })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value() {
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
    }

    #[test]
    fn strings_as_servers_write_them() {
        let written = |text: &str| RdbWriter::body().server_text(text).as_bytes().to_vec();
        assert_eq!(written("-128"), [0xc0, 0x80]);
        assert_eq!(written("128"), [0xc1, 0x80, 0]);
        assert_eq!(written("32768"), [0xc2, 0, 0x80, 0, 0]);
        assert_eq!(written("007"), b"\x03007");
        assert_eq!(written("2147483648"), b"\x0a2147483648");
        assert_eq!(written(&"a".repeat(40))[0], 0xc3);
    }
}
