//! Commands that a filter would have to cut in two: what they write and passes is copied from the source, in the middle of its
//! stream, over kills; what cannot be had that way ends the link with its name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use e2e::{LIMIT, Link, catch_up, from_env, full_syncs, own, rng, source_of, wait_stream};
use testkit::client::{Argv, items, text};
use testkit::{Client, Cluster, Daemon, Engine, Rng, Server, ServerOptions, argv};

/// One command on names of both sides; the keys `out:` are left out, and so is database 1.
fn torn(client: &mut Client, rng: &mut Rng) {
    let at = rng.below(6);
    let (out, other) = (format!("out:{at}"), format!("out:{}", rng.below(6)));
    let into = format!("in:{}", rng.below(6));
    let line = match rng.below(11) {
        0 => argv!["SET", out, rng.number()],
        1 => argv!["SADD", format!("{out}:set"), rng.below(50), rng.below(50)],
        2 => argv!["RENAME", format!("out:{at}"), into],
        3 => argv![
            "COPY",
            format!("{out}:set"),
            format!("{into}:set"),
            "REPLACE"
        ],
        4 => argv![
            "SUNIONSTORE",
            format!("{into}:set"),
            format!("{out}:set"),
            format!("{other}:set")
        ],
        5 => argv!["RPUSH", format!("{out}:list"), rng.number(), rng.number()],
        6 => argv![
            "LMOVE",
            format!("{out}:list"),
            format!("{into}:list"),
            "LEFT",
            "RIGHT"
        ],
        7 => argv!["SET", into, rng.number()],
        8 => argv!["RPUSH", format!("{into}:list"), "plain"],
        9 => {
            client.select(1);
            client.command(&argv!["SET", format!("moved:{at}"), rng.number()]);
            let moved = argv!["COPY", format!("moved:{at}"), into, "DB", 0, "REPLACE"];
            client.command(&moved);
            client.select(0);
            return;
        }
        _ => {
            client.command(&argv!["DEL", format!("moved:{at}")]);
            client.select(1);
            client.command(&argv!["SET", format!("moved:{at}"), rng.number()]);
            client.command(&argv!["MOVE", format!("moved:{at}"), 0]);
            client.select(0);
            return;
        }
    };
    // A RENAME of a key that is not there is refused.
    let _ = client.try_command(&line);
}

/// Where keys are read.
enum At<'a> {
    Server(Client),
    Cluster(&'a Cluster),
}

impl At<'_> {
    fn text(&mut self, argv: &Argv) -> String {
        match self {
            Self::Server(client) => text(&client.command(argv)),
            Self::Cluster(cluster) => text(&cluster.read(argv)),
        }
    }

    fn items(&mut self, argv: &Argv) -> Vec<String> {
        let reply = match self {
            Self::Server(client) => client.command(argv),
            Self::Cluster(cluster) => cluster.read(argv),
        };
        items(reply).iter().map(text).collect()
    }

    /// What a key holds, whatever it is.
    fn value(&mut self, key: &str) -> String {
        let kind = self.text(&argv!["TYPE", key]);
        let value = match &*kind {
            "none" => Vec::new(),
            "string" => vec![self.text(&argv!["GET", key])],
            "list" => self.items(&argv!["LRANGE", key, 0, -1]),
            "set" => {
                let mut members = self.items(&argv!["SMEMBERS", key]);
                members.sort();
                members
            }
            other => panic!("{key} is a {other}"),
        };
        format!("{kind} {value:?}")
    }

    /// All keys of database 0 that pass.
    fn contents(&mut self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for at in 0..6 {
            let names = ["in:{}", "in:{}:set", "in:{}:list", "moved:{}"];
            for key in names.map(|name| name.replace("{}", &at.to_string())) {
                let found = self.value(&key);
                all.insert(key, found);
            }
        }
        all
    }
}

fn run(link: Link, source: &Server, kills: u64) -> Daemon {
    let mut rng = rng();
    let mut client = source.client();
    for _ in 0..200 {
        torn(&mut client, &mut rng);
    }
    let mut daemon = link
        .with("filter", "block_key_prefix = [\"out:\"]")
        .with("filter", "block_db = [1]")
        .start();
    wait_stream(&mut daemon);
    let (stop, done) = (AtomicBool::new(false), AtomicU64::new(0));
    let mut own_rng = Rng::new(rng.number());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                torn(&mut client, &mut own_rng);
                if done.fetch_add(1, Ordering::Relaxed) % 20 == 0 {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
        for _ in 0..kills {
            // The moment is what is random here, so this one sleeps.
            std::thread::sleep(Duration::from_millis(300 + rng.below(900)));
            daemon.restart();
            wait_stream(&mut daemon);
        }
        std::thread::sleep(Duration::from_secs(2));
        stop.store(true, Ordering::Relaxed);
    });
    println!("{} commands", done.load(Ordering::Relaxed));
    catch_up(&mut daemon, source);
    daemon.wait_for("the last repairs", LIMIT, |daemon| {
        own(daemon, "repairs_open") == Some(0)
    });
    catch_up(&mut daemon, source);
    daemon
}

#[test]
fn what_is_made_of_keys_that_are_left_out_is_copied_from_the_source() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let kills = from_env("UNDERSTUDY_KILLS", 4);
    let daemon = run(Link::new(&source, &target), &source, kills);
    let mut at_target = target.client();
    let found = At::Server(target.client()).contents();
    assert_eq!(
        found,
        At::Server(source.client()).contents(),
        "{}",
        daemon.output()
    );
    assert!(own(&daemon, "repairs").unwrap_or(0) > 0);
    assert_eq!(full_syncs(&source), 1);
    // Nothing of what is left out.
    at_target.select(0);
    let keys = at_target.keys();
    assert!(!keys.iter().any(|key| key.starts_with(b"out:")));
    assert!(!at_target.keyspace().contains_key(&1));
    let metrics = daemon.get("/metrics").expect("metrics").1;
    assert!(!metrics.contains("filter_mixed"), "{metrics}");
}

#[test]
fn the_same_at_a_cluster() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    let link = Link::between(&source.address(), &cluster.address(0));
    let link = link.with("redis_writer", "cluster = true");
    let daemon = run(link, &source, from_env("UNDERSTUDY_KILLS", 4));
    let (wanted, found) = (
        At::Server(source.client()).contents(),
        At::Cluster(&cluster).contents(),
    );
    assert_eq!(found, wanted, "{}", daemon.output());
    assert!(own(&daemon, "repairs").unwrap_or(0) > 0);
    assert_eq!(full_syncs(&source), 1);
}

#[test]
fn a_swap_with_a_database_that_is_left_out_ends_the_link_and_a_snapshot_mends_it() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    client.command(&argv!["SET", "zero", 1]);
    client.select(1);
    client.command(&argv!["SET", "one", 1]);
    let mut daemon = Link::new(&source, &target)
        .with("filter", "block_db = [1]")
        .start();
    wait_stream(&mut daemon);
    client.command(&argv!["SWAPDB", 0, 1]);
    assert_eq!(daemon.wait(LIMIT), 4);
    let output = daemon.output();
    assert!(
        output.contains("SWAPDB 0 1 is of a database that the filter leaves out"),
        "{output}"
    );
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let mut at_target = target.client();
    assert_eq!(text(&at_target.command(&argv!["GET", "one"])), "1");
    assert_eq!(text(&at_target.command(&argv!["EXISTS", "zero"])), "0");
    assert_eq!(full_syncs(&source), 2);
}

#[test]
fn where_values_cannot_be_asked_for_it_is_counted_and_told() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    let mut daemon = Link::new(&source, &target)
        .with("filter", "block_key_prefix = [\"out:\"]")
        .with("filter", "block_command = [\"setrange\"]")
        .start();
    wait_stream(&mut daemon);
    client.command(&argv!["SET", "out:a", 1]);
    client.command(&argv!["RENAME", "out:a", "in:a"]);
    catch_up(&mut daemon, &source);
    let output = daemon.output();
    assert!(output.contains("it is left out and counted"), "{output}");
    let metrics = daemon.get("/metrics").expect("metrics").1;
    assert!(metrics.contains("reason=\"filter_mixed\""), "{metrics}");
}

/// FLUSHALL empties what passes, in every database that the target has, and asks for no other.
#[test]
fn a_flush_of_everything_empties_all_databases_that_pass_and_the_target_has() {
    for (databases, engine) in [(40, "redis-7.0"), (3, "redis-7.0"), (16, "valkey-9.1")] {
        let options = || ServerOptions::args(&format!("--databases {databases}"));
        let source = Server::start(&Engine::of("redis-7.0"), options());
        let target = Server::start(&Engine::of(engine), options());
        let mut client = source.client();
        let last = databases - 1;
        for db in [0, 1, last] {
            client.select(db);
            client.command(&argv!["SET", "a", db]);
        }
        client.select(0);
        let mut daemon = Link::new(&source, &target)
            .with("filter", "block_db = [1]")
            .start();
        wait_stream(&mut daemon);
        let mut at_target = target.client();
        assert_eq!(at_target.keyspace().len(), 2);
        // Of a database that was left out before, and is nobody's business here.
        at_target.select(1);
        at_target.command(&argv!["SET", "stays", 1]);
        client.command(&argv!["FLUSHALL"]);
        client.command(&argv!["SET", "b", 1]);
        catch_up(&mut daemon, &source);
        assert!(!at_target.keyspace().contains_key(&last), "{databases}");
        assert_eq!(text(&at_target.command(&argv!["GET", "stays"])), "1");
        at_target.select(0);
        assert_eq!(text(&at_target.command(&argv!["EXISTS", "a"])), "0");
        assert_eq!(text(&at_target.command(&argv!["GET", "b"])), "1");
        assert_eq!(full_syncs(&source), 1, "{}", daemon.output());
    }
}
