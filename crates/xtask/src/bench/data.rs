//! The data set of a full sync: small strings for the most part, small collections, three large keys.

use std::fs;
use std::path::PathBuf;

use testkit::client::Argv;
use testkit::{Engine, Rng, Server, ServerOptions, argv};

use crate::text;

/// Values are slices of this much random text.
const POOL_BYTES: usize = 1 << 20;
/// Commands of one pipeline.
const PIPELINE: usize = 2_000;

/// Strings for each collection of a kind.
const STRINGS_PER_COLLECTION: u64 = 40;
/// Strings for each element of the large hash and the large sorted set.
const STRINGS_PER_ELEMENT: u64 = 2;
/// Strings for each element of the large list, of 1,000 bytes.
const STRINGS_PER_LIST_ELEMENT: u64 = 10;

struct Maker {
    rng: Rng,
    pool: Vec<u8>,
}

impl Maker {
    fn text(&mut self, bytes: u64) -> Vec<u8> {
        let from = self.rng.below(POOL_BYTES as u64 - bytes) as usize;
        self.pool[from..from + bytes as usize].to_vec()
    }

    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.rng.within(low..high + 1)
    }

    fn string(&mut self, at: u64) -> Argv {
        let bytes = self.between(32, 100);
        let value = if at.is_multiple_of(2) {
            self.text(bytes)
        } else {
            let mut json = format!(
                r#"{{"id":{at},"name":"user {at}","mail":"user.{at}@example.org","active":true,"visits":{}}}"#,
                at * 3
            )
            .into_bytes();
            json.truncate(bytes as usize);
            json
        };
        argv!["SET", format!("string:{at:08}"), value]
    }

    fn collections(&mut self, at: u64) -> [Argv; 4] {
        let mut hash = argv!["HSET", format!("hash:{at:06}")];
        let mut list = argv!["RPUSH", format!("list:{at:06}")];
        let mut set = argv!["SADD", format!("set:{at:06}")];
        let mut sorted = argv!["ZADD", format!("sorted:{at:06}")];
        for element in 0..self.between(10, 50) {
            let bytes = self.between(8, 31);
            hash.extend([format!("field{element}").into_bytes(), self.text(bytes)]);
            list.push(self.text(bytes));
            set.push(self.text(16));
            let member = [format!("m{element}-").into_bytes(), self.text(8)].concat();
            sorted.extend([self.score(100_000), member]);
        }
        [hash, list, set, sorted]
    }

    fn score(&mut self, below: u64) -> Vec<u8> {
        let thousandths = self.rng.below(below * 1_000);
        format!("{}.{:03}", thousandths / 1_000, thousandths % 1_000).into_bytes()
    }

    /// Elements `from..to` of the large hash and the large sorted set.
    fn large(&mut self, from: u64, to: u64) -> [Argv; 2] {
        let mut hash = argv!["HSET", "large:hash"];
        let mut sorted = argv!["ZADD", "large:sorted"];
        for element in from..to {
            let bytes = self.between(16, 47);
            hash.extend([format!("field:{element:08}").into_bytes(), self.text(bytes)]);
            sorted.extend([
                self.score(1_000_000),
                format!("member:{element:08}").into_bytes(),
            ]);
        }
        [hash, sorted]
    }
}

/// The RDB file with `strings` strings and the rest in proportion; made if it is not there.
pub(super) fn prepare(engine: &Engine, strings: u64) -> Result<PathBuf, String> {
    let folder = PathBuf::from("target/bench");
    let file = folder.join(format!("{}-{strings}.rdb", engine.name));
    if file.exists() {
        return Ok(file);
    }
    eprintln!("making {}", file.display());
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let server = Server::start(engine, ServerOptions::default());
    fill(&server, strings);
    server.client().command(&argv!["SAVE"]);
    // Under its name only when it is whole.
    let part = file.with_extension("part");
    fs::copy(server.rdb_file(), &part)
        .and_then(|_| fs::rename(&part, &file))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    let bytes = fs::metadata(&file).map_or(0, |meta| meta.len());
    eprintln!("{} of RDB", text::bytes(bytes));
    Ok(file)
}

fn fill(server: &Server, strings: u64) {
    let mut client = server.client();
    let mut rng = Rng::new(1);
    let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let pool = rng.bytes(POOL_BYTES);
    let pool = pool.iter().map(|byte| letters[usize::from(byte % 64)]);
    let pool = pool.collect();
    let mut maker = Maker { rng, pool };
    let mut waiting: Vec<Argv> = Vec::new();
    let mut send = |commands: &[Argv]| {
        waiting.extend_from_slice(commands);
        if waiting.len() >= PIPELINE || commands.is_empty() {
            client.commands(&waiting);
            waiting.clear();
        }
    };
    for at in 0..strings {
        send(&[maker.string(at)]);
    }
    for at in 0..strings / STRINGS_PER_COLLECTION {
        send(&maker.collections(at));
    }
    let elements = strings / STRINGS_PER_ELEMENT;
    for from in (0..elements).step_by(500) {
        send(&maker.large(from, elements.min(from + 500)));
    }
    let elements = strings / STRINGS_PER_LIST_ELEMENT;
    for from in (0..elements).step_by(100) {
        let mut list = argv!["RPUSH", "large:list"];
        list.extend((from..elements.min(from + 100)).map(|_| maker.text(1_000)));
        send(&[list]);
    }
    send(&[]);
}
