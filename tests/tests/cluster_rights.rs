//! A user at a cluster who has the rights that `check` prints for it, and no others: with either way of keeping others out, every
//! kind of command arrives, over kills, a takeover and slots that move.

use std::time::Duration;

use e2e::{
    LIMIT, Link, assert_same_in_cluster, full_syncs, link_to_cluster, rng, run_file, source_of,
    wait_stream,
};
use testkit::client::Argv;
use testkit::daemon::STATUS_PORT;
use testkit::{Cluster, Server, Writer, argv};

const PASSWORD: &str = "of-the-least-rights";

/// The line that `check` prints for the user at the target.
fn printed(link: &Link) -> String {
    let text = link.text().replace(STATUS_PORT, "0");
    let args = ["check", "shake.toml", "--json", "--seconds", "1"];
    let ended = run_file(&args, Some(text.as_bytes()));
    let json: serde_json::Value =
        serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.everything()));
    let line = json["acl"]["target"].as_str().expect("a line");
    let (line, _) = line.split_once("    (").unwrap_or((line, ""));
    line.to_owned()
}

/// Each check's state and what it says, one a line.
fn findings(link: &Link) -> String {
    let text = link.text().replace(STATUS_PORT, "0");
    let ended = run_file(
        &["check", "shake.toml", "--seconds", "1"],
        Some(text.as_bytes()),
    );
    ended.stdout
}

fn give(cluster: &Cluster, line: &str) {
    let line = line.replace(">PASSWORD", &format!(">{PASSWORD}"));
    let user: Argv = line
        .split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect();
    for server in &cluster.servers {
        server
            .client()
            .command(&argv!["ACL", "SETUSER", "understudy", "reset"]);
        server.client().command(&user);
    }
}

fn link_of(source: &Server, cluster: &Cluster, fence: &str) -> Link {
    link_to_cluster(source, &cluster.address(0))
        .with("redis_writer", &format!("slot_fence = \"{fence}\""))
}

fn of_user(link: Link) -> Link {
    link.with("redis_writer", "username = \"understudy\"")
        .with("redis_writer", &format!("password = \"{PASSWORD}\""))
}

fn everything_arrives(fence: &str) {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 1));
    let link = link_of(&source, &cluster, fence);
    let line = printed(&link);
    println!("{line}");
    assert!(
        line.starts_with("ACL SETUSER understudy on >PASSWORD "),
        "{line}"
    );
    give(&cluster, &line);
    let link = of_user(link);
    let found = findings(&link);
    for check in [
        "target_rights",
        "slot_fence",
        "target_transaction",
        "target_words",
    ] {
        let is_well = found
            .lines()
            .any(|line| line.starts_with("pass") && line.contains(check));
        assert!(is_well, "{check}:\n{found}");
    }
    let writer = Writer::start_in_db_0(&source.address(), rng.number(), 1_500);
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    for round in 0..3 {
        // The moment is what is random here, so this one sleeps.
        std::thread::sleep(Duration::from_millis(300 + rng.below(500)));
        match round {
            0 => cluster.fail_over(3, "TAKEOVER"),
            1 => {
                for _ in 0..5 {
                    let slot = u16::try_from(rng.below(16_384)).expect("a slot");
                    let (from, slots) = (cluster.place_of(slot), cluster.slots());
                    let mut others = 0..cluster.servers.len();
                    let to = others
                        .find(|at| *at != from && slots.contains_key(&cluster.address(*at)))
                        .expect("another primary");
                    cluster.move_slot(slot, from, to);
                }
            }
            _ => {}
        }
        daemon.restart();
        wait_stream(&mut daemon);
    }
    std::thread::sleep(Duration::from_secs(1));
    writer.stop();
    assert_same_in_cluster(&mut daemon, &source, &cluster, None);
    assert_eq!(full_syncs(&source), 1, "{}", daemon.output());
    assert!(!daemon.output().contains("NOPERM"), "{}", daemon.output());
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0);
}

#[test]
fn with_the_rights_that_check_prints_others_are_kept_out_by_kill() {
    everything_arrives("auto");
}

#[test]
fn with_the_rights_that_check_prints_others_are_kept_out_by_scripts() {
    everything_arrives("lua");
}

#[test]
fn what_is_missing_is_found_before_the_start() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let link = link_of(&source, &cluster, "auto");
    let line = printed(&link);
    let link = of_user(link);
    for (rights, check, word) in [
        (
            &["+dump", "+asking"][..],
            "target_rights",
            "may not asking, dump",
        ),
        (
            &["+client|kill"],
            "slot_fence",
            "neither CLIENT KILL nor scripts",
        ),
    ] {
        let mut less = line.clone();
        for right in rights {
            less = less.replace(&format!(" {right}"), "");
        }
        give(&cluster, &less);
        let found = findings(&link);
        let line = found
            .lines()
            .find(|line| line.starts_with("fail") && line.contains(check))
            .unwrap_or_else(|| panic!("no {check}:\n{found}"));
        assert!(line.contains(word), "{line}");
    }
}
