//! Puts commands that were rewritten for the source's databases into a unit, for the target's; or on their way to a cluster.

use rewrite::{Abilities, Databases, Db, DbMap, MapError, Mapped, Table};

use super::stream::Hole;
use super::unit::Unit;
use crate::config::Config;

/// Databases of the source of which the target may hold something.
pub(super) fn databases(config: &Config, abilities: &Abilities) -> Databases {
    match (abilities.databases, &config.target.db_map) {
        (Some(count), None) => Databases::These((0..count).map(Db).collect()),
        (Some(count), Some(map)) => Databases::These(map.sources_below(count)),
        (None, _) => Databases::AtLeast(16),
    }
}

/// What stands between the rewriter and the unit where `redis_writer.db_map` is set.
#[derive(Debug)]
pub(super) struct Mapper {
    map: DbMap,
    checkpoint_key: Vec<u8>,
    buffer: Vec<u8>,
}

impl Mapper {
    /// `None` where databases keep their numbers.
    pub(super) fn new(config: &Config, checkpoint_key: &str) -> Option<Self> {
        config.target.db_map.as_ref().map(|map| Self {
            map: map.clone(),
            checkpoint_key: checkpoint_key.as_bytes().to_vec(),
            buffer: Vec::new(),
        })
    }

    /// What `bytes`, meant for the source's `db`, have come to, and for which database of the target that is.
    ///
    /// # Errors
    /// What cannot be said at the target.
    pub(super) fn map(
        &mut self,
        table: &Table,
        db: Db,
        bytes: &[u8],
    ) -> Result<(Mapped, Db, &[u8]), MapError> {
        self.buffer.clear();
        let key = &self.checkpoint_key;
        let mapped = self.map.map(table, key, db, bytes, &mut self.buffer)?;
        Ok((mapped, self.map.db(db), &self.buffer))
    }

    /// The number of commands that `bytes`, meant for the source's `db`, have come to; they are in the unit.
    ///
    /// # Errors
    /// What cannot be said at the target. Nothing was put into the unit.
    pub(super) fn put(
        &mut self,
        unit: &mut Unit,
        table: &Table,
        db: Db,
        bytes: &[u8],
        holes: &[Hole],
    ) -> Result<u32, MapError> {
        let (mapped, target, _) = self.map(table, db, bytes)?;
        if mapped.commands == 0 {
            return Ok(0);
        }
        if mapped.commands == 1 && mapped.db == target && holes.is_empty() {
            unit.forward(target, &self.buffer);
        } else if holes.is_empty() {
            unit.body(target).extend_from_slice(&self.buffer);
            unit.added(mapped.commands, mapped.db);
        } else {
            unit.with_holes(target, &self.buffer, mapped.commands, holes);
        }
        Ok(mapped.commands)
    }
}
