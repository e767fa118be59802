//! Every file and every command of docs/files.md, as they stand there, against real servers.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use e2e::LIMIT;
use tempfile::TempDir;
use testkit::client::number;
use testkit::process::{self, Signal, wait_until};
use testkit::{Client, Engine, Server, ServerOptions, argv, daemon};

/// The blocks of a page, by kind, in order.
fn blocks(page: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in page.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(kind), None) => open = Some((kind.to_owned(), String::new())),
            (Some(_), Some(block)) => found.push(block),
            (None, Some((kind, text))) => open = Some((kind, format!("{text}{line}\n"))),
            (None, None) => {}
        }
    }
    found
}

fn spawn(line: &str, folder: &Path) -> Child {
    let words: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(words[0], "understudy", "{line}");
    Command::new(daemon::binary())
        .args(&words[1..])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("the binary")
}

#[test]
fn the_commands_of_the_page_do_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/files.md");
    let page = fs::read_to_string(page).expect("docs/files.md");
    let words = "--appendonly yes --aof-timestamp-enabled yes --repl-backlog-size 32mb";
    let source = Server::start(&Engine::of("redis-7.0"), ServerOptions::args(words));
    let target = Server::of("redis-7.0");
    let mut client = source.client();
    client.command(&argv!["SET", "k", "v"]);
    client.command(&argv!["SAVE"]);
    let folder = TempDir::new().expect("a folder");
    fs::copy(source.rdb_file(), folder.path().join("dump.rdb")).expect("the snapshot");
    let appended = folder.path().join("appendonlydir");
    fs::create_dir(&appended).expect("a folder");
    for entry in fs::read_dir(source.folder().join("appendonlydir")).expect("its folder") {
        let entry = entry.expect("a file");
        fs::copy(entry.path(), appended.join(entry.file_name())).expect("to copy");
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a time")
        .as_secs();
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let mut ran = 0;
    for (kind, text) in blocks(&page) {
        if kind == "toml" {
            let name = text.lines().next().and_then(|line| line.strip_prefix("# "));
            let name = name.expect("a file's name").to_owned();
            let text = text
                .replace("127.0.0.1:6379", &source.address())
                .replace("127.0.0.1:6380", &target.address())
                .replace("1700000000", &(now + 10).to_string());
            fs::write(folder.path().join(&name), &text).expect("to write");
            files.insert(name, text);
            continue;
        }
        assert_eq!(kind, "sh");
        for line in text.lines() {
            ran += 1;
            let file = line.split_whitespace().last().expect("a file");
            let is_check = line.contains(" check ");
            if !is_check {
                target.client().command(&argv!["FLUSHALL"]);
            }
            let mut child = spawn(line, folder.path());
            if files[file].contains("[file_writer]") {
                let out = folder.path().join("out.aof");
                wait_until("the file", LIMIT, || {
                    fs::read_to_string(&out).is_ok_and(|text| text.contains("\r\nk\r\n"))
                });
                std::thread::sleep(Duration::from_millis(1500));
                process::signal(child.id(), Signal::TERM);
            }
            let status = process::wait(&mut child, LIMIT).expect("it ends");
            let has_found = is_check && status.code() == Some(1);
            assert!(status.success() || has_found, "{line}: {status}");
            if !is_check && files[file].contains("[redis_writer]") {
                let mut client: Client = target.client();
                assert_eq!(
                    number(&client.command(&argv!["EXISTS", "k"])),
                    Some(1),
                    "{line}"
                );
            }
        }
    }
    assert_eq!(ran, 5);
}
