//! The switch-over: an application under load is moved to the new server without losing or doubling a write; what fails on
//! the way leaves everything as it was; and the way back begins where the switch was made, without a snapshot.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use e2e::cutover::{
    Cutover, count_until_refused, cutover, link, may_write, our_keys, shown, way_back,
};
use e2e::{LIMIT, Link, catch_up, full_syncs, own, phase, rng, source_of, wait_more, wait_stream};
use serde_json::Value;
use testkit::client::{items, text};
use testkit::process::wait_until;
use testkit::{Client, Counters, Engine, Server, argv, daemon, oracle};

fn moved_under_load(source: &str, target: &str) {
    let (source, target) = (source_of(source), Server::of(target));
    source.client().command(&argv!["SET", "fixed", "v"]);
    let mut daemon = link(&source, &target).start();
    wait_stream(&mut daemon);
    let writers: Vec<_> = (0..3)
        .map(|_| count_until_refused(source.address()))
        .collect();
    let marker = daemon.folder().join("switched");
    let command = format!(
        "echo \"$UNDERSTUDY_TARGET $UNDERSTUDY_OFFSET\" > {}",
        marker.display()
    );
    let done = cutover(&daemon, &["--yes", "--watch", "2s", "--on-go", &command]).assert_ok();
    for step in [
        "gate", "fence", "proof", "compare", "seal", "go", "on_go", "done",
    ] {
        assert_eq!(done.step(step)["ok"], true, "{done}");
    }
    let held = done.step("go")["fence_seconds"].as_f64().expect("a time");
    println!(
        "{}: writes were held back for {held:.3} s",
        source.engine().name
    );
    assert!(held > 0.0 && held < 20.0, "{done}");
    let proof = done.step("proof");
    assert_eq!(proof["source_offset"], proof["target_offset"]);
    let told = fs::read_to_string(marker).expect("the hook has run");
    assert_eq!(
        told.trim(),
        format!("{} {}", target.address(), proof["source_offset"])
    );
    // The writers were told that they may not; each of their acknowledged writes is at the target, once.
    let acknowledged: u64 = writers
        .into_iter()
        .map(|writer| writer.join().expect("a writer"))
        .sum();
    assert!(acknowledged > 0);
    let found = text(&target.client().command(&argv!["GET", "app:count"]));
    assert_eq!(found, acknowledged.to_string());
    assert_eq!(shown(&daemon)["stage"], "go");
    assert!(!may_write(&source) && may_write(&target));
    // What the application writes now stays, whatever becomes of the daemon.
    target.client().command(&argv!["SET", "app:count", "new"]);
    daemon.restart();
    daemon.wait_for("the switch to be known", LIMIT, |daemon| {
        shown(daemon)["stage"] == "go"
    });
    let undone = cutover(&daemon, &["--undo"]);
    assert_eq!(undone.code, 1, "{undone}");
    cutover(&daemon, &["--unfence"]).assert_ok();
    assert!(may_write(&source));
    cutover(&daemon, &["--finish", "--yes", "--remove-spool"]).assert_ok();
    assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
    assert_eq!(our_keys(&target), Vec::<String>::new());
    assert_eq!(our_keys(&source), Vec::<String>::new());
    assert_eq!(
        text(&target.client().command(&argv!["GET", "app:count"])),
        "new"
    );
    assert!(!daemon.folder().join("data/spool/e2e").exists());
}

#[test]
fn an_application_under_load_is_moved_without_losing_a_write() {
    moved_under_load("redis-7.0", "redis-7.0");
}

#[test]
fn also_from_and_to_the_newest() {
    moved_under_load("redis-8.0", "valkey-9.1");
}

#[test]
fn an_old_source_is_fenced_by_its_parameters() {
    let (source, target) = (source_of("redis-5.0"), Server::of("redis-7.0"));
    let mut daemon = link(&source, &target).start();
    wait_stream(&mut daemon);
    let writer = count_until_refused(source.address());
    let done = cutover(&daemon, &["--yes", "--watch", "1s"]).assert_ok();
    assert!(
        done.step("fence")["text"]
            .to_string()
            .contains("min-replicas"),
        "{done}"
    );
    let acknowledged = writer.join().expect("a writer");
    let found = text(&target.client().command(&argv!["GET", "app:count"]));
    assert_eq!(found, acknowledged.to_string());
    assert!(!may_write(&source));
    cutover(&daemon, &["--unfence"]).assert_ok();
    assert!(may_write(&source));
    let limit = items(
        source
            .client()
            .command(&argv!["CONFIG", "GET", "min-replicas-to-write"]),
    );
    assert_eq!(text(&limit[1]), "0");
}

#[test]
fn an_old_source_can_be_paused_too() {
    let (source, target) = (source_of("redis-5.0"), Server::of("redis-7.0"));
    let mut daemon = link(&source, &target)
        .with("cutover", "pause = \"5s\"")
        .start();
    wait_stream(&mut daemon);
    source.client().command(&argv!["SET", "a", 1]);
    let args = ["--yes", "--fence", "pause", "--watch", "1s"];
    let done = cutover(&daemon, &args).assert_ok();
    assert!(
        done.to_string().contains("CLIENT PAUSE of everything"),
        "{done}"
    );
    assert_eq!(text(&target.client().command(&argv!["GET", "a"])), "1");
    // It runs out by itself; what is written then is late, and named.
    source.client().command(&argv!["SET", "late:1", 1]);
    daemon.wait_for("a late write", LIMIT, |daemon| {
        shown(daemon)["late_writes"]["by_prefix"]["late:"] == 1
    });
}

#[test]
fn rights_are_given_back_word_for_word() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut admin = source.client();
    let users = [
        argv![
            "ACL", "SETUSER", "app", "on", ">x", "~*", "+@read", "+set", "+incr"
        ],
        argv![
            "ACL",
            "SETUSER",
            "two",
            "on",
            ">x",
            "~a*",
            "-@all",
            "+get",
            "(+set %W~b*)",
            "&c"
        ],
        argv!["ACL", "SETUSER", "off", "off", "+@all"],
    ];
    admin.commands(&users);
    let before = text(&admin.command(&argv!["ACL", "LIST"]));
    let mut daemon = link(&source, &target).start();
    wait_stream(&mut daemon);
    target.client().command(&argv!["SET", "alien", 1]);
    // The proof fails by what somebody else has written at the target.
    let done = cutover(
        &daemon,
        &["--yes", "--fence", "acl", "--compare", "none", "--check"],
    );
    done.assert_ok();
    let args = [
        "--yes",
        "--fence",
        "acl",
        "--compare",
        "none",
        "--watch",
        "1s",
    ];
    let done = cutover(&daemon, &args).assert_ok();
    assert!(!may_write(&source), "{done}");
    let list = text(&admin.command(&argv!["ACL", "LIST"]));
    assert_ne!(list, before);
    cutover(&daemon, &["--unfence"]).assert_ok();
    assert_eq!(text(&admin.command(&argv!["ACL", "LIST"])), before);
    assert!(may_write(&source));
}

#[test]
fn a_gate_that_is_not_passed_changes_nothing() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    source.client().command(&argv!["SET", "a", 1]);
    let mut daemon = link(&source, &target).start();
    wait_stream(&mut daemon);
    catch_up(&mut daemon, &source);
    let pause = daemon::post(
        &format!("127.0.0.1:{}", daemon.status_port()),
        "/pause",
        Some("hush"),
        "",
    );
    assert_eq!(pause.expect("an answer").0, 200);
    assert_eq!(daemon.metric("understudy_cutover_ready"), Some(0.0));
    let done = cutover(&daemon, &["--yes"]);
    assert_eq!(done.code, 1, "{done}");
    assert!(
        done.to_string().contains("paused") && !done.has("fence"),
        "{done}"
    );
    let resume = daemon::post(
        &format!("127.0.0.1:{}", daemon.status_port()),
        "/resume",
        Some("hush"),
        "",
    );
    assert_eq!(resume.expect("an answer").0, 200);
    daemon.wait_for("readiness", LIMIT, |daemon| {
        shown(daemon)["ready"] == true && daemon.metric("understudy_cutover_ready") == Some(1.0)
    });
    // Somebody has written at the target.
    target.client().command(&argv!["SET", "a", "other"]);
    let done = cutover(&daemon, &["--yes"]);
    assert_eq!(done.code, 1, "{done}");
    assert!(
        done.to_string().contains("verify: 1 of 1 keys differ"),
        "{done}"
    );
    assert!(!done.has("fence") && may_write(&source), "{done}");
    assert_eq!(shown(&daemon)["stage"], "replicating");
    // What an older run has left is told of.
    target
        .client()
        .command(&argv!["SET", "understudy:checkpoint:old", "x"]);
    let text = link(&source, &target).text();
    let text = text.replace(daemon::STATUS_PORT, "0");
    let checked = e2e::run_file(
        &["check", "shake.toml", "--seconds", "1"],
        Some(text.as_bytes()),
    );
    let told = "1 keys of other links, or of older runs, such as understudy:checkpoint:old";
    assert!(checked.stdout.contains(told), "{}", checked.stdout);
    target
        .client()
        .command(&argv!["DEL", "understudy:checkpoint:old"]);
    // Nobody is there to be asked.
    let done = cutover(&daemon, &[]);
    assert_eq!(done.code, 2, "{done}");
    // A daemon that takes no orders.
    let text = Link::new(&source, &target).text();
    let ended = e2e::run_file(
        &["cutover", "shake.toml"],
        Some(text.replace(daemon::STATUS_PORT, "1").as_bytes()),
    );
    assert_eq!(ended.code, 2);
    assert!(ended.error().contains("admin_token"), "{}", ended.error());
}

#[test]
fn a_proof_that_fails_releases_the_fence() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    source.client().command(&argv!["SET", "a", 1]);
    let link = link(&source, &target);
    let alien = target.address();
    let (host, port) = alien.split_once(':').expect("an address");
    // The operator's own fence, which holds nothing back, and in which somebody writes at the target.
    let cli = Engine::of("redis-7.0").program("redis-cli");
    let cli = cli.map_or("redis-cli".into(), |cli| cli.display().to_string());
    let mut daemon = link
        .with(
            "cutover",
            &format!("fence_command = \"{cli} -h {host} -p {port} SET a other\""),
        )
        .with("cutover", "unfence_command = \"echo undone > unfenced\"")
        .start();
    wait_stream(&mut daemon);
    let done = cutover(&daemon, &["--yes", "--fence", "command"]);
    assert_eq!(done.code, 1, "{done}");
    assert!(done.has("proof") && !done.has("go"), "{done}");
    assert!(
        done.step("undone")["text"]
            .to_string()
            .contains("1 of 1 keys differ"),
        "{done}"
    );
    assert!(daemon.folder().join("unfenced").exists(), "{done}");
    assert!(our_keys(&target).len() == 1, "{:?}", our_keys(&target));
    // The link goes on.
    source.client().command(&argv!["SET", "b", 2]);
    catch_up(&mut daemon, &source);
    assert_eq!(text(&target.client().command(&argv!["GET", "b"])), "2");
}

#[test]
fn killed_at_any_step_it_leaves_a_link_that_goes_on() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = link(&source, &target)
        .with("cutover", "pause = \"2s\"\nseal = false")
        .start();
    wait_stream(&mut daemon);
    let counters = Counters::start(&source.address(), rng().number(), 300);
    for step in ["gate", "fence", "proof", "compare", "go"] {
        let run = Cutover::start(&daemon, &["--yes"]);
        run.wait_step(step);
        run.kill();
        // The pause runs out, the hold is forgotten.
        wait_more("operations", 100, || counters.acknowledged());
        // It may have come to GO meanwhile: then nothing is applied, and nothing was written at the target.
        daemon.wait_for("the link to know", LIMIT, |daemon| {
            ["replicating", "go"]
                .map(Value::from)
                .contains(&shown(daemon)["stage"])
        });
        println!("killed at {step}: {}", shown(&daemon)["stage"]);
        cutover(&daemon, &["--undo", "--force"]).assert_ok();
        assert_eq!(shown(&daemon)["stage"], "replicating");
    }
    assert!(may_write(&source));
    let ledger = counters.stop();
    catch_up(&mut daemon, &source);
    ledger.assert_at(&target.address());
    oracle::assert_equal(&source.address(), &target.address());
    // Ctrl-C under the fence.
    let run = Cutover::start(&daemon, &["--yes", "--fence", "pause"]);
    run.wait_step("fence");
    testkit::process::signal(run.child.id(), testkit::process::Signal::TERM);
    let done = run.wait();
    if done.code == 1 {
        assert!(
            done.step("undone")["text"]
                .to_string()
                .contains("interrupted"),
            "{done}"
        );
        assert!(may_write(&source));
    }
}

#[test]
fn the_seal_of_a_killed_cutover_is_found_and_undone() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let before = text(&source.client().command(&argv!["ACL", "LIST"]));
    let mut daemon = link(&source, &target).start();
    wait_stream(&mut daemon);
    let run = Cutover::start(&daemon, &["--yes", "--fence", "acl", "--compare", "full"]);
    run.stop_at("fence");
    run.kill();
    let is_fenced = !may_write(&source);
    // Another one would put its own record in the place of that which tells how to undo this.
    daemon.wait_for("the dead one to be forgotten", LIMIT, |daemon| {
        shown(daemon)["stage"] == "replicating"
    });
    let again = cutover(&daemon, &["--yes", "--fence", "acl", "--compare", "none"]);
    assert_eq!(again.code, 1, "{again}");
    assert!(again.to_string().contains("--undo"), "{again}");
    cutover(&daemon, &["--undo", "--force"]).assert_ok();
    assert!(is_fenced && may_write(&source));
    assert_eq!(
        text(&source.client().command(&argv!["ACL", "LIST"])),
        before
    );
    source.client().command(&argv!["SET", "b", 2]);
    catch_up(&mut daemon, &source);
    assert_eq!(text(&target.client().command(&argv!["GET", "b"])), "2");
}

/// A comparison at the gate takes longer than a daemon waits to hear of a cutover.
#[test]
fn a_long_gate_is_not_taken_for_a_dead_one() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    for n in 0..1500 {
        source.client().command(&argv!["SET", format!("k{n}"), n]);
    }
    let mut daemon = link(&source, &target).with("compare", "qps = 100").start();
    wait_stream(&mut daemon);
    cutover(
        &daemon,
        &["--yes", "--check", "--fence", "acl", "--compare", "full"],
    )
    .assert_ok();
    assert!(
        !daemon
            .output()
            .contains("has gone without making the switch")
    );
}

#[test]
fn stragglers_are_named_and_their_writes_are_kept() {
    let (source, target) = (source_of("redis-7.2"), Server::of("redis-7.0"));
    let mut daemon = link(&source, &target)
        .with("cutover", "seal = false")
        .start();
    wait_stream(&mut daemon);
    let mut straggler = source.client();
    straggler.command(&argv!["CLIENT", "SETNAME", "batch-job"]);
    straggler.command(&argv!["CLIENT", "SETINFO", "LIB-NAME", "shoplib"]);
    straggler.command(&argv!["SET", "cart:1", 1]);
    daemon.wait_for("the clients to be known", LIMIT, |daemon| {
        daemon
            .metric("understudy_source_clients")
            .is_some_and(|count| count >= 1.0)
    });
    cutover(&daemon, &["--yes", "--watch", "0s"]).assert_ok();
    assert!(
        may_write(&source),
        "the pause has ended, and nobody was sealed off"
    );
    let mut count = 0;
    daemon.wait_for("the straggler to be named", LIMIT, |daemon| {
        straggler.command(&argv!["RPUSH", format!("cart:q{count}"), 1]);
        straggler.command(&argv!["SET", "session:1", 1]);
        count += 1;
        let shown = shown(daemon);
        let stragglers = shown["stragglers"].as_array().cloned().unwrap_or_default();
        stragglers.iter().any(|one| {
            one["name"] == "batch-job"
                && one["user"] == "default"
                && one["lib"]
                    .as_str()
                    .is_some_and(|lib| lib.starts_with("shoplib"))
                && one["last_command"] == "set"
                && one["address"]
                    .as_str()
                    .is_some_and(|address| address.starts_with("127.0.0.1:"))
                && one["writes"].as_u64() > Some(0)
        }) && shown["late_writes"]["by_prefix"]["cart:"].as_u64() >= Some(2)
    });
    daemon.wait_for("all late writes to be counted", LIMIT, |daemon| {
        shown(daemon)["late_writes"]["by_prefix"]["cart:"] == count
            && daemon.metric("understudy_late_writes_total") >= Some(2.0 * f64::from(count))
    });
    let monitored = std::thread::spawn({
        let address = source.address();
        move || {
            let mut client = Client::connect(&address);
            for _ in 0..30 {
                client.command(&argv!["INCR", "stats:1"]);
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    });
    let done = cutover(&daemon, &["--stragglers", "--monitor", "1s"]).assert_ok();
    assert!(
        done.step("monitor")["writers"]
            .to_string()
            .contains("incr stats:"),
        "{done}"
    );
    monitored.join().expect("it writes");
    // None of it was applied; undone, all of it is.
    assert_eq!(text(&target.client().command(&argv!["GET", "cart:1"])), "1");
    assert_eq!(
        target.client().keyspace().get(&0),
        Some(&3),
        "{:?}",
        our_keys(&target)
    );
    cutover(&daemon, &["--undo", "--force"]).assert_ok();
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
}

#[test]
fn the_way_back_begins_at_the_switch_and_needs_no_snapshot() {
    let mut rng = rng();
    let (old, new) = (source_of("redis-7.0"), source_of("redis-7.0"));
    // The user of the link is none of the application's: it goes on to write at the old server.
    let mut admin = old.client();
    admin.command(&argv![
        "ACL", "SETUSER", "mover", "on", ">pw", "~*", "&*", "+@all"
    ]);
    // The new server has a replica, as most have: it keeps its stream.
    let replica = Server::of("redis-7.0");
    replica
        .client()
        .command(&argv!["REPLICAOF", "127.0.0.1", new.port()]);
    wait_until("the replica", LIMIT, || full_syncs(&new) == 1);
    let mut there = link(&old, &new)
        .with("sync_reader", "username = \"mover\"\npassword = \"pw\"")
        .start();
    wait_stream(&mut there);
    let counters = Counters::start(&old.address(), rng.number(), 500);
    wait_more("operations", 300, || counters.acknowledged());
    let ledger = counters.stop();
    let done = cutover(&there, &["--yes", "--reverse", "--watch", "0s"]).assert_ok();
    assert_eq!(done.step("way-back")["ok"], true, "{done}");
    ledger.assert_at(&new.address());
    // Some seconds pass in which the application writes and nobody follows.
    let counters = Counters::start(&new.address(), rng.number(), 500);
    wait_more("operations", 300, || counters.acknowledged());
    let mut back = way_back(&there);
    back.spawn();
    wait_stream(&mut back);
    back.restart();
    wait_stream(&mut back);
    wait_more("operations", 300, || counters.acknowledged());
    assert_eq!(full_syncs(&new), 1, "that of the replica");
    let ledger = counters.stop();
    catch_up(&mut back, &new);
    ledger.assert_at(&old.address());
    oracle::assert_equal(&new.address(), &old.address());
    // What the way back writes at the old server is nobody's late write.
    assert_eq!(
        shown(&there)["late_writes"]["total"],
        0,
        "{}",
        shown(&there)
    );
    // Back again, under load: the rights first, then the same switch the other way round.
    cutover(&there, &["--unfence"]).assert_ok();
    cutover(&there, &["--finish", "--yes"]).assert_ok();
    assert_eq!(there.wait(LIMIT), 0);
    let printed = e2e::run_file(
        &["reverse", "shake.toml"],
        Some(
            fs::read(back.folder().join("shake.toml"))
                .expect("the file")
                .as_slice(),
        ),
    );
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    let text_back = printed
        .stdout
        .replace("${UNDERSTUDY_SOURCE_PASSWORD}", "pw")
        .replace("${UNDERSTUDY_TARGET_PASSWORD}", "pw")
        .replace("${UNDERSTUDY_ADMIN_TOKEN}", "hush");
    back.configure(&text_back);
    let writers: Vec<_> = (0..2).map(|_| count_until_refused(new.address())).collect();
    let done = cutover(&back, &["--yes", "--watch", "1s"]).assert_ok();
    println!(
        "back: writes were held back for {} s",
        done.step("go")["fence_seconds"]
    );
    let acknowledged: u64 = writers
        .into_iter()
        .map(|writer| writer.join().expect("a writer"))
        .sum();
    let found = text(&old.client().command(&argv!["GET", "app:count"]));
    assert_eq!(found, acknowledged.to_string());
    ledger.assert_at(&old.address());
    cutover(&back, &["--finish", "--yes"]).assert_ok();
    assert_eq!(back.wait(LIMIT), 0, "{}", back.output());
    assert_eq!(our_keys(&old), Vec::<String>::new());
    assert_eq!(our_keys(&new), Vec::<String>::new());
}

#[test]
fn a_new_server_without_a_replica_is_made_to_keep_its_stream() {
    let (old, new) = (source_of("redis-7.0"), source_of("redis-7.0"));
    old.client().command(&argv!["SET", "a", 1]);
    let mut there = link(&old, &new)
        .with("cutover", "acl_keep = [\"default\"]")
        .start();
    wait_stream(&mut there);
    let done = cutover(&there, &["--yes", "--reverse", "--watch", "0s"]).assert_ok();
    assert_eq!(done.step("way-back")["ok"], true, "{done}");
    let mut app = new.client();
    app.command(&argv!["INCR", "a"]);
    app.select(3);
    app.command(&argv!["INCR", "b"]);
    let mut back = way_back(&there);
    back.spawn();
    wait_stream(&mut back);
    catch_up(&mut back, &new);
    let mut client = old.client();
    assert_eq!(text(&client.command(&argv!["GET", "a"])), "2");
    client.select(3);
    assert_eq!(text(&client.command(&argv!["GET", "b"])), "1");
    let status = back.status().expect("it answers");
    assert_eq!(status["understudy"]["full_resyncs"], serde_json::json!({}));
    assert!(own(&back, "partial_resyncs") >= Some(1) && phase(&back) == "stream");
}

/// A Sentinel that watches the source, killed when dropped.
struct Sentinel {
    child: Child,
    port: testkit::port::Port,
    _folder: tempfile::TempDir,
}

impl Sentinel {
    fn of(source: &Server) -> Self {
        let port = testkit::port::Port::reserve();
        let folder = tempfile::TempDir::new().expect("a folder");
        let file = folder.path().join("sentinel.conf");
        let text = format!(
            "port {}\nbind 127.0.0.1\ndir {}\nsentinel monitor shop 127.0.0.1 {} 1\n",
            port.number(),
            folder.path().display(),
            source.port()
        );
        fs::write(&file, text).expect("write a configuration");
        let child = Command::new(Engine::of("redis-7.0").server())
            .arg(&file)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        Self {
            child: child.expect("start a Sentinel"),
            port,
            _folder: folder,
        }
    }

    /// Replicas that it knows of the source.
    fn replicas(&self) -> usize {
        let Ok(mut client) = Client::try_connect(&self.port.address()) else {
            return 0;
        };
        let known = client.try_command(&argv!["SENTINEL", "REPLICAS", "shop"]);
        known.map_or(0, |known| items(known).len())
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn sentinels_are_no_stragglers_and_forget_us() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let sentinel = Sentinel::of(&source);
    let mut daemon = link(&source, &target).start();
    wait_stream(&mut daemon);
    wait_until("the Sentinel to know us", LIMIT, || {
        sentinel.replicas() == 1
    });
    let mut client = source.client();
    client.command(&argv!["CLIENT", "SETNAME", "the-only-one"]);
    daemon.wait_for("the client to be known", LIMIT, |daemon| {
        shown(daemon)["source_clients"] == 1
            && shown(daemon)["stragglers"][0]["name"] == "the-only-one"
    });
    cutover(&daemon, &["--yes", "--watch", "0s"]).assert_ok();
    let done = cutover(&daemon, &["--finish", "--yes", "--reset-sentinels"]).assert_ok();
    let told = done.step("sentinels").to_string();
    assert!(told.contains("SENTINEL RESET shop"), "{done}");
    wait_until("the Sentinel to have forgotten us", LIMIT, || {
        sentinel.replicas() == 0
    });
}

/// The commands of a section of the page, in order.
fn commands_of(page: &str, has_back: bool) -> Vec<Vec<String>> {
    let (before, after) = page.split_once("## The way back").expect("the section");
    let part = if has_back { after } else { before };
    let lines = part
        .lines()
        .filter_map(|line| line.strip_prefix("    understudy "));
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
    lines.map(words).collect()
}

#[test]
fn every_command_of_the_page_does_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cutover.md");
    let page = fs::read_to_string(page).expect("the page");
    for has_back in [false, true] {
        let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
        source.client().command(&argv!["SET", "a", 1]);
        let mut daemon = link(&source, &target).start();
        wait_stream(&mut daemon);
        let script = daemon.folder().join("switch-dns.sh");
        fs::write(
            &script,
            "#!/bin/sh\necho \"$UNDERSTUDY_STAGE\" >> switched\n",
        )
        .expect("a script");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, mode).expect("a script to run");
        let commands = commands_of(&page, has_back);
        assert!(commands.len() >= 2, "{commands:?}");
        for words in commands {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            if words[0] == "reverse" {
                let mut back = way_back(&daemon);
                assert_eq!(words, ["reverse", "--start", "shake.toml"]);
                back.spawn();
                wait_stream(&mut back);
                back.terminate();
                assert_eq!(back.wait(LIMIT), 0, "{}", back.output());
                continue;
            }
            assert_eq!(words[..2], ["cutover", "shake.toml"]);
            let mut args = words[2..].to_vec();
            for unattended in ["--yes", "--watch=0s"] {
                let is_there = args.iter().any(|arg| arg.starts_with(&unattended[..4]));
                if !is_there {
                    args.push(unattended);
                }
            }
            args.retain(|arg| *arg != "--json");
            println!("cutover {}", args.join(" "));
            cutover(&daemon, &args).assert_ok();
        }
        if has_back {
            continue;
        }
        let switched = fs::read_to_string(daemon.folder().join("switched")).expect("the hook");
        assert_eq!(switched, "go\n");
        assert_eq!(daemon.wait(LIMIT), 0, "{}", daemon.output());
        assert_eq!(our_keys(&target), Vec::<String>::new());
        assert!(may_write(&source));
    }
}
