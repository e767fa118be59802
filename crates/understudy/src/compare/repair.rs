//! `--repair`: the source's values in the place of those that differ, while sync may run and own the target.
//!
//! A value must neither be put where commands that it contains are still to come, which would then be done twice, nor over
//! one that a later command has changed already, which would undo it. So, for some keys at a time:
//!
//! 1. the source gives the values and the offset at which they are those (`MULTI; DUMP ..; INFO replication; EXEC`);
//! 2. the target's checkpoint is waited for until it is at that offset: every command that is in a value is applied;
//! 3. the keys are watched at the target, and then read at the source once more. What is the same there was not written
//!    between the two readings, so no command on it is applied beyond the value, and none was when the watch began;
//! 4. `MULTI; DEL; RESTORE ..; EXEC`: a command that was applied meanwhile makes the EXEC do nothing, and it is begun again.
//!
//! A command that changes nothing at the target does not end the watch. Therefore whatever was repaired is compared once
//! more, in rounds, and repaired again if need be: a key counts as repaired when it was found to be equal.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use resp::Value;
use rewrite::{Abilities, Outcome, StreamOptions, StreamRewriter, slot_of};

use super::end::End;
use super::functions::Library;
use super::lag::Reached;
use super::look::Name;
use super::report::Repair;
use super::rounds::{Suspect, settle};
use super::run::Run;
use crate::checkpoint::{self, Names};
use crate::client::Client;
use crate::clock::unix_ms;
use crate::config::Endpoint;
use crate::error::{Class, Side, SyncError};
use crate::pipeline::{Copied, read_copies};
use crate::target;
use crate::target::cluster::redirects;

/// Keys that are repaired in one transaction.
const LOT: usize = 32;
/// Attempts at keys that are written meanwhile.
const ATTEMPTS: u32 = 5;
/// Rounds of repairing and comparing.
const ROUNDS: u32 = 3;
/// How long the target may take to come to where the source was read.
const REACH_LIMIT: Duration = Duration::from_secs(60);
/// Before 7.0 an expiry is known from what is left of it.
const EXPIRY_SLACK_MS: u64 = 50;

/// Repairs all differences of the report, keys and libraries.
pub(super) async fn repair(run: &mut Run<'_>, libraries: &[Library]) -> Result<(), SyncError> {
    let mut target = Nodes::connect(run).await?;
    let key = checkpoint::key(&run.config.link_name);
    let at = run.comparer.target.node_of(key.as_bytes());
    let probed = target.node(&at).await?;
    let (abilities, _) = target::probe(probed, &run.config.target, &key).await?;
    for library in libraries {
        let mut done = Repair::Done;
        for address in run.comparer.target.primaries() {
            let one = self::library(target.node(&address).await?, library).await?;
            if one != Repair::Done {
                done = one;
            }
        }
        mark(run, None, &library.name, done);
    }
    let mut open: Vec<Name> = Vec::new();
    for difference in &mut run.report.differences {
        match difference.db {
            Some(_) if difference.is_stray => {
                let why = "it is left: no key of the source can be meant by it";
                difference.repair = Repair::Failed(why.to_owned());
            }
            Some(db) => open.push((db, difference.key.clone())),
            None => {}
        }
    }
    for round in 1..=ROUNDS {
        if open.is_empty() {
            return Ok(());
        }
        run.progress.tell(&format!("repairing {} keys", open.len()));
        let mut written = Vec::new();
        for lot in lots(run, std::mem::take(&mut open)) {
            let done = Repairer {
                run: &mut *run,
                target: &mut target,
                abilities: &abilities,
            };
            written.extend(Box::pin(done.lot(&lot)).await?);
        }
        open = verify(run, written, round == ROUNDS).await?;
    }
    Ok(())
}

/// Keys that can be read in one transaction, and written in one: at a cluster those of one slot.
fn lots(run: &Run<'_>, names: Vec<Name>) -> Vec<Vec<Name>> {
    let (source, target) = (&run.comparer.source, &run.comparer.target);
    let mut groups: BTreeMap<(u16, u16), Vec<Name>> = BTreeMap::new();
    for name in names {
        let here = run.config.target.name_of(name.0, &name.1).1.into_owned();
        let slot = |end: &End, key: &[u8]| match end.is_cluster() {
            true => slot_of(key).0,
            false => 0,
        };
        let place = (slot(source, &name.1), slot(target, &here));
        groups.entry(place).or_default().push(name);
    }
    let groups = groups.into_values();
    groups
        .flat_map(|group| group.chunks(LOT).map(<[Name]>::to_vec).collect::<Vec<_>>())
        .collect()
}

/// Connections for writing, to one server or to the nodes of a cluster.
struct Nodes {
    endpoint: Endpoint,
    is_cluster: bool,
    clients: BTreeMap<String, Client>,
}

impl Nodes {
    async fn connect(run: &Run<'_>) -> Result<Self, SyncError> {
        let target = &run.comparer.target;
        let mut nodes = Self {
            endpoint: run.config.target.endpoint.clone(),
            is_cluster: target.is_cluster(),
            clients: BTreeMap::new(),
        };
        for address in target.primaries() {
            nodes.node(&address).await?;
        }
        Ok(nodes)
    }

    /// The connection to a node; a new one, if there is none.
    async fn node(&mut self, address: &str) -> Result<&mut Client, SyncError> {
        if !self.clients.contains_key(address) {
            let mut endpoint = self.endpoint.clone();
            if self.is_cluster {
                address.clone_into(&mut endpoint.address);
            }
            let client = Client::connect(&endpoint, Side::Target).await?;
            self.clients.insert(address.to_owned(), client);
        }
        match self.clients.get_mut(address) {
            Some(client) => Ok(client),
            None => Err(SyncError::reconnect(
                Side::Target,
                address,
                "not connected to it",
            )),
        }
    }
}

/// Notes what became of a difference.
fn mark(run: &mut Run<'_>, db: Option<u32>, key: &Bytes, repair: Repair) {
    let mut differences = run.report.differences.iter_mut();
    if let Some(difference) = differences.find(|one| one.db == db && one.key == *key) {
        difference.repair = repair;
    }
}

/// Compares what was repaired; gives the keys that differ all the same.
async fn verify(
    run: &mut Run<'_>,
    written: Vec<Name>,
    is_last: bool,
) -> Result<Vec<Name>, SyncError> {
    let mut verdicts = Vec::with_capacity(written.len());
    for lot in written.chunks(super::rounds::LOT) {
        verdicts.extend(run.comparer.look(lot).await?);
    }
    let mut suspects = Vec::new();
    for (name, verdict) in written.into_iter().zip(verdicts) {
        match verdict {
            super::look::Verdict::Equal => mark(run, Some(name.0), &name.1, Repair::Done),
            super::look::Verdict::Unchecked(why) => {
                mark(run, Some(name.0), &name.1, Repair::Failed(why));
            }
            super::look::Verdict::Differs(look) => suspects.push(Suspect::new(name, look)),
        }
    }
    let names: Vec<Name> = suspects.iter().map(|one| one.name.clone()).collect();
    let settled = settle(
        &mut run.comparer,
        &mut run.lag,
        suspects,
        run.options,
        |_| {},
    );
    let settled = settled.await?;
    let left = settled.differing.iter().chain(&settled.unsettled);
    let left: Vec<Name> = left.map(|suspect| suspect.name.clone()).collect();
    for name in &names {
        let repair = match left.contains(name) {
            false => Repair::Done,
            true if is_last => Repair::Failed("it differs again after each repair".to_owned()),
            true => continue,
        };
        mark(run, Some(name.0), &name.1, repair);
    }
    Ok(left)
}

async fn library(target: &mut Client, library: &Library) -> Result<Repair, SyncError> {
    let reply = match &library.code {
        Some(code) => {
            target
                .ask(&[b"FUNCTION", b"LOAD", b"REPLACE", code])
                .await?
        }
        None => target.ask(&[b"FUNCTION", b"DELETE", &library.name]).await?,
    };
    Ok(match reply {
        Value::Error(error) => Repair::Failed(String::from_utf8_lossy(&error.text).into_owned()),
        _ => Repair::Done,
    })
}

struct Repairer<'a, 'b> {
    run: &'a mut Run<'b>,
    target: &'a mut Nodes,
    abilities: &'a Abilities,
}

impl Repairer<'_, '_> {
    /// Repairs these keys; gives those that were written.
    async fn lot(mut self, lot: &[Name]) -> Result<Vec<Name>, SyncError> {
        let (mut open, mut written) = (lot.to_vec(), Vec::new());
        for attempt in 1..=ATTEMPTS {
            // Keys that are written all the time do not hold up the others.
            let size = if attempt == 1 { LOT } else { 1 };
            let mut left = Vec::new();
            for part in open.chunks(size) {
                let (done, again) = self.attempt(part).await?;
                written.extend(done);
                left.extend(again);
            }
            open = left;
            if open.is_empty() {
                return Ok(written);
            }
        }
        for (db, key) in &open {
            let why = "it was written at the source during each attempt";
            mark(self.run, Some(*db), key, Repair::Failed(why.to_owned()));
        }
        Ok(written)
    }

    /// One attempt: keys that were written, and those to be tried again.
    async fn attempt(&mut self, part: &[Name]) -> Result<(Vec<Name>, Vec<Name>), SyncError> {
        let nothing = (Vec::new(), Vec::new());
        let first = match self.read(part).await {
            Ok(copies) => copies,
            Err(error) if error.class == Class::Stop => {
                self.fail(part, &error.to_string());
                return Ok(nothing);
            }
            Err(error) => return Err(error),
        };
        let has_checkpoint = {
            let target = &mut self.run.comparer.target;
            !self.run.lag.checkpoints(target).await?.is_empty()
        };
        if let (true, Some((_, key))) = (has_checkpoint, part.first()) {
            let target = &mut self.run.comparer.target;
            let replid = first.replid.map(|id| id.to_string()).unwrap_or_default();
            let at = (key.as_ref(), replid.as_str(), first.offset);
            match self.run.lag.reach_copy(target, at, REACH_LIMIT).await? {
                Reached::Yes | Reached::Unknown => {}
                Reached::Moving(behind) | Reached::Still(behind) => {
                    let why = format!(
                        "the target has not applied all of what the source had done ({behind} bytes are missing); start sync, or delete the checkpoint if it is not to run again"
                    );
                    self.fail(part, &why);
                    return Ok(nothing);
                }
            }
        }
        let Some(address) = self.watch(&first.keys).await? else {
            return Ok((Vec::new(), part.to_vec()));
        };
        // Not all may have fitted into one reading.
        let names: Vec<Name> = first
            .keys
            .iter()
            .map(|copied| (copied.db, copied.key.clone()))
            .collect();
        let second = self.read(&names).await?;
        let is_same = |copied: &&Copied| {
            second.replid == first.replid
                && second.keys.iter().any(|other| {
                    other.db == copied.db
                        && other.key == copied.key
                        && other.value == copied.value
                        && other.at_ms.abs_diff(copied.at_ms) <= EXPIRY_SLACK_MS
                })
        };
        let same: Vec<&Copied> = first.keys.iter().filter(is_same).collect();
        let done = self.write(&address, &same).await?;
        let again = part
            .iter()
            .filter(|name| !done.contains(name))
            .filter(|name| !self.has_failed(name));
        let again = again.cloned().collect();
        Ok((done, again))
    }

    /// Watches keys at the node that has them, which is given; none where that is another one by now.
    async fn watch(&mut self, keys: &[Copied]) -> Result<Option<String>, SyncError> {
        let names: Vec<(u32, Vec<u8>)> = keys
            .iter()
            .map(|copied| {
                let (db, key) = self.run.config.target.name_of(copied.db, &copied.key);
                (db, key.into_owned())
            })
            .collect();
        let target = &self.run.comparer.target;
        let key = names.first().map_or(&[][..], |(_, key)| key);
        let address = target.node_of(key);
        let client = self.target.node(&address).await?;
        for (db, key) in &names {
            let db = db.to_string();
            client.call(&[b"SELECT", db.as_bytes()]).await?;
            let watched = client.ask(&[b"WATCH", key]).await?;
            match &watched {
                Value::Error(error) if redirects(error.code) => {
                    client.call(&[b"UNWATCH"]).await?;
                    self.run.comparer.target.look_around().await?;
                    return Ok(None);
                }
                Value::Error(error) => return Err(client.refused(&[b"WATCH"], error)),
                _ => {}
            }
        }
        Ok(Some(address))
    }

    /// Reads keys that the source has in one slot, or at one server.
    async fn read(&self, names: &[Name]) -> Result<crate::pipeline::Copies, SyncError> {
        let mut wanted = Names::default();
        for (db, key) in names {
            wanted.insert(*db, key.clone());
        }
        let source = &self.run.comparer.source;
        let tells_time = source.has(7, 0);
        match (source.is_cluster(), names.first()) {
            (true, Some((_, key))) => {
                let mut config = self.run.config.clone();
                config.source.cluster = false;
                config.source.endpoint.address = source.node_of(key);
                read_copies(&config, wanted, tells_time).await
            }
            _ => read_copies(self.run.config, wanted, tells_time).await,
        }
    }

    fn fail(&mut self, names: &[Name], why: &str) {
        for (db, key) in names {
            mark(self.run, Some(*db), key, Repair::Failed(why.to_owned()));
        }
    }

    fn has_failed(&self, (db, key): &Name) -> bool {
        let mut differences = self.run.report.differences.iter();
        differences.any(|one| {
            one.db == Some(*db) && one.key == *key && matches!(one.repair, Repair::Failed(_))
        })
    }

    /// Writes the values in one transaction; gives the keys, or none where something was changed meanwhile.
    async fn write(&mut self, address: &str, copies: &[&Copied]) -> Result<Vec<Name>, SyncError> {
        let mut rewriter = StreamRewriter::new(StreamOptions {
            source_version: Some(self.run.comparer.source.version),
            losses: self.run.config.target.losses,
            ..StreamOptions::new(self.abilities.clone())
        });
        let mut unit = Vec::new();
        resp::encode::command(&mut unit, &[b"MULTI"]);
        let (mut count, mut places, mut fits) = (0, Vec::new(), Vec::new());
        for copied in copies {
            let mut commands = Vec::new();
            let name = self.run.config.target.name_of(copied.db, &copied.key);
            match encode(&mut rewriter, copied, &name, &mut commands) {
                Ok(more) => {
                    unit.extend_from_slice(&commands);
                    count += more;
                    places.resize(count, fits.len());
                    fits.push((copied.db, copied.key.clone()));
                }
                Err(why) => self.fail(&[(copied.db, copied.key.clone())], &why),
            }
        }
        if fits.is_empty() {
            self.target.node(address).await?.call(&[b"UNWATCH"]).await?;
            return Ok(Vec::new());
        }
        resp::encode::command(&mut unit, &[b"EXEC"]);
        let client = self.target.node(address).await?;
        let mut replies = client.ask_encoded(&unit, count + 2).await?;
        let answers = match replies.pop() {
            Some(Value::Array(answers)) => answers,
            Some(Value::Error(exec)) => {
                let refused = replies.iter().find_map(|reply| match reply {
                    Value::Error(error) => Some(error),
                    _ => None,
                });
                let refused = refused.unwrap_or(&exec);
                if redirects(refused.code) {
                    // The slot is on its way: it is tried again where that is then.
                    self.run.comparer.target.look_around().await?;
                    return Ok(Vec::new());
                }
                let text = &refused.text;
                self.fail(&fits, &String::from_utf8_lossy(text));
                return Ok(Vec::new());
            }
            // A key was changed since it is watched.
            _ => return Ok(Vec::new()),
        };
        for (answer, place) in answers.iter().zip(places) {
            if let (Value::Error(error), Some(name)) = (answer, fits.get(place)) {
                let (name, why) = (name.clone(), String::from_utf8_lossy(&error.text));
                self.fail(&[name], &why);
            }
        }
        fits.retain(|name| !self.has_failed(name));
        Ok(fits)
    }
}

/// The commands that put a value in its place, under its name at the target; how many.
fn encode(
    rewriter: &mut StreamRewriter,
    copied: &Copied,
    (db, key): &(u32, Cow<'_, [u8]>),
    out: &mut Vec<u8>,
) -> Result<usize, String> {
    let (db, at_ms) = (db.to_string(), copied.at_ms.to_string());
    let mut commands: Vec<Vec<&[u8]>> =
        vec![vec![b"SELECT", db.as_bytes()], vec![b"DEL", key.as_ref()]];
    if let Some(value) = &copied.value {
        commands.push(vec![
            b"RESTORE",
            key.as_ref(),
            at_ms.as_bytes(),
            value.as_ref(),
            b"REPLACE",
            b"ABSTTL",
        ]);
    }
    let mut count = 0;
    for argv in commands {
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, &argv);
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        decoder.poll(&frame).map_err(|error| error.to_string())?;
        let mut scratch = Vec::new();
        let said = rewriter.command(&frame, decoder.args(), unix_ms(), &mut scratch);
        match said.map_err(|error| error.to_string())? {
            Outcome::Forward { .. } | Outcome::Select(_) => {
                out.extend_from_slice(&frame);
                count += 1;
            }
            Outcome::Rewritten { commands, .. } => {
                out.extend_from_slice(&scratch);
                count += usize::try_from(commands).unwrap_or(usize::MAX);
            }
            Outcome::Dropped(reason) => {
                return Err(format!("it would be left out ({})", reason.label()));
            }
            _ => {}
        }
    }
    Ok(count)
}
