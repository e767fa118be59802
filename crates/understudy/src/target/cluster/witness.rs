//! The witnesses: two slots of each node that say how far the link's position has come, so that a loss behind it is noticed.

use rewrite::Slot;

use super::{Cluster, Group, Mark};
use crate::config::TargetConfig;
use crate::error::SyncError;

impl Cluster {
    /// Makes two slots of each node, the witnesses, say that they have all up to `mark`, unless they have all before `offset`: the
    /// link's position can move on to there. `always`: whatever they say now. Whoever reads it later finds out by them that a node has lost more than that.
    pub(crate) async fn bear_witness(
        &mut self,
        config: &TargetConfig,
        offset: u64,
        mark: Mark,
        always: bool,
    ) -> Result<(), SyncError> {
        let mut witnesses = Vec::new();
        let mut groups = Vec::new();
        for slots in self.topology.slots().into_values() {
            let may = |slot: &&Slot| self.may_bear_witness(**slot);
            let ends = [slots.iter().find(may), slots.iter().rfind(may)];
            for slot in ends.into_iter().flatten() {
                if witnesses.contains(&slot.0) {
                    continue;
                }
                witnesses.push(slot.0);
                if always || self.mark(*slot).is_none_or(|mark| mark.offset < offset) {
                    groups.push(Group::new(*slot, Some(mark)));
                }
            }
        }
        if !groups.is_empty() {
            self.run(config, groups, None).await?;
        }
        self.state.witnesses = witnesses;
        Ok(())
    }

    /// Slots behind `offset` of nodes that have no witness.
    pub(crate) fn unwitnessed(&self, offset: u64) -> Vec<Slot> {
        let mut all = Vec::new();
        for slots in self.topology.slots().into_values() {
            if slots.iter().any(|slot| self.is_witness(&[*slot])) {
                continue;
            }
            let is_behind = |slot: &Slot| self.mark(*slot).is_some_and(|mark| mark.offset < offset);
            all.extend(slots.into_iter().filter(is_behind));
        }
        all
    }

    /// A slot that does not have what it had when the link's position was moved on to `offset`.
    pub(crate) fn forgetful(&self, offset: u64) -> Option<Slot> {
        let has_lost = |slot: &&u16| {
            let mark = self.mark(Slot(**slot));
            mark.is_none_or(|mark| mark.offset < offset)
        };
        let slot = self.state.witnesses.iter().find(has_lost)?;
        Some(Slot(*slot))
    }
}
