//! `understudy compare` with a cluster at either end, and under `redis_writer.db_map`: what is planted is found and repaired, and
//! nothing else is found, while the source is written to and sync runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::plants::{
    ByKey, PLANTS, Scribbler, compare, compare_beside, expected, found, key_of, make,
    make_in_cluster, spoil_in_cluster,
};
use e2e::{
    LIMIT, Link, assert_same_in_cluster, catch_up, from_env, link_to_cluster, own as own_number,
    rng, run_file, source_of, wait_more, wait_stream, written,
};
use testkit::client::{Argv, number};
use testkit::daemon::STATUS_PORT;
use testkit::workload::{fill, fill_dbs};
use testkit::{Cluster, ClusterWriter, Counters, Daemon, Rng, Server, argv};

const LIBRARY: &str = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
const OTHER_LIBRARY: &str = "#!lua name=lib\nredis.register_function('f', function() return 2 end)";

/// What a report says of every key that differs, but for those of its libraries.
fn keys_of(report: &serde_json::Value) -> BTreeMap<(i64, String), String> {
    let mut seen = found(report);
    seen.retain(|(db, _), _| *db >= 0);
    seen
}

/// What the file of all differences says: kind by (db, key).
fn listed(file: &std::path::Path) -> BTreeMap<(i64, String), String> {
    let tsv = std::fs::read_to_string(file).expect("the file");
    let rows = tsv.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        let db = cells[1].parse().unwrap_or(-1);
        ((db, cells[3].to_owned()), cells[0].to_owned())
    });
    rows.filter(|(_, kind)| kind != "unsettled").collect()
}

#[test]
fn all_planted_differences_are_found_in_a_cluster_and_repaired() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let keys = from_env("UNDERSTUDY_COMPARE_KEYS", 6_000);
    let planted = from_env("UNDERSTUDY_COMPARE_PLANTED", 100);
    let mut client = source.client();
    fill_dbs(&mut client, rng.number(), keys, &[0]);
    make(&mut client, 0, planted);
    client.command(&argv!["FUNCTION", "LOAD", LIBRARY]);
    let link = link_to_cluster(&source, &cluster.address(0));
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 800);
    let scribbler = Scribbler::start(&source, Rng::new(rng.number()), keys / 2);
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    wait_more("operations", 1000, || counters.acknowledged());
    spoil_in_cluster(&cluster, planted, str::to_owned);
    // One of the nodes has another library, and one has none.
    let load = argv!["FUNCTION", "LOAD", "REPLACE", OTHER_LIBRARY];
    cluster.servers[1].client().command(&load);
    let delete = argv!["FUNCTION", "DELETE", "lib"];
    cluster.servers[2].client().command(&delete);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_string_lossy().into_owned();
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0", "--tsv", &path]);
    println!("{}", report["sums"]);
    let mut all = expected(0, planted);
    assert_eq!(keys_of(&report), all, "{}", ended.stderr);
    all.insert((-1, "lib".to_owned()), "function".to_owned());
    assert_eq!(found(&report), all);
    assert_eq!(listed(file.path()), all);
    assert_eq!(
        (ended.code, &report["unchecked"]),
        (1, &serde_json::json!([]))
    );
    // Nobody tells how far the target is but a checkpoint that trails.
    let (ended, report) = compare(&link, &["--qps", "0"]);
    assert_eq!(found(&report), all, "{}", ended.stderr);
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0", "--repair"]);
    assert_eq!(found(&report), all, "{}", ended.stderr);
    assert_eq!(
        (ended.code, report["sums"]["open"].as_u64()),
        (0, Some(0)),
        "{report}"
    );
    scribbler.stop();
    let ledger = counters.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, Some(&ledger));
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0", "--snapshot"]);
    assert_eq!(
        (ended.code, found(&report)),
        (0, BTreeMap::new()),
        "{report}"
    );
}

/// Keys that are written on and on differ as well, and are repaired between two writes.
#[test]
fn keys_that_are_written_all_the_time_are_found_and_repaired_in_a_cluster() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.2"), Cluster::start("redis-7.2", 3, 0));
    let mut hot = source.client();
    let write = |n: u64| {
        [
            argv!["RPUSH", format!("hot:{n}"), "a"],
            argv!["INCR", format!("count:{n}")],
        ]
    };
    (0..10).for_each(|n| drop(hot.commands(&write(n))));
    let link = link_to_cluster(&source, &cluster.address(0));
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let mut nodes = ByKey::new(&cluster);
    let mut all = BTreeMap::new();
    for n in 0..10 {
        let (list, count) = (format!("hot:{n}"), format!("count:{n}"));
        nodes.of(&list).command(&argv!["RPUSH", list, "spoilt"]);
        nodes.of(&count).command(&argv!["INCRBY", count, 1000]);
        all.insert((0, list), "value".to_owned());
        all.insert((0, count), "value".to_owned());
    }
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let mut chance = Rng::new(rng.number());
    let writing = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            hot.commands(&write(chance.below(10)));
            std::thread::sleep(Duration::from_millis(chance.below(60)));
        }
    });
    let args = ["--qps", "0", "--repair"];
    let (ended, report) = compare_beside(&link, &daemon, &args);
    stop.store(true, Ordering::Relaxed);
    writing.join().expect("the writer does not panic");
    assert_eq!(found(&report), all, "{}", ended.stderr);
    assert_eq!(
        (ended.code, report["sums"]["open"].as_u64()),
        (0, Some(0)),
        "{report}"
    );
    assert_same_in_cluster(&mut daemon, &source, &cluster, None);
}

/// Slots go from node to node while the target is compared, with keys on both sides of the way.
#[test]
fn slots_that_move_at_the_target_hide_no_key_and_make_no_difference() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let planted = 60;
    let mut client = source.client();
    fill_dbs(&mut client, rng.number(), 3_000, &[0]);
    let all = make(&mut client, 0, planted);
    let link = link_to_cluster(&source, &cluster.address(0));
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 300);
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    spoil_in_cluster(&cluster, planted, str::to_owned);
    let stop = AtomicBool::new(false);
    let (moves, (ended, report)) = std::thread::scope(|scope| {
        let moving = scope.spawn(|| {
            let mut moves = 0;
            while !stop.load(Ordering::Relaxed) {
                let plant = &PLANTS[moves % PLANTS.len()];
                let slot = cluster.slot(&key_of(plant, (moves % planted as usize) as u64));
                let from = cluster.place_of(slot);
                cluster.move_slot(slot, from, (from + 1) % 3);
                moves += 1;
            }
            moves
        });
        // Slow enough for slots to be on their way all the while.
        let compared = compare_beside(&link, &daemon, &["--qps", "2000"]);
        stop.store(true, Ordering::Relaxed);
        (moving.join().expect("slots move"), compared)
    });
    println!("{moves} slots moved; {}", report["sums"]);
    assert!(moves > 2, "{moves}");
    assert_eq!(found(&report), all, "{}", ended.stderr);
    assert_eq!(
        report["sums"]["different"].as_u64(),
        Some(planted),
        "{report}"
    );
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0", "--repair"]);
    assert_eq!(
        (ended.code, report["sums"]["open"].as_u64()),
        (0, Some(0)),
        "{report}"
    );
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    let wrong = ledger.check_with(&mut |_, argv| cluster.read(&argv));
    assert!(wrong.is_empty(), "counters:\n{}", wrong.join("\n"));
    // MIGRATE takes the time that is left along: within the tolerance, expiries may be apart.
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0"]);
    assert_eq!(
        (ended.code, found(&report)),
        (0, BTreeMap::new()),
        "{report}"
    );
}

/// Waits until the links of all shards follow their streams.
fn wait_shards(daemon: &mut Daemon, count: usize) {
    daemon.wait_for("the stream phase of all shards", LIMIT, |daemon| {
        let status = daemon.status().unwrap_or_default();
        let links = status["understudy"]["links"].as_array().cloned();
        let links = links.unwrap_or_default();
        links.len() == count && links.iter().all(|link| link["phase"] == "stream")
    });
}

fn nodes_of(cluster: &Cluster, count: usize) -> Vec<String> {
    (0..count).map(|at| cluster.address(at)).collect()
}

const SHARD_WORDS: &str = "--repl-diskless-sync-delay 0 --repl-backlog-size 64mb";

#[test]
fn all_planted_differences_are_found_in_a_copy_of_a_cluster_and_repaired() {
    let mut rng = rng();
    let source = Cluster::start_with("redis-7.0", 3, 0, SHARD_WORDS);
    let target = source_of("redis-7.0");
    let planted = from_env("UNDERSTUDY_COMPARE_PLANTED", 100);
    let all = make_in_cluster(&source, planted);
    for server in &source.servers {
        server.client().command(&argv!["FUNCTION", "LOAD", LIBRARY]);
    }
    let link =
        Link::between(&source.address(0), &target.address()).with("sync_reader", "cluster = true");
    let writer = ClusterWriter::start(&nodes_of(&source, 3), rng.number(), 1000);
    let mut daemon = link.start();
    wait_shards(&mut daemon, 3);
    wait_more("writes", 1000, || writer.answered());
    let mut at_target = target.client();
    for number in 0..planted {
        let plant = &PLANTS[number as usize % PLANTS.len()];
        at_target.commands(&(plant.spoil)(&key_of(plant, number)));
    }
    let (ended, report) = compare(&link, &["--qps", "0"]);
    println!("{}", report["sums"]);
    assert_eq!(found(&report), all, "{}", ended.stderr);
    assert_eq!(
        (ended.code, &report["unchecked"]),
        (1, &serde_json::json!([]))
    );
    let (ended, report) = compare(&link, &["--qps", "0", "--snapshot"]);
    assert_eq!(found(&report), all, "{}", ended.stderr);
    at_target.command(&argv!["FUNCTION", "FLUSH"]);
    let (ended, report) = compare(&link, &["--qps", "0", "--repair"]);
    assert_eq!(keys_of(&report), all, "{}", ended.stderr);
    assert_eq!(
        (ended.code, report["sums"]["open"].as_u64()),
        (0, Some(0)),
        "{report}"
    );
    // Slots move meanwhile: a key is where it is, and its link is the one that holds it.
    let moved: Vec<u16> = (0..6)
        .map(|n| source.slot(&key_of(&PLANTS[n], n as u64)))
        .collect();
    let (_, (ended, report)) = std::thread::scope(|scope| {
        let moving = scope.spawn(|| {
            for slot in &moved {
                let from = source.place_of(*slot);
                source.move_slot(*slot, from, (from + 1) % 3);
            }
        });
        let compared = compare(&link, &["--qps", "3000"]);
        (moving.join().expect("slots move"), compared)
    });
    assert_eq!(
        (ended.code, found(&report)),
        (0, BTreeMap::new()),
        "{report}"
    );
    writer.stop();
    let text = link.text().replace(STATUS_PORT, "0");
    let args = ["compare", "shake.toml", "--rdb", "a.rdb"];
    let ended = run_file(&args, Some(text.as_bytes()));
    assert!(ended.error().contains("--snapshot"), "{}", ended.stderr);
}

/// Which names keys have at the target.
struct Mapping {
    map: &'static str,
    /// The target's database for one of the source's, and what is before the key there.
    name: fn(u32) -> (u32, String),
    dbs: &'static [u32],
}

const MAPPINGS: &[Mapping] = &[
    Mapping {
        map: "{ 0 = 3, 3 = 0, 1 = 7, 2 = \"drop\" }",
        name: |db| match db {
            0 => (3, String::new()),
            3 => (0, String::new()),
            1 => (7, String::new()),
            other => (other, String::new()),
        },
        dbs: &[0, 1, 3, 5],
    },
    // Three databases in one.
    Mapping {
        map: "{ 1 = 0, 2 = 0 }",
        name: |db| (if db < 3 { 0 } else { db }, String::new()),
        dbs: &[0, 1, 2, 4],
    },
    Mapping {
        map: "\"prefix\"",
        name: |db| (0, format!("db{db}:")),
        dbs: &[0, 1, 2, 11],
    },
];

/// Keys of its own in each database, so that several can go into one.
fn own(db: u32, key: &str) -> String {
    format!("of{db}:{key}")
}

/// Writes to keys of all databases, some of which come and go.
fn scribble(source: &Server, dbs: &'static [u32], mut rng: Rng) -> impl FnOnce() + use<> {
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let mut client = source.client();
    let thread = std::thread::spawn(move || {
        while !stopped.load(Ordering::Relaxed) {
            for db in dbs {
                client.select(*db);
                let commands: Vec<Argv> = (0..20)
                    .map(|_| {
                        let key = own(*db, &format!("scribble:{}", rng.below(300)));
                        match rng.below(4) {
                            0 => argv!["SET", key, rng.number()],
                            1 => argv!["DEL", key],
                            2 => argv!["SET", key, rng.number(), "PX", 400 + rng.below(90_000)],
                            _ => argv!["APPEND", key, "x"],
                        }
                    })
                    .collect();
                client.commands(&commands);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    move || {
        stop.store(true, Ordering::Relaxed);
        thread.join().expect("the writer does not panic");
    }
}

#[test]
fn keys_under_other_names_are_compared_and_repaired() {
    let mut rng = rng();
    for mapping in MAPPINGS {
        let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
        let mut client = source.client();
        let planted = 45;
        let mut all = BTreeMap::new();
        for db in mapping.dbs {
            client.select(*db);
            for number in 0..planted {
                let plant = &PLANTS[number as usize % PLANTS.len()];
                let key = own(*db, &key_of(plant, number));
                client.commands(&(plant.make)(&key));
                all.insert((i64::from(*db), key), plant.kind.to_owned());
            }
        }
        // What is dropped is no difference.
        client.select(2);
        client.command(&argv!["SET", "of2:alone", 1]);
        let link =
            Link::new(&source, &target).with("redis_writer", &format!("db_map = {}", mapping.map));
        let stop = scribble(&source, mapping.dbs, Rng::new(rng.number()));
        let mut daemon = link.start();
        wait_stream(&mut daemon);
        let goal = written(&source);
        daemon.wait_for("what was written", LIMIT, |daemon| {
            own_number(daemon, "applied_offset").is_some_and(|applied| applied >= goal)
        });
        let mut at_target = target.client();
        for db in mapping.dbs {
            let (at, prefix) = (mapping.name)(*db);
            at_target.select(at);
            for number in 0..planted {
                let plant = &PLANTS[number as usize % PLANTS.len()];
                let key = format!("{prefix}{}", own(*db, &key_of(plant, number)));
                at_target.commands(&(plant.spoil)(&key));
            }
        }
        // An extra key of a merged database has the name of the first that goes into it: whose, nobody can tell.
        if mapping.map.contains("1 = 0, 2 = 0") {
            let is_extra = |kind: &String| kind == "extra";
            let extra: Vec<_> = all
                .clone()
                .into_iter()
                .filter(|(_, kind)| is_extra(kind))
                .collect();
            for ((db, key), kind) in extra.into_iter().filter(|((db, _), _)| *db < 3) {
                all.remove(&(db, key.clone()));
                all.insert((1, key), kind);
            }
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        let path = file.path().to_string_lossy().into_owned();
        let (ended, report) = compare(&link, &["--qps", "0", "--tsv", &path]);
        println!("{}: {}", mapping.map, report["sums"]);
        assert_eq!(found(&report), all, "{}: {}", mapping.map, ended.stderr);
        assert_eq!(
            (ended.code, &report["unchecked"]),
            (1, &serde_json::json!([]))
        );
        assert_eq!(listed(file.path()), all);
        for one in report["differences"].as_array().expect("a list") {
            let db = one["db"].as_u64().expect("a number") as u32;
            let key = one["key"].as_str().expect("a text");
            let (at, prefix) = (mapping.name)(db);
            let name = serde_json::json!({ "db": at, "key": format!("{prefix}{key}") });
            match at == db && prefix.is_empty() {
                true => assert!(one.get("at_target").is_none(), "{one}"),
                false => assert_eq!(one["at_target"], name, "{one}"),
            }
        }
        let (ended, report) = compare(&link, &["--qps", "0", "--snapshot"]);
        assert_eq!(found(&report), all, "{}: {}", mapping.map, ended.stderr);
        let (ended, report) = compare(&link, &["--qps", "0", "--repair"]);
        assert_eq!(found(&report), all, "{}: {}", mapping.map, ended.stderr);
        assert_eq!(
            (ended.code, report["sums"]["open"].as_u64()),
            (0, Some(0)),
            "{report}"
        );
        stop();
        catch_up(&mut daemon, &source);
        let (ended, report) = compare(&link, &["--qps", "0"]);
        assert_eq!(
            (ended.code, found(&report)),
            (0, BTreeMap::new()),
            "{report}"
        );
        // What no key of the source can be called is found too, and is not ours to remove.
        let (db, key) = match mapping.map {
            "\"prefix\"" => (0, "no prefix"),
            "{ 1 = 0, 2 = 0 }" => (1, "somebody's"),
            _ => (1, "somebody's"),
        };
        at_target.select(db);
        at_target.command(&argv!["SET", key, 1]);
        let (ended, report) = compare(&link, &["--qps", "0", "--repair"]);
        let stray = BTreeMap::from([((i64::from(db), key.to_owned()), "extra".to_owned())]);
        assert_eq!((ended.code, found(&report)), (1, stray), "{report}");
        let why = report["differences"][0]["why_not"].as_str();
        assert!(
            why.is_some_and(|why| why.contains("it is left")),
            "{report}"
        );
        let there = at_target.command(&argv!["EXISTS", key]);
        assert_eq!(number(&there), Some(1));
    }
}

/// All databases of the source in the one that a cluster has.
#[test]
fn keys_with_prefixes_in_a_cluster_are_compared_and_repaired() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut client = source.client();
    fill(&mut client, rng.number(), 2_000);
    let planted = 60;
    let all = make(&mut client, 5, planted);
    let link = link_to_cluster(&source, &cluster.address(0))
        .with("redis_writer", "db_map = \"prefix\"")
        .with("compare", "background_qps = 20000")
        .with("compare", "pause = \"50ms\"");
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    spoil_in_cluster(&cluster, planted, |key| format!("db5:{key}"));
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0"]);
    assert_eq!(found(&report), all, "{}", ended.stderr);
    // Sync itself has found them, and no more than them.
    let passes = daemon
        .metric("understudy_compare_passes_total")
        .unwrap_or(0.0);
    daemon.wait_for("a pass of the comparison", LIMIT, |daemon| {
        daemon
            .metric("understudy_compare_passes_total")
            .is_some_and(|now| now > passes + 1.0)
    });
    assert_eq!(own_number(&daemon, "compare_found"), Some(planted));
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0", "--repair"]);
    assert_eq!(found(&report), all, "{}", ended.stderr);
    assert_eq!(
        (ended.code, report["sums"]["open"].as_u64()),
        (0, Some(0)),
        "{report}"
    );
    daemon.wait_for("a pass that finds nothing", LIMIT, |daemon| {
        own_number(daemon, "compare_found") == Some(0)
    });
    counters.stop();
    catch_up(&mut daemon, &source);
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0"]);
    assert_eq!(
        (ended.code, found(&report)),
        (0, BTreeMap::new()),
        "{report}"
    );
}

/// A Valkey 9 cluster has more than one database.
#[test]
fn databases_of_a_cluster_are_compared() {
    let mut rng = rng();
    let source = source_of("valkey-9.0");
    let cluster = Cluster::start_with("valkey-9.0", 3, 0, "--cluster-databases 16");
    let mut client = source.client();
    fill(&mut client, rng.number(), 1_500);
    let planted = 45;
    let all = make(&mut client, 5, planted);
    let link = link_to_cluster(&source, &cluster.address(0));
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    for number in 0..planted {
        let plant = &PLANTS[number as usize % PLANTS.len()];
        let key = key_of(plant, number);
        let mut node = testkit::Client::connect(&cluster.owner(cluster.slot(&key)));
        node.select(5);
        node.commands(&(plant.spoil)(&key));
    }
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0"]);
    assert_eq!(found(&report), all, "{}", ended.stderr);
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0", "--repair"]);
    assert_eq!(
        (ended.code, report["sums"]["open"].as_u64()),
        (0, Some(0)),
        "{report}"
    );
    counters.stop();
    catch_up(&mut daemon, &source);
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0"]);
    assert_eq!(
        (ended.code, found(&report)),
        (0, BTreeMap::new()),
        "{report}"
    );
}

/// A node of a cluster that is configured as a single server.
#[test]
fn a_node_that_is_taken_for_a_server_is_told() {
    let (source, cluster) = (Server::of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let commands: Vec<Argv> = (0..50).map(|n| argv!["SET", format!("k:{n}"), n]).collect();
    source.client().commands(&commands);
    let link = Link::between(&source.address(), &cluster.address(0));
    let text = link.text().replace(STATUS_PORT, "0");
    let ended = run_file(&["compare", "shake.toml"], Some(text.as_bytes()));
    assert!(
        ended.error().contains("redis_writer.cluster"),
        "{}",
        ended.stderr
    );
    let alone = Server::of("redis-7.0");
    let link = link_to_cluster(&source, &alone.address());
    let text = link.text().replace(STATUS_PORT, "0");
    let ended = run_file(&["compare", "shake.toml"], Some(text.as_bytes()));
    assert!(
        ended.error().contains("redis_writer.cluster = false"),
        "{}",
        ended.stderr
    );
}

/// Between two clusters each slot of the target says which shard's link holds it.
#[test]
fn all_planted_differences_are_found_between_two_clusters_and_repaired() {
    let mut rng = rng();
    let source = Cluster::start_with("redis-7.0", 3, 0, SHARD_WORDS);
    let target = Cluster::start("redis-7.0", 4, 0);
    let planted = 60;
    let all = make_in_cluster(&source, planted);
    let link = Link::between(&source.address(0), &target.address(0))
        .with("sync_reader", "cluster = true")
        .with("redis_writer", "cluster = true");
    let writer = ClusterWriter::start(&nodes_of(&source, 3), rng.number(), 600);
    let mut daemon = link.start();
    wait_shards(&mut daemon, 3);
    wait_more("writes", 1000, || writer.answered());
    spoil_in_cluster(&target, planted, str::to_owned);
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0"]);
    println!("{}", report["sums"]);
    assert_eq!(found(&report), all, "{}", ended.stderr);
    let notes = report["notes"].to_string();
    assert!(!notes.contains("no checkpoint"), "{notes}");
    // By checkpoints alone.
    let (ended, report) = compare(&link, &["--qps", "0"]);
    assert_eq!(found(&report), all, "{}", ended.stderr);
    let (ended, report) = compare_beside(&link, &daemon, &["--qps", "0", "--repair"]);
    assert_eq!(found(&report), all, "{}", ended.stderr);
    assert_eq!(
        (ended.code, report["sums"]["open"].as_u64()),
        (0, Some(0)),
        "{report}"
    );
    let moved: Vec<u16> = (0..6)
        .map(|n| source.slot(&key_of(&PLANTS[n], n as u64)))
        .collect();
    let (_, (ended, report)) = std::thread::scope(|scope| {
        let moving = scope.spawn(|| {
            for slot in &moved {
                for (cluster, count) in [(&source, 3), (&target, 4)] {
                    let from = cluster.place_of(*slot);
                    cluster.move_slot(*slot, from, (from + 1) % count);
                }
            }
        });
        let compared = compare_beside(&link, &daemon, &["--qps", "1000"]);
        (moving.join().expect("slots move"), compared)
    });
    assert_eq!(
        (ended.code, found(&report)),
        (0, BTreeMap::new()),
        "{report}"
    );
    writer.stop();
}
