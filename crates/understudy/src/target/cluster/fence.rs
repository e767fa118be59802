//! What keeps a writer out of a cluster that was replaced, or whose connection was lost with a transaction on its way.
//!
//! A WATCH cannot: every EXEC ends it, and a unit has a transaction for each slot. So there are two ways.
//!
//! - **Kill.** Every connection has a name that says the link, and does not write before it has seen the checkpoint name its own
//!   epoch. Whoever takes the link over raises the epoch first, then ends all connections of that name at every node. What a
//!   server has received of a connection that it ends, and has not carried out, it throws away; who connects again sees the epoch.
//! - **Lua.** Each slot's commands are carried out by a script that compares the slot's checkpoint with what its writer left there, those
//!   of a snapshot too. Whoever takes the link over writes its epoch into every slot's checkpoint.

use resp::{ErrorCode, Value};
use rewrite::slot_of;

use super::locate::is_serverless;
use crate::client::Client;
use crate::config::{SlotFence, TargetConfig};
use crate::error::SyncError;

/// Which of the two ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fence {
    /// By the names of connections.
    Kill,
    /// By scripts.
    Lua(Hashes),
}

/// Hashes of the scripts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hashes {
    pub(crate) script: String,
    pub(crate) plain: String,
}

/// `KEYS`: the slot's checkpoint, then keys of the commands. `ARGV`: what the checkpoint has to be, what it is to be, then each
/// command as the number of its words and the words. Answers 1; or for each command its own error or a number, 0 where one that
/// gives a key another life has found none, or an XCLAIM has claimed nothing. The checkpoint is written first: what a server refuses before it has changed anything (OOM, READONLY) ends the script there.
pub(crate) const SCRIPT: &str = "\
local found = redis.call('GET', KEYS[1])
if found ~= ARGV[1] then return redis.error_reply('STALE the checkpoint is ' .. tostring(found)) end
redis.call('SET', KEYS[1], ARGV[2])
local saves = {expire = 1, pexpire = 1, expireat = 1, pexpireat = 1, persist = 1}
local at, count, failed, errors = 3, 0, false, {}
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  local reply = redis.pcall(unpack(ARGV, at + 1, at + words))
  count = count + 1
  errors[count] = 1
  if type(reply) == 'table' and reply['err'] then failed = true; errors[count] = reply
  elseif type(reply) == 'table' and #reply == 0 and string.lower(ARGV[at + 1]) == 'xclaim' then failed = true; errors[count] = 0
  elseif reply == 0 and saves[string.lower(ARGV[at + 1])] then failed = true; errors[count] = 0 end
  at = at + words + 1
end
if failed then return errors end
return 1
";

/// The same without a new checkpoint: `ARGV` is what it has to be, then the commands. Answers the replies of all.
pub(crate) const SCRIPT_PLAIN: &str = "\
local found = redis.call('GET', KEYS[1])
if found ~= ARGV[1] then return redis.error_reply('STALE the checkpoint is ' .. tostring(found)) end
local at, count, replies = 2, 0, {}
while at <= #ARGV do
  local words = tonumber(ARGV[at])
  count = count + 1
  replies[count] = redis.pcall(unpack(ARGV, at + 1, at + words))
  at = at + words + 1
end
return replies
";

/// `KEYS`: a slot's checkpoint. `ARGV`: an epoch, and what the checkpoint is to be, unless there is one of a later epoch.
pub(crate) const SCRIPT_BEGIN: &str = "\
local found = redis.call('GET', KEYS[1])
local epoch = found and tonumber(string.match(found, '^v1|(%d+)|'))
if epoch and epoch > tonumber(ARGV[1]) then return redis.error_reply('STALE the checkpoint is ' .. found) end
redis.call('SET', KEYS[1], ARGV[2])
return 1
";

/// `KEYS`: the checkpoint of a slot of the node. `ARGV`: an epoch, and what empties the node, unless there is one of a later epoch.
pub(crate) const SCRIPT_FLUSH: &str = "\
local found = redis.call('GET', KEYS[1])
local epoch = found and tonumber(string.match(found, '^v1|(%d+)|'))
if epoch and epoch > tonumber(ARGV[1]) then return redis.error_reply('STALE the checkpoint is ' .. found) end
redis.call(unpack(ARGV, 2))
return 1
";

/// `KEYS`: a slot's checkpoint. `ARGV`: an epoch, which is put into it. Answers what is there now.
pub(crate) const SCRIPT_EPOCH: &str = "\
local found = redis.call('GET', KEYS[1])
if not found then return false end
local new = string.gsub(found, '^v1|%d+|', 'v1|' .. ARGV[1] .. '|')
if new ~= found then redis.call('SET', KEYS[1], new) end
return new
";

/// `KEYS`: a slot's checkpoint, which is in database 0, then keys. `ARGV`: an epoch, the keys' database, then the expiry of each key, ms
/// since 1970. Nothing is changed where there is a later epoch.
pub(crate) const SCRIPT_EXPIRE: &str = "\
if ARGV[2] ~= '0' then redis.call('SELECT', 0) end
local found = redis.call('GET', KEYS[1])
local epoch = found and tonumber(string.match(found, '^v1|(%d+)|'))
if not epoch or epoch > tonumber(ARGV[1]) then return redis.error_reply('STALE the checkpoint is ' .. tostring(found)) end
if ARGV[2] ~= '0' then redis.call('SELECT', ARGV[2]) end
for at = 2, #KEYS do redis.call('PEXPIREAT', KEYS[at], ARGV[at + 1]) end
return 1
";

/// Most words of a call to the script: ElastiCache Serverless takes 3,999.
pub(crate) const SCRIPT_WORDS_MAX: usize = 3_900;
/// Most words of one command in it: what Lua can hand over at once.
pub(crate) const COMMAND_WORDS_MAX: usize = 7_000;
/// The same where a call itself may have no more than [`SCRIPT_WORDS_MAX`]: every word may be a key, which is named twice.
pub(crate) const NARROW_WORDS_MAX: usize = (SCRIPT_WORDS_MAX - 10) / 2;

/// What every connection of a link is called, up to the number that is its own run's.
pub(crate) fn name_prefix(link_name: &str) -> String {
    let plain: String = link_name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._-:".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    // Two names that look alike now are still two.
    format!("understudy:{plain}:{}:", slot_of(link_name.as_bytes()).0)
}

/// Whether connections are to be ended, where the server lets them be ([`may_kill`]).
pub(crate) fn may_be_by_kill(target: &TargetConfig) -> bool {
    let fence = target.cluster.as_ref().map(|cluster| cluster.fence);
    fence != Some(SlotFence::Lua) && !is_serverless(target)
}

/// Whether the server lets connections be ended.
pub(crate) async fn may_kill(client: &mut Client) -> Result<bool, SyncError> {
    Ok(why_not_kill(client).await?.is_none())
}

/// Why the server does not let connections be ended, in its words; `None` where it does.
pub(crate) async fn why_not_kill(client: &mut Client) -> Result<Option<String>, SyncError> {
    // No connection has this id.
    let nobody = i64::MAX.to_string();
    let answers = client
        .ask_all(&[
            vec![b"CLIENT", b"LIST", b"TYPE", b"pubsub"],
            vec![b"CLIENT", b"KILL", b"ID", nobody.as_bytes()],
            vec![b"CLIENT", b"SETNAME", b"understudy"],
        ])
        .await?;
    if let Some(error) = answers.iter().find_map(Value::as_error) {
        return Ok(Some(error.to_string()));
    }
    let kill = answers.get(1);
    let is_done = matches!(kill, Some(Value::Int(_)));
    Ok((!is_done).then(|| format!("CLIENT KILL answered {kill:?}")))
}

/// Ends all connections at this server whose names begin with `prefix`, until there are none.
pub(crate) async fn kill_all(client: &mut Client, prefix: &str) -> Result<u64, SyncError> {
    let mut killed = 0;
    loop {
        let list = client.call(&[b"CLIENT", b"LIST"]).await?;
        let text = list.as_bytes().cloned().unwrap_or_default();
        let ids = ids_of(&String::from_utf8_lossy(&text), prefix);
        if ids.is_empty() {
            return Ok(killed);
        }
        for id in &ids {
            // One that is gone meanwhile is as good.
            match client
                .ask(&[b"CLIENT", b"KILL", b"ID", id.as_bytes()])
                .await?
            {
                Value::Error(error) if error.code == ErrorCode::NoPerm => {
                    return Err(client.refused(&[b"CLIENT KILL"], &error));
                }
                _ => killed += 1,
            }
        }
    }
}

/// The ids of the connections in CLIENT LIST whose names begin with `prefix`.
fn ids_of(list: &str, prefix: &str) -> Vec<String> {
    let field = |line: &str, name: &str| -> Option<String> {
        line.split(' ')
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    };
    list.lines()
        .filter(|line| field(line, "name").is_some_and(|name| name.starts_with(prefix)))
        .filter_map(|line| field(line, "id"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_known_by_their_names() {
        let prefix = name_prefix("a>b:1");
        assert_ne!(prefix, name_prefix("a_b:1"));
        let list = format!(
            "id=3 addr=1:2 name={prefix}9.1 age=0\nid=4 addr=1:2 name= age=0\nid=5 addr=1:2 name=understudy:other:1:9.1 age=0\n"
        );
        assert_eq!(ids_of(&list, &prefix), ["3"]);
    }
}
