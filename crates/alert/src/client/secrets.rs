//! Secrets from environment and files, read when the configuration comes into force.

use crate::format::Secret;
use crate::plan::{Plan, SecretPlace};
use std::collections::BTreeMap;
use std::io::Read;

/// The longest secret, in bytes.
const MAX_SECRET: u64 = 16 << 10;

/// A secret that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret of alerts.receivers '{receiver}' cannot be read from {place}: {problem}")]
pub struct SecretError {
    /// The receiver's name.
    pub receiver: String,
    /// Where it should be.
    pub place: String,
    /// What is wrong.
    pub problem: String,
}

/// The secrets of a plan's receivers, by their names.
///
/// # Errors
/// The first secret that is missing or empty.
pub fn load(plan: &Plan) -> Result<BTreeMap<String, Secret>, SecretError> {
    let mut secrets = BTreeMap::new();
    for (receiver, _) in &plan.receivers {
        let Some(place) = receiver.channel.secret() else { continue };
        let (named, found) = match place {
            SecretPlace::Environment(name) => {
                let found = std::env::var(name)
                    .map_err(|_| "the variable is not set, or no text".to_owned());
                (format!("the environment variable {name}"), found)
            }
            SecretPlace::File(path) => {
                let mut text = String::new();
                let read = std::fs::File::open(path)
                    .and_then(|file| file.take(MAX_SECRET).read_to_string(&mut text));
                let found = read.map(|_| text).map_err(|error| error.to_string());
                (format!("the file {}", path.display()), found)
            }
        };
        let found = found.and_then(|text| match text.trim() {
            "" => Err("it is empty".to_owned()),
            text => Ok(Secret(text.to_owned())),
        });
        let secret = found.map_err(|problem| SecretError {
            receiver: receiver.name.clone(),
            place: named,
            problem,
        })?;
        secrets.insert(receiver.name.clone(), secret);
    }
    Ok(secrets)
}
