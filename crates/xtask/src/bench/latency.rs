//! How long a write takes to the target, at a light load.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::{Engine, Rng, Server, argv};

use super::link::{Link, Tool};

const LOAD_PER_SECOND: u64 = 1_000;
const MARKERS: u64 = 500;

/// One run: milliseconds from the reply to a SET at the source until GET at the target, asked without a pause, shows it.
pub(super) fn measure(engine: &Engine, tool: &Tool, seed: u64) -> Result<Value, String> {
    let source = Server::start(engine, tool.servers());
    let (mut link, _) = Link::follow(tool, &source, engine)?;
    let stop = AtomicBool::new(false);
    let mut delays = std::thread::scope(|scope| {
        scope.spawn(|| load(&source, &stop));
        std::thread::sleep(Duration::from_millis(1_500));
        link.begin_counting();
        let delays = delays(&source, &link.target, seed);
        stop.store(true, Ordering::Relaxed);
        delays
    })
    .map_err(|error| error.to_string())?;
    delays.sort_by(f64::total_cmp);
    let mut figures = link.costs(1.0);
    let at = |share: f64| delays[((delays.len() as f64 * share) as usize).min(delays.len() - 1)];
    figures["p50_ms"] = at(0.5).into();
    figures["p99_ms"] = at(0.99).into();
    figures["max_ms"] = at(1.0).into();
    link.end_equal()?;
    Ok(figures)
}

fn load(source: &Server, stop: &AtomicBool) {
    let mut client = source.client();
    let value = vec![b'x'; 64];
    let from = Instant::now();
    let mut done = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = (from.elapsed().as_secs_f64() * LOAD_PER_SECOND as f64) as u64;
        while done < due {
            client.command(&argv!["SET", format!("load:{}", done % 100_000), value]);
            done += 1;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// In milliseconds, in the order of the markers.
fn delays(source: &Server, target: &Server, seed: u64) -> std::io::Result<Vec<f64>> {
    let (mut source, mut target) = (connect(source)?, connect(target)?);
    let mut rng = Rng::new(seed);
    let mut delays = Vec::new();
    let ask = b"*2\r\n$3\r\nGET\r\n$11\r\nbench:delay\r\n";
    for number in 100_000..100_000 + MARKERS {
        let set = format!("*3\r\n$3\r\nSET\r\n$11\r\nbench:delay\r\n$6\r\n{number}\r\n");
        call(&mut source, set.as_bytes(), b"+OK\r\n")?;
        let from = Instant::now();
        let wanted = format!("$6\r\n{number}\r\n");
        while !call(&mut target, ask, wanted.as_bytes())? {}
        delays.push(from.elapsed().as_secs_f64() * 1e3);
        // Whole milliseconds would fall in step with the load.
        std::thread::sleep(Duration::from_micros(rng.within(10_000..30_000)));
    }
    Ok(delays)
}

fn connect(server: &Server) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(server.address())?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends a command; whether the reply, which is one packet, is `wanted`.
fn call(stream: &mut TcpStream, command: &[u8], wanted: &[u8]) -> std::io::Result<bool> {
    stream.write_all(command)?;
    let mut reply = [0; 64];
    let read = stream.read(&mut reply)?;
    Ok(&reply[..read] == wanted)
}
