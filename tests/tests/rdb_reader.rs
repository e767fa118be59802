//! `[rdb_reader]`: RDB files into a server.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use e2e::{LIMIT, own, rng, run_file};
use tempfile::TempDir;
use testkit::client::{bytes, number};
use testkit::compat::{self, Verdict, Way};
use testkit::rdb_writer::RdbWriter;
use testkit::{Cluster, Daemon, Engine, Server, ServerOptions, argv, daemon, oracle, workload};

/// A shake.toml from files to a server.
fn config(files: &[&Path], target: &str, more: &str) -> String {
    let list: Vec<String> = files.iter().map(|file| format!("{file:?}")).collect();
    format!(
        "[rdb_reader]\nfilepath = [{}]\n[link]\nname = \"files\"\n[redis_writer]\naddress = \"{target}\"\n{more}\n",
        list.join(", ")
    )
}

fn sync(text: &str) -> e2e::Ended {
    run_file(&["sync", "shake.toml"], Some(text.as_bytes()))
}

/// A server with data of every kind, and the file that it saved.
fn saved(keys: u64) -> (Server, PathBuf) {
    let source = Server::of("redis-7.0");
    workload::fill(&mut source.client(), rng().number(), keys);
    source.client().command(&argv!["SAVE"]);
    let file = source.rdb_file();
    (source, file)
}

/// The file, packed.
fn gzip(file: &Path) -> PathBuf {
    let packed = file.with_extension("rdb.gz");
    let mut gzip = Command::new("gzip");
    let out = fs::File::create(&packed).expect("a file");
    let gzip = gzip.args(["-1", "-c"]).arg(file).stdout(out);
    assert!(gzip.status().expect("gzip").success());
    packed
}

#[test]
fn a_file_plain_or_packed_comes_whole_and_once() {
    let (source, file) = saved(3000);
    let packed = gzip(&file);
    for file in [file.as_path(), &packed] {
        let target = Server::of("valkey-8.1");
        let text = config(&[file], &target.address(), "");
        let ended = sync(&text);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        oracle::assert_equal(&source.address(), &target.address());
        // What the target has become is its own: a second run does nothing.
        target.client().command(&argv!["SET", "of-the-target", 1]);
        let ended = sync(&text);
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(ended.stderr.contains("applied already"), "{}", ended.stderr);
        assert_eq!(
            bytes(target.client().command(&argv!["GET", "of-the-target"])),
            b"1"
        );
    }
}

#[test]
fn a_file_comes_from_standard_input() {
    let (source, file) = saved(500);
    let target = Server::of("redis-7.0");
    let folder = TempDir::new().expect("a folder");
    let text = config(&[Path::new("-")], &target.address(), "");
    fs::write(folder.path().join("shake.toml"), text).expect("shake.toml");
    let mut child = Command::new(daemon::binary())
        .args(["sync", "shake.toml"])
        .current_dir(folder.path())
        .stdin(fs::File::open(&file).expect("the file"))
        .stderr(Stdio::null())
        .spawn()
        .expect("the daemon");
    assert!(child.wait().expect("its end").success());
    oracle::assert_equal(&source.address(), &target.address());
}

#[test]
fn several_files_into_a_cluster() {
    let folder = TempDir::new().expect("a folder");
    let file = |name: &str, from: u32| {
        let mut writer = RdbWriter::redis(9);
        writer.select_db(0);
        for n in from..from + 300 {
            writer.string(format!("key:{n}"), format!("value:{n}"));
        }
        let path = folder.path().join(name);
        fs::write(&path, writer.finish()).expect("a file");
        path
    };
    let (one, two) = (file("one.rdb", 0), file("two.rdb", 300));
    let cluster = Cluster::start("redis-7.0", 3, 0);
    let address = cluster.address(0);
    let ended = sync(&config(&[&one, &two], &address, "cluster = true"));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let keys: usize = (0..3)
        .map(|at| {
            let keys = testkit::Client::connect(&cluster.address(at)).keys();
            keys.iter().filter(|key| key.starts_with(b"key:")).count()
        })
        .sum();
    assert_eq!(keys, 600);
}

#[test]
fn killed_in_the_middle_and_started_again_it_ends_equal() {
    let mut rng = rng();
    let (source, file) = saved(1200);
    let packed = gzip(&file);
    for files in [[file.as_path()], [packed.as_path()]] {
        let target = Server::of("redis-7.0");
        let limits =
            "[limits]\ntarget_bytes_per_second = 400000\n[advanced]\nstatus_port = @STATUS_PORT@";
        let mut daemon = Daemon::start(&config(&files, &target.address(), limits));
        for _ in 0..3 {
            let keys = rng.within(50..300);
            daemon.wait_for("a part of the file", LIMIT, |daemon| {
                own(daemon, "snapshot_keys").is_some_and(|applied| applied >= keys)
            });
            daemon.restart();
        }
        daemon.kill();
        daemon.configure(&config(&files, &target.address(), ""));
        daemon.spawn();
        assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
        oracle::assert_equal(&source.address(), &target.address());
    }
}

#[test]
fn what_is_wrong_is_said_with_file_and_place() {
    let (source, file) = saved(200);
    let target = Server::of("redis-7.0");
    let folder = TempDir::new().expect("a folder");
    let bad = folder.path().join("bad.rdb");
    let mut bytes = fs::read(&file).expect("the file");
    bytes.truncate(bytes.len() - 200);
    fs::write(&bad, &bytes).expect("a file");
    let ended = sync(&config(&[&file, &bad], &target.address(), ""));
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let error = ended.error();
    assert!(
        error.contains("bad.rdb at byte") && error.contains("rdb verify"),
        "{error}"
    );
    let ended = sync(&config(
        &[&folder.path().join("none.rdb")],
        &target.address(),
        "",
    ));
    assert_eq!(ended.code, 3);
    assert!(ended.error().contains("no such file"), "{}", ended.error());
    // Keys that are there already.
    let other = Server::of("redis-7.0");
    other.client().command(&argv!["SET", "here", 1]);
    let ended = sync(&config(&[&file], &other.address(), ""));
    assert_eq!(ended.code, 4);
    assert!(
        ended.error().contains("holds keys already"),
        "{}",
        ended.error()
    );
    let ended = sync(&config(
        &[&file],
        &other.address(),
        "existing_keys = \"mirror\"",
    ));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert_eq!(
        number(&other.client().command(&argv!["EXISTS", "here"])),
        Some(0)
    );
    oracle::assert_equal(&source.address(), &other.address());
}

#[test]
fn a_key_of_two_files_is_not_one_of_two_databases() {
    let folder = TempDir::new().expect("a folder");
    let server = Server::of("redis-7.0");
    let mut client = server.client();
    let mut saved = |name: &str, db: u32, value: &str| {
        client.command(&argv!["FLUSHALL"]);
        client.select(db);
        client.command(&argv!["SET", "shared", value]);
        client.command(&argv!["SAVE"]);
        let file = folder.path().join(name);
        fs::copy(server.rdb_file(), &file).expect("to copy");
        file
    };
    let one = saved("one.rdb", 1, "old");
    let two = saved("two.rdb", 1, "new");
    let other = saved("other.rdb", 0, "other");
    let map = "db_map = { 1 = 0 }";
    let target = Server::of("redis-7.0");
    let ended = sync(&config(&[&one, &two], &target.address(), map));
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    let value = target.client().command(&argv!["GET", "shared"]);
    assert_eq!(bytes(value), b"new");
    let target = Server::of("redis-7.0");
    let ended = sync(&config(&[&one, &other], &target.address(), map));
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let says = "key \"shared\" is in database 0 and in database 1";
    assert!(ended.error().contains(says), "{}", ended.error());
}

/// Everything but what the target's version cannot hold.
fn brings(from: &str, to: &str) -> Verdict {
    let (source, mut target) = (compat::source(from), Server::of(to));
    compat::run_by(&daemon::binary(), &source, &mut target, "warn", Way::Rdb).verdict
}

#[test]
fn a_file_of_every_engine_into_7_0_and_valkey_9_1() {
    // UNDERSTUDY_WIDE=1: of all engines of the wide set.
    let wide = std::env::var("UNDERSTUDY_WIDE").is_ok();
    let engines: Vec<&str> = match wide {
        true => compat::ENGINES.to_vec(),
        false => vec!["redis-5.0", "redis-8.0", "valkey-9.0"],
    };
    for from in engines {
        for to in ["redis-7.0", "valkey-9.1"] {
            let verdict = brings(from, to);
            println!("{from} to {to}: {verdict:?}");
            assert!(
                matches!(verdict, Verdict::Done(_)),
                "{from} to {to}: {verdict:?}"
            );
        }
    }
}

/// `understudy check` and `ping` with a file at one end.
#[test]
fn check_and_ping_take_the_file_for_what_it_is() {
    let (_source, file) = saved(100);
    let target = Server::start(&Engine::of("redis-7.0"), ServerOptions::default());
    let text = config(&[&file], &target.address(), "");
    let checked = run_file(&["check", "shake.toml", "--json"], Some(text.as_bytes()));
    let report: serde_json::Value = serde_json::from_str(&checked.stdout).expect("JSON");
    let checks = report["checks"].as_array().expect("checks");
    let says = checks.iter().any(|check| {
        check["check"] == "source"
            && check["what"]
                .as_str()
                .is_some_and(|what| what.contains("keys"))
    });
    assert!(says, "{}", checked.stdout);
    let pinged = run_file(
        &["ping", "shake.toml", "--count", "3"],
        Some(text.as_bytes()),
    );
    assert_eq!(pinged.code, 0, "{}", pinged.stderr);
    assert!(pinged.stdout.contains("a file") && pinged.stdout.contains(&target.address()));
}
