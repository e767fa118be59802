//! What the target takes of what sync sends: long commands, transactions of a unit's size; and at a cluster, what keeps a replaced
//! writer out. Tried, and nothing is written: every command here only reads, of a key that is not there.

use resp::{ErrorCode, Value};

use super::finding::{Finding, fail, pass, unknown, warn};
use crate::checkpoint;
use crate::client::Client;
use crate::config::{Config, Endpoint, SlotFence};
use crate::error::{Side, SyncError};
use crate::profile::Profile;
use crate::target::cluster;

/// One word more than ElastiCache Serverless takes.
const WORDS: usize = 4_000;

/// What it takes.
///
/// # Errors
/// Those of the connection.
pub(super) async fn limits(config: &Config, os: Option<&str>) -> Result<Vec<Finding>, SyncError> {
    let own = checkpoint::key(&config.link_name);
    let endpoint = match &config.target.cluster {
        None => config.target.endpoint.clone(),
        Some(_) => cluster::locate(&config.target, &own).await?.endpoint,
    };
    let host = config.target.endpoint.host();
    let profile = config.target.profile.found(host, os);
    let key = rewrite::temporary_key(own.as_bytes());
    let mut found = vec![
        words(&endpoint, profile, &key).await?,
        transaction(config, &endpoint, &key).await?,
    ];
    if let Some(settings) = &config.target.cluster {
        let is_sharded = config.source.cluster;
        found.push(fence(&endpoint, profile, settings.fence, is_sharded, &key).await?);
    }
    Ok(found)
}

/// A long command.
async fn words(endpoint: &Endpoint, profile: Profile, key: &[u8]) -> Result<Finding, SyncError> {
    const CHECK: &str = "target_words";
    let mut client = Client::connect(endpoint, Side::Target).await?;
    let mut argv: Vec<&[u8]> = vec![b"WATCH"];
    argv.resize(WORDS, key);
    // A service may end the connection of whoever says too much.
    let why = match client.ask(&argv).await {
        Ok(Value::Error(error)) if error.code == ErrorCode::NoPerm => {
            let what =
                "whether the target takes long commands is not to be told: the user may not WATCH";
            return Ok(unknown(CHECK, what, "it needs +watch"));
        }
        Ok(Value::Error(error)) => error.to_string(),
        Ok(_) => {
            let what = format!("the target takes commands of {WORDS} words");
            return Ok(pass(CHECK, what));
        }
        Err(error) => error.what,
    };
    let what = format!("the target takes no command of {WORDS} words ({why})");
    Ok(match profile {
        Profile::Serverless => pass(CHECK, format!("{what}: longer ones are sent in parts")),
        Profile::Auto | Profile::Redis | Profile::ElastiCache => warn(
            CHECK,
            format!("{what}, and the source may have longer ones"),
            "set redis_writer.profile = \"elasticache-serverless\": longer ones are sent in parts",
        ),
    })
}

/// A transaction of as many commands and bytes as a unit has.
async fn transaction(
    config: &Config,
    endpoint: &Endpoint,
    key: &[u8],
) -> Result<Finding, SyncError> {
    const CHECK: &str = "target_transaction";
    let (commands, bytes) = (config.target.batch_commands, config.target.batch_bytes);
    let mut name = key.to_vec();
    // The framing of a command is some 30 bytes.
    name.resize(
        (bytes / commands.max(1)).saturating_sub(30).max(key.len()),
        b'x',
    );
    let what = format!("a transaction of {commands} commands and {bytes} bytes, as a unit has");
    let mut client = Client::connect(endpoint, Side::Target).await?;
    let mut argvs: Vec<Vec<&[u8]>> = vec![vec![b"MULTI"]];
    argvs.extend((0..commands).map(|_| vec![&b"GET"[..], &name]));
    argvs.push(vec![b"EXEC"]);
    let mend = "set redis_writer.batch_commands and redis_writer.batch_bytes to less";
    let replies = match client.ask_all(&argvs).await {
        Ok(replies) => replies,
        Err(error) => {
            return Ok(fail(
                CHECK,
                format!("the target does not take {what} ({})", error.what),
                mend,
            ));
        }
    };
    Ok(
        match (replies.last(), replies.iter().find_map(Value::as_error)) {
            (Some(Value::Array(done)), _) if done.len() == commands => {
                pass(CHECK, format!("the target takes {what}"))
            }
            (_, Some(error)) if error.code == ErrorCode::NoPerm => unknown(
                CHECK,
                format!("whether the target takes {what} is not to be told ({error})"),
                "it needs +get +multi +exec",
            ),
            (_, Some(error)) => fail(
                CHECK,
                format!("the target does not take {what} ({error})"),
                mend,
            ),
            (last, None) => fail(
                CHECK,
                format!("the target does not take {what} (EXEC answered {last:?})"),
                mend,
            ),
        },
    )
}

/// What keeps a replaced writer out of a cluster.
async fn fence(
    endpoint: &Endpoint,
    profile: Profile,
    wanted: SlotFence,
    is_sharded: bool,
    key: &[u8],
) -> Result<Finding, SyncError> {
    const CHECK: &str = "slot_fence";
    let mut client = Client::connect(endpoint, Side::Target).await?;
    if wanted != SlotFence::Lua && profile != Profile::Serverless {
        match cluster::why_not_kill(&mut client).await? {
            None => {
                let what = "a writer that was replaced is kept out of the cluster by CLIENT KILL";
                return Ok(pass(CHECK, what));
            }
            Some(why) if is_sharded => {
                return Ok(fail(
                    CHECK,
                    format!(
                        "the source is a cluster, and the target does not allow what keeps a replaced link out then ({why})"
                    ),
                    "ACL SETUSER <user> +client|list +client|kill +client|setname",
                ));
            }
            Some(why) if wanted == SlotFence::Kill => {
                return Ok(fail(
                    CHECK,
                    format!(
                        "redis_writer.slot_fence is \"kill\", and the target does not allow it ({why})"
                    ),
                    "ACL SETUSER <user> +client|list +client|kill +client|setname, or redis_writer.slot_fence = \"lua\"",
                ));
            }
            Some(_) => {}
        }
    }
    if is_sharded {
        return Ok(fail(
            CHECK,
            "a source cluster into a service that ends no connections is not in this version",
            "take a cluster of nodes as the target",
        ));
    }
    // A hash that no script has: who may not use scripts is told so first.
    let script = "return redis.call('GET', KEYS[1])";
    let replies = client
        .ask_all(&[
            vec![b"EVAL", script.as_bytes(), b"1", key],
            vec![
                b"EVALSHA",
                b"0000000000000000000000000000000000000000",
                b"1",
                key,
            ],
        ])
        .await?;
    let is_refusal = |error: &&resp::ErrorReply| error.code != ErrorCode::NoScript;
    let refused = replies.iter().filter_map(Value::as_error).find(is_refusal);
    Ok(match refused {
        None => pass(
            CHECK,
            "a writer that was replaced is kept out of the cluster by scripts",
        ),
        Some(error) => fail(
            CHECK,
            format!(
                "neither CLIENT KILL nor scripts are allowed ({error}): a writer that was replaced could not be kept out of the cluster"
            ),
            "ACL SETUSER <user> +client|list +client|kill +client|setname, or +eval +evalsha +script|load",
        ),
    })
}
