//! The target carries a unit out, a command in it fails for what somebody else has written, and nobody hears of it: the
//! daemon is killed, or the line is lost, between EXEC and the look at its replies. The keys are repaired all the same.

use std::fs;

use e2e::{LIMIT, Link, catch_up, full_syncs, own, source_of, wait_stream};
use testkit::client::{Argv, text};
use testkit::process::wait_until;
use testkit::proxy::{Cut, Direction, Proxy};
use testkit::{Daemon, Server, argv, oracle};

/// One row a key: how it is made at both ends, what others write over it at the target, and what the source does then.
const KEYS: &[(&[&str], &[&str], &str)] = &[
    (&["RPUSH list a"], &["SET list wrong"], "RPUSH list b"),
    (&["SADD set a"], &["DEL set", "HSET set f v"], "SADD set b"),
    (&["SET number 1"], &["SET number no-number"], "INCR number"),
    (
        &["XADD stream 1-1 f v"],
        &["XADD stream 99-1 f v"],
        "XADD stream 2-1 f v",
    ),
    (&["HSET hash n 1"], &["HSET hash n x"], "HINCRBY hash n 2"),
    (
        &["SET from 1", "RPUSH to 1"],
        &["DEL from"],
        "RENAME from to",
    ),
];

fn words(line: &str) -> Argv {
    line.split(' ')
        .map(|word| word.as_bytes().to_vec())
        .collect()
}

fn run(server: &Server, lines: &[&str]) {
    let mut client = server.client();
    client.select(3);
    for line in lines {
        client.command(&words(line));
    }
}

/// A link whose target has carried out commands that failed, and whose replies are held back by the proxy.
struct Held {
    source: Server,
    target: Server,
    proxy: Proxy,
    daemon: Daemon,
}

impl Held {
    /// `then` is done at the source, in one transaction.
    fn new(with: impl FnOnce(Link) -> Link, then: &[Argv]) -> Self {
        let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
        let proxy = Proxy::start(&target.address());
        let link = with(Link::new(&source, &target).target(&proxy.address()));
        let mut daemon = link.start();
        wait_stream(&mut daemon);
        for (before, ..) in KEYS {
            run(&source, before);
        }
        catch_up(&mut daemon, &source);
        for (_, wrong, _) in KEYS {
            run(&target, wrong);
        }
        proxy.hold(Direction::ToClient);
        let mut commands = vec![argv!["SELECT", 3], argv!["MULTI"]];
        commands.extend_from_slice(then);
        commands.push(argv!["SET", "last", "done"]);
        commands.push(argv!["EXEC"]);
        source.client().commands(&commands);
        let mut at_target = target.client();
        at_target.select(3);
        wait_until("the unit at the target", LIMIT, || {
            text(&at_target.command(&argv!["GET", "last"])) == "done"
        });
        assert_eq!(own(&daemon, "repairs_open"), Some(0));
        Self {
            source,
            target,
            proxy,
            daemon,
        }
    }

    fn let_go(&self) {
        self.proxy.cut_now(Cut::Rst);
        self.proxy.release(Direction::ToClient);
    }

    fn check_repaired(mut self, at_least: usize) {
        wait_stream(&mut self.daemon);
        self.daemon.wait_for("the repairs", LIMIT, |daemon| {
            own(daemon, "repairs").is_some_and(|count| count >= at_least as u64)
                && own(daemon, "repairs_open") == Some(0)
        });
        catch_up(&mut self.daemon, &self.source);
        oracle::assert_equal(&self.source.address(), &self.target.address());
        assert_eq!(full_syncs(&self.source), 1);
        // In good order nothing is left unseen: the next run has nothing to repair.
        self.daemon.terminate();
        assert_eq!(self.daemon.wait(LIMIT), 0, "{}", self.daemon.output());
        let checkpoint = self
            .target
            .client()
            .command(&argv!["GET", "understudy:checkpoint:e2e"]);
        let checkpoint = text(&checkpoint);
        assert_eq!(checkpoint.split('|').count(), 8, "{checkpoint}");
        let flags = checkpoint.rsplit('|').next().unwrap_or_default();
        assert!(!flags.contains('u'), "{checkpoint}");
    }
}

fn failing() -> Vec<Argv> {
    KEYS.iter().map(|(.., then)| words(then)).collect()
}

#[test]
fn what_a_kill_kept_from_being_seen_is_repaired() {
    let mut held = Held::new(|link| link, &failing());
    held.daemon.kill();
    held.let_go();
    held.daemon.spawn();
    held.check_repaired(KEYS.len() + 1);
}

#[test]
fn it_is_asked_of_the_source_where_the_spool_is_gone() {
    let mut held = Held::new(|link| link, &failing());
    held.daemon.kill();
    held.let_go();
    fs::remove_dir_all(held.daemon.folder().join("data/spool")).expect("a spool");
    held.daemon.spawn();
    held.check_repaired(KEYS.len() + 1);
}

#[test]
fn what_a_lost_line_kept_from_being_seen_is_repaired() {
    let held = Held::new(|link| link, &failing());
    held.let_go();
    held.check_repaired(KEYS.len() + 1);
}

#[test]
fn more_keys_than_a_checkpoint_holds_are_repaired_over_kills() {
    let mut then = failing();
    then.extend((0..9_000).map(|n| argv!["RPUSH", format!("many:{n}"), n]));
    let mut held = Held::new(|link| link, &then);
    held.daemon.kill();
    held.let_go();
    held.daemon.spawn();
    wait_stream(&mut held.daemon);
    held.daemon.wait_for("some repairs", LIMIT, |daemon| {
        own(daemon, "repairs").is_some_and(|count| count > 0)
    });
    held.daemon.restart();
    held.check_repaired(1);
}

#[test]
fn with_fail_a_key_of_another_type_stops_the_link() {
    let mut held = Held::new(
        |link| link.with("checkpoint", "on_divergence = \"fail\""),
        &failing(),
    );
    held.daemon.kill();
    held.let_go();
    held.daemon.spawn();
    assert_eq!(held.daemon.wait(LIMIT), 4, "{}", held.daemon.output());
    let output = held.daemon.output();
    assert!(
        output.contains("holds a string at the target, where the last unit needed a list"),
        "{output}"
    );
    held.daemon.spawn();
    wait_stream(&mut held.daemon);
    catch_up(&mut held.daemon, &held.source);
    oracle::assert_equal(&held.source.address(), &held.target.address());
    assert_eq!(full_syncs(&held.source), 2);
}
