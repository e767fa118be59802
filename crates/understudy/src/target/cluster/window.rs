//! What goes to a cluster in one go: a transaction for each slot, those of a node in one write.
//!
//! ```text
//! [ASKING]  MULTI  <commands of the slot>  SET <the slot's checkpoint>  EXEC        or
//! [ASKING]  EVALSHA <script> <keys> <checkpoint before> <checkpoint after> <commands of the slot>
//! ```
//! A transaction that a node answers with MOVED, ASK, TRYAGAIN or CLUSTERDOWN was not carried out, and goes again, to the place that
//! was named or to the same one after a pause, before anything later of its slot. The other slots' have been carried out; who is
//! done is not sent again.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use resp::{ErrorCode, ErrorReply, ReplyKind, ReplyScanner, Summary};
use rewrite::Slot;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::fence::{COMMAND_WORDS_MAX, Fence};
use super::group::{Group, Inner};
use super::marks::mark_key;
use super::{Cluster, NOTED, REDIRECTS_MAX, RETRY_FIRST, RETRY_MAX, ask, locate};
use crate::client::{Client, class_of, mend};
use crate::config::TargetConfig;
use crate::error::{Class, Side, SyncError, io_word};
use crate::net;
use crate::pipeline::{Gap, Hole, each_command, gaps_of, items_of, zeros};
use crate::source::spool_error;
use crate::spool::Feed;

/// A node that has not answered for so long is asked about at the others.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// Where a group goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Owner,
    /// Its keys are on their way there.
    Asked(String),
}

/// What became of a group.
#[derive(Debug)]
enum Verdict {
    Done(Inner),
    /// To be sent to another node, as this error says.
    Redirected(ErrorReply),
    /// To be sent again after a while.
    Later(ErrorReply),
    /// Not carried out, for the sake of one command where that is known.
    Refused(Option<usize>, ErrorReply),
    /// The checkpoint is not what it was left as.
    Stale(ErrorReply),
}

impl Verdict {
    /// Commands that failed, redirections aside.
    fn errors(&self) -> u64 {
        match self {
            Self::Done(inner) => {
                let errors = inner.errors.iter();
                errors
                    .filter(|(_, error)| !super::redirects(error.code))
                    .count() as u64
            }
            Self::Refused(..) => 1,
            Self::Redirected(_) | Self::Later(_) | Self::Stale(_) => 0,
        }
    }
}

/// What goes to one node.
#[derive(Default)]
struct Batch {
    out: Vec<u8>,
    /// What is not in `out` but comes from the feed.
    gaps: Vec<Gap>,
    /// Groups, and how many replies each has.
    groups: Vec<(usize, Form)>,
}

impl Batch {
    fn commands(&self) -> u64 {
        let forms = self.groups.iter();
        forms.map(|(_, form)| form.commands as u64).sum()
    }
}

/// How a group was put, and so how it is answered.
#[derive(Debug, Clone)]
struct Form {
    asking: bool,
    kind: Kind,
    commands: usize,
    /// Those that have to answer 1.
    ones: Vec<u32>,
    /// A database is selected before plain commands, and 0 behind them.
    selects: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Transaction,
    Script,
    /// A script that answers every command's reply.
    Replies,
    Plain,
}

impl Form {
    fn replies(&self) -> usize {
        match self.kind {
            Kind::Transaction => usize::from(self.asking) + self.commands + 3,
            Kind::Script | Kind::Replies => usize::from(self.asking) + 1,
            Kind::Plain => {
                self.commands * (1 + usize::from(self.asking)) + 2 * usize::from(self.selects)
            }
        }
    }
}

impl Cluster {
    /// Carries out all groups, each slot's in their order, and waits for every answer.
    ///
    /// # Errors
    /// Reconnect when a connection is lost, in which case some are carried out and some are not: the slots' checkpoints tell; when the
    /// target takes no writes; when somebody else has taken the link. Stop for a command that no waiting mends: nothing of its group
    /// was carried out.
    pub(crate) async fn run(
        &mut self,
        config: &TargetConfig,
        mut groups: Vec<Group>,
        feed: Option<&Feed>,
    ) -> Result<(Vec<Group>, Vec<Inner>), SyncError> {
        let mut inner: Vec<Option<Inner>> = groups.iter().map(|_| None).collect();
        let mut pending: Vec<(usize, Place)> =
            (0..groups.len()).map(|at| (at, Place::Owner)).collect();
        let (mut pause, began, mut noted) = (RETRY_FIRST, Instant::now(), false);
        let mut rounds = 0;
        while !pending.is_empty() {
            rounds += 1;
            if rounds > REDIRECTS_MAX {
                // Nodes that send to one another: they have to agree first.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
            }
            let mut batches = self.batches(&groups, &pending)?;
            let verdicts = self.exchange(config, &mut batches, feed).await?;
            let mut again: BTreeMap<usize, Place> = BTreeMap::new();
            let mut waits: Option<(Slot, ErrorReply)> = None;
            let mut refused: Option<SyncError> = None;
            for (at, asked, verdict) in verdicts {
                let waits_for_another =
                    matches!(verdict, Verdict::Stale(_)) && is_behind(&groups, &again, at);
                let Some(group) = groups.get_mut(at) else {
                    continue;
                };
                let slot = group.slot;
                match verdict {
                    Verdict::Done(found) if group.mark.is_none() => {
                        let mut whole =
                            inner.get_mut(at).and_then(Option::take).unwrap_or_default();
                        if let Some(place) =
                            self.take_plain(group, found, &mut whole, &asked).await?
                        {
                            again.insert(at, place);
                        }
                        if let Some(place) = inner.get_mut(at) {
                            *place = Some(whole);
                        }
                    }
                    Verdict::Done(found) => {
                        if let Some(mark) = group.mark {
                            self.set_mark(slot, mark, self.unseen_before(mark));
                        }
                        if let Some(place) = inner.get_mut(at) {
                            *place = Some(found);
                        }
                    }
                    Verdict::Redirected(error) => {
                        let place = match self.follow(slot, &error, &asked).await? {
                            Some(address) => Place::Asked(address),
                            None => Place::Owner,
                        };
                        again.insert(at, place);
                    }
                    Verdict::Later(error) => {
                        waits = waits.or(Some((slot, error)));
                        again.insert(at, Place::Owner);
                    }
                    // The one before it in its slot is still to come.
                    Verdict::Stale(_) if waits_for_another => {
                        again.insert(at, Place::Owner);
                    }
                    Verdict::Stale(error) => {
                        refused = refused.or(Some(self.lost(&format!(
                            "slot {} was written by somebody else: {error}",
                            slot.0
                        ))));
                    }
                    Verdict::Refused(index, error) => {
                        let error = self.refusal(group, index, &error, &asked);
                        refused = refused.or(Some(error));
                    }
                }
            }
            // Only now: all that was carried out is known.
            if let Some(error) = refused {
                return Err(error);
            }
            if waits.is_none()
                && !noted
                && began.elapsed() > NOTED
                && let Some((at, place)) = again.first_key_value()
                && let Some(group) = groups.get(*at)
            {
                noted = true;
                let to = match place {
                    Place::Asked(address) => address.clone(),
                    Place::Owner => self.owner(group.slot)?,
                };
                tracing::warn!(
                    slot = group.slot.0,
                    to,
                    "the nodes send a slot to one another, and the stream waits for it: they do not agree who has it; `redis-cli --cluster check` tells, `redis-cli --cluster fix` ends that"
                );
            }
            pending = again.into_iter().collect();
            if let Some((slot, error)) = waits {
                if !noted && began.elapsed() > NOTED {
                    noted = true;
                    tracing::warn!(
                        slot = slot.0,
                        %error,
                        "a slot cannot be written, and the stream waits for it; if it was left half moved, `redis-cli --cluster fix` ends that"
                    );
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(RETRY_MAX);
                if error.code == ErrorCode::ClusterDown {
                    self.look_for_failover(config, &[]).await?;
                }
            }
        }
        let inner = inner.into_iter().map(Option::unwrap_or_default).collect();
        Ok((groups, inner))
    }

    /// Plain commands are answered one by one: those that are redirected go again, in their order, and no others.
    async fn take_plain(
        &mut self,
        group: &mut Group,
        found: Inner,
        whole: &mut Inner,
        asked: &str,
    ) -> Result<Option<Place>, SyncError> {
        if whole.kinds.is_empty() {
            group.left = (0..found.kinds.len()).collect();
            whole.kinds = vec![ReplyKind::Null; found.kinds.len()];
        }
        let mut again = Vec::new();
        let mut redirect: Option<ErrorReply> = None;
        for (at, kind) in found.kinds.into_iter().enumerate() {
            let origin = group.left.get(at).copied().unwrap_or(at);
            if let ReplyKind::Error(error) = &kind
                && super::redirects(error.code)
            {
                redirect = redirect.or(Some(error.clone()));
                again.push((at, origin));
            } else if let Some(place) = whole.kinds.get_mut(origin) {
                *place = kind;
            }
        }
        let Some(error) = redirect else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        each_command(&group.bytes, |place, frame, _| {
            if again.binary_search_by_key(&place, |(at, _)| *at).is_ok() {
                bytes.extend_from_slice(frame);
            }
        });
        group.bytes = bytes;
        group.commands = u32::try_from(again.len()).unwrap_or(u32::MAX);
        group.left = again.into_iter().map(|(_, origin)| origin).collect();
        if matches!(error.code, ErrorCode::TryAgain | ErrorCode::ClusterDown) {
            tokio::time::sleep(RETRY_FIRST).await;
            return Ok(Some(Place::Owner));
        }
        Ok(Some(match self.follow(group.slot, &error, asked).await? {
            Some(address) => Place::Asked(address),
            None => Place::Owner,
        }))
    }

    /// Why a group was not carried out, in words.
    fn refusal(
        &self,
        group: &Group,
        index: Option<usize>,
        error: &ErrorReply,
        asked: &str,
    ) -> SyncError {
        let mend =
            mend(error.code, Side::Target).map_or_else(String::new, |mend| format!("; {mend}"));
        let named = index.and_then(|index| group.command(index)).map(|argv| {
            let words: Vec<String> = argv
                .iter()
                .take(2)
                .map(|word| crate::pipeline::show(word))
                .collect();
            words.join(" ")
        });
        let what = format!(
            "{} was refused: {error}{mend}",
            named.unwrap_or_else(|| format!("a transaction of slot {}", group.slot.0))
        );
        match class_of(error.code) {
            // A node that has taken over has no scripts: connecting anew loads them.
            _ if error.code == ErrorCode::NoScript => {
                SyncError::reconnect(Side::Target, asked, what)
            }
            Class::Stop => SyncError::stop(Side::Target, asked, what),
            Class::Reconnect | Class::Resync => {
                let what = format!("the target is not taking writes: {what}");
                SyncError::reconnect(Side::Target, asked, what)
            }
        }
    }

    /// The pending groups by node, as they go out.
    fn batches(
        &self,
        groups: &[Group],
        pending: &[(usize, Place)],
    ) -> Result<BTreeMap<String, Batch>, SyncError> {
        let mut batches: BTreeMap<String, Batch> = BTreeMap::new();
        // What each slot's checkpoint will be when what was put before is carried out.
        let mut values: BTreeMap<Slot, String> = BTreeMap::new();
        for (at, place) in pending {
            let Some(group) = groups.get(*at) else {
                continue;
            };
            let (address, asking) = match place {
                Place::Owner => (self.owner(group.slot)?, false),
                Place::Asked(address) => (address.clone(), true),
            };
            let batch = batches.entry(address).or_default();
            let value = group.mark.map(|mark| {
                let repairs = self.repairs.get(&group.slot.0);
                self.value_of(mark, self.unseen_before(mark), repairs)
            });
            let value = value.unwrap_or_default();
            let kind = match (&self.fence, group.mark) {
                (Fence::Kill, None) => Kind::Plain,
                (Fence::Lua(_), None) => Kind::Replies,
                (Fence::Kill, Some(_)) => Kind::Transaction,
                (Fence::Lua(_), Some(_)) => Kind::Script,
            };
            let out = &mut batch.out;
            let selects = kind == Kind::Plain && group.base != 0;
            // The checkpoint is in database 0.
            let is_away = kind == Kind::Transaction && group.db != 0;
            if asking && kind != Kind::Plain {
                resp::encode::command(out, &[b"ASKING"]);
            }
            match (&self.fence, group.mark) {
                (Fence::Lua(hashes), None) => {
                    let before = self.value_now(group.slot);
                    self.script(out, &hashes.plain, group, &[&before])?;
                }
                (Fence::Kill, None) => {
                    if selects {
                        ask::select(out, group.base);
                    }
                    if asking {
                        each_command(&group.bytes, |_, frame, _| {
                            resp::encode::command(out, &[b"ASKING"]);
                            out.extend_from_slice(frame);
                        });
                    } else {
                        out.extend_from_slice(&group.bytes);
                    }
                    if selects {
                        ask::select(out, 0);
                    }
                }
                (Fence::Kill, Some(_)) => {
                    let key = mark_key(group.slot, &self.marks_name);
                    out.extend_from_slice(b"*1\r\n$5\r\nMULTI\r\n");
                    let begin = out.len();
                    batch.gaps.extend(group.gaps.iter().map(|gap| Gap {
                        at: gap.at + begin,
                        ..*gap
                    }));
                    out.extend_from_slice(&group.bytes);
                    if is_away {
                        ask::select(out, 0);
                    }
                    resp::encode::command(out, &[b"SET", key.as_bytes(), value.as_bytes()]);
                    out.extend_from_slice(b"*1\r\n$4\r\nEXEC\r\n");
                }
                (Fence::Lua(hashes), Some(_)) => {
                    let before = values.remove(&group.slot);
                    let before = before.unwrap_or_else(|| self.value_now(group.slot));
                    let begin = out.len();
                    self.script(out, &hashes.script, group, &[&before, &value])?;
                    if !group.gaps.is_empty() {
                        let holes: Vec<Hole> = group.gaps.iter().map(|gap| gap.hole).collect();
                        let call = out.get(begin..).unwrap_or_default();
                        batch.gaps.extend(gaps_of(call, &holes).map(|gap| Gap {
                            at: gap.at + begin,
                            ..gap
                        }));
                    }
                    values.insert(group.slot, value);
                }
            }
            let form = Form {
                asking,
                kind,
                commands: group.commands as usize + usize::from(is_away),
                ones: group.ones.clone(),
                selects,
            };
            batch.groups.push((*at, form));
        }
        Ok(batches)
    }

    /// A group as a call of the script.
    fn script(
        &self,
        out: &mut Vec<u8>,
        hash: &str,
        group: &Group,
        checkpoints: &[&str],
    ) -> Result<(), SyncError> {
        let (mut keys, mut words, mut argc, mut too_long) = (Vec::new(), Vec::new(), 0, None);
        let mut key_count = 1;
        let mut places = Vec::new();
        each_command(&group.bytes, |_, frame, args| {
            places.clear();
            let name = args.first().map(|arg| arg.of(frame)).unwrap_or_default();
            if let Some(command) = rewrite::table::lookup(name) {
                rewrite::keys_of(command, frame, args, &mut places);
            }
            for place in &places {
                if let Some(arg) = args.get(*place) {
                    resp::encode::bulk(&mut keys, arg.of(frame));
                    key_count += 1;
                }
            }
            if args.len() > COMMAND_WORDS_MAX {
                too_long = too_long
                    .take()
                    .or(Some((crate::pipeline::show(name), args.len())));
            }
            resp::encode::int_arg(&mut words, i64::try_from(args.len()).unwrap_or(i64::MAX));
            args.iter()
                .for_each(|arg| resp::encode::bulk(&mut words, arg.of(frame)));
            argc += 1 + args.len();
        });
        if let Some((name, count)) = too_long {
            let what = format!(
                "{name} with {count} words does not fit into the script that keeps other writers out (at most {COMMAND_WORDS_MAX}); give the user CLIENT LIST, KILL and SETNAME, and set redis_writer.slot_fence = \"kill\""
            );
            return Err(self.refused(&what));
        }
        resp::encode::command_header(out, 3 + key_count + checkpoints.len() + argc);
        resp::encode::bulk(out, b"EVALSHA");
        resp::encode::bulk(out, hash.as_bytes());
        resp::encode::int_arg(out, i64::try_from(key_count).unwrap_or(i64::MAX));
        resp::encode::bulk(out, mark_key(group.slot, &self.marks_name).as_bytes());
        out.extend_from_slice(&keys);
        for checkpoint in checkpoints {
            resp::encode::bulk(out, checkpoint.as_bytes());
        }
        out.extend_from_slice(&words);
        Ok(())
    }

    /// Sends every batch to its node and reads all answers: each group's, with the node that gave it.
    async fn exchange(
        &mut self,
        config: &TargetConfig,
        batches: &mut BTreeMap<String, Batch>,
        feed: Option<&Feed>,
    ) -> Result<Vec<(usize, Rc<str>, Verdict)>, SyncError> {
        let mut talks: Vec<Pin<Box<dyn Future<Output = Talked> + '_>>> = Vec::new();
        let mut waits_for = Vec::new();
        let mut commands: BTreeMap<String, u64> = BTreeMap::new();
        for (address, batch) in std::mem::take(batches) {
            let Some(client) = self.nodes.remove(&address) else {
                return Err(SyncError::reconnect(
                    Side::Target,
                    &address,
                    "not connected to it",
                ));
            };
            waits_for.push(address.clone());
            self.told.sent(&address, batch.out.len() as u64);
            commands.insert(address.clone(), batch.commands());
            talks.push(Box::pin(talk(address, client, batch, feed)));
        }
        let mut all = std::pin::pin!(join(talks));
        let talked = loop {
            tokio::select! {
                biased;
                talked = &mut all => break talked,
                () = tokio::time::sleep(SILENCE) => self.look_for_failover(config, &waits_for).await?,
            }
        };
        let mut verdicts = Vec::new();
        let mut failed = None;
        for (address, client, result) in talked {
            match result {
                Ok(found) => {
                    let asked: Rc<str> = address.as_str().into();
                    let errors = found.iter().map(|(_, verdict)| verdict.errors()).sum();
                    let count = commands.get(&address).copied().unwrap_or(0);
                    self.told.answered(&address, count, errors);
                    self.nodes.insert(address, client);
                    let found = found.into_iter();
                    verdicts.extend(found.map(|(at, verdict)| (at, asked.clone(), verdict)));
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match failed {
            Some(error) => Err(error),
            None => {
                verdicts.sort_by_key(|(at, ..)| *at);
                Ok(verdicts)
            }
        }
    }

    /// Asks the other nodes whether one that does not answer still has its slots.
    pub(super) async fn look_for_failover(
        &self,
        config: &TargetConfig,
        waits_for: &[String],
    ) -> Result<(), SyncError> {
        // Each node that is asked is given its time.
        let Ok(located) = locate::locate_by(config, &self.key, waits_for).await else {
            return Ok(());
        };
        let now = located.topology.primaries();
        let known = self.topology.primaries();
        let is_new = now.iter().any(|address| !known.contains(address));
        let gone = waits_for.iter().find(|address| !now.contains(address));
        match gone {
            Some(address) => Err(SyncError::reconnect(
                Side::Target,
                address,
                "it does not answer, and another node has its slots now",
            )),
            None if is_new && waits_for.is_empty() => {
                Err(self.lost("another node has some of the slots now"))
            }
            None => Ok(()),
        }
    }
}

/// Whether an earlier group of the same slot is to be sent again.
fn is_behind(groups: &[Group], again: &BTreeMap<usize, Place>, at: usize) -> bool {
    if again.is_empty() {
        return false;
    }
    let slot = groups.get(at).map(|group| group.slot);
    again
        .keys()
        .any(|other| *other < at && groups.get(*other).map(|group| group.slot) == slot)
}

type Talked = (String, Client, Result<Vec<(usize, Verdict)>, SyncError>);

/// Writes a batch and reads its replies at the same time.
async fn talk(address: String, mut client: Client, batch: Batch, feed: Option<&Feed>) -> Talked {
    let result = async {
        let (stream, buffer) = client.parts();
        let (mut reader, mut writer) = tokio::io::split(stream);
        let lost = |what: &str| SyncError::reconnect(Side::Target, &address, what);
        let write = async {
            let mut from = 0;
            for gap in &batch.gaps {
                let before = batch.out.get(from..gap.at).unwrap_or_default();
                let sent = net::send_to(&mut writer, before).await;
                sent.map_err(|error| lost(&io_word(&error)))?;
                write_hole(&mut writer, gap.hole, feed, &lost).await?;
                from = gap.end();
            }
            let rest = batch.out.get(from..).unwrap_or_default();
            let sent = net::send_to(&mut writer, rest).await;
            sent.map_err(|error| lost(&io_word(&error)))
        };
        let read = read(&mut reader, buffer, &batch.groups, &address);
        let ((), verdicts) = tokio::try_join!(write, read)?;
        Ok(verdicts)
    }
    .await;
    (address, client, result)
}

/// Writes a word that was left in the feed.
async fn write_hole(
    writer: &mut (impl AsyncWriteExt + Unpin),
    hole: Hole,
    feed: Option<&Feed>,
    lost: &impl Fn(&str) -> SyncError,
) -> Result<(), SyncError> {
    let head = format!("${}\r\n", hole.len);
    let sent = net::send_to(writer, head.as_bytes()).await;
    sent.map_err(|error| lost(&io_word(&error)))?;
    let (mut at, end) = (hole.at, hole.at + hole.len);
    while at < end {
        let chunk = match feed {
            Some(feed) => feed.read(at).map_err(spool_error)?,
            None => None,
        };
        let Some(mut chunk) = chunk else {
            let what = format!("the spool no longer has what was read from it at {at}");
            return Err(SyncError::local(what));
        };
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        chunk.bytes.truncate(left);
        at += chunk.bytes.len() as u64;
        let sent = net::send_to(writer, &chunk.bytes).await;
        sent.map_err(|error| lost(&io_word(&error)))?;
    }
    Ok(())
}

async fn read(
    reader: &mut (impl AsyncReadExt + Unpin),
    buffer: &mut BytesMut,
    groups: &[(usize, Form)],
    address: &str,
) -> Result<Vec<(usize, Verdict)>, SyncError> {
    let mut scanner = ReplyScanner::new(resp::Limits::default());
    let mut verdicts = Vec::with_capacity(groups.len());
    let mut replies = Vec::new();
    for (at, form) in groups {
        // The last one, where something is to be looked up in it.
        let mut last = BytesMut::new();
        while replies.len() < form.replies() {
            match scanner.poll(buffer) {
                Ok(Some(summary)) => {
                    if form.ones.is_empty() && form.kind != Kind::Replies {
                        buffer.advance(summary.len);
                    } else {
                        last = buffer.split_to(summary.len);
                    }
                    replies.push(summary);
                }
                Ok(None) => {
                    buffer.reserve(64 << 10);
                    let read = reader.read_buf(buffer).await;
                    let read = read.map_err(|error| {
                        SyncError::reconnect(Side::Target, address, io_word(&error))
                    })?;
                    if read == 0 {
                        let what = "the server closed the connection";
                        return Err(SyncError::reconnect(Side::Target, address, what));
                    }
                }
                Err(error) => {
                    let what = format!("its answer is not RESP: {error}");
                    return Err(SyncError::stop(Side::Target, address, what));
                }
            }
        }
        let mut verdict = verdict(form, std::mem::take(&mut replies), address)?;
        if let Verdict::Done(inner) = &mut verdict
            && !form.ones.is_empty()
        {
            inner.ended = zeros(&last, &form.ones);
        }
        if let (Verdict::Done(inner), Kind::Replies) = (&mut verdict, form.kind) {
            inner.kinds = items_of(&last);
            if inner.kinds.len() != form.commands {
                return Err(nonsense(address, "not every command was answered"));
            }
        }
        verdicts.push((*at, verdict));
    }
    Ok(verdicts)
}

/// What the replies to a group say.
fn verdict(form: &Form, mut replies: Vec<Summary>, address: &str) -> Result<Verdict, SyncError> {
    if form.asking && form.kind != Kind::Plain {
        replies.remove(0);
    }
    match form.kind {
        Kind::Plain => {
            if form.selects {
                let ends = [replies.first(), replies.last()];
                let is_well = |end: &Option<&Summary>| {
                    end.is_some_and(|reply| !matches!(reply.kind, ReplyKind::Error(_)))
                };
                if !ends.iter().all(is_well) {
                    // What stood behind it may have gone to another database.
                    return Err(SyncError {
                        class: Class::Resync,
                        ..nonsense(
                            address,
                            "SELECT was refused: what stood behind it is copied anew",
                        )
                    });
                }
                replies.pop();
                replies.remove(0);
            }
            if form.asking {
                let mut at = 0;
                replies.retain(|_| {
                    at += 1;
                    at % 2 == 0
                });
            }
            let errors = replies
                .iter()
                .enumerate()
                .filter_map(|(at, reply)| match &reply.kind {
                    ReplyKind::Error(error) => Some((at, error.clone())),
                    _ => None,
                });
            Ok(Verdict::Done(Inner {
                errors: errors.collect(),
                kinds: replies.into_iter().map(|reply| reply.kind).collect(),
                ..Inner::default()
            }))
        }
        Kind::Script | Kind::Replies => {
            let Some(reply) = replies.pop() else {
                return Err(nonsense(address, "no answer to the script"));
            };
            Ok(match reply.kind {
                ReplyKind::Error(error) if error.text.starts_with(b"STALE") => {
                    Verdict::Stale(error)
                }
                ReplyKind::Error(error) => sort(None, error),
                _ => Verdict::Done(Inner {
                    errors: reply.errors,
                    ..Inner::default()
                }),
            })
        }
        Kind::Transaction => {
            let Some(exec) = replies.pop() else {
                return Err(nonsense(address, "no answer to EXEC"));
            };
            match exec.kind {
                ReplyKind::Array(count) if count == form.commands + 1 => Ok(Verdict::Done(Inner {
                    errors: exec.errors,
                    ..Inner::default()
                })),
                ReplyKind::Error(last) => {
                    // The first command that was not queued tells why; MULTI is the first of all.
                    let first = replies
                        .into_iter()
                        .enumerate()
                        .find_map(|(at, reply)| match reply.kind {
                            ReplyKind::Error(error) => Some((at, error)),
                            _ => None,
                        });
                    Ok(match first {
                        Some((at, error)) => sort(at.checked_sub(1), error),
                        None => sort(None, last),
                    })
                }
                other => Err(nonsense(address, &format!("EXEC answered {other:?}"))),
            }
        }
    }
}

/// What becomes of a group that was not carried out.
fn sort(index: Option<usize>, error: ErrorReply) -> Verdict {
    match error.code {
        ErrorCode::Moved | ErrorCode::Ask => Verdict::Redirected(error),
        ErrorCode::TryAgain | ErrorCode::ClusterDown => Verdict::Later(error),
        _ => Verdict::Refused(index, error),
    }
}

fn nonsense(address: &str, what: &str) -> SyncError {
    SyncError::stop(Side::Target, address, what)
}

/// Waits for all of them.
async fn join(mut talks: Vec<Pin<Box<dyn Future<Output = Talked> + '_>>>) -> Vec<Talked> {
    let mut done: Vec<Talked> = Vec::with_capacity(talks.len());
    std::future::poll_fn(move |context| {
        talks.retain_mut(|talk| match talk.as_mut().poll(context) {
            Poll::Ready(talked) => {
                done.push(talked);
                false
            }
            Poll::Pending => true,
        });
        if talks.is_empty() {
            Poll::Ready(std::mem::take(&mut done))
        } else {
            Poll::Pending
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(text: &str) -> Vec<Summary> {
        let mut rest = text.replace('\n', "\r\n").into_bytes();
        let mut scanner = ReplyScanner::new(resp::Limits::default());
        let mut all = Vec::new();
        while let Some(summary) = scanner.poll(&rest).unwrap() {
            rest.drain(..summary.len);
            all.push(summary);
        }
        all
    }

    fn form(kind: Kind, asking: bool, commands: usize) -> Form {
        Form {
            asking,
            kind,
            commands,
            ones: Vec::new(),
            selects: false,
        }
    }

    #[test]
    fn answers_to_transactions() {
        let read = |asking, text: &str| {
            let form = form(Kind::Transaction, asking, 1);
            let replies = replies(text);
            assert_eq!(replies.len(), form.replies());
            verdict(&form, replies, "n:1").unwrap()
        };
        let done = read(false, "+OK\n+QUEUED\n+QUEUED\n*2\n:1\n+OK\n");
        assert!(matches!(done, Verdict::Done(inner) if inner.errors.is_empty()));
        let failed = read(true, "+OK\n+OK\n+QUEUED\n+QUEUED\n*2\n-WRONGTYPE x\n+OK\n");
        assert!(matches!(failed, Verdict::Done(inner) if inner.errors[0].0 == 0));
        let moved = read(false, "+OK\n-MOVED 1 h:2\n-MOVED 1 h:2\n-EXECABORT x\n");
        assert!(matches!(moved, Verdict::Redirected(_)));
        let later = read(false, "+OK\n+QUEUED\n+QUEUED\n-TRYAGAIN x\n");
        assert!(matches!(later, Verdict::Later(_)));
        let full = read(false, "+OK\n-OOM x\n-OOM x\n-EXECABORT x\n");
        assert!(matches!(full, Verdict::Refused(Some(0), error) if error.code == ErrorCode::Oom));
    }

    #[test]
    fn answers_to_scripts_and_plain_commands() {
        let script =
            |text: &str| verdict(&form(Kind::Script, false, 2), replies(text), "n:1").unwrap();
        assert!(matches!(script(":1\n"), Verdict::Done(inner) if inner.errors.is_empty()));
        assert!(
            matches!(script("*2\n:0\n-WRONGTYPE x\n"), Verdict::Done(inner) if inner.errors[0].0 == 1)
        );
        assert!(matches!(script("-STALE x\n"), Verdict::Stale(_)));
        let plain = verdict(
            &form(Kind::Plain, true, 2),
            replies("+OK\n+OK\n+OK\n-ASK 1 h:1\n"),
            "n:1",
        );
        assert!(
            matches!(plain, Ok(Verdict::Done(inner)) if inner.kinds.len() == 2 && inner.errors[0].0 == 1)
        );
        let selects = |text: &str| {
            let form = Form {
                selects: true,
                ..form(Kind::Plain, true, 1)
            };
            assert_eq!(form.replies(), 4);
            verdict(&form, replies(text), "n:1")
        };
        let done = selects("+OK\n+OK\n:7\n+OK\n");
        assert!(matches!(done, Ok(Verdict::Done(inner)) if inner.kinds == [ReplyKind::Int(7)]));
        assert!(selects("-ERR DB index is out of range\n+OK\n:7\n+OK\n").is_err());
    }
}
