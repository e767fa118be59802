//! Commands of a stream -> commands for the target, as a golden file.
//!
//! `stream.golden`: a line `[options]` begins a case with a new rewriter; each further line is a command, ` => `, and
//! what becomes of it: `=` the same bytes, `-reason` dropped, `!error`, else the new commands. The clock of the source
//! stands at 1,000,000 ms. `UPDATE_EXPECT=1` writes the right sides anew.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use expect_test::expect_file;
use rewrite::{
    Abilities, Databases, Db, Filter, FilterRules, Fork, LeaseRule, Losses, Outcome, Publish,
    StreamOptions, StreamRewriter,
};

const NOW_MS: u64 = 1_000_000;

#[test]
fn golden() {
    let golden = include_str!("stream.golden");
    let mut rewriter = StreamRewriter::new(options(""));
    let mut actual = String::new();
    for line in golden.lines() {
        if let Some(case) = line.strip_prefix('[') {
            rewriter = StreamRewriter::new(options(case.trim_end_matches(']')));
            rewriter.set_lease(lease(case.trim_end_matches(']')));
        }
        if line.is_empty() || line.starts_with(['#', '[']) {
            actual += &format!("{line}\n");
            continue;
        }
        let words = line.split(" => ").next().unwrap_or_default().trim_end();
        actual += &format!("{words} => {}\n", outcome(&mut rewriter, words));
    }
    expect_file!["stream.golden"].assert_eq(&actual);
}

fn outcome(rewriter: &mut StreamRewriter, words: &str) -> String {
    let frame = common::frame(words);
    let mut out = Vec::new();
    let outcome = rewriter.command(&frame, &common::args(&frame), NOW_MS, &mut out);
    let text = common::text(&out);
    match outcome {
        Ok(Outcome::Rewritten { commands, .. }) => {
            assert_eq!(text.split(" ; ").count(), commands as usize, "{text}");
            return text;
        }
        _ => assert_eq!(text, "", "only a rewritten command writes"),
    }
    match outcome {
        Ok(Outcome::Forward { .. }) => "=".into(),
        Ok(Outcome::Dropped(reason)) => format!("-{}", reason.label()),
        Ok(Outcome::Select(db)) => format!("(db {})", db.0),
        Ok(Outcome::Multi) => "(multi)".into(),
        Ok(Outcome::Exec) => "(exec)".into(),
        Ok(Outcome::Discard) => "(discard)".into(),
        Ok(Outcome::Rewritten { .. }) => unreachable!("seen above"),
        Err(error) => format!("!{error}"),
    }
}

/// `lease 1700000000000`: what expires before gets a longer life.
fn lease(case: &str) -> Option<LeaseRule> {
    let before_ms = case
        .split("; ")
        .find_map(|part| part.strip_prefix("lease "))?;
    Some(LeaseRule {
        before_ms: before_ms.parse().unwrap(),
        add_ms: 7_000_000,
    })
}

/// `redis 6.0.16; allow_db 0 1; publish`
fn options(case: &str) -> StreamOptions {
    let target = |fork, version: &str| Abilities::from_version(fork, version.parse().unwrap());
    let mut options = StreamOptions::new(target(Fork::Redis, "7.0.15"));
    options.checkpoint_key = Bytes::from_static(b"understudy:checkpoint");
    options.databases = Databases::AtLeast(4);
    let mut rules = FilterRules::default();
    for part in case
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (name, rest) = part.split_once(' ').unwrap_or((part, ""));
        let words = || rest.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let dbs = || rest.split(' ').map(|db| db.parse().unwrap()).collect();
        match name {
            "redis" => options.target = target(Fork::Redis, rest),
            "valkey" => options.target = target(Fork::Valkey, rest),
            "databases" => {
                let dbs: Vec<u32> = dbs();
                options.databases = Databases::These(dbs.into_iter().map(Db).collect());
            }
            "publish" => options.publish = Publish::Forward,
            "without" => {
                let known = rewrite::table::all()
                    .iter()
                    .map(|command| command.name.to_string());
                let known = known.filter(|name| !words().contains(name));
                options.target.commands = Some(Arc::new(known.collect()));
            }
            "field_lease" => {
                options.field_lease = Some(LeaseRule {
                    before_ms: rest.parse().unwrap(),
                    add_ms: 7_000_000,
                });
            }
            "lease" => {}
            "source" => options.source_version = Some(rest.parse().unwrap()),
            "losses" => options.losses = Losses::Allow,
            "conditions_stay" => options.conditions_stay = true,
            "no_checkpoint" => options.checkpoint_key = Bytes::new(),
            "db" => options.start_db = Db(rest.parse().unwrap()),
            "allow_db" => rules.allow_db = dbs(),
            "block_db" => rules.block_db = dbs(),
            "allow_key_prefix" => rules.allow_key_prefix = words(),
            "block_keys" => rules.block_keys = words(),
            "allow_command" => rules.allow_command = words(),
            "block_command" => rules.block_command = words(),
            "allow_command_group" => {
                rules.allow_command_group =
                    words().iter().map(|name| name.parse().unwrap()).collect();
            }
            "block_command_group" => {
                rules.block_command_group =
                    words().iter().map(|name| name.parse().unwrap()).collect();
            }
            _ => panic!("{part}: no such option"),
        }
    }
    options.filter = Filter::new(rules).unwrap();
    options
}
