//! `understudy reverse --start`: follows the new server, from the switch on, into the old one.

use std::path::Path;

use super::back;
use crate::config::{Config, reversed};
use crate::error::{Side, SyncError};
use crate::handover::mark;

/// The configuration of the way back, when the old server has a checkpoint from which it can go on: it has one from
/// `cutover --reverse`, or gets it here from what that has noted.
///
/// # Errors
/// Code 2 for a file without a way back; those of the connections; stop where no place was noted.
pub(crate) fn start(file: &Path) -> Result<Config, (u8, String)> {
    let usage = |error: crate::config::ConfigError| (crate::cli::USAGE, error.to_string());
    let config = Config::read(file).map_err(usage)?;
    let way_back = reversed(file).map_err(usage)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| (5, error.to_string()))?;
    let prepared = runtime.block_on(Box::pin(prepare(&config, &way_back)));
    prepared.map_err(|error| (error.exit_code(), error.to_string()))?;
    Ok(way_back)
}

async fn prepare(config: &Config, way_back: &Config) -> Result<(), SyncError> {
    // One that nobody has taken yet may be of a cutover that was not made: the record tells the place.
    let found = back::found(way_back).await?;
    if found.is_some_and(|found| found.owner != back::NOBODY) {
        return Ok(());
    }
    let record = mark::read(&config.target, &config.link_name).await?;
    let record = record.filter(mark::Record::is_go);
    if record.as_ref().is_some_and(|record| record.back_by_scan) {
        // It needs no place: both ends are compared.
        return Ok(());
    }
    match record.and_then(|record| record.back) {
        Some(place) => back::seed(way_back, &place).await,
        None => {
            let what = "no place was noted from which the way back could begin (understudy cutover --reverse); with a snapshot of the new server over the old one's keys it begins by: understudy reverse FILE > back.toml; understudy sync back.toml";
            Err(SyncError::stop(
                Side::Target,
                &config.target.endpoint.address,
                what,
            ))
        }
    }
}
