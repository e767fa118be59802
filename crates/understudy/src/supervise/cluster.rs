//! The stream applied to a cluster, over as many connections as it takes.

use std::collections::BTreeSet;

use rewrite::{Db, Slot};

use super::Supervisor;
use super::losses::Losses;
use crate::checkpoint::{Checkpoint, Names, Phase, Position};
use crate::error::{Class, Side, SyncError};
use crate::pipeline::End;
use crate::pipeline::cluster::{ClusterStream, Memory};
use crate::source::spool_error;
use crate::spool::{Feed, Log};
use crate::target::Target;
use crate::target::cluster::{Cluster, Note};

impl Supervisor<'_> {
    /// Applies the stream from `position` on. Behind a snapshot, every slot's position and the link's are made known first.
    pub(super) async fn apply_units_in_cluster(
        &self,
        target: Target,
        feed: &Feed,
        position: Position,
        snapshot: Option<&Feed>,
    ) -> Result<(), SyncError> {
        let mut memory = self.memory.take();
        let applied = self.apply_windows(target, feed, position, snapshot, &mut memory);
        let result = Box::pin(applied).await;
        self.memory.set(memory);
        result
    }

    async fn apply_windows(
        &self,
        mut target: Target,
        feed: &Feed,
        mut position: Position,
        mut snapshot: Option<&Feed>,
        memory: &mut Memory,
    ) -> Result<(), SyncError> {
        let mut losses = Losses::default();
        loop {
            let ours = target.checkpoint.clone();
            let from = match snapshot {
                Some(_) => end_of(position),
                None => {
                    self.place_to_begin(&mut target, feed, position, memory)
                        .await?
                }
            };
            feed.rewind(from.offset);
            self.status.applied_offset.set(from.offset);
            let version = self.source_version.version;
            let mut applier =
                ClusterStream::new(self.common(), feed, &mut target, from, version, memory)?;
            if !self.config.source.sync_aof {
                applier.end_here();
            }
            let announced = match snapshot {
                Some(_) => applier.announce(position).await,
                None => Ok(()),
            };
            let result = match announced {
                Ok(()) => {
                    if let Some(snapshot) = snapshot.take() {
                        snapshot.with_log(Log::clear).map_err(spool_error)?;
                    }
                    applier.run().await
                }
                Err(error) => Err(error),
            };
            let error = match result {
                Ok(()) => return Ok(()),
                Err(error) if error.class != Class::Reconnect => return Err(error),
                Err(error) => error,
            };
            losses.pause(feed.applied(), &error).await;
            target = self.retake(&error, &ours).await?;
            position = match target.checkpoint.phase {
                Phase::Stream(found) => found,
                Phase::Snapshot(_) | Phase::Diverged(_) | Phase::Scan(_) => {
                    return Err(self.fell_back("its checkpoint fell back"));
                }
            };
            // The first position in the stream was written, whatever became of the answer.
            if let Some(snapshot) = snapshot.take() {
                snapshot.with_log(Log::clear).map_err(spool_error)?;
            }
            tracing::info!(
                offset = position.offset.0,
                "the target is back; going on from its checkpoints"
            );
            if target.checkpoint.leased {
                self.leases.suspect(0);
            }
        }
    }

    /// Where to begin: at the link's position, or before it where a slot has fallen back behind that.
    async fn place_to_begin(
        &self,
        target: &mut Target,
        feed: &Feed,
        position: Position,
        memory: &Memory,
    ) -> Result<End, SyncError> {
        let checkpoint = target.checkpoint.clone();
        let Some(cluster) = &mut target.cluster else {
            return Ok(end_of(position));
        };
        let mut from = end_of(position);
        let is_shard = self.config.shard.is_some();
        if is_shard {
            let start = feed.with_log(|log| log.start());
            self.let_go_of_lost(cluster, start, position, memory)
                .await?;
        }
        let mut lost = None;
        if !cluster.state.flushes {
            if let Some((slots, least)) =
                memory.fallen_back(cluster.state.generation, cluster.marks(), is_shard)
            {
                tracing::warn!(
                    slots = slots.len(),
                    "a node has lost what it wrote last: it is applied again"
                );
                if least < from.offset {
                    match memory.place_before(least) {
                        Some(place) => from = place,
                        None => lost = Some("a node has lost more than is known here".to_owned()),
                    }
                }
            }
            // What this run has seen of the slots tells more.
            if memory.generation != cluster.state.generation
                && let Some(slot) = cluster.forgetful(position.offset.0)
            {
                lost = Some(format!(
                    "the node of slot {} has lost more than the last ten seconds, in a failover while nobody was here",
                    slot.0
                ));
            }
            let is_unnamed = |note: &Note| {
                let names = note.repairs.as_deref();
                names.is_some_and(Names::are_unnamed)
            };
            if cluster.notes().iter().any(is_unnamed) {
                lost = Some("too many keys of a slot were under repair".to_owned());
            }
            let missing = cluster.marks().iter().filter(|mark| mark.is_none()).count();
            // Of a shard, those are not held.
            if missing > 0 && !is_shard {
                lost = Some(format!(
                    "{missing} slots have lost their checkpoints, and so their keys"
                ));
            }
        }
        let is_kept = feed.with_log(|log| {
            log.knows(position.replid) && (log.start()..=log.end()).contains(&from.offset)
        });
        if !is_kept && lost.is_none() {
            if from.offset == position.offset.0 {
                return Err(self.fell_back("its checkpoint is outside of what is kept here"));
            }
            lost = Some("a node has lost more than is kept here".to_owned());
        }
        let Some(what) = lost else {
            return Ok(from);
        };
        let diverged = Checkpoint {
            phase: Phase::Diverged(position),
            ..checkpoint
        };
        cluster.write_checkpoint(&diverged).await?;
        Err(self.fell_back(&format!("{what}: a new snapshot is taken")))
    }

    /// A shard's slots that nobody can go on from are let go, and copied whole: their node has lost more than is kept from
    /// `start` on, or too many of their keys were under repair.
    async fn let_go_of_lost(
        &self,
        cluster: &mut Cluster,
        start: u64,
        position: Position,
        memory: &Memory,
    ) -> Result<(), SyncError> {
        let Some(shard) = &self.config.shard else {
            return Ok(());
        };
        let is_unnamed = |note: &Note| note.repairs.as_deref().is_some_and(Names::are_unnamed);
        let slots = (0_u16..).map(Slot).zip(cluster.notes());
        let unnamed = slots.filter(|(_, note)| is_unnamed(note));
        let mut slots: BTreeSet<Slot> = unnamed.map(|(slot, _)| slot).collect();
        let fallen = memory.fallen_back(cluster.state.generation, cluster.marks(), true);
        let is_lost = |slot: &Slot| {
            let offset = cluster.mark(*slot).map_or(0, |mark| mark.offset);
            let place = memory.place_before(offset);
            offset < position.offset.0 && place.is_none_or(|place| place.offset < start)
        };
        slots.extend(
            fallen
                .into_iter()
                .flat_map(|(slots, _)| slots)
                .filter(is_lost),
        );
        if memory.generation == cluster.state.generation {
            // They have come back by what a node has lost: they had been let go before the link's position.
            let is_behind = |slot: &Slot| {
                let mark = cluster.mark(*slot);
                mark.is_some_and(|mark| mark.offset < position.offset.0)
            };
            slots.extend(memory.not_held().filter(is_behind));
        } else {
            // Of nodes that say nothing of how far they were nobody knows whether they have lost more than the position trails.
            slots.extend(cluster.unwitnessed(position.offset.0));
        }
        if slots.is_empty() {
            return Ok(());
        }
        tracing::warn!(
            slots = slots.len(),
            "a node has lost more of these slots than can be gone through again: they are copied whole"
        );
        slots.iter().for_each(|slot| shard.leave(slot.0));
        let slots: Vec<Slot> = slots.into_iter().collect();
        cluster.free(&self.config.target, &slots).await
    }

    fn fell_back(&self, what: &str) -> SyncError {
        SyncError::resync(Side::Target, &self.config.target.endpoint.address, what)
    }
}

fn end_of(position: Position) -> End {
    End {
        offset: position.offset.0,
        db: Db(position.db),
        received_ms: crate::clock::unix_ms(),
    }
}
