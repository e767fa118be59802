//! What scripts see and may do, and how they fail.

use std::path::PathBuf;

use super::*;

fn config(text: &str) -> FunctionConfig {
    FunctionConfig {
        text: text.to_owned(),
        file: PathBuf::from("shake.toml"),
        line: Some(11),
        timeout: Duration::from_millis(200),
        memory_bytes: 8 << 20,
    }
}

/// What a script makes of commands such as `2 SET k v`: `db words` each.
fn made(text: &str, commands: &[&str]) -> Result<Vec<String>, String> {
    made_within(Duration::from_secs(60), text, commands)
}

fn made_within(timeout: Duration, text: &str, commands: &[&str]) -> Result<Vec<String>, String> {
    let config = FunctionConfig {
        timeout,
        ..config(text)
    };
    let function = Function::new(&config).map_err(|error| error.to_string())?;
    let mut made = Vec::new();
    for command in commands {
        let mut words = command.split(' ');
        let db = words.next().unwrap().parse().unwrap();
        let words: Vec<&[u8]> = words.map(str::as_bytes).collect();
        let mut frame = Vec::new();
        resp::encode::command(&mut frame, &words);
        let mut decoder = resp::CommandDecoder::new(resp::Limits::default());
        decoder.poll(&frame).unwrap().unwrap();
        let known = rewrite::table::lookup(words[0]).unwrap();
        let mut places = Vec::new();
        rewrite::keys_of(known, &frame, decoder.args(), &mut places);
        let name = known.name.to_ascii_uppercase();
        let seen = Seen {
            db,
            name: &name,
            group: known.group.name(),
            args: decoder.args(),
            frame: &frame,
            places: &places,
        };
        let run = function.run(&seen, |calls| {
            for (db, call) in calls.iter() {
                let words = crate::pipeline::words_of(call, 0).unwrap();
                let words: Vec<_> = words.iter().map(|w| String::from_utf8_lossy(w)).collect();
                made.push(format!("{db} {}", words.join(" ")));
            }
        });
        run.map_err(|error| error.to_string())?;
    }
    Ok(made)
}

#[test]
fn a_script_sees_all_of_a_command_and_may_say_any_other() {
    let text = r#"
        local slots = table.concat(SLOTS, "+")
        shake.call(DB + 1, {CMD, GROUP, KEYS[1], KEYS[2], table.concat(KEY_INDEXES, ","), slots, #ARGV, ARGV[3]})
        shake.call("3", {"PX", 1700000001000 + 1, 0.5, 2 ^ 53, -0})
    "#;
    assert_eq!(
        made(text, &["1 mset foo 1 bar 2"]).unwrap(),
        [
            "2 MSET STRING foo bar 2,4 12182+5061 5 1",
            "3 PX 1700000001001 0.5 9007199254740992 0"
        ]
    );
    assert!(made("return", &["0 SET a 1"]).unwrap().is_empty());
}

#[test]
fn nothing_is_left_of_a_run_for_the_next() {
    let text = "n = (n or 0) + 1; _G.m = (_G.m or 0) + 1; shake.call(DB, {'SET', 'n', n, m})";
    let both = made(text, &["0 SET a 1", "0 SET a 1"]).unwrap();
    assert_eq!(both, ["0 SET n 1 1", "0 SET n 1 1"]);
    for text in [
        "string.sub = nil",
        "shake.call = nil",
        "rawset(table, 'x', 1)",
        "math.pi = 3",
    ] {
        let error = made(text, &["0 SET a 1"]).unwrap_err();
        assert!(error.contains("cannot be changed"), "{text}: {error}");
    }
}

#[test]
fn there_is_no_way_out() {
    for (text, word) in [
        ("os.exit(1)", "os"),
        ("io.open('x')", "io"),
        ("require('x')", "require"),
        ("loadstring('return 1')()", "loadstring"),
        ("load(print)", "load"),
        ("dofile('x')", "dofile"),
        ("debug.getinfo(1)", "debug"),
        ("coroutine.create(print)", "coroutine"),
        ("setfenv(1, {})", "setfenv"),
        ("getfenv(0)", "getfenv"),
        ("string.dump(print)", "string.dump"),
        ("math.random()", "math.random"),
        ("package.path = ''", "package"),
    ] {
        let error = made(text, &["0 SET a 1"]).unwrap_err();
        let said = format!("{word} is not there for a function");
        assert!(error.contains(&said), "{text}: {error}");
        assert!(error.contains("line 1 (shake.toml:11)"), "{error}");
    }
    let hidden = "assert(getmetatable('') == false and getmetatable(string) == false and not _G.x)";
    assert!(made(hidden, &["0 SET a 1"]).unwrap().is_empty());
    // Compiled code is no script.
    let error = made("\u{1b}Lua", &["0 SET a 1"]).unwrap_err();
    assert!(error.contains("filter.function"), "{error}");
}

#[test]
fn errors_say_where() {
    assert_eq!(
        made("local a\n\nreturn a.b", &["0 SET a 1"]).unwrap_err(),
        "filter.function, line 3 (shake.toml:13): attempt to index local 'a' (a nil value)"
    );
    assert_eq!(
        made("if DB == 0\nshake.call(DB, ARGV)", &[]).unwrap_err(),
        "filter.function, line 2 (shake.toml:12): 'then' expected near 'shake'"
    );
    for (text, what) in [
        ("\nshake.call(DB)", "argv is a nil, not a table of words"),
        ("\nshake.call(DB, {})", "argv is empty"),
        ("\nshake.call(-1, {'a'})", "db is -1, not the number"),
        ("\nshake.call(nil, {'a'})", "db is nil"),
        ("\nshake.call(0.5, {'a'})", "db is 0.5"),
        ("\nshake.call(0, {'a', true})", "argv[2] is a boolean"),
        ("\nshake.call(0, {'a', {}})", "argv[2] is a table"),
        ("\nshake.call(0, {'MULTI'})", "MULTI"),
        (
            "\nshake.call(0, {'select', 1})",
            "the database is the first word",
        ),
        ("\nerror('that is enough')", "that is enough"),
        ("\nerror({})", "table"),
    ] {
        let error = made(text, &["0 SET a 1"]).unwrap_err();
        assert!(error.contains(what), "{text}: {error}");
        assert!(
            error.contains("line 2 (shake.toml:12)") || text.contains("{})"),
            "{text}: {error}"
        );
    }
}

#[test]
fn a_script_has_only_so_much_time_and_memory() {
    for text in [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "local function f() return f() end f()",
    ] {
        let error = made_within(Duration::from_millis(50), text, &["0 SET a 1"]).unwrap_err();
        assert!(error.contains("filter.function_timeout"), "{text}: {error}");
    }
    for text in [
        "local t = {} for i = 1, 1e9 do t[i] = i end",
        "string.rep('x', 1e9)",
        "while true do shake.call(0, {'SET', 'k', string.rep('x', 1000)}) end",
    ] {
        let error = made(text, &["0 SET a 1"]).unwrap_err();
        assert!(error.contains("filter.function_memory"), "{text}: {error}");
    }
    // Garbage is nothing to stop for.
    let text =
        "local t = {} for i = 1, 200 do t[i] = string.rep('x', 10000 + i) end shake.call(DB, ARGV)";
    let many = vec!["0 SET a 1"; 300];
    assert_eq!(made(text, &many).unwrap().len(), 300);
}

#[test]
fn print_and_errors_that_are_caught() {
    let text = "print('a', 1, nil) shake.log({}) shake.log(nil) local ok, why = pcall(error, 'x') shake.call(DB, {'SET', tostring(ok), why})";
    assert_eq!(made(text, &["0 SET a 1"]).unwrap(), ["0 SET false x"]);
}
