//! How to reach a server, out of the keys of one side: address, who we are there, TLS.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::document::Document;
use super::{Auth, ConfigError, Endpoint, IamCache, Proof, Secret, Sentinel, TlsConfig, optional};

/// The keys of an endpoint, spelt out so that each is checked against the table.
pub(super) struct EndpointKeys {
    table: &'static str,
    whom: &'static str,
    address: &'static str,
    username: &'static str,
    password: &'static str,
    password_file: &'static str,
    password_env: &'static str,
    password_command: &'static str,
    reauth_after: &'static str,
    iam_cache: &'static str,
    iam_region: &'static str,
    iam_serverless: &'static str,
    tls: &'static str,
    ca_cert: &'static str,
    cert: &'static str,
    key: &'static str,
    server_name: &'static str,
    insecure: &'static str,
    min_version: &'static str,
}

pub(super) const SOURCE: EndpointKeys = EndpointKeys {
    table: "sync_reader",
    whom: "source",
    address: "sync_reader.address",
    username: "sync_reader.username",
    password: "sync_reader.password",
    password_file: "sync_reader.password_file",
    password_env: "sync_reader.password_env",
    password_command: "sync_reader.password_command",
    reauth_after: "sync_reader.reauth_after",
    iam_cache: "sync_reader.iam.cache_name",
    iam_region: "sync_reader.iam.region",
    iam_serverless: "sync_reader.iam.serverless",
    tls: "sync_reader.tls",
    ca_cert: "sync_reader.tls_config.ca_cert",
    cert: "sync_reader.tls_config.cert",
    key: "sync_reader.tls_config.key",
    server_name: "sync_reader.tls_config.server_name",
    insecure: "sync_reader.tls_config.insecure",
    min_version: "sync_reader.tls_config.min_version",
};

pub(super) const SCAN: EndpointKeys = EndpointKeys {
    table: "scan_reader",
    whom: "source",
    address: "scan_reader.address",
    username: "scan_reader.username",
    password: "scan_reader.password",
    password_file: "scan_reader.password_file",
    password_env: "scan_reader.password_env",
    password_command: "scan_reader.password_command",
    reauth_after: "scan_reader.reauth_after",
    iam_cache: "scan_reader.iam.cache_name",
    iam_region: "scan_reader.iam.region",
    iam_serverless: "scan_reader.iam.serverless",
    tls: "scan_reader.tls",
    ca_cert: "scan_reader.tls_config.ca_cert",
    cert: "scan_reader.tls_config.cert",
    key: "scan_reader.tls_config.key",
    server_name: "scan_reader.tls_config.server_name",
    insecure: "scan_reader.tls_config.insecure",
    min_version: "scan_reader.tls_config.min_version",
};

pub(super) const TARGET: EndpointKeys = EndpointKeys {
    table: "redis_writer",
    whom: "target",
    address: "redis_writer.address",
    username: "redis_writer.username",
    password: "redis_writer.password",
    password_file: "redis_writer.password_file",
    password_env: "redis_writer.password_env",
    password_command: "redis_writer.password_command",
    reauth_after: "redis_writer.reauth_after",
    iam_cache: "redis_writer.iam.cache_name",
    iam_region: "redis_writer.iam.region",
    iam_serverless: "redis_writer.iam.serverless",
    tls: "redis_writer.tls",
    ca_cert: "redis_writer.tls_config.ca_cert",
    cert: "redis_writer.tls_config.cert",
    key: "redis_writer.tls_config.key",
    server_name: "redis_writer.tls_config.server_name",
    insecure: "redis_writer.tls_config.insecure",
    min_version: "redis_writer.tls_config.min_version",
};

/// # Errors
/// What is missing, or does not go together, with its line.
pub(super) fn endpoint(doc: &Document, keys: &EndpointKeys) -> Result<Endpoint, ConfigError> {
    let address = doc.text(keys.address);
    if address.is_empty() {
        let what = format!(
            "{} is missing: add [{}] with address = \"host:port\"",
            keys.address, keys.table
        );
        return Err(doc.error(keys.address, what));
    }
    let tls = if doc.bool(keys.tls) {
        Some(tls(doc, keys)?)
    } else {
        None
    };
    let auth = auth(doc, keys)?;
    if tls.is_none() && matches!(auth.proof, Proof::Iam(_)) {
        let what = format!(
            "{} is set without {} = true: IAM needs TLS",
            keys.iam_cache, keys.tls
        );
        return Err(doc.error(keys.iam_cache, what));
    }
    Ok(Endpoint {
        address,
        auth,
        tls,
        sentinel: None,
        follow: None,
    })
}

/// The keys of Sentinels that know an endpoint's address.
pub(super) struct SentinelKeys {
    endpoint: &'static EndpointKeys,
    master_name: &'static str,
    address: &'static str,
    username: &'static str,
    password: &'static str,
    tls: &'static str,
    /// RedisShake 4.2's form: a switch, with the Sentinel in the endpoint's address, and the master's name.
    old: Option<(&'static str, &'static str)>,
}

pub(super) const SOURCE_SENTINELS: SentinelKeys = SentinelKeys {
    endpoint: &SOURCE,
    master_name: "sync_reader.sentinel.master_name",
    address: "sync_reader.sentinel.address",
    username: "sync_reader.sentinel.username",
    password: "sync_reader.sentinel.password",
    tls: "sync_reader.sentinel.tls",
    old: None,
};

pub(super) const TARGET_SENTINELS: SentinelKeys = SentinelKeys {
    endpoint: &TARGET,
    master_name: "redis_writer.sentinel.master_name",
    address: "redis_writer.sentinel.address",
    username: "redis_writer.sentinel.username",
    password: "redis_writer.sentinel.password",
    tls: "redis_writer.sentinel.tls",
    old: Some(("redis_writer.sentinel", "redis_writer.master")),
};

/// An endpoint, where Sentinels know its address.
///
/// # Errors
/// As [`endpoint`].
pub(super) fn behind_sentinels(
    doc: &Document,
    keys: &SentinelKeys,
) -> Result<Option<Endpoint>, ConfigError> {
    let old = keys.old.filter(|(switch, _)| doc.bool(switch));
    let (master, addresses) = match (old, doc.text(keys.address)) {
        (None, addresses) if addresses.is_empty() => return Ok(None),
        (Some((_, master)), addresses) if addresses.is_empty() => {
            (master, doc.text(keys.endpoint.address))
        }
        (_, addresses) => (keys.master_name, addresses),
    };
    let addresses: Vec<String> = addresses
        .split(',')
        .map(|address| address.trim().to_owned())
        .collect();
    for address in &addresses {
        let checked = super::units::address(address);
        checked.map_err(|what| doc.error(keys.address, what))?;
    }
    let name = doc.text(master);
    if name.is_empty() {
        let whom = keys.endpoint.whom;
        let what = format!("{master} is missing: the name under which Sentinel watches the {whom}");
        return Err(doc.error(master, what));
    }
    let tls = if doc.bool(keys.endpoint.tls) {
        Some(tls(doc, keys.endpoint)?)
    } else {
        None
    };
    let password = optional(doc.text(keys.password));
    let own = Auth {
        username: optional(doc.text(keys.username)),
        proof: password.map_or(Proof::None, |text| Proof::Password(Secret::new(&text))),
        renew_after: None,
    };
    let sentinel_tls = match (&tls, doc.bool(keys.tls)) {
        (_, false) => None,
        (Some(tls), true) => Some(tls.clone()),
        (None, true) => Some(self::tls(doc, keys.endpoint)?),
    };
    Ok(Some(Endpoint {
        address: addresses.first().cloned().unwrap_or_default(),
        auth: auth(doc, keys.endpoint)?,
        tls,
        sentinel: Some(Arc::new(Sentinel::new(name, addresses, own, sentinel_tls))),
        follow: None,
    }))
}

fn auth(doc: &Document, keys: &EndpointKeys) -> Result<Auth, ConfigError> {
    let username = optional(doc.text(keys.username));
    let ways = [
        keys.password,
        keys.password_file,
        keys.password_env,
        keys.password_command,
        keys.iam_cache,
    ];
    let mut given = ways.into_iter().filter(|path| !doc.text(path).is_empty());
    let first = given.next();
    if let (Some(first), Some(second)) = (first, given.next()) {
        let what = format!("{first} and {second} are both set; one of them is enough");
        return Err(doc.error(second, what));
    }
    if username.is_some() && first.is_none() {
        let what = format!(
            "{} is set without {} (or password_file, password_env, password_command, iam)",
            keys.username, keys.password
        );
        return Err(doc.error(keys.username, what));
    }
    let proof = match first {
        None => Proof::None,
        Some(path) if path == keys.password => Proof::Password(Secret::new(&doc.text(path))),
        Some(path) if path == keys.password_file => Proof::File(doc.text(path).into()),
        Some(path) if path == keys.password_env => Proof::Variable(doc.text(path)),
        Some(path) if path == keys.password_command => Proof::Command(doc.text(path)),
        Some(_) => Proof::Iam(Arc::new(iam(doc, keys, username.as_deref())?)),
    };
    let renew_after = match doc.int(keys.reauth_after) {
        0 if matches!(proof, Proof::Iam(_)) => Some(crate::auth::IAM_RENEW),
        0 => None,
        ms => Some(Duration::from_millis(ms)),
    };
    Ok(Auth {
        username,
        proof,
        renew_after,
    })
}

fn iam(
    doc: &Document,
    keys: &EndpointKeys,
    username: Option<&str>,
) -> Result<IamCache, ConfigError> {
    if !cfg!(feature = "iam") {
        let what = format!(
            "{}: this build has no IAM (it was made without the feature \"iam\")",
            keys.iam_cache
        );
        return Err(doc.error(keys.iam_cache, what));
    }
    let is_name = |text: &str| {
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
    };
    // AWS keeps names in lower case, and the signature is over what is written here.
    let cache = doc.text(keys.iam_cache).to_ascii_lowercase();
    if !is_name(&cache) {
        let what = format!(
            "{} is {cache:?}, but must be the name of a cache or replication group (letters, digits, hyphens), not its address",
            keys.iam_cache
        );
        return Err(doc.error(keys.iam_cache, what));
    }
    let Some(user) = username.filter(|user| is_name(user)) else {
        let what = format!(
            "{} is set without {}: the IAM-enabled user's name (letters, digits, hyphens)",
            keys.iam_cache, keys.username
        );
        return Err(doc.error(keys.iam_cache, what));
    };
    let from_env = || {
        let names = ["AWS_REGION", "AWS_DEFAULT_REGION"];
        names.iter().find_map(|name| std::env::var(name).ok())
    };
    let region = optional(doc.text(keys.iam_region)).or_else(from_env);
    let Some(region) = region.filter(|region| is_name(region)) else {
        let what = format!(
            "{} is missing, and neither AWS_REGION nor AWS_DEFAULT_REGION names a region",
            keys.iam_region
        );
        return Err(doc.error(keys.iam_region, what));
    };
    Ok(IamCache {
        cache,
        user: user.to_owned(),
        region,
        serverless: doc.bool(keys.iam_serverless),
        #[cfg(feature = "iam")]
        chain: crate::auth::standard_chain(),
    })
}

fn tls(doc: &Document, keys: &EndpointKeys) -> Result<TlsConfig, ConfigError> {
    let file = |path| optional(doc.text(path)).map(PathBuf::from);
    let identity = match (file(keys.cert), file(keys.key)) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => {
            return Err(doc.error(
                keys.cert,
                format!("{} is set without {}", keys.cert, keys.key),
            ));
        }
        (None, Some(_)) => {
            return Err(doc.error(
                keys.key,
                format!("{} is set without {}", keys.key, keys.cert),
            ));
        }
    };
    Ok(TlsConfig {
        ca_cert: file(keys.ca_cert),
        identity,
        server_name: optional(doc.text(keys.server_name)),
        insecure: doc.bool(keys.insecure),
        only_1_3: doc.text(keys.min_version) == "1.3",
    })
}
