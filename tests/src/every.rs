//! Every write command that the generated table has and a server knows, with something to do.

use testkit::client::{Argv, bytes, items};
use testkit::{Client, Rng, Server, argv};

/// Those that have no recipe, and why.
const EXEMPT: [(&str, &str); 4] = [
    (
        "cluster|flushslot",
        "a node of a cluster, which the source is not",
    ),
    ("move", "a cluster has database 0 alone: refused by name"),
    ("swapdb", "a cluster has database 0 alone: refused by name"),
    ("trimslots", "a node of a cluster, which the source is not"),
];
/// Those that leave nothing of what was there before.
const EMPTYING: [&str; 2] = ["flushall", "flushdb"];
const CODE: &str = "#!lua name=every\nredis.register_function('put', function(keys, args) return redis.call('SET', keys[1], args[1]) end)";

/// The recipes for a server.
pub struct Every {
    recipes: Vec<(String, Vec<String>)>,
    list: Vec<u8>,
    library: Vec<u8>,
    other: Server,
    /// What its keys begin with.
    prefix: String,
    round: u64,
}

impl Every {
    /// Those of the commands that the server at `client` knows.
    ///
    /// # Panics
    /// When a write command of the table has no recipe.
    pub fn new(client: &mut Client, engine: &str) -> Self {
        Self::within(client, engine, "every")
    }

    /// The same with keys that begin like this: with a tag all of them are in one slot, whose node the client is at.
    ///
    /// # Panics
    /// When a write command of the table has no recipe.
    pub fn within(client: &mut Client, engine: &str, prefix: &str) -> Self {
        let mut recipes = Vec::new();
        for line in include_str!("every.txt").lines() {
            let Some((name, rest)) = line.split_once(": ").filter(|_| !line.starts_with('#'))
            else {
                continue;
            };
            recipes.push((
                name.to_owned(),
                rest.split("; ").map(str::to_owned).collect(),
            ));
        }
        let known = |name: &str| {
            recipes.iter().any(|(known, _)| known == name)
                || EXEMPT.iter().any(|(known, _)| *known == name)
        };
        let writes = rewrite::table::all()
            .iter()
            .filter(|command| command.flags.has(rewrite::table::Flags::WRITE));
        let without: Vec<&str> = writes
            .map(|command| &*command.name)
            .filter(|name| !known(name))
            .collect();
        assert!(without.is_empty(), "no recipe in every.txt: {without:?}");
        let mut info = argv!["COMMAND", "INFO"];
        info.extend(recipes.iter().map(|(name, _)| name.clone().into_bytes()));
        let known = items(client.command(&info));
        let mut known = known.into_iter().map(|row| format!("{row:?}") != "nil");
        recipes.retain(|_| known.next() == Some(true));
        let dumped = format!("{prefix}:dumped");
        let replies = client.commands(&[
            argv!["RPUSH", dumped.as_str(), 1, "two"],
            argv!["DUMP", dumped.as_str()],
            argv!["FUNCTION", "LOAD", "REPLACE", CODE],
            argv!["FUNCTION", "DUMP"],
        ]);
        let mut replies = replies.into_iter();
        let (list, library) = (replies.nth(1), replies.nth(1));
        Self {
            recipes,
            list: list.map(bytes).unwrap_or_default(),
            library: library.map(bytes).unwrap_or_default(),
            other: Server::of(engine),
            prefix: prefix.to_owned(),
            round: 0,
        }
    }

    /// Runs all of them once, in an order of its own each time; gives how many commands they were.
    ///
    /// # Panics
    /// When the server refuses one.
    pub fn run(&mut self, client: &mut Client, rng: &mut Rng, pause: impl Fn()) -> u64 {
        let mut order: Vec<usize> = (0..self.recipes.len()).collect();
        for at in (1..order.len()).rev() {
            order.swap(
                at,
                usize::try_from(rng.below(at as u64 + 1)).expect("a place"),
            );
        }
        // What empties everything comes first, so that something is left.
        order.sort_by_key(|at| !EMPTYING.contains(&self.recipes[*at].0.as_str()));
        let mut count = 0;
        for at in order {
            let (name, lines) = &self.recipes[at];
            for line in lines {
                client.command(&self.words(name, line));
                count += 1;
            }
            pause();
        }
        self.round += 1;
        count
    }

    /// From here on nothing is emptied.
    pub fn leave_out_what_empties(&mut self) {
        self.recipes
            .retain(|(name, _)| !EMPTYING.contains(&name.as_str()));
    }

    /// Names of the commands.
    pub fn names(&self) -> Vec<&str> {
        self.recipes.iter().map(|(name, _)| name.as_str()).collect()
    }

    fn words(&self, name: &str, line: &str) -> Argv {
        let word = |word: &str| match word.strip_prefix('$') {
            Some("f") => CODE.as_bytes().to_vec(),
            Some("x") => self.list.clone(),
            Some("l") => self.library.clone(),
            Some("p") => self.other.port().to_string().into_bytes(),
            Some(key @ ("a" | "b" | "c" | "d")) => {
                format!("{}:{name}:{}:{key}", self.prefix, self.round).into_bytes()
            }
            _ => word.as_bytes().to_vec(),
        };
        line.split(' ').map(word).collect()
    }
}
