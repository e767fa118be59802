//! A table that learns at run time: the built-in rows and the commands that a server's modules add.

use std::borrow::Cow;
use std::collections::HashMap;

use resp::Value;

use super::{
    Access, Begin, Command, CommandId, Find, Flags, Group, KeySpec, NOT_KEY, RO, RW, Shape,
};

/// No command's name is longer; a longer one is not looked for among the learnt ones.
const NAME_BYTES_MAX: usize = 64;

/// How many commands are learnt at most: a server with every known module loaded adds some hundreds.
const LEARNT_MAX: usize = 8192;

/// The built-in commands and the learnt ones.
#[derive(Debug, Clone, Default)]
pub struct Table {
    learnt: Vec<Command>,
    places: HashMap<Box<[u8]>, u16>,
}

impl Table {
    /// The built-in table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Learns the commands of a server's reply to `COMMAND` that are not known yet, and says how many they are.
    /// What does not have the form of a command is passed over.
    pub fn extend(&mut self, reply: &Value) -> usize {
        let before = self.learnt.len();
        for entry in items(reply) {
            self.learn(entry);
            for subcommand in items(at(entry, 9)) {
                self.learn(subcommand);
            }
        }
        self.learnt.len() - before
    }

    /// The command of this name, in whatever case it is written.
    pub fn lookup(&self, name: &[u8]) -> Option<&Command> {
        self.find(name).and_then(|id| self.command(id))
    }

    /// The command with this id.
    pub fn command(&self, id: CommandId) -> Option<&Command> {
        super::command(id).or_else(|| {
            let place = usize::from(id.0).checked_sub(super::all().len())?;
            self.learnt.get(place)
        })
    }

    /// The id of the command of this name.
    #[inline]
    pub fn find(&self, name: &[u8]) -> Option<CommandId> {
        super::find(name).or_else(|| self.find_learnt(name))
    }

    /// The number of ids there are.
    pub fn len(&self) -> usize {
        super::all().len() + self.learnt.len()
    }

    /// Never: there are always the built-in commands.
    pub fn is_empty(&self) -> bool {
        false
    }

    #[cold]
    fn find_learnt(&self, name: &[u8]) -> Option<CommandId> {
        let mut lower = [0; NAME_BYTES_MAX];
        let lower = lower.get_mut(..name.len())?;
        lower.copy_from_slice(name);
        lower.make_ascii_lowercase();
        self.places.get(&*lower).map(|place| CommandId(*place))
    }

    fn learn(&mut self, entry: &Value) {
        let Some(name) = text(at(entry, 0)).map(str::to_ascii_lowercase) else {
            return;
        };
        if name.is_empty() || name.len() > NAME_BYTES_MAX || self.learnt.len() >= LEARNT_MAX {
            return;
        }
        let Ok(place) = u16::try_from(self.len()) else {
            return;
        };
        if self.find(name.as_bytes()).is_some() {
            return;
        }
        self.places.insert(name.as_bytes().into(), place);
        self.learnt.push(command(name, entry));
    }
}

/// The entry of a command. Servers before 7.0 give no specifications but first key, last key and step.
fn command(name: String, entry: &Value) -> Command {
    let mut flags = flags(at(entry, 2));
    let specs: Vec<KeySpec> = items(at(entry, 8)).iter().map(spec).collect();
    let keys = if specs.is_empty() {
        old_spec(entry).into_iter().collect()
    } else {
        specs
    };
    let mut shape = Shape::Specs;
    if !items(at(entry, 9)).is_empty() {
        flags.0 |= Flags::CONTAINER.0;
        shape = Shape::Container;
    }
    let arity = number(at(entry, 1))
        .and_then(|arity| i16::try_from(arity).ok())
        .unwrap_or(-1);
    let group = Group::of_unknown(name.as_bytes());
    Command {
        name: Cow::Owned(name),
        arity,
        flags,
        group,
        keys: Cow::Owned(keys),
        shape,
    }
}

fn flags(words: &Value) -> Flags {
    let bit = |word: &Value| match text(word) {
        Some("write") => Flags::WRITE.0,
        Some("readonly") => Flags::READONLY.0,
        Some("admin") => Flags::ADMIN.0,
        Some("pubsub") => Flags::PUBSUB.0,
        Some("blocking") => Flags::BLOCKING.0,
        Some("movablekeys") => Flags::MOVABLE_KEYS.0,
        _ => 0,
    };
    Flags(items(words).iter().fold(0, |bits, word| bits | bit(word)))
}

fn old_spec(entry: &Value) -> Option<KeySpec> {
    let first = u8::try_from(number(at(entry, 3))?)
        .ok()
        .filter(|first| *first > 0)?;
    let last = number(at(entry, 4))?;
    let last = if last < 0 {
        last
    } else {
        last - i64::from(first)
    };
    let find = Find::Range(i8::try_from(last).ok()?, small(number(at(entry, 5)))?, 0);
    Some(KeySpec {
        begin: Begin::At(first),
        find,
        access: Access(RW),
    })
}

fn spec(spec: &Value) -> KeySpec {
    let (begin, find) = (field(spec, "begin_search"), field(spec, "find_keys"));
    let words = items(field(spec, "flags"));
    let has = |word: &str| words.iter().any(|flag| text(flag) == Some(word));
    let access = if has("RO") { RO } else { RW } | if has("not_key") { NOT_KEY } else { 0 };
    KeySpec {
        // A keyword would have to be leaked to live as long as the table: no module uses one.
        begin: small(number(field(field(begin, "spec"), "index")))
            .map_or(Begin::Nowhere, Begin::At),
        find: how(find).unwrap_or(Find::Unknown),
        access: Access(access),
    }
}

fn how(find: &Value) -> Option<Find> {
    let spec = field(find, "spec");
    let value = |name: &str| number(field(spec, name));
    match text(field(find, "type"))? {
        "range" => {
            let last = i8::try_from(value("lastkey")?).ok()?;
            Some(Find::Range(
                last,
                small(value("keystep"))?,
                small(value("limit"))?,
            ))
        }
        "keynum" => {
            let (count, first) = (small(value("keynumidx"))?, small(value("firstkey"))?);
            Some(Find::Counted(count, first, small(value("keystep"))?))
        }
        _ => None,
    }
}

fn small(number: Option<i64>) -> Option<u8> {
    number.and_then(|number| u8::try_from(number).ok())
}

fn items(value: &Value) -> &[Value] {
    if let Value::Array(items) | Value::Set(items) = value {
        items
    } else {
        &[]
    }
}

fn at(value: &Value, index: usize) -> &Value {
    items(value).get(index).unwrap_or(&Value::Null)
}

/// The value beside `name`, in a map or in the flat list that RESP2 makes of it.
fn field<'a>(value: &'a Value, name: &str) -> &'a Value {
    let found = if let Value::Map(pairs) = value {
        pairs
            .iter()
            .find(|(key, _)| text(key) == Some(name))
            .map(|(_, value)| value)
    } else {
        let mut pairs = items(value).chunks_exact(2);
        pairs
            .find(|pair| pair.first().and_then(text) == Some(name))
            .and_then(<[Value]>::last)
    };
    found.unwrap_or(&Value::Null)
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Bulk(bytes) | Value::Simple(bytes) = value {
        std::str::from_utf8(bytes).ok()
    } else {
        None
    }
}

fn number(value: &Value) -> Option<i64> {
    if let Value::Int(number) = value {
        Some(*number)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.to_owned().into())
    }

    fn array(items: &[Value]) -> Value {
        Value::Array(items.to_vec())
    }

    fn words(words: &[&str]) -> Value {
        Value::Array(words.iter().map(|word| bulk(word)).collect())
    }

    #[test]
    fn learns_a_module_command_with_specifications() {
        let begin = array(&[
            bulk("type"),
            bulk("index"),
            bulk("spec"),
            array(&[bulk("index"), Value::Int(1)]),
        ]);
        let range = [("lastkey", -2), ("keystep", 1), ("limit", 0)];
        let range: Vec<Value> = range
            .iter()
            .flat_map(|(name, n)| [bulk(name), Value::Int(*n)])
            .collect();
        let find = array(&[
            bulk("type"),
            bulk("range"),
            bulk("spec"),
            Value::Array(range),
        ]);
        let spec = array(&[
            bulk("flags"),
            words(&["RO"]),
            bulk("begin_search"),
            begin,
            bulk("find_keys"),
            find,
        ]);
        let none = array(&[]);
        let entry = array(&[
            bulk("JSON.MGET"),
            Value::Int(-3),
            words(&["readonly", "module"]),
            Value::Int(1),
            Value::Int(1),
            Value::Int(1),
            none.clone(),
            none.clone(),
            array(&[spec]),
            none,
        ]);
        let mut table = Table::new();
        assert_eq!(
            table.extend(&array(&[entry.clone(), array(&[bulk("GET")]), Value::Null])),
            1
        );
        let command = table.lookup(b"json.mget").unwrap();
        assert_eq!((command.arity, command.group), (-3, Group::Module));
        assert_eq!(command.keys[0].find, Find::Range(-2, 1, 0));
        assert!(command.keys[0].access.is_read_only());
        assert_eq!(table.extend(&array(&[entry])), 0);
        assert_eq!(
            table.find(b"Json.Mget").map(|id| usize::from(id.0)),
            Some(table.len() - 1)
        );
    }

    #[test]
    fn learns_from_a_server_before_7() {
        let numbers = [1, 3, 2].map(Value::Int);
        let mut entry = vec![bulk("foo.set"), Value::Int(4), words(&["write"])];
        entry.extend(numbers);
        let mut table = Table::new();
        table.extend(&array(&[array(&entry)]));
        let command = table.lookup(b"FOO.SET").unwrap();
        assert_eq!(command.keys[0].find, Find::Range(2, 2, 0));
        assert!(command.flags.has(Flags::WRITE));
        assert_eq!(table.find(&[b'x'; 100]), None);
    }
}
