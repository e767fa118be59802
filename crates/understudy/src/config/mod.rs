//! `shake.toml`: what was typed (`document`), every known key (`keys`), what it comes to ([`Config`]).

mod document;
mod keys;
mod print;
mod units;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use document::{ConfigError, Place};
pub use print::{annotated_default, effective};
pub use units::human_bytes;

use document::Document;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// How to reach a server.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    /// ACL user, if any.
    pub username: Option<String>,
    /// Password, if any.
    pub password: Option<Secret>,
    /// TLS, if wanted.
    pub tls: Option<TlsConfig>,
}

impl Endpoint {
    /// The host part of the address, without the brackets of IPv6.
    pub fn host(&self) -> &str {
        let host = self
            .address
            .rsplit_once(':')
            .map_or(self.address.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// TLS options of one side.
#[derive(Debug, Clone)]
pub struct TlsConfig {
    /// CA to trust instead of the system's roots.
    pub ca_cert: Option<PathBuf>,
    /// Certificate and key of ours, for mutual TLS.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Name expected in the certificate instead of the host.
    pub server_name: Option<String>,
    /// No verification at all.
    pub insecure: bool,
}

/// The source side.
#[derive(Debug, Clone)]
pub struct SourceConfig {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Apply the snapshot.
    pub sync_rdb: bool,
    /// Go on with the stream.
    pub sync_aof: bool,
    /// Offer `capa eof`.
    pub diskless: bool,
    /// Name of PSYNC there.
    pub psync_command: String,
    /// What we ACK.
    pub ack: replica::AckMode,
}

/// What to do with keys that the target holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingKeys {
    /// Refuse to start.
    Fail,
    /// Overwrite.
    Replace,
    /// Leave them.
    Skip,
}

/// The target side.
#[derive(Debug, Clone)]
pub struct TargetConfig {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Keys that are there already.
    pub existing: ExistingKeys,
    /// What the target's version cannot hold.
    pub losses: rewrite::Losses,
    /// Most commands in a unit.
    pub batch_commands: usize,
    /// Most bytes in a unit.
    pub batch_bytes: usize,
    /// Most bytes in flight in the snapshot phase.
    pub inflight_bytes: usize,
    /// The target's proto-max-bulk-len.
    pub bulk_bytes_max: u64,
    /// FLUSHALL before the first snapshot.
    pub empty_before: bool,
}

/// The spool.
#[derive(Debug, Clone)]
pub struct SpoolConfig {
    /// Directory of this link's files.
    pub dir: PathBuf,
    /// Most unapplied bytes.
    pub max_bytes: u64,
    /// Applied bytes kept.
    pub retain_bytes: u64,
    /// Most bytes kept from a part on of which the answers were not seen: `max_bytes`, but in simulations, which bound this
    /// alone.
    pub unseen_bytes_max: u64,
    /// Bytes kept in memory for a reader that follows closely.
    pub tail_bytes: usize,
}

/// Logging.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// JSON lines go here.
    pub file: Option<PathBuf>,
    /// Least severe level.
    pub level: String,
    /// Pause between progress lines.
    pub interval: Duration,
}

/// The status server.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// `address:port` to bind.
    pub bind: String,
}

/// Whatever `limits.memory` says: commands of so many bytes are nothing unusual.
const MEMORY_SHARE_MIN: usize = 4 << 20;

/// A whole, checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The source.
    pub source: SourceConfig,
    /// The target.
    pub target: TargetConfig,
    /// What goes through.
    pub filter: rewrite::Filter,
    /// The spool.
    pub spool: SpoolConfig,
    /// Logging.
    pub log: LogConfig,
    /// Status server, if wanted.
    pub http: Option<HttpConfig>,
    /// Names the checkpoint.
    pub link_name: String,
    /// New snapshot when the source has lost our position.
    pub resync_on_history_lost: bool,
    /// Keys whose commands fail at the target are copied again from the source.
    pub repair: bool,
    /// `/readyz` says 200 up to this lag.
    pub ready_lag: Duration,
    /// Time for what is in flight at a stop.
    pub shutdown_timeout: Duration,
    /// Memory for data, all in all.
    pub memory_bytes: u64,
}

impl Config {
    /// Most bytes of a command that are held at once, its large values not counted where they stay in the spool.
    pub(crate) fn command_bytes_max(&self) -> usize {
        self.memory_share(8)
    }

    /// Most bytes of a transaction, or of a snapshot's item, that are held at once.
    pub(crate) fn transaction_bytes_max(&self) -> usize {
        self.memory_share(4)
    }

    /// Most bytes of keys that are copied anew at once: they are held several times over on the way.
    pub(crate) fn repair_bytes_max(&self) -> u64 {
        self.memory_share(16) as u64
    }

    fn memory_share(&self, of: u64) -> usize {
        usize::try_from(self.memory_bytes / of)
            .unwrap_or(usize::MAX)
            .max(MEMORY_SHARE_MIN)
    }

    /// Reads and checks `file`.
    ///
    /// # Errors
    /// [`ConfigError`] with file, line, what is wrong and the mend.
    pub fn read(file: &Path) -> Result<Self, ConfigError> {
        Self::from_document(&Document::read(file)?)
    }

    /// Checks `text`, called `file` in errors.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        Self::from_document(&Document::parse(file, text)?)
    }

    fn from_document(doc: &Document) -> Result<Self, ConfigError> {
        let source = source(doc)?;
        let target = target(doc)?;
        if source.endpoint.address == target.endpoint.address {
            let what = "redis_writer.address is the source's own address; a link from a server to itself would never end";
            return Err(doc.error("redis_writer.address", what));
        }
        let link_name = match doc.text("link.name") {
            name if name.is_empty() => {
                format!("{}>{}", source.endpoint.address, target.endpoint.address)
            }
            name if name.contains(['|', ' ', '\n', '{', '}']) => {
                let what = "link.name must not contain '|', spaces or braces";
                return Err(doc.error("link.name", what));
            }
            name => name,
        };
        let dir = PathBuf::from(doc.text("advanced.dir"));
        Ok(Self {
            spool: spool(doc, &dir, &link_name),
            log: LogConfig {
                file: optional(doc.text("advanced.log_file")).map(|name| dir.join(name)),
                level: doc.text("advanced.log_level"),
                interval: Duration::from_secs(doc.int("advanced.log_interval")),
            },
            http: match doc.int("advanced.status_port") {
                0 => None,
                port => Some(HttpConfig {
                    bind: format!("{}:{port}", doc.text("advanced.status_address")),
                }),
            },
            filter: filter(doc)?,
            resync_on_history_lost: doc.text("checkpoint.on_history_lost") == "resync",
            repair: doc.text("checkpoint.on_divergence") == "repair",
            ready_lag: Duration::from_millis(doc.int("advanced.ready_lag")),
            shutdown_timeout: Duration::from_millis(doc.int("limits.shutdown_timeout")),
            memory_bytes: doc.int("limits.memory"),
            source,
            target,
            link_name,
        })
    }
}

fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// The keys of an endpoint, spelt out so that each is checked against the table.
struct EndpointKeys {
    table: &'static str,
    address: &'static str,
    username: &'static str,
    password: &'static str,
    tls: &'static str,
    ca_cert: &'static str,
    cert: &'static str,
    key: &'static str,
    server_name: &'static str,
    insecure: &'static str,
}

const SOURCE: EndpointKeys = EndpointKeys {
    table: "sync_reader",
    address: "sync_reader.address",
    username: "sync_reader.username",
    password: "sync_reader.password",
    tls: "sync_reader.tls",
    ca_cert: "sync_reader.tls_config.ca_cert",
    cert: "sync_reader.tls_config.cert",
    key: "sync_reader.tls_config.key",
    server_name: "sync_reader.tls_config.server_name",
    insecure: "sync_reader.tls_config.insecure",
};

const TARGET: EndpointKeys = EndpointKeys {
    table: "redis_writer",
    address: "redis_writer.address",
    username: "redis_writer.username",
    password: "redis_writer.password",
    tls: "redis_writer.tls",
    ca_cert: "redis_writer.tls_config.ca_cert",
    cert: "redis_writer.tls_config.cert",
    key: "redis_writer.tls_config.key",
    server_name: "redis_writer.tls_config.server_name",
    insecure: "redis_writer.tls_config.insecure",
};

fn endpoint(doc: &Document, keys: &EndpointKeys) -> Result<Endpoint, ConfigError> {
    let address = doc.text(keys.address);
    if address.is_empty() {
        let what = format!(
            "{} is missing: add [{}] with address = \"host:port\"",
            keys.address, keys.table
        );
        return Err(doc.error(keys.address, what));
    }
    let username = optional(doc.text(keys.username));
    let password = optional(doc.text(keys.password)).map(Secret);
    if username.is_some() && password.is_none() {
        let what = format!("{} is set without {}", keys.username, keys.password);
        return Err(doc.error(keys.username, what));
    }
    let tls = if doc.bool(keys.tls) {
        Some(tls(doc, keys)?)
    } else {
        None
    };
    Ok(Endpoint {
        address,
        username,
        password,
        tls,
    })
}

fn tls(doc: &Document, keys: &EndpointKeys) -> Result<TlsConfig, ConfigError> {
    let file = |path| optional(doc.text(path)).map(PathBuf::from);
    let identity = match (file(keys.cert), file(keys.key)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(doc.error(
                keys.cert,
                format!("{} is set without {}", keys.cert, keys.key),
            ));
        }
        (None, Some(_)) => {
            return Err(doc.error(
                keys.key,
                format!("{} is set without {}", keys.key, keys.cert),
            ));
        }
    };
    Ok(TlsConfig {
        ca_cert: file(keys.ca_cert),
        identity,
        server_name: optional(doc.text(keys.server_name)),
        insecure: doc.bool(keys.insecure),
    })
}

fn source(doc: &Document) -> Result<SourceConfig, ConfigError> {
    let psync_command = match doc.text("sync_reader.psync_command") {
        name if name.is_empty() => "PSYNC".to_owned(),
        name if name.contains(|c: char| c.is_whitespace()) => {
            let what = "sync_reader.psync_command must be one word";
            return Err(doc.error("sync_reader.psync_command", what));
        }
        name => name,
    };
    Ok(SourceConfig {
        endpoint: endpoint(doc, &SOURCE)?,
        sync_rdb: doc.bool("sync_reader.sync_rdb"),
        sync_aof: doc.bool("sync_reader.sync_aof"),
        diskless: doc.bool("sync_reader.try_diskless"),
        psync_command,
        ack: match doc.text("sync_reader.ack_mode").as_str() {
            "zero" => replica::AckMode::Zero,
            _ => replica::AckMode::Applied,
        },
    })
}

fn target(doc: &Document) -> Result<TargetConfig, ConfigError> {
    let existing = match doc.text("redis_writer.existing_keys").as_str() {
        "replace" => ExistingKeys::Replace,
        "skip" => ExistingKeys::Skip,
        "fail" => ExistingKeys::Fail,
        _ => match doc.text("advanced.rdb_restore_command_behavior").as_str() {
            "rewrite" => ExistingKeys::Replace,
            "skip" => ExistingKeys::Skip,
            _ => ExistingKeys::Fail,
        },
    };
    let size = |path: &'static str, min: u64| {
        let bytes = doc.int(path);
        if bytes < min {
            return Err(doc.error(
                path,
                format!("{path} is {bytes} bytes, but must be at least {min}"),
            ));
        }
        // One unit must fit the target's query buffer.
        let fits = bytes.min(
            doc.int("advanced.target_redis_client_max_querybuf_len")
                .max(min),
        );
        Ok(usize::try_from(fits).unwrap_or(usize::MAX))
    };
    Ok(TargetConfig {
        existing,
        losses: match doc.text("redis_writer.losses").as_str() {
            "warn" => rewrite::Losses::Allow,
            _ => rewrite::Losses::Refuse,
        },
        batch_commands: doc.int("redis_writer.batch_commands") as usize,
        batch_bytes: size("redis_writer.batch_bytes", 1024)?,
        inflight_bytes: size("redis_writer.inflight_bytes", 64 * 1024)?,
        bulk_bytes_max: match doc.int("advanced.target_redis_proto_max_bulk_len") {
            bytes
                if bytes < 1024 * 1024
                    && doc.is_set("advanced.target_redis_proto_max_bulk_len")
                    && bytes != 0 =>
            {
                let what = "advanced.target_redis_proto_max_bulk_len must be 0 (never RESTORE) or at least 1 MiB, the least a server allows";
                return Err(doc.error("advanced.target_redis_proto_max_bulk_len", what));
            }
            bytes => bytes,
        },
        empty_before: doc.bool("advanced.empty_db_before_sync"),
        endpoint: endpoint(doc, &TARGET)?,
    })
}

/// The spool's directory is the link's own: two links never share one.
fn spool(doc: &Document, dir: &Path, link_name: &str) -> SpoolConfig {
    let root = match optional(doc.text("spool.dir")) {
        Some(root) => PathBuf::from(root),
        None => dir.join("spool"),
    };
    let own: String = link_name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    SpoolConfig {
        dir: root.join(own),
        max_bytes: doc.int("spool.max_bytes"),
        retain_bytes: doc.int("spool.retain_bytes"),
        unseen_bytes_max: doc.int("spool.max_bytes"),
        tail_bytes: usize::try_from(doc.int("limits.memory") / 8)
            .unwrap_or(usize::MAX)
            .clamp(1 << 20, 64 << 20),
    }
}

fn filter(doc: &Document) -> Result<rewrite::Filter, ConfigError> {
    let dbs = |path: &'static str| {
        let db = |db| {
            u32::try_from(db)
                .map_err(|_| doc.error(path, format!("{path}: {db} is not a database")))
        };
        doc.ints(path)
            .into_iter()
            .map(db)
            .collect::<Result<Vec<u32>, ConfigError>>()
    };
    let groups = |path: &'static str| {
        let group = |name: String| {
            name.parse::<rewrite::Group>()
                .map_err(|error| doc.error(path, format!("{path}: {error}")))
        };
        doc.texts(path)
            .into_iter()
            .map(group)
            .collect::<Result<Vec<rewrite::Group>, ConfigError>>()
    };
    let rules = rewrite::FilterRules {
        allow_keys: doc.texts("filter.allow_keys"),
        block_keys: doc.texts("filter.block_keys"),
        allow_key_prefix: doc.texts("filter.allow_key_prefix"),
        block_key_prefix: doc.texts("filter.block_key_prefix"),
        allow_key_suffix: doc.texts("filter.allow_key_suffix"),
        block_key_suffix: doc.texts("filter.block_key_suffix"),
        allow_key_regex: doc.texts("filter.allow_key_regex"),
        block_key_regex: doc.texts("filter.block_key_regex"),
        allow_db: dbs("filter.allow_db")?,
        block_db: dbs("filter.block_db")?,
        allow_command: doc.texts("filter.allow_command"),
        block_command: doc.texts("filter.block_command"),
        allow_command_group: groups("filter.allow_command_group")?,
        block_command_group: groups("filter.block_command_group")?,
    };
    rewrite::Filter::new(rules).map_err(|error| {
        // A regex error draws the expression over several lines; its last one says what is wrong.
        let why = error
            .why
            .lines()
            .last()
            .unwrap_or_default()
            .trim_start_matches("error: ")
            .to_owned();
        let path = format!("filter.{}", error.list);
        doc.error(&path, format!("{path}: {why}"))
    })
}
