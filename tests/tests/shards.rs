//! A source cluster that several processes share (`shards = "i/n"`), into one target: slots move between shards of different processes,
//! primaries fail, processes are killed, begin elsewhere without anything of their own, and come back when they were given up.
//! The oracle is the source itself: its counters, lists and streams differ after anything that is lost or done twice.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use e2e::{LIMIT, Link, from_env, full_syncs, rng, run_file, source_of, written};
use serde_json::Value;
use testkit::oracle::{self, OracleOptions};
use testkit::process::{self, Signal, wait_until};
use testkit::{Client, Cluster, ClusterWriter, Daemon, Rng, Server, argv};

/// Nobody waits for others before a snapshot, and no failover outlasts the backlog.
const WORDS: &str = "--repl-diskless-sync-delay 0 --repl-backlog-size 64mb";

/// The shake.toml of slice i of n.
fn config(source: &Cluster, target: &Server, slice: &str) -> String {
    let live = source.servers.iter().find(|server| server.answers());
    let address = live.expect("a node answers").address();
    let link = Link::between(&address, &target.address()).with("sync_reader", "cluster = true");
    format!("shards = \"{slice}\"\n{}", link.text())
}

/// Processes for all slices, each in a folder of its own.
fn start(source: &Cluster, target: &Server, of: usize) -> Vec<Daemon> {
    (1..=of)
        .map(|at| Daemon::start(&config(source, target, &format!("{at}/{of}"))))
        .collect()
}

/// What a process says of its links.
fn links(daemon: &Daemon) -> Vec<Value> {
    let status = daemon.status().unwrap_or_default();
    let own = &status["understudy"];
    match &own["links"] {
        Value::Array(links) => links.clone(),
        _ if own["link"].is_string() => vec![own.clone()],
        _ => Vec::new(),
    }
}

fn all_links(daemons: &[Daemon]) -> Vec<Value> {
    daemons.iter().flat_map(links).collect()
}

fn number(link: &Value, field: &str) -> u64 {
    link[field].as_u64().unwrap_or(0)
}

fn show(daemons: &[Daemon]) -> String {
    let shown = daemons.iter().map(|daemon| {
        let output = daemon.output();
        let lines: Vec<&str> = output.lines().rev().take(25).collect();
        format!("{:#?}\n{}\n", links(daemon), lines.join("\n"))
    });
    shown.collect()
}

/// Waits until `done`, with all processes running.
fn wait(daemons: &mut [Daemon], what: &str, done: impl Fn(&[Daemon]) -> bool) {
    let from = Instant::now();
    while !done(daemons) {
        let ended = daemons.iter_mut().position(|daemon| !daemon.is_running());
        assert!(
            ended.is_none() && from.elapsed() < LIMIT,
            "waited for {what}, process {ended:?} has ended\n{}",
            show(daemons)
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn wait_streams(daemons: &mut [Daemon], count: usize) {
    wait(daemons, "the stream phase of all shards", |daemons| {
        let links = all_links(daemons);
        links.len() == count && links.iter().all(|link| link["phase"] == "stream")
    });
}

fn writer(source: &Cluster, rng: &mut Rng) -> ClusterWriter {
    let nodes: Vec<String> = (0..3).map(|at| source.address(at)).collect();
    ClusterWriter::start(&nodes, rng.number(), 2000)
}

fn wait_writes(writer: &ClusterWriter, more: u64) {
    let goal = writer.answered() + more;
    wait_until("writes", LIMIT, || writer.answered() >= goal);
}

/// Waits until every shard's stream is applied as far as it is written and every slot is where it belongs; then both ends are equal.
fn assert_same(daemons: &mut [Daemon], source: &Cluster, target: &Server) {
    source.wait_whole();
    let slots: BTreeMap<String, u64> = source
        .slots()
        .into_iter()
        .map(|(address, ranges)| {
            let count = ranges
                .iter()
                .map(|(first, last)| u64::from(last - first) + 1);
            (address, count.sum())
        })
        .collect();
    let servers = source.servers.iter();
    let goals: BTreeMap<String, u64> = servers
        .filter(|server| slots.contains_key(&server.address()))
        .map(|server| (server.address(), written(server)))
        .collect();
    wait(daemons, &format!("{goals:?}, {slots:?}"), |daemons| {
        let links = all_links(daemons);
        goals.iter().all(|(address, goal)| {
            links.iter().any(|link| {
                link["source"] == address.as_str()
                    && number(link, "applied_offset") >= *goal
                    && number(link, "slots_held") == slots[address]
            })
        })
    });
    wait(daemons, "readiness", |daemons| {
        let is_ready = |daemon: &Daemon| daemon.get("/readyz").is_some_and(|(code, _)| code == 200);
        daemons.iter().all(is_ready)
            && all_links(daemons)
                .iter()
                .all(|link| number(link, "leases_waiting") == 0)
    });
    let all = BTreeMap::from([(target.address(), vec![(0, 16_383)])]);
    let options = OracleOptions::live(&source.servers[0].engine().version);
    oracle::assert_clusters_equal(&source.slots(), &all, &options);
}

#[test]
fn slots_move_between_processes_that_are_killed_and_begin_elsewhere() {
    let mut rng = rng();
    let source = Cluster::start_with("redis-7.0", 3, 0, WORDS);
    let target = source_of("redis-7.0");
    let writer = writer(&source, &mut rng);
    let mut daemons = start(&source, &target, 3);
    wait_streams(&mut daemons, 3);
    for daemon in &daemons {
        assert_eq!(links(daemon).len(), 1, "a shard each");
    }
    wait_writes(&writer, 2000);
    for n in 0..from_env("UNDERSTUDY_MOVES", 12) {
        let tag = match rng.one_in(2) {
            true => format!("{{t{}}}", rng.below(120)),
            false => format!("count:{}", rng.below(400)),
        };
        let slot = source.slot(&tag);
        let from = source.place_of(slot);
        let others: Vec<usize> = (0..3).filter(|&at| at != from).collect();
        source.move_slot(slot, from, *rng.pick(&others));
        let at = usize::try_from(rng.below(3)).expect("a place");
        match n % 4 {
            // The moment is what is random here, so these sleep.
            1 => {
                std::thread::sleep(Duration::from_millis(rng.below(400)));
                daemons[at].restart();
            }
            3 => {
                std::thread::sleep(Duration::from_millis(rng.below(400)));
                daemons[at].kill();
                // Elsewhere: nothing is left of what it kept.
                let slice = format!("{}/3", at + 1);
                daemons[at] = Daemon::start(&config(&source, &target, &slice));
            }
            _ => {}
        }
    }
    wait_streams(&mut daemons, 3);
    wait_writes(&writer, 1000);
    writer.stop();
    assert_same(&mut daemons, &source, &target);
    for server in &source.servers {
        assert_eq!(full_syncs(server), 1, "{}", server.address());
    }
}

#[test]
fn a_process_that_was_replaced_comes_back_and_changes_nothing() {
    let mut rng = rng();
    let source = Cluster::start_with("redis-7.0", 3, 0, WORDS);
    let target = source_of("redis-7.0");
    let writer = writer(&source, &mut rng);
    let mut daemons = start(&source, &target, 3);
    wait_streams(&mut daemons, 3);
    wait_writes(&writer, 1000);
    let place = |link: &Value| {
        let address = link["source"].as_str().expect("an address").to_owned();
        let servers = &source.servers;
        let at = servers.iter().position(|one| one.address() == address);
        at.expect("a node")
    };
    let [first, second] = [0, 1].map(|at| place(&links(&daemons[at])[0]));
    let slots: Vec<u16> = (0..6)
        .map(|n| source.slots()[&source.address(first)][0].0 + n * 100)
        .collect();
    // Slots are on their way from it when it stops.
    for slot in &slots[..3] {
        source.move_slot(*slot, first, second);
    }
    process::signal(daemons[0].pid(), Signal::STOP);
    let replacement = Daemon::start(&config(&source, &target, "1/3"));
    let mut given_up = std::mem::replace(&mut daemons[0], replacement);
    wait_streams(&mut daemons, 3);
    for slot in &slots[3..] {
        source.move_slot(*slot, first, second);
    }
    source.move_slot(slots[0], second, first);
    wait_writes(&writer, 1000);
    process::signal(given_up.pid(), Signal::CONT);
    source.move_slot(slots[4], second, first);
    assert_eq!(given_up.wait(LIMIT), 4, "{}", given_up.output());
    wait_writes(&writer, 1000);
    writer.stop();
    assert_same(&mut daemons, &source, &target);
    for server in &source.servers {
        assert_eq!(full_syncs(server), 1, "{}", server.address());
    }
}

#[test]
fn a_primary_fails_and_a_shard_comes_for_a_process_that_has_waited() {
    let mut rng = rng();
    let mut source = Cluster::start_with("redis-7.0", 3, 1, WORDS);
    let target = source_of("redis-7.0");
    let writer = writer(&source, &mut rng);
    let mut daemons = start(&source, &target, 4);
    wait_streams(&mut daemons, 3);
    let waiting = daemons
        .iter()
        .position(|daemon| links(daemon).is_empty())
        .expect("four processes for three shards");
    let health = daemons[waiting].get("/healthz").map(|(code, _)| code);
    assert_eq!(health, Some(200));
    wait_writes(&writer, 1000);
    // One process learns of the failover later, and elsewhere.
    let other = (waiting + 1) % 4;
    daemons[other].kill();
    let dies = source.address(0);
    source.servers[0].kill();
    wait_until("another primary", LIMIT, || {
        !source.slots().contains_key(&dies)
    });
    source.wait_whole();
    daemons[other] = Daemon::start(&config(&source, &target, &format!("{}/4", other + 1)));
    wait_streams(&mut daemons, 3);
    wait_writes(&writer, 1000);
    let slot = source.slot("{t1}");
    let from = source.place_of(slot);
    let to = if from == 1 { 2 } else { 1 };
    source.move_slot(slot, from, to);
    let new = {
        let options = format!("--cluster-enabled yes --cluster-node-timeout 1500 {WORDS}");
        let options = testkit::ServerOptions::args(&options);
        let server = Server::start(&testkit::Engine::of("redis-7.0"), options);
        let meet = argv!["CLUSTER", "MEET", "127.0.0.1", source.servers[1].port()];
        server.client().command(&meet);
        source.servers.push(server);
        source.servers.len() - 1
    };
    let knows = |server: &Server| {
        let nodes = server.client().command(&argv!["CLUSTER", "NODES"]);
        let nodes = testkit::client::text(&nodes);
        let address = source.address(new);
        let (all, own) = (nodes.lines().count(), nodes.contains(&address));
        all >= 6 && own && !nodes.contains("handshake")
    };
    wait_until("the nodes to know the new one", LIMIT, || {
        let mut live = source.servers.iter().filter(|server| server.answers());
        live.all(knows)
    });
    wait_until("the new one to be in order", LIMIT, || {
        let info = source.servers[new]
            .client()
            .command(&argv!["CLUSTER", "INFO"]);
        testkit::client::text(&info).contains("cluster_state:ok")
    });
    for tag in ["{t3}", "{t9}", "count:5", "count:6"] {
        let slot = source.slot(tag);
        source.move_slot(slot, source.place_of(slot), new);
    }
    wait_streams(&mut daemons, 4);
    assert_eq!(links(&daemons[waiting]).len(), 1);
    let metric = daemons[waiting].metric("understudy_slots_held");
    assert!(metric.is_some(), "the new link is among the metrics");
    wait_writes(&writer, 1000);
    writer.stop();
    assert_same(&mut daemons, &source, &target);
}

#[test]
fn processes_that_begin_at_once_empty_the_target_once() {
    let mut rng = rng();
    let source = Cluster::start_with("redis-7.0", 3, 0, WORDS);
    let target = source_of("redis-7.0");
    for n in 0..300 {
        let mut client = target.client();
        client.command(&argv!["SET", format!("of somebody:{n}"), n]);
    }
    let writer = writer(&source, &mut rng);
    wait_writes(&writer, 3000);
    let mut daemons: Vec<Daemon> = (1..=3)
        .map(|at| {
            let text = config(&source, &target, &format!("{at}/3"));
            let text = text.replace("[advanced]", "[advanced]\nempty_db_before_sync = true");
            let mut daemon = Daemon::prepare(&text, &["sync", "shake.toml", "--yes"]);
            daemon.spawn();
            daemon
        })
        .collect();
    wait_streams(&mut daemons, 3);
    let flushes = target.client().info("commandstats");
    let flushes = flushes.get("cmdstat_flushall").map(String::as_str);
    let flushes = flushes.unwrap_or_default();
    assert!(flushes.starts_with("calls=1,"), "{flushes}");
    wait_writes(&writer, 1000);
    writer.stop();
    assert_same(&mut daemons, &source, &target);
    // One that begins later empties nothing.
    daemons[1].kill();
    let text = config(&source, &target, "2/3");
    let text = text.replace("[advanced]", "[advanced]\nempty_db_before_sync = true");
    daemons[1] = Daemon::prepare(&text, &["sync", "shake.toml", "--yes"]);
    daemons[1].spawn();
    wait_streams(&mut daemons, 3);
    assert_same(&mut daemons, &source, &target);
}

#[test]
fn another_number_of_processes_takes_over_and_the_former_end() {
    let mut rng = rng();
    let source = Cluster::start_with("redis-7.0", 3, 0, WORDS);
    let target = source_of("redis-7.0");
    let writer = writer(&source, &mut rng);
    let mut former = start(&source, &target, 3);
    wait_streams(&mut former, 3);
    wait_writes(&writer, 1000);
    let mut daemons = start(&source, &target, 2);
    for daemon in &mut former {
        assert_eq!(daemon.wait(LIMIT), 4, "{}", daemon.output());
    }
    wait_streams(&mut daemons, 3);
    let counts: Vec<usize> = daemons.iter().map(|daemon| links(daemon).len()).collect();
    assert_eq!(counts, [2, 1]);
    wait_writes(&writer, 1000);
    writer.stop();
    assert_same(&mut daemons, &source, &target);
    // One process takes all again.
    for daemon in &mut daemons {
        daemon.kill();
    }
    let mut one = [Daemon::start(&config(&source, &target, "1/1"))];
    wait_streams(&mut one, 3);
    Client::connect(&source.owner(source.slot("last"))).command(&argv!["SET", "last", 1]);
    assert_same(&mut one, &source, &target);
    for server in &source.servers {
        assert_eq!(full_syncs(server), 1, "{}", server.address());
    }
}

#[test]
fn slices_that_cannot_be_are_refused_with_their_line() {
    for (line, word) in [
        ("shards = \"4/3\"", "must be"),
        ("shards = \"2/3\"", "sync_reader.cluster"),
    ] {
        let text = format!(
            "{line}\n[sync_reader]\naddress = \"127.0.0.1:1\"\n[redis_writer]\naddress = \"127.0.0.1:2\"\n"
        );
        let ended = run_file(&["sync", "shake.toml"], Some(text.as_bytes()));
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        assert!(
            ended.stderr.contains("shake.toml:1") && ended.stderr.contains(word),
            "{}",
            ended.stderr
        );
    }
}
