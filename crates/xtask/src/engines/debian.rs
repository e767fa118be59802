//! Engines out of Debian packages of any suite, unpacked and never installed.
//!
//! apt runs with a configuration of its own (no root, none of the machine's lists), but with the machine's mirror,
//! proxy and archive keys. It checks the suite's signed index and every package against that.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::mirror::{Mirror, sources};
use super::place::{self, Launch, Work, at};
use super::recipes::Debian;
use crate::program;

/// How deep libraries need libraries in the packages that a server needs; four is what has been seen.
const DEPENDENCY_DEPTH_MAX: usize = 8;
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// Fills `work` with the server of these packages and the libraries that it needs.
pub(crate) fn engine(home: &Path, debian: &Debian, work: &Work) -> Result<(), String> {
    let root = unpack(home, debian, work, Libraries::Too)?;
    work.take_programs(&root.join("usr/bin"))?;
    let loader = copy_loader(&root, work)?;
    for program in programs(work)? {
        take_needed(&root, &loader, &program, work)?;
    }
    work.write_launchers(&loader.launch)
}

/// Puts the suite's loader and the packages' libraries into lib, for programs that are there already.
pub(crate) fn take_loader(home: &Path, debian: &Debian, work: &Work) -> Result<Launch, String> {
    let root = unpack(home, debian, work, Libraries::Too)?;
    let loader = copy_loader(&root, work)?;
    for program in programs(work)? {
        take_needed(&root, &loader, &program, work)?;
    }
    Ok(loader.launch)
}

/// The packages alone, without what they depend on; returns the folder they are unpacked in.
pub(crate) fn unpack_only(home: &Path, debian: &Debian, work: &Work) -> Result<PathBuf, String> {
    unpack(home, debian, work, Libraries::No)
}

/// Copies every shared library of an unpacked tree into lib.
pub(crate) fn take_all_libraries(root: &Path, work: &Work) -> Result<(), String> {
    for folder in library_folders(root) {
        for entry in fs::read_dir(&folder)
            .map_err(|error| at(&folder, &error))?
            .flatten()
        {
            if entry.path().is_file() && entry.file_name().to_string_lossy().contains(".so") {
                copy_once(&entry.path(), work)?;
            }
        }
    }
    Ok(())
}

enum Libraries {
    Too,
    No,
}

fn unpack(
    home: &Path,
    debian: &Debian,
    work: &Work,
    libraries: Libraries,
) -> Result<PathBuf, String> {
    let apt = Apt::new(home, debian.suite)?;
    let result = apt.download(debian, work, &libraries);
    // An index that is a day old may name a package that a security update has replaced since.
    let folder = match result {
        Ok(folder) => folder,
        Err(_) => {
            apt.update()?;
            apt.download(debian, work, &libraries)?
        }
    };
    let root = work.scratch.join(format!("root-{}", debian.suite));
    fs::create_dir_all(&root).map_err(|error| at(&root, &error))?;
    let packages = packages_in(&folder)?;
    record(work, &folder, &packages)?;
    for package in &packages {
        program::output(Command::new("dpkg-deb").arg("-x").args([package, &root]))?;
    }
    Ok(root)
}

fn packages_in(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| at(folder, &error))?;
    let mut packages: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    packages.retain(|path| path.extension().is_some_and(|end| end == "deb"));
    packages.sort();
    Ok(packages)
}

fn record(work: &Work, folder: &Path, packages: &[PathBuf]) -> Result<(), String> {
    let names = packages.iter().filter_map(|path| path.file_name());
    let sums = program::output(Command::new("sha256sum").args(names).current_dir(folder))?;
    work.record_sums(&sums)
}

/// apt with a folder of its own for one suite.
struct Apt {
    suite: &'static str,
    folder: PathBuf,
    config: PathBuf,
}

impl Apt {
    /// Writes the configuration; fetches the index unless one is here already.
    fn new(home: &Path, suite: &'static str) -> Result<Self, String> {
        for tool in ["apt-get", "apt-cache", "dpkg-deb"] {
            if program::on_path(tool).is_none() {
                return Err(format!(
                    "{tool} is missing, and this engine comes as Debian packages.\n    On another system name a \
                     server of this machine: --use NAME=PATH"
                ));
            }
        }
        let folder = home.join(format!(".apt/{suite}"));
        let _lock = place::lock(home, &format!(".apt-{suite}"))?;
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            let sub = folder.join(sub);
            fs::create_dir_all(&sub).map_err(|error| at(&sub, &error))?;
        }
        let apt = Self {
            suite,
            config: folder.join("apt.conf"),
            folder,
        };
        if !apt.folder.join("updated").exists() {
            apt.configure()?;
            apt.update()?;
        }
        Ok(apt)
    }

    fn configure(&self) -> Result<(), String> {
        let keyring = KEYRINGS.into_iter().find(|file| Path::new(file).exists());
        let keyring = keyring.ok_or(
            "the keys of the Debian archive are missing, so nothing from it can be trusted.\n    Debian, Ubuntu: \
             apt-get install debian-archive-keyring",
        )?;
        let sources: String = sources(self.suite, &Mirror::of_this_machine()?)
            .into_iter()
            .map(|source| format!("deb [arch=amd64 signed-by={keyring}] {source} main\n"))
            .collect();
        let folder = self.folder.display();
        // A mirror that stands still, or a suite without updates, outlives the date until which its index promised to
        // be the newest. It is signed all the same, and an older server is as good a test.
        let text = format!(
            "{}Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"/dev/null\";\n\
             Dir::Etc::sourcelist \"{folder}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
             Dir::State \"{folder}/state\";\nDir::State::status \"{folder}/state/status\";\n\
             Dir::Cache \"{folder}/cache\";\nAPT::Architecture \"amd64\";\nAPT::Architectures \"amd64\";\n\
             APT::Sandbox::User \"\";\nAPT::Get::AllowUnauthenticated \"false\";\n\
             Acquire::AllowInsecureRepositories \"false\";\nAcquire::Languages \"none\";\n\
             Acquire::Retries \"3\";\nAcquire::http::Timeout \"60\";\n\
             Acquire::Check-Valid-Until \"false\";\n",
            machine_settings()?,
        );
        let write =
            |file: PathBuf, text: &str| fs::write(&file, text).map_err(|error| at(&file, &error));
        write(self.folder.join("sources.list"), &sources)?;
        write(self.folder.join("state/status"), "")?;
        write(self.config.clone(), &text)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.config).env("LC_ALL", "C");
        command
    }

    fn update(&self) -> Result<(), String> {
        let mut update = self.command("apt-get");
        // Without this apt-get ends with 0 although a part of the index did not arrive.
        update.args(["-qq", "-o", "APT::Update::Error-Mode=any", "update"]);
        program::output(&mut update)?;
        let stamp = self.folder.join("updated");
        fs::write(&stamp, "").map_err(|error| at(&stamp, &error))
    }

    fn download(
        &self,
        debian: &Debian,
        work: &Work,
        libraries: &Libraries,
    ) -> Result<PathBuf, String> {
        let mut names: BTreeSet<String> =
            debian.packages.iter().map(|name| (*name).into()).collect();
        if matches!(libraries, Libraries::Too) {
            names.extend(self.libraries_of(debian.packages)?);
        }
        let folder = work.scratch.join(format!("deb-{}", debian.suite));
        fs::create_dir_all(&folder).map_err(|error| at(&folder, &error))?;
        let mut download = self.command("apt-get");
        download
            .args(["-qq", "download"])
            .args(&names)
            .current_dir(&folder);
        program::output(&mut download)?;
        Ok(folder)
    }

    /// The library packages that `packages` depend on, at any remove.
    fn libraries_of(&self, packages: &[&str]) -> Result<BTreeSet<String>, String> {
        let plain = |name: &&str| name.split('/').next().unwrap_or_default().to_owned();
        let mut seen = BTreeSet::new();
        let mut next: Vec<String> = packages.iter().map(plain).collect();
        for _ in 0..DEPENDENCY_DEPTH_MAX {
            if next.is_empty() {
                break;
            }
            let mut depends = self.command("apt-cache");
            depends.args([
                "depends",
                "--important",
                "--no-conflicts",
                "--no-breaks",
                "--no-replaces",
            ]);
            let text = program::output(depends.args(&next))?;
            next = depended_libraries(&text)
                .filter(|name| seen.insert(name.clone()))
                .collect();
        }
        Ok(seen)
    }
}

/// Names out of lines like `  Depends: libssl3` or ` |PreDepends: libc6`; virtual ones stand in `<>`.
fn depended_libraries(text: &str) -> impl Iterator<Item = String> + '_ {
    let names = text
        .lines()
        .filter_map(|line| line.split_once("epends: "))
        .map(|(_, name)| name.trim());
    names
        .filter(|name| name.starts_with("lib") || name.starts_with("lua-"))
        .map(|name| name.split(':').next().unwrap_or(name).to_owned())
}

/// What the machine's administrator told apt about getting at things: proxies, time limits, certificates.
fn machine_settings() -> Result<String, String> {
    let dump = program::output(Command::new("apt-config").arg("dump"))?;
    let wanted = |line: &&str| {
        line.starts_with("Acquire::http")
            || line.starts_with("Acquire::https")
            || line.starts_with("Acquire::tor")
    };
    Ok(dump
        .lines()
        .filter(wanted)
        .map(|line| format!("{line}\n"))
        .collect())
}

struct Loader {
    file: PathBuf,
    launch: Launch,
}

/// The suite's own ld.so, so that its libraries and its C library fit together whatever the machine runs.
fn copy_loader(root: &Path, work: &Work) -> Result<Loader, String> {
    let places = library_folders(root);
    let mut files = places
        .iter()
        .map(|folder| folder.join("ld-linux-x86-64.so.2"));
    let found = files
        .find(|file| file.exists())
        .ok_or("the packages hold no loader")?;
    let file = work.lib.join("ld.so");
    fs::copy(&found, &file).map_err(|error| at(&found, &error))?;
    place::executable(&file)?;
    let help = program::output(Command::new(&file).arg("--help")).unwrap_or_default();
    Ok(Loader {
        file,
        launch: Launch::Loader {
            knows_argv0: help.contains("--argv0"),
        },
    })
}

fn library_folders(root: &Path) -> Vec<PathBuf> {
    let names = [
        "lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu",
        "lib64",
        "usr/lib64",
    ];
    names
        .iter()
        .map(|name| root.join(name))
        .filter(|folder| folder.is_dir())
        .collect()
}

fn programs(work: &Work) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(&work.bin).map_err(|error| at(&work.bin, &error))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Asks the loader which libraries `program` takes from the unpacked tree, and copies those.
fn take_needed(root: &Path, loader: &Loader, program: &Path, work: &Work) -> Result<(), String> {
    let path = std::env::join_paths(library_folders(root)).map_err(|error| error.to_string())?;
    let mut list = Command::new(&loader.file);
    list.arg("--library-path")
        .arg(path)
        .arg("--list")
        .arg(program);
    let listed = program::output(&mut list)?;
    if let Some(line) = listed.lines().find(|line| line.contains("not found")) {
        return Err(format!("{}: {}", program.display(), line.trim()));
    }
    let files = listed.lines().filter_map(|line| line.split_once("=> "));
    for (_, file) in files {
        let file = Path::new(file.split_whitespace().next().unwrap_or_default());
        if file.starts_with(root) {
            copy_once(file, work)?;
        }
    }
    Ok(())
}

fn copy_once(file: &Path, work: &Work) -> Result<(), String> {
    let to = work.lib.join(file.file_name().unwrap_or_default());
    if to.exists() {
        return Ok(());
    }
    fs::copy(file, &to)
        .map(drop)
        .map_err(|error| at(file, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_libraries_out_of_dependencies() {
        let text = "redis-tools\n  Depends: libc6\n |Depends: libssl3t64\n  Depends: <libssl3>\n  Depends: adduser\n  \
                    PreDepends: libcap2:amd64\nlua-bitop\n";
        let names: Vec<String> = depended_libraries(text).collect();
        assert_eq!(names, ["libc6", "libssl3t64", "libcap2"]);
    }
}
