//! A source cluster that refuses PSYNC: found out before there is a link for each shard, as one link reads all of it by SCAN instead.

use super::claims::Claims;
use super::group::Group;
use crate::check;
use crate::compare::End;
use crate::config::{Config, Endpoint, Reader, ScanWhen};
use crate::error::{Side, SyncError};

/// What its nodes say is not longer than this.
const REPLY_BYTES_MAX: u64 = 16 << 20;

/// The link by which a source cluster is read, if one of its primaries refuses PSYNC for certain: by SCAN; none where the shards
/// are to be followed each by a link of its own, or it cannot be told now.
///
/// # Errors
/// Stop where it was followed by PSYNC before: what was exact would be so no more, without anybody having asked for it.
pub(crate) async fn by_scan(config: &Config) -> Result<Option<Config>, SyncError> {
    if config.scan.when != ScanWhen::PsyncRefused {
        return Ok(None);
    }
    let given = &config.source.endpoint;
    // Who does not answer is asked again by whoever comes next, with patience.
    let Ok(end) = End::connect_cluster_by(given, Side::Source, REPLY_BYTES_MAX, &[]).await else {
        return Ok(None);
    };
    let mut refusal = None;
    for address in end.primaries() {
        let node = Endpoint {
            address,
            ..given.clone()
        };
        if let Ok(Some(reply)) = check::refusal_of_psync(config, &node).await {
            refusal = Some((node.address, reply));
            break;
        }
    }
    let Some((address, reply)) = refusal else {
        return Ok(None);
    };
    if config.slice.is_part() {
        let what = format!(
            "PSYNC was refused: {reply}; shards is \"{}\", and a source cluster that is read by SCAN is not shared by several processes: allow PSYNC, or let one process read all of it (shards = \"1/1\")",
            config.slice
        );
        return Err(SyncError::stop(Side::Source, &address, what));
    }
    let group = Group::new(config.link_name.clone());
    let mut claims = Claims::connect(config, group.claims_key()).await?;
    if !claims.all().await?.is_empty() {
        let what = format!(
            "PSYNC was refused: {reply}; it was followed by PSYNC before, and the position is kept: allow it again; to give that up and read the source by SCAN, put its address under [scan_reader] (with cluster = true and ksn = true)"
        );
        return Err(SyncError::stop(Side::Source, &address, what));
    }
    tracing::warn!(
        node = address,
        reason = reply,
        "the source refuses PSYNC: reading all of the cluster by SCAN and keyspace events instead (docs/scan.md says what that promises)"
    );
    let mut config = config.clone();
    config.source.cluster = false;
    config.reader = Reader::Scan;
    config.scan.when = ScanWhen::Always;
    config.scan.cluster = true;
    Ok(Some(config))
}
