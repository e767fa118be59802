//! A cluster as the target of several databases: brought into its one by `db_map`, or in those that Valkey 9 has besides.

use std::time::Duration;

use e2e::{LIMIT, Link, catch_up, from_env, full_syncs, own, rng, run, source_of, wait_stream};
use testkit::client::{Argv, text};
use testkit::oracle::{self, OracleOptions};
use testkit::{Cluster, Counters, Daemon, Rng, Server, Writer, argv};

const MANY: &str = "--cluster-databases 16";

fn link(source: &Server, cluster: &Cluster) -> Link {
    Link::between(&source.address(), &cluster.address(0)).with("redis_writer", "cluster = true")
}

/// Lines of `db: command`.
fn say(client: &mut testkit::Client, lines: &[&str]) {
    for line in lines {
        let (db, command) = line.split_once(": ").expect("a database and a command");
        client.select(db.parse().expect("a database"));
        let argv: Argv = command
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        client.command(&argv);
    }
}

/// Every string of the cluster that is not ours, as `db:key=value`; of the other types the type.
fn dump(cluster: &Cluster) -> Vec<String> {
    let mut lines = Vec::new();
    for address in cluster.slots().into_keys() {
        let mut client = testkit::Client::connect(&address);
        for db in client.keyspace().into_keys() {
            if db != 0 {
                client.select(db);
            }
            for key in client.keys() {
                let name = String::from_utf8_lossy(&key).into_owned();
                let kind = text(&client.command(&argv!["TYPE", key.clone()]));
                let value = match &*kind {
                    "string" => text(&client.command(&argv!["GET", key])),
                    _ => kind,
                };
                if !name.contains("understudy") {
                    lines.push(format!("{db}:{name}={value}"));
                }
            }
        }
    }
    lines.sort();
    lines
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
fn databases_go_into_one_with_prefixes() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut client = source.client();
    say(
        &mut client,
        &[
            "0: SET zero snapshot",
            "1: SET one snapshot",
            "1: RPUSH list a b",
            "2: SET short 1 PX 600000",
            "2: SET two snapshot",
            "3: HSET hash f v",
        ],
    );
    let mut daemon = link(&source, &cluster)
        .with("redis_writer", "db_map = \"prefix\"")
        .start();
    wait_stream(&mut daemon);
    say(
        &mut client,
        &[
            "0: INCR n",
            "3: INCR n",
            "1: MSET a 1 b 2",
            "1: MOVE a 4",
            "1: COPY b c DB 2",
            "1: RENAME one uno",
            "1: RPUSH list c",
            "1: SET soon 1 PX 900",
            "1: SET late 1 PX 900",
            "1: PERSIST late",
            "2: DEL two",
        ],
    );
    catch_up(&mut daemon, &source);
    // The lease of a key in its last seconds ends under the name, and in the slot, that it has there.
    daemon.wait_for("the end of a key", LIMIT, |_| {
        !dump(&cluster).iter().any(|line| line.contains("soon"))
    });
    // Somebody writes there: the key is copied again under its name.
    cluster.read(&argv!["DEL", "db1:list"]);
    cluster.read(&argv!["SET", "db1:list", "wrong"]);
    say(&mut client, &["1: RPUSH list d"]);
    daemon.wait_for("the repair", LIMIT, |daemon| {
        own(daemon, "repairs").is_some_and(|repairs| repairs >= 1)
    });
    daemon.restart();
    say(&mut client, &["3: INCR n"]);
    catch_up(&mut daemon, &source);
    let expected = [
        "0:db0:n=1",
        "0:db0:zero=snapshot",
        "0:db1:b=2",
        "0:db1:late=1",
        "0:db1:list=list",
        "0:db1:uno=snapshot",
        "0:db2:c=2",
        "0:db2:short=1",
        "0:db3:hash=hash",
        "0:db3:n=2",
        "0:db4:a=1",
    ];
    assert_eq!(dump(&cluster), expected);
    let list = cluster.read(&argv!["LRANGE", "db1:list", 0, -1]);
    assert_eq!(testkit::client::items(list).len(), 4);
    assert_eq!(full_syncs(&source), 1);
    // What is about a whole database takes a new snapshot, which the next start asks for.
    say(&mut client, &["1: FLUSHDB", "1: SET again 1"]);
    assert_eq!(daemon.wait(LIMIT), 4);
    let output = daemon.output();
    assert!(output.contains("new snapshot"), "{output}");
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let mut found = dump(&cluster);
    found.retain(|line| line.starts_with("0:db1:"));
    assert_eq!(found, ["0:db1:again=1"]);
}

#[test]
fn databases_are_dropped_and_come_together_unless_a_key_is_in_both() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut client = source.client();
    let before = ["0: SET a 0", "1: SET b 1", "1: SET c 1", "2: SET d 2"];
    say(&mut client, &before);
    let mapped = link(&source, &cluster).with("redis_writer", "db_map = { 1 = 0, 2 = \"drop\" }");
    let mut daemon = mapped.start();
    wait_stream(&mut daemon);
    say(
        &mut client,
        &[
            "0: INCR x",
            "1: INCR y",
            "2: INCR z",
            "1: MOVE c 0",
            "1: DEL b",
            "0: SET b 0",
        ],
    );
    catch_up(&mut daemon, &source);
    assert_eq!(
        dump(&cluster),
        ["0:a=0", "0:b=0", "0:c=1", "0:x=1", "0:y=1"]
    );
    say(&mut client, &["1: SET a 1"]);
    assert_eq!(daemon.wait(LIMIT), 3);
    let output = daemon.output();
    let told = "key \"a\" is in database 1 and in database 0";
    assert!(output.contains(told), "{output}");
    assert!(dump(&cluster).contains(&"0:a=0".to_owned()));
}

/// What a single server has under the same map, by a link of its own, is what the cluster has to have.
/// What comes with the snapshot goes where the stream looks for it, by the script's fence too, which takes keys of one slot.
#[test]
fn keys_of_the_snapshot_are_mapped_once() {
    let filled = |source: &Server| {
        let mut client = source.client();
        for n in 0..50 {
            let lines = [format!("0: SET a{n} zero"), format!("3: RPUSH a{n} x")];
            say(&mut client, &lines.each_ref().map(String::as_str));
        }
    };
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    filled(&source);
    let mut daemon = link(&source, &cluster)
        .with("redis_writer", "db_map = \"prefix\"\nslot_fence = \"lua\"")
        .start();
    wait_stream(&mut daemon);
    say(&mut source.client(), &["3: LSET a7 0 y", "0: APPEND a7 !"]);
    catch_up(&mut daemon, &source);
    let found = dump(&cluster);
    assert_eq!(found.len(), 100, "{found:?}");
    assert!(found.contains(&"0:db0:a7=zero!".to_owned()), "{found:?}");
    assert_eq!(text(&cluster.read(&argv!["LINDEX", "db3:a7", 0])), "y");
    drop(daemon);
    let (source, cluster) = many();
    filled(&source);
    let mut daemon = link(&source, &cluster)
        .with("redis_writer", "db_map = { 0 = 3, 3 = 0 }")
        .start();
    wait_stream(&mut daemon);
    say(&mut source.client(), &["3: LSET a7 0 y", "0: APPEND a7 !"]);
    catch_up(&mut daemon, &source);
    let found = dump(&cluster);
    assert_eq!(found.len(), 100, "{found:?}");
    assert!(found.contains(&"3:a7=zero!".to_owned()), "{found:?}");
    assert_eq!(text(&cluster.read(&argv!["LINDEX", "a7", 0])), "y");
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn kills_with_prefixes_lose_and_double_nothing() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let single = Server::of("redis-7.0");
    let counters = Counters::start(&source.address(), rng.number(), 1500);
    let without = &["FLUSHDB", "SWAPDB"];
    let writer = Writer::start_without(&source.address(), rng.number(), 1500, without);
    let prefix = "db_map = \"prefix\"";
    let mut beside = Link::new(&source, &single)
        .with("redis_writer", prefix)
        .start();
    let mut daemon = link(&source, &cluster).with("redis_writer", prefix).start();
    wait_stream(&mut beside);
    wait_stream(&mut daemon);
    kill(&mut daemon, &mut rng, from_env("UNDERSTUDY_KILLS", 8));
    writer.stop();
    let ledger = counters.stop();
    catch_up(&mut beside, &source);
    catch_up(&mut daemon, &source);
    let wrong = ledger.check_with(&mut |db, mut argv| {
        let name = [format!("db{db}:").into_bytes(), argv[1].clone()].concat();
        argv[1] = name;
        cluster.read(&argv)
    });
    assert!(wrong.is_empty(), "counters:\n{}", wrong.join("\n"));
    let options = OracleOptions::live(&source.engine().version);
    oracle::assert_cluster_equal(&single.address(), &cluster.slots(), &options);
    assert_eq!(full_syncs(&source), 2);
}

/// A cluster of Valkey 9 with databases, and a source that uses them.
fn many() -> (Server, Cluster) {
    let cluster = Cluster::start_with("valkey-9.0", 3, 0, MANY);
    (source_of("valkey-9.0"), cluster)
}

fn assert_same(daemon: &mut Daemon, source: &Server, cluster: &Cluster) {
    catch_up(daemon, source);
    cluster.wait_whole();
    let options = OracleOptions {
        // MIGRATE takes along what is left of an expiry, and that is a moment less exact.
        expiry_tolerance_ms: 20,
        ..OracleOptions::live(&source.engine().version)
    };
    oracle::assert_cluster_equal(&source.address(), &cluster.slots(), &options);
}

#[test]
fn databases_of_a_cluster_are_used() {
    let (source, cluster) = many();
    let mut client = source.client();
    say(
        &mut client,
        &[
            "0: SET zero snapshot",
            "1: SET one snapshot",
            "3: RPUSH list a b",
            "5: SET short 1 PX 600000",
        ],
    );
    let mut daemon = link(&source, &cluster).start();
    wait_stream(&mut daemon);
    say(
        &mut client,
        &[
            "0: INCR n",
            "3: INCR n",
            "1: MSET a 1 b 2",
            "1: MOVE a 4",
            "1: COPY b c DB 2",
            "1: COPY b b DB 2",
            "1: RENAME one uno",
            "3: RPOPLPUSH list other",
            "5: SET soon 1 PX 900",
            "5: SET late 1 PX 900",
            "5: PERSIST late",
            "6: SET gone 1",
            "6: FLUSHDB",
            "6: SET stays 1",
        ],
    );
    catch_up(&mut daemon, &source);
    daemon.wait_for("the end of a key", LIMIT, |_| {
        !dump(&cluster).iter().any(|line| line.contains("soon"))
    });
    // Somebody writes there: the key of this database is copied again, and no other of its name.
    let at = cluster.slot("n");
    let mut node = testkit::Client::connect(&cluster.owner(at));
    node.select(3);
    node.command(&argv!["SET", "n", "wrong"]);
    say(&mut client, &["3: INCR n", "0: INCR n"]);
    daemon.wait_for("the repair", LIMIT, |daemon| {
        own(daemon, "repairs").is_some_and(|repairs| repairs >= 1)
    });
    daemon.restart();
    say(&mut client, &["3: INCR n", "2: INCR n"]);
    catch_up(&mut daemon, &source);
    let found = dump(&cluster);
    for line in [
        "0:n=2",
        "3:n=3",
        "2:n=1",
        "4:a=1",
        "2:b=2",
        "2:c=2",
        "1:uno=snapshot",
    ] {
        assert!(found.contains(&line.to_owned()), "no {line} in {found:?}");
    }
    assert_same(&mut daemon, &source, &cluster);
    assert_eq!(full_syncs(&source), 1);
    // A cluster cannot do it: a new snapshot brings it about, and removes what is gone.
    say(&mut client, &["0: SWAPDB 3 7", "3: SET after 1"]);
    assert_eq!(daemon.wait(LIMIT), 4);
    let output = daemon.output();
    assert!(
        output.contains("SWAPDB cannot be done in a cluster"),
        "{output}"
    );
    daemon.spawn();
    wait_stream(&mut daemon);
    assert_same(&mut daemon, &source, &cluster);
    assert_eq!(full_syncs(&source), 2);
}

#[test]
fn kills_and_slots_that_move_lose_and_double_nothing_in_any_database() {
    let mut rng = rng();
    let (source, mut cluster) = many();
    let counters = Counters::start(&source.address(), rng.number(), 1200);
    let writer = Writer::start_without(&source.address(), rng.number(), 1200, &["SWAPDB"]);
    let mut daemon = link(&source, &cluster).start();
    wait_stream(&mut daemon);
    kill(&mut daemon, &mut rng, from_env("UNDERSTUDY_KILLS", 8));
    let new = cluster.add_with("valkey-9.0", MANY);
    for step in 0..from_env("UNDERSTUDY_SLOTS", 12) {
        let kinds = ["str", "list", "set", "zset", "hash", "log", "stream"];
        let key = format!("w:{}:{}", rng.pick(&kinds), rng.below(24));
        let slot = cluster.slot(&key);
        let from = cluster.place_of(slot);
        if from != new {
            cluster.move_slot(slot, from, new);
        }
        if step % 4 == 3 {
            daemon.restart();
        }
    }
    writer.stop();
    let ledger = counters.stop();
    assert_same(&mut daemon, &source, &cluster);
    let wrong = ledger.check_with(&mut |db, argv| cluster.read_in(db, &argv));
    assert!(wrong.is_empty(), "counters:\n{}", wrong.join("\n"));
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn a_primary_that_dies_takes_nothing_along_from_any_database() {
    let mut rng = rng();
    let mut cluster = Cluster::start_with("valkey-9.0", 3, 1, MANY);
    let source = source_of("valkey-9.0");
    let counters = Counters::start(&source.address(), rng.number(), 2500);
    let mut daemon = link(&source, &cluster).start();
    wait_stream(&mut daemon);
    let goal = counters.acknowledged() + 8_000;
    daemon.wait_for("writes", LIMIT, |_| counters.acknowledged() >= goal);
    let dies = cluster.servers[0].address();
    cluster.servers[0].kill();
    daemon.wait_for("another primary", LIMIT, |_| {
        !cluster.slots().contains_key(&dies)
    });
    cluster.wait_whole();
    let goal = counters.acknowledged() + 3_000;
    daemon.wait_for("writes", LIMIT, |_| counters.acknowledged() >= goal);
    cluster.servers[0].restart();
    cluster.wait_whole();
    let ledger = counters.stop();
    assert_same(&mut daemon, &source, &cluster);
    let wrong = ledger.check_with(&mut |db, argv| cluster.read_in(db, &argv));
    assert!(wrong.is_empty(), "counters:\n{}", wrong.join("\n"));
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn what_cannot_be_had_is_named_with_its_mend() {
    let (source, cluster) = many();
    say(&mut source.client(), &["3: SET a 1"]);
    let ended = run(&link(&source, &cluster).with("redis_writer", "slot_fence = \"lua\""));
    assert_eq!(ended.code, 4);
    let error = ended.error();
    assert!(error.contains("the source uses database 3"), "{error}");
    assert!(error.contains("slot_fence"), "{error}");
    // And in a stream.
    let old = Cluster::start("redis-7.0", 3, 0);
    let source = source_of("redis-7.0");
    let mut daemon = link(&source, &old).start();
    wait_stream(&mut daemon);
    say(&mut source.client(), &["0: SET a 1", "3: SET a 1"]);
    assert_eq!(daemon.wait(LIMIT), 4);
    let output = daemon.output();
    assert!(output.contains("the source uses database 3"), "{output}");
    assert!(output.contains("redis_writer.db_map"), "{output}");
    assert!(!dump(&old).iter().any(|line| line.starts_with("3:")));
}
