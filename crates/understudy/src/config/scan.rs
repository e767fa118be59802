//! The table `[scan_reader]`, and when a source is read as it says.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::Reader;
use super::document::{ConfigError, Document};
use super::key::{Key, Kind, key};

/// Its keys.
pub(super) const KEYS: &[Key] = &[
    key(
        "scan_reader.address",
        Kind::Address,
        r#""""#,
        "The source, host:port, to be read by SCAN from the beginning (in the place of sync_reader.address).",
    ),
    key(
        "scan_reader.username",
        Kind::Text,
        r#""""#,
        "ACL user at the source; empty for the default user.",
    ),
    key(
        "scan_reader.password",
        Kind::Secret,
        r#""""#,
        "Password at the source; empty for none.",
    ),
    key(
        "scan_reader.password_file",
        Kind::Text,
        r#""""#,
        "File with the password at the source, read anew for each connection: a password may be changed while running.",
    ),
    key(
        "scan_reader.password_env",
        Kind::Text,
        r#""""#,
        "Variable of the environment with the password at the source.",
    ),
    key(
        "scan_reader.password_command",
        Kind::Secret,
        r#""""#,
        "Command (for sh) that prints the password at the source, run anew for each connection.",
    ),
    key(
        "scan_reader.reauth_after",
        Kind::Time,
        "0",
        "A connection that has stood for so long says its password again; 0: never, but 11h with iam.",
    ),
    key(
        "scan_reader.iam.cache_name",
        Kind::Text,
        r#""""#,
        "IAM authentication: name of the ElastiCache cache or replication group. AWS credentials come from the standard chain; username is the IAM-enabled user.",
    ),
    key(
        "scan_reader.iam.region",
        Kind::Text,
        r#""""#,
        "Its region; default: AWS_REGION, AWS_DEFAULT_REGION.",
    ),
    key(
        "scan_reader.iam.serverless",
        Kind::Bool,
        "false",
        "It is ElastiCache Serverless.",
    ),
    key(
        "scan_reader.tls",
        Kind::Bool,
        "false",
        "Speak TLS to the source.",
    ),
    key(
        "scan_reader.tls_config.ca_cert",
        Kind::Text,
        r#""""#,
        "PEM file of the CA to trust instead of the system's roots.",
    ),
    key(
        "scan_reader.tls_config.cert",
        Kind::Text,
        r#""""#,
        "PEM file of our certificate, for mutual TLS.",
    ),
    key(
        "scan_reader.tls_config.key",
        Kind::Text,
        r#""""#,
        "PEM file of our private key, for mutual TLS.",
    ),
    key(
        "scan_reader.tls_config.server_name",
        Kind::Text,
        r#""""#,
        "Name to expect in the server's certificate; default: the host of the address.",
    ),
    key(
        "scan_reader.tls_config.insecure",
        Kind::Bool,
        "false",
        "Do not verify the server's certificate.",
    ),
    key(
        "scan_reader.tls_config.min_version",
        Kind::Word(&["1.2", "1.3"]),
        r#""1.2""#,
        "Oldest version of TLS that is spoken.",
    ),
    key(
        "scan_reader.cluster",
        Kind::Bool,
        "false",
        "The source is a Redis Cluster: every primary is read and listened to, and failovers and slots that move are followed.",
    ),
    key(
        "scan_reader.scan",
        Kind::Bool,
        "true",
        "Sweep over all keys; false: only what events name.",
    ),
    key(
        "scan_reader.ksn",
        Kind::Bool,
        "false",
        "Follow by keyspace events and sweeps until asked to stop; the source needs notify-keyspace-events = \"KEA\". false: one sweep, then exit.",
    ),
    key(
        "scan_reader.dbs",
        Kind::Ints,
        "[]",
        "Only these databases; [] for all.",
    ),
    key(
        "scan_reader.count",
        Kind::Int {
            min: 1,
            max: 1_000_000,
        },
        "256",
        "Keys that the source looks at in one SCAN.",
    ),
    key(
        "scan_reader.prefer_replica",
        Kind::Bool,
        "false",
        "Read from a replica of the source, where there is one that follows it.",
    ),
    key(
        "scan_reader.repair_interval",
        Kind::Time,
        r#""60s""#,
        "Pause between two sweeps when nothing differs.",
    ),
];

/// How a source is read by SCAN.
#[derive(Debug, Clone)]
pub struct ScanConfig {
    /// When.
    pub when: ScanWhen,
    /// Sweep over all keys.
    pub scan: bool,
    /// Follow by keyspace events, and not only read once.
    pub follows: bool,
    /// Only these databases; all, where none is named.
    pub dbs: Vec<u32>,
    /// Keys that the source looks at in one SCAN.
    pub count: usize,
    /// Read from a replica.
    pub prefer_replica: bool,
    /// It is a cluster, all of which is read.
    pub cluster: bool,
    /// Addresses of its nodes that were seen: when the one that was given is gone, others tell where the slots are.
    pub seen: Arc<Mutex<Vec<String>>>,
    /// Between two sweeps when nothing differs.
    pub repair_interval: Duration,
}

/// When a source is read by SCAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanWhen {
    /// Always.
    Always,
    /// When it refuses PSYNC.
    PsyncRefused,
    /// Never.
    Never,
}

impl ScanConfig {
    /// Whether the source is followed, and not only read once.
    pub(crate) fn follows(&self) -> bool {
        self.follows
    }

    /// Nodes of the source that were seen.
    pub(crate) fn nodes_seen(&self) -> Vec<String> {
        let seen = self.seen.lock();
        seen.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// These are its nodes now.
    pub(crate) fn note_nodes(&self, nodes: Vec<String>) {
        let seen = self.seen.lock();
        *seen.unwrap_or_else(PoisonError::into_inner) = nodes;
    }
}

/// # Errors
/// What does not go together, with its line.
pub(super) fn read(
    doc: &Document,
    reader: &Reader,
    is_mapped: bool,
) -> Result<ScanConfig, ConfigError> {
    let refused = doc.text("sync_reader.on_psync_refused");
    let when = match (reader, refused.as_str()) {
        (Reader::Scan, _) => ScanWhen::Always,
        (Reader::Sync, "scan") if !is_mapped => ScanWhen::PsyncRefused,
        _ => ScanWhen::Never,
    };
    if is_mapped && when == ScanWhen::Always {
        let what = "redis_writer.db_map and scan_reader: keys under other names or numbers are not compared in this version; set one of them";
        return Err(doc.error("redis_writer.db_map", what));
    }
    // In the place of PSYNC a sweep is the snapshot, and events are the stream.
    let (scan, follows) = match when {
        ScanWhen::Always => (doc.bool("scan_reader.scan"), doc.bool("scan_reader.ksn")),
        _ => (
            doc.bool("scan_reader.scan") && doc.bool("sync_reader.sync_rdb"),
            doc.bool("sync_reader.sync_aof"),
        ),
    };
    if when == ScanWhen::Always && !scan && !follows {
        let what = "scan_reader.scan and scan_reader.ksn are both false: there is nothing to do";
        return Err(doc.error("scan_reader.scan", what));
    }
    let cluster = when == ScanWhen::Always && doc.bool("scan_reader.cluster");
    let is_cluster = cluster || doc.bool("sync_reader.cluster");
    if is_cluster && when != ScanWhen::Never && doc.bool("scan_reader.prefer_replica") {
        let what = "scan_reader.prefer_replica is not for a cluster in this version: its primaries are read; set it to false";
        return Err(doc.error("scan_reader.prefer_replica", what));
    }
    let dbs = doc.ints("scan_reader.dbs").into_iter().map(|db| {
        let what = format!("scan_reader.dbs: {db} is not a database");
        u32::try_from(db).map_err(|_| doc.error("scan_reader.dbs", what))
    });
    Ok(ScanConfig {
        when,
        scan,
        follows,
        dbs: dbs.collect::<Result<_, _>>()?,
        count: usize::try_from(doc.int("scan_reader.count")).unwrap_or(usize::MAX),
        prefer_replica: doc.bool("scan_reader.prefer_replica"),
        cluster,
        seen: Arc::default(),
        repair_interval: Duration::from_millis(doc.int("scan_reader.repair_interval")),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        let text = format!("{text}\n[redis_writer]\naddress = \"b:1\"\n");
        Config::parse(Path::new("shake.toml"), &text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_redisshake_file_is_read_as_redisshake_reads_it() {
        let config =
            parse("[scan_reader]\naddress = \"a:1\"\nksn = true\ndbs = [1, 10]\n").unwrap();
        assert_eq!(config.source.endpoint.address, "a:1");
        let scan = config.scan;
        assert!(scan.scan && scan.follows() && !scan.prefer_replica);
        assert_eq!(
            (scan.dbs, scan.when, scan.count),
            (vec![1, 10], ScanWhen::Always, 256)
        );
        let once = parse("[scan_reader]\naddress = \"a:1\"\n").unwrap();
        assert!(!once.scan.follows());
    }

    #[test]
    fn a_cluster_is_read_at_its_primaries() {
        let text = "[scan_reader]\naddress = \"a:1\"\ncluster = true\n";
        let scan = parse(text).unwrap().scan;
        assert!(scan.cluster && scan.nodes_seen().is_empty());
        // Whoever has a copy knows of it too.
        let other = scan.clone();
        scan.note_nodes(vec!["b:1".to_owned()]);
        assert_eq!(other.nodes_seen(), ["b:1"]);
        let error = parse(&format!("{text}prefer_replica = true\n")).unwrap_err();
        assert!(error.contains("not for a cluster"), "{error}");
    }

    #[test]
    fn a_source_that_refuses_psync_is_followed() {
        let config = parse("[sync_reader]\naddress = \"a:1\"\n[scan_reader]\ncount = 7\n").unwrap();
        assert_eq!(
            (config.scan.when, config.scan.count),
            (ScanWhen::PsyncRefused, 7)
        );
        assert!(config.scan.follows());
        let fail =
            parse("[sync_reader]\naddress = \"a:1\"\non_psync_refused = \"fail\"\n").unwrap();
        assert_eq!(fail.scan.when, ScanWhen::Never);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let error = parse("[sync_reader]\naddress = \"a:1\"\n[scan_reader]\naddress = \"a:1\"\n")
            .unwrap_err();
        assert!(
            error.starts_with("shake.toml:4: ") && error.contains("both set"),
            "{error}"
        );
        let error = parse("[scan_reader]\naddress = \"a:1\"\nscan = false\n").unwrap_err();
        assert!(error.contains("nothing to do"), "{error}");
        let error = parse("[scan_reader]\naddress = \"a:1\"\ndbs = [-1]\n").unwrap_err();
        assert!(error.contains("-1 is not a database"), "{error}");
        let error = parse("[scan_reader]\naddress = \"a:1\"\nusername = \"u\"\n").unwrap_err();
        assert!(error.contains("scan_reader.username"), "{error}");
    }
}
