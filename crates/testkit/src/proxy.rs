//! A TCP proxy that breaks connections to the byte: cuts, stalls, holds, thin segments, a slow line.
//!
//! ```text
//! client <-- ToClient -- proxy (a port that stays) <-- ToClient -- upstream (may be changed)
//!        -- ToServer -->                           -- ToServer -->
//! ```
//! All faults can be switched while connections run. Counts are over all connections, in bytes that were passed on.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::port::Port;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From who connected to the proxy.
    ToServer,
    /// From the upstream.
    ToClient,
}

/// How a connection ends, at both ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// In order.
    Fin,
    /// As if a machine had gone.
    Rst,
}

/// What one direction suffers.
#[derive(Debug, Default)]
struct Lane {
    /// Bytes until the cut.
    cut_after: Option<(u64, Cut)>,
    /// Read nothing: the sender's buffers fill.
    stalled: bool,
    /// Read, keep, pass on at release, even when the sender is gone by then.
    held: bool,
    /// As `held`, for connections of this number or older.
    held_up_to: u64,
    /// Read and throw away.
    swallowed: bool,
    segment_bytes: Option<usize>,
    bytes_per_second: Option<u64>,
    delay: Duration,
    passed_bytes: u64,
    held_bytes: u64,
}

impl Lane {
    fn holds(&self, connection: u64) -> bool {
        self.held || connection <= self.held_up_to
    }
}

#[derive(Debug, Default)]
struct Faults {
    lanes: [Lane; 2],
    refused: bool,
    upstream: String,
    connections: u64,
    cuts: u64,
    /// Connections of this number or older are cut.
    cut_up_to: u64,
    cut_with: Option<Cut>,
}

#[derive(Debug)]
struct Shared {
    faults: Mutex<Faults>,
    changed: Condvar,
    ended: AtomicBool,
}

/// What a lane keeps at most while it is held; a test that needs more wants `stall`.
const HELD_BYTES_MAX: usize = 256 << 20;
const CHUNK_BYTES: usize = 64 << 10;
/// How soon a pump looks up from a full or silent socket.
const LOOK_UP: Duration = Duration::from_millis(50);

/// The proxy; its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a port of its own for connections to `upstream` (`host:port`).
    pub fn start(upstream: &str) -> Self {
        let port = Port::reserve();
        let listener = TcpListener::bind(port.address()).expect("listen on a reserved port");
        let faults = Faults {
            upstream: upstream.into(),
            ..Faults::default()
        };
        let shared = Arc::new(Shared {
            faults: Mutex::new(faults),
            changed: Condvar::new(),
            ended: AtomicBool::new(false),
        });
        let inner = Arc::clone(&shared);
        let acceptor = Some(std::thread::spawn(move || accept(&listener, &inner)));
        Self {
            port,
            shared,
            acceptor,
        }
    }

    /// `127.0.0.1:port`, the same for the proxy's whole life.
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Where new connections go from now on.
    pub fn set_upstream(&self, upstream: &str) {
        self.change(|faults| faults.upstream = upstream.into());
    }

    /// Cuts the connection that passes the `bytes`-th byte from now on, right after that byte. Once.
    pub fn cut_after(&self, direction: Direction, bytes: u64, cut: Cut) {
        self.lane(direction, |lane| lane.cut_after = Some((bytes, cut)));
    }

    /// Cuts all connections there are.
    pub fn cut_now(&self, cut: Cut) {
        self.change(|faults| {
            faults.cut_up_to = faults.connections;
            faults.cut_with = Some(cut);
            faults.cuts += 1;
        });
    }

    /// New connections are closed at once while this is on.
    pub fn refuse(&self, refused: bool) {
        self.change(|faults| faults.refused = refused);
    }

    /// Stops reading in this direction, until `release`.
    pub fn stall(&self, direction: Direction) {
        self.lane(direction, |lane| lane.stalled = true);
    }

    /// Goes on reading, but passes nothing on until `release`: then all of it, even if its sender is gone.
    pub fn hold(&self, direction: Direction) {
        self.lane(direction, |lane| lane.held = true);
    }

    /// Like `hold`, for the connections there are: what comes later passes. This is how a write outlives its sender and
    /// arrives behind the next one's.
    pub fn hold_old(&self, direction: Direction) {
        self.change(|faults| {
            let connections = faults.connections;
            faults.lanes[direction as usize].held_up_to = connections;
        });
    }

    /// Reads and throws away, until `release`: a line that is dead one way. A connection that has lost a byte by it
    /// stays dead that way for good, since no TCP has a hole; after `release` new ones work.
    pub fn swallow(&self, direction: Direction) {
        self.lane(direction, |lane| lane.swallowed = true);
    }

    /// Ends `stall`, `hold` and `swallow`.
    pub fn release(&self, direction: Direction) {
        self.lane(direction, |lane| {
            lane.stalled = false;
            lane.held = false;
            lane.held_up_to = 0;
            lane.swallowed = false;
        });
    }

    /// Passes on so many bytes at a time, each in a segment of its own; `None`: as they come.
    pub fn segment(&self, direction: Direction, bytes: Option<usize>) {
        self.lane(direction, |lane| lane.segment_bytes = bytes);
    }

    /// Passes on so many bytes a second at most.
    pub fn throttle(&self, direction: Direction, bytes_per_second: Option<u64>) {
        self.lane(direction, |lane| lane.bytes_per_second = bytes_per_second);
    }

    /// Waits so long before it passes on what it read at once.
    pub fn delay(&self, direction: Direction, delay: Duration) {
        self.lane(direction, |lane| lane.delay = delay);
    }

    /// Bytes passed on so far.
    pub fn passed_bytes(&self, direction: Direction) -> u64 {
        self.shared.lock().lanes[direction as usize].passed_bytes
    }

    /// Bytes that `hold` keeps back.
    pub fn held_bytes(&self, direction: Direction) -> u64 {
        self.shared.lock().lanes[direction as usize].held_bytes
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.lock().connections
    }

    /// Cuts made so far.
    pub fn cuts(&self) -> u64 {
        self.shared.lock().cuts
    }

    fn lane(&self, direction: Direction, change: impl FnOnce(&mut Lane)) {
        self.change(|faults| change(&mut faults.lanes[direction as usize]));
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        change(&mut self.shared.lock());
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut_now(Cut::Rst);
        // Wakes the acceptor, which then sees that it is over.
        let _ = TcpStream::connect(self.address());
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Faults> {
        // A panic elsewhere must not hide behind a poisoned lock.
        self.faults
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(client) = client else { continue };
        // Numbered before the upstream can know of it, so that a cut from then on includes it.
        let (number, upstream) = {
            let mut faults = shared.lock();
            faults.connections += u64::from(!faults.refused);
            (
                faults.connections,
                (!faults.refused).then(|| faults.upstream.clone()),
            )
        };
        match upstream.and_then(|upstream| TcpStream::connect(upstream).ok()) {
            Some(server) => start(number, client, server, shared),
            None => reset_on_close(&client),
        }
    }
}

fn start(number: u64, client: TcpStream, server: TcpStream, shared: &Arc<Shared>) {
    for stream in [&client, &server] {
        // Without these a pump would wait for ever on a peer that is silent, and segments would melt together.
        stream.set_nodelay(true).expect("set TCP_NODELAY");
        stream.set_read_timeout(Some(LOOK_UP)).expect("set a limit");
        stream
            .set_write_timeout(Some(LOOK_UP))
            .expect("set a limit");
    }
    let pair = Arc::new(Pair {
        number,
        client,
        server,
        cut: Mutex::new(None),
    });
    for direction in [Direction::ToServer, Direction::ToClient] {
        let pump = Pump {
            direction,
            pair: Arc::clone(&pair),
            shared: Arc::clone(shared),
        };
        std::thread::spawn(move || pump.run());
    }
}

/// Closing then sends RST. The option only fails on a socket that is closed.
fn reset_on_close(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

/// The two ends of a connection; both close when the last pump lets go.
struct Pair {
    number: u64,
    client: TcpStream,
    server: TcpStream,
    cut: Mutex<Option<Cut>>,
}

impl Pair {
    fn cut(&self, cut: Cut) {
        *self
            .cut
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(cut);
        for stream in [&self.client, &self.server] {
            match cut {
                Cut::Rst => reset_on_close(stream),
                Cut::Fin => drop(stream.shutdown(Shutdown::Write)),
            }
            // Wakes the other pump and tells the peer nothing.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    fn is_cut(&self) -> bool {
        self.cut
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .is_some()
    }
}

/// One direction of one connection.
struct Pump {
    direction: Direction,
    pair: Arc<Pair>,
    shared: Arc<Shared>,
}

/// Why a pump ends.
struct Ended;

impl Pump {
    fn run(self) {
        let (from, to) = match self.direction {
            Direction::ToServer => (&self.pair.client, &self.pair.server),
            Direction::ToClient => (&self.pair.server, &self.pair.client),
        };
        if self.pump(from, to).is_ok() {
            // The sender has ended in order: so does this direction, and the other goes on.
            let _ = to.shutdown(Shutdown::Write);
        }
    }

    fn pump(&self, mut from: &TcpStream, to: &TcpStream) -> Result<(), Ended> {
        let mut kept = Vec::new();
        let mut dead = false;
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut sender_gone = false;
        while !sender_gone {
            let lane = self.look(|lane, _| lane.stalled)?;
            if lane.stalled {
                continue;
            }
            match from.read(&mut chunk) {
                Ok(0) => sender_gone = true,
                Ok(len) => kept.extend_from_slice(&chunk[..len]),
                Err(error) if waits(&error) => {}
                Err(_) => sender_gone = true,
            }
            self.pass_kept(&mut kept, &mut dead, to)?;
        }
        while !kept.is_empty() {
            self.look(Lane::holds)?;
            self.pass_kept(&mut kept, &mut dead, to)?;
        }
        // What was swallowed is not followed by an end either.
        if !dead {
            return Ok(());
        }
        loop {
            self.look(|_, _| true)?;
        }
    }

    fn pass_kept(&self, kept: &mut Vec<u8>, dead: &mut bool, to: &TcpStream) -> Result<(), Ended> {
        let lane = self.look(|_, _| false)?;
        *dead |= lane.swallowed && !kept.is_empty();
        if lane.held && !*dead {
            self.shared.lock().lanes[self.direction as usize].held_bytes = kept.len() as u64;
            assert!(
                kept.len() <= HELD_BYTES_MAX,
                "the proxy holds too much; use stall"
            );
            return Ok(());
        }
        if !*dead && !kept.is_empty() {
            std::thread::sleep(lane.delay);
            self.pass(kept, to)?;
        }
        kept.clear();
        self.shared.lock().lanes[self.direction as usize].held_bytes = 0;
        Ok(())
    }

    /// Passes all of `bytes` on, and cuts on the way if the count is reached.
    fn pass(&self, mut bytes: &[u8], to: &TcpStream) -> Result<(), Ended> {
        while !bytes.is_empty() {
            let lane = self.look(|_, _| false)?;
            let (now, cut) = self.share(bytes.len());
            let from = Instant::now();
            let written = self.write_all(&bytes[..now], to);
            bytes = &bytes[now..];
            if let Some(cut) = cut {
                // A cut too where the peer was gone already: whoever waits for it waits for no other.
                self.shared.lock().cuts += 1;
                self.pair.cut(cut);
                return Err(Ended);
            }
            written?;
            if let Some(rate) = lane.bytes_per_second {
                let due = Duration::from_secs_f64(now as f64 / rate as f64);
                std::thread::sleep(due.saturating_sub(from.elapsed()));
            }
        }
        Ok(())
    }

    /// How many of `len` bytes go out at once, and whether the connection is cut after them. Taken off the counts
    /// under the lock, so that of two connections only one is cut.
    fn share(&self, len: usize) -> (usize, Option<Cut>) {
        let mut faults = self.shared.lock();
        let lane = &mut faults.lanes[self.direction as usize];
        let mut now = len.min(lane.segment_bytes.unwrap_or(len)).max(1);
        if let Some(rate) = lane.bytes_per_second {
            // A tenth of a second's worth at a time keeps the line even.
            now = now.min(usize::try_from(rate / 10).unwrap_or(usize::MAX).max(1));
        }
        let mut cut = None;
        if let Some((left, how)) = lane.cut_after {
            now = now.min(usize::try_from(left).unwrap_or(usize::MAX));
            lane.cut_after = Some((left - now as u64, how));
            if left == now as u64 {
                lane.cut_after = None;
                cut = Some(how);
            }
        }
        lane.passed_bytes += now as u64;
        (now, cut)
    }

    fn write_all(&self, mut bytes: &[u8], mut to: &TcpStream) -> Result<(), Ended> {
        while !bytes.is_empty() {
            match to.write(bytes) {
                Ok(len) => bytes = &bytes[len..],
                Err(error) if waits(&error) => {
                    self.look(|_, _| false)?;
                }
                Err(_) => return Err(Ended),
            }
        }
        Ok(())
    }

    /// The lane as it is; waits a moment while `wait` says so. Ends when the connection is to be cut.
    fn look(&self, wait: impl Fn(&Lane, u64) -> bool) -> Result<LaneNow, Ended> {
        let mut faults = self.shared.lock();
        let lane = &faults.lanes[self.direction as usize];
        if wait(lane, self.pair.number) && self.pair.number > faults.cut_up_to {
            let waited = self.shared.changed.wait_timeout(faults, LOOK_UP);
            faults = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
        if self.pair.is_cut() {
            return Err(Ended);
        }
        if self.pair.number <= faults.cut_up_to {
            self.pair.cut(faults.cut_with.unwrap_or(Cut::Rst));
            return Err(Ended);
        }
        let lane = &faults.lanes[self.direction as usize];
        Ok(LaneNow {
            stalled: lane.stalled,
            held: lane.holds(self.pair.number),
            swallowed: lane.swallowed,
            bytes_per_second: lane.bytes_per_second,
            delay: lane.delay,
        })
    }
}

/// What `look` saw.
struct LaneNow {
    stalled: bool,
    held: bool,
    swallowed: bool,
    bytes_per_second: Option<u64>,
    delay: Duration,
}

fn waits(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests;
