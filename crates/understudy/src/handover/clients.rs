//! Who is connected to the source, from its CLIENT LIST: clients of the application, which have to leave before it is
//! switched off.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::Duration;

use resp::Value;
use rewrite::Table;
use rewrite::table::Flags;
use serde::Serialize;

use super::Stage;
use crate::client::{Client, Info, OUR_NAME};
use crate::clock::unix_ms;
use crate::config::Config;
use crate::error::{Side, SyncError};
use crate::status::Status;

/// Between two looks after the switch.
const AFTER_GO: Duration = Duration::from_secs(1);
/// After trouble with the source.
const RETRY: Duration = Duration::from_secs(10);
/// A source that does not tell is asked again after this time.
const REFUSED: Duration = Duration::from_secs(300);
/// Sentinels name their connections so.
const SENTINEL: &str = "sentinel-";

/// A client that is still connected to the source.
#[derive(Debug, Clone, Default, Serialize, PartialEq, Eq)]
pub(crate) struct Straggler {
    #[serde(skip)]
    pub(crate) id: u64,
    pub(crate) address: String,
    pub(crate) name: String,
    pub(crate) user: String,
    /// Its library and that one's version.
    pub(crate) lib: String,
    pub(crate) last_command: String,
    pub(crate) idle_seconds: u64,
    pub(crate) age_seconds: u64,
    /// Looks since the switch at which its last command was a write that it had just sent: at least so many.
    pub(crate) writes: u64,
    #[serde(skip)]
    flags: String,
    /// All commands it ever sent, where the source counts them.
    #[serde(skip)]
    commands: Option<u64>,
}

/// The ids of the application's clients in a CLIENT LIST.
pub(crate) fn straggler_ids(text: &str) -> Vec<u64> {
    let mut clients = clients_of(text);
    clients.retain(is_straggler);
    clients.into_iter().map(|client| client.id).collect()
}

/// The lines of a CLIENT LIST.
fn clients_of(text: &str) -> Vec<Straggler> {
    text.lines().filter_map(client_of).collect()
}

fn client_of(line: &str) -> Option<Straggler> {
    let fields: BTreeMap<&str, &str> = line
        .split_whitespace()
        .filter_map(|field| field.split_once('='))
        .collect();
    let text = |name: &str| (*fields.get(name).unwrap_or(&"")).to_owned();
    let number = |name: &str| fields.get(name)?.parse().ok();
    Some(Straggler {
        id: number("id")?,
        address: text("addr"),
        name: text("name"),
        user: text("user"),
        lib: match (text("lib-name"), text("lib-ver")) {
            (name, version) if version.is_empty() => name,
            (name, version) => format!("{name}/{version}"),
        },
        last_command: text("cmd").replace('|', " "),
        idle_seconds: number("idle").unwrap_or(0),
        age_seconds: number("age").unwrap_or(0),
        writes: 0,
        flags: text("flags"),
        commands: number("tot-cmds"),
    })
}

/// Whether it is a client of the application: not us, not a replica or a master, not a Sentinel.
fn is_straggler(client: &Straggler) -> bool {
    let is_server = client.flags.contains(['S', 'M', 'O']);
    !is_server && client.name != OUR_NAME && !client.name.starts_with(SENTINEL)
}

/// Asks the source who is connected, as long as the link runs.
pub(crate) async fn watch_clients_forever(config: &Config, status: &Status) -> Infallible {
    if config.cutover.watch_clients.is_zero() {
        return std::future::pending().await;
    }
    let mut writers = Writers::new();
    loop {
        let pause = match watch(config, status, &mut writers).await {
            Ok(never) => match never {},
            Err(error) if error.class == crate::error::Class::Stop => {
                tracing::debug!(%error, "the source does not tell who is connected");
                REFUSED
            }
            Err(error) => {
                tracing::debug!(%error, "the source's clients are looked at later");
                RETRY
            }
        };
        status.handover.set_clients(None, Vec::new());
        tokio::time::sleep(pause).await;
    }
}

async fn watch(
    config: &Config,
    status: &Status,
    writers: &mut Writers,
) -> Result<Infallible, SyncError> {
    let mut source = Client::connect(&config.source.endpoint, Side::Source).await?;
    loop {
        let answers = source
            .ask_all(&[vec![b"CLIENT", b"LIST"], vec![b"INFO", b"stats"]])
            .await?;
        let [list, stats] = answers.as_slice() else {
            continue;
        };
        if let Value::Error(error) = list {
            return Err(source.refused(&[b"CLIENT"], error));
        }
        let text = list.as_bytes().map_or_else(String::new, |text| {
            String::from_utf8_lossy(text).into_owned()
        });
        let mut clients = clients_of(&text);
        clients.retain(is_straggler);
        let stage = status.handover.state().stage;
        writers.look(&mut clients, stage);
        if let Some(stats) = stats.as_bytes() {
            let removed = removed_by_itself(&Info::of(stats));
            // Under a hold it may be on either side of the offset.
            if !matches!(stage, Stage::Closing | Stage::Closed) {
                let is_over = stage == Stage::Go;
                status
                    .handover
                    .late(|late| late.removed_by_itself(removed, is_over));
            }
        }
        let count = clients.len() as u64;
        status.handover.set_clients(Some(count), clients);
        let every = match stage {
            Stage::Go => AFTER_GO,
            _ => config.cutover.watch_clients,
        };
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = status.handover.went() => {}
        }
    }
}

/// Which clients write at the source after the switch, as far as the last command of each tells.
struct Writers {
    table: Table,
    /// By the client's id: all its commands at the last look, and the writes that were seen.
    seen: BTreeMap<u64, (Option<u64>, u64)>,
    since_ms: Option<u64>,
}

impl Writers {
    fn new() -> Self {
        Self {
            table: Table::new(),
            seen: BTreeMap::new(),
            since_ms: None,
        }
    }

    fn look(&mut self, clients: &mut [Straggler], stage: Stage) {
        if stage != Stage::Go {
            self.seen.clear();
            self.since_ms = None;
            return;
        }
        let since_ms = *self.since_ms.get_or_insert_with(unix_ms);
        let since_seconds = unix_ms().saturating_sub(since_ms) / 1000;
        let mut seen = BTreeMap::new();
        for client in clients {
            let before = self.seen.get(&client.id).copied();
            let (commands, mut writes) = before.unwrap_or((None, 0));
            let has_sent = match (commands, client.commands) {
                (Some(before), Some(now)) => now > before,
                _ => client.idle_seconds <= since_seconds.min(1),
            };
            // What it sent before the first look may be older than the switch.
            if before.is_some() && has_sent && self.is_write(&client.last_command) {
                writes += 1;
            }
            client.writes = writes;
            seen.insert(client.id, (client.commands, writes));
        }
        self.seen = seen;
    }

    fn is_write(&self, command: &str) -> bool {
        let name = command.split(' ').next().unwrap_or_default();
        let command = self.table.lookup(name.as_bytes());
        command.is_some_and(|command| command.flags.has(Flags::WRITE))
    }
}

/// Keys (and fields) that a server has removed by itself since it was started, out of its INFO stats: they come as removals in
/// the stream, and so many of those are nobody's.
pub(crate) fn removed_by_itself(stats: &Info) -> u64 {
    let fields = [
        "expired_keys",
        "evicted_keys",
        "expired_subkeys",
        "expired_fields",
    ];
    let number = |field: &&str| stats.get(field)?.trim().parse::<u64>().ok();
    fields.iter().filter_map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_all_versions_are_read() {
        let text = "id=3 addr=10.0.0.1:5001 fd=8 name= age=10 idle=2 flags=N db=0 sub=0 psub=0 multi=-1 qbuf=0 obl=0 oll=0 omem=0 events=r cmd=set\n\
            id=4 addr=10.0.0.2:5002 laddr=10.0.0.9:6379 fd=9 name=web age=7 idle=0 flags=N cmd=client|list user=app lib-name=redis-py lib-ver=5.0.1 tot-cmds=9\n\
            id=5 addr=10.0.0.3:5003 name= age=1 idle=0 flags=S cmd=replconf user=default\n\
            id=6 addr=10.0.0.3:5003 name=sentinel-abc-cmd age=1 idle=0 flags=N cmd=ping user=default\n\
            id=7 addr=10.0.0.3:5004 name=understudy age=1 idle=0 flags=N cmd=info user=default\n";
        let mut clients = clients_of(text);
        clients.retain(is_straggler);
        assert_eq!(clients.len(), 2);
        assert_eq!(clients[0].address, "10.0.0.1:5001");
        assert_eq!(
            (clients[0].user.as_str(), clients[0].lib.as_str()),
            ("", "")
        );
        assert_eq!(clients[1].last_command, "client list");
        assert_eq!(
            (clients[1].lib.as_str(), clients[1].age_seconds),
            ("redis-py/5.0.1", 7)
        );
    }

    #[test]
    fn writes_are_counted_by_looks() {
        let mut writers = Writers::new();
        let client = |commands, cmd: &str| Straggler {
            id: 1,
            last_command: cmd.to_owned(),
            commands: Some(commands),
            ..Straggler::default()
        };
        let mut seen = Vec::new();
        for (commands, cmd) in [
            (5, "set"),
            (6, "set"),
            (6, "set"),
            (9, "get"),
            (10, "rpush"),
        ] {
            let mut clients = [client(commands, cmd)];
            writers.look(&mut clients, Stage::Go);
            seen.push(clients[0].writes);
        }
        assert_eq!(seen, [0, 1, 1, 1, 2]);
        writers.look(&mut [client(11, "set")], Stage::Replicating);
        assert!(writers.seen.is_empty());
    }
}
