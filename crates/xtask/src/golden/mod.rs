//! `cargo xtask golden`: RDB files that real servers write, for the tests of `crates/rdb`.
//!
//! What our decoder makes of a file is compared with what the server itself says of its keys before the file is kept, so
//! that a mistake of the decoder cannot become the truth. Two runs do not make the same bytes: servers order their
//! tables by chance, and write when and where they run into AUX fields. So files are made anew only on demand.

mod recipes;
mod truth;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use recipes::Recipe;
use testkit::{Engine, Server, ServerOptions, argv};

const USAGE: &str = "\
usage: cargo xtask golden [NAMES...] [--check] [--list]

Starts real servers (cargo xtask engines --wide), gives them one key of every kind, encoding and edge, and keeps what
SAVE writes as crates/rdb/tests/golden/real/NAME.rdb, once the decoder has said the same of it as the server. Then the
events are written anew (UPDATE_GOLDEN=1 cargo test -p rdb --test real as_recorded): the difference is to be read.

  NAMES     only these files
  --check   makes no file: each server loads the file that is there, and is compared with the decoder
  --list    names the files";

const FOLDER: &str = "crates/rdb/tests/golden/real";

/// Runs the task.
pub(crate) fn run(args: &[String]) -> Result<(), String> {
    let (flags, names): (Vec<&String>, Vec<&String>) =
        args.iter().partition(|arg| arg.starts_with('-'));
    let (mut check, mut list) = (false, false);
    for flag in flags {
        match flag.as_str() {
            "--check" => check = true,
            "--list" => list = true,
            "--help" | "-h" => {
                println!("{USAGE}");
                return Ok(());
            }
            _ => return Err(USAGE.into()),
        }
    }
    let recipes = recipes::all();
    if let Some(name) = names
        .iter()
        .find(|name| recipes.iter().all(|recipe| recipe.name != ***name))
    {
        return Err(format!("there is no recipe {name}; see --list"));
    }
    let wanted = |recipe: &&Recipe| names.is_empty() || names.contains(&&recipe.name);
    for recipe in recipes.iter().filter(wanted) {
        if list {
            println!("{}", recipe.name);
        } else if check {
            checked(recipe)?;
        } else {
            make(recipe)?;
        }
    }
    if check || list {
        return Ok(());
    }
    update_events()
}

fn path(recipe: &Recipe) -> PathBuf {
    Path::new(FOLDER).join(format!("{}.rdb", recipe.name))
}

fn start(recipe: &Recipe) -> Result<Server, String> {
    let engine = Engine::find(recipe.engine)?;
    let mut args = recipe.args.clone();
    for module in recipe.modules {
        let file = engine.module(module);
        let file = file.ok_or_else(|| format!("{} has no {module}", recipe.engine))?;
        args.extend(["--loadmodule".into(), file.to_string_lossy().into_owned()]);
    }
    Ok(Server::start(
        &engine,
        ServerOptions {
            args,
            ..ServerOptions::default()
        },
    ))
}

fn make(recipe: &Recipe) -> Result<(), String> {
    let server = start(recipe)?;
    recipe.prepare(&server);
    recipe.fill(&server);
    server.client().command(&argv!["SAVE"]);
    let bytes = fs::read(server.rdb_file()).map_err(|error| format!("{}: {error}", recipe.name))?;
    truth::same(&bytes, &server).map_err(|error| format!("{}: {error}", recipe.name))?;
    fs::create_dir_all(FOLDER).map_err(|error| format!("{FOLDER}: {error}"))?;
    let path = path(recipe);
    fs::write(&path, &bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    println!("{}: {} bytes", recipe.name, bytes.len());
    Ok(())
}

fn checked(recipe: &Recipe) -> Result<(), String> {
    let path = path(recipe);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let bytes = fs::read(&path).map_err(failed)?;
    let mut server = start(recipe)?;
    recipe.prepare(&server);
    fs::write(server.rdb_file(), &bytes).map_err(failed)?;
    server.restart();
    recipe.wait_ready(&server);
    let keys = truth::same(&bytes, &server).map_err(|error| format!("{}: {error}", recipe.name))?;
    println!("{}: {keys} keys are as the server says", recipe.name);
    Ok(())
}

fn update_events() -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or("cargo".into());
    let mut command = Command::new(cargo);
    command.args([
        "test",
        "--package",
        "rdb",
        "--test",
        "real",
        "--",
        "as_recorded",
    ]);
    let status = command.env("UPDATE_GOLDEN", "1").status();
    let status = status.map_err(|error| format!("cargo test: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("cargo test -p rdb --test real: {status}"))
    }
}
