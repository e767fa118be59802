//! What a value costs the target by `RESTORE` and by commands, by its kind and size.
//!
//! A server is filled with values of one kind and size and saved; the snapshot's rewriter makes of the file what the
//! daemon would send, once with every value in one `RESTORE` and once by commands alone, in transactions of the daemon's size;
//! a fresh server takes it. Counted are that server's own CPU, what its longest transaction took (so long nobody else is
//! served), and the memory it needed beyond the data.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;

use bytes::Bytes;
use rdb::{Decoder, Event, Limits, Poll, Want};
use rewrite::{Abilities, Fork, Kind, SnapshotOptions, SnapshotRewriter, Version};
use testkit::client::Argv;
use testkit::version::Family;
use testkit::{Client, Engine, Server, ServerOptions, argv};

/// The daemon's transactions are about as long.
const UNIT_BYTES: usize = 256 << 10;
/// About how many elements a run brings over in all.
const ELEMENTS: u64 = 1_000_000;
/// The most keys of a run.
const KEYS_MAX: u64 = 100_000;
/// Commands of one pipeline when a server is filled.
const PIPELINE: usize = 1_000;

/// A kind of values and how many elements (of a string: bytes) they have: some of just about the MiB up to which the daemon
/// restores.
struct Case {
    kind: &'static str,
    sizes: &'static [u64],
}

const CASES: [Case; 7] = [
    Case {
        kind: "string",
        sizes: &[16, 100, 1_000, 10_000, 1_000_000],
    },
    Case {
        kind: "list",
        sizes: &[5, 50, 1_000, 10_000, 60_000, 100_000, 1_000_000],
    },
    Case {
        kind: "set of numbers",
        sizes: &[5, 50, 500],
    },
    Case {
        kind: "set",
        sizes: &[5, 50, 1_000, 10_000, 100_000, 1_000_000],
    },
    Case {
        kind: "hash",
        sizes: &[5, 50, 1_000, 10_000, 30_000, 100_000, 1_000_000],
    },
    Case {
        kind: "zset",
        sizes: &[5, 50, 1_000, 10_000, 32_000, 100_000, 1_000_000],
    },
    Case {
        kind: "stream",
        sizes: &[5, 50, 1_000, 10_000, 100_000, 1_000_000],
    },
];

/// How values go over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Restore,
    Commands,
}

/// What one run cost.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// CPU of the target, in microseconds a key.
    cpu_us: f64,
    /// The mean time of its transactions, in milliseconds.
    transaction_ms: f64,
    /// Most memory it had beyond what it had at the end, in MB.
    extra_mb: f64,
}

/// Measures and prints a table.
pub(super) fn run(engine: &Engine, runs: usize) -> Result<(), String> {
    println!(
        "| kind | elements | bytes | RESTORE, us a key | commands, us a key | ratio | RESTORE holds, ms | commands hold, ms | RESTORE, MB beside | commands, MB beside |\n\
         |---|---|---|---|---|---|---|---|---|---|"
    );
    for case in CASES {
        for size in case.sizes {
            let line = measure(engine, case.kind, *size, runs)
                .map_err(|error| format!("{} of {size}: {error}", case.kind))?;
            println!("{line}");
        }
    }
    Ok(())
}

/// A row of the table: medians of both ways, run in turns.
fn measure(engine: &Engine, kind: &'static str, size: u64, runs: usize) -> Result<String, String> {
    let keys = if kind == "string" {
        (200_000_000 / size).clamp(1, KEYS_MAX)
    } else {
        (ELEMENTS / size).clamp(1, KEYS_MAX)
    };
    let source = Server::start(engine, ServerOptions::default());
    fill(&mut source.client(), kind, size, keys);
    source.client().command(&argv!["SAVE"]);
    let file = std::fs::read(source.rdb_file()).map_err(|error| error.to_string())?;
    let version = source.engine().version;
    drop(source);
    let fork = match version.family {
        Family::Valkey => Fork::Valkey,
        Family::Redis | Family::Redict => Fork::Redis,
    };
    let version = format!("{}.{}", version.major, version.minor);
    let version = version
        .parse::<Version>()
        .map_err(|error| error.to_string())?;
    let abilities = Abilities::from_version(fork, version);
    let file = Bytes::from(file);
    let ways = [Way::Restore, Way::Commands];
    let mut sent = Vec::new();
    let mut bytes = 0;
    for way in ways {
        let (units, largest) = units(&file, abilities.clone(), way)?;
        bytes = largest.max(bytes);
        sent.push(units);
    }
    let mut costs = [Vec::new(), Vec::new()];
    for _ in 0..runs {
        for (units, costs) in sent.iter().zip(&mut costs) {
            costs.push(apply(engine, units, keys)?);
        }
    }
    let [restore, commands] = costs.map(|costs| medians(&costs));
    let mut row = format!("| {kind} | {size} | {bytes} ");
    let ratio = commands.cpu_us / restore.cpu_us.max(1e-9);
    let _ = write!(
        row,
        "| {:.1} | {:.1} | {ratio:.2} ",
        restore.cpu_us, commands.cpu_us
    );
    let _ = write!(
        row,
        "| {:.2} | {:.2} ",
        restore.transaction_ms, commands.transaction_ms
    );
    let _ = write!(
        row,
        "| {:.1} | {:.1} |",
        restore.extra_mb, commands.extra_mb
    );
    Ok(row)
}

fn fill(client: &mut Client, kind: &str, size: u64, keys: u64) {
    let mut waiting: Vec<Argv> = Vec::new();
    for key in 0..keys {
        let name = format!("{kind}:{key:08}").replace(' ', "-");
        if kind == "string" {
            // Text that a server's compression gains little on.
            let words = (key * size..).map(|at| format!("{:x}", mixed(at)));
            let mut text = String::new();
            for word in words {
                if text.len() as u64 >= size {
                    break;
                }
                text.push_str(&word);
            }
            let text = text.get(..usize::try_from(size).unwrap_or(0));
            waiting.push(argv!["SET", name, text.unwrap_or_default()]);
        }
        let elements = if kind == "string" { 0 } else { size };
        for from in (0..elements).step_by(500) {
            let range = from..elements.min(from + 500);
            match kind {
                "stream" => waiting.extend(range.map(|at| {
                    let (id, text) = (format!("{}-1", at + 1), format!("a message {at}"));
                    argv!["XADD", name, id, "text", text, "number", at]
                })),
                _ => waiting.push(elements_of(kind, &name, range)),
            }
        }
        if waiting.len() >= PIPELINE {
            client.commands(&waiting);
            waiting.clear();
        }
    }
    client.commands(&waiting);
}

/// A number that looks like chance.
fn mixed(at: u64) -> u64 {
    let mixed = at.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
}

fn elements_of(kind: &str, name: &str, range: std::ops::Range<u64>) -> Argv {
    let mut argv = match kind {
        "list" => argv!["RPUSH", name],
        "hash" => argv!["HSET", name],
        "zset" => argv!["ZADD", name],
        _ => argv!["SADD", name],
    };
    for at in range {
        // Neither ascending nor alike, as members mostly are not.
        let mixed = mixed(at);
        let text = format!("element-{mixed:016x}");
        match kind {
            "list" => argv.extend(argv![text]),
            "hash" => argv.extend(argv![format!("field-{at}"), text]),
            "zset" => argv.extend(argv![format!("{}.25", mixed >> 40), text]),
            "set of numbers" => argv.extend(argv![mixed >> 40]),
            _ => argv.extend(argv![text]),
        }
    }
    argv
}

/// The transactions that bring a file over, and the bytes of its largest value.
fn units(file: &Bytes, abilities: Abilities, way: Way) -> Result<(Vec<Vec<u8>>, usize), String> {
    let version = abilities.payload_version(0, false).unwrap_or(11);
    let mut options = SnapshotOptions::new(abilities, 0);
    options.restore_bytes_max = u64::MAX;
    options.target.restore = way == Way::Restore;
    let mut rewriter = SnapshotRewriter::new(options);
    let mut decoder = Decoder::new(Limits::default());
    decoder.feed(file.clone());
    let (mut units, mut unit, mut sent) = (Vec::new(), Unit::default(), Vec::new());
    let (mut string, mut ahead, mut largest) = (None, None, 0);
    loop {
        match decoder.poll().map_err(|error| error.to_string())? {
            // The daemon never restores a string: what it would cost is of interest all the same.
            Poll::Event(Event::Key(head)) if head.kind == Kind::String && way == Way::Restore => {
                string = Some(head.key);
                let bytes_max = u64::MAX;
                decoder.want(Want::Raw { bytes_max });
            }
            Poll::Event(Event::Raw(body)) if string.is_some() => {
                largest = largest.max(body.len());
                let mut payload = Vec::new();
                rdb::dump::payload(&mut payload, None, 0, &body, version);
                let key = string.take().unwrap_or_default();
                unit.command(&argv!["RESTORE", &key[..], 0, payload, "REPLACE"]);
            }
            Poll::Event(Event::Key(head)) => {
                let want = rewriter.key(&head).map_err(|error| error.to_string())?;
                ahead = decoder.lookahead().filter(|_| head.kind == Kind::Stream);
                decoder.want(want);
            }
            Poll::Event(event) => {
                if let Event::Raw(body) = &event {
                    largest = largest.max(body.len());
                }
                if let (Event::ValueStart { .. }, Some(ahead)) = (&event, ahead.take()) {
                    look_ahead(ahead, &mut rewriter)?;
                }
                let written = rewriter.event(event, &mut unit.bytes, &mut sent);
                written.map_err(|error| error.to_string())?;
                unit.commands += sent.len();
                sent.clear();
            }
            Poll::NeedMore => return Err("the file ends too early".into()),
            Poll::End => break,
        }
        if unit.bytes.len() >= UNIT_BYTES && !rewriter.is_in_command() {
            units.push(std::mem::take(&mut unit).closed());
        }
    }
    if unit.commands > 0 {
        units.push(unit.closed());
    }
    Ok((units, largest))
}

/// What follows a stream's messages, which the rewriter wants to know before them.
fn look_ahead(mut ahead: Decoder, rewriter: &mut SnapshotRewriter) -> Result<(), String> {
    ahead.want(Want::Groups);
    loop {
        match ahead.poll().map_err(|error| error.to_string())? {
            Poll::Event(event) => {
                rewriter.ahead(&event).map_err(|error| error.to_string())?;
            }
            Poll::End => return Ok(()),
            Poll::NeedMore => return Err("the stream has no end".into()),
        }
    }
}

/// A transaction in the making.
#[derive(Default)]
struct Unit {
    bytes: Vec<u8>,
    commands: usize,
}

impl Unit {
    fn command(&mut self, argv: &[Vec<u8>]) {
        let _ = write!(self.bytes, "*{}\r\n", argv.len());
        for word in argv {
            let _ = write!(self.bytes, "${}\r\n", word.len());
            self.bytes.extend_from_slice(word);
            self.bytes.extend_from_slice(b"\r\n");
        }
        self.commands += 1;
    }

    fn closed(self) -> Vec<u8> {
        [
            &b"*1\r\n$5\r\nMULTI\r\n"[..],
            &self.bytes,
            b"*1\r\n$4\r\nEXEC\r\n",
        ]
        .concat()
    }
}

/// Sends the transactions to a fresh server, one on its way at a time as the daemon does.
fn apply(engine: &Engine, units: &[Vec<u8>], keys: u64) -> Result<Cost, String> {
    let target = Server::start(engine, ServerOptions::default());
    let mut observer = target.client();
    let failed = |error: std::io::Error| format!("the target: {error}");
    let mut stream = TcpStream::connect(target.address()).map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    let before = cpu_us(&mut observer);
    for unit in units {
        stream.write_all(unit).map_err(failed)?;
        stream
            .write_all(b"*2\r\n$4\r\nECHO\r\n$7\r\nthe-end\r\n")
            .map_err(failed)?;
        wait_end(&mut stream).map_err(failed)?;
    }
    let cpu_us = cpu_us(&mut observer) - before;
    let memory = observer.info("memory");
    let used = |name: &str| {
        let bytes = memory.get(name).and_then(|word| word.parse::<f64>().ok());
        bytes.unwrap_or_default()
    };
    let stats = observer.info("commandstats");
    let failures: Vec<&String> = stats
        .iter()
        .filter(|(_, row)| {
            row.split(',')
                .any(|part| part.starts_with("failed_calls=") && part != "failed_calls=0")
        })
        .map(|(name, _)| name)
        .collect();
    let held: u64 = observer.keyspace().into_values().sum();
    if held != keys || !failures.is_empty() {
        return Err(format!(
            "{held} keys of {keys} are there, refused: {failures:?}"
        ));
    }
    let row = stats.get("cmdstat_exec").cloned().unwrap_or_default();
    let usec = row
        .split(',')
        .find_map(|part| part.strip_prefix("usec_per_call="));
    let usec: f64 = usec.and_then(|word| word.parse().ok()).unwrap_or_default();
    Ok(Cost {
        cpu_us: cpu_us / keys as f64,
        transaction_ms: usec / 1e3,
        extra_mb: (used("used_memory_peak") - used("used_memory")) / 1e6,
    })
}

/// Reads replies up to the marker.
fn wait_end(stream: &mut TcpStream) -> std::io::Result<()> {
    const END: &[u8] = b"the-end\r\n";
    let (mut buffer, mut tail) = (vec![0; 64 << 10], Vec::new());
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        tail.extend_from_slice(buffer.get(..len).unwrap_or_default());
        if tail.ends_with(END) {
            return Ok(());
        }
        let keep = tail.len().saturating_sub(END.len());
        tail.drain(..keep);
    }
}

fn cpu_us(client: &mut Client) -> f64 {
    let info = client.info("cpu");
    let seconds = ["used_cpu_user", "used_cpu_sys"]
        .iter()
        .filter_map(|name| info.get(*name)?.parse::<f64>().ok());
    seconds.sum::<f64>() * 1e6
}

fn medians(costs: &[Cost]) -> Cost {
    let median = |of: fn(&Cost) -> f64| {
        let mut figures: Vec<f64> = costs.iter().map(of).collect();
        figures.sort_by(f64::total_cmp);
        figures.get(figures.len() / 2).copied().unwrap_or_default()
    };
    Cost {
        cpu_us: median(|cost| cost.cpu_us),
        transaction_ms: median(|cost| cost.transaction_ms),
        extra_mb: median(|cost| cost.extra_mb),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_bring_the_same_values() {
        let engine = Engine::of("redis-7.0");
        for case in CASES {
            let size = case.sizes[1];
            let row = measure(&engine, case.kind, size, 1).expect(case.kind);
            let figures: Vec<&str> = row.split('|').map(str::trim).collect();
            let cpu: f64 = figures[4].parse().expect("a figure");
            assert!(cpu > 0.0, "{row}");
        }
    }
}
