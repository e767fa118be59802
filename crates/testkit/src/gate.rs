//! A proxy that understands what passes: it refuses commands by name, as managed services do, and loses some of the
//! messages of a subscription, as no service should.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::Rng;

/// What it does with a command that it does not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// `-ERR unknown command`.
    Unknown,
    /// It closes the connection.
    Closes,
}

#[derive(Debug)]
struct State {
    upstream: String,
    refused: Mutex<BTreeSet<Vec<u8>>>,
    refusal: Refusal,
    closed: AtomicBool,
    /// Of a hundred messages, so many are lost.
    lost_percent: AtomicU64,
    passed: AtomicU64,
    lost: AtomicU64,
    rng: Mutex<Rng>,
    streams: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

/// A running gate; its connections end when it is dropped.
#[derive(Debug)]
pub struct Gate {
    address: String,
    state: Arc<State>,
}

impl Gate {
    /// A gate before the server at `upstream` that refuses these commands (in lower case).
    pub fn start(upstream: &str, refused: &[&str], refusal: Refusal, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(State {
            upstream: upstream.into(),
            refused: Mutex::new(
                refused
                    .iter()
                    .map(|name| name.as_bytes().to_vec())
                    .collect(),
            ),
            closed: AtomicBool::new(false),
            refusal,
            lost_percent: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            rng: Mutex::new(Rng::new(seed)),
            streams: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let gate = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if gate.ended.load(Ordering::SeqCst) {
                    return;
                }
                if gate.closed.load(Ordering::SeqCst) {
                    continue;
                }
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&gate.upstream)) else {
                    continue;
                };
                gate.clone().serve(client, server);
            }
        });
        Self { address, state }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// From now on so many of a hundred messages of subscriptions are lost.
    pub fn lose(&self, percent: u64) {
        self.state.lost_percent.store(percent, Ordering::SeqCst);
    }

    /// Messages of subscriptions that were passed on, and those that were not.
    pub fn messages(&self) -> (u64, u64) {
        let count = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        (count(&self.state.passed), count(&self.state.lost))
    }

    /// From now on this command (in lower case) is let through.
    pub fn allow(&self, command: &str) {
        self.state.refused().remove(command.as_bytes());
    }

    /// Cuts all connections, and every one that comes, until [`Self::open`].
    pub fn close(&self) {
        self.state.closed.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Ends [`Self::close`].
    pub fn open(&self) {
        self.state.closed.store(false, Ordering::SeqCst);
    }

    /// Cuts all connections.
    pub fn cut(&self) {
        for stream in self.state.streams().drain(..) {
            // It may be gone already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(&self.address);
    }
}

impl State {
    fn streams(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.streams
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, BTreeSet<Vec<u8>>> {
        self.refused
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn serve(self: Arc<Self>, client: TcpStream, server: TcpStream) {
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("set TCP_NODELAY");
            self.streams()
                .push(stream.try_clone().expect("share a socket"));
        }
        let back = (
            server.try_clone().expect("share a socket"),
            client.try_clone().expect("share a socket"),
        );
        let (to_server, to_client) = (self.clone(), self);
        std::thread::spawn(move || {
            // An end that breaks ends both.
            let _ = to_server.commands(&client, &server);
            let _ = (
                client.shutdown(Shutdown::Both),
                server.shutdown(Shutdown::Both),
            );
        });
        std::thread::spawn(move || {
            let _ = to_client.replies(&back.0, &back.1);
            let _ = (
                back.0.shutdown(Shutdown::Both),
                back.1.shutdown(Shutdown::Both),
            );
        });
    }

    fn commands(&self, mut client: &TcpStream, mut server: &TcpStream) -> std::io::Result<()> {
        let mut kept = Vec::new();
        let mut chunk = vec![0; 64 << 10];
        loop {
            let len = client.read(&mut chunk)?;
            if len == 0 {
                return Ok(());
            }
            kept.extend_from_slice(&chunk[..len]);
            let (mut at, mut passed) = (0, 0);
            while let Some(len) = value_len(&kept[at..]) {
                let word = first_word(&kept[at..at + len]);
                if self.refused().contains(&word) {
                    server.write_all(&kept[passed..at])?;
                    passed = at + len;
                    match self.refusal {
                        Refusal::Closes => return Ok(()),
                        Refusal::Unknown => {
                            client.write_all(b"-ERR unknown command, for this proxy\r\n")?;
                        }
                    }
                }
                at += len;
            }
            server.write_all(&kept[passed..at])?;
            kept.drain(..at);
        }
    }

    fn replies(&self, mut server: &TcpStream, mut client: &TcpStream) -> std::io::Result<()> {
        let mut kept = Vec::new();
        let mut chunk = vec![0; 256 << 10];
        loop {
            let len = server.read(&mut chunk)?;
            if len == 0 {
                return Ok(());
            }
            kept.extend_from_slice(&chunk[..len]);
            let (mut at, mut out) = (0, Vec::with_capacity(kept.len()));
            while let Some(len) = value_len(&kept[at..]) {
                let value = &kept[at..at + len];
                if !value.starts_with(b"*4\r\n$8\r\npmessage\r\n") || !self.loses() {
                    out.extend_from_slice(value);
                }
                at += len;
            }
            kept.drain(..at);
            client.write_all(&out)?;
        }
    }

    fn loses(&self) -> bool {
        let percent = self.lost_percent.load(Ordering::SeqCst);
        let mut rng = self
            .rng
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let loses = rng.below(100) < percent;
        let counter = if loses { &self.lost } else { &self.passed };
        counter.fetch_add(1, Ordering::SeqCst);
        loses
    }
}

/// The bytes of the first value, if it is complete.
fn value_len(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    let number = || -> Option<i64> { std::str::from_utf8(&bytes[1..line - 2]).ok()?.parse().ok() };
    match bytes[0] {
        b'$' | b'=' => match number()? {
            ..0 => Some(line),
            len => {
                let end = line + usize::try_from(len).ok()? + 2;
                (bytes.len() >= end).then_some(end)
            }
        },
        b'*' | b'>' | b'~' => {
            let mut at = line;
            for _ in 0..number()?.max(0) {
                at += value_len(bytes.get(at..)?)?;
            }
            Some(at)
        }
        _ => Some(line),
    }
}

/// The first word of a command, in lower case.
fn first_word(command: &[u8]) -> Vec<u8> {
    let mut lines = command.split(|byte| *byte == b'\n');
    let word = lines.nth(2).unwrap_or_default();
    word.trim_ascii_end().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_measured() {
        assert_eq!(value_len(b"+OK\r\n:1\r\n"), Some(5));
        assert_eq!(value_len(b"$3\r\nabc\r\nrest"), Some(9));
        assert_eq!(value_len(b"*2\r\n$1\r\na\r\n*0\r\n"), Some(15));
        assert_eq!(
            (value_len(b"$-1\r\n"), value_len(b"*-1\r\n")),
            (Some(5), Some(5))
        );
        for part in [&b"$3\r\nab"[..], b"*2\r\n:1\r\n", b"", b"+OK"] {
            assert_eq!(value_len(part), None, "{part:?}");
        }
        assert_eq!(first_word(b"*2\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n"), b"psync");
    }
}
