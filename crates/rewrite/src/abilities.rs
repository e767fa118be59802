//! What a target can take: by its name and version, to be corrected by what probing it has shown.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// A server's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u16,
    /// The second number.
    pub minor: u16,
    /// The third number.
    pub patch: u16,
}

impl Version {
    /// A version of three numbers.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self {
            major,
            minor,
            patch,
        }
    }

    const fn below(self, major: u16, minor: u16) -> bool {
        self.major < major || (self.major == major && self.minor < minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Not a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadVersion(pub String);

impl fmt::Display for BadVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a version (three numbers with dots between)",
            self.0
        )
    }
}

impl std::error::Error for BadVersion {}

impl FromStr for Version {
    type Err = BadVersion;

    /// `8.0`, `7.4.1`, `8.0.0-rc1`: missing numbers are zero, what follows the digits of a number is passed over.
    fn from_str(text: &str) -> Result<Self, BadVersion> {
        let bad = || BadVersion(text.into());
        let number = |part: &str| {
            let digits = part.len() - part.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            part.get(..digits)
                .unwrap_or_default()
                .parse::<u16>()
                .map_err(|_| bad())
        };
        let mut parts = text.trim().split('.').take(3).map(number);
        let major = parts.next().ok_or_else(bad)??;
        let minor = parts.next().transpose()?.unwrap_or(0);
        Ok(Self {
            major,
            minor,
            patch: parts.next().transpose()?.unwrap_or(0),
        })
    }
}

/// The two families, which parted after Redis 7.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fork {
    /// Redis.
    Redis,
    /// Valkey.
    Valkey,
}

/// What a target can take. All fields may be set by hand: a managed service may have more or less than its version says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// Its family.
    pub fork: Fork,
    /// Its version.
    pub version: Version,
    /// The newest shared RDB version that `RESTORE` takes (11 at most for Valkey).
    pub rdb_version_max: u16,
    /// `RESTORE` wants exactly that version (before 4.0).
    pub rdb_version_exact: bool,
    /// It has `RESTORE` at all.
    pub restore: bool,
    /// `RESTORE ... REPLACE` (3.0).
    pub restore_replace: bool,
    /// `RESTORE ... ABSTTL` (5.0).
    pub restore_absttl: bool,
    /// `RESTORE ... IDLETIME | FREQ` (5.0).
    pub restore_idle_freq: bool,
    /// `SET ... PXAT` (6.2).
    pub set_pxat: bool,
    /// `SET ... KEEPTTL` (6.0).
    pub set_keepttl: bool,
    /// `UNLINK` (4.0).
    pub unlink: bool,
    /// `HSET` of several fields (4.0).
    pub hset_variadic: bool,
    /// `ZADD NX | XX | CH | INCR` (3.0.2).
    pub zadd_options: bool,
    /// `ZPOPMIN`, `ZPOPMAX` (5.0).
    pub zset_pops: bool,
    /// The words that came with 6.2: `ZADD GT | LT`, `LPOP` and `RPOP` with a count, `LMOVE`, `COPY`, `XADD NOMKSTREAM`,
    /// `XADD` and `XTRIM` with `MINID` and `LIMIT`, `FLUSHALL SYNC`.
    pub words_of_6_2: bool,
    /// Functions (7.0).
    pub functions: bool,
    /// Fields of hashes with a TTL (Redis 7.4, Valkey 9.0).
    pub hash_field_ttl: bool,
    /// Streams (5.0).
    pub streams: bool,
    /// `XGROUP CREATECONSUMER` (6.2).
    pub stream_consumers: bool,
    /// `XSETID ... ENTRIESADDED`, `XGROUP CREATE ... ENTRIESREAD` (7.0).
    pub stream_counters: bool,
    /// `XCFGSET`, `XIDMPRECORD` (Redis 8.6.2).
    pub stream_idempotence: bool,
    /// `XNACK` (Redis 8.8).
    pub stream_returns: bool,
    /// `KEEPREF`, `DELREF`, `ACKED` of `XADD` and `XTRIM`, `BITOP DIFF` and its kin (Redis 8.2).
    pub words_of_8_2: bool,
    /// Arrays (Redis 8.8).
    pub arrays: bool,
    /// The names of its commands in lower case, if it has told them. Without them every command is taken for known.
    pub commands: Option<Arc<BTreeSet<String>>>,
    /// Names, in lower case, of commands that are never sent there, whatever it says of itself.
    pub never: &'static [&'static str],
    /// The longest argument it takes (`proto-max-bulk-len`).
    pub bulk_bytes_max: u64,
    /// The most arguments in one command (3,999 on ElastiCache Serverless).
    pub args_max: u64,
    /// How many databases it has, where it has told.
    pub databases: Option<u32>,
}

impl Abilities {
    /// What a server of this family and version can take.
    pub fn from_version(fork: Fork, version: Version) -> Self {
        let older = |major, minor| match fork {
            Fork::Redis => version.below(major, minor),
            Fork::Valkey => false,
        };
        Self {
            fork,
            version,
            rdb_version_max: rdb_version_max(fork, version),
            rdb_version_exact: older(4, 0),
            restore: !older(2, 6),
            restore_replace: !older(3, 0),
            restore_absttl: !older(5, 0),
            restore_idle_freq: !older(5, 0),
            set_pxat: !older(6, 2),
            set_keepttl: !older(6, 0),
            unlink: !older(4, 0),
            hset_variadic: !older(4, 0),
            zadd_options: !older(3, 0),
            zset_pops: !older(5, 0),
            words_of_6_2: !older(6, 2),
            functions: !older(7, 0),
            hash_field_ttl: match fork {
                Fork::Redis => !version.below(7, 4),
                Fork::Valkey => !version.below(9, 0),
            },
            streams: !older(5, 0),
            stream_consumers: !older(6, 2),
            stream_counters: !older(7, 0),
            stream_idempotence: fork == Fork::Redis && version >= Version::new(8, 6, 2),
            stream_returns: fork == Fork::Redis && !version.below(8, 8),
            words_of_8_2: fork == Fork::Redis && !version.below(8, 2),
            arrays: fork == Fork::Redis && !version.below(8, 8),
            commands: None,
            never: &[],
            bulk_bytes_max: 512 << 20,
            args_max: 1 << 20,
            databases: None,
        }
    }

    /// Whether it has a command of this name, in whatever case it is written; true if it has not told its commands.
    pub fn has_command(&self, name: &[u8]) -> bool {
        if self.commands.is_none() && self.never.is_empty() {
            return true;
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let has = |commands: &Arc<BTreeSet<String>>| commands.contains(&name);
        self.commands.as_ref().is_none_or(has) && !self.never.contains(&&*name)
    }

    /// The version to stamp on a payload whose value has this type, or `None` if the target does not know the type.
    /// `valkey` says which family the type number belongs to: 22 has two meanings.
    pub fn payload_version(&self, type_id: u8, valkey: bool) -> Option<u16> {
        if !self.restore {
            return None;
        }
        let since = match (type_id, valkey) {
            (0..=4 | 9..=13, _) => 6,
            (14, _) => 7,
            (5 | 7, _) => 8,
            (15, _) => 9,
            (16..=19, _) => 10,
            (20 | 21, _) => 11,
            (22, true) => {
                return (self.fork == Fork::Valkey && !self.version.below(9, 0)).then_some(80);
            }
            (22..=25, false) => 12,
            (26, false) => 13,
            (27 | 28, false) => 14,
            (29 | 31, false) => 15,
            _ => return None,
        };
        if since > self.rdb_version_max || (since > 11 && self.fork == Fork::Valkey) {
            return None;
        }
        Some(if self.rdb_version_exact || since > 11 {
            self.rdb_version_max
        } else {
            self.rdb_version_max.min(11)
        })
    }

    /// The type and version under which the target takes a stream of this type, if it takes any.
    pub(crate) fn stream_as(&self, type_id: u8) -> Option<(u8, u16)> {
        let mut older = crate::streams::TYPES
            .into_iter()
            .filter(|older| *older <= type_id);
        older.find_map(|older| Some((older, self.payload_version(older, false)?)))
    }
}

const fn rdb_version_max(fork: Fork, version: Version) -> u16 {
    if matches!(fork, Fork::Valkey) {
        return 11;
    }
    match (version.major, version.minor) {
        (0..=2, _) | (3, 0..=1) => 6,
        (3, _) => 7,
        (4, _) => 8,
        (5 | 6, _) => 9,
        (7, 0..=1) => 10,
        (7, 2..=3) => 11,
        (7, _) | (8, 0..=5) => 12,
        (8, 6..=7) => 13,
        (8, 8..=9) => 14,
        (8.., _) => 15,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redis(text: &str) -> Abilities {
        Abilities::from_version(Fork::Redis, text.parse().unwrap())
    }

    #[test]
    fn versions_are_read() {
        assert_eq!("7.4.1".parse(), Ok(Version::new(7, 4, 1)));
        assert_eq!("8.0.0-rc1".parse(), Ok(Version::new(8, 0, 0)));
        assert_eq!("6".parse(), Ok(Version::new(6, 0, 0)));
        for bad in ["", "x", "7.x", "7.", "99999.0"] {
            assert_eq!(bad.parse::<Version>(), Err(BadVersion(bad.into())));
        }
    }

    /// The table of rdb-format: the highest type each target loads, and what its payloads are stamped with.
    #[test]
    fn types_by_target() {
        let rows = [
            ("2.8.17", 13, 6),
            ("3.2.6", 14, 7),
            ("4.0.0", 14, 8),
            ("6.2.14", 15, 9),
            ("7.0.15", 19, 10),
            ("7.2.4", 21, 11),
            ("8.0.6", 25, 12),
            ("8.6.3", 26, 13),
            ("8.8.0", 28, 14),
            ("8.10.2", 29, 15),
        ];
        for (version, type_max, stamp) in rows {
            let target = redis(version);
            for type_id in 9..=29 {
                let expected = (type_id <= type_max).then_some(if type_id > 21 {
                    stamp
                } else {
                    stamp.min(11)
                });
                assert_eq!(
                    target.payload_version(type_id, false),
                    expected,
                    "{version} {type_id}"
                );
            }
        }
        assert_eq!(redis("3.0.5").payload_version(5, false), None);
        assert_eq!(redis("8.10.2").payload_version(30, false), None);
        assert_eq!(redis("8.10.2").payload_version(22, true), None);
    }

    #[test]
    fn valkey_has_a_type_22_of_its_own() {
        let valkey = |text: &str| Abilities::from_version(Fork::Valkey, text.parse().unwrap());
        assert_eq!(valkey("9.1.2").payload_version(22, true), Some(80));
        assert_eq!(valkey("9.1.2").payload_version(22, false), None);
        assert_eq!(valkey("8.1.1").payload_version(22, true), None);
        assert_eq!(valkey("8.1.1").payload_version(21, true), Some(11));
        assert!(valkey("9.0.0").hash_field_ttl && !valkey("8.1.1").hash_field_ttl);
    }

    #[test]
    fn abilities_by_version() {
        assert!(
            redis("6.2.0").set_pxat && !redis("6.0.16").set_pxat && redis("6.0.16").set_keepttl
        );
        assert!(redis("7.4.0").hash_field_ttl && !redis("7.2.0").hash_field_ttl);
        assert!(!redis("2.8.17").restore_replace && redis("3.0.5").restore_replace);
        assert!(redis("3.2.6").rdb_version_exact && !redis("4.0.0").rdb_version_exact);
        assert!(redis("8.6.2").stream_idempotence && !redis("8.6.1").stream_idempotence);
        assert!(redis("5.0.14").streams && !redis("4.0.14").streams);
    }
}
