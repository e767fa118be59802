//! A target that falls to a baseline, as a burstable node does when its credits are used up: it is noticed, said, and gone on with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::{LIMIT, Link, own, source_of, wait_stream};
use testkit::proxy::{Direction, Proxy};
use testkit::{Cluster, Daemon, Server, argv};

/// Takes what the line gives until told to stop.
fn busy(source: &Server, mut daemon: Daemon, lines: &[Proxy]) -> Daemon {
    let slow = |rate: Option<u64>| {
        let share = rate.map(|rate| rate / lines.len() as u64);
        lines
            .iter()
            .for_each(|line| line.throttle(Direction::ToServer, share));
    };
    let told = |daemon: &Daemon| daemon.metric("understudy_target_throttled") == Some(1.0);
    slow(Some(4_000_000));
    wait_stream(&mut daemon);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = source.client();
            let value = "x".repeat(20_000);
            let mut at = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                let batch: Vec<_> = (0..50)
                    .map(|_| {
                        at += 1;
                        argv!["SET", format!("key:{}", at % 500), value]
                    })
                    .collect();
                client.commands(&batch);
                // Some more than the line takes at first.
                std::thread::sleep(Duration::from_millis(180));
            }
        });
        std::thread::sleep(Duration::from_secs(12));
        assert!(!told(&daemon), "{}", daemon.output());
        slow(Some(800_000));
        daemon.wait_for("the baseline to be noticed", LIMIT, told);
        slow(Some(50_000_000));
        daemon.wait_for("the end of it", LIMIT, |daemon| !told(daemon));
        stop.store(true, Ordering::Relaxed);
    });
    slow(None);
    let output = daemon.output();
    assert!(
        output.contains("a burstable node at its baseline")
            && output.contains("no longer throttled"),
        "{output}"
    );
    daemon
}

#[test]
fn a_server_at_its_baseline_is_noticed() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let line = Proxy::start(&target.address());
    let daemon = Link::new(&source, &target).target(&line.address()).start();
    let mut daemon = busy(&source, daemon, &[line]);
    e2e::catch_up(&mut daemon, &source);
    testkit::oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(own(&daemon, "reconnects_target").unwrap_or(0), 0);
}

#[test]
fn a_cluster_at_its_baseline_is_noticed() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let lines: Vec<Proxy> = cluster
        .servers
        .iter()
        .map(|server| Proxy::start(&server.address()))
        .collect();
    let ports: Vec<u16> = lines.iter().map(Proxy::port).collect();
    cluster.announce(&ports);
    let daemon = Link::between(&source.address(), &lines[0].address())
        .with("redis_writer", "cluster = true")
        .start();
    let mut daemon = busy(&source, daemon, &lines);
    e2e::catch_up(&mut daemon, &source);
    let own_ports: Vec<u16> = cluster.servers.iter().map(Server::port).collect();
    cluster.announce(&own_ports);
    e2e::assert_same_in_cluster(&mut daemon, &source, &cluster, None);
}
