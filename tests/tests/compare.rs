//! `understudy compare`: differences of every kind are found, and nothing else, while the source is written to and sync runs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use e2e::plants::{Scribbler, compare, found, make, spoil};
use e2e::{
    LIMIT, Link, catch_up, from_env, phase, rng, run_file, source_of, wait_more, wait_stream,
};
use testkit::client::{Argv, text};
use testkit::daemon::STATUS_PORT;
use testkit::oracle;
use testkit::samples;
use testkit::workload::fill;
use testkit::{Counters, Daemon, Rng, Server, Writer, argv};

/// A db that no workload uses.
const DB: u32 = 5;

/// How often a server was asked these commands.
fn calls_of(server: &Server, commands: &[&str]) -> u64 {
    let stats = server.client().info("commandstats");
    let calls = |command: &&str| -> u64 {
        let text = stats.get(&format!("cmdstat_{command}"));
        let text = text.map_or("", |text| text.trim_start_matches("calls="));
        text.split(',')
            .next()
            .unwrap_or_default()
            .parse()
            .unwrap_or(0)
    };
    commands.iter().map(calls).sum()
}

#[test]
fn all_planted_differences_are_found_under_live_writes_and_nothing_else() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let keys = from_env("UNDERSTUDY_COMPARE_KEYS", 20_000);
    let planted = from_env("UNDERSTUDY_COMPARE_PLANTED", 100);
    let mut client = source.client();
    // Those are large; the others make up the number.
    let rich = (keys / 2).min(20_000);
    let plain = keys - rich;
    fill(&mut client, rng.number(), rich);
    let commands = |from: u64| -> Vec<Argv> {
        let numbers = from..(from + 1000).min(plain);
        numbers
            .map(|n| argv!["SET", format!("scribble:{n}"), n])
            .collect()
    };
    for from in (0..plain).step_by(1000) {
        client.commands(&commands(from));
    }
    let expected = make(&mut client, DB, planted);
    let link = Link::new(&source, &target);
    let counters = Counters::start(&source.address(), rng.number(), 1000);
    let scribbler = Scribbler::start(&source, Rng::new(rng.number()), plain);
    let mut daemon = link.start();
    let limit = LIMIT + Duration::from_millis(keys / 5);
    daemon.wait_for("the stream phase", limit, |daemon| {
        phase(daemon) == "stream"
    });
    wait_more("operations", 1000, || counters.acknowledged());
    spoil(&mut target.client(), DB, planted);
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_string_lossy().into_owned();
    let (ended, report) = compare(&link, &["--qps", "0", "--tsv", &path]);
    println!(
        "{} commands of the scribbler, {}",
        scribbler.stop(),
        report["sums"]
    );
    assert_eq!(found(&report), expected, "{}", ended.stderr);
    assert_eq!(ended.code, 1);
    assert_eq!(report["unchecked"].as_array().map(Vec::len), Some(0));
    let tsv = std::fs::read_to_string(file.path()).expect("the file");
    let rows = tsv.lines().skip(1).map(|line| {
        let cells: Vec<&str> = line.split('\t').collect();
        let db = cells[1].parse().expect("a db");
        ((db, cells[3].to_owned()), cells[0].to_owned())
    });
    let listed = rows.filter(|(_, kind)| kind != "unsettled");
    assert_eq!(listed.collect::<BTreeMap<_, _>>(), expected);
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
}

#[test]
fn differences_are_repaired_while_sync_runs_and_the_source_is_written_to() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.2"));
    let keys = from_env("UNDERSTUDY_COMPARE_KEYS", 5_000);
    let mut client = source.client();
    fill(&mut client, rng.number(), keys);
    let mut expected = make(&mut client, DB, 60);
    let mut hot = source.client();
    hot.select(DB);
    // These are written on and on, between the looks and the repairs.
    for n in 0..20 {
        hot.commands(&[
            argv!["RPUSH", format!("hot:{n}"), "a"],
            argv!["INCR", format!("count:{n}")],
        ]);
        expected.insert((i64::from(DB), format!("hot:{n}")), "value".to_owned());
        expected.insert((i64::from(DB), format!("count:{n}")), "value".to_owned());
    }
    let link = Link::new(&source, &target);
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let scribbler = Scribbler::start(&source, Rng::new(rng.number()), keys);
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    wait_more("operations", 500, || counters.acknowledged());
    spoil(&mut target.client(), DB, 60);
    let mut at_target = target.client();
    at_target.select(DB);
    for n in 0..20 {
        at_target.commands(&[
            argv!["RPUSH", format!("hot:{n}"), "spoilt"],
            argv!["INCRBY", format!("count:{n}"), 1000],
        ]);
    }
    at_target.command(&argv!["FUNCTION", "FLUSH"]);
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let stopped = std::sync::Arc::clone(&stop);
    let mut chance = Rng::new(rng.number());
    let writing = std::thread::spawn(move || {
        while !stopped.load(std::sync::atomic::Ordering::Relaxed) {
            let n = chance.below(20);
            hot.commands(&[
                argv!["RPUSH", format!("hot:{n}"), "b"],
                argv!["INCR", format!("count:{n}")],
            ]);
            std::thread::sleep(Duration::from_millis(chance.below(40)));
        }
    });
    let (ended, report) = compare(&link, &["--qps", "0", "--repair"]);
    println!("{}", report["sums"]);
    let mut seen = found(&report);
    seen.retain(|(db, _), _| *db >= 0);
    assert_eq!(seen, expected);
    assert_eq!(
        (ended.code, report["sums"]["open"].as_u64()),
        (0, Some(0)),
        "{report}"
    );
    scribbler.stop();
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writing.join().expect("the writer does not panic");
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
}

#[test]
fn nothing_is_repaired_at_a_target_that_waits_for_its_daemon() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    source.client().command(&argv!["SET", "a", 1]);
    let link = Link::new(&source, &target);
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0);
    source.client().command(&argv!["INCR", "a"]);
    let link = link.with("compare", "pause = \"10ms\"");
    let (ended, report) = compare(&link, &["--repair"]);
    assert_eq!((ended.code, report["sums"]["open"].as_u64()), (1, Some(1)));
    let why = report["differences"][0]["why_not"]
        .as_str()
        .unwrap_or_default();
    assert!(why.contains("start sync"), "{report}");
    assert_eq!(text(&target.client().command(&argv!["GET", "a"])), "1");
    // It does both, and once.
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    assert_eq!(compare(&link, &["--repair"]).0.code, 0);
    assert_eq!(text(&target.client().command(&argv!["GET", "a"])), "2");
}

#[test]
fn equal_copies_under_live_writes_are_equal() {
    let mut rng = rng();
    for (from, to) in [("valkey-8.1", "redis-8.0"), ("redis-6.2", "redis-6.2")] {
        let (source, target) = (source_of(from), Server::of(to));
        fill(&mut source.client(), rng.number(), 3000);
        let link = Link::new(&source, &target);
        let counters = Counters::start(&source.address(), rng.number(), 2000);
        // Every family of commands, on the same keys.
        let writer = Writer::start(&source.address(), rng.number(), 1500);
        let mut daemon = link.start();
        wait_stream(&mut daemon);
        for round in 0..from_env("UNDERSTUDY_COMPARE_ROUNDS", 2) {
            let (ended, report) = compare(&link, &["--qps", "0"]);
            println!("{from} to {to}, round {round}: {}", report["sums"]);
            assert_eq!(
                (ended.code, found(&report)),
                (0, BTreeMap::new()),
                "{report}"
            );
        }
        drop(counters);
        println!("{} commands of the writer", writer.stop().commands);
    }
}

#[test]
fn copies_between_versions_and_forks_are_equal_whatever_their_encodings() {
    let mut rng = rng();
    for (from, to) in [
        ("redis-3.2", "redis-7.0"),
        ("redis-5.0", "valkey-9.1"),
        ("redis-6.2", "redis-8.10"),
        ("redis-7.4", "redis-8.6"),
        ("valkey-9.1", "redis-8.0"),
        ("redis-8.0", "valkey-9.0"),
    ] {
        let (source, target) = (source_of(from), Server::of(to));
        let mut client = source.client();
        samples::fill(&mut client, samples::Samples::default());
        fill(&mut client, rng.number(), 1000);
        let link = Link::new(&source, &target);
        let mut daemon = link.start();
        wait_stream(&mut daemon);
        catch_up(&mut daemon, &source);
        let (ended, report) = compare(&link, &["--qps", "0"]);
        assert_eq!(found(&report), BTreeMap::new(), "{from} to {to}: {report}");
        assert_eq!(ended.code, 0, "{from} to {to}: {report}");
        // And the file, against it.
        client.command(&argv!["SAVE"]);
        let file = source.rdb_file().to_string_lossy().into_owned();
        let (ended, report) = compare(&link, &["--qps", "0", "--rdb", &file]);
        assert_eq!(
            (ended.code, found(&report)),
            (0, BTreeMap::new()),
            "{from} to {to}: {report}"
        );
    }
}

#[test]
fn large_values_and_libraries_are_compared_in_bounded_memory() {
    let (source, target) = (source_of("redis-7.4"), Server::of("valkey-9.0"));
    let mut client = source.client();
    for n in 0..40 {
        let fields = (0..1000).flat_map(|m| argv![format!("f{n}.{m}"), format!("value {m}")]);
        client.command(&[argv!["HSET", "large:hash"], fields.collect()].concat());
        let members = (0..1000).map(|m| format!("member {n}.{m}").into_bytes());
        let members: Argv = members.collect();
        client.command(&[argv!["SADD", "large:set"], members.clone()].concat());
        client.command(&[argv!["RPUSH", "large:list"], members.clone()].concat());
        let scored = members.iter().enumerate().flat_map(|(score, member)| {
            [
                (score as f64 + 0.5).to_string().into_bytes(),
                member.clone(),
            ]
        });
        client.command(&[argv!["ZADD", "large:zset"], scored.collect()].concat());
        for m in 0..1000 {
            client.command(&argv![
                "XADD",
                "large:stream",
                format!("{}-{m}", n + 1),
                "f",
                "some value"
            ]);
        }
    }
    client.command(&argv!["XGROUP", "CREATE", "large:stream", "g", 0]);
    client.command(&argv![
        "XREADGROUP",
        "GROUP",
        "g",
        "c",
        "COUNT",
        3000,
        "STREAMS",
        "large:stream",
        ">"
    ]);
    client.command(&argv![
        "HPEXPIRE",
        "large:hash",
        90_000_000,
        "FIELDS",
        1,
        "f1.1"
    ]);
    client.command(&argv!["SET", "large:string", vec![b'x'; 40 << 20]]);
    client.command(&argv![
        "FUNCTION",
        "LOAD",
        "#!lua name=lib\nredis.register_function('f', function() return 1 end)"
    ]);
    let link = Link::new(&source, &target);
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let (ended, report) = compare(&link, &["--qps", "0"]);
    assert_eq!(
        (ended.code, found(&report)),
        (0, BTreeMap::new()),
        "{report}"
    );
    assert_eq!(report["sums"]["equal"], 6);
    let mut at_target = target.client();
    at_target.commands(&[
        argv!["HSET", "large:hash", "f7.7", "other"],
        argv!["SREM", "large:set", "member 3.3"],
        argv!["SADD", "large:set", "member other"],
        argv!["LSET", "large:list", 20_000, "other"],
        argv!["ZADD", "large:zset", 7.25, "member 9.9"],
        argv!["XACK", "large:stream", "g", "1-7"],
        argv!["SETRANGE", "large:string", 30 << 20, "other"],
        argv![
            "FUNCTION",
            "LOAD",
            "REPLACE",
            "#!lua name=lib\nredis.register_function('f', function() return 2 end)"
        ],
        argv![
            "FUNCTION",
            "LOAD",
            "#!lua name=more\nredis.register_function('g', function() return 2 end)"
        ],
    ]);
    let (ended, report) = compare(&link, &["--qps", "0"]);
    let expected = [
        (-1, "lib", "function"),
        (-1, "more", "function"),
        (0, "large:hash", "value"),
        (0, "large:list", "value"),
        (0, "large:set", "value"),
        (0, "large:stream", "pending"),
        (0, "large:string", "value"),
        (0, "large:zset", "score"),
    ];
    let expected = expected.map(|(db, key, kind)| ((db, key.to_owned()), kind.to_owned()));
    assert_eq!(found(&report), BTreeMap::from(expected), "{}", ended.stdout);
    at_target.command(&argv!["HPERSIST", "large:hash", "FIELDS", 1, "f1.1"]);
    at_target.command(&argv!["HSET", "large:hash", "f7.7", "value 7"]);
    let (_, report) = compare(&link, &["--qps", "0"]);
    let kind = found(&report)[&(0, "large:hash".to_owned())].clone();
    assert_eq!(kind, "field_ttl");
}

#[test]
fn samples_filters_and_tolerance_are_kept() {
    let (source, target) = (Server::of("redis-5.0"), Server::of("redis-6.2"));
    for (server, value) in [(&source, "a"), (&target, "b")] {
        let commands: Vec<Argv> = (0..2000)
            .map(|n| argv!["SET", format!("k:{n}"), value])
            .collect();
        server.client().commands(&commands);
        server.client().command(&argv!["SET", "other:1", value]);
        // These are nobody's but ours.
        server
            .client()
            .command(&argv!["SET", format!("{{x}}understudy:{value}"), value]);
    }
    let link = Link::new(&source, &target).with("compare", "pause = \"10ms\"");
    let (ended, report) = compare(&link, &["--qps", "0"]);
    assert_eq!((ended.code, found(&report).len()), (1, 2001));
    let (_, report) = compare(&link, &["--qps", "0", "--sample", "10%"]);
    let some = found(&report);
    assert!((100..300).contains(&some.len()), "{}", some.len());
    let (_, again) = compare(&link, &["--qps", "0", "--sample", "10%"]);
    assert_ne!(some, found(&again));
    let (_, report) = compare(
        &link
            .clone()
            .with("filter", "allow_key_prefix = [\"other:\"]"),
        &[],
    );
    let keys: BTreeSet<String> = found(&report).into_keys().map(|(_, key)| key).collect();
    assert_eq!(keys, BTreeSet::from(["other:1".to_owned()]));
    for (server, seconds) in [(&source, 1000), (&target, 1005)] {
        server.client().command(&argv!["FLUSHALL"]);
        server
            .client()
            .command(&argv!["SET", "k", "v", "EX", seconds]);
    }
    assert_eq!(compare(&link, &[]).0.code, 1);
    let (ended, report) = compare(&link, &["--ttl-tolerance", "10s"]);
    assert_eq!(ended.code, 0, "{report}");
}

#[test]
fn a_copy_that_is_not_there_yet_is_not_compared() {
    let (source, target) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    let link = Link::new(&source, &target);
    target.client().command(&argv![
        "SET",
        "understudy:checkpoint:e2e",
        format!("v1|1|2|snapshot|{}|1|0|", "a".repeat(40))
    ]);
    let text = link.text().replace(STATUS_PORT, "0");
    let ended = run_file(&["compare", "shake.toml"], Some(text.as_bytes()));
    assert_eq!(ended.code, 4);
    assert!(ended.error().contains("/readyz"), "{}", ended.stderr);
}

#[test]
fn a_snapshot_stands_for_the_keys_of_the_source() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.4"), Server::of("redis-8.0"));
    let mut client = source.client();
    fill(&mut client, rng.number(), 5_000);
    let expected = make(&mut client, DB, 60);
    let link = Link::new(&source, &target);
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let scribbler = Scribbler::start(&source, Rng::new(rng.number()), 5_000);
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    wait_more("operations", 500, || counters.acknowledged());
    spoil(&mut target.client(), DB, 60);
    let (_, report) = compare(&link, &["--qps", "0", "--snapshot"]);
    println!("{}", report["sums"]);
    assert_eq!(found(&report), expected);
    let dumps = || calls_of(&source, &["dump"]);
    // What differs is read some ten times, and what was written meanwhile.
    assert!(dumps() < 5_000, "{}", dumps());
    scribbler.stop();
    drop(counters);
    catch_up(&mut daemon, &source);
    client.command(&argv!["SAVE"]);
    let file = source.rdb_file().to_string_lossy().into_owned();
    let before = dumps();
    let (_, report) = compare(&link, &["--rdb", &file]);
    assert_eq!(found(&report), expected);
    assert!(dumps() - before < 2_000);
}

#[test]
fn sync_compares_all_the_while() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("valkey-8.1"));
    let mut client = source.client();
    fill(&mut client, rng.number(), 500);
    let expected = make(&mut client, DB, 30);
    let link = Link::new(&source, &target)
        .with("compare", "background_qps = 1000")
        .with("compare", "pause = \"100ms\"");
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    let result = |daemon: &Daemon, result: &str| -> f64 {
        let samples = daemon.metrics();
        let label = format!("result=\"{result}\"");
        let mut found = samples.iter().filter(|(name, _)| {
            name.starts_with("understudy_compare_keys_total") && name.contains(&label)
        });
        found.next().map_or(0.0, |(_, count)| *count)
    };
    let passes = |daemon: &Daemon| {
        daemon
            .metric("understudy_compare_passes_total")
            .unwrap_or(0.0)
    };
    daemon.wait_for("two passes", LIMIT, |daemon| passes(daemon) >= 2.0);
    assert!(result(&daemon, "equal") > 900.0);
    for bad in ["missing", "extra", "different", "unchecked"] {
        assert_eq!(result(&daemon, bad), 0.0, "{bad}\n{}", daemon.output());
    }
    spoil(&mut target.client(), DB, 30);
    let count = |kind: &str| expected.values().filter(|one| *one == kind).count() as f64;
    daemon.wait_for("what was spoilt", LIMIT, |daemon| {
        result(daemon, "missing") >= count("missing")
            && result(daemon, "extra") >= count("extra")
            && result(daemon, "different") >= 30.0 - count("missing") - count("extra")
    });
    assert!(daemon.output().contains("plant:extra:9"));
    drop(counters);
}

/// CPU seconds that a process has used.
fn cpu_seconds(pid: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let (_, rest) = text.rsplit_once(") ").expect("fields");
    let fields: Vec<f64> = rest
        .split(' ')
        .map(|field| field.parse().unwrap_or(0.0))
        .collect();
    (fields[11] + fields[12]) / 100.0
}

/// Asks a server a thousand times a second, as an application would, until it is told to stop; gives the latencies in
/// microseconds, sorted.
fn probe(
    server: &Server,
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> std::thread::JoinHandle<Vec<u128>> {
    let mut client = server.client();
    std::thread::spawn(move || {
        let mut times = Vec::new();
        while !stop.load(std::sync::atomic::Ordering::Relaxed) {
            let from = std::time::Instant::now();
            client.command(&argv!["GET", "k:1"]);
            times.push(from.elapsed().as_micros());
            std::thread::sleep(Duration::from_millis(1));
        }
        times.sort_unstable();
        times
    })
}

#[test]
fn comparing_costs_the_source_three_small_commands_a_key() {
    let (source, target) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    let keys = from_env("UNDERSTUDY_COMPARE_KEYS", 20_000);
    let mut client = source.client();
    for from in (0..keys).step_by(1000) {
        let numbers = from..(from + 1000).min(keys);
        let commands: Vec<Argv> = numbers
            .map(|n| argv!["SET", format!("k:{n}"), vec![b'x'; 100]])
            .collect();
        client.commands(&commands);
    }
    let mut copy = target.client();
    copy.command(&argv!["REPLICAOF", "127.0.0.1", source.port()]);
    testkit::process::wait_until("the copy", LIMIT, || {
        copy.keyspace().get(&0) == Some(&keys)
            && copy.info_number("replication", "master_sync_in_progress") == 0
    });
    copy.command(&argv!["REPLICAOF", "NO", "ONE"]);
    let link = Link::new(&source, &target);
    // Some 50,000 keys, whatever their number.
    let share = format!("{:.2}%", (5_000_000.0 / keys as f64).min(100.0));
    for qps in ["none", "5000", "20000", "0"] {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let probing = probe(&source, std::sync::Arc::clone(&stop));
        client.command(&argv!["CONFIG", "RESETSTAT"]);
        let (cpu, from) = (cpu_seconds(source.pid()), std::time::Instant::now());
        let mut compared = 0;
        if qps == "none" {
            std::thread::sleep(Duration::from_secs(3));
        } else {
            let (ended, report) = compare(&link, &["--qps", qps, "--sample", &share]);
            assert_eq!(ended.code, 0, "{report}");
            compared = report["sums"]["equal"].as_u64().expect("a number");
        }
        let seconds = from.elapsed().as_secs_f64();
        let cpu = cpu_seconds(source.pid()) - cpu;
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        let times = probing.join().expect("the probe does not panic");
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        println!(
            "qps {qps}: {compared} keys in {seconds:.1} s ({:.0}/s), source at {:.1} % of a core, GET p50 {} p99 {} max {} us",
            compared as f64 / seconds,
            cpu / seconds * 100.0,
            at(0.5),
            at(0.99),
            at(1.0)
        );
        if compared > 0 {
            let asked = calls_of(&source, &["dump", "pexpiretime", "memory|usage"]);
            assert!(asked <= compared * 3 + 300, "{asked} for {compared} keys");
            let others = calls_of(&source, &["exists", "scan", "time", "info", "type"]);
            assert!(others < keys / 20 + 3000, "{others}");
        }
    }
}
