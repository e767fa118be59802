//! The world of one seed: its time, its network, both servers. Everything that happens is an event with a time, and
//! events of one time happen in the order in which they were thought of: a seed runs the same each time.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use testkit::rng::Rng;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::source::Source;
use super::target::Target;
use super::wire::{Conn, End};

/// The wall clock when a world begins, Unix milliseconds.
pub(super) const BEGIN_MS: u64 = 1_800_000_000_000;

/// Which server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Source,
    Target,
}

/// What the network is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// Longest ordinary delay, milliseconds.
    pub(super) delay_ms: u64,
    /// One connection in so many breaks after a random number of bytes; 0: none.
    pub(super) breaks_one_in: u64,
    /// How late bytes may arrive of a connection that its client has lost, milliseconds.
    pub(super) late_ms: u64,
    /// Whether reads and writes are cut into pieces.
    pub(super) pieces: bool,
}

impl Weather {
    pub(super) const CALM: Self = Self {
        delay_ms: 1,
        breaks_one_in: 0,
        late_ms: 0,
        pieces: false,
    };
}

/// What happens to the world when its time has come.
type Deed = Box<dyn FnOnce(&Rc<World>)>;

pub(super) enum Event {
    ToServer(u64, Bytes),
    ServerSeesEnd(u64),
    ToClient(u64, Bytes),
    ClientSeesEnd(u64, End),
    Do(Deed),
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ToServer(conn, bytes) => write!(f, "#{conn} > \"{}\"", bytes.escape_ascii()),
            Self::ServerSeesEnd(conn) => write!(f, "#{conn} > end"),
            Self::ToClient(conn, bytes) => write!(f, "#{conn} < \"{}\"", bytes.escape_ascii()),
            Self::ClientSeesEnd(conn, end) => write!(f, "#{conn} < {end:?}"),
            Self::Do(_) => f.write_str("something happens"),
        }
    }
}

/// The world.
pub(super) struct World {
    pub(super) rng: RefCell<Rng>,
    begin: Instant,
    pub(super) weather: Cell<Weather>,
    events: RefCell<BTreeMap<(u64, u64), Event>>,
    count: Cell<u64>,
    conn_count: Cell<u64>,
    woken: Notify,
    pub(super) conns: RefCell<BTreeMap<u64, Rc<Conn>>>,
    pub(super) source: RefCell<Source>,
    pub(super) target: RefCell<Target>,
    /// How many keys a checkpoint names, where it is not the usual number.
    pub(super) named_max: Cell<Option<usize>>,
    /// What was found wrong.
    wrong: RefCell<Option<String>>,
    digest: Cell<u64>,
    is_loud: bool,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").finish_non_exhaustive()
    }
}

impl World {
    pub(super) fn new(
        rng: Rng,
        weather: Weather,
        source: Source,
        target: Target,
        is_loud: bool,
    ) -> Rc<Self> {
        Rc::new(Self {
            rng: RefCell::new(rng),
            begin: Instant::now(),
            weather: Cell::new(weather),
            events: RefCell::default(),
            count: Cell::new(0),
            conn_count: Cell::new(0),
            woken: Notify::new(),
            conns: RefCell::default(),
            source: RefCell::new(source),
            target: RefCell::new(target),
            named_max: Cell::new(None),
            wrong: RefCell::default(),
            digest: Cell::new(0),
            is_loud,
        })
    }

    /// Milliseconds since the world began.
    pub(super) fn now(&self) -> u64 {
        self.begin.elapsed().as_millis() as u64
    }

    /// The wall clock.
    pub(super) fn unix_ms(&self) -> u64 {
        BEGIN_MS + self.now()
    }

    pub(super) fn below(&self, end: u64) -> u64 {
        self.rng.borrow_mut().below(end)
    }

    pub(super) fn one_in(&self, times: u64) -> bool {
        times > 0 && self.below(times) == 0
    }

    /// A line for whoever looks into one seed.
    pub(super) fn say(&self, line: impl FnOnce() -> String) {
        if self.is_loud {
            println!("{:>7} {}", self.now(), line());
        }
    }

    /// Something that must never be: the first one counts.
    pub(super) fn blame(&self, what: String) {
        self.say(|| format!("WRONG: {what}"));
        let now = self.now();
        self.wrong
            .borrow_mut()
            .get_or_insert(format!("at {now} ms: {what}"));
    }

    pub(super) fn wrong(&self) -> Option<String> {
        self.wrong.borrow().clone()
    }

    /// A number that two runs of one seed have in common.
    pub(super) fn digest(&self) -> u64 {
        self.digest.get()
    }

    /// A number for a new connection.
    pub(super) fn next_conn(&self) -> u64 {
        self.conn_count.set(self.conn_count.get() + 1);
        self.conn_count.get()
    }

    pub(super) fn at(&self, at_ms: u64, event: Event) {
        let count = self.count.get() + 1;
        self.count.set(count);
        self.events.borrow_mut().insert((at_ms, count), event);
        self.woken.notify_one();
    }

    pub(super) fn then(&self, in_ms: u64, what: impl FnOnce(&Rc<Self>) + 'static) {
        self.at(self.now() + in_ms, Event::Do(Box::new(what)));
    }

    /// Takes back what is on its way to a server over a connection, with its times.
    pub(super) fn take_events_to_server(&self, conn: u64) -> Vec<(u64, Event)> {
        let mut events = self.events.borrow_mut();
        let keys: Vec<(u64, u64)> = events
            .iter()
            .filter(|(_, event)| matches!(event, Event::ToServer(of, _) if *of == conn))
            .map(|(key, _)| *key)
            .collect();
        keys.iter()
            .filter_map(|key| Some((key.0, events.remove(key)?)))
            .collect()
    }

    /// Lets things happen, for ever.
    pub(super) async fn go_on(self: &Rc<Self>) {
        loop {
            let next = self.events.borrow().keys().next().copied();
            let Some(key) = next else {
                self.woken.notified().await;
                continue;
            };
            if key.0 > self.now() {
                let due = self.begin + Duration::from_millis(key.0);
                tokio::select! {
                    biased;
                    () = self.woken.notified() => {}
                    () = tokio::time::sleep_until(due) => {}
                }
                continue;
            }
            let Some(event) = self.events.borrow_mut().remove(&key) else {
                continue;
            };
            self.happen(event);
            // Whoever waits for it has a turn before the next one.
            tokio::task::yield_now().await;
        }
    }

    fn happen(self: &Rc<Self>, event: Event) {
        self.note(&event);
        if !matches!(event, Event::Do(_)) {
            self.say(|| format!("{event:?}"));
        }
        let conn = |id: u64| self.conns.borrow().get(&id).cloned();
        match event {
            Event::ToServer(id, bytes) => {
                if let Some(conn) = conn(id).filter(|conn| conn.is_at_server()) {
                    match conn.place {
                        Place::Source => self.source.borrow_mut().receive(self, id, &bytes),
                        Place::Target => self.target.borrow_mut().receive(self, id, &bytes),
                    }
                }
            }
            Event::ServerSeesEnd(id) => {
                if let Some(conn) = conn(id) {
                    conn.leave_server();
                    match conn.place {
                        Place::Source => self.source.borrow_mut().forget(id),
                        Place::Target => self.target.borrow_mut().forget(id),
                    }
                    self.conns.borrow_mut().remove(&id);
                }
            }
            Event::ToClient(id, bytes) => {
                if let Some(conn) = conn(id) {
                    conn.deliver(self, &bytes);
                }
            }
            Event::ClientSeesEnd(id, end) => {
                if let Some(conn) = conn(id) {
                    conn.end(end);
                    if !conn.is_at_server() {
                        self.conns.borrow_mut().remove(&id);
                    }
                }
            }
            Event::Do(what) => what(self),
        }
        self.flush();
    }

    /// Sends what the servers have to say.
    pub(super) fn flush(self: &Rc<Self>) {
        for place in [Place::Source, Place::Target] {
            let (said, hung_up) = match place {
                Place::Source => self.source.borrow_mut().take_output(),
                Place::Target => self.target.borrow_mut().take_output(),
            };
            for (id, bytes) in said {
                let conn = self.conns.borrow().get(&id).cloned();
                if let Some(conn) = conn {
                    conn.to_client(self, bytes);
                }
            }
            for id in hung_up {
                let conn = self.conns.borrow().get(&id).cloned();
                if let Some(conn) = conn {
                    conn.server_hangs_up(self);
                }
            }
        }
    }

    fn note(&self, event: &Event) {
        let mut digest = self.digest.get();
        let mut mix = |number: u64| {
            digest = (digest ^ number).wrapping_mul(0x0000_0100_0000_01b3);
        };
        mix(self.now());
        match event {
            Event::ToServer(conn, bytes) | Event::ToClient(conn, bytes) => {
                mix(*conn);
                bytes.iter().for_each(|byte| mix(u64::from(*byte)));
            }
            Event::ServerSeesEnd(conn) | Event::ClientSeesEnd(conn, _) => mix(*conn),
            Event::Do(_) => mix(1),
        }
        self.digest.set(digest);
    }
}
