//! What the command line asks for.

use std::time::Duration;

const USAGE: &str = "\
usage: cargo xtask torture [--minutes N] [--seed S] [--round SECONDS] [--source ENGINE] [--target ENGINE]

Real servers, the real daemon, and faults on every side at once, chosen by the seed: the daemon is killed at least every
3 s, both lines are cut, stalled, held and thinned, the target dies, falls back, fails over, fills up and hangs. Every
round ends with proof: each counter exact, every key equal, one full sync. Exits with 1 at the first violation.
Logs stay under target/torture/SEED, with the spool if something was wrong.

  --minutes N       how long (default 10)
  --seed S          whose choices to repeat (default: from the clock, printed)
  --round SECONDS   faults between two proofs (default 60)
  --source ENGINE   where from (default redis-7.0; cargo xtask engines --list names them)
  --target ENGINE   where to (default redis-7.0; 7.0 or later, for the files of its AOF)";

/// What the command line asks for.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) length: Duration,
    pub(super) round: Duration,
    pub(super) seed: u64,
    pub(super) source: String,
    pub(super) target: String,
}

impl Options {
    /// `None` when only help was asked for, which is then printed.
    pub(super) fn parse(args: &[String]) -> Result<Option<Self>, String> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let mut options = Self {
            length: Duration::from_secs(600),
            round: Duration::from_secs(60),
            seed: now.map_or(0, |now| now.as_micros() as u64),
            source: "redis-7.0".into(),
            target: "redis-7.0".into(),
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value\n\n{USAGE}"));
            match arg.as_str() {
                "-h" | "--help" => {
                    println!("{USAGE}");
                    return Ok(None);
                }
                "--minutes" => options.length = seconds(arg, value()?, 60.0)?,
                "--round" => options.round = seconds(arg, value()?, 1.0)?,
                "--seed" => {
                    let text = value()?;
                    options.seed = text
                        .parse()
                        .map_err(|_| format!("--seed wants a number, not {text:?}"))?;
                }
                "--source" => options.source = value()?.clone(),
                "--target" => options.target = value()?.clone(),
                _ => return Err(format!("there is no option {arg}\n\n{USAGE}")),
            }
        }
        Ok(Some(options))
    }
}

fn seconds(name: &str, text: &str, unit: f64) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number < 1e6 => Ok(Duration::from_secs_f64(number * unit)),
        _ => Err(format!("{name} wants a number above 0, not {text:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Option<Options>, String> {
        let args: Vec<String> = words.split_whitespace().map(String::from).collect();
        Options::parse(&args)
    }

    #[test]
    fn takes_what_is_given_and_refuses_the_rest() {
        let options = parse("--minutes 0.5 --seed 7 --round 9").unwrap().unwrap();
        assert_eq!(options.length, Duration::from_secs(30));
        assert_eq!((options.seed, options.round), (7, Duration::from_secs(9)));
        assert!(parse("--help").unwrap().is_none());
        for bad in ["--minutes", "--minutes 0", "--seed x", "--rounds 3"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
