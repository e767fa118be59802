//! Variables of the environment in a file, before it is read as TOML: the forms that RedisShake's `envsubst` has.
//!
//! | form | an unset variable | an empty one |
//! |---|---|---|
//! | `${VAR}` | nothing | nothing |
//! | `${VAR:-other}`, `${VAR:=other}` | `other` | `other` |
//! | `${VAR-other}`, `${VAR=other}` | `other` | nothing |
//! | `${VAR+other}` | nothing | `other` |
//! | `${VAR:+other}` | nothing | nothing |
//! | `$VAR` | stays as it is typed: it may be part of a password | nothing |
//! | `$$VAR`, `$${VAR}` | `$VAR`, `${VAR}` | the same |
//!
//! `other` may hold variables.

/// The text with every variable replaced.
pub(super) fn expand(text: &str, var: impl Fn(&str) -> Option<String> + Copy) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        let (before, after) = rest.split_at(start);
        out.push_str(before);
        rest = one(after, var, &mut out);
    }
    out.push_str(rest);
    out
}

/// Writes what stands for the `$` at the beginning and what belongs to it; gives what follows.
fn one<'t>(
    text: &'t str,
    var: impl Fn(&str) -> Option<String> + Copy,
    out: &mut String,
) -> &'t str {
    let after = text.get(1..).unwrap_or_default();
    if let Some(escaped) = after.strip_prefix('$')
        && (name(escaped) > 0 || escaped.starts_with('{'))
    {
        out.push('$');
        let kept = name(escaped).max(usize::from(escaped.starts_with('{')));
        let (kept, rest) = escaped.split_at(kept);
        out.push_str(kept);
        return rest;
    }
    if let Some((said, rest)) = braced(after, var) {
        out.push_str(&said);
        return rest;
    }
    let (named, rest) = after.split_at(name(after));
    match var(named).filter(|_| !named.is_empty()) {
        Some(value) => out.push_str(&value),
        None => {
            out.push('$');
            out.push_str(named);
        }
    }
    rest
}

/// What `{VAR}` or `{VAR:-other}` at the beginning comes to, and what follows; `None` for anything else in braces.
fn braced(text: &str, var: impl Fn(&str) -> Option<String> + Copy) -> Option<(String, &str)> {
    let inside = text.strip_prefix('{')?;
    let (named, tail) = inside.split_at(name(inside));
    if named.is_empty() {
        return None;
    }
    let value = var(named);
    if let Some(rest) = tail.strip_prefix('}') {
        return Some((value.unwrap_or_default(), rest));
    }
    let (is_colon, tail) = match tail.strip_prefix(':') {
        Some(tail) => (true, tail),
        None => (false, tail),
    };
    let operator = tail.chars().next().filter(|c| "-=+".contains(*c))?;
    let (other, rest) = until_brace(tail.get(1..)?)?;
    let is_there = value
        .as_ref()
        .is_some_and(|value| !is_colon || !value.is_empty());
    let said = match (operator, is_there) {
        ('+', true) | ('-' | '=', false) => expand(other, var),
        ('+', false) => String::new(),
        _ => value.unwrap_or_default(),
    };
    Some((said, rest))
}

/// Up to the brace that closes, over those that open within; it stands in the same line.
fn until_brace(text: &str) -> Option<(&str, &str)> {
    let mut open = 0_u32;
    for (at, c) in text.char_indices() {
        match c {
            '\n' => return None,
            '{' => open += 1,
            '}' if open == 0 => return Some((text.get(..at)?, text.get(at + 1..)?)),
            '}' => open -= 1,
            _ => {}
        }
    }
    None
}

/// The length of the name at the beginning.
fn name(text: &str) -> usize {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.find(|c: char| !is_of_name(c)).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> String {
        expand(text, |name| match name {
            "HOST" => Some("db1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        })
    }

    #[test]
    fn every_form() {
        for (text, expected) in [
            ("a ${HOST}:1 ${NONE}.", "a db1:1 ."),
            ("${HOST:-x}${NONE:-x:6379}${EMPTY:-x}", "db1x:6379x"),
            ("${HOST-x}${NONE-x}${EMPTY-x}", "db1x"),
            ("${NONE=x}${NONE:=y}${EMPTY=z}", "xy"),
            ("${HOST+x}${NONE+x}${EMPTY+x}", "xx"),
            ("${HOST:+x}${NONE:+x}${EMPTY:+x}", "x"),
            ("${NONE:-${HOST}}:${NONE:-$HOST}", "db1:db1"),
            ("$HOST:1 $EMPTY", "db1:1 "),
            ("pa$word $ $1 $", "pa$word $ $1 $"),
            ("$$HOST $${HOST} $$", "$HOST ${HOST} $$"),
            ("${", "${"),
            ("${a b}", "${a b}"),
            ("${HOST:x}", "${HOST:x}"),
            ("${NONE:-no end\n}", "${NONE:-no end\n}"),
            ("\"^user:\\d+$\" '%s+$'", "\"^user:\\d+$\" '%s+$'"),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }
}
