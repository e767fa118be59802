//! Set-ups that are wrong in one thing each: `understudy check` finds that one, says how it is mended, and fails for nothing else.

use std::any::Any;
use std::time::{Duration, Instant};

use e2e::checked::{Findings, check, expect};
use e2e::{Link, link_to_cluster, preload};
use testkit::{Client, Cluster, Engine, Server, ServerOptions, argv};

/// A link that is wrong, and what has to live as long as it is looked at.
type SetUp = (Link, Vec<Box<dyn Any>>);

/// What is wrong, and what is said of it.
struct Wrong {
    name: &'static str,
    make: fn() -> SetUp,
    check: &'static str,
    state: &'static str,
    what: &'static str,
    mend: &'static str,
}

fn with(engine: &str, words: &str) -> Server {
    Server::start(&Engine::of(engine), ServerOptions::args(words))
}

/// A sound source with a key.
fn source(engine: &str) -> Server {
    let source = with(engine, "--repl-backlog-size 128mb");
    source.client().command(&argv!["SET", "a", "b"]);
    source
}

fn between(source: Server, target: Server) -> SetUp {
    let link = Link::new(&source, &target);
    (link, vec![Box::new(source), Box::new(target)])
}

/// The same, with more said of the link.
fn saying((link, keep): SetUp, table: &'static str, lines: &[&str]) -> SetUp {
    let link = lines.iter().fold(link, |link, line| link.with(table, line));
    (link, keep)
}

fn with_user(server: &Server, rights: &str) {
    let mut setuser = argv!["ACL", "SETUSER", "low", "on", ">pw", "~*", "&*", "+@all"];
    setuser.extend(rights.split(' ').map(|right| right.as_bytes().to_vec()));
    server.client().command(&setuser);
}

const USER: [&str; 2] = ["username = \"low\"", "password = \"pw\""];
const LIBRARY: &str = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";

/// A source whose replicas are dropped by what is written while their snapshot is on its way.
fn small_output_buffer() -> SetUp {
    let source = source("redis-7.0");
    let limit = "replica 1kb 1kb 1";
    let set = argv!["CONFIG", "SET", "client-output-buffer-limit", limit];
    let mut client = source.client();
    client.command(&set);
    for n in 0..60 {
        client.command(&argv!["SET", format!("k{n}"), vec![b'x'; 1 << 20]]);
    }
    let address = source.address();
    std::thread::spawn(move || {
        let mut client = Client::connect(&address);
        let until = Instant::now() + Duration::from_secs(8);
        let write = argv!["SET", "w", vec![b'y'; 100_000]];
        // It ends with the source at the latest.
        while Instant::now() < until && client.try_command(&write).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    between(source, Server::of("redis-7.0"))
}

/// A target whose clock is ahead.
fn skewed() -> SetUp {
    let (folder, library) = preload("skew.c");
    let library = library.to_string_lossy().into_owned();
    let options = ServerOptions {
        args: Vec::new(),
        env: vec![
            ("LD_PRELOAD".to_owned(), library),
            ("SKEW_SECONDS".to_owned(), "90".to_owned()),
        ],
    };
    let target = Server::start(&Engine::of("redis-7.0"), options);
    let (link, mut keep) = between(source("redis-7.0"), target);
    keep.push(Box::new(folder));
    (link, keep)
}

const WRONG: &[Wrong] = &[
    Wrong {
        name: "PSYNC has another name",
        make: || {
            let renamed = with("redis-7.0", "--rename-command PSYNC hidden");
            let set_up = between(renamed, Server::of("redis-7.0"));
            saying(set_up, "sync_reader", &["on_psync_refused = \"fail\""])
        },
        check: "psync",
        state: "fail",
        what: "does not offer PSYNC",
        mend: "sync_reader.psync_command",
    },
    Wrong {
        name: "the user at the source may not PSYNC",
        make: || {
            let source = source("redis-7.2");
            with_user(&source, "-psync");
            let set_up = between(source, Server::of("redis-7.2"));
            let set_up = saying(set_up, "sync_reader", &["on_psync_refused = \"fail\""]);
            saying(set_up, "sync_reader", &USER)
        },
        check: "psync",
        state: "fail",
        what: "may not use it",
        mend: "+psync",
    },
    Wrong {
        name: "the user at the target may not do what a unit needs",
        make: || {
            let target = Server::of("redis-7.0");
            with_user(&target, "-watch");
            saying(between(source("redis-7.0"), target), "redis_writer", &USER)
        },
        check: "target_rights",
        state: "fail",
        what: "watch",
        mend: "~* +@write",
    },
    Wrong {
        name: "a command of ours is renamed at the target",
        make: || {
            let renamed = with("redis-7.0", "--rename-command RESTORE hidden");
            between(source("redis-7.0"), renamed)
        },
        check: "target_commands",
        state: "fail",
        what: "restore",
        mend: "rename-command",
    },
    Wrong {
        name: "the target is too small",
        make: || {
            let source = source("redis-7.0");
            let value = vec![b'x'; 30 << 20];
            source.client().command(&argv!["SET", "large", value]);
            between(source, with("redis-7.0", "--maxmemory 20mb"))
        },
        check: "memory",
        state: "fail",
        what: "does not fit",
        mend: "larger node",
    },
    Wrong {
        name: "the target evicts",
        make: || {
            let words = "--maxmemory 500mb --maxmemory-policy allkeys-lru";
            between(source("redis-7.0"), with("redis-7.0", words))
        },
        check: "eviction",
        // It would be a failure where the target is nearly full.
        state: "warn",
        what: "allkeys-lru",
        mend: "CONFIG SET maxmemory-policy \"noeviction\"",
    },
    Wrong {
        name: "the target holds keys",
        make: || {
            let target = Server::of("redis-7.0");
            target.client().command(&argv!["SET", "mine", 1]);
            between(source("redis-7.0"), target)
        },
        check: "target_empty",
        state: "fail",
        what: "holds 1 keys",
        mend: "existing_keys",
    },
    Wrong {
        name: "a database that a cluster does not have",
        make: || {
            let source = source("redis-7.0");
            let mut client = source.client();
            client.select(3);
            client.command(&argv!["SET", "a", 1]);
            let cluster = Cluster::start("redis-7.0", 3, 0);
            let link = link_to_cluster(&source, &cluster.address(0));
            (link, vec![Box::new(source), Box::new(cluster)])
        },
        check: "databases",
        state: "fail",
        what: "does not have database 3",
        mend: "redis_writer.db_map (\"prefix\")",
    },
    Wrong {
        name: "a database that a server does not have",
        make: || {
            let source = source("redis-7.0");
            let mut client = source.client();
            client.select(9);
            client.command(&argv!["SET", "a", 1]);
            between(source, with("redis-7.0", "--databases 2"))
        },
        check: "databases",
        state: "fail",
        what: "does not have database 9",
        mend: "set databases to 10",
    },
    Wrong {
        name: "a type that the target does not have",
        make: || {
            let source = source("redis-8.0");
            let add = argv!["VADD", "vectors", "VALUES", 2, "1.0", "2.0", "element"];
            source.client().command(&add);
            between(source, Server::of("redis-7.4"))
        },
        check: "modules",
        state: "fail",
        what: "vectorset",
        mend: "losses",
    },
    Wrong {
        name: "functions, and an older target",
        make: || {
            let source = source("redis-7.0");
            source.client().command(&argv!["FUNCTION", "LOAD", LIBRARY]);
            between(source, Server::of("redis-6.2"))
        },
        check: "functions",
        state: "fail",
        what: "1 libraries",
        mend: "filter.block_command",
    },
    Wrong {
        name: "commands that an older target does not have",
        make: || {
            let source = source("redis-6.2");
            source.client().command(&argv!["GETEX", "a"]);
            between(source, Server::of("redis-6.0"))
        },
        check: "commands",
        state: "warn",
        what: "getex",
        mend: "older words",
    },
    Wrong {
        name: "an output buffer that the snapshot is too long for",
        make: small_output_buffer,
        check: "output_buffer",
        state: "fail",
        what: "would drop us",
        mend: "CONFIG SET client-output-buffer-limit \"replica",
    },
    Wrong {
        name: "no keyspace events, and nothing but SCAN",
        make: || {
            let renamed = with("redis-7.0", "--rename-command PSYNC hidden");
            let (link, keep) = between(renamed, Server::of("redis-7.0"));
            (link.scanning().with("scan_reader", "ksn = true"), keep)
        },
        check: "source_events",
        state: "warn",
        what: "without Eg$lshzxet",
        mend: "CONFIG SET notify-keyspace-events \"KEA\"",
    },
    Wrong {
        name: "a spool that the snapshot does not fit",
        make: || {
            let source = source("redis-7.0");
            let value = vec![b'x'; 8 << 20];
            source.client().command(&argv!["SET", "large", value]);
            let set_up = between(source, Server::of("redis-7.0"));
            saying(set_up, "spool", &["max_bytes = \"1mb\""])
        },
        check: "disk",
        state: "fail",
        what: "spool.max_bytes",
        mend: "spool.max_bytes = \"",
    },
    Wrong {
        name: "clocks that are a minute and a half apart",
        make: skewed,
        check: "clock",
        state: "fail",
        what: "the target's clock is",
        mend: "NTP",
    },
];

#[track_caller]
fn look(wrong: &Wrong) {
    let (link, _keep) = (wrong.make)();
    let findings: Findings = check(&link);
    println!("{}: {:?}", wrong.name, findings.get(wrong.check));
    expect(&findings, wrong.check, wrong.state, wrong.what, wrong.mend);
    let others: Vec<&String> = findings
        .iter()
        .filter(|(check, [state, ..])| state == "fail" && *check != wrong.check)
        .map(|(check, _)| check)
        .collect();
    assert!(
        others.is_empty(),
        "{}: also {others:?}: {findings:#?}",
        wrong.name
    );
    // Whatever is not well has words for what is to be done.
    for (check, [state, _, mend]) in &findings {
        let is_well = state == "pass" || state == "unknown";
        assert!(
            is_well || !mend.is_empty(),
            "{}: no mend for {check}",
            wrong.name
        );
    }
}

/// Each of them by a test of its own, so that one does not hide the others.
macro_rules! wrong {
    ($($test:ident: $at:literal,)*) => {
        $(
            #[test]
            fn $test() {
                look(&WRONG[$at]);
            }
        )*

        #[test]
        fn every_row_has_a_test() {
            assert_eq!([$($at),*].into_iter().collect::<Vec<usize>>(), (0..WRONG.len()).collect::<Vec<usize>>());
        }
    };
}

wrong! {
    psync_that_is_renamed: 0,
    a_user_without_psync: 1,
    a_user_without_watch: 2,
    a_renamed_restore: 3,
    a_small_target: 4,
    a_target_that_evicts: 5,
    a_target_with_keys: 6,
    a_database_that_a_cluster_lacks: 7,
    a_database_that_a_server_lacks: 8,
    a_type_that_the_target_lacks: 9,
    functions_to_an_older_target: 10,
    commands_to_an_older_target: 11,
    a_small_output_buffer: 12,
    no_events_for_scan: 13,
    a_small_spool: 14,
    clocks_apart: 15,
}
