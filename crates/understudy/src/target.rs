//! The target: opening it, finding out what it can do, and owning its checkpoint.

pub(crate) mod cluster;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use replica::ReplId;
use resp::Value;
use rewrite::{Abilities, Db, Fork};
use tokio::time::Instant;

pub(crate) use self::cluster::Cluster;
use self::cluster::Topology;
use crate::checkpoint::{self, Checkpoint, Phase};
use crate::client::{Client, Info};
use crate::config::TargetConfig;
use crate::error::{Class, Side, SyncError};
use crate::handover::mark::{self, Record};
use crate::net::Stream;
use crate::probe;
use crate::renew::Renewal;

/// A target that is ours: the checkpoint carries our epoch, the connection watches it, and is in MULTI.
pub(crate) struct Target {
    pub(crate) pipe: Pipe,
    pub(crate) abilities: Abilities,
    pub(crate) checkpoint: Checkpoint,
    /// How long it takes to answer.
    pub(crate) round_trip: Duration,
    /// All nodes, where it is a cluster: `pipe` is of no use then.
    pub(crate) cluster: Option<Cluster>,
}

/// A connection that is written to and read from at the same time.
pub(crate) struct Pipe {
    pub(crate) stream: Stream,
    pub(crate) replies: BytesMut,
    /// When it has to say again who we are, whoever writes to it.
    pub(crate) renewal: Renewal,
}

/// Databases that the target is known to have.
#[derive(Debug, Default)]
pub(crate) struct Databases(RefCell<BTreeSet<Db>>);

impl Databases {
    /// Makes sure that the target can SELECT `db`. (Of a cluster, who writes there does: [`Cluster::have_db`].)
    ///
    /// # Errors
    /// Stop when it cannot; otherwise as [`Client::connect`].
    pub(crate) async fn check(&self, config: &TargetConfig, db: Db) -> Result<(), SyncError> {
        if db == Db(0) || config.cluster.is_some() || self.0.borrow().contains(&db) {
            return Ok(());
        }
        let mut client = Client::connect(&config.endpoint, Side::Target).await?;
        let selected = client.call(&[b"SELECT", db.0.to_string().as_bytes()]).await;
        selected.map_err(|error| match error.class {
            Class::Stop => SyncError {
                what: format!("the source uses database {}, but {}; nothing of it was written: give the target more databases, or set filter.block_db", db.0, error.what),
                ..error
            },
            Class::Reconnect | Class::Resync => error,
        })?;
        self.0.borrow_mut().insert(db);
        Ok(())
    }
}

/// What taking the target found.
pub(crate) enum Found {
    /// No checkpoint of this link.
    Nothing,
    /// A checkpoint an earlier run, or an earlier connection, left.
    Checkpoint(Checkpoint),
}

/// A target that was looked at but not yet taken.
pub(crate) struct Visit<'a> {
    client: Client,
    config: &'a TargetConfig,
    key: String,
    pub(crate) abilities: Abilities,
    pub(crate) found: Found,
    /// What a switch-over has left.
    record: Option<Record>,
    /// Ids of the target's own histories: one, or each node's of a cluster.
    replids: Vec<String>,
    link_name: String,
    topology: Option<Topology>,
    renewal: Renewal,
}

/// Connects and reads the checkpoint of `link_name`.
///
/// # Errors
/// As [`Client::connect`]; stop for a checkpoint that cannot be read, or a server of no use.
pub(crate) async fn visit<'a>(
    config: &'a TargetConfig,
    link_name: &str,
) -> Result<Visit<'a>, SyncError> {
    let key = checkpoint::key(link_name);
    // In a cluster the link's checkpoint is where its slot is.
    let (endpoint, topology) = match &config.cluster {
        None => (config.endpoint.clone(), None),
        Some(_) => {
            let located = cluster::locate(config, &key).await?;
            (located.endpoint, Some(located.topology))
        }
    };
    let renewal = Renewal::new(&endpoint);
    let mut client = Client::connect(&endpoint, Side::Target).await?;
    let (mut abilities, replid) = probe(&mut client, config, &key).await?;
    let mut replids = Vec::from_iter(replid);
    if let Some(topology) = &topology {
        // A string of a snapshot is collected whole before it goes to its node.
        abilities.bulk_bytes_max = abilities.bulk_bytes_max.min(CLUSTER_BULK_BYTES_MAX);
        replids.extend(cluster::replids(config, topology, &endpoint.address).await?);
    }
    let record = match (&config.group, &config.cluster) {
        // In a cluster that of a source cluster's links is in another slot.
        (Some(_), Some(_)) => mark::read(config, link_name).await?,
        _ => mark::get(&mut client, mark::name(config, link_name)).await?,
    };
    let found = watch_and_read(&mut client, config, &key).await?;
    Ok(Visit {
        client,
        config,
        key,
        abilities,
        found,
        record,
        replids,
        link_name: link_name.to_owned(),
        topology,
        renewal,
    })
}

/// A larger string of a snapshot is put together at a cluster's node.
const CLUSTER_BULK_BYTES_MAX: u64 = 8 << 20;

async fn watch_and_read(
    client: &mut Client,
    config: &TargetConfig,
    key: &str,
) -> Result<Found, SyncError> {
    client.call(&[b"WATCH", key.as_bytes()]).await?;
    match client.call(&[b"GET", key.as_bytes()]).await? {
        Value::Null => Ok(Found::Nothing),
        Value::Bulk(value) => Checkpoint::parse(&value)
            .map(Found::Checkpoint)
            .map_err(|why| {
                let what =
                    format!("the checkpoint {key} cannot be read: {why}; delete it to begin anew");
                SyncError::stop(Side::Target, &config.endpoint.address, what)
            }),
        other => {
            let what = format!("GET {key} answered {other:?}");
            Err(SyncError::stop(
                Side::Target,
                &config.endpoint.address,
                what,
            ))
        }
    }
}

/// What the target can do, and the id of its history. `key` is that of the link's checkpoint.
pub(crate) async fn probe(
    client: &mut Client,
    config: &TargetConfig,
    key: &str,
) -> Result<(Abilities, Option<String>), SyncError> {
    let address = &config.endpoint.address;
    let info = client.info("server").await?;
    let (fork, version) = version_of(&info).ok_or_else(|| {
        SyncError::stop(
            Side::Target,
            address,
            "INFO names no redis_version or valkey_version",
        )
    })?;
    let version = version
        .parse()
        .map_err(|error| SyncError::stop(Side::Target, address, error))?;
    if info.mode() == Some("sentinel") {
        let what = "this is a Sentinel; use the address of the master it watches";
        return Err(SyncError::stop(Side::Target, address, what));
    }
    if info.mode() == Some("cluster") && config.cluster.is_none() {
        let what = "this is a node of a cluster: set redis_writer.cluster = true";
        return Err(SyncError::stop(Side::Target, address, what));
    }
    let replication = client.info("replication").await?;
    if replication.get("role") == Some("slave") {
        let master = replication.get("master_host").unwrap_or("?");
        let what = format!("this is a replica (of {master}); use the address of the primary");
        return Err(SyncError::reconnect(Side::Target, address, what));
    }
    let mut abilities = Abilities::from_version(fork, version);
    abilities.commands = commands(client).await?.map(Arc::new);
    let profile = config.profile.found(config.endpoint.host(), info.get("os"));
    profile.limit(&mut abilities);
    let probed = probe::probe(client, &mut abilities, profile, key).await?;
    probed.tell(&abilities, profile);
    if config.bulk_bytes_max == 0 {
        abilities.restore = false;
    } else {
        abilities.bulk_bytes_max = abilities.bulk_bytes_max.min(config.bulk_bytes_max);
    }
    Ok((
        abilities,
        replication.get("master_replid").map(str::to_owned),
    ))
}

/// The names of its commands in lower case; `None` if it does not tell them (a user without `+command`).
async fn commands(client: &mut Client) -> Result<Option<BTreeSet<String>>, SyncError> {
    let Value::Array(rows) = client.ask(&[b"COMMAND"]).await? else {
        return Ok(None);
    };
    let name = |row: &Value| match row {
        Value::Array(facts) => facts.first()?.as_bytes().map(|name| name.to_vec()),
        _ => None,
    };
    let names: BTreeSet<String> = rows
        .iter()
        .filter_map(name)
        .map(|name| String::from_utf8_lossy(&name).to_ascii_lowercase())
        .collect();
    // Whatever else may be missing there: a server that tells of no SET has not told everything.
    Ok(names.contains("set").then_some(names))
}

/// Family and version out of `INFO server`.
pub(crate) fn version_of(info: &Info) -> Option<(Fork, &str)> {
    info.get("valkey_version")
        .map(|version| (Fork::Valkey, version))
        .or_else(|| {
            info.get("redis_version")
                .map(|version| (Fork::Redis, version))
        })
}

impl Visit<'_> {
    /// The switch, if it has been made.
    pub(crate) fn switch(&self) -> Option<&Record> {
        self.record.as_ref().filter(|record| record.is_go())
    }

    /// Refuses a target that has the source's own history: it is the source under another name, or the
    /// master of a source that is a replica. A link from there would follow itself.
    pub(crate) fn refuse_source(&self, replid: ReplId) -> Result<(), SyncError> {
        if !self.replids.contains(&replid.to_string()) {
            return Ok(());
        }
        let what = "this is the source itself, or the source's master: both have the same replication id; nothing was written; set redis_writer.address to another server";
        Err(SyncError::stop(
            Side::Target,
            &self.config.endpoint.address,
            what,
        ))
    }

    /// Keys per database that are not ours.
    pub(crate) async fn foreign_keys(&mut self) -> Result<Vec<(u32, u64)>, SyncError> {
        if let Some(topology) = &self.topology {
            return cluster::foreign_keys(self.config, topology).await;
        }
        let mut keyspace = self.client.info("keyspace").await?.keyspace();
        for (db, keys) in &mut keyspace {
            if *db == 0 {
                // Every checkpoint of ours lives in db 0; there are never many.
                *keys = keys.saturating_sub(self.own_keys().await?);
            }
        }
        keyspace.retain(|(_, keys)| *keys > 0);
        Ok(keyspace)
    }

    async fn own_keys(&mut self) -> Result<u64, SyncError> {
        let mut cursor = b"0".to_vec();
        let mut found = 0;
        // A target with many keys is not empty, whatever is ours among them: a few steps suffice.
        for _ in 0..16 {
            let reply = self
                .client
                .call(&[
                    b"SCAN",
                    &cursor,
                    b"MATCH",
                    b"understudy:checkpoint:*",
                    b"COUNT",
                    b"1000",
                ])
                .await?;
            let Value::Array(parts) = reply else { break };
            let [next, Value::Array(keys)] = parts.as_slice() else {
                break;
            };
            found += keys.len() as u64;
            cursor = next
                .as_bytes()
                .map_or_else(|| b"0".to_vec(), |next| next.to_vec());
            if cursor == b"0" {
                break;
            }
        }
        Ok(found)
    }

    /// FLUSHALL, for `empty_db_before_sync`.
    pub(crate) async fn flush(&mut self) -> Result<(), SyncError> {
        match &self.topology {
            Some(topology) => cluster::flush(self.config, topology).await?,
            None => drop(self.client.call(&[b"FLUSHALL"]).await?),
        }
        self.watch_again().await
    }

    async fn watch_again(&mut self) -> Result<(), SyncError> {
        self.client.call(&[b"UNWATCH"]).await?;
        self.found = watch_and_read(&mut self.client, self.config, &self.key).await?;
        Ok(())
    }

    /// Writes `checkpoint` and goes on watching it. Whoever watched it before, with an EXEC still on
    /// its way, gets nil for that.
    ///
    /// `Ok(Err(self))`: somebody changed the checkpoint between our look and our write; look again.
    pub(crate) async fn take(
        mut self,
        checkpoint: Checkpoint,
    ) -> Result<Result<Target, Self>, SyncError> {
        let value = checkpoint.to_string();
        self.client.call(&[b"MULTI"]).await?;
        self.client
            .call(&[b"SET", self.key.as_bytes(), value.as_bytes()])
            .await?;
        let fence = checkpoint::fence(&self.key);
        // It is in another slot, and leases of a cluster are kept apart as its units are.
        if self.topology.is_none() {
            for command in checkpoint::touch(&fence) {
                self.client.call(&command).await?;
            }
        }
        if self.client.call(&[b"EXEC"]).await? == Value::Null {
            self.found = watch_and_read(&mut self.client, self.config, &self.key).await?;
            return Ok(Err(self));
        }
        let asked = Instant::now();
        self.found = watch_and_read(&mut self.client, self.config, &self.key).await?;
        let round_trip = asked.elapsed() / 2;
        // Whoever took it between EXEC and WATCH would not be noticed later.
        if !matches!(&self.found, Found::Checkpoint(found) if *found == checkpoint) {
            return Ok(Err(self));
        }
        let mut checkpoint = checkpoint;
        let cluster = match self.topology {
            Some(topology) => {
                self.client.call(&[b"UNWATCH"]).await?;
                let opened = Cluster::open(self.config, &self.link_name, topology, &checkpoint);
                let mut cluster = opened.await?;
                // A node may have lost what was applied of a snapshot.
                if let Phase::Snapshot(progress) = &mut checkpoint.phase
                    && cluster.snapshot_bytes() < progress.rdb_bytes
                {
                    progress.rdb_bytes = cluster.snapshot_bytes();
                    cluster.write_checkpoint(&checkpoint).await?;
                }
                Some(cluster)
            }
            None => {
                // As every unit leaves it: what comes next is in the transaction, or nothing does.
                self.client.call(&[b"MULTI"]).await?;
                None
            }
        };
        let mut abilities = self.abilities;
        if let Some(cluster) = &cluster {
            abilities.args_max = cluster.args_max(abilities.args_max);
        }
        Ok(Ok(Target {
            pipe: Pipe {
                stream: self.client.into_stream(),
                replies: BytesMut::with_capacity(64 << 10),
                renewal: self.renewal,
            },
            abilities,
            checkpoint,
            round_trip,
            cluster,
        }))
    }
}

/// Takes the target back after a lost connection, raising the epoch.
///
/// # Errors
/// Stop when another daemon has it, or the checkpoint is gone; resync when what is there is older than this run.
pub(crate) async fn retake(
    config: &TargetConfig,
    link_name: &str,
    ours: &Checkpoint,
) -> Result<Target, SyncError> {
    let address = &config.endpoint.address;
    let mut visit = visit(config, link_name).await?;
    if visit.switch().is_some_and(|record| !record.applies_late()) {
        let what = "the switch has been made meanwhile: it is the application's";
        return Err(SyncError::resync(Side::Target, address, what));
    }
    loop {
        let found = match &visit.found {
            Found::Nothing => {
                let what = "our checkpoint is gone: the target was flushed, or restarted without its data; start again for a new snapshot";
                return Err(SyncError::stop(Side::Target, address, what));
            }
            // An older epoch is our own past: the target has fallen back.
            Found::Checkpoint(found) if found.owner != ours.owner && found.epoch > ours.epoch => {
                return Err(fenced(address));
            }
            // Before our time: an earlier run's, or that of another daemon which found a target that had lost ours. What
            // is there has to be looked at anew.
            Found::Checkpoint(found) if found.owner != ours.owner => {
                let what = "it has fallen back to before this run took it over";
                return Err(SyncError::resync(Side::Target, address, what));
            }
            Found::Checkpoint(found) => found.clone(),
        };
        let next = Checkpoint {
            epoch: found.epoch.max(ours.epoch) + 1,
            owner: ours.owner,
            ..found
        };
        match visit.take(next).await? {
            Ok(target) => return Ok(target),
            Err(again) => visit = again,
        }
    }
}

/// A target that holds keys is not written to, where it has to be empty.
///
/// # Errors
/// Stop, with how many keys there are.
pub(crate) fn refuse_foreign(
    config: &TargetConfig,
    foreign: &[(u32, u64)],
) -> Result<(), SyncError> {
    if foreign.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = foreign
        .iter()
        .map(|(db, keys)| format!("db{db}: {keys}"))
        .collect();
    let what = format!(
        "the target holds keys already ({}); empty it, or set rdb_restore_command_behavior to \"rewrite\" (replace them) or \"skip\" (leave them); nothing was written",
        list.join(", ")
    );
    Err(SyncError::stop(
        Side::Target,
        &config.endpoint.address,
        what,
    ))
}

/// The word when another daemon has taken the link.
pub(crate) fn fenced(address: &str) -> SyncError {
    SyncError::stop(
        Side::Target,
        address,
        "another understudy has taken over this link (its checkpoint carries another epoch); this one stops",
    )
}

/// A diverged or missing phase in words, for errors.
pub(crate) fn phase_word(phase: &Phase) -> &'static str {
    match phase {
        Phase::Snapshot(_) => "an unfinished snapshot",
        Phase::Stream(_) => "a position in the stream",
        Phase::Diverged(_) => "a divergence",
        Phase::Scan(_) => "a copy made by SCAN",
    }
}
