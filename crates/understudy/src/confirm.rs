//! Asking before something is done that cannot be undone.

use std::io::{BufRead, IsTerminal, Write};

/// Asks at the terminal whether every key of the target may be removed: its address has to be typed.
///
/// # Errors
/// The word for the operator, where nobody can be asked, or the answer is another one.
pub(crate) fn emptying(address: &str) -> Result<(), String> {
    if !std::io::stdin().is_terminal() {
        return Err(format!(
            "advanced.empty_db_before_sync removes every key of {address} before the first snapshot, and nobody is there to be asked; start with --yes, or at a terminal"
        ));
    }
    let mut out = std::io::stderr();
    let _ = write!(
        out,
        "advanced.empty_db_before_sync: before its first snapshot this removes EVERY key of {address}.\nType the target's address to go on: "
    );
    let _ = out.flush();
    is_confirmed(&mut std::io::stdin().lock(), address)
}

fn is_confirmed(answers: &mut impl BufRead, address: &str) -> Result<(), String> {
    let mut answer = String::new();
    let read = answers.read_line(&mut answer);
    match read {
        Ok(_) if answer.trim() == address => Ok(()),
        _ => Err("not confirmed; nothing was touched".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_address_confirms() {
        let answer = |text: &str| is_confirmed(&mut text.as_bytes(), "db:6379");
        assert!(answer("db:6379\n").is_ok());
        for text in ["", "\n", "y\n", "yes\n", "db:6380\n"] {
            assert!(answer(text).is_err(), "{text:?}");
        }
    }
}
