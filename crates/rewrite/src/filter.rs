//! Which keys, dbs and commands go to the target: RedisShake's filter keys with RedisShake's meaning.
//!
//! With nothing allowed by name everything is allowed; what is allowed by name is enough to pass, whichever list names
//! it; what is blocked is blocked, even if it is also allowed. The kinds of rules (keys, dbs, commands, groups) must all agree.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use rdb::Kind;
use regex::bytes::RegexSet;

use crate::Db;
use crate::slot::slot_of;
use crate::slots::SlotSet;
use crate::table::{self, Command, Flags, Group};

/// The rules as they are written in a configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FilterRules {
    /// `allow_keys`
    pub allow_keys: Vec<String>,
    /// `block_keys`
    pub block_keys: Vec<String>,
    /// `allow_key_prefix`
    pub allow_key_prefix: Vec<String>,
    /// `block_key_prefix`
    pub block_key_prefix: Vec<String>,
    /// `allow_key_suffix`
    pub allow_key_suffix: Vec<String>,
    /// `block_key_suffix`
    pub block_key_suffix: Vec<String>,
    /// `allow_key_regex`: matches anywhere in a key unless it is anchored.
    pub allow_key_regex: Vec<String>,
    /// `block_key_regex`
    pub block_key_regex: Vec<String>,
    /// `allow_db`
    pub allow_db: Vec<u32>,
    /// `block_db`
    pub block_db: Vec<u32>,
    /// `allow_command`
    pub allow_command: Vec<String>,
    /// `block_command`
    pub block_command: Vec<String>,
    /// `allow_command_group`
    pub allow_command_group: Vec<Group>,
    /// `block_command_group`
    pub block_command_group: Vec<Group>,
}

/// A rule that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRule {
    /// The name of its list.
    pub list: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.list, self.why)
    }
}

impl std::error::Error for BadRule {}

/// Commands that are often kept out, and make no key.
const KEYLESS: [&str; 8] = [
    "flushall", "flushdb", "function", "ping", "publish", "script", "spublish", "swapdb",
];

/// The rules, ready for use.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    allow: KeyRules,
    block: KeyRules,
    allow_db: Vec<Db>,
    block_db: Vec<Db>,
    allow_command: Vec<String>,
    block_command: Vec<String>,
    allow_group: Vec<Group>,
    block_group: Vec<Group>,
    /// Keys of these slots alone, where the source is a part of a cluster.
    slots: Option<Arc<SlotSet>>,
}

impl Filter {
    /// Makes a filter of rules.
    pub fn new(rules: FilterRules) -> Result<Self, BadRule> {
        let allow_regex = regexes("allow_key_regex", &rules.allow_key_regex)?;
        let block_regex = regexes("block_key_regex", &rules.block_key_regex)?;
        let dbs = |dbs: Vec<u32>| dbs.into_iter().map(Db).collect();
        Ok(Self {
            allow: KeyRules::new(
                rules.allow_keys,
                rules.allow_key_prefix,
                rules.allow_key_suffix,
                allow_regex,
            ),
            block: KeyRules::new(
                rules.block_keys,
                rules.block_key_prefix,
                rules.block_key_suffix,
                block_regex,
            ),
            allow_db: dbs(rules.allow_db),
            block_db: dbs(rules.block_db),
            allow_command: lower(rules.allow_command),
            block_command: lower(rules.block_command),
            allow_group: rules.allow_command_group,
            block_group: rules.block_command_group,
            slots: None,
        })
    }

    /// From here on only keys of these slots pass, whatever they are at the time.
    pub fn only(&mut self, slots: Arc<SlotSet>) {
        self.slots = Some(slots);
    }

    /// Whether there are rules about keys.
    pub fn has_key_rules(&self) -> bool {
        !self.allow.is_empty() || !self.block.is_empty() || self.slots.is_some()
    }

    /// Whether there are rules about dbs.
    pub fn has_db_rules(&self) -> bool {
        !self.allow_db.is_empty() || !self.block_db.is_empty()
    }

    /// Whether a rule about commands may leave a key out that passes those about keys. Commands that name no key make none.
    pub fn may_leave_keys_out(&self) -> bool {
        let makes_none = |name: &String| {
            let (container, _) = name.split_once('|').unwrap_or((name, ""));
            KEYLESS.contains(&container)
        };
        !self.allow_command.is_empty()
            || !self.allow_group.is_empty()
            || !self.block_group.is_empty()
            || !self.block_command.iter().all(makes_none)
    }

    /// Whether this key passes.
    pub fn key(&self, key: &[u8]) -> bool {
        (self.allow.is_empty() || self.allow.matches(key))
            && !self.block.matches(key)
            && self
                .slots
                .as_ref()
                .is_none_or(|slots| slots.contains(slot_of(key)))
    }

    /// Whether this db passes.
    pub fn db(&self, db: Db) -> bool {
        passes(&self.allow_db, &self.block_db, &db)
    }

    /// The rule about commands that stops this one, if one does. A subcommand may be named `xgroup|create` or by its
    /// container alone.
    #[inline]
    pub fn command(&self, name: &str, group: Group) -> Result<(), Blocked> {
        let lists = [&self.allow_command, &self.block_command];
        if lists.iter().all(|list| list.is_empty()) {
            return self.group(group);
        }
        self.listed_command(name, group)
    }

    fn listed_command(&self, name: &str, group: Group) -> Result<(), Blocked> {
        let listed = |list: &[String]| {
            let container = name.split('|').next().unwrap_or(name);
            list.iter().any(|word| word == name || word == container)
        };
        if (!self.allow_command.is_empty() && !listed(&self.allow_command))
            || listed(&self.block_command)
        {
            return Err(Blocked::Command);
        }
        self.group(group)
    }

    fn group(&self, group: Group) -> Result<(), Blocked> {
        if passes(&self.allow_group, &self.block_group, &group) {
            Ok(())
        } else {
            Err(Blocked::Group)
        }
    }

    /// Whether there are rules about subcommands of this command.
    pub(crate) fn names_subcommand_of(&self, container: &str) -> bool {
        let mut listed = self.allow_command.iter().chain(&self.block_command);
        listed.any(|word| {
            word.split_once('|')
                .is_some_and(|(head, _)| head == container)
        })
    }

    /// [`Self::command`] for a row of the table.
    pub fn table_command(&self, command: &Command) -> Result<(), Blocked> {
        self.command(&command.name, command.group)
    }

    /// Whether keys of this kind pass in a snapshot, where there are no commands yet: as the command that builds such a
    /// value would.
    pub fn kind(&self, kind: Kind) -> Result<(), Blocked> {
        let (name, group) = match kind {
            Kind::String => ("set", Group::String),
            Kind::List => ("rpush", Group::List),
            Kind::Set => ("sadd", Group::Set),
            Kind::Zset => ("zadd", Group::SortedSet),
            Kind::Hash => ("hset", Group::Hash),
            Kind::Stream => ("xadd", Group::Stream),
            Kind::Array => ("arset", Group::Array),
            _ => ("restore", Group::Module),
        };
        self.command(name, group)
    }
}

/// Which rule stops a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// One about its name.
    Command,
    /// One about its group.
    Group,
}

fn passes<T: PartialEq>(allow: &[T], block: &[T], item: &T) -> bool {
    (allow.is_empty() || allow.contains(item)) && !block.contains(item)
}

/// Names in lower case; a subcommand as the table has it (`XGROUP-CREATE` -> `xgroup|create`).
fn lower(words: Vec<String>) -> Vec<String> {
    let name = |word: String| {
        let name = word.trim().to_ascii_lowercase();
        match name.split_once(['-', ' ']) {
            Some((container, word)) if is_container(container) => format!("{container}|{word}"),
            Some(_) | None => name,
        }
    };
    words.into_iter().map(name).collect()
}

fn is_container(name: &str) -> bool {
    table::lookup(name.as_bytes()).is_some_and(|command| command.flags.has(Flags::CONTAINER))
}

fn regexes(list: &'static str, patterns: &[String]) -> Result<RegexSet, BadRule> {
    RegexSet::new(patterns).map_err(|error| BadRule {
        list,
        why: error.to_string(),
    })
}

#[derive(Debug, Clone, Default)]
struct KeyRules {
    exact: HashSet<Box<[u8]>>,
    prefixes: Vec<Box<[u8]>>,
    suffixes: Vec<Box<[u8]>>,
    regexes: RegexSet,
}

impl KeyRules {
    fn new(
        exact: Vec<String>,
        prefixes: Vec<String>,
        suffixes: Vec<String>,
        regexes: RegexSet,
    ) -> Self {
        let bytes = |word: String| word.into_bytes().into_boxed_slice();
        Self {
            exact: exact.into_iter().map(bytes).collect(),
            prefixes: prefixes.into_iter().map(bytes).collect(),
            suffixes: suffixes.into_iter().map(bytes).collect(),
            regexes,
        }
    }

    fn is_empty(&self) -> bool {
        self.exact.is_empty()
            && self.prefixes.is_empty()
            && self.suffixes.is_empty()
            && self.regexes.is_empty()
    }

    fn matches(&self, key: &[u8]) -> bool {
        (!self.exact.is_empty() && self.exact.contains(key))
            || self.prefixes.iter().any(|prefix| key.starts_with(prefix))
            || self.suffixes.iter().any(|suffix| key.ends_with(suffix))
            || (!self.regexes.is_empty() && self.regexes.is_match(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn passed(rules: FilterRules, keys: &[&str]) -> Vec<String> {
        let filter = Filter::new(rules).unwrap();
        let passed = keys.iter().filter(|key| filter.key(key.as_bytes()));
        passed.map(|key| (*key).to_owned()).collect()
    }

    const KEYS: &[&str] = &["user:1", "user:2:tmp", "order:1", "", "USER:1"];

    #[test]
    fn no_rules_pass_everything() {
        let filter = Filter::new(FilterRules::default()).unwrap();
        assert!(KEYS.iter().all(|key| filter.key(key.as_bytes())));
        assert!(filter.db(Db(7)) && !filter.has_key_rules() && !filter.has_db_rules());
        assert_eq!(filter.command("set", Group::String), Ok(()));
    }

    #[test]
    fn only_rules_about_commands_that_make_keys_leave_keys_out() {
        let leaves_out = |rules: FilterRules| Filter::new(rules).unwrap().may_leave_keys_out();
        assert!(!leaves_out(FilterRules::default()));
        assert!(!leaves_out(FilterRules {
            block_key_prefix: words(&["tmp:"]),
            block_command: words(&["FLUSHALL", "publish", "function|load"]),
            ..FilterRules::default()
        }));
        assert!(leaves_out(FilterRules {
            block_command: words(&["flushall", "hset"]),
            ..FilterRules::default()
        }));
        assert!(leaves_out(FilterRules {
            allow_command: words(&["set"]),
            ..FilterRules::default()
        }));
        assert!(leaves_out(FilterRules {
            block_command_group: vec![Group::Hash],
            ..FilterRules::default()
        }));
    }

    #[test]
    fn any_allow_list_is_enough_and_block_wins() {
        let rules = FilterRules {
            allow_key_prefix: words(&["user:"]),
            allow_keys: words(&["order:1"]),
            block_key_suffix: words(&[":tmp"]),
            ..FilterRules::default()
        };
        assert_eq!(passed(rules, KEYS), ["user:1", "order:1"]);
        let rules = FilterRules {
            allow_key_prefix: words(&["user:"]),
            block_key_prefix: words(&["user:2"]),
            ..FilterRules::default()
        };
        assert_eq!(passed(rules, KEYS), ["user:1"]);
    }

    #[test]
    fn each_kind_of_rule_alone() {
        let none = FilterRules::default;
        let cases = [
            (
                FilterRules {
                    allow_key_suffix: words(&[":1"]),
                    ..none()
                },
                vec!["user:1", "order:1", "USER:1"],
            ),
            (
                FilterRules {
                    block_keys: words(&["user:1", ""]),
                    ..none()
                },
                vec!["user:2:tmp", "order:1", "USER:1"],
            ),
            (
                FilterRules {
                    allow_key_regex: words(&["^user:\\d+$"]),
                    ..none()
                },
                vec!["user:1"],
            ),
            (
                FilterRules {
                    block_key_regex: words(&["ser:", "^$"]),
                    ..none()
                },
                vec!["order:1", "USER:1"],
            ),
            (
                FilterRules {
                    block_key_prefix: words(&["u", "U"]),
                    ..none()
                },
                vec!["order:1", ""],
            ),
        ];
        for (rules, expected) in cases {
            assert_eq!(passed(rules.clone(), KEYS), expected, "{rules:?}");
        }
    }

    #[test]
    fn regexes_take_keys_that_are_no_text() {
        let rules = FilterRules {
            allow_key_regex: words(&["^a.*z$"]),
            ..FilterRules::default()
        };
        let filter = Filter::new(rules).unwrap();
        assert!(filter.key(b"abz") && !filter.key(b"\xff\xfez"));
    }

    #[test]
    fn a_bad_regex_names_its_list() {
        let rules = FilterRules {
            block_key_regex: words(&["("]),
            ..FilterRules::default()
        };
        let error = Filter::new(rules).unwrap_err();
        assert_eq!(error.list, "block_key_regex");
        assert!(error.to_string().contains("unclosed group"), "{error}");
    }

    #[test]
    fn dbs() {
        let rules = FilterRules {
            allow_db: vec![0, 1],
            block_db: vec![1, 2],
            ..FilterRules::default()
        };
        let filter = Filter::new(rules).unwrap();
        assert_eq!(
            [0, 1, 2, 3].map(|db| filter.db(Db(db))),
            [true, false, false, false]
        );
    }

    #[test]
    fn commands_and_groups() {
        let rules = FilterRules {
            block_command: words(&["FLUSHALL", "xgroup"]),
            allow_command_group: vec![Group::String, Group::Stream, Group::Server],
            block_command_group: vec![Group::Stream],
            ..FilterRules::default()
        };
        let filter = Filter::new(rules).unwrap();
        assert_eq!(filter.command("set", Group::String), Ok(()));
        assert_eq!(
            filter.command("flushall", Group::Server),
            Err(Blocked::Command)
        );
        assert_eq!(
            filter.command("xgroup|create", Group::Stream),
            Err(Blocked::Command)
        );
        assert_eq!(filter.command("xadd", Group::Stream), Err(Blocked::Group));
        assert_eq!(filter.command("sadd", Group::Set), Err(Blocked::Group));
        assert_eq!(filter.kind(Kind::String), Ok(()));
        assert_eq!(filter.kind(Kind::Hash), Err(Blocked::Group));
    }
}
