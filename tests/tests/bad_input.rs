//! What is wrong is said in one line that begins with `error:`, naming the side, its address and what to do; the exit
//! code tells whose trouble it is; nothing is lost at the source, and nothing is printed that is secret.

use std::io::Write;

use e2e::{Ended, Fake, LIMIT, Link, catch_up, phase, run, run_file, wait_stream};
use testkit::port::Port;
use testkit::process::wait_until;
use testkit::{Client, Engine, Server, ServerOptions, argv};

const SECRET: &str = "correct-horse-battery";
const WRONG_SECRET: &str = "tr0ub4dor-and-3";
const REPLID: &str = "0123456789abcdef0123456789abcdef01234567";
/// An RDB without keys; a checksum of 0 means none.
const EMPTY_RDB: &[u8] = b"REDIS0009\xff\0\0\0\0\0\0\0\0";

fn server(words: &str) -> Server {
    Server::start(&Engine::of("redis-7.0"), ServerOptions::args(words))
}

/// A source with keys of two types.
fn source(words: &str) -> Server {
    let source = server(words);
    give_keys(&mut source.client());
    source
}

fn give_keys(client: &mut Client) {
    client.command(&argv!["SET", "text", "value"]);
    client.command(&argv!["HSET", "hash", "field", "value"]);
}

/// One trouble: the exit code and what the error line has to name.
#[track_caller]
fn says(ended: &Ended, code: i32, words: &[&str]) {
    assert_eq!(ended.code, code, "{}", ended.stderr);
    let line = ended.error();
    for word in words {
        assert!(
            line.to_lowercase().contains(&word.to_lowercase()),
            "no {word:?} in: {line}"
        );
    }
    let everything = ended.everything();
    for secret in [SECRET, WRONG_SECRET] {
        assert!(
            !everything.contains(secret),
            "a secret is printed:\n{everything}"
        );
    }
    assert!(!everything.contains("panicked"), "{everything}");
}

#[track_caller]
fn untouched(source: &Server) {
    let mut client = source.client();
    assert_eq!(client.keyspace().get(&0), Some(&2));
    client.command(&argv!["SET", "text", "again"]);
}

#[track_caller]
fn empty(target: &Server) {
    let mut client = target.client();
    let keys = client.keys();
    let ours = |key: &Vec<u8>| key.starts_with(b"understudy");
    assert!(keys.iter().all(ours), "{keys:?}");
}

#[test]
fn a_wrong_file_is_named_with_its_line() {
    let table: [(&str, &[&str]); 14] = [
        (
            "[sync_reader]\nadress = \"a:1\"\n",
            &["shake.toml:2", "adress", "sync_reader.address"],
        ),
        (
            "[sync_raeder]\naddress = \"a:1\"\n",
            &["shake.toml:1", "sync_raeder", "sync_reader"],
        ),
        (
            "[advanced]\nstatus_port = \"yes\"\n",
            &["shake.toml:2", "status_port", "number"],
        ),
        (
            "[advanced]\nstatus_port = 70000\n",
            &["shake.toml:2", "status_port", "65535"],
        ),
        (
            "[advanced]\nlog_level = \"loud\"\n",
            &["shake.toml:2", "log_level", "info"],
        ),
        (
            "[sync_reader]\naddress = 6379\n",
            &["shake.toml:2", "address"],
        ),
        (
            "[sync_reader]\naddress = \"nowhere\"\n",
            &["shake.toml:2", "address", "port"],
        ),
        (
            "[spool]\nmax_bytes = \"many\"\n",
            &["shake.toml:2", "max_bytes"],
        ),
        (
            "[filter]\nallow_key_regex = [\"(\"]\n[sync_reader]\naddress=\"a:1\"\n[redis_writer]\naddress=\"b:1\"\n",
            &["allow_key_regex"],
        ),
        ("this is = = no toml\n", &["shake.toml:1"]),
        ("[sync_reader\n", &["shake.toml:1"]),
        ("", &["sync_reader.address", "missing"]),
        (
            "[sync_reader]\naddress = \"a:1\"\n",
            &["redis_writer.address", "missing"],
        ),
        (
            "[sync_reader]\naddress = \"a:1\"\n[redis_writer]\naddress = \"a:1\"\n",
            &["shake.toml:4", "source's own"],
        ),
    ];
    for (text, words) in table {
        let ended = run_file(&["sync", "shake.toml"], Some(text.as_bytes()));
        says(&ended, 2, words);
        // RedisShake's way to start it is the same.
        assert_eq!(run_file(&["shake.toml"], Some(text.as_bytes())).code, 2);
    }
    let not_text = run_file(
        &["sync", "shake.toml"],
        Some(b"[sync_reader]\naddress = \"\xff\"\n"),
    );
    says(&not_text, 2, &["shake.toml", "UTF-8"]);
    says(&run_file(&["sync", "shake.toml"], None), 2, &["shake.toml"]);
    says(&run_file(&["sync", "/"], None), 2, &["/"]);
    assert_eq!(run_file(&["synch"], None).code, 2);
    assert_eq!(run_file(&[], None).code, 2);
}

#[test]
fn a_source_that_cannot_be_reached_is_named() {
    let target = server("");
    let closed = Port::reserve();
    let link = Link::between(&closed.address(), &target.address());
    says(
        &run(&link),
        3,
        &["source", &closed.address(), "refused", "port"],
    );
    let link = Link::between("no-such-host.invalid:6379", &target.address());
    says(&run(&link), 3, &["source", "no-such-host.invalid:6379"]);
    empty(&target);
}

#[test]
fn a_target_that_cannot_be_reached_is_named() {
    let source = source("");
    let closed = Port::reserve();
    let link = Link::between(&source.address(), &closed.address());
    says(
        &run(&link),
        4,
        &["target", &closed.address(), "refused", "port"],
    );
    untouched(&source);
}

#[test]
fn passwords_that_are_wrong_or_missing_are_named_and_never_printed() {
    let guarded = source("");
    guarded
        .client()
        .command(&argv!["CONFIG", "SET", "requirepass", SECRET]);
    let open = server("");
    let right = format!("password = \"{SECRET}\"");
    let wrong = format!("password = \"{WRONG_SECRET}\"");
    let link = Link::new(&guarded, &open);
    let mend = "sync_reader.password";
    let address = guarded.address();
    says(&run(&link), 3, &["source", &address, "NOAUTH", mend]);
    says(
        &run(&link.with("sync_reader", &wrong)),
        3,
        &["source", &address, "WRONGPASS", mend],
    );
    empty(&open);
    let link = Link::new(&open, &guarded);
    let mend = "redis_writer.password";
    says(&run(&link), 4, &["target", &address, "NOAUTH", mend]);
    says(
        &run(&link.with("redis_writer", &wrong)),
        4,
        &["target", &address, "WRONGPASS", mend],
    );
    let once = Link::new(&guarded, &open)
        .with("sync_reader", &right)
        .with("sync_reader", "sync_aof = false");
    let ended = run(&once);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(!ended.everything().contains(SECRET));
    let config = once.text().replace(testkit::daemon::STATUS_PORT, "0");
    let shown = run_file(&["config", "shake.toml"], Some(config.as_bytes()));
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    assert!(!shown.everything().contains(SECRET), "{}", shown.stdout);
}

#[test]
fn secrets_are_in_no_page_of_a_running_daemon() {
    let (source, target) = (server(""), server(""));
    for server in [&source, &target] {
        let user = argv![
            "ACL",
            "SETUSER",
            "mover",
            "on",
            format!(">{SECRET}"),
            "~*",
            "&*",
            "+@all"
        ];
        server.client().command(&user);
    }
    let password = format!("password = \"{SECRET}\"");
    let mut link = Link::new(&source, &target).with("advanced", "log_level = \"trace\"");
    for table in ["sync_reader", "redis_writer"] {
        link = link
            .with(table, "username = \"mover\"")
            .with(table, &password);
    }
    let mut daemon = link.start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let mut pages = daemon.output();
    for path in ["/", "/status", "/metrics", "/healthz", "/readyz"] {
        let (_, body) = daemon.get(path).expect("the page is there");
        pages.push_str(&body);
    }
    let log = std::fs::read(daemon.folder().join("data/shake.log")).expect("a log file");
    pages.push_str(&String::from_utf8_lossy(&log));
    assert!(!pages.contains(SECRET), "{pages}");
}

#[test]
fn tls_on_one_end_only_is_named() {
    let (plain, other) = (source(""), server(""));
    // What a TLS server answers to plain text: an alert, then the end.
    let tls = Fake::start(|stream| stream.write_all(b"\x15\x03\x03\x00\x02\x02\x0a"));
    let ended = run(&Link::new(&plain, &other).with("sync_reader", "tls = true"));
    says(&ended, 3, &["source", &plain.address(), "tls"]);
    let ended = run(&Link::new(&plain, &other).with("redis_writer", "tls = true"));
    says(&ended, 4, &["target", &other.address(), "tls"]);
    let ended = run(&Link::between(&tls.address(), &other.address()));
    says(&ended, 3, &["source", &tls.address(), "tls = true"]);
    let ended = run(&Link::between(&plain.address(), &tls.address()));
    says(&ended, 4, &["target", &tls.address(), "tls = true"]);
    untouched(&plain);
    empty(&other);
}

#[test]
fn a_web_server_is_no_redis() {
    let web = Fake::start(|stream| {
        stream.write_all(
            b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        )
    });
    let redis = server("");
    let ended = run(&Link::between(&web.address(), &redis.address()));
    says(&ended, 3, &["source", &web.address(), "HTTP/1.1", "Redis"]);
    let ended = run(&Link::between(&redis.address(), &web.address()));
    says(&ended, 4, &["target", &web.address(), "HTTP/1.1", "Redis"]);
}

#[test]
fn a_source_that_refuses_psync_is_named_with_what_it_needs() {
    let target = server("");
    let renamed = source("--rename-command PSYNC HIDDEN");
    let fails = "on_psync_refused = \"fail\"";
    let ended = run(&Link::new(&renamed, &target).with("sync_reader", fails));
    says(
        &ended,
        3,
        &["source", &renamed.address(), "psync", "psync_command"],
    );
    let open = source("");
    let user = argv![
        "ACL",
        "SETUSER",
        "reader",
        "on",
        format!(">{SECRET}"),
        "~*",
        "+@all",
        "-psync"
    ];
    open.client().command(&user);
    let link = Link::new(&open, &target)
        .with("sync_reader", fails)
        .with("sync_reader", "username = \"reader\"")
        .with("sync_reader", &format!("password = \"{SECRET}\""));
    says(
        &run(&link),
        3,
        &["source", &open.address(), "NOPERM", "+psync"],
    );
    untouched(&renamed);
    untouched(&open);
    empty(&target);
}

#[test]
fn a_target_that_holds_keys_is_left_as_it_is() {
    let (source, target) = (source(""), server(""));
    let mut client = target.client();
    client.command(&argv!["SET", "mine", 1]);
    client.select(3);
    client.command(&argv!["SET", "mine", 3]);
    let ended = run(&Link::new(&source, &target));
    says(
        &ended,
        4,
        &[
            "target",
            &target.address(),
            "holds keys",
            "db0: 1",
            "db3: 1",
            "rewrite",
        ],
    );
    assert_eq!(
        client.keyspace().into_iter().collect::<Vec<_>>(),
        [(0, 1), (3, 1)]
    );
    untouched(&source);
}

#[test]
fn a_target_that_is_a_replica_is_named() {
    let (source, primary, target) = (source(""), server(""), server(""));
    target
        .client()
        .command(&argv!["REPLICAOF", "127.0.0.1", primary.port()]);
    let ended = run(&Link::new(&source, &target));
    says(
        &ended,
        4,
        &["target", &target.address(), "replica", "primary"],
    );
    untouched(&source);
    empty(&primary);
}

#[test]
fn a_target_that_lacks_a_command_is_named_with_it() {
    let source = source("");
    for (word, line) in [
        ("SET", "--rename-command SET HIDDEN"),
        ("EXEC", "--rename-command EXEC HIDDEN"),
        ("WATCH", "--rename-command WATCH HIDDEN"),
        ("SELECT", "--rename-command SELECT HIDDEN"),
    ] {
        let target = server(line);
        if word == "SELECT" {
            let mut client = source.client();
            client.select(1);
            client.command(&argv!["SET", "other", 1]);
        }
        let ended = run(&Link::new(&source, &target));
        says(&ended, 4, &["target", &target.address(), word]);
    }
}

/// What RESTORE would do, commands do as well.
#[test]
fn a_target_without_restore_is_written_by_commands() {
    let (source, target) = (source(""), server("--rename-command RESTORE HIDDEN"));
    let ended = run(&Link::new(&source, &target).with("sync_reader", "sync_aof = false"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let value = target.client().command(&argv!["HGET", "hash", "field"]);
    assert_eq!(testkit::client::text(&value), "value");
}

#[test]
fn a_user_at_the_target_who_may_not_is_named_with_what_is_missing() {
    let source = source("");
    for (word, rule) in [
        ("restore", "-restore"),
        ("set", "-set"),
        ("multi", "-multi"),
    ] {
        let target = server("");
        let user = argv![
            "ACL",
            "SETUSER",
            "writer",
            "on",
            format!(">{SECRET}"),
            "~*",
            "+@all",
            rule
        ];
        target.client().command(&user);
        let link = Link::new(&source, &target)
            .with("redis_writer", "username = \"writer\"")
            .with("redis_writer", &format!("password = \"{SECRET}\""));
        says(
            &run(&link),
            4,
            &["target", &target.address(), "NOPERM", word],
        );
    }
    untouched(&source);
}

/// `+FULLRESYNC`, the length, and these bytes.
fn full_resync(rdb: &[u8]) -> Vec<u8> {
    let head = format!("+FULLRESYNC {REPLID} 0\r\n${}\r\n", rdb.len());
    [head.as_bytes(), rdb].concat()
}

#[test]
fn a_corrupt_snapshot_is_named_with_its_place() {
    let table: [(&[u8], &[&str]); 4] = [
        // A type that nobody knows, after a key.
        (
            b"REDIS0009\xfe\x00\xc7\x01a\x01b\xff\0\0\0\0\0\0\0\0",
            &["snapshot", "11"],
        ),
        (b"RUBIS0009\xff\0\0\0\0\0\0\0\0", &["snapshot"]),
        (
            b"REDIS0009\xff\x01\x02\x03\x04\x05\x06\x07\x08",
            &["snapshot", "checksum"],
        ),
        // Ends before its own end.
        (b"REDIS0009\xfe\x00\x00\x01a\x01b", &["snapshot"]),
    ];
    for (rdb, words) in table {
        let target = server("");
        let fake = Fake::source(full_resync(rdb));
        let ended = run(&Link::between(&fake.address(), &target.address()));
        says(&ended, 3, words);
        says(&ended, 3, &["source", &fake.address()]);
    }
}

#[test]
fn a_snapshot_that_breaks_off_is_asked_for_again_until_told_to_stop() {
    let target = server("");
    // A note of 4,900 bytes, of which less than half comes.
    let note = b"REDIS0009\xfa\x03abc\x53\x24";
    let whole = full_resync(&[note.as_slice(), &[b'x'; 4900]].concat());
    let fake = Fake::source(whole[..2000].to_vec());
    let mut daemon = Link::between(&fake.address(), &target.address()).start();
    daemon.wait_for("three attempts", LIMIT, |_| fake.connections() >= 6);
    assert_ne!(phase(&daemon), "stream");
    assert!(daemon.output().contains("WARN"), "{}", daemon.output());
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    empty(&target);
}

#[test]
fn a_stream_that_is_no_resp_is_named_with_its_offset() {
    for garbage in [
        &b"\x00\x01\x02garbage\r\n"[..],
        b"HTTP/1.1 200 OK\r\n",
        b"*1\r\n$-7\r\n",
    ] {
        let target = server("");
        let first = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n";
        let said = [&full_resync(EMPTY_RDB), &first[..], garbage].concat();
        let fake = Fake::source(said);
        let ended = run(&Link::between(&fake.address(), &target.address()));
        says(&ended, 3, &["source", &fake.address(), "RESP", "offset"]);
    }
}

#[test]
fn trouble_on_this_machine_is_named() {
    let (source, target) = (source(""), server(""));
    let ended = run(&Link::new(&source, &target).with("advanced", "dir = \"/proc/nowhere\""));
    says(&ended, 5, &["/proc/nowhere"]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = taken.local_addr().expect("an address").port().to_string();
    let text = Link::new(&source, &target)
        .text()
        .replace(testkit::daemon::STATUS_PORT, &port);
    let ended = run_file(&["sync", "shake.toml"], Some(text.as_bytes()));
    says(&ended, 5, &[&port, "status_port"]);
    let link = Link::new(&source, &target).with("spool", "max_bytes = 10");
    says(&run(&link), 5, &["spool.max_bytes"]);
    untouched(&source);
    wait_until("the source to be alone", LIMIT, || {
        source
            .client()
            .info_number("replication", "connected_slaves")
            == 0
    });
}
