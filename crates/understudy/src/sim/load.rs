//! Who writes at the source: counters, growing texts and lists, pairs in transactions, keys that expire, in several
//! databases. No write can be lost or doubled without a trace.

use std::rc::Rc;

use bytes::Bytes;

use super::store::{Content, Store};
use super::world::{BEGIN_MS, World};

fn words(words: &[&[u8]]) -> Vec<Bytes> {
    words
        .iter()
        .map(|word| Bytes::copy_from_slice(word))
        .collect()
}

/// What the source holds in the beginning.
pub(super) fn first_store(keys: u64, with_expiries: bool) -> Store {
    let mut store = Store::default();
    for db in [0_u32, 3] {
        for n in 0..keys {
            let (counter, list) = (format!("counter:{n}"), format!("list:{n}"));
            let (text, value) = (format!("text:{n}"), "x".repeat((n * n * 17) as usize + 1));
            for argv in [
                words(&[b"INCRBY", counter.as_bytes(), b"100"]),
                words(&[b"RPUSH", list.as_bytes(), b"a", b"b"]),
                words(&[b"SET", text.as_bytes(), value.as_bytes()]),
            ] {
                store.execute(db, &argv, BEGIN_MS as i64);
            }
            if with_expiries {
                let at_ms = (BEGIN_MS + 2_000 + n * 9_000).to_string();
                let argv = words(&[b"PEXPIREAT", list.as_bytes(), at_ms.as_bytes()]);
                store.execute(db, &argv, BEGIN_MS as i64);
            }
        }
    }
    store.take_touched();
    store
}

/// Writes `left` times, with pauses of up to `gap_ms`.
pub(super) fn keep_writing(world: &Rc<World>, left: u64, gap_ms: u64, keys: u64, expiries: bool) {
    if left == 0 {
        return;
    }
    let pause = world.below(gap_ms + 1);
    world.then(pause, move |world| {
        if world.source.borrow().is_up() {
            write(world, keys, expiries);
        }
        keep_writing(world, left - 1, gap_ms, keys, expiries);
    });
}

/// What a master does of its own accord, for ever: it ends keys, and lets its replicas hear from it.
pub(super) fn keep_house(world: &Rc<World>, round: u64) {
    world.then(1_000, move |world| {
        let up = world.source.borrow().is_up();
        if up {
            expire_all(world);
        }
        if up && round % 10 == 9 {
            world.source.borrow_mut().control(&[b"PING"]);
        }
        keep_house(world, round + 1);
    });
}

fn expire_all(world: &World) {
    let now_ms = world.unix_ms() as i64;
    let source = &mut *world.source.borrow_mut();
    let expired: Vec<(u32, Vec<u8>)> = source
        .store
        .databases()
        .flat_map(|(db, keys)| keys.iter().map(move |(key, entry)| (db, key, entry)))
        .filter(|(_, _, entry)| entry.expires_ms.is_some_and(|at_ms| at_ms <= now_ms))
        .map(|(db, key, _)| (db, key.clone()))
        .collect();
    for (db, key) in expired {
        source.store.expire(db, &key, now_ms);
        source.propagate(db, &[words(&[b"DEL", &key])], false);
    }
}

fn is_there(world: &World, db: u32, key: &[u8]) -> bool {
    let (now_ms, source) = (world.unix_ms() as i64, world.source.borrow());
    let entry = source.store.entry(db, key);
    entry.is_some_and(|entry| entry.expires_ms.is_none_or(|at_ms| at_ms > now_ms))
}

/// Somebody else writes at the target: what the source does with these keys next fails there. Gives them.
pub(super) fn spoil(world: &World, db: u32, n: u64) -> [(u32, String); 2] {
    let (counter, list) = (format!("counter:{n}"), format!("list:{n}"));
    let target = &mut *world.target.borrow_mut();
    let text = Content::Text(b"spoilt".to_vec());
    target.write_of_others(world, db, list.as_bytes(), text);
    let items = Content::List(vec![b"spoilt".to_vec()]);
    target.write_of_others(world, db, counter.as_bytes(), items);
    [(db, counter), (db, list)]
}

/// Writes to keys that were spoilt.
pub(super) fn write_spoilt(world: &World, spoilt: &[(u32, String)]) {
    let now_ms = world.unix_ms() as i64;
    let source = &mut *world.source.borrow_mut();
    for (db, key) in spoilt {
        let (db, key) = (*db, key.as_bytes());
        source.end_expired(db, key, now_ms);
        let argv = match key.starts_with(b"list") {
            true => words(&[b"RPUSH", key, b"last"]),
            false => words(&[b"INCR", key]),
        };
        source.store.execute(db, &argv, now_ms);
        source.store.take_touched();
        source.propagate(db, &[argv], false);
    }
}

fn write(world: &World, keys: u64, expiries: bool) {
    let now_ms = world.unix_ms() as i64;
    let db = [0, 0, 0, 3, 7][world.below(5) as usize];
    let n = world.below(keys);
    let kinds = if expiries { 16 } else { 11 };
    let (counter, list, text) = (
        format!("counter:{n}"),
        format!("list:{n}"),
        format!("text:{n}"),
    );
    let (counter, list, text) = (counter.as_bytes(), list.as_bytes(), text.as_bytes());
    let unique = world.source.borrow().offset().to_string();
    let unique = unique.as_bytes();
    let soon = [5, 100, 2_000, 20_000, 700_000][world.below(5) as usize];
    let at_ms = (now_ms + world.below(soon) as i64 + 1).to_string();
    let at_ms = at_ms.as_bytes();
    let is_transaction = world.one_in(6);
    let commands: Vec<Vec<Bytes>> = match world.below(kinds) {
        _ if is_transaction => vec![
            words(&[b"INCR", b"left"]),
            words(&[b"SET", text, unique]),
            words(&[b"RPUSH", list, unique]),
            words(&[b"INCR", b"right"]),
        ],
        0..3 => vec![words(&[b"INCR", counter])],
        3 | 4 => vec![words(&[b"RPUSH", list, unique])],
        5 => vec![words(&[b"APPEND", text, unique])],
        6 | 7 => vec![words(&[b"SET", text, unique])],
        8 => vec![words(&[b"DEL", text])],
        9 if world.one_in(4) => vec![words(&[b"APPEND", text, &vec![b'y'; 900]])],
        9 => vec![words(&[b"LPOP", list])],
        10 if is_there(world, db, text) => {
            vec![words(&[b"RENAME", text, b"renamed"])]
        }
        11 => vec![words(&[b"SET", text, unique, b"PXAT", at_ms])],
        12 | 13 => vec![words(&[
            b"PEXPIREAT",
            *world.rng.borrow_mut().pick(&[counter, counter, list]),
            at_ms,
        ])],
        14 => vec![words(&[
            b"PERSIST",
            *world.rng.borrow_mut().pick(&[counter, list, text]),
        ])],
        _ => vec![words(&[b"INCRBY", counter, b"1000"])],
    };
    let source = &mut *world.source.borrow_mut();
    for key in [counter, list, text, b"renamed", b"left", b"right"] {
        source.end_expired(db, key, now_ms);
    }
    // What has no effect is not passed on.
    let mut effective = Vec::new();
    for argv in commands {
        let before = source.store.clone();
        let reply = source.store.execute(db, &argv, now_ms);
        assert!(reply.as_error().is_none(), "{argv:?} got {reply:?}");
        let key = &argv[1];
        if before.entry(db, key) != source.store.entry(db, key) {
            effective.push(argv);
        }
    }
    source.store.take_touched();
    if !effective.is_empty() {
        source.propagate(db, &effective, is_transaction);
    }
    if world.one_in(40) {
        source.control(&[b"REPLCONF", b"GETACK", b"*"]);
    }
}
