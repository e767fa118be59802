//! A listener that answers what a test tells it to: a server gone wrong.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A fake server; each connection runs the test's script.
#[derive(Debug)]
pub struct Fake {
    address: String,
    ended: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// Listens; `script` has each connection in turn, until it returns.
    pub fn start(script: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address").to_string();
        let ended = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicU64::new(0));
        let (over, count) = (Arc::clone(&ended), Arc::clone(&connections));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(mut stream) = stream else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                // A client that hangs must not hang the test.
                let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
                // The peer may close whenever it likes: that is what is tested.
                let _ = script(&mut stream);
            }
        });
        Self {
            address,
            ended,
            connections,
            thread: Some(thread),
        }
    }

    /// A source whose handshake goes well and which then says `after_psync`, byte by byte, and closes.
    pub fn source(after_psync: Vec<u8>) -> Self {
        Self::start(move |stream| {
            let psync = handshake(stream)?;
            if psync {
                stream.write_all(&after_psync)?;
                stream.flush()?;
                // Until the other end has had enough: closing at once could take the bytes along.
                stream.shutdown(std::net::Shutdown::Write)?;
                std::io::copy(stream, &mut std::io::sink())?;
            }
            Ok(())
        })
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes the listener, which then sees that it is over.
        let _ = TcpStream::connect(&self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers everything before PSYNC as a Redis would; true when PSYNC came, false when the peer left.
fn handshake(stream: &mut TcpStream) -> std::io::Result<bool> {
    let info = "redis_version:7.0.15\r\nredis_mode:standalone\r\n";
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let len = stream.read(&mut chunk)?;
        if len == 0 {
            return Ok(false);
        }
        said.extend_from_slice(&chunk[..len]);
        if !said.ends_with(b"\r\n") {
            continue;
        }
        let command = String::from_utf8_lossy(&said).to_ascii_uppercase();
        said.clear();
        if command.contains("PSYNC\r\n") {
            return Ok(true);
        } else if command.contains("INFO") {
            write!(stream, "${}\r\n{info}\r\n", info.len())?;
        } else if command.contains("PING") {
            stream.write_all(b"+PONG\r\n")?;
        } else {
            stream.write_all(b"+OK\r\n")?;
        }
    }
}
