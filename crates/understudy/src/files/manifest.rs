//! The files that an append-only file consists of.
//!
//! Until 6.2 that is one file. From 7.0 on they lie in a folder of their own, and a manifest names them:
//!
//! ```text
//! file appendonly.aof.2.base.rdb seq 2 type b        the beginning: an RDB file, or commands
//! file appendonly.aof.5.incr.aof seq 5 type i        what came then, one behind the other
//! file appendonly.aof.1.base.rdb seq 1 type h        no longer part of it
//! ```

use std::path::{Path, PathBuf};

use crate::error::{Side, SyncError};

use super::read_failed;

/// The files, in the order in which they are read.
///
/// # Errors
/// Stop, with the file, the line and the mend.
pub(crate) fn parts(path: &Path) -> Result<Vec<PathBuf>, SyncError> {
    let about = std::fs::metadata(path).map_err(|error| read_failed(path, &error))?;
    let manifest = match about.is_dir() {
        true => in_folder(path)?,
        false if path.extension().is_some_and(|end| end == "manifest") => path.to_owned(),
        false => return Ok(vec![path.to_owned()]),
    };
    let text =
        std::fs::read_to_string(&manifest).map_err(|error| read_failed(&manifest, &error))?;
    let folder = manifest.parent().unwrap_or(Path::new(""));
    let names = read(&text).map_err(|(line, what)| {
        let what =
            format!("line {line}: {what}; a manifest has lines such as \"file NAME seq 1 type b\"");
        SyncError::stop(Side::Source, &manifest.display().to_string(), what)
    })?;
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// The one manifest of a folder, or of the folder `appendonlydir` in it.
fn in_folder(folder: &Path) -> Result<PathBuf, SyncError> {
    for folder in [folder.to_owned(), folder.join("appendonlydir")] {
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        let mut found: Vec<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|end| end == "manifest"))
            .collect();
        found.sort();
        if found.len() > 1 {
            let what = "several manifests are in this folder; name one of them";
            return Err(SyncError::stop(
                Side::Source,
                &folder.display().to_string(),
                what,
            ));
        }
        if let Some(manifest) = found.pop() {
            return Ok(manifest);
        }
    }
    let what = "no manifest is in this folder; name the append-only file itself";
    Err(SyncError::stop(
        Side::Source,
        &folder.display().to_string(),
        what,
    ))
}

/// The files that a manifest names: the base, then what follows it.
fn read(text: &str) -> Result<Vec<String>, (usize, String)> {
    let (mut base, mut increments) = (None, Vec::<(u64, String)>::new());
    for (index, line) in text.lines().enumerate() {
        let at = index + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, seq, kind) = entry(line).map_err(|what| (at, what))?;
        match kind.as_str() {
            "b" if base.is_some() => return Err((at, "a second base".to_owned())),
            "b" => base = Some(name),
            "i" if increments.last().is_some_and(|(last, _)| *last >= seq) => {
                return Err((at, format!("seq {seq} is out of order")));
            }
            "i" => increments.push((seq, name)),
            "h" => {}
            other => return Err((at, format!("type {other:?} is not known"))),
        }
    }
    let increments = increments.into_iter().map(|(_, name)| name);
    let names: Vec<String> = base.into_iter().chain(increments).collect();
    match names.is_empty() {
        true => Err((1, "no file is named".to_owned())),
        false => Ok(names),
    }
}

/// Name, number and type of one line.
fn entry(line: &str) -> Result<(String, u64, String), String> {
    let words = words(line)?;
    let value = |key: &str| {
        let mut pairs = words.chunks_exact(2);
        let pair = pairs.find(|pair| pair.first().is_some_and(|word| word == key));
        let value = pair.and_then(|pair| pair.last()).cloned();
        value.ok_or_else(|| format!("{key} is missing"))
    };
    let name = value("file")?;
    if name.contains('/') {
        return Err(format!("{name:?} is not in the manifest's own folder"));
    }
    let seq = value("seq")?;
    let seq = seq
        .parse()
        .map_err(|_| format!("seq {seq:?} is no number"))?;
    Ok((name, seq, value("type")?))
}

/// Words of a line, some of them in quotes.
fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() {
        let Some(quoted) = rest.strip_prefix('"') else {
            let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            words.push(word.to_owned());
            rest = after.trim_start();
            continue;
        };
        let (mut word, mut chars) = (String::new(), quoted.char_indices());
        rest = loop {
            match chars.next() {
                Some((at, '"')) => break quoted.get(at + 1..).unwrap_or_default().trim_start(),
                Some((_, '\\')) => match chars.next() {
                    Some((_, plain @ ('"' | '\\'))) => word.push(plain),
                    _ => {
                        return Err(
                            "a name with an escape that is not read here; rename the file"
                                .to_owned(),
                        );
                    }
                },
                Some((_, plain)) => word.push(plain),
                None => return Err("a quote is not closed".to_owned()),
            }
        };
        words.push(word);
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_then_increments() {
        let text = "file a.2.base.rdb seq 2 type b\nfile a.1.incr.aof seq 1 type h\n\
                    file \"a b\\\".4.incr.aof\" seq 4 type i startoffset 7\n# a word\nfile a.5.incr.aof seq 5 type i\n";
        let names = read(text).unwrap();
        assert_eq!(names, ["a.2.base.rdb", "a b\".4.incr.aof", "a.5.incr.aof"]);
        assert_eq!(read("file a seq 1 type i\n").unwrap(), ["a"]);
    }

    #[test]
    fn what_is_wrong_has_a_line() {
        let problem = |text: &str| read(text).unwrap_err();
        assert_eq!(problem("").0, 1);
        assert_eq!(problem("file a seq 1 type b\nfile b seq 2 type b\n").0, 2);
        assert_eq!(problem("\nfile a seq x type b\n").0, 2);
        assert!(problem("file a seq 1 type z").1.contains("type \"z\""));
        assert!(problem("file ../a seq 1 type b").1.contains("own folder"));
        assert!(
            problem("file a seq 2 type i\nfile b seq 1 type i")
                .1
                .contains("order")
        );
        assert!(problem("file \"a seq 1 type i").1.contains("quote"));
        assert!(problem("seq 1 type i").1.contains("file is missing"));
    }

    #[test]
    fn a_folder_or_the_one_above_it() {
        let folder = tempfile::tempdir().unwrap();
        assert!(
            parts(folder.path())
                .unwrap_err()
                .what
                .contains("no manifest")
        );
        let inner = folder.path().join("appendonlydir");
        std::fs::create_dir(&inner).unwrap();
        let manifest = inner.join("x.manifest");
        std::fs::write(&manifest, "file x.1.incr.aof seq 1 type i\n").unwrap();
        for path in [folder.path(), &inner, &manifest] {
            assert_eq!(parts(path).unwrap(), [inner.join("x.1.incr.aof")]);
        }
        std::fs::write(inner.join("y.manifest"), "").unwrap();
        assert!(parts(&inner).unwrap_err().what.contains("several"));
        assert_eq!(parts(&manifest).unwrap().len(), 1);
        assert!(
            parts(&inner.join("none"))
                .unwrap_err()
                .what
                .contains("no such file")
        );
    }
}
