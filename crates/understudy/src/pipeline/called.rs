//! Commands by `filter.function`: what was rewritten for the target goes through the script, and what that calls is rewritten
//! for the target once more: times become absolute, expiries that are near get leases, words that the target lacks are left out.
//! Conditions stay: nobody has met them yet.
//!
//! A script is run anew on a command that is collected again, and comes to the same; what it calls is in the unit of the command
//! that it was called for. So it is applied exactly once, whatever it is.

use std::ops::Range;

use bytes::Bytes;
use resp::Arg;
use rewrite::{
    Command, CommandId, Db, DropReason, Granted, Group, LeaseRule, Outcome, StreamOptions,
    StreamRewriter,
};

use super::stream::{mend_of, show};
use super::unit::{Unit, each_command};
use crate::checkpoint;
use crate::config::Config;
use crate::error::SyncError;
use crate::function::{Function, Seen};
use crate::target::Target;

/// Commands that carry a key's expiry to another name or database.
const CARRIERS: [&str; 5] = ["rename", "renamenx", "copy", "move", "swapdb"];

/// The script, and what comes behind it.
pub(super) struct Called {
    function: Function,
    rewriter: StreamRewriter,
    /// `CMD` of each command of the table.
    names: Vec<String>,
    carriers: Vec<CommandId>,
    places: Vec<usize>,
    /// What is behind each call of the last run.
    made: Vec<Made>,
    out: Vec<u8>,
    carried: bool,
    dropped: Vec<DropReason>,
}

/// What one call has become.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// The database that it is for, and that is selected behind it.
    pub(super) db: Db,
    pub(super) command: CommandId,
    /// How many commands there are.
    pub(super) commands: u32,
    /// It goes as the script said it.
    pub(super) is_plain: bool,
    bytes: Range<usize>,
}

impl Called {
    /// `None` where there is no script.
    ///
    /// # Errors
    /// Where it cannot be compiled; the configuration has seen to it that it can.
    pub(super) fn new(config: &Config, target: &Target) -> Result<Option<Self>, SyncError> {
        let Some(script) = &config.function else {
            return Ok(None);
        };
        let function = Function::new(script).map_err(SyncError::local)?;
        let rewriter = StreamRewriter::new(StreamOptions {
            own_key_mark: Bytes::from_static(checkpoint::KEY_PREFIX.as_bytes()),
            publish: rewrite::Publish::Forward,
            checkpoint_key: checkpoint::key(&config.link_name).into(),
            losses: config.target.losses,
            conditions_stay: true,
            ..StreamOptions::new(target.abilities.clone())
        });
        let table = rewriter.table();
        let ids = (0..table.len()).filter_map(|id| u16::try_from(id).ok());
        let commands = ids.filter_map(|id| table.command(CommandId(id)));
        let names = commands.map(|command| shake_name(&command.name)).collect();
        let find = |name: &&str| table.find(name.as_bytes());
        Ok(Some(Self {
            carriers: CARRIERS.iter().filter_map(find).collect(),
            function,
            names,
            rewriter,
            places: Vec::new(),
            made: Vec::new(),
            out: Vec::new(),
            carried: false,
            dropped: Vec::new(),
        }))
    }

    /// Expiries are moved by this rule from now on.
    pub(super) fn set_lease(&mut self, lease: Option<LeaseRule>) {
        self.rewriter.set_lease(lease);
    }

    /// The expiries moved since the last call: by the target's names.
    pub(super) fn granted(&mut self) -> std::vec::Drain<'_, Granted> {
        self.rewriter.granted()
    }

    /// Whether a key's expiry has come to another name since the last call.
    pub(super) fn take_carried(&mut self) -> bool {
        std::mem::take(&mut self.carried)
    }

    /// What was called since the last call and is for no target, by reason.
    pub(super) fn dropped(&mut self) -> std::vec::Drain<'_, DropReason> {
        self.dropped.drain(..)
    }

    /// Runs the script on each of these commands, which are meant for `db`; what comes of them is in [`Self::made`].
    ///
    /// # Errors
    /// In words, with the script's line.
    pub(super) fn run(&mut self, db: Db, bytes: &[u8], at_ms: u64) -> Result<(), String> {
        self.made.clear();
        self.out.clear();
        let (mut db, mut result) = (db, Ok(()));
        each_command(bytes, |_, frame, args| {
            let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
            if result.is_ok() && word(0).eq_ignore_ascii_case(b"select") {
                let number = std::str::from_utf8(word(1)).ok();
                let number = number.and_then(|text| text.parse().ok());
                db = Db(number.unwrap_or(u32::MAX));
            } else if result.is_ok() {
                result = self.one(db, frame, args, at_ms);
            }
        });
        result
    }

    fn one(&mut self, db: Db, frame: &[u8], args: &[Arg], at_ms: u64) -> Result<(), String> {
        let Some(name) = args.first().map(|name| name.of(frame)) else {
            return Ok(());
        };
        let table = self.rewriter.table();
        let id = table.find(name).unwrap_or(CommandId::UNKNOWN);
        let known = table.command(id);
        self.places.clear();
        match known {
            Some(command) => rewrite::keys_of(command, frame, args, &mut self.places),
            // As everywhere: a module's command has its key first.
            None => self.places.extend((args.len() > 1).then_some(1)),
        }
        let sub = args.get(1).map(|word| word.of(frame));
        let full = match known {
            Some(command) if command.flags.has(rewrite::table::Flags::CONTAINER) => {
                let sub = String::from_utf8_lossy(sub.unwrap_or_default());
                Some(format!("{}-{}", command.name, sub).to_ascii_uppercase())
            }
            Some(_) => None,
            None => Some(String::from_utf8_lossy(name).to_ascii_uppercase()),
        };
        let usual = self.names.get(usize::from(id.0)).map(String::as_str);
        let seen = Seen {
            db: db.0,
            name: full.as_deref().or(usual).unwrap_or_default(),
            group: known
                .map_or_else(|| Group::of_unknown(name), |command| command.group)
                .name(),
            args,
            frame,
            places: &self.places,
        };
        let mut behind = Behind {
            rewriter: &mut self.rewriter,
            carriers: &self.carriers,
            made: &mut self.made,
            out: &mut self.out,
            carried: &mut self.carried,
            dropped: &mut self.dropped,
        };
        let run = self.function.run(&seen, |calls| {
            calls
                .iter()
                .try_for_each(|(db, call)| behind.call(Db(db), call, at_ms))
        });
        run.map_err(|error| error.to_string())?
    }

    /// What the calls of the last run have become, in order, with its bytes.
    pub(super) fn made(&self) -> impl Iterator<Item = (&Made, &[u8])> {
        let bytes = |made: &Made| self.out.get(made.bytes.clone()).unwrap_or_default();
        self.made.iter().map(move |made| (made, bytes(made)))
    }

    /// The command behind an id.
    pub(super) fn command(&self, id: CommandId) -> Option<&Command> {
        self.rewriter.table().command(id)
    }

    /// Puts what the last run has come to into a unit; how many commands that was.
    pub(super) fn put(&self, unit: &mut Unit) -> u32 {
        let mut count = 0;
        for (made, bytes) in self.made() {
            if made.is_plain {
                unit.forward(made.db, bytes);
            } else {
                unit.body(made.db).extend_from_slice(bytes);
                unit.added(made.commands, made.db);
            }
            count += made.commands;
        }
        count
    }
}

/// A name as RedisShake has it: `xgroup|create` is `XGROUP-CREATE`.
fn shake_name(name: &str) -> String {
    name.replace('|', "-").to_ascii_uppercase()
}

/// Takes what a script calls.
struct Behind<'a> {
    rewriter: &'a mut StreamRewriter,
    carriers: &'a [CommandId],
    made: &'a mut Vec<Made>,
    out: &'a mut Vec<u8>,
    carried: &'a mut bool,
    dropped: &'a mut Vec<DropReason>,
}

impl Behind<'_> {
    fn call(&mut self, db: Db, call: &[u8], at_ms: u64) -> Result<(), String> {
        let mut result = Ok(());
        each_command(call, |_, frame, args| {
            result = self.frame(db, frame, args, at_ms);
        });
        result
    }

    fn frame(&mut self, db: Db, frame: &[u8], args: &[Arg], at_ms: u64) -> Result<(), String> {
        let word = |at: usize| args.get(at).map_or(&[][..], |arg| arg.of(frame));
        let name = show(word(0));
        let is_expiry = ["expire", "pexpire", "expireat", "pexpireat"]
            .iter()
            .any(|known| word(0).eq_ignore_ascii_case(known.as_bytes()));
        let compares = |at: usize| {
            [&b"GT"[..], b"LT"]
                .iter()
                .any(|known| word(at).eq_ignore_ascii_case(known))
        };
        if is_expiry && (3..args.len()).any(compares) {
            return Err(format!(
                "filter.function calls {name} with GT or LT, which has nothing to compare with: expiries that are near are held back at the target"
            ));
        }
        self.rewriter.set_db(db);
        let begin = self.out.len();
        let outcome = self.rewriter.command(frame, args, at_ms, self.out);
        let outcome = outcome
            .map_err(|error| format!("what filter.function calls: {error}{}", mend_of(&error)))?;
        let (command, commands, is_plain) = match outcome {
            Outcome::Forward { command } => {
                self.out.extend_from_slice(frame);
                (command, 1, true)
            }
            Outcome::Rewritten { command, commands } => (command, commands, false),
            Outcome::Dropped(reason @ (DropReason::Control | DropReason::Replconf)) => {
                return Err(format!(
                    "filter.function calls {name}, which is about a server and not about data ({})",
                    reason.label()
                ));
            }
            Outcome::Dropped(DropReason::OwnKey) => {
                return Err(format!(
                    "filter.function calls {name} on a key with \"{}\" in its name: those are for the link's own position",
                    checkpoint::KEY_PREFIX
                ));
            }
            Outcome::Dropped(reason) => {
                self.dropped.push(reason);
                return Ok(());
            }
            Outcome::Select(_) | Outcome::Multi | Outcome::Exec | Outcome::Discard => {
                return Err(format!("filter.function calls {name}"));
            }
        };
        *self.carried |= self.carriers.contains(&command);
        self.made.push(Made {
            db,
            command,
            commands,
            is_plain,
            bytes: begin..self.out.len(),
        });
        Ok(())
    }
}
