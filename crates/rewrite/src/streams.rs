//! Streams for older targets: the same value in an older layout (types 27, 26, 21, 19, 15).
//!
//! ```text
//! stream   = n (node listpack)* length last-id [19: first-id max-deleted-id added] n group* [26: idempotence]
//! group    = name last-id [19: read] n pending* n consumer* [27: n returned*]
//! consumer = name seen [21: active] n id*
//! ```
//!
//! What an older layout has no room for, its server has no use for either, but for two things that somebody may rely on:
//! the record of idempotent production, and messages that consumers gave back.

use crate::body::Body;

const ID_BYTES: usize = 16;
const TIME_BYTES: usize = 8;

/// The type bytes of streams, newest first.
pub(crate) const TYPES: [u8; 5] = [27, 26, 21, 19, 15];

/// The type from which on streams have counters.
pub(crate) const WITH_COUNTERS: u8 = 19;

/// Why a stream cannot be written in an older layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotOlder {
    /// It is not a stream of that type.
    Malformed,
    /// Producers' ids are recorded.
    Idempotence,
    /// Messages were given back.
    Returned,
}

impl NotOlder {
    /// What the target would have to have.
    pub(crate) const fn what(self) -> &'static str {
        match self {
            Self::Malformed => "this very layout of streams",
            Self::Idempotence => "idempotent production to streams (Redis 8.6)",
            Self::Returned => "messages given back to a group (Redis 8.8)",
        }
    }
}

/// Writes the stream in the layout of an older type. `keep` says that the record of idempotent production matters.
pub(crate) fn older(body: &[u8], from: u8, to: u8, keep: bool) -> Result<Vec<u8>, NotOlder> {
    let mut copy = Body::to_copy(body);
    copy.stream(from, to)?;
    if from >= 26 {
        let used = copy.idempotence().ok_or(NotOlder::Malformed)?;
        if used && to < 26 && keep {
            return Err(NotOlder::Idempotence);
        }
        if to >= 26 {
            copy.keep();
        }
    }
    copy.finish().ok_or(NotOlder::Malformed)
}

impl Body<'_> {
    fn stream(&mut self, from: u8, to: u8) -> Result<(), NotOlder> {
        self.nodes().ok_or(NotOlder::Malformed)?;
        self.numbers(3).ok_or(NotOlder::Malformed)?;
        self.keep();
        if from >= 19 {
            self.numbers(5).ok_or(NotOlder::Malformed)?;
            self.keep_if(to >= 19);
        }
        let groups = self.number().ok_or(NotOlder::Malformed)?;
        for _ in 0..groups {
            let returned = self.group(from, to).ok_or(NotOlder::Malformed)?;
            if returned && to < 27 {
                return Err(NotOlder::Returned);
            }
        }
        self.keep();
        Ok(())
    }

    fn nodes(&mut self) -> Option<()> {
        for _ in 0..self.number()? {
            self.text()?;
            self.text()?;
        }
        Some(())
    }

    /// `true`: messages were given back to this group.
    fn group(&mut self, from: u8, to: u8) -> Option<bool> {
        self.text()?;
        self.numbers(2)?;
        self.keep();
        if from >= 19 {
            self.number()?;
            self.keep_if(to >= 19);
        }
        for _ in 0..self.number()? {
            self.bytes(ID_BYTES + TIME_BYTES)?;
            self.number()?;
        }
        for _ in 0..self.number()? {
            self.text()?;
            self.bytes(TIME_BYTES)?;
            self.keep();
            if from >= 21 {
                self.bytes(TIME_BYTES)?;
                self.keep_if(to >= 21);
            }
            self.ids()?;
        }
        self.keep();
        if from < 27 {
            return Some(false);
        }
        let returned = self.ids()?;
        self.keep_if(to >= 27);
        Some(returned > 0)
    }

    /// `true`: producers' ids are recorded.
    fn idempotence(&mut self) -> Option<bool> {
        self.numbers(2)?;
        let producers = self.number()?;
        for _ in 0..producers {
            self.text()?;
            for _ in 0..self.number()? {
                self.text()?;
                self.numbers(2)?;
            }
        }
        self.numbers(2)?;
        Some(producers > 0)
    }

    fn ids(&mut self) -> Option<u64> {
        let count = self.number()?;
        self.bytes(usize::try_from(count).ok()?.checked_mul(ID_BYTES)?)?;
        Some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream with one node, one group, one pending message and two consumers, in the layout of a type.
    fn stream(type_id: u8, returned: u8, producers: &[u8]) -> Vec<u8> {
        let id = [7; ID_BYTES];
        let mut out = b"\x01\x10AAAAAAAAAAAAAAAA\xc3\x03\x20xyz".to_vec();
        let numbers = |out: &mut Vec<u8>, bytes: &[u8]| out.extend_from_slice(bytes);
        numbers(&mut out, b"\x41\x00\x80\x00\x00\x01\x00\x05");
        if type_id >= 19 {
            numbers(&mut out, b"\x01\x02\x03\x04\x05");
        }
        numbers(&mut out, b"\x01\x02g1\x09\x01");
        if type_id >= 19 {
            numbers(&mut out, b"\x81\xff\xff\xff\xff\xff\xff\xff\xff");
        }
        numbers(&mut out, b"\x01");
        out.extend_from_slice(&[&id[..], b"delivery", b"\x02", b"\x02"].concat());
        for (name, ids) in [(&b"\x01c"[..], &id[..]), (b"\xc0\x05", b"")] {
            out.extend_from_slice(&[name, b"seentime"].concat());
            if type_id >= 21 {
                out.extend_from_slice(b"activity");
            }
            out.push(u8::from(!ids.is_empty()));
            out.extend_from_slice(ids);
        }
        if type_id >= 27 {
            out.push(returned);
            out.extend_from_slice(&id.repeat(usize::from(returned)));
        }
        if type_id >= 26 {
            out.extend_from_slice(b"\x40\x64\x40\x64");
            out.extend_from_slice(producers);
        }
        out
    }

    const NONE: &[u8] = b"\x00\x00\x00";
    const ONE: &[u8] = b"\x01\x01p\x01\x01i\x05\x06\x01\x00";

    #[test]
    fn every_type_becomes_every_older_one() {
        for (place, from) in TYPES.iter().enumerate() {
            for to in &TYPES[place..] {
                let made = older(&stream(*from, 0, NONE), *from, *to, true);
                assert_eq!(made, Ok(stream(*to, 0, NONE)), "{from} -> {to}");
            }
        }
    }

    #[test]
    fn what_would_be_lost_is_named() {
        assert_eq!(
            older(&stream(26, 0, ONE), 26, 21, true),
            Err(NotOlder::Idempotence)
        );
        assert_eq!(
            older(&stream(26, 0, ONE), 26, 21, false),
            Ok(stream(21, 0, NONE))
        );
        assert_eq!(
            older(&stream(27, 0, ONE), 27, 26, true),
            Ok(stream(26, 0, ONE))
        );
        assert_eq!(
            older(&stream(27, 2, NONE), 27, 26, false),
            Err(NotOlder::Returned)
        );
    }

    #[test]
    fn every_cut_is_malformed() {
        let body = stream(27, 1, ONE);
        for len in 0..body.len() {
            assert_eq!(
                older(&body[..len], 27, 27, true),
                Err(NotOlder::Malformed),
                "{len}"
            );
        }
        let longer = [&body[..], b"x"].concat();
        assert_eq!(older(&longer, 27, 27, true), Err(NotOlder::Malformed));
        assert_eq!(older(&[0x81; 64], 27, 15, false), Err(NotOlder::Malformed));
    }
}
