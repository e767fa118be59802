//! The daemon is killed without a word, again and again: nothing may be lost, nothing doubled, and the source may
//! not have to serve a second full sync for it.

use std::time::Duration;

use e2e::{LIMIT, Link, catch_up, from_env, full_syncs, own, phase, rng, source_of, wait_stream};
use testkit::oracle::{self, OracleOptions};
use testkit::proxy::{Direction, Proxy};
use testkit::workload::{self, DBS};
use testkit::{Counters, Rng, Server, Writer, argv};

/// Kills at random moments of the stream phase and of the way into it.
fn killed_in_the_stream(link: impl Fn(Link) -> Link, rng: &mut Rng, kills: u64) {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 3000);
    let mut daemon = link(Link::new(&source, &target)).start();
    wait_stream(&mut daemon);
    for kill in 0..kills {
        if kill % 4 != 0 {
            wait_stream(&mut daemon);
        }
        // The moment is what is random here, so this one sleeps.
        std::thread::sleep(Duration::from_millis(rng.below(400)));
        daemon.restart();
    }
    wait_stream(&mut daemon);
    let operations = counters.acknowledged();
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
    println!("{kills} kills, {operations} operations, one full sync");
}

#[test]
fn kills_in_the_stream_phase_lose_and_double_nothing() {
    killed_in_the_stream(|link| link, &mut rng(), from_env("UNDERSTUDY_KILLS", 15));
}

#[test]
fn kills_between_small_units_lose_and_double_nothing() {
    let small = |link: Link| {
        link.with("redis_writer", "batch_commands = 3")
            .with("spool", "retain_bytes = \"1mb\"")
    };
    killed_in_the_stream(small, &mut rng(), from_env("UNDERSTUDY_KILLS", 15).min(15));
}

#[test]
fn kills_in_the_snapshot_phase_cost_a_new_snapshot_and_leave_no_stale_key() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    let mut client = source.client();
    workload::fill(&mut client, rng.number(), 3_000);
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    let kills = 4;
    for _ in 0..kills {
        // A slow line makes the snapshot last until it is cut short.
        proxy.throttle(Direction::ToClient, Some(4 << 20));
        let keys = rng.within(200..1500);
        daemon.wait_for("a part of the snapshot", LIMIT, |daemon| {
            own(daemon, "snapshot_keys").is_some_and(|applied| applied >= keys)
        });
        assert_eq!(phase(&daemon), "snapshot");
        daemon.kill();
        delete_some(&source, &target, &mut rng);
        daemon.spawn();
    }
    proxy.throttle(Direction::ToClient, None);
    wait_stream(&mut daemon);
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), kills + 1);
}

/// Deletes, at the source, keys that the target has already.
fn delete_some(source: &Server, target: &Server, rng: &mut Rng) {
    let mut deleted = 0;
    for db in DBS {
        let (mut source, mut target) = (source.client(), target.client());
        source.select(db);
        target.select(db);
        for key in target.keys() {
            if rng.one_in(5) && key.starts_with(b"key:") {
                source.command(&argv!["DEL", key]);
                deleted += 1;
            }
        }
    }
    assert!(deleted > 0, "nothing to delete had been applied");
}

#[test]
fn kills_under_every_kind_of_command_leave_an_equal_copy() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    workload::fill(&mut source.client(), rng.number(), 500);
    let writer = Writer::start(&source.address(), rng.number(), 3000);
    let mut daemon = Link::new(&source, &target).start();
    for _ in 0..8 {
        wait_stream(&mut daemon);
        std::thread::sleep(Duration::from_millis(rng.below(300)));
        daemon.restart();
    }
    wait_stream(&mut daemon);
    writer.stop();
    catch_up(&mut daemon, &source);
    let options = OracleOptions::live(&source.engine().version);
    oracle::assert_equal_with(&source.address(), &target.address(), &options);
    assert_eq!(full_syncs(&source), 1);
}
