//! Removing what is gone at the source, after a snapshot was applied over an older copy: keys, and libraries of functions.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{BuildHasher, Hasher, RandomState};

use bytes::Bytes;
use resp::Value;

use crate::checkpoint::{self, Checkpoint, KEY_PREFIX};
use crate::client::Client;
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::handover::mark;

/// Keys removed in one transaction.
const BATCH_KEYS: usize = 100;

/// The keys of a snapshot, as 64-bit hashes: eight bytes a key, whatever its length. A collision
/// keeps one stale key in 2^64 / keys; it never removes a live one.
#[derive(Debug, Default)]
pub(crate) struct KeySet {
    state: RandomState,
    hashes: HashSet<u64>,
    /// Names of its libraries of functions.
    libraries: BTreeSet<Vec<u8>>,
    /// There are libraries whose names are not known.
    has_unnamed_library: bool,
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

    /// A library of functions, by its first line: `#!<engine> name=<name>`.
    pub(crate) fn insert_library(&mut self, code: &[u8]) {
        let line = code.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let mut words = line.split(u8::is_ascii_whitespace);
        let name = words.find_map(|word| {
            let (head, name) = word.split_at_checked(5)?;
            head.eq_ignore_ascii_case(b"name=").then_some(name)
        });
        let is_plain = |name: &&[u8]| {
            let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            !name.is_empty() && name.iter().all(is_plain)
        };
        match name.filter(is_plain) {
            Some(name) => drop(self.libraries.insert(name.to_vec())),
            // A name in quotes, for instance.
            None => self.has_unnamed_library = true,
        }
    }

    /// A library whose name is told apart from its code.
    pub(crate) fn insert_library_name(&mut self, name: &[u8]) {
        self.libraries.insert(name.to_vec());
    }

    /// Whether the snapshot holds this key.
    pub(crate) fn contains(&self, db: u32, key: &[u8]) -> bool {
        self.hashes.contains(&self.hash(db, key))
    }

    /// How many keys.
    pub(super) fn len(&self) -> u64 {
        self.hashes.len() as u64
    }

    pub(super) fn has_unnamed_library(&self) -> bool {
        self.has_unnamed_library
    }

    pub(super) fn has_library(&self, name: &[u8]) -> bool {
        self.libraries.contains(name)
    }

    fn hash(&self, db: u32, key: &[u8]) -> u64 {
        let mut hasher = self.state.build_hasher();
        hasher.write_u32(db);
        hasher.write(key);
        hasher.finish()
    }
}

/// Removes every key of the target that is not in `keys` (and is neither ours nor filtered away), and every library of
/// functions, where it has such (`functions`). Gives the number of keys removed.
///
/// # Errors
/// Stop when the snapshot holds less than `shrunk_percent` of the target's keys: a source that came
/// back empty must not empty its copy. Reconnect when the link is no longer `owner`'s: whoever has it writes by a snapshot of
/// its own.
pub(crate) async fn sweep(
    config: &Config,
    keys: &KeySet,
    functions: bool,
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
    // The keys of other shards are not this link's to count.
    let held = match &config.shard {
        None => held,
        Some(_) => {
            let mut own = 0;
            each_key(config, &mut client, |_, _| own += 1).await?;
            own
        }
    };
    let offered = keys.hashes.len() as u64;
    if offered.saturating_mul(100) < held.saturating_sub(1).saturating_mul(shrunk_percent) {
        // What is there may be what another daemon has written since.
        watch_owned(config, &mut client, owner).await?;
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
    let mut removed = 0;
    for (db, _) in client.info("keyspace").await?.keyspace() {
        if may_hold(config, db) {
            removed += sweep_db(config, keys, &mut client, db, owner).await?;
        }
    }
    let has_libraries = config
        .shard
        .as_ref()
        .is_none_or(|shard| shard.has_libraries());
    let libraries = match functions && has_libraries {
        true => sweep_libraries(config, &mut client, keys, owner).await?,
        false => Vec::new(),
    };
    if !libraries.is_empty() {
        tracing::info!(
            ?libraries,
            "removed libraries of functions that are gone at the source"
        );
    }
    Ok(removed)
}

/// Removes what is not in `keys` from a database, as it is found.
async fn sweep_db(
    config: &Config,
    keys: &KeySet,
    client: &mut Client,
    db: u32,
    owner: u64,
) -> Result<u64, SyncError> {
    let mut removed = 0;
    let mut cursor = Bytes::from_static(b"0");
    client.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
    loop {
        let (next, found) = scan(config, client, &cursor, &[]).await?;
        let is_stale =
            |key: &&Bytes| !is_own(key) && config.may_be_copied(db, key) && !keys.contains(db, key);
        let stale: Vec<&Bytes> = found.iter().filter(is_stale).collect();
        for batch in stale.chunks(BATCH_KEYS) {
            let mut del: Vec<&[u8]> = vec![b"DEL"];
            del.extend(batch.iter().map(|key| key.as_ref()));
            // The connection is in this database again behind it.
            remove(config, client, db, &del, owner).await?;
            removed += batch.len() as u64;
        }
        if next.as_ref() == b"0" {
            return Ok(removed);
        }
        cursor = next;
    }
}

/// Whether a database of the target may hold anything of the source's.
pub(super) fn may_hold(config: &Config, db: u32) -> bool {
    match &config.target.db_map {
        _ if config.function.is_some() => true,
        Some(map) => map.may_hold(rewrite::Db(db)),
        None => config.filter.db(rewrite::Db(db)),
    }
}

/// Removes (or writes) something by a command in a database, if the link is still `owner`'s. No unit is under way that changes the
/// checkpoint.
async fn remove(
    config: &Config,
    client: &mut Client,
    db: u32,
    command: &[&[u8]],
    owner: u64,
) -> Result<(), SyncError> {
    watch_owned(config, client, owner).await?;
    client.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
    // Alone: a busy server may refuse it and take what follows, which then would not be guarded.
    client.call(&[b"MULTI"]).await?;
    client.call(command).await?;
    match client.call(&[b"EXEC"]).await? {
        Value::Array(_) => Ok(()),
        _ => Err(lost(config)),
    }
}

/// Writes the checkpoint, if the link is still its owner's, over a connection of its own.
pub(super) async fn write_owned(config: &Config, checkpoint: &Checkpoint) -> Result<(), SyncError> {
    let mut client = Client::connect(&config.target.endpoint, Side::Target).await?;
    let key = checkpoint::key(&config.link_name);
    let value = checkpoint.to_string();
    let set: [&[u8]; 3] = [b"SET", key.as_bytes(), value.as_bytes()];
    remove(config, &mut client, 0, &set, checkpoint.owner).await
}

/// Watches the checkpoint, in which the link is `owner`'s.
async fn watch_owned(config: &Config, client: &mut Client, owner: u64) -> Result<(), SyncError> {
    let own = checkpoint::key(&config.link_name);
    client.call(&[b"SELECT", b"0"]).await?;
    client.call(&[b"WATCH", own.as_bytes()]).await?;
    let value = client.call(&[b"GET", own.as_bytes()]).await?;
    match value.as_bytes().map(|value| Checkpoint::parse(value)) {
        Some(Ok(found)) if found.owner == owner => Ok(()),
        _ => Err(lost(config)),
    }
}

fn lost(config: &Config) -> SyncError {
    let what = "another understudy has begun here meanwhile: nothing more is removed";
    SyncError::reconnect(Side::Target, &config.target.endpoint.address, what)
}

/// Whether the filter lets libraries of functions be loaded, and be removed.
pub(super) fn may_remove_libraries(config: &Config) -> bool {
    ["function|load", "function|delete"].iter().all(|name| {
        let scripting = rewrite::Group::Scripting;
        config.filter.command(name, scripting).is_ok()
    })
}

/// Removes every library of functions at the target that is not in `keys`; gives their names.
///
/// # Errors
/// Those of the connection; a user who may not list functions is no error.
async fn sweep_libraries(
    config: &Config,
    client: &mut Client,
    keys: &KeySet,
    owner: u64,
) -> Result<Vec<String>, SyncError> {
    if keys.has_unnamed_library {
        tracing::warn!(
            "the name of a library of functions at the source is not understood: libraries that are gone there are left at the target"
        );
        return Ok(Vec::new());
    }
    if !may_remove_libraries(config) {
        return Ok(Vec::new());
    }
    let rows = match client.ask(&[b"FUNCTION", b"LIST"]).await? {
        Value::Array(rows) => rows,
        // A target before 7.0 has none.
        Value::Error(error) if error.code == resp::ErrorCode::NoPerm => {
            tracing::warn!(
                "the user at the target may not list functions (+function|list): libraries that are gone at the source are left there"
            );
            return Ok(Vec::new());
        }
        _ => return Ok(Vec::new()),
    };
    let mut removed = Vec::new();
    for row in &rows {
        let Some(name) = library_name(row).filter(|name| !keys.libraries.contains(&name[..]))
        else {
            continue;
        };
        remove(config, client, 0, &[b"FUNCTION", b"DELETE", &name], owner).await?;
        removed.push(name.escape_ascii().to_string());
    }
    Ok(removed)
}

/// The name in a row of FUNCTION LIST, which is a list of names and values, or a map.
pub(super) fn library_name(row: &Value) -> Option<Bytes> {
    let word = |value: &Value| value.as_bytes().cloned();
    match row {
        Value::Array(facts) => facts
            .chunks(2)
            .find(|pair| pair.first().and_then(word).as_deref() == Some(b"library_name"))
            .and_then(|pair| word(pair.get(1)?)),
        _ => None,
    }
}

/// Removes values under construction that a run which was killed has left: only where a value may not be built under its own
/// name, beside keys that were there before. Gives the number removed.
///
/// # Errors
/// As those of the connection.
pub(crate) async fn remove_unfinished(config: &Config) -> Result<u64, SyncError> {
    if config.target.cluster.is_none() {
        let client = Client::connect(&config.target.endpoint, Side::Target).await?;
        return remove_unfinished_at(config, client).await;
    }
    let mut removed = 0;
    for client in crate::target::cluster::connect_all(config).await? {
        removed += remove_unfinished_at(config, client).await?;
    }
    Ok(removed)
}

async fn remove_unfinished_at(config: &Config, mut client: Client) -> Result<u64, SyncError> {
    let mut removed = 0;
    for (db, _) in client.info("keyspace").await?.keyspace() {
        client.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
        let mut unfinished = Vec::new();
        each_key_of_db(config, &mut client, |key| {
            let slot = rewrite::slot_of(key);
            // Another shard may be building its own.
            let is_ours = config.shard.as_ref().is_none_or(|shard| shard.holds(slot));
            if is_ours && key.starts_with(rewrite::TEMPORARY_KEY_PREFIX) {
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

/// Whether the target has libraries of functions that a new snapshot may replace as a whole: nobody else keeps a checkpoint
/// there. No, where that cannot be seen now.
pub(crate) async fn has_old_libraries(config: &Config) -> bool {
    let found = async {
        let mut client = Client::connect(&config.target.endpoint, Side::Target).await?;
        match client.ask(&[b"FUNCTION", b"LIST"]).await? {
            Value::Array(rows) if !rows.is_empty() => {
                Ok::<_, SyncError>(!other_links(config, &mut client).await?)
            }
            _ => Ok(false),
        }
    };
    let has_libraries = config
        .shard
        .as_ref()
        .is_none_or(|shard| shard.has_libraries());
    has_libraries && may_remove_libraries(config) && found.await.unwrap_or(false)
}

/// Whether another link keeps its checkpoint in the target: then not every key there is ours.
async fn other_links(config: &Config, client: &mut Client) -> Result<bool, SyncError> {
    let own = [
        checkpoint::key(&config.link_name),
        mark::key(&config.link_name),
    ];
    client.call(&[b"SELECT", b"0"]).await?;
    let mut cursor = Bytes::from_static(b"0");
    loop {
        let (next, found) = scan(config, client, &cursor, &[]).await?;
        let others = |key: &Bytes| {
            let is_own = own.iter().any(|own| key == own.as_bytes());
            let is_sibling = config
                .shard
                .as_ref()
                .is_some_and(|shard| shard.group.has_key(key));
            key.starts_with(KEY_PREFIX.as_bytes()) && !is_own && !is_sibling
        };
        if found.iter().any(others) {
            return Ok(true);
        }
        if next.as_ref() == b"0" {
            return Ok(false);
        }
        cursor = next;
    }
}

/// Calls `f` with every key of the target that is not ours, and may be one of the source's that passes the filter.
async fn each_key(
    config: &Config,
    client: &mut Client,
    mut f: impl FnMut(u32, &Bytes),
) -> Result<(), SyncError> {
    for (db, _) in client.info("keyspace").await?.keyspace() {
        if !may_hold(config, db) {
            continue;
        }
        client.call(&[b"SELECT", db.to_string().as_bytes()]).await?;
        each_key_of_db(config, client, |key| {
            if !is_own(key) && config.may_be_copied(db, key) {
                f(db, key);
            }
        })
        .await?;
    }
    Ok(())
}

/// Lists the target's keys of these slots, which are those of a source cluster; there they are all in database 0.
pub(super) async fn each_key_of_slots(
    config: &Config,
    slots: &mut BTreeMap<u16, Vec<Bytes>>,
) -> Result<(), SyncError> {
    let mut client = Client::connect(&config.target.endpoint, Side::Target).await?;
    each_key_of_db(config, &mut client, |key| {
        if !is_own(key)
            && let Some(keys) = slots.get_mut(&rewrite::slot_of(key).0)
        {
            keys.push(key.clone());
        }
    })
    .await
}

/// Calls `f` with every key of the database that is selected, or with those of a kind, by the words behind SCAN.
async fn each_key_of_db(
    config: &Config,
    client: &mut Client,
    mut f: impl FnMut(&Bytes),
) -> Result<(), SyncError> {
    let mut cursor = Bytes::from_static(b"0");
    loop {
        let (next, found) = scan(config, client, &cursor, &[]).await?;
        found.iter().for_each(&mut f);
        if next.as_ref() == b"0" {
            return Ok(());
        }
        cursor = next;
    }
}

pub(super) async fn scan(
    config: &Config,
    client: &mut Client,
    cursor: &[u8],
    kind: &[&[u8]],
) -> Result<(Bytes, Vec<Bytes>), SyncError> {
    let words = [&[b"SCAN", cursor, b"COUNT", b"1000"], kind].concat();
    let reply = client.call(&words).await?;
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
    fn libraries_are_known_by_their_first_line() {
        let mut keys = KeySet::default();
        keys.insert_library(b"#!lua name=mylib\nname=other");
        keys.insert_library(b"#!lua  engine=x name=second\r\nreturn 1");
        keys.insert_library(b"#!lua NAME=third");
        let names: Vec<&[u8]> = keys.libraries.iter().map(Vec::as_slice).collect();
        assert_eq!(names, [&b"mylib"[..], b"second", b"third"]);
        for odd in [&b"no header"[..], b"#!lua name=\"quoted\"", b"#!lua name="] {
            keys.has_unnamed_library = false;
            keys.insert_library(odd);
            assert!(keys.has_unnamed_library && keys.libraries.len() == 3);
        }
    }

    #[test]
    fn own_keys() {
        assert!(is_own(b"understudy:checkpoint:x") && is_own(b"understudy:tmp:{a}"));
        assert!(!is_own(b"understudy") && !is_own(b"{a}understudy:"));
    }
}
