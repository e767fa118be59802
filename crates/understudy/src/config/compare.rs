//! The table `[compare]`.

use std::time::Duration;

use super::document::{ConfigError, Document};

/// How both ends are compared.
#[derive(Debug, Clone)]
pub struct CompareConfig {
    /// Keys out of a million that are looked at.
    pub sample_ppm: u32,
    /// Most keys a second; 0: no limit.
    pub qps: u64,
    /// Keys a second that sync compares all the while; 0: none.
    pub background_qps: u64,
    /// Expiries that are not further apart are equal.
    pub ttl_tolerance: Duration,
    /// How often a key that differs is looked at before it is looked at closely.
    pub rounds: u32,
    /// Between two of them.
    pub pause: Duration,
}

/// All keys.
pub(crate) const WHOLE_PPM: u32 = 1_000_000;

pub(super) fn read(doc: &Document) -> Result<CompareConfig, ConfigError> {
    let sample = doc.text("compare.sample");
    let sample_ppm = share_ppm(&sample)
        .map_err(|why| doc.error("compare.sample", format!("compare.sample {why}")))?;
    Ok(CompareConfig {
        sample_ppm,
        qps: doc.int("compare.qps"),
        background_qps: doc.int("compare.background_qps"),
        ttl_tolerance: Duration::from_millis(doc.int("compare.ttl_tolerance")),
        rounds: u32::try_from(doc.int("compare.rounds")).unwrap_or(u32::MAX),
        pause: Duration::from_millis(doc.int("compare.pause")),
    })
}

/// `"0.5%"`, `"full"` to parts of a million.
pub(crate) fn share_ppm(text: &str) -> Result<u32, String> {
    let wrong = || {
        format!(
            "is {text:?}, but must be a share of the keys such as \"100%\", \"5%\" or \"0.01%\" (at least \"0.0001%\"), or \"full\""
        )
    };
    if text.trim().eq_ignore_ascii_case("full") {
        return Ok(WHOLE_PPM);
    }
    let number = text.trim().strip_suffix('%').ok_or_else(wrong)?.trim();
    let percent: f64 = number.parse().map_err(|_| wrong())?;
    if !(0.0001..=100.0).contains(&percent) {
        return Err(wrong());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and a million"
    )]
    Ok((percent * 1e4).round() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares() {
        assert_eq!(share_ppm("100%"), Ok(1_000_000));
        assert_eq!(share_ppm("full"), Ok(1_000_000));
        assert_eq!(share_ppm("0.5 %"), Ok(5_000));
        assert_eq!(share_ppm("0.0001%"), Ok(1));
        for wrong in ["", "5", "0%", "101%", "-1%", "NaN%", "many"] {
            let error = share_ppm(wrong).unwrap_err();
            assert!(error.contains("\"5%\""), "{wrong}: {error}");
        }
    }
}
