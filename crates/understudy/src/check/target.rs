//! The target: whether sync would take it, whether there is room, and what would go wrong there later.

use std::collections::BTreeSet;

use bytes::Bytes;
use resp::Value;
use rewrite::Db;

use super::facts::{REPLY_BYTES_MAX, Server};
use super::finding::{Finding, fail, pass, unknown, warn};
use crate::checkpoint;
use crate::client::Client;
use crate::compare::{End, is_ours};
use crate::config::{Config, Endpoint, ExistingKeys, human_bytes};
use crate::error::{Class, Side, SyncError};
use crate::handover::mark::{self, Record};
use crate::rdb::names::printable;
use crate::shard::Group;
use crate::target::{self, cluster};

/// Commands without which nothing can be written as it has to be.
const NEEDED: [&str; 13] = [
    "set",
    "get",
    "del",
    "multi",
    "exec",
    "watch",
    "unwatch",
    "select",
    "restore",
    "pexpireat",
    "scan",
    "info",
    "ping",
];

/// Whether sync would go on with it, by sync's own look; and what it is.
///
/// # Errors
/// Those of the connection.
pub(super) async fn role(config: &Config, target: &Server) -> Result<Vec<Finding>, SyncError> {
    const CHECK: &str = "target";
    let name = target.name();
    let mut client = Client::connect(&config.target.endpoint, Side::Target).await?;
    let mut found = Vec::new();
    let key = checkpoint::key(&config.link_name);
    match target::probe(&mut client, &config.target, &key).await {
        Ok(_) => found.push(pass(CHECK, name)),
        Err(error) => {
            let (what, mend) = error
                .what
                .split_once("; ")
                .map_or((error.what.as_str(), ""), |(what, mend)| (what, mend));
            found.push(fail(CHECK, format!("{name}: {what}"), mend));
        }
    }
    // COMMAND tells the old names of what is renamed; asked for a name, it tells what has it.
    let mut argv: Vec<&[u8]> = vec![b"COMMAND", b"INFO"];
    argv.extend(NEEDED.iter().map(|name| name.as_bytes()));
    if let Value::Array(rows) = client.ask(&argv).await? {
        let lacking: Vec<&str> = NEEDED
            .into_iter()
            .zip(&rows)
            .filter(|(_, row)| matches!(row, Value::Null))
            .map(|(name, _)| name)
            .collect();
        if !lacking.is_empty() {
            found.push(fail(
                "target_commands",
                format!("the target does not have {}", lacking.join(", ")),
                "they are renamed or blocked there: take rename-command out of its configuration (rename-commands in its parameter group at ElastiCache)",
            ));
        }
    }
    Ok(found)
}

/// The value of a key of ours, at the node that has it where the target is a cluster.
async fn own_value(config: &Config, target: &mut Server, key: &str) -> Result<Value, SyncError> {
    let argv: [&[u8]; 2] = [b"GET", key.as_bytes()];
    if config.target.cluster.is_none() {
        return target.end.one(0, &argv).await;
    }
    let located = cluster::locate(&config.target, key).await?;
    let mut client = Client::connect(&located.endpoint, Side::Target).await?;
    client.ask(&argv).await
}

/// Whether it is empty, or what is there.
///
/// # Errors
/// Those of the connection.
pub(super) async fn contents(config: &Config, target: &mut Server) -> Result<Finding, SyncError> {
    const CHECK: &str = "target_empty";
    let key = checkpoint::key(&config.link_name);
    if let Value::Bulk(value) = own_value(config, target, &key).await? {
        let what = format!(
            "this link's checkpoint is there ({}): sync goes on from it",
            String::from_utf8_lossy(&value)
                .split('|')
                .nth(3)
                .unwrap_or("unreadable")
                .to_owned()
        );
        return Ok(pass(CHECK, what));
    }
    let keyspace = match &config.target.cluster {
        None => target.info.keyspace(),
        Some(_) => {
            let located = cluster::locate(&config.target, &key).await?;
            cluster::foreign_keys(&config.target, &located.topology).await?
        }
    };
    let mut keys: u64 = keyspace.iter().map(|(_, keys)| keys).sum();
    if keys > 0 && keys < 1000 && config.target.cluster.is_none() {
        keys = keys.saturating_sub(own_keys(target).await?);
    }
    if keys == 0 {
        return Ok(pass(CHECK, "the target is empty"));
    }
    if config.target.empty_before {
        return Ok(warn(
            CHECK,
            format!("advanced.empty_db_before_sync: the {keys} keys of the target will be removed"),
            "be sure that it is the right server",
        ));
    }
    Ok(match config.target.existing {
        ExistingKeys::Fail => fail(
            CHECK,
            format!("the target holds {keys} keys, and sync will not begin over them"),
            "empty it, or set redis_writer.existing_keys to \"replace\" or \"skip\"",
        ),
        ExistingKeys::Replace if config.target.mirror => warn(
            CHECK,
            format!(
                "the target holds {keys} keys: those that the source has too are replaced, and all others are removed behind the snapshot"
            ),
            "be sure that it is the right server",
        ),
        ExistingKeys::Replace => warn(
            CHECK,
            format!(
                "the target holds {keys} keys: those that the source has too are replaced, the others stay"
            ),
            "empty it, if nobody needs them",
        ),
        ExistingKeys::Skip => warn(
            CHECK,
            format!(
                "the target holds {keys} keys: those that the source has too are not brought over, and the stream changes them all the same"
            ),
            "empty it, if nobody needs them",
        ),
    })
}

async fn own_keys(target: &mut Server) -> Result<u64, SyncError> {
    let mut own = 0;
    for (db, _) in target.info.keyspace() {
        let argv: [&[u8]; 4] = [b"SCAN", b"0", b"COUNT", b"10000"];
        if let Value::Array(parts) = target.end.one(db, &argv).await?
            && let Some(Value::Array(keys)) = parts.get(1)
        {
            let ours = keys
                .iter()
                .filter(|key| key.as_bytes().is_some_and(|key| is_ours(key)));
            own += ours.count() as u64;
        }
    }
    Ok(own)
}

/// Steps of SCAN in which leftovers are looked for.
const STEPS_MAX: usize = 100;

/// What an older run, or another link, has left there of its own keys; nothing where there is nothing.
///
/// # Errors
/// Those of the connection.
pub(super) async fn leftovers(
    config: &Config,
    target: &mut Server,
) -> Result<Option<Finding>, SyncError> {
    const CHECK: &str = "target_leftovers";
    let record_key = mark::key(&config.link_name);
    if let Value::Bulk(value) = own_value(config, target, &record_key).await? {
        let record = Record::parse(&value);
        let is_go = record.is_ok_and(|record| record.is_go());
        return Ok(Some(match is_go {
            true => fail(
                CHECK,
                "this link has made its switch: nothing more would be applied",
                "`understudy cutover --finish` ends it; a new migration needs another link.name",
            ),
            false => warn(
                CHECK,
                "a cutover runs, or has died before it came to GO",
                "`understudy cutover --undo` if none runs",
            ),
        }));
    }
    let key = checkpoint::key(&config.link_name);
    let mut others: Vec<String> = Vec::new();
    // Those of a source cluster's shards are this link's.
    let group = Group::new(config.link_name.clone());
    let is_sibling = |found: &Bytes| config.source.cluster && group.has_key(found);
    let is_other =
        |found: &Bytes| !is_sibling(found) && !cluster::is_of_link(found, &key, &config.link_name);
    if config.target.cluster.is_none() {
        for (db, _) in target.info.keyspace() {
            ours_in(&mut target.end, db, &is_other, &mut others).await?;
        }
    } else {
        let located = cluster::locate(&config.target, &key).await?;
        for address in located.topology.primaries() {
            let endpoint = Endpoint {
                address,
                ..config.target.endpoint.clone()
            };
            let mut end = End::connect(&endpoint, Side::Target, REPLY_BYTES_MAX).await?;
            // Checkpoints are in database 0.
            ours_in(&mut end, 0, &is_other, &mut others).await?;
        }
    }
    Ok(others.first().map(|first| {
        let what = format!(
            "{} keys of other links, or of older runs, such as {first}",
            others.len()
        );
        warn(
            CHECK,
            what,
            "if no such link runs any more, remove them: what is gone at the source stays there while another link's checkpoint is found",
        )
    }))
}

/// Looks through a database for keys of ours that `is_other`, as far as some steps go.
async fn ours_in(
    end: &mut End,
    db: u32,
    is_other: &impl Fn(&Bytes) -> bool,
    others: &mut Vec<String>,
) -> Result<(), SyncError> {
    let mut cursor = Bytes::from_static(b"0");
    for _ in 0..STEPS_MAX {
        let argv: [&[u8]; 6] = [
            b"SCAN",
            &cursor,
            b"MATCH",
            b"understudy:*",
            b"COUNT",
            b"1000",
        ];
        let Value::Array(parts) = end.one(db, &argv).await? else {
            break;
        };
        let [Value::Bulk(next), Value::Array(keys)] = parts.as_slice() else {
            break;
        };
        let found = keys.iter().filter_map(Value::as_bytes);
        let found = found.filter(|key| is_other(key));
        others.extend(found.map(|key| printable(key)));
        cursor = next.clone();
        if cursor.as_ref() == b"0" {
            break;
        }
    }
    Ok(())
}

/// Room for the data, and what happens when it runs out.
pub(super) fn memory(used: Option<u64>, peak: Option<u64>, target: &Server) -> Vec<Finding> {
    const CHECK: &str = "memory";
    let limit = target
        .number("maxmemory")
        .or(target.parameter_number("maxmemory"));
    let policy = target
        .info
        .get("maxmemory_policy")
        .or(target.parameter("maxmemory-policy"))
        .unwrap_or("")
        .to_owned();
    let Some(used) = used else {
        return vec![unknown(
            CHECK,
            "the source does not tell how much memory it uses",
            "",
        )];
    };
    let peak = peak.unwrap_or(used).max(used);
    let amount = format!(
        "the source uses {} (at most so far {})",
        human_bytes(used),
        human_bytes(peak)
    );
    let mut found = Vec::new();
    let room = match limit {
        None => {
            found.push(unknown(
                CHECK,
                format!("{amount}; the target does not tell its limit"),
                "see that it is larger",
            ));
            return found;
        }
        Some(0) => {
            let total = target.number("total_system_memory");
            let what = match total {
                Some(total) => format!(
                    "{amount}; the target has no limit, and its machine {}",
                    human_bytes(total)
                ),
                None => format!("{amount}; the target has no limit"),
            };
            let is_small = total.is_some_and(|total| total < used);
            found.push(match is_small {
                true => fail(CHECK, what, "take a larger machine"),
                false => pass(CHECK, what),
            });
            total
        }
        Some(limit) => {
            let room = limit.saturating_sub(target.number("used_memory").unwrap_or(0));
            let what = format!(
                "{amount}; the target has room for {} of {}",
                human_bytes(room),
                human_bytes(limit)
            );
            let mend = format!(
                "{}, or take a larger node",
                target
                    .provider
                    .set("maxmemory", &(peak / 3 * 4).to_string())
            );
            found.push(match room {
                room if room < used => fail(CHECK, format!("{what}: it does not fit"), mend),
                room if room < peak => warn(CHECK, format!("{what}: its peak would not fit"), mend),
                _ => pass(CHECK, what),
            });
            Some(room)
        }
    };
    let is_limited = limit != Some(0);
    found.push(match policy.as_str() {
        "" => unknown("eviction", "the target does not tell its maxmemory-policy", "it should be noeviction while sync runs"),
        "noeviction" => pass("eviction", "maxmemory-policy is noeviction: a target that is full stops the stream and loses nothing"),
        other if !is_limited => warn(
            "eviction",
            format!("maxmemory-policy is {other}; without maxmemory it does nothing"),
            target.provider.set("maxmemory-policy", "noeviction"),
        ),
        other => {
            let what = format!("maxmemory-policy is {other}: a target that is full would remove keys without a word");
            let mend = target.provider.set("maxmemory-policy", "noeviction");
            match room.is_some_and(|room| room / 2 > peak) {
                true => warn("eviction", what, mend),
                false => fail("eviction", what, mend),
            }
        }
    });
    found
}

/// Whether the target has the databases that are used.
///
/// # Errors
/// Those of the connection.
pub(super) async fn databases(
    config: &Config,
    used: &BTreeSet<u32>,
    target: &Server,
) -> Result<Finding, SyncError> {
    const CHECK: &str = "databases";
    let used: Vec<u32> = used
        .iter()
        .copied()
        .filter(|db| config.filter.db(Db(*db)))
        .collect();
    let names: Vec<String> = used.iter().map(u32::to_string).collect();
    let what = match names.is_empty() {
        true => "no database of the source holds keys".to_owned(),
        false => format!("in use: {}", names.join(", ")),
    };
    let mut client = Client::connect(&config.target.endpoint, Side::Target).await?;
    let wanted: BTreeSet<u32> = used
        .iter()
        .map(|db| config.target.db_of(Db(*db)).0)
        .collect();
    for db in &wanted {
        if *db == 0 {
            continue;
        }
        match client.call(&[b"SELECT", db.to_string().as_bytes()]).await {
            Ok(_) => {}
            Err(error) if error.class == Class::Stop => {
                return Ok(fail(
                    CHECK,
                    format!("{what}; the target does not have database {db}"),
                    match target.info.mode() {
                        Some("cluster") => format!(
                            "a cluster has database 0 alone, unless it is Valkey 9.0 or later with cluster-databases {} or more: bring them into it by redis_writer.db_map (\"prefix\"), or leave them out by filter.block_db",
                            db + 1
                        ),
                        _ => format!(
                            "set databases to {} or more in the target's configuration and start it anew (when it is created, at a managed service), or leave it out by filter.block_db",
                            db + 1
                        ),
                    },
                ));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(pass(CHECK, format!("{what}; the target has them")))
}

/// What would get into the way later.
pub(super) fn obstacles(target: &Server) -> Vec<Finding> {
    let mut found = Vec::new();
    let replicas = target.number("connected_slaves").unwrap_or(0);
    let wanted = target
        .parameter_number("min-replicas-to-write")
        .unwrap_or(0);
    if wanted > replicas {
        found.push(fail(
            "target_replicas",
            format!("min-replicas-to-write is {wanted} and the target has {replicas} replicas: it refuses every write"),
            target.provider.set("min-replicas-to-write", "0"),
        ));
    }
    if target.info.get("rdb_last_bgsave_status") == Some("err") {
        found.push(warn(
            "target_saving",
            "the target's last BGSAVE failed: with stop-writes-on-bgsave-error it refuses writes",
            "mend its disk or memory, or switch saving off there for the time of the migration",
        ));
    }
    match target.parameter("notify-keyspace-events") {
        None => found.push(unknown("keyspace_events", "the target does not tell its notify-keyspace-events", "")),
        Some("") => found.push(pass("keyspace_events", "the target sends no keyspace events")),
        Some(events) => found.push(warn(
            "keyspace_events",
            format!("the target sends keyspace events ({events}) for every write of ours: whoever listens there sees the whole migration"),
            target.provider.set("notify-keyspace-events", ""),
        )),
    }
    if let (Some(clients), Some(most)) = (
        target.number("connected_clients"),
        target
            .number("maxclients")
            .or(target.parameter_number("maxclients")),
    ) && clients + 10 > most
    {
        found.push(fail(
            "target_clients",
            format!("{clients} of {most} clients are connected to the target"),
            target.provider.set("maxclients", &(most * 2).to_string()),
        ));
    }
    match target.sentinels {
        Some(0) | None => {}
        Some(count) => found.push(warn(
            "target_sentinel",
            format!("{count} Sentinels watch the target: a failover moves its address"),
            "give an address that follows the master (a DNS name, a proxy)",
        )),
    }
    found
}
