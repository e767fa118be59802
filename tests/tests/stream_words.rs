//! Words in a source's stream that a client may not use there, or that the target does not know.

use e2e::{LIMIT, Link, catch_up, source_of, wait_stream};
use testkit::client::number;
use testkit::oracle::{self, OracleOptions};
use testkit::{Client, Daemon, Server, argv};

fn run(client: &mut Client, words: &str) {
    let words: Vec<Vec<u8>> = words
        .split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect();
    client.command(&words);
}

/// Runs the commands while the link stands; afterwards nothing differs.
fn brings(
    from: &str,
    to: &str,
    losses: &str,
    before: &[&str],
    during: &[&str],
) -> (Daemon, Server) {
    let (source, target) = (source_of(from), Server::of(to));
    let mut client = source.client();
    for words in before {
        run(&mut client, words);
    }
    let mut daemon = Link::new(&source, &target)
        .with("redis_writer", losses)
        .start();
    wait_stream(&mut daemon);
    for words in during {
        run(&mut client, words);
    }
    catch_up(&mut daemon, &source);
    oracle::assert_equal_with(
        &source.address(),
        &target.address(),
        &OracleOptions::default(),
    );
    (daemon, target)
}

fn ends_well(mut daemon: Daemon) {
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
}

const FAIL: &str = "losses = \"fail\"";
const WARN: &str = "losses = \"warn\"";

const BEFORE: [&str; 6] = [
    "RPUSH list a b c d e f g",
    "RPUSH other z",
    "SET text v PX 86400000",
    "ZADD zset 1 a 2 b 3 c 4 d",
    "XADD stream 1-0 f v",
    "XADD stream 2-0 f v",
];

const DURING: [&str; 24] = [
    "ZADD zset GT CH 5 a 1 b 9 new",
    "ZADD zset LT 0.5 a 7 b",
    "ZADD zset XX GT 8 c 8 never 1 d",
    "ZADD zset GT INCR 2 a",
    "ZADD zset NX 1 a 6 f",
    "ZADD zset GT 1e300 inf inf inf2",
    "LPOP list 2",
    "RPOP list 1",
    "LMOVE list other LEFT LEFT",
    "LMOVE list other LEFT RIGHT",
    "LMOVE list other RIGHT RIGHT",
    "LMOVE list other RIGHT LEFT",
    "COPY text copied",
    "COPY zset other REPLACE",
    "COPY stream streams",
    "XADD stream NOMKSTREAM 3-0 f v",
    "XADD stream MINID = 2 4-0 f v",
    "XADD stream MAXLEN ~ 1 LIMIT 100 5-0 f v",
    "XADD streams MINID ~ 2 LIMIT 100 5-0 f v",
    "XTRIM stream MINID 4-0",
    "XTRIM stream MAXLEN ~ 1 LIMIT 100",
    "MULTI",
    "LPOP list 9",
    "EXEC",
];

#[test]
fn words_of_redis_7_0_at_redis_6_0() {
    let (daemon, _target) = brings("redis-7.0", "redis-6.0", FAIL, &BEFORE, &DURING);
    ends_well(daemon);
}

#[test]
fn words_of_redis_7_0_at_redis_5_0() {
    let (daemon, _target) = brings("redis-7.0", "redis-5.0", WARN, &BEFORE, &DURING);
    ends_well(daemon);
}

/// What a source writes beside an exact length, no server takes from a client: not even one of its own version.
#[test]
fn a_limit_of_trimming_at_the_same_version() {
    let (daemon, target) = brings("redis-7.0", "redis-7.0", FAIL, &BEFORE, &DURING);
    assert_eq!(
        number(
            &target
                .client()
                .command(&argv!["EXISTS", "copied", "streams"])
        ),
        Some(2)
    );
    ends_well(daemon);
}

const PRODUCED: [&str; 5] = [
    "XADD stream IDMP producer first * f v",
    "XADD stream IDMP producer second * f v",
    "XADD stream MAXLEN ~ 100 LIMIT 10 IDMP other first * f v",
    "XADD stream KEEPREF MAXLEN = 100 * f v",
    "XADD fresh IDMP producer first * f v",
];

/// Producers with names for their messages: a message comes once, and is known when it comes again.
#[test]
fn named_messages_of_redis_8_6_at_redis_8_10() {
    let (daemon, target) = brings("redis-8.6", "redis-8.10", FAIL, &BEFORE, &PRODUCED);
    let mut client = target.client();
    let len = number(&client.command(&argv!["XLEN", "stream"]));
    client.command(&argv![
        "XADD", "stream", "IDMP", "producer", "second", "*", "f", "v"
    ]);
    assert_eq!(number(&client.command(&argv!["XLEN", "stream"])), len);
    ends_well(daemon);
}

/// Producers whose messages are known by their content, which both servers have to call the same: the message that comes
/// again at the target is one that it has. The last two are longer than what is hashed in one piece.
fn messages_known_by_their_content(from: &str, to: &str) {
    let (source, target) = (source_of(from), Server::of(to));
    let mut client = source.client();
    let mut daemon = Link::new(&source, &target)
        .with("redis_writer", FAIL)
        .start();
    wait_stream(&mut daemon);
    let long = "long ".repeat(100);
    let very_long = "longer still ".repeat(1_000);
    let messages: [&[&str]; 7] = [
        &["f", "v"],
        &["f", ""],
        &["", "v"],
        &["number", "12", "007", "-1"],
        &["b", "2", "a", "1", "b", "2"],
        &["f", &long, &long, "v"],
        &["f", &very_long, "g", &long],
    ];
    let add = |message: &[&str]| {
        let mut words = argv!["XADD", "stream", "IDMPAUTO", "producer", "*"];
        words.extend(message.iter().map(|word| word.as_bytes().to_vec()));
        words
    };
    for message in messages {
        client.command(&add(message));
        client.command(&add(message));
    }
    client.command(&argv![
        "XADD", "stream", "IDMPAUTO", "other", "MAXLEN", "~", 100, "*", "f", "v"
    ]);
    catch_up(&mut daemon, &source);
    let mut there = target.client();
    let len = |client: &mut Client| number(&client.command(&argv!["XLEN", "stream"]));
    assert_eq!(len(&mut client), Some(8));
    assert_eq!(len(&mut there), Some(8));
    let options = OracleOptions::default();
    let mut found = oracle::compare_with(&source.address(), &target.address(), &options);
    // A message that comes twice does not go to the target, which counts its own.
    found.retain(|difference| !difference.what.starts_with("producers' counts: "));
    assert!(found.is_empty(), "{found:?}");
    for message in messages {
        let (known, asked) = (client.command(&add(message)), add(message));
        assert_eq!(there.command(&asked), known, "{message:?}");
    }
    assert_eq!(len(&mut there), Some(8));
    ends_well(daemon);
}

#[test]
fn messages_known_by_their_content_of_redis_8_6_at_redis_8_6() {
    messages_known_by_their_content("redis-8.6", "redis-8.6");
}

#[test]
fn messages_known_by_their_content_of_redis_8_6_at_redis_8_10() {
    messages_known_by_their_content("redis-8.6", "redis-8.10");
}

#[test]
fn messages_known_by_their_content_of_redis_8_10_at_redis_8_6() {
    messages_known_by_their_content("redis-8.10", "redis-8.6");
}

/// A target that remembers no producers: each message comes once, without its name, and that is counted.
#[test]
fn named_messages_of_redis_8_6_at_redis_7_0() {
    let (source, target) = (source_of("redis-8.6"), Server::of("redis-7.0"));
    let mut client = source.client();
    let mut daemon = Link::new(&source, &target)
        .with("redis_writer", WARN)
        .start();
    wait_stream(&mut daemon);
    for words in PRODUCED {
        run(&mut client, words);
    }
    // It has this one.
    run(&mut client, PRODUCED[0]);
    catch_up(&mut daemon, &source);
    for key in ["stream", "fresh"] {
        let ask = argv!["XRANGE", key, "-", "+"];
        assert_eq!(client.command(&ask), target.client().command(&ask), "{key}");
    }
    let status = daemon.status().expect("a status");
    let dropped = &status["understudy"]["commands_dropped"];
    assert_eq!(dropped["target_lacks_words"].as_u64(), Some(4), "{dropped}");
    ends_well(daemon);
}
