//! Somebody else writes at a cluster, or what it answered was not heard, or it ended keys that the source has saved: the keys are
//! copied again one by one, over kills, without a second full sync.

use std::time::{Duration, Instant};

use e2e::{
    LIMIT, Link, assert_same_in_cluster, catch_up, from_env, full_syncs, link_to_cluster, own, rng,
    source_of, wait_more, wait_stream,
};
use testkit::client::{Argv, items, text};
use testkit::oracle::{self, OracleOptions};
use testkit::process::wait_until;
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::{Client, Cluster, Counters, Daemon, Ledger, Rng, Server, argv};

fn words(line: &str) -> Argv {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

/// A connection to the node that has a key.
fn at(cluster: &Cluster, key: &str) -> Client {
    Client::connect(&cluster.owner(cluster.slot(key)))
}

fn repairs(daemon: &Daemon) -> u64 {
    own(daemon, "repairs").unwrap_or(0)
}

/// Waits until at least `count` keys were repaired and none is under repair.
fn wait_repaired(daemon: &mut Daemon, count: u64) {
    daemon.wait_for(&format!("{count} repairs"), LIMIT, |daemon| {
        repairs(daemon) >= count && own(daemon, "repairs_open") == Some(0)
    });
}

fn assert_same(daemon: &mut Daemon, source: &Server, cluster: &Cluster, ledger: Option<&Ledger>) {
    assert_same_in_cluster(daemon, source, cluster, ledger);
    assert_eq!(full_syncs(source), 1, "{}", daemon.output());
}

/// What the checkpoint of a key's slot says.
fn checkpoint_of(cluster: &Cluster, key: &str) -> String {
    let slot = cluster.slot(key);
    let mut client = at(cluster, key);
    let keys = client.command(&argv!["CLUSTER", "GETKEYSINSLOT", slot, 100]);
    let keys: Vec<String> = items(keys).iter().map(text).collect();
    let own = keys
        .iter()
        .find(|key| key.starts_with("understudy:checkpoint:{") && !key.contains("{understudy"));
    text(&client.command(&argv!["GET", own.expect("a checkpoint of the slot")]))
}

const KINDS: [&str; 7] = ["incr", "list", "log", "stream", "zset", "hash", "a"];

/// Overwrites a counter at the target with something at which its command fails; gives its name.
fn spoil(cluster: &Cluster, rng: &mut Rng) -> String {
    let kind = *rng.pick(&KINDS);
    let key = format!("count:{{g{}}}:{kind}", rng.below(6));
    let wrong = match kind {
        "list" | "zset" | "hash" => argv!["SET", key, "wrong"],
        "stream" if rng.one_in(2) => argv!["XADD", key, "999999999-0", "f", "v"],
        "stream" => argv!["SET", key, "wrong"],
        _ => argv!["RPUSH", key, "wrong"],
    };
    let del = match wrong[0].as_slice() {
        b"XADD" => argv!["PING"],
        _ => argv!["DEL", key],
    };
    at(cluster, &key).commands(&[argv!["MULTI"], del, wrong, argv!["EXEC"]]);
    key
}

#[test]
fn keys_overwritten_at_a_cluster_are_repaired_under_load_and_over_kills() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 2000);
    let mut daemon = link_to_cluster(&source, &cluster.address(0)).start();
    wait_stream(&mut daemon);
    wait_more("operations", 2000, || counters.acknowledged());
    let rounds = from_env("UNDERSTUDY_REPAIRS", 5);
    for round in 1..=rounds {
        println!("round {round}: {}", spoil(&cluster, &mut rng));
        wait_more("operations", 200 + rng.below(400), || {
            counters.acknowledged()
        });
        wait_repaired(&mut daemon, round);
    }
    for round in 0..from_env("UNDERSTUDY_REPAIR_KILLS", 5) {
        let keys: Vec<String> = (0..4).map(|_| spoil(&cluster, &mut rng)).collect();
        println!("round {round}: {keys:?}");
        // The moment is what is random here, so this one sleeps.
        std::thread::sleep(Duration::from_millis(rng.below(60)));
        daemon.restart();
        wait_stream(&mut daemon);
    }
    // Each counter is written once more, so that no damage goes unnoticed.
    wait_more("operations", 2000, || counters.acknowledged());
    let ledger = counters.stop();
    assert_same(&mut daemon, &source, &cluster, Some(&ledger));
    assert!(daemon.output().contains("a command failed at the target"));
}

#[test]
fn a_slots_checkpoint_tells_of_keys_under_repair_while_the_source_cannot_be_read() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut client = source.client();
    let run = |client: &mut Client, lines: &[&str]| {
        for line in lines {
            client.command(&words(line));
        }
    };
    run(
        &mut client,
        &["RPUSH k a", "SET other 1", "SET elsewhere 1"],
    );
    let mut daemon = link_to_cluster(&source, &cluster.address(0))
        .with("redis_writer", "slot_fence = \"lua\"")
        .start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    at(&cluster, "k").command(&words("SET k wrong"));
    // Only new connections are refused: the stream goes on.
    run(&mut client, &["CONFIG SET maxclients 1"]);
    run(&mut client, &["RPUSH k b", "INCR other"]);
    daemon.wait_for("a key under repair", LIMIT, |daemon| {
        own(daemon, "repairs_open") == Some(1)
    });
    // What is made from it differs too, in whichever slot it is.
    run(
        &mut client,
        &["RPUSH k c", "INCR other", "COPY k copy", "INCR elsewhere"],
    );
    let get = |key: &str| text(&at(&cluster, key).command(&argv!["GET", key]));
    daemon.wait_for("what is not under repair", LIMIT, |_| {
        get("other") == "3" && get("elsewhere") == "2"
    });
    daemon.wait_for("the copy under repair", LIMIT, |daemon| {
        own(daemon, "repairs_open") == Some(2)
    });
    let named = |key: &str| checkpoint_of(&cluster, key).ends_with(&format!("|0:{}", hex(key)));
    daemon.wait_for("their names", LIMIT, |_| named("k") && named("copy"));
    assert_eq!(get("k"), "wrong");
    assert!(daemon.get("/readyz").is_some_and(|(code, _)| code == 503));
    daemon.kill();
    run(&mut client, &["CONFIG SET maxclients 1000", "RPUSH k d"]);
    daemon.spawn();
    wait_stream(&mut daemon);
    wait_repaired(&mut daemon, 2);
    assert_same(&mut daemon, &source, &cluster, None);
    daemon.wait_for("no names", LIMIT, |_| {
        checkpoint_of(&cluster, "k").split('|').count() < 7
    });
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0);
    let checkpoint = checkpoint_of(&cluster, "k");
    assert_eq!(checkpoint.split('|').count(), 5, "{checkpoint}");
}

fn hex(text: &str) -> String {
    text.bytes().map(|byte| format!("{byte:02x}")).collect()
}

/// One row a key: how it is made, what others write over it at the target, and what the source does then.
const KEYS: &[(&[&str], &[&str], &str)] = &[
    (&["RPUSH list a"], &["SET list wrong"], "RPUSH list b"),
    (&["SADD set a"], &["DEL set", "HSET set f v"], "SADD set b"),
    (&["SET number 1"], &["SET number no-number"], "INCR number"),
    (
        &["XADD stream 1-1 f v"],
        &["XADD stream 99-1 f v"],
        "XADD stream 2-1 f v",
    ),
    (&["HSET hash n 1"], &["HSET hash n x"], "HINCRBY hash n 2"),
    (
        &["SET from 1", "RPUSH to 1"],
        &["DEL from"],
        "RENAME from to",
    ),
];

/// A cluster whose nodes are reached by proxies, as they announce themselves.
fn behind_proxies(cluster: &Cluster) -> Vec<Proxy> {
    let proxies: Vec<Proxy> = cluster
        .servers
        .iter()
        .map(|server| Proxy::start(&server.address()))
        .collect();
    let ports: Vec<u16> = proxies.iter().map(Proxy::port).collect();
    cluster.announce(&ports);
    proxies
}

fn what_was_not_heard(kills: bool) {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let proxies = behind_proxies(&cluster);
    let mut daemon = Link::between(&source.address(), &proxies[0].address())
        .with("redis_writer", "cluster = true")
        .start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    for line in KEYS.iter().flat_map(|(before, ..)| *before) {
        client.command(&words(line));
    }
    client.command(&argv!["SET", "last", "begins"]);
    catch_up(&mut daemon, &source);
    for line in KEYS.iter().flat_map(|(_, wrong, _)| *wrong) {
        let words = words(line);
        let key = String::from_utf8_lossy(&words[1]).into_owned();
        // Its own address, not the proxy's.
        let owner = cluster.owner(cluster.slot(&key));
        let place = proxies.iter().position(|proxy| proxy.address() == owner);
        cluster.servers[place.expect("a node")]
            .client()
            .command(&words);
    }
    for proxy in &proxies {
        proxy.hold(Direction::ToClient);
    }
    let mut commands = vec![argv!["MULTI"]];
    // All but the last, which is in two slots, are in one window.
    commands.extend(KEYS.iter().take(5).map(|(.., then)| words(then)));
    commands.push(argv!["SET", "last", "done"]);
    commands.push(argv!["EXEC"]);
    client.commands(&commands);
    let done = |key: &str, get: &str| {
        let owner = cluster.owner(cluster.slot(key));
        let place = proxies.iter().position(|proxy| proxy.address() == owner);
        let mut client = cluster.servers[place.expect("a node")].client();
        text(&client.command(&argv![get, key]))
    };
    wait_until("the window at the target", LIMIT, || {
        done("last", "GET") == "done"
    });
    assert_eq!(own(&daemon, "repairs_open"), Some(0));
    if kills {
        daemon.kill();
    }
    for proxy in &proxies {
        proxy.cut_now(Cut::Rst);
        proxy.release(Direction::ToClient);
    }
    if kills {
        daemon.spawn();
    }
    client.command(&words(KEYS[5].2));
    wait_stream(&mut daemon);
    wait_repaired(&mut daemon, KEYS.len() as u64 + 1);
    assert_same_behind(&mut daemon, &source, &cluster);
    // In good order nothing is left unseen: the next run has nothing to repair.
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    assert_eq!(own(&daemon, "repairs"), Some(0));
}

fn assert_same_behind(daemon: &mut Daemon, source: &Server, cluster: &Cluster) {
    catch_up(daemon, source);
    let options = OracleOptions::live(&source.engine().version);
    oracle::assert_cluster_equal(&source.address(), &cluster.slots(), &options);
    assert_eq!(full_syncs(source), 1, "{}", daemon.output());
}

#[test]
fn what_a_kill_kept_from_being_seen_is_repaired() {
    what_was_not_heard(true);
}

#[test]
fn what_a_lost_line_kept_from_being_seen_is_repaired() {
    what_was_not_heard(false);
}

/// How long keys live at first: more than what has a lease from the beginning, so that they end at the target.
const LIFE_MS: u64 = 21_000;

#[test]
fn keys_that_a_cluster_ended_while_nobody_was_there_are_as_at_the_source() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut client = source.client();
    let mut daemon = link_to_cluster(&source, &cluster.address(0)).start();
    wait_stream(&mut daemon);
    let began = Instant::now();
    let mut born = vec![argv!["RPUSH", "queue", "a"], argv!["SADD", "plain", "p"]];
    for key in ["prolonged", "kept", "gone", "untouched", "moved", "renewed"] {
        born.push(argv!["SET", key, "v", "PX", LIFE_MS]);
    }
    for key in ["list", "popped"] {
        born.push(argv!["RPUSH", key, "a", "b", "c"]);
        born.push(argv!["PEXPIRE", key, LIFE_MS]);
    }
    born.push(argv!["SADD", "members", "x", "y"]);
    born.push(argv!["PEXPIRE", "members", LIFE_MS]);
    client.commands(&born);
    // Their own expiries are there: what is written now is the last of them.
    catch_up(&mut daemon, &source);
    daemon.wait_for("keys to have their own expiries", LIMIT, |daemon| {
        own(daemon, "leases_open") == Some(0)
    });
    client.command(&argv!["SET", "last", 1]);
    catch_up(&mut daemon, &source);
    daemon.kill();
    std::thread::sleep(Duration::from_millis(LIFE_MS - 4_000).saturating_sub(began.elapsed()));
    client.commands(&[
        argv!["PEXPIRE", "prolonged", 10_000_000],
        argv!["PERSIST", "kept"],
        argv!["RPUSH", "list", "d"],
        argv!["PERSIST", "list"],
        argv!["RPOPLPUSH", "popped", "queue"],
        argv!["SUNIONSTORE", "union", "plain", "members"],
        argv!["RENAME", "moved", "moved:on"],
        argv!["PERSIST", "moved:on"],
        argv!["DEL", "gone"],
        argv!["INCR", "gone"],
        argv!["PEXPIRE", "gone", 10_000_000],
        argv!["SET", "renewed", "v"],
    ]);
    std::thread::sleep(Duration::from_millis(LIFE_MS + 500).saturating_sub(began.elapsed()));
    daemon.spawn();
    wait_stream(&mut daemon);
    assert_same(&mut daemon, &source, &cluster, None);
    assert_eq!(
        text(&at(&cluster, "kept").command(&argv!["GET", "kept"])),
        "v"
    );
    assert!(repairs(&daemon) > 0, "{}", daemon.output());
}
