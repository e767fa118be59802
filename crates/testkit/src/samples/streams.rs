//! Streams: entries, counters, groups, consumers, pending entries.

use super::{FAR_MS, Shelf, prose, values};
use crate::argv;

/// When pending entries were delivered: far enough in the past for every server.
const DELIVERED_MS: i64 = 1_700_000_000_000;

impl Shelf {
    pub(super) fn streams(&mut self) {
        self.entries();
        self.emptied();
        self.groups();
        self.deleted_pending();
        if self.version.redis(7, 0) {
            self.counters();
        }
        if self.version.family == crate::version::Family::Redis {
            if self.version.redis(8, 6) {
                self.idempotence();
            }
            if self.version.redis(8, 8) {
                self.returned();
            }
        }
    }

    fn add(&mut self, key: &str, ids: impl IntoIterator<Item = u64>) {
        for id in ids {
            self.push(argv![
                "XADD",
                key,
                format!("{id}-1"),
                "n",
                id,
                "what",
                format!("entry {id}")
            ]);
        }
    }

    fn entries(&mut self) {
        self.add("stream:small", 1..=5);
        self.expire("stream:small");
        self.setting("stream-node-max-entries", 10);
        self.add("stream:nodes", (1..=25).map(|id| id * 1000));
        self.push(argv!["XADD", "stream:fields", "5-0", "a", "1"]);
        self.push(argv!["XADD", "stream:fields", "5-1", "a", "2"]);
        self.push(argv![
            "XADD",
            "stream:fields",
            "5-2",
            "b",
            "x",
            "",
            "",
            "c",
            "-0"
        ]);
        self.push(argv!["XADD", "stream:fields", "5-3", "a", "007"]);
        self.push(argv![
            "XADD",
            "stream:fields",
            "18446744073709551000-7",
            "a",
            "4"
        ]);
        self.push(argv![
            "XADD",
            "stream:boundary",
            "1-1",
            "f",
            prose(values::BOUNDARY)
        ]);
        self.push(argv!["XADD", "stream:boundary", "2-1", "f", "b"]);
        self.push(argv![
            "XADD",
            "stream:big",
            "1-1",
            "f",
            prose(9000),
            "g",
            "h"
        ]);
        self.add("stream:deleted", 1..=8);
        self.push(argv!["XDEL", "stream:deleted", "3-1", "8-1", "1-1"]);
        self.add("stream:trimmed", 1..=25);
        self.push(argv!["XTRIM", "stream:trimmed", "MAXLEN", 7]);
        self.setting("stream-node-max-entries", 100);
        self.add("stream:moved-on", 1..=3);
        self.push(argv!["XSETID", "stream:moved-on", "900-7"]);
    }

    fn emptied(&mut self) {
        self.add("stream:emptied", 1..=3);
        self.push(argv!["XGROUP", "CREATE", "stream:emptied", "g", "2-1"]);
        self.push(argv!["XDEL", "stream:emptied", "1-1", "2-1", "3-1"]);
        self.add("stream:emptied-bare", 1..=2);
        self.push(argv!["XTRIM", "stream:emptied-bare", "MAXLEN", 0]);
        self.push(argv![
            "XGROUP",
            "CREATE",
            "stream:never",
            "g",
            "$",
            "MKSTREAM"
        ]);
        self.push(argv![
            "XGROUP",
            "CREATE",
            "stream:never-bare",
            "g",
            "$",
            "MKSTREAM"
        ]);
        self.push(argv!["XGROUP", "DESTROY", "stream:never-bare", "g"]);
    }

    /// Reads `count` entries for a consumer and says when they were delivered and how often.
    fn read(&mut self, key: &str, group: &str, consumer: &str, ids: &[&str]) {
        let count = ids.len();
        self.push(argv![
            "XREADGROUP",
            "GROUP",
            group,
            consumer,
            "COUNT",
            count,
            "STREAMS",
            key,
            ">"
        ]);
        for (index, id) in ids.iter().enumerate() {
            let time = DELIVERED_MS + index as i64;
            self.push(argv![
                "XCLAIM",
                key,
                group,
                consumer,
                0,
                id,
                "TIME",
                time,
                "RETRYCOUNT",
                index + 1,
                "FORCE",
                "JUSTID"
            ]);
        }
    }

    fn groups(&mut self) {
        let key = "stream:groups";
        self.add(key, 1..=20);
        self.push(argv!["XGROUP", "CREATE", key, "begin", 0]);
        self.push(argv!["XGROUP", "CREATE", key, "end", "$"]);
        self.push(argv!["XGROUP", "CREATE", key, b"g\0\xff name", "7-1"]);
        self.read(key, "begin", "alice", &["1-1", "2-1", "3-1"]);
        self.read(key, "begin", "bob", &["4-1"]);
        self.read(key, "begin", "done", &["5-1", "6-1"]);
        self.push(argv!["XACK", key, "begin", "2-1", "5-1", "6-1"]);
        if self.version.redis(6, 2) {
            self.push(argv!["XGROUP", "CREATECONSUMER", key, "end", "idle"]);
        }
        // Reads that leave nothing pending.
        self.push(argv![
            "XREADGROUP",
            "GROUP",
            "begin",
            "carol",
            "COUNT",
            2,
            "NOACK",
            "STREAMS",
            key,
            ">"
        ]);
        self.expire(key);
    }

    fn deleted_pending(&mut self) {
        let key = "stream:deleted-pending";
        self.add(key, 1..=9);
        self.push(argv!["XGROUP", "CREATE", key, "g", 0]);
        self.read(key, "g", "alice", &["1-1", "2-1", "3-1", "4-1"]);
        self.push(argv!["XDEL", key, "2-1", "4-1", "9-1"]);
        let key = "stream:all-pending-deleted";
        self.add(key, 1..=2);
        self.push(argv!["XGROUP", "CREATE", key, "g", 0]);
        self.read(key, "g", "alice", &["1-1", "2-1"]);
        self.push(argv!["XDEL", key, "1-1", "2-1"]);
    }

    fn counters(&mut self) {
        self.add("stream:counters", 1..=4);
        self.push(argv!["XDEL", "stream:counters", "2-1"]);
        self.push(argv![
            "XSETID",
            "stream:counters",
            "77-7",
            "ENTRIESADDED",
            40,
            "MAXDELETEDID",
            "50-5"
        ]);
        self.push(argv![
            "XGROUP",
            "CREATE",
            "stream:counters",
            "g",
            "1-1",
            "ENTRIESREAD",
            33
        ]);
        self.push(argv![
            "XGROUP",
            "CREATE",
            "stream:counters",
            "unknown",
            "3-1"
        ]);
    }

    fn idempotence(&mut self) {
        let key = "stream:producers";
        // What a producer did long ago is forgotten: these ids are of the year 2100.
        let first = FAR_MS as u64;
        let id = |number| format!("{}-1", first + number);
        self.add(key, (1..=4).map(|number| first + number));
        self.push(argv![
            "XCFGSET",
            key,
            "IDMP-DURATION",
            86_400,
            "IDMP-MAXSIZE",
            20
        ]);
        self.push(argv!["XIDMPRECORD", key, "p1", "i1", id(1)]);
        self.push(argv!["XIDMPRECORD", key, "p1", b"i\0\xff", id(3)]);
        self.push(argv!["XIDMPRECORD", key, "p2", "i1", id(2)]);
        self.push(argv!["PEXPIREAT", key, FAR_MS]);
        self.add("stream:configured", 1..=1);
        self.push(argv![
            "XCFGSET",
            "stream:configured",
            "IDMP-DURATION",
            50,
            "IDMP-MAXSIZE",
            7
        ]);
    }

    /// Pending entries that their consumer gave back: nobody's now.
    fn returned(&mut self) {
        let key = "stream:returned";
        self.add(key, 1..=6);
        self.push(argv!["XGROUP", "CREATE", key, "g", 0]);
        self.read(key, "g", "alice", &["1-1", "2-1", "3-1", "4-1"]);
        self.push(argv!["XNACK", key, "g", "FAIL", "IDS", 2, "2-1", "3-1"]);
    }
}
