//! The source where it is a cluster: all of its primaries are looked at, before the fence and under it. A failover or a slot
//! that begins to move in between calls all off.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;

use super::daemon::{Daemon, Told};
use super::fence::{self, position};
use super::gate::Check;
use super::proof::Proof;
use crate::client::Client;
use crate::config::{Config, Endpoint};
use crate::error::{Side, SyncError};
use crate::handover::Stage;
use crate::shard::claims::Claims;
use crate::shard::survey::Survey;
use crate::shard::{self};

/// The source of a link: of a shard its primary.
pub(super) fn source_of(config: &Config, told: &Told) -> Endpoint {
    let mut endpoint = config.source.endpoint.clone();
    if let (true, Some(address)) = (config.source.cluster, told.value("source").as_str()) {
        address.clone_into(&mut endpoint.address);
    }
    endpoint
}

/// Looks at the source: one server is looked at by other means.
///
/// # Errors
/// A sentence: a primary does not answer.
pub(super) async fn survey(config: &Config, daemon: &Daemon) -> Result<Option<Survey>, String> {
    if !config.source.cluster {
        return Ok(None);
    }
    // The node that was given may be gone.
    let links = daemon.links().await.unwrap_or_default();
    let others = links
        .iter()
        .filter_map(|told| told.value("source").as_str());
    let others: Vec<String> = others.map(str::to_owned).collect();
    let survey = Survey::look(&fence::endpoint(config), &others).await;
    survey.map(Some).map_err(|error| error.to_string())
}

/// Whether every slot of the source has a link that follows its primary, and none is on its way.
pub(super) async fn check(config: &Config, daemon: &Daemon, survey: &Survey) -> Check {
    let found = covered(config, daemon, survey).await;
    let ok = found.is_ok();
    Check {
        name: "shards",
        ok,
        text: found.unwrap_or_else(|why| why),
    }
}

async fn covered(config: &Config, daemon: &Daemon, survey: &Survey) -> Result<String, String> {
    if let Some(slot) = survey.moving.first() {
        return Err(format!(
            "slot {slot} is on its way from one node of the source to another: let that come to its end (redis-cli --cluster check tells, --cluster fix ends one that was left)"
        ));
    }
    let missing = survey.missing();
    if missing > 0 {
        return Err(format!("{missing} slots of the source have no node"));
    }
    let links = daemon.links().await?;
    let mut by_source: BTreeMap<&str, &Told> = BTreeMap::new();
    for told in &links {
        let source = told.value("source").as_str().unwrap_or_default();
        if let Some(other) = by_source.insert(source, told) {
            return Err(format!(
                "the links {} and {} follow the same node {source}: a failover is not over, or its former primary is to be forgotten",
                other.name(),
                told.name()
            ));
        }
    }
    for (address, slots) in survey.primaries.values() {
        let told = by_source.get(address.as_str());
        let told = told.ok_or_else(|| {
            format!("no link of this sync follows {address}, which has {slots} slots (several processes with shards = \"i/n\"? One has to run all links for a switch-over)")
        })?;
        let held = told.number("slots_held");
        if held != *slots as u64 {
            return Err(format!(
                "{}: {held} slots are applied, and {address} has {slots}",
                told.name()
            ));
        }
    }
    let names: BTreeSet<&str> = links.iter().map(Told::name).collect();
    let strange = claimed(config).await.map_err(|error| error.to_string())?;
    let strange: Vec<&String> = strange
        .iter()
        .filter(|link| !names.contains(link.as_str()))
        .collect();
    match strange.first() {
        None => Ok(format!(
            "{} primaries have all slots, none is on its way, and each is followed",
            survey.primaries.len()
        )),
        Some(link) => Err(format!(
            "slots are claimed at the target by the link {link}, which this sync does not run: one process has to run all links for a switch-over (shards = \"1/1\")"
        )),
    }
}

/// The links that have claimed slots at the target.
///
/// # Errors
/// Those of the connection.
pub(super) async fn claimed(config: &Config) -> Result<BTreeSet<String>, SyncError> {
    let group = shard::Group::new(config.link_name.clone());
    let mut claims = Claims::connect(config, group.claims_key()).await?;
    Ok(claims.all().await?.into_keys().collect())
}

/// Whether all is as it was when it was proved: the same primaries have the same slots and histories, and every link holds still.
///
/// # Errors
/// A sentence: what is not.
pub(super) async fn still(
    config: &Config,
    daemon: &Daemon,
    before: Option<&Survey>,
    proof: &Proof,
) -> Result<(), String> {
    if let Some(before) = before {
        let now = survey(config, daemon).await?;
        if let Some(why) = now.and_then(|now| now.changed_since(before)) {
            return Err(why);
        }
        let looks = proof.parts.iter().map(|part| async {
            let endpoint = Endpoint {
                address: part.source.clone(),
                ..fence::endpoint(config)
            };
            let mut client = Client::connect_plainly(&endpoint, Side::Source).await?;
            client.info("replication").await
        });
        for (part, info) in proof.parts.iter().zip(join_all(looks).await) {
            let info = info.map_err(|error| error.to_string())?;
            let is_primary = info.get("role").map(str::trim) == Some("master");
            let replid = position(&info).map(|(replid, _)| replid);
            if !is_primary || replid.as_ref() != Some(&part.replid) {
                return Err(format!(
                    "{} is not the primary any more that it was when sync stopped there",
                    part.source
                ));
            }
        }
    }
    let links = daemon.links().await?;
    for told in &links {
        let part = proof.parts.iter().find(|part| part.link == told.name());
        let part = part.ok_or_else(|| format!("the link {} has begun meanwhile", told.name()))?;
        let is_closed = told.stage() == Some(Stage::Closed);
        if !is_closed || told.cutover()["offset"] != part.offset {
            return Err("sync does not hold still any more".to_owned());
        }
    }
    match links.len() == proof.parts.len() {
        true => Ok(()),
        false => Err("a link of sync has ended".to_owned()),
    }
}
