//! Several links in one process: each has its own files, one status port tells of all of them, and one that cannot go on
//! does not stop the others.

use std::fs;

use e2e::{LIMIT, Link, rng, run_file, source_of};
use serde_json::Value;
use testkit::daemon::STATUS_PORT;
use testkit::{Counters, Daemon, Server, argv, oracle};

/// A daemon on one file for each pair, all with one status port; the links are called l0, l1 and so on.
fn daemon(pairs: &[(&Server, &Server)]) -> Daemon {
    let text = |at: usize| {
        let (source, target) = pairs[at];
        let text = Link::new(source, target).text();
        text.replace("name = \"e2e\"", &format!("name = \"l{at}\""))
    };
    let files: Vec<String> = (1..pairs.len()).map(|at| format!("{at}.toml")).collect();
    let mut args = vec!["sync", "shake.toml"];
    args.extend(files.iter().map(String::as_str));
    let daemon = Daemon::prepare(&text(0), &args);
    let port = fs::read_to_string(daemon.folder().join("shake.toml")).unwrap();
    let port = port
        .lines()
        .find_map(|line| line.strip_prefix("status_port = "));
    for (at, file) in files.iter().enumerate() {
        let text = text(at + 1).replace(STATUS_PORT, port.expect("a status port"));
        fs::write(daemon.folder().join(file), text).unwrap();
    }
    daemon
}

fn links(daemon: &Daemon) -> Vec<Value> {
    let status = daemon.status().unwrap_or_default();
    let links = status["understudy"]["links"].as_array();
    links.cloned().unwrap_or_default()
}

fn wait_ready(daemon: &mut Daemon) {
    daemon.wait_for("/readyz to say yes", LIMIT, |daemon| {
        daemon.get("/readyz").is_some_and(|(code, _)| code == 200)
    });
}

#[test]
fn three_links_in_one_process_are_exact_over_a_kill() {
    let mut rng = rng();
    let sources: Vec<Server> = (0..3).map(|_| source_of("redis-7.0")).collect();
    let targets: Vec<Server> = (0..3).map(|_| Server::of("redis-7.0")).collect();
    let pairs: Vec<_> = sources.iter().zip(&targets).collect();
    let counters: Vec<Counters> = sources
        .iter()
        .map(|source| Counters::start(&source.address(), rng.number(), 500))
        .collect();
    let mut daemon = daemon(&pairs);
    daemon.spawn();
    wait_ready(&mut daemon);
    daemon.restart();
    wait_ready(&mut daemon);
    let names: Vec<_> = links(&daemon)
        .iter()
        .map(|link| link["link"].clone())
        .collect();
    assert_eq!(names, ["l0", "l1", "l2"]);
    let status = daemon.status().unwrap();
    assert_eq!(status["reader"].as_array().map(Vec::len), Some(3));
    let metrics = daemon.metrics();
    let offsets = metrics
        .keys()
        .filter(|name| name.starts_with("understudy_applied_offset_bytes{"));
    assert_eq!(offsets.count(), 3);
    let ledgers: Vec<_> = counters.into_iter().map(Counters::stop).collect();
    for (at, (source, target)) in pairs.iter().enumerate() {
        let goal = e2e::written(source);
        daemon.wait_for("everything to be applied", LIMIT, |daemon| {
            let link = links(daemon).into_iter().nth(at).unwrap_or_default();
            link["applied_offset"].as_u64() >= Some(goal)
        });
        ledgers[at].assert_at(&target.address());
    }
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    for (source, target) in &pairs {
        oracle::assert_equal(&source.address(), &target.address());
        assert_eq!(e2e::full_syncs(source), 1);
    }
}

#[test]
fn a_link_that_cannot_go_on_leaves_the_others_alone() {
    let sources: Vec<Server> = (0..2).map(|_| source_of("redis-7.0")).collect();
    let targets: Vec<Server> = (0..2).map(|_| Server::of("redis-7.0")).collect();
    let pairs: Vec<_> = sources.iter().zip(&targets).collect();
    sources[1].client().command(&argv!["SET", "k", "v"]);
    let mut daemon = daemon(&pairs);
    daemon.spawn();
    wait_ready(&mut daemon);
    targets[1].client().command(&argv!["FLUSHALL"]);
    sources[1].client().command(&argv!["SET", "k", "w"]);
    daemon.wait_for("/healthz to name the link", LIMIT, |daemon| {
        daemon.get("/healthz") == Some((503, "l1: stopped\n".into()))
    });
    sources[0].client().command(&argv!["SET", "k", "v"]);
    let goal = e2e::written(&sources[0]);
    daemon.wait_for("the other link to go on", LIMIT, |daemon| {
        let link = links(daemon).into_iter().next().unwrap_or_default();
        link["applied_offset"].as_u64() >= Some(goal)
    });
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 4, "{}", daemon.output());
    assert!(daemon.output().contains("the other links go on"));
    oracle::assert_equal(&sources[0].address(), &targets[0].address());
}

#[test]
fn two_files_of_one_link_are_refused_by_name() {
    let (source, target) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    let folder = tempfile::TempDir::new().unwrap();
    let text = Link::new(&source, &target).text().replace(STATUS_PORT, "0");
    let file = |name: &str| {
        let path = folder.path().join(name);
        fs::write(&path, &text).unwrap();
        path.display().to_string()
    };
    let (one, two) = (file("one.toml"), file("two.toml"));
    let ended = run_file(&["sync", &one, &two], None);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(
        ended.stderr.contains("one.toml and") && ended.stderr.contains("link.name"),
        "{}",
        ended.stderr
    );
}
