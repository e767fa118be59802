//! Everything that can go goes once, under load: the line to the source, the line to the target, the daemon, the target, the source.
//! At the end every counter is exact, and every key of the target is what the source has.

use std::time::Duration;

use testkit::{Counters, Rng, oracle};

use super::compose::Rig;
use super::wait;

/// Operations a second; the source syncs each of them to its disk.
const RATE: u64 = 300;
/// How long a line is cut, or a process away.
const AWAY: Duration = Duration::from_millis(1500);

pub(super) fn drill(rig: &Rig) -> Result<String, String> {
    let away = || std::thread::sleep(AWAY);
    let (source, target) = (rig.source(), rig.target());
    let counters = Counters::start(&source, Rng::seed_from_env(), RATE);
    let goes_on = |what: &str| {
        let goal = counters.acknowledged() + RATE / 4;
        wait(&format!("the load to go on after {what}"), || {
            counters.acknowledged() >= goal
        })?;
        rig.wait_ready()
    };
    goes_on("the start")?;
    rig.cut("upstream", away)?;
    goes_on("the line to the source was cut")?;
    rig.cut("downstream", away)?;
    goes_on("the line to the target was cut")?;
    rig.kill("understudy", away)?;
    goes_on("the daemon was killed")?;
    rig.kill("target", away)?;
    Rig::wait_answer(&target)?;
    goes_on("the target was killed")?;
    rig.kill("source", away)?;
    Rig::wait_answer(&source)?;
    goes_on("the source was killed")?;
    let ledger = counters.stop();
    rig.wait_ready()?;
    // What was written last may still be on its way.
    wait("the target to be equal", || {
        oracle::compare(&source, &target).is_empty()
    })?;
    let wrong = ledger.check(&target);
    if !wrong.is_empty() {
        return Err(format!("counters:\n{}", wrong.join("\n")));
    }
    Ok(format!(
        "{} operations exact over two cuts and three kills",
        ledger.total()
    ))
}
