//! `[aof_reader]`: append-only files of real servers into a server.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use e2e::{LIMIT, own, rng, run_file};
use tempfile::TempDir;
use testkit::client::{bytes, items, number, text};
use testkit::oracle::OracleOptions;
use testkit::process::wait_until;
use testkit::{Cluster, Daemon, Engine, Server, ServerOptions, Writer, argv, oracle, workload};

fn config(path: &Path, target: &str, reader: &str, more: &str) -> String {
    format!(
        "[aof_reader]\nfilepath = {path:?}\n{reader}\n[redis_writer]\naddress = \"{target}\"\n[link]\nname = \"files\"\n{more}\n"
    )
}

fn sync(text: &str) -> e2e::Ended {
    run_file(&["sync", "shake.toml"], Some(text.as_bytes()))
}

/// A server that keeps an append-only file.
fn appending(engine: &str, more: &str) -> Server {
    let words = format!("--appendonly yes --appendfsync no --auto-aof-rewrite-percentage 0 {more}");
    Server::start(&Engine::of(engine), ServerOptions::args(&words))
}

/// Its file, or the folder with it.
fn kept_in(server: &Server) -> PathBuf {
    let folder = server.folder().join("appendonlydir");
    match folder.is_dir() {
        true => folder,
        false => server.folder().join("appendonly.aof"),
    }
}

fn rewrite(server: &Server) {
    let mut client = server.client();
    client.command(&argv!["BGREWRITEAOF"]);
    wait_until("the rewrite", LIMIT, || {
        let info = server.client().info("persistence");
        info["aof_rewrite_in_progress"] == "0" && info["aof_rewrite_scheduled"] == "0"
    });
}

/// Data, then a rewrite, then commands of every kind; and the server stops, so that its file is whole.
fn played(engine: &str, to: &str, preamble: bool) {
    let more = match (preamble, engine) {
        (true, _) => "",
        (false, _) => "--aof-use-rdb-preamble no",
    };
    let mut source = appending(engine, more);
    workload::fill(&mut source.client(), rng().number(), 500);
    rewrite(&source);
    let writer = Writer::start(&source.address(), rng().number(), 3000);
    std::thread::sleep(Duration::from_millis(1500));
    writer.stop();
    source.terminate();
    let begun = Instant::now();
    source.restart();
    let target = Server::of(to);
    let ended = sync(&config(&kept_in(&source), &target.address(), "", ""));
    assert_eq!(ended.code, 0, "{engine}: {}", ended.stderr);
    let mut options = OracleOptions::live(&source.engine().version);
    if options.expiry_tolerance_ms > 0 {
        // Some expiries of servers before 7.0 are spans, which count from when they are read: by the source, then by us.
        options.expiry_tolerance_ms += begun.elapsed().as_millis() as i64;
    }
    oracle::assert_equal_with(&source.address(), &target.address(), &options);
}

#[test]
fn files_of_5_0_6_2_7_0_and_8_0_are_played() {
    // From 7.0 on a server forgets a pending message that is trimmed, when it is claimed.
    played("redis-5.0", "redis-6.2", true);
    played("redis-6.2", "redis-6.2", false);
    played("redis-7.0", "valkey-9.1", true);
    played("redis-8.0", "redis-8.0", false);
}

#[test]
fn what_was_saved_from_its_end_lives_however_old_the_file_is() {
    let mut source = appending("redis-7.0", "");
    let mut client = source.client();
    client.command(&argv!["SET", "saved", "v", "PX", 700]);
    client.command(&argv!["PERSIST", "saved"]);
    client.command(&argv!["SET", "longer", "v", "PX", 700]);
    client.command(&argv!["EXPIRE", "longer", 10_000]);
    client.command(&argv!["SET", "gone", "v", "PX", 700]);
    std::thread::sleep(Duration::from_millis(900));
    client.command(&argv!["GET", "gone"]);
    source.kill();
    let target = Server::of("redis-7.0");
    let ended = sync(&config(&kept_in(&source), &target.address(), "", ""));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let mut client = target.client();
    assert_eq!(bytes(client.command(&argv!["GET", "saved"])), b"v");
    assert_eq!(number(&client.command(&argv!["PTTL", "saved"])), Some(-1));
    let left = number(&client.command(&argv!["PTTL", "longer"])).expect("a number");
    assert!((1..=10_000_000).contains(&left), "{left}");
    assert_eq!(number(&client.command(&argv!["EXISTS", "gone"])), Some(0));
}

/// Fields end so long after they were written.
const LIFE_MS: u64 = 4000;
/// What has this expiry or a later one has been given a longer life.
const LEASED_MS: i64 = 7_000_000_000_000;

/// Fields of hashes that were given another life before they ended, some of them in the snapshot with which the file
/// begins, and others; gives the expiries of those that still have one.
fn fields_with_lives(source: &Server) -> Vec<(&'static str, &'static str, i64)> {
    let mut client = source.client();
    client.command(&argv!["DEBUG", "SET-ACTIVE-EXPIRE", 0]);
    client.command(&argv![
        "HSET", "h", "saved", 1, "later", 1, "gone", 1, "free", 1
    ]);
    client.command(&argv![
        "HPEXPIRE", "h", LIFE_MS, "FIELDS", 3, "saved", "later", "gone"
    ]);
    client.command(&argv!["HSET", "whole", "a", 1]);
    client.command(&argv!["HPEXPIRE", "whole", LIFE_MS, "FIELDS", 1, "a"]);
    rewrite(source);
    let payload = bytes(client.command(&argv!["DUMP", "h"]));
    let lines = [
        "HSET none a 1",
        "HPEXPIRE none 1000 FIELDS 1 a",
        "HPERSIST h FIELDS 1 saved",
        "HPEXPIRE h 8000000 GT FIELDS 1 later",
        "RENAME whole renamed",
        "HPERSIST renamed FIELDS 1 a",
        "HSET next a 1 b 1",
        "HPEXPIRE next 1000 FIELDS 2 a b",
        "RENAME next again",
        "HPERSIST again FIELDS 1 a",
        "HSET conditions a 1 b 1 c 1",
        "HPEXPIRE conditions 5000000 FIELDS 1 a",
        "HPEXPIRE conditions 20000000 FIELDS 1 b",
        "HPEXPIRE conditions 10000000 LT FIELDS 2 a b",
        "HPEXPIRE conditions 9000000 GT FIELDS 2 a b",
        "HPEXPIRE conditions 1000000 NX FIELDS 3 a b c",
    ];
    let mut all: Vec<Vec<Vec<u8>>> = vec![argv!["RESTORE", "restored", 0, payload]];
    all.push(argv!["HPERSIST", "restored", "FIELDS", 1, "saved"]);
    let words = |line: &str| line.split(' ').map(|word| word.into()).collect();
    all.extend(lines.iter().map(|line| words(line)));
    client.commands(&all);
    let rest = [
        ("h", "later"),
        ("conditions", "a"),
        ("conditions", "b"),
        ("conditions", "c"),
    ];
    let expiry = |(key, field)| (key, field, field_expires_ms(source, key, field));
    let expiries: Vec<_> = rest.into_iter().map(expiry).collect();
    let [_, a, b, c] = expiries.as_slice() else {
        panic!("four of them")
    };
    assert!(c.2 < a.2 && a.2 < b.2, "{expiries:?}");
    expiries
}

/// -1: never, -2: there is no such field.
fn field_expires_ms(server: &Server, key: &str, field: &str) -> i64 {
    let reply = server
        .client()
        .command(&argv!["HPEXPIRETIME", key, "FIELDS", 1, field]);
    number(&items(reply)[0]).expect("a number")
}

#[test]
fn fields_that_were_saved_from_their_end_live_however_often_it_is_killed() {
    let pairs = [
        ("redis-7.4", "redis-7.4"),
        ("redis-8.0", "redis-8.0"),
        ("valkey-9.1", "valkey-9.1"),
        ("redis-8.0", "valkey-9.1"),
        ("valkey-9.1", "redis-8.0"),
    ];
    for (from, to) in pairs {
        let mut source = appending(from, "--enable-debug-command yes");
        let expiries = fields_with_lives(&source);
        let fill: Vec<_> = (0..40_000).map(|_| argv!["INCR", "n"]).collect();
        source.client().commands(&fill);
        std::thread::sleep(Duration::from_millis(LIFE_MS));
        source.kill();
        let target = Server::of(to);
        let slow =
            "[limits]\ntarget_commands_per_second = 5000\n[advanced]\nstatus_port = @STATUS_PORT@";
        let mut daemon = Daemon::start(&config(&kept_in(&source), &target.address(), "", slow));
        for _ in 0..2 {
            daemon.wait_for("some of the file", LIMIT, |daemon| {
                own(daemon, "commands_applied").is_some_and(|applied| applied >= 2000)
            });
            // In the midst of it everything lives.
            for (key, field) in [
                ("h", "gone"),
                ("none", "a"),
                ("again", "b"),
                ("restored", "gone"),
            ] {
                let at_ms = field_expires_ms(&target, key, field);
                assert!(at_ms > LEASED_MS, "{from} -> {to}: {key} {field}: {at_ms}");
            }
            daemon.restart();
        }
        daemon.kill();
        assert_ne!(bytes(target.client().command(&argv!["GET", "n"])), b"40000");
        daemon.configure(&config(&kept_in(&source), &target.address(), "", ""));
        daemon.spawn();
        assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
        let ours = expiries.iter().copied().chain([
            ("h", "saved", -1),
            ("h", "free", -1),
            ("h", "gone", -2),
            ("none", "a", -2),
            ("renamed", "a", -1),
            ("again", "a", -1),
            ("again", "b", -2),
            ("restored", "saved", -1),
            ("restored", "later", -2),
            ("restored", "gone", -2),
        ]);
        for (key, field, at_ms) in ours {
            let found = field_expires_ms(&target, key, field);
            assert_eq!(found, at_ms, "{from} -> {to}: {key} {field}");
        }
        assert_eq!(bytes(target.client().command(&argv!["GET", "n"])), b"40000");
        // Once more it does nothing.
        let ended = sync(&config(&kept_in(&source), &target.address(), "", ""));
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_eq!(field_expires_ms(&target, "h", "later"), expiries[0].2);
    }
}

#[test]
fn killed_again_and_again_it_doubles_nothing() {
    let mut rng = rng();
    let mut source = appending("redis-7.0", "");
    let mut client = source.client();
    for n in 0..600_u64 {
        let mut commands: Vec<_> = (0..100)
            .map(|m| argv!["INCR", format!("n:{}", (n * 100 + m) % 50)])
            .collect();
        commands.push(argv!["MULTI"]);
        commands.push(argv!["RPUSH", "list", n]);
        commands.push(argv!["APPEND", "text", "x"]);
        commands.push(argv!["EXEC"]);
        client.commands(&commands);
    }
    source.terminate();
    source.restart();
    let target = Server::of("redis-7.0");
    let slow =
        "[limits]\ntarget_commands_per_second = 15000\n[advanced]\nstatus_port = @STATUS_PORT@";
    let mut daemon = Daemon::start(&config(&kept_in(&source), &target.address(), "", slow));
    for _ in 0..4 {
        let commands = rng.within(1000..6000);
        daemon.wait_for("some of the file", LIMIT, |daemon| {
            own(daemon, "commands_applied").is_some_and(|applied| applied >= commands)
        });
        daemon.restart();
    }
    daemon.kill();
    daemon.configure(&config(&kept_in(&source), &target.address(), "", ""));
    daemon.spawn();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(
        bytes(target.client().command(&argv!["GET", "n:7"])),
        b"1200"
    );
}

/// A file of commands, written here.
fn file_of(folder: &TempDir, bytes: &[u8]) -> PathBuf {
    let path = folder.path().join("appendonly.aof");
    fs::write(&path, bytes).expect("a file");
    path
}

fn commands(list: &[&[&str]]) -> Vec<u8> {
    let mut out = Vec::new();
    for words in list {
        out.extend(format!("*{}\r\n", words.len()).bytes());
        for word in *words {
            out.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
        }
    }
    out
}

#[test]
fn fields_of_a_file_live_at_a_cluster_too() {
    let keys: Vec<String> = (0..40).map(|n| format!("h:{n}")).collect();
    let of_one = |key| {
        commands(&[
            &["HSET", key, "saved", "1", "gone", "1"],
            &[
                "HPEXPIREAT",
                key,
                "1700000000000",
                "FIELDS",
                "2",
                "saved",
                "gone",
            ],
            &["HPERSIST", key, "FIELDS", "1", "saved"],
        ])
    };
    let all: Vec<u8> = keys.iter().flat_map(|key| of_one(key.as_str())).collect();
    let folder = TempDir::new().expect("a folder");
    let path = file_of(&folder, &all);
    let cluster = Cluster::start("redis-8.0", 3, 0);
    let text = config(&path, &cluster.address(0), "", "");
    let ended = sync(&text.replace("[link]", "cluster = true\n[link]"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    for key in &keys {
        let reply = cluster.read(&argv!["HPEXPIRETIME", key, "FIELDS", 2, "saved", "gone"]);
        let times: Vec<_> = items(reply).iter().map(number).collect();
        assert_eq!(times, [Some(-1), Some(-2)], "{key}");
    }
}

#[test]
fn a_file_that_is_cut_short_is_applied_up_to_there_and_gone_on_with() {
    let folder = TempDir::new().expect("a folder");
    let whole = commands(&[&["INCR", "n"], &["INCR", "n"]]);
    let open = commands(&[&["MULTI"], &["INCR", "n"], &["INCR", "n"]]);
    let path = file_of(&folder, &[&whole[..], &open[..open.len() - 3]].concat());
    let target = Server::of("redis-7.0");
    let shake = config(&path, &target.address(), "", "");
    let ended = sync(&shake);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let place = format!("appendonly.aof at byte {}", whole.len());
    assert!(ended.stderr.contains(&place), "{}", ended.stderr);
    let n = |target: &Server| bytes(target.client().command(&argv!["GET", "n"]));
    assert_eq!(n(&target), b"2");
    // The rest of it comes.
    let rest = [
        &open[open.len() - 3..],
        &commands(&[&["EXEC"], &["INCR", "n"]]),
    ]
    .concat();
    let mut file = OpenOptions::new()
        .append(true)
        .open(&path)
        .expect("the file");
    std::io::Write::write_all(&mut file, &rest).expect("to append");
    for _ in 0..2 {
        let ended = sync(&shake);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert_eq!(n(&target), b"5");
    }
}

#[test]
fn a_damaged_file_stops_at_the_place_and_nothing_behind_it_is_applied() {
    let folder = TempDir::new().expect("a folder");
    let good = commands(&[&["SET", "a", "1"], &["SET", "b", "2"]]);
    let bytes = [&good[..], b"$junk", &commands(&[&["SET", "c", "3"]])].concat();
    let path = file_of(&folder, &bytes);
    let target = Server::of("redis-7.0");
    let ended = sync(&config(&path, &target.address(), "", ""));
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let place = format!("appendonly.aof at byte {}", good.len());
    assert!(ended.error().contains(&place), "{}", ended.error());
    let mut keys = target.client().keys();
    keys.retain(|key| key.len() == 1);
    keys.sort();
    assert_eq!(keys, [b"a".to_vec(), b"b".to_vec()]);
    // Another file under the same name is not gone on with.
    fs::write(&path, commands(&[&["SET", "x", "1"]])).expect("a file");
    let ended = sync(&config(&path, &target.address(), "", ""));
    assert_eq!(ended.code, 4, "{}", ended.stderr);
    assert!(ended.error().contains("other files"), "{}", ended.error());
}

#[test]
fn a_file_is_played_up_to_a_time() {
    for engine in ["redis-7.0", "redis-8.0"] {
        let mut source = appending(engine, "--aof-timestamp-enabled yes");
        let mut client = source.client();
        client.command(&argv!["SET", "before", 1]);
        let time = items(client.command(&argv!["TIME"]));
        let seconds: i64 = text(&time[0]).parse().expect("a number");
        std::thread::sleep(Duration::from_millis(2100));
        client.command(&argv!["SET", "after", 1]);
        client.command(&argv!["DEL", "before"]);
        source.terminate();
        let target = Server::of("redis-7.0");
        let reader = format!("timestamp = {}", seconds + 1);
        let ended = sync(&config(&kept_in(&source), &target.address(), &reader, ""));
        assert_eq!(ended.code, 0, "{engine}: {}", ended.stderr);
        let mut client = target.client();
        assert_eq!(number(&client.command(&argv!["EXISTS", "before"])), Some(1));
        assert_eq!(number(&client.command(&argv!["EXISTS", "after"])), Some(0));
        let reader = format!("timestamp = {}", seconds - 1000);
        let other = Server::of("redis-7.0");
        let ended = sync(&config(&kept_in(&source), &other.address(), &reader, ""));
        assert_eq!(ended.code, 3, "{}", ended.stderr);
        assert!(
            ended.error().contains("nothing was written"),
            "{}",
            ended.error()
        );
    }
    let folder = TempDir::new().expect("a folder");
    let path = file_of(&folder, &commands(&[&["SET", "a", "1"]]));
    let target = Server::of("redis-7.0");
    let ended = sync(&config(&path, &target.address(), "timestamp = 5", ""));
    assert!(
        ended.error().contains("tells no times"),
        "{}",
        ended.error()
    );
}
