//! A cluster into a cluster of another layout: a link for each shard of the source, all of them writing to all nodes of the target, while
//! slots move at either end, primaries fail at either end, and the daemon is killed. The oracle is the source itself: counters,
//! lists and streams differ after anything that is lost or done twice.

use std::time::Duration;

use e2e::shards::{WORDS, assert_same, wait_streams, wait_writes, writer};
use e2e::{LIMIT, Link, from_env, full_syncs, rng, run};
use testkit::process::wait_until;
use testkit::{Cluster, Daemon, Rng, argv};

/// Slots that move take along what is left of an expiry, which is a moment less exact: so it is known at a cluster.
const MOVED_MS: i64 = 50;

fn link(source: &Cluster, target: &Cluster) -> Link {
    Link::between(&source.address(0), &target.address(0))
        .with("sync_reader", "cluster = true")
        .with("redis_writer", "cluster = true")
}

fn clusters(replicas: (usize, usize)) -> (Cluster, Cluster) {
    (
        Cluster::start_with("redis-7.0", 3, replicas.0, WORDS),
        Cluster::start("redis-7.0", 4, replicas.1),
    )
}

/// Kills the daemon at random moments.
fn kill(daemon: &mut Daemon, rng: &mut Rng, kills: u64) {
    for kill in 0..kills {
        if kill % 3 != 0 {
            wait_streams(daemon, 3);
        }
        // The moment is what is random here, so this one sleeps.
        std::thread::sleep(Duration::from_millis(rng.below(600)));
        daemon.restart();
    }
    wait_streams(daemon, 3);
}

/// Moves a slot that is written to from whoever has it to another primary.
fn move_any(cluster: &Cluster, rng: &mut Rng) {
    let slot = match rng.one_in(2) {
        true => cluster.slot(&format!("{{t{}}}", rng.below(120))),
        false => cluster.slot(&format!("count:{}", rng.below(400))),
    };
    let from = cluster.place_of(slot);
    let primaries = cluster.slots();
    let others: Vec<usize> = (0..cluster.servers.len())
        .filter(|at| *at != from && primaries.contains_key(&cluster.address(*at)))
        .collect();
    cluster.move_slot(slot, from, *rng.pick(&others));
}

/// A primary is killed, its replica takes over, and it comes back as a replica.
fn lose_a_primary(cluster: &mut Cluster, rng: &mut Rng) {
    let primaries = cluster.slots();
    let places: Vec<usize> = (0..cluster.servers.len())
        .filter(|at| primaries.contains_key(&cluster.address(*at)))
        .collect();
    let dies = *rng.pick(&places);
    let address = cluster.address(dies);
    cluster.servers[dies].kill();
    wait_until("another primary", LIMIT, || {
        !cluster.slots().contains_key(&address)
    });
    cluster.wait_whole();
    cluster.servers[dies].restart();
    cluster.wait_whole();
    cluster.wait_replicas();
}

fn assert_one_sync_each(source: &Cluster) {
    for server in &source.servers {
        assert_eq!(full_syncs(server), 1, "{}", server.address());
    }
}

#[test]
fn kills_of_the_daemon_lose_and_double_nothing() {
    let mut rng = rng();
    let (source, target) = clusters((0, 0));
    let writer = writer(&source, &mut rng);
    wait_until("keys before the snapshots", LIMIT, || {
        writer.answered() > 2000
    });
    let mut daemon = link(&source, &target).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 1000);
    kill(&mut daemon, &mut rng, from_env("UNDERSTUDY_KILLS", 6));
    wait_writes(&mut daemon, &writer, 1000);
    writer.stop();
    assert_same(&mut daemon, &source, &target.slots(), MOVED_MS);
    assert_one_sync_each(&source);
    for key in (0..4).flat_map(|at| target.own_keys(at)) {
        assert!(!key.contains("tmp"), "{key} was left");
    }
}

#[test]
fn slots_move_at_the_source_while_the_daemon_is_killed() {
    let mut rng = rng();
    let (source, target) = clusters((0, 0));
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    for n in 0..from_env("UNDERSTUDY_MOVES", 12) {
        move_any(&source, &mut rng);
        if n % 4 == 3 {
            kill(&mut daemon, &mut rng, 1);
        }
    }
    wait_writes(&mut daemon, &writer, 1000);
    writer.stop();
    assert_same(&mut daemon, &source, &target.slots(), MOVED_MS);
    assert_one_sync_each(&source);
}

#[test]
fn slots_move_at_the_target_while_the_daemon_is_killed() {
    let mut rng = rng();
    let (source, target) = clusters((0, 0));
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    for n in 0..from_env("UNDERSTUDY_MOVES", 12) {
        move_any(&target, &mut rng);
        if n % 4 == 3 {
            kill(&mut daemon, &mut rng, 1);
        }
    }
    wait_writes(&mut daemon, &writer, 1000);
    writer.stop();
    target.wait_whole();
    assert_same(&mut daemon, &source, &target.slots(), MOVED_MS);
    assert_one_sync_each(&source);
}

/// What the replica that takes over had not received is lost with its primary, and slots that have just been handed over fall back
/// to the link that had them before.
#[test]
fn primaries_of_the_target_fail_while_slots_are_handed_over() {
    let mut rng = rng();
    let (source, mut target) = clusters((0, 1));
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    for round in 0..from_env("UNDERSTUDY_FAILS", 3) {
        for _ in 0..4 {
            move_any(&source, &mut rng);
        }
        lose_a_primary(&mut target, &mut rng);
        if round % 2 == 1 {
            kill(&mut daemon, &mut rng, 1);
        }
        wait_writes(&mut daemon, &writer, 1000);
    }
    writer.stop();
    assert_same(&mut daemon, &source, &target.slots(), MOVED_MS);
    assert_one_sync_each(&source);
}

#[test]
fn primaries_of_the_source_fail_while_slots_are_handed_over() {
    let mut rng = rng();
    let (mut source, target) = clusters((1, 0));
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    source.fail_over(4, "");
    source.wait_whole();
    source.wait_replicas();
    for round in 0..from_env("UNDERSTUDY_FAILS", 2) {
        for _ in 0..3 {
            move_any(&source, &mut rng);
        }
        lose_a_primary(&mut source, &mut rng);
        if round % 2 == 1 {
            kill(&mut daemon, &mut rng, 1);
        }
        wait_writes(&mut daemon, &writer, 1000);
    }
    wait_streams(&mut daemon, 3);
    writer.stop();
    assert_same(&mut daemon, &source, &target.slots(), MOVED_MS);
}

#[test]
fn neither_end_is_left_in_peace() {
    let mut rng = rng();
    let (mut source, mut target) = clusters((1, 1));
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    for round in 0..from_env("UNDERSTUDY_FAILS", 3) {
        for _ in 0..3 {
            move_any(&source, &mut rng);
            move_any(&target, &mut rng);
        }
        match round % 3 {
            0 => lose_a_primary(&mut target, &mut rng),
            1 => lose_a_primary(&mut source, &mut rng),
            _ => {
                lose_a_primary(&mut source, &mut rng);
                lose_a_primary(&mut target, &mut rng);
            }
        }
        kill(&mut daemon, &mut rng, 1);
        wait_writes(&mut daemon, &writer, 1000);
    }
    wait_streams(&mut daemon, 3);
    writer.stop();
    target.wait_whole();
    assert_same(&mut daemon, &source, &target.slots(), MOVED_MS);
}

#[test]
fn a_shard_comes_and_goes() {
    let mut rng = rng();
    let (mut source, target) = clusters((0, 0));
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    // It stays one, when its slots have gone on.
    let words = format!("{WORDS} --cluster-allow-replica-migration no");
    let new = source.add_with("redis-7.0", &words);
    let slots: Vec<u16> = (0..6).map(|n| source.slot(&format!("{{t{n}}}"))).collect();
    let homes: Vec<usize> = slots.iter().map(|slot| source.place_of(*slot)).collect();
    for (slot, home) in slots.iter().zip(&homes) {
        if source.place_of(*slot) != new {
            source.move_slot(*slot, *home, new);
        }
    }
    let id = source.id(new);
    // What comes later is not in the status of this run.
    daemon.wait_for_output(&format!("/{}\"}}: snapshot applied", &id[..12]), LIMIT);
    wait_writes(&mut daemon, &writer, 1000);
    // Nobody is there when its slots go on, and it is gone: its link still has them by what the target says.
    daemon.kill();
    for (slot, home) in slots.iter().zip(&homes) {
        if source.place_of(*slot) == new {
            source.move_slot(*slot, new, *home);
        }
    }
    for server in &source.servers[..new] {
        let forget = argv!["CLUSTER", "FORGET", &id];
        server.client().command(&forget);
    }
    source.servers[new].kill();
    source.servers.pop();
    daemon.spawn();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 1000);
    writer.stop();
    assert!(daemon.output().contains("a shard of the source is gone"));
    assert_same(&mut daemon, &source, &target.slots(), MOVED_MS);
}

#[test]
fn a_flush_of_one_shard_leaves_the_others() {
    let mut rng = rng();
    let (source, target) = clusters((0, 0));
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    source.servers[1].client().command(&argv!["FLUSHALL"]);
    kill(&mut daemon, &mut rng, 1);
    wait_writes(&mut daemon, &writer, 500);
    source.servers[2].client().command(&argv!["FLUSHDB"]);
    wait_writes(&mut daemon, &writer, 100);
    kill(&mut daemon, &mut rng, 1);
    writer.stop();
    assert_same(&mut daemon, &source, &target.slots(), MOVED_MS);
    assert_one_sync_each(&source);
}

/// Valkey 9 moves slots as a whole: nobody sees one half moved, and the source removes its keys afterwards.
#[test]
fn slots_that_valkey_moves_as_a_whole() {
    let mut rng = rng();
    let source = Cluster::start_with("valkey-9.0", 3, 0, WORDS);
    let target = Cluster::start("valkey-9.0", 4, 0);
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    for (cluster, from, to) in [(&source, 0, 1), (&target, 2, 3), (&source, 2, 0)] {
        let slot = cluster.slots()[&cluster.address(from)][0].0;
        let id = cluster.id(to);
        let range = argv![
            "CLUSTER",
            "MIGRATESLOTS",
            "SLOTSRANGE",
            slot,
            slot + 300,
            "NODE",
            id
        ];
        cluster.servers[from].client().command(&range);
        let there = cluster.address(to);
        daemon.wait_for("the slots to move", LIMIT, |_| {
            cluster.owner(slot) == there && cluster.owner(slot + 300) == there
        });
        wait_writes(&mut daemon, &writer, 300);
        kill(&mut daemon, &mut rng, 1);
    }
    writer.stop();
    assert_same(&mut daemon, &source, &target.slots(), MOVED_MS);
    assert_one_sync_each(&source);
}

#[test]
fn what_keeps_replaced_links_out_has_to_be_allowed() {
    let (source, target) = clusters((0, 0));
    let ended = run(&link(&source, &target).with("redis_writer", "slot_fence = \"lua\""));
    assert_eq!(ended.code, 2, "{}", ended.error());
    assert!(
        ended.error().contains("+client|list +client|kill"),
        "{}",
        ended.error()
    );
    for server in &target.servers {
        let mut client = server.client();
        client.command(&argv!["ACL", "SETUSER", "default", "-client|kill"]);
    }
    let ended = run(&link(&source, &target));
    assert_eq!(ended.code, 4, "{}", ended.error());
    assert!(
        ended
            .error()
            .contains("which keep a replaced link out there"),
        "{}",
        ended.error()
    );
}
