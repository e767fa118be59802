//! `understudy rdb` on snapshots that real servers saved.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value};
use tempfile::TempDir;
use testkit::client::{items, number, text};
use testkit::oracle;
use testkit::{Client, Engine, Rng, Server, argv, daemon, workload};

/// How `understudy rdb` ended, and what it printed.
struct Printed {
    code: i32,
    stdout: Vec<u8>,
    stderr: String,
}

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.stdout.clone()).expect("text")
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}\n{}", self.text(), self.stderr);
        })
    }

    fn lines(&self) -> Vec<Value> {
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
        };
        self.text().lines().map(parse).collect()
    }
}

/// Runs it with these words and this standard input; the outputs of a dump fit into memory.
fn rdb(words: &[&str], file: &Path, stdin: &[u8]) -> Printed {
    let mut command = Command::new(daemon::binary());
    command.arg("rdb").args(words).arg(file);
    run(command, stdin)
}

fn run(mut command: Command, stdin: &[u8]) -> Printed {
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("start it");
    let mut input = child.stdin.take().expect("its input");
    let ended = std::thread::scope(|scope| {
        // It may stop reading early, which is its own affair.
        scope.spawn(move || drop(input.write_all(stdin)));
        child.wait_with_output().expect("its end")
    });
    Printed {
        code: ended.status.code().expect("an exit code"),
        stdout: ended.stdout,
        stderr: String::from_utf8_lossy(&ended.stderr).into_owned(),
    }
}

/// A server with keys of every type, and the snapshot it saved.
fn filled(engine: &str, keys: u64) -> (Server, PathBuf) {
    let source = Server::of(engine);
    workload::fill(&mut source.client(), 7, keys);
    keep_what_is_near(&source);
    let file = saved(&source);
    (source, file)
}

/// Takes the expiry off keys that would be gone before the server is looked at again.
fn keep_what_is_near(server: &Server) {
    let mut client = server.client();
    for db in client.keyspace().into_keys() {
        client.select(db);
        for key in client.keys() {
            let left = number(&client.command(&argv!["PTTL", key]));
            if left.is_some_and(|left| (0..600_000).contains(&left)) {
                client.command(&argv!["PERSIST", key]);
            }
        }
    }
}

fn saved(server: &Server) -> PathBuf {
    server.client().command(&argv!["SAVE"]);
    server.rdb_file()
}

/// What `redis-cli --pipe` makes of commands; panics if the server refuses one.
fn pipe(commands: &[u8], target: &Server) {
    let cli = target.engine().program("redis-cli");
    let cli = cli.or_else(|| Engine::of("redis-7.0").program("redis-cli"));
    let mut command = Command::new(cli.expect("a redis-cli"));
    command.args(["-p", &target.port().to_string(), "--pipe"]);
    let printed = run(command, commands);
    let text = printed.text();
    assert!(
        printed.code == 0 && text.contains("errors: 0"),
        "{text}{}",
        printed.stderr
    );
}

fn loads(from: &str, to: &str, words: &[&str]) {
    let (source, file) = filled(from, 2000);
    let target = Server::of(to);
    let printed = rdb(&[&["resp"], words].concat(), &file, b"");
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    pipe(&printed.stdout, &target);
    let mut found = oracle::compare(&source.address(), &target.address());
    if !words.contains(&"--restore") {
        found.retain(|difference| !is_the_commands_own(&difference.what));
    }
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{from} to {to}:\n{}", shown.join("\n"));
}

/// What no command can bring: a small sorted set keeps -0.0 as 0, and XSETID does not take the largest deleted id back
/// to 0-0 once a message that stood in for a deleted one was deleted.
fn is_the_commands_own(what: &str) -> bool {
    what.starts_with("largest deleted id: source \"0-0\"")
        || (what.contains("source -0.0") && what.contains("target 0.0"))
}

#[test]
fn commands_build_the_same_values_in_the_same_version() {
    loads("redis-7.2", "redis-7.2", &[]);
}

#[test]
fn commands_build_the_same_values_in_another_fork() {
    loads("redis-7.4", "valkey-9.1", &["--target", "valkey-9.1"]);
}

#[test]
fn restored_values_are_the_same_in_their_own_version() {
    loads("redis-7.2", "redis-7.2", &["--restore"]);
}

#[test]
fn restored_values_are_the_same_in_another_fork() {
    loads(
        "redis-7.0",
        "valkey-9.1",
        &["--restore", "--target", "valkey-9.1"],
    );
}

/// A stream of some MiB, far above what goes as one RESTORE, with groups, and messages that are deleted.
fn large_stream(client: &mut Client) {
    let mut rng = Rng::new(7);
    for from in (0..40_000_u64).step_by(1_000) {
        let messages: Vec<_> = (from..from + 1_000)
            .map(|ms| {
                let text = rng.bytes(50);
                argv![
                    "XADD",
                    "large:stream",
                    format!("{}-7", ms + 1),
                    "text",
                    text,
                    "n",
                    ms
                ]
            })
            .collect();
        client.commands(&messages);
    }
    let group = |words: &str| -> Vec<Vec<u8>> {
        words
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect()
    };
    client.commands(&[
        group("XGROUP CREATE large:stream first 0"),
        group("XGROUP CREATE large:stream second 39000-7"),
        group("XREADGROUP GROUP first one COUNT 3000 STREAMS large:stream >"),
        group("XREADGROUP GROUP first two COUNT 10 STREAMS large:stream >"),
        group("XREADGROUP GROUP second three STREAMS large:stream >"),
        group("XCLAIM large:stream first two 0 5-7 TIME 1700000000000 RETRYCOUNT 9"),
        group("XDEL large:stream 2-7 39999-7 40000-7"),
        group("PEXPIREAT large:stream 4102444800123"),
    ]);
}

/// What does not go as one RESTORE is built by commands, between others that do.
fn large_stream_loads(from: &str, to: &str, words: &[&str]) {
    let (source, _) = filled(from, 300);
    large_stream(&mut source.client());
    let file = saved(&source);
    let stats = rdb(&["stats", "--json", "--key", "large:stream"], &file, b"").json();
    let bytes = stats["biggest_by_bytes"][0]["bytes"].as_u64();
    assert!(
        bytes > Some(1 << 20),
        "{bytes:?} bytes are not above the limit"
    );
    let printed = rdb(&[&["resp", "--restore"], words].concat(), &file, b"");
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    let text = String::from_utf8_lossy(&printed.stdout);
    assert!(text.contains("RESTORE") && text.contains("XADD\r\n$12\r\nlarge:stream"));
    let target = Server::of(to);
    pipe(&printed.stdout, &target);
    let found = oracle::compare(&source.address(), &target.address());
    let shown: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(shown.is_empty(), "{from} to {to}:\n{}", shown.join("\n"));
}

#[test]
fn a_stream_too_large_to_be_restored_is_built() {
    large_stream_loads("redis-7.2", "redis-7.2", &[]);
}

#[test]
fn a_stream_too_large_to_be_restored_is_built_in_another_fork() {
    large_stream_loads("redis-7.0", "valkey-9.1", &["--target", "valkey-9.1"]);
}

/// Hashes whose names stand elsewhere in the file are hashes like others.
#[test]
fn json_has_hashes_with_templates() {
    let source = Server::of("redis-8.10");
    let mut client = source.client();
    client.command(&argv!["HIMPORT", "PREPARE", "pair", "one", "two"]);
    client.command(&argv!["HIMPORT", "PREPARE", "wide", "a", "bb", "ccc"]);
    for index in 0..3 {
        let pair = argv![
            "HIMPORT",
            "SET",
            format!("pair:{index}"),
            "pair",
            index,
            "007"
        ];
        let long = "x".repeat(5_000);
        let wide = argv![
            "HIMPORT",
            "SET",
            format!("wide:{index}"),
            "wide",
            "",
            long,
            index
        ];
        client.commands(&[pair, wide]);
    }
    let file = saved(&source);
    let stats = rdb(&["stats", "--json"], &file, b"").json();
    assert_eq!(stats["file"]["hash_templates"], 2, "{stats}");
    let printed = rdb(&["json"], &file, b"");
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    let lines = printed.lines();
    let keys = keys_of(&lines);
    assert_eq!(keys.len(), 6);
    for line in keys {
        let key = line["key"].as_str().expect("a key");
        assert_eq!(line["type"], "hash", "{line}");
        let told = items(client.command(&argv!["HGETALL", key]));
        let told: Map<String, Value> = told
            .chunks(2)
            .map(|pair| (text(&pair[0]), Value::String(text(&pair[1]))))
            .collect();
        assert_eq!(line["value"], Value::Object(told), "{key}");
    }
    // A file with the forms that only DUMP writes, and one with those of files.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/rdb/tests/golden");
    for name in ["array_ref", "array", "lp_ref", "lp"] {
        let printed = rdb(
            &["json"],
            &folder.join(format!("hash_tmpl_{name}_v15.rdb")),
            b"",
        );
        assert_eq!(printed.code, 0, "{}", printed.stderr);
        let lines = printed.lines();
        let keys = keys_of(&lines);
        assert!(!keys.is_empty(), "{name}");
        for line in keys {
            let expected = serde_json::json!({"a": "x", "bb": "y", "cc": "70"});
            assert_eq!(line["value"], expected, "{name}");
        }
    }
}

#[test]
fn keys_that_have_expired_are_left_out_and_counted() {
    let source = Server::of("redis-7.0");
    let mut client = source.client();
    client.command(&argv!["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    client.command(&argv!["SET", "gone", "x", "PX", "1"]);
    client.command(&argv!["SET", "stays", "x", "PX", "100000000"]);
    let file = saved(&source);
    let printed = rdb(&["resp"], &file, b"");
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    assert!(
        printed
            .stderr
            .contains("left out: 1 keys whose time has come"),
        "{}",
        printed.stderr
    );
    let text = printed.text();
    assert!(text.contains("stays") && text.contains("PXAT") && !text.contains("gone"));
}

/// The lines that are keys, by db and name.
fn keys_of(lines: &[Value]) -> Vec<&Value> {
    lines
        .iter()
        .filter(|line| line.get("key").is_some())
        .collect()
}

#[test]
fn json_has_every_key_as_it_is() {
    let (source, file) = filled("redis-7.4", 1500);
    let mut client = source.client();
    client.command(&argv!["FLUSHDB"]);
    client.command(&argv!["SET", "text", "ключ \"quoted\"\n"]);
    client.command(&argv!["SET", b"\xff\x00", b"\xfe"]);
    client.command(&argv!["SET", "trap", "base64:x"]);
    client.command(&argv!["ZADD", "z", "-inf", "low", "1.5", "mid"]);
    client.command(&argv!["HSET", "h", "f", "v", "g", "w"]);
    client.command(&argv![
        "HPEXPIREAT",
        "h",
        "9999999999999",
        "FIELDS",
        "1",
        "g"
    ]);
    client.command(&argv!["RPUSH", "l", "b", "a", "12"]);
    client.command(&argv!["PEXPIREAT", "l", "9999999999999"]);
    fs::remove_file(file).expect("the first dump");
    let file = saved(&source);
    let printed = rdb(&["json"], &file, b"");
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    let lines = printed.lines();
    let keys = keys_of(&lines);
    let stored: u64 = client.keyspace().into_values().sum();
    assert_eq!(keys.len() as u64, stored);
    let value = |key: &str| {
        let line = keys
            .iter()
            .find(|line| line["db"] == 0 && line["key"] == key);
        line.unwrap_or_else(|| panic!("no key {key}"))["value"].clone()
    };
    assert_eq!(value("text"), "ключ \"quoted\"\n");
    assert_eq!(value("base64:/wA="), "base64:/g==");
    assert_eq!(value("trap"), "base64:YmFzZTY0Ong=");
    assert_eq!(
        value("z"),
        serde_json::json!([["low", "-inf"], ["mid", 1.5]])
    );
    assert_eq!(value("l"), serde_json::json!(["b", "a", "12"]));
    assert_eq!(
        value("h"),
        serde_json::json!({"f": "v", "g": {"value": "w", "expire_at_ms": 9_999_999_999_999_u64}})
    );
    assert!(lines.iter().any(|line| line["aux"] == "redis-ver"));
    assert!(lines.iter().any(|line| line.get("function").is_some()));
    assert_eq!(lines.last().expect("lines")["end"]["keys"], stored);
    let timed: Vec<_> = keys.iter().filter(|line| line["key"] == "l").collect();
    assert_eq!(timed[0]["expire_at_ms"], 9_999_999_999_999_u64);

    let some = rdb(&["json", "--db", "0", "--key", "[lz]"], &file, b"").lines();
    assert_eq!(keys_of(&some).len(), 2);
    let hashes = rdb(&["json", "--keys-only", "--type", "hash"], &file, b"").lines();
    assert!(!hashes.is_empty() && hashes.iter().all(|line| line["type"] == "hash"));
}

#[test]
fn damage_is_found_and_what_is_before_it_is_saved() {
    let (source, file) = filled("redis-7.0", 400);
    let whole = fs::read(&file).expect("the dump");
    let stored: u64 = source.client().keyspace().into_values().sum();
    let sound = rdb(&["verify", "--json"], &file, b"");
    assert_eq!(
        (sound.code, sound.json()["keys"].as_u64()),
        (0, Some(stored))
    );
    let folder = TempDir::new().expect("a folder");
    let copy = folder.path().join("copy.rdb");
    let mut seen_inside = false;
    for eighth in 1..8 {
        let cut = whole.len() * eighth / 8;
        fs::write(&copy, &whole[..cut]).expect("a copy");
        let verdict = rdb(&["verify", "--json"], &copy, b"");
        assert_eq!(verdict.code, 1);
        let verdict = verdict.json();
        let readable = verdict["keys"].as_u64().expect("a number");
        assert!(readable < stored && verdict["damage"]["at"].as_u64() <= Some(cut as u64));
        seen_inside |= verdict["damage"]["key"]["inside"] == true;

        let text = rdb(&["verify"], &copy, b"").text();
        assert!(
            text.contains("damaged at byte") && text.contains("--until-damage"),
            "{text}"
        );
        let refused = rdb(&["json"], &copy, b"");
        assert_eq!(refused.code, 1);
        assert!(
            refused.stderr.contains("--until-damage"),
            "{}",
            refused.stderr
        );
        let saved = rdb(&["json", "--until-damage"], &copy, b"");
        assert_eq!(saved.code, 0, "{}", saved.stderr);
        assert_eq!(keys_of(&saved.lines()).len() as u64, readable);
        let piped = rdb(&["json", "--until-damage"], Path::new("-"), &whole[..cut]);
        assert_eq!(piped.stdout, saved.stdout);
    }
    assert!(seen_inside, "no cut fell into a value");

    let mut wrong = whole;
    *wrong.last_mut().expect("bytes") ^= 1;
    fs::write(&copy, &wrong).expect("a copy");
    let verdict = rdb(&["verify", "--json"], &copy, b"");
    assert_eq!(verdict.code, 1);
    assert_eq!(verdict.json()["keys"], stored);
    assert!(verdict.text().contains("checksum"));
    let said = rdb(&["verify"], &copy, b"").text();
    assert!(said.ends_with("  checksum   wrong\n"), "{said}");
}

#[test]
fn what_was_saved_of_a_damaged_file_loads() {
    let (_source, file) = filled("redis-7.0", 300);
    let whole = fs::read(&file).expect("the dump");
    fs::write(&file, &whole[..whole.len() / 2]).expect("half of it");
    let words = ["resp", "--until-damage", "--restore"];
    let commands = rdb(&words, &file, b"");
    assert_eq!(commands.code, 0, "{}", commands.stderr);
    let target = Server::of("redis-7.0");
    pipe(&commands.stdout, &target);
    let readable = rdb(&["verify", "--json"], &file, b"").json()["keys"].as_u64();
    let loaded: u64 = target.client().keyspace().into_values().sum();
    let expired = commands.stderr.contains("whose time has come");
    assert!(
        loaded > 0 && (expired || Some(loaded) == readable),
        "{loaded} of {readable:?}"
    );
}

/// The same values in a server that packs as much as it can and in one that packs nothing.
fn load_same(server: &Server, round: u32) {
    let mut client = server.client();
    for (name, value) in [
        ("hash-max-ziplist-entries", "0"),
        ("zset-max-ziplist-entries", "0"),
        ("set-max-intset-entries", "0"),
        ("list-max-ziplist-size", "1"),
    ] {
        if round == 1 {
            client.command(&argv!["CONFIG", "SET", name, value]);
        }
    }
    for key in 0..200 {
        let members: Vec<usize> = match round {
            0 => (0..20).collect(),
            _ => (0..20).rev().collect(),
        };
        for member in members {
            client.command(&argv!["HSET", format!("h{key}"), member, key]);
            client.command(&argv!["SADD", format!("s{key}"), member * key]);
            client.command(&argv![
                "ZADD",
                format!("z{key}"),
                member as f64 / 7.0,
                member
            ]);
        }
        client.command(&argv!["RPUSH", format!("l{key}"), "a", "b", "12"]);
        client.command(&argv!["SET", format!("t{key}"), key]);
        client.command(&argv!["PEXPIREAT", format!("t{key}"), "9999999999999"]);
    }
}

#[test]
fn equal_data_of_two_versions_does_not_differ_and_what_does_is_told() {
    let servers = [Server::of("redis-6.2"), Server::of("valkey-9.1")];
    for (round, server) in (0..).zip(&servers) {
        load_same(server, round);
    }
    let [a, b] = servers.each_ref().map(saved);
    let both = |words: &[&str]| {
        let a = a.to_str().expect("a path");
        rdb(&[&["diff"], words, &[a]].concat(), &b, b"")
    };
    let equal = both(&[]);
    assert_eq!(equal.code, 0, "{}{}", equal.text(), equal.stderr);
    let changes = [
        argv!["HSET", "h3", "5", "other"],
        argv!["SREM", "s4", "0"],
        argv!["DEL", "l5"],
        argv!["SET", "new", "x"],
        argv!["PERSIST", "t6"],
        argv!["DEL", "t7"],
        argv!["RPUSH", "t7", "x"],
    ];
    for change in changes {
        servers[1].client().command(&change);
    }
    saved(&servers[1]);
    let differs = both(&["--json"]);
    assert_eq!(differs.code, 1, "{}", differs.stderr);
    let mut found: Vec<String> = differs
        .lines()
        .iter()
        .filter(|line| line.get("key").is_some())
        .map(|line| {
            format!("{} {} {}", line["difference"], line["key"], line["in"]).replace('"', "")
        })
        .collect();
    found.sort();
    let expected = [
        "different h3 [value]",
        "different s4 [value]",
        "different t6 [expiry]",
        "different t7 [type,expiry]",
        "only_a l5 null",
        "only_b new null",
    ];
    assert_eq!(found, expected);
    let sums = differs.lines().pop().expect("a last line");
    assert_eq!(sums["sums"]["different"], 4);
    let text = both(&["--ignore-ttl"]);
    assert!(text.text().contains("only in A  db 0 \"l5\"") && !text.text().contains("t6"));
}

#[test]
fn statistics_count_what_is_there_however_the_file_comes() {
    let (source, file) = filled("redis-7.2", 1000);
    let printed = rdb(&["stats", "--json"], &file, b"");
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    let stats = printed.json();
    let mut client = source.client();
    for (db, keys) in client.keyspace() {
        assert_eq!(stats["databases"][db.to_string()]["keys"], keys);
    }
    let bytes = fs::read(&file).expect("the dump");
    assert_eq!(stats["file"]["bytes"], bytes.len());
    assert!(
        stats["biggest_by_bytes"]
            .as_array()
            .is_some_and(|big| big.len() == 10)
    );

    let mut gzip = Command::new("gzip");
    gzip.arg("-c");
    let packed = run(gzip, &bytes).stdout;
    assert!(packed.len() < bytes.len());
    let from_stdin = |bytes: &[u8]| rdb(&["stats", "--json"], Path::new("-"), bytes);
    assert_eq!(from_stdin(&bytes).json()["all"], stats["all"]);
    assert_eq!(from_stdin(&packed).json()["all"], stats["all"]);
    assert_eq!(from_stdin(&packed[..packed.len() / 2]).code, 1);

    let half = rdb(
        &["stats", "--json"],
        Path::new("-"),
        &bytes[..bytes.len() / 2],
    );
    assert_eq!(half.code, 1);
    let read = half.json()["file"]["bytes"].as_u64().expect("a number");
    assert!(read > 0 && read <= bytes.len() as u64 / 2, "{read}");

    let table = rdb(&[], &file, b"");
    assert_eq!(table.code, 0, "{}", table.stderr);
    assert!(table.text().contains("Biggest keys by bytes"));
    let chart = rdb(&["stats", "--chart"], &file, b"");
    assert!(chart.text().contains('█'));
}

#[test]
fn whoever_has_read_enough_may_go() {
    let (_source, file) = filled("redis-7.0", 4000);
    for words in [&["json"][..], &["resp", "--restore"]] {
        let mut command = Command::new(daemon::binary());
        command.arg("rdb").args(words).arg(&file);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start it");
        let mut stdout = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        drop(stdout);
        let status = child.wait().expect("its end");
        let mut stderr = String::new();
        let mut errors = child.stderr.take().expect("its errors");
        errors.read_to_string(&mut stderr).expect("text");
        assert_eq!(status.code(), Some(0), "{stderr}");
        assert!(
            !stderr.contains("error") && !stderr.contains("panic"),
            "{stderr}"
        );
    }
}

/// Who reads neither output to its end hears of no bug, and a file with an error in it has its exit code.
#[test]
fn a_closed_standard_error_is_no_reason_to_end_otherwise() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("notes.txt");
    fs::write(&file, "no snapshot").expect("a file");
    for (words, code) in [
        (&["stats"][..], 1),
        (&["json", "--until-damage"], 0),
        (&["nothing"], 2),
    ] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(daemon::binary());
        command.arg("rdb").args(words).arg(&file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(writer);
        let status = command.status().expect("its end");
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
}

#[test]
fn exit_codes_and_errors_say_what_is_wrong() {
    let folder = TempDir::new().expect("a folder");
    let missing = folder.path().join("missing.rdb");
    let text = folder.path().join("notes.txt");
    fs::write(&text, "no snapshot").expect("a file");
    let cases = [
        (rdb(&["verify"], &missing, b""), 5, "is the path right?"),
        (rdb(&["stats"], folder.path(), b""), 5, "name a file in it"),
        (rdb(&["stats"], &text, b""), 1, "not an RDB file"),
        (rdb(&["diff", "-"], &text, b""), 2, "the other way round"),
        (
            rdb(&["resp", "--target", "new"], &text, b""),
            2,
            "valkey-9.1",
        ),
        (
            rdb(&["json", "--type", "tree"], &text, b""),
            2,
            "there are string",
        ),
        (rdb(&["verfy"], &text, b""), 2, "'verify'"),
    ];
    for (printed, code, word) in cases {
        assert_eq!(printed.code, code, "{}", printed.stderr);
        assert!(printed.stderr.contains(word), "{word}: {}", printed.stderr);
        assert!(printed.stdout.is_empty(), "{}", printed.text());
    }
    for word in ["stats", "json", "resp", "verify", "diff"] {
        let help = rdb(&[word, "--help"], &text, b"");
        assert_eq!(help.code, 0);
        assert!(help.text().contains("Example: understudy rdb"), "{word}");
    }
}
