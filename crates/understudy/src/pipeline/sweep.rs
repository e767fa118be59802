//! Removing what is gone at the source, after a snapshot was applied over an older copy.

use std::collections::HashSet;
use std::hash::{BuildHasher, Hasher, RandomState};

use bytes::Bytes;
use resp::Value;

use crate::checkpoint::{self, Checkpoint, KEY_PREFIX};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Side, SyncError};

/// Keys removed in one transaction.
const BATCH_KEYS: usize = 100;

/// The keys of a snapshot, as 64-bit hashes: eight bytes a key, whatever its length. A collision
/// keeps one stale key in 2^64 / keys; it never removes a live one.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    state: RandomState,
    hashes: HashSet<u64>,
}

impl KeySet {
    pub(crate) fn insert(&mut self, db: u32, key: &[u8]) {
        let hash = self.hash(db, key);
        self.hashes.insert(hash);
    }

    pub(crate) fn remove(&mut self, db: u32, key: &[u8]) {
        let hash = self.hash(db, key);
        self.hashes.remove(&hash);
    }

    fn contains(&self, db: u32, key: &[u8]) -> bool {
        self.hashes.contains(&self.hash(db, key))
    }

    fn hash(&self, db: u32, key: &[u8]) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write_u32(db);
        hasher.write(key);
        hasher.finish()
    }
}

/// Removes every key of the target that is not in `keys` (and is neither ours nor filtered away).
/// Gives the number removed.
///
/// # Errors
/// Stop when the snapshot holds less than `shrunk_percent` of the target's keys: a source that came
/// back empty must not empty its copy. Reconnect when the link is no longer `owner`'s: whoever has it writes by a snapshot of
/// its own.
pub(crate) async fn sweep(
    config: &Config,
    keys: &KeySet,
    shrunk_percent: u64,
    owner: u64,
) -> Result<u64, SyncError> {
    let mut client = Client::connect(&config.target.endpoint, Side::Target).await?;
    let held: u64 = client
        .info("keyspace")
        .await?
        .keyspace()
        .iter()
        .map(|(_, keys)| keys)
        .sum();
    let offered = keys.hashes.len() as u64;
    if offered.saturating_mul(100) < held.saturating_sub(1).saturating_mul(shrunk_percent) {
        let what = format!(
            "its new snapshot holds {offered} keys, but the target {held}: has the source lost its data? No key was removed at the target; to accept the smaller source, empty the target, delete its checkpoint, and start again"
        );
        return Err(SyncError::stop(
            Side::Source,
            &config.source.endpoint.address,
            what,
        ));
    }
    if other_links(config, &mut client).await? {
        tracing::warn!(
            "another link writes to this target too: keys that are gone at this source are left there"
        );
        return Ok(0);
    }
    let mut stale: Vec<(u32, Bytes)> = Vec::new();
    each_key(config, &mut client, |db, key| {
        if config.filter.key(key) && !keys.contains(db, key) {
            stale.push((db, key.clone()));
        }
    })
    .await?;
    for keys in stale.chunk_by(|(a, _), (b, _)| a == b) {
        for batch in keys.chunks(BATCH_KEYS) {
            remove(config, &mut client, batch, owner).await?;
        }
    }
    Ok(stale.len() as u64)
}

/// Removes keys of one database, if the link is still `owner`'s. No unit is under way that changes the checkpoint.
async fn remove(
    config: &Config,
    client: &mut Client,
    keys: &[(u32, Bytes)],
    owner: u64,
) -> Result<(), SyncError> {
    let Some((db, _)) = keys.first() else {
        return Ok(());
    };
    let lost = || {
        let what = "another understudy has begun here meanwhile: nothing more is removed";
        SyncError::reconnect(Side::Target, &config.target.endpoint.address, what)
    };
    let own = checkpoint::key(&config.link_name);
    client.call(&[b"SELECT", b"0"]).await?;
    client.call(&[b"WATCH", own.as_bytes()]).await?;
    let value = client.call(&[b"GET", own.as_bytes()]).await?;
    match value.as_bytes().map(|value| Checkpoint::parse(value)) {
        Some(Ok(found)) if found.owner == owner => {}
        _ => return Err(lost()),
    }
    client.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
    // Alone: a busy server may refuse it and take what follows, which then would not be guarded.
    client.call(&[b"MULTI"]).await?;
    let mut del: Vec<&[u8]> = vec![b"DEL"];
    del.extend(keys.iter().map(|(_, key)| key.as_ref()));
    client.call(&del).await?;
    match client.call(&[b"EXEC"]).await? {
        Value::Array(_) => Ok(()),
        _ => Err(lost()),
    }
}

/// Removes values under construction that a run which was killed has left: only where a value may not be built under its own
/// name, beside keys that were there before. Gives the number removed.
///
/// # Errors
/// As those of the connection.
pub(crate) async fn remove_unfinished(config: &Config) -> Result<u64, SyncError> {
    let mut client = Client::connect(&config.target.endpoint, Side::Target).await?;
    let mut removed = 0;
    for (db, _) in client.info("keyspace").await?.keyspace() {
        client.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
        let mut unfinished = Vec::new();
        each_key_of_db(config, &mut client, |key| {
            if key.starts_with(rewrite::TEMPORARY_KEY_PREFIX) {
                unfinished.push(key.clone());
            }
        })
        .await?;
        for key in &unfinished {
            client.call(&[b"DEL", key]).await?;
        }
        removed += unfinished.len() as u64;
    }
    Ok(removed)
}

/// Whether another link keeps its checkpoint in the target: then not every key there is ours.
async fn other_links(config: &Config, client: &mut Client) -> Result<bool, SyncError> {
    let own = checkpoint::key(&config.link_name);
    client.call(&[b"SELECT", b"0"]).await?;
    let mut cursor = Bytes::from_static(b"0");
    loop {
        let (next, found) = scan(config, client, &cursor).await?;
        let others = |key: &Bytes| key.starts_with(KEY_PREFIX.as_bytes()) && key != own.as_bytes();
        if found.iter().any(others) {
            return Ok(true);
        }
        if next.as_ref() == b"0" {
            return Ok(false);
        }
        cursor = next;
    }
}

/// Calls `f` with every key of the target that is not ours, in the databases that pass the filter.
pub(super) async fn each_key(
    config: &Config,
    client: &mut Client,
    mut f: impl FnMut(u32, &Bytes),
) -> Result<(), SyncError> {
    for (db, _) in client.info("keyspace").await?.keyspace() {
        if !config.filter.db(rewrite::Db(db)) {
            continue;
        }
        client.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
        each_key_of_db(config, client, |key| {
            if !is_own(key) {
                f(db, key);
            }
        })
        .await?;
    }
    Ok(())
}

/// Calls `f` with every key of the database that is selected.
async fn each_key_of_db(
    config: &Config,
    client: &mut Client,
    mut f: impl FnMut(&Bytes),
) -> Result<(), SyncError> {
    let mut cursor = Bytes::from_static(b"0");
    loop {
        let (next, found) = scan(config, client, &cursor).await?;
        found.iter().for_each(&mut f);
        if next.as_ref() == b"0" {
            return Ok(());
        }
        cursor = next;
    }
}

async fn scan(
    config: &Config,
    client: &mut Client,
    cursor: &[u8],
) -> Result<(Bytes, Vec<Bytes>), SyncError> {
    let reply = client.call(&[b"SCAN", cursor, b"COUNT", b"1000"]).await?;
    if let Value::Array(parts) = reply
        && let [Value::Bulk(next), Value::Array(keys)] = parts.as_slice()
    {
        let keys = keys.iter().filter_map(|key| match key {
            Value::Bulk(key) => Some(key.clone()),
            _ => None,
        });
        return Ok((next.clone(), keys.collect()));
    }
    let what = "SCAN answered something that is not a cursor and keys";
    Err(SyncError::stop(
        Side::Target,
        &config.target.endpoint.address,
        what,
    ))
}

/// Keys that we keep at the target.
pub(crate) fn is_own(key: &[u8]) -> bool {
    key.starts_with(KEY_PREFIX.as_bytes()) || key.starts_with(rewrite::TEMPORARY_KEY_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_belong_to_their_database() {
        let mut keys = KeySet::default();
        keys.insert(1, b"a");
        assert!(keys.contains(1, b"a"));
        assert!(!keys.contains(0, b"a") && !keys.contains(1, b"b"));
    }

    #[test]
    fn own_keys() {
        assert!(is_own(b"understudy:checkpoint:x") && is_own(b"understudy:tmp:{a}"));
        assert!(!is_own(b"understudy") && !is_own(b"{a}understudy:"));
    }
}
