//! Ctrl-C: nothing that a task has started outlives it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use testkit::process::{Signal, signal};

/// Folders that go when the process is ended by a signal.
static FOLDERS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// From now on a signal ends the children first, then this process.
pub(crate) fn stop_them_on_signals() {
    let mut signals =
        Signals::new([SIGINT, SIGTERM, SIGHUP]).expect("these signals may be handled");
    std::thread::spawn(move || {
        if let Some(number) = signals.forever().next() {
            // Threads that lose their server now have nothing to say.
            std::panic::set_hook(Box::new(|_| {}));
            for child in of(std::process::id()) {
                // It may end by itself in this moment.
                let _ = std::panic::catch_unwind(|| signal(child, Signal::KILL));
            }
            remove_folders();
            println!("\nstopped, and so is everything that was started");
            std::process::exit(128 + number);
        }
    });
}

/// Removes this folder too when a signal ends the process.
pub(crate) fn goes_with_us(folder: &Path) {
    let mut folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    folders.push(folder.into());
}

fn remove_folders() {
    let folders = FOLDERS.lock().unwrap_or_else(PoisonError::into_inner);
    for folder in folders.iter() {
        // It lies where temporary files lie.
        let _ = fs::remove_dir_all(folder);
    }
}

/// The processes whose parent this is.
fn of(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}

/// The fourth field of /proc/PID/stat; the second is a name in parentheses that may hold anything.
fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_is_found_while_it_runs() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        assert!(of(std::process::id()).contains(&child.id()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!of(std::process::id()).contains(&child.id()));
    }
}
