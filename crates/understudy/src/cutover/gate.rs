//! What has to be so before writes are held back; each with its reason where it is not.

use std::collections::BTreeMap;
use std::time::Duration;

use super::daemon::{Daemon, Told};
use super::fence::position;
use super::shards;
use crate::client::{Client, Info};
use crate::compare::{Beside, Verified, verify};
use crate::config::{CompareExtent, Config};
use crate::error::{Side, SyncError};
use crate::handover::Stage;
use crate::target::cluster;

/// So many looks, a second apart, have to be good.
const LOOKS: u32 = 5;
const BETWEEN: Duration = Duration::from_secs(1);
/// Good looks in a row are waited for no longer than this.
const PATIENCE: u32 = 30;
/// A target that has used more than this share of its memory is full soon.
const MEMORY_PERCENT: u64 = 95;

/// One of them.
#[derive(Debug)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    pub(super) text: String,
}

fn check(name: &'static str, found: Result<String, String>) -> Check {
    let ok = found.is_ok();
    let text = found.unwrap_or_else(|why| why);
    Check { name, ok, text }
}

/// Whether the target follows closely: `LOOKS` good looks in a row. At each, everything that the source had written at the
/// look before is applied.
pub(super) async fn lag(config: &Config, daemon: &Daemon) -> Check {
    check("lag", follows(config, daemon).await)
}

/// Whether a pass over all keys fits under the fence: one is made there.
pub(super) fn pass(config: &Config, told: &Told) -> Check {
    let seconds = told.value("scan")["sweep_seconds"].as_f64().unwrap_or(0.0);
    let limit = config.cutover.fence_limit;
    let text = format!(
        "the last pass over all keys took {seconds:.1} s; one is made under the fence, which lasts {} s at most (cutover.fence_limit)",
        limit.as_secs()
    );
    let fits = seconds <= limit.as_secs_f64();
    check("pass", if fits { Ok(text) } else { Err(text) })
}

async fn follows(config: &Config, daemon: &Daemon) -> Result<String, String> {
    let mut sources: BTreeMap<String, Client> = BTreeMap::new();
    let mut goals: BTreeMap<String, u64> = BTreeMap::new();
    let (mut good, mut why) = (0, String::new());
    let mut lags = Vec::new();
    for _ in 0..PATIENCE {
        daemon.report(Stage::Gate).await?;
        let mut now = Ok(0.0);
        for told in daemon.links().await? {
            let goal = match told.is_of_scan() {
                true => None,
                false => {
                    let offset = written_at(config, &told, &mut sources).await?;
                    goals.insert(told.name().to_owned(), offset)
                }
            };
            now = now.and_then(|most| Ok(f64::max(most, is_good(&told, goal)?)));
        }
        match now {
            Ok(lag) => {
                good += 1;
                lags.push(lag);
            }
            Err(reason) => {
                (good, why) = (0, reason);
                lags.clear();
            }
        }
        if good > LOOKS {
            let most = lags.iter().copied().fold(0.0, f64::max);
            return Ok(format!("{LOOKS} looks, {most:.1} s behind at most"));
        }
        tokio::time::sleep(BETWEEN).await;
    }
    Err(why)
}

/// How far the link's source is, as that tells by itself.
async fn written_at(
    config: &Config,
    told: &Told,
    sources: &mut BTreeMap<String, Client>,
) -> Result<u64, String> {
    let words = |error: SyncError| error.to_string();
    let endpoint = shards::source_of(config, told);
    let address = endpoint.address.clone();
    if !sources.contains_key(&address) {
        let client = Client::connect(&endpoint, Side::Source).await;
        sources.insert(address.clone(), client.map_err(words)?);
    }
    let info = match sources.get_mut(&address) {
        Some(client) => client.info("replication").await.map_err(words)?,
        None => return Err("the source is not connected".to_owned()),
    };
    let (_, offset) = position(&info).ok_or("the source does not tell its offset")?;
    Ok(offset)
}

fn is_good(told: &Told, goal: Option<u64>) -> Result<f64, String> {
    if let Some(reason) = told.reasons().into_iter().next() {
        return Err(reason);
    }
    let applied = told.number("applied_offset");
    if let Some(goal) = goal.filter(|goal| *goal > applied) {
        return Err(format!(
            "{} bytes that the source wrote more than a second ago are not applied",
            goal - applied
        ));
    }
    Ok(told.value("lag_seconds").as_f64().unwrap_or(0.0))
}

/// What the daemon has against it.
pub(super) fn daemon(told: &Told) -> Check {
    let reasons = told.reasons();
    check(
        "sync",
        match reasons.is_empty() {
            true if told.is_of_scan() => Ok(
                "the source is read by SCAN, events arrive, and passes over all keys agree"
                    .to_owned(),
            ),
            true => Ok("the stream is applied, and no key is under repair".to_owned()),
            false => Err(reasons.join("; ")),
        },
    )
}

/// Whether the target can bear the application: the server, or every primary of a cluster.
pub(super) async fn target(config: &Config) -> Check {
    let looked = async {
        let clients = match config.target.cluster {
            None => vec![Client::connect(&config.target.endpoint, Side::Target).await?],
            Some(_) => cluster::connect_all(config).await?,
        };
        let mut all = Vec::new();
        for mut client in clients {
            let reply = client.call(&[b"INFO"]).await?;
            let text = reply.as_bytes().cloned().unwrap_or_default();
            let mut info = String::from_utf8_lossy(&text).into_owned();
            if config.target.cluster.is_some() {
                // Whether it finds the cluster whole stands elsewhere; who may not ask has to take it as it is.
                let state = client.ask(&[b"CLUSTER", b"INFO"]).await?;
                let state = state.as_bytes().cloned().unwrap_or_default();
                info.push_str(&String::from_utf8_lossy(&state));
            }
            all.push((client.address().to_owned(), Info::of(info.as_bytes())));
        }
        Ok::<_, SyncError>(all)
    };
    let found = match looked.await {
        Ok(all) => match all.as_slice() {
            [(_, info)] => health(info),
            all => all_healthy(all),
        },
        Err(error) => Err(error.to_string()),
    };
    check("target", found)
}

/// The nodes of a cluster, each by its address.
fn all_healthy(all: &[(String, Info)]) -> Result<String, String> {
    let mut against = Vec::new();
    for (address, info) in all {
        if let Err(why) = health(info) {
            against.push(format!("{address}: {why}"));
        }
    }
    match against.is_empty() {
        true => Ok(format!("a cluster of {} primaries", all.len())),
        false => Err(against.join("; ")),
    }
}

fn health(info: &Info) -> Result<String, String> {
    let text = |field: &str| info.get(field).map(str::trim).unwrap_or_default();
    let number = |field: &str| text(field).parse::<u64>().unwrap_or(0);
    let mut against = Vec::new();
    if text("role") == "slave" {
        against.push("it is a replica".to_owned());
    }
    if text("loading") == "1" {
        against.push("it is loading its data".to_owned());
    }
    let (used, most) = (number("used_memory"), number("maxmemory"));
    if most > 0 && used.saturating_mul(100) > most.saturating_mul(MEMORY_PERCENT) {
        against.push(format!(
            "{} % of its memory is used",
            used.saturating_mul(100) / most
        ));
    }
    let evicted = number("evicted_keys");
    if evicted > 0 {
        against.push(format!(
            "it has evicted {evicted} keys: they are missing there"
        ));
    }
    for (field, what) in [
        ("rdb_last_bgsave_status", "its last snapshot has failed"),
        ("aof_last_write_status", "its AOF cannot be written"),
    ] {
        if text(field) == "err" {
            against.push(what.to_owned());
        }
    }
    if info.get("cluster_enabled").is_some() && text("cluster_state") == "fail" {
        against.push("its cluster is not whole".to_owned());
    }
    match against.is_empty() {
        true => Ok(format!("{} {}", text("role"), text("redis_version"))),
        false => Err(against.join("; ")),
    }
}

/// Whether both ends are equal: as sync itself has compared them, or by a comparison now.
pub(super) async fn verification(config: &Config, told: &Told, extent: CompareExtent) -> Check {
    if extent == CompareExtent::None {
        return check("verify", Ok("not wanted".to_owned()));
    }
    let (passes, found) = (told.number("compare_passes"), told.number("compare_found"));
    if passes > 0 && found == 0 {
        let text = format!(
            "sync has compared all keys {passes} times, the last time without a difference"
        );
        return check("verify", Ok(text));
    }
    check("verify", compare(config, extent, Beside::Sync).await)
}

/// A comparison of that extent.
///
/// # Errors
/// What differs, or why it cannot be told.
pub(super) async fn compare(
    config: &Config,
    extent: CompareExtent,
    beside: Beside,
) -> Result<String, String> {
    if config.function.is_some() {
        return Err("filter.function is set, and what it makes is not compared: look at the keys by other means, and say --compare none".to_owned());
    }
    let verified = verify(config, extent == CompareExtent::Full, beside).await;
    let Verified {
        keys,
        differing,
        unclear,
        named,
    } = verified.map_err(|error| error.to_string())?;
    match differing + unclear {
        0 => Ok(format!("{keys} keys compared, no difference")),
        _ => Err(format!(
            "{differing} of {keys} keys differ, {unclear} cannot be told: {}",
            named.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_in_trouble_is_none_to_switch_to() {
        let ok = "role:master\r\nredis_version:7.0.15\r\nused_memory:5\r\nmaxmemory:0\r\nevicted_keys:0\r\n";
        assert_eq!(
            health(&Info::of(ok.as_bytes())),
            Ok("master 7.0.15".to_owned())
        );
        let bad = "role:slave\r\nloading:1\r\nused_memory:99\r\nmaxmemory:100\r\nevicted_keys:3\r\naof_last_write_status:err\r\n";
        let why = health(&Info::of(bad.as_bytes())).unwrap_err();
        for word in ["replica", "loading", "99 %", "3 keys", "AOF"] {
            assert!(why.contains(word), "{word}: {why}");
        }
        let node = |address: &str, text: &str| (address.to_owned(), Info::of(text.as_bytes()));
        let well = all_healthy(&[node("a:1", ok), node("b:1", ok)]);
        assert_eq!(well, Ok("a cluster of 2 primaries".to_owned()));
        let lost = "cluster_enabled:1\r\ncluster_state:fail\r\n";
        let why = all_healthy(&[node("a:1", ok), node("b:1", lost)]);
        assert_eq!(why, Err("b:1: its cluster is not whole".to_owned()));
    }
}
