//! `shake.toml`: what was typed (`document`), every known key (`keys`), what it comes to ([`Config`]).

mod compare;
mod cutover;
mod document;
mod endpoint;
mod ends;
mod environment;
mod function;
mod key;
mod keys;
mod print;
mod reverse;
mod scan;
mod units;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use compare::CompareConfig;
pub(crate) use compare::{WHOLE_PPM, share_ppm};
pub use cutover::{CompareExtent, CutoverConfig, FenceKind};
pub use document::{ConfigError, Place};
pub use ends::{AofReader, FileKind, FileWriter, Reader, Writer};
pub use print::{annotated_default, effective};
pub use reverse::{reverse, reversed};
pub use scan::{ScanConfig, ScanWhen};
pub use units::human_bytes;
pub(crate) use units::time_ms;

pub use crate::auth::{Auth, IamCache, Proof};
pub use crate::function::FunctionConfig;
pub use crate::limits::Limits;
pub use crate::logging::Rotation;
pub use crate::pipeline::Rival;
pub use crate::profile::Profile;
pub use crate::sentinel::Sentinel;
pub use crate::shard::{Follow, Shard, Slice};
use bytes::Bytes;
use document::Document;
use rewrite::Db;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// A text to keep.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

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
    /// Who we are there.
    pub auth: Auth,
    /// TLS, if wanted.
    pub tls: Option<TlsConfig>,
    /// The Sentinels that know its address; then `address` is that of the first of them.
    pub sentinel: Option<Arc<Sentinel>>,
    /// The shard of a source cluster whose master it is, wherever that is now.
    pub follow: Option<Arc<Follow>>,
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
    /// Nothing older than TLS 1.3.
    pub only_1_3: bool,
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
    /// Offer that the snapshot comes on a connection of its own.
    pub rdb_channel: bool,
    /// Name of PSYNC there.
    pub psync_command: String,
    /// Its names at nodes where it is another one: by address.
    pub psync_commands: Vec<(String, String)>,
    /// What we ACK.
    pub ack: replica::AckMode,
    /// PSYNC goes to a replica of it, where one can be followed.
    pub prefer_replica: bool,
    /// It is a cluster: a link for each of its shards.
    pub cluster: bool,
    /// So many shards of one host make a snapshot for us at once; 0: any number.
    pub full_syncs_per_host: usize,
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
    /// Keys that are there are older ones of the source's: those that it does not have go.
    pub mirror: bool,
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
    /// What kind of target it is.
    pub profile: Profile,
    /// Where the source's databases go, if not under their own numbers.
    pub db_map: Option<rewrite::DbMap>,
    /// It is a cluster.
    pub cluster: Option<ClusterConfig>,
    /// The link is one of a source cluster's: the name of all of them together.
    pub group: Option<String>,
}

/// A target that is a cluster.
#[derive(Debug, Clone)]
pub struct ClusterConfig {
    /// Commands whose keys are in several slots are done in steps; otherwise they end the link.
    pub emulates: bool,
    /// What keeps a writer out that was replaced.
    pub fence: SlotFence,
    /// Addresses of nodes that were seen: when the one that was given is gone, others tell where the slots are.
    pub seen: Arc<Mutex<Vec<String>>>,
    /// The source is this shard of a cluster, whose links share the slots.
    pub shard: Option<Arc<Shard>>,
}

impl ClusterConfig {
    /// Nodes that were seen, the last one that answered first.
    pub(crate) fn nodes_seen(&self) -> Vec<String> {
        let seen = self.seen.lock();
        seen.unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone()
    }
}

/// What keeps a replaced writer's late transactions out of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotFence {
    /// As [`Self::Kill`] where the target lets us, else as [`Self::Lua`].
    Auto,
    /// Whoever takes the link over ends the other's connections (CLIENT KILL).
    Kill,
    /// Each slot's commands go by a script that first looks at the slot's checkpoint.
    Lua,
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
    /// When the file begins anew; `None`: never.
    pub rotation: Option<Rotation>,
}

/// The status server.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// `address:port` to bind.
    pub bind: String,
    /// Who sends this may change limits, pause and resume; nobody where it is not set.
    pub admin_token: Option<Secret>,
}

/// Whatever `limits.memory` says: commands of so many bytes are nothing unusual.
const MEMORY_SHARE_MIN: usize = 4 << 20;

/// A whole, checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// What is read.
    pub reader: Reader,
    /// Where it is written.
    pub writer: Writer,
    /// The source; of files, what they are called is in the place of its address.
    pub source: SourceConfig,
    /// The target; of a file, what it is called is in the place of its address.
    pub target: TargetConfig,
    /// What goes through.
    pub filter: rewrite::Filter,
    /// A script that says what goes to the target in the place of what goes through.
    pub function: Option<FunctionConfig>,
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
    /// The largest table that goes to a target of ours alone as one RESTORE, bytes.
    pub restore_bytes: u64,
    /// How much may go each way in a second; shared with whoever changes it.
    pub limits: Arc<Limits>,
    /// How both ends are compared.
    pub compare: CompareConfig,
    /// How the application is switched over.
    pub cutover: CutoverConfig,
    /// How the source is read where it offers no PSYNC.
    pub scan: ScanConfig,
    /// What is to be said at the start.
    pub notes: Vec<String>,
    /// Of a source cluster: which of its shards this process takes.
    pub slice: Slice,
    /// The source is this shard of a cluster.
    pub shard: Option<Arc<Shard>>,
    /// Other links of this process write into the same target.
    pub rival: Option<Rival>,
}

/// What would make a checkpoint ambiguous, or change its slot.
const NOT_IN_NAMES: [char; 5] = ['|', ' ', '\n', '{', '}'];

impl TargetConfig {
    /// The target's name for a key of the source.
    pub(crate) fn name_of<'k>(&self, db: u32, key: &'k [u8]) -> (u32, Cow<'k, [u8]>) {
        match &self.db_map {
            None => (db, Cow::Borrowed(key)),
            Some(map) => (map.db(Db(db)).0, map.key(Db(db), key)),
        }
    }

    /// The slot of a key of the source at a target that is a cluster.
    pub(crate) fn slot_of(&self, db: u32, key: &[u8]) -> rewrite::Slot {
        rewrite::slot_of(&self.name_of(db, key).1)
    }

    /// The target's database for one of the source.
    pub(crate) fn db_of(&self, db: Db) -> Db {
        self.db_map.as_ref().map_or(db, |map| map.db(db))
    }

    /// The source's name for a key of the target, where it can be told.
    pub(crate) fn origin_of(&self, db: u32, key: &Bytes) -> Option<(u32, Bytes)> {
        match &self.db_map {
            None => Some((db, key.clone())),
            Some(map) => map.origin(Db(db), key).map(|(db, key)| (db.0, key)),
        }
    }
}

impl Config {
    /// Whether a key of the target may be one of the source's that passes the filter.
    pub(crate) fn may_be_copied(&self, db: u32, key: &Bytes) -> bool {
        if self.function.is_some() {
            // A script may make any.
            return true;
        }
        let passes = |(db, key): (u32, Bytes)| self.filter.db(Db(db)) && self.filter.key(&key);
        match &self.target.db_map {
            // It is one of several databases': whose, nobody can tell.
            Some(map) if map.is_merged(Db(db)) => {
                map.sources(Db(db)).iter().any(|db| self.filter.db(*db)) && self.filter.key(key)
            }
            _ => self.target.origin_of(db, key).is_some_and(passes),
        }
    }

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
        let (reader, at_source) = ends::reader(doc)?;
        let (writer, at_target) = ends::writer(doc)?;
        let source = source(doc, &reader, at_source)?;
        let target = target(doc, at_target)?;
        ends::check(doc, &reader, &writer)?;
        let are_plain = source.endpoint.sentinel.is_none() && target.endpoint.sentinel.is_none();
        if source.endpoint.address == target.endpoint.address && are_plain {
            let (key, what) = match &writer {
                Writer::Redis => (
                    "redis_writer.address",
                    "redis_writer.address is the source's own address; a link from a server to itself would never end",
                ),
                Writer::File(_) => (
                    "file_writer.filepath",
                    "file_writer.filepath is the file that is read; name another one",
                ),
            };
            return Err(doc.error(key, what));
        }
        let link_name = match doc.text("link.name") {
            name if name.is_empty() => {
                let name = format!("{}>{}", source.endpoint.address, target.endpoint.address);
                // What a file is called may hold anything.
                name.replace(NOT_IN_NAMES, "_")
            }
            name if name.contains(NOT_IN_NAMES) => {
                let what = "link.name must not contain '|', spaces or braces";
                return Err(doc.error("link.name", what));
            }
            name => name,
        };
        if source.cluster && target.db_map.is_some() {
            let what = "redis_writer.db_map is not for source clusters in this version: a cluster has database 0 alone";
            return Err(doc.error("redis_writer.db_map", what));
        }
        if source.cluster && source.endpoint.sentinel.is_some() {
            let what = "sync_reader.cluster and sync_reader.sentinel are both set: a cluster has no Sentinels; remove one of them";
            return Err(doc.error("sync_reader.cluster", what));
        }
        if source.cluster && doc.int("compare.background_qps") > 0 {
            let what =
                "compare.background_qps is not for source clusters in this version; set it to 0";
            return Err(doc.error("compare.background_qps", what));
        }
        let fence = target.cluster.as_ref().map(|cluster| cluster.fence);
        if source.cluster && fence == Some(SlotFence::Lua) {
            let what = "redis_writer.slot_fence = \"lua\" is not for source clusters in this version: give the user at the target +client|list +client|kill +client|setname, and set it to \"auto\" or \"kill\"";
            return Err(doc.error("redis_writer.slot_fence", what));
        }
        let dir = PathBuf::from(doc.text("advanced.dir"));
        let function = function::read(doc, &target)?;
        let is_mapped = target.db_map.is_some() || function.is_some();
        let scan = scan::read(doc, &reader, is_mapped)?;
        Ok(Self {
            spool: spool(doc, &dir, &link_name),
            log: LogConfig {
                file: optional(doc.text("advanced.log_file")).map(|name| dir.join(name)),
                level: doc.text("advanced.log_level"),
                interval: Duration::from_secs(doc.int("advanced.log_interval")),
                rotation: rotation(doc),
            },
            http: match doc.int("advanced.status_port") {
                0 => None,
                port => Some(HttpConfig {
                    bind: format!("{}:{port}", doc.text("advanced.status_address")),
                    admin_token: optional(doc.text("advanced.admin_token")).map(Secret),
                }),
            },
            filter: filter(doc)?,
            resync_on_history_lost: doc.text("checkpoint.on_history_lost") == "resync"
                && (function.is_none() || doc.is_set("checkpoint.on_history_lost")),
            // A file cannot be asked for what a key is now.
            repair: doc.text("checkpoint.on_divergence") == "repair"
                && function.is_none()
                && !reader.is_of_files(),
            function,
            ready_lag: Duration::from_millis(doc.int("advanced.ready_lag")),
            shutdown_timeout: Duration::from_millis(doc.int("limits.shutdown_timeout")),
            memory_bytes: doc.int("limits.memory"),
            restore_bytes: doc.int("limits.restore_bytes"),
            compare: compare::read(doc)?,
            cutover: cutover::read(doc)?,
            scan,
            limits: limits(doc),
            notes: notes(doc),
            slice: slice(doc, source.cluster, target.cluster.is_some())?,
            shard: None,
            rival: None,
            reader,
            writer,
            source,
            target,
            link_name,
        })
    }
}

fn limits(doc: &Document) -> Arc<Limits> {
    let limits = Limits::default();
    limits
        .source_bytes
        .set(doc.int("limits.source_bytes_per_second"));
    limits
        .target_bytes
        .set(doc.int("limits.target_bytes_per_second"));
    let commands = match doc.int("limits.target_commands_per_second") {
        // RedisShake's default is no wish of anybody's.
        0 if doc.is_set("advanced.target_redis_max_qps") => {
            doc.int("advanced.target_redis_max_qps")
        }
        commands => commands,
    };
    limits.target_commands.set(commands);
    Arc::new(limits)
}

/// Sizes are in megabytes and ages in days, as RedisShake has them; no size is no rotation.
fn rotation(doc: &Document) -> Option<Rotation> {
    let megabytes = doc.int("advanced.log_max_size");
    let days = doc.int("advanced.log_max_age");
    (doc.bool("advanced.log_rotation") && megabytes > 0).then(|| Rotation {
        bytes_max: megabytes.saturating_mul(1 << 20),
        age_max: (days > 0).then(|| Duration::from_secs(days.saturating_mul(86_400))),
        backups_max: usize::try_from(doc.int("advanced.log_max_backups")).unwrap_or(usize::MAX),
        compresses: doc.bool("advanced.log_compress"),
    })
}

fn optional(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

impl SourceConfig {
    /// The name of PSYNC at the server there.
    pub(crate) fn psync_at(&self, address: &str) -> &str {
        let here = self.psync_commands.iter().find(|(at, _)| at == address);
        here.map_or(&self.psync_command, |(_, name)| name)
    }
}

/// The name of PSYNC, and those at some nodes: one name, or RedisShake's `host:port@name,host:port@name`.
fn psync_commands(doc: &Document) -> Result<(String, Vec<(String, String)>), ConfigError> {
    let keys = ["sync_reader.psync_command", "advanced.aws_psync"];
    let given = keys.map(|key| (key, doc.text(key)));
    let (mut name, mut by_node) = ("PSYNC".to_owned(), Vec::new());
    let [own, theirs] = &given;
    if !own.1.is_empty() && !theirs.1.is_empty() {
        let what =
            "advanced.aws_psync and sync_reader.psync_command are both set; one of them is enough";
        return Err(doc.error(theirs.0, what));
    }
    let (key, text) = if own.1.is_empty() { theirs } else { own };
    for part in text
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (address, word) = match part.split_once('@') {
            Some((address, word)) => (Some(address.trim()), word.trim()),
            None => (None, part),
        };
        if word.is_empty() || word.contains(char::is_whitespace) {
            let what = format!("{key}: {part:?} must be one word, or host:port@word for each node");
            return Err(doc.error(key, what));
        }
        match address {
            Some(address) => {
                let checked = units::address(address);
                checked.map_err(|what| doc.error(key, format!("{key}: {what}")))?;
                by_node.push((address.to_owned(), word.to_owned()));
            }
            None if text.contains(',') => {
                let what = format!("{key}: {part:?} names no node: host:port@{word}");
                return Err(doc.error(key, what));
            }
            None => word.clone_into(&mut name),
        }
    }
    Ok((name, by_node))
}

/// Which shards of a source cluster are this process's.
fn slice(doc: &Document, is_cluster: bool, into_cluster: bool) -> Result<Slice, ConfigError> {
    let slice = Slice::parse(&doc.text("shards")).map_err(|what| doc.error("shards", what))?;
    if slice.is_part() && !is_cluster {
        let what = format!(
            "shards is \"{slice}\", but the source is no cluster: set sync_reader.cluster = true, or remove it"
        );
        return Err(doc.error("shards", what));
    }
    if slice.is_part() && into_cluster {
        let what = format!(
            "shards is \"{slice}\", and several processes share a source cluster only into a single server in this version: let one process take all shards, or set redis_writer.cluster = false"
        );
        return Err(doc.error("shards", what));
    }
    Ok(slice)
}

fn source(
    doc: &Document,
    reader: &Reader,
    endpoint: Endpoint,
) -> Result<SourceConfig, ConfigError> {
    let (psync_command, psync_commands) = psync_commands(doc)?;
    let is_named = psync_commands
        .iter()
        .any(|(node, _)| *node == endpoint.address);
    if doc.is_filled("sync_reader.address")
        && !doc.bool("sync_reader.cluster")
        && !psync_commands.is_empty()
        && !is_named
    {
        let given = ["advanced.aws_psync", "sync_reader.psync_command"];
        let path = given
            .into_iter()
            .find(|path| doc.is_filled(path))
            .unwrap_or_default();
        let what = format!(
            "{path} has no name for {0}; write its address as it stands in sync_reader.address: \"{0}@name\"",
            endpoint.address
        );
        return Err(doc.error(path, what));
    }
    Ok(SourceConfig {
        endpoint,
        sync_rdb: doc.bool("sync_reader.sync_rdb") || reader.is_of_files(),
        sync_aof: match reader {
            Reader::Sync | Reader::Scan => doc.bool("sync_reader.sync_aof"),
            Reader::Rdb(_) => false,
            Reader::Aof(_) => true,
        },
        diskless: doc.bool("sync_reader.try_diskless"),
        rdb_channel: doc.bool("sync_reader.try_rdb_channel"),
        psync_command,
        psync_commands,
        ack: match doc.text("sync_reader.ack_mode").as_str() {
            "zero" => replica::AckMode::Zero,
            _ => replica::AckMode::Applied,
        },
        prefer_replica: doc.bool("sync_reader.prefer_replica"),
        cluster: doc.bool("sync_reader.cluster"),
        full_syncs_per_host: usize::try_from(doc.int("sync_reader.full_syncs_per_host"))
            .unwrap_or(usize::MAX),
    })
}

fn target(doc: &Document, endpoint: Endpoint) -> Result<TargetConfig, ConfigError> {
    let existing = match doc.text("redis_writer.existing_keys").as_str() {
        "replace" | "mirror" => ExistingKeys::Replace,
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
        mirror: doc.text("redis_writer.existing_keys") == "mirror",
        losses: match doc.text("redis_writer.losses").as_str() {
            "warn" => rewrite::Losses::Allow,
            _ => rewrite::Losses::Refuse,
        },
        batch_commands: batch_commands(doc),
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
        cluster: cluster(doc),
        group: None,
        profile: Profile::of(&doc.text("redis_writer.profile")),
        db_map: doc.dbs("redis_writer.db_map"),
        endpoint,
    })
}

/// RedisShake's bound on commands that are not answered yet is one on a unit, of which one is on its way.
fn batch_commands(doc: &Document) -> usize {
    let batch = doc.int("redis_writer.batch_commands");
    let limit = match doc.int("advanced.pipeline_count_limit") {
        0 => batch,
        limit => limit,
    };
    usize::try_from(batch.min(limit)).unwrap_or(usize::MAX)
}

/// Keys of RedisShake's that are set to something that means nothing here: said at the start, not refused.
fn notes(doc: &Document) -> Vec<String> {
    let rows = [
        (
            doc.bool("redis_writer.off_reply"),
            "redis_writer.off_reply: replies are read all the same, since exactly-once stands on them",
        ),
        (
            doc.int("advanced.pprof_port") > 0,
            "advanced.pprof_port: there is no Go profiler here, and nothing listens there; /metrics on advanced.status_port tells of CPU and memory",
        ),
        (
            doc.int("advanced.ncpu") > 1,
            "advanced.ncpu: a link is one thread, and needs no more than one processor",
        ),
        (
            doc.is_set("advanced.io_reconnect") && !doc.bool("advanced.io_reconnect"),
            "advanced.io_reconnect: connections that are lost are made anew in any case",
        ),
    ];
    let said = rows.into_iter().filter(|(is_set, _)| *is_set);
    said.map(|(_, note)| note.to_owned()).collect()
}

fn cluster(doc: &Document) -> Option<ClusterConfig> {
    doc.bool("redis_writer.cluster").then(|| ClusterConfig {
        emulates: doc.text("redis_writer.cross_slot") == "emulate",
        fence: match doc.text("redis_writer.slot_fence").as_str() {
            "kill" => SlotFence::Kill,
            "lua" => SlotFence::Lua,
            _ => SlotFence::Auto,
        },
        seen: Arc::default(),
        shard: None,
    })
}

/// The name of a link's directory.
fn dir_name(link_name: &str) -> String {
    let safe = |c: char| match c.is_ascii_alphanumeric() || "._-".contains(c) {
        true => c,
        false => '_',
    };
    link_name.chars().map(safe).collect()
}

impl SpoolConfig {
    /// The same beside this one, for another link.
    pub(crate) fn of_link(&self, link_name: &str) -> Self {
        Self {
            dir: self.dir.with_file_name(dir_name(link_name)),
            ..self.clone()
        }
    }
}

/// The spool's directory is the link's own: two links never share one.
fn spool(doc: &Document, dir: &Path, link_name: &str) -> SpoolConfig {
    let root = match optional(doc.text("spool.dir")) {
        Some(root) => PathBuf::from(root),
        None => dir.join("spool"),
    };
    SpoolConfig {
        dir: root.join(dir_name(link_name)),
        max_bytes: doc.int("spool.max_bytes"),
        retain_bytes: doc.int("spool.retain_bytes"),
        unseen_bytes_max: doc.int("spool.max_bytes"),
        tail_bytes: usize::try_from(doc.int("limits.memory") / 32)
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
        block_db: {
            let mut block = dbs("filter.block_db")?;
            // A database that is dropped is one that does not pass.
            if let Some(rewrite::DbMap::Numbers(rules)) = doc.dbs("redis_writer.db_map") {
                let dropped = rules.iter().filter(|(_, to)| to.is_none());
                block.extend(dropped.map(|(db, _)| *db));
            }
            block
        },
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
