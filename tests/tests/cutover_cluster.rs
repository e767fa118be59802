//! The switch to a target that is a cluster, or that has the source's databases under other names: under load without losing a write,
//! compared before GO, undone where something is in the way, and nothing of ours is left in any slot.

use e2e::cutover::{Cutover, count_until_refused, cutover, may_write, our_keys, shown};
use e2e::{
    LIMIT, Link, assert_same_in_cluster, catch_up, link_to_cluster, rng, source_of, wait_stream,
};
use testkit::client::text;
use testkit::workload::fill_dbs;
use testkit::{Cluster, Counters, Daemon, Server, argv};

/// A link whose daemon takes orders.
fn taking_orders(link: Link) -> Link {
    link.with("advanced", "admin_token = \"hush\"")
        .with("cutover", "watch_clients = \"1s\"")
}

fn link(source: &Server, cluster: &Cluster) -> Link {
    taking_orders(link_to_cluster(source, &cluster.address(0)))
}

/// Keys of ours at any node.
fn ours(cluster: &Cluster) -> Vec<String> {
    let nodes = 0..cluster.servers.len();
    nodes.flat_map(|at| cluster.own_keys(at)).collect()
}

fn count_in(cluster: &Cluster) -> String {
    text(&cluster.read(&argv!["GET", "app:count"]))
}

fn moved_under_load(source: &str, target: &str, fence: &str) {
    let mut rng = rng();
    let (source, cluster) = (source_of(source), Cluster::start(target, 3, 0));
    fill_dbs(&mut source.client(), rng.number(), 2_000, &[0]);
    // In the slot that is written most it has a longer life at first, too, and gets its own back.
    source
        .client()
        .command(&argv!["SETEX", "{app:count}:session", 300, "v"]);
    let mut daemon = link(&source, &cluster)
        .with("redis_writer", &format!("slot_fence = \"{fence}\""))
        .start();
    wait_stream(&mut daemon);
    let writers: Vec<_> = (0..3)
        .map(|_| count_until_refused(source.address()))
        .collect();
    let args = ["--yes", "--watch", "2s", "--compare", "full"];
    let done = cutover(&daemon, &args).assert_ok();
    for step in ["gate", "fence", "proof", "compare", "seal", "go", "done"] {
        assert_eq!(done.step(step)["ok"], true, "{done}");
    }
    let told = done.to_string();
    assert!(told.contains("a cluster of 3 primaries"), "{done}");
    let compared = done.step("compare")["text"].to_string();
    assert!(compared.contains("keys compared, no difference"), "{done}");
    let held = done.step("go")["fence_seconds"].as_f64().expect("a time");
    println!(
        "{}: writes were held back for {held:.3} s",
        source.engine().name
    );
    let acknowledged: u64 = writers
        .into_iter()
        .map(|writer| writer.join().expect("a writer"))
        .sum();
    assert!(acknowledged > 0);
    assert_eq!(count_in(&cluster), acknowledged.to_string());
    assert_eq!(shown(&daemon)["stage"], "go");
    assert!(!may_write(&source));
    // What the application writes now stays, whatever becomes of the daemon and of the old server.
    cluster.read(&argv!["SET", "app:count", "new"]);
    cutover(&daemon, &["--unfence"]).assert_ok();
    assert!(may_write(&source));
    source.client().command(&argv!["INCR", "app:count"]);
    source.client().command(&argv!["FLUSHALL"]);
    daemon.restart();
    daemon.wait_for(
        "the switch to be known, and the late write",
        LIMIT,
        |daemon| {
            shown(daemon)["stage"] == "go"
                && shown(daemon)["late_writes"]["total"].as_u64() >= Some(1)
        },
    );
    assert_eq!(count_in(&cluster), "new");
    assert_eq!(cutover(&daemon, &["--undo"]).code, 1);
    cutover(&daemon, &["--stragglers"]).assert_ok();
    assert!(ours(&cluster).len() > 3);
    let done = cutover(&daemon, &["--finish", "--yes", "--remove-spool"]).assert_ok();
    println!("{}", done.step("keys")["text"]);
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    assert_eq!((ours(&cluster), our_keys(&source)), (vec![], vec![]));
    assert_eq!(count_in(&cluster), "new");
}

#[test]
fn an_application_is_moved_into_a_cluster_without_losing_a_write() {
    moved_under_load("redis-7.0", "redis-7.0", "kill");
}

#[test]
fn also_into_the_newest_and_by_scripts() {
    moved_under_load("redis-8.0", "valkey-9.1", "lua");
}

/// All is as before, and sync goes on to follow.
fn assert_undone(daemon: &mut Daemon, source: &Server, cluster: &Cluster, counters: Counters) {
    daemon.wait_for("the old stage", LIMIT, |daemon| {
        shown(daemon)["stage"] == "replicating"
    });
    assert!(may_write(source));
    let ledger = counters.stop();
    assert_same_in_cluster(daemon, source, cluster, Some(&ledger));
    let left = ours(cluster);
    assert!(
        !left.iter().any(|key| key.ends_with(":cutover")),
        "{left:?}"
    );
}

#[test]
fn a_cluster_that_differs_is_none_to_switch_to() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    source.client().command(&argv!["SET", "fixed", "v"]);
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 300);
    let mut daemon = link(&source, &cluster).start();
    wait_stream(&mut daemon);
    cluster.read(&argv!["SET", "fixed", "spoilt"]);
    let args = ["--yes", "--watch", "1s", "--compare", "full"];
    let done = cutover(&daemon, &args);
    assert_eq!(done.code, 1, "{done}");
    let told = done.to_string();
    assert!(told.contains("fixed") && told.contains("1 of "), "{done}");
    assert!(!done.has("fence"), "{done}");
    cluster.read(&argv!["SET", "fixed", "v"]);
    assert_undone(&mut daemon, &source, &cluster, counters);
}

#[test]
fn a_cutover_into_a_cluster_that_dies_is_taken_back() {
    let mut rng = rng();
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 300);
    let mut daemon = link(&source, &cluster)
        .with("cutover", "pause = \"2s\"")
        .start();
    wait_stream(&mut daemon);
    for step in ["fence", "proof"] {
        let running = Cutover::start(&daemon, &["--yes", "--watch", "1s"]);
        running.stop_at(step);
        running.kill();
        cutover(&daemon, &["--undo"]).assert_ok();
        assert!(may_write(&source));
    }
    assert_undone(&mut daemon, &source, &cluster, counters);
}

/// What one of the nodes suffers from is told with its address.
#[test]
fn a_node_in_trouble_is_named_at_the_gate() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    source.client().command(&argv!["SET", "a", 1]);
    let mut daemon = link(&source, &cluster).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    cutover(&daemon, &["--check"]).assert_ok();
    let mut node = cluster.servers[2].client();
    node.command(&argv!["CONFIG", "SET", "maxmemory", "1mb"]);
    let done = cutover(&daemon, &["--check"]);
    assert_eq!(done.code, 1, "{done}");
    let told = format!("{}: ", cluster.address(2));
    assert!(done.to_string().contains(&told), "{done}");
    assert!(
        done.to_string().contains("% of its memory is used"),
        "{done}"
    );
}

/// Databases under other names are compared before the switch, and what differs there is in the way.
#[test]
fn databases_under_other_names_are_compared_before_the_switch() {
    for (map, at, name) in [("\"prefix\"", 0, "db3:fixed"), ("{ 3 = 7 }", 7, "fixed")] {
        let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
        let mut client = source.client();
        client.select(3);
        client.command(&argv!["SET", "fixed", "v"]);
        let link = Link::new(&source, &target).with("redis_writer", &format!("db_map = {map}"));
        let mut daemon = taking_orders(link).start();
        wait_stream(&mut daemon);
        let mut at_target = target.client();
        at_target.select(at);
        at_target.command(&argv!["SET", name, "spoilt"]);
        let args = ["--yes", "--watch", "1s", "--compare", "full"];
        let done = cutover(&daemon, &args);
        assert_eq!(done.code, 1, "{map}: {done}");
        assert!(
            done.to_string().contains("1 of 1 keys differ"),
            "{map}: {done}"
        );
        at_target.command(&argv!["SET", name, "v"]);
        let done = cutover(&daemon, &args).assert_ok();
        assert_eq!(done.step("go")["ok"], true, "{done}");
        cutover(&daemon, &["--finish", "--yes"]).assert_ok();
        assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
        assert_eq!(our_keys(&target), Vec::<String>::new());
    }
}
