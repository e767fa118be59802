//! How much memory the daemon has at the most (VmHWM), whatever the target does: under `limits.memory`.

use std::time::{Duration, Instant};

use e2e::{LIMIT, Link, catch_up, from_env, full_syncs, rng, source_of, wait_stream};
use testkit::client::Argv;
use testkit::process::{peak_memory, wait_until};
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

/// One transaction of many commands is one unit, and one value of many bytes is one command: both are held whole.
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

/// Megabytes of the one large value in the stream; `UNDERSTUDY_VALUE_MIB=511` is the largest that a default server takes.
#[test]
fn a_large_value_in_the_stream_is_held_twice_at_the_most() {
    let mib = from_env("UNDERSTUDY_VALUE_MIB", 64);
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target)
        .with("limits", &format!("memory = \"{}mb\"", mib * 2 + 64))
        .start();
    wait_stream(&mut daemon);
    // Above its limit the source would drop us, and the value would come in a snapshot, in parts.
    let limit = argv![
        "CONFIG",
        "SET",
        "client-output-buffer-limit",
        "replica 0 0 0"
    ];
    source.client().command(&limit);
    let value = vec![b'v'; (mib * MIB) as usize];
    source.client().command(&argv!["SET", "large", value]);
    catch_up(&mut daemon, &source);
    let len = target.client().command(&argv!["STRLEN", "large"]);
    assert_eq!(client::number(&len), Some((mib * MIB) as i64));
    let peak = peak(&daemon);
    println!("for a value of {mib} MiB");
    assert_eq!(full_syncs(&source), 1);
    // Both tails come on top.
    assert!(peak < (mib * 2 + 192) * MIB, "{peak}");
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
