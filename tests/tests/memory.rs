//! How much memory the daemon has at the most (VmHWM), whatever the target does: under `limits.memory`.

use std::time::{Duration, Instant};

use e2e::{LIMIT, Link, catch_up, from_env, full_syncs, rng, source_of, wait_stream};
use testkit::client::Argv;
use testkit::process::{peak_memory, wait_until};
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::{Counters, Daemon, Server, argv, client, oracle};

const MIB: u64 = 1 << 20;

fn peak(daemon: &Daemon) -> u64 {
    let peak = peak_memory(daemon.pid());
    println!("the daemon had {} MiB at most", peak / MIB);
    peak
}

/// Writes `rate` commands a second (0: as fast as the source takes it), in batches of one round trip, for `time`.
fn flood(source: &Server, value_bytes: usize, rate: u64, time: Duration) {
    let threads: Vec<_> = (0..2)
        .map(|thread| {
            let mut client = source.client();
            std::thread::spawn(move || {
                let value = "x".repeat(value_bytes);
                let from = Instant::now();
                let mut done = 0_u64;
                while from.elapsed() < time {
                    let batch: Vec<Argv> = (0..500)
                        .map(|n| argv!["SET", format!("flood:{thread}:{n}"), value])
                        .collect();
                    client.commands(&batch);
                    done += 500;
                    if rate > 0 {
                        let due = Duration::from_secs_f64(done as f64 * 2.0 / rate as f64);
                        std::thread::sleep(due.saturating_sub(from.elapsed()));
                    }
                }
                done
            })
        })
        .collect();
    let done: u64 = threads
        .into_iter()
        .map(|thread| thread.join().expect("a writer"))
        .sum();
    let rate = done * 1000 / (time.as_millis() as u64).max(1);
    println!("{done} commands, {rate} a second");
}

/// The target hangs while the source writes at full speed: the spool's cap is reached, reading stops, and goes on.
#[test]
fn a_target_that_hangs_under_a_flood_costs_disk_and_no_memory() {
    let mut rng = rng();
    let stall = Duration::from_secs(from_env("UNDERSTUDY_STALL_SECONDS", 6));
    // By default so low that the short form reaches it.
    let cap = from_env("UNDERSTUDY_SPOOL_MIB", 24);
    let limit = from_env("UNDERSTUDY_MEMORY_MIB", 64);
    let rate = from_env("UNDERSTUDY_WRITES_PER_SECOND", 0);
    let source = Server::start(
        &testkit::Engine::of("redis-7.0"),
        testkit::ServerOptions::args("--repl-backlog-size 2gb --repl-timeout 60"),
    );
    let target = Server::of("redis-7.0");
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let mut daemon = Link::new(&source, &target)
        .with("spool", &format!("max_bytes = \"{cap}mb\""))
        .with("limits", &format!("memory = \"{limit}mb\""))
        .start();
    wait_stream(&mut daemon);
    target.stop();
    flood(&source, 100, rate, stall);
    daemon.wait_for("the spool's cap", LIMIT, |daemon| {
        daemon.output().contains("the spool is full")
    });
    let before = peak(&daemon);
    target.cont();
    let ledger = counters.stop();
    daemon.wait_for("reading again", LIMIT, |daemon| {
        daemon.output().contains("reading from the source again")
    });
    catch_up(&mut daemon, &source);
    let after = peak(&daemon);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
    assert!(before.max(after) < limit * MIB, "{before} {after}");
}

/// One transaction of many commands is one unit, which is held whole.
#[test]
fn a_transaction_of_a_hundred_thousand_commands_fits() {
    let limit = 128;
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target)
        .with("limits", &format!("memory = \"{limit}mb\""))
        .start();
    wait_stream(&mut daemon);
    let mut connection = source.client();
    let mut batch = vec![argv!["MULTI"]];
    batch.extend((0..100_000).map(|n| argv!["INCR", format!("t:{}", n % 1000)]));
    batch.push(argv!["EXEC"]);
    connection.commands(&batch);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    let peak = peak(&daemon);
    assert!(peak < limit * MIB, "{peak}");
}

/// Megabytes of data that the daemon of the tests below is given: far less than what passes through it.
const SMALL_MIB: u64 = 64;

fn small(source: &Server, target: &Server) -> Link {
    Link::new(source, target).with("limits", &format!("memory = \"{SMALL_MIB}mb\""))
}

/// Megabytes of one large value; `UNDERSTUDY_VALUE_MIB=511` is the largest that a default server takes, and 430 where
/// three sixteenths are appended to it.
fn value_mib() -> u64 {
    from_env("UNDERSTUDY_VALUE_MIB", 96)
}

/// A source that does not drop us for the large values that wait for us, and still has them if we are killed before they
/// have come: they would come in a snapshot.
fn patient_source() -> Server {
    let source = source_of("redis-7.0");
    for (name, value) in [
        ("client-output-buffer-limit", "replica 0 0 0"),
        ("repl-backlog-size", "2gb"),
    ] {
        source
            .client()
            .command(&argv!["CONFIG", "SET", name, value]);
    }
    source
}

/// A large value passes from the spool to the target without ever being whole in memory, wherever it stands in a command.
#[test]
fn large_values_in_the_stream_stay_on_disk() {
    let mut rng = rng();
    let (source, target) = (patient_source(), Server::of("redis-7.0"));
    let mut daemon = small(&source, &target).start();
    wait_stream(&mut daemon);
    let len = (value_mib() * MIB) as usize;
    // Nothing in it is like anything else in it: a byte in a wrong place would be seen.
    let (whole, part) = (rng.bytes(len), rng.bytes(len / 16));
    let mut client = source.client();
    client.command(&argv!["SET", "large", whole]);
    let mut peaks = Vec::new();
    for round in 0..3 {
        let key = |name: &str| format!("{name}:{round}");
        client.commands(&[
            argv!["MULTI"],
            argv!["SET", key("expires"), part, "EX", 10_000],
            argv!["INCR", "counter"],
            argv!["RPUSH", key("list"), "small", part, "", part],
            argv!["EXEC"],
            argv!["APPEND", "large", part],
            argv!["HSET", key("hash"), "f", part, "g", "small"],
            argv!["XADD", key("stream"), "1-1", "f", part],
            argv!["MSET", key("a"), part, key("b"), "small", key("c"), part],
            argv!["SADD", key("set"), part],
            argv!["INCR", "counter"],
        ]);
        peaks.push(peak(&daemon));
        if round < 2 {
            // Anywhere among them.
            std::thread::sleep(Duration::from_millis(rng.below(300)));
            daemon.restart();
        }
    }
    catch_up(&mut daemon, &source);
    peaks.push(peak(&daemon));
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
    assert!(
        peaks.iter().all(|peak| *peak < SMALL_MIB * MIB),
        "{peaks:?}"
    );
}

#[test]
fn a_large_value_in_the_snapshot_passes_in_parts() {
    let (source, target) = (patient_source(), Server::of("redis-7.0"));
    let value = rng().bytes((value_mib() * MIB) as usize);
    source.client().command(&argv!["SET", "large", value]);
    let mut daemon = small(&source, &target).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let peak = peak(&daemon);
    oracle::assert_equal(&source.address(), &target.address());
    assert!(peak < SMALL_MIB * MIB, "{peak}");
}

/// A command that has to be looked at as a whole, and is too large for that, ends the link before it takes memory.
#[test]
fn a_command_that_does_not_fit_is_named_with_the_mend() {
    let mut rng = rng();
    let (source, target) = (patient_source(), Server::of("redis-7.0"));
    let mut daemon = small(&source, &target).start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    // A payload in a command, as MIGRATE sends it.
    client.command(&argv!["SET", "from", rng.bytes(20 << 20)]);
    let payload = client::bytes(client.command(&argv!["DUMP", "from"]));
    client.command(&argv!["RESTORE", "restored", 0, payload]);
    client.command(&argv!["SET", "last", 1]);
    assert_eq!(daemon.wait(LIMIT), 5, "{}", daemon.output());
    let output = daemon.output();
    for word in [
        "RESTORE restored",
        "does not fit into memory",
        "set limits.memory to",
    ] {
        assert!(output.contains(word), "no {word:?} in\n{output}");
    }
    let roomy = Link::new(&source, &target).with("limits", "memory = \"256mb\"");
    daemon.configure(&roomy.text());
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let peak = peak(&daemon);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
    assert!(peak < 256 * MIB, "{peak}");
}

#[test]
fn a_transaction_that_does_not_fit_is_named_with_the_mend() {
    let (source, target) = (patient_source(), Server::of("redis-7.0"));
    let mut daemon = small(&source, &target).start();
    wait_stream(&mut daemon);
    let value = "x".repeat(10_000);
    let mut batch = vec![argv!["MULTI"]];
    batch.extend((0..3_000).map(|n| argv!["SET", format!("t:{n}"), value]));
    batch.push(argv!["EXEC"]);
    source.client().commands(&batch);
    assert_eq!(daemon.wait(LIMIT), 5, "{}", daemon.output());
    let output = daemon.output();
    assert!(output.contains("raise limits.memory"), "{output}");
    let roomy = Link::new(&source, &target).with("limits", "memory = \"256mb\"");
    daemon.configure(&roomy.text());
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}

/// A key of some 30 MiB, of which no more is copied anew than fits.
fn large_list(source: &Server) {
    let element = "x".repeat(1_000);
    for _ in 0..30 {
        let mut push = argv!["RPUSH", "big"];
        push.extend((0..1_000).map(|n| format!("{n}:{element}").into_bytes()));
        source.client().command(&push);
    }
}

#[test]
fn a_key_too_large_to_be_repaired_means_a_snapshot() {
    let (source, target) = (patient_source(), Server::of("redis-7.0"));
    large_list(&source);
    let mut daemon = small(&source, &target).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    target.client().command(&argv!["SET", "big", "wrong"]);
    source.client().command(&argv!["RPUSH", "big", "more"]);
    daemon.wait_for("the end", LIMIT, |daemon| {
        assert!(peak_memory(daemon.pid()) < SMALL_MIB * MIB);
        daemon.output().contains("are copied anew at once")
    });
    assert_eq!(daemon.wait(LIMIT), 4, "{}", daemon.output());
    let output = daemon.output();
    assert!(output.contains("key \"big\" (db 0) takes"), "{output}");
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 2);
}

/// Whether its last command failed is not known: it is not copied for that, and nothing stops.
#[test]
fn a_key_too_large_to_be_copied_for_a_suspicion_is_compared_by_its_type() {
    let (source, target) = (patient_source(), Server::of("redis-7.0"));
    large_list(&source);
    let proxy = Proxy::start(&target.address());
    let mut daemon = small(&source, &target).target(&proxy.address()).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    proxy.hold(Direction::ToClient);
    source.client().command(&argv!["RPUSH", "big", "more"]);
    wait_until("the element at the target", LIMIT, || {
        client::number(&target.client().command(&argv!["LLEN", "big"])) == Some(30_001)
    });
    daemon.kill();
    proxy.cut_now(Cut::Rst);
    proxy.release(Direction::ToClient);
    daemon.spawn();
    wait_stream(&mut daemon);
    daemon.wait_for_output("only its type is compared", LIMIT);
    catch_up(&mut daemon, &source);
    assert_eq!(daemon.metric("understudy_suspects_total"), Some(1.0));
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}

/// What the target does not take in one piece is refused by name, and nothing of it is applied.
#[test]
fn a_value_above_the_targets_limit_is_refused_by_name() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let config = argv!["CONFIG", "SET", "proto-max-bulk-len", 1 << 20];
    target.client().command(&config);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    source.client().command(&argv!["SET", "small", 1]);
    source
        .client()
        .command(&argv!["SET", "large", "x".repeat(2 << 20)]);
    daemon.wait_for("a word for it", LIMIT, |daemon| {
        daemon.output().contains("proto-max-bulk-len")
    });
    wait_until("what came before", LIMIT, || {
        client::number(&target.client().command(&argv!["GET", "small"])) == Some(1)
    });
    // The mend: it goes on by itself.
    let config = argv!["CONFIG", "SET", "proto-max-bulk-len", 512 << 20];
    target.client().command(&config);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}
