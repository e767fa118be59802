//! Which server is read: the source itself, or one of its replicas; and what our user may do there.

use replica::ReplId;
use resp::{ErrorCode, Value};
use rewrite::Version;

use super::reads::Way;
use crate::client::{Client, Info};
use crate::compare::End;
use crate::config::{Config, Endpoint};
use crate::error::{Side, SyncError};
use crate::replicas;

/// The server that is read from: a replica that follows, where one is wanted and there is one.
///
/// # Errors
/// Those of the connection to the source.
pub(super) async fn choose(config: &Config) -> Result<Endpoint, SyncError> {
    let source = &config.source.endpoint;
    if !config.scan.prefer_replica {
        return Ok(source.clone());
    }
    let mut client = Client::connect(source, Side::Source).await?;
    let replicas = match client.info("replication").await {
        Ok(info) => replicas::listed(&info),
        Err(_) => Vec::new(),
    };
    for replica in replicas {
        let endpoint = Endpoint {
            address: replica.address,
            ..source.clone()
        };
        match follows(&endpoint).await {
            Ok(true) => {
                tracing::info!(replica = endpoint.address, "reading from a replica");
                return Ok(endpoint);
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%error, "this replica is not read from"),
        }
    }
    tracing::warn!(
        "scan_reader.prefer_replica: no replica can be read from; reading from the source itself"
    );
    Ok(source.clone())
}

async fn follows(endpoint: &Endpoint) -> Result<bool, SyncError> {
    let mut client = Client::connect(endpoint, Side::Source).await?;
    let info = client.info("replication").await?;
    Ok(replicas::follows(&info) == Some(true))
}

/// Where INFO is not allowed, the version as far as it matters: by what the server knows.
///
/// # Errors
/// Those of the connection.
pub(super) async fn guess(end: &mut End) -> Result<(), SyncError> {
    if !matches!(end.one(0, &[b"INFO", b"server"]).await?, Value::Error(_)) {
        return Ok(());
    }
    let key: &[u8] = b"understudy:scan";
    let newest: [(&[&[u8]], Version); 2] = [
        (
            &[b"HPEXPIRETIME", key, b"FIELDS", b"1", b"f"],
            Version::new(7, 4, 0),
        ),
        (&[b"PEXPIRETIME", key], Version::new(7, 0, 0)),
    ];
    for (argv, version) in newest {
        if !matches!(end.one(0, argv).await?, Value::Error(_)) {
            end.version = version;
            break;
        }
    }
    Ok(())
}

/// What is known of the server, or of the cluster, that is read.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) way: Way,
    /// The name of the server's process; see [`process`].
    pub(super) run_id: Option<ReplId>,
    /// The ids of its histories, of each primary one.
    pub(super) replids: Vec<ReplId>,
}

/// The name of the server's process, where it tells, and keeps to it: behind some proxies it is another each time. Of a cluster
/// one that all its primaries' processes make together: another one when one of them has started anew, or another has its place.
///
/// # Errors
/// Those of the connection.
pub(super) async fn process(end: &mut End) -> Result<Option<ReplId>, SyncError> {
    let of = |reply: &Value| -> Option<ReplId> {
        let text = reply.as_bytes()?;
        Info::of(text).get("run_id")?.parse().ok()
    };
    if !end.is_cluster() {
        let asked: Vec<&[u8]> = vec![b"INFO", b"server"];
        let told = end.ask(0, &[asked.clone(), asked]).await?;
        let mut names = told.iter().map(of);
        let name = names.next().flatten();
        return Ok(name.filter(|name| names.all(|other| other.as_ref() == Some(name))));
    }
    let told = end.each(0, &[b"INFO", b"server"]).await?;
    let names: Option<Vec<ReplId>> = told.iter().map(|(_, reply)| of(reply)).collect();
    Ok(names.and_then(|names| together(&names)))
}

/// One name for several, in whatever order they come.
fn together(names: &[ReplId]) -> Option<ReplId> {
    let mut digits = [0_u32; 40];
    for name in names {
        for (digit, char) in digits.iter_mut().zip(name.to_string().chars()) {
            *digit ^= char.to_digit(16)?;
        }
    }
    let digits = digits.into_iter();
    let text: Option<String> = digits.map(|digit| char::from_digit(digit, 16)).collect();
    text?.parse().ok()
}

/// Looks at what the server is and what we may do there.
///
/// # Errors
/// Those of the connection; stop where keys cannot be listed.
pub(super) async fn look(end: &mut End) -> Result<Origin, SyncError> {
    let server = info(end, b"server").await?;
    let replications = end.each(0, &[b"INFO", b"replication"]).await?;
    let scanned = end.one(0, &[b"SCAN", b"0", b"COUNT", b"1"]).await?;
    if let Value::Error(_) = scanned {
        return Err(end.strange("SCAN", &scanned));
    }
    let way = match end.one(0, &[b"DUMP", b"understudy:scan"]).await? {
        Value::Error(error) => {
            let reply = String::from_utf8_lossy(&error.text).into_owned();
            let word = match error.code {
                ErrorCode::NoPerm => "+dump allows it",
                _ => "it does not offer it",
            };
            tracing::warn!(
                reply,
                "the source refuses DUMP ({word}): values are read by the commands of their types; values of modules are not in the copy"
            );
            Way::Types
        }
        _ => Way::Payloads,
    };
    if server.is_none() {
        tracing::warn!(
            "the source refuses INFO: its version, its databases and its FLUSHALLs are not seen; name the databases in scan_reader.dbs, and allow +info"
        );
    }
    Ok(Origin {
        way,
        run_id: process(end).await?,
        replids: replications
            .iter()
            .filter_map(|(_, told)| {
                let info = Info::of(told.as_bytes()?);
                info.get("master_replid")?.parse().ok()
            })
            .collect(),
    })
}

async fn info(end: &mut End, section: &[u8]) -> Result<Option<Info>, SyncError> {
    Ok(match end.one(0, &[b"INFO", section]).await? {
        Value::Bulk(text) | Value::Verbatim { text, .. } => Some(Info::of(&text)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_have_one_name_together() {
        let id = |digit: &str| -> ReplId { digit.repeat(40).parse().unwrap() };
        assert_eq!(together(&[id("a")]), Some(id("a")));
        assert_eq!(together(&[id("a"), id("3")]), Some(id("9")));
        assert_eq!(together(&[id("3"), id("a")]), Some(id("9")));
    }
}
