//! A cluster as the source: a link for each shard, while slots move both ways, primaries fail, shards come, and the daemon is killed.
//! The oracle is the source itself: counters, lists and streams differ after anything that is lost or done twice.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::{LIMIT, Link, from_env, full_syncs, rng, source_of, written};
use serde_json::Value;
use testkit::oracle::{self, OracleOptions};
use testkit::{Client, Cluster, ClusterWriter, Daemon, Rng, Server, argv};

/// Nobody waits for others before a snapshot, and no failover outlasts the backlog.
const WORDS: &str = "--repl-diskless-sync-delay 0 --repl-backlog-size 64mb";

fn link(source: &Cluster, target: &str) -> Link {
    Link::between(&source.address(0), target).with("sync_reader", "cluster = true")
}

/// What the status says of each link.
fn links(daemon: &Daemon) -> Vec<Value> {
    let status = daemon.status().unwrap_or_default();
    match &status["understudy"]["links"] {
        Value::Array(links) => links.clone(),
        _ => Vec::new(),
    }
}

fn number(link: &Value, field: &str) -> u64 {
    link[field].as_u64().unwrap_or(0)
}

fn wait_streams(daemon: &mut Daemon, count: usize) {
    daemon.wait_for("the stream phase of all shards", LIMIT, |daemon| {
        let links = links(daemon);
        links.len() == count && links.iter().all(|link| link["phase"] == "stream")
    });
}

/// Waits until every shard's stream is applied as far as it is written, and no slot is on its way.
fn catch_up(daemon: &mut Daemon, source: &Cluster) {
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

fn assert_same(daemon: &mut Daemon, source: &Cluster, target: &BTreeMap<String, Vec<(u16, u16)>>) {
    catch_up(daemon, source);
    let options = OracleOptions::live(&source.servers[0].engine().version);
    oracle::assert_clusters_equal(&source.slots(), target, &options);
}

fn all_of(target: &Server) -> BTreeMap<String, Vec<(u16, u16)>> {
    BTreeMap::from([(target.address(), vec![(0, 16_383)])])
}

fn writer(source: &Cluster, rng: &mut Rng) -> ClusterWriter {
    let nodes: Vec<String> = (0..3).map(|at| source.address(at)).collect();
    ClusterWriter::start(&nodes, rng.number(), 2000)
}

fn wait_writes(daemon: &mut Daemon, writer: &ClusterWriter, more: u64) {
    let goal = writer.answered() + more;
    daemon.wait_for("writes", LIMIT, |_| writer.answered() >= goal);
}

#[test]
fn slots_move_both_ways_while_the_daemon_is_killed() {
    let mut rng = rng();
    let (source, target) = (
        Cluster::start_with("redis-7.0", 3, 0, WORDS),
        source_of("redis-7.0"),
    );
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target.address()).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    let moves = from_env("UNDERSTUDY_MOVES", 12);
    for n in 0..moves {
        let tag = format!("{{t{}}}", rng.below(120));
        let slot = match rng.one_in(2) {
            true => source.slot(&tag),
            false => source.slot(&format!("count:{}", rng.below(400))),
        };
        // Each way; some come back.
        let owner = source.owner(slot);
        let places = 0..3;
        let from = places.clone().find(|&at| source.address(at) == owner);
        let from = from.expect("a node of the cluster");
        let others: Vec<usize> = places.filter(|&at| at != from).collect();
        source.move_slot(slot, from, *rng.pick(&others));
        if n % 4 == 3 {
            // The moment is what is random here, so this one sleeps.
            std::thread::sleep(Duration::from_millis(rng.below(400)));
            daemon.restart();
        }
    }
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 1000);
    writer.stop();
    assert_same(&mut daemon, &source, &all_of(&target));
    for server in &source.servers {
        assert_eq!(full_syncs(server), 1, "{}", server.address());
    }
}

#[test]
fn a_primary_fails_and_another_one_hands_over() {
    let mut rng = rng();
    let (mut source, target) = (
        Cluster::start_with("redis-7.0", 3, 1, WORDS),
        source_of("redis-7.0"),
    );
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target.address()).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    source.fail_over(4, "");
    wait_writes(&mut daemon, &writer, 1000);
    let dies = source.address(0);
    source.servers[0].kill();
    daemon.wait_for("another primary", LIMIT, |_| {
        !source.slots().contains_key(&dies)
    });
    source.wait_whole();
    wait_writes(&mut daemon, &writer, 1000);
    let slot = source.slot("{t1}");
    let at = |address: &str| {
        source
            .servers
            .iter()
            .position(|server| server.address() == address)
    };
    let from = at(&source.owner(slot)).expect("a server");
    let to = *[3, 4, 2]
        .iter()
        .find(|to| **to != from)
        .expect("another one");
    source.move_slot(slot, from, to);
    daemon.restart();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 1000);
    writer.stop();
    assert_same(&mut daemon, &source, &all_of(&target));
}

#[test]
fn a_flush_of_one_shard_leaves_the_others() {
    let mut rng = rng();
    let (source, target) = (
        Cluster::start_with("redis-7.0", 3, 0, WORDS),
        source_of("redis-7.0"),
    );
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target.address()).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    source.servers[1].client().command(&argv!["FLUSHALL"]);
    wait_writes(&mut daemon, &writer, 500);
    source.servers[2].client().command(&argv!["FLUSHDB"]);
    writer.stop();
    assert_same(&mut daemon, &source, &all_of(&target));
    let kept = Client::connect(&target.address()).keyspace()[&0];
    assert!(kept > 20, "{kept}");
}

/// Valkey 9 moves slots as a whole: nobody sees one half moved, and the source removes its keys afterwards.
#[test]
fn slots_that_valkey_moves_as_a_whole() {
    let mut rng = rng();
    let (source, target) = (
        Cluster::start_with("valkey-9.0", 3, 0, WORDS),
        source_of("valkey-9.0"),
    );
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target.address()).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    for (from, to) in [(0, 1), (1, 0), (2, 1)] {
        let slot = source.slots()[&source.address(from)][0].0;
        let id = source.id(to);
        let range = argv![
            "CLUSTER",
            "MIGRATESLOTS",
            "SLOTSRANGE",
            slot,
            slot + 300,
            "NODE",
            id
        ];
        source.servers[from].client().command(&range);
        let there = source.address(to);
        daemon.wait_for("the slots to move", LIMIT, |_| {
            source.owner(slot) == there && source.owner(slot + 300) == there
        });
        wait_writes(&mut daemon, &writer, 300);
    }
    writer.stop();
    assert_same(&mut daemon, &source, &all_of(&target));
    for server in &source.servers {
        assert_eq!(full_syncs(server), 1, "{}", server.address());
    }
}
