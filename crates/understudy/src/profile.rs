//! What kind of target it is: what is never sent there, and what is known of it that it does not tell.

use rewrite::Abilities;

/// Kinds of targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Found out when it is looked at.
    Auto,
    /// A Redis or Valkey of one's own.
    Redis,
    /// Nodes of ElastiCache.
    ElastiCache,
    /// ElastiCache Serverless.
    Serverless,
}

/// The most words in one command at ElastiCache Serverless.
const SERVERLESS_ARGS_MAX: u64 = 3_999;

/// Commands that administer a server: a service does that itself.
const NEVER_AT_ELASTICACHE: &[&str] = &[
    "bgrewriteaof",
    "bgsave",
    "config",
    "debug",
    "migrate",
    "psync",
    "replicaof",
    "save",
    "shutdown",
    "slaveof",
    "sync",
];

/// And these, where there is no server at all that one could see.
const NEVER_AT_SERVERLESS: &[&str] = &[
    "acl",
    "bgrewriteaof",
    "bgsave",
    "client",
    "config",
    "debug",
    "fcall",
    "fcall_ro",
    "function",
    "keys",
    "latency",
    "memory",
    "migrate",
    "monitor",
    "move",
    "object",
    "psubscribe",
    "psync",
    "punsubscribe",
    "replicaof",
    "save",
    "shutdown",
    "slaveof",
    "slowlog",
    "swapdb",
    "sync",
    "wait",
    "waitaof",
];

impl Profile {
    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Redis => "redis",
            Self::ElastiCache => "elasticache",
            Self::Serverless => "elasticache-serverless",
        }
    }

    /// The profile of a name of the configuration.
    pub(crate) fn of(name: &str) -> Self {
        let all = [Self::Redis, Self::ElastiCache, Self::Serverless];
        let named = all.into_iter().find(|profile| profile.name() == name);
        named.unwrap_or(Self::Auto)
    }

    /// What it comes to, by the target's host and what INFO says of the system.
    pub(crate) fn found(self, host: &str, os: Option<&str>) -> Self {
        let host = host.to_ascii_lowercase();
        let is_aws =
            host.ends_with(".cache.amazonaws.com") || host.ends_with(".cache.amazonaws.com.cn");
        match self {
            Self::Auto if is_aws && host.contains(".serverless.") => Self::Serverless,
            Self::Auto if is_aws || os.is_some_and(|os| os.contains("ElastiCache")) => {
                Self::ElastiCache
            }
            Self::Auto => Self::Redis,
            known => known,
        }
    }

    /// Commands that are never sent.
    pub const fn never(self) -> &'static [&'static str] {
        match self {
            Self::Auto | Self::Redis => &[],
            Self::ElastiCache => NEVER_AT_ELASTICACHE,
            Self::Serverless => NEVER_AT_SERVERLESS,
        }
    }

    /// Takes from the abilities that the version has what this kind of target does not.
    pub(crate) fn limit(self, abilities: &mut Abilities) {
        abilities.never = self.never();
        if self == Self::Serverless {
            abilities.functions = false;
            abilities.args_max = abilities.args_max.min(SERVERLESS_ARGS_MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aws_is_known_by_its_names() {
        let found = |host| Profile::Auto.found(host, None);
        assert_eq!(
            found("my-cache-abc123.serverless.use1.cache.amazonaws.com"),
            Profile::Serverless
        );
        assert_eq!(
            found("master.my-group.abc123.use1.cache.amazonaws.com"),
            Profile::ElastiCache
        );
        assert_eq!(found("10.0.0.1"), Profile::Redis);
        let os = Some("Amazon ElastiCache");
        assert_eq!(
            Profile::Auto.found("cache.internal", os),
            Profile::ElastiCache
        );
        assert_eq!(
            Profile::Redis.found("a.cache.amazonaws.com", os),
            Profile::Redis
        );
    }

    #[test]
    fn what_is_never_sent_is_in_order_and_grows() {
        for profile in [Profile::ElastiCache, Profile::Serverless] {
            assert!(profile.never().is_sorted(), "{}", profile.name());
        }
        let more = Profile::Serverless.never();
        assert!(NEVER_AT_ELASTICACHE.iter().all(|name| more.contains(name)));
        assert_eq!(Profile::of("elasticache-serverless"), Profile::Serverless);
    }
}
