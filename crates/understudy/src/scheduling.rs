//! How the kernel schedules the link's thread.

/// Asks for the batch policy (`SCHED_BATCH`): on a machine that is busy, what has just come in does not interrupt whoever
/// runs there, so that it is worked off together with what comes next, and a source or target beside us is not disturbed
/// for every few bytes. Where a processor is free nothing changes. A policy or niceness that somebody has chosen is left
/// alone, and not to get this one is no harm.
pub(crate) fn give_way() {
    #[cfg(target_os = "linux")]
    {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap_or_default();
        if !is_usual(&stat) {
            return;
        }
        if let Err(error) = linux::set_batch() {
            tracing::debug!(%error, "the usual scheduling policy stays");
        }
    }
}

/// Whether a `/proc/.../stat` tells of a thread of niceness 0 with the usual policy.
#[cfg(target_os = "linux")]
fn is_usual(stat: &str) -> bool {
    // The name may have anything in it, up to the last parenthesis; the fields behind it are counted from 3 on.
    let behind_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<&str> = behind_name.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied();
    field(19) == Some("0") && field(41) == Some("0")
}

#[cfg(target_os = "linux")]
mod linux {
    use thread_priority::{
        NormalThreadSchedulePolicy, ThreadPriority, ThreadPriorityValue, ThreadSchedulePolicy,
        set_thread_priority_and_policy, thread_native_id,
    };

    /// Of 0 to 99; it comes to the niceness that was there, 0.
    const USUAL: u8 = 47;

    pub(super) fn set_batch() -> Result<(), Box<dyn std::error::Error>> {
        let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
        let priority = ThreadPriorityValue::try_from(USUAL)?;
        let priority = ThreadPriority::Crossplatform(priority);
        set_thread_priority_and_policy(thread_native_id(), priority, policy)
            .map_err(|error| format!("{error:?}").into())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_and_keeps_its_niceness() {
        let stat = || std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let run = move || {
            let before = stat();
            give_way();
            (before, stat())
        };
        let (before, after) = std::thread::spawn(run).join().unwrap();
        let fields = |stat: &str| {
            let (_, rest) = stat.rsplit_once(')').unwrap();
            let fields: Vec<&str> = rest.split_whitespace().collect();
            [fields[19 - 3].to_owned(), fields[41 - 3].to_owned()]
        };
        let expected = if is_usual(&before) {
            ["0".to_owned(), "3".to_owned()]
        } else {
            fields(&before)
        };
        assert_eq!(fields(&after), expected, "niceness and policy");
    }

    #[test]
    fn what_somebody_has_chosen_is_found() {
        let stat = |nice: &str, policy: &str| {
            let middle = "0 ".repeat(21);
            format!("1 (a) b) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 {nice} {middle}{policy} 0 0")
        };
        assert!(is_usual(&stat("0", "0")));
        assert!(!is_usual(&stat("10", "0")) && !is_usual(&stat("0", "1")));
        assert!(!is_usual(""));
    }
}
