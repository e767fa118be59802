//! Removing what is gone at the source from every node, after a snapshot over an older copy.

use std::collections::BTreeSet;

use bytes::Bytes;
use resp::Value;
use rewrite::Db;

use crate::checkpoint::{self, KEY_PREFIX};
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::pipeline::KeySet;
use crate::pipeline::sweep::{is_own, library_name, may_remove_libraries};
use crate::target::cluster::{Cluster, Group, is_of_link};

/// Removes every key of the cluster that is not in `keys` (and is neither ours nor filtered away), and every library of functions.
/// Gives the number of keys removed.
///
/// # Errors
/// As [`crate::pipeline::sweep`].
pub(crate) async fn sweep(
    config: &Config,
    keys: &KeySet,
    shrunk_percent: u64,
    cluster: &mut Cluster,
) -> Result<u64, SyncError> {
    let held = match config.shard {
        None => cluster.foreign_keys(&config.target, None).await?,
        // The keys of other shards are not this link's to count.
        Some(_) => count_own(config, cluster).await?,
    };
    let offered = keys.len();
    if offered.saturating_mul(100) < held.saturating_mul(shrunk_percent) {
        let what = format!(
            "its new snapshot holds {offered} keys, but the target {held}: has the source lost its data? No key was removed at the target; to accept the smaller source, empty the target, delete its checkpoint, and start again"
        );
        return Err(SyncError::stop(
            Side::Source,
            &config.source.endpoint.address,
            what,
        ));
    }
    if has_other_links(config, cluster).await? {
        tracing::warn!(
            "another link writes to this target too: keys that are gone at this source are left there"
        );
        return Ok(0);
    }
    let mut removed = 0;
    let mut left = BTreeSet::new();
    for address in cluster.slots().into_keys() {
        for db in cluster.dbs_of(&address).await? {
            // The scripts write to no other.
            if db != 0 && cluster.is_lua() {
                let map = config.target.db_map.as_ref();
                let is_ours = map.is_none_or(|map| map.may_hold(Db(db)));
                if is_ours && (map.is_some() || config.filter.db(Db(db))) {
                    left.insert(db);
                }
                continue;
            }
            removed += sweep_one(config, keys, cluster, &address, db).await?;
        }
    }
    if !left.is_empty() {
        tracing::warn!(
            databases = ?left,
            "the cluster holds keys in databases that the scripts which keep other writers out (redis_writer.slot_fence) do not write to: what is gone at the source is left there; empty these databases by hand (SELECT, FLUSHDB at every primary), or give the user +client|list +client|kill +client|setname"
        );
    }
    libraries(config, keys, cluster).await?;
    Ok(removed)
}

/// How many keys of all nodes may be this link's.
async fn count_own(config: &Config, cluster: &mut Cluster) -> Result<u64, SyncError> {
    let mut count = 0;
    for address in cluster.slots().into_keys() {
        let mut cursor = Bytes::from_static(b"0");
        loop {
            let (next, found) = cluster.scan(&address, 0, &cursor).await?;
            let is_ours = |key: &&Bytes| !is_own(key) && config.may_be_copied(0, key);
            count += found.iter().filter(is_ours).count() as u64;
            if next.as_ref() == b"0" {
                break;
            }
            cursor = next;
        }
    }
    Ok(count)
}

/// Whether another link keeps a checkpoint here: then not every key is ours.
async fn has_other_links(config: &Config, cluster: &mut Cluster) -> Result<bool, SyncError> {
    let own = checkpoint::key(&config.link_name);
    let is_other = |key: &Bytes| {
        let shard = config.shard.as_ref();
        let is_sibling = shard.is_some_and(|shard| shard.group.has_key(key));
        key.starts_with(KEY_PREFIX.as_bytes())
            && !is_sibling
            && !is_of_link(key, &own, &config.link_name)
    };
    for address in cluster.slots().into_keys() {
        let mut cursor = Bytes::from_static(b"0");
        loop {
            let (next, found) = cluster.scan(&address, 0, &cursor).await?;
            if found.iter().any(is_other) {
                return Ok(true);
            }
            if next.as_ref() == b"0" {
                break;
            }
            cursor = next;
        }
    }
    Ok(false)
}

/// Removes what is not in `keys` from a database of one node, as it is found.
async fn sweep_one(
    config: &Config,
    keys: &KeySet,
    cluster: &mut Cluster,
    address: &str,
    db: u32,
) -> Result<u64, SyncError> {
    let mut removed = 0;
    let mut cursor = Bytes::from_static(b"0");
    loop {
        let (next, found) = cluster.scan(address, db, &cursor).await?;
        let is_stale =
            |key: &&Bytes| !is_own(key) && config.may_be_copied(db, key) && !keys.contains(db, key);
        let mut groups: Vec<Group> = Vec::new();
        for key in found.iter().filter(is_stale) {
            let mut group = Group::plain(rewrite::slot_of(key), db);
            resp::encode::command(&mut group.bytes, &[b"DEL", key]);
            group.commands = 1;
            groups.push(group);
        }
        if !groups.is_empty() {
            removed += groups.len() as u64;
            cluster.have_db(db).await?;
            cluster.run(&config.target, groups, None).await?;
        }
        if next.as_ref() == b"0" {
            return Ok(removed);
        }
        cursor = next;
    }
}

/// Removes every library of functions that is not in `keys`.
async fn libraries(config: &Config, keys: &KeySet, cluster: &mut Cluster) -> Result<(), SyncError> {
    let shard = config.shard.as_ref();
    if !shard.is_none_or(|shard| shard.has_libraries()) {
        return Ok(());
    }
    if keys.has_unnamed_library() || !may_remove_libraries(config) || !cluster.has_functions() {
        return Ok(());
    }
    let Value::Array(rows) = cluster.ask_any(&[b"FUNCTION", b"LIST"]).await? else {
        return Ok(());
    };
    for name in rows.iter().filter_map(library_name) {
        if keys.has_library(&name) {
            continue;
        }
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, &[b"FUNCTION", b"DELETE", &name]);
        // One that a node does not have is as good.
        cluster.everywhere(&config.target, &frame).await?;
        tracing::info!(library = %name.escape_ascii(), "removed a library of functions that is gone at the source");
    }
    Ok(())
}
