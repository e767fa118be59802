//! `[file_writer]`: what any reader reads, as a file that real servers load.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::{LIMIT, own, rng, run_file, source_of, wait_stream};
use tempfile::TempDir;
use testkit::client::bytes;
use testkit::process::wait_until;
use testkit::{Counters, Daemon, Engine, Server, ServerOptions, argv, oracle, workload};

fn config(reader: &str, path: &Path, kind: &str, more: &str) -> String {
    format!(
        "{reader}\n[file_writer]\nfilepath = {path:?}\ntype = \"{kind}\"\n[link]\nname = \"files\"\n{more}\n"
    )
}

fn from_server(source: &Server, more: &str) -> String {
    format!("[sync_reader]\naddress = \"{}\"\n{more}", source.address())
}

fn sync(text: &str) -> e2e::Ended {
    run_file(&["sync", "shake.toml"], Some(text.as_bytes()))
}

/// A server that has loaded this file.
fn loaded(engine: &str, file: &Path, name: &str, words: &str) -> Server {
    let engine = Engine::of(engine);
    // Its folder is made by starting it; then it starts again, with the file.
    let mut server = Server::start(&engine, ServerOptions::default());
    server.kill();
    fs::copy(file, server.folder().join(name)).expect("to copy");
    server.restart_with(ServerOptions::args(words));
    server
}

/// A server before 7.0 keeps one file, which later ones take over.
fn loaded_aof(engine: &str, file: &Path) -> Server {
    loaded(
        engine,
        file,
        "appendonly.aof",
        "--appendonly yes --aof-load-truncated no",
    )
}

fn check_aof(engine: &str, file: &Path) {
    let program = Engine::of(engine)
        .program("redis-check-aof")
        .expect("redis-check-aof");
    let checked = Command::new(program)
        .arg(file)
        .output()
        .expect("redis-check-aof");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{said}");
    assert!(said.contains("is valid"), "{said}");
}

#[test]
fn a_stream_is_appended_and_gone_on_with_after_a_kill() {
    let mut rng = rng();
    let source = source_of("redis-7.0");
    workload::fill(&mut source.client(), rng.number(), 1000);
    let counters = Counters::start(&source.address(), rng.number(), 2000);
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("out.aof");
    let more = "[advanced]\nstatus_port = @STATUS_PORT@";
    let mut daemon = Daemon::start(&config(&from_server(&source, ""), &file, "aof", more));
    for _ in 0..4 {
        wait_stream(&mut daemon);
        std::thread::sleep(std::time::Duration::from_millis(rng.below(1500)));
        daemon.restart();
    }
    wait_stream(&mut daemon);
    let ledger = counters.stop();
    let offset = source
        .client()
        .info_number("replication", "master_repl_offset") as u64;
    daemon.wait_for("the end of the stream", LIMIT, |daemon| {
        own(daemon, "applied_offset").is_some_and(|applied| applied >= offset)
    });
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    check_aof("redis-7.0", &file);
    let server = loaded_aof("redis-7.0", &file);
    ledger.assert_at(&server.address());
    oracle::assert_equal(&source.address(), &server.address());
}

#[test]
fn rdb_and_aof_files_become_others_that_servers_load() {
    let folder = TempDir::new().expect("a folder");
    let out = |name: &str| folder.path().join(name);
    let source = Server::of("redis-7.0");
    workload::fill(&mut source.client(), rng().number(), 1500);
    source.client().command(&argv!["SAVE"]);
    let rdb = format!("[rdb_reader]\nfilepath = {:?}", source.rdb_file());
    for (kind, name) in [
        ("aof", "a.aof"),
        ("cmd", "a.txt"),
        ("json", "a.json"),
        ("rdb", "a.rdb"),
    ] {
        let ended = sync(&config(&rdb, &out(name), kind, ""));
        assert_eq!(ended.code, 0, "{kind}: {}", ended.stderr);
    }
    check_aof("redis-7.0", &out("a.aof"));
    let server = loaded_aof("redis-7.0", &out("a.aof"));
    oracle::assert_equal(&source.address(), &server.address());
    for engine in ["redis-7.0", "valkey-9.1"] {
        let server = loaded(engine, &out("a.rdb"), "dump.rdb", "");
        oracle::assert_equal(&source.address(), &server.address());
    }
    // Each line of JSON is one command; played, they come to the same.
    let json = fs::read_to_string(out("a.json")).expect("the file");
    let lines = fs::read_to_string(out("a.txt")).expect("the file");
    assert!(json.lines().count() > 1500 && lines.lines().count() > 1500);
    for line in json.lines() {
        let command: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert!(
            command["Argv"].is_array() && command["DbId"].is_u64(),
            "{line}"
        );
    }
    let server = Server::of("redis-7.0");
    let cli = Engine::of("redis-7.0")
        .program("redis-cli")
        .expect("redis-cli");
    let played = Command::new(cli)
        .args(["-p", &server.port().to_string()])
        .stdin(fs::File::open(out("a.txt")).expect("the file"))
        .output()
        .expect("redis-cli");
    assert!(played.status.success());
    oracle::assert_equal(&source.address(), &server.address());
    // What was written is played once more, as an append-only file.
    let aof = format!("[aof_reader]\nfilepath = {:?}", out("a.aof"));
    let ended = sync(&config(&aof, &out("b.aof"), "aof", ""));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let server = loaded_aof("redis-7.0", &out("b.aof"));
    oracle::assert_equal(&source.address(), &server.address());
}

#[test]
fn several_rdb_files_become_one_unless_they_share_a_key() {
    let folder = TempDir::new().expect("a folder");
    let out = |name: &str| folder.path().join(name);
    let server = Server::of("redis-7.0");
    let mut client = server.client();
    let mut saved = |name: &str, pairs: &[(&str, &str)]| {
        client.command(&argv!["FLUSHALL"]);
        for (key, value) in pairs {
            client.command(&argv!["SET", key, value]);
        }
        client.command(&argv!["SAVE"]);
        fs::copy(server.rdb_file(), out(name)).expect("to copy");
        out(name)
    };
    let one = saved("one.rdb", &[("a", "1"), ("shared", "old")]);
    let two = saved("two.rdb", &[("b", "2")]);
    let three = saved("three.rdb", &[("c", "3"), ("shared", "new")]);
    let reader = |paths: &[&PathBuf]| format!("[rdb_reader]\nfilepath = {paths:?}");
    let apart = reader(&[&one, &two]);
    let ended = sync(&config(&apart, &out("apart.rdb"), "rdb", ""));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let loaded_one = loaded("redis-7.0", &out("apart.rdb"), "dump.rdb", "");
    assert_eq!(loaded_one.client().keys().len(), 3);
    let sharing = reader(&[&one, &two, &three]);
    let ended = sync(&config(&sharing, &out("sharing.rdb"), "rdb", ""));
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    for part in [
        "key \"shared\" (db 0)",
        "one.rdb at byte",
        "three.rdb at byte",
    ] {
        assert!(ended.error().contains(part), "{part}: {}", ended.error());
    }
    assert!(!out("sharing.rdb").exists());
    // As commands the later one holds.
    let ended = sync(&config(&sharing, &out("sharing.aof"), "aof", ""));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let server = loaded_aof("redis-7.0", &out("sharing.aof"));
    let shared = server.client().command(&argv!["GET", "shared"]);
    assert_eq!(bytes(shared), b"new");
}

#[test]
fn a_snapshot_alone_becomes_a_file_with_filters() {
    let folder = TempDir::new().expect("a folder");
    let out = folder.path().join("a.rdb");
    let source = Server::of("redis-7.2");
    workload::fill(&mut source.client(), rng().number(), 800);
    let mut client = source.client();
    client.command(&argv!["SET", "no:1", "x"]);
    client.command(&argv!["SET", "yes:1", "x", "PX", 100_000]);
    let reader = from_server(&source, "sync_aof = false");
    let ended = sync(&config(
        &reader,
        &out,
        "rdb",
        "[filter]\nblock_key_prefix = [\"no:\"]",
    ));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    client.command(&argv!["DEL", "no:1"]);
    let server = loaded("redis-7.2", &out, "dump.rdb", "");
    oracle::assert_equal(&source.address(), &server.address());
    let ended = sync(&config(&reader, &out, "rdb", ""));
    assert_eq!(ended.code, 5);
    assert!(ended.error().contains("there already"), "{}", ended.error());
    let ended = sync(&config(&from_server(&source, ""), &out, "rdb", ""));
    assert_eq!(ended.code, 2);
    assert!(
        ended.error().contains("sync_aof = false"),
        "{}",
        ended.error()
    );
}

#[test]
fn a_file_of_somebody_or_of_another_history_is_left_alone() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("a.txt");
    fs::write(&file, "dear diary").expect("a file");
    let mut source = Server::of("redis-7.0");
    source.client().command(&argv!["SET", "k", "v"]);
    let ended = sync(&config(
        &from_server(&source, "sync_aof = false"),
        &file,
        "cmd",
        "",
    ));
    assert_eq!(ended.code, 5);
    assert_eq!(fs::read(&file).expect("the file"), b"dear diary");
    let other: PathBuf = folder.path().join("b.txt");
    let more = "[advanced]\nstatus_port = @STATUS_PORT@";
    let mut daemon = Daemon::start(&config(&from_server(&source, ""), &other, "cmd", more));
    wait_stream(&mut daemon);
    wait_until("the key", LIMIT, || {
        fs::read_to_string(&other).is_ok_and(|text| text.contains("SET k v"))
    });
    daemon.terminate();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    // Another history begins.
    source.restart();
    daemon.spawn();
    assert_eq!(daemon.wait(LIMIT), 3, "{}", daemon.output());
    let output = daemon.output();
    assert!(output.contains("no longer has the history"), "{output}");
    assert!(
        fs::read_to_string(&other)
            .expect("the file")
            .contains("SET k v")
    );
}
