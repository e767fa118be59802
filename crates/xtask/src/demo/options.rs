//! What the command line asks for.

const USAGE: &str = "\
usage: cargo xtask demo [--keys N] [--seconds N] [--source ENGINE] [--target ENGINE] [--keep]

Moves a live, loaded Redis to a target that allows no replication, kills the daemon on the way, switches over, and
proves that every key is there and no write was lost or doubled. Everything runs on this machine, under target/demo.

  --keys N         keys at the source, besides a few big ones (default 60000)
  --seconds N      how long the stream runs under load before the switch (default 12)
  --source ENGINE  where from (default redis-7.0; cargo xtask engines --list names them)
  --target ENGINE  where to (default valkey-8.1)
  --keep           leave everything running at the end, until Ctrl-C

Example: cargo xtask demo --keys 200000 --target redis-7.2";

/// What the command line asks for.
pub(super) struct Options {
    pub(super) keys: u64,
    pub(super) seconds: u64,
    pub(super) source: String,
    pub(super) target: String,
    pub(super) keep: bool,
}

impl Options {
    /// `None` when only help was asked for, which is then printed.
    pub(super) fn parse(args: &[String]) -> Result<Option<Self>, String> {
        let mut options = Self {
            keys: 60_000,
            seconds: 12,
            source: "redis-7.0".into(),
            target: "valkey-8.1".into(),
            keep: false,
        };
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} wants a value\n\n{USAGE}"));
            match arg.as_str() {
                "-h" | "--help" => {
                    println!("{USAGE}");
                    return Ok(None);
                }
                "--keys" => options.keys = number(arg, value()?)?,
                "--seconds" => options.seconds = number(arg, value()?)?,
                "--source" => options.source = value()?.clone(),
                "--target" => options.target = value()?.clone(),
                "--keep" => options.keep = true,
                _ => return Err(format!("there is no option {arg}\n\n{USAGE}")),
            }
        }
        Ok(Some(options))
    }
}

fn number(name: &str, text: &str) -> Result<u64, String> {
    let plain = text.replace(['_', ','], "");
    match plain.parse() {
        Ok(number) if number > 0 => Ok(number),
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
    fn every_option_is_taken() {
        let words = "--keys 1_000 --seconds 3 --source redis-6.2 --target redis-7.2 --keep";
        let options = parse(words).unwrap().unwrap();
        assert_eq!((options.keys, options.seconds), (1000, 3));
        assert_eq!(
            (options.source.as_str(), options.target.as_str()),
            ("redis-6.2", "redis-7.2")
        );
        assert!(options.keep);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (words, why) in [
            ("--keys", "wants a value"),
            ("--keys many", "a number above 0"),
            ("--seconds 0", "a number above 0"),
            ("--fast", "no option --fast"),
        ] {
            let error = parse(words).err().unwrap();
            assert!(error.contains(why), "{words}: {error}");
        }
    }
}
