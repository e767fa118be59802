//! What came with later versions: expiries of fields, functions, arrays, templates, vector sets; and what went: scripts
//! that are kept in the snapshot.

use super::{FAR_MS, MODULE_PREFIX, Shelf, prose};
use crate::argv;
use crate::version::Family;

/// A library of functions.
const LIBRARY: &str = "#!lua name=samples\n\
    redis.register_function('sample_read', function(keys) return redis.call('GET', keys[1]) end)\n";
/// A script that servers from 4.0 to 6.2 keep in their snapshots.
const SCRIPT: &str = "return redis.call('GET', KEYS[1])";
/// The script's name.
pub const SCRIPT_SHA: &str = "d3c21d0c2b9ca22f82737626a27bcaf5d288f99f";

impl Shelf {
    pub(super) fn newer(&mut self) {
        let version = self.version;
        if version.has_functions() {
            self.push(argv!["FUNCTION", "LOAD", "REPLACE", LIBRARY]);
        } else {
            self.push(argv!["SCRIPT", "LOAD", SCRIPT]);
        }
        if version.has_field_ttl() {
            self.field_ttls();
        }
        if version.family == Family::Redis {
            if version.redis(8, 8) {
                self.arrays();
            }
            if version.redis(8, 10) {
                self.templates();
            }
            if version.redis(8, 0) && self.samples.modules {
                self.vectors();
            }
        }
    }

    fn field_ttls(&mut self) {
        for (key, count) in [("hash:expiring", 6), ("hash:expiring-table", 12)] {
            let mut argv = argv!["HMSET", key];
            for index in 0..count {
                argv.extend(argv![format!("field {index}"), format!("value {index}")]);
            }
            if key == "hash:expiring-table" {
                argv.extend(argv!["long", prose(100)]);
            }
            self.push(argv);
            for index in (0..count).step_by(3) {
                let at_ms = FAR_MS + i64::from(index);
                self.push(argv![
                    "HPEXPIREAT",
                    key,
                    at_ms,
                    "FIELDS",
                    1,
                    format!("field {index}")
                ]);
            }
        }
        self.push(argv!["HMSET", "hash:all-expiring", "a", "1", "b", "2"]);
        self.push(argv![
            "HPEXPIREAT",
            "hash:all-expiring",
            FAR_MS,
            "FIELDS",
            2,
            "a",
            "b"
        ]);
        self.expire("hash:all-expiring");
    }

    fn arrays(&mut self) {
        self.push(argv![
            "ARSET",
            "array:dense",
            0,
            "a",
            "12",
            "7.5",
            "",
            "-0",
            "007",
            prose(300)
        ]);
        self.push(argv![
            "ARMSET",
            "array:sparse",
            3,
            "x",
            5000,
            "-9223372036854775808",
            4_000_000_000_u64,
            "1e300"
        ]);
        self.push(argv!["ARSET", "array:inserting", 10, "a", "b"]);
        self.push(argv!["ARSEEK", "array:inserting", 50]);
        self.expire("array:dense");
    }

    fn templates(&mut self) {
        self.push(argv!["HIMPORT", "PREPARE", "pair", "one", "two"]);
        self.push(argv![
            "HIMPORT", "PREPARE", "wide", "a", "bb", "ccc", "dddd"
        ]);
        for index in 0..4 {
            self.push(argv![
                "HIMPORT",
                "SET",
                format!("template:pair:{index}"),
                "pair",
                index,
                format!("v{index}")
            ]);
            self.push(argv![
                "HIMPORT",
                "SET",
                format!("template:wide:{index}"),
                "wide",
                "",
                "007",
                index,
                prose(200)
            ]);
        }
        self.expire("template:pair:0");
    }

    /// Each quantisation, with and without attributes, a projection and many links.
    fn vectors(&mut self) {
        let kinds: [(&str, &[&str]); 5] = [
            ("plain", &["NOQUANT"]),
            ("int8", &["Q8", "SETATTR", "{\"year\": 1999}"]),
            ("binary", &["BIN", "EF", "50"]),
            ("links", &["NOQUANT", "M", "7"]),
            ("reduced", &["Q8", "SETATTR", "{}"]),
        ];
        for (name, options) in kinds {
            let key = format!("{MODULE_PREFIX}vectors-{name}");
            for index in 0..40_u32 {
                let mut argv = argv!["VADD", key];
                if name == "reduced" {
                    argv.extend(argv!["REDUCE", 2]);
                }
                let at = f64::from(index);
                argv.extend(argv!["VALUES", 3, at / 7.0, 0.5 - at, 1.0 - at * at]);
                argv.extend(argv![format!("member {index}")]);
                // Not every member has attributes.
                let bare = name == "int8" && index % 3 == 1;
                let options = options.iter().take(if bare { 1 } else { options.len() });
                argv.extend(options.map(|word| word.as_bytes().to_vec()));
                self.push(argv);
            }
        }
        self.expire(&format!("{MODULE_PREFIX}vectors-plain"));
    }
}
