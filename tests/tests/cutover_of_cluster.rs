//! The switch where the source is a cluster: every primary is fenced or none, every link stops where its primary is, one record says GO
//! for all of them. Under load nothing is lost, whatever dies on the way; a failover or a slot that moves in between calls it off.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use e2e::cutover::{Cutover, Done, cutover, our_keys};
use e2e::shards::{WORDS, assert_same, links, wait_streams};
use e2e::{LIMIT, Link, source_of};
use testkit::client::{Argv, text};
use testkit::process::wait_until;
use testkit::{Client, Cluster, Daemon, Server, argv};

/// Where the application is moved.
enum Target {
    One(Server),
    Many(Cluster),
}

impl Target {
    fn new(engine: &str, is_cluster: bool) -> Self {
        match is_cluster {
            false => Self::One(source_of(engine)),
            true => Self::Many(Cluster::start(engine, 2, 0)),
        }
    }

    fn ask(&self, argv: &Argv) -> String {
        match self {
            Self::One(server) => text(&server.client().command(argv)),
            Self::Many(cluster) => text(&cluster.read(argv)),
        }
    }

    fn slots(&self) -> BTreeMap<String, Vec<(u16, u16)>> {
        match self {
            Self::One(server) => BTreeMap::from([(server.address(), vec![(0, 16_383)])]),
            Self::Many(cluster) => cluster.slots(),
        }
    }

    /// Keys of ours.
    fn ours(&self) -> Vec<String> {
        match self {
            Self::One(server) => our_keys(server),
            Self::Many(cluster) => {
                let nodes = 0..cluster.servers.len();
                nodes.flat_map(|at| cluster.own_keys(at)).collect()
            }
        }
    }

    /// No switch is under way, or was made.
    fn assert_no_record(&self) {
        let left = self.ours();
        let is_there = left.iter().any(|key| key.ends_with(":cutover"));
        assert!(!is_there, "{left:?}");
    }

    fn link(&self, source: &Cluster) -> Link {
        let address = match self {
            Self::One(server) => server.address(),
            Self::Many(cluster) => cluster.address(0),
        };
        let link = Link::between(&source.address(0), &address)
            .with("sync_reader", "cluster = true")
            .with("advanced", "admin_token = \"hush\"")
            .with("cutover", "watch_clients = \"1s\"")
            .with("cutover", "pause = \"3s\"");
        match self {
            Self::One(_) => link,
            Self::Many(_) => link.with("redis_writer", "cluster = true"),
        }
    }
}

/// A key in a slot of the node at this place, which has it at first.
fn key_at(source: &Cluster, at: usize) -> String {
    let slots = source.slots()[&source.address(at)].clone();
    let keys = (0..).map(|n| format!("app:{n}"));
    let is_there = |key: &String| {
        let slot = source.slot(key);
        slots
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&slot))
    };
    keys.take(10_000).find(is_there).expect("a key")
}

/// Counters and lists at each of the first three nodes, whatever is refused meanwhile.
struct Load {
    stop: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(source: &Cluster) -> Self {
        let (stop, written) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let threads = ALL.map(|at| {
            let (stop, written) = (stop.clone(), written.clone());
            let (address, key) = (source.address(at), key_at(source, at));
            std::thread::spawn(move || {
                let mut client = Client::connect(&address);
                for n in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let argv = match n % 3 {
                        0 => argv!["INCR", format!("{{{key}}}:count:{}", n % 50)],
                        1 => argv!["RPUSH", format!("{{{key}}}:list:{}", n % 20), n],
                        _ => argv!["HINCRBY", format!("{{{key}}}:hash:{}", n % 30), n % 7, 1],
                    };
                    if client.try_command(&argv).is_ok() {
                        written.fetch_add(1, Ordering::Relaxed);
                    }
                    // The rate, not a moment.
                    std::thread::sleep(Duration::from_millis(2));
                }
            })
        });
        Self {
            stop,
            written,
            threads: threads.into(),
        }
    }

    fn wait_more(&self, more: u64) {
        let goal = self.written.load(Ordering::Relaxed) + more;
        wait_until("writes", LIMIT, || {
            self.written.load(Ordering::Relaxed) >= goal
        });
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("the load ends well");
        }
    }
}

/// Counts a key up at its node until that is refused; how often it was acknowledged.
fn count(address: String, key: String) -> JoinHandle<u64> {
    std::thread::spawn(move || {
        let mut client = Client::connect(&address);
        let mut acknowledged = 0;
        while client.try_command(&argv!["INCR", &key]).is_ok() {
            acknowledged += 1;
        }
        acknowledged
    })
}

/// Whether the default user may write at the node, now.
fn may_write(source: &Cluster, at: usize) -> bool {
    let key = format!("{{{}}}:probe", key_at(source, at));
    let mut client = source.servers[at].client();
    client
        .raw()
        .set_read_timeout(Some(Duration::from_millis(300)))
        .expect("set a limit");
    client.try_command(&argv!["SET", &key, 1]).is_ok()
        && client.try_command(&argv!["DEL", &key]).is_ok()
}

fn wait_may_write(source: &Cluster, places: &[usize]) {
    wait_until("all primaries to take writes", LIMIT, || {
        places.iter().all(|at| may_write(source, *at))
    });
}

fn stages(daemon: &Daemon) -> Vec<String> {
    let links = links(daemon);
    let stage = |link: &serde_json::Value| link["cutover"]["stage"].as_str().map(str::to_owned);
    links.iter().filter_map(stage).collect()
}

fn wait_stage(daemon: &mut Daemon, stage: &str, count: usize) {
    daemon.wait_for(
        &format!("the stage {stage} of all links"),
        LIMIT,
        |daemon| {
            let stages = stages(daemon);
            stages.len() == count && stages.iter().all(|now| now == stage)
        },
    );
}

const ALL: [usize; 3] = [0, 1, 2];

fn moved_under_load(from: &str, to: &str, is_cluster: bool) {
    let mut source = Cluster::start_with(from, 3, 1, WORDS);
    let target = Target::new(to, is_cluster);
    let mut daemon = target.link(&source).start();
    wait_streams(&mut daemon, 3);
    let keys: Vec<String> = ALL.iter().map(|at| key_at(&source, *at)).collect();
    let writers: Vec<JoinHandle<u64>> = ALL
        .iter()
        .map(|at| count(source.address(*at), keys[*at].clone()))
        .collect();
    let args = ["--yes", "--watch", "1s", "--compare", "full"];
    let done = cutover(&daemon, &args).assert_ok();
    for step in ["gate", "fence", "proof", "compare", "seal", "go", "done"] {
        assert_eq!(done.step(step)["ok"], true, "{done}");
    }
    let told = done.to_string();
    assert!(told.contains("3 primaries have all slots"), "{done}");
    assert!(told.contains("at 3 primaries"), "{done}");
    let held = done.step("go")["fence_seconds"].as_f64().expect("a time");
    println!("{from} to {to}: writes were held back for {held:.3} s");
    let counts: Vec<u64> = writers
        .into_iter()
        .map(|writer| writer.join().expect("a writer"))
        .collect();
    for (key, count) in keys.iter().zip(&counts) {
        assert!(*count > 0);
        assert_eq!(target.ask(&argv!["GET", key]), count.to_string());
    }
    wait_stage(&mut daemon, "go", 3);
    // Replicas too: one that is made a primary keeps writes away.
    source.fail_over(3, "TAKEOVER");
    source.wait_whole();
    assert!(!may_write(&source, 3) && !may_write(&source, 1));
    // What the application writes now stays, whatever becomes of the daemon and of the old cluster: a slot moves to a shard
    // that is new, and what is written there is nobody's.
    for key in &keys {
        target.ask(&argv!["SET", key, "new"]);
    }
    cutover(&daemon, &["--unfence"]).assert_ok();
    wait_may_write(&source, &[1, 2, 3]);
    source.servers[1].client().command(&argv!["INCR", &keys[1]]);
    let new = source.add_with(from, WORDS);
    source.move_slot(source.slot(&keys[2]), 2, new);
    source.servers[new]
        .client()
        .command(&argv!["INCR", &keys[2]]);
    daemon.wait_for("the shard that has come too late", LIMIT, |daemon| {
        daemon.output().contains("has come behind the switch")
    });
    assert_eq!(links(&daemon).len(), 3);
    daemon.restart();
    daemon.wait_for(
        "the switch to be known, and the late write",
        LIMIT,
        |daemon| {
            let late = |link: &serde_json::Value| link["cutover"]["late_writes"]["total"].as_u64();
            stages(daemon) == ["go", "go", "go"]
                && links(daemon).iter().filter_map(late).sum::<u64>() >= 1
        },
    );
    assert_eq!(cutover(&daemon, &["--undo"]).code, 1);
    let done = cutover(&daemon, &["--stragglers"]).assert_ok();
    assert!(done.to_string().contains("late writes (app: "), "{done}");
    for key in &keys {
        assert_eq!(target.ask(&argv!["GET", key]), "new");
    }
    let done = cutover(&daemon, &["--finish", "--yes", "--remove-spool"]).assert_ok();
    println!("{}", done.step("keys")["text"]);
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    assert_eq!(target.ours(), Vec::<String>::new());
    let spool = daemon.folder().join("data/spool");
    let left: Vec<_> = std::fs::read_dir(spool).expect("a folder").collect();
    assert!(left.is_empty(), "{left:?}");
    for key in &keys {
        assert_eq!(target.ask(&argv!["GET", key]), "new");
    }
}

#[test]
fn an_application_is_moved_from_a_cluster_to_one_server() {
    moved_under_load("redis-7.0", "redis-7.0", false);
}

#[test]
fn an_application_is_moved_from_a_cluster_to_another() {
    moved_under_load("redis-8.0", "valkey-9.1", true);
}

/// The gate looks at the lag for seconds yet. (In small steps all of it would take long.)
fn near_the_end_of_the_gate(running: &Cutover) {
    wait_until("the gate to look at the lag", LIMIT, || {
        running.steps().iter().any(|step| step["check"] == "verify")
    });
}

/// Dies at each step, and is taken back: by itself where that can be, else by `--undo`.
fn dies(is_cluster: bool) {
    let source = Cluster::start_with("redis-7.0", 3, 0, WORDS);
    let target = Target::new("redis-7.0", is_cluster);
    let load = Load::start(&source);
    let mut daemon = target.link(&source).start();
    wait_streams(&mut daemon, 3);
    let steps: &[&str] = match is_cluster {
        false => &["fence", "proof", "compare", "seal"],
        true => &["proof", "seal"],
    };
    for step in steps {
        let running = Cutover::start(&daemon, &["--yes", "--watch", "1s"]);
        near_the_end_of_the_gate(&running);
        running.stop_at(step);
        running.kill();
        cutover(&daemon, &["--undo"]).assert_ok();
        wait_may_write(&source, &ALL);
        wait_stage(&mut daemon, "replicating", 3);
        load.wait_more(100);
    }
    load.stop();
    assert_same(&mut daemon, &source, &target.slots(), 50);
    target.assert_no_record();
    // Behind GO nothing is taken back by itself, and the links find it out by the target.
    let running = Cutover::start(&daemon, &["--yes", "--watch", "1s"]);
    near_the_end_of_the_gate(&running);
    running.stop_at("go");
    running.kill();
    daemon.restart();
    wait_stage(&mut daemon, "go", 3);
    let key = key_at(&source, 0);
    target.ask(&argv!["SET", &key, "new"]);
    cutover(&daemon, &["--unfence"]).assert_ok();
    wait_may_write(&source, &ALL);
    source.servers[0]
        .client()
        .command(&argv!["SET", &key, "late"]);
    daemon.wait_for("the late write", LIMIT, |daemon| {
        let late = |link: &serde_json::Value| link["cutover"]["late_writes"]["total"].as_u64();
        links(daemon).iter().filter_map(late).sum::<u64>() >= 1
    });
    assert_eq!(target.ask(&argv!["GET", &key]), "new");
}

#[test]
fn a_cutover_from_a_cluster_that_dies_is_taken_back() {
    dies(false);
}

#[test]
fn also_into_a_cluster() {
    dies(true);
}

/// Stops a cutover behind a step, does something, and lets it go on.
fn disturbed(daemon: &Daemon, name: &str, disturb: impl FnOnce()) -> Done {
    let args = ["--yes", "--watch", "1s", "--compare", "none"];
    let running = Cutover::start(daemon, &args);
    let is_it = |step: &serde_json::Value| step["step"] == name || step["check"] == name;
    near_the_end_of_the_gate(&running);
    running.stop_when(name, is_it);
    disturb();
    running.go_on();
    running.wait()
}

/// Whoever may do everything at this node, whatever becomes of the others' rights.
fn root(source: &Cluster, at: usize) -> Client {
    let mut client = source.servers[at].client();
    client.command(&argv!["AUTH", "root", "x"]);
    client
}

/// What changes at the source between the gate and GO calls all off, and all is as before.
fn called_off(is_cluster: bool) {
    let source = Cluster::start_with("redis-7.0", 3, 1, WORDS);
    for server in &source.servers {
        let root = argv!["ACL", "SETUSER", "root", "on", ">x", "~*", "&*", "+@all"];
        server.client().command(&root);
    }
    let target = Target::new("redis-7.0", is_cluster);
    let load = Load::start(&source);
    let mut daemon = target.link(&source).start();
    wait_streams(&mut daemon, 3);
    let undone = |daemon: &mut Daemon, done: &Done, word: &str, places: &[usize]| {
        assert_eq!(done.code, 1, "{done}");
        assert!(done.to_string().contains(word), "{word}: {done}");
        assert!(!done.has("go"), "{done}");
        wait_may_write(&source, places);
        wait_stage(daemon, "replicating", 3);
        load.wait_more(100);
    };
    let rights = |words: &[&str]| {
        let mut argv = argv!["ACL", "SETUSER", "default"];
        argv.extend(words.iter().map(|word| word.as_bytes().to_vec()));
        root(&source, 2).command(&argv);
    };
    // What the target is makes no difference to these.
    if !is_cluster {
        // One primary refuses the fence: it is taken down at the others.
        let done = disturbed(&daemon, "lag", || rights(&["-client|pause"]));
        rights(&["+@all"]);
        undone(&mut daemon, &done, "pause", &ALL);
        // At the gate it is named.
        rights(&["-client|pause", "-acl", "-config"]);
        let done = cutover(&daemon, &["--check"]);
        rights(&["+@all"]);
        assert_eq!(done.code, 1, "{done}");
        assert!(done.to_string().contains(&source.address(2)), "{done}");
        // A slot is on its way, at the gate or under the fence.
        let slot = source.slots()[&source.address(0)][0].0;
        let begin = |to: usize| {
            let (from_id, to_id) = (source.id(0), source.id(to));
            let word = |at: usize, word: &str, id: String| {
                let argv = argv!["CLUSTER", "SETSLOT", slot, word, id];
                source.servers[at].client().command(&argv);
            };
            word(to, "IMPORTING", from_id);
            word(0, "MIGRATING", to_id);
        };
        begin(1);
        let done = cutover(&daemon, &["--check"]);
        assert_eq!(done.code, 1, "{done}");
        assert!(
            done.to_string()
                .contains(&format!("slot {slot} is on its way")),
            "{done}"
        );
        for at in [0, 1] {
            let stable = argv!["CLUSTER", "SETSLOT", slot, "STABLE"];
            source.servers[at].client().command(&stable);
        }
        let done = disturbed(&daemon, "proof", || begin(1));
        undone(
            &mut daemon,
            &done,
            &format!("slot {slot} of the source has begun to move"),
            &ALL,
        );
        source.move_slot(slot, 0, 1);
    }
    // Another process of the same links begins: it knows nothing of the hold.
    let done = {
        let args = ["--yes", "--watch", "1s", "--compare", "none"];
        let running = Cutover::start(&daemon, &args);
        near_the_end_of_the_gate(&running);
        running.stop_at("proof");
        daemon.restart();
        wait_streams(&mut daemon, 3);
        running.go_on();
        running.wait()
    };
    undone(&mut daemon, &done, "", &ALL);
    // A replica takes over under the fence.
    let done = disturbed(&daemon, "proof", || source.fail_over(3, "TAKEOVER"));
    let places = [1, 2, 3];
    undone(
        &mut daemon,
        &done,
        "is no primary of the source any more",
        &places,
    );
    source.wait_whole();
    source.wait_replicas();
    wait_streams(&mut daemon, 3);
    load.wait_more(100);
    load.stop();
    assert_same(&mut daemon, &source, &target.slots(), 50);
    target.assert_no_record();
    cutover(&daemon, &["--check"]).assert_ok();
}

#[test]
fn what_changes_at_the_source_calls_it_off() {
    called_off(false);
}

#[test]
fn also_on_the_way_into_a_cluster() {
    called_off(true);
}

/// A cutover that stands still for longer than its word lasts makes no switch any more: sync has gone on.
#[test]
fn a_cutover_that_was_too_slow_makes_no_switch() {
    let source = Cluster::start_with("redis-7.0", 3, 0, WORDS);
    let target = Target::new("redis-7.0", true);
    let load = Load::start(&source);
    let mut daemon = target.link(&source).start();
    wait_streams(&mut daemon, 3);
    let done = disturbed(&daemon, "proof", || {
        wait_may_write(&source, &ALL);
        load.wait_more(300);
        wait_until("the links to go on", LIMIT, || {
            let stages = stages(&daemon);
            stages.len() == 3 && stages.iter().all(|now| now == "replicating")
        });
    });
    assert_eq!(done.code, 1, "{done}");
    assert!(!done.has("go"), "{done}");
    wait_may_write(&source, &ALL);
    load.stop();
    assert_same(&mut daemon, &source, &target.slots(), 50);
}

#[test]
fn what_a_source_cluster_cannot_have_is_refused_by_name() {
    let text = "[sync_reader]\naddress = \"127.0.0.1:1\"\ncluster = true\n[redis_writer]\naddress = \"127.0.0.1:2\"\n[advanced]\nstatus_port = 1\nadmin_token = \"x\"\n";
    for (text, args, word) in [
        (
            format!("shards = \"1/2\"\n{text}"),
            "--check",
            "one has to run all of its links",
        ),
        (
            text.to_owned(),
            "--reverse",
            "no way back to a source cluster",
        ),
        (text.to_owned(), "--late-writes=apply", "say hold"),
    ] {
        let ended = e2e::run_file(&["cutover", "shake.toml", args], Some(text.as_bytes()));
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(ended.stderr.contains(word), "{}", ended.stderr);
    }
}
