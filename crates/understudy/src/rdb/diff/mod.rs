//! `understudy rdb diff`: what differs between two files, by value and not by encoding.
//!
//! Of each key of A a digest is kept, B is compared with these as it is read, and A is read once more for the names of
//! the keys that B does not have.

pub(crate) mod digest;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use rdb::{Event, Limits, Want};

use super::bar::Bar;
use super::failure::{Failure, name_of};
use super::hashing::Hashing;
use super::names::{grouped, kind_name, moment, printable};
use super::output::Output;
use super::reader::Reader;
use super::select::Selection;
use super::text;
use digest::{Difference, Entry, Value};

/// Options of `rdb diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Compared are types, values and expiries: a hash in a listpack equals one in a table, sets and hashes are equal in any order,
scores are equal by their bits, streams with their messages, groups, pending messages and consumers (but not when a consumer
was last seen), libraries of functions by their source. Of each key of A a 128-bit digest is kept, about 100 bytes of memory
in all; digests are keyed by chance in each run, so that two different values are taken for equal with a probability of
about 1 in 10^38 a key. Exit code 1 if something differs.

Example: understudy rdb diff before.rdb after.rdb.gz --prefix user:")]
pub(super) struct DiffArgs {
    /// The one file.
    a: PathBuf,
    /// The other file; - for standard input.
    b: PathBuf,
    #[command(flatten)]
    selection: Selection,
    /// Let expiries differ.
    #[arg(long)]
    ignore_ttl: bool,
    /// Print JSON: one document for each difference, and one at the end for the sums.
    #[arg(long)]
    json: bool,
}

/// A key, or what stands beside the keys.
#[derive(Debug, Clone)]
enum Thing {
    Key { db: u32, key: Bytes },
    Function { code: Bytes },
}

impl Thing {
    const fn is_key(&self) -> bool {
        matches!(self, Self::Key { .. })
    }
}

/// Runs `rdb diff`.
pub(super) fn run(args: &DiffArgs) -> Result<u8, Failure> {
    if args.a == Path::new("-") {
        return Err(Failure::Usage(
            "the first file is read twice and cannot be standard input; put the files the other way round".to_owned(),
        ));
    }
    let bar = Bar::beside_output();
    let mut diff = Diff {
        args,
        hashing: Hashing::default(),
        known: HashMap::new(),
        sums: Sums::default(),
        output: Output::stdout(),
    };
    let result = diff.all(&bar);
    bar.clear();
    let result = result.and_then(|()| diff.summary());
    let flushed = diff.output.flush();
    result.and(flushed)?;
    Ok(u8::from(diff.sums.differences() > 0))
}

struct Diff<'a> {
    args: &'a DiffArgs,
    hashing: Hashing,
    /// What is known of A and was not found in B yet.
    known: HashMap<u128, Entry>,
    sums: Sums,
    output: Output,
}

#[derive(Debug, Default)]
struct Sums {
    keys_a: u64,
    keys_b: u64,
    only_a: u64,
    only_b: u64,
    different: u64,
}

impl Sums {
    const fn differences(&self) -> u64 {
        self.only_a + self.only_b + self.different
    }
}

impl Diff<'_> {
    fn all(&mut self, bar: &Bar) -> Result<(), Failure> {
        let (a, b) = (&self.args.a, &self.args.b);
        self.walk(a, bar, |diff, id, thing, entry| {
            diff.sums.keys_a += u64::from(thing.is_key());
            diff.known.insert(id, entry);
            Ok(())
        })?;
        self.walk(b, bar, |diff, id, thing, entry| {
            diff.sums.keys_b += u64::from(thing.is_key());
            diff.compare(id, thing, &entry)
        })?;
        if self.known.is_empty() {
            return Ok(());
        }
        self.walk(a, bar, |diff, id, thing, _| {
            let Some(entry) = diff.known.remove(&id) else {
                return Ok(());
            };
            diff.sums.only_a += 1;
            diff.print("only_a", thing, [Some(&entry), None], &[])
        })
    }

    fn compare(&mut self, id: u128, thing: &Thing, entry: &Entry) -> Result<(), Failure> {
        let Some(known) = self.known.remove(&id) else {
            self.sums.only_b += 1;
            return self.print("only_b", thing, [None, Some(entry)], &[]);
        };
        let mut differences = known.differences(entry);
        if self.args.ignore_ttl {
            differences.retain(|difference| *difference != Difference::Expiry);
        }
        if differences.is_empty() {
            return Ok(());
        }
        self.sums.different += 1;
        self.print(
            "different",
            thing,
            [Some(&known), Some(entry)],
            &differences,
        )
    }

    /// Goes through a file, key by key and library by library.
    fn walk(
        &mut self,
        file: &Path,
        bar: &Bar,
        mut each: impl FnMut(&mut Self, u128, &Thing, Entry) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let hashing = self.hashing.clone();
        let mut reader = Reader::open(file, Limits::default(), bar)?;
        let mut current: Option<(Thing, Value<'_>)> = None;
        while let Some(event) = reader.next()? {
            match event {
                Event::Key(head) if !self.args.selection.takes(&head) => reader.want(Want::Skip),
                Event::Key(head) => {
                    let value = Value::new(&hashing, &head);
                    let (db, key) = (head.db.0, head.key);
                    current = Some((Thing::Key { db, key }, value));
                }
                Event::Function { code } | Event::FunctionPreGa { code, .. }
                    if !self.args.selection.is_partial() =>
                {
                    let mut digest = hashing.begin();
                    digest.bytes(&code);
                    let entry = Entry::other(digest.end());
                    let thing = Thing::Function { code };
                    each(self, thing.id(&hashing), &thing, entry)?;
                }
                event => {
                    let ended = current.as_mut().and_then(|(_, value)| value.event(&event));
                    if let Some((entry, (thing, _))) =
                        ended.zip(current.take_if(|_| ended.is_some()))
                    {
                        each(self, thing.id(&hashing), &thing, entry)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// One difference.
    fn print(
        &mut self,
        word: &str,
        thing: &Thing,
        entries: [Option<&Entry>; 2],
        differences: &[Difference],
    ) -> Result<(), Failure> {
        if self.args.json {
            self.print_json(word, thing, entries, differences);
            return self.output.settle();
        }
        let what = match thing {
            Thing::Key { db, key } => format!("db {db} \"{}\"", printable(key)),
            Thing::Function { code } => format!("functions \"{}\"", library(code)),
        };
        let line = match entries {
            [Some(a), Some(b)] => {
                let details: Vec<String> = differences
                    .iter()
                    .map(|difference| detail(*difference, a, b))
                    .collect();
                format!("differs    {what}: {}\n", details.join(", "))
            }
            [Some(one), None] => format!("only in A  {what} ({})\n", thing.kind(one)),
            [None, Some(one)] => format!("only in B  {what} ({})\n", thing.kind(one)),
            [None, None] => return Ok(()),
        };
        self.output.text(&line)
    }

    fn print_json(
        &mut self,
        word: &str,
        thing: &Thing,
        entries: [Option<&Entry>; 2],
        differences: &[Difference],
    ) {
        let out = &mut self.output.buffer;
        out.extend_from_slice(format!("{{\"difference\":\"{word}\",").as_bytes());
        match thing {
            Thing::Key { db, key } => {
                out.extend_from_slice(format!("\"db\":{db},\"key\":").as_bytes());
                text::string(out, key);
            }
            Thing::Function { code } => {
                out.extend_from_slice(b"\"functions\":");
                text::string(out, library(code).as_bytes());
            }
        }
        for (side, entry) in ["a", "b"].into_iter().zip(entries) {
            if let Some(entry) = entry {
                let about = serde_json::json!({
                    "type": thing.kind(entry), "expire_at_ms": entry.expire_at_ms
                });
                out.extend_from_slice(format!(",\"{side}\":{about}").as_bytes());
            }
        }
        if !differences.is_empty() {
            let names: Vec<&str> = differences.iter().map(|one| one.name()).collect();
            let names = serde_json::json!(names);
            out.extend_from_slice(format!(",\"in\":{names}").as_bytes());
        }
        out.extend_from_slice(b"}\n");
    }

    fn summary(&mut self) -> Result<(), Failure> {
        let Sums {
            keys_a,
            keys_b,
            only_a,
            only_b,
            different,
        } = self.sums;
        if self.args.json {
            let sums = serde_json::json!({ "sums": {
                "a": keys_a, "b": keys_b, "only_a": only_a, "only_b": only_b,
                "different": different, "equal": self.sums.differences() == 0
            }});
            return self.output.text(&format!("{sums}\n"));
        }
        let line = format!(
            "A {}: {} keys; B {}: {} keys; only in A {}, only in B {}, different {}\n",
            name_of(&self.args.a),
            grouped(keys_a),
            name_of(&self.args.b),
            grouped(keys_b),
            grouped(only_a),
            grouped(only_b),
            grouped(different),
        );
        self.output.text(&line)
    }
}

impl Thing {
    fn id(&self, hashing: &Hashing) -> u128 {
        match self {
            Self::Key { db, key } => hashing.key(*db, key),
            // No key is in this database: db numbers in a file are far smaller.
            Self::Function { code } => hashing.key(u32::MAX, library(code).as_bytes()),
        }
    }

    const fn kind(&self, entry: &Entry) -> &'static str {
        match self {
            Self::Key { .. } => kind_name(entry.kind),
            Self::Function { .. } => "functions",
        }
    }
}

fn detail(difference: Difference, a: &Entry, b: &Entry) -> String {
    let expiry = |entry: &Entry| entry.expire_at_ms.map_or("none".to_owned(), moment_ms);
    match difference {
        Difference::Type => format!("type {} / {}", kind_name(a.kind), kind_name(b.kind)),
        Difference::Value => format!("value ({})", kind_name(a.kind)),
        Difference::Counters => "stream counters".to_owned(),
        Difference::Expiry => format!("expiry {} / {}", expiry(a), expiry(b)),
    }
}

fn moment_ms(at_ms: i64) -> String {
    format!("{at_ms} ({})", moment(at_ms))
}

/// The name in the head line of a library, `#!lua name=mylib`; all of a source that has none.
fn library(code: &[u8]) -> String {
    let line = code.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line);
    let name = line
        .split_whitespace()
        .find_map(|word| word.strip_prefix("name="));
    name.map_or_else(|| printable(code), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_have_names() {
        assert_eq!(library(b"#!lua name=mylib\nredis.call()"), "mylib");
        assert_eq!(library(b"return 1"), "return 1");
    }
}
