//! What a target can do beyond what its version says: asked in one go whenever it is looked at, and nothing is written.
//!
//! A RESTORE with a time of -1 is refused after its options were read: one that it does not know is a syntax error. A
//! RESTORE of a payload without a value is refused by its version, or, where that is accepted, for its content.

use resp::Value;
use rewrite::Abilities;

use crate::client::{Client, Info};
use crate::error::SyncError;
use crate::profile::Profile;

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Probed {
    /// `maxmemory-policy`, where it tells.
    pub(crate) policy: Option<String>,
    /// `maxmemory`, 0 for none.
    pub(crate) memory_bytes: Option<u64>,
    /// Whether another database than 0 can be selected.
    pub(crate) has_databases: Option<bool>,
}

impl Probed {
    /// Says in the log what kind of target it is, and what is wrong with it.
    pub(crate) fn tell(&self, abilities: &Abilities, profile: Profile) {
        tracing::info!(
            fork = ?abilities.fork,
            version = %abilities.version,
            profile = profile.name(),
            restore = abilities.restore,
            rdb_version = abilities.rdb_version_max,
            databases = self.has_databases,
            maxmemory = self.memory_bytes,
            policy = self.policy,
            "target"
        );
        let evicts = |policy: &&String| *policy != "noeviction";
        // Without a bound nothing is ever evicted.
        if let Some(policy) = self.policy.as_ref().filter(evicts)
            && self.memory_bytes != Some(0)
        {
            tracing::warn!(
                policy,
                "the target may evict keys, which nobody notices here: set maxmemory-policy noeviction there"
            );
        }
    }
}

/// A type that no version knows.
const NO_TYPE: u8 = 0xfe;

/// Asks, and takes from `abilities` what the target does not take. A node of a cluster looks at a command for its own slots
/// alone, so `beside` is a key of one of them.
///
/// # Errors
/// Those of the connection.
pub(crate) async fn probe(
    client: &mut Client,
    abilities: &mut Abilities,
    profile: Profile,
    beside: &str,
) -> Result<Probed, SyncError> {
    let key = rewrite::temporary_key(beside.as_bytes());
    let mut payload = Vec::new();
    rdb::dump::payload(&mut payload, None, NO_TYPE, b"", abilities.rdb_version_max);
    // Where there is never another one, nobody is asked for it.
    let other: &[u8] = match profile {
        Profile::Serverless => b"0",
        Profile::Auto | Profile::Redis | Profile::ElastiCache => b"1",
    };
    let mut commands: Vec<Vec<&[u8]>> = vec![
        vec![b"INFO", b"memory"],
        vec![b"SELECT", other],
        vec![b"SELECT", b"0"],
    ];
    if abilities.restore {
        commands.push(vec![b"RESTORE", &key, b"-1", &payload, b"REPLACE"]);
        commands.push(vec![b"RESTORE", &key, b"-1", &payload, b"ABSTTL"]);
        commands.push(vec![b"RESTORE", &key, b"0", &payload]);
    }
    let replies = client.ask_all(&commands).await?;
    let mut found = Probed::default();
    if let Some(Value::Bulk(text)) = replies.first() {
        let info = Info::of(text);
        found.policy = info.get("maxmemory_policy").map(str::to_owned);
        found.memory_bytes = info.get("maxmemory").and_then(|bytes| bytes.parse().ok());
    }
    found.has_databases = match replies.get(1) {
        Some(_) if other == b"0" => Some(false),
        Some(Value::Simple(_)) => Some(true),
        Some(Value::Error(error)) if !error.text.starts_with(b"NOPERM") => Some(false),
        _ => None,
    };
    abilities.databases = match found.has_databases {
        None => None,
        Some(false) => Some(1),
        Some(true) => Some(count_databases(client).await?),
    };
    let refusal = |at: usize| match replies.get(at) {
        Some(Value::Error(error)) => String::from_utf8_lossy(&error.text).to_ascii_lowercase(),
        _ => String::new(),
    };
    let is_syntax = |at: usize| refusal(at).contains("syntax error");
    // A right that is missing is the operator's to give, and is asked for by the first command that needs it.
    if refusal(3).contains("unknown command") {
        abilities.restore = false;
    }
    abilities.restore_replace &= !is_syntax(3);
    abilities.restore_absttl &= !is_syntax(4);
    abilities.restore_idle_freq &= !is_syntax(4);
    if refusal(5).contains("payload version") {
        // A service may be behind the version that it names: nothing newer than what every version since 5.0 takes.
        abilities.rdb_version_max = abilities.rdb_version_max.min(OLDER);
    }
    Ok(found)
}

/// More databases than this are not counted.
const DATABASES_MAX: u32 = 1 << 16;

/// How many databases it has: two at least, and most have 16.
async fn count_databases(client: &mut Client) -> Result<u32, SyncError> {
    // There are at least `has`, and fewer than `lacks`.
    let (mut has, mut lacks, mut next) = (2, DATABASES_MAX + 1, [16, 17]);
    while lacks - has > 1 {
        let numbers = next.map(|count| (count - 1).to_string());
        let mut commands: Vec<Vec<&[u8]>> = Vec::new();
        commands.extend(numbers.iter().map(|db| vec![&b"SELECT"[..], db.as_bytes()]));
        commands.push(vec![b"SELECT", b"0"]);
        let replies = client.ask_all(&commands).await?;
        for (count, reply) in next.into_iter().zip(replies) {
            match reply {
                Value::Simple(_) => has = has.max(count),
                _ => lacks = lacks.min(count),
            }
        }
        let middle = u32::midpoint(has, lacks);
        next = [middle, (middle + 1).min(lacks - 1)];
    }
    Ok(has)
}

/// RDB version of Redis 5 and 6.
const OLDER: u16 = 9;
