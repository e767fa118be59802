//! What is done with each command: worked out once per command of the table, looked up per command of the stream.

use crate::abilities::Abilities;
use crate::filter::{Blocked, Filter};
use crate::outcome::DropReason;
use crate::stream::StreamOptions;
use crate::table::{Begin, Command, Find, Flags, Group, Shape};

/// What is done with a command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    pub(super) action: Action,
    /// Filtered out whatever its arguments.
    pub(super) blocked: Option<DropReason>,
    pub(super) keys: KeyPlan,
    /// Its subcommand decides whether it is filtered out.
    pub(super) by_subcommand: bool,
    /// It acts on the db in force (and not on the server, or on dbs that it names).
    pub(super) in_db: bool,
}

/// How to find its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyPlan {
    None,
    /// Argument 1, nothing else: most commands.
    First,
    Search,
}

/// How a command is rewritten, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Forward,
    Select,
    Multi,
    Exec,
    Discard,
    Drop(DropReason),
    Publish,
    /// The same arguments under another name.
    Rename(&'static str),
    /// `DEL` of the first key.
    DelFirst,
    Set,
    /// `SETEX`, `PSETEX`.
    SetExpiring(Time),
    Getex,
    Expire(Time),
    FieldExpire(Time),
    /// `HSETEX`, `HGETEX`: an expiry among the options before `FIELDS`.
    FieldOptions,
    Msetex,
    Hset,
    Restore,
    Swapdb,
    Move,
    Copy,
    Flushall,
    Script,
    Function,
    /// `XGROUP`, `XSETID` for a target that lacks some of their words.
    StreamGroup,
    StreamSetId,
    Xadd,
    Xtrim,
    /// For targets that lack some of their words, or the whole command.
    Zadd,
    PopMany(End),
    ZpopMany(End),
    Lmove,
    CopyByValue,
    Flushdb,
    Bitop,
    MsetexApart,
    HsetexApart,
    /// The target has no such command.
    Lacks,
}

/// An end of a list or a sorted set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    First,
    Last,
}

/// How a time is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) unit: Unit,
    pub(super) from: From,
}

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    Seconds,
    Milliseconds,
}

/// Where a time counts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Now,
    Epoch,
}

impl Time {
    pub(super) const EX: Self = Self {
        unit: Unit::Seconds,
        from: From::Now,
    };
    pub(super) const PX: Self = Self {
        unit: Unit::Milliseconds,
        from: From::Now,
    };
    pub(super) const EXAT: Self = Self {
        unit: Unit::Seconds,
        from: From::Epoch,
    };
    pub(super) const PXAT: Self = Self {
        unit: Unit::Milliseconds,
        from: From::Epoch,
    };

    /// The unit and beginning that an option of this name gives a time.
    pub(super) fn of_option(word: &[u8]) -> Option<Self> {
        let options: [(&[u8], Self); 4] = [
            (b"PXAT", Self::PXAT),
            (b"EX", Self::EX),
            (b"PX", Self::PX),
            (b"EXAT", Self::EXAT),
        ];
        options
            .into_iter()
            .find(|(name, _)| word.eq_ignore_ascii_case(name))
            .map(|(_, time)| time)
    }
}

/// A plan per command of the table, by its id.
pub(super) fn plans(options: &StreamOptions) -> Vec<Plan> {
    let StreamOptions {
        table,
        filter,
        target,
        conditions_stay,
        ..
    } = options;
    let ids = 0..table.len();
    let commands = ids
        .filter_map(|id| u16::try_from(id).ok())
        .map(crate::CommandId);
    let plan = |command: &Command| plan(command, filter, target, *conditions_stay);
    commands
        .filter_map(|id| table.command(id))
        .map(plan)
        .collect()
}

/// The plan of a command that no table knows: it goes as it came, and its first argument is taken for its key, as it is
/// with nearly every command of every module.
pub(super) fn unknown(name: &[u8], filter: &Filter, target: &Abilities) -> Plan {
    let action = if target.has_command(name) {
        Action::Forward
    } else {
        Action::Lacks
    };
    let group = Group::of_unknown(name);
    let name = String::from_utf8_lossy(name).to_ascii_lowercase();
    let blocked = filter.command(&name, group).err().map(reason);
    Plan {
        action,
        blocked,
        keys: KeyPlan::First,
        by_subcommand: false,
        in_db: true,
    }
}

fn plan(command: &Command, filter: &Filter, target: &Abilities, conditions_stay: bool) -> Plan {
    let usual = match action(command, target) {
        _ if conditions_stay && is_conditional(&command.name) => Action::Forward,
        usual => usual,
    };
    let action = if keeps_its_name(usual) && !target.has_command(command.name.as_bytes()) {
        Action::Lacks
    } else {
        usual
    };
    let by_subcommand =
        command.shape == Shape::Container && filter.names_subcommand_of(&command.name);
    let blocked = filter.table_command(command).err().map(reason);
    Plan {
        action,
        blocked: blocked.filter(|_| !by_subcommand),
        by_subcommand,
        keys: key_plan(command),
        in_db: !matches!(
            usual,
            Action::Swapdb
                | Action::Move
                | Action::Copy
                | Action::CopyByValue
                | Action::Flushall
                | Action::Script
                | Action::Function
                | Action::Publish
                | Action::Drop(_)
        ),
    }
}

/// Why this subcommand is filtered out, if it is.
pub(super) fn subcommand(container: &[u8], word: &[u8], filter: &Filter) -> Option<DropReason> {
    let command = crate::table::lookup(container)?;
    let word = String::from_utf8_lossy(word).to_ascii_lowercase();
    filter
        .command(&format!("{}|{word}", command.name), command.group)
        .err()
        .map(reason)
}

fn reason(blocked: Blocked) -> DropReason {
    match blocked {
        Blocked::Command => DropReason::FilterCommand,
        Blocked::Group => DropReason::FilterGroup,
    }
}

fn key_plan(command: &Command) -> KeyPlan {
    if command.shape != Shape::Specs {
        return KeyPlan::Search;
    }
    match &*command.keys {
        [] => KeyPlan::None,
        [spec] if spec.access.is_not_key() => KeyPlan::None,
        [spec] if spec.begin == Begin::At(1) && matches!(spec.find, Find::Range(0, _, _)) => {
            KeyPlan::First
        }
        _ => KeyPlan::Search,
    }
}

/// Whether what goes to the target may be the same command.
fn keeps_its_name(action: Action) -> bool {
    matches!(
        action,
        Action::Forward
            | Action::FieldOptions
            | Action::Msetex
            | Action::Swapdb
            | Action::Move
            | Action::Copy
            | Action::StreamGroup
            | Action::StreamSetId
            | Action::Xadd
            | Action::Xtrim
            | Action::Flushdb
            | Action::Bitop
    )
}

fn action(command: &Command, target: &Abilities) -> Action {
    let rename_unless = |able: bool, name| {
        if able {
            Action::Forward
        } else {
            Action::Rename(name)
        }
    };
    match &*command.name {
        "select" => Action::Select,
        "multi" => Action::Multi,
        "exec" => Action::Exec,
        "discard" => Action::Discard,
        "ping" => Action::Drop(DropReason::Ping),
        "replconf" => Action::Drop(DropReason::Replconf),
        "trimslots" => Action::Drop(DropReason::SlotMigration),
        "publish" | "spublish" => Action::Publish,
        "setnx" => Action::Rename("SET"),
        "msetnx" => Action::Rename("MSET"),
        "hsetnx" => Action::Rename("HSET"),
        "renamenx" => Action::Rename("RENAME"),
        "getdel" => Action::Rename("DEL"),
        "delex" | "delifeq" => Action::DelFirst,
        "unlink" => rename_unless(target.unlink, "DEL"),
        "set" => Action::Set,
        "setex" => Action::SetExpiring(Time::EX),
        "psetex" => Action::SetExpiring(Time::PX),
        "getex" => Action::Getex,
        "expire" => Action::Expire(Time::EX),
        "pexpire" => Action::Expire(Time::PX),
        "expireat" => Action::Expire(Time::EXAT),
        "pexpireat" => Action::Expire(Time::PXAT),
        "hexpire" => Action::FieldExpire(Time::EX),
        "hpexpire" => Action::FieldExpire(Time::PX),
        "hexpireat" => Action::FieldExpire(Time::EXAT),
        "hpexpireat" => Action::FieldExpire(Time::PXAT),
        "hsetex" if !target.has_command(b"hsetex") || !target.hash_field_ttl => Action::HsetexApart,
        "hsetex" | "hgetex" => Action::FieldOptions,
        "msetex" if !target.has_command(b"msetex") => Action::MsetexApart,
        "msetex" => Action::Msetex,
        "lpushx" if !target.unlink => Action::Rename("LPUSH"),
        "rpushx" if !target.unlink => Action::Rename("RPUSH"),
        "zpopmin" if !target.zset_pops => Action::ZpopMany(End::First),
        "zpopmax" if !target.zset_pops => Action::ZpopMany(End::Last),
        "bitop" if !target.words_of_8_2 => Action::Bitop,
        "xadd" => Action::Xadd,
        "xtrim" => Action::Xtrim,
        name if !target.words_of_6_2 && SINCE_6_2.contains(&name) => match name {
            "zadd" => Action::Zadd,
            "lpop" => Action::PopMany(End::First),
            "rpop" => Action::PopMany(End::Last),
            "lmove" => Action::Lmove,
            "copy" => Action::CopyByValue,
            _ => Action::Flushdb,
        },
        "hset" => Action::Hset,
        "restore" | "restore-asking" => Action::Restore,
        "swapdb" => Action::Swapdb,
        "move" => Action::Move,
        "copy" => Action::Copy,
        "flushall" => Action::Flushall,
        "xgroup" if !target.stream_counters => Action::StreamGroup,
        "xsetid" if !target.stream_counters => Action::StreamSetId,
        "script" => Action::Script,
        "function" => Action::Function,
        _ if is_control(command) => Action::Drop(DropReason::Control),
        _ => Action::Forward,
    }
}

/// Commands that do something only where something else is so.
fn is_conditional(name: &str) -> bool {
    [
        "setnx", "msetnx", "hsetnx", "renamenx", "delex", "delifeq", "lpushx", "rpushx",
    ]
    .contains(&name)
}

/// Commands that have got words with 6.2, or came with it and can be said otherwise.
const SINCE_6_2: [&str; 6] = ["zadd", "lpop", "rpop", "lmove", "copy", "flushdb"];

/// Commands that are about a server, a connection or a cluster, not about data.
fn is_control(command: &Command) -> bool {
    let named = ["wait", "waitaof", "migrate", "watch", "unwatch"].contains(&&*command.name);
    let group = matches!(
        command.group,
        Group::Server | Group::Connection | Group::Cluster | Group::Sentinel | Group::PubSub
    );
    named || (group && (!command.flags.has(Flags::WRITE) || command.flags.has(Flags::ADMIN)))
}
