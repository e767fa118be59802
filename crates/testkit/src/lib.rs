//! What the tests of the workspace share: real servers, a client and an oracle that are not ours to trust, a
//! workload, a proxy that breaks connections, the daemon as a process.
//!
//! Nothing is mocked. Servers come from `cargo xtask engines`; a test that misses one fails and says so.

pub mod certs;
pub mod client;
pub mod cluster;
pub mod compat;
pub mod daemon;
pub mod engines;
pub mod gate;
pub mod oracle;
pub mod plants;
pub mod port;
pub mod process;
pub mod proxy;
pub mod rdb_writer;
pub mod rng;
pub mod samples;
pub mod server;
pub mod serverless;
pub mod version;
pub mod workload;

pub use client::Client;
pub use cluster::Cluster;
pub use daemon::Daemon;
pub use engines::Engine;
pub use gate::Gate;
pub use proxy::Proxy;
pub use rng::Rng;
pub use server::{Server, ServerOptions};
pub use workload::{Churn, ClusterWriter, Counters, Ledger, Writer};
