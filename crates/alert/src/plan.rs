//! The checked configuration: what [`crate::settings`] says, as typed values. Checking opens no file
//! and no socket and reads no environment.

use crate::egress::Egress;
use crate::matcher::{self, Field, Matcher, MatcherError};
use crate::settings::{AlertSettings, ReceiverKind, ReceiverSettings, RouteSettings, Transport};
use palisade_event::{ErrorClass, TenantId};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Where PagerDuty takes events.
const PAGERDUTY: &str = "https://events.pagerduty.com/v2/enqueue";
/// The most receivers, routes and inhibitions.
const MOST: usize = 100;

/// What is wrong with the section `alerts`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("alerts.{place}: {reason}")]
pub struct PlanError {
    /// Where, for example `receivers[0].url`.
    pub place: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl PlanError {
    /// It stays wrong until somebody changes the configuration.
    #[must_use]
    pub fn class(&self) -> ErrorClass {
        ErrorClass::Permanent
    }
}

fn wrong(place: impl Into<String>, reason: impl Into<String>) -> PlanError {
    PlanError { place: place.into(), reason: reason.into() }
}

/// An HTTP address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether it is https.
    pub tls: bool,
    /// A name or an address, without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query, beginning with `/`.
    pub path: String,
}

impl Target {
    /// Takes an address apart. Refuses credentials in it: they would be seen in every log.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let uri: http::Uri = text.parse().map_err(|error| format!("no address: {error}"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("write https://host/path".to_owned()),
        };
        let authority = uri.authority().ok_or("write https://host/path")?;
        if authority.as_str().contains('@') {
            return Err("user and password may not stand in an address".to_owned());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err("the host is missing".to_owned());
        }
        let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
        Ok(Self {
            tls,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: if path.starts_with('/') { path.to_owned() } else { format!("/{path}") },
        })
    }

    /// The value of the header `Host`.
    #[must_use]
    pub fn authority(&self) -> String {
        let host =
            if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let usual = if self.tls { 443 } else { 80 };
        if self.port == usual { host } else { format!("{host}:{}", self.port) }
    }
}

/// Where a secret stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// In this environment variable.
    Environment(String),
    /// In this file.
    File(PathBuf),
}

/// What a receiver speaks, with what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channel {
    /// Signed JSON by HTTP.
    Webhook {
        /// Where.
        target: Target,
        /// The signing secrets.
        secret: SecretPlace,
    },
    /// Slack; the secret is its URL.
    Slack {
        /// The URL.
        secret: SecretPlace,
    },
    /// PagerDuty Events v2.
    Pagerduty {
        /// Where.
        target: Target,
        /// The routing key.
        secret: SecretPlace,
    },
    /// Alertmanager v2.
    Alertmanager {
        /// Where, the whole path.
        target: Target,
        /// The bearer token, if it wants one.
        secret: Option<SecretPlace>,
        /// When an alert ends by itself.
        lifetime: Duration,
    },
    /// Syslog with CEF.
    Syslog {
        /// A name or an address.
        host: String,
        /// The port.
        port: u16,
        /// How it travels.
        transport: Transport,
        /// The field HOSTNAME.
        hostname: String,
    },
}

impl Channel {
    /// The kind's name.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Pagerduty { .. } => "pagerduty",
            Self::Alertmanager { .. } => "alertmanager",
            Self::Syslog { .. } => "syslog",
        }
    }

    /// Where its secret stands.
    #[must_use]
    pub fn secret(&self) -> Option<&SecretPlace> {
        match self {
            Self::Webhook { secret, .. }
            | Self::Slack { secret }
            | Self::Pagerduty { secret, .. } => Some(secret),
            Self::Alertmanager { secret, .. } => secret.as_ref(),
            Self::Syslog { .. } => None,
        }
    }
}

/// A receiver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// What it speaks.
    pub channel: Channel,
    /// Further authorities.
    pub ca_file: Option<PathBuf>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many notifications are on their way at once.
    pub concurrency: usize,
}

/// A route to one receiver.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// What an alert must fulfil.
    pub matchers: Vec<Matcher>,
    /// Of these tenants; of all when empty.
    pub tenants: Vec<TenantId>,
    /// What makes alerts the same.
    pub group_by: Vec<Field>,
    /// For how long the same are counted, microseconds.
    pub window: i64,
    /// Also old news.
    pub historical: bool,
    /// Also retractions.
    pub retractions: bool,
}

/// An alert of `source` mutes less severe ones of `target` that have the same values.
#[derive(Debug, Clone, PartialEq)]
pub struct Inhibition {
    /// The muting alert.
    pub source: Vec<Matcher>,
    /// The muted.
    pub target: Vec<Matcher>,
    /// What must be the same.
    pub equal: Vec<Field>,
    /// For how long, microseconds.
    pub lasting: i64,
}

/// The checked configuration.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// The receivers, each with its routes in the order of the configuration.
    pub receivers: Vec<(Receiver, Vec<Route>)>,
    /// What mutes what.
    pub inhibitions: Arc<Vec<Inhibition>>,
    /// Where may be sent to.
    pub egress: Egress,
    /// The base of links, without a slash at its end.
    pub public_url: Option<String>,
}

impl Plan {
    /// Checks the configuration.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place.
    pub fn check(settings: &AlertSettings) -> Result<Self, PlanError> {
        let egress = egress(settings)?;
        for (place, count) in [
            ("receivers", settings.receivers.len()),
            ("routes", settings.routes.len()),
            ("inhibit", settings.inhibit.len()),
        ] {
            if count > MOST {
                return Err(wrong(place, format!("use at most {MOST}")));
            }
        }
        let public_url = settings.public_url.as_deref().map(|url| {
            let target = Target::parse(url).map_err(|reason| wrong("public_url", reason));
            target.map(|_| url.trim_end_matches('/').to_owned())
        });
        let mut receivers: Vec<(Receiver, Vec<Route>)> = Vec::new();
        for (index, receiver) in settings.receivers.iter().enumerate() {
            let place = format!("receivers[{index}]");
            let receiver = checked_receiver(&place, receiver, &egress)?;
            if receivers.iter().any(|(other, _)| other.name == receiver.name) {
                let reason = format!("there is another receiver '{}'", receiver.name);
                return Err(wrong(format!("{place}.name"), reason));
            }
            receivers.push((receiver, Vec::new()));
        }
        for (index, route) in settings.routes.iter().enumerate() {
            let place = format!("routes[{index}]");
            let checked = checked_route(&place, route)?;
            if route.receivers.is_empty() {
                return Err(wrong(format!("{place}.receivers"), "name at least one receiver"));
            }
            for name in &route.receivers {
                let found = receivers.iter_mut().find(|(receiver, _)| receiver.name == *name);
                let (_, routes) = found.ok_or_else(|| {
                    wrong(
                        format!("{place}.receivers"),
                        format!("there is no receiver '{name}' in alerts.receivers"),
                    )
                })?;
                routes.push(checked.clone());
            }
        }
        let mut inhibitions = Vec::new();
        for (index, rule) in settings.inhibit.iter().enumerate() {
            let place = format!("inhibit[{index}]");
            let read = |name: &str, texts: &[String]| {
                if texts.is_empty() {
                    return Err(wrong(format!("{place}.{name}"), "write at least one condition"));
                }
                matcher::parse_all(texts).map_err(|error| at(&format!("{place}.{name}"), &error))
            };
            let equal = fields(&format!("{place}.equal"), &rule.equal)?;
            if equal.is_empty() {
                return Err(wrong(format!("{place}.equal"), "name at least one field"));
            }
            inhibitions.push(Inhibition {
                source: read("source", &rule.source)?,
                target: read("target", &rule.target)?,
                equal,
                lasting: span(&format!("{place}.seconds"), rule.seconds)?,
            });
        }
        Ok(Self {
            receivers,
            inhibitions: Arc::new(inhibitions),
            egress,
            public_url: public_url.transpose()?,
        })
    }
}

fn at(place: &str, error: &MatcherError) -> PlanError {
    wrong(place, error.to_string())
}

fn fields(place: &str, names: &[String]) -> Result<Vec<Field>, PlanError> {
    names.iter().map(|name| name.parse().map_err(|error| at(place, &error))).collect()
}

/// Seconds as microseconds; at most a year.
fn span(place: &str, seconds: u64) -> Result<i64, PlanError> {
    i64::try_from(seconds)
        .ok()
        .filter(|seconds| *seconds <= 366 * 86_400)
        .map(|seconds| seconds * 1_000_000)
        .ok_or_else(|| wrong(place, "use at most a year"))
}

fn egress(settings: &AlertSettings) -> Result<Egress, PlanError> {
    let mut allow = Vec::new();
    for (index, text) in settings.egress.allow.iter().enumerate() {
        let place = format!("egress.allow[{index}]");
        allow.push(text.parse().map_err(|error| wrong(place, format!("{error}")))?);
    }
    Ok(Egress { allow, allow_plaintext: settings.egress.allow_plaintext })
}

fn checked_route(place: &str, route: &RouteSettings) -> Result<Route, PlanError> {
    let matchers = matcher::parse_all(&route.matchers);
    let tenants = route.tenants.iter().map(|name| {
        TenantId::new(name).map_err(|error| wrong(format!("{place}.tenants"), error.to_string()))
    });
    Ok(Route {
        matchers: matchers.map_err(|error| at(&format!("{place}.match"), &error))?,
        tenants: tenants.collect::<Result<_, _>>()?,
        group_by: fields(&format!("{place}.group_by"), &route.group_by)?,
        window: span(&format!("{place}.window_seconds"), route.window_seconds)?,
        historical: route.historical,
        retractions: route.retractions,
    })
}

fn checked_receiver(
    place: &str,
    settings: &ReceiverSettings,
    egress: &Egress,
) -> Result<Receiver, PlanError> {
    let field = |name: &str| format!("{place}.{name}");
    let name = &settings.name;
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if !(1..=64).contains(&name.len()) || !name.chars().all(good) {
        return Err(wrong(field("name"), "use 1 to 64 of a-z, 0-9, - and _"));
    }
    if !(1..=120).contains(&settings.timeout_seconds) {
        return Err(wrong(field("timeout_seconds"), "use 1 to 120"));
    }
    if !(1..=64).contains(&settings.concurrency) {
        return Err(wrong(field("concurrency"), "use 1 to 64"));
    }
    let secret = match (&settings.secret_env, &settings.secret_file) {
        (Some(_), Some(_)) => {
            return Err(wrong(field("secret_env"), "give secret_env or secret_file, not both"));
        }
        (Some(name), None) => Some(SecretPlace::Environment(name.clone())),
        (None, Some(path)) => Some(SecretPlace::File(path.clone())),
        (None, None) => None,
    };
    let needed = |what: &str| {
        secret.clone().ok_or_else(|| {
            wrong(field("secret_env"), format!("give {what} by secret_env or secret_file"))
        })
    };
    let target = |url: Option<&str>| {
        let url = url.ok_or_else(|| wrong(field("url"), "give the address, https://host/path"))?;
        let target = Target::parse(url).map_err(|reason| wrong(field("url"), reason))?;
        if !target.tls && !egress.allow_plaintext {
            let reason = "http is not encrypted: use https, or set egress.allow_plaintext";
            return Err(wrong(field("url"), reason));
        }
        Ok(target)
    };
    let url = settings.url.as_deref();
    let is_syslog = settings.kind == ReceiverKind::Syslog;
    if settings.address.is_some() && !is_syslog {
        return Err(wrong(field("address"), "only syslog has an address; others have a url"));
    }
    if url.is_some() && matches!(settings.kind, ReceiverKind::Syslog | ReceiverKind::Slack) {
        return Err(wrong(
            field("url"),
            "syslog has an address, and Slack's url is a secret: give secret_env or secret_file",
        ));
    }
    let channel = match settings.kind {
        ReceiverKind::Webhook => {
            Channel::Webhook { target: target(url)?, secret: needed("the signing secret")? }
        }
        ReceiverKind::Slack => Channel::Slack { secret: needed("Slack's webhook URL")? },
        ReceiverKind::Pagerduty => Channel::Pagerduty {
            target: target(Some(url.unwrap_or(PAGERDUTY)))?,
            secret: needed("the routing key")?,
        },
        ReceiverKind::Alertmanager => {
            let mut target = target(url)?;
            target.path = format!("{}/api/v2/alerts", target.path.trim_end_matches('/'));
            if !(60..=30 * 86_400).contains(&settings.lifetime_seconds) {
                return Err(wrong(field("lifetime_seconds"), "use a minute to 30 days"));
            }
            let lifetime = Duration::from_secs(settings.lifetime_seconds);
            Channel::Alertmanager { target, secret, lifetime }
        }
        ReceiverKind::Syslog => syslog(settings, egress, field)?,
    };
    Ok(Receiver {
        name: name.clone(),
        channel,
        ca_file: settings.ca_file.clone(),
        timeout: Duration::from_secs(settings.timeout_seconds),
        concurrency: settings.concurrency,
    })
}

fn syslog(
    settings: &ReceiverSettings,
    egress: &Egress,
    field: impl Fn(&str) -> String,
) -> Result<Channel, PlanError> {
    let help = "write host:port, for example siem.example.com:6514";
    let address = settings.address.as_deref().ok_or_else(|| wrong(field("address"), help))?;
    let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong(field("address"), help))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = port.parse().ok().filter(|port| *port != 0 && !host.is_empty());
    let port = port.ok_or_else(|| wrong(field("address"), help))?;
    if settings.transport != Transport::Tls && !egress.allow_plaintext {
        let reason = "it is not encrypted: use tls, or set egress.allow_plaintext";
        return Err(wrong(field("transport"), reason));
    }
    let hostname = settings.hostname.clone().unwrap_or_else(|| "-".to_owned());
    if !(1..=255).contains(&hostname.len()) || !hostname.bytes().all(|c| c.is_ascii_graphic()) {
        return Err(wrong(field("hostname"), "use 1 to 255 visible ASCII characters"));
    }
    let transport = settings.transport;
    Ok(Channel::Syslog { host: host.to_owned(), port, transport, hostname })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(json: &str) -> AlertSettings {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_good_configuration_is_typed() {
        let plan = Plan::check(&settings(
            r#"{"receivers":[
                {"name":"soc","kind":"webhook","url":"https://soc.example.com/hook?x=1","secret_env":"S"},
                {"name":"chat","kind":"slack","secret_file":"/s"},
                {"name":"am","kind":"alertmanager","url":"https://[2606::1]:9093/base/"},
                {"name":"siem","kind":"syslog","address":"[2606::1]:6514"}],
              "routes":[{"match":["severity>=high"],"receivers":["soc","chat"]},{"receivers":["soc"],"tenants":["acme"]}],
              "inhibit":[{"source":["severity=critical"],"target":["severity<=low"]}],
              "egress":{"allow":["10.0.0.0/8"]},"public_url":"https://p.example.com/"}"#,
        ))
        .unwrap();
        let routes: Vec<usize> = plan.receivers.iter().map(|(_, routes)| routes.len()).collect();
        assert_eq!(routes, [2, 1, 0, 0]);
        let Channel::Webhook { target, .. } = &plan.receivers[0].0.channel else { panic!() };
        assert_eq!(
            (target.authority().as_str(), target.path.as_str(), target.port),
            ("soc.example.com", "/hook?x=1", 443)
        );
        let Channel::Alertmanager { target, .. } = &plan.receivers[2].0.channel else { panic!() };
        assert_eq!(
            (target.authority().as_str(), target.path.as_str()),
            ("[2606::1]:9093", "/base/api/v2/alerts")
        );
        assert_eq!(plan.public_url.as_deref(), Some("https://p.example.com"));
        assert_eq!(Plan::check(&AlertSettings::default()).unwrap(), Plan::default());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        let hook = r#""kind":"webhook","secret_env":"S""#;
        for (json, place) in [
            (
                r#"{"receivers":[{"name":"A","kind":"slack","secret_env":"S"}]}"#,
                "receivers[0].name",
            ),
            (&format!(r#"{{"receivers":[{{"name":"a",{hook}}}]}}"#), "receivers[0].url"),
            (
                &format!(r#"{{"receivers":[{{"name":"a",{hook},"url":"http://a/"}}]}}"#),
                "receivers[0].url",
            ),
            (
                &format!(r#"{{"receivers":[{{"name":"a",{hook},"url":"ftp://a/"}}]}}"#),
                "receivers[0].url",
            ),
            (
                &format!(r#"{{"receivers":[{{"name":"a",{hook},"url":"https://u:p@a/"}}]}}"#),
                "receivers[0].url",
            ),
            (r#"{"receivers":[{"name":"a","kind":"slack"}]}"#, "receivers[0].secret_env"),
            (
                r#"{"receivers":[{"name":"a","kind":"slack","secret_env":"S","url":"https://a/"}]}"#,
                "receivers[0].url",
            ),
            (
                r#"{"receivers":[{"name":"a","kind":"slack","secret_env":"S","secret_file":"f"}]}"#,
                "receivers[0].secret_env",
            ),
            (
                r#"{"receivers":[{"name":"a","kind":"syslog","address":"a"}]}"#,
                "receivers[0].address",
            ),
            (
                r#"{"receivers":[{"name":"a","kind":"syslog","address":"a:5","transport":"udp"}]}"#,
                "receivers[0].transport",
            ),
            (
                r#"{"receivers":[{"name":"a","kind":"slack","secret_env":"S"},{"name":"a","kind":"slack","secret_env":"S"}]}"#,
                "receivers[1].name",
            ),
            (
                r#"{"receivers":[{"name":"a","kind":"slack","secret_env":"S","concurrency":0}]}"#,
                "receivers[0].concurrency",
            ),
            (r#"{"routes":[{"receivers":["x"]}]}"#, "routes[0].receivers"),
            (r#"{"routes":[{"receivers":[]}]}"#, "routes[0].receivers"),
            (r#"{"routes":[{"receivers":[],"match":["colour=red"]}]}"#, "routes[0].match"),
            (r#"{"routes":[{"receivers":[],"group_by":["colour"]}]}"#, "routes[0].group_by"),
            (r#"{"routes":[{"receivers":[],"tenants":["NO NAME"]}]}"#, "routes[0].tenants"),
            (r#"{"inhibit":[{"source":[],"target":["user=a"]}]}"#, "inhibit[0].source"),
            (r#"{"egress":{"allow":["all"]}}"#, "egress.allow[0]"),
            (r#"{"public_url":"here"}"#, "public_url"),
        ] {
            let error = Plan::check(&settings(json)).unwrap_err();
            assert_eq!(error.place, place, "{json}: {error}");
        }
        assert!(serde_json::from_str::<AlertSettings>(r#"{"receiver":[]}"#).is_err());
    }
}
