//! `understudy rdb verify`: is the file sound, and what can be read of it if not.

use std::collections::HashSet;
use std::path::PathBuf;

use clap::Args;
use rdb::{Dialect, Event, Limits};
use serde_json::json;

use super::bar::Bar;
use super::failure::{Damage, Failure, name_of};
use super::hashing::Hashing;
use super::names::{grouped, kind_name, printable};
use super::output::Output;
use super::reader::{Reader, Seat};

/// Options of `rdb verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every value is decoded to its last element, compressed or packed as it may be, and the checksum is computed. The first damage is
named with its place; nothing behind it can be read, since the format has no marks to go on from. Exit code 1 if it is damaged.
A key that stands twice in a database is damage too, since servers refuse such a file; for that, about 40 bytes a key are held.

Example: understudy rdb verify dump.rdb
         ssh db1 cat /var/lib/redis/dump.rdb | understudy rdb verify -")]
pub(super) struct VerifyArgs {
    /// The file, or - for standard input.
    file: PathBuf,
    /// Do not look for keys that stand twice.
    #[arg(long)]
    allow_duplicates: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What was found.
#[derive(Debug, Default)]
struct Verdict {
    format: Option<(Dialect, u16)>,
    keys: u64,
    expires: u64,
    databases: HashSet<u32>,
    functions: u64,
    checksum: Option<u64>,
    /// Bytes that belong to the file, or come before the damage.
    bytes: u64,
    trailing: u64,
    skipped_empty: u64,
    damage: Option<Box<Damage>>,
}

/// Runs `rdb verify`.
pub(super) fn run(args: &VerifyArgs) -> Result<u8, Failure> {
    let bar = Bar::beside_a_report();
    let verdict = look(args, &bar);
    bar.clear();
    let verdict = verdict?;
    let mut output = Output::stdout();
    let name = name_of(&args.file);
    if args.json {
        output.text(&format!("{}\n", verdict.json(&name)))?;
    } else {
        output.text(&verdict.text(&name))?;
    }
    output.flush()?;
    Ok(u8::from(verdict.damage.is_some()))
}

fn look(args: &VerifyArgs, bar: &Bar) -> Result<Verdict, Failure> {
    let mut reader = Reader::open(&args.file, Limits::default(), bar)?;
    let mut verdict = Verdict::default();
    match verdict.read(args, &mut reader) {
        Ok(()) => {}
        Err(Failure::Damage(damage)) => verdict.damage = Some(damage),
        Err(failure) => return Err(failure),
    }
    verdict.skipped_empty = reader.skipped_empty();
    verdict.keys = reader.keys();
    if let Some(damage) = &verdict.damage {
        verdict.bytes = match &damage.seat {
            Some(seat) if seat.inside => seat.at,
            _ => damage.at,
        };
    }
    Ok(verdict)
}

impl Verdict {
    fn read(&mut self, args: &VerifyArgs, reader: &mut Reader) -> Result<(), Failure> {
        let hashing = Hashing::default();
        let mut seen = HashSet::new();
        while let Some(event) = reader.next()? {
            match event {
                Event::Key(head) => {
                    self.expires += u64::from(head.expire_at_ms.is_some());
                    self.databases.insert(head.db.0);
                    if !args.allow_duplicates && !seen.insert(hashing.key(head.db.0, &head.key)) {
                        return Err(reader.damage_at(
                            head.at,
                            "the key stands twice in its database, and servers refuse that (see --allow-duplicates)",
                        ));
                    }
                }
                Event::Start { dialect, version } => self.format = Some((dialect, version.0)),
                Event::Function { .. } | Event::FunctionPreGa { .. } => self.functions += 1,
                Event::End { checksum } => self.checksum = Some(checksum),
                _ => {}
            }
        }
        self.bytes = reader.offset();
        self.trailing = reader.trailing()?;
        Ok(())
    }

    fn format_text(&self) -> String {
        match self.format {
            None => "none".to_owned(),
            Some((Dialect::Valkey, version)) => format!("VALKEY {version}"),
            Some((_, version)) => format!("REDIS {version}"),
        }
    }

    fn checksum_text(&self) -> String {
        match (self.checksum, self.format) {
            (Some(_), Some((_, ..5))) => "none in this version of the format".to_owned(),
            (Some(0), _) => "the writer stored none".to_owned(),
            (Some(checksum), _) => format!("{checksum:016x}, right"),
            // All keys were read, and it is the last that there is to read.
            (None, _) if self.damage.as_ref().is_some_and(|damage| damage.at_end) => {
                "wrong".to_owned()
            }
            (None, _) => "not reached".to_owned(),
        }
    }

    fn text(&self, name: &str) -> String {
        let mut lines = vec![match &self.damage {
            None => format!("{name}: sound"),
            Some(damage) => damage.to_string(),
        }];
        let mut line = |word: &str, text: String| lines.push(format!("  {word:<10} {text}"));
        if let Some(damage) = &self.damage {
            if let Some(seat) = damage.seat.as_ref().filter(|seat| seat.inside) {
                line("key", format!("begins at byte {}", seat.at));
            }
            let (keys, bytes) = (grouped(self.keys), grouped(self.bytes));
            line(
                "readable",
                format!("{keys} keys, in the first {bytes} bytes"),
            );
            line("salvage", damage.salvage());
        }
        line("format", self.format_text());
        if self.damage.is_none() {
            line("bytes", grouped(self.bytes));
            line(
                "keys",
                format!(
                    "{} in {} databases, {} with an expiry",
                    grouped(self.keys),
                    self.databases.len(),
                    grouped(self.expires)
                ),
            );
            line("functions", format!("{} libraries", self.functions));
        }
        line("checksum", self.checksum_text());
        if self.skipped_empty > 0 {
            let what = "keys without elements, which servers leave out when they load the file";
            line("empty", format!("{} {what}", self.skipped_empty));
        }
        if self.trailing > 0 {
            let what =
                "bytes behind the file's end (an AOF with an RDB in front has commands there)";
            line("trailing", format!("{} {what}", grouped(self.trailing)));
        }
        lines.join("\n") + "\n"
    }

    fn json(&self, name: &str) -> serde_json::Value {
        let seat = |seat: &Seat| {
            json!({
                "db": seat.db.0, "key": printable(&seat.key), "type": kind_name(seat.kind),
                "encoding": seat.type_name, "at": seat.at, "inside": seat.inside
            })
        };
        let damage = self.damage.as_ref().map(|damage| {
            json!({
                "at": damage.at, "what": damage.what, "key": damage.seat.as_ref().map(seat),
                "salvage": damage.salvage()
            })
        });
        json!({
            "file": name, "sound": self.damage.is_none(), "format": self.format_text(),
            "keys": self.keys, "bytes": self.bytes, "expires": self.expires,
            "databases": self.databases.len(), "functions": self.functions,
            "checksum": self.checksum_text(), "trailing_bytes": self.trailing,
            "empty_keys": self.skipped_empty, "damage": damage
        })
    }
}
