//! Reads the whole state of keys, a batch in a few round trips.

use std::collections::{BTreeMap, BTreeSet};

use redis::Value;

use super::Side;
use super::stream::{self, StreamState};
use crate::argv;
use crate::client::{Argv, Error, bytes, items, number, text};

/// More members than a vector set of a test has.
const VECTORS_MAX: u64 = 10_000;

/// A key as clients can see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyState {
    /// What TYPE says; `none` if there is no key.
    pub kind: String,
    /// When it dies.
    pub expiry: Expiry,
    /// What is in it.
    pub content: Content,
}

/// When a key dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expiry {
    /// Unix time in milliseconds.
    pub at_ms: Option<i64>,
    /// How far off `at_ms` may be.
    pub unsure_ms: i64,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// No key.
    None,
    /// A string.
    Text(Vec<u8>),
    /// A list, in order.
    List(Vec<Vec<u8>>),
    /// A set.
    Set(BTreeSet<Vec<u8>>),
    /// Scores as the bits of a double.
    Zset(BTreeMap<Vec<u8>, u64>),
    /// Value and time of death by field.
    Hash(BTreeMap<Vec<u8>, (Vec<u8>, Option<i64>)>),
    /// A stream.
    Stream(Box<StreamState>),
    /// Indexes and values of an array in turn, and where the next value would be inserted.
    Array(Vec<Vec<u8>>, Option<i64>),
    /// Anything else: its DUMP without version and checksum.
    Dump(Vec<u8>),
}

/// The states of `keys` in the selected db, in their order.
pub(super) fn keys(side: &mut Side, keys: &[Vec<u8>]) -> Vec<KeyState> {
    let types: Vec<Argv> = keys.iter().map(|key| argv!["TYPE", key]).collect();
    let kinds: Vec<String> = side.client.commands(&types).iter().map(text).collect();
    let expiries = expiries(side, keys);
    let contents = contents(side, keys, &kinds);
    let states = kinds.into_iter().zip(expiries).zip(contents);
    states
        .map(|((kind, expiry), content)| KeyState {
            kind,
            expiry,
            content,
        })
        .collect()
}

fn expiries(side: &mut Side, keys: &[Vec<u8>]) -> Vec<Expiry> {
    let exact = side.version.redis(7, 0);
    let word = if exact { "PEXPIRETIME" } else { "PTTL" };
    let mut asked = vec![argv!["TIME"]];
    asked.extend(keys.iter().map(|key| argv![word, key]));
    asked.push(argv!["TIME"]);
    let replies = side.client.commands(&asked);
    let (before, after) = (time_ms(&replies[0]), time_ms(&replies[replies.len() - 1]));
    let (base, unsure_ms) = if exact {
        (0, 0)
    } else {
        (before, after - before + 2)
    };
    let told = replies[1..=keys.len()]
        .iter()
        .map(|reply| number(reply).filter(|left| *left >= 0));
    told.map(|left| Expiry {
        at_ms: left.map(|left| base + left),
        unsure_ms,
    })
    .collect()
}

fn time_ms(reply: &Value) -> i64 {
    let parts: Vec<i64> = items(reply.clone()).iter().filter_map(number).collect();
    parts.first().unwrap_or(&0) * 1000 + parts.get(1).unwrap_or(&0) / 1000
}

fn contents(side: &mut Side, keys: &[Vec<u8>], kinds: &[String]) -> Vec<Content> {
    let asked: Vec<Argv> = keys
        .iter()
        .zip(kinds)
        .map(|(key, kind)| reading(key, kind))
        .collect();
    let (replies, error) = side.client.pipeline(&asked);
    if let Some(error) = error {
        panic!("{}: {error}", side.client.address());
    }
    let mut contents = Vec::with_capacity(keys.len());
    for ((key, kind), reply) in keys.iter().zip(kinds).zip(replies) {
        // A key that has died or changed since TYPE answers with an error or nothing: read again in the next round.
        contents.push(reply.map_or(Content::None, |reply| content(side, key, kind, reply)));
    }
    contents
}

fn reading(key: &[u8], kind: &str) -> Argv {
    match kind {
        "none" => argv!["PING"],
        "string" => argv!["GET", key],
        "list" => argv!["LRANGE", key, 0, -1],
        "set" => argv!["SMEMBERS", key],
        "zset" => argv!["ZRANGE", key, 0, -1, "WITHSCORES"],
        "hash" => argv!["HGETALL", key],
        "stream" => argv!["XRANGE", key, "-", "+"],
        // The largest index there is.
        "array" => argv!["ARSCAN", key, 0, u64::MAX - 1],
        "vectorset" => argv!["VRANDMEMBER", key, VECTORS_MAX],
        _ => argv!["DUMP", key],
    }
}

fn content(side: &mut Side, key: &[u8], kind: &str, reply: Value) -> Content {
    match kind {
        "none" => Content::None,
        "string" => Content::Text(bytes(reply)),
        "list" => Content::List(items(reply).into_iter().map(bytes).collect()),
        "set" => Content::Set(items(reply).into_iter().map(bytes).collect()),
        "zset" => Content::Zset(
            pairs(reply)
                .map(|(member, score)| (member, bits(&score)))
                .collect(),
        ),
        "hash" => hash(side, key, pairs(reply).collect()),
        "stream" => match stream::read(side, key, reply) {
            Ok(stream) => Content::Stream(Box::new(stream)),
            Err(Error::Reply(_)) => Content::None,
            Err(error) => panic!("{}: {error}", side.client.address()),
        },
        "array" => array(side, key, reply),
        "vectorset" => vectors(side, key, reply),
        // The footer is version (2 bytes) and checksum (8), and differs between servers that write the same value.
        _ => Content::Dump(without_footer(bytes(reply))),
    }
}

/// Members with their vectors to the bit and their attributes, as a hash: the graph between them is made by chance.
fn vectors(side: &mut Side, key: &[u8], reply: Value) -> Content {
    let members: BTreeSet<Vec<u8>> = items(reply).into_iter().map(bytes).collect();
    let asked: Vec<Argv> = members
        .iter()
        .flat_map(|member| {
            [
                argv!["VEMB", key, member, "RAW"],
                argv!["VGETATTR", key, member],
            ]
        })
        .collect();
    let mut told = side.client.commands(&asked).into_iter();
    let vectors = members.into_iter().map(|member| {
        let vector = told.next().map(items).unwrap_or_default();
        let attributes = told.next().map(bytes).unwrap_or_default();
        // Kind and bytes; then length and range, which not every server prints in the same digits.
        let words = vector.into_iter().map(bytes).enumerate();
        let mut words: Vec<Vec<u8>> = words
            .map(|(place, word)| match place {
                0 | 1 => word,
                _ => bits(&word).to_string().into_bytes(),
            })
            .collect();
        words.push(attributes);
        (member, (words.join(&b' '), None))
    });
    Content::Hash(vectors.collect())
}

fn array(side: &mut Side, key: &[u8], reply: Value) -> Content {
    let next = side.client.try_command(&argv!["ARNEXT", key]);
    let values = items(reply).into_iter().flat_map(|item| match item {
        Value::Array(pair) => pair,
        single => vec![single],
    });
    let next = next.ok().as_ref().and_then(number);
    Content::Array(values.map(bytes).collect(), next)
}

fn without_footer(mut dump: Vec<u8>) -> Vec<u8> {
    dump.truncate(dump.len().saturating_sub(10));
    dump
}

fn pairs(reply: Value) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    let mut words = items(reply).into_iter().map(bytes);
    std::iter::from_fn(move || words.next().zip(words.next()))
}

/// The server prints 17 digits, which name every double; not a number stays apart from all numbers.
fn bits(score: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(score);
    text.parse().map_or(u64::MAX, f64::to_bits)
}

fn hash(side: &mut Side, key: &[u8], pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Content {
    let mut deaths = vec![None; pairs.len()];
    if side.version.has_field_ttl() && !pairs.is_empty() {
        let mut asked = argv!["HPEXPIRETIME", key, "FIELDS", pairs.len()];
        asked.extend(pairs.iter().map(|(field, _)| field.clone()));
        let told = side
            .client
            .try_command(&asked)
            .map(items)
            .unwrap_or_default();
        for (death, told) in deaths.iter_mut().zip(told) {
            *death = number(&told).filter(|at_ms| *at_ms >= 0);
        }
    }
    let fields = pairs.into_iter().zip(deaths);
    Content::Hash(
        fields
            .map(|((field, value), death)| (field, (value, death)))
            .collect(),
    )
}
