//! The Understudy daemon: the only place with sockets, files, clocks and metrics.
//!
//! The protocol work is done by the pure crates `resp`, `replica`, `rdb` and `rewrite`; here are the
//! shells around them. The way of the data:
//!
//! ```text
//! source -> source::Receiver -> spool::Feed -> pipeline::{SnapshotApplier, StreamApplier} -> target
//!              ^ ACK of what is applied                         | position in the same MULTI/EXEC
//!              +------------------------------------------------+
//! ```
//! [`supervise::run`] is the loop around it and the only place that decides to try again.

mod backoff;
mod chance;
mod checkpoint;
pub mod cli;
mod client;
mod clock;
pub mod config;
mod error;
mod http;
mod logging;
mod metrics;
mod net;
mod pipeline;
mod progress;
mod rdb;
#[cfg(test)]
mod sim;
mod source;
mod spool;
pub mod status;
mod stop;
mod supervise;
mod target;

pub use error::{Class, Side, SyncError};
pub use stop::Stop;
