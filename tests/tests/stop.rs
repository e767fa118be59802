//! Asked to stop, the daemon stops with 0, in time, and loses nothing; started again it goes on where it stopped.

use std::time::{Duration, Instant};

use e2e::{LIMIT, Link, catch_up, full_syncs, own, rng, source_of, wait_more, wait_stream};
use testkit::proxy::{Direction, Proxy};
use testkit::{Counters, Server, Writer, argv, oracle, workload};

#[test]
fn stopped_under_load_and_started_again_it_goes_on_by_partial_sync() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 3000);
    let mut daemon = Link::new(&source, &target).start();
    for _ in 0..4 {
        wait_stream(&mut daemon);
        wait_more("operations", 500, || counters.acknowledged());
        let from = Instant::now();
        daemon.terminate();
        assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
        assert!(from.elapsed() < Duration::from_secs(11));
        daemon.spawn();
    }
    wait_stream(&mut daemon);
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}

/// Whether the time given runs out or somebody asks again: what the target has not confirmed comes after the restart.
#[test]
fn a_target_that_hangs_does_not_keep_the_daemon_from_stopping() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let link = Link::new(&source, &target).with("limits", "shutdown_timeout = \"2s\"");
    let mut daemon = link.start();
    for twice in [false, true] {
        wait_stream(&mut daemon);
        catch_up(&mut daemon, &source);
        target.stop();
        wait_more("operations", 500, || counters.acknowledged());
        let from = Instant::now();
        daemon.terminate();
        if twice {
            daemon.wait_for_output("asked to stop: ", LIMIT);
            daemon.terminate();
        }
        assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
        assert!(
            from.elapsed() < Duration::from_secs(8),
            "{:?}",
            from.elapsed()
        );
        target.cont();
        daemon.spawn();
    }
    wait_stream(&mut daemon);
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn stopped_in_the_snapshot_it_begins_again_with_another() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    workload::fill(&mut source.client(), rng.number(), 2000);
    proxy.throttle(Direction::ToClient, Some(4 << 20));
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    daemon.wait_for("a part of the snapshot", LIMIT, |daemon| {
        own(daemon, "snapshot_keys").is_some_and(|keys| keys > 50)
    });
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    source.client().command(&argv!["FLUSHDB"]);
    proxy.throttle(Direction::ToClient, None);
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 2);
}

#[test]
fn without_sync_aof_it_ends_by_itself_after_the_snapshot() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    workload::fill(&mut source.client(), rng.number(), 1000);
    let mut daemon = Link::new(&source, &target)
        .with("sync_reader", "sync_aof = false")
        .start();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    oracle::assert_equal(&source.address(), &target.address());
    // Started again, it finds nothing to do and ends as well.
    daemon.spawn();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
}

/// What is written behind the snapshot stays where it is.
#[test]
fn without_sync_aof_writes_after_the_snapshot_are_not_copied() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    workload::fill(&mut source.client(), rng.number(), 500);
    source.client().command(&argv!["SET", "seen", "before"]);
    proxy.throttle(Direction::ToClient, Some(4 << 20));
    let mut daemon = Link::new(&source, &target)
        .source(&proxy.address())
        .with("sync_reader", "sync_aof = false")
        .start();
    daemon.wait_for("the snapshot", LIMIT, |daemon| {
        own(daemon, "snapshot_keys").is_some_and(|keys| keys > 10)
    });
    source.client().command(&argv!["SET", "seen", "after"]);
    let _writer = Writer::start(&source.address(), rng.number(), 500);
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    let seen = target.client().command(&argv!["GET", "seen"]);
    assert_eq!(testkit::client::text(&seen), "before");
}
