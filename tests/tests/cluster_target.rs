//! A cluster as the target: every kind of command, those whose keys are in several slots included, while the daemon, the cluster's
//! nodes and its slots are not left in peace.

use std::time::Duration;

use e2e::{
    LIMIT, Link, assert_same_in_cluster, catch_up, from_env, full_syncs, link_to_cluster, own, rng,
    run, source_of, wait_stream, written,
};
use testkit::client::text;
use testkit::oracle::{self, OracleOptions};
use testkit::workload;
use testkit::{Cluster, Counters, Daemon, Rng, Server, Writer, argv};

#[test]
fn every_kind_of_command_reaches_its_slot() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    workload::fill_dbs(&mut source.client(), rng.number(), 2_000, &[0]);
    let writer = Writer::start_in_db_0(&source.address(), rng.number(), 3000);
    let mut daemon = link_to_cluster(&source, &cluster.address(0)).start();
    wait_stream(&mut daemon);
    let goal = writer.answered() + from_env("UNDERSTUDY_COMMANDS", 15_000);
    daemon.wait_for("commands", LIMIT, |_| writer.answered() >= goal);
    let report = writer.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, None);
    println!("{:?}", report.words);
    assert_eq!(full_syncs(&source), 1);
    for key in (0..3).flat_map(|at| cluster.own_keys(at)) {
        assert!(!key.contains("tmp"), "{key} was left");
    }
}

/// Kills the daemon at random moments.
fn kill(daemon: &mut Daemon, rng: &mut Rng, kills: u64) {
    for kill in 0..kills {
        if kill % 4 != 0 {
            wait_stream(daemon);
        }
        // The moment is what is random here, so this one sleeps.
        std::thread::sleep(Duration::from_millis(rng.below(600)));
        daemon.restart();
    }
    wait_stream(daemon);
}

#[test]
fn kills_of_the_daemon_lose_and_double_nothing() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 2500);
    let mut daemon = link_to_cluster(&source, &cluster.address(0)).start();
    wait_stream(&mut daemon);
    kill(&mut daemon, &mut rng, from_env("UNDERSTUDY_KILLS", 8));
    let ledger = counters.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, Some(&ledger));
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn kills_under_every_kind_of_command_leave_an_equal_copy() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let writer = Writer::start_in_db_0(&source.address(), rng.number(), 2000);
    let mut daemon = link_to_cluster(&source, &cluster.address(0)).start();
    wait_stream(&mut daemon);
    kill(&mut daemon, &mut rng, from_env("UNDERSTUDY_KILLS", 8));
    writer.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, None);
    assert_eq!(full_syncs(&source), 1);
}

/// A primary is killed, and its replica takes over, without what it had not received.
#[test]
fn a_primary_that_dies_takes_nothing_along() {
    let mut rng = rng();
    let (source, mut cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 1));
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 4000);
    let mut daemon = link_to_cluster(&source, &cluster.address(0)).start();
    wait_stream(&mut daemon);
    let goal = counters.acknowledged() + 10_000;
    daemon.wait_for("writes", LIMIT, |_| counters.acknowledged() >= goal);
    // Writes that the replica has not yet are lost with the primary.
    let dies = cluster.servers[0].address();
    cluster.servers[0].kill();
    daemon.wait_for("another primary", LIMIT, |_| {
        !cluster.slots().contains_key(&dies)
    });
    cluster.wait_whole();
    let goal = counters.acknowledged() + 4_000;
    daemon.wait_for("writes", LIMIT, |_| counters.acknowledged() >= goal);
    // And back, with the one that was asked first.
    cluster.servers[0].restart();
    cluster.wait_whole();
    let ledger = counters.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, Some(&ledger));
    assert_eq!(full_syncs(&source), 1);
    assert!(own(&daemon, "applied_offset").is_some());
}

/// The primary that was asked last hangs, with its connections: the others say that its replica has its slots.
#[test]
fn a_primary_that_hangs_is_left_for_its_replica() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 1));
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 1000);
    let mut daemon = link_to_cluster(&source, &cluster.address(0)).start();
    wait_stream(&mut daemon);
    daemon.wait_for("the first writes", LIMIT, |daemon| {
        own(daemon, "applied_offset").is_some_and(|applied| applied > 10_000)
    });
    cluster.servers[0].stop();
    daemon.wait_for("the replica's turn", LIMIT, |_| {
        cluster.servers[3].client().info("replication")["role"] == "master"
    });
    let goal = written(&source);
    daemon.wait_for("writes at the new primary", LIMIT, |daemon| {
        own(daemon, "applied_offset").is_some_and(|applied| applied >= goal)
    });
    cluster.servers[0].cont();
    cluster.wait_whole();
    let ledger = counters.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, Some(&ledger));
    assert_eq!(full_syncs(&source), 1);
}

/// A replica takes over at once, while its primary lives and has more than it.
#[test]
fn a_takeover_takes_nothing_along() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 1));
    let writer = Writer::start_in_db_0(&source.address(), rng.number(), 2000);
    let mut daemon = link_to_cluster(&source, &cluster.address(0)).start();
    wait_stream(&mut daemon);
    for (replica, how) in [(3, ""), (4, "TAKEOVER"), (5, "FORCE")] {
        std::thread::sleep(Duration::from_millis(500 + rng.below(500)));
        cluster.fail_over(replica, how);
        cluster.wait_whole();
        cluster.wait_replicas();
        wait_stream(&mut daemon);
    }
    writer.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, None);
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn slots_that_move_meanwhile_lose_and_double_nothing() {
    let mut rng = rng();
    let (source, mut cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let writer = Writer::start_in_db_0(&source.address(), rng.number(), 1500);
    let mut daemon = link_to_cluster(&source, &cluster.address(0)).start();
    wait_stream(&mut daemon);
    let new = cluster.add("redis-7.0");
    let kinds = ["str", "list", "set", "zset", "hash", "log", "stream"];
    for step in 0..from_env("UNDERSTUDY_SLOTS", 60) {
        let key = format!("w:{}:{}", rng.pick(&kinds), rng.below(24));
        let slot = cluster.slot(&key);
        let owner = cluster.owner(slot);
        let at = |address: &str| {
            cluster
                .servers
                .iter()
                .position(|one| one.address() == address)
        };
        let from = at(&owner).expect("one of ours");
        let to = match step % 2 {
            0 => new,
            _ => usize::try_from(rng.below(4)).expect("a server"),
        };
        if from != to {
            cluster.move_slot(slot, from, to);
        }
        if step % 20 == 19 {
            daemon.restart();
        }
    }
    writer.stop();
    catch_up(&mut daemon, &source);
    cluster.wait_whole();
    let options = OracleOptions {
        // MIGRATE takes along what is left of an expiry, and that is a moment less exact.
        expiry_tolerance_ms: 20,
        ..OracleOptions::live(&source.engine().version)
    };
    oracle::assert_cluster_equal(&source.address(), &cluster.slots(), &options);
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn the_script_keeps_others_out_where_connections_cannot_be_killed() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 2000);
    let mut daemon = link_to_cluster(&source, &cluster.address(0))
        .with("redis_writer", "slot_fence = \"lua\"")
        .start();
    wait_stream(&mut daemon);
    kill(&mut daemon, &mut rng, from_env("UNDERSTUDY_KILLS", 5));
    let ledger = counters.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, Some(&ledger));
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn the_script_does_every_kind_of_command() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    workload::fill_dbs(&mut source.client(), rng.number(), 500, &[0]);
    let writer = Writer::start_in_db_0(&source.address(), rng.number(), 2000);
    let mut daemon = link_to_cluster(&source, &cluster.address(0))
        .with("redis_writer", "slot_fence = \"lua\"")
        .start();
    wait_stream(&mut daemon);
    kill(&mut daemon, &mut rng, 2);
    writer.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, None);
}

#[test]
fn what_cannot_be_done_is_named() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut daemon = link_to_cluster(&source, &cluster.address(0))
        .with("redis_writer", "cross_slot = \"fail\"")
        .start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    client.command(&argv!["MSET", "a", 1, "b", 2]);
    client.command(&argv!["RENAME", "a", "c"]);
    daemon.wait_for_output("command RENAME \"a\" \"c\"", LIMIT);
    assert_eq!(daemon.wait(LIMIT), 4);
    assert!(
        daemon
            .output()
            .contains("redis_writer.cross_slot is \"fail\"")
    );
    // What was split has come.
    assert_eq!(text(&cluster.read(&argv!["GET", "b"])), "2");
    let ended = run(&Link::between(&source.address(), &cluster.address(0)));
    assert_eq!(ended.code, 4);
    assert!(
        ended.error().contains("set redis_writer.cluster = true"),
        "{}",
        ended.error()
    );
    let valkey = Cluster::start("valkey-9.1", 3, 0);
    let ended = run(&Link::between(&source.address(), &valkey.address(0)));
    assert_eq!(ended.code, 4);
    assert!(
        ended.error().contains("set redis_writer.cluster = true"),
        "{}",
        ended.error()
    );
    let other = Server::of("redis-7.0");
    let ended = run(&Link::new(&source, &other).with("redis_writer", "cluster = true"));
    assert_eq!(ended.code, 4);
    assert!(
        ended.error().contains("set redis_writer.cluster = false"),
        "{}",
        ended.error()
    );
}

#[test]
fn a_database_that_a_cluster_does_not_have_is_named() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut client = source.client();
    client.select(3);
    client.command(&argv!["SET", "a", 1]);
    let ended = run(&link_to_cluster(&source, &cluster.address(0)));
    assert_eq!(ended.code, 4);
    assert!(
        ended.error().contains("the source uses database 3"),
        "{}",
        ended.error()
    );
}
