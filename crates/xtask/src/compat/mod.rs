//! `cargo xtask compat`: the snapshot of every version brought to every other, and the table of it.

mod document;

use std::fs;
use std::path::PathBuf;

use testkit::compat::{self, Outcome, Verdict};
use testkit::{Engine, Server, ServerOptions};

const USAGE: &str = "\
usage: cargo xtask compat [--only NAMES] [--sources NAMES] [--targets NAMES] [--binary FILE] [--json]

Fills each engine with one key of every kind, encoding and edge that it can hold, brings its snapshot to each other
engine with the daemon, and compares both key by key. Writes docs/compatibility.md when it has run every pair.
Needs the whole matrix (cargo xtask engines --wide) and a daemon (cargo build --release -p understudy).

  --only NAMES      only these engines, with commas between, as sources and as targets
  --sources NAMES   only these as sources
  --targets NAMES   only these as targets
  --binary FILE     the daemon; default: target/release/understudy
  --json            prints every pair as a line of JSON, and writes no document";

const DOCUMENT: &str = "docs/compatibility.md";

struct Options {
    sources: Vec<String>,
    targets: Vec<String>,
    binary: PathBuf,
    json: bool,
}

/// Runs the task.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return Ok(());
    }
    let options = options(args)?;
    let outcomes = pairs(&options)?;
    let wrong = outcomes
        .iter()
        .filter(|outcome| matches!(outcome.verdict, Verdict::Wrong(_)))
        .count();
    let whole = options.sources.len() == compat::ENGINES.len()
        && options.targets.len() == compat::ENGINES.len();
    if whole && !options.json {
        let text = document::text(&outcomes);
        fs::write(DOCUMENT, text).map_err(|error| format!("{DOCUMENT}: {error}"))?;
        println!("wrote {DOCUMENT}");
    }
    eprintln!("{} pairs, {wrong} wrong", outcomes.len());
    if wrong == 0 {
        Ok(())
    } else {
        Err(format!("{wrong} pairs are not right"))
    }
}

fn options(args: &[String]) -> Result<Options, String> {
    let all = || compat::ENGINES.map(String::from).to_vec();
    let mut options = Options {
        sources: all(),
        targets: all(),
        binary: "target/release/understudy".into(),
        json: false,
    };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| USAGE.to_owned());
        let names = |text: &String| text.split(',').map(String::from).collect::<Vec<String>>();
        match arg.as_str() {
            "--only" => {
                options.sources = names(value()?);
                options.targets = options.sources.clone();
            }
            "--sources" => options.sources = names(value()?),
            "--targets" => options.targets = names(value()?),
            "--binary" => options.binary = value()?.into(),
            "--json" => options.json = true,
            _ => return Err(USAGE.into()),
        }
    }
    for name in options.sources.iter().chain(&options.targets) {
        Engine::find(name)?;
    }
    if !options.binary.exists() {
        let shown = options.binary.display();
        return Err(format!(
            "{shown} is missing; run: cargo build --release -p understudy"
        ));
    }
    options.binary = std::path::absolute(&options.binary).map_err(|error| error.to_string())?;
    Ok(options)
}

/// All pairs, with each source filled once. The targets run all the time, and are emptied before each pair.
fn pairs(options: &Options) -> Result<Vec<Outcome>, String> {
    let mut targets: Vec<Server> = options.targets.iter().map(|name| target(name)).collect();
    let mut outcomes = Vec::new();
    for name in &options.sources {
        let source = compat::source(name);
        for target in &mut targets {
            let outcome = compat::run(&options.binary, &source, target, "warn");
            show(&outcome, options.json)?;
            outcomes.push(outcome);
        }
    }
    Ok(outcomes)
}

fn target(name: &str) -> Server {
    Server::start(&Engine::of(name), ServerOptions::default())
}

fn show(outcome: &Outcome, json: bool) -> Result<(), String> {
    let Outcome {
        source,
        target,
        verdict,
        ran,
    } = outcome;
    if json {
        let line = serde_json::to_string(&document::json(outcome));
        println!("{}", line.map_err(|error| error.to_string())?);
        return Ok(());
    }
    let ms = ran.as_millis();
    let said = match verdict {
        Verdict::Done(losses) => document::cell(losses),
        Verdict::Refused(why) => format!("refused: {why}"),
        Verdict::Wrong(what) => format!("WRONG\n    {}", what.join("\n    ")),
    };
    println!("{source} -> {target} ({ms} ms): {said}");
    Ok(())
}
