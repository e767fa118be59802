//! Keys that the target holds already: refused, replaced or left, whether values come by RESTORE or by commands; and emptying
//! the target, which has to be confirmed.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use e2e::{LIMIT, Link, catch_up, run, run_file, source_of, wait_stream};
use testkit::client::{items, text};
use testkit::process::{Signal, signal, terminal, wait_until};
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

/// At a terminal the target's address has to be typed, and nothing else will do.
#[test]
fn at_a_terminal_the_address_has_to_be_typed() {
    let (source, target) = both();
    let link = Link::new(&source, &target).with("advanced", "empty_db_before_sync = true");
    let typed = |words: &str| {
        let folder = tempfile::tempdir().expect("a folder");
        let config = link.text().replace(testkit::daemon::STATUS_PORT, "0");
        std::fs::write(folder.path().join("shake.toml"), config).expect("write shake.toml");
        let (mut person, process) = terminal();
        let copy = || process.try_clone().expect("its other side");
        let mut command = std::process::Command::new(testkit::daemon::binary());
        command
            .args(["sync", "shake.toml"])
            .current_dir(folder.path())
            .stdin(copy())
            .stdout(copy())
            .stderr(copy());
        let mut sync = command.spawn().expect("start the binary");
        // Copies of ours would keep the terminal open.
        drop((command, process));
        let mut output = person.try_clone().expect("the same terminal");
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        // A terminal whose other side has gone is an error, not an end.
        let reader = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(len @ 1..) = output.read(&mut bytes) {
                heard.lock().expect("no panic").extend(&bytes[..len]);
            }
        });
        let said = || String::from_utf8_lossy(&said.lock().expect("no panic")).into_owned();
        // Nothing is typed before it asks: what comes earlier may not reach it.
        wait_until("the question", LIMIT, || said().contains("to go on: "));
        person
            .write_all(format!("{words}\n").as_bytes())
            .expect("type");
        let mut is_emptied = false;
        wait_until("what was typed to be acted upon", LIMIT, || {
            let own = target.client().command(&argv!["EXISTS", "own:string"]);
            is_emptied = text(&own) == "0";
            is_emptied || sync.try_wait().expect("its state").is_some()
        });
        if is_emptied {
            // It runs on.
            signal(sync.id(), Signal::INT);
        }
        let code = testkit::process::wait(&mut sync, LIMIT).expect("it ends");
        reader.join().expect("all that it has said");
        (is_emptied, format!("{code}: {}", said()))
    };
    for words in ["y", "yes", "", "127.0.0.1:1"] {
        let (is_emptied, said) = typed(words);
        assert!(!is_emptied, "{words:?}: {said}");
        for word in ["EVERY key", &target.address(), "nothing was touched"] {
            assert!(said.contains(word), "{words:?}: {said}");
        }
    }
    let (is_emptied, said) = typed(&target.address());
    assert!(is_emptied, "{said}");
}
