//! All receivers of a configuration, started and stopped together.

use super::deliverer::{Deliverer, DelivererOptions, Foundations};
use super::secrets::{self, SecretError};
use super::sender::Sender;
use crate::plan::Plan;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Why delivering cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// A secret is missing.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A receiver's file of authorities cannot be used.
    #[error("alerts.receivers '{receiver}': {problem}")]
    Authorities {
        /// The receiver's name.
        receiver: String,
        /// What is wrong.
        problem: String,
    },
}

/// Deliverers that run. Dropping it cuts off what is on its way; call [`Deliverers::stop`].
#[derive(Debug)]
pub struct Deliverers {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Deliverers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A plan whose secrets and files were read: what can fail has not failed.
#[derive(Debug)]
pub struct Prepared {
    plan: Plan,
    senders: Vec<Sender>,
}

impl Prepared {
    /// Reads secrets and files.
    ///
    /// # Errors
    /// The first that cannot be used; nothing was started.
    pub fn new(plan: Plan) -> Result<Self, StartError> {
        let mut secrets = secrets::load(&plan)?;
        let mut senders = Vec::new();
        for (receiver, _) in &plan.receivers {
            let secret = secrets.remove(&receiver.name);
            let name = receiver.name.clone();
            let sender = Sender::new(receiver.clone(), secret, plan.egress.clone());
            let failed = |problem| StartError::Authorities { receiver: name, problem };
            senders.push(sender.map_err(failed)?);
        }
        Ok(Self { plan, senders })
    }

    /// Starts a task for every receiver on the runtime that this is called on. To change the configuration, stop
    /// what runs and start anew: every receiver goes on from its cursor.
    #[must_use]
    pub fn start(self, base: &Foundations, options: &DelivererOptions) -> Deliverers {
        let stop = CancellationToken::new();
        let public_url = self.plan.public_url.clone();
        let options = DelivererOptions { public_url, ..options.clone() };
        let mut tasks = Vec::new();
        for (sender, (_, routes)) in self.senders.into_iter().zip(self.plan.receivers) {
            let name = sender.receiver().name.clone();
            let inhibitions = self.plan.inhibitions.clone();
            let deliverer =
                Deliverer::new(sender, routes, inhibitions, base.clone(), options.clone());
            let stop = stop.clone();
            tasks.push(tokio::spawn(async move {
                if let Err(error) = deliverer.run(stop).await {
                    tracing::error!(receiver = name, %error, "this receiver is told nothing more");
                }
            }));
        }
        Deliverers { stop, tasks }
    }
}

impl Deliverers {
    /// Stops all; what is on its way has two seconds, what has not ended by then is sent again at the next start.
    pub async fn stop(mut self) {
        self.stop.cancel();
        for task in std::mem::take(&mut self.tasks) {
            // A task that panicked has said so.
            let _ = task.await;
        }
    }
}
