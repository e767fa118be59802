//! A deterministic simulation: the daemon as it is, between a source and a target in memory, on a disk that loses what
//! was not synced, on a network that loses, delays and delivers late, in a time that passes by itself. One seed is one
//! world: it runs the same each time, and in milliseconds.
//!
//! It is the one place with servers that are not real: no real one can be made to do the same thing twice.
//! `fidelity.rs` compares them with a real one.
//!
//! `UNDERSTUDY_SIM_SEED=<n>` runs one seed alone and tells what happens; `UNDERSTUDY_SIM_SEEDS=<n>` runs so many.

pub(crate) mod disk;
mod fidelity;
mod load;
mod oracle;
mod plan;
mod process;
mod run;
mod source;
mod store;
mod target;
mod tests;
pub(crate) mod wire;
mod world;

use std::rc::Rc;

use world::{Place, World};

/// The simulated wall clock, where there is one.
pub(crate) fn unix_ms() -> Option<u64> {
    process::current().map(|process| process.world.unix_ms())
}

/// A number out of the seed, where there is one.
pub(crate) fn random() -> Option<u64> {
    process::current().map(|process| process.world.below(u64::MAX))
}

/// How many keys a checkpoint names, where the seed has a say in it.
pub(crate) fn named_max() -> Option<usize> {
    process::current()?.world.named_max.get()
}

/// All connections to a server break.
fn cut(world: &Rc<World>, place: Place) {
    let conns: Vec<_> = world.conns.borrow().values().cloned().collect();
    for conn in conns.iter().filter(|conn| conn.place == place) {
        conn.break_off(world);
    }
}

/// The target goes down for a while, and comes back without its last changes.
fn target_falls(world: &Rc<World>, lost: usize, down_ms: u64) {
    world.target.borrow_mut().fall_back(lost, world);
    world.then(down_ms, |world| world.target.borrow_mut().come_up());
}
