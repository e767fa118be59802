//! A source that is a cluster: what the status says of the links of its shards, a writer at it, and the oracle at the end.

use std::collections::BTreeMap;

use serde_json::Value;
use testkit::oracle::{self, OracleOptions};
use testkit::{Cluster, ClusterWriter, Daemon, Rng, Server};

use crate::{LIMIT, written};

/// Nobody waits for others before a snapshot, and no failover outlasts the backlog.
pub const WORDS: &str = "--repl-diskless-sync-delay 0 --repl-backlog-size 64mb";

/// What the status says of each link.
pub fn links(daemon: &Daemon) -> Vec<Value> {
    let status = daemon.status().unwrap_or_default();
    match &status["understudy"]["links"] {
        Value::Array(links) => links.clone(),
        _ => Vec::new(),
    }
}

fn number(link: &Value, field: &str) -> u64 {
    link[field].as_u64().unwrap_or(0)
}

/// Waits until so many links follow their streams.
pub fn wait_streams(daemon: &mut Daemon, count: usize) {
    daemon.wait_for("the stream phase of all shards", LIMIT, |daemon| {
        let links = links(daemon);
        links.len() == count && links.iter().all(|link| link["phase"] == "stream")
    });
}

/// Waits until every shard's stream is applied as far as it is written, and no slot is on its way.
pub fn catch_up(daemon: &mut Daemon, source: &Cluster) {
    source.wait_whole();
    let addresses: Vec<String> = source.slots().into_keys().collect();
    let servers: Vec<&Server> = source
        .servers
        .iter()
        .filter(|server| addresses.contains(&server.address()))
        .collect();
    let goals: BTreeMap<String, u64> = servers
        .iter()
        .map(|server| (server.address(), written(server)))
        .collect();
    let slots: BTreeMap<String, u64> = source
        .slots()
        .into_iter()
        .map(|(address, ranges)| {
            (
                address,
                ranges
                    .iter()
                    .map(|(first, last)| u64::from(last - first) + 1)
                    .sum(),
            )
        })
        .collect();
    daemon.wait_for(&format!("{goals:?}"), LIMIT, |daemon| {
        let links = links(daemon);
        goals.iter().all(|(address, goal)| {
            links.iter().any(|link| {
                link["source"] == address.as_str()
                    && number(link, "applied_offset") >= *goal
                    && number(link, "slots_held") == slots[address]
            })
        })
    });
    daemon.wait_for("readiness", LIMIT, |daemon| {
        daemon.get("/readyz").is_some_and(|(code, _)| code == 200)
            && links(daemon)
                .iter()
                .all(|link| number(link, "leases_waiting") == 0)
    });
}

/// When everything has come: every key is equal. `tolerance_ms`: so far expiries may differ.
///
/// # Panics
/// With what differs.
pub fn assert_same(
    daemon: &mut Daemon,
    source: &Cluster,
    target: &BTreeMap<String, Vec<(u16, u16)>>,
    tolerance_ms: i64,
) {
    catch_up(daemon, source);
    let options = OracleOptions::live(&source.servers[0].engine().version);
    let options = OracleOptions {
        expiry_tolerance_ms: options.expiry_tolerance_ms.max(tolerance_ms),
        ..options
    };
    oracle::assert_clusters_equal(&source.slots(), target, &options);
}

/// Writes at the first three nodes.
pub fn writer(source: &Cluster, rng: &mut Rng) -> ClusterWriter {
    let nodes: Vec<String> = (0..3).map(|at| source.address(at)).collect();
    ClusterWriter::start(&nodes, rng.number(), 2000)
}

/// Waits until so many more commands are answered.
pub fn wait_writes(daemon: &mut Daemon, writer: &ClusterWriter, more: u64) {
    let goal = writer.answered() + more;
    daemon.wait_for("writes", LIMIT, |_| writer.answered() >= goal);
}
