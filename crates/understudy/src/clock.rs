//! The wall clock, in one place, and what a server's TIME says.

use std::time::{SystemTime, UNIX_EPOCH};

use resp::Value;

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    #[cfg(test)]
    if let Some(now_ms) = crate::sim::unix_ms() {
        return now_ms;
    }
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The reply to TIME, seconds and microseconds, in milliseconds.
pub(crate) fn time_ms(reply: &Value) -> Option<i64> {
    let Value::Array(time) = reply else {
        return None;
    };
    let number = |value: Option<&Value>| -> Option<i64> {
        std::str::from_utf8(value?.as_bytes()?).ok()?.parse().ok()
    };
    Some(number(time.first())? * 1000 + number(time.get(1))? / 1000)
}

/// As [`unix_ms`], as servers tell times.
pub(crate) fn now_ms() -> i64 {
    i64::try_from(unix_ms()).unwrap_or(i64::MAX)
}

/// `2026-11-22 17:05:09` in UTC, as RedisShake's status has it.
pub(crate) fn date_time(unix_ms: u64) -> String {
    let seconds = unix_ms / 1000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Days are counted from 1 March of year 0, so that the leap day is the last of its year.
    let day = days + 719_468;
    let (era, day_of_era) = (day / 146_097, day % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(date_time(0), "1970-01-01 00:00:00");
        assert_eq!(date_time(951_782_400_000), "2000-02-29 00:00:00");
        assert_eq!(date_time(1_795_369_113_936), "2026-11-22 17:38:33");
    }
}
