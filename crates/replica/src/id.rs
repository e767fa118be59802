//! The two halves of a replication position: which history, and how far into it.

use std::{fmt, str::FromStr};

/// The id of a replication history: 40 characters a master makes up when its history begins.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplId([u8; Self::LEN]);

impl ReplId {
    /// Redis's `CONFIG_RUN_ID_SIZE`.
    pub const LEN: usize = 40;

    /// The id in these bytes: 40 letters or digits. Redis writes hexadecimal digits and never
    /// checks for them, so neither do we.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let id: [u8; Self::LEN] = bytes.try_into().ok()?;
        id.iter().all(u8::is_ascii_alphanumeric).then_some(Self(id))
    }

    /// The 40 characters.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; Self::LEN] {
        &self.0
    }
}

impl FromStr for ReplId {
    type Err = InvalidReplId;

    fn from_str(text: &str) -> Result<Self, InvalidReplId> {
        Self::from_bytes(text.as_bytes()).ok_or(InvalidReplId)
    }
}

impl fmt::Display for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            fmt::Write::write_char(f, char::from(byte))?;
        }
        Ok(())
    }
}

impl fmt::Debug for ReplId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplId({self})")
    }
}

/// A text that is no replication id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a replication id is 40 letters or digits")]
pub struct InvalidReplId;

/// How many bytes of a history's command stream there are up to and including a point: the offset
/// of that point's last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ReplOffset(pub u64);

impl ReplOffset {
    /// The offset `bytes` further on.
    pub(crate) fn after(self, bytes: usize) -> Self {
        Self(self.0.saturating_add(bytes as u64))
    }

    /// The offset `bytes` earlier.
    pub(crate) fn before(self, bytes: usize) -> Self {
        Self(self.0.saturating_sub(bytes as u64))
    }
}

impl fmt::Display for ReplOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_forty_letters_or_digits() {
        let text = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(text.parse::<ReplId>().unwrap().to_string(), text);
        assert_eq!("".parse::<ReplId>(), Err(InvalidReplId));
        assert_eq!(text[1..].parse::<ReplId>(), Err(InvalidReplId));
        assert_eq!(format!("{text}0").parse::<ReplId>(), Err(InvalidReplId));
        assert_eq!(text.replace('0', "|").parse::<ReplId>(), Err(InvalidReplId));
    }
}
