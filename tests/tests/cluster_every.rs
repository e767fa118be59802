//! Every write command there is, from a standalone source into a cluster, whose nodes die, fail over and hand slots on meanwhile, while the
//! daemon is killed: nothing differs in the end. And the other way, out of a cluster whose slots move.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use e2e::shards::{self, WORDS, wait_streams};
use e2e::{Every, LIMIT, Link, catch_up, from_env, full_syncs, rng, source_of, wait_stream};
use testkit::oracle::{self, OracleOptions};
use testkit::process::wait_until;
use testkit::{Cluster, Counters, Rng, Server, argv, client};

fn disturbed(engine: &str, rounds: u64) {
    let mut rng = rng();
    let (source, mut cluster) = (source_of(engine), Cluster::start(engine, 3, 1));
    let mut daemon = Link::between(&source.address(), &cluster.address(0))
        .with("redis_writer", "cluster = true")
        .start();
    wait_stream(&mut daemon);
    let mut every = Every::new(&mut source.client(), engine);
    println!(
        "{engine}: {} commands: {:?}",
        every.names().len(),
        every.names()
    );
    // What empties everything is in the first round alone.
    let mut client = source.client();
    let first = every.run(&mut client, &mut rng, || {});
    catch_up(&mut daemon, &source);
    let options = OracleOptions::live(&source.engine().version);
    oracle::assert_cluster_equal(&source.address(), &cluster.slots(), &options);
    every.leave_out_what_empties();
    let counters = Counters::start_in_db_0(&source.address(), rng.number(), 500);
    let (done, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let seed = rng.number();
    let commands = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let (mut rng, mut commands) = (Rng::new(seed), first);
            while !stop.load(Ordering::Relaxed) {
                commands += every.run(&mut client, &mut rng, || {
                    std::thread::sleep(Duration::from_millis(2));
                });
                done.fetch_add(1, Ordering::Relaxed);
            }
            commands
        });
        let go_on = |rounds: u64| {
            let goal = done.load(Ordering::Relaxed) + rounds;
            wait_until("rounds of all commands", LIMIT, || {
                assert!(!writer.is_finished(), "a command was refused");
                done.load(Ordering::Relaxed) >= goal
            });
        };
        for round in 0..rounds {
            go_on(1);
            daemon.restart();
            wait_stream(&mut daemon);
            match round % 3 {
                0 => {
                    cluster.fail_over(3 + usize::try_from(round % 3).expect("a place"), "TAKEOVER")
                }
                1 => {
                    let dies =
                        (0..3).find(|at| cluster.slots().contains_key(&cluster.address(*at)));
                    let dies = dies.expect("a primary");
                    let address = cluster.address(dies);
                    cluster.servers[dies].kill();
                    wait_until("another primary", LIMIT, || {
                        !cluster.slots().contains_key(&address)
                    });
                    cluster.servers[dies].restart();
                }
                _ => {
                    for _ in 0..5 {
                        let slot = u16::try_from(rng.below(16_384)).expect("a slot");
                        let from = cluster.place_of(slot);
                        let others = cluster.slots();
                        let to = (0..cluster.servers.len())
                            .find(|at| *at != from && others.contains_key(&cluster.address(*at)));
                        cluster.move_slot(slot, from, to.expect("another primary"));
                    }
                }
            }
            cluster.wait_whole();
            cluster.wait_replicas();
            wait_stream(&mut daemon);
        }
        go_on(1);
        stop.store(true, Ordering::Relaxed);
        writer.join().expect("a writer that was refused nothing")
    });
    let ledger = counters.stop();
    println!(
        "{commands} commands, {} rounds",
        done.load(Ordering::Relaxed)
    );
    catch_up(&mut daemon, &source);
    cluster.wait_whole();
    let wrong = ledger.check_with(&mut |_, argv| cluster.read(&argv));
    assert!(wrong.is_empty(), "counters:\n{}", wrong.join("\n"));
    let options = OracleOptions {
        // MIGRATE takes along what is left of an expiry, and that is a moment less exact.
        expiry_tolerance_ms: 20,
        ..options
    };
    oracle::assert_cluster_equal(&source.address(), &cluster.slots(), &options);
    assert_eq!(full_syncs(&source), 1, "{}", daemon.output());
}

#[test]
fn every_write_command_of_redis_reaches_a_cluster_that_is_not_left_in_peace() {
    disturbed("redis-8.10", from_env("UNDERSTUDY_EVERY_ROUNDS", 3));
}

#[test]
fn every_write_command_of_valkey_reaches_a_cluster_that_is_not_left_in_peace() {
    disturbed("valkey-9.1", from_env("UNDERSTUDY_EVERY_ROUNDS", 3));
}

/// Libraries are each node's own: all get those of this one, as an operator would see to.
fn share_libraries(source: &Cluster, from: usize) {
    let dump = source.servers[from]
        .client()
        .command(&argv!["FUNCTION", "DUMP"]);
    let dump = client::bytes(dump);
    for (at, server) in source.servers.iter().enumerate() {
        if at != from {
            let restore = argv!["FUNCTION", "RESTORE", dump.clone(), "FLUSH"];
            server.client().command(&restore);
        }
    }
}

/// The commands are in one slot, which goes from shard to shard between the rounds.
fn out_of_a_cluster(engine: &str, rounds: u64) {
    let mut rng = rng();
    let (source, target) = (Cluster::start_with(engine, 3, 0, WORDS), Server::of(engine));
    let tag = (0..).map(|n| format!("{{every{n}}}"));
    let tag = tag
        .into_iter()
        .find(|tag| source.place_of(source.slot(tag)) == 0);
    let tag = tag.expect("a tag of the first node");
    let slot = source.slot(&tag);
    let mut daemon = Link::between(&source.address(0), &target.address())
        .with("sync_reader", "cluster = true")
        .start();
    wait_streams(&mut daemon, 3);
    let mut every = Every::within(&mut source.servers[0].client(), engine, &tag);
    let all = BTreeMap::from([(target.address(), vec![(0, 16_383)])]);
    let mut commands = every.run(&mut source.servers[0].client(), &mut rng, || {});
    share_libraries(&source, 0);
    shards::assert_same(&mut daemon, &source, &all, 0);
    every.leave_out_what_empties();
    for _ in 0..rounds {
        let place = source.place_of(slot);
        let mut client = source.servers[place].client();
        let seed = rng.number();
        let pause = Duration::from_millis(rng.below(200));
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                every.run(&mut client, &mut Rng::new(seed), || {
                    std::thread::sleep(Duration::from_millis(2));
                })
            });
            // The moment is what is random here, so this one sleeps.
            std::thread::sleep(pause);
            daemon.restart();
            commands += writing.join().expect("a writer that was refused nothing");
        });
        wait_streams(&mut daemon, 3);
        share_libraries(&source, place);
        source.move_slot(slot, place, (place + 1) % 3);
    }
    println!("{commands} commands");
    // MIGRATE takes along what is left of an expiry, and that is a moment less exact.
    shards::assert_same(&mut daemon, &source, &all, 50);
    for server in &source.servers {
        assert_eq!(full_syncs(server), 1, "{}", server.address());
    }
}

#[test]
fn every_write_command_of_redis_leaves_a_cluster_whose_slots_move() {
    out_of_a_cluster("redis-8.10", from_env("UNDERSTUDY_EVERY_ROUNDS", 4));
}

#[test]
fn every_write_command_of_valkey_leaves_a_cluster_whose_slots_move() {
    out_of_a_cluster("valkey-9.1", from_env("UNDERSTUDY_EVERY_ROUNDS", 4));
}
