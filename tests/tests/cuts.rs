//! The line to the source breaks at any byte, in order or by reset, or carries one byte at a time: the stream goes on
//! where it stopped, by partial sync.

use e2e::{
    LIMIT, Link, catch_up, from_env, full_syncs, phase, rng, source_of, wait_more, wait_stream,
};
use testkit::oracle;
use testkit::process::wait_until;
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::{Counters, Rng, Server, workload};

/// Sizes from "within the handshake" to "many units later".
fn any_byte(rng: &mut Rng) -> u64 {
    match rng.below(4) {
        0 => rng.within(1..200),
        1 => rng.within(1..2_000),
        _ => rng.within(1..60_000),
    }
}

fn any_end(rng: &mut Rng) -> Cut {
    *rng.pick(&[Cut::Rst, Cut::Fin])
}

#[test]
fn cuts_at_random_bytes_of_the_stream_lose_and_double_nothing() {
    let mut rng = rng();
    let cuts = from_env("UNDERSTUDY_CUTS", 60);
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    let counters = Counters::start(&source.address(), rng.number(), 4000);
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    for cut in 0..cuts {
        // What goes to the source are ACKs, a few dozen bytes a second.
        let direction = if rng.one_in(10) {
            Direction::ToServer
        } else {
            Direction::ToClient
        };
        let bytes = match direction {
            Direction::ToServer => rng.within(1..100),
            Direction::ToClient => any_byte(&mut rng),
        };
        proxy.cut_after(direction, bytes, any_end(&mut rng));
        daemon.wait_for("a cut", LIMIT, |_| proxy.cuts() > cut);
    }
    let operations = counters.acknowledged();
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
    println!("{cuts} cuts, {operations} operations, one full sync");
}

#[test]
fn segments_of_one_byte_with_cuts_among_them_change_nothing() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    workload::fill(&mut source.client(), rng.number(), 12);
    let counters = Counters::start(&source.address(), rng.number(), 300);
    proxy.segment(Direction::ToClient, Some(1));
    proxy.segment(Direction::ToServer, Some(1));
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    for cut in 0..8 {
        proxy.cut_after(Direction::ToClient, rng.within(1..4_000), any_end(&mut rng));
        daemon.wait_for("a cut", LIMIT, |_| proxy.cuts() > cut);
    }
    wait_more("bytes in segments of one", 20_000, || {
        proxy.passed_bytes(Direction::ToClient)
    });
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn a_source_that_cannot_be_reached_for_a_while_is_waited_for() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    wait_stream(&mut daemon);
    proxy.refuse(true);
    proxy.cut_now(Cut::Rst);
    wait_more("operations meanwhile", 4000, || counters.acknowledged());
    assert!(daemon.is_running(), "{}", daemon.output());
    proxy.refuse(false);
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn cuts_in_the_snapshot_begin_it_anew() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    workload::fill(&mut source.client(), rng.number(), 2000);
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let link = Link::new(&source, &target).source(&proxy.address());
    proxy.throttle(Direction::ToClient, Some(8 << 20));
    let mut daemon = link.start();
    for cut in 0..5 {
        daemon.wait_for("the snapshot", LIMIT, |daemon| {
            phase(daemon) == "snapshot" && full_syncs(&source) > cut as i64
        });
        proxy.cut_after(
            Direction::ToClient,
            rng.within(1..500_000),
            any_end(&mut rng),
        );
        wait_until("a cut", LIMIT, || proxy.cuts() > cut);
    }
    proxy.throttle(Direction::ToClient, None);
    wait_stream(&mut daemon);
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
}
