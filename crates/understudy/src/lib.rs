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

mod auth;
mod backoff;
mod chance;
mod check;
mod checkpoint;
pub mod cli;
mod client;
mod clock;
mod compare;
pub mod config;
mod confirm;
mod cutover;
mod error;
mod files;
mod function;
mod handover;
mod http;
mod limits;
mod links;
mod logging;
mod manual;
mod metrics;
mod net;
mod notices;
mod pipeline;
mod probe;
mod profile;
mod progress;
mod rdb;
mod renew;
mod replicas;
mod scan;
mod scheduling;
mod sentinel;
mod shard;
#[cfg(test)]
mod sim;
mod source;
mod spool;
pub mod status;
mod stop;
mod supervise;
mod target;
mod taxonomy;
mod tls;
mod version;
mod view;

pub use error::{Class, Side, SyncError};
pub use stop::Stop;
