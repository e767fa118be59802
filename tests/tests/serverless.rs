//! A target such as ElastiCache Serverless: TLS, a user with rights, database 0, commands that are not there, and no more than
//! 3,999 words in a command. (That it speaks the cluster's protocol is another test's subject.)

use e2e::{LIMIT, Link, catch_up, source_of, wait_stream};
use testkit::certs::Ca;
use testkit::serverless::{Rules, Serverless};
use testkit::{Engine, Server, ServerOptions, argv, oracle};

const PASSWORD: &str = "a-password-of-rbac";
/// Those that are not there. (FUNCTION, CLIENT and OBJECT the oracle wants, by another way: the user may not use them.)
const LACKING: [&str; 6] = ["CONFIG", "DEBUG", "WAIT", "MONITOR", "SWAPDB", "MOVE"];
/// What is never sent at all.
const NEVER: [&str; 9] = [
    "config", "debug", "client", "wait", "object", "function", "keys", "swapdb", "memory",
];

#[test]
fn a_whole_migration_to_a_serverless_target() {
    let ca = Ca::new();
    let source = source_of("redis-7.0");
    // An empty word is one of its own, which a line of words cannot have.
    let mut options = ServerOptions::default();
    for name in LACKING {
        options
            .args
            .extend(["--rename-command".into(), name.into(), String::new()]);
    }
    let target = Server::start(&Engine::of("redis-7.0"), options);
    target.client().command(&argv![
        "ACL",
        "SETUSER",
        "mover",
        "on",
        format!(">{PASSWORD}"),
        "~*",
        "+@all",
        "-@dangerous",
        "-function",
        "-client",
        "-object",
        "+info",
        "+restore"
    ]);
    let door = Serverless::start(
        &target.address(),
        &ca.server(&["127.0.0.1"]),
        Rules { words_max: 3_999 },
    );
    let mut client = source.client();
    for i in 0..300 {
        client.command(&argv!["SET", format!("key:{i}"), i]);
    }
    let many: Vec<String> = (0..9_000).map(|i| format!("m{i}")).collect();
    let fill = |client: &mut testkit::Client, name: &str, command: &str| {
        let mut words = argv![command, name];
        words.extend(many.iter().map(|word| word.as_bytes().to_vec()));
        client.command(&words);
    };
    fill(&mut client, "snapshot:list", "RPUSH");
    fill(&mut client, "snapshot:set", "SADD");
    client.command(&argv!["SET", "soon", 1, "PX", 4_000]);
    let mut daemon = Link::between(&source.address(), &door.address())
        .with("redis_writer", "profile = \"elasticache-serverless\"")
        .with("redis_writer", "username = \"mover\"")
        .with("redis_writer", &format!("password = \"{PASSWORD}\""))
        .with("redis_writer", "tls = true")
        .with(
            "redis_writer",
            &format!("tls_config.ca_cert = \"{}\"", ca.file().display()),
        )
        .start();
    wait_stream(&mut daemon);
    fill(&mut client, "stream:list", "LPUSH");
    fill(&mut client, "stream:set", "SADD");
    let mut pairs = argv!["MSET"];
    let mut scores = argv!["ZADD", "stream:zset"];
    for (at, word) in many.iter().enumerate() {
        pairs.extend(argv![format!("pair:{word}"), at]);
        scores.extend(argv![at, word]);
    }
    client.commands(&[argv!["MULTI"], pairs, scores, argv!["EXEC"]]);
    let mut del = argv!["DEL"];
    del.extend(
        many.iter()
            .take(5_000)
            .map(|word| format!("pair:{word}").into_bytes()),
    );
    client.command(&del);
    client.command(&argv!["XADD", "events", "*", "f", "v"]);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
    assert_eq!(door.refused(), 0);
    assert!(door.widest() <= 3_999, "{}", door.widest());
    let names = door.names();
    for name in NEVER {
        assert!(!names.contains(name), "{name} was sent: {names:?}");
    }
    let output = daemon.output();
    assert!(output.contains("elasticache-serverless") && !output.contains(PASSWORD));
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0);
}

#[test]
fn what_does_not_fall_apart_is_refused_with_its_name() {
    let ca = Ca::new();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let door = Serverless::start(
        &target.address(),
        &ca.server(&["127.0.0.1"]),
        Rules { words_max: 3_999 },
    );
    let mut daemon = Link::between(&source.address(), &door.address())
        .with("redis_writer", "profile = \"elasticache-serverless\"")
        .with("redis_writer", "tls = true")
        .with("redis_writer", "tls_config.insecure = true")
        .start();
    wait_stream(&mut daemon);
    let mut wide = argv!["SUNIONSTORE", "all"];
    wide.extend((0..5_000).map(|i| format!("s{i}").into_bytes()));
    let mut client = source.client();
    client.command(&argv!["SADD", "s1", "member"]);
    client.command(&wide);
    assert_eq!(daemon.wait(LIMIT), 3);
    let output = daemon.output();
    assert!(
        output.contains("SUNIONSTORE") && output.contains("words in one command"),
        "{output}"
    );
    assert_eq!(door.refused(), 0);
}
