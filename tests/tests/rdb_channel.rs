//! A snapshot on a connection of its own: Valkey's dual-channel replication and Redis's RDB channel. What is written
//! meanwhile comes at once, to the spool; either connection may break, and the daemon die, at any time.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use e2e::{Fake, LIMIT, Link, catch_up, full_syncs, own, phase, rng, wait_stream};
use testkit::certs::{Ca, server_words};
use testkit::client::text;
use testkit::oracle::{self, OracleOptions};
use testkit::port::Port;
use testkit::process::wait_until;
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::{Counters, Daemon, Engine, Rng, Server, ServerOptions, Writer, argv, workload};

/// What the daemon says where the snapshot has a connection of its own.
const SAID: &str = "the source sends the snapshot on a connection of its own";

/// What makes a server of this engine do it.
fn setting(engine: &str) -> &'static str {
    match engine.starts_with("valkey") {
        true => "--dual-channel-replication-enabled yes",
        false => "--repl-rdb-channel yes",
    }
}

/// A source that does it.
fn of_two_channels(engine: &str) -> Server {
    let words = format!(
        "--repl-backlog-size 128mb --repl-diskless-sync yes {}",
        setting(engine)
    );
    Server::start(&Engine::of(engine), ServerOptions::args(&words))
}

/// With keys in several databases.
fn filled(engine: &str, rng: &mut Rng) -> Server {
    let source = of_two_channels(engine);
    fill(&source, rng, 2_000);
    source
}

fn fill(source: &Server, rng: &mut Rng, keys: u64) {
    let mut client = source.client();
    // Some streams that this version makes it does not restore itself: `DUMP`, then "Bad data format".
    if source.engine().name != "redis-8.10" {
        return workload::fill(&mut client, rng.number(), keys);
    }
    for key in 0..keys {
        client.select(u32::from(key % 3 == 0) * 7);
        client.command(&argv!["SET", format!("text:{key}"), rng.bytes(300)]);
        client.command(&argv![
            "HSET",
            format!("hash:{}", key / 9),
            key,
            rng.bytes(9)
        ]);
    }
}

/// Makes the source take so long for each key of a snapshot.
fn slow_snapshot(source: &Server, micros: u64) {
    let mut client = source.client();
    client.command(&argv!["CONFIG", "SET", "rdb-key-save-delay", micros]);
}

/// A number of the source's INFO memory.
fn memory_of(source: &Server, name: &str) -> u64 {
    let number = source.client().info_number("memory", name);
    number.try_into().expect("a number of bytes")
}

/// Both of our connections as the source sees them, the stream's and then the snapshot's.
fn our_ids(source: &Server) -> Vec<u64> {
    let list = text(&source.client().command(&argv!["CLIENT", "LIST"]));
    let mut ids: Vec<u64> = list
        .lines()
        .filter(|line| line.contains(" flags=S"))
        .filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok())
        .collect();
    ids.sort_unstable();
    ids
}

/// How often the daemon has said this.
fn times(daemon: &Daemon, text: &str) -> usize {
    daemon.output().matches(text).count()
}

/// Waits until the snapshot and what is written meanwhile have come so far.
fn wait_for_both(daemon: &mut Daemon, source: &Server) {
    let offset = own(daemon, "source_offset").unwrap_or(0);
    daemon.wait_for(
        "a part of the snapshot and of the stream",
        LIMIT,
        |daemon| {
            phase(daemon) == "snapshot"
                && own(daemon, "snapshot_read_bytes").is_some_and(|bytes| bytes > 0)
                && own(daemon, "source_offset").is_some_and(|now| now > offset)
                && our_ids(source).len() == 2
        },
    );
}

fn exact(mut daemon: Daemon, counters: Counters, source: &Server, target: &Server) -> Daemon {
    wait_stream(&mut daemon);
    let ledger = counters.stop();
    catch_up(&mut daemon, source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    daemon
}

/// All kinds of commands and exact counters beside one another, with the snapshot slow enough for the stream to overtake it.
fn migrates_under_load(engine: &str) {
    let mut rng = rng();
    let (source, target) = (filled(engine, &mut rng), Server::of(engine));
    slow_snapshot(&source, 500);
    let counters = Counters::start(&source.address(), rng.number(), 1_500);
    // See `fill`.
    let writer =
        (engine != "redis-8.10").then(|| Writer::start(&source.address(), rng.number(), 1_500));
    let mut daemon = Link::new(&source, &target).start();
    wait_for_both(&mut daemon, &source);
    let before = own(&daemon, "spooled_offset");
    wait_until("more of the stream in the spool", LIMIT, || {
        own(&daemon, "spooled_offset") > before.map(|bytes| bytes + 50_000)
            || phase(&daemon) == "stream"
    });
    wait_stream(&mut daemon);
    let ledger = counters.stop();
    writer.map(Writer::stop);
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    let options = OracleOptions::live(&source.engine().version);
    oracle::assert_equal_with(&source.address(), &target.address(), &options);
    assert_eq!(times(&daemon, SAID), 1, "{}", daemon.output());
    assert_eq!(full_syncs(&source), 1);
    // The source knows one replica, which is in the stream.
    let info = text(&source.client().command(&argv!["INFO", "replication"]));
    assert!(info.contains("connected_slaves:1\r\n"), "{info}");
    assert!(info.contains("state=online"), "{info}");
}

#[test]
fn a_migration_from_valkey_8_1_under_load_is_exact() {
    migrates_under_load("valkey-8.1");
}

#[test]
fn a_migration_from_valkey_9_1_under_load_is_exact() {
    migrates_under_load("valkey-9.1");
}

#[test]
fn a_migration_from_redis_8_0_under_load_is_exact() {
    migrates_under_load("redis-8.0");
}

#[test]
fn a_migration_from_redis_8_10_under_load_is_exact() {
    migrates_under_load("redis-8.10");
}

/// Where the source does not do it, or is not asked to, the snapshot comes as ever.
#[test]
fn without_the_setting_or_the_key_the_snapshot_comes_in_front_of_the_stream() {
    for (engine, off, key) in [
        ("valkey-9.1", "--dual-channel-replication-enabled no", true),
        ("valkey-8.1", "--repl-diskless-sync no", true),
        ("redis-8.10", "--repl-rdb-channel no", true),
        ("valkey-9.1", "", false),
        ("redis-8.0", "", false),
    ] {
        let mut rng = rng();
        let words = format!(
            "--repl-backlog-size 128mb --repl-diskless-sync yes {} {off}",
            setting(engine)
        );
        let source = Server::start(&Engine::of(engine), ServerOptions::args(&words));
        let target = Server::of(engine);
        fill(&source, &mut rng, 100);
        let counters = Counters::start(&source.address(), rng.number(), 500);
        let daemon = Link::new(&source, &target)
            .with("sync_reader", &format!("try_rdb_channel = {key}"))
            .start();
        let daemon = exact(daemon, counters, &source, &target);
        let output = daemon.output();
        assert!(!output.contains("connection of its own"), "{output}");
        assert_eq!(full_syncs(&source), 1);
    }
}

/// Ends one of our connections, as the source's operator would: the stream's or the snapshot's.
fn end_one(source: &Server, is_stream: bool) {
    let ids = our_ids(source);
    let id = match is_stream {
        true => ids.first(),
        false => ids.last(),
    };
    let id = id.expect("a connection of ours");
    source
        .client()
        .command(&argv!["CLIENT", "KILL", "ID", id.to_string()]);
}

/// Either connection is lost while the snapshot comes: another one begins; after two losses the third comes in front of
/// the stream.
fn loses_a_connection(engine: &str) {
    let mut rng = rng();
    let (source, target) = (filled(engine, &mut rng), Server::of(engine));
    slow_snapshot(&source, 1_000);
    let counters = Counters::start(&source.address(), rng.number(), 500);
    let mut daemon = Link::new(&source, &target).start();
    for (loss, is_stream) in [false, true].into_iter().enumerate() {
        daemon.wait_for("the next snapshot", LIMIT, |daemon| {
            times(daemon, SAID) == loss + 1
        });
        wait_for_both(&mut daemon, &source);
        end_one(&source, is_stream);
        daemon.wait_for("the loss to be told", LIMIT, |daemon| {
            times(daemon, "the snapshot broke off") == loss + 1
        });
    }
    daemon.wait_for("the older form", LIMIT, |daemon| {
        daemon.output().contains("in front of the stream")
    });
    slow_snapshot(&source, 0);
    let daemon = exact(daemon, counters, &source, &target);
    assert_eq!(times(&daemon, SAID), 2, "{}", daemon.output());
}

#[test]
fn a_connection_to_valkey_lost_in_the_snapshot_begins_it_anew() {
    loses_a_connection("valkey-8.1");
}

#[test]
fn a_connection_to_redis_lost_in_the_snapshot_begins_it_anew() {
    loses_a_connection("redis-8.10");
}

/// The line is cut at any byte of either connection, the handshakes' too.
fn cut_anywhere(engine: &str) {
    let mut rng = rng();
    let (source, target) = (filled(engine, &mut rng), Server::of(engine));
    let proxy = Proxy::start(&source.address());
    let counters = Counters::start(&source.address(), rng.number(), 1_000);
    // A thin line for a snapshot that lasts.
    proxy.throttle(Direction::ToClient, Some(8 << 20));
    let mut daemon = Link::new(&source, &target).source(&proxy.address()).start();
    for cut in 0..8 {
        let bytes = match rng.below(3) {
            0 => rng.within(1..600),
            1 => rng.within(1..20_000),
            _ => rng.within(1..400_000),
        };
        let end = *rng.pick(&[Cut::Rst, Cut::Fin]);
        proxy.cut_after(Direction::ToClient, bytes, end);
        daemon.wait_for("a cut", LIMIT, |_| proxy.cuts() > cut);
        // Into the next attempt's beginning, or anywhere else.
        std::thread::sleep(Duration::from_millis(rng.below(300)));
        if cut % 2 == 1 {
            // One that has seen no loss yet.
            daemon.restart();
        }
    }
    proxy.throttle(Direction::ToClient, None);
    exact(daemon, counters, &source, &target);
}

#[test]
fn cuts_at_any_byte_of_both_connections_to_valkey_lose_and_double_nothing() {
    cut_anywhere("valkey-9.1");
}

#[test]
fn cuts_at_any_byte_of_both_connections_to_redis_lose_and_double_nothing() {
    cut_anywhere("redis-8.0");
}

/// Killed while the snapshot comes (another one is needed), while it is applied (it is in the spool, and so is the stream),
/// and in the stream.
fn killed(engine: &str) {
    let mut rng = rng();
    let (source, target) = (filled(engine, &mut rng), Server::of(engine));
    let to_target = Proxy::start(&target.address());
    slow_snapshot(&source, 500);
    let counters = Counters::start(&source.address(), rng.number(), 1_000);
    let mut daemon = Link::new(&source, &target)
        .target(&to_target.address())
        .with("redis_writer", "inflight_bytes = \"64kb\"")
        .start();
    wait_for_both(&mut daemon, &source);
    daemon.restart();
    to_target.throttle(Direction::ToServer, Some(300_000));
    daemon.wait_for("the next snapshot to be received", LIMIT, |daemon| {
        daemon.output().contains("snapshot received")
    });
    assert_eq!(phase(&daemon), "snapshot");
    let before = full_syncs(&source);
    daemon.restart();
    daemon.wait_for("the snapshot in the spool", LIMIT, |daemon| {
        daemon
            .output()
            .contains("going on with the snapshot in the spool")
    });
    std::thread::sleep(Duration::from_millis(rng.below(500)));
    daemon.restart();
    to_target.throttle(Direction::ToServer, None);
    wait_stream(&mut daemon);
    for _ in 0..3 {
        std::thread::sleep(Duration::from_millis(rng.below(300)));
        daemon.restart();
        wait_stream(&mut daemon);
    }
    exact(daemon, counters, &source, &target);
    assert_eq!(full_syncs(&source), before);
}

#[test]
fn kills_beside_a_snapshot_of_valkey_lose_and_double_nothing() {
    killed("valkey-9.1");
}

#[test]
fn kills_beside_a_snapshot_of_redis_lose_and_double_nothing() {
    killed("redis-8.10");
}

#[test]
fn a_source_that_is_killed_in_the_snapshot_is_waited_for() {
    for engine in ["valkey-8.1", "redis-8.0"] {
        let mut rng = rng();
        let (mut source, target) = (filled(engine, &mut rng), Server::of(engine));
        source.client().command(&argv!["SAVE"]);
        slow_snapshot(&source, 1_000);
        let mut daemon = Link::new(&source, &target).start();
        daemon.wait_for("a part of the snapshot", LIMIT, |daemon| {
            own(daemon, "snapshot_read_bytes").is_some_and(|bytes| bytes > 0)
        });
        source.restart();
        let counters = Counters::start(&source.address(), rng.number(), 500);
        exact(daemon, counters, &source, &target);
    }
}

/// The most that the source had in memory for us while a slow snapshot was sent and much was written.
fn most_kept(engine: &str, rdb_channel: bool) -> (u64, u64) {
    let mut rng = rng();
    let (source, target) = (of_two_channels(engine), Server::of(engine));
    let mut client = source.client();
    client.command(&argv!["CONFIG", "SET", "repl-backlog-size", "1mb"]);
    for key in 0..2_000 {
        client.command(&argv!["SET", format!("key:{key}"), "value"]);
    }
    slow_snapshot(&source, 2_000);
    let line = format!("try_rdb_channel = {rdb_channel}");
    let mut daemon = Link::new(&source, &target)
        .with("sync_reader", &line)
        .start();
    daemon.wait_for("the snapshot", LIMIT, |_| {
        client.info_number("persistence", "rdb_bgsave_in_progress") == 1
            && !our_ids(&source).is_empty()
    });
    let (mut most, mut spooled) = (0, 0);
    for key in 0..40 {
        let value = rng.bytes(1_000_000);
        client.command(&argv!["SET", format!("large:{key}"), value]);
        std::thread::sleep(Duration::from_millis(50));
        most = most.max(memory_of(&source, "mem_clients_slaves"));
        spooled = spooled.max(own(&daemon, "spooled_offset").unwrap_or(0));
        if phase(&daemon) == "stream" || daemon.output().contains("snapshot received") {
            break;
        }
    }
    slow_snapshot(&source, 0);
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    (most, spooled)
}

/// The point of it all: with a slow snapshot the source's memory for us stays small, and the spool grows.
fn keeps_the_sources_memory(engine: &str) {
    let (most, spooled) = most_kept(engine, true);
    let (classic, _) = most_kept(engine, false);
    println!(
        "{engine}: {most} bytes at the source, {spooled} in the spool; in front of the stream {classic}"
    );
    assert!(most < 12_000_000, "{most}");
    assert!(spooled > 20_000_000, "{spooled}");
    assert!(classic > 20_000_000, "{classic}");
}

#[test]
fn what_is_written_beside_a_snapshot_of_valkey_waits_in_the_spool() {
    keeps_the_sources_memory("valkey-9.1");
}

#[test]
fn what_is_written_beside_a_snapshot_of_redis_waits_in_the_spool() {
    keeps_the_sources_memory("redis-8.10");
}

/// The second connection is made like the first: TLS, a user with the least rights.
#[test]
fn the_second_connection_is_made_with_the_settings_of_the_first() {
    for engine in ["valkey-8.1", "redis-8.0"] {
        let ca = Ca::new();
        let port = Port::reserve();
        let certificate = ca.server(&["127.0.0.1"]);
        let words = server_words(port.number(), &certificate, &ca.file(), "no");
        let words = format!("{words} --repl-diskless-sync yes {}", setting(engine));
        let mut rng = rng();
        let source = Server::start(&Engine::of(engine), ServerOptions::args(&words));
        let target = Server::of(engine);
        fill(&source, &mut rng, 200);
        source.client().command(&argv![
            "ACL",
            "SETUSER",
            "reader",
            "on",
            ">secret",
            "resetchannels",
            "-@all",
            "+ping",
            "+psync",
            "+replconf"
        ]);
        let counters = Counters::start(&source.address(), rng.number(), 300);
        let mut daemon = Link::new(&source, &target)
            .source(&port.address())
            .with("sync_reader", "tls = true")
            .with("sync_reader", "username = \"reader\"")
            .with("sync_reader", "password = \"secret\"")
            .with(
                "sync_reader",
                &format!("tls_config.ca_cert = \"{}\"", ca.file().display()),
            )
            .start();
        wait_stream(&mut daemon);
        let ledger = counters.stop();
        let goal = e2e::written(&source);
        daemon.wait_for("what was written", LIMIT, |daemon| {
            own(daemon, "applied_offset").is_some_and(|applied| applied >= goal)
        });
        ledger.assert_at(&target.address());
        assert_eq!(times(&daemon, SAID), 1, "{}", daemon.output());
    }
}

/// Answers as a source does up to PSYNC, in which it says `to_psync`; gives what it was told in that connection.
fn play(stream: &mut TcpStream, to_psync: &str) -> std::io::Result<String> {
    let (mut said, mut chunk) = (String::new(), [0; 4096]);
    loop {
        let len = stream.read(&mut chunk)?;
        if len == 0 {
            return Ok(said);
        }
        let now = String::from_utf8_lossy(&chunk[..len]).into_owned();
        said.push_str(&now);
        if now.contains("INFO") {
            let info = "redis_version:8.0.2\r\nredis_mode:standalone\r\n";
            write!(stream, "${}\r\n{info}\r\n", info.len())?;
        } else if now.contains("rdb-channel\r\n") {
            stream.write_all(b"-ERR Unrecognized REPLCONF option: rdb-channel\r\n")?;
        } else if now.contains("PSYNC\r\n") {
            stream.write_all(to_psync.as_bytes())?;
            // The listener has one connection after the other.
            return Ok(said);
        } else {
            stream.write_all(if now.contains("PING") {
                b"+PONG\r\n"
            } else {
                b"+OK\r\n"
            })?;
        }
    }
}

/// What cannot be made of an offer is asked for as of any other source, and said in a line.
#[test]
fn a_source_that_does_not_keep_its_word_is_asked_for_one_connection() {
    let target = Server::of("redis-8.0");
    let told = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&told);
    let source = Fake::start(move |stream| {
        let (said, offers) = {
            let told = heard.lock().unwrap();
            let asked = told
                .iter()
                .any(|said: &String| said.contains("rdb-channel-repl"));
            (told.len(), !asked)
        };
        let id = "a".repeat(40);
        let answer = match offers {
            true => "+RDBCHANNELSYNC 5\r\n".to_owned(),
            false => format!("+FULLRESYNC {id} 0\r\n$0\r\n"),
        };
        let words = play(stream, &answer)?;
        assert!(said < 50);
        heard.lock().unwrap().push(words);
        Ok(())
    });
    let mut daemon = Link::between(&source.address(), &target.address()).start();
    daemon.wait_for("the older form", LIMIT, |daemon| {
        daemon.output().contains("full sync replid=")
    });
    let output = daemon.output();
    assert!(
        output.contains("and it does not come about: asking for it in front of the stream"),
        "{output}"
    );
    let told = told.lock().unwrap();
    let psyncs: Vec<&String> = told
        .iter()
        .filter(|said| said.contains("PSYNC\r\n"))
        .collect();
    assert!(psyncs[0].contains("rdb-channel-repl"), "{told:?}");
    assert!(!psyncs[1].contains("rdb-channel-repl"), "{told:?}");
}
