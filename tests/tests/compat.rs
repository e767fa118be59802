//! From version to version, with one key of every kind and edge: a handful of the pairs that `cargo xtask compat` runs.

use std::collections::BTreeMap;

use e2e::{Link, catch_up, rng, source_of, wait_more, wait_stream};
use testkit::client::number;
use testkit::compat::{self, Verdict};
use testkit::oracle::{self, OracleOptions};
use testkit::{Server, Writer, argv, daemon};

/// Everything but these losses, so many of each.
fn brings(from: &str, to: &str, losses: &[(&'static str, u64)]) {
    let (source, mut target) = (compat::source(from), Server::of(to));
    let outcome = compat::run(&daemon::binary(), &source, &mut target, "warn");
    let expected: BTreeMap<&'static str, u64> = losses.iter().copied().collect();
    assert_eq!(outcome.verdict, Verdict::Done(expected), "{from} to {to}");
}

#[test]
fn an_old_redis_to_a_new_one() {
    brings("redis-5.0", "redis-8.0", &[]);
}

#[test]
fn the_oldest_redis_to_new_servers() {
    brings("redis-2.8", "redis-8.6", &[]);
    brings("redis-2.8", "valkey-9.1", &[]);
}

/// The oldest source that there is, while it is in use.
#[test]
fn a_redis_2_8_that_is_in_use_moves_to_valkey() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-2.8"), Server::of("valkey-9.1"));
    let writer = Writer::start(&source.address(), rng.number(), 2000);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    wait_more("commands", 6_000, || writer.answered());
    daemon.restart();
    wait_stream(&mut daemon);
    wait_more("commands", 2_000, || writer.answered());
    writer.stop();
    catch_up(&mut daemon, &source);
    // PFMERGE made them dense then and leaves them sparse now: they count the same, and are not the same bytes.
    let (mut here, mut there) = (source.client(), target.client());
    for (db, key) in (0..8).flat_map(|db| (0..24).map(move |n| (db, format!("w:hll:{n}")))) {
        here.select(db);
        there.select(db);
        let count = argv!["PFCOUNT", key];
        assert_eq!(
            number(&here.command(&count)),
            number(&there.command(&count)),
            "{key}"
        );
        here.command(&argv!["DEL", key]);
    }
    catch_up(&mut daemon, &source);
    let options = OracleOptions::live(&source.engine().version);
    oracle::assert_equal_with(&source.address(), &target.address(), &options);
}

#[test]
fn a_new_redis_to_an_old_one() {
    brings(
        "redis-8.0",
        "redis-6.2",
        &[
            ("field expiries", 8),
            ("functions", 1),
            ("stream counters", 16),
            ("vector sets", 5),
        ],
    );
}

#[test]
fn redis_to_valkey() {
    brings("redis-7.2", "valkey-8.1", &[]);
}

#[test]
fn redis_to_valkey_with_expiries_of_fields() {
    brings("redis-7.4", "valkey-9.0", &[]);
}

#[test]
fn valkey_to_redis() {
    brings("valkey-8.1", "redis-7.0", &[]);
}

#[test]
fn valkey_to_redis_with_expiries_of_fields() {
    brings("valkey-9.0", "redis-7.4", &[]);
}

/// Both ends of the line at which a length in listpacks changed its form.
#[test]
fn over_the_line_of_back_lengths() {
    brings("redis-7.2", "valkey-9.1", &[]);
    brings("valkey-9.1", "redis-8.0", &[]);
}

/// Nothing is lost unless that is allowed.
#[test]
fn a_loss_stops_the_link_by_default() {
    let (source, mut target) = (compat::source("redis-7.0"), Server::of("redis-6.2"));
    let outcome = compat::run(&daemon::binary(), &source, &mut target, "fail");
    let Verdict::Refused(why) = outcome.verdict else {
        panic!("{:?}", outcome.verdict);
    };
    assert!(why.contains("needs functions (Redis 7.0)"), "{why}");
    assert!(why.contains("redis_writer.losses"), "{why}");
}
