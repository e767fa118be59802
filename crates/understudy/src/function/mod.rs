//! `filter.function`: a script in Lua that is run for every command, and says which ones go to the target in its place.
//!
//! A [`Function`] knows nothing of servers: a command goes in, commands come out. It has no memory: each run begins in an
//! environment of its own, has no clock and no chance, so that a command that is run again comes to the same.

mod sandbox;

use std::cell::RefCell;
use std::fmt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use mlua::Lua;
use resp::Arg;

use sandbox::{CHUNK, Sandbox};

/// `filter.function` and its limits.
#[derive(Debug, Clone)]
pub struct FunctionConfig {
    /// The script.
    pub text: String,
    /// The file that it stands in.
    pub file: PathBuf,
    /// The line of the file that the script's first line is; `None` where they do not correspond.
    pub line: Option<usize>,
    /// How long one run may take.
    pub timeout: Duration,
    /// How much memory a script may have, in bytes.
    pub memory_bytes: usize,
}

/// What is wrong with a script, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FunctionError {
    /// Line of the script, from 1, where it is known.
    pub(crate) line: Option<usize>,
    /// `file:line` of the file, where it is known.
    place: Option<String>,
    /// What is wrong.
    pub(crate) what: String,
}

impl fmt::Display for FunctionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(CHUNK)?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        if let Some(place) = &self.place {
            write!(f, " ({place})")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for FunctionError {}

/// A command, as a script sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen<'a> {
    /// `DB`
    pub(crate) db: u32,
    /// `CMD`: in capitals, a subcommand as `XGROUP-CREATE`.
    pub(crate) name: &'a str,
    /// `GROUP`
    pub(crate) group: &'a str,
    /// `ARGV`, within `frame`.
    pub(crate) args: &'a [Arg],
    pub(crate) frame: &'a [u8],
    /// Which of them are keys.
    pub(crate) places: &'a [usize],
}

/// What a script has called.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// The commands, encoded, one behind the other.
    bytes: Vec<u8>,
    /// The database of each, and where it ends.
    ends: Vec<(u32, usize)>,
}

impl Calls {
    /// The database of each command, and its bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &[u8])> {
        let starts = std::iter::once(0).chain(self.ends.iter().map(|(_, end)| *end));
        let calls = self.ends.iter().zip(starts);
        calls.map(|((db, end), start)| (*db, self.bytes.get(start..*end).unwrap_or_default()))
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }
}

/// A script, compiled.
pub(crate) struct Function {
    lua: Lua,
    sandbox: Sandbox,
    calls: Rc<RefCell<Calls>>,
    config: FunctionConfig,
}

impl Function {
    /// Compiles the script.
    ///
    /// # Errors
    /// Where it is no Lua 5.1.
    pub(crate) fn new(config: &FunctionConfig) -> Result<Self, FunctionError> {
        let calls = Rc::<RefCell<Calls>>::default();
        let made = sandbox::make(config, &calls);
        let (lua, sandbox) = made.map_err(|error| error_of(config, &error))?;
        Ok(Self {
            lua,
            sandbox,
            calls,
            config: config.clone(),
        })
    }

    /// Runs the script on a command; `take` gets what it has called.
    ///
    /// # Errors
    /// Where it fails, or takes too long or too much memory. What it had called until then is for nothing.
    pub(crate) fn run<T>(
        &self,
        seen: &Seen<'_>,
        take: impl FnOnce(&Calls) -> T,
    ) -> Result<T, FunctionError> {
        self.calls.borrow_mut().clear();
        let mut ran = self.sandbox.run(&self.lua, seen);
        if let Err(mlua::Error::MemoryError(_)) = ran {
            // Most of it may be garbage. A script has no memory of its own, so it may run twice.
            let _ = self.lua.gc_collect();
            self.calls.borrow_mut().clear();
            ran = self.sandbox.run(&self.lua, seen);
        }
        ran.map_err(|error| error_of(&self.config, &error))?;
        Ok(take(&self.calls.borrow()))
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function").finish_non_exhaustive()
    }
}

/// Lua's words about an error, with the line that they are about.
fn error_of(config: &FunctionConfig, error: &mlua::Error) -> FunctionError {
    let (text, trace) = match error {
        mlua::Error::CallbackError { traceback, cause } => (cause.to_string(), traceback.clone()),
        mlua::Error::MemoryError(_) => (
            format!(
                "it takes more than {} bytes of memory; raise filter.function_memory",
                config.memory_bytes
            ),
            String::new(),
        ),
        mlua::Error::SyntaxError { message, .. } => (message.clone(), String::new()),
        other => (other.to_string(), other.to_string()),
    };
    let first = text.lines().next().unwrap_or_default();
    let first = first.trim_start_matches("runtime error: ");
    let line = line_of(first).or_else(|| line_of(&trace));
    let what = match (first.strip_prefix(CHUNK), line) {
        (Some(rest), Some(_)) => rest
            .trim_start_matches(|c: char| c == ':' || c.is_ascii_digit())
            .trim_start(),
        _ => first,
    };
    let in_file = config.line.zip(line).map(|(from, line)| from + line - 1);
    FunctionError {
        line,
        place: in_file.map(|line| format!("{}:{line}", config.file.display())),
        what: what.to_owned(),
    }
}

/// The first line of the script that is named in a text.
fn line_of(text: &str) -> Option<usize> {
    let (_, rest) = text.split_once(&format!("{CHUNK}:"))?;
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests;
