//! Removing what is gone at the source from every node, after a snapshot over an older copy.

use bytes::Bytes;
use resp::Value;

use crate::checkpoint::{self, KEY_PREFIX};
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::pipeline::KeySet;
use crate::pipeline::sweep::{is_own, library_name, may_remove_libraries};
use crate::target::cluster::{Cluster, Group, is_of_link};

/// Keys removed at once.
const BATCH_KEYS: usize = 1000;

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
    let held = cluster.foreign_keys(&config.target).await?;
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
    let Some(stale) = stale(config, keys, cluster).await? else {
        tracing::warn!(
            "another link writes to this target too: keys that are gone at this source are left there"
        );
        return Ok(0);
    };
    for batch in stale.chunks(BATCH_KEYS) {
        let mut groups: Vec<Group> = Vec::new();
        for key in batch {
            let mut group = Group::new(rewrite::slot_of(key), None);
            resp::encode::command(&mut group.bytes, &[b"DEL", key]);
            group.commands = 1;
            groups.push(group);
        }
        cluster.run(&config.target, groups, None).await?;
    }
    libraries(config, keys, cluster).await?;
    Ok(stale.len() as u64)
}

/// Keys that are not in `keys`; `None` when another link keeps a checkpoint here: then not every key is ours.
async fn stale(
    config: &Config,
    keys: &KeySet,
    cluster: &mut Cluster,
) -> Result<Option<Vec<Bytes>>, SyncError> {
    let own = checkpoint::key(&config.link_name);
    let mut stale = Vec::new();
    for address in cluster.slots().into_keys() {
        let mut cursor = Bytes::from_static(b"0");
        loop {
            let (next, found) = cluster.scan(&address, &cursor).await?;
            for key in found {
                if key.starts_with(KEY_PREFIX.as_bytes()) {
                    let is_sibling = config
                        .shard
                        .as_ref()
                        .is_some_and(|shard| shard.group.has_key(&key));
                    if !is_sibling && !is_of_link(&key, &own, &config.link_name) {
                        return Ok(None);
                    }
                } else if !is_own(&key) && config.may_be_copied(0, &key) && !keys.contains(0, &key)
                {
                    stale.push(key);
                }
            }
            if next.as_ref() == b"0" {
                break;
            }
            cursor = next;
        }
    }
    Ok(Some(stale))
}

/// Removes every library of functions that is not in `keys`.
async fn libraries(config: &Config, keys: &KeySet, cluster: &mut Cluster) -> Result<(), SyncError> {
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
        cluster.everywhere(&frame).await?;
        tracing::info!(library = %name.escape_ascii(), "removed a library of functions that is gone at the source");
    }
    Ok(())
}
