//! AWS Signature Version 4 in its presigned form: a URL whose query says who, when, for how long, and proves it.
//!
//! ```text
//! canonical request = GET \n path \n sorted query \n host:<host> \n \n host \n hash of the payload
//! string to sign    = AWS4-HMAC-SHA256 \n time \n date/region/service/aws4_request \n hash of the canonical request
//! signature         = HMAC(HMAC(HMAC(HMAC(HMAC("AWS4" secret, date), region), service), "aws4_request"), string to sign)
//! ```
//! ElastiCache wants the hash of an empty payload and no other header than the host signed, for which the crate that the
//! credentials come from has no way.

use std::fmt::Write;

use reqsign_aws_v4::Credential;
use reqsign_core::time::Timestamp;
use ring::{digest, hmac};

/// What is signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Presign<'a> {
    pub(super) host: &'a str,
    pub(super) path: &'a str,
    /// The request's own query, unencoded.
    pub(super) query: &'a [(&'a str, &'a str)],
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// Hash of the payload, or the word for none.
    pub(super) payload: &'a str,
    pub(super) at: Timestamp,
    pub(super) life_s: u64,
}

/// Hash of an empty payload.
pub(super) const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

impl Presign<'_> {
    /// `host/path?query`, signed.
    pub(super) fn url(&self, credential: &Credential) -> String {
        let scope = self.scope();
        let (time, life) = (self.at.format_iso8601(), self.life_s.to_string());
        let who = format!("{}/{scope}", credential.access_key_id);
        let mut query = self.query.to_vec();
        query.extend([
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", &*who),
            ("X-Amz-Date", &*time),
            ("X-Amz-Expires", &*life),
            ("X-Amz-SignedHeaders", "host"),
        ]);
        if let Some(token) = &credential.session_token {
            query.push(("X-Amz-Security-Token", token));
        }
        let query = canonical_query(&query);
        let (host, path, payload) = (self.host, self.path, self.payload);
        let request = format!("GET\n{path}\n{query}\nhost:{host}\n\nhost\n{payload}");
        let signature = self.signature(&credential.secret_access_key, &request);
        format!("{host}{path}?{query}&X-Amz-Signature={signature}")
    }

    fn scope(&self) -> String {
        let date = self.at.format_date();
        format!("{date}/{}/{}/aws4_request", self.region, self.service)
    }

    /// The signature of a canonical request.
    fn signature(&self, secret: &str, request: &str) -> String {
        let hash = hex(digest::digest(&digest::SHA256, request.as_bytes()).as_ref());
        let time = self.at.format_iso8601();
        let text = format!("AWS4-HMAC-SHA256\n{time}\n{}\n{hash}", self.scope());
        let mut key = format!("AWS4{secret}").into_bytes();
        let date = self.at.format_date();
        for part in [&*date, self.region, self.service, "aws4_request"] {
            key = keyed(&key, part).as_ref().to_vec();
        }
        hex(keyed(&key, &text).as_ref())
    }
}

fn keyed(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

/// Encoded, in the order of the encoded names.
fn canonical_query(query: &[(&str, &str)]) -> String {
    let mut pairs: Vec<(String, String)> = query
        .iter()
        .map(|(name, value)| (encoded(name), encoded(value)))
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            byte => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn presign<'a>(region: &'a str, service: &'a str, at: &str) -> Presign<'a> {
        Presign {
            host: "example.amazonaws.com",
            path: "/",
            query: &[],
            region,
            service,
            payload: EMPTY,
            at: at.parse().unwrap(),
            life_s: 900,
        }
    }

    fn credential(id: &str, secret: &str) -> Credential {
        Credential {
            access_key_id: id.to_owned(),
            secret_access_key: secret.to_owned(),
            ..Credential::default()
        }
    }

    /// `get-vanilla` and `get-vanilla-query-order-key-case` of AWS's test suite for Signature Version 4.
    #[test]
    fn the_published_suite() {
        let at = presign("us-east-1", "service", "2015-08-30T12:36:00Z");
        let secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
        let request = |query: &str| {
            format!(
                "GET\n/\n{query}\nhost:example.amazonaws.com\nx-amz-date:20150830T123600Z\n\nhost;x-amz-date\n{EMPTY}"
            )
        };
        assert_eq!(
            at.signature(secret, &request("")),
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
        );
        let query = canonical_query(&[("Param2", "value2"), ("Param1", "value1")]);
        assert_eq!(
            at.signature(secret, &request(&query)),
            "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
        );
    }

    /// The example of a presigned URL in AWS's documentation of S3.
    #[test]
    fn the_published_presigned_url() {
        let presign = Presign {
            host: "examplebucket.s3.amazonaws.com",
            path: "/test.txt",
            payload: "UNSIGNED-PAYLOAD",
            life_s: 86_400,
            ..presign("us-east-1", "s3", "2013-05-24T00:00:00Z")
        };
        let url = presign.url(&credential(
            "AKIAIOSFODNN7EXAMPLE",
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        ));
        assert_eq!(
            url,
            "examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
        );
    }

    #[test]
    fn a_session_token_is_part_of_what_is_signed() {
        let presign = presign("eu-central-1", "elasticache", "2026-01-02T03:04:05Z");
        let lasting = credential("AKID", "secret");
        let passing = Credential {
            session_token: Some("a+b/c==".to_owned()),
            ..lasting.clone()
        };
        let (lasting, passing) = (presign.url(&lasting), presign.url(&passing));
        assert!(passing.contains("X-Amz-Security-Token=a%2Bb%2Fc%3D%3D&X-Amz-SignedHeaders=host"));
        let signature = |url: &str| url.rsplit_once('=').unwrap().1.to_owned();
        assert_ne!(signature(&lasting), signature(&passing));
    }
}
