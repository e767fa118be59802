//! The live page in a real browser: what it tells in each phase, for one link and for several, with errors and when the daemon
//! is gone; that it can be read on a phone, in both colour schemes, by keyboard and by a screen reader.
//!
//! Pictures of all of it are left in `target/tmp/page`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use e2e::{Browser, LIMIT, Link, catch_up, own, rng, source_of, wait_stream};
use serde_json::{Value, json};
use testkit::daemon::STATUS_PORT;
use testkit::process::wait_until;
use testkit::proxy::{Direction, Proxy};
use testkit::{Cluster, Daemon, Engine, Server, ServerOptions, Writer, argv, workload};

fn url(daemon: &Daemon) -> String {
    format!("http://127.0.0.1:{}/", daemon.status_port())
}

/// Looks at the page as it is on a desk and on a phone, light and dark: pictures of all, contrast of all texts, and nothing
/// that has to be scrolled sideways.
#[track_caller]
fn look(browser: &Browser, name: &str) {
    for (device, width, height) in [("desktop", 1280, 900), ("phone", 360, 740)] {
        for is_dark in [false, true] {
            browser.look_as(width, height, is_dark);
            let scheme = if is_dark { "dark" } else { "light" };
            let look = format!("{name}-{device}-{scheme}");
            let width_seen = browser.run("return document.documentElement.scrollWidth");
            assert!(
                width_seen.as_u64() <= Some(width.into()),
                "{look}: {width_seen} wide"
            );
            let contrast = browser.run(include_str!("../src/contrast.js"));
            assert_eq!(contrast["poor"], json!([]), "{look}");
            assert!(contrast["seen"].as_u64() > Some(15), "{look}: {contrast}");
            browser.screenshot(&pictures().join(look).with_extension("png"));
        }
    }
    browser.look_as(1280, 900, false);
    assert_eq!(
        browser.console(),
        Vec::<String>::new(),
        "{name}: the console"
    );
}

fn pictures() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("page")
}

/// The phase that the page marks as the current one.
const PHASE: &str = "document.querySelector('.phases [aria-current=step]')?.dataset.phase";

#[test]
fn the_page_follows_a_link_from_its_snapshot_to_its_end_and_back() {
    let mut rng = rng();
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let proxy = Proxy::start(&source.address());
    let mut client = source.client();
    client.command(&argv!["CONFIG", "SET", "rdbcompression", "no"]);
    for key in 0..200 {
        let value = "x".repeat(50_000 + key);
        client.command(&argv!["SET", format!("large:{key}"), value]);
    }
    proxy.throttle(Direction::ToClient, Some(700 << 10));
    let mut daemon = Link::new(&source, &target)
        .source(&proxy.address())
        .with("sync_reader", "try_diskless = false")
        .start();
    daemon.wait_for("a part of the snapshot", LIMIT, |daemon| {
        own(daemon, "snapshot_keys").is_some_and(|keys| keys > 5)
    });
    let browser = Browser::start();
    browser.open(&url(&daemon));
    browser.wait(&format!("{PHASE} === 'snapshot'"));
    browser.wait("document.querySelector('.told').innerText.includes(' left')");
    let told = browser.text(".snapshot .told");
    assert!(
        told.contains("MiB") && told.contains("keys") && told.contains("/s"),
        "{told}"
    );
    browser.wait("(value => value > 0 && value < 1)(document.querySelector('progress').value)");
    assert!(browser.text(".verdict").contains("not ready"));
    assert!(
        browser
            .text(".reasons")
            .contains("the snapshot is being applied")
    );
    look(&browser, "snapshot");

    proxy.throttle(Direction::ToClient, None);
    wait_stream(&mut daemon);
    let writer = Writer::start_in_db_0(&source.address(), rng.number(), 1500);
    browser.wait(&format!("{PHASE} === 'stream'"));
    browser.wait("document.querySelectorAll('[data-table=groups] tbody tr').length > 3");
    browser.wait("document.querySelector('.curve').getAttribute('d').split('L').length > 4");
    browser.wait(
        "document.querySelector('.plot svg').getAttribute('aria-label').startsWith('Lag: now ')",
    );
    browser.wait("document.querySelector('.verdict').innerText === 'ready'");
    assert!(browser.text("[data-table=groups]").contains("STRING"));
    look(&browser, "stream");
    for_readers(&browser);
    writer.stop();
    catch_up(&mut daemon, &source);

    daemon.kill();
    browser.wait("!document.querySelector('#gone').hidden");
    assert!(browser.text("#gone").contains("does not answer"));
    assert_eq!(browser.text("#live"), "no answer");
    // The console tells of connections that are refused, as it should.
    browser.console();
    look_at_one(&browser, "gone");
    daemon.spawn();
    browser.wait("document.querySelector('#gone').hidden");
    browser.wait("document.querySelector('#live').innerText === 'live'");
    wait_stream(&mut daemon);
    browser.wait(&format!("{PHASE} === 'stream'"));
}

fn look_at_one(browser: &Browser, name: &str) {
    browser.look_as(1280, 900, false);
    browser.screenshot(&pictures().join(name).with_extension("png"));
}

/// What a screen reader is told, out of the browser's own tree, and what the keyboard reaches.
fn for_readers(browser: &Browser) {
    let tree = browser.devtools("Accessibility.getFullAXTree", &json!({}));
    let nodes = tree["nodes"].as_array().cloned().unwrap_or_default();
    let mut named: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for node in nodes.iter().filter(|node| node["ignored"] != true) {
        let word = |field: &str| node[field]["value"].as_str().unwrap_or_default().to_owned();
        named.entry(word("role")).or_default().push(word("name"));
    }
    let has = |role: &str, name: &str| {
        let names = named.get(role).map_or(&[][..], Vec::as_slice);
        assert!(
            names.iter().any(|one| one.contains(name)),
            "no {role} {name:?}: {named:#?}"
        );
    };
    has("heading", "Understudy");
    has("heading", "e2e");
    has("heading", "Commands by group");
    has("table", "Commands by group");
    has("columnheader", "Per second");
    has("rowheader", "STRING");
    has("image", "Lag: now");
    has("main", "");
    has("banner", "");
    let unnamed = |role: &str| named.get(role).into_iter().flatten().any(String::is_empty);
    for role in ["heading", "table", "link", "button", "image", "region"] {
        assert!(!unnamed(role), "a {role} without a name");
    }
    let levels = browser.run(
        "return [...document.querySelectorAll('h1, h2, h3')].filter(one => one.checkVisibility()).map(one => Number(one.tagName[1]))",
    );
    let levels: Vec<u64> = serde_json::from_value(levels).expect("levels");
    assert_eq!(levels[0], 1);
    assert!(
        levels.windows(2).all(|two| two[1] <= two[0] + 1),
        "{levels:?}"
    );
    let live = browser
        .run("return document.querySelectorAll('[aria-live], [role=status], [role=alert]').length");
    assert_eq!(live, 2, "numbers are not read out");
    let reached = browser.run(
        "return [...document.querySelectorAll('summary, a, .scroll')].filter(one => one.checkVisibility()).every(one => one.tabIndex === 0)",
    );
    assert_eq!(reached, true);
}

#[test]
fn errors_are_told_with_their_mend_and_a_cutover_with_its_stragglers() {
    let source = source_of("redis-7.0");
    let options = ServerOptions::args("--maxmemory 1000000000");
    let target = Server::start(&Engine::of("redis-7.0"), options);
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    let mut client = target.client();
    client.command(&argv!["CONFIG", "SET", "maxmemory", 1]);
    source.client().command(&argv!["SET", "k", "v"]);
    let browser = Browser::start();
    browser.open(&url(&daemon));
    browser.wait("document.querySelector('[data-table=errors]')?.innerText.includes('OOM')");
    browser.wait("[...document.querySelectorAll('#notices .mend')].some(mend => mend.innerText.includes('raise maxmemory'))");
    assert!(
        browser
            .text("[data-table=errors]")
            .contains("raise maxmemory")
    );
    assert!(browser.text("#notices").contains("lost the target"));
    assert!(browser.text("#alarm").contains("warning"));
    // What a cutover tells comes the same way; here it is put in, with a name that would like to be markup.
    let hostile = "<img src=x onerror=document.title='taken'>";
    let cutover = json!({
        "ready": false,
        "reasons": ["the lag is above the gate", hostile],
        "stage": "waiting",
        "fence_seconds": 3.5,
        "stragglers": [{
            "address": "10.1.2.3:5555", "name": hostile, "user": "default", "lib": "jedis 5.1", "last_command": "set",
            "idle_seconds": 2, "writes": true,
        }],
        "late_writes": { "total": 12, "by_prefix": { "session:": 9, "cart:": 3 } },
    });
    let mut status = daemon.status().expect("a status");
    status["understudy"]["cutover"] = cutover;
    browser.run("source.close(); setInterval = () => {}; source = { close() {}, readyState: 1 }; lastHeard = Infinity");
    browser.run(&format!("draw({status})"));
    let told = browser.text("[data-table=cutover]");
    for word in [
        "not ready",
        "waiting",
        "3.5 s",
        "10.1.2.3:5555",
        "jedis 5.1",
        "session:",
        "12 writes",
        hostile,
    ] {
        assert!(told.contains(word), "{word}: {told}");
    }
    assert_eq!(
        browser.run("return document.querySelectorAll('img').length"),
        0
    );
    look(&browser, "errors");
    client.command(&argv!["CONFIG", "SET", "maxmemory", 0]);
    catch_up(&mut daemon, &source);
}

#[test]
fn several_links_have_an_overview_and_one_that_has_stopped_is_seen() {
    let sources: Vec<Server> = (0..3).map(|_| source_of("redis-7.0")).collect();
    let targets: Vec<Server> = (0..3).map(|_| Server::of("redis-7.0")).collect();
    let text = |at: usize| {
        let text = Link::new(&sources[at], &targets[at]).text();
        text.replace("name = \"e2e\"", &format!("name = \"shop-{at}\""))
    };
    let mut daemon = Daemon::prepare(&text(0), &["sync", "shake.toml", "1.toml", "2.toml"]);
    for at in 1..3 {
        let text = text(at).replace(STATUS_PORT, &daemon.status_port().to_string());
        fs::write(daemon.folder().join(format!("{at}.toml")), text).expect("write a file");
    }
    daemon.spawn();
    daemon.wait_for("readiness", LIMIT, |daemon| {
        daemon.get("/readyz").is_some_and(|(code, _)| code == 200)
    });
    for source in &sources {
        workload::fill_dbs(&mut source.client(), 1, 300, &[0]);
    }
    let browser = Browser::start();
    browser.open(&url(&daemon));
    browser.wait("document.querySelectorAll('#overview-rows tr').length === 3");
    browser.wait("document.querySelectorAll('article').length === 3");
    targets[1].client().command(&argv!["FLUSHALL"]);
    sources[1].client().command(&argv!["SET", "k", "w"]);
    browser.wait("document.querySelectorAll('#overview-rows tr')[1].innerText.includes('stopped')");
    browser.wait("document.querySelector('#notices').innerText.includes('shop-1')");
    browser.wait("document.title.startsWith('2 of 3 links ready')");
    assert!(browser.text("#notices").contains("our checkpoint is gone"));
    look(&browser, "links");
    let status = daemon.status().expect("a status");
    assert!(
        status["understudy"]["notices"][0]["mend"].is_string(),
        "{status:#}"
    );
}

#[test]
fn the_nodes_of_a_cluster_are_told_of_one_by_one() {
    let (source, cluster) = (source_of("redis-7.0"), Cluster::start("redis-7.0", 3, 0));
    workload::fill_dbs(&mut source.client(), 7, 500, &[0]);
    let link = Link::between(&source.address(), &cluster.address(0));
    let mut daemon = link.with("redis_writer", "cluster = true").start();
    wait_stream(&mut daemon);
    for key in 0..300 {
        source
            .client()
            .command(&argv!["SET", format!("k{key}"), key]);
    }
    catch_up(&mut daemon, &source);
    let nodes = daemon.status().expect("a status")["understudy"]["nodes"].clone();
    let nodes = nodes.as_array().expect("nodes");
    assert_eq!(nodes.len(), 3);
    let sum = |field: &str| {
        nodes
            .iter()
            .filter_map(|node| node[field].as_u64())
            .sum::<u64>()
    };
    assert_eq!((sum("slots"), sum("errors")), (16_384, 0));
    assert!(sum("commands") >= 800, "{nodes:?}");
    assert!(
        nodes
            .iter()
            .all(|node| node["answered_seconds"].is_number())
    );
    let browser = Browser::start();
    browser.open(&url(&daemon));
    browser.wait("document.querySelectorAll('[data-table=nodes] tbody tr').length === 3");
    assert!(
        browser
            .text("[data-table=nodes]")
            .contains(&cluster.address(1))
    );
    look_at_one(&browser, "cluster");
}

/// Status line and headers, in lower case, of a GET with this Accept; and the beginning of the body.
fn get(daemon: &Daemon, path: &str, accept: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.status_port())).expect("connect");
    stream.set_read_timeout(Some(LIMIT)).expect("a timeout");
    let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("ask");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_ascii_lowercase(), body.to_owned())
}

#[test]
fn programs_get_json_browsers_the_page_and_too_many_readers_are_turned_away() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    for accept in ["*/*", "application/json"] {
        let (head, body) = get(&daemon, "/", accept);
        assert!(head.contains("content-type: application/json"), "{head}");
        let status: Value = serde_json::from_str(&body).expect("JSON");
        assert!(status["understudy"]["phase"].is_string());
    }
    let (head, body) = get(&daemon, "/", "text/html,application/xhtml+xml,*/*;q=0.8");
    assert!(body.starts_with("<!doctype html>"));
    for line in [
        "default-src 'none'",
        "x-content-type-options: nosniff",
        "vary: accept",
        "frame-ancestors 'none'",
    ] {
        assert!(head.contains(line), "{line}: {head}");
    }
    assert!(!head.contains("unsafe"), "{head}");
    for (path, kind) in [
        ("/page.css", "text/css"),
        ("/page.js", "text/javascript"),
        ("/icon.svg", "image/svg+xml"),
    ] {
        let (head, _) = get(&daemon, path, "*/*");
        assert!(
            head.contains(" 200 ") && head.contains(kind),
            "{path}: {head}"
        );
    }
    // Pages that are open, and one more.
    let listen = || {
        let mut stream = TcpStream::connect(("127.0.0.1", daemon.status_port())).expect("connect");
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a timeout");
        stream
            .write_all(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            .expect("ask");
        let mut first = vec![0; 64];
        let len = stream.read(&mut first).expect("an answer");
        (String::from_utf8_lossy(&first[..len]).into_owned(), stream)
    };
    let mut open: Vec<_> = (0..64).map(|_| listen()).collect();
    assert!(open.iter().all(|(first, _)| first.contains("200 OK")));
    assert!(listen().0.contains("503"));
    open.clear();
    wait_until("room for another page", LIMIT, || {
        listen().0.contains("200 OK")
    });
}
