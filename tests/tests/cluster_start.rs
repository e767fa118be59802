//! A cluster before and beside the stream: keys that it holds already, emptying it, limits that are changed while it is written to, and
//! a node that hangs while all of them are emptied.

use std::time::{Duration, Instant};

use e2e::{
    LIMIT, assert_same_in_cluster, catch_up, full_syncs, link_to_cluster, own, run, run_file,
    source_of, wait_stream,
};
use testkit::client::text;
use testkit::daemon::{STATUS_PORT, post};
use testkit::{Cluster, Daemon, Server, argv};

/// As it is, and with RESTORE out of question.
const WAYS: [&str; 2] = [
    "target_redis_proto_max_bulk_len = 512000000",
    "target_redis_proto_max_bulk_len = 0",
];
const KINDS: [&str; 3] = ["string", "list", "hash"];

/// Keys of each kind, many enough to be at every node: `shared` at both ends, `new` and `own` at one.
fn both() -> (Server, Cluster) {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut client = source.client();
    for (at, name) in names() {
        let (ours, theirs) = (format!("{name}:{at}"), "source");
        if name != "own" {
            client.command(&argv!["SET", format!("{ours}:string"), theirs]);
            client.command(&argv!["RPUSH", format!("{ours}:list"), theirs, "b"]);
            client.command(&argv!["HSET", format!("{ours}:hash"), "f", theirs]);
        }
        if name != "new" {
            cluster.read(&argv!["SET", format!("{ours}:string"), "target"]);
            cluster.read(&argv!["RPUSH", format!("{ours}:list"), "target"]);
            cluster.read(&argv!["HSET", format!("{ours}:hash"), "f", "target"]);
        }
    }
    (source, cluster)
}

fn names() -> impl Iterator<Item = (u32, &'static str)> {
    (0..8).flat_map(|at| ["shared", "new", "own"].map(|name| (at, name)))
}

/// Whose values keys beginning with `name` have.
fn whose(cluster: &Cluster, name: &str) -> Vec<String> {
    let mut all = Vec::new();
    for at in 0..8 {
        for kind in KINDS {
            let key = format!("{name}:{at}:{kind}");
            let found = match kind {
                "string" => cluster.read(&argv!["GET", key]),
                "list" => cluster.read(&argv!["LINDEX", key, 0]),
                _ => cluster.read(&argv!["HGET", key, "f"]),
            };
            all.push(text(&found));
        }
    }
    all.dedup();
    all
}

#[test]
fn existing_keys_of_a_cluster_are_refused_replaced_or_left_by_both_ways_of_writing() {
    for way in WAYS {
        for (existing, owner) in [("fail", ""), ("replace", "source"), ("skip", "target")] {
            let (source, cluster) = both();
            let link = link_to_cluster(&source, &cluster.address(0))
                .with("advanced", way)
                .with("redis_writer", &format!("existing_keys = \"{existing}\""));
            let about = format!("{existing}, {way}");
            if existing == "fail" {
                let ended = run(&link);
                assert_eq!(ended.code, 4, "{}", ended.stderr);
                let error = ended.error();
                assert!(error.contains("holds keys already (db0: 48)"), "{error}");
                assert_eq!(whose(&cluster, "shared"), ["target"], "{about}");
                continue;
            }
            let mut daemon = link.start();
            wait_stream(&mut daemon);
            catch_up(&mut daemon, &source);
            assert_eq!(whose(&cluster, "shared"), [owner], "{about}");
            assert_eq!(whose(&cluster, "new"), ["source"], "{about}");
            assert_eq!(whose(&cluster, "own"), ["target"], "{about}");
            daemon.terminate();
            assert_eq!(daemon.wait(LIMIT), 0);
        }
    }
}

#[test]
fn a_cluster_is_emptied_only_when_somebody_says_so() {
    let (source, cluster) = both();
    let link = link_to_cluster(&source, &cluster.address(0))
        .with("advanced", "empty_db_before_sync = true");
    let plain = link.text().replace(STATUS_PORT, "0");
    let ended = run_file(&["sync", "shake.toml"], Some(plain.as_bytes()));
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.error().contains("--yes"), "{}", ended.error());
    assert_eq!(whose(&cluster, "own"), ["target"]);
    let mut daemon = Daemon::prepare(&link.text(), &["sync", "shake.toml", "--yes"]);
    daemon.spawn();
    wait_stream(&mut daemon);
    assert_same_in_cluster(&mut daemon, &source, &cluster, None);
    // Not a second time: what is there is its own copy.
    source.client().command(&argv!["SET", "later", 1]);
    daemon.restart();
    wait_stream(&mut daemon);
    assert_same_in_cluster(&mut daemon, &source, &cluster, None);
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn limits_are_changed_while_a_cluster_is_written_to() {
    const TOKEN: &str = "an-admin-token";
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut daemon = link_to_cluster(&source, &cluster.address(0))
        .with("advanced", &format!("admin_token = \"{TOKEN}\""))
        .start();
    wait_stream(&mut daemon);
    let address = format!("127.0.0.1:{}", daemon.status_port());
    let say = |path: &str, body: &str| {
        let (code, answer) = post(&address, path, Some(TOKEN), body).expect("an answer");
        assert_eq!(code, 200, "{answer}");
    };
    let mut client = source.client();
    let mut write = |count: usize| {
        for at in 0..count {
            client.command(&argv!["SET", format!("key:{at}"), "x".repeat(1_000)]);
        }
    };
    write(3_000);
    let from = Instant::now();
    catch_up(&mut daemon, &source);
    println!("without a limit: {:?}", from.elapsed());
    say("/limits", "{\"target_bytes_per_second\": 400000}");
    let from = Instant::now();
    write(3_000);
    catch_up(&mut daemon, &source);
    // However large the last unit was: nothing goes behind it before its bytes are worked off.
    write(1);
    catch_up(&mut daemon, &source);
    let took = from.elapsed();
    println!("with one: {took:?}");
    assert!(took > Duration::from_secs(5), "{took:?}");
    say("/limits", "{\"target_bytes_per_second\": 0}");
    say("/pause", "");
    let before = own(&daemon, "applied_offset");
    write(100);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(own(&daemon, "applied_offset"), before);
    say("/resume", "");
    assert_same_in_cluster(&mut daemon, &source, &cluster, None);
}

/// The step waits for all nodes, one of which says nothing: its replica takes over, and the step is done there.
#[test]
fn a_node_that_hangs_while_all_are_emptied_is_left_for_its_replica() {
    for hangs in [0, 1] {
        let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 1));
        let mut client = source.client();
        let mut fill = |name: &str| {
            for at in 0..300 {
                client.command(&argv!["SET", format!("{name}:{at}"), at]);
            }
        };
        fill("before");
        let mut daemon = link_to_cluster(&source, &cluster.address(2)).start();
        wait_stream(&mut daemon);
        catch_up(&mut daemon, &source);
        cluster.wait_replicas();
        cluster.servers[hangs].stop();
        let code =
            "#!lua name=lib\nredis.register_function('f', function(keys, args) return 1 end)";
        // FUNCTION LOAD is in the first case, FLUSHALL in both.
        let mut client = source.client();
        if hangs == 0 {
            client.command(&argv!["FUNCTION", "LOAD", code]);
        }
        client.command(&argv!["FLUSHALL"]);
        fill("behind");
        daemon.wait_for("the replica's turn", LIMIT, |_| {
            cluster.servers[hangs + 3].client().info("replication")["role"] == "master"
        });
        let goal = e2e::written(&source);
        daemon.wait_for("what is behind the flush", LIMIT, |daemon| {
            own(daemon, "applied_offset").is_some_and(|applied| applied >= goal)
        });
        cluster.servers[hangs].cont();
        cluster.wait_whole();
        cluster.wait_replicas();
        assert_same_in_cluster(&mut daemon, &source, &cluster, None);
        assert_eq!(full_syncs(&source), 1, "{}", daemon.output());
    }
}
