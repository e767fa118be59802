//! `sync_reader.prefer_replica`: snapshot and stream come from replicas of the source, from another one when that is lost, and from
//! the master when there is none; nothing is lost or done twice on the way, and no second snapshot is taken.

use std::collections::BTreeMap;

use e2e::{LIMIT, Link, catch_up, full_syncs, rng, source_of, wait_more, wait_stream, written};
use testkit::oracle::{self, OracleOptions};
use testkit::process::wait_until;
use testkit::proxy::{Direction, Proxy};
use testkit::{Cluster, ClusterWriter, Counters, Daemon, Rng, Server, argv, workload};

fn partial_syncs(server: &Server) -> i64 {
    server.client().info_number("stats", "sync_partial_ok")
}

fn replicas_at(server: &Server) -> i64 {
    server
        .client()
        .info_number("replication", "connected_slaves")
}

/// A replica of what listens at `port`, which has all of it.
fn replica_of(master: &Server, port: u16) -> Server {
    let replica = source_of("redis-7.0");
    replica
        .client()
        .command(&argv!["REPLICAOF", "127.0.0.1", port]);
    wait_until("the replica to be in sync", LIMIT, || {
        replica.client().info("replication")["master_link_status"] == "up"
            && written(&replica) == written(master)
    });
    replica
}

fn link(source: &Server, target: &Server) -> Link {
    Link::new(source, target).with("sync_reader", "prefer_replica = true")
}

#[test]
fn replicas_are_followed_one_after_the_other_and_then_the_master() {
    let (master, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    workload::fill(&mut master.client(), rng().number(), 500);
    let mut replicas = [
        replica_of(&master, master.port()),
        replica_of(&master, master.port()),
    ];
    let counters = Counters::start(&master.address(), Rng::seed_from_env(), 400);
    let mut daemon = link(&master, &target).start();
    wait_stream(&mut daemon);
    assert_eq!(full_syncs(&master), 2, "those of its replicas");
    assert_eq!(replicas_at(&master), 2);
    let at = replicas
        .iter()
        .position(|replica| full_syncs(replica) == 1)
        .expect("a replica has made the snapshot");
    wait_more("operations", 200, || counters.acknowledged());
    replicas[at].kill();
    let other = 1 - at;
    wait_until("the other replica to be followed", LIMIT, || {
        partial_syncs(&replicas[other]) == 1
    });
    wait_more("operations", 200, || counters.acknowledged());
    // Killed with its spool at hand, a run goes on at a replica as well.
    daemon.restart();
    wait_until("it to be followed again", LIMIT, || {
        partial_syncs(&replicas[other]) == 2
    });
    wait_more("operations", 200, || counters.acknowledged());
    assert_eq!(full_syncs(&replicas[other]), 0);
    replicas[other].kill();
    daemon.wait_for_output("following the master", LIMIT);
    wait_until("the master to be followed", LIMIT, || {
        partial_syncs(&master) == 1
    });
    wait_more("operations", 200, || counters.acknowledged());
    let ledger = counters.stop();
    catch_up(&mut daemon, &master);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&master.address(), &target.address());
    assert_eq!(full_syncs(&master), 2);
}

#[test]
fn a_replica_that_is_behind_the_link_is_not_asked() {
    let (master, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let way = Proxy::start(&master.address());
    let counters = Counters::start(&master.address(), Rng::seed_from_env(), 400);
    // From the master first: there is no replica yet.
    let mut daemon = link(&master, &target).start();
    daemon.wait_for_output("following the master", LIMIT);
    wait_stream(&mut daemon);
    let replica = source_of("redis-7.0");
    replica
        .client()
        .command(&argv!["REPLICAOF", "127.0.0.1", way.port()]);
    wait_until("the replica to be in sync", LIMIT, || {
        replica.client().info("replication")["master_link_status"] == "up"
    });
    // Nothing more comes to it, which it does not know yet; the link is ahead of it from here on.
    way.stall(Direction::ToClient);
    wait_more("operations", 400, || counters.acknowledged());
    catch_up(&mut daemon, &master);
    daemon.restart();
    daemon.wait_for_output("is not as far as this link", LIMIT);
    wait_until("the master to be followed", LIMIT, || {
        partial_syncs(&master) == 1
    });
    let ledger = counters.stop();
    catch_up(&mut daemon, &master);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&master.address(), &target.address());
    assert_eq!(full_syncs(&replica), 0);
    assert_eq!(full_syncs(&master), 2, "the link's, and the replica's");
}

fn links_in_stream(daemon: &Daemon) -> usize {
    let status = daemon.status().unwrap_or_default();
    let links = status["understudy"]["links"].as_array();
    links
        .into_iter()
        .flatten()
        .filter(|link| link["phase"] == "stream")
        .count()
}

#[test]
fn each_shard_of_a_cluster_is_read_at_its_replica_over_moves_and_a_failover() {
    let mut rng = rng();
    let words = "--repl-diskless-sync-delay 0 --repl-backlog-size 64mb";
    let mut source = Cluster::start_with("redis-7.0", 3, 1, words);
    let target = source_of("redis-7.0");
    let nodes: Vec<String> = (0..3).map(|at| source.address(at)).collect();
    let writer = ClusterWriter::start(&nodes, rng.number(), 1500);
    let mut daemon = Link::between(&source.address(0), &target.address())
        .with("sync_reader", "cluster = true")
        .with("sync_reader", "prefer_replica = true")
        .start();
    daemon.wait_for("the stream phase of all shards", LIMIT, |daemon| {
        links_in_stream(daemon) == 3
    });
    for at in 0..3 {
        let (master, replica) = (&source.servers[at], &source.servers[at + 3]);
        assert_eq!((full_syncs(master), replicas_at(master)), (1, 1), "{at}");
        assert_eq!((full_syncs(replica), replicas_at(replica)), (1, 1), "{at}");
    }
    wait_more("writes", 1500, || writer.answered());
    for tag in ["{t3}", "{t9}", "count:5"] {
        let slot = source.slot(tag);
        let from = source.place_of(slot);
        source.move_slot(slot, from, (from + 1) % 3);
    }
    // The replica that is followed becomes the master, and has no replica then.
    source.servers[0].kill();
    wait_until("its replica to take over", LIMIT, || {
        source.servers[3].client().info("replication")["role"] == "master"
    });
    source.wait_whole();
    wait_more("writes", 1500, || writer.answered());
    writer.stop();
    daemon.wait_for_output("following the master", LIMIT);
    let goals: BTreeMap<String, u64> = [1, 2, 3]
        .map(|at| &source.servers[at])
        .map(|server| (server.address(), written(server)))
        .into();
    daemon.wait_for(&format!("{goals:?}"), LIMIT, |daemon| {
        let status = daemon.status().unwrap_or_default();
        let links = status["understudy"]["links"].as_array().cloned();
        let links = links.unwrap_or_default();
        goals.iter().all(|(address, goal)| {
            links.iter().any(|link| {
                link["source"] == address.as_str()
                    && link["applied_offset"].as_u64() >= Some(*goal)
                    && link["slots_moving"] == 0
            })
        })
    });
    daemon.wait_for("readiness", LIMIT, |daemon| {
        daemon.get("/readyz").is_some_and(|(code, _)| code == 200)
    });
    let all = BTreeMap::from([(target.address(), vec![(0, 16_383)])]);
    let options = OracleOptions::live(&source.servers[1].engine().version);
    oracle::assert_clusters_equal(&source.slots(), &all, &options);
    for at in [1, 2] {
        assert_eq!(full_syncs(&source.servers[at]), 1, "{at}");
        assert_eq!(full_syncs(&source.servers[at + 3]), 1, "{at}");
    }
    assert_eq!(full_syncs(&source.servers[3]), 1);
}
