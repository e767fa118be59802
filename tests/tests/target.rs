//! The target hangs, dies, fills up, falls back, loses its line or is taken by somebody else: what can be mended is
//! mended from the checkpoint and the spool, and what cannot is said aloud.

use std::time::{Duration, Instant};

use e2e::{
    LIMIT, Link, catch_up, from_env, full_syncs, own, rng, source_of, wait_more, wait_stream,
};
use testkit::client::Argv;
use testkit::process::wait_until;
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::{Counters, Daemon, Engine, Server, ServerOptions, argv, oracle};

/// The end of most of these: all counted, nothing twice, one full sync.
fn exact(mut daemon: Daemon, counters: Counters, source: &Server, target: &Server) {
    let ledger = counters.stop();
    catch_up(&mut daemon, source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(source), 1);
}

fn persistent(words: &str) -> Server {
    Server::start(&Engine::of("redis-7.0"), ServerOptions::args(words))
}

#[test]
fn a_target_that_hangs_under_load_is_waited_for() {
    let mut rng = rng();
    let stop = Duration::from_secs(from_env("UNDERSTUDY_STOP_SECONDS", 5));
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 3000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    target.stop();
    let from = Instant::now();
    daemon.wait_for("/readyz to say no", LIMIT, |daemon| {
        daemon.get("/readyz").is_some_and(|(code, _)| code == 503)
    });
    wait_more("operations meanwhile", 3000, || counters.acknowledged());
    daemon.wait_for("the time to pass", LIMIT, |_| from.elapsed() >= stop);
    assert_eq!(
        source
            .client()
            .info_number("replication", "connected_slaves"),
        1
    );
    target.cont();
    daemon.wait_for("/readyz to say yes", LIMIT, |daemon| {
        daemon.get("/readyz").is_some_and(|(code, _)| code == 200)
    });
    exact(daemon, counters, &source, &target);
}

fn dies_and_comes_back(fsync: &str) {
    let mut rng = rng();
    let (source, mut target) = (
        source_of("redis-7.0"),
        persistent(&format!("--appendonly yes --appendfsync {fsync}")),
    );
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    for _ in 0..5 {
        wait_more("operations", 300 + rng.below(1500), || {
            counters.acknowledged()
        });
        target.restart();
    }
    exact(daemon, counters, &source, &target);
}

#[test]
fn a_target_killed_and_restarted_with_everysec_goes_on() {
    dies_and_comes_back("everysec");
}

#[test]
fn a_target_killed_and_restarted_with_always_goes_on() {
    dies_and_comes_back("always");
}

/// An older snapshot of the target, checkpoint and data alike: what it lost is in the spool.
#[test]
fn a_target_that_fell_back_is_brought_forward_again() {
    let mut rng = rng();
    let (source, mut target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    wait_more("operations", 1000, || counters.acknowledged());
    target.client().command(&argv!["SAVE"]);
    for _ in 0..3 {
        // Every time from the same old file, further and further back.
        wait_more("operations that will be lost", 1000, || {
            counters.acknowledged()
        });
        catch_up(&mut daemon, &source);
        target.restart();
        catch_up(&mut daemon, &source);
    }
    exact(daemon, counters, &source, &target);
}

#[test]
fn a_target_out_of_memory_is_waited_for_and_nothing_is_skipped() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    let mut client = target.client();
    client.command(&argv!["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    for _ in 0..2 {
        let before = daemon
            .metric("understudy_target_errors_total")
            .unwrap_or(0.0);
        client.command(&argv!["CONFIG", "SET", "maxmemory", 1_000_000]);
        daemon.wait_for("OOM to be counted", LIMIT, |daemon| {
            daemon
                .metrics()
                .iter()
                .filter(|(name, _)| {
                    name.contains("target_errors_total") && name.contains("\"OOM\"")
                })
                .any(|(_, count)| *count > before)
        });
        wait_more("operations meanwhile", 1000, || counters.acknowledged());
        client.command(&argv!["CONFIG", "SET", "maxmemory", 0]);
        catch_up(&mut daemon, &source);
    }
    assert!(
        daemon.output().contains("maxmemory"),
        "the mend is not named"
    );
    exact(daemon, counters, &source, &target);
}

/// A server of 5.0 that is busy with a script refuses MULTI, and takes what follows when the script has ended meanwhile.
#[test]
fn a_target_that_is_busy_with_a_script_tears_no_transaction_apart() {
    let (source, target) = (source_of("redis-5.0"), Server::of("redis-5.0"));
    target
        .client()
        .command(&argv!["CONFIG", "SET", "lua-time-limit", 20]);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    let big = "x".repeat(30_000_000);
    for round in 1..=3_u32 {
        let script = std::thread::spawn({
            let mut busy = target.client();
            let spin = "local n = 0; while n < 40000000 do n = n + 1 end";
            move || busy.command(&argv!["EVAL", spin, 0])
        });
        // Somewhere in it, a different place each time.
        std::thread::sleep(Duration::from_millis(u64::from(round) * 30));
        client.commands(&[
            argv!["MULTI"],
            argv!["INCR", "first"],
            argv!["SET", "big", &big],
            argv!["INCR", "last"],
            argv!["EXEC"],
        ]);
        script.join().expect("the script");
        catch_up(&mut daemon, &source);
        let mut copy = target.client();
        for key in ["first", "last"] {
            let value = copy.command(&argv!["GET", key]);
            assert_eq!(testkit::client::text(&value), round.to_string(), "{key}");
        }
    }
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn cuts_of_the_targets_line_around_exec_lose_and_double_nothing() {
    let mut rng = rng();
    let cuts = from_env("UNDERSTUDY_CUTS", 60);
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&target.address());
    let counters = Counters::start(&source.address(), rng.number(), 4000);
    let mut daemon = Link::new(&source, &target).target(&proxy.address()).start();
    wait_stream(&mut daemon);
    for cut in 0..cuts {
        // Towards the target: before EXEC or inside it. From the target: EXEC is done and its reply never comes.
        let (direction, most) = *rng.pick(&[
            (Direction::ToServer, 300),
            (Direction::ToServer, 20_000),
            (Direction::ToClient, 300),
            (Direction::ToClient, 6_000),
        ]);
        let end = *rng.pick(&[Cut::Rst, Cut::Fin]);
        proxy.cut_after(direction, rng.within(1..most), end);
        daemon.wait_for("a cut", LIMIT, |_| proxy.cuts() > cut);
    }
    println!("{cuts} cuts of the target's line");
    exact(daemon, counters, &source, &target);
}

/// The handshake with the target, and the moment at which it is taken, cut at each of many places.
#[test]
fn cuts_while_the_target_is_taken_do_not_end_the_daemon() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&target.address());
    let counters = Counters::start(&source.address(), rng.number(), 1000);
    let mut daemon = Link::new(&source, &target).target(&proxy.address()).start();
    wait_stream(&mut daemon);
    let mut cuts = 0;
    // From the greeting through INFO, WATCH, GET, MULTI, SET, EXEC, WATCH, each way.
    for (direction, most) in [(Direction::ToServer, 400), (Direction::ToClient, 7000)] {
        for _ in 0..20 {
            proxy.cut_now(Cut::Rst);
            proxy.cut_after(direction, rng.within(most / 2..most), Cut::Rst);
            cuts += 2;
            daemon.wait_for("a cut", LIMIT, |_| proxy.cuts() >= cuts);
        }
    }
    exact(daemon, counters, &source, &target);
}

/// The same at a start: nothing is there yet to go back to.
#[test]
fn cuts_of_the_targets_line_at_the_start_are_only_hiccups() {
    let mut rng = rng();
    for direction in [Direction::ToServer, Direction::ToClient] {
        for _ in 0..6 {
            let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
            source.client().command(&argv!["SET", "a", 1]);
            let proxy = Proxy::start(&target.address());
            let most = if direction == Direction::ToServer {
                700
            } else {
                7000
            };
            proxy.cut_after(direction, rng.within(1..most), Cut::Rst);
            let mut daemon = Link::new(&source, &target).target(&proxy.address()).start();
            wait_stream(&mut daemon);
            catch_up(&mut daemon, &source);
            oracle::assert_equal(&source.address(), &target.address());
        }
    }
}

/// An EXEC that left a daemon before it died, and arrives after another one has taken over.
#[test]
fn an_exec_that_comes_too_late_does_nothing() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&target.address());
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let straight = Link::new(&source, &target);
    let mut daemon = straight.clone().target(&proxy.address()).start();
    for _ in 0..3 {
        daemon.configure(&straight.clone().target(&proxy.address()).text());
        daemon.restart();
        wait_stream(&mut daemon);
        wait_more("operations", 200, || counters.acknowledged());
        proxy.hold(Direction::ToServer);
        wait_until("a unit on its way", LIMIT, || {
            proxy.held_bytes(Direction::ToServer) > 100
        });
        daemon.kill();
        daemon.configure(&straight.text());
        daemon.spawn();
        wait_stream(&mut daemon);
        catch_up(&mut daemon, &source);
        let execs = execs(&target);
        let passed = proxy.passed_bytes(Direction::ToServer);
        proxy.release(Direction::ToServer);
        wait_until("the late EXEC", LIMIT, || {
            proxy.passed_bytes(Direction::ToServer) > passed && execs_after(&target, execs)
        });
    }
    exact(daemon, counters, &source, &target);
}

/// EXEC calls that the target has served, nil ones too.
fn execs(target: &Server) -> i64 {
    let stats = target.client().info("commandstats");
    let calls = stats
        .get("cmdstat_exec")
        .and_then(|text| text.strip_prefix("calls=")?.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

fn execs_after(target: &Server, before: i64) -> bool {
    execs(target) > before
}

#[test]
fn of_two_daemons_on_one_link_the_older_one_stops_and_says_so() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let link = Link::new(&source, &target);
    let mut older = link.start();
    for _ in 0..3 {
        wait_stream(&mut older);
        wait_more("operations", 500, || counters.acknowledged());
        // Another folder, so that no lock stands between them.
        let mut newer = link.start();
        assert_eq!(older.wait(LIMIT), 4, "{}", older.output());
        let output = older.output();
        assert!(
            output.lines().any(|line| line.starts_with("error: target")
                && line.contains(&target.address())
                && line.contains("another understudy")),
            "{output}"
        );
        wait_stream(&mut newer);
        older = newer;
    }
    exact(older, counters, &source, &target);
}

#[test]
fn a_target_flushed_by_hand_stops_the_daemon_loudly() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let _counters = Counters::start(&source.address(), 1, 1000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    target.client().command(&argv!["FLUSHALL"]);
    assert_eq!(daemon.wait(LIMIT), 4, "{}", daemon.output());
    let output = daemon.output();
    assert!(
        output.lines().any(|line| line.starts_with("error: target")
            && line.contains(&target.address())
            && line.contains("checkpoint is gone")),
        "{output}"
    );
}

/// Restarted without its data: the copy is gone, so going on would be a lie.
#[test]
fn a_target_that_comes_back_empty_stops_the_daemon_and_a_new_start_copies_again() {
    let mut rng = rng();
    let (source, mut target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 1000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    target.restart();
    assert_eq!(daemon.wait(LIMIT), 4, "{}", daemon.output());
    daemon.spawn();
    wait_stream(&mut daemon);
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    assert_eq!(full_syncs(&source), 2);
}

/// Commands whose keys would die at the target before their time, if it is this long behind.
fn prolonged(life_ms: u64) -> Vec<Argv> {
    vec![
        argv!["SET", "session", "v", "PX", life_ms],
        argv!["PEXPIRE", "session", 10_000_000],
        argv!["SET", "kept", "v", "PX", life_ms],
        argv!["PERSIST", "kept"],
        argv!["INCRBY", "count", 5],
        argv!["PEXPIRE", "count", life_ms],
        argv!["INCRBY", "count", 5],
        argv!["PERSIST", "count"],
        argv!["RPUSH", "list", "a"],
        argv!["PEXPIRE", "list", life_ms],
        argv!["LSET", "list", 0, "b"],
        argv!["SET", "gone", "v", "PX", life_ms],
    ]
}

/// Waits until `from` is so long ago.
fn wait_since(daemon: &mut Daemon, from: Instant, ago: Duration) {
    daemon.wait_for("the first lives to end", LIMIT, |_| from.elapsed() >= ago);
}

/// A time to live that is set while the daemon is behind and runs out before it has caught up, of a key that lives on
/// at the source.
#[test]
fn a_key_whose_life_was_prolonged_survives_a_lag_longer_than_its_first_life() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    target.stop();
    let mut client = source.client();
    client.command(&argv!["SET", "a", 1]);
    daemon.wait_for("a lag", LIMIT, |daemon| {
        daemon
            .metric("understudy_lag_seconds")
            .is_some_and(|lag| lag > 0.6)
    });
    let from = Instant::now();
    client.commands(&prolonged(1000));
    wait_since(&mut daemon, from, Duration::from_millis(1500));
    target.cont();
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
}

/// The same for keys of the snapshot: a slow line makes it last longer than their first lives.
#[test]
fn a_key_of_the_snapshot_whose_life_was_prolonged_survives_a_long_snapshot() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    let mut client = source.client();
    let mut rng = rng();
    for key in 0..100 {
        let noise = rng.bytes(100_000);
        client.command(&argv!["SET", format!("ballast:{key}"), noise]);
    }
    for key in ["session", "kept", "gone"] {
        client.command(&argv!["SET", key, "v", "PX", 3000]);
    }
    let from = Instant::now();
    proxy.throttle(Direction::ToClient, Some(2 << 20));
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    daemon.wait_for("a part of the snapshot", LIMIT, |daemon| {
        own(daemon, "snapshot_keys").is_some_and(|keys| keys > 5)
    });
    client.command(&argv!["PEXPIRE", "session", 10_000_000]);
    client.command(&argv!["PERSIST", "kept"]);
    assert!(
        from.elapsed() < Duration::from_secs(3),
        "this machine is too slow for this test"
    );
    wait_stream(&mut daemon);
    assert!(
        from.elapsed() > Duration::from_secs(4),
        "the line was not slow"
    );
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
}

/// What the source does while nobody hears it is heard later: until then no lease may end.
#[test]
fn a_lease_is_not_ended_while_the_source_is_out_of_reach() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    target.stop();
    client.command(&argv!["SET", "a", 1]);
    daemon.wait_for("a lag", LIMIT, |daemon| {
        daemon
            .metric("understudy_lag_seconds")
            .is_some_and(|lag| lag > 0.6)
    });
    let from = Instant::now();
    client.command(&argv!["SET", "kept", "v", "PX", 4000]);
    let goal = e2e::written(&source);
    daemon.wait_for("the key to be received", LIMIT, |daemon| {
        own(daemon, "source_offset").is_some_and(|offset| offset >= goal)
    });
    proxy.refuse(true);
    proxy.cut_now(Cut::Rst);
    client.command(&argv!["PERSIST", "kept"]);
    target.cont();
    wait_since(&mut daemon, from, Duration::from_millis(6000));
    proxy.refuse(false);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
}
