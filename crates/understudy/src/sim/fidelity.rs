//! The simulated target beside a real server: the same commands over the same connections, and the same answers.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use resp::{Limits, Value, ValueDecoder, encode};
use testkit::rdb_writer::{RdbWriter, payload};
use testkit::rng::Rng;
use testkit::server::Server;

use super::oracle::Oracle;
use super::source::{Source, replid};
use super::store::Store;
use super::target::{Target, Trouble};
use super::world::{Weather, World};

const CONNS: u64 = 3;
/// Commands that are told of when the answers differ.
const TRAIL: usize = 60;

fn decode(buf: &mut BytesMut) -> Option<Value> {
    ValueDecoder::new(Limits::default())
        .poll(buf)
        .expect("RESP")
}

/// A real server, asked over a few connections.
struct Real {
    server: Server,
    conns: Vec<TcpStream>,
}

impl Real {
    fn start(engine: &str) -> Self {
        let server = Server::of(engine);
        // Keys that should have ended stay until somebody looks at them, as in the simulation.
        let mut client = server.client();
        client.command(&testkit::argv!["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
        let connect = |_| TcpStream::connect(server.address()).expect("a connection");
        let conns = (0..CONNS).map(connect).collect();
        Self { server, conns }
    }

    fn ask(&mut self, conn: u64, frame: &[u8]) -> Value {
        let stream = &mut self.conns[conn as usize];
        stream.write_all(frame).expect("written");
        let (mut buf, mut part) = (BytesMut::new(), [0; 4096]);
        loop {
            let len = stream.read(&mut part).expect("read");
            assert!(len > 0, "the server hung up");
            buf.extend_from_slice(&part[..len]);
            // What came is decoded anew each time: it is short.
            if let Some(value) = decode(&mut buf.clone()) {
                return value;
            }
        }
    }

    /// The same trouble as the simulated one has.
    fn set_trouble(&self, trouble: Option<Trouble>) {
        let mut client = self.server.client();
        let mut run = |words: &str| {
            let argv: Vec<Vec<u8>> = words.split(' ').map(|word| word.into()).collect();
            client.command(&argv);
        };
        run("config set maxmemory 0");
        run("config set min-replicas-to-write 0");
        run("replicaof no one");
        match trouble {
            Some(Trouble::OutOfMemory) => run("config set maxmemory 1"),
            Some(Trouble::NoReplicas) => run("config set min-replicas-to-write 1"),
            Some(Trouble::ReadOnly) => run("replicaof 127.0.0.1 1"),
            None => {}
            Some(other) => panic!("{other:?} cannot be had at will"),
        }
    }
}

/// The simulated one.
struct Simulated(Rc<World>);

impl Simulated {
    fn start() -> Self {
        let target = Target::new(replid(9), Oracle::new("none"));
        let source = Source::new(Store::default(), 0, 1);
        let world = World::new(Rng::new(1), Weather::CALM, source, target, false);
        (0..CONNS).for_each(|conn| world.target.borrow_mut().accept(conn));
        Self(world)
    }

    fn ask(&self, conn: u64, frame: &[u8]) -> Value {
        let mut target = self.0.target.borrow_mut();
        target.receive(&self.0, conn, &Bytes::copy_from_slice(frame));
        let (said, _) = target.take_output();
        let all: Vec<u8> = said.into_iter().flat_map(|(_, bytes)| bytes).collect();
        decode(&mut BytesMut::from(&all[..])).expect("an answer")
    }
}

/// What two servers must have in common: of an error its first word, of a set of keys not the order.
fn comparable(value: Value, is_scan: bool) -> String {
    match value {
        Value::Error(error) => {
            let text = String::from_utf8_lossy(&error.text).into_owned();
            format!("-{}", text.split(' ').next().unwrap_or_default())
        }
        Value::Array(items) => {
            let mut items: Vec<String> = items
                .into_iter()
                .map(|item| comparable(item, is_scan))
                .collect();
            if is_scan {
                items.sort();
            }
            format!("{items:?}")
        }
        other => format!("{other:?}"),
    }
}

fn command(rng: &mut Rng) -> Vec<Vec<u8>> {
    let names = ["a", "b", "c"];
    let (key, other) = (*rng.pick(&names), *rng.pick(&names));
    let number = rng.below(50).to_string();
    let late = (1_900_000_000_000 + rng.below(9)).to_string();
    let text = payload(RdbWriter::body().byte(0).text(&number).as_bytes(), 9);
    let list = RdbWriter::body()
        .byte(1)
        .len(2)
        .text("x")
        .text(&number)
        .as_bytes()
        .to_vec();
    let list = payload(&list, 9);
    let words: Vec<&str> = match rng.below(34) {
        0 | 1 => vec!["SET", key, &number],
        2 => vec!["SET", key, &number, "PXAT", &late],
        3 => vec!["SET", key, &number, "KEEPTTL"],
        4 => vec!["SET", key, &number, "PXAT", "1"],
        5 => vec!["MSET", key, &number, other, "x"],
        6 => vec!["GET", key],
        7 => vec!["INCR", key],
        8 => vec!["INCRBY", key, &number],
        9 => vec!["DECRBY", key, &number],
        10 => vec!["APPEND", key, &number],
        11 => vec!["RPUSH", key, &number, "z"],
        12 => vec!["LPUSH", key, &number, "z"],
        13 => vec!["LPOP", key],
        14 => vec!["LRANGE", key, "0", "-1"],
        15 => vec!["LLEN", key],
        16 => vec!["DEL", key, other],
        17 => vec!["UNLINK", key],
        18 => vec!["RENAME", key, other],
        19 => vec!["PEXPIREAT", key, &late],
        20 => vec!["PEXPIREAT", key, "1"],
        21 => vec!["PERSIST", key],
        22 => vec!["PEXPIRETIME", key],
        23 => vec!["TYPE", key],
        24 => vec!["SELECT", *rng.pick(&["0", "0", "1", "16"])],
        25 => vec!["SCAN", "0", "MATCH", "a*", "COUNT", "1000"],
        26..29 => vec!["MULTI"],
        29 | 30 => vec!["EXEC"],
        31 => vec!["DISCARD"],
        32 => vec!["WATCH", key],
        _ if rng.one_in(6) => vec!["FLUSHALL"],
        _ if rng.one_in(2) => vec!["UNWATCH"],
        _ => {
            let payload = if rng.one_in(2) { text } else { list };
            let is_plain = rng.one_in(4);
            // Without ABSTTL a time is counted from now, which is not the same for both.
            let ttl = if is_plain { "0" } else { &late };
            let argv: [&[u8]; 6] = [
                b"RESTORE",
                key.as_bytes(),
                ttl.as_bytes(),
                &payload,
                b"REPLACE",
                b"ABSTTL",
            ];
            let len = if is_plain { 4 } else { 6 };
            return argv[..len].iter().map(|word| word.to_vec()).collect();
        }
    };
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

#[test]
fn the_simulated_target_answers_as_a_real_server_does() {
    let rng = &mut Rng::new(Rng::seed_from_env());
    let (mut real, simulated) = (Real::start("redis-7.0"), Simulated::start());
    let (mut aborted, mut trail) = (0, VecDeque::new());
    for round in 0..12 {
        let trouble = match round % 6 {
            1 => Some(Trouble::OutOfMemory),
            3 => Some(Trouble::NoReplicas),
            5 => Some(Trouble::ReadOnly),
            _ => None,
        };
        real.set_trouble(trouble);
        simulated.0.target.borrow_mut().set_trouble(trouble);
        for step in 0..700 {
            let (conn, argv) = (rng.below(CONNS), command(rng));
            let mut frame = Vec::new();
            let words: Vec<&[u8]> = argv.iter().map(|word| &word[..]).collect();
            encode::command(&mut frame, &words);
            // What was queued may have been SCAN.
            let is_scan = argv[0] == b"SCAN" || argv[0] == b"EXEC";
            let expected = comparable(real.ask(conn, &frame), is_scan);
            let got = comparable(simulated.ask(conn, &frame), is_scan);
            trail.push_back(format!("{conn}: {}", testkit::client::show(&argv)));
            if trail.len() > TRAIL {
                trail.pop_front();
            }
            let is_exec = argv[0] == b"EXEC";
            aborted += u32::from(is_exec && (expected == "-EXECABORT" || expected == "Null"));
            assert_eq!(
                got, expected,
                "round {round} ({trouble:?}), step {step}, after {trail:#?}"
            );
        }
    }
    assert!(aborted > 20, "only {aborted} transactions had no effect");
}
