//! Emptying a node.

use resp::Value;
use rewrite::Slot;

use super::Cluster;
use super::ask::{ANSWER, begin_watched, in_time};
use super::fence::SCRIPT_FLUSH;
use super::marks::{mark_key, state_key};
use crate::config::TargetConfig;
use crate::error::SyncError;

impl Cluster {
    /// Empties a node. The one that has the link's checkpoint keeps that, in the same transaction.
    pub(crate) async fn flush_node(
        &mut self,
        config: &TargetConfig,
        address: &str,
        command: &[u8],
    ) -> Result<(), SyncError> {
        let keeps = self.owner(self.own_slot())? == address;
        let (key, state) = (self.key.clone(), state_key(&self.key));
        let (value, text) = (self.written.clone(), self.state.text());
        if !keeps {
            let frame = match self.is_lua() {
                true => self.fenced_flush(address, command),
                false => command.to_vec(),
            };
            let reply = self.ask_patiently(config, address, &frame, 1).await?;
            return match reply.first().and_then(Value::as_error) {
                Some(error) => Err(self.refusal_of("FLUSHALL", error)),
                None => Ok(()),
            };
        }
        let client = self.node(address)?;
        let begins = begin_watched(client, &key, &value);
        if !in_time(address, ANSWER, begins).await? {
            return Err(self.lost("its checkpoint was changed by somebody else"));
        }
        let mut out = command.to_vec();
        resp::encode::command(&mut out, &[b"SET", key.as_bytes(), value.as_bytes()]);
        resp::encode::command(&mut out, &[b"SET", state.as_bytes(), text.as_bytes()]);
        resp::encode::command(&mut out, &[b"EXEC"]);
        let replies = self.ask_patiently(config, address, &out, 4).await?;
        if let Some(error) = replies.iter().find_map(Value::as_error) {
            return Err(self.node(address)?.refused(&[b"FLUSHALL"], error));
        }
        if !matches!(replies.last(), Some(Value::Array(_))) {
            return Err(self.lost("its checkpoint was changed by somebody else"));
        }
        Ok(())
    }

    /// Empties a database of a node that is not 0: no checkpoint is in it.
    pub(crate) async fn flush_db(
        &mut self,
        config: &TargetConfig,
        address: &str,
        db: u32,
    ) -> Result<(), SyncError> {
        if !self.may_hold(db).await? {
            return Ok(());
        }
        let number = db.to_string();
        let commands: [&[&[u8]]; 5] = [
            &[b"MULTI"],
            &[b"SELECT", number.as_bytes()],
            &[b"FLUSHDB"],
            &[b"SELECT", b"0"],
            &[b"EXEC"],
        ];
        let mut out = Vec::new();
        for command in commands {
            resp::encode::command(&mut out, command);
        }
        // A SELECT that is refused must not leave FLUSHDB for database 0.
        let mut replies = self.ask_patiently(config, address, &out, 5).await?;
        let refused = replies.iter().find_map(Value::as_error);
        if let Some(error) = refused {
            return Err(self.refusal_of("FLUSHDB", error));
        }
        let Some(Value::Array(done)) = replies.pop() else {
            return Err(self.lost("EXEC answered no array to FLUSHDB"));
        };
        match done.iter().find_map(Value::as_error) {
            Some(error) => Err(self.refusal_of("FLUSHDB", error)),
            None => Ok(()),
        }
    }

    /// What empties a node, if none of its slots was written by somebody who came after us.
    fn fenced_flush(&self, address: &str, command: &[u8]) -> Vec<u8> {
        let slots = self.topology.slots();
        let slot = slots.get(address).and_then(|slots| slots.first());
        let key = mark_key(slot.copied().unwrap_or(Slot(0)), &self.marks_name);
        let epoch = self.epoch.to_string();
        let words = crate::pipeline::words_of(command, 0).unwrap_or_default();
        let mut argv: Vec<&[u8]> = vec![
            b"EVAL",
            SCRIPT_FLUSH.as_bytes(),
            b"1",
            key.as_bytes(),
            epoch.as_bytes(),
        ];
        argv.extend(words.iter().map(Vec::as_slice));
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, &argv);
        frame
    }
}
