//! Users who may not write for a while: `ACL SETUSER <user> -@write`, and the exact way back.
//!
//! Only what a user may run is touched; passwords and keys stay what they are, and are not looked at. Selectors (7.0) are
//! other sets of rights, any of which is enough: they are taken away, and put back as they were.

use resp::Value;
use rewrite::Table;
use rewrite::table::Flags;

use crate::client::Client;
use crate::config::Endpoint;
use crate::error::{Side, SyncError};
use crate::handover::mark::Undo;

/// For each user that is on, and not among those to keep: what takes the right to write, and what gives it back.
///
/// # Errors
/// Those of the connection; what was refused.
pub(super) async fn plan(
    endpoint: &Endpoint,
    keep: &[String],
) -> Result<Vec<(Vec<String>, Undo)>, SyncError> {
    let mut client = Client::connect(endpoint, Side::Source).await?;
    let names = match client.call(&[b"ACL", b"USERS"]).await? {
        Value::Array(names) => names,
        Value::Set(names) => names,
        _ => Vec::new(),
    };
    let mut planned = Vec::new();
    for name in names.iter().filter_map(text) {
        if keep.contains(&name) {
            continue;
        }
        let reply = client.call(&[b"ACL", b"GETUSER", name.as_bytes()]).await?;
        let Some(rights) = Rights::of(&reply).filter(|rights| rights.is_on) else {
            continue;
        };
        planned.push((rights.without_writes(&name), rights.again(&name)));
    }
    Ok(planned)
}

/// Those of these users that are there, on, and may write: what keeps others from it does not keep them.
///
/// # Errors
/// Those of the connection; what was refused.
pub(super) async fn writers(
    endpoint: &Endpoint,
    users: &[String],
) -> Result<Vec<String>, SyncError> {
    let mut client = Client::connect(endpoint, Side::Source).await?;
    let mut found = Vec::new();
    for name in users {
        let reply = client.call(&[b"ACL", b"GETUSER", name.as_bytes()]).await?;
        // Nothing for a user that does not exist.
        let rights = Rights::of(&reply);
        if rights.is_some_and(|rights| rights.is_on && rights.may_write(&Table::new())) {
            found.push(name.clone());
        }
    }
    found.dedup();
    Ok(found)
}

/// Sets of commands that hold none that writes.
const READING: [&str; 4] = ["read", "connection", "pubsub", "transaction"];

/// What a user may run.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    is_on: bool,
    commands: Vec<String>,
    /// Each as ACL SETUSER takes it.
    selectors: Vec<String>,
}

impl Rights {
    /// Out of the answer to ACL GETUSER.
    fn of(reply: &Value) -> Option<Self> {
        let fields = fields(reply)?;
        let field = |name: &str| {
            let found = fields.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value)
        };
        let flags = list(field("flags")?);
        let commands = text(field("commands")?)?;
        let selectors = field("selectors").map(list_of).unwrap_or_default();
        Some(Self {
            is_on: flags.iter().any(|flag| flag == "on"),
            commands: words(&commands),
            selectors: selectors.iter().filter_map(selector).collect(),
        })
    }

    /// Whether any set of its rights has a command that writes; also where that cannot be told.
    fn may_write(&self, table: &Table) -> bool {
        let mut sets = vec![self.commands.clone()];
        sets.extend(self.selectors.iter().map(|one| words(one)));
        sets.iter().any(|set| may_write(table, set))
    }

    fn without_writes(&self, name: &str) -> Vec<String> {
        let mut argv = set_user(name);
        argv.push("-@write".to_owned());
        if !self.selectors.is_empty() {
            argv.push("clearselectors".to_owned());
        }
        argv
    }

    fn again(&self, name: &str) -> Undo {
        let mut command = set_user(name);
        // The first of them is +@all or -@all, with which everything begins anew.
        command.extend(self.commands.iter().cloned());
        if !self.selectors.is_empty() {
            command.push("clearselectors".to_owned());
            command.extend(self.selectors.iter().cloned());
        }
        Undo {
            what: format!("user {name}"),
            command,
            node: String::new(),
        }
    }
}

/// Whether these rights, one after the other, come to a command that writes.
fn may_write(table: &Table, rights: &[String]) -> bool {
    let mut may = false;
    for word in rights {
        let word = word.trim_matches(['(', ')']);
        match word {
            "-@all" | "nocommands" | "-@write" => may = false,
            "+@all" | "allcommands" => may = true,
            _ => {
                let Some(given) = word.strip_prefix('+') else {
                    continue;
                };
                may |= match given.strip_prefix('@') {
                    Some(category) => !READING.contains(&category),
                    None => {
                        let name = given.split('|').next().unwrap_or(given);
                        let command = table.lookup(name.as_bytes());
                        command.is_none_or(|command| command.flags.has(Flags::WRITE))
                    }
                };
            }
        }
    }
    may
}

fn set_user(name: &str) -> Vec<String> {
    vec!["ACL".to_owned(), "SETUSER".to_owned(), name.to_owned()]
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn text(value: &Value) -> Option<String> {
    let bytes = value.as_bytes()?;
    Some(String::from_utf8_lossy(bytes).into_owned())
}

fn list_of(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(all) | Value::Set(all) => all.clone(),
        _ => Vec::new(),
    }
}

fn list(value: &Value) -> Vec<String> {
    list_of(value).iter().filter_map(text).collect()
}

/// Names and values, as RESP2 has them in a row or RESP3 in pairs.
fn fields(reply: &Value) -> Option<Vec<(String, Value)>> {
    match reply {
        Value::Array(all) => {
            let pairs = all.chunks_exact(2);
            let pair = |pair: &[Value]| Some((text(pair.first()?)?, pair.get(1)?.clone()));
            Some(pairs.filter_map(pair).collect())
        }
        Value::Map(pairs) => {
            let pairs = pairs.iter();
            Some(
                pairs
                    .filter_map(|(name, value)| Some((text(name)?, value.clone())))
                    .collect(),
            )
        }
        _ => None,
    }
}

/// `(-@all +get ~a* &c)`.
fn selector(value: &Value) -> Option<String> {
    let fields = fields(value)?;
    let parts = ["commands", "keys", "channels"].into_iter();
    let parts = parts.filter_map(|name| {
        let (_, value) = fields.iter().find(|(known, _)| known == name)?;
        text(value).filter(|text| !text.is_empty())
    });
    let parts: Vec<String> = parts.collect();
    Some(format!("({})", parts.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_write_is_told_by_the_rights() {
        let table = Table::new();
        for (rights, may) in [
            ("+@all", true),
            ("+@all -@write", false),
            ("-@all +@read", false),
            ("-@all +@read +set", true),
            ("-@all +@string -@write", false),
            ("-@all +@string", true),
            ("-@all +config|get +client|list", false),
            ("-@all +module.command", true),
            ("(-@all +incr)", true),
            ("+@all -@all", false),
            ("", false),
        ] {
            assert_eq!(may_write(&table, &words(rights)), may, "{rights}");
        }
    }

    fn bulk(text: &str) -> Value {
        Value::Bulk(text.to_owned().into())
    }

    #[test]
    fn rights_are_given_back_word_for_word() {
        let reply = Value::Array(vec![
            bulk("flags"),
            Value::Array(vec![bulk("on")]),
            bulk("passwords"),
            Value::Array(vec![bulk("2d71")]),
            bulk("commands"),
            bulk("-@all +@read +set +config|get"),
            bulk("keys"),
            bulk("~a*"),
            bulk("selectors"),
            Value::Array(vec![Value::Array(vec![
                bulk("commands"),
                bulk("-@all +get"),
                bulk("keys"),
                bulk("%R~b*"),
                bulk("channels"),
                bulk(""),
            ])]),
        ]);
        let rights = Rights::of(&reply).unwrap();
        assert!(rights.is_on);
        let taken = rights.without_writes("app").join(" ");
        assert_eq!(taken, "ACL SETUSER app -@write clearselectors");
        let again = rights.again("app");
        let expected = [
            "ACL",
            "SETUSER",
            "app",
            "-@all",
            "+@read",
            "+set",
            "+config|get",
            "clearselectors",
            "(-@all +get %R~b*)",
        ];
        assert_eq!(again.command, expected);
        assert!(!again.command.join(" ").contains("2d71"));
    }
}
