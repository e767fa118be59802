//! The writer's commands: units of one or a few, drawn by weight from families that the server's version knows.
//!
//! A key's name says its type, so that hardly any command meets the wrong one.

use redis::Value;

use crate::argv;
use crate::client::{Argv, Client, bytes, items};
use crate::rng::Rng;
use crate::version::Version;
use crate::workload::values::{member, number, place, score, string};
use crate::workload::{DBS, SCRATCH_DB};

/// Entry ids that are remembered for XACK and its kin.
const IDS_MAX: usize = 400;

fn create_group(key: u64) -> Argv {
    argv![
        "XGROUP",
        "CREATE",
        format!("w:stream:{key}"),
        "g0",
        "0",
        "MKSTREAM"
    ]
}

/// Draws commands.
pub(super) struct Generator {
    rng: Rng,
    version: Version,
    ids: Vec<(Vec<u8>, Vec<u8>)>,
    dump: Vec<u8>,
    /// Db 0 alone.
    one_db: bool,
}

/// A family: how often, since when, and what it does.
type Family = (u64, fn(&Version) -> bool, fn(&mut Generator) -> Vec<Argv>);

fn always(_: &Version) -> bool {
    true
}

const FAMILIES: &[Family] = &[
    (12, always, Generator::set),
    (8, always, Generator::string_edits),
    (6, always, Generator::counters),
    (8, always, Generator::expiries),
    (10, always, Generator::lists),
    (8, always, Generator::sets),
    (4, always, Generator::set_stores),
    (10, always, Generator::zsets),
    (4, always, Generator::zset_stores),
    (10, always, Generator::hashes),
    (6, Version::has_field_ttl, Generator::field_expiries),
    (14, |version| version.redis(5, 0), Generator::streams),
    (10, |version| version.redis(5, 0), Generator::stream_groups),
    (3, always, Generator::bits),
    (3, always, Generator::hyperloglogs),
    (3, always, Generator::geo),
    (5, always, Generator::keys),
    (6, always, Generator::transaction),
    (4, always, Generator::script),
    (2, Version::has_functions, Generator::function),
    (3, always, Generator::dbs),
    (2, always, Generator::blocked),
    (1, always, Generator::other),
];

impl Generator {
    pub(super) fn new(seed: u64, version: Version, one_db: bool) -> Self {
        Self {
            rng: Rng::new(seed),
            version,
            ids: Vec::new(),
            dump: Vec::new(),
            one_db,
        }
    }

    /// What a fresh connection needs: the groups that are read from, and a payload for RESTORE.
    pub(super) fn prepare(&mut self, client: &mut Client) {
        let mut commands = Vec::new();
        let dbs: &[u32] = if self.one_db { &[0] } else { &DBS };
        for db in dbs {
            commands.push(argv!["SELECT", db]);
            commands.extend((0..4).map(create_group));
        }
        if !self.one_db {
            commands.push(argv!["SELECT", SCRATCH_DB]);
        }
        commands.push(argv!["RPUSH", "w:dumped", 1, "two", "3.5", "x".repeat(100)]);
        commands.push(argv!["DUMP", "w:dumped"]);
        commands.push(argv!["SELECT", 0]);
        // Groups may be there already, and the server may go away: both are for the caller's loop to meet again.
        let (results, _) = client.pipeline(&commands);
        if let Some(Ok(dump)) = results.into_iter().rev().nth(1) {
            self.dump = bytes(dump);
        }
    }

    /// One or a few commands that belong together.
    pub(super) fn unit(&mut self) -> Vec<Argv> {
        let mut unit = self.any_unit();
        if self.one_db {
            let flushes = self.rng.one_in(15);
            unit.retain(|argv| {
                let is = |word: &str| argv[0].eq_ignore_ascii_case(word.as_bytes());
                let names_db = argv.iter().any(|word| word == b"DB");
                let is_of_dbs = is("SELECT") || is("MOVE") || is("SWAPDB");
                !(is_of_dbs || is("COPY") && names_db) && (flushes || !is("FLUSHDB"))
            });
        }
        unit
    }

    fn any_unit(&mut self) -> Vec<Argv> {
        let version = self.version;
        let known = || FAMILIES.iter().filter(|(_, since, _)| since(&version));
        let mut left = self.rng.below(known().map(|(weight, ..)| weight).sum());
        for (weight, _, family) in known() {
            if left < *weight {
                return family(self);
            }
            left -= weight;
        }
        Vec::new()
    }

    /// Remembers entry ids out of replies.
    pub(super) fn saw(&mut self, argv: &[Vec<u8>], reply: Value) {
        match argv[0].as_slice() {
            b"XADD" => self.remember(argv[1].clone(), bytes(reply)),
            b"XREADGROUP" => {
                for stream in items(reply) {
                    let mut parts = items(stream).into_iter();
                    let key = parts.next().map(bytes).unwrap_or_default();
                    for entry in parts.next().map(items).unwrap_or_default() {
                        let id = items(entry).into_iter().next().map(bytes);
                        self.remember(key.clone(), id.unwrap_or_default());
                    }
                }
            }
            _ => {}
        }
    }

    fn remember(&mut self, key: Vec<u8>, id: Vec<u8>) {
        // Inside MULTI the reply is QUEUED.
        if id.contains(&b'-') {
            if self.ids.len() >= IDS_MAX {
                let at = self.rng.below(IDS_MAX as u64) as usize;
                self.ids.swap_remove(at);
            }
            self.ids.push((key, id));
        }
    }

    fn key(&mut self, kind: &str) -> String {
        let of = match kind {
            "str" | "num" => 200,
            "blocked" | "stream" => 4,
            _ => 24,
        };
        format!("w:{kind}:{}", self.rng.below(of))
    }

    fn value(&mut self) -> Vec<u8> {
        string(&mut self.rng)
    }

    fn member(&mut self) -> Vec<u8> {
        member(&mut self.rng, 300)
    }

    /// Milliseconds to live: some so short that they end during the test, most so long that they never do. In between is
    /// what docs/operations.md excepts: an expiry that is minutes away, and runs out in an outage in which it was moved.
    fn ttl_ms(&mut self) -> u64 {
        if self.rng.one_in(3) {
            self.rng.within(1..3000)
        } else {
            self.rng.within(3_600_000..90_000_000)
        }
    }

    fn at_ms(&mut self) -> u64 {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |now| now.as_millis() as u64) + self.ttl_ms()
    }

    fn set(&mut self) -> Vec<Argv> {
        let (key, value, ttl) = (self.key("str"), self.value(), self.ttl_ms());
        vec![match self.rng.below(16) {
            0 => argv!["SETEX", key, ttl / 1000 + 1, value],
            1 => argv!["PSETEX", key, ttl, value],
            2 => argv!["SET", key, value, "PX", ttl],
            3 => argv!["SET", key, value, "EX", ttl / 1000 + 1, "XX"],
            4 => argv!["SET", key, value, "NX"],
            5 => argv!["SETNX", key, value],
            6 => argv![
                "MSET",
                key,
                value,
                self.key("str"),
                self.value(),
                self.key("str"),
                "same"
            ],
            7 => argv!["MSETNX", key, value, self.key("str"), "unless"],
            8 => argv!["GETSET", key, value],
            9 if self.version.redis(6, 0) => argv!["SET", key, value, "KEEPTTL"],
            10 if self.version.redis(6, 2) => argv!["SET", key, value, "PXAT", self.at_ms()],
            11 if self.version.redis(6, 2) => {
                argv!["SET", key, value, "EXAT", self.at_ms() / 1000 + 1, "GET"]
            }
            12 if self.version.redis(8, 4) => {
                argv!["MSETEX", 2, key, value, self.key("str"), "v", "PX", ttl]
            }
            13 if self.version.valkey(9, 0) => argv!["DELIFEQ", key, value],
            14 if self.version.redis(7, 0) => argv!["SET", key, value, "NX", "GET"],
            _ => argv!["SET", key, value],
        }]
    }

    fn string_edits(&mut self) -> Vec<Argv> {
        let key = self.key("str");
        vec![match self.rng.below(6) {
            0 => argv!["SETRANGE", key, self.rng.below(3000), self.value()],
            1 if self.version.redis(6, 2) => argv!["GETDEL", key],
            2 if self.version.redis(6, 2) => match self.rng.below(4) {
                0 => argv!["GETEX", key, "PERSIST"],
                1 => argv!["GETEX", key, "PXAT", self.at_ms()],
                2 => argv!["GETEX", key, "EX", self.ttl_ms() / 1000 + 1],
                _ => argv!["GETEX", key],
            },
            3 => argv!["GET", key],
            _ => argv!["APPEND", self.key("log"), self.member()],
        }]
    }

    fn counters(&mut self) -> Vec<Argv> {
        let key = self.key("num");
        vec![match self.rng.below(6) {
            0 => argv!["INCRBY", key, self.rng.below(1000)],
            1 => argv!["DECRBY", key, self.rng.below(1000)],
            2 => argv!["DECR", key],
            3 => argv!["INCRBYFLOAT", self.key("float"), "0.1"],
            4 => argv!["SET", key, 7],
            _ => argv!["INCR", key],
        }]
    }

    fn expiries(&mut self) -> Vec<Argv> {
        let kind = *self
            .rng
            .pick(&["str", "num", "list", "set", "zset", "hash"]);
        let (key, ttl, at) = (self.key(kind), self.ttl_ms(), self.at_ms());
        let condition = *self.rng.pick(&["NX", "XX", "GT", "LT"]);
        vec![match self.rng.below(9) {
            0 => argv!["EXPIRE", key, ttl / 1000 + 1],
            1 => argv!["PEXPIRE", key, ttl],
            2 => argv!["EXPIREAT", key, at / 1000 + 1],
            3 => argv!["PEXPIREAT", key, at],
            4 | 5 if self.version.redis(7, 0) => argv!["PEXPIRE", key, ttl, condition],
            6 if self.version.redis(7, 0) => argv!["EXPIREAT", key, at / 1000, condition],
            // Already over: the server deletes the key.
            7 if self.rng.one_in(4) => argv!["PEXPIREAT", key, 1],
            _ => argv!["PERSIST", key],
        }]
    }

    fn lists(&mut self) -> Vec<Argv> {
        let key = self.key("list");
        let side = *self.rng.pick(&["LEFT", "RIGHT"]);
        vec![match self.rng.below(16) {
            0 => argv!["LPUSH", key, self.value(), number(&mut self.rng)],
            1 => argv!["LPUSHX", key, self.value()],
            2 => argv!["RPUSHX", key, self.value()],
            3 => argv!["LPOP", key],
            4 => argv!["RPOP", key],
            5 => argv!["LTRIM", key, self.rng.below(3), 200],
            6 => argv!["LSET", key, self.rng.below(5), self.value()],
            7 => argv!["LREM", key, self.rng.below(3), "same"],
            8 => argv!["LINSERT", key, "BEFORE", "same", self.value()],
            9 => argv!["RPOPLPUSH", key, self.key("list")],
            10 if self.version.redis(6, 2) => argv!["LMOVE", key, self.key("list"), side, "RIGHT"],
            11 if self.version.redis(6, 2) => argv!["LPOP", key, self.rng.within(1..5)],
            12 if self.version.redis(7, 0) => {
                argv!["LMPOP", 2, key, self.key("list"), side, "COUNT", 3]
            }
            13 => argv!["SORT", key, "ALPHA", "STORE", self.key("list")],
            _ => argv!["RPUSH", key, "same", self.value(), self.value()],
        }]
    }

    fn sets(&mut self) -> Vec<Argv> {
        let kind = *self.rng.pick(&["set", "intset"]);
        let key = self.key(kind);
        let one = if kind == "set" {
            self.member()
        } else {
            number(&mut self.rng)
        };
        vec![match self.rng.below(8) {
            0 => argv!["SREM", key, one],
            1 => argv!["SPOP", key],
            2 => argv!["SPOP", key, self.rng.within(1..6)],
            3 => argv!["SMOVE", key, self.key(kind), one],
            4 => argv!["SADD", key, number(&mut self.rng), number(&mut self.rng)],
            _ => argv!["SADD", key, one],
        }]
    }

    fn set_stores(&mut self) -> Vec<Argv> {
        let word = *self.rng.pick(&["SINTERSTORE", "SUNIONSTORE", "SDIFFSTORE"]);
        vec![argv![
            word,
            self.key("set"),
            self.key("set"),
            self.key("set")
        ]]
    }

    fn zsets(&mut self) -> Vec<Argv> {
        let (key, score, member) = (self.key("zset"), score(&mut self.rng), self.member());
        vec![match self.rng.below(14) {
            0 => argv!["ZADD", key, "NX", score, member],
            1 => argv!["ZADD", key, "XX", "CH", score, member],
            2 if self.version.redis(6, 2) => argv!["ZADD", key, "GT", score, member],
            // Adding infinities of both signs is an error, which changes nothing.
            3 => argv!["ZADD", key, "INCR", "0.1", member],
            4 => argv!["ZINCRBY", key, "1.5", member],
            5 => argv!["ZREM", key, member],
            6 if self.version.redis(5, 0) => argv!["ZPOPMIN", key, self.rng.within(1..4)],
            7 if self.version.redis(5, 0) => argv!["ZPOPMAX", key],
            8 if self.version.redis(7, 0) => {
                argv!["ZMPOP", 2, key, self.key("zset"), "MIN", "COUNT", 2]
            }
            9 => argv!["ZREMRANGEBYRANK", key, 0, 1],
            10 => argv!["ZREMRANGEBYSCORE", key, "(5", "7"],
            // Defined for equal scores only; others give what the skiplist's random levels make of it.
            11 => argv!["ZADD", self.key("lex"), 0, member, 0, self.member()],
            12 => argv!["ZREMRANGEBYLEX", self.key("lex"), "[m1", "(m11"],
            _ => argv!["ZADD", key, score, member, "1", self.member()],
        }]
    }

    fn zset_stores(&mut self) -> Vec<Argv> {
        let (to, a, b) = (self.key("zset"), self.key("zset"), self.key("zset"));
        vec![match self.rng.below(4) {
            0 => argv!["ZINTERSTORE", to, 2, a, b, "AGGREGATE", "MAX"],
            1 if self.version.redis(6, 2) => argv!["ZDIFFSTORE", to, 2, a, b],
            2 if self.version.redis(6, 2) => argv!["ZRANGESTORE", to, a, 0, 50],
            _ => argv![
                "ZUNIONSTORE",
                to,
                2,
                a,
                b,
                "WEIGHTS",
                1,
                "0.5",
                "AGGREGATE",
                "MIN"
            ],
        }]
    }

    fn hashes(&mut self) -> Vec<Argv> {
        let (key, field) = (self.key("hash"), self.member());
        vec![match self.rng.below(8) {
            0 => argv!["HSETNX", key, field, self.value()],
            1 => argv!["HDEL", key, field, self.member()],
            2 => argv!["HINCRBY", key, "count", self.rng.below(9)],
            3 => argv!["HINCRBYFLOAT", key, "float", "0.3"],
            4 => argv!["HMSET", key, field, self.value(), self.member(), "x"],
            5 if self.version.redis(8, 0) => argv!["HGETDEL", key, "FIELDS", 1, field],
            _ => argv!["HSET", key, field, self.value()],
        }]
    }

    fn field_expiries(&mut self) -> Vec<Argv> {
        let (key, field, ttl) = (self.key("hash"), self.member(), self.ttl_ms());
        let new = self.version.redis(8, 0) || self.version.valkey(9, 0);
        vec![match self.rng.below(8) {
            0 => argv![
                "HEXPIRE",
                key,
                ttl / 1000 + 1,
                "FIELDS",
                2,
                field,
                self.member()
            ],
            1 => argv!["HPEXPIREAT", key, self.at_ms(), "FIELDS", 1, field],
            2 => argv![
                "HEXPIREAT",
                key,
                self.at_ms() / 1000 + 1,
                "NX",
                "FIELDS",
                1,
                field
            ],
            3 => argv!["HPERSIST", key, "FIELDS", 1, field],
            4 if new => argv!["HSETEX", key, "PX", ttl, "FIELDS", 1, field, self.value()],
            5 if new => argv!["HGETEX", key, "PX", ttl, "FIELDS", 1, field],
            6 => argv!["HSET", key, field, self.value()],
            _ => argv!["HPEXPIRE", key, ttl, "FIELDS", 1, field],
        }]
    }

    fn streams(&mut self) -> Vec<Argv> {
        let key = self.key("stream");
        vec![match self.rng.below(12) {
            0 => argv!["XADD", key, "MAXLEN", "~", 1000, "*", "f", self.value()],
            1 => argv!["XADD", key, "MAXLEN", 300, "*", "f", "trimmed"],
            2 => argv!["XTRIM", key, "MAXLEN", self.rng.within(100..400)],
            3 => argv!["XTRIM", key, "MAXLEN", "~", 200],
            4 => match self.known_id() {
                Some((key, id)) => argv!["XDEL", key, id],
                None => argv!["XDEL", key, "1-1"],
            },
            5 if self.version.redis(6, 2) => match self.known_id() {
                Some((key, id)) => argv!["XTRIM", key, "MINID", id],
                None => argv!["XADD", key, "NOMKSTREAM", "*", "f", "v"],
            },
            6 if self.version.redis(8, 2) => match self.known_id() {
                Some((key, id)) => argv!["XDELEX", key, "DELREF", "IDS", 1, id],
                None => argv!["XLEN", key],
            },
            _ => argv![
                "XADD",
                key,
                "*",
                "f",
                self.value(),
                self.member(),
                number(&mut self.rng)
            ],
        }]
    }

    fn known_id(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        if self.ids.is_empty() {
            None
        } else {
            Some(self.rng.pick(&self.ids).clone())
        }
    }

    /// No XREADGROUP of old ids: it counts a delivery, and the server tells its replicas nothing of it.
    fn stream_groups(&mut self) -> Vec<Argv> {
        let key = self.key("stream");
        let group = *self.rng.pick(&["g0", "g0", "g0", "g1"]);
        let consumer = format!("c{}", self.rng.below(4));
        let (of, id) = self
            .known_id()
            .unwrap_or_else(|| (key.clone().into_bytes(), b"1-1".to_vec()));
        vec![match self.rng.below(16) {
            0 => argv!["XACK", of, group, id],
            1 => argv!["XCLAIM", of, group, consumer, 0, id],
            2 => argv!["XCLAIM", of, group, consumer, 0, id, "JUSTID", "FORCE"],
            3 if self.version.redis(6, 2) => {
                argv!["XAUTOCLAIM", key, group, consumer, 0, "0", "COUNT", 5]
            }
            4 if self.version.redis(6, 2) => {
                argv!["XAUTOCLAIM", key, group, consumer, 0, "0", "JUSTID"]
            }
            5 if self.version.redis(6, 2) => {
                argv!["XGROUP", "CREATECONSUMER", key, group, consumer]
            }
            6 if self.rng.one_in(4) => argv!["XGROUP", "DELCONSUMER", key, group, consumer],
            7 if self.rng.one_in(4) => argv!["XGROUP", "SETID", key, group, id],
            8 => argv!["XGROUP", "CREATE", key, group, "$", "MKSTREAM"],
            9 if self.rng.one_in(4) => argv!["XGROUP", "DESTROY", key, "g1"],
            10 => argv![
                "XREADGROUP",
                "GROUP",
                group,
                consumer,
                "COUNT",
                3,
                "NOACK",
                "STREAMS",
                key,
                ">"
            ],
            12 if self.version.redis(8, 2) => argv!["XACKDEL", of, group, "KEEPREF", "IDS", 1, id],
            _ => argv![
                "XREADGROUP",
                "GROUP",
                group,
                consumer,
                "COUNT",
                5,
                "STREAMS",
                key,
                ">"
            ],
        }]
    }

    fn bits(&mut self) -> Vec<Argv> {
        let key = self.key("bits");
        vec![match self.rng.below(4) {
            0 => argv![
                "BITFIELD",
                key,
                "SET",
                "u8",
                "#3",
                self.rng.below(256),
                "INCRBY",
                "i5",
                100,
                1
            ],
            1 => argv!["BITFIELD", key, "OVERFLOW", "SAT", "INCRBY", "u4", 9, 3],
            2 => argv!["BITOP", "XOR", key, self.key("bits"), self.key("bits")],
            _ => argv!["SETBIT", key, self.rng.below(9000), self.rng.below(2)],
        }]
    }

    fn hyperloglogs(&mut self) -> Vec<Argv> {
        let key = self.key("hll");
        vec![match self.rng.below(4) {
            0 => argv!["PFMERGE", key, self.key("hll"), self.key("hll")],
            // Writes the cached count into the value.
            1 => argv!["PFCOUNT", key],
            _ => argv!["PFADD", key, number(&mut self.rng), number(&mut self.rng)],
        }]
    }

    fn geo(&mut self) -> Vec<Argv> {
        let key = self.key("geo");
        let [longitude, latitude] = place(&mut self.rng);
        vec![match self.rng.below(4) {
            0 if self.version.redis(6, 2) => argv![
                "GEOSEARCHSTORE",
                self.key("zset"),
                key,
                "FROMLONLAT",
                longitude,
                latitude,
                "BYRADIUS",
                5000,
                "km"
            ],
            1 if self.version.redis(3, 2) => {
                argv![
                    "GEORADIUS",
                    key,
                    longitude,
                    latitude,
                    3000,
                    "km",
                    "STORE",
                    self.key("zset")
                ]
            }
            _ => argv!["GEOADD", key, longitude, latitude, self.member()],
        }]
    }

    fn keys(&mut self) -> Vec<Argv> {
        let kind = *self
            .rng
            .pick(&["str", "list", "set", "zset", "hash", "num"]);
        let (key, other, ttl) = (self.key(kind), self.key(kind), self.ttl_ms());
        vec![match self.rng.below(9) {
            0 => argv!["RENAME", key, other],
            1 => argv!["RENAMENX", key, other],
            2 if self.version.redis(6, 2) => argv!["COPY", key, other, "REPLACE"],
            3 if self.version.redis(6, 2) => argv!["COPY", key, other, "DB", self.rng.pick(&DBS)],
            4 => argv!["MOVE", key, self.rng.pick(&DBS)],
            5 if self.version.redis(4, 0) => argv!["UNLINK", key, other],
            6 if !self.dump.is_empty() => {
                argv!["RESTORE", self.key("list"), ttl, self.dump, "REPLACE"]
            }
            7 if !self.dump.is_empty() && self.version.redis(5, 0) => {
                argv![
                    "RESTORE",
                    self.key("list"),
                    self.at_ms(),
                    self.dump,
                    "REPLACE",
                    "ABSTTL"
                ]
            }
            _ => argv!["DEL", key, other, self.key(kind)],
        }]
    }

    fn transaction(&mut self) -> Vec<Argv> {
        let mut unit = vec![argv!["MULTI"]];
        for _ in 0..self.rng.within(1..6) {
            unit.extend(match self.rng.below(6) {
                0 => self.lists(),
                1 => self.hashes(),
                2 => self.zsets(),
                3 => self.set(),
                4 if self.version.redis(5, 0) => self.streams(),
                _ => self.counters(),
            });
        }
        if self.rng.one_in(6) {
            let db = *self.rng.pick(&DBS);
            unit.push(argv!["SELECT", db]);
            unit.extend(self.set());
        }
        let last = if self.rng.one_in(8) {
            "DISCARD"
        } else {
            "EXEC"
        };
        unit.push(argv![last]);
        unit
    }

    fn script(&mut self) -> Vec<Argv> {
        let writes =
            "redis.call('SET', KEYS[1], ARGV[1]) redis.call('RPUSH', KEYS[2], ARGV[1]) return 1";
        let expires =
            "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('PEXPIRE', KEYS[1], ARGV[2])";
        let nothing = "return redis.call('GET', KEYS[1])";
        let (key, value) = (self.key("str"), self.value());
        vec![match self.rng.below(4) {
            0 => argv!["EVAL", expires, 1, key, value, self.ttl_ms()],
            1 => argv!["EVAL", nothing, 1, key],
            2 => argv!["SCRIPT", "LOAD", writes],
            _ => argv!["EVAL", writes, 2, key, self.key("list"), value],
        }]
    }

    fn function(&mut self) -> Vec<Argv> {
        let which = self.rng.below(3);
        let code = format!(
            "#!lua name=written{which}\n\
             redis.register_function('put{which}', function(keys, args)\n\
             return redis.call('SET', keys[1], args[1]) end) -- {}\n",
            self.rng.below(5)
        );
        vec![match self.rng.below(6) {
            0 => argv!["FUNCTION", "DELETE", format!("written{which}")],
            1 | 2 => argv!["FUNCTION", "LOAD", "REPLACE", code],
            _ => argv![
                "FCALL",
                format!("put{which}"),
                1,
                self.key("str"),
                self.value()
            ],
        }]
    }

    fn dbs(&mut self) -> Vec<Argv> {
        match self.rng.below(20) {
            0 if self.version.redis(4, 0) => vec![argv!["SWAPDB", 3, 7]],
            1 | 2 => vec![
                argv!["SELECT", SCRATCH_DB],
                argv!["SET", self.key("str"), self.value()],
                argv!["FLUSHDB"],
                argv!["RPUSH", self.key("list"), self.value()],
                argv!["SELECT", self.rng.pick(&DBS)],
            ],
            _ => vec![argv!["SELECT", self.rng.pick(&DBS)]],
        }
    }

    /// What the blocking thread waits for.
    fn blocked(&mut self) -> Vec<Argv> {
        vec![argv![
            "RPUSH",
            self.key("blocked"),
            self.value(),
            self.value()
        ]]
    }

    fn other(&mut self) -> Vec<Argv> {
        vec![match self.rng.below(4) {
            0 => argv!["PING"],
            // Changes nothing in the data, and still goes to replicas.
            1 => argv!["PUBLISH", "channel", self.value()],
            2 => argv!["TOUCH", self.key("str")],
            _ => argv!["SCRIPT", "FLUSH"],
        }]
    }
}
