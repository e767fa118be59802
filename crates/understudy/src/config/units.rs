//! Sizes, times and addresses as people write them.

/// `"20gb"`, `"64 kb"`, `"512"` to bytes. Units are powers of 1024, as in redis.conf's `gb`.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || {
        format!("is {text:?}, but must be a size such as 1048576, \"64kb\", \"1mb\" or \"20gb\"")
    };
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor: i64 = match unit.as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

/// `"500ms"`, `"10s"`, `"5m"`, `"1h"` to milliseconds; a bare number is seconds.
pub(crate) fn time_ms(text: &str) -> Result<i64, String> {
    let wrong = || format!("is {text:?}, but must be a time such as \"500ms\", \"10s\" or \"5m\"");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let factor: i64 = match unit.as_str() {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    number.checked_mul(factor).ok_or_else(wrong)
}

fn split(text: &str) -> Option<(i64, String)> {
    let text = text.trim();
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number = text.get(..digits)?.parse().ok()?;
    Some((number, text.get(digits..)?.trim().to_ascii_lowercase()))
}

/// Checks `host:port`; an empty text is the unset default.
pub(crate) fn address(text: &str) -> Result<(), String> {
    let wrong = || match text.contains('@') {
        // What stands before the @ of a URL may be a password.
        true => "must be \"host:port\" alone; user and password have keys of their own".to_owned(),
        false => format!("is {text:?}, but must be \"host:port\", e.g. \"127.0.0.1:6379\""),
    };
    if text.is_empty() {
        return Ok(());
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    match port.parse::<u16>() {
        Ok(port) if port > 0 && !host.is_empty() && !host.contains(['/', ' ', '@']) => Ok(()),
        _ => Err(wrong()),
    }
}

/// A count of bytes for people: `"158.2 MiB"`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{bytes} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("20gb"), Ok(20 << 30));
        assert_eq!(bytes("64 KB"), Ok(64 << 10));
        assert_eq!(bytes("7"), Ok(7));
        assert!(bytes("gb").is_err());
        assert!(bytes("1xb").is_err());
        assert!(bytes("9999999999999tb").is_err());
    }

    #[test]
    fn times() {
        assert_eq!(time_ms("500ms"), Ok(500));
        assert_eq!(time_ms("10"), Ok(10_000));
        assert_eq!(time_ms("5m"), Ok(300_000));
        assert!(time_ms("5 parsecs").is_err());
    }

    #[test]
    fn addresses() {
        assert!(address("[::1]:6379").is_ok());
        assert!(address("db:0").is_err());
        assert!(address("redis://db:1").is_err());
        assert!(address("db").is_err());
    }

    #[test]
    fn bytes_for_people() {
        assert_eq!(human_bytes(17), "17 B");
        assert_eq!(human_bytes(1536), "1.5 KiB");
    }
}
