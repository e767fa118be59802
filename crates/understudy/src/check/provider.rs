//! Whose service a server is, by its name and what it says of itself, and what can be done there where PSYNC or CONFIG are
//! refused.

use crate::client::Info;

/// Who runs a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provider {
    ElastiCache,
    ElastiCacheServerless,
    MemoryDb,
    RedisCloud,
    Azure,
    Memorystore,
    Upstash,
    Alibaba,
    Tencent,
    Huawei,
    Oracle,
    Aiven,
    DigitalOcean,
    /// Nobody that is known: a server of one's own, mostly.
    Own,
}

/// Ends of host names.
const HOSTS: &[(&str, Provider)] = &[
    (".cache.amazonaws.com", Provider::ElastiCache),
    (".cache.amazonaws.com.cn", Provider::ElastiCache),
    (".redis-cloud.com", Provider::RedisCloud),
    (".redislabs.com", Provider::RedisCloud),
    (".redis.cache.windows.net", Provider::Azure),
    (".redis.azure.net", Provider::Azure),
    (".memorystore.google", Provider::Memorystore),
    (".upstash.io", Provider::Upstash),
    (".rds.aliyuncs.com", Provider::Alibaba),
    (".kvstore.aliyuncs.com", Provider::Alibaba),
    (".tencentcdb.com", Provider::Tencent),
    (".myhuaweicloud.com", Provider::Huawei),
    (".oraclecloud.com", Provider::Oracle),
    (".aivencloud.com", Provider::Aiven),
    (".db.ondigitalocean.com", Provider::DigitalOcean),
];

/// Who runs the server at `host`, which said this in INFO.
pub(crate) fn provider(host: &str, info: &Info) -> Provider {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let by_name = HOSTS.iter().find(|(end, _)| host.ends_with(end));
    let says = |field: &str, word: &str| info.get(field).is_some_and(|text| text.contains(word));
    match by_name {
        Some((_, Provider::ElastiCache)) if host.contains(".serverless.") => {
            Provider::ElastiCacheServerless
        }
        Some((_, provider)) => *provider,
        None if host.contains(".memorydb.") => Provider::MemoryDb,
        None if says("os", "ElastiCache") => Provider::ElastiCache,
        None if says("os", "MemoryDB") => Provider::MemoryDb,
        None => Provider::Own,
    }
}

const NO_PSYNC: &str =
    "sync reads it by SCAN and keyspace events instead (docs/scan.md says what that promises)";

impl Provider {
    /// Its name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::ElastiCache => "Amazon ElastiCache",
            Self::ElastiCacheServerless => "Amazon ElastiCache Serverless",
            Self::MemoryDb => "Amazon MemoryDB",
            Self::RedisCloud => "Redis Cloud",
            Self::Azure => "Azure",
            Self::Memorystore => "Google Memorystore",
            Self::Upstash => "Upstash",
            Self::Alibaba => "Alibaba Cloud",
            Self::Tencent => "Tencent Cloud",
            Self::Huawei => "Huawei Cloud",
            Self::Oracle => "Oracle Cloud",
            Self::Aiven => "Aiven",
            Self::DigitalOcean => "DigitalOcean",
            Self::Own => "your own",
        }
    }

    /// What to do where the source does not know PSYNC.
    pub(crate) fn psync_mend(self) -> String {
        match self {
            Self::ElastiCache => "ElastiCache renames PSYNC: ask AWS Support for the renamed command of each node (a support ticket for online migration out of ElastiCache) and set sync_reader.psync_command".to_owned(),
            Self::ElastiCacheServerless => format!("ElastiCache Serverless never offers PSYNC; {NO_PSYNC}"),
            Self::MemoryDb => format!("MemoryDB never offers PSYNC; {NO_PSYNC}"),
            Self::RedisCloud => format!("Redis Cloud never offers PSYNC to clients; {NO_PSYNC}"),
            Self::Azure => format!("Azure blocks PSYNC and REPLCONF; {NO_PSYNC}"),
            Self::Memorystore => format!("Memorystore does not offer PSYNC; {NO_PSYNC}"),
            Self::Upstash => format!("Upstash is not a Redis inside and has no PSYNC; {NO_PSYNC}"),
            Self::Alibaba => "Alibaba Cloud offers PSYNC to an account with replication permission, by the direct address (not in proxy mode, not with read/write splitting): create one in the console, and set sync_reader.username and password".to_owned(),
            Self::Tencent => "Tencent Cloud enables PSYNC by a ticket: ask for it".to_owned(),
            Self::Huawei => "Huawei's DCS enables PSYNC by a ticket: ask for it; GeminiDB never does".to_owned(),
            Self::Oracle => format!("OCI Cache blocks PSYNC; {NO_PSYNC}"),
            Self::Aiven => format!("Aiven does not offer PSYNC to clients; {NO_PSYNC}"),
            Self::DigitalOcean => format!("DigitalOcean does not offer PSYNC to clients; {NO_PSYNC}"),
            Self::Own => "if rename-command has renamed it, take that out of its configuration and start it anew (a server that is not changed for it answers a renamed PSYNC as SYNC); if a proxy stands in between, give the server's own address; a service that has given you another name for it: sync_reader.psync_command".to_owned(),
        }
    }

    /// How a parameter of the server is set there.
    pub(crate) fn set(self, name: &str, value: &str) -> String {
        match self {
            Self::ElastiCache | Self::MemoryDb => {
                format!("set {name} to {value} in a parameter group of your own")
            }
            Self::ElastiCacheServerless => {
                format!("{name} cannot be set at ElastiCache Serverless")
            }
            Self::Own => format!("CONFIG SET {name} \"{value}\""),
            _ => format!("set {name} to {value} in the console of {}", self.name()),
        }
    }
}

impl Provider {
    /// How a server there is made to send keyspace events.
    pub(crate) fn set_events(self) -> String {
        const GROUP: &str = "--parameter-name-values ParameterName=notify-keyspace-events,ParameterValue=KEA (GROUP: a parameter group of your own, as a default one cannot be changed; it is in force at once)";
        match self {
            Self::ElastiCache => format!(
                "aws elasticache modify-cache-parameter-group --cache-parameter-group-name GROUP {GROUP}"
            ),
            Self::MemoryDb => {
                format!("aws memorydb update-parameter-group --parameter-group-name GROUP {GROUP}")
            }
            Self::ElastiCacheServerless => "ElastiCache Serverless sends no keyspace events, and nothing can be set there: changes are found by sweeps alone".to_owned(),
            Self::Azure => "az redis update --name NAME --resource-group GROUP --set redisConfiguration.notify-keyspace-events=KEA (in the portal: Advanced settings)".to_owned(),
            Self::Memorystore => "gcloud redis instances update INSTANCE --region REGION --update-redis-config notify-keyspace-events=KEA".to_owned(),
            Self::Aiven => "avn service update NAME -c redis_notify_keyspace_events=KEA (of a Valkey service: valkey_notify_keyspace_events)".to_owned(),
            Self::DigitalOcean => "doctl databases configuration update ID --engine redis --config-json '{\"redis_notify_keyspace_events\":\"KEA\"}' (of a Valkey cluster: --engine valkey, valkey_notify_keyspace_events)".to_owned(),
            Self::Oracle => "set notify-keyspace-events to KEA in a custom OCI Cache configuration, and give that to the cluster".to_owned(),
            Self::Alibaba | Self::Tencent | Self::Huawei => {
                format!("set notify-keyspace-events to KEA among the parameters of the instance, in the console of {}", self.name())
            }
            // Both take this parameter by CONFIG SET.
            Self::RedisCloud | Self::Upstash | Self::Own => {
                "CONFIG SET notify-keyspace-events \"KEA\"".to_owned()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_known_by_name_or_by_what_they_say() {
        let says = |host: &str, info: &str| provider(host, &Info::of(info.as_bytes()));
        let cases = [
            ("x.abc.0001.use1.cache.amazonaws.com", Provider::ElastiCache),
            (
                "x.serverless.use1.cache.amazonaws.com",
                Provider::ElastiCacheServerless,
            ),
            (
                "clustercfg.x.abc.memorydb.us-east-1.amazonaws.com",
                Provider::MemoryDb,
            ),
            (
                "redis-1.c1.us-east-1-2.ec2.redns.redis-cloud.com",
                Provider::RedisCloud,
            ),
            ("x.REDIS.cache.windows.net", Provider::Azure),
            ("r-bp1.redis.rds.aliyuncs.com", Provider::Alibaba),
            ("a.upstash.io.", Provider::Upstash),
            ("10.0.0.1", Provider::Own),
        ];
        for (host, expected) in cases {
            assert_eq!(says(host, ""), expected, "{host}");
        }
        assert_eq!(
            says("10.0.0.1", "os:Amazon ElastiCache\r\n"),
            Provider::ElastiCache
        );
    }

    #[test]
    fn every_provider_has_its_mend() {
        assert!(
            Provider::ElastiCache
                .psync_mend()
                .contains("sync_reader.psync_command")
        );
        assert!(
            Provider::Alibaba
                .psync_mend()
                .contains("replication permission")
        );
        assert!(
            Provider::ElastiCacheServerless
                .psync_mend()
                .contains("never offers PSYNC")
        );
        assert_eq!(
            Provider::Own.set("repl-backlog-size", "256mb"),
            "CONFIG SET repl-backlog-size \"256mb\""
        );
        for (provider, says) in [
            (
                Provider::ElastiCache,
                "aws elasticache modify-cache-parameter-group",
            ),
            (Provider::MemoryDb, "aws memorydb update-parameter-group"),
            (Provider::ElastiCacheServerless, "sweeps alone"),
            (Provider::Azure, "az redis update"),
            (Provider::Memorystore, "gcloud redis instances update"),
            (Provider::Aiven, "avn service update"),
            (Provider::DigitalOcean, "doctl databases"),
            (Provider::Alibaba, "console of Alibaba Cloud"),
            (Provider::RedisCloud, "CONFIG SET notify-keyspace-events"),
        ] {
            let mend = provider.set_events();
            assert!(mend.contains(says), "{mend}");
            assert_eq!(
                mend.contains("KEA"),
                provider != Provider::ElastiCacheServerless
            );
        }
        assert!(
            Provider::ElastiCache
                .set("a", "b")
                .contains("parameter group")
        );
    }
}
