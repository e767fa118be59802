//! Rates and pauses, from the file and over HTTP.

use std::time::{Duration, Instant};

use e2e::{LIMIT, Link, catch_up, own, source_of, wait_stream};
use testkit::daemon::post;
use testkit::{Daemon, Server, argv, oracle};

const TOKEN: &str = "an-admin-token";

fn say(daemon: &Daemon, path: &str, token: Option<&str>, body: &str) -> (u16, String) {
    let address = format!("127.0.0.1:{}", daemon.status_port());
    post(&address, path, token, body).expect("an answer")
}

#[test]
fn rates_are_kept_and_changed_while_it_runs() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    let value = |i: usize| testkit::Rng::new(i as u64).bytes(1_000);
    for i in 0..1_000 {
        client.command(&argv!["SET", format!("snapshot:{i}"), value(i)]);
    }
    let mut daemon = Link::new(&source, &target)
        .with("limits", "target_bytes_per_second = \"250kb\"")
        .with("advanced", &format!("admin_token = \"{TOKEN}\""))
        .start();
    // About a mebibyte: four seconds, less what may go ahead.
    let from = Instant::now();
    wait_stream(&mut daemon);
    let took = from.elapsed();
    assert!(took > Duration::from_secs(2), "{took:?}");
    // Several units: one may go ahead whole.
    let from = Instant::now();
    for i in 0..2_500 {
        client.command(&argv!["SET", format!("stream:{i}"), value(i)]);
    }
    catch_up(&mut daemon, &source);
    let took = from.elapsed();
    assert!(took > Duration::from_secs(2), "{took:?}");
    let (code, answer) = say(
        &daemon,
        "/limits",
        Some(TOKEN),
        "{\"target_bytes_per_second\": 0, \"target_commands_per_second\": 200, \"source_bytes_per_second\": 0}",
    );
    assert_eq!((code, answer.contains("200")), (200, true), "{answer}");
    let from = Instant::now();
    for i in 0..3_000 {
        client.command(&argv!["INCR", format!("n:{}", i % 7)]);
    }
    catch_up(&mut daemon, &source);
    let took = from.elapsed();
    assert!(took > Duration::from_secs(3), "{took:?}");
    say(
        &daemon,
        "/limits",
        Some(TOKEN),
        "{\"target_commands_per_second\": 0}",
    );
    // What is read from the source is slowed on its own.
    say(
        &daemon,
        "/limits",
        Some(TOKEN),
        "{\"source_bytes_per_second\": 100000}",
    );
    let from = Instant::now();
    for i in 0..400 {
        client.command(&argv!["SET", format!("read:{i}"), value(i)]);
    }
    catch_up(&mut daemon, &source);
    let took = from.elapsed();
    assert!(took > Duration::from_secs(2), "{took:?}");
    oracle::assert_equal(&source.address(), &target.address());
    assert!(!daemon.output().contains(TOKEN));
    assert!(
        !daemon
            .status()
            .expect("a status")
            .to_string()
            .contains(TOKEN)
    );
}

#[test]
fn a_pause_holds_what_goes_to_the_target() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target)
        .with("advanced", &format!("admin_token = \"{TOKEN}\""))
        .start();
    wait_stream(&mut daemon);
    let mut client = source.client();
    client.command(&argv!["INCR", "n"]);
    catch_up(&mut daemon, &source);
    for (token, code) in [(None, 401), (Some("another"), 401), (Some(TOKEN), 200)] {
        assert_eq!(say(&daemon, "/pause", token, "").0, code);
    }
    let applied = own(&daemon, "applied_offset");
    for _ in 0..100 {
        client.command(&argv!["INCR", "n"]);
    }
    let goal = e2e::written(&source);
    daemon.wait_for("the spool to have it", LIMIT, |daemon| {
        own(daemon, "spooled_offset").is_some_and(|offset| offset >= goal)
    });
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(own(&daemon, "applied_offset"), applied);
    assert_eq!(
        say(&daemon, "/limits", Some(TOKEN), "{\"speed\": 1}").0,
        400
    );
    assert_eq!(say(&daemon, "/resume", Some(TOKEN), "").0, 200);
    catch_up(&mut daemon, &source);
    oracle::assert_equal(&source.address(), &target.address());
}

#[test]
fn without_a_token_nobody_may_change_anything() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut daemon = Link::new(&source, &target).start();
    wait_stream(&mut daemon);
    for path in ["/pause", "/resume", "/limits"] {
        let (code, answer) = say(&daemon, path, Some(""), "{}");
        assert_eq!(code, 403, "{answer}");
        assert!(answer.contains("advanced.admin_token"), "{answer}");
    }
}
