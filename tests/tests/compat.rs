//! From version to version, with one key of every kind and edge: a handful of the pairs that `cargo xtask compat` runs.

use std::collections::BTreeMap;

use testkit::compat::{self, Verdict};
use testkit::{Server, daemon};

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
