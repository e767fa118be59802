//! The way back: what was written at the new server after the switch is at the old one when the application goes back.

use e2e::{LIMIT, Link, catch_up, rng, run_file, source_of, wait_more, wait_stream};
use testkit::daemon::STATUS_PORT;
use testkit::{Counters, Daemon, argv, oracle};

#[test]
fn a_rollback_brings_back_what_was_written_since_the_switch() {
    let mut rng = rng();
    let (old, new) = (source_of("redis-7.0"), source_of("redis-7.0"));
    old.client().command(&argv!["MSET", "stays", 1, "goes", 1]);
    let counters = Counters::start(&old.address(), rng.number(), 500);
    let mut there = Link::new(&old, &new).start();
    wait_stream(&mut there);
    wait_more("operations", 300, || counters.acknowledged());
    let ledger = counters.stop();
    catch_up(&mut there, &old);
    there.terminate();
    assert_eq!(there.wait(LIMIT), 0, "{}", there.output());
    ledger.assert_at(&new.address());

    // The switch: from here on the application writes to the new server.
    let file = there.folder().join("shake.toml").display().to_string();
    let printed = run_file(&["reverse", &file], None);
    assert_eq!(printed.code, 0, "{}", printed.stderr);
    // The way back has the port after that of the way there.
    let port = format!("status_port = {}", there.status_port() + 1);
    let text = printed
        .stdout
        .replace(&port, &format!("status_port = {STATUS_PORT}"));
    assert!(text.contains(STATUS_PORT), "{text}");
    new.client().command(&argv!["DEL", "goes"]);
    new.client().command(&argv!["SET", "new", 1]);
    let counters = Counters::start(&new.address(), rng.number(), 500);
    let mut back = Daemon::start(&text);
    wait_stream(&mut back);
    back.restart();
    wait_stream(&mut back);
    wait_more("operations", 300, || counters.acknowledged());
    let ledger = counters.stop();
    catch_up(&mut back, &new);
    back.terminate();
    assert_eq!(back.wait(LIMIT), 0, "{}", back.output());
    ledger.assert_at(&old.address());
    oracle::assert_equal(&new.address(), &old.address());
}
