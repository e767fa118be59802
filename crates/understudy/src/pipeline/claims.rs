//! Pending entries of messages that are no longer in their stream: before 7.0 an XCLAIM keeps them, from 7.0 on it forgets them.
//! A stream from the one to the other cannot say otherwise, so they are counted: `pending_forgotten`.

use resp::Arg;

use crate::status::Status;

/// The word for them among what was left out.
const LABEL: &str = "pending_forgotten";

/// Takes the commands out of `ended` (places of commands that have answered nothing, in order) that are XCLAIMs, and counts
/// them. `each` goes through the commands.
pub(super) fn count(
    status: &Status,
    ended: &mut Vec<usize>,
    each: impl FnOnce(&mut dyn FnMut(usize, &[u8], &[Arg])),
) {
    if ended.is_empty() {
        return;
    }
    let mut claims = Vec::new();
    each(&mut |at, frame, args| {
        let name = args.first().map(|arg| arg.of(frame)).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"xclaim") && ended.binary_search(&at).is_ok() {
            claims.push(at);
        }
    });
    ended.retain(|at| claims.binary_search(at).is_err());
    if !claims.is_empty() {
        status.dropped.add(LABEL, claims.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_told_from_keys_that_have_ended() {
        let mut bytes = Vec::new();
        for line in ["XCLAIM s g c 0 1-0", "PERSIST k", "XCLAIM s g c 0 2-0"] {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            resp::encode::command(&mut bytes, &words);
        }
        let mut ended = vec![1, 2];
        let status = Status::default();
        count(&status, &mut ended, |each| {
            crate::pipeline::each_command(&bytes, each);
        });
        assert_eq!(ended, [1]);
        assert_eq!(status.dropped.read().get(LABEL), Some(&1));
    }
}
