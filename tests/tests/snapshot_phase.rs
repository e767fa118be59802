//! Faults while the snapshot is applied: what is in the spool is never asked for again, what is confirmed is not written
//! again, and whoever has been replaced writes nothing more.

use e2e::{
    LIMIT, Link, catch_up, from_env, full_syncs, own, phase, rng, source_of, wait_stream, written,
};
use testkit::process::wait_until;
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::{Counters, Daemon, Engine, Rng, Server, ServerOptions, argv, oracle};
use testkit::{client, workload};

/// A source with enough in it that a slow line to the target takes seconds.
fn filled(rng: &mut Rng) -> Server {
    let source = source_of("redis-7.0");
    let mut client = source.client();
    workload::fill(&mut client, rng.number(), 2_000);
    for key in 0..400 {
        client.command(&argv!["SET", format!("ballast:{key}"), rng.bytes(10_000)]);
    }
    source
}

/// Units of this size make the snapshot take many of them.
fn in_small_units(link: Link) -> Link {
    link.with("redis_writer", "inflight_bytes = \"64kb\"")
}

/// Waits until the snapshot is received, and a part of it applied beyond what was before.
fn wait_half_applied(daemon: &mut Daemon, more: u64) {
    let before = own(daemon, "snapshot_applied_bytes").unwrap_or(0);
    daemon.wait_for("a part of the snapshot to be applied", LIMIT, |daemon| {
        daemon.output().contains("snapshot received")
            && own(daemon, "snapshot_applied_bytes").is_some_and(|now| now >= before + more)
    });
    assert_eq!(phase(daemon), "snapshot");
}

fn exact(mut daemon: Daemon, counters: Counters, source: &Server, target: &Server) {
    wait_stream(&mut daemon);
    let ledger = counters.stop();
    catch_up(&mut daemon, source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(source), 1);
}

#[test]
fn kills_after_the_snapshot_is_received_go_on_with_it_from_the_spool() {
    let mut rng = rng();
    let (source, target) = (filled(&mut rng), Server::of("redis-7.0"));
    let proxy = Proxy::start(&target.address());
    let counters = Counters::start(&source.address(), rng.number(), 500);
    proxy.throttle(Direction::ToServer, Some(1 << 20));
    let mut daemon = in_small_units(Link::new(&source, &target).target(&proxy.address())).start();
    let kills = from_env("UNDERSTUDY_KILLS", 6);
    for kill in 0..kills {
        if kill == 0 {
            wait_half_applied(&mut daemon, 200_000);
        } else {
            // Anywhere, on the way there too.
            std::thread::sleep(std::time::Duration::from_millis(rng.below(600)));
        }
        daemon.restart();
    }
    daemon.wait_for("the phase of before", LIMIT, |daemon| {
        daemon
            .output()
            .contains("going on with the snapshot in the spool")
            || phase(daemon) == "stream"
    });
    proxy.throttle(Direction::ToServer, None);
    exact(daemon, counters, &source, &target);
}

#[test]
fn a_lost_target_connection_goes_on_where_the_checkpoint_says() {
    let mut rng = rng();
    let (source, target) = (filled(&mut rng), Server::of("redis-7.0"));
    let proxy = Proxy::start(&target.address());
    let counters = Counters::start(&source.address(), rng.number(), 500);
    proxy.throttle(Direction::ToServer, Some(2 << 20));
    let mut daemon = in_small_units(Link::new(&source, &target).target(&proxy.address())).start();
    wait_half_applied(&mut daemon, 500_000);
    for cut in 0..5 {
        let direction = *rng.pick(&[Direction::ToServer, Direction::ToClient]);
        proxy.cut_after(direction, rng.within(1..60_000), Cut::Rst);
        daemon.wait_for("a cut", LIMIT, |_| proxy.cuts() > cut);
    }
    proxy.throttle(Direction::ToServer, None);
    daemon.wait_for("the snapshot's next part", LIMIT, |daemon| {
        daemon
            .output()
            .contains("going on with the snapshot applied_bytes=")
    });
    let output = daemon.output();
    assert!(
        !output.contains("going on with the snapshot applied_bytes=0\n"),
        "{output}"
    );
    exact(daemon, counters, &source, &target);
}

#[test]
fn a_target_killed_in_the_snapshot_phase_goes_on_from_its_own_checkpoint() {
    let mut rng = rng();
    let source = filled(&mut rng);
    let mut target = Server::start(
        &Engine::of("redis-7.0"),
        ServerOptions::args("--appendonly yes --appendfsync always"),
    );
    let proxy = Proxy::start(&target.address());
    let counters = Counters::start(&source.address(), rng.number(), 500);
    proxy.throttle(Direction::ToServer, Some(1 << 20));
    let mut daemon = in_small_units(Link::new(&source, &target).target(&proxy.address())).start();
    wait_half_applied(&mut daemon, 300_000);
    target.restart();
    wait_half_applied(&mut daemon, 100_000);
    proxy.throttle(Direction::ToServer, None);
    exact(daemon, counters, &source, &target);
}

#[test]
fn a_target_that_is_full_in_the_snapshot_phase_is_waited_for() {
    let mut rng = rng();
    let (source, target) = (filled(&mut rng), Server::of("redis-7.0"));
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let mut client = target.client();
    client.command(&argv!["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    client.command(&argv!["CONFIG", "SET", "maxmemory", 3_000_000]);
    let mut daemon = in_small_units(Link::new(&source, &target)).start();
    daemon.wait_for("the word for it", LIMIT, |daemon| {
        daemon.output().contains("was refused: OOM")
    });
    client.command(&argv!["CONFIG", "SET", "maxmemory", 0]);
    exact(daemon, counters, &source, &target);
}

/// What a daemon had on its way when it died arrives when another one is in the stream already.
#[test]
fn writes_of_the_snapshot_that_come_too_late_do_nothing() {
    let mut rng = rng();
    let (source, target) = (filled(&mut rng), Server::of("redis-7.0"));
    let proxy = Proxy::start(&target.address());
    let counters = Counters::start(&source.address(), rng.number(), 500);
    proxy.throttle(Direction::ToServer, Some(1 << 20));
    let straight = in_small_units(Link::new(&source, &target));
    let mut daemon = straight.clone().target(&proxy.address()).start();
    wait_half_applied(&mut daemon, 300_000);
    proxy.hold(Direction::ToServer);
    wait_until("a unit on its way", LIMIT, || {
        proxy.held_bytes(Direction::ToServer) > 0
    });
    daemon.kill();
    daemon.configure(&straight.text());
    daemon.spawn();
    wait_stream(&mut daemon);
    // What the late unit holds is gone at the source by now.
    let mut client = source.client();
    for key in 0..400 {
        client.command(&argv!["DEL", format!("ballast:{key}")]);
    }
    catch_up(&mut daemon, &source);
    let passed = proxy.passed_bytes(Direction::ToServer);
    proxy.throttle(Direction::ToServer, None);
    proxy.release(Direction::ToServer);
    wait_until("the late unit", LIMIT, || {
        proxy.passed_bytes(Direction::ToServer) > passed
    });
    exact(daemon, counters, &source, &target);
}

#[test]
fn of_two_daemons_in_the_snapshot_phase_the_older_one_stops_and_says_so() {
    let mut rng = rng();
    let (source, target) = (filled(&mut rng), Server::of("redis-7.0"));
    let proxy = Proxy::start(&target.address());
    proxy.throttle(Direction::ToServer, Some(1 << 20));
    let link = in_small_units(Link::new(&source, &target).target(&proxy.address()));
    let mut older = link.start();
    wait_half_applied(&mut older, 200_000);
    // Another folder, so that no lock stands between them; it has no snapshot in its spool.
    let mut newer = link.start();
    assert_eq!(older.wait(LIMIT), 4, "{}", older.output());
    assert!(
        older.output().contains("another understudy"),
        "{}",
        older.output()
    );
    proxy.throttle(Direction::ToServer, None);
    wait_stream(&mut newer);
    catch_up(&mut newer, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 2);
}

/// A run that was killed when it had taken the target for another snapshot, and had not yet thrown away the one before.
#[test]
fn a_snapshot_in_the_spool_is_not_taken_for_a_later_one_of_the_same_history() {
    let mut rng = rng();
    let (source, target) = (filled(&mut rng), Server::of("redis-7.0"));
    let proxy = Proxy::start(&target.address());
    proxy.throttle(Direction::ToServer, Some(1 << 20));
    let mut daemon = in_small_units(Link::new(&source, &target).target(&proxy.address())).start();
    wait_half_applied(&mut daemon, 200_000);
    daemon.kill();
    proxy.throttle(Direction::ToServer, None);
    let mut client = source.client();
    for key in 0..100 {
        client.command(&argv!["DEL", format!("ballast:{key}")]);
        client.command(&argv!["INCR", "later"]);
    }
    name_another_snapshot(&target, written(&source));
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(full_syncs(&source), 2);
}

/// Makes the checkpoint say what a run writes first that begins a snapshot at `offset`.
fn name_another_snapshot(target: &Server, offset: u64) {
    let mut connection = target.client();
    let keys = client::items(connection.command(&argv!["KEYS", "understudy:checkpoint:*"]));
    let [key] = keys.as_slice() else {
        panic!("{keys:?}");
    };
    let key = client::text(key);
    let value = client::text(&connection.command(&argv!["GET", &key]));
    let mut fields: Vec<&str> = value.split('|').collect();
    assert_eq!(fields[3], "snapshot", "{value}");
    let offset = offset.to_string();
    (fields[5], fields[6]) = (&offset, "0");
    connection.command(&argv!["SET", &key, fields.join("|")]);
}

#[test]
fn a_value_half_built_beside_keys_of_the_target_is_removed_by_the_next_run() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    for _ in 0..4_000 {
        client.command(&argv!["RPUSH", "long", rng.bytes(1_000)]);
    }
    target.client().command(&argv!["SET", "theirs", "1"]);
    let proxy = Proxy::start(&target.address());
    proxy.throttle(Direction::ToServer, Some(1 << 20));
    let with = |behaviour: &str| {
        in_small_units(Link::new(&source, &target).target(&proxy.address())).with(
            "advanced",
            &format!("rdb_restore_command_behavior = \"{behaviour}\""),
        )
    };
    let half_built = || {
        let keys = target.client().command(&argv!["KEYS", "understudy:tmp:*"]);
        client::items(keys).len()
    };
    let mut daemon = with("skip").start();
    wait_until("a value under construction", LIMIT, || half_built() == 1);
    daemon.kill();
    assert_eq!(half_built(), 1);
    proxy.throttle(Direction::ToServer, None);
    daemon.configure(&with("rewrite").text());
    daemon.spawn();
    wait_stream(&mut daemon);
    assert_eq!(half_built(), 0);
    assert!(daemon.output().contains("half built"));
    target.client().command(&argv!["DEL", "theirs"]);
    oracle::assert_equal(&source.address(), &target.address());
}
