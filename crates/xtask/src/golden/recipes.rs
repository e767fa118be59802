//! Which files there are: an engine, how it is started, what it is given.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use testkit::client::{bytes, text};
use testkit::process::wait_until;
use testkit::samples::{self, Samples};
use testkit::{Server, ServerOptions, argv};

/// A file in the making.
pub(super) struct Recipe {
    pub(super) name: String,
    pub(super) engine: &'static str,
    pub(super) args: Vec<String>,
    pub(super) modules: &'static [&'static str],
    data: Data,
}

/// What a server is given.
enum Data {
    /// Every sample.
    Samples,
    /// A few keys of each kind.
    Few,
    /// Keys with a past: how long they were not used, or how often.
    Hints(&'static str),
    /// A few keys, in a cluster of one.
    Cluster,
    /// A few keys of the modules of Redis Stack.
    Stack,
}

/// The engines whose every sample is kept: one a format, since what a version between writes looks the same.
const ENGINES: [&str; 12] = [
    "redis-2.8",
    "redis-3.2",
    "redis-5.0",
    "redis-6.2",
    "redis-7.0",
    "redis-7.2",
    "redis-7.4",
    "redis-8.6",
    "redis-8.10",
    "valkey-8.0",
    "valkey-9.1",
    "redict-7.3",
];
const STACK: &[&str] = &[
    "rejson.so",
    "redisbloom.so",
    "redistimeseries.so",
    "redisearch.so",
];

/// Every recipe.
pub(super) fn all() -> Vec<Recipe> {
    let mut all = Vec::new();
    for engine in ENGINES {
        all.push(recipe(engine, "samples", "", Data::Samples));
    }
    let lru = "--maxmemory 1gb --maxmemory-policy allkeys-lru";
    let lfu = "--maxmemory 1gb --maxmemory-policy allkeys-lfu --lfu-decay-time 0";
    for engine in ["redis-5.0", "redis-8.10", "valkey-9.1"] {
        all.push(recipe(engine, "lru", lru, Data::Hints("IDLETIME")));
        all.push(recipe(engine, "lfu", lfu, Data::Hints("FREQ")));
    }
    for engine in ["redis-7.4", "redis-8.10", "valkey-8.0", "valkey-9.1"] {
        let args = "--cluster-enabled yes";
        all.push(recipe(engine, "cluster", args, Data::Cluster));
    }
    for engine in ["redis-3.0", "redis-7.2"] {
        let args = "--rdbcompression no --rdbchecksum no";
        all.push(recipe(engine, "plain", args, Data::Few));
    }
    all.push(Recipe {
        modules: STACK,
        ..recipe("redis-7.4", "stack", "", Data::Stack)
    });
    all
}

fn recipe(engine: &'static str, what: &str, args: &str, data: Data) -> Recipe {
    Recipe {
        name: format!("{}_{what}", engine.replace(['-', '.'], "_")),
        engine,
        args: ServerOptions::args(args).args,
        modules: &[],
        data,
    }
}

impl Recipe {
    /// Makes a server ready for data: one of a cluster answers for no key before it has all slots, and knows them when it
    /// is started again.
    pub(super) fn prepare(&self, server: &Server) {
        if matches!(self.data, Data::Cluster) {
            let all = argv!["CLUSTER", "ADDSLOTSRANGE", 0, 16_383];
            server.client().command(&all);
            self.wait_ready(server);
        }
    }

    /// Waits until it answers for its keys.
    pub(super) fn wait_ready(&self, server: &Server) {
        if matches!(self.data, Data::Cluster) {
            let mut client = server.client();
            wait_until("a cluster of one", Duration::from_secs(30), || {
                text(&client.command(&argv!["CLUSTER", "INFO"])).contains("cluster_state:ok")
            });
        }
    }

    /// Gives the server its data.
    pub(super) fn fill(&self, server: &Server) {
        match &self.data {
            Data::Samples => {
                let samples = Samples {
                    large: false,
                    modules: true,
                };
                samples::fill(&mut server.client(), samples);
                was_followed(server);
            }
            Data::Few => few(server),
            Data::Hints(word) => hints(server, word),
            Data::Cluster => few(server),
            Data::Stack => stack(server),
        }
    }
}

/// Has a replica ask for a copy: only then do AUX fields name the history, and scripts go into the file.
fn was_followed(server: &Server) {
    let mut replica = TcpStream::connect(server.address()).expect("connect as a replica");
    replica
        .write_all(b"PSYNC ? -1\r\n")
        .expect("ask for a copy");
    let read = replica.read(&mut [0; 64]).expect("an answer");
    assert!(read > 0, "no answer to PSYNC");
    let mut client = server.client();
    wait_until("the copy's end", Duration::from_secs(30), || {
        client.info_number("persistence", "rdb_bgsave_in_progress") == 0
            && client.info_number("replication", "connected_slaves") == 1
    });
}

fn few(server: &Server) {
    let mut client = server.client();
    client.command(&argv![
        "SET",
        "string",
        "some text that is longer than twenty bytes bytes bytes bytes"
    ]);
    client.command(&argv!["SET", "number", 12]);
    client.command(&argv!["PEXPIREAT", "number", samples::FAR_MS]);
    client.command(&argv!["RPUSH", "list", "a", 1, 100_000, "b"]);
    client.command(&argv!["SADD", "set", 1, 2, 3]);
    client.command(&argv!["ZADD", "zset", 1.5, "a", "-inf", "b"]);
    client.command(&argv!["HMSET", "hash", "f", "v", "g", 7]);
    if server.engine().version.redis(5, 0) {
        client.command(&argv!["XADD", "stream", "1-1", "f", "v"]);
    }
    if server.engine().version.has_field_ttl() {
        client.command(&argv!["HSET", "expiring", "f", "v", "g", "w"]);
        client.command(&argv![
            "HPEXPIREAT",
            "expiring",
            samples::FAR_MS,
            "FIELDS",
            1,
            "f"
        ]);
    }
}

/// RESTORE is the one command that gives a key a past.
fn hints(server: &Server, word: &str) {
    let mut client = server.client();
    for (index, number) in [0, 1, 127, 128, 255].into_iter().enumerate() {
        let key = format!("used:{number}");
        client.command(&argv!["RPUSH", "list", "an item", index]);
        let dump = bytes(client.command(&argv!["DUMP", "list"]));
        client.command(&argv!["RESTORE", key, 0, dump, word, number]);
    }
    client.command(&argv!["PEXPIREAT", "used:1", samples::FAR_MS]);
}

fn stack(server: &Server) {
    let mut client = server.client();
    client.command(&argv![
        "JSON.SET",
        "json",
        "$",
        r#"{"a":[1,-2.5,true,null,"text"],"b":{}}"#
    ]);
    client.command(&argv!["BF.RESERVE", "bloom", 0.01, 50]);
    client.command(&argv!["BF.MADD", "bloom", "a", "b", "c"]);
    client.command(&argv!["CF.RESERVE", "cuckoo", 32]);
    client.command(&argv!["CF.ADD", "cuckoo", "a"]);
    client.command(&argv!["CMS.INITBYDIM", "sketch", 10, 3]);
    client.command(&argv!["CMS.INCRBY", "sketch", "a", 5, "b", 1]);
    client.command(&argv!["TOPK.RESERVE", "top", 2, 4, 3, 0.9]);
    client.command(&argv!["TOPK.ADD", "top", "a", "b", "a"]);
    client.command(&argv!["TDIGEST.CREATE", "digest"]);
    client.command(&argv!["TDIGEST.ADD", "digest", 1.5, -2, 1000]);
    client.command(&argv!["TS.CREATE", "series", "LABELS", "place", "here"]);
    client.command(&argv!["TS.ADD", "series", 1_700_000_000_000_i64, 21.5]);
    client.command(&argv!["TS.ADD", "series", 1_700_000_001_000_i64, -0.25]);
    client.command(&argv![
        "FT.CREATE",
        "index",
        "ON",
        "HASH",
        "PREFIX",
        1,
        "doc:",
        "SCHEMA",
        "title",
        "TEXT"
    ]);
    client.command(&argv!["HSET", "doc:1", "title", "hello"]);
}
