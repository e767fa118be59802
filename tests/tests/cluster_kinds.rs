//! Kinds of clusters, and what may stand before them: Valkey, TLS, names instead of addresses, a service without servers to be seen, two
//! daemons at once, replicas as the address; large values; nodes that do not agree; a failover while nobody is there.

use std::time::Duration;

use e2e::{
    LIMIT, Link, assert_same_in_cluster, catch_up, full_syncs, link_to_cluster, rng, run,
    source_of, wait_more, wait_stream,
};
use testkit::certs::{Ca, server_words};
use testkit::client::text;
use testkit::oracle::{self, OracleOptions};
use testkit::port::Port;
use testkit::process::{peak_memory, wait_until};
use testkit::serverless::{Rules, Serverless};
use testkit::{Client, Cluster, Counters, Server, argv};

#[test]
fn a_cluster_of_valkey_with_tls_and_names_for_its_nodes() {
    let mut rng = rng();
    let ca = Ca::new();
    let certificate = ca.server(&["localhost"]);
    let ports: Vec<Port> = (0..3).map(|_| Port::reserve()).collect();
    let cluster = Cluster::start_each("valkey-8.1", 3, 0, |at| {
        let tls = server_words(ports[at].number(), &certificate, &ca.file(), "no");
        format!(
            "{tls} --cluster-announce-hostname localhost --cluster-preferred-endpoint-type hostname"
        )
    });
    let source = source_of("valkey-9.1");
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 1500);
    let mut daemon = link_to_cluster(&source, &format!("localhost:{}", ports[0].number()))
        .with("redis_writer", "tls = true")
        .with(
            "redis_writer",
            &format!("tls_config.ca_cert = \"{}\"", ca.file().display()),
        )
        .start();
    wait_stream(&mut daemon);
    for _ in 0..2 {
        wait_more("operations", 1000, || counters.acknowledged());
        daemon.restart();
        wait_stream(&mut daemon);
    }
    wait_more("operations", 500, || counters.acknowledged());
    let ledger = counters.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, Some(&ledger));
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn of_two_daemons_on_one_link_the_later_one_has_the_cluster() {
    let mut rng = rng();
    let (source, cluster) = (source_of("valkey-8.1"), Cluster::start("valkey-8.1", 3, 0));
    for fence in ["kill", "lua"] {
        let fence = format!("slot_fence = \"{fence}\"");
        let link = link_to_cluster(&source, &cluster.address(0)).with("redis_writer", &fence);
        let counters = Counters::start_in_db_0(&source.address(), rng.number(), 2000);
        let mut first = link.start();
        wait_stream(&mut first);
        wait_more("operations", 1000, || counters.acknowledged());
        let mut second = link.start();
        wait_stream(&mut second);
        // The first one stops by itself, and says why.
        let code = first.wait(LIMIT);
        assert_eq!(code, 4, "{}", first.output());
        assert!(
            first.output().contains("another understudy has taken over"),
            "{}",
            first.output()
        );
        wait_more("operations", 1000, || counters.acknowledged());
        let ledger = counters.stop();
        assert_same_in_cluster(&mut second, &source, &cluster, Some(&ledger));
        second.terminate();
        assert_eq!(second.wait(LIMIT), 0);
        source.client().command(&argv!["FLUSHALL"]);
        for server in &cluster.servers {
            server.client().command(&argv!["FLUSHALL"]);
        }
    }
}

#[test]
fn an_endpoint_that_only_reads_is_refused_and_a_replica_of_a_cluster_shows_the_way() {
    let (source, replica) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let primary = Server::of("redis-7.0");
    replica
        .client()
        .command(&argv!["REPLICAOF", "127.0.0.1", primary.port()]);
    let ended = run(&Link::new(&source, &replica));
    assert_ne!(ended.code, 0);
    assert!(
        ended.stderr.contains("this is a replica (of 127.0.0.1)"),
        "{}",
        ended.stderr
    );
    let reader = "my-cache.serverless.use1.cache.amazonaws.com:6380";
    let ended = run(&link_to_cluster(&source, reader));
    assert_eq!(ended.code, 4);
    assert!(
        ended.error().contains("takes no writes; use port 6379"),
        "{}",
        ended.error()
    );
    // Any node of a cluster tells of all.
    let cluster = Cluster::start("redis-7.0", 3, 1);
    let mut daemon = link_to_cluster(&source, &cluster.address(4)).start();
    wait_stream(&mut daemon);
    source.client().command(&argv!["SET", "a", 1]);
    assert_same_in_cluster(&mut daemon, &source, &cluster, None);
}

#[test]
fn databases_that_a_cluster_does_not_have_are_refused_by_name() {
    let source = source_of("valkey-9.1");
    let cluster = Cluster::start("valkey-9.1", 3, 0);
    let mut client = source.client();
    client.select(3);
    client.command(&argv!["SET", "a", 1]);
    let ended = run(&link_to_cluster(&source, &cluster.address(0)));
    assert_eq!(ended.code, 4);
    for word in [
        "the source uses database 3",
        "Valkey 9",
        "filter.block_db = [3]",
    ] {
        assert!(ended.error().contains(word), "{}", ended.error());
    }
    let others = link_to_cluster(&source, &cluster.address(0)).with("filter", "allow_db = [0]");
    let mut daemon = others.start();
    wait_stream(&mut daemon);
    client.select(0);
    client.command(&argv!["SET", "b", 1]);
    catch_up(&mut daemon, &source);
    assert_eq!(text(&cluster.read(&argv!["GET", "b"])), "1");
}

const PASSWORD: &str = "a-password-of-rbac";
/// What is never sent at all.
const NEVER: [&str; 9] = [
    "config", "debug", "client", "wait", "object", "function", "keys", "swapdb", "memory",
];

#[test]
fn a_whole_migration_to_a_service_in_cluster_mode_with_kills_in_it() {
    let mut rng = rng();
    let ca = Ca::new();
    let source = source_of("redis-7.0");
    let cluster = Cluster::start("redis-7.0", 3, 0);
    let certificate = ca.server(&["127.0.0.1"]);
    let mut doors = Vec::new();
    for server in &cluster.servers {
        let mut user = argv![
            "ACL",
            "SETUSER",
            "mover",
            "on",
            format!(">{PASSWORD}"),
            "~*"
        ];
        user.extend(argv![
            "+@all",
            "-@dangerous",
            "-function",
            "-client",
            "-object",
            "-wait",
            "+info",
            "+restore"
        ]);
        server.client().command(&user);
        let rules = Rules { words_max: 3_999 };
        doors.push(Serverless::start(&server.address(), &certificate, rules));
    }
    let before = cluster.slots();
    let ports: Vec<u16> = doors
        .iter()
        .map(|door| {
            let address = door.address();
            let (_, port) = address.rsplit_once(':').expect("an address");
            port.parse().expect("a port")
        })
        .collect();
    cluster.announce(&ports);
    let many: Vec<String> = (0..9_000).map(|i| format!("m{i}")).collect();
    let mut client = source.client();
    let fill = |client: &mut Client, name: &str, command: &str| {
        let mut words = argv![command, name];
        words.extend(many.iter().map(|word| word.as_bytes().to_vec()));
        client.command(&words);
    };
    fill(&mut client, "snapshot:list", "RPUSH");
    fill(&mut client, "snapshot:set", "SADD");
    client.command(&argv!["SET", "soon", 1, "PX", 4_000]);
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 800);
    let mut daemon = link_to_cluster(&source, &doors[0].address())
        .with("redis_writer", "profile = \"elasticache-serverless\"")
        .with("redis_writer", "username = \"mover\"")
        .with("redis_writer", &format!("password = \"{PASSWORD}\""))
        .with("redis_writer", "tls = true")
        .with(
            "redis_writer",
            &format!("tls_config.ca_cert = \"{}\"", ca.file().display()),
        )
        .start();
    wait_stream(&mut daemon);
    fill(&mut client, "stream:list", "LPUSH");
    fill(&mut client, "stream:set", "SADD");
    let mut pairs = argv!["MSET"];
    let mut scores = argv!["ZADD", "stream:zset"];
    for (at, word) in many.iter().enumerate() {
        pairs.extend(argv![format!("pair:{word}"), at]);
        scores.extend(argv![at, word]);
    }
    client.commands(&[argv!["MULTI"], pairs, scores, argv!["EXEC"]]);
    daemon.restart();
    wait_stream(&mut daemon);
    let mut del = argv!["DEL"];
    let removed = many.iter().take(5_000);
    del.extend(removed.map(|word| format!("pair:{word}").into_bytes()));
    client.commands(&[
        del,
        argv!["SADD", "one", "a", "b"],
        argv!["SUNIONSTORE", "union", "one", "stream:set"],
        argv!["RENAME", "union", "renamed"],
        argv!["XADD", "events", "*", "f", "v"],
    ]);
    daemon.restart();
    wait_stream(&mut daemon);
    wait_more("operations", 500, || counters.acknowledged());
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    let own_ports: Vec<u16> = cluster.servers.iter().map(Server::port).collect();
    cluster.announce(&own_ports);
    let wrong = ledger.check_with(&mut |_, argv| cluster.read(&argv));
    assert!(wrong.is_empty(), "counters:\n{}", wrong.join("\n"));
    let options = OracleOptions::live(&source.engine().version);
    oracle::assert_cluster_equal(&source.address(), &before, &options);
    assert_eq!(full_syncs(&source), 1, "{}", daemon.output());
    for door in &doors {
        assert_eq!(door.refused(), 0);
        assert!(door.widest() <= 3_999, "{}", door.widest());
        let names = door.names();
        for name in NEVER {
            assert!(!names.contains(name), "{name} was sent: {names:?}");
        }
    }
    assert!(!daemon.output().contains(PASSWORD));
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
}

#[test]
fn values_larger_than_memory_allows_go_through_to_a_cluster() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut client = source.client();
    let large = |fill: &str, mib: usize| fill.repeat(mib << 20);
    client.command(&argv!["SET", "snapshot", large("s", 40)]);
    for fence in ["kill", "lua"] {
        let mut daemon = link_to_cluster(&source, &cluster.address(0))
            .with("redis_writer", &format!("slot_fence = \"{fence}\""))
            .with("limits", "memory = \"64mb\"")
            .start();
        wait_stream(&mut daemon);
        let key = |name: &str| format!("{fence}:{name}");
        client.command(&argv!["SET", key("stream"), large("v", 70)]);
        client.command(&argv!["APPEND", key("stream"), large("w", 20)]);
        client.command(&argv![
            "MSET",
            key("a"),
            large("a", 20),
            key("b"),
            large("b", 20),
            key("c"),
            "c"
        ]);
        client.command(&argv![
            "RPUSH",
            key("list"),
            large("1", 2),
            "small",
            large("2", 3)
        ]);
        client.commands(&[
            argv!["MULTI"],
            argv!["HSET", key("hash"), "f", large("f", 20)],
            argv!["INCR", key("n")],
            argv!["SET", key("d"), large("d", 20)],
            argv!["EXEC"],
        ]);
        catch_up(&mut daemon, &source);
        let peak = peak_memory(daemon.pid());
        println!("{fence}: {} MiB at most", peak >> 20);
        assert!(peak <= 64 << 20, "{fence}: {peak} bytes");
        daemon.terminate();
        assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
        let options = OracleOptions::live(&source.engine().version);
        oracle::assert_cluster_equal(&source.address(), &cluster.slots(), &options);
        for server in &cluster.servers {
            server.client().command(&argv!["FLUSHALL"]);
        }
    }
}

#[test]
fn nodes_that_send_a_slot_to_one_another_are_spoken_of() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut daemon = link_to_cluster(&source, &cluster.address(0)).start();
    wait_stream(&mut daemon);
    source.client().command(&argv!["SET", "before", 1]);
    catch_up(&mut daemon, &source);
    let slot = cluster.slot("here");
    let from = cluster.place_of(slot);
    let to = (from + 1) % 3;
    cluster.begin_move(slot, from, to);
    // The one that had it sends to the other already, which does not know that it is its own.
    let to_id = cluster.id(to);
    cluster.servers[from]
        .client()
        .command(&argv!["CLUSTER", "SETSLOT", slot, "NODE", to_id]);
    source.client().command(&argv!["SET", "here", 1]);
    daemon.wait_for_output("the nodes send a slot to one another", LIMIT);
    cluster.end_move(slot, from, to);
    assert_same_in_cluster(&mut daemon, &source, &cluster, None);
    assert_eq!(full_syncs(&source), 1);
}

/// Half of a slot's keys are at another node: neither can do a command on both halves (TRYAGAIN), until the move goes on.
#[test]
fn a_slot_that_was_left_half_moved_is_waited_for_and_spoken_of() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let mut client = source.client();
    for (round, fence) in ["kill", "lua"].into_iter().enumerate() {
        client.command(&argv!["FLUSHALL"]);
        for server in &cluster.servers {
            server.client().command(&argv!["FLUSHALL"]);
        }
        let mut daemon = link_to_cluster(&source, &cluster.address(0))
            .with("redis_writer", &format!("slot_fence = \"{fence}\""))
            .start();
        wait_stream(&mut daemon);
        client.command(&argv!["MSET", "{t}a", 1, "{t}b", 1, "other", 1]);
        catch_up(&mut daemon, &source);
        let slot = cluster.slot("{t}a");
        let from = cluster.place_of(slot);
        let to = (from + 1) % 3;
        let (from_id, to_id) = (cluster.id(from), cluster.id(to));
        let (mut here, mut there) = (cluster.servers[from].client(), cluster.servers[to].client());
        there.command(&argv!["CLUSTER", "SETSLOT", slot, "IMPORTING", from_id]);
        here.command(&argv!["CLUSTER", "SETSLOT", slot, "MIGRATING", to_id]);
        let port = cluster.servers[to].port();
        here.command(&argv!["MIGRATE", "127.0.0.1", port, "{t}b", 0, 10_000]);
        client.command(&argv!["MSET", "{t}a", 2, "{t}b", 2]);
        client.command(&argv!["INCR", "other"]);
        daemon.wait_for_output("a slot cannot be written", LIMIT);
        assert_eq!(text(&here.command(&argv!["GET", "{t}a"])), "1");
        cluster.begin_move(slot, from, to);
        cluster.end_move(slot, from, to);
        assert_same_in_cluster(&mut daemon, &source, &cluster, None);
        assert_eq!(
            full_syncs(&source),
            1 + i64::try_from(round).expect("a number")
        );
        daemon.terminate();
        assert_eq!(daemon.wait(LIMIT), 0);
    }
}

/// Keys of a snapshot that takes a few seconds.
const MANY: u64 = 500_000;

#[test]
fn a_snapshot_goes_on_where_it_was_when_a_node_was_lost() {
    let mut rng = rng();
    let (source, mut cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 1));
    let mut client = source.client();
    client.command(&argv!["DEBUG", "POPULATE", MANY, "key", 100]);
    client.command(&argv!["SET", "last", "one"]);
    let checkpoint = "understudy:checkpoint:e2e";
    let home = cluster.place_of(cluster.slot(checkpoint));
    let mut daemon = link_to_cluster(&source, &cluster.address(home)).start();
    let mut at_home = cluster.servers[home].client();
    let mut progress = move || -> Option<u64> {
        let value = text(&at_home.command(&argv!["GET", checkpoint]));
        let fields: Vec<&str> = value.split('|').collect();
        (fields.get(3) == Some(&"snapshot")).then(|| fields[6].parse().expect("a number"))
    };
    daemon.wait_for("a part of the snapshot", LIMIT, |_| {
        progress().is_some_and(|bytes| bytes > 0)
    });
    let dies = (0..3).find(|at| *at != home).expect("another node");
    let address = cluster.address(dies);
    cluster.servers[dies].kill();
    daemon.wait_for("another primary", LIMIT, |_| {
        !cluster.slots().contains_key(&address)
    });
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let output = daemon.output();
    let went_on = output
        .lines()
        .find(|line| line.contains("going on with the snapshot"))
        .unwrap_or_else(|| panic!("{output}"));
    assert!(!went_on.contains("applied_bytes=0"), "{went_on}");
    assert_eq!(full_syncs(&source), 1);
    let own = cluster
        .slots()
        .keys()
        .map(|address| {
            let mut client = Client::connect(address);
            let keys = client.keys();
            let own = keys.iter().filter(|key| key.starts_with(b"understudy:"));
            (keys.len() - own.count()) as u64
        })
        .sum::<u64>();
    assert_eq!(own, MANY + 1);
    for _ in 0..500 {
        let key = format!("key:{}", rng.below(MANY));
        let there = text(&cluster.read(&argv!["GET", key]));
        assert_eq!(there, text(&client.command(&argv!["GET", key])), "{key}");
    }
}

/// Longer than the link's position stays behind.
const LOST: Duration = Duration::from_millis(13_500);

#[test]
fn a_failover_while_nobody_is_there_that_loses_more_than_is_made_good_is_noticed() {
    let mut rng = rng();
    let (source, mut cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 1));
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 500);
    // Not of the node that has the link's own position: that would fall back too, and tell where to begin.
    let home = cluster.place_of(cluster.slot("understudy:checkpoint:e2e"));
    let mut daemon = link_to_cluster(&source, &cluster.address(home)).start();
    wait_stream(&mut daemon);
    wait_more("operations", 500, || counters.acknowledged());
    // A replica that is gone for so long, and comes back with what it had.
    let primary = (0..3).find(|at| *at != home).expect("another one");
    let replica = primary + 3;
    cluster.servers[replica].client().command(&argv!["SAVE"]);
    cluster.servers[replica].kill();
    std::thread::sleep(LOST);
    daemon.kill();
    let address = cluster.address(primary);
    cluster.servers[primary].kill();
    cluster.servers[replica].restart();
    wait_until("the replica to take over", LIMIT, || {
        !cluster.slots().contains_key(&address)
    });
    cluster.wait_whole();
    daemon.spawn();
    // It may be in the stream for a moment before it sees that.
    daemon.wait_for_output("has lost more than the last ten seconds", LIMIT);
    wait_stream(&mut daemon);
    let ledger = counters.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, Some(&ledger));
    assert_eq!(full_syncs(&source), 2);
}
