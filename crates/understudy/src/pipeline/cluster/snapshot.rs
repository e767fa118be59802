//! A snapshot, applied to a cluster: what is collected becomes a window of plain commands by slot, one on its way.
//!
//! Every write can be repeated, as to a single server. Once a second two slots of each node, the witnesses, are told how far the snapshot is,
//! then the link's checkpoint: whoever goes on after a lost node begins where the least of them is. One that has lost its witness, or
//! a node that came back empty, means the beginning.

use std::collections::HashMap;
use std::time::Duration;

use resp::ReplyKind;
use rewrite::{Method, Sent, Slot, slot_of};
use tokio::time::Instant;

use crate::config::TargetConfig;
use crate::error::SyncError;
use crate::pipeline::each_command;
use crate::pipeline::snapshot::in_cluster::Collected;
use crate::pipeline::snapshot::{Applied, SnapshotApplier};
use crate::target::Target;
use crate::target::cluster::{Cluster, Group, Mark};

/// Between two words about how far the snapshot is.
const TELL: Duration = Duration::from_secs(1);

/// What is on its way: groups, with what was sent in each.
pub(crate) struct Window {
    groups: Vec<Group>,
    sent: Vec<Vec<(Sent, u32)>>,
    /// Commands without keys, for every node.
    everywhere: Vec<(Sent, Vec<u8>)>,
}

impl SnapshotApplier<'_> {
    /// Applies everything, and waits for the last reply.
    pub(in crate::pipeline) async fn run_in_cluster(
        mut self,
        target: &mut Target,
    ) -> Result<Applied, SyncError> {
        let Some(mut cluster) = target.cluster.take() else {
            return Err(SyncError::local("the target is not a cluster"));
        };
        self.status().snapshot_applied.set(self.began_at());
        let result = self.windows(&mut cluster).await;
        target.cluster = Some(cluster);
        result?;
        Ok(self.into_applied())
    }

    async fn windows(&mut self, cluster: &mut Cluster) -> Result<(), SyncError> {
        let config = self.config();
        let mut flight: Option<(Window, u64)> = None;
        let mut told = Instant::now();
        loop {
            // While a window is on its way the next one is collected.
            if cluster.renewal_is_due() {
                cluster.renew().await?;
            }
            let (collected, answered) = match flight.take() {
                None => tokio::select! {
                    biased;
                    more = self.collect() => (more?, None),
                    () = cluster.renewal_due() => continue,
                },
                Some((window, reached)) => {
                    let carried = carry_out(&config.target, cluster, window);
                    let mut carried = std::pin::pin!(carried);
                    let mut answered = None;
                    let mut collected = None;
                    while answered.is_none() || collected.is_none() {
                        tokio::select! {
                            biased;
                            done = &mut carried, if answered.is_none() => answered = Some(done?),
                            more = self.collect(), if collected.is_none() => collected = Some(more?),
                        }
                    }
                    (collected.unwrap_or_default(), Some((answered, reached)))
                }
            };
            if let Some((answered, reached)) = answered {
                for (sent, keys, kind) in answered.unwrap_or_default() {
                    self.answered(&sent, keys, &kind)?;
                }
                if told.elapsed() >= TELL {
                    self.tell(cluster, reached).await?;
                    told = Instant::now();
                }
            }
            match collected {
                Some((bytes, sent, reached)) => {
                    cluster.until_open(&config.limits).await?;
                    config.limits.target_bytes.took(bytes.len() as u64);
                    config.limits.target_commands.took(sent.len() as u64);
                    self.status().snapshot_applied.set(reached);
                    let window = window(&bytes, sent, cluster.is_lua());
                    flight = Some((window, reached));
                }
                None => return Ok(()),
            }
        }
    }

    /// All before this byte of the snapshot is written, and every answer was looked at: the witnesses, then the link, say so.
    async fn tell(&mut self, cluster: &mut Cluster, reached: u64) -> Result<(), SyncError> {
        let mark = Mark {
            offset: reached,
            part: 0,
        };
        cluster.set_seen(reached);
        let target = &self.config().target;
        cluster.bear_witness(target, reached, mark, true).await?;
        cluster.write_checkpoint(self.checkpoint_at(reached)).await
    }

    /// The next commands, when there are enough, or the end is reached; nothing behind the end.
    async fn collect(&mut self) -> Result<Option<Collected>, SyncError> {
        loop {
            let starved = self.produce_some().await?;
            if let Some(taken) = self.take_open(starved) {
                return Ok(Some(taken));
            }
            if self.is_done() {
                return Ok(None);
            }
            if starved {
                self.more().await;
            } else {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// What was collected, by slot.
pub(crate) fn window(bytes: &[u8], sent: Vec<(Sent, u32)>, is_lua: bool) -> Window {
    let mut window = Window {
        groups: Vec::new(),
        sent: Vec::new(),
        everywhere: Vec::new(),
    };
    // The last group of each database and slot.
    let mut places: HashMap<(u32, Slot), usize> = HashMap::new();
    let mut sent = sent.into_iter();
    each_command(bytes, |_, frame, args| {
        let Some((sent, keys)) = sent.next() else {
            return;
        };
        match sent.method {
            // Each group has its own.
            Method::Select => {}
            Method::Function | Method::Script => window.everywhere.push((sent, frame.to_vec())),
            Method::Set | Method::Restore | Method::Commands => {
                // The rewriter has given it the target's names.
                let (db, slot) = (sent.db.0, slot_of(&sent.key));
                let known = places.get(&(db, slot)).copied().filter(|place| {
                    let group = window.groups.get(*place);
                    !is_lua || group.is_some_and(|group| group.has_room_for(args.len()))
                });
                let place = known.unwrap_or_else(|| {
                    window.groups.push(Group::plain(slot, db));
                    window.sent.push(Vec::new());
                    window.groups.len() - 1
                });
                places.insert((db, slot), place);
                if let (Some(group), Some(list)) =
                    (window.groups.get_mut(place), window.sent.get_mut(place))
                {
                    group.push(frame, args.len(), &[], false);
                    list.push((sent, keys));
                }
            }
        }
    });
    window
}

/// Sends a window; gives each command's reply.
pub(crate) async fn carry_out(
    config: &TargetConfig,
    cluster: &mut Cluster,
    window: Window,
) -> Result<Vec<(Sent, u32, ReplyKind)>, SyncError> {
    for group in &window.groups {
        cluster.have_db(group.db()).await?;
    }
    let mut answers = Vec::new();
    for (sent, frame) in window.everywhere {
        let mut errors = cluster.everywhere(config, &frame).await?;
        let kind = match errors.pop() {
            Some(error) => ReplyKind::Error(error),
            None => ReplyKind::Bulk,
        };
        answers.push((sent, 1, kind));
    }
    let (_, inner) = cluster.run(config, window.groups, None).await?;
    for (sent, inner) in window.sent.into_iter().zip(inner) {
        for ((sent, keys), kind) in sent.into_iter().zip(inner.kinds) {
            answers.push((sent, keys, kind));
        }
    }
    Ok(answers)
}
