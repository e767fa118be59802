//! The workload says the truth about itself, on real servers.

use std::time::Duration;

use super::*;
use crate::argv;
use crate::client::{Client, text};
use crate::engines::{Engine, SMALL_SET};
use crate::oracle::{self, OracleOptions};
use crate::process::wait_until;
use crate::proxy::{Cut, Direction, Proxy};
use crate::server::{Server, ServerOptions};

/// Makes `replica` a replica of `source` and waits until it has everything.
fn replicate(source: &Server, replica: &Server) {
    replica
        .client()
        .command(&argv!["REPLICAOF", "127.0.0.1", source.port()]);
    let mut client = replica.client();
    wait_until("the replica's link", Duration::from_secs(20), || {
        client
            .info("replication")
            .get("master_link_status")
            .is_some_and(|link| link == "up")
    });
}

fn catch_up(source: &Server, replica: &Server) {
    let (mut source, mut replica) = (source.client(), replica.client());
    wait_until("the replica's offset", Duration::from_secs(20), || {
        let sent = source.info_number("replication", "master_repl_offset");
        sent == replica.info_number("replication", "slave_repl_offset")
    });
}

#[test]
fn fill_has_every_type_on_every_engine() {
    for name in SMALL_SET {
        let server = Server::of(name);
        let mut client = server.client();
        fill(&mut client, 7, 600);
        let dbs = client.keyspace();
        assert_eq!(dbs.len(), DBS.len(), "{name}");
        assert!(dbs.values().sum::<u64>() > 500, "{name}: {dbs:?}");
        let mut types = std::collections::BTreeSet::new();
        for key in client.keys() {
            types.insert(text(&client.command(&argv!["TYPE", key])));
        }
        for kind in ["string", "list", "set", "zset", "hash", "stream"] {
            assert!(types.contains(kind), "{name} has no {kind}");
        }
    }
}

/// Redis's own replica has to come out equal under all of it; otherwise the oracle or the workload is wrong.
#[test]
fn a_native_replica_of_a_busy_server_is_equal() {
    for name in SMALL_SET {
        let (source, replica) = (Server::of(name), Server::of(name));
        fill(&mut source.client(), 11, 500);
        let writer = Writer::start(&source.address(), 13, 0);
        replicate(&source, &replica);
        wait_until("20,000 commands", Duration::from_secs(60), || {
            writer.answered() > 20_000
        });
        let report = writer.stop();
        // A replica expires by its master's word: make it a master, and it does so by itself.
        catch_up(&source, &replica);
        replica.client().command(&argv!["REPLICAOF", "NO", "ONE"]);
        let options = OracleOptions::live(&source.engine().version);
        oracle::assert_equal_with(&source.address(), &replica.address(), &options);
        for (word, error) in &report.last_errors {
            assert!(
                report.words.contains_key(word),
                "{name}: {word} always fails: {error}"
            );
        }
        let errors: u64 = report.errors.values().sum();
        assert!(errors * 4 < report.commands, "{name}: {:?}", report.errors);
        for word in [
            "SET", "SPOP", "EXEC", "EVAL", "XADD", "XCLAIM", "MOVE", "SWAPDB", "FLUSHDB",
        ] {
            assert!(
                report.words.contains_key(word),
                "{name}: no {word}: {:?}",
                report.words
            );
        }
    }
}

#[test]
fn counters_prove_a_hole_a_double_and_a_torn_transaction() {
    let server = Server::of("redis-7.0");
    let counters = Counters::start(&server.address(), 3, 0);
    wait_until("2,000 operations", Duration::from_secs(30), || {
        counters.acknowledged() > 2000
    });
    let ledger = counters.stop();
    ledger.assert_at(&server.address());
    assert!(ledger.total() > 2000);
    let mut client = server.client();
    let mut broken = |argv: &[Vec<u8>], says: &str| {
        client.command(&argv!["MULTI"]);
        client.command(argv);
        client.command(&argv!["EXEC"]);
        let wrong = ledger.check(&server.address());
        assert!(
            wrong.iter().any(|line| line.contains(says)),
            "{says}: {wrong:?}"
        );
    };
    broken(
        &argv!["INCR", "count:{g0}:incr"],
        "acknowledged at the source",
    );
    broken(
        &argv!["RPUSH", "count:{g0}:list", 1],
        "count:{g0}:list: 1 follows",
    );
    broken(
        &argv!["LREM", "count:{g3}:list", 1, 5],
        "count:{g3}:list: 6 follows 4",
    );
    broken(
        &argv!["APPEND", "count:{g0}:log", "x"],
        "ends within a number",
    );
    broken(&argv!["XDEL", "count:{g0}:stream", "3-1"], "4 follows 2");
    broken(
        &argv!["ZINCRBY", "count:{g0}:zset", -1, "m"],
        "count:{g0}:zset",
    );
    broken(
        &argv!["HINCRBY", "count:{g0}:hash", "f", 1],
        "count:{g0}:hash",
    );
    broken(&argv!["INCRBY", "count:{g0}:a", 1], "torn");
}

#[test]
fn counters_that_are_behind_are_a_prefix_and_nothing_more() {
    let (source, target) = (Server::of("redis-7.0"), Server::of("redis-7.0"));
    let count = |server: &Server| {
        let counters = Counters::start(&server.address(), 3, 0);
        wait_until("500 operations", Duration::from_secs(30), || {
            counters.acknowledged() > 500
        });
        counters.stop()
    };
    let behind = count(&target);
    let mut client = source.client();
    // The same seed goes the same way, only further.
    let counters = Counters::start(&source.address(), 3, 0);
    let goal = behind.total() * 4;
    wait_until("more operations", Duration::from_secs(30), || {
        counters.acknowledged() > goal
    });
    let ahead = counters.stop();
    assert_eq!(ahead.check_prefix(&target.address()), Vec::<String>::new());
    assert!(!ahead.check(&target.address()).is_empty());
    assert!(!behind.check_prefix(&source.address()).is_empty());
    client.command(&argv!["FLUSHALL"]);
    assert_eq!(ahead.check_prefix(&source.address()), Vec::<String>::new());
}

#[test]
fn counters_stay_true_over_broken_connections_and_a_restart() {
    let options = ServerOptions::args("--appendonly yes --appendfsync always");
    let mut server = Server::start(&Engine::of("redis-7.0"), options);
    let proxy = Proxy::start(&server.address());
    let counters = Counters::start(&proxy.address(), 5, 0);
    for cut in 0..6 {
        let direction = if cut % 2 == 0 {
            Direction::ToServer
        } else {
            Direction::ToClient
        };
        proxy.cut_after(direction, 3001 + cut * 777, Cut::Rst);
        wait_until("a cut", Duration::from_secs(20), || proxy.cuts() > cut);
    }
    server.restart();
    let before = counters.acknowledged();
    wait_until("more", Duration::from_secs(20), || {
        counters.acknowledged() > before + 500
    });
    counters.stop().assert_at(&server.address());
}

#[test]
fn a_writer_keeps_its_rate_and_survives_its_server() {
    let mut server = Server::of("redis-7.0");
    let writer = Writer::start(&server.address(), 17, 1000);
    std::thread::sleep(Duration::from_secs(1));
    let answered = writer.answered();
    assert!(
        (300..3000).contains(&answered),
        "{answered} commands in a second"
    );
    server.restart();
    wait_until("more", Duration::from_secs(20), || {
        writer.answered() > answered + 100
    });
    assert!(writer.stop().reconnects >= 1);
    assert!(!Client::connect(&server.address()).keyspace().is_empty());
}
