//! The groups that commands are documented in, by RedisShake's names for them.

use std::str::FromStr;

macro_rules! groups {
    ($($(#[$doc:meta])* $group:ident = $name:literal,)*) => {
        /// A group of commands.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Group {
            $($(#[$doc])* $group,)*
        }

        impl Group {
            /// Every group.
            pub const ALL: &'static [Self] = &[$(Self::$group),*];

            /// The name used in filters, in capitals.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$group => $name,)*
                }
            }
        }
    };
}

groups! {
    /// Servers.
    Server = "SERVER",
    /// Strings.
    String = "STRING",
    /// Redis Cluster.
    Cluster = "CLUSTER",
    /// Connections.
    Connection = "CONNECTION",
    /// Bits of strings.
    Bitmap = "BITMAP",
    /// Lists.
    List = "LIST",
    /// Sorted sets.
    SortedSet = "SORTED_SET",
    /// Keys of any kind.
    Generic = "GENERIC",
    /// Transactions.
    Transactions = "TRANSACTIONS",
    /// Scripts and functions.
    Scripting = "SCRIPTING",
    /// Tair's hashes.
    TairHash = "TAIRHASH",
    /// Tair's strings.
    TairString = "TAIRSTRING",
    /// Tair's sorted sets.
    TairZset = "TAIRZSET",
    /// Places on the earth.
    Geo = "GEO",
    /// Hashes.
    Hash = "HASH",
    /// HyperLogLogs.
    HyperLogLog = "HYPERLOGLOG",
    /// Channels.
    PubSub = "PUBSUB",
    /// Sets.
    Set = "SET",
    /// Sentinel.
    Sentinel = "SENTINEL",
    /// Streams.
    Stream = "STREAM",
    /// Arrays (Redis 8.8).
    Array = "ARRAY",
    /// Modules.
    Module = "MODULE",
}

impl Group {
    /// The group of a command that no table knows, by the names that Tair's modules use; any other is a module's.
    pub fn of_unknown(name: &[u8]) -> Self {
        let starts = |prefix: &[u8]| {
            name.get(..prefix.len())
                .is_some_and(|head| head.eq_ignore_ascii_case(prefix))
        };
        if starts(b"exh") {
            Self::TairHash
        } else if starts(b"exz") {
            Self::TairZset
        } else if starts(b"ex")
            || name.eq_ignore_ascii_case(b"cas")
            || name.eq_ignore_ascii_case(b"cad")
        {
            Self::TairString
        } else {
            Self::Module
        }
    }
}

/// No group has this name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnknownGroup(pub String);

impl std::fmt::Display for UnknownGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> = Group::ALL.iter().map(|group| group.name()).collect();
        write!(
            f,
            "no command group {:?}; there are {}",
            self.0,
            names.join(", ")
        )
    }
}

impl std::error::Error for UnknownGroup {}

impl FromStr for Group {
    type Err = UnknownGroup;

    fn from_str(name: &str) -> Result<Self, UnknownGroup> {
        let named = |group: &&Self| group.name().eq_ignore_ascii_case(name);
        Self::ALL
            .iter()
            .find(named)
            .copied()
            .ok_or_else(|| UnknownGroup(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_groups() {
        for group in Group::ALL {
            assert_eq!(group.name().parse(), Ok(*group));
        }
        assert_eq!("sorted_set".parse(), Ok(Group::SortedSet));
        assert!(
            "LISTS"
                .parse::<Group>()
                .unwrap_err()
                .to_string()
                .contains("LISTS")
        );
    }

    #[test]
    fn commands_of_tair_have_groups() {
        assert_eq!(Group::of_unknown(b"EXHSET"), Group::TairHash);
        assert_eq!(Group::of_unknown(b"exzadd"), Group::TairZset);
        assert_eq!(Group::of_unknown(b"EXSET"), Group::TairString);
        assert_eq!(Group::of_unknown(b"JSON.SET"), Group::Module);
    }
}
