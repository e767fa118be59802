//! Streams for `fill`: everything that a stream can hold beside its entries.

use crate::argv;
use crate::client::Argv;
use crate::rng::Rng;
use crate::version::Version;
use crate::workload::values;

/// Commands that build one stream at `key`.
pub(super) fn build(rng: &mut Rng, version: &Version, key: &[u8], commands: &mut Vec<Argv>) {
    let count = *rng.pick(&[1, 3, 20, 150, 400]);
    let ids = add(rng, key, count, commands);
    for _ in 0..rng.below(4) {
        group(rng, version, key, &ids, commands);
    }
    delete(rng, key, &ids, commands);
    if rng.one_in(6) {
        commands.push(argv!["XTRIM", key, "MAXLEN", ids.len() / 2]);
    }
    if rng.one_in(6) {
        commands.push(argv!["XSETID", key, "9000000-7"]);
    }
}

/// Entries with ids of our own: dense, with gaps, with many in a millisecond; the same fields or others.
fn add(rng: &mut Rng, key: &[u8], count: u64, commands: &mut Vec<Argv>) -> Vec<String> {
    let mut ids = Vec::new();
    let (mut ms, mut sequence) = (rng.below(1000), 1);
    for _ in 0..count {
        match rng.below(3) {
            0 => sequence += 1 + rng.below(3),
            _ => (ms, sequence) = (ms + 1 + rng.below(5000), rng.below(3)),
        }
        let id = format!("{ms}-{sequence}");
        let mut argv = argv!["XADD", key, id];
        match rng.below(4) {
            0 => argv.extend(argv![values::member(rng, 50), values::string(rng), "", ""]),
            _ => argv.extend(argv![
                "temperature",
                values::number(rng),
                "place",
                values::string(rng)
            ]),
        }
        commands.push(argv);
        ids.push(id);
    }
    ids
}

/// A group that has delivered a part, with consumers who hold entries, hold none, and have never read.
fn group(rng: &mut Rng, version: &Version, key: &[u8], ids: &[String], commands: &mut Vec<Argv>) {
    let name = format!("group-{}", rng.below(6));
    let from = match rng.below(3) {
        0 => "$".to_owned(),
        1 => rng.pick(ids).clone(),
        _ => "0".to_owned(),
    };
    // A group of this name may be there already: then this one command fails and the rest goes to that group.
    commands.push(argv!["XGROUP", "CREATE", key, name, from]);
    for _ in 0..rng.within(1..5) {
        let consumer = format!("consumer-{}", rng.below(4));
        let count = rng.within(1..30);
        commands.push(argv![
            "XREADGROUP",
            "GROUP",
            name,
            consumer,
            "COUNT",
            count,
            "STREAMS",
            key,
            ">"
        ]);
    }
    for _ in 0..rng.below(8) {
        commands.push(argv!["XACK", key, name, rng.pick(ids)]);
    }
    if rng.one_in(2) {
        let time = 1_600_000_000_000 + rng.below(1_000_000_000);
        commands.push(argv![
            "XCLAIM",
            key,
            name,
            "claimer",
            0,
            rng.pick(ids),
            "TIME",
            time,
            "RETRYCOUNT",
            rng.below(20),
            "FORCE",
            "JUSTID"
        ]);
    }
    if version.redis(6, 2) && rng.one_in(2) {
        commands.push(argv!["XGROUP", "CREATECONSUMER", key, name, "idle"]);
    }
    if version.redis(7, 0) && rng.one_in(4) {
        commands.push(argv![
            "XGROUP",
            "SETID",
            key,
            name,
            rng.pick(ids),
            "ENTRIESREAD",
            rng.below(50)
        ]);
    }
}

/// Also entries that are pending somewhere; sometimes all of them.
fn delete(rng: &mut Rng, key: &[u8], ids: &[String], commands: &mut Vec<Argv>) {
    let all = rng.one_in(10);
    for id in ids {
        if all || rng.one_in(8) {
            commands.push(argv!["XDEL", key, id]);
        }
    }
}
