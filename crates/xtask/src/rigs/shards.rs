//! Three processes share a cluster of six nodes. Under load one of them is killed and begins elsewhere, without its spool; slots move
//! between shards of different processes; a primary fails. At the end every key is what the source's nodes have.

use std::time::Duration;

use serde_json::Value;
use testkit::{Client, ClusterWriter, argv};

use super::cluster::{all, is_equal};
use super::compose::Rig;
use super::wait;

/// Slots of each resharding.
const SLOTS: usize = 40;
/// Commands a second of the load.
pub(super) const RATE: u64 = 1500;

pub(super) fn drill(rig: &Rig) -> Result<String, String> {
    let nodes = rig.nodes();
    let writer = load(&nodes[..3]);
    wrote(&writer, 3 * RATE)?;
    let before = [rig.status(0), rig.status(1), rig.status(2)];
    wait("a shard for each process", || {
        before.iter().all(|port| shards(port) == 1)
    })?;

    // A process is gone, and comes elsewhere; slots move meanwhile, to its shard and away from it.
    reshard(rig, 7000, 7001)?;
    rig.remove("second")?;
    reshard(rig, 7001, 7002)?;
    reshard(rig, 7002, 7001)?;
    rig.start("elsewhere")?;
    let ports = [rig.status(0), rig.back(), rig.status(2)];
    wait_ready(&ports)?;
    let resyncs = snapshots(&ports[1]);
    if resyncs != 0 {
        return Err(format!(
            "the process that began elsewhere has taken {resyncs} snapshots"
        ));
    }
    wrote(&writer, RATE)?;

    // A primary fails; its replica goes on, and slots move once more.
    let live = lose_a_primary(&nodes)?;
    let heir = live.iter().skip(2).position(|node| is_master(node));
    let heir = heir.ok_or("no replica has taken over")?;
    let heir = 7003 + u16::try_from(heir).map_err(|error| error.to_string())?;
    wrote(&writer, RATE)?;
    reshard(rig, 7000, heir)?;
    reshard(rig, heir, 7001)?;
    wrote(&writer, RATE)?;
    let commands = writer.stop();

    wait_ready(&ports)?;
    let masters = || -> Vec<String> {
        live.iter()
            .filter(|node| is_master(node))
            .cloned()
            .collect()
    };
    let mut keys = 0;
    wait("the target to be equal", || {
        let (source, target) = (all(&masters()), all(&[rig.target()]));
        keys = source.len();
        is_equal(&source, &target)
    })?;
    if keys < 300 {
        return Err(format!(
            "only {keys} keys: the load has not reached the cluster"
        ));
    }
    let slots: u64 = ports.iter().map(|port| sum(port, "slots_held")).sum();
    let taken: u64 = ports.iter().map(|port| sum(port, "slots_taken")).sum();
    if slots != 16_384 || taken < SLOTS as u64 {
        return Err(format!("{slots} slots are held, {taken} were taken over"));
    }
    Ok(format!(
        "{keys} keys equal after {commands} commands, over a process that began elsewhere, {} slots that moved and a failover",
        5 * SLOTS
    ))
}

/// Writes all the while to a cluster of six, by its first three nodes.
pub(super) fn load(first: &[String]) -> ClusterWriter {
    ClusterWriter::start(first, 7, RATE)
}

/// Waits until so many more commands are answered.
pub(super) fn wrote(writer: &ClusterWriter, more: u64) -> Result<(), String> {
    let goal = writer.answered() + more;
    wait("the load to go on", || writer.answered() >= goal)
}

/// The third of six nodes dies, and its replica takes over; gives those that live.
pub(super) fn lose_a_primary(nodes: &[String]) -> Result<Vec<String>, String> {
    shut_down(&nodes[2])?;
    let live = [&nodes[..2], &nodes[3..]].concat();
    wait("a replica to take over", || {
        live.iter().skip(2).any(|node| is_master(node))
    })?;
    wait("the cluster to be whole", || {
        live.iter().all(|node| is_whole(node))
    })?;
    Ok(live)
}

/// Moves slots from the master at one port to that at another.
pub(super) fn reshard(rig: &Rig, from: u16, to: u16) -> Result<(), String> {
    // The names of nodes are their own affair; the address is that by which they know each other.
    let script = format!(
        "set -e; from=$(redis-cli -p {from} cluster myid); to=$(redis-cli -p {to} cluster myid); \
         for try in 1 2 3 4 5; do \
           redis-cli --cluster reshard 127.0.0.1:{to} --cluster-from $from --cluster-to $to \
             --cluster-slots {SLOTS} --cluster-yes >/tmp/reshard.$$ 2>&1 && exit 0; \
           redis-cli --cluster fix 127.0.0.1:{to} >/dev/null 2>&1; sleep 1; \
         done; tail -5 /tmp/reshard.$$; exit 1"
    );
    let script = script.replace("/tmp/reshard", "/data/reshard");
    rig.inside("source", &["/bin/sh", "-c", &script]).map(drop)
}

/// Ends a node as a crash would: nobody hands over.
fn shut_down(node: &str) -> Result<(), String> {
    let mut client = Client::try_connect(node).map_err(|error| error.to_string())?;
    // It answers nothing.
    let _ = client.try_command(&argv!["SHUTDOWN", "NOSAVE", "NOW", "FORCE"]);
    wait("the node to be gone", || Client::try_connect(node).is_err())
}

pub(super) fn is_master(node: &str) -> bool {
    let Ok(mut client) = Client::try_connect(node) else {
        return false;
    };
    let slots = client.try_command(&argv!["CLUSTER", "COUNTKEYSINSLOT", 0]);
    slots.is_ok()
        && client
            .info("replication")
            .get("role")
            .is_some_and(|role| role == "master")
}

fn is_whole(node: &str) -> bool {
    let Ok(mut client) = Client::try_connect(node) else {
        return false;
    };
    let info = client.try_command(&argv!["CLUSTER", "INFO"]);
    info.is_ok_and(|info| testkit::client::text(&info).contains("cluster_state:ok"))
}

fn wait_ready(ports: &[String]) -> Result<(), String> {
    wait("all processes to be ready", || {
        ports.iter().all(|port| {
            let answer = testkit::daemon::get(port, "/readyz");
            answer.is_ok_and(|(code, _)| code == 200) && shards(port) == 1
        })
    })?;
    // What was written last is on its way.
    std::thread::sleep(Duration::from_millis(500));
    Ok(())
}

/// What the process at a status port says of its links.
pub(super) fn links(port: &str) -> Vec<Value> {
    let answer = testkit::daemon::get(port, "/status").unwrap_or_default();
    let status: Value = serde_json::from_str(&answer.1).unwrap_or_default();
    let own = &status["understudy"];
    match &own["links"] {
        Value::Array(links) => links.clone(),
        _ if own["link"].is_string() => vec![own.clone()],
        _ => Vec::new(),
    }
}

fn shards(port: &str) -> usize {
    links(port).len()
}

fn sum(port: &str, field: &str) -> u64 {
    links(port)
        .iter()
        .filter_map(|link| link[field].as_u64())
        .sum()
}

/// Snapshots that the process has begun.
fn snapshots(port: &str) -> u64 {
    let counts = links(port);
    let counts = counts
        .iter()
        .filter_map(|link| link["full_resyncs"].as_object());
    counts
        .flat_map(|reasons| reasons.values().filter_map(Value::as_u64))
        .sum()
}
