//! Replicas of the source. With `sync_reader.prefer_replica` PSYNC goes to one of them, so that the fork of a snapshot and the
//! stream's bytes are not the master's burden.
//!
//! From 4.0 on a replica hands on its master's stream byte by byte, under its master's name and offsets, so a link may change from one
//! to another and back. What it must not do is ask a replica that is not as far as we are, or does not keep what we need:
//! it would answer with a new snapshot. INFO replication says both beforehand. All else that is asked of the source (offsets, clocks,
//! keys under repair, slots that move) is asked of the master, whose offsets are the same.

use std::time::Duration;

use replica::{ReplId, Start};

use crate::client::{Client, Info};
use crate::config::Endpoint;
use crate::error::{Class, Side, SyncError};

/// A replica that is a little behind us is waited for so often,
const ATTEMPTS: u32 = 10;
/// with such pauses.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a replica may take to be reached and to answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A replica, as its master tells of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    /// `host:port`, as it announces itself to its master.
    pub(crate) address: String,
    /// Seconds since its last acknowledgement.
    pub(crate) lag: u64,
}

/// Replicas that are online, by `slave0:ip=10.0.0.2,port=6379,state=online,offset=..,lag=0` of INFO replication; those that follow
/// most closely come first.
pub(crate) fn listed(info: &Info) -> Vec<Replica> {
    let of = |line: &str| {
        let (name, rest) = line.trim_end().split_once(':')?;
        let number = name.strip_prefix("slave")?;
        if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let field = |name: &str| {
            let mut fields = rest.split(',').filter_map(|field| field.split_once('='));
            fields.find_map(|(field, value)| (field == name).then_some(value))
        };
        let (ip, port) = (field("ip")?, field("port")?);
        // We ourselves, or somebody else who announces no port.
        if port == "0" || field("state")? != "online" {
            return None;
        }
        let address = match ip.contains(':') {
            true => format!("[{ip}]:{port}"),
            false => format!("{ip}:{port}"),
        };
        let lag = field("lag").and_then(|lag| lag.parse().ok()).unwrap_or(0);
        Some(Replica { address, lag })
    };
    let mut replicas: Vec<Replica> = info.text().lines().filter_map(of).collect();
    replicas.sort_by_key(|replica| replica.lag);
    replicas
}

/// Whether this is a replica that hears from its master; `None` where INFO does not tell.
pub(crate) fn follows(replication: &Info) -> Option<bool> {
    let is_replica = replication.get("role")? == "slave";
    Some(is_replica && replication.get("master_link_status") == Some("up"))
}

/// The server that PSYNC is to go to: a replica of `master` that can do what `start` asks for, else the master itself.
///
/// # Errors
/// Those of the connection to the master.
pub(crate) async fn choose(master: Endpoint, start: &Start) -> Result<Endpoint, SyncError> {
    let mut client = Client::connect_plainly(&master, Side::Source).await?;
    for attempt in 1..=ATTEMPTS {
        let info = match client.info("replication").await {
            Ok(info) => info,
            Err(error) if error.class == Class::Reconnect => return Err(error),
            Err(error) => {
                say_master(&master, &format!("INFO is refused ({error})"));
                return Ok(master);
            }
        };
        if info.get("role") == Some("slave") {
            // A replica was given, which is what is wanted.
            return Ok(master);
        }
        let found = look(&master, &info, start).await;
        if let Some(endpoint) = found.able {
            tracing::info!(
                replica = endpoint.address,
                master = master.address,
                "following a replica of the source"
            );
            return Ok(endpoint);
        }
        let master_is_able = standing(&info, start) == Standing::Able;
        if !found.is_behind || attempt == ATTEMPTS {
            return Ok(match found.anew {
                // Nobody knows our position any more: the snapshot is not the master's burden either.
                Some(endpoint) if !master_is_able && !found.is_behind => {
                    tracing::info!(
                        replica = endpoint.address,
                        master = master.address,
                        "following a replica of the source, anew"
                    );
                    endpoint
                }
                _ => {
                    say_master(&master, &found.why);
                    master
                }
            });
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(master)
}

fn say_master(master: &Endpoint, why: &str) {
    tracing::warn!(
        master = master.address,
        why,
        "sync_reader.prefer_replica: no replica can be followed now; following the master"
    );
}

/// What was found among a master's replicas.
struct Among {
    /// Can do what is asked for.
    able: Option<Endpoint>,
    /// Follows the master, and could give a snapshot.
    anew: Option<Endpoint>,
    /// One is not as far as we are yet.
    is_behind: bool,
    /// Why none is able.
    why: String,
}

async fn look(master: &Endpoint, info: &Info, start: &Start) -> Among {
    let mut among = Among {
        able: None,
        anew: None,
        is_behind: false,
        why: "the source has none that is online".to_owned(),
    };
    let Some(history) = info.get("master_replid") else {
        among.why =
            "the source is older than 4.0, whose replicas have streams of their own".to_owned();
        return among;
    };
    for replica in listed(info) {
        let endpoint = Endpoint {
            address: replica.address,
            ..master.clone()
        };
        let asked = tokio::time::timeout(TIMEOUT, about(&endpoint)).await;
        let address = &endpoint.address;
        let own = match asked {
            Ok(Ok(own)) => own,
            Ok(Err(error)) => {
                among.why = error.to_string();
                continue;
            }
            Err(_) => {
                among.why = format!("{address} does not answer");
                continue;
            }
        };
        if follows(&own) != Some(true) || own.get("master_replid") != Some(history) {
            among.why = format!("{address} does not follow it");
            continue;
        }
        match standing(&own, start) {
            Standing::Able => {
                among.able = Some(endpoint);
                return among;
            }
            Standing::Behind => {
                among.why = format!("{address} is not as far as this link");
                among.is_behind = true;
            }
            Standing::Unable => {
                among.why = format!(
                    "{address} does not keep the stream from this link's position on (repl-backlog-size)"
                );
                among.anew.get_or_insert(endpoint);
            }
        }
    }
    among
}

async fn about(endpoint: &Endpoint) -> Result<Info, SyncError> {
    let mut client = Client::connect_plainly(endpoint, Side::Source).await?;
    client.info("replication").await
}

/// What a server can do for a link.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    /// It would go on where the link is, or begins anew as the link wants.
    Able,
    /// It is of our history, and has not come to our position.
    Behind,
    /// It would answer with a snapshot.
    Unable,
}

/// How a server would answer PSYNC, by its INFO replication.
fn standing(info: &Info, start: &Start) -> Standing {
    let Start::Resume {
        replid, received, ..
    } = start
    else {
        return Standing::Able;
    };
    let number = |field: &str| info.get(field).and_then(|text| text.parse::<i128>().ok());
    let is =
        |field: &str| info.get(field).and_then(|text| text.parse::<ReplId>().ok()) == Some(*replid);
    let next = i128::from(received.0) + 1;
    let is_former =
        is("master_replid2") && number("second_repl_offset").is_some_and(|end| next <= end);
    if !is("master_replid") && !is_former {
        return Standing::Unable;
    }
    let (Some(first), Some(len)) = (
        number("repl_backlog_first_byte_offset"),
        number("repl_backlog_histlen"),
    ) else {
        return Standing::Unable;
    };
    if info.get("repl_backlog_active") != Some("1") {
        return Standing::Unable;
    }
    match next {
        next if next > first + len => Standing::Behind,
        next if next >= first => Standing::Able,
        _ => Standing::Unable,
    }
}

#[cfg(test)]
mod tests {
    use replica::ReplOffset;

    use super::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    const B: &str = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

    #[test]
    fn replicas_that_follow_are_listed() {
        let text = "role:master\r\nconnected_slaves:4\r\nslave0:ip=10.0.0.2,port=6379,state=online,offset=9,lag=3\r\nslave1:ip=10.0.0.3,port=0,state=online,offset=9,lag=0\r\nslave2:ip=fe80::1,port=6380,state=online,offset=9,lag=0\r\nslave3:ip=10.0.0.4,port=6379,state=wait_bgsave,offset=0,lag=0\r\nslave_repl_offset:7\r\n";
        let found = listed(&Info::of(text.as_bytes()));
        let addresses: Vec<&str> = found.iter().map(|one| one.address.as_str()).collect();
        assert_eq!(addresses, ["[fe80::1]:6380", "10.0.0.2:6379"]);
        assert_eq!(found.last().map(|one| one.lag), Some(3));
    }

    #[test]
    fn a_server_tells_how_it_would_answer() {
        let text = format!(
            "role:slave\r\nmaster_replid:{A}\r\nmaster_replid2:{B}\r\nmaster_repl_offset:1000\r\nsecond_repl_offset:901\r\nrepl_backlog_active:1\r\nrepl_backlog_first_byte_offset:801\r\nrepl_backlog_histlen:200\r\n"
        );
        let info = Info::of(text.as_bytes());
        let at = |replid: &str, received: u64| {
            let start = Start::Resume {
                replid: replid.parse().unwrap(),
                received: ReplOffset(received),
                partial: bytes::Bytes::new(),
            };
            standing(&info, &start)
        };
        assert_eq!(standing(&info, &Start::Full), Standing::Able);
        assert_eq!(at(A, 1000), Standing::Able);
        assert_eq!(at(A, 1001), Standing::Behind);
        assert_eq!(at(A, 800), Standing::Able);
        assert_eq!(at(A, 799), Standing::Unable);
        // The former history, up to where it was left.
        assert_eq!(at(B, 900), Standing::Able);
        assert_eq!(at(B, 901), Standing::Unable);
        assert_eq!(at(&B.replace('b', "c"), 900), Standing::Unable);
        let no_backlog = Info::of(format!("role:slave\r\nmaster_replid:{A}\r\n").as_bytes());
        let start = Start::Resume {
            replid: A.parse().unwrap(),
            received: ReplOffset(5),
            partial: bytes::Bytes::new(),
        };
        assert_eq!(standing(&no_backlog, &start), Standing::Unable);
    }
}
