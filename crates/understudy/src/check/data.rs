//! The data: modules, functions, commands in use, the largest keys, and the node that would hold it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use resp::Value;
use rewrite::Table;
use rewrite::table::Flags;

use super::facts::Server;
use super::finding::{Finding, fail, pass, unknown, warn};
use super::nodes;
use crate::compare::{Choice, Walk};
use crate::config::{Config, human_bytes};
use crate::error::SyncError;
use crate::rdb::names::{grouped, printable};

/// A key beyond this is worth a word.
const BIG_BYTES: u64 = 64 << 20;
/// So many of the largest are named.
const NAMED: usize = 5;

/// What a look at some keys found.
#[derive(Debug, Default)]
pub(super) struct Sample {
    pub(super) keys: u64,
    pub(super) of: u64,
    /// Types by number.
    pub(super) types: BTreeMap<String, u64>,
    /// The largest, the largest first.
    pub(super) biggest: Vec<(u64, u32, Bytes, String)>,
}

impl Sample {
    pub(super) fn add(&mut self, db: u32, key: Bytes, kind: &str, bytes: u64) {
        self.keys += 1;
        *self.types.entry(kind.to_owned()).or_default() += 1;
        self.biggest.push((bytes, db, key, kind.to_owned()));
        if self.biggest.len() > 64 {
            self.settle();
        }
    }

    pub(super) fn settle(&mut self) {
        self.biggest.sort_by(|a, b| b.cmp(a));
        self.biggest.truncate(NAMED);
    }

    /// Looks at some keys of a server; none where it does not let us.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn of(
        config: &Config,
        server: &mut Server,
        most: u64,
    ) -> Result<Option<Self>, SyncError> {
        let choice = Choice::new(config, crate::config::WHOLE_PPM);
        let mut sample = Self::default();
        let Ok(mut walk) = Walk::begin(&mut server.end, config).await else {
            return Ok(None);
        };
        sample.of = walk.keys;
        loop {
            let names = match walk.next(&mut server.end, &choice).await {
                Ok(Some(names)) if sample.keys < most => names,
                Ok(_) => break,
                Err(_) => return Ok(None),
            };
            for run in names.chunk_by(|a, b| a.0 == b.0) {
                let Some((db, _)) = run.first() else { continue };
                let mut commands: Vec<Vec<&[u8]>> = Vec::new();
                for (_, key) in run {
                    commands.push(vec![b"TYPE", key]);
                    commands.push(vec![b"MEMORY", b"USAGE", key]);
                }
                let replies = server.end.ask(*db, &commands).await?;
                for ((_, key), pair) in run.iter().zip(replies.chunks_exact(2)) {
                    match pair {
                        [Value::Simple(kind), Value::Int(bytes)] => sample.add(
                            *db,
                            key.clone(),
                            &String::from_utf8_lossy(kind),
                            u64::try_from(*bytes).unwrap_or(0),
                        ),
                        // It has gone meanwhile.
                        [Value::Simple(_), Value::Null] => {}
                        _ => return Ok(None),
                    }
                }
            }
        }
        sample.settle();
        Ok(Some(sample))
    }

    /// The largest keys.
    pub(super) fn biggest(&self, config: &Config) -> Finding {
        const CHECK: &str = "big_keys";
        let names: Vec<String> = self
            .biggest
            .iter()
            .map(|(bytes, db, key, kind)| {
                let bytes = human_bytes(*bytes);
                format!("\"{}\" (db {db}, {kind}, {bytes})", printable(key))
            })
            .collect();
        let what = match names.is_empty() {
            true => "there are no keys".to_owned(),
            false => format!(
                "the largest of {} keys looked at{}: {}",
                grouped(self.keys),
                match self.of > self.keys {
                    true => format!(" (of {})", grouped(self.of)),
                    false => String::new(),
                },
                names.join(", ")
            ),
        };
        let most = self.biggest.first().map_or(0, |(bytes, ..)| *bytes);
        let repair_max = config.repair_bytes_max();
        if most > BIG_BYTES {
            return warn(
                CHECK,
                what,
                format!(
                    "they pass in pieces, but hold up the target while they are written; a repair of one needs limits.memory of {}",
                    human_bytes(most * 16)
                ),
            );
        }
        if most > repair_max {
            return warn(
                CHECK,
                what,
                format!(
                    "a key above {} cannot be repaired alone, only by a new snapshot: limits.memory = \"{}mb\"",
                    human_bytes(repair_max),
                    (most * 16) >> 20
                ),
            );
        }
        pass(CHECK, what)
    }
}

/// Values that belong to modules, by their types in the sample.
const MODULE_TYPES: [(&str, &str); 10] = [
    ("ReJSON-RL", "json"),
    ("MBbloom--", "bf"),
    ("MBbloomCF", "bf"),
    ("CMSk-TYPE", "bf"),
    ("TopK-TYPE", "bf"),
    ("TDIS-TYPE", "bf"),
    ("TSDB-TYPE", "timeseries"),
    ("vectorset", "vectorset"),
    ("graphdata", "graph"),
    ("bloomfltr", "bf"),
];

/// Modules that the source has and the target does not.
pub(super) fn modules(
    source: Option<&Vec<String>>,
    target: &Server,
    types: Option<&BTreeMap<String, u64>>,
) -> Finding {
    const CHECK: &str = "modules";
    let used: BTreeSet<&str> = types
        .into_iter()
        .flatten()
        .filter_map(|(kind, _)| {
            let known = MODULE_TYPES.iter().find(|(name, _)| name == kind);
            let plain = [
                "string", "list", "set", "zset", "hash", "stream", "array", "none",
            ];
            match known {
                Some((_, module)) => Some(*module),
                None if plain.contains(&kind.as_str()) => None,
                None => Some(kind.as_str()),
            }
        })
        .collect();
    let Some(source) = source else {
        return match used.is_empty() {
            true => unknown(
                CHECK,
                "the source does not tell its modules; the keys looked at are of none",
                "",
            ),
            false => unknown(
                CHECK,
                format!(
                    "the source does not tell its modules, but holds values of {}",
                    list(&used)
                ),
                "see that the target has them",
            ),
        };
    };
    if source.is_empty() && used.is_empty() {
        return pass(CHECK, "the source has none");
    }
    let at_target: BTreeSet<String> = target
        .modules
        .iter()
        .flatten()
        .map(|name| name.to_ascii_lowercase())
        .collect();
    let has = |name: &str| {
        let name = name.to_ascii_lowercase();
        let (name, of) = (name.trim_start_matches("re"), name.as_str());
        at_target
            .iter()
            .any(|other| other == of || other.trim_start_matches("re") == name)
    };
    let lacking: BTreeSet<&str> = source
        .iter()
        .map(String::as_str)
        .chain(used.iter().copied())
        .filter(|name| !has(name))
        .collect();
    if lacking.is_empty() {
        return pass(CHECK, format!("the target has them: {}", source.join(", ")));
    }
    let is_used = lacking.iter().any(|name| {
        let name = name.to_ascii_lowercase();
        used.iter()
            .any(|used| name.trim_start_matches("re") == used.to_ascii_lowercase())
    });
    let what = format!("the target does not have {}", list(&lacking));
    let mend = "take a target that has the module; or leave these keys out (filter.block_key_prefix); or redis_writer.losses = \"warn\" leaves them out and counts them";
    match is_used {
        true => fail(
            CHECK,
            format!("{what}, of which the source holds values"),
            mend,
        ),
        false => warn(
            CHECK,
            format!("{what}; no value of theirs is among the keys looked at"),
            mend,
        ),
    }
}

fn list(names: &BTreeSet<&str>) -> String {
    names.iter().copied().collect::<Vec<_>>().join(", ")
}

/// Libraries of functions.
pub(super) fn functions(libraries: Option<u64>, target: &Server) -> Finding {
    const CHECK: &str = "functions";
    match libraries {
        None | Some(0) => pass(CHECK, "the source has none"),
        Some(count) if target.libraries.is_some() => pass(
            CHECK,
            format!("{count} libraries, and the target has functions"),
        ),
        Some(count) => fail(
            CHECK,
            format!("{count} libraries of functions, and the target has no functions (7.0)"),
            "a newer target; or filter.block_command = [\"FUNCTION\"], and the clients do without",
        ),
    }
}

/// Commands that clients of the source have used and that the target lacks, or that it would not take across slots.
pub(super) fn commands(source: &Server, target: &Server) -> Vec<Finding> {
    let mut found = Vec::new();
    let used = used_commands(source);
    if used.is_empty() {
        return vec![unknown(
            "commands",
            "the source does not tell which commands are used (INFO commandstats)",
            "",
        )];
    }
    let table = Table::new();
    let is_of_data = |name: &str| {
        table.lookup(name.as_bytes()).is_none_or(|command| {
            command.flags.has(Flags::WRITE) || command.flags.has(Flags::READONLY)
        })
    };
    match &target.commands {
        None => found.push(unknown(
            "commands",
            "the target does not tell its commands",
            "allow +command",
        )),
        Some(commands) => {
            let lacking: BTreeSet<&str> = used
                .iter()
                .map(String::as_str)
                .filter(|name| !name.contains('|') && is_of_data(name))
                .filter(|name| !commands.contains(*name))
                .collect();
            found.push(match lacking.is_empty() {
                true => pass("commands", format!("the target has all {} that are used", used.len())),
                false => warn(
                    "commands",
                    format!("used at the source, and not there at the target: {}", list(&lacking)),
                    "sync says writes in older words where there are some (docs/compatibility.md); the clients have to do without them at the target, or take a newer one",
                ),
            });
        }
    }
    if target.info.mode() == Some("cluster") {
        let several = [
            "mset",
            "msetnx",
            "rename",
            "renamenx",
            "copy",
            "smove",
            "rpoplpush",
            "lmove",
            "brpoplpush",
            "blmove",
            "sunionstore",
            "sinterstore",
            "sdiffstore",
            "zunionstore",
            "zinterstore",
            "zdiffstore",
            "zrangestore",
            "bitop",
            "pfmerge",
            "mget",
            "sort",
            "geosearchstore",
            "eval",
            "evalsha",
            "fcall",
            "multi",
        ];
        let across: BTreeSet<&str> = several
            .into_iter()
            .filter(|name| used.contains(*name))
            .collect();
        found.push(match across.is_empty() {
            true => pass("cross_slot", "no command in use names several keys"),
            false => warn(
                "cross_slot",
                format!(
                    "in use, and refused by a cluster when their keys are in different slots: {}",
                    list(&across)
                ),
                "give keys that belong together one hash tag ({..}) before the clients move",
            ),
        });
    }
    found
}

fn used_commands(source: &Server) -> BTreeSet<String> {
    let text = source.commandstats.text();
    let names = text.lines().filter_map(|line| {
        let (name, _) = line.strip_prefix("cmdstat_")?.split_once(':')?;
        Some(name.to_ascii_lowercase())
    });
    names.collect()
}

/// What a source's version can hold and a target's cannot.
pub(super) fn versions(source: &Server, target: &Server) -> Finding {
    const CHECK: &str = "versions";
    let of =
        |server: &Server| rewrite::Abilities::from_version(server.end.fork, server.end.version);
    let (from, to) = (of(source), of(target));
    let features = [
        (from.streams, to.streams, "streams"),
        (from.functions, to.functions, "functions"),
        (
            from.hash_field_ttl,
            to.hash_field_ttl,
            "expiries of hash fields",
        ),
        (
            from.stream_idempotence,
            to.stream_idempotence,
            "what streams remember of producers",
        ),
        (
            from.stream_returns,
            to.stream_returns,
            "messages that were given back",
        ),
        (from.arrays, to.arrays, "arrays"),
    ];
    let lost: Vec<&str> = features
        .iter()
        .filter(|(from, to, _)| *from && !*to)
        .map(|(_, _, name)| *name)
        .collect();
    let what = format!("{} to {}", source.end.name(), target.end.name());
    match lost.is_empty() {
        true => pass(
            CHECK,
            format!("{what}: the target holds all that the source can"),
        ),
        false => warn(
            CHECK,
            format!(
                "{what}: the target cannot hold {}; sync stops at the first of them",
                lost.join(", ")
            ),
            "a newer target; or redis_writer.losses = \"warn\" leaves them out and counts them (docs/compatibility.md)",
        ),
    }
}

/// The ElastiCache node that would hold so much.
pub(super) fn node(peak: Option<u64>) -> Finding {
    const CHECK: &str = "elasticache_node";
    let Some(peak) = peak else {
        return unknown(
            CHECK,
            "the source does not tell how much memory it uses",
            "",
        );
    };
    let (node, shards) = nodes::that_holds(peak);
    let (redis, valkey) = node.month();
    let many = match shards {
        1 => String::new(),
        shards => format!("{shards} shards of "),
    };
    #[expect(clippy::cast_precision_loss, reason = "a small number of shards")]
    let count = shards as f64;
    let credits = match node.is_burstable() {
        true => "; its processor and its line run on credits, which a snapshot spends",
        false => "",
    };
    pass(
        CHECK,
        format!(
            "{} with a quarter in reserve: {many}{} ({} GiB), {:.0} USD a month with Valkey, {:.0} with Redis OSS; each replica as much again ({}){credits}",
            human_bytes(peak),
            node.name,
            node.memory_gib,
            valkey * count,
            redis * count,
            nodes::PRICES_OF,
        ),
    )
}
