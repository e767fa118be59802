//! Commands that were refused, in words.

use resp::ErrorReply;

use crate::client::mend;
use crate::error::Side;
use crate::pipeline::ALLOW_LOSS;
use crate::pipeline::unit::Sealed;

/// What can be done about a command that cannot be said at the target.
pub(in crate::pipeline) fn mend_of(error: &rewrite::Error) -> &'static str {
    match error.kind {
        rewrite::ErrorKind::TargetLacks { .. }
        | rewrite::ErrorKind::CommandUnknown
        | rewrite::ErrorKind::TypeUnknown { .. }
        | rewrite::ErrorKind::ModuleUnknown { .. } => ALLOW_LOSS,
        _ => "",
    }
}

/// Names the command that was refused, its key, and what can be done.
pub(super) fn describe(sealed: &Sealed, index: Option<usize>, error: &ErrorReply) -> String {
    let text = String::from_utf8_lossy(&error.text);
    let mend = mend(error.code, Side::Target)
        .map(|mend| format!("; {mend}"))
        .unwrap_or_default();
    match index.and_then(|index| sealed.command(index)) {
        Some(argv) => {
            let words: Vec<String> = argv.iter().take(2).map(|word| show(word)).collect();
            format!("{} was refused: {text}{mend}", words.join(" "))
        }
        None => format!("a unit was refused: {text}{mend}"),
    }
}

/// A word for people: escaped, and cut at 64 bytes.
pub(crate) fn show(word: &[u8]) -> String {
    let cut = word.get(..64).unwrap_or(word);
    let dots = if cut.len() < word.len() { "..." } else { "" };
    format!("{}{dots}", cut.escape_ascii())
}
