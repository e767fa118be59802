//! Clusters that are read by SCAN and keyspace events, and clusters that are written to that way: slots move, primaries die, nodes
//! come, a shard is flushed, the daemon is killed, and in the end every key is equal.

use std::collections::BTreeMap;
use std::time::Duration;

use e2e::{LIMIT, Link, fast, phase, rng, scan, settle};
use testkit::client::{number, text};
use testkit::oracle::{self, OracleOptions};
use testkit::process::wait_until;
use testkit::{
    Cluster, ClusterWriter, Counters, Daemon, Engine, Rng, Server, ServerOptions, Writer, argv,
    workload,
};

const EVENTS: &str = "--notify-keyspace-events KEA";
/// Under this name nobody asks for it.
const REFUSES: &str = "--rename-command PSYNC nobody-knows";

/// What two copies may differ in: MIGRATE takes along what is left of an expiry, and that is a moment less exact.
fn options(version: &testkit::version::Version) -> OracleOptions {
    OracleOptions {
        expiry_tolerance_ms: 20,
        ..OracleOptions::live(version)
    }
}

/// A server that refuses PSYNC and tells of its keys' changes.
fn source() -> Server {
    Server::start(
        &Engine::of("redis-7.0"),
        ServerOptions::args(&format!("{EVENTS} {REFUSES}")),
    )
}

/// A link from there into a cluster, which finds out by itself that it has to read by SCAN.
fn into(source: &Server, cluster: &Cluster) -> Link {
    let link = Link::between(&source.address(), &cluster.address(0));
    fast(link.with("redis_writer", "cluster = true"))
}

fn equal(source: &Server, cluster: &Cluster) {
    cluster.wait_whole();
    let options = options(&source.engine().version);
    oracle::assert_cluster_equal(&source.address(), &cluster.slots(), &options);
}

fn wait_scan(daemon: &mut Daemon) {
    daemon.wait_for("the scan phase", LIMIT, |daemon| phase(daemon) == "scan");
}

/// A list and a stream of some megabytes, which go in pieces.
fn large(server: &Server) {
    let mut client = server.client();
    let item = "x".repeat(400);
    for part in 0..50 {
        let mut push = argv!["RPUSH", "large:list"];
        push.extend((0..100).map(|n| format!("{part}:{n}:{item}").into_bytes()));
        client.command(&push);
    }
    for n in 1..=3000 {
        client.command(&argv!["XADD", "large:stream", format!("{n}-1"), "f", item]);
    }
    client.command(&argv!["XGROUP", "CREATE", "large:stream", "g", "0"]);
    client.command(&argv![
        "XREADGROUP",
        "GROUP",
        "g",
        "c",
        "COUNT",
        "50",
        "STREAMS",
        "large:stream",
        ">"
    ]);
    client.command(&argv!["XDEL", "large:stream", "5-1", "2000-1"]);
}

/// Every kind of write goes on while the source is flushed and the daemon is killed.
#[test]
fn a_server_is_followed_into_a_cluster_over_flushes_and_kills() {
    let mut rng = rng();
    let (source, cluster) = (source(), Cluster::start("redis-7.0", 3, 0));
    workload::fill_dbs(&mut source.client(), rng.number(), 2_000, &[0]);
    large(&source);
    let mut daemon = into(&source, &cluster).start();
    wait_scan(&mut daemon);
    settle(&mut daemon, LIMIT);
    equal(&source, &cluster);
    let writer = Writer::start_in_db_0(&source.address(), rng.number(), 600);
    let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    source.client().command(&argv!["FUNCTION", "LOAD", library]);
    for round in 0..3 {
        std::thread::sleep(Duration::from_millis(300 + rng.below(500)));
        if round == 1 {
            source.client().command(&argv!["FLUSHALL"]);
            workload::fill_dbs(&mut source.client(), rng.number(), 500, &[0]);
        }
        daemon.restart();
        wait_scan(&mut daemon);
    }
    large(&source);
    writer.stop();
    settle(&mut daemon, LIMIT);
    equal(&source, &cluster);
    let libraries = oracle::read_functions(&source.address());
    assert!(!libraries.is_empty());
    for server in &cluster.servers {
        assert_eq!(oracle::read_functions(&server.address()), libraries);
    }
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
}

/// The target's slots move, a primary dies without what its replica had not received, and another one takes over.
#[test]
fn the_target_moves_slots_and_loses_a_primary() {
    let mut rng = rng();
    let (source, mut cluster) = (source(), Cluster::start("redis-7.0", 3, 1));
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 600);
    let mut daemon = into(&source, &cluster).start();
    wait_scan(&mut daemon);
    let wait = |daemon: &mut Daemon, more: u64| {
        let goal = counters.acknowledged() + more;
        daemon.wait_for("writes", LIMIT, |_| counters.acknowledged() >= goal);
    };
    wait(&mut daemon, 1000);
    for _ in 0..10 {
        let slot = cluster.slot(&format!("count:{}", rng.below(400)));
        let from = cluster.place_of(slot);
        let to = *rng.pick(&[(from + 1) % 3, (from + 2) % 3]);
        cluster.move_slot(slot, from, to);
    }
    wait(&mut daemon, 300);
    let dies = cluster.address(0);
    cluster.servers[0].kill();
    daemon.wait_for("another primary", LIMIT, |_| {
        !cluster.slots().contains_key(&dies)
    });
    cluster.wait_whole();
    wait(&mut daemon, 600);
    cluster.fail_over(4, "TAKEOVER");
    cluster.wait_whole();
    wait(&mut daemon, 600);
    let ledger = counters.stop();
    settle(&mut daemon, LIMIT);
    let wrong = ledger.check_with(&mut |_, argv| cluster.read(&argv));
    assert!(wrong.is_empty(), "counters:\n{}", wrong.join("\n"));
    equal(&source, &cluster);
}

#[test]
fn the_script_keeps_others_out_of_a_copy_by_scan() {
    let mut rng = rng();
    let (source, cluster) = (source(), Cluster::start("redis-7.0", 3, 0));
    workload::fill_dbs(&mut source.client(), rng.number(), 500, &[0]);
    let writer = Writer::start_in_db_0(&source.address(), rng.number(), 400);
    let mut daemon = into(&source, &cluster)
        .with("redis_writer", "slot_fence = \"lua\"")
        .start();
    wait_scan(&mut daemon);
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(400 + rng.below(600)));
        daemon.restart();
        wait_scan(&mut daemon);
    }
    writer.stop();
    settle(&mut daemon, LIMIT);
    equal(&source, &cluster);
}

/// A second pass over the first one puts what is new, and removes what is gone.
#[test]
fn passes_over_a_cluster_end_with_an_equal_copy() {
    let (source, cluster) = (source(), Cluster::start("redis-7.0", 3, 0));
    workload::fill_dbs(&mut source.client(), 1, 1_500, &[0]);
    large(&source);
    let link = Link::between(&source.address(), &cluster.address(0))
        .with("redis_writer", "cluster = true")
        .scanning();
    let mut daemon = link.start();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    equal(&source, &cluster);
    let mut client = source.client();
    client.command(&argv!["DEL", "large:list"]);
    client.command(&argv!["SET", "new", "1"]);
    let place = cluster.place_of(cluster.slot("extra"));
    let mut at_target = cluster.servers[place].client();
    at_target.command(&argv!["SET", "extra", "1"]);
    daemon.spawn();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    equal(&source, &cluster);
    assert_eq!(text(&cluster.read(&argv!["GET", "new"])), "1");
    assert_eq!(number(&cluster.read(&argv!["EXISTS", "extra"])), Some(0));
}

/// A cluster that refuses PSYNC.
fn source_cluster() -> Cluster {
    Cluster::start_with("redis-7.0", 3, 0, &format!("{EVENTS} {REFUSES}"))
}

fn from(source: &Cluster, target: &str) -> Link {
    fast(Link::between(&source.address(0), target).with("sync_reader", "cluster = true"))
}

fn writer(source: &Cluster, rng: &mut Rng) -> ClusterWriter {
    let nodes: Vec<String> = (0..3).map(|at| source.address(at)).collect();
    ClusterWriter::start(&nodes, rng.number(), 500)
}

fn wait_writes(daemon: &mut Daemon, writer: &ClusterWriter, more: u64) {
    let goal = writer.answered() + more;
    daemon.wait_for("writes", LIMIT, |_| writer.answered() >= goal);
}

fn all_of(target: &Server) -> BTreeMap<String, Vec<(u16, u16)>> {
    BTreeMap::from([(target.address(), vec![(0, 16_383)])])
}

fn assert_same(source: &Cluster, target: &BTreeMap<String, Vec<(u16, u16)>>) {
    source.wait_whole();
    let options = options(&source.servers[0].engine().version);
    oracle::assert_clusters_equal(&source.slots(), target, &options);
}

/// Moves the slot of some key that is written to.
fn move_one(source: &Cluster, rng: &mut Rng) {
    let slot = source.slot(&format!("{{t{}}}", rng.below(120)));
    let from = source.place_of(slot);
    let to = *rng.pick(&[(from + 1) % 3, (from + 2) % 3]);
    source.move_slot(slot, from, to);
}

#[test]
fn a_cluster_that_refuses_psync_is_followed_while_its_slots_move() {
    let mut rng = rng();
    let (source, target) = (source_cluster(), Server::of("redis-7.0"));
    let writer = writer(&source, &mut rng);
    let mut daemon = from(&source, &target.address()).start();
    wait_scan(&mut daemon);
    let said = daemon.output().matches("the source refuses PSYNC").count();
    assert_eq!(said, 1, "{}", daemon.output());
    wait_writes(&mut daemon, &writer, 500);
    for n in 0..8 {
        move_one(&source, &mut rng);
        if n % 4 == 3 {
            daemon.restart();
            wait_scan(&mut daemon);
        }
    }
    wait_writes(&mut daemon, &writer, 500);
    writer.stop();
    settle(&mut daemon, LIMIT);
    assert_same(&source, &all_of(&target));
    // Every node is listened to.
    let mut events = scan(&daemon, "events").unwrap_or(0);
    for at in 0..3 {
        let slots = source.slots();
        let first = slots[&source.address(at)][0].0;
        let key = (0..).map(|n| format!("key:{n}"));
        let key = key
            .into_iter()
            .find(|key| source.slot(key) >= first && source.place_of(source.slot(key)) == at)
            .expect("a key of this node");
        source.servers[at]
            .client()
            .command(&argv!["SET", key, "late"]);
        daemon.wait_for("its event", LIMIT, |daemon| {
            scan(daemon, "events").is_some_and(|now| now > events)
        });
        events = scan(&daemon, "events").unwrap_or(0);
    }
    settle(&mut daemon, LIMIT);
    assert_same(&source, &all_of(&target));
}

#[test]
fn a_cluster_is_followed_into_a_cluster_over_failovers_and_a_new_node() {
    let mut rng = rng();
    // Its replicas need PSYNC.
    let mut source = Cluster::start_with("redis-7.0", 3, 1, EVENTS);
    let target = Cluster::start("redis-7.0", 3, 0);
    let writer = writer(&source, &mut rng);
    let link = Link::between(&source.address(0), &target.address(0))
        .scanning()
        .with("scan_reader", "cluster = true")
        .with("scan_reader", "ksn = true")
        .with("redis_writer", "cluster = true");
    let mut daemon = fast(link).start();
    wait_scan(&mut daemon);
    wait_writes(&mut daemon, &writer, 500);
    source.fail_over(4, "");
    wait_writes(&mut daemon, &writer, 500);
    let new = source.add_with("redis-7.0", EVENTS);
    for _ in 0..4 {
        let slot = source.slot(&format!("{{t{}}}", rng.below(120)));
        let from = source.place_of(slot);
        if from != new {
            source.move_slot(slot, from, new);
        }
    }
    wait_writes(&mut daemon, &writer, 500);
    let at_new = source.address(new);
    daemon.wait_for_output(&at_new, LIMIT);
    let dies = source.address(0);
    source.servers[0].kill();
    daemon.wait_for("another primary", LIMIT, |_| {
        !source.slots().contains_key(&dies)
    });
    source.wait_whole();
    wait_writes(&mut daemon, &writer, 500);
    writer.stop();
    settle(&mut daemon, LIMIT * 2);
    target.wait_whole();
    assert_same(&source, &target.slots());
}

/// One pass, no events: a slot that goes from a node that was not read yet to one that was is read there.
#[test]
fn one_pass_over_a_cluster_misses_nothing_while_its_slots_move() {
    let mut rng = rng();
    let (source, target) = (Cluster::start("redis-7.0", 3, 0), Server::of("redis-7.0"));
    let writer = writer(&source, &mut rng);
    wait_until("some writes", LIMIT, || writer.answered() >= 3000);
    writer.stop();
    let mut daemon = Link::between(&source.address(0), &target.address())
        .scanning()
        .with("scan_reader", "cluster = true")
        .with("scan_reader", "count = 10")
        .with("limits", "target_commands_per_second = 600")
        .start();
    daemon.wait_for("some keys", LIMIT, |daemon| {
        scan(daemon, "keys").is_some_and(|keys| keys > 50)
    });
    for _ in 0..6 {
        move_one(&source, &mut rng);
    }
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    assert_same(&source, &all_of(&target));
}

/// Valkey 9 moves slots as a whole: nobody sees one half moved, and no event tells of their keys.
#[test]
fn slots_that_valkey_moves_as_a_whole_are_followed() {
    let mut rng = rng();
    let source = Cluster::start_with("valkey-9.0", 3, 0, EVENTS);
    let target = Server::of("valkey-9.0");
    let writer = writer(&source, &mut rng);
    let mut daemon = fast(Link::between(&source.address(0), &target.address()))
        .scanning()
        .with("scan_reader", "cluster = true")
        .with("scan_reader", "ksn = true")
        .start();
    wait_scan(&mut daemon);
    wait_writes(&mut daemon, &writer, 500);
    for (from, to) in [(0, 1), (2, 1)] {
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
    daemon.wait_for_output("slots of the source have moved", LIMIT);
    writer.stop();
    settle(&mut daemon, LIMIT);
    assert_same(&source, &all_of(&target));
}

#[test]
fn a_flush_of_one_shard_takes_its_keys_alone() {
    let mut rng = rng();
    let (source, target) = (source_cluster(), Server::of("redis-7.0"));
    let writer = writer(&source, &mut rng);
    let mut daemon = from(&source, &target.address()).start();
    wait_scan(&mut daemon);
    wait_writes(&mut daemon, &writer, 1000);
    writer.stop();
    settle(&mut daemon, LIMIT);
    let before = target.client().keyspace()[&0];
    let flushed = source.servers[1].client().keyspace()[&0];
    source.servers[1].client().command(&argv!["FLUSHALL"]);
    daemon.wait_for_output("FLUSHALL, FLUSHDB or SWAPDB", LIMIT);
    settle(&mut daemon, LIMIT);
    assert_same(&source, &all_of(&target));
    let kept = target.client().keyspace()[&0];
    assert!(
        flushed > 10 && kept + flushed <= before + 5,
        "{before} {flushed} {kept}"
    );
}

/// What was followed by PSYNC is not degraded; and a cluster is not read by SCAN at one node alone without a word.
#[test]
fn a_cluster_that_was_followed_by_psync_is_not_degraded() {
    let words = format!("{EVENTS} --repl-diskless-sync-delay 0");
    let source = Cluster::start_with("redis-7.0", 3, 0, &words);
    let target = Server::of("redis-7.0");
    source.servers[0]
        .client()
        .command(&argv!["CONFIG", "SET", "save", ""]);
    let user = argv![
        "ACL", "SETUSER", "reader", "on", ">secret", "~*", "&*", "+@all"
    ];
    for server in &source.servers {
        server.client().command(&user);
    }
    let mut daemon = from(&source, &target.address())
        .with("sync_reader", "username = \"reader\"")
        .with("sync_reader", "password = \"secret\"")
        .start();
    daemon.wait_for("readiness", LIMIT, e2e::is_ready);
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    source.servers[1]
        .client()
        .command(&argv!["ACL", "SETUSER", "reader", "-psync"]);
    daemon.spawn();
    assert_eq!(daemon.wait(LIMIT), 3, "{}", daemon.output());
    for told in ["was followed by PSYNC before", "[scan_reader]"] {
        assert!(
            daemon.output().contains(told),
            "{told}\n{}",
            daemon.output()
        );
    }
}
