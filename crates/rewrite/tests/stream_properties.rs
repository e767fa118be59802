//! What holds for every command, however it is written.

mod common;

use bytes::Bytes;
use proptest::prelude::*;
use resp::encode;
use rewrite::{Abilities, Fork, Outcome, StreamOptions, StreamRewriter, Version, table};

/// Commands that no rule ever changes.
const VERBATIM: &[&str] = &[
    "append",
    "incr",
    "decrby",
    "incrbyfloat",
    "getset",
    "setrange",
    "setbit",
    "bitfield",
    "bitop",
    "mset",
    "del",
    "rename",
    "persist",
    "lpush",
    "rpoplpush",
    "lset",
    "ltrim",
    "sadd",
    "srem",
    "spop",
    "smove",
    "sinterstore",
    "zadd",
    "zincrby",
    "zunionstore",
    "hmset",
    "hincrby",
    "hdel",
    "xclaim",
    "xgroup",
    "xack",
    "pfadd",
    "pfmerge",
    "geoadd",
    "sort",
    "eval",
    "evalsha",
    "flushdb",
    "json.set",
    "bf.add",
    "anything",
];

const OPTION_WORDS: &[&str] = &[
    "EX",
    "px",
    "EXAT",
    "PXAT",
    "NX",
    "XX",
    "GT",
    "LT",
    "GET",
    "KEEPTTL",
    "IFEQ",
    "PERSIST",
    "FIELDS",
    "REPLACE",
    "ABSTTL",
    "IDLETIME",
    "FREQ",
    "DB",
    "STORE",
    "BY",
    "LIMIT",
    "STREAMS",
    "GROUP",
    "KEYS",
    "LOAD",
    "RESTORE",
    "FLUSH",
    "0",
    "1",
    "2",
    "3",
    "-1",
    "1700000000000",
    "9223372036854775807",
    "-9223372036854775808",
];

fn word() -> impl Strategy<Value = Vec<u8>> {
    let option = prop::sample::select(OPTION_WORDS).prop_map(|word| word.as_bytes().to_vec());
    prop_oneof![3 => option, 2 => prop::collection::vec(any::<u8>(), 0..40)]
}

fn argv(names: Vec<&'static str>) -> impl Strategy<Value = Vec<Vec<u8>>> {
    let name = prop::sample::select(names).prop_map(|name| name.as_bytes().to_vec());
    (name, prop::collection::vec(word(), 0..12)).prop_map(|(name, mut words)| {
        words.insert(0, name);
        words
    })
}

fn any_command() -> impl Strategy<Value = Vec<Vec<u8>>> {
    argv(
        table::all()
            .iter()
            .map(|command| command.name.split('|').next().unwrap_or(""))
            .collect(),
    )
}

fn frame(argv: &[Vec<u8>]) -> Vec<u8> {
    let argv: Vec<&[u8]> = argv.iter().map(Vec::as_slice).collect();
    let mut out = Vec::new();
    encode::command(&mut out, &argv);
    out
}

fn rewriter(version: Version) -> StreamRewriter {
    let mut options = StreamOptions::new(Abilities::from_version(Fork::Redis, version));
    options.checkpoint_key = Bytes::from_static(b"understudy:checkpoint");
    StreamRewriter::new(options)
}

const VERSIONS: &[Version] = &[
    Version::new(2, 8, 17),
    Version::new(4, 0, 0),
    Version::new(6, 0, 16),
    Version::new(8, 6, 3),
];

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_no_rule_changes_is_forwarded(argv in argv(VERBATIM.to_vec())) {
        let frame = frame(&argv);
        let mut out = Vec::new();
        let outcome = rewriter(VERSIONS[3]).command(&frame, &common::args(&frame), 1, &mut out);
        prop_assert!(matches!(outcome, Ok(Outcome::Forward { .. })), "{outcome:?}");
        prop_assert!(out.is_empty());
    }

    /// Only [`Outcome::Rewritten`] writes, as many commands as it says, all of them whole.
    #[test]
    fn outcomes_are_what_they_say(
        commands in prop::collection::vec(any_command(), 1..8),
        version in prop::sample::select(VERSIONS),
        clock in prop_oneof![Just(0), Just(1_700_000_000_000), any::<u64>()],
    ) {
        let mut rewriter = rewriter(version);
        for argv in commands {
            let frame = frame(&argv);
            let mut out = b"before".to_vec();
            let outcome = rewriter.command(&frame, &common::args(&frame), clock, &mut out);
            let out = out.strip_prefix(b"before").unwrap();
            match outcome {
                Ok(Outcome::Rewritten { commands, .. }) => {
                    prop_assert_eq!(common::frames(out).len(), commands as usize);
                }
                _ => prop_assert!(out.is_empty()),
            }
        }
    }

    /// What has been rewritten needs no rewriting: seen again (as by a chain of links) it stays as it is.
    #[test]
    fn rewriting_twice_is_rewriting_once(
        argv in any_command().prop_filter("takes the checkpoint along", |argv| argv[0] != b"swapdb"),
        version in prop::sample::select(VERSIONS),
    ) {
        let frame = frame(&argv);
        let mut once = Vec::new();
        let _ = rewriter(version).command(&frame, &common::args(&frame), 1_700_000_000_000, &mut once);
        let mut again = Vec::new();
        let mut second = rewriter(version);
        for frame in common::frames(&once) {
            let at = 1_800_000_000_000;
            match second.command(frame, &common::args(frame), at, &mut again) {
                Ok(Outcome::Rewritten { .. }) => {}
                // A target before 3.0 has no REPLACE, so that a DEL goes before each RESTORE.
                Ok(Outcome::Forward { .. }) => again.extend_from_slice(frame),
                other => prop_assert!(false, "{other:?}"),
            }
        }
        if argv[0].to_ascii_lowercase().starts_with(b"restore") && !again.is_empty() && version < VERSIONS[2] {
            return Ok(());
        }
        prop_assert_eq!(common::text(&once), common::text(&again));
    }
}
