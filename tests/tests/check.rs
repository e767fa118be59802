//! `understudy check`: set-ups that are wrong, each found, each with its mend; and nothing is touched.

use std::time::Duration;

use e2e::checked::{check, check_with, expect};
use e2e::{Link, preload, run_file, wait_stream};
use testkit::daemon::STATUS_PORT;
use testkit::{Client, Cluster, Engine, Server, ServerOptions, argv};

fn with(engine: &str, words: &str) -> Server {
    Server::start(&Engine::of(engine), ServerOptions::args(words))
}

#[test]
fn a_sound_set_up_passes_and_nothing_is_touched() {
    for (from, to) in [
        ("redis-5.0", "redis-7.0"),
        ("redis-6.2", "valkey-8.1"),
        ("redis-7.2", "redis-8.0"),
    ] {
        let source = with(from, "--repl-backlog-size 128mb");
        let target = Server::of(to);
        source.client().command(&argv!["SET", "a", "b"]);
        let state = |server: &Server| -> Vec<String> {
            let info = server.client().info("");
            [
                "sync_full",
                "sync_partial_err",
                "rdb_changes_since_last_save",
                "master_repl_offset",
                "connected_slaves",
                "rdb_bgsave_in_progress",
            ]
            .iter()
            .map(|field| format!("{field}:{}", info.get(*field).map_or("", String::as_str)))
            .collect()
        };
        let before = [state(&source), state(&target)];
        let (ended, findings) = check_with(&Link::new(&source, &target).text(), &[]);
        let bad: Vec<_> = findings
            .iter()
            .filter(|(_, one)| one[0] != "pass")
            .collect();
        assert!(bad.is_empty(), "{from} to {to}: {bad:#?}");
        assert_eq!(ended.code, 0);
        assert_eq!([state(&source), state(&target)], before, "{from} to {to}");
        assert_eq!(target.client().keyspace().get(&0), None);
        let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
        let line = json["acl"]["target"].as_str().expect("a line");
        assert!(
            line.contains("+@write") && line.contains("+script|load"),
            "{line}"
        );
    }
}

#[test]
fn the_least_rights_that_are_printed_are_enough() {
    let (source, target) = (
        with("redis-7.0", "--repl-backlog-size 128mb"),
        Server::of("redis-7.2"),
    );
    let (ended, _) = check_with(&Link::new(&source, &target).text(), &[]);
    let json: serde_json::Value = serde_json::from_str(&ended.stdout).expect("JSON");
    let set = |server: &Server, side: &str| {
        let line = json["acl"][side]
            .as_str()
            .expect("a line")
            .replace("PASSWORD", "pw");
        let line = line
            .replace("(and for repairs and compare: ", "")
            .replace("(and for compare: ", "")
            .replace(')', "");
        let words: Vec<Vec<u8>> = line
            .split_whitespace()
            .map(|word| word.as_bytes().to_vec())
            .collect();
        server.client().command(&words);
    };
    set(&source, "source");
    set(&target, "target");
    let mut link = Link::new(&source, &target);
    for table in ["sync_reader", "redis_writer"] {
        link = link
            .with(table, "username = \"understudy\"")
            .with(table, "password = \"pw\"");
    }
    let findings = check(&link);
    for name in [
        "psync",
        "source_rights",
        "target_rights",
        "target_empty",
        "databases",
    ] {
        expect(&findings, name, "pass", "", "");
    }
    assert!(
        findings.values().all(|one| one[0] != "fail"),
        "{findings:#?}"
    );
    // And so are they for comparing.
    for server in [&source, &target] {
        server.client().command(&argv!["SET", "a", "b"]);
    }
    let text = link.text().replace(STATUS_PORT, "0");
    let ended = run_file(&["compare", "shake.toml"], Some(text.as_bytes()));
    assert_eq!(ended.code, 0, "{}{}", ended.stdout, ended.stderr);
}

#[test]
fn ends_that_do_not_let_us_in_are_named_with_their_mends() {
    let (source, target) = (
        with("redis-7.0", "--requirepass secret"),
        Server::of("redis-7.0"),
    );
    let link = Link::new(&source, &target);
    expect(
        &check(&link),
        "source",
        "fail",
        "NOAUTH",
        "sync_reader.password",
    );
    let wrong = link.clone().with("sync_reader", "password = \"wrong\"");
    let findings = check(&wrong);
    expect(
        &findings,
        "source",
        "fail",
        "WRONGPASS",
        "sync_reader.password",
    );
    // The other end is looked at all the same.
    expect(&findings, "target_rights", "pass", "", "");
    let right = link.with("sync_reader", "password = \"secret\"");
    expect(&check(&right), "source", "pass", "", "");
    let tls = right.with("redis_writer", "tls = true");
    expect(&check(&tls), "target", "fail", "TLS", "tls = false");
    let nobody = Link::between("127.0.0.1:1", &target.address());
    expect(
        &check(&nobody),
        "source",
        "fail",
        "connection refused",
        "is the server running",
    );
}

#[test]
fn psync_that_is_renamed_or_not_allowed_is_found_without_a_sync() {
    let target = Server::of("redis-7.0");
    let renamed = with("redis-7.0", "--rename-command PSYNC hidden");
    let link = Link::new(&renamed, &target);
    expect(
        &check(&link),
        "psync",
        "warn",
        "does not offer PSYNC",
        "sync_reader.psync_command",
    );
    let link = link.with("sync_reader", "on_psync_refused = \"fail\"");
    expect(
        &check(&link),
        "psync",
        "fail",
        "does not offer PSYNC",
        "sync_reader.psync_command",
    );
    let told = link.with("sync_reader", "psync_command = \"hidden\"");
    expect(
        &check(&told),
        "psync",
        "warn",
        "answers a renamed PSYNC as SYNC",
        "rename-command",
    );
    assert_eq!(renamed.client().info_number("stats", "sync_full"), 0);
    for engine in [
        "redis-6.0",
        "redis-6.2",
        "redis-7.0",
        "redis-8.0",
        "valkey-9.1",
    ] {
        let source = Server::of(engine);
        let mut client = source.client();
        client.command(&argv![
            "ACL", "SETUSER", "low", "on", ">pw", "~*", "+@all", "-psync"
        ]);
        let link = Link::new(&source, &target)
            .with("sync_reader", "on_psync_refused = \"fail\"")
            .with("sync_reader", "username = \"low\"")
            .with("sync_reader", "password = \"pw\"");
        expect(&check(&link), "psync", "fail", "may not use it", "+psync");
        client.command(&argv!["ACL", "SETUSER", "low", "+psync", "-replconf"]);
        expect(
            &check(&link),
            "psync",
            "fail",
            "may not use it",
            "+replconf",
        );
        client.command(&argv!["ACL", "SETUSER", "low", "+replconf", "-dump"]);
        let findings = check(&link);
        expect(&findings, "psync", "pass", "", "");
        expect(&findings, "source_rights", "warn", "dump", "+dump");
        assert_eq!(client.info_number("stats", "sync_full"), 0, "{engine}");
    }
}

#[test]
fn a_source_that_would_be_read_by_scan_is_asked_for_its_events() {
    let target = Server::of("redis-7.0");
    let renamed = with("redis-7.0", "--rename-command PSYNC hidden");
    let mut client = renamed.client();
    let link = Link::new(&renamed, &target);
    let findings = check(&link);
    expect(&findings, "psync", "warn", "by SCAN instead", "");
    expect(
        &findings,
        "source_events",
        "warn",
        "without Eg$lshzxet",
        "CONFIG SET notify-keyspace-events \"KEA\"",
    );
    client.command(&argv!["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    expect(
        &check(&link),
        "source_events",
        "pass",
        "sends keyspace events",
        "",
    );
    // Nothing is followed, or nobody falls back.
    for line in ["sync_aof = false", "on_psync_refused = \"fail\""] {
        let findings = check(&link.clone().with("sync_reader", line));
        assert!(!findings.contains_key("source_events"), "{line}");
    }
    assert!(!check(&Link::new(&target, &renamed)).contains_key("source_events"));
    // A user who may see all and listen to nothing.
    client.command(&argv![
        "ACL",
        "SETUSER",
        "deaf",
        "on",
        ">pw",
        "~*",
        "+@all",
        "-psubscribe"
    ]);
    let by_scan = Link::new(&renamed, &target)
        .scanning()
        .with("scan_reader", "ksn = true");
    let deaf = by_scan
        .with("scan_reader", "username = \"deaf\"")
        .with("scan_reader", "password = \"pw\"");
    let findings = check(&deaf);
    expect(
        &findings,
        "source_subscribe",
        "warn",
        "refuses PSUBSCRIBE",
        "+psubscribe +ping allchannels",
    );
    // A replica has a setting of its own, and is what would be asked.
    let replica = Server::of("redis-7.0");
    let master = Server::of("redis-7.0");
    master
        .client()
        .command(&argv!["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    replica
        .client()
        .command(&argv!["REPLICAOF", "127.0.0.1", master.port()]);
    testkit::process::wait_until("a replica that follows", e2e::LIMIT, || {
        let info = master.client().info("replication");
        info.get("slave0")
            .is_some_and(|line| line.contains("state=online"))
    });
    let preferring = Link::new(&master, &target)
        .scanning()
        .with("scan_reader", "ksn = true")
        .with("scan_reader", "prefer_replica = true");
    expect(
        &check(&preferring),
        "source_events",
        "warn",
        "of the replica that would be read",
        "CONFIG SET",
    );
}

#[test]
fn a_target_that_would_refuse_is_found() {
    let source = Server::of("redis-7.0");
    source.client().command(&argv!["SET", "a", "b"]);
    let target = Server::of("redis-7.0");
    let mut client = target.client();
    let link = Link::new(&source, &target);
    // A user without rights.
    client.command(&argv![
        "ACL",
        "SETUSER",
        "low",
        "on",
        ">pw",
        "~app:*",
        "+@all",
        "-flushall",
        "-watch"
    ]);
    let low = link
        .clone()
        .with("redis_writer", "username = \"low\"")
        .with("redis_writer", "password = \"pw\"");
    expect(&check(&low), "target_rights", "fail", "watch", "~* +@write");
    // Keys.
    client.command(&argv!["SET", "mine", "1"]);
    expect(
        &check(&link),
        "target_empty",
        "fail",
        "holds 1 keys",
        "existing_keys",
    );
    let replace = link
        .clone()
        .with("redis_writer", "existing_keys = \"replace\"");
    expect(
        &check(&replace),
        "target_empty",
        "warn",
        "are replaced",
        "empty it",
    );
    client.command(&argv!["DEL", "mine"]);
    // Ours do not count.
    client.command(&argv!["SET", "understudy:checkpoint:other", "1"]);
    expect(&check(&link), "target_empty", "pass", "", "");
    // Writes that need replicas, events, no room for a connection.
    client.command(&argv!["CONFIG", "SET", "min-replicas-to-write", 1]);
    client.command(&argv!["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    client.command(&argv!["CONFIG", "SET", "maxclients", 8]);
    let findings = check(&link);
    expect(
        &findings,
        "target_replicas",
        "fail",
        "refuses every write",
        "CONFIG SET min-replicas-to-write \"0\"",
    );
    expect(
        &findings,
        "keyspace_events",
        "warn",
        "AKE",
        "CONFIG SET notify-keyspace-events",
    );
    expect(
        &findings,
        "target_clients",
        "fail",
        "of 8 clients",
        "CONFIG SET maxclients",
    );
    // A replica, and the source itself by another name.
    let replica = Server::of("redis-7.0");
    replica
        .client()
        .command(&argv!["REPLICAOF", "127.0.0.1", source.port()]);
    expect(
        &check(&Link::new(&source, &replica)),
        "target",
        "fail",
        "replica",
        "primary",
    );
    let itself = Link::between(&source.address(), &format!("localhost:{}", source.port()));
    expect(
        &check(&itself),
        "same_server",
        "fail",
        "same server",
        "redis_writer.address",
    );
    // Commands that are renamed.
    let renamed = with("redis-7.0", "--rename-command RESTORE hidden");
    expect(
        &check(&Link::new(&source, &renamed)),
        "target_commands",
        "fail",
        "restore",
        "rename-command",
    );
}

#[test]
fn data_that_has_no_place_at_the_target_is_found() {
    let source = Server::of("redis-8.0");
    let mut client = source.client();
    client.command(&argv![
        "FUNCTION",
        "LOAD",
        "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
    ]);
    client.command(&argv![
        "VADD", "vectors", "VALUES", 2, "1.0", "2.0", "element"
    ]);
    client.select(9);
    client.command(&argv!["SET", "big", vec![b'x'; 30 << 20]]);
    client.command(&argv!["GETEX", "big"]);
    let target = with(
        "redis-6.0",
        "--databases 2 --maxmemory 20mb --maxmemory-policy allkeys-lru",
    );
    let findings = check(&Link::new(&source, &target));
    expect(
        &findings,
        "functions",
        "fail",
        "1 libraries",
        "filter.block_command",
    );
    expect(&findings, "modules", "fail", "vectorset", "losses");
    expect(
        &findings,
        "databases",
        "fail",
        "does not have database 9",
        "set databases to 10",
    );
    expect(&findings, "memory", "fail", "does not fit", "larger node");
    expect(
        &findings,
        "eviction",
        "fail",
        "allkeys-lru",
        "CONFIG SET maxmemory-policy \"noeviction\"",
    );
    expect(
        &findings,
        "versions",
        "warn",
        "functions, expiries of hash fields",
        "losses",
    );
    expect(&findings, "commands", "warn", "getex", "older words");
    expect(
        &findings,
        "big_keys",
        "warn",
        "\"big\" (db 9, string, 3",
        "limits.memory",
    );
    expect(&findings, "elasticache_node", "pass", "cache.t4g.micro", "");
}

#[test]
fn a_source_that_would_drop_us_is_found() {
    let source = with("redis-7.0", "--repl-backlog-size 16kb --repl-timeout 5");
    let target = Server::of("redis-7.0");
    let mut client = source.client();
    client.command(&argv![
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "replica 1kb 1kb 1"
    ]);
    for n in 0..60 {
        client.command(&argv!["SET", format!("k{n}"), vec![b'x'; 1 << 20]]);
    }
    let writing = std::thread::spawn({
        let address = source.address();
        move || {
            let mut client = Client::connect(&address);
            let until = std::time::Instant::now() + Duration::from_secs(6);
            while std::time::Instant::now() < until {
                client.command(&argv!["SET", "w", vec![b'y'; 100_000]]);
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    // A Sentinel would listen here.
    let mut listener = source.client();
    listener.command(&argv!["SUBSCRIBE", "__sentinel__:hello"]);
    let link = Link::new(&source, &target).with("spool", "max_bytes = \"1mb\"");
    let findings = check(&link);
    writing.join().expect("it writes");
    expect(
        &findings,
        "output_buffer",
        "fail",
        "would drop us",
        "CONFIG SET client-output-buffer-limit \"replica",
    );
    expect(
        &findings,
        "backlog",
        "warn",
        "costs a new snapshot",
        "CONFIG SET repl-backlog-size",
    );
    expect(
        &findings,
        "timeouts",
        "warn",
        "repl-timeout is 5 s",
        "CONFIG SET repl-timeout",
    );
    expect(
        &findings,
        "sentinel",
        "warn",
        "1 Sentinels",
        "follows the master",
    );
    expect(
        &findings,
        "disk",
        "fail",
        "spool.max_bytes",
        "spool.max_bytes = \"",
    );
}

#[test]
fn clocks_and_roles_are_looked_at() {
    let source = Server::of("redis-7.0");
    let (folder, library) = preload("skew.c");
    let options = ServerOptions {
        args: Vec::new(),
        env: vec![
            (
                "LD_PRELOAD".to_owned(),
                library.to_string_lossy().into_owned(),
            ),
            ("SKEW_SECONDS".to_owned(), "5".to_owned()),
        ],
    };
    let target = Server::start(&Engine::of("redis-7.0"), options);
    expect(
        &check(&Link::new(&source, &target)),
        "clock",
        "warn",
        "the target's clock is",
        "NTP",
    );
    drop((target, folder));
    let target = Server::of("redis-7.0");
    let orphan = Server::of("redis-7.0");
    orphan.client().command(&argv!["REPLICAOF", "127.0.0.1", 1]);
    expect(
        &check(&Link::new(&orphan, &target)),
        "source",
        "fail",
        "has lost it",
        "the address of the master",
    );
    for engine in ["redis-7.0", "valkey-8.1", "valkey-9.1"] {
        let node = with(engine, "--cluster-enabled yes");
        expect(
            &check(&Link::new(&node, &target)),
            "source",
            "warn",
            "node of a cluster",
            "sync_reader.cluster = true",
        );
    }
    let cluster = Cluster::start("valkey-9.1", 3, 0);
    let link = Link::between(&cluster.address(0), &target.address());
    let link = link.with("sync_reader", "cluster = true");
    expect(
        &check(&link),
        "source",
        "pass",
        "all of which is followed",
        "",
    );
}

/// The node that is named has neither the key nor the checkpoint.
#[test]
fn a_cluster_as_the_target_is_looked_at_as_a_whole() {
    let (source, cluster) = (Server::of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let own = cluster.place_of(cluster.slot("understudy:checkpoint:e2e"));
    let named = (own + 1) % 3;
    let is_elsewhere = |key: &String| cluster.place_of(cluster.slot(key)) != named;
    let link = Link::between(&source.address(), &cluster.address(named))
        .with("redis_writer", "cluster = true");
    let said = |state: &str, what: &str, mend: &str| {
        expect(&check(&link), "target_empty", state, what, mend);
    };
    said("pass", "the target is empty", "");
    let key = (0..).map(|at| format!("key-{at}")).find(is_elsewhere);
    let key = key.expect("one of another node");
    cluster.read(&argv!["SET", key, 1]);
    said("fail", "the target holds 1 keys", "empty it");
    cluster.read(&argv!["DEL", key]);
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    said("pass", "this link's checkpoint is there", "");
    let mut foreign = (0..).map(|at| format!("understudy:checkpoint:link-{at}"));
    let foreign = foreign.find(is_elsewhere).expect("another");
    cluster.read(&argv!["SET", foreign, 1]);
    expect(
        &check(&link),
        "target_leftovers",
        "warn",
        &format!("1 keys of other links, or of older runs, such as {foreign}"),
        "remove them",
    );
}

#[test]
fn a_file_stands_for_a_source() {
    let source = Server::of("redis-7.4");
    let mut client = source.client();
    client.command(&argv![
        "FUNCTION",
        "LOAD",
        "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
    ]);
    client.command(&argv!["SET", "a", vec![b'x'; 1000]]);
    client.select(3);
    client.command(&argv!["RPUSH", "l", 1, 2, 3]);
    client.command(&argv!["SAVE"]);
    let file = source.rdb_file().to_string_lossy().into_owned();
    let target = with("redis-6.2", "--databases 2");
    // The source itself need not be there.
    let link = Link::between("127.0.0.1:1", &target.address());
    let (_, findings) = check_with(&link.text(), &["--rdb", &file]);
    expect(&findings, "source", "pass", "2 keys", "");
    expect(&findings, "functions", "fail", "1 libraries", "");
    expect(&findings, "databases", "fail", "in use: 0, 3", "");
    expect(&findings, "big_keys", "pass", "\"a\" (db 0, string", "");
    let mut bytes = std::fs::read(&file).expect("the file");
    bytes.truncate(bytes.len() - 20);
    std::fs::write(&file, bytes).expect("write it");
    let (_, findings) = check_with(&link.text(), &["--rdb", &file]);
    expect(&findings, "source", "fail", "", "rdb verify");
}

#[test]
fn the_table_is_for_people() {
    let (source, target) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    target.client().command(&argv!["SET", "a", 1]);
    let text = Link::new(&source, &target).text().replace(STATUS_PORT, "0");
    let ended = run_file(
        &["check", "shake.toml", "--seconds", "1"],
        Some(text.as_bytes()),
    );
    assert_eq!(ended.code, 1);
    assert!(
        ended.stdout.contains("fail    target_empty"),
        "{}",
        ended.stdout
    );
    assert!(
        ended
            .stdout
            .contains("-> empty it, or set redis_writer.existing_keys"),
        "{}",
        ended.stdout
    );
    assert!(
        ended
            .stdout
            .contains("least rights at the source:\n    ACL SETUSER"),
        "{}",
        ended.stdout
    );
    assert!(ended.stdout.contains("1 fail"), "{}", ended.stdout);
}
