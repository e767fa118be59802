//! The switch-over of a link whose source refuses PSYNC and is read by SCAN: under the fence a pass over all keys proves that
//! both ends are equal; stragglers are named by address and, by keyspace events, by what they write; and there is a way back,
//! by PSYNC or by SCAN.

use std::time::Duration;

use e2e::cutover::{count_until_refused, cutover, link, may_write, our_keys, shown, way_back};
use e2e::{LIMIT, phase, rng, wait_more, wait_stream};
use testkit::client::text;
use testkit::oracle::{self, OracleOptions};
use testkit::samples::{self, Samples};
use testkit::{Counters, Daemon, Engine, Server, ServerOptions, argv};

const EVENTS: &str = "--notify-keyspace-events KEA";
const NO_PSYNC: &str = "--rename-command PSYNC nobody-knows --notify-keyspace-events KEA";

fn server(engine: &str, args: &str) -> Server {
    Server::start(&Engine::of(engine), ServerOptions::args(args))
}

/// A user for the link alone.
fn add_mover(server: &Server) {
    server.client().command(&argv![
        "ACL", "SETUSER", "mover", "on", ">pw", "~*", "&*", "+@all"
    ]);
}

fn start(source: &Server, target: &Server, seal: bool) -> Daemon {
    add_mover(source);
    let mut daemon = link(source, target)
        .with("sync_reader", "username = \"mover\"\npassword = \"pw\"")
        .with("scan_reader", "repair_interval = \"500ms\"")
        .with("cutover", &format!("seal = {seal}"))
        .start();
    daemon.wait_for("a link that can be switched", LIMIT, |daemon| {
        phase(daemon) == "scan" && shown(daemon)["ready"] == true
    });
    daemon
}

fn equal(source: &Server, target: &Server) {
    let options = OracleOptions::live(&source.engine().version);
    oracle::assert_equal_with(&source.address(), &target.address(), &options);
}

/// Writes at a stream and reads it by a group, of which no event tells, until it may not.
fn consume_until_refused(address: String) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut client = testkit::Client::connect(&address);
        client.command(&argv!["XGROUP", "CREATE", "orders", "g", "$", "MKSTREAM"]);
        loop {
            let read = argv![
                "XREADGROUP",
                "GROUP",
                "g",
                "one",
                "COUNT",
                5,
                "STREAMS",
                "orders",
                ">"
            ];
            let done = client
                .try_command(&argv!["XADD", "orders", "*", "n", 1])
                .and_then(|_| client.try_command(&read));
            if done.is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    })
}

#[test]
fn an_application_under_load_is_moved_and_the_way_back_is_by_psync() {
    let (old, new) = (server("redis-7.0", NO_PSYNC), server("redis-7.2", EVENTS));
    samples::fill(&mut old.client(), Samples::default());
    let mut there = start(&old, &new, true);
    let writers: Vec<_> = (0..2).map(|_| count_until_refused(old.address())).collect();
    let consumer = consume_until_refused(old.address());
    let done = cutover(
        &there,
        &["--yes", "--reverse", "--compare", "full", "--watch", "0s"],
    );
    let done = done.assert_ok();
    for step in [
        "gate", "fence", "proof", "compare", "seal", "go", "way-back",
    ] {
        assert_eq!(done.step(step)["ok"], true, "{done}");
    }
    assert_eq!(done.step("proof")["by"], "scan", "{done}");
    println!(
        "writes were held back for {} s",
        done.step("go")["fence_seconds"]
    );
    let acknowledged: u64 = writers
        .into_iter()
        .map(|writer| writer.join().expect("a writer"))
        .sum();
    consumer.join().expect("it ends");
    let found = text(&new.client().command(&argv!["GET", "app:count"]));
    assert_eq!(found, acknowledged.to_string());
    assert!(!may_write(&old) && may_write(&new));
    equal(&old, &new);
    // What the application writes now stays, whatever becomes of the daemon.
    new.client().command(&argv!["SET", "app:count", "new"]);
    there.restart();
    there.wait_for("the switch to be known", LIMIT, |daemon| {
        shown(daemon)["stage"] == "go" && phase(daemon) == "scan"
    });
    let mut back = way_back(&there);
    back.spawn();
    wait_stream(&mut back);
    e2e::catch_up(&mut back, &new);
    assert_eq!(
        text(&old.client().command(&argv!["GET", "app:count"])),
        "new"
    );
    equal(&new, &old);
    // What it writes there is nobody's late write.
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        shown(&there)["late_writes"]["total"],
        0,
        "{}",
        shown(&there)
    );
    back.terminate();
    assert_eq!(back.wait(LIMIT), 0, "{}", back.output());
    cutover(&there, &["--unfence"]).assert_ok();
    assert!(may_write(&old));
    cutover(&there, &["--finish", "--yes"]).assert_ok();
    assert_eq!(there.wait(LIMIT), 0, "{}", there.output());
    assert_eq!(our_keys(&new), Vec::<String>::new());
}

#[test]
fn stragglers_are_named_by_address_and_by_what_they_write() {
    let (old, new) = (server("redis-7.2", NO_PSYNC), server("redis-7.0", EVENTS));
    old.client().command(&argv!["SET", "cart:1", 1]);
    let mut there = start(&old, &new, false);
    cutover(&there, &["--yes", "--watch", "0s"]).assert_ok();
    let mut straggler = old.client();
    straggler.command(&argv!["CLIENT", "SETNAME", "batch-job"]);
    let mut count = 0;
    there.wait_for("the straggler to be named", LIMIT, |daemon| {
        straggler.command(&argv!["RPUSH", format!("cart:q{count}"), 1]);
        straggler.command(&argv!["SET", "session:1", 1, "EX", 100]);
        count += 1;
        let shown = shown(daemon);
        let stragglers = shown["stragglers"].as_array().cloned().unwrap_or_default();
        stragglers.iter().any(|one| {
            let address = one["address"].as_str().unwrap_or_default();
            one["name"] == "batch-job"
                && address.starts_with("127.0.0.1:")
                && one["writes"].as_u64() > Some(0)
        })
    });
    there.wait_for("all late writes to be counted", LIMIT, |daemon| {
        let late = &shown(daemon)["late_writes"];
        late["by_prefix"]["cart:"] == count && late["by_prefix"]["session:"] == count
    });
    let told = cutover(&there, &["--stragglers"]).assert_ok().to_string();
    assert!(told.contains(&format!("cart: {count}")), "{told}");
    there.restart();
    there.wait_for("the switch to be known", LIMIT, |daemon| {
        shown(daemon)["stage"] == "go"
    });
    there.wait_for("a late write to be heard again", LIMIT, |daemon| {
        straggler.command(&argv!["SADD", "tags:1", 1]);
        straggler.command(&argv!["SREM", "tags:1", 1]);
        shown(daemon)["late_writes"]["by_prefix"]["tags:"].as_u64() > Some(1)
    });
    // None of it was applied; undone, all of it is.
    assert_eq!(
        new.client().keyspace().get(&0),
        Some(&3),
        "{:?}",
        our_keys(&new)
    );
    cutover(&there, &["--undo", "--force"]).assert_ok();
    there.wait_for("the link to go on", LIMIT, |daemon| {
        shown(daemon)["ready"] == true
            && text(&new.client().command(&argv!["GET", "session:1"])) == "1"
    });
    let sweeps = |daemon: &Daemon| {
        daemon
            .status()
            .and_then(|told| told["understudy"]["scan"]["sweeps"].as_u64())
    };
    let before = sweeps(&there);
    there.wait_for("a pass", LIMIT, |daemon| sweeps(daemon) > before);
    equal(&old, &new);
}

#[test]
fn a_new_server_without_psync_has_a_way_back_by_scan() {
    let (old, new) = (server("redis-7.0", NO_PSYNC), server("redis-7.2", NO_PSYNC));
    samples::fill(&mut old.client(), Samples::default());
    old.client().command(&argv!["SET", "goes", 1]);
    let there = start(&old, &new, true);
    let done = cutover(&there, &["--yes", "--reverse", "--watch", "0s"]).assert_ok();
    assert_eq!(done.step("way-back")["by"], "scan", "{done}");
    let counters = Counters::start(&new.address(), rng().number(), 300);
    let mut back = way_back(&there);
    back.spawn();
    back.wait_for("the way back to be complete", LIMIT, |daemon| {
        phase(daemon) == "scan" && shown(daemon)["ready"] == true
    });
    new.client().command(&argv!["DEL", "goes"]);
    wait_more("operations", 200, || counters.acknowledged());
    let ledger = counters.stop();
    back.wait_for("everything to be back", LIMIT, |daemon| {
        let scan = daemon.status().unwrap_or_default()["understudy"]["scan"].clone();
        scan["clean"] == true && scan["dirty"] == 0
    });
    ledger.assert_at(&old.address());
    equal(&new, &old);
    back.terminate();
    assert_eq!(back.wait(LIMIT), 0, "{}", back.output());
}

#[test]
fn a_write_past_the_fence_is_named_and_all_is_undone() {
    let (old, new) = (server("redis-7.0", NO_PSYNC), server("redis-7.0", EVENTS));
    // A pass over so many keys takes a while, and who writes all the time writes in it.
    let keys: Vec<_> = (0..20_000)
        .map(|n| argv!["SET", format!("k:{n}"), n])
        .collect();
    old.client().commands(&keys);
    let mut there = {
        add_mover(&old);
        link(&old, &new)
            .with("sync_reader", "username = \"mover\"\npassword = \"pw\"")
            .with("scan_reader", "repair_interval = \"500ms\"")
            .with(
                "cutover",
                "fence_command = \"true\"\nunfence_command = \"true\"",
            )
            .start()
    };
    there.wait_for("a link that can be switched", LIMIT, |daemon| {
        shown(daemon)["ready"] == true
    });
    let counters = Counters::start(&old.address(), rng().number(), 2000);
    wait_more("operations", 200, || counters.acknowledged());
    let done = cutover(
        &there,
        &["--yes", "--fence", "command", "--compare", "none"],
    );
    assert_eq!(done.code, 1, "{done}");
    let told = done.step("undone")["text"].as_str().unwrap_or_default();
    assert!(told.contains("behind the fence"), "{done}");
    assert!(!done.has("proof"), "{done}");
    // An old write would come over a new one.
    let args = ["--check", "--late-writes", "apply", "--compare", "none"];
    let refused = cutover(&there, &args);
    assert_eq!(refused.code, 1, "{refused}");
    assert!(refused.to_string().contains("say hold"), "{refused}");
    let ledger = counters.stop();
    there.wait_for("everything to be there", LIMIT, |daemon| {
        let scan = daemon.status().unwrap_or_default()["understudy"]["scan"].clone();
        scan["clean"] == true && scan["dirty"] == 0
    });
    ledger.assert_at(&new.address());
}
