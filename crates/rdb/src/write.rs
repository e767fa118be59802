//! Writes RDB files around values that are copied as they stand in other ones (`rdb.c: rdbSaveRio`).
//!
//! ```text
//! REDIS0011 | VALKEY080                                       version of what is copied
//! FA name value                                               notes
//! F5 code                                                     libraries of functions
//! FE db  { [FC i64-ms] [F8 idle] [F9 freq] [F3 meta] type key body }
//! FF u64 CRC-64 of all before it                              from version 5 on
//! ```
//!
//! ```
//! use rdb::{Dialect, RdbVersion, Writer};
//!
//! let mut file = Writer::new(Dialect::Redis, RdbVersion(9));
//! file.aux(b"redis-ver", b"5.0.14");
//! let bytes = file.finish();
//! assert!(bytes.starts_with(b"REDIS0009"));
//! ```

use crate::checksum::crc64;
use crate::event::KeyHead;
use crate::types::{Db, Dialect, RdbVersion};

const FUNCTION: u8 = 245;
const IDLE: u8 = 248;
const FREQ: u8 = 249;
const AUX: u8 = 250;
const EXPIRE_MS: u8 = 252;
const EXPIRE_SECONDS: u8 = 253;
const SELECT_DB: u8 = 254;
const EOF: u8 = 255;
const KEY_META: u8 = 243;

/// The first version with expiries in milliseconds.
const MILLISECONDS: RdbVersion = RdbVersion(3);
/// The first version with a checksum at the end.
const CHECKSUM: RdbVersion = RdbVersion(5);

/// A file that is being written; its bytes are taken as they come to be.
#[derive(Debug)]
pub struct Writer {
    version: RdbVersion,
    out: Vec<u8>,
    /// Of all that was taken.
    sum: u64,
}

impl Writer {
    /// A file of this version, with its magic.
    #[must_use]
    pub fn new(dialect: Dialect, version: RdbVersion) -> Self {
        let magic = match dialect {
            Dialect::Shared | Dialect::Redis => format!("REDIS{:04}", version.0),
            Dialect::Valkey => format!("VALKEY{:03}", version.0),
        };
        Self {
            version,
            out: magic.into_bytes(),
            sum: 0,
        }
    }

    /// A note of the writer.
    pub fn aux(&mut self, name: &[u8], value: &[u8]) {
        self.out.push(AUX);
        self.string(name);
        self.string(value);
    }

    /// The keys that follow are in this database.
    pub fn select_db(&mut self, db: Db) {
        self.out.push(SELECT_DB);
        self.len(u64::from(db.0));
    }

    /// A library of functions.
    pub fn function(&mut self, code: &[u8]) {
        self.out.push(FUNCTION);
        self.string(code);
    }

    /// A key, called `name`, with what `head` says of it; its body follows by [`Self::copy`].
    pub fn key(&mut self, head: &KeyHead, name: &[u8]) {
        match head.expire_at_ms {
            Some(at_ms) if self.version >= MILLISECONDS => {
                self.out.push(EXPIRE_MS);
                self.out.extend_from_slice(&at_ms.to_le_bytes());
            }
            Some(at_ms) => {
                let seconds = i32::try_from(at_ms.div_euclid(1000)).unwrap_or(i32::MAX);
                self.out.push(EXPIRE_SECONDS);
                self.out.extend_from_slice(&seconds.to_le_bytes());
            }
            None => {}
        }
        if let Some(seconds) = head.idle_seconds {
            self.out.push(IDLE);
            self.len(seconds);
        }
        if let Some(freq) = head.freq {
            self.out.extend_from_slice(&[FREQ, freq]);
        }
        if let Some(meta) = &head.meta {
            self.out.push(KEY_META);
            self.out.extend_from_slice(meta);
        }
        self.out.push(head.type_id);
        self.string(name);
    }

    /// Bytes of another file as they stand there: a body, or an opcode with its own.
    pub fn copy(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// How many bytes wait to be taken.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.out.len()
    }

    /// Takes what was written since the last time.
    pub fn take(&mut self) -> Vec<u8> {
        self.sum = crc64(self.sum, &self.out);
        std::mem::take(&mut self.out)
    }

    /// The last bytes: the end of the file with its checksum.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.out.push(EOF);
        let mut out = self.take();
        if self.version >= CHECKSUM {
            out.extend_from_slice(&self.sum.to_le_bytes());
        }
        out
    }

    fn string(&mut self, bytes: &[u8]) {
        self.len(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// A number in the shortest of its four forms.
    fn len(&mut self, len: u64) {
        match (u8::try_from(len), u16::try_from(len), u32::try_from(len)) {
            (Ok(short), ..) if short < 1 << 6 => self.out.push(short),
            (_, Ok(short), _) if short < 1 << 14 => {
                self.out.extend_from_slice(&(short | 0x4000).to_be_bytes());
            }
            (.., Ok(long)) => {
                self.out.push(0x80);
                self.out.extend_from_slice(&long.to_be_bytes());
            }
            _ => {
                self.out.push(0x81);
                self.out.extend_from_slice(&len.to_be_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{Decoder, Encoding, Event, Kind, Limits, Poll, Want};

    fn head(expire_at_ms: Option<i64>) -> KeyHead {
        KeyHead {
            db: Db(0),
            key: Bytes::new(),
            type_id: 0,
            kind: Kind::String,
            encoding: Encoding::Plain,
            expire_at_ms,
            idle_seconds: Some(70_000),
            freq: None,
            meta: None,
            at: 0,
        }
    }

    fn read(file: Vec<u8>) -> Vec<Event> {
        let mut decoder = Decoder::new(Limits::default());
        decoder.feed(file.into());
        let mut events = Vec::new();
        loop {
            match decoder.poll().unwrap() {
                Poll::Event(event) => {
                    if matches!(event, Event::Key(_)) {
                        decoder.want(Want::Elements);
                    }
                    events.push(event);
                }
                Poll::End => return events,
                Poll::NeedMore => panic!("cut short after {events:?}"),
            }
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for (dialect, version) in [
            (Dialect::Redis, 2),
            (Dialect::Redis, 4),
            (Dialect::Redis, 9),
            (Dialect::Redis, 12),
            (Dialect::Valkey, 80),
        ] {
            let mut file = Writer::new(dialect, RdbVersion(version));
            let mut bytes = Vec::new();
            for len in [0, 63, 64, 16_383, 16_384, 70_000] {
                file.select_db(Db(len));
                file.key(&head(Some(5_000)), &vec![b'k'; len as usize]);
                file.copy(b"\x03abc");
                bytes.extend(file.take());
            }
            bytes.extend(file.finish());
            let events = read(bytes);
            let keys: Vec<_> = events
                .iter()
                .filter_map(|event| match event {
                    Event::Key(head) => Some(head),
                    _ => None,
                })
                .collect();
            assert_eq!(keys.len(), 6);
            for key in keys {
                assert_eq!(key.db.0 as usize, key.key.len());
                assert_eq!(key.expire_at_ms, Some(5_000));
                assert_eq!(key.idle_seconds, Some(70_000));
            }
            let strings = events
                .iter()
                .filter(|event| matches!(event, Event::String(text) if text == "abc"));
            assert_eq!(strings.count(), 6);
        }
    }

    #[test]
    fn notes_and_functions() {
        let mut file = Writer::new(Dialect::Redis, RdbVersion(11));
        file.aux(b"redis-ver", b"7.2.0");
        file.function(b"#!lua name=l\n");
        let events = read(file.finish());
        let is_there = |wanted: &dyn Fn(&Event) -> bool| events.iter().any(wanted);
        assert!(is_there(
            &|event| matches!(event, Event::Aux { name, .. } if name == "redis-ver")
        ));
        assert!(is_there(
            &|event| matches!(event, Event::Function { code } if code.starts_with(b"#!lua"))
        ));
    }
}
