//! A process of the simulation: the daemon's future, with the disk and the network it sees, until it is killed.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::disk::Disk;
use super::world::{Place, World};

thread_local! {
    static CURRENT: RefCell<Option<Rc<Process>>> = const { RefCell::new(None) };
}

/// Whether something that a process does takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    None,
    Half,
    Whole,
}

/// What befalls a process at one of its effects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blow {
    /// `kill -9`.
    Kill,
    /// Its machine loses its power.
    PowerLoss,
    /// All connections to a server break.
    Cut(Place),
    /// The target goes down, and comes back without so many of its last changes.
    TargetFalls(usize),
}

/// What befalls a process, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Death {
    /// At this effect, counted from 1.
    pub(super) at: u64,
    /// What of the effect still takes place.
    pub(super) effect: Effect,
    pub(super) blow: Blow,
}

/// A running daemon.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) world: Rc<World>,
    pub(super) disk: Disk,
    pub(super) machine: usize,
    dead: Cell<bool>,
    effects: Cell<u64>,
    death: Cell<Option<Death>>,
    has_no_power: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Process {
    pub(super) fn new(world: Rc<World>, disk: Disk, machine: usize, death: Option<Death>) -> Self {
        Self {
            world,
            disk,
            machine,
            dead: Cell::new(false),
            effects: Cell::new(0),
            death: Cell::new(death),
            has_no_power: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// `kill -9`.
    pub(super) fn kill(&self) {
        if !self.dead.replace(true)
            && let Some(waker) = self.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }

    /// It dies after so many more effects.
    pub(super) fn kill_after(&self, effects: u64, effect: Effect) {
        let at = self.effects.get() + effects;
        self.death.set(Some(Death {
            at,
            effect,
            blow: Blow::Kill,
        }));
    }

    /// Nothing befalls it any more.
    pub(super) fn spare(&self) {
        self.death.set(None);
    }

    /// The machine loses its power.
    pub(super) fn lose_power(&self) {
        self.has_no_power.set(true);
        self.kill();
    }

    pub(super) fn has_no_power(&self) -> bool {
        self.has_no_power.get()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// How much it has done: writes to the disk, and reads and writes of sockets.
    pub(super) fn effects(&self) -> u64 {
        self.effects.get()
    }

    /// Something is about to take effect: how much of it does.
    pub(super) fn effect(&self, what: &'static str) -> Effect {
        if self.dead.get() {
            return Effect::None;
        }
        let count = self.effects.get() + 1;
        self.effects.set(count);
        match self.death.get() {
            Some(death) if death.at == count => {
                self.world
                    .say(|| format!("{:?} at effect {count}, {what}", death.blow));
                match death.blow {
                    Blow::Kill => self.kill(),
                    Blow::PowerLoss => self.lose_power(),
                    Blow::Cut(place) => {
                        self.world.then(0, move |world| super::cut(world, place));
                        // What is not sent now is sent, and lost.
                        return match what {
                            "send" => Effect::Half,
                            _ => Effect::Whole,
                        };
                    }
                    Blow::TargetFalls(lost) => {
                        self.world
                            .then(0, move |world| super::target_falls(world, lost, 20));
                        return Effect::Whole;
                    }
                }
                death.effect
            }
            _ => Effect::Whole,
        }
    }

    /// Runs `future` as this process: `None` when it was killed.
    pub(super) async fn run<T>(self: Rc<Self>, future: impl Future<Output = T>) -> Option<T> {
        let mut future: Option<Pin<Box<dyn Future<Output = T> + '_>>> = Some(Box::pin(future));
        poll_fn(|cx| {
            let Some(running) = &mut future else {
                return Poll::Ready(None);
            };
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            CURRENT.set(Some(self.clone()));
            let polled = if self.dead.get() {
                Poll::Pending
            } else {
                running.as_mut().poll(cx)
            };
            let result = if self.dead.get() {
                future = None;
                Poll::Ready(None)
            } else {
                polled.map(Some)
            };
            CURRENT.set(None);
            result
        })
        .await
    }
}

/// The process that is running now.
pub(super) fn current() -> Option<Rc<Process>> {
    CURRENT.with_borrow(Clone::clone)
}

/// The process that is running now, if it still may do anything.
pub(super) fn alive() -> io::Result<Rc<Process>> {
    current()
        .filter(|process| !process.is_dead())
        .ok_or_else(gone)
}

/// What a dead process gets for an answer; it never comes to look at it for long.
pub(super) fn gone() -> io::Error {
    io::Error::other("the process is dead")
}
