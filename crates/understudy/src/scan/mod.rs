//! Reading a source that offers no PSYNC: by SCAN, by keyspace events, and by comparing.
//!
//! ```text
//! events  ──► Dirty ──► Worker: reads a key, puts it as a whole ──► target
//! sweeps  ──►   ▲
//!               └─ what differs, at either end
//! ```
//! An event only names a key; what it is now is read when its turn comes. What events do not tell (lost ones, FLUSHALL,
//! SWAPDB, groups of streams) is found by sweeps, which compare both ends key by key until nothing differs, and then
//! now and again. So the target comes to be what the source is, but it is not at any moment what the source was at some
//! moment, as it is with PSYNC: keys come in no order, and transactions are not seen.
//!
//! One thread does all of it: the worker, which alone writes ([`worker`]); the sweeper, which only marks ([`sweep`]); a
//! subscription ([`events`]); and a look at what no event tells ([`doubts`]). Of a cluster each primary has a subscription and is
//! looked at, and who has which slot is watched ([`nodes`]).

mod dirty;
mod doubts;
mod events;
mod hold;
mod late;
mod nodes;
mod origin;
mod pace;
mod pages;
mod put;
mod reads;
mod shared;
mod stream_info;
mod sweep;
mod words;
mod worker;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;

use replica::ReplId;
use tokio::time::Instant;

use crate::checkpoint::{Phase, ScanAt};
use crate::compare::{Comparer, End};
use crate::config::{Config, Endpoint, ExistingKeys};
use crate::error::{Side, SyncError};
use crate::handover::Over;
use crate::status::{self, Status};
use crate::stop::Stop;
use crate::target::{Databases, Target};
use events::Watch;
use origin::Origin;
use put::Put;
use shared::Shared;
pub(crate) use sweep::missing as missing_events;
use sweep::{Beginning, Sweeper};
use worker::Worker;

/// Expiries that are further apart differ: before 7.0 they are known by what is left of them.
const TTL_TOLERANCE_MS: u64 = 0;
const TTL_TOLERANCE_OLD_MS: u64 = 100;

/// A source that is read by SCAN, looked at but not yet read.
pub(crate) struct Source {
    end: End,
    /// The server that is read, or the primaries of a cluster.
    servers: Vec<Endpoint>,
    origin: Origin,
}

impl Source {
    /// The ids of its histories, where it tells.
    pub(crate) fn replids(&self) -> &[ReplId] {
        &self.origin.replids
    }
}

/// Looks at the source.
///
/// # Errors
/// Reconnect while it cannot be reached; stop where it does not let us list keys.
pub(crate) async fn open(config: &Config) -> Result<Source, SyncError> {
    let given = match config.scan.cluster {
        true => config.source.endpoint.clone(),
        false => origin::choose(config).await?,
    };
    let mut end = source_end(config, &given).await?;
    let origin = origin::look(&mut end).await?;
    let addresses = end.primaries().into_iter();
    let at = |address| Endpoint {
        address,
        ..given.clone()
    };
    if let Some(topology) = end.topology() {
        config.scan.note_nodes(topology.nodes());
    }
    Ok(Source {
        servers: addresses.map(at).collect(),
        end,
        origin,
    })
}

/// Which server would be read.
///
/// # Errors
/// Those of the connection.
pub(crate) async fn reads_from(config: &Config) -> Result<Endpoint, SyncError> {
    match config.scan.cluster {
        true => Ok(config.source.endpoint.clone()),
        false => origin::choose(config).await,
    }
}

/// The source to read from, a server or all of a cluster.
async fn source_end(config: &Config, endpoint: &Endpoint) -> Result<End, SyncError> {
    let bytes_max = reply_bytes_max(config);
    let mut end = match config.scan.cluster {
        true => {
            let seen = config.scan.nodes_seen();
            End::connect_cluster_by(endpoint, Side::Source, bytes_max, &seen).await?
        }
        false => End::connect(endpoint, Side::Source, bytes_max).await?,
    };
    origin::guess(&mut end).await?;
    Ok(end)
}

fn reply_bytes_max(config: &Config) -> u64 {
    config.transaction_bytes_max() as u64
}

/// What was decided about the target.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// It held no key.
    pub(crate) is_empty: bool,
    /// Every key there is ours: those that the source does not have are removed.
    pub(crate) owns: bool,
    pub(crate) existing: ExistingKeys,
}

/// How reading has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Asked to stop, or once was enough.
    Done,
    /// A switch that was made is undone: all begins anew.
    Undone,
}

/// Reads `source` into `target` until a stop is asked for; or, where events are not wanted, once. After a switch it only
/// listens.
///
/// # Errors
/// Reconnect where all has to be begun anew; stop for what waiting does not mend.
pub(crate) async fn run(
    config: &Config,
    status: &Status,
    stop: &Stop,
    databases: &Databases,
    source: Source,
    target: Target,
    manner: Manner,
) -> Result<Ended, SyncError> {
    let Source {
        end,
        servers,
        origin,
    } = source;
    let Some(endpoint) = servers.first() else {
        let what = "no node of the cluster has slots";
        let address = &config.source.endpoint.address;
        return Err(SyncError::reconnect(Side::Source, address, what));
    };
    let run_id = origin.run_id.unwrap_or_else(ScanAt::nobody);
    let is_replica = !config.scan.cluster && endpoint.address != config.source.endpoint.address;
    let target_before = target.checkpoint.phase.clone();
    let beginning = Beginning {
        is_empty: manner.is_empty,
        at: match target.checkpoint.phase {
            Phase::Scan(at) if at.run_id == run_id && at.cursor > 0 => Some((at.db, at.cursor)),
            _ => None,
        },
    };
    let shared = Shared::new(config, status, servers.len(), config.scan.follows());
    shared.process.set(origin.run_id);
    for server in &servers {
        let watching = shared.pace.watch(server.clone());
        watching.map_err(|error| SyncError::local(format!("cannot start: {error}")))?;
    }
    let mut target = target;
    let own_keys = match &mut target.cluster {
        None => 1,
        Some(cluster) => cluster.count_own_keys().await?,
    };
    let mut sweeper = Sweeper {
        comparer: comparer(config, endpoint).await?,
        way: origin.way,
        shared: &shared,
        beginning,
        owns: manner.owns,
        run_id,
        before: match target_before {
            Phase::Scan(at) if at.run_id != ScanAt::nobody() => at.run_id,
            _ => run_id,
        },
        is_once: !config.scan.follows(),
        may_compare: manner.existing != ExistingKeys::Skip,
        calm_at: 0,
        has_told_events: false,
        hold: None,
        has_told_libraries: false,
        own_keys,
        lost_libraries: BTreeSet::new(),
    };
    let mut worker = Worker {
        put: Put::new(&shared, databases, target, manner.existing),
        shared: &shared,
        databases,
        end,
        way: origin.way,
        existing: manner.existing,
        pending: VecDeque::new(),
        told: BTreeSet::new(),
        lots_done: 0,
        verified: 0,
        torn: BTreeMap::new(),
        checkpointed: Instant::now(),
    };
    status.scan.is_clean.set(0);
    status.set_phase(status::Phase::Scan);
    let watches: Vec<Watch<'_>> = (0..).zip(&servers).map(|at| watch(&shared, at)).collect();
    let listening = async {
        match shared.wants_events {
            true => listen(&watches).await,
            false => std::future::pending().await,
        }
    };
    let doubting = async {
        let each = servers.iter().enumerate();
        let each = each
            .map(|(place, server)| Box::pin(doubts::run(&shared, server, place == 0, is_replica)));
        futures_util::future::try_join_all(each).await
    };
    let moving = async {
        match config.scan.cluster {
            true => {
                let mut end = source_end(config, endpoint).await?;
                nodes::watch(&shared, &mut end, &servers).await
            }
            false => std::future::pending().await,
        }
    };
    let late = async {
        stop.requested().await;
        tokio::time::sleep(config.shutdown_timeout).await;
    };
    let done = Stop::default();
    let mut working = Box::pin(worker.run(stop, &done));
    let mut listening = Box::pin(listening);
    let is_over = tokio::select! {
        biased;
        worked = &mut working => return worked.map(|()| Ended::Done),
        swept = Box::pin(sweeper.run()) => swept.map(|()| false)?,
        never = &mut listening => match never {},
        doubted = Box::pin(doubting) => return doubted.map(|_| Ended::Done),
        moved = Box::pin(moving) => match moved? {},
        Over = Box::pin(hold::obey(&shared)) => true,
        () = late => {
            tracing::warn!("stopping without what waits: the next run begins with a sweep");
            return Ok(Ended::Done);
        }
    };
    if is_over {
        // Nothing of it may reach the target any more.
        drop(working);
        return Ok(only_listen(&shared, stop, listening).await);
    }
    // Once was enough: what was marked is at the target already, and the checkpoint says so in the end.
    done.request();
    working.await?;
    if shared.doubt.count() != sweeper.calm_at {
        let what = "was lost when all was copied, and may have lost some of it: everything is looked at again";
        let address = &config.target.endpoint.address;
        return Err(SyncError::reconnect(Side::Target, address, what));
    }
    let torn = shared.torn_for_good(&config.source.endpoint.address);
    torn.map(|()| Ended::Done)
}

/// The subscription of one of the servers, by its place.
fn watch<'a>(shared: &'a Shared<'a>, (place, endpoint): (usize, &Endpoint)) -> Watch<'a> {
    Watch {
        shared,
        endpoint: endpoint.clone(),
        place,
    }
}

/// Listens to all of them.
async fn listen(watches: &[Watch<'_>]) -> Infallible {
    let each = watches.iter().map(|watch| Box::pin(watch.run()));
    let (never, ..) = futures_util::future::select_all(each).await;
    never
}

/// After a switch: what is written at the source is counted, by its events, until a stop is asked for or the switch is
/// undone.
pub(crate) async fn watch_late(config: &Config, status: &Status, stop: &Stop) -> Ended {
    let shared = Shared::new(config, status, 1, true);
    shared.hold.over();
    status.set_phase(status::Phase::Scan);
    let watch = watch(&shared, (0, &config.source.endpoint));
    only_listen(&shared, stop, Box::pin(watch.run())).await
}

async fn only_listen(
    shared: &Shared<'_>,
    stop: &Stop,
    mut listening: std::pin::Pin<Box<impl Future<Output = Infallible>>>,
) -> Ended {
    let handover = &shared.status.handover;
    shared.status.oldest_unapplied_ms.set(0);
    let undone = async {
        while handover.state().is_over() {
            handover.changed().await;
        }
    };
    tokio::select! {
        biased;
        () = stop.requested() => Ended::Done,
        () = undone => Ended::Undone,
        never = &mut listening => match never {},
        never = hold::settle_forever(shared) => match never {},
    }
}

async fn comparer(config: &Config, endpoint: &Endpoint) -> Result<Comparer, SyncError> {
    let bytes_max = reply_bytes_max(config);
    let source = source_end(config, endpoint).await?;
    let at = &config.target.endpoint;
    let target = match &config.target.cluster {
        None => End::connect(at, Side::Target, bytes_max).await?,
        Some(cluster) => {
            let seen = cluster.nodes_seen();
            End::connect_cluster_by(at, Side::Target, bytes_max, &seen).await?
        }
    };
    let tolerance_ms = match source.has(7, 0) && target.has(7, 0) {
        true => TTL_TOLERANCE_MS,
        false => TTL_TOLERANCE_OLD_MS,
    };
    let lot_bytes_max = config.repair_bytes_max();
    Ok(Comparer::strict(
        source,
        target,
        tolerance_ms,
        lot_bytes_max,
    ))
}
