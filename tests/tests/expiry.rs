//! Keys and fields of hashes whose lives end at the target before it hears that the source has saved them: while nobody
//! follows the source, within the lag, or by a clock that is wrong. They are copied again, and every key is equal.

use std::path::Path;
use std::time::{Duration, Instant};

use e2e::{LIMIT, Link, catch_up, full_syncs, own, preload, rng, source_of, wait_stream};
use testkit::client::{Argv, text};
use testkit::process::wait_until;
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::{Client, Daemon, Engine, Server, ServerOptions, argv, oracle};

/// How long the keys live at first: more than what has a lease from the beginning, so that they end at the target.
const LIFE_MS: u64 = 21_000;

/// Gives the source keys of many kinds that live for [`LIFE_MS`], and some that have no end.
fn born() -> Vec<Argv> {
    let mut commands = vec![
        argv!["RPUSH", "queue", "a", "b"],
        argv!["HSET", "user", "name", "n"],
        argv!["SADD", "plain", "p"],
    ];
    for key in ["prolonged", "kept", "gone", "untouched", "moved"] {
        commands.push(argv!["SET", key, "v", "PX", LIFE_MS]);
    }
    for key in ["counted", "counted:kept", "rated"] {
        commands.push(argv!["INCRBY", key, 100]);
        commands.push(argv!["PEXPIRE", key, LIFE_MS]);
    }
    for key in ["list", "list:set", "popped"] {
        commands.push(argv!["RPUSH", key, "a", "b", "c"]);
        commands.push(argv!["PEXPIRE", key, LIFE_MS]);
    }
    commands.push(argv!["SADD", "members", "x", "y"]);
    commands.push(argv!["PEXPIRE", "members", LIFE_MS]);
    for n in 0..300 {
        commands.push(argv!["HSET", format!("session:{n}"), "n", n]);
        commands.push(argv!["PEXPIRE", format!("session:{n}"), LIFE_MS]);
    }
    commands
}

/// What the source does to them shortly before they end.
fn saved() -> Vec<Argv> {
    let mut commands = vec![
        argv!["PEXPIRE", "prolonged", 10_000_000],
        argv!["PERSIST", "kept"],
        argv!["INCR", "counted"],
        argv!["PEXPIRE", "counted", 10_000_000],
        argv!["INCR", "counted:kept"],
        argv!["PERSIST", "counted:kept"],
        // Its life goes on as it was, in part or as a whole.
        argv!["INCR", "rated"],
        argv!["RPUSH", "list", "d"],
        argv!["PERSIST", "list"],
        argv!["LSET", "list:set", 0, "z"],
        argv!["PERSIST", "list:set"],
        argv!["RPOPLPUSH", "popped", "queue"],
        argv!["SUNIONSTORE", "union", "plain", "members"],
        argv!["RENAME", "moved", "moved:on"],
        argv!["PERSIST", "moved:on"],
        argv!["DEL", "gone"],
        argv!["INCR", "gone"],
        argv!["PEXPIRE", "gone", 10_000_000],
        // Keys that are new, in the pattern of every rate limiter.
        argv!["INCR", "new"],
        argv!["PEXPIRE", "new", 10_000_000],
        argv!["SET", "new:set", "v"],
        argv!["PEXPIRE", "new:set", 10_000_000],
    ];
    for n in 0..300 {
        if n % 3 > 0 {
            commands.push(argv!["HSET", format!("session:{n}"), "seen", n]);
        }
        commands.push(argv!["PEXPIRE", format!("session:{n}"), 10_000_000]);
    }
    commands
}

/// Brings keys to the target, each with its own expiry there. Of the last unit before a kill nobody knows whether its
/// commands failed, and the keys are copied again for that: here they cannot have.
fn bring(client: &mut Client, daemon: &mut Daemon, source: &Server, target: &Server) {
    client.commands(&born());
    catch_up(daemon, source);
    // The figure of the daemon is not told at the same moment.
    wait_until("keys to have their own expiries", LIMIT, || {
        let mut client = target.client();
        own(daemon, "leases_open") == Some(0)
            && ENDED.iter().all(|key| {
                let left = testkit::client::number(&client.command(&argv!["PTTL", key]));
                left.is_some_and(|left| left <= LIFE_MS as i64)
            })
    });
    client.command(&argv!["SET", "last", 1]);
    catch_up(daemon, source);
}

/// Waits until the target has ended those of `keys` that it has.
fn wait_ended(target: &Server, keys: &[&str]) {
    wait_until("keys to end at the target", LIMIT, || {
        let mut client = target.client();
        keys.iter()
            .all(|key| testkit::client::number(&client.command(&argv!["EXISTS", key])) == Some(0))
    });
}

const ENDED: [&str; 9] = [
    "prolonged",
    "kept",
    "counted",
    "counted:kept",
    "list",
    "popped",
    "members",
    "moved",
    "session:0",
];

/// Sleeps until there is so much left of the first lives: the moment is what matters here.
fn wait_until_left(from: Instant, left: Duration) {
    let life = Duration::from_millis(LIFE_MS);
    std::thread::sleep((life - left).saturating_sub(from.elapsed()));
}

fn doubtful(daemon: &Daemon) -> u64 {
    own(daemon, "doubtful").unwrap_or(0)
}

/// Runs `away`, which ends what follows the source, `save` in the last moments of the keys, and `back` when they have
/// ended at the target.
fn outage(
    source: &Server,
    target: &Server,
    daemon: &mut Daemon,
    away: impl FnOnce(&mut Daemon),
    back: impl FnOnce(&mut Daemon),
) {
    wait_stream(daemon);
    let mut client = source.client();
    let from = Instant::now();
    bring(&mut client, daemon, source, target);
    away(daemon);
    wait_until_left(from, Duration::from_secs(5));
    client.commands(&saved());
    wait_ended(target, &ENDED);
    back(daemon);
    wait_stream(daemon);
    catch_up(daemon, source);
    oracle::assert_equal(&source.address(), &target.address());
    assert!(doubtful(daemon) >= 200, "{}", daemon.output());
    assert_eq!(own(daemon, "unchecked"), Some(0));
    assert_eq!(own(daemon, "repairs_open"), Some(0));
    assert_eq!(full_syncs(source), 1);
    let said = "were saved at the source: they are copied again";
    assert_eq!(
        daemon.output().matches(said).count(),
        1,
        "{}",
        daemon.output()
    );
}

#[test]
fn keys_saved_while_the_daemon_was_killed_are_copied_again() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target).start();
    outage(&source, &target, &mut daemon, Daemon::kill, Daemon::spawn);
}

#[test]
fn keys_saved_while_the_daemon_was_stopped_are_copied_again() {
    let (source, target) = (source_of("valkey-8.1"), Server::of("redis-6.2"));
    let mut daemon = Link::new(&source, &target).start();
    let stop = |daemon: &mut Daemon| {
        daemon.terminate();
        assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    };
    outage(&source, &target, &mut daemon, stop, Daemon::spawn);
}

#[test]
fn keys_saved_while_the_sources_line_was_cut_are_copied_again() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    let cut = |_: &mut Daemon| {
        proxy.refuse(true);
        proxy.cut_now(Cut::Rst);
    };
    outage(&source, &target, &mut daemon, cut, |_| proxy.refuse(false));
}

#[test]
fn keys_saved_while_the_targets_line_was_cut_are_copied_again() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&target.address());
    let mut daemon = Link::new(&source, &target).target(&proxy.address()).start();
    let cut = |_: &mut Daemon| {
        proxy.refuse(true);
        proxy.cut_now(Cut::Rst);
    };
    outage(&source, &target, &mut daemon, cut, |_| proxy.refuse(false));
}

/// Kills follow one another while what is in doubt is found and copied again.
#[test]
fn kills_among_the_doubts_forget_none() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target).start();
    let back = |daemon: &mut Daemon| {
        for pause_ms in [30, 60, 90, 120, 200, 400] {
            daemon.spawn();
            std::thread::sleep(Duration::from_millis(pause_ms));
            daemon.kill();
        }
        daemon.spawn();
    };
    wait_stream(&mut daemon);
    let mut client = source.client();
    let from = Instant::now();
    bring(&mut client, &mut daemon, &source, &target);
    daemon.kill();
    wait_until_left(from, Duration::from_secs(5));
    client.commands(&saved());
    wait_ended(&target, &ENDED);
    back(&mut daemon);
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
}

/// The fields of a hash, and the hash that ends with its last field.
#[test]
fn fields_saved_while_the_daemon_was_killed_are_copied_again() {
    for engine in ["redis-8.0", "valkey-9.0"] {
        let (source, target) = (source_of(engine), Server::of(engine));
        let mut daemon = Link::new(&source, &target).start();
        wait_stream(&mut daemon);
        let mut client = source.client();
        let from = Instant::now();
        let life = Duration::from_secs(6);
        let expire = |client: &mut Client, key: &str, ms: u64, field: &str| {
            client.command(&argv!["HPEXPIRE", key, ms, "FIELDS", 1, field]);
        };
        for key in ["part", "whole", "kept", "counted", "new"] {
            client.command(&argv!["HSET", key, "f", 100]);
            if key == "part" {
                client.command(&argv!["HSET", key, "stays", 1]);
            }
            if key != "new" {
                expire(&mut client, key, 6_000, "f");
            }
        }
        catch_up(&mut daemon, &source);
        // Of the last unit before a kill nobody knows whether its commands failed: here they cannot have.
        client.command(&argv!["SET", "last", 1]);
        catch_up(&mut daemon, &source);
        daemon.kill();
        std::thread::sleep((life - Duration::from_secs(3)).saturating_sub(from.elapsed()));
        for key in ["part", "whole"] {
            expire(&mut client, key, 10_000_000, "f");
        }
        client.command(&argv!["HPERSIST", "kept", "FIELDS", 1, "f"]);
        client.command(&argv!["HINCRBY", "counted", "f", 1]);
        expire(&mut client, "counted", 10_000_000, "f");
        client.command(&argv!["HSET", "new", "g", 1]);
        expire(&mut client, "new", 10_000_000, "g");
        wait_ended(&target, &["whole", "kept", "counted"]);
        daemon.spawn();
        wait_stream(&mut daemon);
        catch_up(&mut daemon, &source);
        oracle::assert_equal(&source.address(), &target.address());
        // The field that was written in what is late is in no doubt.
        assert_eq!(doubtful(&daemon), 4, "{}", daemon.output());
        assert_eq!(full_syncs(&source), 1);
    }
}

/// What saves a key is on its way when the target ends it, without any outage.
#[test]
fn keys_saved_a_moment_before_their_end_survive_the_lag() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&target.address());
    let mut daemon = Link::new(&source, &target).target(&proxy.address()).start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    let from = Instant::now();
    bring(&mut client, &mut daemon, &source, &target);
    wait_until_left(from, Duration::from_millis(700));
    proxy.hold(Direction::ToServer);
    let keys = ["prolonged", "kept", "members", "list"];
    client.command(&argv!["PEXPIRE", "prolonged", 10_000_000]);
    for key in &keys[1..] {
        client.command(&argv!["PERSIST", key]);
    }
    wait_ended(&target, &keys);
    proxy.release(Direction::ToServer);
    wait_ended(&source, &["counted", "moved", "session:0"]);
    catch_up(&mut daemon, &source);
    wait_until("all to be equal", LIMIT, || {
        oracle::compare(&source.address(), &target.address()).is_empty()
    });
    assert!(doubtful(&daemon) >= 4, "{}", daemon.output());
    assert_eq!(full_syncs(&source), 1);
}

/// A server whose clock is so many seconds ahead of the machine's, or behind it, run with `library` preloaded.
fn with_skew(name: &str, library: &Path, seconds: i64) -> Server {
    let env = [
        ("LD_PRELOAD", library.display().to_string()),
        ("SKEW_SECONDS", seconds.to_string()),
    ];
    let options = ServerOptions {
        env: env.map(|(name, value)| (name.to_owned(), value)).into(),
        ..ServerOptions::default()
    };
    Server::start(&Engine::of(name), options)
}

/// How far the server's clock is ahead of the other's, in seconds.
fn ahead(server: &Server, other: &Server) -> i64 {
    let seconds = |server: &Server| {
        let time = server.client().command(&argv!["TIME"]);
        let text = testkit::client::items(time)
            .first()
            .map(testkit::client::text);
        text.expect("a time").parse::<i64>().expect("seconds")
    };
    seconds(server) - seconds(other)
}

/// The target's clock is wrong by five seconds, while keys end in storms and others are saved in their last moments.
fn skewed(seconds: i64) {
    let (_folder, library) = preload("skew.c");
    let source = source_of("redis-7.0");
    let target = with_skew("redis-7.0", &library, seconds);
    let apart = ahead(&target, &source);
    assert!((apart - seconds).abs() <= 1, "the clock is {apart} s ahead");
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    wait_until("the clocks to be compared", LIMIT, || {
        own(&daemon, "clock_skew_ms").is_some_and(|ms| ms > 4_000)
    });
    let mut client = source.client();
    let from = Instant::now();
    client.commands(&born());
    let mut rng = rng();
    let life = Duration::from_millis(LIFE_MS);
    let mut storms = 0;
    // Ahead, the target has ended those that live longest by then, and the source has not.
    while from.elapsed() < life - Duration::from_secs(2) {
        let keys: Vec<Argv> = (0..500)
            .map(|n| {
                argv![
                    "SET",
                    format!("storm:{storms}:{n}"),
                    n,
                    "PX",
                    1 + rng.below(9_000)
                ]
            })
            .collect();
        client.commands(&keys);
        let saved: Vec<Argv> = (0..100)
            .map(|n| argv!["PERSIST", format!("storm:{storms}:{n}")])
            .collect();
        client.commands(&saved);
        storms += 1;
        std::thread::sleep(Duration::from_millis(rng.below(200)));
    }
    client.commands(&saved());
    catch_up(&mut daemon, &source);
    // The storms' keys that nobody saved end at the source, which tells it.
    wait_until("keys to end at the source", LIMIT, || {
        let info = text(&client.command(&argv!["INFO", "keyspace"]));
        let count = |name: &str| -> Option<u64> {
            let (_, rest) = info.split_once(name)?;
            rest.split(|c: char| !c.is_ascii_digit())
                .next()?
                .parse()
                .ok()
        };
        // What is left with an expiry has been given another life.
        count("expires=").is_some_and(|expires| expires < 400)
    });
    catch_up(&mut daemon, &source);
    wait_until("leases to end", LIMIT, || {
        own(&daemon, "leases_open") == Some(0)
    });
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 1);
    println!("{storms} storms, {} in doubt", doubtful(&daemon));
    if seconds > 0 {
        assert!(doubtful(&daemon) >= 200, "{}", daemon.output());
    }
}

#[test]
fn keys_saved_in_their_last_moments_survive_at_a_target_whose_clock_is_ahead() {
    skewed(5);
}

#[test]
fn keys_saved_in_their_last_moments_survive_at_a_target_whose_clock_is_behind() {
    skewed(-5);
}

/// Keys that come with an expiry, as counters of a rate limiter do, look as if the target had ended them. They are copied in
/// vain, and that takes its time once, not for each of them.
#[test]
fn new_keys_with_expiries_that_came_during_an_outage_are_caught_up_with() {
    const KEYS: usize = 20_000;
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    client.command(&argv!["SET", "last", 1]);
    catch_up(&mut daemon, &source);
    daemon.kill();
    for keys in (0..KEYS).collect::<Vec<_>>().chunks(500) {
        let commands: Vec<_> = keys
            .iter()
            .flat_map(|key| {
                let key = format!("rate:{key}");
                [
                    argv!["INCR", key],
                    argv!["PEXPIRE", key, 3_600_000],
                    argv!["INCR", key],
                ]
            })
            .collect();
        client.commands(&commands);
    }
    daemon.spawn();
    let from = Instant::now();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    println!(
        "caught up after {:?}, {} keys in doubt",
        from.elapsed(),
        doubtful(&daemon)
    );
    oracle::assert_equal(&source.address(), &target.address());
    assert!(doubtful(&daemon) <= KEYS as u64);
    assert_eq!(full_syncs(&source), 1);
}
