//! Databases under other numbers at the target: mapped, dropped, brought together, or all in one with prefixes.

use e2e::{LIMIT, Link, catch_up, full_syncs, source_of, wait_stream};
use testkit::client::{Argv, text};
use testkit::process::{Signal, signal};
use testkit::{Client, Daemon, Server, argv};

fn words(line: &str) -> Argv {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

/// Lines of `db: command`.
fn run(client: &mut Client, lines: &[&str]) {
    for line in lines {
        let (db, command) = line.split_once(": ").expect("a database and a command");
        client.select(db.parse().expect("a database"));
        client.command(&words(command));
    }
}

/// Every key of the target that is not ours, as `db:key=value`.
fn dump(server: &Server) -> Vec<String> {
    let mut client = server.client();
    let mut lines = Vec::new();
    for db in client.keyspace().keys().copied().collect::<Vec<_>>() {
        client.select(db);
        for key in client.keys() {
            let name = String::from_utf8_lossy(&key).into_owned();
            if name.contains("understudy") {
                continue;
            }
            let kind = text(&client.command(&argv!["TYPE", key.clone()]));
            let value = match &*kind {
                "string" => text(&client.command(&argv!["GET", key])),
                _ => kind,
            };
            lines.push(format!("{db}:{name}={value}"));
        }
    }
    lines.sort();
    lines
}

fn start(source: &Server, target: &Server, map: &str) -> Daemon {
    Link::new(source, target)
        .with("redis_writer", &format!("db_map = {map}"))
        .start()
}

const SNAPSHOT: [&str; 7] = [
    "0: SET zero snapshot",
    "1: SET one snapshot",
    "1: RPUSH list a b",
    "2: SET two snapshot",
    "2: SET short 1 PX 600000",
    "3: SET three snapshot",
    "3: HSET hash f v",
];

#[test]
fn numbers_are_mapped_and_databases_dropped() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    run(&mut client, &SNAPSHOT);
    let mut daemon = start(
        &source,
        &target,
        "{ 0 = 3, 3 = 0, 1 = 7, 2 = \"drop\", 7 = \"drop\" }",
    );
    wait_stream(&mut daemon);
    run(
        &mut client,
        &[
            "0: INCR n",
            "3: INCR n",
            "1: INCR n",
            "2: INCR n",
            "1: SET moved 1",
            "1: MOVE moved 0",
            "1: COPY one copied DB 3",
            "0: SET gone 1",
            "0: MOVE gone 2",
            "1: SET soon 1 PX 3600000",
        ],
    );
    catch_up(&mut daemon, &source);
    daemon.restart();
    // Whatever is selected when it goes on.
    client.select(1);
    client.command(&argv!["INCR", "n"]);
    catch_up(&mut daemon, &source);
    assert_eq!(
        dump(&target),
        [
            "0:copied=snapshot",
            "0:hash=hash",
            "0:n=1",
            "0:three=snapshot",
            "3:moved=1",
            "3:n=1",
            "3:zero=snapshot",
            "7:list=list",
            "7:n=2",
            "7:one=snapshot",
            "7:soon=1",
        ]
    );
    // Both change places, and the checkpoint stays where it is.
    run(&mut client, &["5: SWAPDB 0 3", "5: SET five 1"]);
    catch_up(&mut daemon, &source);
    daemon.restart();
    run(&mut client, &["0: INCR n", "1: FLUSHDB"]);
    catch_up(&mut daemon, &source);
    let found = dump(&target);
    for line in ["0:zero=snapshot", "3:three=snapshot", "3:n=2", "5:five=1"] {
        assert!(found.contains(&line.to_owned()), "no {line} in {found:?}");
    }
    assert!(
        !found.iter().any(|line| line.starts_with("7:")),
        "{found:?}"
    );
    assert_eq!(e2e::full_syncs(&source), 1);
}

#[test]
fn all_databases_in_one_with_prefixes() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    run(&mut client, &SNAPSHOT);
    let mut daemon = start(&source, &target, "\"prefix\"");
    wait_stream(&mut daemon);
    run(
        &mut client,
        &[
            "0: INCR n",
            "3: INCR n",
            "1: MSET a 1 b 2",
            "1: MOVE a 4",
            "1: COPY b c DB 2",
            "1: RPUSH list c",
            "1: SET soon 1 PX 900",
            "1: SET late 1 PX 900",
            "1: PERSIST late",
            "2: DEL two",
        ],
    );
    // The lease of a key in its last seconds ends under the name that it has there.
    catch_up(&mut daemon, &source);
    daemon.wait_for("the end of a key", LIMIT, |_| {
        !dump(&target).iter().any(|line| line.contains("soon"))
    });
    // Somebody writes there: the key is copied again under its name.
    let mut at_target = target.client();
    at_target.command(&argv!["DEL", "db1:list"]);
    at_target.command(&argv!["SET", "db1:list", "wrong"]);
    run(&mut client, &["1: RPUSH list d"]);
    daemon.wait_for("the repair", LIMIT, |daemon| {
        e2e::own(daemon, "repairs").is_some_and(|repairs| repairs >= 1)
    });
    daemon.restart();
    run(&mut client, &["3: INCR n"]);
    catch_up(&mut daemon, &source);
    assert_eq!(
        dump(&target),
        [
            "0:db0:n=1",
            "0:db0:zero=snapshot",
            "0:db1:b=2",
            "0:db1:late=1",
            "0:db1:list=list",
            "0:db1:one=snapshot",
            "0:db2:c=2",
            "0:db2:short=1",
            "0:db3:hash=hash",
            "0:db3:n=2",
            "0:db3:three=snapshot",
            "0:db4:a=1",
        ]
    );
    let list = at_target.command(&argv!["LRANGE", "db1:list", 0, -1]);
    assert_eq!(testkit::client::items(list).len(), 4);
    // What is about a whole database takes a new snapshot, which the next start asks for.
    run(&mut client, &["1: FLUSHDB", "1: SET again 1"]);
    assert_eq!(daemon.wait(LIMIT), 4);
    assert!(
        daemon.output().contains("new snapshot"),
        "{}",
        daemon.output()
    );
    daemon.spawn();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let found = dump(&target);
    let ones: Vec<_> = found
        .iter()
        .filter(|line| line.starts_with("0:db1:"))
        .collect();
    assert_eq!(ones, ["0:db1:again=1"]);
    assert!(found.contains(&"0:db3:n=2".to_owned()));
}

#[test]
fn databases_come_together_unless_a_key_is_in_both() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    run(&mut client, &["0: SET a 0", "1: SET b 1", "1: SET c 1"]);
    let mut daemon = start(&source, &target, "{ 1 = 0 }");
    wait_stream(&mut daemon);
    run(
        &mut client,
        &[
            "0: INCR x",
            "1: INCR y",
            "1: MOVE c 0",
            "0: INCR x",
            "1: DEL b",
            "0: SET b 0",
        ],
    );
    catch_up(&mut daemon, &source);
    assert_eq!(dump(&target), ["0:a=0", "0:b=0", "0:c=1", "0:x=2", "0:y=1"]);
    run(&mut client, &["1: SET a 1"]);
    assert_eq!(daemon.wait(LIMIT), 3);
    let output = daemon.output();
    assert!(
        output.contains("key \"a\" is in database 1 and in database 0"),
        "{output}"
    );
    assert!(dump(&target).contains(&"0:a=0".to_owned()));
    // And in a snapshot.
    let other = Server::of("redis-7.0");
    let mut daemon = start(&source, &other, "{ 1 = 0 }");
    assert_eq!(daemon.wait(LIMIT), 3);
    let output = daemon.output();
    assert!(output.contains("key \"a\" is in database 1"), "{output}");
}

/// The source is asked when the key is in one of them only, long after the commands: its DEL must not take what the other has.
#[test]
fn a_key_that_was_in_both_for_a_moment_is_not_lost() {
    for between in [0, 3_000] {
        let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
        let mut client = source.client();
        run(
            &mut client,
            &["0: SET a 0", "0: RPUSH jobs x", "0: SET z 0"],
        );
        let mut daemon = start(&source, &target, "{ 1 = 0 }");
        wait_stream(&mut daemon);
        // As things are done in order: nothing met, nothing is copied again.
        run(
            &mut client,
            &["0: DEL z", "1: SET z 1", "1: DEL z", "0: SET z 2"],
        );
        run(&mut client, &["0: LPOP jobs"]);
        catch_up(&mut daemon, &source);
        run(&mut client, &["1: RPUSH jobs y"]);
        catch_up(&mut daemon, &source);
        assert_eq!(full_syncs(&source), 1);
        signal(daemon.pid(), Signal::STOP);
        run(&mut client, &["1: SET a 1"]);
        for number in 0..between {
            client.command(&argv!["SET", format!("filler:{number}"), "x".repeat(200)]);
        }
        run(&mut client, &["0: DEL a"]);
        signal(daemon.pid(), Signal::CONT);
        assert_eq!(daemon.wait(LIMIT), 4);
        let output = daemon.output();
        assert!(output.contains("key \"a\" was in database 0"), "{output}");
        assert!(dump(&target).iter().any(|line| line.starts_with("0:a=")));
        daemon.spawn();
        wait_stream(&mut daemon);
        catch_up(&mut daemon, &source);
        let mut found = dump(&target);
        found.retain(|line| !line.contains("filler"));
        assert_eq!(found, ["0:a=1", "0:jobs=list", "0:z=2"]);
        run(&mut client, &["1: SET a 2"]);
        catch_up(&mut daemon, &source);
        assert!(dump(&target).contains(&"0:a=2".to_owned()));
        assert_eq!(full_syncs(&source), 2);
    }
}
