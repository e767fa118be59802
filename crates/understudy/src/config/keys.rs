//! Every key of `shake.toml`, one row each: path, kind, default, what it means.
//!
//! This table is the single source of truth: the parser checks a file against it, `understudy config`
//! prints it, and `configs/shake.toml` is that print. The paths are RedisShake's where RedisShake has
//! the key; the rest are ours.

/// What a key holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Any text.
    Text,
    /// Text that is never printed.
    Secret,
    /// `host:port`.
    Address,
    /// `true` or `false`.
    Bool,
    /// A whole number within these bounds.
    Int { min: i64, max: i64 },
    /// A size: bytes as a number, or text with a unit (`"64kb"`, `"20gb"`).
    Bytes,
    /// A time: seconds as a number, or text with a unit (`"500ms"`, `"10s"`, `"5m"`).
    Time,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A list of whole numbers.
    Ints,
}

/// Whether this build acts on the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Support {
    /// Acted on.
    Yes,
    /// Known, but only its default can be honoured: any other value is refused with a clear word.
    DefaultOnly,
}

/// One key.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) path: &'static str,
    pub(crate) kind: Kind,
    /// The default as a TOML literal.
    pub(crate) default: &'static str,
    pub(crate) doc: &'static str,
    pub(crate) support: Support,
}

const fn key(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default,
        doc,
        support: Support::Yes,
    }
}

const fn later(path: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key {
        path,
        kind,
        default,
        doc,
        support: Support::DefaultOnly,
    }
}

const PORT: Kind = Kind::Int {
    min: 0,
    max: 65_535,
};
const COUNT: Kind = Kind::Int {
    min: 0,
    max: i64::MAX,
};

/// Tables of other readers and writers, with the word said when one is used.
pub(crate) const TABLES_LATER: &[(&str, &str)] = &[
    (
        "scan_reader",
        "reading by SCAN is not in this version; use [sync_reader] with a source that allows PSYNC",
    ),
    (
        "rdb_reader",
        "reading RDB files is not in this version; use [sync_reader]",
    ),
    (
        "aof_reader",
        "reading AOF files is not in this version; use [sync_reader]",
    ),
    (
        "file_writer",
        "writing to files is not in this version; use [redis_writer]",
    ),
];

/// All keys, in the order in which they are printed.
pub(crate) const KEYS: &[Key] = &[
    key(
        "sync_reader.address",
        Kind::Address,
        r#""""#,
        "The source, host:port.",
    ),
    key(
        "sync_reader.username",
        Kind::Text,
        r#""""#,
        "ACL user at the source; empty for the default user.",
    ),
    key(
        "sync_reader.password",
        Kind::Secret,
        r#""""#,
        "Password at the source; empty for none.",
    ),
    later(
        "sync_reader.cluster",
        Kind::Bool,
        "false",
        "The source is a Redis Cluster.",
    ),
    key(
        "sync_reader.tls",
        Kind::Bool,
        "false",
        "Speak TLS to the source.",
    ),
    key(
        "sync_reader.tls_config.ca_cert",
        Kind::Text,
        r#""""#,
        "PEM file of the CA to trust instead of the system's roots.",
    ),
    key(
        "sync_reader.tls_config.cert",
        Kind::Text,
        r#""""#,
        "PEM file of our certificate, for mutual TLS.",
    ),
    key(
        "sync_reader.tls_config.key",
        Kind::Text,
        r#""""#,
        "PEM file of our private key, for mutual TLS.",
    ),
    key(
        "sync_reader.tls_config.server_name",
        Kind::Text,
        r#""""#,
        "Name to expect in the server's certificate; default: the host of the address.",
    ),
    key(
        "sync_reader.tls_config.insecure",
        Kind::Bool,
        "false",
        "Do not verify the server's certificate.",
    ),
    key(
        "sync_reader.sync_rdb",
        Kind::Bool,
        "true",
        "Apply the snapshot; false: transfer it and throw it away.",
    ),
    key(
        "sync_reader.sync_aof",
        Kind::Bool,
        "true",
        "Go on with the command stream; false: stop after the snapshot.",
    ),
    later(
        "sync_reader.prefer_replica",
        Kind::Bool,
        "false",
        "Read from a replica of the source.",
    ),
    key(
        "sync_reader.try_diskless",
        Kind::Bool,
        "true",
        "Offer `capa eof`, so that the source need not write its RDB to disk first.",
    ),
    key(
        "sync_reader.psync_command",
        Kind::Text,
        r#""""#,
        "Name of PSYNC where the source has it renamed.",
    ),
    key(
        "sync_reader.ack_mode",
        Kind::Word(&["applied", "zero"]),
        r#""applied""#,
        "Offset told to the source: what the target has confirmed (less one byte, so that FAILOVER never picks us), or always 0.",
    ),
    key(
        "sync_reader.on_psync_refused",
        Kind::Word(&["scan", "fail"]),
        r#""scan""#,
        "What to do when the source refuses PSYNC. This version has no SCAN reader and stops in both cases.",
    ),
    key(
        "redis_writer.address",
        Kind::Address,
        r#""""#,
        "The target, host:port.",
    ),
    key(
        "redis_writer.username",
        Kind::Text,
        r#""""#,
        "ACL user at the target; empty for the default user.",
    ),
    key(
        "redis_writer.password",
        Kind::Secret,
        r#""""#,
        "Password at the target; empty for none.",
    ),
    later(
        "redis_writer.cluster",
        Kind::Bool,
        "false",
        "The target is a Redis Cluster.",
    ),
    later(
        "redis_writer.sentinel",
        Kind::Bool,
        "false",
        "The address is a Sentinel's.",
    ),
    later(
        "redis_writer.master",
        Kind::Text,
        r#""""#,
        "Name of the master that Sentinel watches.",
    ),
    key(
        "redis_writer.tls",
        Kind::Bool,
        "false",
        "Speak TLS to the target.",
    ),
    key(
        "redis_writer.tls_config.ca_cert",
        Kind::Text,
        r#""""#,
        "PEM file of the CA to trust instead of the system's roots.",
    ),
    key(
        "redis_writer.tls_config.cert",
        Kind::Text,
        r#""""#,
        "PEM file of our certificate, for mutual TLS.",
    ),
    key(
        "redis_writer.tls_config.key",
        Kind::Text,
        r#""""#,
        "PEM file of our private key, for mutual TLS.",
    ),
    key(
        "redis_writer.tls_config.server_name",
        Kind::Text,
        r#""""#,
        "Name to expect in the server's certificate; default: the host of the address.",
    ),
    key(
        "redis_writer.tls_config.insecure",
        Kind::Bool,
        "false",
        "Do not verify the server's certificate.",
    ),
    later(
        "redis_writer.off_reply",
        Kind::Bool,
        "false",
        "RedisShake's CLIENT REPLY OFF. Replies are what exactly-once stands on: always read here.",
    ),
    key(
        "redis_writer.existing_keys",
        Kind::Word(&["", "fail", "replace", "skip"]),
        r#""""#,
        "Keys that the target holds already; empty: as advanced.rdb_restore_command_behavior says.",
    ),
    key(
        "redis_writer.losses",
        Kind::Word(&["fail", "warn"]),
        r#""fail""#,
        "What the target's version cannot hold (streams, functions, expiries of fields ...): stop and say so, or leave it out, count it and go on.",
    ),
    key(
        "redis_writer.batch_commands",
        Kind::Int {
            min: 1,
            max: 65_536,
        },
        "1024",
        "Most commands in one unit (MULTI ... EXEC with its checkpoint).",
    ),
    key(
        "redis_writer.batch_bytes",
        Kind::Bytes,
        r#""1mb""#,
        "Most bytes in one unit.",
    ),
    key(
        "redis_writer.inflight_bytes",
        Kind::Bytes,
        r#""8mb""#,
        "Most bytes on their way to the target while the snapshot is applied.",
    ),
    later(
        "redis_writer.connections",
        Kind::Int { min: 1, max: 64 },
        "1",
        "Parallel lanes per node.",
    ),
    later(
        "redis_writer.profile",
        Kind::Word(&["auto", "redis", "elasticache", "elasticache-serverless"]),
        r#""auto""#,
        "What may be sent to the target; auto probes.",
    ),
    later(
        "redis_writer.cross_slot",
        Kind::Word(&["emulate", "fail"]),
        r#""emulate""#,
        "Multi-key commands into a cluster.",
    ),
    key("filter.allow_keys", Kind::Texts, "[]", "Only these keys."),
    key(
        "filter.allow_key_prefix",
        Kind::Texts,
        "[]",
        "Only keys that begin with one of these.",
    ),
    key(
        "filter.allow_key_suffix",
        Kind::Texts,
        "[]",
        "Only keys that end with one of these.",
    ),
    key(
        "filter.allow_key_regex",
        Kind::Texts,
        "[]",
        "Only keys that match one of these.",
    ),
    key("filter.block_keys", Kind::Texts, "[]", "Never these keys."),
    key(
        "filter.block_key_prefix",
        Kind::Texts,
        "[]",
        "Never keys that begin with one of these.",
    ),
    key(
        "filter.block_key_suffix",
        Kind::Texts,
        "[]",
        "Never keys that end with one of these.",
    ),
    key(
        "filter.block_key_regex",
        Kind::Texts,
        "[]",
        "Never keys that match one of these.",
    ),
    key("filter.allow_db", Kind::Ints, "[]", "Only these databases."),
    key(
        "filter.block_db",
        Kind::Ints,
        "[]",
        "Never these databases.",
    ),
    key(
        "filter.allow_command",
        Kind::Texts,
        "[]",
        "Only these commands.",
    ),
    key(
        "filter.block_command",
        Kind::Texts,
        "[]",
        "Never these commands.",
    ),
    key(
        "filter.allow_command_group",
        Kind::Texts,
        "[]",
        "Only commands of these groups, e.g. STRING.",
    ),
    key(
        "filter.block_command_group",
        Kind::Texts,
        "[]",
        "Never commands of these groups.",
    ),
    later(
        "filter.function",
        Kind::Text,
        r#""""#,
        "A Lua function run for each command.",
    ),
    key(
        "advanced.dir",
        Kind::Text,
        r#""data""#,
        "Where files of ours are kept.",
    ),
    later(
        "advanced.ncpu",
        COUNT,
        "0",
        "RedisShake's GOMAXPROCS; one link here needs one core.",
    ),
    later(
        "advanced.pprof_port",
        PORT,
        "0",
        "RedisShake's Go profiler.",
    ),
    key(
        "advanced.status_port",
        PORT,
        "0",
        "Port of the page, status, metrics and health; 0: none.",
    ),
    key(
        "advanced.status_address",
        Kind::Text,
        r#""127.0.0.1""#,
        "Address that the status port is bound to.",
    ),
    key(
        "advanced.ready_lag",
        Kind::Time,
        r#""1s""#,
        "Largest lag at which /readyz answers 200.",
    ),
    key(
        "advanced.log_file",
        Kind::Text,
        r#""shake.log""#,
        "Log file in `dir` (JSON lines); empty: none.",
    ),
    key(
        "advanced.log_level",
        Kind::Word(&["trace", "debug", "info", "warn", "error"]),
        r#""info""#,
        "Least severe level that is logged.",
    ),
    key(
        "advanced.log_interval",
        Kind::Int {
            min: 1,
            max: 86_400,
        },
        "5",
        "Seconds between progress lines.",
    ),
    key(
        "advanced.log_rotation",
        Kind::Bool,
        "true",
        "RedisShake's; accepted without effect: the file is only appended to, rotate it from outside.",
    ),
    key(
        "advanced.log_max_size",
        COUNT,
        "512",
        "RedisShake's, as log_rotation.",
    ),
    key(
        "advanced.log_max_age",
        COUNT,
        "7",
        "RedisShake's, as log_rotation.",
    ),
    key(
        "advanced.log_max_backups",
        COUNT,
        "3",
        "RedisShake's, as log_rotation.",
    ),
    key(
        "advanced.log_compress",
        Kind::Bool,
        "true",
        "RedisShake's, as log_rotation.",
    ),
    key(
        "advanced.rdb_restore_command_behavior",
        Kind::Word(&["panic", "rewrite", "skip"]),
        r#""panic""#,
        "Keys that the target holds already: stop before anything is written, replace them, or leave them.",
    ),
    later(
        "advanced.pipeline_count_limit",
        COUNT,
        "1024",
        "RedisShake's bound on commands in flight; here redis_writer.batch_commands and inflight_bytes.",
    ),
    later(
        "advanced.target_redis_max_qps",
        COUNT,
        "300000",
        "RedisShake's rate limit.",
    ),
    key(
        "advanced.target_redis_client_max_querybuf_len",
        Kind::Bytes,
        "1073741824",
        "The target's client-query-buffer-limit: nothing larger is sent in one unit.",
    ),
    key(
        "advanced.target_redis_proto_max_bulk_len",
        Kind::Bytes,
        "512000000",
        "The target's proto-max-bulk-len: larger values are sent as commands in parts.",
    ),
    later(
        "advanced.aws_psync",
        Kind::Text,
        r#""""#,
        "RedisShake's map of renamed PSYNC commands; here sync_reader.psync_command.",
    ),
    key(
        "advanced.empty_db_before_sync",
        Kind::Bool,
        "false",
        "FLUSHALL at the target before the first snapshot.",
    ),
    later(
        "module.target_mbbloom_version",
        COUNT,
        "20603",
        "RedisShake's Bloom rewriting; modules are passed on as they are here.",
    ),
    key(
        "link.name",
        Kind::Text,
        r#""""#,
        "Names the checkpoint; default: made from both addresses. Two links into one target need two names.",
    ),
    key(
        "spool.dir",
        Kind::Text,
        r#""""#,
        "Disk log between source and target; default: `spool` in advanced.dir.",
    ),
    key(
        "spool.max_bytes",
        Kind::Bytes,
        r#""20gb""#,
        "Most bytes of unapplied data on disk; then reading stops, and says so.",
    ),
    key(
        "spool.retain_bytes",
        Kind::Bytes,
        r#""256mb""#,
        "Applied stream kept on disk, from which a target failover is repaired.",
    ),
    later(
        "checkpoint.enabled",
        Kind::Bool,
        "true",
        "Keep the exactly-once position in the target.",
    ),
    key(
        "checkpoint.on_history_lost",
        Kind::Word(&["resync", "fail"]),
        r#""resync""#,
        "When the source no longer has our position: a new snapshot (keys gone at the source are removed), or stop.",
    ),
    key(
        "checkpoint.on_divergence",
        Kind::Word(&["repair", "fail"]),
        r#""repair""#,
        "When a command fails at the target (somebody else has written its key): that key again from the source, or stop.",
    ),
    key(
        "limits.memory",
        Kind::Bytes,
        r#""256mb""#,
        "Memory for data: an eighth of it (1 to 64 MiB) is the newest part of the snapshot and of the stream each, kept beside the disk; an eighth is for one command and a quarter for one transaction, or one element of the snapshot. Large values stay on disk; what does not fit all the same ends the link with a word.",
    ),
    key(
        "limits.shutdown_timeout",
        Kind::Time,
        r#""10s""#,
        "Time given to what is in flight when asked to stop.",
    ),
];
