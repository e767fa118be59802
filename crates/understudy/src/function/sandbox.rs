//! What a script runs in: Lua 5.1 without its ways out, a fresh table of globals for each run, a limit of time and of memory.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::chunk::ChunkMode;
use mlua::{BString, HookTriggers, Lua, LuaOptions, StdLib, Table, Value, Variadic, VmState};
use rewrite::slot_of;

use super::{Calls, FunctionConfig, Seen};

/// What a script is called in errors.
pub(super) const CHUNK: &str = "filter.function";

const PRELUDE: &str = include_str!("prelude.lua");

/// A command of so many words is handed over word by word.
const FEW: usize = 64;

/// After so many instructions of Lua the clock is looked at.
const INSTRUCTIONS: u32 = 10_000;

/// The script and all around it.
pub(super) struct Sandbox {
    run: mlua::Function,
    run_on_few: mlua::Function,
    clock: Rc<Clock>,
}

/// When the run has begun, as far as anybody has asked; and whether it has had its time.
#[derive(Default)]
struct Clock {
    since: Cell<Option<Instant>>,
    is_over: Cell<bool>,
}

impl Clock {
    fn start(&self) {
        self.since.set(None);
        self.is_over.set(false);
    }

    fn check(&self, timeout: Duration) -> mlua::Result<()> {
        match self.since.get() {
            None => self.since.set(Some(Instant::now())),
            Some(since) if since.elapsed() > timeout => self.is_over.set(true),
            Some(_) => {}
        }
        self.is_up(timeout)
    }

    fn is_up(&self, timeout: Duration) -> mlua::Result<()> {
        if !self.is_over.get() {
            return Ok(());
        }
        let what = format!(
            "it takes longer than {} ms for one command; raise filter.function_timeout",
            timeout.as_millis()
        );
        Err(mlua::Error::runtime(what))
    }
}

/// A state of Lua with the script in it.
pub(super) fn make(
    config: &FunctionConfig,
    calls: &Rc<RefCell<Calls>>,
) -> mlua::Result<(Lua, Sandbox)> {
    let libraries = StdLib::STRING | StdLib::TABLE | StdLib::MATH;
    let lua = Lua::new_with(libraries, LuaOptions::new())?;
    lua.set_memory_limit(config.memory_bytes)?;
    let chunk = lua
        .load(&config.text)
        .set_name(format!("={CHUNK}"))
        .set_mode(ChunkMode::Text)
        .into_function()?;
    let (clock, timeout) = (Rc::new(Clock::default()), config.timeout);
    let hooked = Rc::clone(&clock);
    let triggers = HookTriggers::new().every_nth_instruction(INSTRUCTIONS);
    lua.set_hook(triggers, move |_, _| {
        hooked.check(timeout).map(|()| VmState::Continue)
    })?;
    let bytes_max = config.memory_bytes;
    let (any, texts) = (Rc::clone(calls), Rc::clone(calls));
    let emit = lua.create_function(move |_, (db, argv): (Value, Table)| {
        let mut calls = any.borrow_mut();
        calls.add(&db, &argv)?;
        calls.is_not_too_much(bytes_max)
    })?;
    let emit_texts = lua.create_function(move |_, (db, words): (f64, Variadic<BString>)| {
        let mut calls = texts.borrow_mut();
        calls.add_texts(db, &words)?;
        calls.is_not_too_much(bytes_max)
    })?;
    let log = lua.create_function(|_, message: mlua::LuaString| {
        tracing::info!("lua log: {}", message.to_string_lossy());
        Ok(())
    })?;
    let checked = Rc::clone(&clock);
    let check = lua.create_function(move |_, ()| checked.is_up(timeout))?;
    let prelude = lua.load(PRELUDE).set_name("=prelude");
    let (run, run_on_few) = prelude.call((chunk, lua.globals(), emit, emit_texts, log, check))?;
    let sandbox = Sandbox {
        run,
        run_on_few,
        clock,
    };
    Ok((lua, sandbox))
}

impl Sandbox {
    /// One run.
    pub(super) fn run(&self, lua: &Lua, seen: &Seen<'_>) -> mlua::Result<()> {
        self.clock.start();
        if let ([place], 1..=FEW) = (seen.places, seen.args.len()) {
            let words = seen.args.iter().map(|arg| arg.of(seen.frame));
            let words: Variadic<BString> = words.map(BString::from).collect();
            let slot = slot_of(words.get(*place).map_or(&[][..], |key| key)).0;
            let of = (seen.db, seen.group, seen.name, place + 1, slot, words);
            return self.run_on_few.call(of);
        }
        let argv = lua.create_table_with_capacity(seen.args.len(), 0)?;
        for arg in seen.args {
            argv.raw_push(lua.create_string(arg.of(seen.frame))?)?;
        }
        let keys = seen.places.iter().filter_map(|place| seen.args.get(*place));
        let slots = lua.create_sequence_from(keys.map(|key| slot_of(key.of(seen.frame)).0))?;
        let indexes = lua.create_sequence_from(seen.places.iter().map(|place| place + 1))?;
        self.run
            .call((seen.db, seen.group, seen.name, argv, indexes, slots))
    }
}

impl Calls {
    /// `shake.call(db, argv)`
    fn add(&mut self, db: &Value, argv: &Table) -> mlua::Result<()> {
        let number = number_of(db).and_then(db_of);
        let db = number.ok_or_else(|| wrong_db(&what(db)))?;
        let words = argv.raw_len();
        if words == 0 {
            return Err(wrong("argv is empty: its first word is the command's name"));
        }
        if let Value::String(name) = argv.raw_get(1)? {
            may_be_called(&name.as_bytes())?;
        }
        let start = self.bytes.len();
        resp::encode::command_header(&mut self.bytes, words);
        for at in 1..=words {
            let word: Value = argv.raw_get(at)?;
            if !encode(&mut self.bytes, &word)? {
                self.bytes.truncate(start);
                return Err(wrong(&format!(
                    "argv[{at}] is {}, not a text or a number",
                    what(&word)
                )));
            }
        }
        self.ends.push((db, self.bytes.len()));
        Ok(())
    }

    /// The same with texts alone.
    fn add_texts(&mut self, db: f64, words: &[BString]) -> mlua::Result<()> {
        let db = db_of(db).ok_or_else(|| wrong_db(&db.to_string()))?;
        may_be_called(words.first().map_or(&[][..], |name| name))?;
        resp::encode::command_header(&mut self.bytes, words.len());
        for word in words {
            resp::encode::bulk(&mut self.bytes, word);
        }
        self.ends.push((db, self.bytes.len()));
        Ok(())
    }

    fn is_not_too_much(&self, bytes_max: usize) -> mlua::Result<()> {
        if self.bytes.len() <= bytes_max {
            return Ok(());
        }
        Err(wrong(&format!(
            "what is called for one command takes more than {bytes_max} bytes; raise filter.function_memory"
        )))
    }
}

/// The number of a database.
fn db_of(number: f64) -> Option<u32> {
    let is_whole = number.fract() == 0.0 && (0.0..=f64::from(i32::MAX)).contains(&number);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number between 0 and i32::MAX"
    )]
    is_whole.then_some(number as u32)
}

fn wrong_db(db: &str) -> mlua::Error {
    wrong(&format!("db is {db}, not the number of a database"))
}

/// Fails for a command that cannot be called.
fn may_be_called(name: &[u8]) -> mlua::Result<()> {
    match refused(name) {
        None => Ok(()),
        Some(why) => Err(wrong(&format!(
            "{} cannot be called: {why}",
            name.escape_ascii()
        ))),
    }
}

/// Why a command cannot be called, if it cannot.
fn refused(name: &[u8]) -> Option<&'static str> {
    let is = |names: &[&str]| {
        let mut names = names.iter();
        names.any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
    };
    if is(&["select"]) {
        Some("the database is the first word of shake.call")
    } else if is(&["multi", "exec", "discard", "watch", "unwatch"]) {
        Some("all that is called for a command is in one transaction as it is")
    } else {
        None
    }
}

fn wrong(what: &str) -> mlua::Error {
    mlua::Error::runtime(format!("shake.call(db, argv): {what}"))
}

/// A value for people.
fn what(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", text.to_string_lossy()),
        Value::Integer(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Nil => "nil".to_owned(),
        other => format!("a {}", other.type_name()),
    }
}

#[expect(clippy::cast_precision_loss, reason = "numbers of Lua 5.1 are floats")]
fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Integer(number) => Some(*number as f64),
        Value::Number(number) => Some(*number),
        Value::String(text) => text.to_str().ok()?.trim().parse().ok(),
        _ => None,
    }
}

/// Appends a word; whether it is one. Numbers are written in full, whole ones without a point.
fn encode(out: &mut Vec<u8>, word: &Value) -> mlua::Result<bool> {
    match word {
        Value::String(text) => resp::encode::bulk(out, &text.as_bytes()),
        Value::Integer(number) => resp::encode::bulk(out, number.to_string().as_bytes()),
        Value::Number(number) if *number == 0.0 => resp::encode::bulk(out, b"0"),
        Value::Number(number) => resp::encode::bulk(out, number.to_string().as_bytes()),
        _ => return Ok(false),
    }
    Ok(true)
}
