//! Follows a source and says what it says: a developer's tool to watch a link at work.
//!
//! ```text
//! cargo run -p replica --example follow -- 127.0.0.1:6379 [--no-eof] [--zero] [--version X]
//!     [--user U] [--password P] [--seconds N] [--reconnects N]
//! ```
//!
//! Every received byte counts as applied at once. When the link ends and time may heal it, it
//! resumes after the last byte. The target of a real migration is missing here: this drops the data.

use std::{
    env,
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use replica::{AckMode, Class, Error, Event, Link, Options, Poll, Start};

struct Follow {
    address: String,
    options: Options,
    begun: Instant,
    until: Duration,
    reconnects: u32,
    received: Totals,
}

#[derive(Default)]
struct Totals {
    snapshot: u64,
    stream: u64,
    chunks: u64,
}

/// Why a connection is done with.
enum Ended {
    TimeIsUp,
    Link(Error),
    Io(std::io::Error),
}

fn main() -> ExitCode {
    let Some(mut follow) = Follow::from_args() else {
        eprintln!("usage: follow host:port [--no-eof] [--zero] [--version X] [--user U] ..");
        return ExitCode::from(2);
    };
    let mut start = Start::Full;
    loop {
        let mut link = Link::new(follow.options.clone(), start, follow.now_ms());
        let again = match follow.connection(&mut link) {
            Ended::TimeIsUp => return ExitCode::SUCCESS,
            Ended::Io(error) => {
                follow.say(&link, &format!("socket: {error}"));
                true
            }
            Ended::Link(error) => {
                follow.say(&link, &format!("{:?}: {error}", error.class()));
                error.class() == Class::Reconnect
            }
        };
        if !again || follow.reconnects == 0 {
            return ExitCode::FAILURE;
        }
        follow.reconnects -= 1;
        start = match link.replid() {
            None => Start::Full,
            Some(replid) => Start::Resume {
                replid,
                received: link.received(),
                partial: Bytes::copy_from_slice(&link.partial()),
            },
        };
        thread::sleep(Duration::from_millis(200));
    }
}

impl Follow {
    fn from_args() -> Option<Self> {
        let mut args = env::args().skip(1);
        let mut follow = Self {
            address: args.next()?,
            options: Options::default(),
            begun: Instant::now(),
            until: Duration::MAX,
            reconnects: 3,
            received: Totals::default(),
        };
        while let Some(flag) = args.next() {
            match flag.as_str() {
                "--no-eof" => follow.options.capa_eof = false,
                "--zero" => follow.options.ack = AckMode::Zero,
                "--version" => follow.options.version = Some(args.next()?),
                "--user" => follow.options.username = Some(args.next()?),
                "--password" => follow.options.password = Some(args.next()?),
                "--seconds" => follow.until = Duration::from_secs(args.next()?.parse().ok()?),
                "--reconnects" => follow.reconnects = args.next()?.parse().ok()?,
                _ => return None,
            }
        }
        Some(follow)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn say(&self, link: &Link, text: &str) {
        let Totals {
            snapshot,
            stream,
            chunks,
        } = self.received;
        println!(
            "{:>8} ms  {text}  [{}, offset {}, {snapshot} snapshot and {stream} stream bytes in \
             {chunks} chunks]",
            self.now_ms(),
            link.state(),
            link.received(),
        );
    }

    fn connection(&mut self, link: &mut Link) -> Ended {
        match self.serve(link) {
            Ok(ended) => ended,
            Err(error) => Ended::Io(error),
        }
    }

    fn serve(&mut self, link: &mut Link) -> std::io::Result<Ended> {
        let mut socket = TcpStream::connect(&self.address)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut buffer = vec![0; 1 << 20];
        while self.begun.elapsed() < self.until {
            while let Some(bytes) = link.output() {
                socket.write_all(&bytes)?;
            }
            match socket.read(&mut buffer) {
                Ok(0) => return Ok(Ended::Link(link.eof())),
                Ok(read) => link.feed(Bytes::copy_from_slice(&buffer[..read])),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) => return Err(error),
            }
            if let Err(error) = self.events(link) {
                return Ok(Ended::Link(error));
            }
        }
        self.say(link, "time is up");
        Ok(Ended::TimeIsUp)
    }

    fn events(&mut self, link: &mut Link) -> Result<(), Error> {
        while let Poll::Event(event) = link.poll()? {
            match &event {
                Event::Snapshot(bytes) => {
                    self.received.snapshot += bytes.len() as u64;
                    self.received.chunks += 1;
                }
                Event::Stream { bytes, .. } => {
                    self.received.stream += bytes.len() as u64;
                    self.received.chunks += 1;
                }
                Event::SnapshotEnd { .. }
                | Event::FullResync { .. }
                | Event::Continue { .. }
                | Event::RdbChannel(_)
                | Event::SnapshotAt(_)
                | Event::SnapshotStart { .. } => self.say(link, &format!("{event:?}")),
            }
        }
        link.applied(link.received());
        link.tick(self.now_ms())
    }
}
