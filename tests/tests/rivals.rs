//! Several links of one process into one target: keys that two of them write are named and counted, once each, whichever way they come;
//! all others are not.

use std::fs;

use e2e::{LIMIT, Link, link_to_cluster, source_of};
use serde_json::Value;
use testkit::daemon::STATUS_PORT;
use testkit::{Cluster, Daemon, Server, argv};

/// A daemon on these links, which are called l0, l1 and so on.
fn daemon(links: &[Link]) -> Daemon {
    let text = |at: usize| {
        let text = links[at].text();
        text.replace("name = \"e2e\"", &format!("name = \"l{at}\""))
    };
    let files: Vec<String> = (1..links.len()).map(|at| format!("{at}.toml")).collect();
    let mut args = vec!["sync", "shake.toml"];
    args.extend(files.iter().map(String::as_str));
    let mut daemon = Daemon::prepare(&text(0), &args);
    for (at, file) in files.iter().enumerate() {
        let port = daemon.status_port().to_string();
        let text = text(at + 1).replace(STATUS_PORT, &port);
        fs::write(daemon.folder().join(file), text).expect("write a file");
    }
    daemon.spawn();
    daemon
}

fn links(daemon: &Daemon) -> Vec<Value> {
    let status = daemon.status().unwrap_or_default();
    let links = status["understudy"]["links"].as_array();
    links.cloned().unwrap_or_default()
}

fn wait_streams(daemon: &mut Daemon, count: usize) {
    daemon.wait_for("the stream phase of all links", LIMIT, |daemon| {
        let links = links(daemon);
        links.len() == count && links.iter().all(|link| link["phase"] == "stream")
    });
}

fn fill(source: &Server, prefix: &str) {
    let mut client = source.client();
    for n in 0..500 {
        client.command(&argv!["SET", format!("{prefix}:{n}"), n]);
        client.command(&argv!["HSET", format!("{prefix}:hash:{n}"), "f", n]);
    }
}

fn conflicts(daemon: &Daemon) -> f64 {
    daemon
        .metric("understudy_key_conflicts_total")
        .unwrap_or(-1.0)
}

fn wait_conflicts(daemon: &mut Daemon, count: u32) {
    daemon.wait_for(&format!("{count} conflicts"), LIMIT, |daemon| {
        conflicts(daemon) >= f64::from(count)
    });
    assert_eq!(conflicts(daemon), f64::from(count));
}

/// Says `words` at both sources, and waits until each has come to the target.
fn at_both(sources: [&Server; 2], daemon: &mut Daemon, words: &[&str]) {
    for source in sources {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        source.client().command(&words);
    }
    let goals = sources.map(|source| (source.address(), e2e::written(source)));
    daemon.wait_for(&format!("{words:?} of both"), LIMIT, |daemon| {
        let links = links(daemon);
        goals.iter().all(|(address, goal)| {
            links.iter().any(|link| {
                link["source"] == address.as_str() && link["applied_offset"].as_u64() >= Some(*goal)
            })
        })
    });
}

#[test]
fn keys_of_two_sources_are_named_in_snapshot_and_stream() {
    let (a, b, target) = (
        source_of("redis-7.0"),
        source_of("redis-7.0"),
        Server::of("redis-7.0"),
    );
    fill(&a, "a");
    fill(&b, "b");
    for source in [&a, &b] {
        let mut client = source.client();
        client.command(&argv!["SET", "in both", "snapshots"]);
        client.command(&argv!["RPUSH", "a list", "1", "2"]);
        client.command(&argv!["SELECT", 3]);
        client.command(&argv!["SET", "a:1", "another database"]);
    }
    let link =
        |source| Link::new(source, &target).with("redis_writer", "existing_keys = \"replace\"");
    let mut daemon = daemon(&[link(&a), link(&b)]);
    wait_streams(&mut daemon, 2);
    wait_conflicts(&mut daemon, 3);
    for key in ["in both", "a list", "a:1"] {
        daemon.wait_for_output(&format!("key={key}"), LIMIT);
    }
    at_both([&a, &b], &mut daemon, &["INCR", "counter"]);
    wait_conflicts(&mut daemon, 4);
    let (named, output) = ("key=counter", daemon.output());
    let line = output.lines().find(|line| line.contains(named));
    let line = line.unwrap_or_else(|| panic!("{named} is not named\n{output}"));
    assert!(line.contains("l0") && line.contains("l1"), "{line}");
    // Again is no news; runs of plain SETs and what is read alone are looked at key by key.
    at_both([&a, &b], &mut daemon, &["INCR", "counter"]);
    at_both([&a, &b], &mut daemon, &["MSET", "m1", "1", "m2", "2"]);
    wait_conflicts(&mut daemon, 6);
    a.client().command(&argv!["SET", "only a", 1]);
    b.client().command(&argv!["SET", "only b", 1]);
    at_both([&a, &b], &mut daemon, &["SET", "both again", "1"]);
    wait_conflicts(&mut daemon, 7);
    let told: u64 = links(&daemon)
        .iter()
        .filter_map(|link| link["key_conflicts"].as_u64())
        .sum();
    assert_eq!(told, 7);
}

#[test]
fn links_into_one_cluster_are_compared_and_those_into_two_targets_are_not() {
    let (a, b) = (source_of("redis-7.0"), source_of("redis-7.0"));
    let (cluster, other) = (Cluster::start("redis-7.0", 3, 0), Server::of("redis-7.0"));
    let c = source_of("redis-7.0");
    fill(&a, "a");
    fill(&b, "b");
    for source in [&a, &b, &c] {
        source.client().command(&argv!["SET", "in all", "1"]);
    }
    let replaces = |link: Link| link.with("redis_writer", "existing_keys = \"replace\"");
    let mut daemon = daemon(&[
        replaces(link_to_cluster(&a, &cluster.address(0))),
        replaces(link_to_cluster(&b, &cluster.address(0))),
        replaces(Link::new(&c, &other)),
    ]);
    wait_streams(&mut daemon, 3);
    wait_conflicts(&mut daemon, 1);
    at_both([&a, &b], &mut daemon, &["SADD", "a set", "x"]);
    wait_conflicts(&mut daemon, 2);
    at_both([&a, &c], &mut daemon, &["SADD", "another set", "x"]);
    at_both([&a, &b], &mut daemon, &["SET", "last", "x"]);
    wait_conflicts(&mut daemon, 3);
}

#[test]
fn a_source_that_is_scanned_is_compared_too() {
    let (a, b, target) = (
        source_of("redis-7.0"),
        source_of("redis-7.0"),
        Server::of("redis-7.0"),
    );
    fill(&a, "a");
    fill(&b, "b");
    for source in [&a, &b] {
        let mut client = source.client();
        client.command(&argv!["CONFIG", "SET", "notify-keyspace-events", "AE"]);
        client.command(&argv!["SET", "in both", "1"]);
    }
    let link =
        |source| Link::new(source, &target).with("redis_writer", "existing_keys = \"replace\"");
    let mut daemon = daemon(&[
        link(&a),
        link(&b).scanning().with("scan_reader", "ksn = true"),
    ]);
    wait_conflicts(&mut daemon, 1);
    daemon.wait_for_output("key=in both", LIMIT);
    b.client().command(&argv!["SET", "a:7", "1"]);
    wait_conflicts(&mut daemon, 2);
}
