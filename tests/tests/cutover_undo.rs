//! What a switch-over leaves, and how it is taken back: late writes, rights, the way back, and a switch of which nobody knows
//! whether it was made.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use e2e::cutover::{cutover, link, may_write, our_keys, shown, way_back};
use e2e::{LIMIT, catch_up, source_of, wait_stream};
use testkit::client::text;
use testkit::process::wait_until;
use testkit::{Daemon, Server, argv};

#[test]
fn late_writes_are_counted_the_same_by_a_daemon_that_was_started_again() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut client = source.client();
    for number in 0..5 {
        client.command(&argv!["SET", format!("short:{number}"), 1, "PX", 1]);
        client.command(&argv!["SET", format!("cart:{number}"), 1]);
    }
    wait_until("keys to expire", LIMIT, || {
        client.info_number("stats", "expired_keys") == 5
    });
    let mut daemon = link(&source, &target)
        .with("cutover", "seal = false")
        .start();
    wait_stream(&mut daemon);
    assert_eq!(daemon.metric("understudy_switched"), Some(0.0));
    cutover(&daemon, &["--yes", "--watch", "0s"]).assert_ok();
    assert_eq!(daemon.metric("understudy_switched"), Some(1.0));
    for number in 0..3 {
        client.command(&argv!["DEL", format!("cart:{number}")]);
    }
    // One more key ends by itself, in a client's transaction.
    client.command(&argv!["SET", "later:1", 1, "PX", 1]);
    std::thread::sleep(Duration::from_millis(5));
    client.commands(&[
        argv!["MULTI"],
        argv!["GET", "later:1"],
        argv!["INCR", "count:1"],
        argv!["EXEC"],
    ]);
    let is_right = |daemon: &Daemon| {
        let late = &shown(daemon)["late_writes"];
        late["total"] == 5 && late["expired"] == 1 && late["by_prefix"]["count:"] == 1
    };
    daemon.wait_for("what is late", LIMIT, is_right);
    daemon.restart();
    daemon.wait_for("the same after a start", LIMIT, is_right);
    // Nor is it otherwise a while later, when the clients were looked at.
    std::thread::sleep(Duration::from_secs(2));
    assert!(is_right(&daemon), "{}", shown(&daemon));
}

#[test]
fn who_keeps_the_right_to_write_is_named_at_the_gate() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    let mut admin = source.client();
    for (user, rights) in [("batch", "+set"), ("viewer", "+@read"), ("gone", "+@all")] {
        let state = if user == "gone" { "off" } else { "on" };
        admin.command(&argv![
            "ACL", "SETUSER", user, state, ">x", "~*", "-@all", rights
        ]);
    }
    let mut daemon = link(&source, &target)
        .with(
            "cutover",
            "acl_keep = [\"batch\", \"viewer\", \"gone\", \"nobody\"]",
        )
        .start();
    wait_stream(&mut daemon);
    for fence in ["acl", "pause"] {
        let args = ["--check", "--fence", fence, "--compare", "none"];
        let done = cutover(&daemon, &args).assert_ok();
        let mut gate = done.steps.iter();
        let fence = gate.find(|step| step["check"] == "fence").expect("a fence");
        let told = fence["text"].as_str().unwrap_or_default();
        let named = told.split(": ").last().unwrap_or_default();
        assert!(
            told.contains("keep the right") && named == "batch",
            "{done}"
        );
    }
}

/// Between a client and a server; it lets the transaction that is the switch through, and nothing after it.
struct Trap {
    address: String,
    is_shut: Arc<AtomicBool>,
}

impl Trap {
    fn before(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (is_shut, upstream) = (Arc::new(AtomicBool::new(false)), server.address());
        let shut = is_shut.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !shut.load(Ordering::SeqCst)
                    && let Ok(server) = TcpStream::connect(&upstream)
                {
                    pass(&client, &server, &shut, true);
                    pass(&server, &client, &shut, false);
                }
            }
        });
        Self { address, is_shut }
    }
}

/// Passes on what comes from one to the other, until it is the switch.
fn pass(from: &TcpStream, to: &TcpStream, is_shut: &Arc<AtomicBool>, is_request: bool) {
    let clone = |stream: &TcpStream| stream.try_clone().expect("a socket");
    let (mut from, mut to, is_shut) = (clone(from), clone(to), is_shut.clone());
    from.set_read_timeout(Some(Duration::from_millis(50)))
        .expect("set a limit");
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while !is_shut.load(Ordering::SeqCst) {
            let count = match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(_) => break,
            };
            if is_shut.load(Ordering::SeqCst) {
                break;
            }
            let bytes = &buffer[..count];
            let switch = b"\"stage\":\"go\"";
            if is_request && bytes.windows(switch.len()).any(|window| window == switch) {
                is_shut.store(true, Ordering::SeqCst);
            }
            if to.write_all(bytes).is_err() {
                break;
            }
        }
        // Gone already is as good.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    });
}

#[test]
fn a_switch_of_which_nobody_knows_whether_it_was_made_is_not_taken_back() {
    let (source, target) = (source_of("redis-7.0"), Server::of("redis-7.0"));
    source.client().command(&argv!["SET", "a", 1]);
    let trap = Trap::before(&target);
    let mut daemon = link(&source, &target).target(&trap.address).start();
    wait_stream(&mut daemon);
    let done = cutover(&daemon, &["--yes"]);
    assert_eq!(done.code, 1, "{done}");
    assert!(done.has("unknown") && !done.has("undone"), "{done}");
    // It was made, and nothing was opened again meanwhile.
    let record = format!("{:?}", our_keys(&target));
    assert!(record.contains(":cutover"), "{record}");
    assert!(!may_write(&source));
    assert_ne!(shown(&daemon)["stage"], "replicating");
    let undone = cutover(&daemon, &["--undo"]);
    assert_eq!(undone.code, 1, "{undone}");
    assert!(
        undone
            .to_string()
            .contains("cannot tell whether the switch"),
        "{undone}"
    );
    trap.is_shut.store(false, Ordering::SeqCst);
    daemon.wait_for("the switch to be known", LIMIT, |daemon| {
        shown(daemon)["stage"] == "go"
    });
    let undone = cutover(&daemon, &["--undo"]);
    assert_eq!(undone.code, 1, "{undone}");
    assert!(
        undone.to_string().contains("the switch has been made"),
        "{undone}"
    );
}

#[test]
fn an_undone_switch_leaves_no_way_back() {
    let (old, new) = (source_of("redis-7.0"), source_of("redis-7.0"));
    old.client().command(&argv![
        "ACL", "SETUSER", "mover", "on", ">pw", "~*", "&*", "+@all"
    ]);
    let mut there = link(&old, &new)
        .with("sync_reader", "username = \"mover\"\npassword = \"pw\"")
        .start();
    wait_stream(&mut there);
    let args = ["--yes", "--reverse", "--compare", "none", "--watch", "0s"];
    cutover(&there, &args).assert_ok();
    assert_eq!(our_keys(&old).len(), 1, "the checkpoint of the way back");
    cutover(&there, &["--undo", "--force"]).assert_ok();
    assert_eq!(our_keys(&old), Vec::<String>::new());
    old.client().command(&argv!["SET", "b", 2]);
    catch_up(&mut there, &old);
    assert_eq!(text(&new.client().command(&argv!["GET", "b"])), "2");
    // Nobody can begin there any more.
    let mut back = way_back(&there);
    back.spawn();
    assert_ne!(back.wait(LIMIT), 0, "{}", back.output());
    assert!(
        back.output().contains("no place was noted"),
        "{}",
        back.output()
    );
}
