//! The door of a service before a real server: TLS, no command of more words than it allows, no other database than 0, and
//! a note of every command's name that came.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConnection;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::certs::Certificate;

/// What it lets through.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The most words in a command.
    pub words_max: usize,
}

/// A running door; closed when dropped.
#[derive(Debug)]
pub struct Serverless {
    address: String,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    rules: Rules,
    upstream: String,
    names: Mutex<BTreeSet<String>>,
    widest: AtomicUsize,
    refused: AtomicUsize,
    closed: AtomicBool,
}

impl Serverless {
    /// A door with this certificate before the server at `upstream`.
    pub fn start(upstream: &str, certificate: &Certificate, rules: Rules) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(State {
            rules,
            upstream: upstream.into(),
            names: Mutex::default(),
            widest: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let config = Arc::new(tls(certificate));
        let door = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if door.closed.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(stream) = stream else {
                    continue;
                };
                let (door, config) = (door.clone(), config.clone());
                std::thread::spawn(move || {
                    // A connection that breaks is its end's matter.
                    let _ = door.serve(stream, config);
                });
            }
        });
        Self { address, state }
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Names, in lower case, of all commands that came.
    pub fn names(&self) -> BTreeSet<String> {
        self.state.names.lock().expect("the names").clone()
    }

    /// The most words that a command had.
    pub fn widest(&self) -> usize {
        self.state.widest.load(Ordering::Relaxed)
    }

    /// Commands that were not let through.
    pub fn refused(&self) -> usize {
        self.state.refused.load(Ordering::Relaxed)
    }
}

impl Drop for Serverless {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::Relaxed);
        // The listener wakes up, and sees it.
        drop(TcpStream::connect(&self.address));
    }
}

fn tls(certificate: &Certificate) -> rustls::ServerConfig {
    let chain = CertificateDer::pem_file_iter(&certificate.cert).expect("read the certificate");
    let chain = chain.collect::<Result<Vec<_>, _>>().expect("a certificate");
    let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("read the key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions of TLS")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a certificate and its key")
}

impl State {
    fn serve(
        &self,
        mut client: TcpStream,
        config: Arc<rustls::ServerConfig>,
    ) -> std::io::Result<()> {
        let mut upstream = TcpStream::connect(&self.upstream)?;
        let mut tls = ServerConnection::new(config).map_err(std::io::Error::other)?;
        client.set_nonblocking(true)?;
        upstream.set_read_timeout(Some(Duration::from_micros(200)))?;
        client.set_nodelay(true)?;
        upstream.set_nodelay(true)?;
        let (mut words, mut chunk) = (Words::default(), vec![0; 64 << 10]);
        loop {
            while tls.wants_write() {
                match tls.write_tls(&mut client) {
                    Ok(_) => {}
                    Err(error) if waits(&error) => std::thread::sleep(Duration::from_micros(100)),
                    Err(error) => return Err(error),
                }
            }
            match tls.read_tls(&mut client) {
                Ok(0) => return Ok(()),
                Ok(_) => {
                    let failed = tls.process_new_packets().is_err();
                    if failed {
                        let _ = tls.write_tls(&mut client);
                        return Ok(());
                    }
                }
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error),
            }
            match tls.reader().read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(read) => {
                    if let Some(refusal) = self.look(&mut words, &chunk[..read]) {
                        self.refused.fetch_add(1, Ordering::Relaxed);
                        tls.writer().write_all(refusal.as_bytes())?;
                        while tls.wants_write() {
                            let _ = tls.write_tls(&mut client);
                        }
                        return Ok(());
                    }
                    upstream.write_all(&chunk[..read])?;
                }
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error),
            }
            match upstream.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(read) => tls.writer().write_all(&chunk[..read])?,
                Err(error) if waits(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks at what comes; the refusal, if something is not let through.
    fn look(&self, words: &mut Words, bytes: &[u8]) -> Option<String> {
        words.pending.extend_from_slice(bytes);
        while let Some(command) = words.next() {
            self.widest.fetch_max(command.words, Ordering::Relaxed);
            let name = command.name.to_ascii_lowercase();
            self.names.lock().expect("the names").insert(name.clone());
            if command.words > self.rules.words_max {
                let most = self.rules.words_max;
                return Some(format!("-ERR more than {most} arguments in {name}\r\n"));
            }
            if name == "select" && command.first != "0" {
                return Some("-ERR SELECT is not allowed in cluster mode\r\n".into());
            }
        }
        None
    }
}

fn waits(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Commands in a stream of bytes.
#[derive(Debug, Default)]
struct Words {
    pending: Vec<u8>,
}

#[derive(Debug)]
struct Command {
    words: usize,
    name: String,
    first: String,
}

impl Words {
    /// The next whole command.
    fn next(&mut self) -> Option<Command> {
        let (count, mut at) = header(&self.pending, 0, b'*')?;
        let mut kept = Vec::new();
        for index in 0..count {
            let (len, start) = header(&self.pending, at, b'$')?;
            let word = self.pending.get(start..start + len)?;
            if index < 2 {
                kept.push(String::from_utf8_lossy(word).into_owned());
            }
            at = start + len + 2;
        }
        if self.pending.len() < at {
            return None;
        }
        self.pending.drain(..at);
        let mut kept = kept.into_iter();
        Some(Command {
            words: count,
            name: kept.next().unwrap_or_default(),
            first: kept.next().unwrap_or_default(),
        })
    }
}

/// The number behind `mark` at `at`, and what follows its line.
fn header(bytes: &[u8], at: usize, mark: u8) -> Option<(usize, usize)> {
    let rest = bytes.get(at..)?;
    if rest.first() != Some(&mark) {
        return None;
    }
    let end = rest.windows(2).position(|two| two == b"\r\n")?;
    let number = std::str::from_utf8(&rest[1..end]).ok()?.parse().ok()?;
    Some((number, at + end + 2))
}
