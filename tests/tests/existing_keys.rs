//! Keys that the target holds already: refused, replaced or left, whether values come by RESTORE or by commands; and emptying
//! the target, which has to be confirmed.

use e2e::{LIMIT, Link, catch_up, run, run_file, source_of, wait_stream};
use testkit::client::{items, text};
use testkit::{Client, Daemon, Server, argv};

/// As it is, and with RESTORE out of question.
const WAYS: [&str; 2] = [
    "target_redis_proto_max_bulk_len = 512000000",
    "target_redis_proto_max_bulk_len = 0",
];

fn both() -> (Server, Server) {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    for name in ["shared", "new"] {
        client.command(&argv!["SET", format!("{name}:string"), "source"]);
        client.command(&argv!["RPUSH", format!("{name}:list"), "source", "b"]);
        client.command(&argv!["HSET", format!("{name}:hash"), "f", "source"]);
        client.command(&argv![
            "XADD",
            format!("{name}:stream"),
            "1-1",
            "f",
            "source"
        ]);
    }
    let mut client = target.client();
    for name in ["shared", "own"] {
        client.command(&argv!["SET", format!("{name}:string"), "target"]);
        client.command(&argv!["RPUSH", format!("{name}:list"), "target"]);
        client.command(&argv!["HSET", format!("{name}:hash"), "f", "target"]);
        client.command(&argv!["SET", format!("{name}:stream"), "target"]);
    }
    (source, target)
}

/// Whose value each kind of key has, beginning with `name`.
fn whose(client: &mut Client, name: &str) -> Vec<String> {
    let stream = format!("{name}:stream");
    let is_stream = text(&client.command(&argv!["TYPE", &*stream])) == "stream";
    let list = items(client.command(&argv!["LRANGE", format!("{name}:list"), 0, -1]));
    vec![
        text(&client.command(&argv!["GET", format!("{name}:string")])),
        list.first().map(text).unwrap_or_default(),
        text(&client.command(&argv!["HGET", format!("{name}:hash"), "f"])),
        match is_stream {
            true => "source".into(),
            false => text(&client.command(&argv!["GET", stream])),
        },
    ]
}

fn link(source: &Server, target: &Server, way: &str, existing: &str) -> Link {
    Link::new(source, target)
        .with("advanced", way)
        .with("redis_writer", &format!("existing_keys = \"{existing}\""))
}

#[test]
fn fail_writes_nothing() {
    for way in WAYS {
        let (source, target) = both();
        let ended = run(&link(&source, &target, way, "fail"));
        assert_eq!(ended.code, 4, "{}", ended.stderr);
        assert!(
            ended.error().contains("holds keys already"),
            "{}",
            ended.error()
        );
        let mut client = target.client();
        assert_eq!(client.keyspace().get(&0), Some(&8));
        assert_eq!(whose(&mut client, "shared"), ["target"; 4]);
    }
}

#[test]
fn replace_and_skip_hold_for_both_ways_of_writing() {
    for way in WAYS {
        for (existing, owner) in [("replace", "source"), ("skip", "target")] {
            let (source, target) = both();
            let mut daemon = link(&source, &target, way, existing).start();
            wait_stream(&mut daemon);
            catch_up(&mut daemon, &source);
            let mut client = target.client();
            let about = format!("{existing}, {way}");
            assert_eq!(whose(&mut client, "shared"), [owner; 4], "{about}");
            assert_eq!(whose(&mut client, "new"), ["source"; 4], "{about}");
            assert_eq!(whose(&mut client, "own"), ["target"; 4], "{about}");
            daemon.terminate();
            assert_eq!(daemon.wait(LIMIT), 0);
        }
    }
}

#[test]
fn a_target_is_emptied_only_when_somebody_says_so() {
    let (source, target) = both();
    let link = Link::new(&source, &target).with("advanced", "empty_db_before_sync = true");
    let text = link.text().replace(testkit::daemon::STATUS_PORT, "0");
    for args in [&["sync", "shake.toml"][..], &["shake.toml"]] {
        let ended = run_file(args, Some(text.as_bytes()));
        assert_eq!(ended.code, 2, "{}", ended.stderr);
        for word in ["--yes", &target.address(), "every key"] {
            assert!(ended.error().contains(word), "{}", ended.error());
        }
    }
    assert_eq!(target.client().keyspace().get(&0), Some(&8));
    for args in [
        &["sync", "shake.toml", "--yes"][..],
        &["--yes", "shake.toml"],
    ] {
        target.client().command(&argv!["FLUSHALL"]);
        target
            .client()
            .command(&argv!["SET", "own:string", "target"]);
        let mut daemon = Daemon::prepare(&link.text(), args);
        daemon.spawn();
        wait_stream(&mut daemon);
        catch_up(&mut daemon, &source);
        testkit::oracle::assert_equal(&source.address(), &target.address());
        daemon.terminate();
        assert_eq!(daemon.wait(LIMIT), 0);
    }
}
