//! Connections in memory: late, cut into pieces, and broken at any byte. What a client has written before it lost a
//! connection, or its life, may still reach the server, long after a new connection stands.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::process::{self, Effect, Process};
use super::world::{Event, Place, World};

/// How a connection ends for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Closed,
    Reset,
}

/// When a connection breaks by itself.
#[derive(Debug, Clone, Copy)]
enum Fate {
    AfterSending(u64),
    AfterReceiving(u64),
}

/// One connection, as both ends know it.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) id: u64,
    pub(super) place: Place,
    inbox: RefCell<BytesMut>,
    ended: Cell<Option<End>>,
    at_server: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    sent: Cell<u64>,
    received: Cell<u64>,
    fate: Cell<Option<Fate>>,
    /// The last thing sent arrives then.
    to_server_ms: Cell<u64>,
    to_client_ms: Cell<u64>,
}

impl Conn {
    pub(super) fn is_at_server(&self) -> bool {
        self.at_server.get()
    }

    pub(super) fn leave_server(&self) {
        self.at_server.set(false);
    }

    /// Bytes have come to the client's machine.
    pub(super) fn deliver(&self, world: &World, bytes: &Bytes) {
        if self.ended.get().is_some() {
            return;
        }
        let mut bytes = bytes.clone();
        if let Some(Fate::AfterReceiving(limit)) = self.fate.get() {
            let room = limit.saturating_sub(self.received.get());
            if (bytes.len() as u64) > room {
                bytes.truncate(room as usize);
                self.break_off(world);
            }
        }
        self.received.set(self.received.get() + bytes.len() as u64);
        self.inbox.borrow_mut().extend_from_slice(&bytes);
        self.wake();
    }

    pub(super) fn end(&self, end: End) {
        if self.ended.get().is_none() {
            self.ended.set(Some(end));
        }
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// The network loses it. The client knows at once; the server, when it has got what is still on its way.
    pub(super) fn break_off(&self, world: &World) {
        if self.ended.get().is_some() {
            return;
        }
        self.end(End::Reset);
        self.client_gone(world);
    }

    /// The client has closed it, or is dead: what is on its way may come late, or only a part of it.
    fn client_gone(&self, world: &World) {
        let mut pieces = world.take_events_to_server(self.id);
        let late_ms = world.weather.get().late_ms;
        let mut late = 0;
        if late_ms > 0 && world.one_in(2) {
            late = world.below(late_ms + 1);
            let kept = world.below(pieces.len() as u64 + 1) as usize;
            pieces.truncate(kept);
        }
        let mut last = world.now();
        for (at_ms, event) in pieces {
            last = at_ms + late;
            world.at(last, event);
        }
        world.at(last + late, Event::ServerSeesEnd(self.id));
    }

    /// The server closes it, or dies.
    pub(super) fn server_hangs_up(&self, world: &World) {
        self.at_server.set(false);
        let at_ms = self.to_client_ms.get().max(world.now());
        let end = if world.one_in(2) {
            End::Closed
        } else {
            End::Reset
        };
        world.at(at_ms, Event::ClientSeesEnd(self.id, end));
    }

    /// The server says something.
    pub(super) fn to_client(&self, world: &World, bytes: Vec<u8>) {
        let sender = |at_ms, bytes| world.at(at_ms, Event::ToClient(self.id, bytes));
        spread(world, &self.to_client_ms, bytes.into(), sender);
    }

    fn to_server(&self, world: &World, bytes: Bytes) {
        let sender = |at_ms, bytes| world.at(at_ms, Event::ToServer(self.id, bytes));
        spread(world, &self.to_server_ms, bytes, sender);
    }
}

/// Sends bytes behind those before them, in pieces, each with its delay.
fn spread(world: &World, last_ms: &Cell<u64>, mut bytes: Bytes, send: impl Fn(u64, Bytes)) {
    let weather = world.weather.get();
    while !bytes.is_empty() {
        let piece = if weather.pieces && world.one_in(3) {
            bytes.split_to(world.below(bytes.len() as u64) as usize + 1)
        } else {
            std::mem::take(&mut bytes)
        };
        let delay = if weather.pieces && world.one_in(100) {
            world.below(400)
        } else {
            world.below(weather.delay_ms + 1)
        };
        let at_ms = last_ms.get().max(world.now() + delay);
        last_ms.set(at_ms);
        send(at_ms, piece);
    }
}

/// The client's end of a connection.
pub(crate) struct Wire {
    process: Rc<Process>,
    conn: Rc<Conn>,
}

/// Connects to a server of the simulation; `None` where there is none.
pub(crate) fn connect(address: &str) -> Option<impl Future<Output = io::Result<Wire>> + use<>> {
    let process = process::current()?;
    let place = match address {
        "source:1" => Place::Source,
        "target:1" => Place::Target,
        other => panic!("no server {other} in this world"),
    };
    Some(async move {
        let world = process.world.clone();
        let delay = world.below(world.weather.get().delay_ms + 1);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        if process.effect("connect") == Effect::None {
            return Err(process::gone());
        }
        let accepts = match place {
            Place::Source => world.source.borrow().is_up(),
            Place::Target => world.target.borrow().is_up(),
        };
        if !accepts {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let conn = new_conn(&world, place, process.machine);
        Ok(Wire { process, conn })
    })
}

fn new_conn(world: &World, place: Place, machine: usize) -> Rc<Conn> {
    let id = world.next_conn();
    let weather = world.weather.get();
    let fate = world.one_in(weather.breaks_one_in).then(|| {
        let bytes = match world.below(3) {
            0 => world.below(300),
            1 => world.below(2_000),
            _ => world.below(20_000),
        };
        if world.one_in(2) {
            Fate::AfterSending(bytes)
        } else {
            Fate::AfterReceiving(bytes)
        }
    });
    let conn = Rc::new(Conn {
        id,
        place,
        inbox: RefCell::default(),
        ended: Cell::new(None),
        at_server: Cell::new(true),
        waker: RefCell::default(),
        sent: Cell::new(0),
        received: Cell::new(0),
        fate: Cell::new(fate),
        to_server_ms: Cell::new(0),
        to_client_ms: Cell::new(0),
    });
    world.conns.borrow_mut().insert(id, conn.clone());
    match place {
        Place::Source => world.source.borrow_mut().accept(id),
        Place::Target => world.target.borrow_mut().accept(id),
    }
    world.say(|| format!("#{id} machine {machine} to {place:?}, {fate:?}"));
    conn
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { process, conn } = &*self;
        let mut inbox = conn.inbox.borrow_mut();
        if inbox.is_empty() {
            return match conn.ended.get() {
                Some(End::Closed) => Poll::Ready(Ok(())),
                Some(End::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                None => {
                    *conn.waker.borrow_mut() = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        if process.effect("receive") == Effect::None {
            return Poll::Pending;
        }
        let mut len = inbox.len().min(buf.remaining());
        if process.world.weather.get().pieces && process.world.one_in(4) {
            len = process.world.below(len as u64) as usize + 1;
        }
        buf.put_slice(&inbox[..len]);
        inbox.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { process, conn } = &*self;
        let world = &process.world;
        if conn.ended.get().is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut len = match process.effect("send") {
            Effect::None => return Poll::Pending,
            Effect::Half => bytes.len() / 2,
            Effect::Whole if world.weather.get().pieces && world.one_in(8) => {
                world.below(bytes.len() as u64) as usize + 1
            }
            Effect::Whole => bytes.len(),
        };
        let mut breaks = false;
        if let Some(Fate::AfterSending(limit)) = conn.fate.get() {
            let room = limit.saturating_sub(conn.sent.get()) as usize;
            breaks = len > room;
            len = len.min(room);
        }
        conn.sent.set(conn.sent.get() + len as u64);
        conn.to_server(world, Bytes::copy_from_slice(&bytes[..len]));
        if breaks {
            conn.break_off(world);
        }
        if process.is_dead() {
            return Poll::Pending;
        }
        // A socket takes what does not arrive, too.
        Poll::Ready(Ok(len.max(1).min(bytes.len())))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if self.conn.ended.get().is_none() {
            self.conn.ended.set(Some(End::Closed));
            self.conn.client_gone(&self.process.world);
        }
    }
}
