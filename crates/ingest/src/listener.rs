//! The configuration of listeners without keys of their own (raw TCP lines, syslog), and its check.
//!
//! Such a listener is bound to one tenant and a list of sender networks. Off loopback TCP needs TLS
//! and UDP needs a flag, because its senders can be forged and its lines read and lost on the way.
//! [`check_listener`] is pure: it opens no socket and no file.

use crate::tls::TlsFiles;
use palisade_event::network::Network;
use palisade_event::{ErrorClass, TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// Lines over TCP: JSON objects or plain text. There is no acknowledgement.
    TcpLines,
    /// Syslog over TCP or TLS (RFC 6587, RFC 5425). There is no acknowledgement.
    SyslogTcp,
    /// Syslog over UDP (RFC 5426). Datagrams may be lost on the way and in the kernel.
    SyslogUdp,
}

impl Protocol {
    /// The name in configuration, metrics and the column `source`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::TcpLines => "tcp",
            Self::SyslogTcp | Self::SyslogUdp => "syslog",
        }
    }
}

/// One listener, as configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerConfig {
    /// Its name, 1 to 64 of `a-z`, `0-9`, `-`, `_`.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Address and port to listen on, for example `127.0.0.1:5514`.
    pub address: String,
    /// The column `source` of its records, 1 to 128 visible ASCII characters; `<protocol>:<name>`
    /// when it is not given.
    #[serde(default)]
    pub source: Option<String>,
    /// The tenant that its records belong to.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// The networks that senders may be in.
    #[serde(default = "loopback")]
    pub networks: Vec<String>,
    /// Certificate and key; needed for TCP off loopback.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Listen for UDP off loopback although anybody who can send to this address can forge, read
    /// and drop its records.
    #[serde(default)]
    pub allow_plaintext_udp: bool,
    /// The most connections at once.
    #[serde(default = "default_connections")]
    pub max_connections: usize,
    /// A connection that sends nothing for so long is closed, in seconds.
    #[serde(default = "default_idle")]
    pub idle_seconds: u64,
    /// The longest line or message in bytes; a longer one becomes a dead letter.
    #[serde(default = "default_line")]
    pub max_line_bytes: usize,
    /// The most bytes of memory that the records of one connection may hold while they wait for
    /// durability; then reading stops until some are durable.
    #[serde(default = "default_in_flight")]
    pub max_in_flight_bytes: usize,
    /// What senders' clocks are ahead of UTC, in minutes, where a line says nothing about it.
    #[serde(default)]
    pub utc_offset_minutes: i32,
}

fn default_tenant() -> String {
    TenantId::DEFAULT.to_owned()
}

fn loopback() -> Vec<String> {
    vec!["127.0.0.0/8".to_owned(), "::1".to_owned()]
}

fn default_connections() -> usize {
    256
}

fn default_idle() -> u64 {
    600
}

fn default_line() -> usize {
    1 << 20
}

fn default_in_flight() -> usize {
    1 << 20
}

impl ListenerConfig {
    /// A listener with defaults.
    #[must_use]
    pub fn new(name: &str, protocol: Protocol, address: &str) -> Self {
        Self {
            name: name.to_owned(),
            protocol,
            address: address.to_owned(),
            source: None,
            tenant: default_tenant(),
            networks: loopback(),
            tls: None,
            allow_plaintext_udp: false,
            max_connections: default_connections(),
            idle_seconds: default_idle(),
            max_line_bytes: default_line(),
            max_in_flight_bytes: default_in_flight(),
            utc_offset_minutes: 0,
        }
    }
}

/// A listener whose configuration was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Validated {
    /// The column `source` of its records.
    pub source: Arc<str>,
    /// The configured name.
    pub name: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whose records it takes.
    pub tenant: TenantId,
    /// Who may send.
    pub networks: Arc<[Network]>,
    /// Certificate and key.
    pub tls: Option<TlsFiles>,
    /// The most connections at once.
    pub max_connections: usize,
    /// When a silent connection is closed.
    pub idle: Duration,
    /// The longest line.
    pub max_line: usize,
    /// The most bytes that wait for durability.
    pub max_in_flight: usize,
    /// What senders' clocks are ahead of UTC.
    pub utc_offset_minutes: i32,
}

impl Validated {
    /// Whether records of this sender are taken.
    #[must_use]
    pub fn admits(&self, sender: std::net::IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(sender))
    }
}

/// What is wrong with a listener's configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("listener '{listener}': {problem}")]
pub struct ListenerError {
    /// The listener's name.
    pub listener: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl ListenerError {
    /// What to do about it.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Permanent
    }
}

/// Checks a listener's configuration without touching the machine.
///
/// # Errors
/// [`ListenerError`] with the first thing that is wrong.
pub fn check_listener(config: &ListenerConfig) -> Result<Validated, ListenerError> {
    let wrong = |problem: String| ListenerError {
        listener: config.name.chars().take(64).collect(),
        problem,
    };
    let fits = |c: u8| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    if config.name.is_empty() || config.name.len() > 64 || !config.name.bytes().all(fits) {
        return Err(wrong("its name must be 1 to 64 characters of a-z, 0-9, '-' and '_'".into()));
    }
    let address: SocketAddr = config.address.parse().map_err(|_| {
        wrong(format!(
            "'{}' is no address with port: write for example 127.0.0.1:5514",
            config.address
        ))
    })?;
    let visible = |text: &String| {
        (1..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
    };
    if config.source.as_ref().is_some_and(|source| !visible(source)) {
        return Err(wrong("'source' must be 1 to 128 visible ASCII characters".into()));
    }
    let tenant = TenantId::new(&config.tenant).map_err(|error| wrong(error.to_string()))?;
    if tenant.as_str() == TenantId::PUBLIC {
        return Err(wrong("the tenant 'public' is written by none: name another one".into()));
    }
    let networks = config
        .networks
        .iter()
        .map(|text| text.parse::<Network>())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if networks.is_empty() {
        return Err(wrong("'networks' is empty, so nobody could send: list the senders".into()));
    }
    let loopback = address.ip().to_canonical().is_loopback();
    let udp = config.protocol == Protocol::SyslogUdp;
    if udp && config.tls.is_some() {
        return Err(wrong("UDP has no TLS: remove 'tls' or use syslog_tcp".into()));
    }
    if udp && !loopback && !config.allow_plaintext_udp {
        return Err(wrong(
            "UDP off loopback can be forged, read and lost: use syslog_tcp with 'tls', or set 'allow_plaintext_udp: true'"
                .into(),
        ));
    }
    if !udp && !loopback && config.tls.is_none() {
        return Err(wrong(
            "TCP off loopback needs 'tls' with certificate and key, or listen on 127.0.0.1".into(),
        ));
    }
    if !(256..=64 << 20).contains(&config.max_line_bytes) {
        return Err(wrong("'max_line_bytes' must be 256 to 67108864".into()));
    }
    if config.max_in_flight_bytes < config.max_line_bytes || config.max_in_flight_bytes > 1 << 30 {
        return Err(wrong("'max_in_flight_bytes' must be 'max_line_bytes' to 1073741824".into()));
    }
    if !(1..=100_000).contains(&config.max_connections) {
        return Err(wrong("'max_connections' must be 1 to 100000".into()));
    }
    if !(1..=86_400).contains(&config.idle_seconds) {
        return Err(wrong("'idle_seconds' must be 1 to 86400".into()));
    }
    if config.utc_offset_minutes.abs() > 14 * 60 {
        return Err(wrong("'utc_offset_minutes' must be -840 to 840".into()));
    }
    Ok(Validated {
        source: config.source.as_deref().map_or_else(
            || Arc::from(format!("{}:{}", config.protocol.as_str(), config.name)),
            Arc::from,
        ),
        name: config.name.clone(),
        protocol: config.protocol,
        address,
        tenant,
        networks: networks.into(),
        tls: config.tls.clone(),
        max_connections: config.max_connections,
        idle: Duration::from_secs(config.idle_seconds),
        max_line: config.max_line_bytes,
        max_in_flight: config.max_in_flight_bytes,
        utc_offset_minutes: config.utc_offset_minutes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(change: impl FnOnce(&mut ListenerConfig)) -> String {
        let mut config = ListenerConfig::new("fw", Protocol::SyslogTcp, "127.0.0.1:6514");
        change(&mut config);
        check_listener(&config).map_or_else(|error| error.to_string(), |_| String::new())
    }

    fn files() -> TlsFiles {
        TlsFiles::new("cert.pem", "key.pem")
    }

    #[test]
    fn defaults_are_loopback_and_fine() {
        assert_eq!(problem(|_| ()), "");
        let config = ListenerConfig::new("fw", Protocol::SyslogTcp, "127.0.0.1:6514");
        let checked = check_listener(&config).unwrap();
        assert_eq!(checked.source.as_ref(), "syslog:fw");
        assert!(checked.admits("127.0.0.1".parse().unwrap()));
        assert!(!checked.admits("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn off_loopback_needs_tls_or_for_udp_a_flag() {
        assert!(problem(|c| c.address = "0.0.0.0:6514".into()).contains("needs 'tls'"));
        assert!(problem(|c| c.address = "[::ffff:10.0.0.1]:1".into()).contains("needs 'tls'"));
        assert_eq!(problem(|c| (c.address, c.tls) = ("0.0.0.0:6514".into(), Some(files()))), "");
        let udp = |c: &mut ListenerConfig| {
            c.protocol = Protocol::SyslogUdp;
            c.address = "0.0.0.0:514".into();
        };
        assert!(problem(udp).contains("can be forged"));
        assert_eq!(
            problem(|c| {
                udp(c);
                c.allow_plaintext_udp = true;
            }),
            ""
        );
        assert!(
            problem(|c| (c.protocol, c.tls) = (Protocol::SyslogUdp, Some(files())))
                .contains("no TLS")
        );
    }

    #[test]
    fn nonsense_is_named() {
        assert!(problem(|c| c.name = "A b".into()).contains("its name"));
        assert!(problem(|c| c.address = "localhost:1".into()).contains("no address"));
        assert!(problem(|c| c.source = Some("a b".into())).contains("'source'"));
        assert_eq!(problem(|c| c.source = Some("fw/edge".into())), "");
        assert!(problem(|c| c.tenant = "public".into()).contains("written by none"));
        assert!(problem(|c| c.tenant = "No".into()).contains("no tenant name"));
        assert!(problem(|c| c.networks.clear()).contains("nobody could send"));
        assert!(problem(|c| c.networks = vec!["x".into()]).contains("no network"));
        assert!(problem(|c| c.max_line_bytes = 0).contains("max_line_bytes"));
        assert!(problem(|c| c.max_in_flight_bytes = 0).contains("max_in_flight_bytes"));
        assert!(problem(|c| c.max_connections = 0).contains("max_connections"));
        assert!(problem(|c| c.idle_seconds = 0).contains("idle_seconds"));
        assert!(problem(|c| c.utc_offset_minutes = 900).contains("utc_offset"));
    }
}
