//! `cargo xtask commands SERVER...`: the table of commands, from the servers themselves.
//!
//! Each SERVER is the path of a server's executable, the one to believe first coming first. They are started on free
//! ports and asked `COMMAND` and `COMMAND DOCS`; the union of what they know is written to
//! `crates/rewrite/src/table/generated.rs`. Then every line of `crates/rewrite/tests/getkeys.golden` is asked again
//! (`COMMAND GETKEYS`, of the first server that knows the command) and the file is written anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const TABLE: &str = "crates/rewrite/src/table/generated.rs";
const GOLDEN: &str = "crates/rewrite/tests/getkeys.golden";

/// Runs the task. `args` are the paths of the servers; the working directory is the workspace's root.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if args.is_empty() {
        return Err("usage: cargo xtask commands SERVER... (paths of server executables)".into());
    }
    let mut servers = args
        .iter()
        .map(|path| Server::start(path))
        .collect::<Result<Vec<_>, _>>()?;
    let mut rows = BTreeMap::new();
    for server in &mut servers {
        merge(server, &mut rows)?;
    }
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let names = names.join(", ");
    write_file(TABLE, &table_text(&rows, &names))?;
    let golden = std::fs::read_to_string(GOLDEN).map_err(|error| format!("{GOLDEN}: {error}"))?;
    write_file(GOLDEN, &golden_text(&golden, &mut servers)?)?;
    println!("{} commands and subcommands from {names}", rows.len());
    Ok(())
}

fn write_file(path: &str, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{path}: {error}"))
}

/// One line of the table, as text.
struct Row {
    arity: i64,
    flags: String,
    group: String,
    specs: String,
}

fn merge(server: &mut Server, rows: &mut BTreeMap<String, Row>) -> Result<(), String> {
    let groups = groups(&server.ask(&["COMMAND", "DOCS"])?);
    let Reply::Array(commands) = server.ask(&["COMMAND"])? else {
        return Err(format!("{}: COMMAND gave no array", server.name));
    };
    for command in &commands {
        let name = command.at(0).text();
        let group = groups
            .get(&name)
            .cloned()
            .unwrap_or_else(|| "Module".into());
        add(command, &group, &server.name, rows);
        for subcommand in command.at(9).items() {
            add(subcommand, &group, &server.name, rows);
        }
    }
    Ok(())
}

fn add(command: &Reply, group: &str, server: &str, rows: &mut BTreeMap<String, Row>) {
    let name = command.at(0).text().to_lowercase();
    let container = if command.at(9).items().is_empty() {
        ""
    } else {
        "C"
    };
    let row = Row {
        arity: command.at(1).int(),
        flags: command_flags(command.at(2)) + container,
        group: group.into(),
        specs: command
            .at(8)
            .items()
            .iter()
            .map(spec_text)
            .collect::<Vec<_>>()
            .join(", "),
    };
    match rows.get(&name) {
        None => drop(rows.insert(name, row)),
        Some(known) if known.specs != row.specs => {
            println!(
                "{name}: {server} has keys [{}], kept are [{}]",
                row.specs, known.specs
            );
        }
        Some(_) => {}
    }
}

fn groups(docs: &Reply) -> BTreeMap<String, String> {
    let items = docs.items();
    let pairs = items.iter().step_by(2).zip(items.iter().skip(1).step_by(2));
    pairs
        .map(|(name, doc)| (name.text(), camel(&doc.field("group").text())))
        .collect()
}

/// `sorted-set` -> `SortedSet`.
fn camel(text: &str) -> String {
    let mut out = String::new();
    for word in text.split('-') {
        let (first, rest) = word.split_at(word.len().min(1));
        out += &first.to_uppercase();
        out += rest;
    }
    match out.as_str() {
        "Hyperloglog" => "HyperLogLog".into(),
        "Pubsub" => "PubSub".into(),
        _ => out,
    }
}

fn command_flags(flags: &Reply) -> String {
    let known = [
        ("write", 'W'),
        ("readonly", 'R'),
        ("admin", 'A'),
        ("pubsub", 'P'),
        ("blocking", 'B'),
        ("movablekeys", 'M'),
    ];
    let has = |word: &str| flags.items().iter().any(|flag| flag.text() == word);
    known
        .iter()
        .filter(|(word, _)| has(word))
        .map(|(_, letter)| *letter)
        .collect()
}

fn spec_text(spec: &Reply) -> String {
    let (begin, find) = (spec.field("begin_search"), spec.field("find_keys"));
    let (at, how) = (begin.field("spec"), find.field("spec"));
    let begin = match begin.field("type").text().as_str() {
        "index" => format!("At({})", at.field("index").int()),
        "keyword" => {
            let word = at.field("keyword").text();
            format!("After({word:?}, {})", at.field("startfrom").int())
        }
        _ => "Nowhere".into(),
    };
    let find = match find.field("type").text().as_str() {
        "range" => {
            let (last, step) = (how.field("lastkey").int(), how.field("keystep").int());
            format!("Range({last}, {step}, {})", how.field("limit").int())
        }
        "keynum" => {
            let (number, first) = (how.field("keynumidx").int(), how.field("firstkey").int());
            format!("Counted({number}, {first}, {})", how.field("keystep").int())
        }
        _ => "Unknown".into(),
    };
    let flags = spec.field("flags");
    let has = |word: &str| flags.items().iter().any(|flag| flag.text() == word);
    let access = ["RO", "RW", "OW", "RM"]
        .into_iter()
        .find(|word| has(word))
        .unwrap_or("RW");
    let more = match (has("not_key"), has("incomplete")) {
        (true, _) => " | NOT_KEY",
        (false, true) => " | INCOMPLETE",
        (false, false) => "",
    };
    format!("k({begin}, {find}, {access}{more})")
}

fn table_text(rows: &BTreeMap<String, Row>, servers: &str) -> String {
    let mut out = format!(
        "//! Written by `cargo xtask commands`, not by hand: what {servers}\n\
         //! answer to `COMMAND` and `COMMAND DOCS`.\n\
         //!\n\
         //! A row: name, arity, flags (W write, R readonly, A admin, P pubsub, B blocking, M movable keys,\n\
         //! C has subcommands), group, where its keys are.\n\n\
         use super::Begin::{{After, At, Nowhere}};\n\
         use super::Find::{{Counted, Range, Unknown}};\n\
         use super::{{Command, Group as G, INCOMPLETE, NOT_KEY, OW, RM, RO, RW, k, row}};\n\n\
         #[rustfmt::skip]\npub(super) const ROWS: &[Command] = &[\n"
    );
    for (name, row) in rows {
        let Row {
            arity,
            flags,
            group,
            specs,
        } = row;
        let _ = writeln!(
            out,
            "    row({name:?}, {arity}, b{flags:?}, G::{group}, &[{specs}]),"
        );
    }
    out + "];\n"
}

/// Asks for the keys of every line again. A line: the command, ` => `, its keys (`-`: none; `""`
/// is an empty argument).
fn golden_text(golden: &str, servers: &mut [Server]) -> Result<String, String> {
    let mut out = String::new();
    for line in golden.lines() {
        let words = line.split(" => ").next().unwrap_or_default().trim();
        if words.is_empty() || words.starts_with('#') {
            let _ = writeln!(out, "{line}");
            continue;
        }
        let _ = writeln!(out, "{words} => {}", golden_keys(words, servers)?);
    }
    Ok(out)
}

fn golden_keys(words: &str, servers: &mut [Server]) -> Result<String, String> {
    let mut ask = vec!["COMMAND", "GETKEYS"];
    ask.extend(
        words
            .split_whitespace()
            .map(|word| if word == "\"\"" { "" } else { word }),
    );
    let mut refusals = String::new();
    for server in servers {
        match server.ask(&ask)? {
            Reply::Error(text) if text.contains("no key arguments") => return Ok("-".into()),
            Reply::Error(text) => refusals = text,
            keys if keys.items().is_empty() => return Ok("-".into()),
            keys => {
                let keys: Vec<String> = keys.items().iter().map(Reply::text).collect();
                return Ok(keys.join(" "));
            }
        }
    }
    Err(format!(
        "no server can tell the keys of {words:?}: {refusals}"
    ))
}

/// A server of our own, ended with the value.
struct Server {
    name: String,
    child: Child,
    socket: BufReader<TcpStream>,
}

impl Server {
    fn start(path: &str) -> Result<Self, String> {
        let failed = |error: std::io::Error| format!("{path}: {error}");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = port.map_err(failed)?.port();
        let mut child = Command::new(path)
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--port",
                &port.to_string(),
            ])
            .stdout(Stdio::null())
            .current_dir(std::env::temp_dir())
            .spawn()
            .map_err(failed)?;
        let Some(socket) = connect(port) else {
            let _ = child.kill();
            return Err(format!(
                "{path}: does not listen on port {port} after five seconds"
            ));
        };
        let name = Path::new(path).display().to_string();
        let mut server = Self {
            name,
            child,
            socket: BufReader::new(socket),
        };
        server.name = server.version()?;
        Ok(server)
    }

    fn version(&mut self) -> Result<String, String> {
        let info = self.ask(&["INFO", "server"])?.text();
        let line = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.strip_prefix(name));
            lines.next().map(str::to_owned)
        };
        let valkey = line("valkey_version:").map(|version| format!("Valkey {version}"));
        let redis = || line("redis_version:").map(|version| format!("Redis {version}"));
        valkey
            .or_else(redis)
            .ok_or_else(|| format!("{}: INFO names no version", self.name))
    }

    fn ask(&mut self, argv: &[&str]) -> Result<Reply, String> {
        let mut out = format!("*{}\r\n", argv.len());
        for arg in argv {
            let _ = write!(out, "${}\r\n{arg}\r\n", arg.len());
        }
        let failed = |error: std::io::Error| format!("{}: {error}", argv.join(" "));
        self.socket
            .get_mut()
            .write_all(out.as_bytes())
            .map_err(failed)?;
        Reply::read(&mut self.socket).map_err(failed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn connect(port: u16) -> Option<TcpStream> {
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        if let Ok(socket) = TcpStream::connect(("127.0.0.1", port)) {
            return Some(socket);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

/// A RESP2 reply of a server that we trust.
enum Reply {
    Text(String),
    Error(String),
    Int(i64),
    Array(Vec<Self>),
    Nil,
}

static NIL: Reply = Reply::Nil;

impl Reply {
    fn read(socket: &mut BufReader<TcpStream>) -> std::io::Result<Self> {
        let mut line = String::new();
        socket.read_line(&mut line)?;
        let (kind, rest) = line.trim_end().split_at(line.len().min(1));
        let number = || rest.parse::<i64>().map_err(std::io::Error::other);
        Ok(match kind {
            "+" => Self::Text(rest.into()),
            "-" => Self::Error(rest.into()),
            ":" => Self::Int(number()?),
            "$" => match usize::try_from(number()?) {
                Err(_) => Self::Nil,
                Ok(len) => {
                    let mut bytes = vec![0; len + 2];
                    socket.read_exact(&mut bytes)?;
                    bytes.truncate(len);
                    Self::Text(String::from_utf8_lossy(&bytes).into_owned())
                }
            },
            "*" => {
                let items = (0..number()?).map(|_| Self::read(socket));
                Self::Array(items.collect::<std::io::Result<_>>()?)
            }
            _ => return Err(std::io::Error::other(format!("not a reply: {line:?}"))),
        })
    }

    fn items(&self) -> &[Self] {
        if let Self::Array(items) = self {
            items
        } else {
            &[]
        }
    }

    fn at(&self, index: usize) -> &Self {
        self.items().get(index).unwrap_or(&NIL)
    }

    /// The value beside `name` in a flat list of pairs.
    fn field(&self, name: &str) -> &Self {
        let place = self
            .items()
            .iter()
            .step_by(2)
            .position(|item| item.text() == name);
        place.map_or(&NIL, |place| self.at(2 * place + 1))
    }

    fn text(&self) -> String {
        if let Self::Text(text) = self {
            text.clone()
        } else {
            String::new()
        }
    }

    fn int(&self) -> i64 {
        if let Self::Int(number) = self {
            *number
        } else {
            0
        }
    }
}
