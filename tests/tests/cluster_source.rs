//! A cluster as the source: a link for each shard, while slots move both ways, primaries fail, shards come, and the daemon is killed.
//! The oracle is the source itself: counters, lists and streams differ after anything that is lost or done twice.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::shards::{WORDS, assert_same, wait_streams, wait_writes, writer};
use e2e::{LIMIT, Link, from_env, full_syncs, rng, source_of};
use testkit::{Client, Cluster, Server, argv};

fn link(source: &Cluster, target: &str) -> Link {
    Link::between(&source.address(0), target).with("sync_reader", "cluster = true")
}

fn all_of(target: &Server) -> BTreeMap<String, Vec<(u16, u16)>> {
    BTreeMap::from([(target.address(), vec![(0, 16_383)])])
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
    assert_same(&mut daemon, &source, &all_of(&target), 0);
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
    assert_same(&mut daemon, &source, &all_of(&target), 0);
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
    assert_same(&mut daemon, &source, &all_of(&target), 0);
    let kept = Client::connect(&target.address()).keyspace()[&0];
    assert!(kept > 20, "{kept}");
}

/// Valkey 9 moves slots as a whole: nobody sees one half moved, and the source removes its keys afterwards. Here each shard's
/// snapshot has a connection of its own.
#[test]
fn slots_that_valkey_moves_as_a_whole() {
    let mut rng = rng();
    let words = format!("{WORDS} --repl-diskless-sync yes --dual-channel-replication-enabled yes");
    let (source, target) = (
        Cluster::start_with("valkey-9.0", 3, 0, &words),
        source_of("valkey-9.0"),
    );
    let mut client = source.servers[0].client();
    let of_node_0 = source.slots()[&source.address(0)][0].0;
    let tag = (0_u32..)
        .map(|n| format!("{{{n}}}"))
        .find(|tag| {
            testkit::client::number(&client.command(&argv!["CLUSTER", "KEYSLOT", tag]))
                == Some(i64::from(of_node_0))
        })
        .expect("a key of the slot");
    client.command(&argv!["HSET", tag, "field", "value"]);
    client.command(&argv!["HEXPIRE", tag, 3000, "FIELDS", 1, "field"]);
    let writer = writer(&source, &mut rng);
    let mut daemon = link(&source, &target.address()).start();
    wait_streams(&mut daemon, 3);
    wait_writes(&mut daemon, &writer, 2000);
    let output = daemon.output();
    assert_eq!(
        output.matches("on a connection of its own").count(),
        3,
        "{output}"
    );
    let left = target
        .client()
        .command(&argv!["HTTL", tag, "FIELDS", 1, "field"]);
    let left = testkit::client::items(left);
    assert!(testkit::client::number(&left[0]) > Some(0), "{left:?}");
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
    assert_same(&mut daemon, &source, &all_of(&target), 0);
    for server in &source.servers {
        assert_eq!(full_syncs(server), 1, "{}", server.address());
    }
}
