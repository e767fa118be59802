//! Data and writes of every kind that a server knows, the same for the same seed.
//!
//! - [`fill`] puts keys of every type and encoding into a server, before a migration begins.
//! - [`Writer`] goes on changing all of it until it is told to stop, with every family of commands; what is left is
//!   for the oracle to compare.
//! - [`Churn`] is a plainer one, at a rate of its own.
//! - [`Counters`] writes what shows a command that was applied twice or not at all, and proves it from the target
//!   alone, given what the source has acknowledged.

mod churn;
mod commands;
mod counters;
mod fill;
mod in_cluster;
mod streams;
mod values;
mod writer;

pub use churn::Churn;
pub use counters::{Counters, Ledger};
pub use fill::{fill, fill_dbs};
pub use in_cluster::ClusterWriter;
pub use writer::{Report, Writer};

/// The dbs that hold the data.
pub const DBS: [u32; 5] = [0, 1, 2, 3, 7];
/// The db that is emptied now and then.
pub const SCRATCH_DB: u32 = 9;

#[cfg(test)]
mod tests;
