//! One key of every kind, encoding and edge that a server can hold: the same keys in every run.
//!
//! What a version cannot hold is left out by its version alone, so that a command which fails is a mistake here and
//! panics. Times are fixed and far away, ids are given, so that two runs make the same data; only the times at which
//! consumers were seen are the server's own.

mod newer;
mod streams;
mod values;

pub use newer::SCRIPT_SHA;

use crate::argv;
use crate::client::{Argv, Client};
use crate::version::Version;

/// A far expiry, in Unix milliseconds: 1 January 2100 and 123 ms, so that a lost fraction shows.
pub const FAR_MS: i64 = 4_102_444_800_123;
/// The dbs that hold samples.
pub const DBS: [u32; 3] = [0, 3, 15];
/// The prefix of keys that hold values of modules.
pub const MODULE_PREFIX: &str = "module:";

/// Which samples.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Samples {
    /// Also values of some megabytes.
    pub large: bool,
    /// Also values of the modules that the server has built in.
    pub modules: bool,
}

/// Puts the samples into the server behind `client`, and leaves it in db 0.
pub fn fill(client: &mut Client, samples: Samples) {
    let version = client.version();
    let mut shelf = Shelf {
        version,
        samples,
        commands: Vec::new(),
    };
    shelf.values();
    if version.redis(5, 0) {
        shelf.streams();
    }
    shelf.newer();
    client.commands(&shelf.commands);
}

/// Adds a key and a field of a hash whose time has come and which the server still has: it must not look for such
/// keys by itself (`DEBUG SET-ACTIVE-EXPIRE 0`), and whoever reads them removes them.
pub fn fill_expired(client: &mut Client) {
    let version = client.version();
    let mut commands = vec![argv!["SET", "expired:string", "gone", "PX", 1]];
    if version.has_field_ttl() {
        commands.extend([
            argv!["DEL", "expired:field"],
            argv!["HSET", "expired:field", "stays", "1", "goes", "2"],
            argv!["HPEXPIRE", "expired:field", 1, "FIELDS", 1, "goes"],
        ]);
    }
    client.commands(&commands);
    std::thread::sleep(std::time::Duration::from_millis(3));
}

/// Commands in the making.
struct Shelf {
    version: Version,
    samples: Samples,
    commands: Vec<Argv>,
}

impl Shelf {
    fn push(&mut self, command: Argv) {
        self.commands.push(command);
    }

    /// A setting that holds for what follows. The names of 2.8 are known to every version since.
    fn setting(&mut self, name: &str, value: impl crate::client::Word) {
        self.push(argv!["CONFIG", "SET", name, value]);
    }

    /// A command and a key, then the words.
    fn build(&mut self, word: &str, key: &str, words: impl IntoIterator<Item = Vec<u8>>) {
        let mut argv = argv![word, key];
        argv.extend(words);
        self.push(argv);
    }

    fn expire(&mut self, key: &str) {
        self.push(argv!["PEXPIREAT", key, FAR_MS]);
    }
}

/// Bytes that look like chance, so that they cannot be compressed; the same for the same seed.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    crate::rng::Rng::new(seed).bytes(len)
}

/// Text of this length that can be compressed well and whose parts differ.
fn prose(len: usize) -> Vec<u8> {
    let parts =
        (0_u64..).flat_map(|number| format!("part {number} {} ", "-".repeat(90)).into_bytes());
    parts.take(len).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Server;
    use crate::client::{Error, text};

    fn encodings(engine: &str, expected: &[(&str, &str)]) {
        let server = Server::of(engine);
        let mut client = server.client();
        fill(&mut client, Samples::default());
        for (key, encoding) in expected {
            let told = client.command(&argv!["OBJECT", "ENCODING", key]);
            assert_eq!(text(&told), *encoding, "{engine} {key}");
        }
        let dbs: Vec<u32> = client.keyspace().into_keys().collect();
        assert_eq!(dbs, DBS);
    }

    #[test]
    fn samples_have_the_encodings_that_they_are_for() {
        let common = [
            ("string:007", "embstr"),
            ("string:127", "int"),
            ("string:noise", "raw"),
            ("set:int16", "intset"),
            ("set:table", "hashtable"),
            ("zset:table", "skiplist"),
            ("hash:table", "hashtable"),
            ("list:nodes", "quicklist"),
        ];
        let packed = |encoding| {
            ["zset:small", "zset:boundary", "hash:small", "hash:boundary"]
                .map(|key| (key, encoding))
        };
        for (engine, encoding) in [("redis-5.0", "ziplist"), ("redis-7.2", "listpack")] {
            encodings(engine, &common);
            encodings(engine, &packed(encoding));
        }
        encodings(
            "valkey-9.1",
            &[("set:small", "listpack"), ("hash:expiring", "hashtable")],
        );
        encodings(
            "redis-8.0",
            &[
                ("hash:expiring", "listpackex"),
                ("hash:expiring-table", "hashtable"),
            ],
        );
    }

    #[test]
    fn what_has_expired_is_still_in_the_server_and_not_to_be_seen() {
        let server = Server::of("redis-7.4");
        let mut client = server.client();
        client.command(&argv!["DEBUG", "SET-ACTIVE-EXPIRE", 0]);
        fill_expired(&mut client);
        assert_eq!(client.keyspace().get(&0), Some(&2));
        assert_eq!(
            text(&client.command(&argv!["HGET", "expired:field", "goes"])),
            ""
        );
        assert_eq!(
            text(&client.command(&argv!["HGET", "expired:field", "stays"])),
            "1"
        );
        assert_eq!(
            client.try_command(&argv!["GET", "expired:string"]),
            Ok(redis::Value::Nil) as Result<_, Error>
        );
    }
}
