//! Puts keys of every type and encoding into a server.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::argv;
use crate::client::{Argv, Client};
use crate::rng::Rng;
use crate::version::Version;
use crate::workload::{DBS, streams, values};

/// Commands are sent in lots of about this many.
const LOT: usize = 2000;

/// Fills the server behind `client` with `keys` keys (a few fewer: near expiries come true) over all dbs of
/// [`DBS`], and with function libraries where it knows them.
pub fn fill(client: &mut Client, seed: u64, keys: u64) {
    fill_dbs(client, seed, keys, &DBS);
}

/// The same in some dbs.
pub fn fill_dbs(client: &mut Client, seed: u64, keys: u64, dbs: &[u32]) {
    let version = client.version();
    let mut filler = Filler {
        rng: Rng::new(seed),
        version,
        commands: Vec::new(),
    };
    let mut lots: Vec<Vec<(Vec<u8>, u64)>> = vec![Vec::new(); dbs.len()];
    for number in 0..keys {
        // Half of it in db 0, as people have it.
        let db = if filler.rng.one_in(2) {
            0
        } else {
            filler.rng.below(dbs.len() as u64) as usize
        };
        lots[db].push((name(&mut filler.rng, number), number));
    }
    for (db, lot) in dbs.iter().zip(lots) {
        filler.commands.push(argv!["SELECT", db]);
        for (key, number) in lot {
            filler.key(&key, number);
            if filler.commands.len() > LOT {
                send(client, &std::mem::take(&mut filler.commands));
            }
        }
    }
    filler.commands.push(argv!["SELECT", 0]);
    filler.functions();
    send(client, &filler.commands);
}

/// Errors are part of it: a group that is there already, an id that was deleted. A gone server is not.
fn send(client: &mut Client, commands: &[Argv]) {
    let (_, error) = client.pipeline(commands);
    if let Some(error) = error {
        panic!("{}: {error}", client.address());
    }
}

/// Mostly plain names; some that a careless tool trips over.
fn name(rng: &mut Rng, number: u64) -> Vec<u8> {
    match rng.below(40) {
        0 => [
            &rng.number().to_le_bytes()[..],
            b"\r\n\0",
            number.to_string().as_bytes(),
        ]
        .concat(),
        1 => format!("{}{number}", "long".repeat(100)).into_bytes(),
        2 => number.to_string().into_bytes(),
        3 => format!("with space {{tag}} *?[] \u{fc} {number}").into_bytes(),
        _ => format!("key:{number}").into_bytes(),
    }
}

struct Filler {
    rng: Rng,
    version: Version,
    commands: Vec<Argv>,
}

impl Filler {
    fn key(&mut self, key: &[u8], number: u64) {
        // The first keys walk through the kinds, so that even a small fill has them all.
        let kind = if number < 11 {
            number
        } else {
            self.rng.below(18)
        };
        match kind {
            0 | 11..=13 => self.push(|rng| argv!["SET", key, values::string(rng)]),
            1 => self.list(key),
            2 => self.set(key),
            3 => self.zset(key),
            4 | 14 => self.hash(key),
            5 | 15 if self.version.redis(5, 0) => {
                streams::build(&mut self.rng, &self.version, key, &mut self.commands);
            }
            6 => self.hyperloglog(key),
            7 => {
                for _ in 0..self.rng.within(1..20) {
                    self.push(|rng| argv!["SETBIT", key, rng.below(50_000), rng.below(2)]);
                }
            }
            8 => {
                for _ in 0..self.rng.within(1..40) {
                    self.push(|rng| {
                        let [longitude, latitude] = values::place(rng);
                        argv!["GEOADD", key, longitude, latitude, values::member(rng, 100)]
                    });
                }
            }
            9 => self.push(|rng| argv!["SET", key, values::number(rng)]),
            10 => self.push(|rng| argv!["APPEND", key, values::string(rng)]),
            _ => self.push(|rng| argv!["SET", key, rng.number()]),
        }
        self.expiry(key);
    }

    fn push(&mut self, command: impl FnOnce(&mut Rng) -> Argv) {
        let command = command(&mut self.rng);
        self.commands.push(command);
    }

    /// A size on this side or that of the limits at which encodings change.
    fn size(&mut self) -> u64 {
        *self.rng.pick(&[1, 2, 5, 60, 127, 129, 300, 513, 700])
    }

    fn list(&mut self, key: &[u8]) {
        let size = self.size();
        let word = *self.rng.pick(&["RPUSH", "LPUSH"]);
        let mut argv = argv![word, key];
        for _ in 0..size {
            argv.push(values::string(&mut self.rng));
        }
        self.commands.push(argv);
    }

    fn set(&mut self, key: &[u8]) {
        let size = self.size();
        let numbers = self.rng.one_in(2);
        let mut argv = argv!["SADD", key];
        for _ in 0..size {
            argv.push(if numbers {
                values::number(&mut self.rng)
            } else {
                values::member(&mut self.rng, 2000)
            });
        }
        self.commands.push(argv);
    }

    fn zset(&mut self, key: &[u8]) {
        let size = self.size();
        let mut argv = argv!["ZADD", key];
        for _ in 0..size {
            argv.extend(argv![
                values::score(&mut self.rng),
                values::member(&mut self.rng, 2000)
            ]);
        }
        self.commands.push(argv);
    }

    fn hash(&mut self, key: &[u8]) {
        let size = self.size();
        let mut argv = argv!["HMSET", key];
        let mut fields = Vec::new();
        for _ in 0..size {
            let field = values::member(&mut self.rng, 2000);
            argv.extend([field.clone(), values::string(&mut self.rng)]);
            fields.push(field);
        }
        self.commands.push(argv);
        if self.version.has_field_ttl() && self.rng.one_in(2) {
            for field in &fields {
                if self.rng.one_in(3) {
                    let at_ms = self.death();
                    self.commands
                        .push(argv!["HPEXPIREAT", key, at_ms, "FIELDS", 1, field]);
                }
            }
        }
    }

    /// Sparse, dense, or empty.
    fn hyperloglog(&mut self, key: &[u8]) {
        let size = *self.rng.pick(&[0, 1, 30, 3000]);
        let mut argv = argv!["PFADD", key];
        argv.extend((0..size).map(|_| values::number(&mut self.rng)));
        self.commands.push(argv);
    }

    fn expiry(&mut self, key: &[u8]) {
        if self.rng.one_in(4) {
            let at_ms = self.death();
            self.commands.push(argv!["PEXPIREAT", key, at_ms]);
        }
    }

    /// Mostly far; some during the test, some in an instant.
    fn death(&mut self) -> u64 {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_millis() as u64);
        match self.rng.below(10) {
            0 => now + self.rng.within(20..2000),
            1 | 2 => now + self.rng.within(2000..60_000),
            3 => 9_999_999_999_999,
            _ => now + self.rng.within(3_600_000..90_000_000_000),
        }
    }

    fn functions(&mut self) {
        if !self.version.has_functions() {
            return;
        }
        for number in 0..3 {
            let code = format!(
                "#!lua name=library{number}\n\
                 redis.register_function('read{number}', function(keys) return redis.call('GET', keys[1]) end)\n\
                 redis.register_function('write{number}', function(keys, args)\n\
                 return redis.call('SET', keys[1], args[1]) end)\n"
            );
            self.commands
                .push(argv!["FUNCTION", "LOAD", "REPLACE", code]);
        }
    }
}
