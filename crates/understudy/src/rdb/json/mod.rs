//! `understudy rdb json`: one JSON document a line.
//!
//! ```text
//! {"rdb":{"dialect":"redis","version":12}}             first
//! {"aux":"redis-ver","value":"7.4.1"}
//! {"function":"#!lua name=..."}
//! {"db":0,"key":"k","type":"hash","encoding":"HASH_LISTPACK","expire_at_ms":..,"value":{..}}
//! {"end":{"checksum":"..","keys":2}}                    last, if the file is whole
//! ```

mod value;

use std::path::PathBuf;

use clap::Args;
use rdb::{Dialect, Event, KeyHead, Limits, ModuleValue, Want};

use super::bar::Bar;
use super::failure::Failure;
use super::names::{kind_name, type_name};
use super::output::Output;
use super::reader::Reader;
use super::salvage::{Extent, Readable};
use super::select::Selection;
use super::text;
use value::Value;

/// Strings up to this size are given as text if they are text; they are held for that.
const TEXT_BYTES_MAX: u64 = 16 << 20;

/// Options of `rdb json`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each line is one JSON document: {\"rdb\":..}, {\"aux\":..}, {\"function\":..}, {\"module_aux\":..}, one line for each key, {\"end\":..}.
A key: {\"db\":0,\"key\":\"k\",\"type\":\"string\",\"encoding\":\"STRING\",\"expire_at_ms\":..,\"idle_seconds\":..,\"freq\":..,\"value\":..}
Values: string \"v\" | list, set [\"a\",\"b\"] | zset [[\"member\",1.5],[\"m\",\"inf\"]] | hash {\"field\":\"value\"},
  or {\"field\":{\"value\":\"v\",\"expire_at_ms\":..}} where the field has a TTL | stream {\"entries\":[{\"id\":\"1-0\",\"fields\":[[\"f\",\"v\"]]}],
  \"last_id\":..,\"groups\":[..],..} | array {\"insert_index\":..,\"items\":[[0,\"v\"]]} | module {\"module\":\"name\",\"version\":0,\"parts\":[{\"unsigned\":1},..]}
A string that is no UTF-8, or longer than 16 MiB, or begins with \"base64:\", is given as \"base64:\" and its base64.

Example: understudy rdb json dump.rdb --type hash --key 'user:*' | jq -c '[.key, .value.name]'")]
pub(super) struct JsonArgs {
    /// The file, or - for standard input.
    file: PathBuf,
    #[command(flatten)]
    selection: Selection,
    /// Print only keys, not what else the file says.
    #[arg(long)]
    keys_only: bool,
    /// Of a damaged file, print every key that can be read whole, and end well.
    #[arg(long)]
    until_damage: bool,
}

/// Runs `rdb json`.
pub(super) fn run(args: &JsonArgs) -> Result<u8, Failure> {
    let bar = Bar::beside_output();
    let file = Readable::new(&args.file, args.until_damage, &bar)?;
    let limits = Limits {
        part_bytes_max: TEXT_BYTES_MAX,
        ..Limits::default()
    };
    let mut reader = Reader::open(file.path(), limits, &bar)?;
    let mut lines = Lines {
        keys_only: args.keys_only,
        output: Output::stdout(),
        value: Value::default(),
        dialect: Dialect::Shared,
    };
    let result = lines.all(&mut reader, args, file.extent());
    bar.clear();
    let flushed = lines.output.flush();
    result.and(flushed)?;
    file.say_what_is_left();
    Ok(0)
}

struct Lines {
    keys_only: bool,
    output: Output,
    value: Value,
    dialect: Dialect,
}

impl Lines {
    fn all(&mut self, reader: &mut Reader, args: &JsonArgs, extent: Extent) -> Result<(), Failure> {
        while let Some(event) = extent.next(reader)? {
            match event {
                Event::Key(head) if !args.selection.takes(&head) => reader.want(Want::Skip),
                Event::Key(head) => self.key(&head),
                Event::Start { dialect, version } => {
                    self.dialect = dialect;
                    let name = format!("{dialect:?}").to_lowercase();
                    self.note(&serde_json::json!({
                        "rdb": { "dialect": name, "version": version.0 }
                    }));
                }
                Event::End { checksum } => self.note(&serde_json::json!({
                    "end": { "checksum": format!("{checksum:016x}"), "keys": reader.keys() }
                })),
                event => self.other(&event),
            }
            self.output.settle()?;
        }
        Ok(())
    }

    /// The beginning of a key's line, up to its value.
    fn key(&mut self, head: &KeyHead) {
        let out = &mut self.output.buffer;
        out.extend_from_slice(format!("{{\"db\":{},\"key\":", head.db.0).as_bytes());
        text::string(out, &head.key);
        let names = format!(
            ",\"type\":\"{}\",\"encoding\":\"{}\"",
            kind_name(head.kind),
            type_name(self.dialect, head.type_id)
        );
        out.extend_from_slice(names.as_bytes());
        let numbers = [
            ("expire_at_ms", head.expire_at_ms.map(|at| at.to_string())),
            ("idle_seconds", head.idle_seconds.map(|n| n.to_string())),
            ("freq", head.freq.map(|n| n.to_string())),
        ];
        for (name, number) in numbers {
            if let Some(number) = number {
                out.extend_from_slice(format!(",\"{name}\":{number}").as_bytes());
            }
        }
        if let Some(meta) = &head.meta {
            out.extend_from_slice(b",\"metadata\":");
            text::string(out, meta);
        }
        out.extend_from_slice(b",\"value\":");
    }

    /// What belongs to no key, or is a part of a value.
    fn other(&mut self, event: &Event) {
        if self.value.event(event, &mut self.output.buffer) {
            return;
        }
        if self.keys_only {
            return;
        }
        let out = &mut self.output.buffer;
        let mut pair = |names: [&str; 2], values: [&[u8]; 2]| {
            out.extend_from_slice(format!("{{\"{}\":", names[0]).as_bytes());
            text::string(out, values[0]);
            out.extend_from_slice(format!(",\"{}\":", names[1]).as_bytes());
            text::string(out, values[1]);
            out.extend_from_slice(b"}\n");
        };
        match event {
            Event::Aux { name, value } => pair(["aux", "value"], [name, value]),
            Event::FunctionPreGa { name, code, .. } => {
                pair(["function_library", "function"], [name, code]);
            }
            Event::Function { code } => {
                out.extend_from_slice(b"{\"function\":");
                text::string(out, code);
                out.extend_from_slice(b"}\n");
            }
            Event::ModuleAux { module, when, raw } => {
                let head = format!(
                    "{{\"module_aux\":\"{module}\",\"version\":{},\"when\":{when},\"raw\":",
                    module.version()
                );
                out.extend_from_slice(head.as_bytes());
                text::string(out, raw);
                out.extend_from_slice(b"}\n");
            }
            _ => {}
        }
    }

    fn note(&mut self, line: &serde_json::Value) {
        if !self.keys_only {
            self.output
                .buffer
                .extend_from_slice(format!("{line}\n").as_bytes());
        }
    }
}

/// A module's value, as an object that says which kind it is.
fn module_part(out: &mut Vec<u8>, part: &ModuleValue) {
    // JSON has no word for infinities and what is no number.
    let float = |value: f64, text: String| {
        if value.is_finite() {
            text
        } else {
            format!("\"{text}\"")
        }
    };
    let text = match part {
        ModuleValue::Signed(n) => format!("{{\"signed\":{n}}}"),
        ModuleValue::Unsigned(n) => format!("{{\"unsigned\":{n}}}"),
        ModuleValue::Float(n) => {
            format!("{{\"float\":{}}}", float(f64::from(*n), format!("{n:e}")))
        }
        ModuleValue::Double(n) => format!("{{\"double\":{}}}", float(*n, format!("{n:e}"))),
        ModuleValue::String(bytes) => {
            out.extend_from_slice(b"{\"string\":");
            text::string(out, bytes);
            "}".to_owned()
        }
    };
    out.extend_from_slice(text.as_bytes());
}
