//! Figures as people read them.

use std::time::Duration;

/// 1234567 as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes with the unit that leaves the fewest digits.
pub(crate) fn bytes(number: u64) -> String {
    let mut value = number as f64;
    for unit in ["B", "kB", "MB"] {
        if value < 1000.0 {
            let places = usize::from(unit != "B" && value < 100.0);
            return format!("{value:.places$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.2} GB")
}

/// `0.123 s` below ten seconds, `12.3 s` above, `2 min 3 s` above two minutes.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{:.3} s", time.as_secs_f64()),
        1..120 => format!("{:.1} s", time.as_secs_f64()),
        whole => format!("{} min {} s", whole / 60, whole % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(12_345), "12.3 kB");
        assert_eq!(bytes(345_678_901), "346 MB");
        assert_eq!(bytes(7_345_678_901), "7.35 GB");
        assert_eq!(seconds(Duration::from_millis(42)), "0.042 s");
        assert_eq!(seconds(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(seconds(Duration::from_secs(123)), "2 min 3 s");
    }
}
