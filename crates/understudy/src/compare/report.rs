//! What a comparison found: as a table, as JSON, and as a TSV of differences.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;

use super::look::Name;
use super::what::{Found, What};
use crate::rdb::names::{grouped, printable};
use crate::rdb::text;

/// A key, or a library of functions, that differs.
#[derive(Debug, Clone)]
pub(super) struct Difference {
    /// None for a library.
    pub(super) db: Option<u32>,
    pub(super) key: Bytes,
    /// Database and name at the target, where they are others.
    pub(super) at_target: Option<Name>,
    pub(super) found: Found,
    pub(super) repair: Repair,
    /// It is a key of the target, under its name there, that none of the source's can be.
    pub(super) is_stray: bool,
}

/// What was done about it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Repair {
    /// Nobody asked for it.
    #[default]
    None,
    Done,
    Failed(String),
}

/// A key of which nothing is known, and why.
#[derive(Debug, Clone)]
pub(super) struct Unclear {
    pub(super) db: u32,
    pub(super) key: Bytes,
    pub(super) why: String,
}

/// Everything that is to be said at the end.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// Address and version.
    pub(super) source: [String; 2],
    pub(super) target: [String; 2],
    /// Share of the keys, in parts of a million.
    pub(super) sample_ppm: u32,
    /// The source's keys were those of this snapshot.
    pub(super) snapshot: Option<String>,
    pub(super) source_keys: u64,
    pub(super) target_keys: u64,
    pub(super) equal: u64,
    pub(super) differences: Vec<Difference>,
    /// They were written so often that nothing can be said.
    pub(super) unsettled: Vec<Unclear>,
    pub(super) unchecked: Vec<Unclear>,
    /// Keys that differed at first and were too many to be looked at again.
    pub(super) beyond: u64,
    /// Whether libraries of functions were compared.
    pub(super) functions: bool,
    pub(super) notes: Vec<String>,
    pub(super) elapsed: Duration,
}

impl Report {
    /// Differences that are left.
    pub(super) fn open(&self) -> u64 {
        let left = self
            .differences
            .iter()
            .filter(|difference| difference.repair != Repair::Done);
        left.count() as u64
    }

    /// 1 if the target is not known to be equal.
    pub(super) fn exit_code(&self) -> u8 {
        let is_known = self.open() == 0 && self.unchecked.is_empty() && self.beyond == 0;
        u8::from(!is_known)
    }

    fn by_kind(&self) -> BTreeMap<What, u64> {
        let mut kinds = BTreeMap::new();
        for difference in &self.differences {
            *kinds.entry(difference.found.what).or_default() += 1;
        }
        kinds
    }

    /// For people; at most so many differences.
    pub(super) fn table(&self, show: usize) -> String {
        let mut text = String::new();
        let mut line = |line: &str| {
            let _ = writeln!(text, "{line}");
        };
        if !self.differences.is_empty() {
            line(&format!(
                "{:<10} {:>4} {:<8} {:<40} {}",
                "difference", "db", "type", "key", "source / target"
            ));
        }
        for difference in self.differences.iter().take(show) {
            let Found { what, kind, detail } = &difference.found;
            let db = difference.db.map_or(String::new(), |db| db.to_string());
            let repair = match &difference.repair {
                Repair::None => String::new(),
                Repair::Done => "  repaired".to_owned(),
                Repair::Failed(why) => format!("  not repaired: {why}"),
            };
            line(
                format!(
                    "{:<10} {db:>4} {kind:<8} {:<40} {detail}{repair}",
                    what.name(),
                    format!("\"{}\"", printable(&difference.key)),
                )
                .trim_end(),
            );
        }
        if self.differences.len() > show {
            let left = self.differences.len() - show;
            line(&format!("... and {} more", grouped(left as u64)));
        }
        for (word, unclear) in [
            ("unsettled", &self.unsettled),
            ("unchecked", &self.unchecked),
        ] {
            for one in unclear.iter().take(show) {
                line(&format!(
                    "{word:<10} {:>4} {:<8} {:<40} {}",
                    one.db,
                    "",
                    format!("\"{}\"", printable(&one.key)),
                    one.why
                ));
            }
        }
        line(&format!(
            "source {} ({}): {} keys; target {} ({}): {} keys{}",
            self.source[0],
            self.source[1],
            grouped(self.source_keys),
            self.target[0],
            self.target[1],
            grouped(self.target_keys),
            match self.sample_ppm {
                crate::config::WHOLE_PPM => String::new(),
                ppm => format!("; a sample of {}%", f64::from(ppm) / 1e4),
            }
        ));
        let kinds: Vec<String> = self
            .by_kind()
            .into_iter()
            .map(|(what, count)| format!("{} {}", grouped(count), what.name()))
            .collect();
        let kinds = match kinds.is_empty() {
            true => String::new(),
            false => format!(" ({})", kinds.join(", ")),
        };
        line(&format!(
            "equal {}, different {}{kinds}, unsettled {}, unchecked {}; {:.1} s",
            grouped(self.equal),
            grouped(self.differences.len() as u64),
            grouped(self.unsettled.len() as u64),
            grouped(self.unchecked.len() as u64),
            self.elapsed.as_secs_f64()
        ));
        self.notes.iter().for_each(|note| line(note));
        text
    }

    /// One document.
    pub(super) fn json(&self) -> String {
        let key = |bytes: &Bytes| {
            let mut out = Vec::new();
            text::string(&mut out, bytes);
            serde_json::from_slice::<serde_json::Value>(&out).unwrap_or_default()
        };
        let unclear = |list: &[Unclear]| -> Vec<serde_json::Value> {
            let one = |one: &Unclear| serde_json::json!({ "db": one.db, "key": key(&one.key), "why": one.why });
            list.iter().map(one).collect()
        };
        let differences: Vec<serde_json::Value> = self
            .differences
            .iter()
            .map(|one| {
                let (repaired, why) = match &one.repair {
                    Repair::None => (None, None),
                    Repair::Done => (Some(true), None),
                    Repair::Failed(why) => (Some(false), Some(why)),
                };
                let mut row = serde_json::json!({
                    "difference": one.found.what.name(), "db": one.db, "key": key(&one.key),
                    "type": one.found.kind, "detail": one.found.detail,
                    "repaired": repaired, "why_not": why,
                });
                if let Some((db, name)) = &one.at_target {
                    row["at_target"] = serde_json::json!({ "db": db, "key": key(name) });
                }
                row
            })
            .collect();
        let kinds: BTreeMap<&str, u64> = self
            .by_kind()
            .into_iter()
            .map(|(what, count)| (what.name(), count))
            .collect();
        let end = |end: &[String; 2]| serde_json::json!({ "address": end[0], "version": end[1] });
        serde_json::json!({
            "source": end(&self.source), "target": end(&self.target),
            "sample_percent": f64::from(self.sample_ppm) / 1e4,
            "snapshot": self.snapshot,
            "sums": {
                "source_keys": self.source_keys, "target_keys": self.target_keys,
                "equal": self.equal, "different": self.differences.len(), "open": self.open(),
                "unsettled": self.unsettled.len(), "unchecked": self.unchecked.len(),
                "not_looked_at_again": self.beyond, "by_difference": kinds,
                "functions_compared": self.functions,
            },
            "equal": self.exit_code() == 0,
            "differences": differences,
            "unsettled": unclear(&self.unsettled), "unchecked": unclear(&self.unchecked),
            "notes": self.notes, "seconds": self.elapsed.as_secs_f64(),
        })
        .to_string()
    }

    /// Writes all differences, one a line, with a head line. Where keys have other names at the target, those stand in two more
    /// columns.
    pub(super) fn write_tsv(&self, file: &Path) -> io::Result<()> {
        let mut out = b"difference\tdb\ttype\tkey\tdetail\trepaired".to_vec();
        let is_named = self.differences.iter().any(|one| one.at_target.is_some());
        if is_named {
            out.extend_from_slice(b"\ttarget_db\ttarget_key");
        }
        out.push(b'\n');
        let mut row = |what: &str,
                       db: Option<u32>,
                       kind: &str,
                       key: &[u8],
                       rest: [&str; 2],
                       at_target: Option<&Name>| {
            let db = db.map_or(String::new(), |db| db.to_string());
            out.extend_from_slice(format!("{what}\t{db}\t{kind}\t").as_bytes());
            cell(&mut out, key);
            for text in rest {
                out.push(b'\t');
                cell(&mut out, text.as_bytes());
            }
            if let Some((db, name)) = at_target {
                out.extend_from_slice(format!("\t{db}\t").as_bytes());
                cell(&mut out, name);
            } else if is_named {
                out.extend_from_slice(b"\t\t");
            }
            out.push(b'\n');
        };
        for one in &self.differences {
            let Found { what, kind, detail } = &one.found;
            let repaired = match &one.repair {
                Repair::None => "",
                Repair::Done => "yes",
                Repair::Failed(why) => why,
            };
            let at_target = one.at_target.as_ref();
            let rest = [detail, repaired];
            row(what.name(), one.db, kind, &one.key, rest, at_target);
        }
        for (word, list) in [
            ("unsettled", &self.unsettled),
            ("unchecked", &self.unchecked),
        ] {
            for one in list {
                row(word, Some(one.db), "", &one.key, [&one.why, ""], None);
            }
        }
        std::fs::write(file, out)
    }
}

/// Plain text as it is; what a line or a reader would trip over as a JSON string.
fn cell(out: &mut Vec<u8>, bytes: &[u8]) {
    let is_plain = |byte: &u8| (0x20..0x7f).contains(byte);
    if bytes.iter().all(is_plain) && bytes.first() != Some(&b'"') {
        out.extend_from_slice(bytes);
    } else {
        text::string(out, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let difference = |what, key: &'static [u8], repair| Difference {
            db: Some(3),
            key: Bytes::from_static(key),
            at_target: None,
            is_stray: false,
            found: Found {
                what,
                kind: "list",
                detail: "2 / 3 elements".to_owned(),
            },
            repair,
        };
        Report {
            sample_ppm: crate::config::WHOLE_PPM,
            differences: vec![
                difference(What::Value, b"a", Repair::Done),
                difference(What::Order, b"tab\there", Repair::Failed("why".to_owned())),
            ],
            ..Report::default()
        }
    }

    #[test]
    fn what_is_repaired_is_no_difference_any_more() {
        let mut report = report();
        assert_eq!((report.open(), report.exit_code()), (1, 1));
        report.differences.pop();
        assert_eq!((report.open(), report.exit_code()), (0, 0));
        report.beyond = 1;
        assert_eq!(report.exit_code(), 1);
    }

    #[test]
    fn tables_are_cut_and_files_are_not() {
        let report = report();
        let table = report.table(1);
        assert!(table.contains("value         3 list     \"a\""), "{table}");
        assert!(table.contains("... and 1 more"), "{table}");
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(json["differences"][1]["key"], "tab\there");
        assert_eq!(json["sums"]["by_difference"]["order"], 1);
        let file = tempfile::NamedTempFile::new().unwrap();
        report.write_tsv(file.path()).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "value\t3\tlist\ta\t2 / 3 elements\tyes");
        assert_eq!(
            lines[2],
            "order\t3\tlist\t\"tab\\there\"\t2 / 3 elements\twhy"
        );
    }

    #[test]
    fn other_names_at_the_target_stand_beside() {
        let mut report = report();
        report.differences[1].at_target = Some((0, Bytes::from_static(b"db3:tab\there")));
        let json: serde_json::Value = serde_json::from_str(&report.json()).unwrap();
        assert!(json["differences"][0].get("at_target").is_none());
        assert_eq!(json["differences"][1]["at_target"]["key"], "db3:tab\there");
        let file = tempfile::NamedTempFile::new().unwrap();
        report.write_tsv(file.path()).unwrap();
        let text = std::fs::read_to_string(file.path()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with("\trepaired\ttarget_db\ttarget_key"));
        assert!(lines[1].ends_with("\tyes\t\t"));
        assert!(lines[2].ends_with("\twhy\t0\t\"db3:tab\\there\""));
    }
}
