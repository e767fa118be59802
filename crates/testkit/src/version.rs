//! What a server is and since when it can do what.

use std::fmt;

/// Who makes the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
    /// Redict, parted from Redis at 7.2.
    Redict,
}

/// A server's family and version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Who makes it.
    pub family: Family,
    /// 7 of 7.0.15.
    pub major: u32,
    /// 0 of 7.0.15.
    pub minor: u32,
    /// 15 of 7.0.15.
    pub patch: u32,
}

impl Version {
    /// Out of the family's name in small letters and a text like `7.0.15`.
    pub fn parse(family: &str, text: &str) -> Option<Self> {
        let family = match family {
            "redis" => Family::Redis,
            "valkey" => Family::Valkey,
            "redict" => Family::Redict,
            _ => return None,
        };
        let mut numbers = text.split('.').map(|part| part.parse().ok());
        let mut number = || numbers.next().unwrap_or(Some(0));
        Some(Self {
            family,
            major: number()?,
            minor: number()?,
            patch: number()?,
        })
    }

    /// At least this Redis. Valkey and Redict stand at the 7.2 that they came from.
    pub fn redis(&self, major: u32, minor: u32) -> bool {
        let own = match self.family {
            Family::Redis => (self.major, self.minor),
            Family::Valkey | Family::Redict => (7, 2),
        };
        own >= (major, minor)
    }

    /// At least this version of Redis itself.
    pub fn is_redis(&self, major: u32, minor: u32) -> bool {
        self.family == Family::Redis && self.redis(major, minor)
    }

    /// At least this Valkey; never true of the others.
    pub fn valkey(&self, major: u32, minor: u32) -> bool {
        self.family == Family::Valkey && (self.major, self.minor) >= (major, minor)
    }

    /// HEXPIRE and its kin.
    pub fn has_field_ttl(&self) -> bool {
        self.redis(7, 4) || self.valkey(9, 0)
    }

    /// FUNCTION, and with it PEXPIRETIME and `--enable-debug-command`.
    pub fn has_functions(&self) -> bool {
        self.redis(7, 0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} {}.{}.{}",
            self.family, self.major, self.minor, self.patch
        )
    }
}
