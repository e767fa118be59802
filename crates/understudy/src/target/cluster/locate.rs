//! Finding a cluster's nodes: from the address that was given, or from any node that was seen before.

use std::collections::BTreeMap;
use std::time::Duration;

use resp::{ErrorCode, Value};
use rewrite::slot_of;

use super::topology::{self, Topology};
use crate::client::Client;
use crate::config::{ClusterConfig, Config, Endpoint, TargetConfig};
use crate::error::{Class, Side, SyncError};
use crate::profile::Profile;

/// A cluster that was looked at.
pub(crate) struct Located {
    pub(crate) topology: Topology,
    /// The node that has the slot that was asked for.
    pub(crate) endpoint: Endpoint,
}

/// The port at which ElastiCache Serverless answers reads alone.
const SERVERLESS_READER: &str = ":6380";

/// Who has which slot, and the node of `key`.
///
/// # Errors
/// Stop for what is no cluster, and for an endpoint that only reads; reconnect where no node answers or a slot has no node.
pub(crate) async fn locate(config: &TargetConfig, key: &str) -> Result<Located, SyncError> {
    locate_by(config, key, &[]).await
}

/// Where some nodes are silent, the next one is asked after so long.
const QUICK: Duration = Duration::from_secs(2);

/// The same, where some of the nodes `silent` do not answer somebody who asks them: they are asked last, and not waited for.
pub(crate) async fn locate_by(
    config: &TargetConfig,
    key: &str,
    silent: &[String],
) -> Result<Located, SyncError> {
    let Some(settings) = &config.cluster else {
        let what = "redis_writer.cluster is not set";
        return Err(SyncError::stop(
            Side::Target,
            &config.endpoint.address,
            what,
        ));
    };
    refuse_reader(&config.endpoint)?;
    let mut failed: Option<SyncError> = None;
    let mut cut_off: Option<(String, Topology)> = None;
    let mut all = candidates(settings, &config.endpoint.address);
    all.sort_by_key(|address| silent.contains(address));
    for address in all {
        let asked = ask(config, &address);
        let told = match silent.is_empty() {
            true => asked.await,
            false => match tokio::time::timeout(QUICK, asked).await {
                Ok(told) => told,
                Err(_) => continue,
            },
        };
        match told {
            // One that is cut off from the others tells what it knew last: another one is believed first.
            Ok((topology, false)) => cut_off = cut_off.or(Some((address, topology))),
            Ok((topology, true)) => {
                note(settings, &address, &topology);
                return with_owner(config, topology, key);
            }
            Err(error) if error.class == Class::Stop && address == config.endpoint.address => {
                return Err(error);
            }
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    // Nobody finds the cluster well: it is down, which its answers to writes tell.
    if let Some((address, topology)) = cut_off {
        note(settings, &address, &topology);
        return with_owner(config, topology, key);
    }
    Err(failed.unwrap_or_else(|| {
        SyncError::reconnect(
            Side::Target,
            &config.endpoint.address,
            "no node of the cluster answers",
        )
    }))
}

fn refuse_reader(endpoint: &Endpoint) -> Result<(), SyncError> {
    let address = &endpoint.address;
    if address.contains(".serverless.") && address.ends_with(SERVERLESS_READER) {
        let what = "this is the reader endpoint of a serverless cache, which takes no writes; use port 6379";
        return Err(SyncError::stop(Side::Target, address, what));
    }
    Ok(())
}

/// Nodes that were seen, the last one that answered first, and the address that was given.
fn candidates(settings: &ClusterConfig, given: &str) -> Vec<String> {
    let mut all = settings.nodes_seen();
    if !all.iter().any(|address| address == given) {
        all.push(given.to_owned());
    }
    all
}

fn note(settings: &ClusterConfig, answered: &str, topology: &Topology) {
    let mut all = vec![answered.to_owned()];
    all.extend(
        topology
            .nodes()
            .into_iter()
            .filter(|address| address != answered),
    );
    let seen = settings.seen.lock();
    *seen.unwrap_or_else(std::sync::PoisonError::into_inner) = all;
}

/// What a node tells, and whether it finds the cluster well.
async fn ask(config: &TargetConfig, address: &str) -> Result<(Topology, bool), SyncError> {
    let endpoint = Endpoint {
        address: address.to_owned(),
        ..config.endpoint.clone()
    };
    let mut client = Client::connect(&endpoint, Side::Target).await?;
    let reply = match client.ask(&[b"CLUSTER", b"SLOTS"]).await? {
        Value::Error(error) if error.text.ends_with(b"cluster support disabled") => {
            let what = "this is not a cluster: set redis_writer.cluster = false";
            return Err(SyncError::stop(Side::Target, address, what));
        }
        Value::Error(error) => return Err(client.refused(&[b"CLUSTER SLOTS"], &error)),
        reply => reply,
    };
    let topology = Topology::parse(&reply, address)
        .map_err(|what| SyncError::stop(Side::Target, address, what))?;
    if let Some(slot) = topology.missing() {
        let what = format!(
            "no node has slot {}; is the cluster whole? `redis-cli --cluster check {address}` tells",
            slot.0
        );
        return Err(SyncError::reconnect(Side::Target, address, what));
    }
    // Who may not ask has to take it as it is.
    let info = client.ask(&[b"CLUSTER", b"INFO"]).await?;
    let text = info.as_bytes().cloned().unwrap_or_default();
    let is_well = !String::from_utf8_lossy(&text).contains("cluster_state:fail");
    Ok((topology, is_well))
}

fn with_owner(config: &TargetConfig, topology: Topology, key: &str) -> Result<Located, SyncError> {
    let slot = slot_of(key.as_bytes());
    let Some(owner) = topology.owner(slot) else {
        let what = format!("no node has slot {}", slot.0);
        return Err(SyncError::reconnect(
            Side::Target,
            &config.endpoint.address,
            what,
        ));
    };
    let endpoint = Endpoint {
        address: owner.address.clone(),
        ..config.endpoint.clone()
    };
    Ok(Located { topology, endpoint })
}

/// A connection to one of the nodes.
pub(crate) async fn connect(config: &TargetConfig, address: &str) -> Result<Client, SyncError> {
    let endpoint = Endpoint {
        address: address.to_owned(),
        ..config.endpoint.clone()
    };
    Client::connect(&endpoint, Side::Target).await
}

/// A connection to each primary.
pub(crate) async fn connect_all(config: &Config) -> Result<Vec<Client>, SyncError> {
    let key = crate::checkpoint::key(&config.link_name);
    let located = locate(&config.target, &key).await?;
    let mut clients = Vec::new();
    for address in located.topology.primaries() {
        clients.push(connect(&config.target, &address).await?);
    }
    Ok(clients)
}

/// The ids of the histories of all primaries but one.
pub(crate) async fn replids(
    config: &TargetConfig,
    topology: &Topology,
    but: &str,
) -> Result<Vec<String>, SyncError> {
    let mut replids = Vec::new();
    for address in topology
        .primaries()
        .iter()
        .filter(|address| *address != but)
    {
        let info = connect(config, address).await?.info("replication").await?;
        replids.extend(info.get("master_replid").map(str::to_owned));
    }
    Ok(replids)
}

/// FLUSHALL at every primary.
pub(crate) async fn flush(config: &TargetConfig, topology: &Topology) -> Result<(), SyncError> {
    for address in topology.primaries() {
        connect(config, &address)
            .await?
            .call(&[b"FLUSHALL"])
            .await?;
    }
    Ok(())
}

/// Keys of all nodes that are not ours, by database.
pub(crate) async fn foreign_keys(
    config: &TargetConfig,
    topology: &Topology,
) -> Result<Vec<(u32, u64)>, SyncError> {
    let mut all: BTreeMap<u32, u64> = BTreeMap::new();
    for address in topology.primaries() {
        let mut client = connect(config, &address).await?;
        for (db, keys) in client.info("keyspace").await?.keyspace() {
            let own = if db == 0 {
                own_keys(&mut client).await?
            } else {
                0
            };
            *all.entry(db).or_default() += keys.saturating_sub(own);
        }
    }
    Ok(all.into_iter().filter(|(_, keys)| *keys > 0).collect())
}

/// How many keys of ours a node has: a checkpoint for each slot, of every link. A node with many others is not empty, whatever
/// is ours among them.
async fn own_keys(client: &mut Client) -> Result<u64, SyncError> {
    let (mut own, mut others) = (0, 0);
    let mut cursor = bytes::Bytes::from_static(b"0");
    loop {
        let reply = client.call(&[b"SCAN", &cursor, b"COUNT", b"1000"]).await?;
        let Value::Array(parts) = reply else {
            return Ok(own);
        };
        let [next, Value::Array(keys)] = parts.as_slice() else {
            return Ok(own);
        };
        let prefix = crate::checkpoint::KEY_PREFIX.as_bytes();
        let is_own = |key: &&Value| key.as_bytes().is_some_and(|key| key.starts_with(prefix));
        let count = keys.iter().filter(is_own).count() as u64;
        own += count;
        others += keys.len() as u64 - count;
        cursor = next.as_bytes().cloned().unwrap_or_default();
        if cursor.as_ref() == b"0" || cursor.is_empty() || others > OTHERS_MAX {
            return Ok(own);
        }
    }
}

/// More keys than this are not looked through for ours.
const OTHERS_MAX: u64 = 10_000;

/// Addresses of all nodes that are there, those without slots and replicas included, as far as the cluster tells them.
pub(super) async fn all_nodes(clients: &mut [Client], topology: &Topology) -> Vec<String> {
    let mut all = topology.nodes();
    for client in clients {
        let asked = client.address().to_owned();
        let Ok(reply) = client.ask(&[b"CLUSTER", b"NODES"]).await else {
            continue;
        };
        let text = reply.as_bytes().cloned().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let nodes: Vec<Node> = nodes_of(&text, &asked).collect();
        // A cluster that announces names is dialled by them, by which certificates know it.
        let is_known = |node: &Node| node.named.iter().any(|name| all.contains(name));
        let by_name = nodes.iter().any(is_known);
        for Node { address, named } in nodes {
            let address = named.filter(|_| by_name).unwrap_or(address);
            if !all.contains(&address) {
                all.push(address);
            }
        }
        break;
    }
    all
}

/// A node in CLUSTER NODES.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    address: String,
    /// The same with the name that it announces, if it has one.
    named: Option<String>,
}

/// The nodes in CLUSTER NODES that are there: `<id> <ip>:<port>@<bus port>[,<host>[,<more>..]] <flags> ...`.
fn nodes_of<'a>(text: &'a str, asked: &'a str) -> impl Iterator<Item = Node> + 'a {
    let node = |line: &str| {
        let mut words = line.split(' ');
        let (_, place, flags) = (words.next()?, words.next()?, words.next()?);
        let gone = ["fail", "fail?", "noaddr", "handshake"];
        if flags.split(',').any(|flag| gone.contains(&flag)) {
            return None;
        }
        let mut parts = place.split(',');
        let place = parts.next()?.split('@').next()?;
        let name = parts.next().filter(|name| !name.is_empty());
        let (host, port) = place.rsplit_once(':')?;
        let port = port.parse().ok()?;
        Some(Node {
            address: topology::address(host, port, asked),
            named: name.map(|name| topology::address(name, port, asked)),
        })
    };
    text.lines().filter_map(node)
}

/// Whether the target is a service that shows no servers.
pub(super) fn is_serverless(config: &TargetConfig) -> bool {
    config.profile.found(config.endpoint.host(), None) == Profile::Serverless
}

/// Gives a node a script; its hash.
pub(super) async fn load(client: &mut Client, script: &str) -> Result<String, SyncError> {
    let hash = client
        .call(&[b"SCRIPT", b"LOAD", script.as_bytes()])
        .await?;
    let hash = hash.as_bytes().cloned().unwrap_or_default();
    Ok(String::from_utf8_lossy(&hash).into_owned())
}

/// Whether an error tells of a slot on its way.
pub(crate) fn redirects(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::Moved | ErrorCode::Ask | ErrorCode::TryAgain | ErrorCode::ClusterDown
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_that_are_there() {
        let text = "a 127.0.0.1:7001@17001,h1,shard-id=9 myself,master - 0 0 1 connected 0-5\nb :7002@17002,,shard-id=8 slave a 0 0 1 connected\nc 127.0.0.1:7003@17003 master,fail - 0 0 1 disconnected\nd 127.0.0.1:7004@17004 master - 0 0 1 connected\n";
        let nodes = nodes_of(text, "me:7002");
        let told: Vec<_> = nodes.map(|node| (node.address, node.named)).collect();
        assert_eq!(
            told,
            [
                ("127.0.0.1:7001".to_owned(), Some("h1:7001".to_owned())),
                ("me:7002".to_owned(), None),
                ("127.0.0.1:7004".to_owned(), None),
            ]
        );
    }
}
