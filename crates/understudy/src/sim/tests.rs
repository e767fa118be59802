//! Seeds in thousands, and one workload that is broken off at every single place.

use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::plan::{Fault, Plan};
use super::process::{Blow, Death, Effect};
use super::run::{Report, run};
use super::world::{Place, Weather};

/// Seeds of an ordinary run.
const SEEDS: u64 = 4_000;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Failures after which no more are looked for.
const FAILURES_MAX: usize = 10;

/// Runs all of them on all cores; those that fail with their errors, the first of them first.
fn failures<T: Send>(
    count: u64,
    failures_max: usize,
    run: impl Fn(u64) -> Result<T, String> + Sync,
) -> (Vec<T>, Vec<(u64, String)>) {
    let next = AtomicU64::new(0);
    let (good, bad) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count || bad.lock().unwrap().len() >= failures_max {
                        return;
                    }
                    match run(index) {
                        Ok(report) => good.lock().unwrap().push(report),
                        Err(error) => bad.lock().unwrap().push((index, error)),
                    }
                }
            });
        }
    });
    let mut bad = bad.into_inner().unwrap();
    bad.sort();
    (good.into_inner().unwrap(), bad)
}

fn first_failure<T: Send>(
    count: u64,
    run: impl Fn(u64) -> Result<T, String> + Sync,
) -> (Vec<T>, Option<(u64, String)>) {
    let (good, bad) = failures(count, 1, run);
    (good, bad.into_iter().next())
}

#[test]
fn whatever_goes_wrong_nothing_is_lost_and_nothing_doubled() {
    if let Some(seed) = number("UNDERSTUDY_SIM_SEED") {
        let report = run(&Plan::of(seed), true);
        println!("{report:?}");
        report.unwrap();
        return;
    }
    let count = number("UNDERSTUDY_SIM_SEEDS").unwrap_or(SEEDS);
    let from = number("UNDERSTUDY_SIM_FROM").unwrap_or(1);
    let began = std::time::Instant::now();
    let (reports, failures) = failures(count, FAILURES_MAX, |index| {
        run(&Plan::of(from + index), false)
    });
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    println!(
        "{} seeds from {from} in {:?}: {} looks, {} starts, {} + {} full syncs, {} s lived",
        reports.len(),
        began.elapsed(),
        sum(|report| report.looks),
        sum(|report| report.starts),
        sum(|report| report.full_syncs.asked),
        sum(|report| report.full_syncs.refused),
        sum(|report| report.took_ms) / 1000,
    );
    for (index, error) in &failures {
        println!("UNDERSTUDY_SIM_SEED={}: {error}", from + index);
    }
    assert!(
        failures.is_empty(),
        "run them alone, each with its UNDERSTUDY_SIM_SEED"
    );
}

/// Seeds that have shown a fault. What their worlds bring changes with the program; they are kept for what they are rich in.
const MENDED: [(u64, &str); 24] = [
    (957, "a source that tells no version, and repairs"),
    (1060, "a lease written by a daemon that had lost the link"),
    (1141, "a target that fell back to another form of a lease"),
    (1450, "a target that has lost its end in the snapshot phase"),
    (1481, "keys ended while the target was down"),
    (
        1585,
        "a snapshot taken over between the look and the taking",
    ),
    (1816, "a lease judged before its command was applied"),
    (
        2243,
        "expiries given back before the stream was once in time",
    ),
    (2255, "two daemons that begin at once"),
    (
        7799,
        "a history renamed before anything of it came, and a target that fell back",
    ),
    (19019, "a sweep of a daemon that had lost the link"),
    (
        4518,
        "a stop while a target was looked for that had fallen back to before this run",
    ),
    (
        24944,
        "a source that had lost its keys, rightly asked about",
    ),
    (
        1244,
        "keys known by an unseen part alone, which the spool had lost",
    ),
    (27315, "a lease ended by a daemon that had lost the link"),
    (32389, "a lease renewed by a daemon that had lost the link"),
    (58564, "a key ended while the target was lost for a second"),
    (66328, "a checkpoint that moved on before it was taken"),
    (82194, "a key ended while the target was out of memory"),
    (
        85888,
        "a source taken for a smaller one, by what another daemon had written",
    ),
    (
        92138,
        "a lease was renewed by an EXEC that came after the link was taken",
    ),
    (
        2351,
        "a key that was saved a moment before its end was ended by the lag",
    ),
    (
        71467,
        "keys to be repaired were taken for seen at an offset that had been seen before the target fell back",
    ),
    (
        7699,
        "a lease under another name was looked for before it was there",
    ),
];

#[test]
fn seeds_that_have_shown_a_fault_do_so_no_more() {
    for (seed, what) in MENDED {
        if let Err(error) = run(&Plan::of(seed), false) {
            panic!("{what}: {error}\nrun it alone with UNDERSTUDY_SIM_SEED={seed}");
        }
    }
}

#[test]
fn a_seed_runs_the_same_each_time() {
    for seed in 1..60 {
        let plan = Plan::of(seed);
        assert_eq!(run(&plan, false), run(&plan, false), "seed {seed}");
    }
}

/// A small life in fair weather.
fn quiet() -> Plan {
    Plan {
        weather: Weather::CALM,
        writes: 25,
        gap_ms: 60,
        keys: 2,
        expiries: true,
        backlog_bytes: 1 << 20,
        batch_commands: 3,
        tail_bytes: 100,
        retain_bytes: 1 << 20,
        inflight_bytes: 200,
        restore: false,
        named_max: None,
        unseen_bytes_max: u64::MAX,
        machines: vec![0],
        faults: Vec::new(),
        death: None,
        ..Plan::of(7)
    }
}

/// At every effect that the daemon has on its disk and its sockets, something happens to it.
#[test]
fn broken_off_at_every_single_place() {
    let plan = quiet();
    let whole = run(&plan, false).unwrap();
    assert!(whole.effects > 100, "{whole:?}");
    let mut ways = Vec::new();
    for at in 1..=whole.effects {
        for effect in [Effect::None, Effect::Half] {
            for blow in [Blow::Kill, Blow::PowerLoss] {
                ways.push(Death { at, effect, blow });
            }
        }
        let cuts = [Place::Source, Place::Target].map(Blow::Cut);
        for blow in cuts.into_iter().chain((0..4).map(Blow::TargetFalls)) {
            let effect = Effect::Whole;
            ways.push(Death { at, effect, blow });
        }
    }
    let (good, failure) = first_failure(ways.len() as u64, |index| {
        let death = Some(ways[index as usize]);
        run(
            &Plan {
                death,
                ..plan.clone()
            },
            false,
        )
    });
    println!(
        "{} effects, {} ways to be broken off",
        whole.effects,
        good.len()
    );
    if let Some((index, error)) = failure {
        panic!("{:?}: {error}", ways[index as usize]);
    }
}

/// The target falls back to before the daemon that has it now, and the stop comes before the daemon has found it again: its
/// keys have to get their own expiries all the same.
#[test]
fn a_stop_while_the_target_is_looked_for_leaves_it_in_good_order() {
    let ways: Vec<(usize, u64)> = (0..10)
        .flat_map(|lost| (10..36).map(move |tenths| (lost, tenths * 100)))
        .collect();
    let (_, failures) = failures(ways.len() as u64, FAILURES_MAX, |index| {
        let (lost, down_ms) = ways[index as usize];
        let kill = Fault::Kill {
            machine: 0,
            after: 1,
        };
        let falls = Fault::TargetFalls { lost, down_ms };
        let faults = vec![(4_000, kill), (6_500, falls)];
        run(&Plan { faults, ..quiet() }, false)
    });
    let failures = failures
        .iter()
        .map(|(index, error)| (ways[*index as usize], error));
    assert_eq!(failures.collect::<Vec<_>>(), []);
}

/// A small life in which commands fail at the target, whose keys others have written.
fn spoilt() -> Plan {
    let spoil = |at_ms, n| (at_ms, Fault::Spoil { db: 0, n });
    Plan {
        // Keys that are written once, by a command that fails, and never again.
        faults: vec![spoil(600, 7), spoil(900, 8), spoil(1_200, 9)],
        expiries: false,
        ..quiet()
    }
}

/// Runs `plan`, and what befalls it at every single effect: the daemon dies, or loses the target.
fn whatever_befalls(plan: &Plan) -> Vec<Report> {
    let whole = run(plan, false).unwrap();
    assert!(whole.effects > 100, "{whole:?}");
    let mut ways = Vec::new();
    for at in 1..=whole.effects {
        for (effect, blow) in [
            (Effect::None, Blow::Kill),
            (Effect::Half, Blow::Kill),
            (Effect::Whole, Blow::Kill),
            (Effect::Whole, Blow::Cut(Place::Target)),
            (Effect::Whole, Blow::TargetFalls(1)),
        ] {
            ways.push(Death { at, effect, blow });
        }
    }
    let (good, failures) = failures(ways.len() as u64, FAILURES_MAX, |index| {
        let death = Some(ways[index as usize]);
        run(
            &Plan {
                death,
                ..plan.clone()
            },
            false,
        )
    });
    println!("{} effects, {} ways", whole.effects, good.len());
    let failures = failures
        .iter()
        .map(|(index, error)| (ways[*index as usize], error));
    assert_eq!(failures.collect::<Vec<_>>(), []);
    good
}

/// Commands fail at the target, and at every single effect the daemon dies, or loses the target: also between an EXEC and
/// the look at its replies. The keys have to be repaired all the same, without another snapshot.
#[test]
fn an_error_that_nobody_saw_is_not_forgotten() {
    let reports = whatever_befalls(&spoilt());
    assert!(reports.iter().all(|report| report.full_syncs.refused == 0));
}

/// The same where the checkpoint has no room for the names of the keys under repair: a daemon that dies meanwhile leaves a
/// target of which only a new snapshot makes sure, and the next one takes it.
#[test]
fn keys_that_a_checkpoint_cannot_name_are_not_forgotten() {
    let plan = Plan {
        named_max: Some(0),
        ..spoilt()
    };
    let reports = whatever_befalls(&plan);
    let snapshots = |report: &&Report| report.full_syncs.asked + report.full_syncs.refused > 1;
    let count = reports.iter().filter(snapshots).count();
    assert!(
        count > 10 && count < reports.len() / 2,
        "{count} of {} took another snapshot",
        reports.len()
    );
}
