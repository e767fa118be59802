//! `cargo xtask`: the tasks of this repository, one module each.

mod bench;
mod children;
mod commands;
mod compat;
mod demo;
mod engines;
mod golden;
mod instructions;
mod program;
mod rigs;
mod sbom;
mod test;
mod text;
mod torture;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask TASK [ARGS...]

  engines [NAMES...] [--wide] [--list] [--fresh] [--use NAME=PATH]
                      bring the real servers that the tests run against (--help says more)
  test [--quick]      everything that has to pass: format, lints, build, unit and end-to-end tests
  demo [--keep]       a whole migration on this machine, with proof (--help says more)
  torture [--minutes N] [--seed S]
                      faults on every side at once, with proof after every round (--help says more)
  rigs [NAMES...] [--keep]
                      the rigs under docker/, started, put to use and proved (--help says more)
  sbom [--output FILE]
                      what the program is made of, as SPDX (--help says more)
  bench [NAMES...]    what a migration costs, beside REPLICAOF in the same run (--help says more)
  instructions [--bless]
                      what the hot paths take, in instructions, beside what is noted (--help says more)
  compat [--only NAMES] [--json]
                      every pair of versions, and docs/compatibility.md from it (--help says more)
  golden [NAMES...]   RDB files of real servers for the tests of crates/rdb (--help says more)
  commands SERVER...  write the table of commands anew, from the servers named";

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if args.is_empty() || matches!(args[0].as_str(), "-h" | "--help" | "help") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    let task = args.remove(0);
    match run(&task, &args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {task}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &str, args: &[String]) -> Result<(), String> {
    let root = workspace_root();
    std::env::set_current_dir(&root).map_err(|error| format!("{}: {error}", root.display()))?;
    match task {
        "engines" => engines::run(args),
        "test" => test::run(args),
        "bench" => bench::run(args),
        "compat" => compat::run(args),
        "instructions" => instructions::run(args),
        "golden" => golden::run(args),
        "commands" => commands::run(args),
        "torture" => torture::run(args),
        "rigs" => rigs::run(args),
        "sbom" => sbom::run(args),
        "demo" => demo::run(args),
        _ => Err(format!("there is no such task\n\n{USAGE}")),
    }
}

/// The folder of the workspace's Cargo.toml: tasks run there wherever they were called from.
fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_path_buf()
}
