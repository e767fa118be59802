//! Strings, lists, sets, sorted sets and plain hashes.

use super::{DBS, FAR_MS, Shelf, noise, prose};
use crate::argv;

/// A string whose listpack entry has 16383 bytes with its header of five: at this size (and at two more, below) the length
/// behind the entry has a byte more in Redis, and in Valkey before 9, than it has in Valkey 9.1.
pub(super) const BOUNDARY: usize = 16_383 - 5;
/// The second such size.
const BOUNDARY_2: usize = 2_097_151 - 5;
/// Larger than the largest node of a list: it gets one to itself.
const BIG: usize = 9_000;
/// Texts that look like whole numbers, and numbers at the ends of what encodings hold.
const NUMBERS: [&str; 17] = [
    "0",
    "-1",
    "12",
    "127",
    "128",
    "-129",
    "32767",
    "-32769",
    "2147483647",
    "2147483648",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "007",
    "-0",
    "+1",
    "1e3",
];
const SCORES: [&str; 13] = [
    "0",
    "1",
    "-1",
    "0.1",
    "3.0000000000000004",
    "inf",
    "-inf",
    "5e-324",
    "-1.7976931348623157e308",
    "9007199254740993",
    "1e21",
    "-2147483649",
    "4503599627370497.5",
];

fn numbers() -> impl Iterator<Item = Vec<u8>> {
    NUMBERS.iter().map(|number| number.as_bytes().to_vec())
}

fn each(count: usize, name: impl Fn(usize) -> String) -> impl Iterator<Item = Vec<u8>> {
    (0..count).map(move |index| name(index).into_bytes())
}

impl Shelf {
    pub(super) fn values(&mut self) {
        self.strings();
        self.lists();
        self.sets();
        self.zsets();
        self.hashes();
        self.dbs();
    }

    fn strings(&mut self) {
        for number in NUMBERS {
            self.push(argv!["SET", format!("string:{number}"), number]);
        }
        self.push(argv!["SET", "string:empty", ""]);
        self.push(argv!["SET", "string:binary", b"\r\n$5\r\n*1\r\n\0\xff"]);
        self.push(argv!["SET", "string:compressed", prose(3000)]);
        self.push(argv!["SET", "string:noise", noise(1, 300)]);
        self.push(argv!["SET", "string:expires", "in 2100"]);
        self.expire("string:expires");
        self.push(argv!["SETBIT", "string:bits", 9001, 1]);
        self.build("PFADD", "string:sparse", each(3, |i| format!("seen {i}")));
        self.build("PFADD", "string:dense", each(1200, |i| format!("{i}")));
        // Names that a careless tool trips over.
        self.push(argv!["SET", "", "the empty key"]);
        self.push(argv![
            "SET",
            b"binary\r\n\0\xff {tag} *?[]",
            "a key of bytes"
        ]);
        self.push(argv!["SET", "long".repeat(300), "a long key"]);
        self.push(argv!["SET", "12345", "a number for a key"]);
        if self.samples.large {
            self.push(argv!["SET", "large:string", noise(2, 2 << 20)]);
        }
    }

    fn lists(&mut self) {
        self.build("RPUSH", "list:small", each(5, |i| format!("item {i}")));
        self.build("RPUSH", "list:numbers", numbers());
        self.build(
            "RPUSH",
            "list:nodes",
            each(40, |i| format!("item {i} {}", "-".repeat(230))),
        );
        self.push(argv!["RPUSH", "list:empty-items", "", "a", ""]);
        self.push(argv!["RPUSH", "list:big", "a", prose(BIG), "b", prose(BIG)]);
        self.push(argv!["RPUSH", "list:boundary", "a", prose(BOUNDARY), "b"]);
        self.push(argv![
            "RPUSH",
            "list:sizes",
            prose(63),
            prose(64),
            prose(4095),
            prose(4096)
        ]);
        self.expire("list:numbers");
        if self.samples.large {
            self.push(argv!["RPUSH", "large:list", prose(BOUNDARY_2), "b"]);
            self.build(
                "RPUSH",
                "large:items",
                each(40_000, |i| format!("a longer item that has the number {i}")),
            );
        }
    }

    fn sets(&mut self) {
        self.build("SADD", "set:int16", each(12, |i| (i * 7).to_string()));
        self.build("SADD", "set:int32", each(12, |i| (i * 70_000).to_string()));
        self.build(
            "SADD",
            "set:int64",
            each(12, |i| (i << 40).to_string()).chain(numbers().take(12)),
        );
        self.build("SADD", "set:small", each(20, |i| format!("member {i}")));
        self.build("SADD", "set:mixed", numbers().chain([Vec::new()]));
        let long = argv![prose(100)];
        self.build(
            "SADD",
            "set:table",
            each(20, |i| format!("m{i}")).chain(long),
        );
        self.push(argv!["SADD", "set:long", prose(5000), "b"]);
        self.expire("set:small");
    }

    fn zsets(&mut self) {
        for (key, filler) in [("zset:small", 0), ("zset:table", 6)] {
            let scored = SCORES.iter().flat_map(|score| {
                [
                    score.as_bytes().to_vec(),
                    format!("scored {score}").into_bytes(),
                ]
            });
            let fill = each(filler, |i| format!("{}.25", i as i64 - 3));
            let fill = fill.zip(each(filler, |i| format!("m{i}")));
            let fill = fill.flat_map(|(score, member)| [score, member]);
            // The length makes it a table.
            let long = if filler > 0 {
                argv!["1.5", prose(100)]
            } else {
                Vec::new()
            };
            self.build("ZADD", key, scored.chain(fill).chain(long));
        }
        // A small one cannot keep it everywhere: see losses.
        self.push(argv!["ZADD", "zset:small-minus-zero", "-0", "minus zero"]);
        self.build(
            "ZADD",
            "zset:table-minus-zero",
            argv!["-0", "minus zero", "1", prose(100)],
        );
        let numbered = numbers()
            .enumerate()
            .flat_map(|(index, number)| [(index as i64 - 8).to_string().into_bytes(), number]);
        self.build("ZADD", "zset:numbers", numbered.chain(argv!["3", ""]));
        if self.version.redis(3, 2) {
            self.push(argv![
                "GEOADD",
                "zset:places",
                13.36,
                38.11,
                "Palermo",
                15.08,
                37.5,
                "Catania"
            ]);
        }
        self.setting("zset-max-ziplist-value", 20_000);
        self.push(argv!["ZADD", "zset:boundary", 1, prose(BOUNDARY), 2, "b"]);
        self.setting("zset-max-ziplist-value", 64);
        self.expire("zset:table");
    }

    fn hashes(&mut self) {
        let pairs = |count| {
            each(count, |i| format!("field {i}"))
                .zip(each(count, |i| format!("value {i}")))
                .flat_map(|(field, value)| [field, value])
        };
        self.build("HMSET", "hash:small", pairs(10));
        self.build(
            "HMSET",
            "hash:table",
            pairs(20).chain(argv!["long", prose(100)]),
        );
        self.build(
            "HMSET",
            "hash:numbers",
            numbers().flat_map(|number| [number.clone(), number]),
        );
        self.push(argv!["HMSET", "hash:empty", "", "", "a", ""]);
        self.push(argv!["HMSET", "hash:long", "f", prose(5000)]);
        self.setting("hash-max-ziplist-value", 20_000);
        self.push(argv![
            "HMSET",
            "hash:boundary",
            "f",
            prose(BOUNDARY),
            "g",
            "b"
        ]);
        self.setting("hash-max-ziplist-value", 64);
        self.expire("hash:small");
    }

    fn dbs(&mut self) {
        for db in DBS.iter().skip(1) {
            self.push(argv!["SELECT", db]);
            self.push(argv!["SET", "string:here", format!("db {db}")]);
            self.push(argv!["SET", "string:expires", "in 2100"]);
            self.push(argv!["PEXPIREAT", "string:expires", FAR_MS + 1]);
            self.push(argv!["RPUSH", "list:here", "a", "b"]);
        }
        self.push(argv!["SELECT", 0]);
    }
}
