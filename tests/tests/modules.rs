//! Values of modules: to a target that has the module exactly, to one that has not as a loss with a name.

use e2e::{LIMIT, Link, catch_up, run, source_of, wait_stream};
use testkit::client::{Error, bytes, items, number, text};
use testkit::oracle::{self, OracleOptions};
use testkit::samples::{self, MODULE_PREFIX, Samples};
use testkit::{Client, Daemon, Engine, Server, ServerOptions, argv};

const WARN: &str = "losses = \"warn\"";
const BLOOM: &str = "redisbloom.so";
const JSON: &str = "rejson.so";

fn dropped(daemon: &Daemon, reason: &str) -> u64 {
    let status = daemon.status().expect("a status");
    status["understudy"]["commands_dropped"][reason]
        .as_u64()
        .unwrap_or_default()
}

fn ends_well(mut daemon: Daemon) {
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
}

/// Vector sets of every kind at a source, and their names.
fn vectors_of(engine: &str) -> (Server, Vec<Vec<u8>>) {
    let source = source_of(engine);
    let mut client = source.client();
    let samples = Samples {
        large: false,
        modules: true,
    };
    samples::fill(&mut client, samples);
    let keys = client.command(&argv!["KEYS", format!("{MODULE_PREFIX}*")]);
    let keys: Vec<Vec<u8>> = items(keys).into_iter().map(bytes).collect();
    assert_eq!(keys.len(), 5);
    (source, keys)
}

/// What clients can see of the graph: each member's links on each layer, and how near the others are. Links stand in the
/// order in which a server has loaded them, and members that are equally near in any order.
fn graph(client: &mut Client, key: &[u8]) -> Vec<String> {
    let mut seen = Vec::new();
    let texts = |reply| {
        let mut texts: Vec<String> = items(reply).iter().map(text).collect();
        texts.sort();
        texts.join(",")
    };
    for index in 0..40 {
        let member = format!("member {index}");
        let layers = client.command(&argv!["VLINKS", key, member]);
        let layers: Vec<String> = items(layers).into_iter().map(texts).collect();
        seen.push(format!("{member} {}", layers.join(" | ")));
        let near = argv![
            "VSIM",
            key,
            "ELE",
            member,
            "WITHSCORES",
            "COUNT",
            40,
            "TRUTH"
        ];
        let near = items(client.command(&near));
        let near = near.chunks(2).map(|pair| {
            let score: f64 = text(&pair[1]).parse().expect("a score");
            format!("{} {}", text(&pair[0]), score as f32)
        });
        let mut near: Vec<String> = near.collect();
        near.sort();
        seen.push(format!("{member}: {}", near.join(",")));
    }
    let info = items(client.command(&argv!["VINFO", key]));
    for pair in info.chunks(2) {
        let name = text(&pair[0]);
        // A number that the server gives a set when it loads it.
        if name != "vset-uid" {
            seen.push(format!("{name} {}", text(&pair[1])));
        }
    }
    seen
}

/// The graph itself comes over, in the snapshot and by `RESTORE` in the stream.
fn vectors_exactly(from: &str, to: &str) {
    let (source, keys) = vectors_of(from);
    let target = Server::of(to);
    let mut daemon = Link::new(&source, &target)
        .with("redis_writer", WARN)
        .start();
    wait_stream(&mut daemon);
    let (mut here, mut there) = (source.client(), target.client());
    let mut names = keys.clone();
    for key in &keys {
        let payload = bytes(here.command(&argv!["DUMP", key]));
        let name = [&b"restored:"[..], key].concat();
        here.command(&argv!["RESTORE", name, 0, payload]);
        names.push(name);
    }
    catch_up(&mut daemon, &source);
    for name in &names {
        let shown = String::from_utf8_lossy(name);
        let (ours, theirs) = (graph(&mut here, name), graph(&mut there, name));
        let differs = ours.iter().zip(&theirs).find(|(one, other)| one != other);
        assert_eq!(differs, None, "{shown}");
        assert_eq!(ours.len(), theirs.len());
    }
    assert_eq!(dropped(&daemon, "snapshot_module_lost"), 0);
    // It is a set that can be written to.
    let key = format!("{MODULE_PREFIX}vectors-plain");
    here.command(&argv!["VADD", key, "VALUES", 3, 1, 2, 3, "new", "NOQUANT"]);
    here.command(&argv!["VREM", key, "member 7"]);
    catch_up(&mut daemon, &source);
    assert_eq!(number(&there.command(&argv!["VCARD", key])), Some(40));
    ends_well(daemon);
}

#[test]
fn vector_sets_of_8_2_at_8_0() {
    vectors_exactly("redis-8.2", "redis-8.0");
}

#[test]
fn vector_sets_of_8_10_at_8_0() {
    vectors_exactly("redis-8.10", "redis-8.0");
}

#[test]
fn vector_sets_of_8_0_at_8_6() {
    vectors_exactly("redis-8.0", "redis-8.6");
}

#[test]
fn vector_sets_have_no_place_at_valkey_and_old_keys_of_their_names_go() {
    let (source, keys) = vectors_of("redis-8.2");
    let target = Server::of("valkey-9.1");
    let once = Link::new(&source, &target).with("sync_reader", "sync_aof = false");
    let ended = run(&once);
    assert_ne!(ended.code, 0);
    let error = ended.error();
    assert!(error.contains("a module (\"vectorset\")"), "{error}");
    assert!(error.contains("redis_writer.losses"), "{error}");

    target.client().command(&argv!["FLUSHALL"]);
    target.client().command(&argv!["SET", keys[0], "old"]);
    let mut daemon = Link::new(&source, &target)
        .with("redis_writer", WARN)
        .with("redis_writer", "existing_keys = \"replace\"")
        .start();
    wait_stream(&mut daemon);
    assert_eq!(dropped(&daemon, "snapshot_module_lost"), 5);
    let mut client = source.client();
    // The same in the stream, where another value had the name.
    let payload = bytes(client.command(&argv!["DUMP", keys[1]]));
    client.command(&argv!["SET", "name", "old"]);
    client.command(&argv!["RESTORE", "name", 0, payload, "REPLACE"]);
    client.command(&argv!["VADD", "more", "VALUES", 2, 1, 2, "member"]);
    client.command(&argv!["SET", "after", "1"]);
    catch_up(&mut daemon, &source);
    assert_eq!(dropped(&daemon, "target_lacks"), 1);
    assert_eq!(dropped(&daemon, "target_lacks_words"), 1);
    let mut there = target.client();
    for gone in [&keys[0][..], &keys[1], b"name", b"more"] {
        let exists = there.command(&argv!["EXISTS", gone]);
        assert_eq!(number(&exists), Some(0), "{}", gone.escape_ascii());
    }
    assert_eq!(number(&there.command(&argv!["EXISTS", "after"])), Some(1));
    ends_well(daemon);
}

/// A server with modules of Redis Stack.
fn with_modules(engine: &str, modules: &[&str]) -> Server {
    let engine = Engine::of(engine);
    let mut args = Vec::new();
    for module in modules {
        let file = engine.module(module);
        let file = file.unwrap_or_else(|| panic!("{} has no {module}", engine.name));
        args.extend(["--loadmodule".into(), file.to_string_lossy().into_owned()]);
    }
    Server::start(
        &engine,
        ServerOptions {
            args,
            ..ServerOptions::default()
        },
    )
}

/// A source that holds a value of each type of two modules.
fn stack() -> Server {
    let source = with_modules("redis-7.4", &[BLOOM, JSON]);
    source.client().commands(&[
        argv!["BF.ADD", "bloom", "a"],
        argv!["CF.ADD", "cuckoo", "a"],
        argv!["CMS.INITBYDIM", "sketch", 100, 5],
        argv!["TOPK.RESERVE", "top", 5],
        argv!["TOPK.ADD", "top", "a"],
        argv!["TDIGEST.CREATE", "digest"],
        argv!["TDIGEST.ADD", "digest", 1, 2, 3],
        argv!["JSON.SET", "json", "$", "{\"a\": [1, 2.5, null]}"],
        argv!["SET", "string", "1"],
    ]);
    source
}

#[test]
fn modules_values_at_a_target_with_the_modules() {
    let (source, target) = (stack(), with_modules("redis-7.4", &[BLOOM, JSON]));
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    client.command(&argv!["BF.ADD", "bloom", "b"]);
    client.command(&argv!["JSON.SET", "json", "$.b", "true"]);
    let payload = bytes(client.command(&argv!["DUMP", "sketch"]));
    client.command(&argv!["RESTORE", "restored", 0, payload]);
    catch_up(&mut daemon, &source);
    let options = OracleOptions::default();
    let mut found = oracle::compare_with(&source.address(), &target.address(), &options);
    // Its bytes hold addresses of the process.
    found.retain(|difference| difference.key != b"top");
    assert!(found.is_empty(), "{found:?}");
    let top = |server: &Server| {
        server
            .client()
            .command(&argv!["TOPK.LIST", "top", "WITHCOUNT"])
    };
    assert_eq!(top(&source), top(&target));
    ends_well(daemon);
}

#[test]
fn modules_values_at_a_target_with_one_of_the_modules() {
    let (source, target) = (stack(), with_modules("redis-7.4", &[JSON]));
    let once = Link::new(&source, &target).with("sync_reader", "sync_aof = false");
    let ended = run(&once);
    assert_ne!(ended.code, 0);
    let error = ended.error();
    assert!(error.contains("of a module ("), "{error}");
    assert!(error.contains("redis_writer.losses"), "{error}");

    let ended = run(&once
        .with("redis_writer", WARN)
        .with("redis_writer", "existing_keys = \"replace\""));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        ended.logs.contains("snapshot_module_lost"),
        "{}",
        ended.logs
    );
    let mut there = target.client();
    assert_eq!(number(&there.command(&argv!["DBSIZE"])), Some(3));
    let json = |client: &mut Client| text(&client.command(&argv!["JSON.GET", "json"]));
    assert_eq!(json(&mut there), json(&mut source.client()));
}

/// A target that does not tell its commands is asked by the value itself.
#[test]
fn a_target_that_hides_its_commands_refuses_for_itself() {
    let (source, target) = (stack(), with_modules("redis-7.4", &[JSON]));
    let mut there = target.client();
    let words = "ACL SETUSER copier on >secret ~* &* +@all -command";
    let words: Vec<Vec<u8>> = words
        .split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect();
    there.command(&words);
    there.command(&argv!["SET", "bloom", "old"]);
    let link = Link::new(&source, &target)
        .with("sync_reader", "sync_aof = false")
        .with("redis_writer", "username = \"copier\"")
        .with("redis_writer", "password = \"secret\"")
        .with("redis_writer", "existing_keys = \"replace\"");
    let ended = run(&link);
    assert_ne!(ended.code, 0);
    let error = ended.error();
    assert!(error.contains("Bad data format"), "{error}");
    assert!(error.contains("a module's"), "{error}");
    assert!(error.contains("redis_writer.losses"), "{error}");

    let ended = run(&link.with("redis_writer", WARN));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(
        ended.logs.contains("snapshot_module_lost"),
        "{}",
        ended.logs
    );
    for gone in ["bloom", "cuckoo", "sketch", "top", "digest"] {
        assert_eq!(number(&there.command(&argv!["EXISTS", gone])), Some(0));
    }
    let got: Result<_, Error> = there.try_command(&argv!["GET", "string"]);
    assert_eq!(got.map(bytes).ok().as_deref(), Some(&b"1"[..]));
}
