//! Sources that refuse PSYNC, read by SCAN and keyspace events: whatever events are lost, and whatever no event tells, in the
//! end every key is equal.
//!
//! `UNDERSTUDY_SCAN_RATE` (writes a second) and `UNDERSTUDY_SCAN_SECONDS` make the measured run of the short one, which
//! then prints its figures.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::{LIMIT, Link, fast, from_env, is_ready, phase, rng, scan, settle};
use testkit::gate::{Gate, Refusal};
use testkit::oracle::{self, OracleOptions};
use testkit::process::wait_until;
use testkit::samples::{self, Samples};
use testkit::{
    Churn, Client, Counters, Daemon, Engine, Server, ServerOptions, Writer, argv, workload,
};

const EVENTS: &str = "--notify-keyspace-events KEA";

fn source(engine: &str, args: &str) -> Server {
    Server::start(
        &Engine::of(engine),
        ServerOptions::args(&format!("{EVENTS} {args}")),
    )
}

fn dropped(daemon: &Daemon, reason: &str) -> Option<u64> {
    let metrics = daemon.metrics();
    let reason = format!("reason=\"{reason}\"");
    let mut rows = metrics.iter();
    let row =
        rows.find(|(name, _)| name.contains("commands_dropped_total") && name.contains(&reason));
    row.map(|(_, value)| *value as u64)
}

fn equal(source: &Server, target: &Server) {
    let options = OracleOptions::live(&source.engine().version);
    oracle::assert_equal_with(&source.address(), &target.address(), &options);
}

/// A source that refuses is read by SCAN, says so in one line, and is followed.
fn falls_back(source: &Server, link: Link) {
    let mut rng = rng();
    let target = Server::of("redis-7.0");
    samples::fill(&mut source.client(), Samples::default());
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let mut daemon = fast(link.target(&target.address())).start();
    daemon.wait_for("the scan phase", LIMIT, |daemon| phase(daemon) == "scan");
    let said = |daemon: &Daemon| daemon.output().matches("the source refuses PSYNC").count();
    assert_eq!(said(&daemon), 1, "{}", daemon.output());
    let done = counters.acknowledged() + 500;
    wait_until("writes meanwhile", LIMIT, || {
        counters.acknowledged() >= done
    });
    let ledger = counters.stop();
    settle(&mut daemon, LIMIT);
    ledger.assert_at(&target.address());
    equal(source, &target);
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
}

#[test]
fn a_renamed_psync_is_read_around() {
    let source = source("redis-7.0", "--rename-command PSYNC nobody-knows");
    falls_back(&source, Link::new(&source, &source));
}

/// A server that renames PSYNC takes the new name for SYNC, which is of no use.
#[test]
fn a_name_that_is_known_and_answers_as_sync_is_read_around() {
    for (args, name) in [
        ("--rename-command PSYNC hidden", "hidden"),
        ("--rename-command SYNC mysync", "mysync"),
    ] {
        let source = source("redis-7.0", args);
        let named = format!("psync_command = \"{name}\"");
        falls_back(
            &source,
            Link::new(&source, &source).with("sync_reader", &named),
        );
    }
}

/// A link whose user may do everything but PSYNC.
fn without_psync(source: &Server, link: Link) -> Link {
    source.client().command(&argv![
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">secret",
        "~*",
        "&*",
        "+@all",
        "-psync",
        "-replconf"
    ]);
    link.with("sync_reader", "username = \"reader\"")
        .with("sync_reader", "password = \"secret\"")
}

#[test]
fn a_user_without_psync_reads_by_scan() {
    let source = source("redis-7.0", "");
    let link = without_psync(&source, Link::new(&source, &source));
    falls_back(&source, link);
}

#[test]
fn a_proxy_without_psync_is_read_through() {
    let source = source("redis-7.0", "");
    for refusal in [Refusal::Unknown, Refusal::Closes] {
        source.client().command(&argv!["FLUSHALL"]);
        let gate = Gate::start(&source.address(), &["psync", "replconf"], refusal, 1);
        falls_back(&source, Link::new(&source, &source).source(&gate.address()));
    }
}

#[test]
fn who_does_not_want_scan_is_told_why_it_stops() {
    let source = source("redis-7.0", "--rename-command PSYNC nobody-knows");
    let target = Server::of("redis-7.0");
    let link = Link::new(&source, &target).with("sync_reader", "on_psync_refused = \"fail\"");
    let mut daemon = link.start();
    assert_eq!(daemon.wait(LIMIT), 3, "{}", daemon.output());
    assert!(
        daemon.output().contains("on_psync_refused"),
        "{}",
        daemon.output()
    );
}

/// Milliseconds that so many GETs took, at the median and at 99 %.
fn latencies(address: &str, count: usize) -> (f64, f64) {
    let mut client = Client::connect(address);
    let mut took: Vec<f64> = (0..count)
        .map(|_| {
            let from = Instant::now();
            client.command(&argv!["GET", "load:s:1"]);
            let ms = from.elapsed().as_secs_f64() * 1e3;
            std::thread::sleep(Duration::from_millis(1));
            ms
        })
        .collect();
    took.sort_by(f64::total_cmp);
    (took[count / 2], took[count * 99 / 100])
}

/// How PSYNC is refused.
#[derive(Debug, Clone, Copy)]
enum Refused {
    ByAProxy,
    Renamed,
    Denied,
}

/// The measured run: PSYNC refused one way or another, a load, 15 % of the events lost, three FLUSHALLs and two SWAPDBs, the daemon
/// killed, the target killed.
#[test]
fn lost_events_flushes_swaps_and_kills_are_all_healed() {
    let rate = from_env("UNDERSTUDY_SCAN_RATE", 1500);
    let seconds = from_env("UNDERSTUDY_SCAN_SECONDS", 6);
    let mut rng = rng();
    let refused = *rng.pick(&[Refused::ByAProxy, Refused::Renamed, Refused::Denied]);
    println!("PSYNC is refused: {refused:?}");
    let source = source(
        "redis-7.0",
        match refused {
            Refused::Renamed => "--rename-command PSYNC nobody-knows",
            Refused::ByAProxy | Refused::Denied => "",
        },
    );
    let mut target = Server::start(
        &Engine::of("redis-7.0"),
        ServerOptions::args("--appendonly yes"),
    );
    let commands: &[&str] = match refused {
        Refused::ByAProxy => &["psync", "replconf"],
        Refused::Renamed | Refused::Denied => &[],
    };
    let gate = Gate::start(&source.address(), commands, Refusal::Unknown, rng.number());
    gate.lose(15);
    workload::fill(&mut source.client(), rng.number(), 2000);
    let load = Churn::start(&source.address(), rng.number(), rate);
    let writer = Writer::start(&source.address(), rng.number(), (rate / 10).max(200));
    std::thread::sleep(Duration::from_secs(1));
    let before = latencies(&source.address(), 500);
    let link = fast(Link::new(&source, &target).source(&gate.address()));
    let link = match refused {
        Refused::Denied => without_psync(&source, link),
        Refused::ByAProxy | Refused::Renamed => link,
    };
    let mut daemon = link.start();
    daemon.wait_for("the scan phase", LIMIT, |daemon| phase(daemon) == "scan");
    // Nobody reads what it holds at the source by now: what happens here is spread over the run.
    let part = Duration::from_millis(seconds * 1000 / 6);
    let mut client = source.client();
    std::thread::sleep(part);
    let during = latencies(&source.address(), 500);
    client.command(&argv!["FLUSHALL"]);
    std::thread::sleep(part);
    client.command(&argv!["SWAPDB", "0", "2"]);
    daemon.restart();
    daemon.wait_for("the scan phase", LIMIT, |daemon| phase(daemon) == "scan");
    client.command(&argv!["FLUSHALL"]);
    std::thread::sleep(part);
    target.restart();
    std::thread::sleep(part);
    client.command(&argv!["SWAPDB", "0", "1"]);
    client.command(&argv!["FLUSHALL"]);
    workload::fill(&mut source.client(), rng.number(), 1000);
    std::thread::sleep(part);
    gate.cut();
    std::thread::sleep(part);
    let (written, also) = (load.stop(), writer.stop().commands);
    let quiet = Instant::now();
    settle(&mut daemon, LIMIT * 2);
    let healed = quiet.elapsed();
    equal(&source, &target);
    let (passed, lost) = gate.messages();
    println!(
        "{written} writes at {rate}/s and {also} of every kind; events: {passed} passed, {lost} lost; {} keys put; equal {:.1} s after the last write; GET at the source p50/p99 before {:.2}/{:.2} ms, during {:.2}/{:.2} ms; status {}",
        scan(&daemon, "keys").unwrap_or(0),
        healed.as_secs_f64(),
        before.0,
        before.1,
        during.0,
        during.1,
        daemon.status().unwrap_or_default()["understudy"]["scan"],
    );
    assert!(lost > 0 && passed > lost, "{passed} {lost}");
}

#[test]
fn one_pass_copies_every_kind_of_value_and_ends() {
    for (from, to) in [
        ("redis-7.4", "redis-7.4"),
        ("redis-5.0", "redis-7.0"),
        ("valkey-9.0", "valkey-9.0"),
        ("redis-7.4", "redis-6.2"),
    ] {
        println!("{from} to {to}");
        let (source, target) = (Server::of(from), Server::of(to));
        let large = true;
        match from {
            // Some of the samples no target from 7.0 on takes from a source before it.
            "redis-5.0" => workload::fill(&mut source.client(), 1, 1500),
            _ => samples::fill(
                &mut source.client(),
                Samples {
                    large,
                    ..Samples::default()
                },
            ),
        }
        let link = Link::new(&source, &target)
            .scanning()
            .with("redis_writer", "losses = \"warn\"");
        let mut daemon = link.start();
        assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
        if to != "redis-6.2" {
            let options = match from {
                "redis-5.0" => OracleOptions::live(&source.engine().version),
                _ => OracleOptions::default(),
            };
            oracle::assert_equal_with(&source.address(), &target.address(), &options);
        }
        // A second one over the first: what is gone goes, what is new comes, and nothing else is written.
        let mut client = source.client();
        client.command(&argv!["SET", "new", "1"]);
        client.command(&argv!["DEL", "list:small"]);
        client.command(&argv!["RPUSH", "list:more", "a", "b"]);
        target.client().command(&argv!["SET", "extra", "1"]);
        daemon.spawn();
        assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
        let mut at_target = target.client();
        assert_eq!(
            testkit::client::text(&at_target.command(&argv!["GET", "new"])),
            "1"
        );
        let extra = at_target.command(&argv!["EXISTS", "extra", "list:small"]);
        assert_eq!(testkit::client::number(&extra), Some(0));
    }
}

#[test]
fn a_user_without_dump_info_and_config_reads_what_it_may() {
    let source = source("redis-7.4", "");
    source.client().command(&argv![
        "ACL",
        "SETUSER",
        "reader",
        "on",
        ">secret",
        "~*",
        "&*",
        "+@read",
        "+ping",
        "+select",
        "+psubscribe",
        "+time",
        "-dump",
        "-psync",
        "-memory"
    ]);
    let target = Server::of("redis-7.4");
    samples::fill(
        &mut source.client(),
        Samples {
            large: true,
            ..Samples::default()
        },
    );
    let mut rng = rng();
    let counters = Counters::start(&source.address(), rng.number(), 300);
    let link = fast(Link::new(&source, &target))
        .scanning()
        .with("scan_reader", "ksn = true")
        .with("scan_reader", "username = \"reader\"")
        .with("scan_reader", "password = \"secret\"");
    let mut daemon = link.start();
    daemon.wait_for("the scan phase", LIMIT, |daemon| phase(daemon) == "scan");
    std::thread::sleep(Duration::from_secs(1));
    let ledger = counters.stop();
    settle(&mut daemon, LIMIT);
    ledger.assert_at(&target.address());
    let options = OracleOptions {
        functions: false,
        ..OracleOptions::live(&source.engine().version)
    };
    oracle::assert_equal_with(&source.address(), &target.address(), &options);
    assert_eq!(dropped(&daemon, "scan_functions_unread"), Some(1));
    for told in [
        "refuses DUMP",
        "refuses INFO",
        "FLUSHALL",
        "refuses FUNCTION LIST",
    ] {
        assert!(
            daemon.output().contains(told),
            "{told}\n{}",
            daemon.output()
        );
    }
}

#[test]
fn a_source_without_events_is_followed_by_sweeps_and_the_mend_is_told() {
    let (source, target) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    source.client().command(&argv!["SET", "a", "1"]);
    let link = fast(Link::new(&source, &target))
        .scanning()
        .with("scan_reader", "ksn = true");
    let mut daemon = link.start();
    settle(&mut daemon, LIMIT);
    source.client().command(&argv!["SET", "a", "2"]);
    source.client().command(&argv!["SELECT", "3"]);
    settle(&mut daemon, LIMIT);
    equal(&source, &target);
    let output = daemon.output();
    assert!(
        output.contains("CONFIG SET notify-keyspace-events"),
        "{output}"
    );
    source
        .client()
        .command(&argv!["CONFIG", "SET", "notify-keyspace-events", "KEA"]);
    daemon.wait_for_output("keyspace events arrive", LIMIT);
}

#[test]
fn a_replica_is_read_where_one_is_wanted() {
    let source = source("redis-7.0", "");
    let replica = source_replica(&source);
    let target = Server::of("redis-7.0");
    let mut rng = rng();
    let counters = Counters::start(&source.address(), rng.number(), 300);
    let link = fast(Link::new(&source, &target))
        .scanning()
        .with("scan_reader", "ksn = true")
        .with("scan_reader", "prefer_replica = true");
    let mut daemon = link.start();
    daemon.wait_for_output("reading from a replica", LIMIT);
    daemon.wait_for("the scan phase", LIMIT, |daemon| phase(daemon) == "scan");
    std::thread::sleep(Duration::from_millis(500));
    let ledger = counters.stop();
    settle(&mut daemon, LIMIT);
    ledger.assert_at(&target.address());
    equal(&source, &target);
    drop(replica);
}

/// A replica that is read in its master's place and is promoted, or dies, holds no longer what the source holds.
#[test]
fn a_replica_that_follows_no_more_is_read_no_more() {
    let source = source("redis-7.0", "");
    let replica = source_replica(&source);
    let target = Server::of("redis-7.0");
    workload::fill(&mut source.client(), 1, 500);
    let link = fast(Link::new(&source, &target))
        .scanning()
        .with("scan_reader", "ksn = true")
        .with("scan_reader", "prefer_replica = true");
    let mut daemon = link.start();
    daemon.wait_for_output("reading from a replica", LIMIT);
    settle(&mut daemon, LIMIT);
    replica.client().command(&argv!["REPLICAOF", "NO", "ONE"]);
    source.client().command(&argv!["SET", "behind", "1"]);
    daemon.wait_for("unreadiness", LIMIT, |daemon| !is_ready(daemon));
    daemon.wait_for_output("reading from the source itself", LIMIT);
    settle(&mut daemon, LIMIT);
    equal(&source, &target);
}

/// Turns a list until it is stopped.
struct Turning {
    stopped: Arc<AtomicBool>,
    writer: JoinHandle<u64>,
}

impl Turning {
    fn stop(self) -> u64 {
        self.stopped.store(true, Ordering::SeqCst);
        self.writer.join().expect("the writer ends well")
    }
}

/// A list that is as long all the time, and other at every moment.
fn turning(address: &str) -> Turning {
    let stopped = Arc::new(AtomicBool::new(false));
    let (address, over) = (address.to_owned(), stopped.clone());
    let writer = std::thread::spawn(move || {
        let mut client = Client::connect(&address);
        let mut done = 0;
        while !over.load(Ordering::SeqCst) {
            client.command(&argv!["RPOPLPUSH", "turning", "turning"]);
            done += 1;
        }
        done
    });
    Turning { stopped, writer }
}

#[test]
fn a_single_pass_ends_with_whole_values_or_says_which_are_not() {
    let (source, target) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    let items = (0..60_000).map(|n| format!("item:{n:030}"));
    let items: Vec<String> = items.collect();
    for part in items.chunks(10_000) {
        let mut push = argv!["RPUSH", "turning"];
        push.extend(part.iter().map(|item| item.clone().into_bytes()));
        source.client().command(&push);
    }
    source.client().command(&argv!["SET", "small", "1"]);
    let load = turning(&source.address());
    let mut daemon = Link::new(&source, &target).scanning().start();
    assert_eq!(daemon.wait(LIMIT), 3, "{}", daemon.output());
    for told in ["\"turning\" (db 0)", "all else is copied", "ksn = true"] {
        assert!(
            daemon.output().contains(told),
            "{told}\n{}",
            daemon.output()
        );
    }
    let small = target.client().command(&argv!["GET", "small"]);
    assert_eq!(testkit::client::text(&small), "1");
    // Another pass, in the midst of which nobody writes it any more.
    daemon.spawn();
    let torn = |daemon: &Daemon| daemon.output().matches("is read again").count();
    let before = torn(&daemon);
    daemon.wait_for("a torn value", LIMIT, |daemon| torn(daemon) > before);
    load.stop();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    equal(&source, &target);
}

/// The target comes back in the midst of a single pass, without some of what it had confirmed.
#[test]
fn a_single_pass_repairs_what_the_target_has_lost() {
    let source = Server::of("redis-7.0");
    let mut target = Server::of("redis-7.0");
    workload::fill(&mut source.client(), 1, 20_000);
    let link = Link::new(&source, &target)
        .scanning()
        .with("limits", "target_commands_per_second = 5000");
    let mut daemon = link.start();
    let put = |daemon: &Daemon, more: u64| scan(daemon, "keys").is_some_and(|keys| keys >= more);
    daemon.wait_for("some keys", LIMIT, |daemon| put(daemon, 500));
    target.client().command(&argv!["SAVE"]);
    let saved: u64 = target.client().keyspace().values().sum();
    daemon.wait_for("more keys", LIMIT, |daemon| put(daemon, 4000));
    target.kill();
    target.restart();
    let left: u64 = target.client().keyspace().values().sum();
    assert!(left < saved + 1500, "{left} {saved}");
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    assert!(
        daemon.output().contains("every key is looked at again"),
        "{}",
        daemon.output()
    );
    equal(&source, &target);
}

/// A large stream is put in pieces, and has its messages before it has what it counts: a target that came back so far
/// differs in that alone.
#[test]
fn what_a_large_stream_counts_is_compared() {
    let (source, target) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    let value = "x".repeat(3000);
    for n in 1..=400 {
        client.command(&argv!["XADD", "large", format!("{n}-1"), "f", value]);
    }
    client.command(&argv!["XDEL", "large", "100-1", "300-1"]);
    client.command(&argv!["XTRIM", "large", "MAXLEN", "390"]);
    let mut daemon = Link::new(&source, &target).scanning().start();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    equal(&source, &target);
    for counts in [["398", "300-1"], ["400", "100-1"]] {
        let [added, deleted] = counts;
        target.client().command(&argv![
            "XSETID",
            "large",
            "400-1",
            "ENTRIESADDED",
            added,
            "MAXDELETEDID",
            deleted
        ]);
        daemon.spawn();
        assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
        equal(&source, &target);
    }
}

#[test]
fn functions_into_a_target_that_has_none_are_said_by_name() {
    let (source, target) = (source("redis-7.0", ""), Server::of("redis-6.2"));
    let mut client = source.client();
    let library = |name: &str| {
        format!("#!lua name={name}\nredis.register_function('{name}_f', function() return 1 end)")
    };
    client.command(&argv!["FUNCTION", "LOAD", library("first")]);
    client.command(&argv!["SET", "a", "1"]);
    let link = fast(Link::new(&source, &target))
        .scanning()
        .with("scan_reader", "ksn = true");
    let mut daemon = link.start();
    assert_eq!(daemon.wait(LIMIT), 4, "{}", daemon.output());
    for told in ["first", "needs functions (Redis 7.0)", "losses"] {
        assert!(
            daemon.output().contains(told),
            "{told}\n{}",
            daemon.output()
        );
    }
    let mut daemon = link.with("redis_writer", "losses = \"warn\"").start();
    settle(&mut daemon, LIMIT);
    assert_eq!(dropped(&daemon, "snapshot_function"), Some(1));
    client.command(&argv!["FUNCTION", "LOAD", library("second")]);
    daemon.wait_for_output("second", LIMIT);
    settle(&mut daemon, LIMIT);
    assert_eq!(dropped(&daemon, "snapshot_function"), Some(2));
    let output = daemon.output();
    assert_eq!(output.matches("has no functions").count(), 2, "{output}");
    equal_keys(&source, &target);
}

/// The same keys at both ends, whatever either has besides.
fn equal_keys(source: &Server, target: &Server) {
    let options = OracleOptions {
        functions: false,
        ..OracleOptions::live(&source.engine().version)
    };
    oracle::assert_equal_with(&source.address(), &target.address(), &options);
}

/// Nobody tells which of many streams an XACK was for, and of none whether this run has read it.
#[test]
fn one_acknowledgement_among_many_streams_arrives() {
    let (source, target) = (source("redis-7.0", ""), Server::of("redis-7.0"));
    let name = |n: u32| format!("stream:{n}");
    let mut client = source.client();
    for n in 0..1300 {
        client.commands(&[
            argv!["XADD", name(n), "1-1", "f", "v"],
            argv!["XGROUP", "CREATE", name(n), "g", "0"],
            argv!["XREADGROUP", "GROUP", "g", "c", "STREAMS", name(n), ">"],
        ]);
    }
    let link = Link::new(&source, &target)
        .scanning()
        .with("scan_reader", "ksn = true")
        .with("scan_reader", "repair_interval = \"1h\"");
    let mut daemon = link.start();
    daemon.wait_for("a clean sweep", LIMIT, is_ready);
    for round in [0, 1] {
        let mut acknowledged: Vec<u32> = vec![round, 1000 + round, 1299 - round];
        for n in &acknowledged {
            client.command(&argv!["XACK", name(*n), "g", "1-1"]);
        }
        let mut at_target = target.client();
        daemon.wait_for("nothing pending", LIMIT, |_| {
            acknowledged.retain(|n| {
                let pending = at_target.command(&argv!["XPENDING", name(*n), "g"]);
                let count = testkit::client::items(pending).first().cloned();
                count.as_ref().and_then(testkit::client::number) != Some(0)
            });
            acknowledged.is_empty()
        });
        assert!(scan(&daemon, "sweeps").is_some_and(|sweeps| sweeps < 4));
        daemon.wait_for("all read", LIMIT, |daemon| scan(daemon, "dirty") == Some(0));
        if round == 0 {
            // What another run has put is known by what sweeps see.
            daemon.terminate();
            assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
            daemon.spawn();
            daemon.wait_for("a clean sweep", LIMIT, is_ready);
        }
    }
    equal(&source, &target);
}

#[test]
fn a_subscription_that_is_only_ever_closed_is_said_and_tried_again() {
    let (source, target) = (source("redis-7.0", ""), Server::of("redis-7.0"));
    workload::fill(&mut source.client(), 1, 500);
    let gate = Gate::start(
        &source.address(),
        &["psync", "replconf", "psubscribe"],
        Refusal::Closes,
        1,
    );
    let mut daemon = fast(Link::new(&source, &target).source(&gate.address())).start();
    daemon.wait_for_output("no subscription to keyspace events comes to stand", LIMIT);
    settle(&mut daemon, LIMIT);
    source.client().command(&argv!["SET", "new", "1"]);
    settle(&mut daemon, LIMIT);
    equal(&source, &target);
    let hears = |daemon: &Daemon| daemon.metric("understudy_scan_hears_events") == Some(1.0);
    assert!(!hears(&daemon));
    gate.allow("psubscribe");
    daemon.wait_for("events", LIMIT, hears);
    settle(&mut daemon, LIMIT);
    equal(&source, &target);
}

/// However often a source is lost, it is read on where it was, as long as something was read in between.
#[test]
fn a_source_that_is_lost_again_and_again_is_read_on() {
    let mut rng = rng();
    let (source, target) = (source("redis-7.0", ""), Server::of("redis-7.0"));
    let gate = Gate::start(&source.address(), &["psync"], Refusal::Unknown, 1);
    workload::fill(&mut source.client(), rng.number(), 15_000);
    let link = fast(Link::new(&source, &target).source(&gate.address()))
        .with("limits", "target_commands_per_second = 2000");
    let mut daemon = link.start();
    daemon.wait_for("the scan phase", LIMIT, |daemon| phase(daemon) == "scan");
    let lost = |daemon: &Daemon| daemon.output().matches("cannot read the source").count();
    for round in 0..5 {
        let keys = scan(&daemon, "keys").unwrap_or(0);
        daemon.wait_for("keys that are put", LIMIT, |daemon| {
            scan(daemon, "keys").is_some_and(|now| now > keys + 500)
        });
        gate.close();
        daemon.wait_for("a source that is lost", LIMIT, |daemon| {
            lost(daemon) > round
        });
        gate.open();
    }
    settle(&mut daemon, LIMIT);
    equal(&source, &target);
    assert!(
        !daemon.output().contains("beginning again"),
        "{}",
        daemon.output()
    );
}

#[test]
fn values_that_are_read_at_once_fit_into_memory() {
    let (source, target) = (source("redis-7.0", ""), Server::of("redis-7.0"));
    let mut rng = rng();
    // As large as values may be that are read whole: MEMORY USAGE says 320 KiB.
    let mut value = || -> Vec<u8> { (0..300 << 10).map(|_| rng.below(256) as u8).collect() };
    for n in 0..400 {
        let value = value();
        source
            .client()
            .command(&argv!["SET", format!("k:{n}"), value]);
    }
    let link = fast(Link::new(&source, &target))
        .scanning()
        .with("scan_reader", "ksn = true")
        .with("limits", "memory = \"32mb\"");
    let mut daemon = link.start();
    settle(&mut daemon, LIMIT);
    equal(&source, &target);
    let peak = testkit::process::peak_memory(daemon.pid());
    println!("{} MiB at most", peak >> 20);
    assert!(peak < 80 << 20, "{peak}");
}

fn source_replica(master: &Server) -> Server {
    let replica = source(
        "redis-7.0",
        &format!("--replicaof 127.0.0.1 {}", master.port()),
    );
    // As the master sees it, which is later than the replica says so.
    wait_until("a replica that follows", LIMIT, || {
        let info = master.client().info("replication");
        info.get("slave0")
            .is_some_and(|line| line.contains("state=online"))
    });
    replica
}

#[test]
fn a_source_that_comes_back_empty_does_not_empty_the_target() {
    let mut source = source("redis-7.0", "");
    let target = Server::of("redis-7.0");
    workload::fill(&mut source.client(), 1, 1000);
    let link = fast(Link::new(&source, &target))
        .scanning()
        .with("scan_reader", "ksn = true");
    let mut daemon = link.start();
    settle(&mut daemon, LIMIT);
    let held: u64 = target.client().keyspace().values().sum();
    source.restart();
    assert_eq!(daemon.wait(LIMIT), 3, "{}", daemon.output());
    assert!(
        daemon.output().contains("has the source lost its data"),
        "{}",
        daemon.output()
    );
    let left: u64 = target.client().keyspace().values().sum();
    assert!(left * 10 > held * 9, "{left} of {held}");
}
