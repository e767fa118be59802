//! Questions to a cluster's nodes, in any of its databases: the connections are in database 0 before and behind each.
//!
//! Valkey 9.0 and later can have more than that one (`cluster-databases`). A key's slot does not hang on its database, and a
//! slot is wherever it is with all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use resp::{ErrorCode, Value};
use rewrite::Slot;
use tokio::time::Instant;

use super::window::SILENCE;
use super::{Cluster, PATIENCE, REDIRECTS_MAX, RETRY_FIRST, RETRY_MAX, redirects};
use crate::client::{Client, class_of};
use crate::config::TargetConfig;
use crate::error::{Class, Side, SyncError};

/// A node that says nothing to a question for so long is left: another one may have its slots by now.
pub(super) const ANSWER: Duration = Duration::from_secs(20);

/// The same for a value as a whole, which takes as long as it is.
const WHOLE: Duration = Duration::from_secs(600);
/// A command longer than this carries one.
const LONG: usize = 1 << 20;

/// How long the answer to a command is waited for.
fn patience(frame: &[u8]) -> Duration {
    let head = frame.get(..16).unwrap_or(frame);
    match frame.len() > LONG || head.windows(10).any(|word| word == b"$4\r\nDUMP\r\n") {
        true => WHOLE,
        false => ANSWER,
    }
}

/// What a node answers, if it does in time.
pub(super) async fn in_time<T>(
    address: &str,
    limit: Duration,
    answer: impl Future<Output = Result<T, SyncError>>,
) -> Result<T, SyncError> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answered) => answered,
        Err(_) => {
            let what = "it does not answer: looking at the cluster anew";
            Err(SyncError::reconnect(Side::Target, address, what))
        }
    }
}

/// Begins a transaction that comes to nothing when `key` is changed; whether it holds `value` now, and the transaction has begun.
pub(super) async fn begin_watched(
    client: &mut Client,
    key: &str,
    value: &str,
) -> Result<bool, SyncError> {
    client.call(&[b"WATCH", key.as_bytes()]).await?;
    let found = client.call(&[b"GET", key.as_bytes()]).await?;
    if found.as_bytes().map(|found| &found[..]) != Some(value.as_bytes()) {
        client.call(&[b"UNWATCH"]).await?;
        return Ok(false);
    }
    client.call(&[b"MULTI"]).await?;
    Ok(true)
}

/// A command for one slot, in a database.
pub(crate) struct Question {
    pub(crate) db: u32,
    pub(crate) slot: Slot,
    pub(crate) frame: Vec<u8>,
}

impl Question {
    /// The command with these words.
    pub(crate) fn new(db: u32, slot: Slot, argv: &[&[u8]]) -> Self {
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, argv);
        Self { db, slot, frame }
    }
}

/// `SELECT`.
pub(super) fn select(out: &mut Vec<u8>, db: u32) {
    resp::encode::command_header(out, 2);
    resp::encode::bulk(out, b"SELECT");
    resp::encode::int_arg(out, i64::from(db));
}

/// Makes sure that a node has a database.
pub(super) async fn has_db(client: &mut Client, db: u32) -> Result<(), SyncError> {
    match lacks_db(client, db).await? {
        None => Ok(()),
        Some(why) => {
            let what = format!(
                "the source uses database {db}, but the cluster has fewer ({why}); nothing of it was written: a cluster has database 0 alone, but Valkey 9.0 and later have as many as cluster-databases says; or bring it into database 0 by redis_writer.db_map (\"prefix\"), or set filter.block_db = [{db}]"
            );
            Err(SyncError::stop(Side::Target, client.address(), what))
        }
    }
}

/// SELECT was refused, and what stood behind it may have gone to another database.
fn elsewhere(address: &str, error: &resp::ErrorReply) -> SyncError {
    let what = format!("SELECT was refused ({error}): what stood behind it is copied anew");
    SyncError {
        class: Class::Resync,
        ..SyncError::stop(Side::Target, address, what)
    }
}

/// What a node says that does not have a database.
async fn lacks_db(client: &mut Client, db: u32) -> Result<Option<String>, SyncError> {
    let number = db.to_string();
    let select: [&[u8]; 2] = [b"SELECT", number.as_bytes()];
    let replies = client.ask_all(&[select.to_vec()]).await?;
    match replies.first().and_then(Value::as_error) {
        None => client.call(&[b"SELECT", b"0"]).await.map(|_| None),
        Some(error) if error.code == ErrorCode::NoPerm || class_of(error.code) != Class::Stop => {
            Err(client.refused(&select, error))
        }
        Some(error) => Ok(Some(error.to_string())),
    }
}

impl Cluster {
    /// Makes sure that every node has a database, before anything is written to it: a SELECT that fails would leave what follows
    /// it in another one.
    ///
    /// # Errors
    /// Stop where one does not, and where scripts keep others out.
    pub(crate) async fn have_db(&mut self, db: u32) -> Result<(), SyncError> {
        if db == 0 || self.dbs.contains(&db) {
            return Ok(());
        }
        if self.is_lua() {
            let what = format!(
                "the source uses database {db}, but a cluster's other databases are not written to by the scripts that keep other writers out (redis_writer.slot_fence): a server looks for a script's keys in one database alone, and does so while a slot moves; nothing of it was written: give the user +client|list +client|kill +client|setname, or bring it into database 0 by redis_writer.db_map (\"prefix\"), or set filter.block_db = [{db}]"
            );
            return Err(self.refused(&what));
        }
        for client in self.nodes.values_mut() {
            let address = client.address().to_owned();
            in_time(&address, ANSWER, has_db(client, db)).await?;
        }
        self.dbs.insert(db);
        Ok(())
    }

    /// Whether a database other than 0 can hold anything of ours.
    pub(super) async fn may_hold(&mut self, db: u32) -> Result<bool, SyncError> {
        if self.is_lua() {
            return Ok(false);
        }
        if self.dbs.contains(&db) {
            return Ok(true);
        }
        for client in self.nodes.values_mut() {
            let address = client.address().to_owned();
            let lacks = in_time(&address, ANSWER, lacks_db(client, db)).await?;
            if lacks.is_some() {
                return Ok(false);
            }
        }
        self.dbs.insert(db);
        Ok(true)
    }

    /// Sends commands to a node and waits for so many answers, however long it takes. While it says nothing the others are asked
    /// whether it still has its slots.
    ///
    /// # Errors
    /// Reconnect when the connection is lost, or another node has taken over.
    pub(super) async fn ask_patiently(
        &mut self,
        config: &TargetConfig,
        address: &str,
        frame: &[u8],
        count: usize,
    ) -> Result<Vec<Value>, SyncError> {
        // Out of the way, so that the others can be asked. With an error the connection is of no use any more.
        let Some(mut client) = self.nodes.remove(address) else {
            let what = "not connected to it";
            return Err(SyncError::reconnect(Side::Target, address, what));
        };
        let waits_for = [address.to_owned()];
        let answers = {
            let mut answer = std::pin::pin!(client.ask_encoded(frame, count));
            loop {
                tokio::select! {
                    biased;
                    answers = &mut answer => break answers?,
                    () = tokio::time::sleep(SILENCE) => self.look_for_failover(config, &waits_for).await?,
                }
            }
        };
        self.nodes.insert(address.to_owned(), client);
        Ok(answers)
    }

    /// Asks each slot's node in database 0: see [`Self::ask_in`].
    pub(crate) async fn ask_slots(
        &mut self,
        questions: Vec<(Slot, Vec<u8>)>,
    ) -> Result<Vec<Value>, SyncError> {
        let in_0 = |(slot, frame)| Question { db: 0, slot, frame };
        self.ask_in(questions.into_iter().map(in_0).collect()).await
    }

    /// Asks each slot's node, all of a node at once; where slots are on their way, one by one. Gives the answers in the order of
    /// the questions; an error that is no redirection is one.
    pub(crate) async fn ask_in(
        &mut self,
        questions: Vec<Question>,
    ) -> Result<Vec<Value>, SyncError> {
        let mut answers = vec![Value::Null; questions.len()];
        let mut by_node: BTreeMap<String, Vec<(usize, Question)>> = BTreeMap::new();
        for (at, question) in questions.into_iter().enumerate() {
            self.have_db(question.db).await?;
            let address = self.owner(question.slot)?;
            by_node.entry(address).or_default().push((at, question));
        }
        let mut again = Vec::new();
        for (address, questions) in by_node {
            let client = self.node(&address)?;
            for part in questions.chunks(1024) {
                let (mut bytes, mut places, mut count, mut db) = (Vec::new(), Vec::new(), 0, 0);
                for (_, question) in part {
                    if question.db != db {
                        db = question.db;
                        select(&mut bytes, db);
                        count += 1;
                    }
                    bytes.extend_from_slice(&question.frame);
                    places.push(count);
                    count += 1;
                }
                if db != 0 {
                    select(&mut bytes, 0);
                    count += 1;
                }
                let values = in_time(
                    &address,
                    patience(&bytes),
                    client.ask_encoded(&bytes, count),
                )
                .await?;
                let selects = values.iter().enumerate();
                let mut selects = selects.filter(|(at, _)| !places.contains(at));
                if let Some(error) = selects.find_map(|(_, reply)| reply.as_error()) {
                    return Err(elsewhere(&address, error));
                }
                for ((at, question), place) in part.iter().zip(places) {
                    let value = values.get(place).cloned().unwrap_or(Value::Null);
                    match (value.as_error(), answers.get_mut(*at)) {
                        (Some(error), _) if redirects(error.code) => {
                            again.push((*at, question.db, question.slot, question.frame.clone()));
                        }
                        (_, Some(answer)) => *answer = value,
                        _ => {}
                    }
                }
            }
        }
        for (at, db, slot, frame) in again {
            let value = self.call_bytes(db, slot, &frame).await?;
            if let Some(answer) = answers.get_mut(at) {
                *answer = value;
            }
        }
        Ok(answers)
    }

    /// Sends one command to a slot's node, wherever that is now, for database 0.
    pub(crate) async fn call(&mut self, slot: Slot, argv: &[&[u8]]) -> Result<Value, SyncError> {
        self.call_in(0, slot, argv).await
    }

    /// The same for another database.
    pub(crate) async fn call_in(
        &mut self,
        db: u32,
        slot: Slot,
        argv: &[&[u8]],
    ) -> Result<Value, SyncError> {
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, argv);
        self.have_db(db).await?;
        self.call_bytes(db, slot, &frame).await
    }

    async fn call_bytes(&mut self, db: u32, slot: Slot, frame: &[u8]) -> Result<Value, SyncError> {
        let mut pause = RETRY_FIRST;
        let began = Instant::now();
        let mut ask_at: Option<String> = None;
        for round in 0.. {
            if round >= REDIRECTS_MAX {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            if began.elapsed() > PATIENCE {
                break;
            }
            let (address, asking) = match ask_at.take() {
                Some(address) => (address, true),
                None => (self.owner(slot)?, false),
            };
            let client = self.node(&address)?;
            let mut out = Vec::new();
            if db != 0 {
                select(&mut out, db);
            }
            if asking {
                resp::encode::command(&mut out, &[b"ASKING"]);
            }
            out.extend_from_slice(frame);
            if db != 0 {
                select(&mut out, 0);
            }
            let is_away = usize::from(db != 0);
            let before = is_away + usize::from(asking);
            let asked = client.ask_encoded(&out, before + 1 + is_away);
            let mut replies = in_time(&address, patience(frame), asked).await?;
            let ends = replies
                .iter()
                .take(before)
                .chain(replies.get(before + 1..).unwrap_or_default());
            if let Some(error) = ends.clone().find_map(Value::as_error) {
                return Err(elsewhere(&address, error));
            }
            let reply = replies.drain(before..).next();
            let Some(reply) = reply else { continue };
            let Some(error) = reply.as_error() else {
                return Ok(reply);
            };
            match error.code {
                ErrorCode::Moved | ErrorCode::Ask => {
                    ask_at = self.follow(slot, error, &address).await?;
                }
                ErrorCode::TryAgain | ErrorCode::ClusterDown => {
                    tokio::time::sleep(pause).await;
                }
                code => {
                    let what = format!("a command was refused: {error}");
                    return Err(SyncError {
                        class: class_of(code),
                        ..SyncError::stop(Side::Target, &address, what)
                    });
                }
            }
        }
        Err(self.lost(&format!(
            "the nodes do not agree on where slot {} is; `redis-cli --cluster check` tells, `redis-cli --cluster fix` ends that",
            slot.0
        )))
    }

    /// A step of SCAN at one node, in a database that it has: the next cursor, and keys.
    pub(crate) async fn scan(
        &mut self,
        address: &str,
        db: u32,
        cursor: &[u8],
    ) -> Result<(Bytes, Vec<Bytes>), SyncError> {
        let number = db.to_string();
        let client = self.node(address)?;
        let select = |number| vec![&b"SELECT"[..], number];
        let scan = vec![&b"SCAN"[..], cursor, b"COUNT", b"1000"];
        let replies = match db {
            0 => in_time(address, ANSWER, client.ask_all(&[scan])).await?,
            _ => {
                let commands = [select(number.as_bytes()), scan, select(b"0")];
                in_time(address, ANSWER, client.ask_all(&commands)).await?
            }
        };
        if let Some(error) = replies.iter().find_map(Value::as_error) {
            return Err(client.refused(&[b"SCAN"], error));
        }
        let reply = replies.get(usize::from(db != 0)).unwrap_or(&Value::Null);
        match reply {
            Value::Array(parts) => match parts.as_slice() {
                [next, Value::Array(keys)] => Ok((
                    next.as_bytes().cloned().unwrap_or_default(),
                    keys.iter()
                        .filter_map(|key| key.as_bytes().cloned())
                        .collect(),
                )),
                _ => Err(self.refused(&format!("SCAN answered {reply:?}"))),
            },
            _ => Err(self.refused(&format!("SCAN answered {reply:?}"))),
        }
    }

    /// The databases of a node that hold keys.
    pub(crate) async fn dbs_of(&mut self, address: &str) -> Result<Vec<u32>, SyncError> {
        let asked = self.node(address)?.info("keyspace");
        let info = in_time(address, ANSWER, asked).await?;
        Ok(info.keyspace().into_iter().map(|(db, _)| db).collect())
    }

    /// What a key takes at its node, where that tells.
    pub(crate) async fn memory_usage(
        &mut self,
        db: u32,
        slot: Slot,
        key: &[u8],
    ) -> Result<Option<u64>, SyncError> {
        if self.is_serverless {
            return Ok(None);
        }
        let question = Question::new(db, slot, &[b"MEMORY", b"USAGE", key]);
        let answers = self.ask_in(vec![question]).await?;
        Ok(match answers.first() {
            Some(Value::Int(bytes)) => u64::try_from(*bytes).ok(),
            _ => None,
        })
    }
}
