//! One attempt to deliver one notification.

use super::connect::{self, ConnectError};
use super::{http, syslog};
use crate::egress::Egress;
use crate::format::{self, Notification, Secret, Wire};
use crate::plan::{Channel, Receiver};
use crate::retry::Outcome;
use rustls::ClientConfig;
use std::sync::Arc;

/// Delivers to one receiver.
#[derive(Clone)]
pub struct Sender {
    receiver: Receiver,
    secret: Option<Secret>,
    egress: Egress,
    tls: Arc<ClientConfig>,
}

impl std::fmt::Debug for Sender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("receiver", &self.receiver.name).finish_non_exhaustive()
    }
}

impl Sender {
    /// Makes ready to deliver to a receiver; reads its file of authorities, if it has one.
    ///
    /// # Errors
    /// A sentence, when that file cannot be used.
    pub fn new(receiver: Receiver, secret: Option<Secret>, egress: Egress) -> Result<Self, String> {
        let tls = connect::tls_config(receiver.ca_file.as_deref())?;
        Ok(Self { receiver, secret, egress, tls })
    }

    /// The receiver.
    #[must_use]
    pub fn receiver(&self) -> &Receiver {
        &self.receiver
    }

    /// Tries once. `sent_at` is now, microseconds since the epoch.
    pub async fn send(&self, notification: &Notification, sent_at: i64) -> Outcome {
        let wire =
            format::render(&self.receiver.channel, self.secret.as_ref(), notification, sent_at);
        let wire = match wire {
            Ok(wire) => wire,
            Err(error) => return Outcome::Refused(error.to_string()),
        };
        let limit = self.receiver.timeout;
        match tokio::time::timeout(limit, self.attempt(wire)).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Failed(format!("no answer within {} s", limit.as_secs_f64())),
        }
    }

    async fn attempt(&self, wire: Wire) -> Outcome {
        match wire {
            Wire::Http { target, headers, body } => {
                match http::post(&self.egress, &self.tls, &target, &headers, body).await {
                    Ok(answer) if (200..300).contains(&answer.status) => Outcome::Delivered,
                    Ok(answer) => Outcome::Status {
                        code: answer.status,
                        retry_after: answer.retry_after,
                        body: answer.body,
                    },
                    Err(
                        error @ (http::HttpError::Plaintext
                        | http::HttpError::Request(_)
                        | http::HttpError::Connect(
                            ConnectError::Refused(_) | ConnectError::Name(_),
                        )),
                    ) => Outcome::Refused(error.to_string()),
                    Err(error) => Outcome::Failed(error.to_string()),
                }
            }
            Wire::Syslog(message) => {
                let Channel::Syslog { host, port, transport, .. } = &self.receiver.channel else {
                    return Outcome::Refused("the receiver does not speak syslog".to_owned());
                };
                let sent =
                    syslog::send(&self.egress, &self.tls, (host, *port), *transport, &message);
                match sent.await {
                    Ok(()) => Outcome::Delivered,
                    Err(
                        error @ (syslog::SyslogError::Plaintext
                        | syslog::SyslogError::Connect(
                            ConnectError::Refused(_) | ConnectError::Name(_),
                        )),
                    ) => Outcome::Refused(error.to_string()),
                    Err(error) => Outcome::Failed(error.to_string()),
                }
            }
        }
    }
}
