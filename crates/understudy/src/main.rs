//! The `understudy` binary: runs the command line and is the only place that exits.

use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::panic::catch_unwind(understudy::cli::run) {
        Ok(code) => ExitCode::from(code),
        Err(_) => {
            // Nobody may be there to read it.
            let _ = writeln!(
                std::io::stderr(),
                "error: this is a bug in understudy; nothing that was applied is lost, a new start goes on from the target's checkpoint"
            );
            ExitCode::from(70)
        }
    }
}
