//! What a tenant changes about rules without touching their texts: which are enabled, their severities, exceptions.

use super::{Current, DeployError, Deployer, TENANT_RULES};
use crate::control::{ControlError, content_hash};
use crate::rules::{RuleException, Rules, TenantRules};
use palisade_sigma::{Filter, Level};
use std::sync::Arc;

/// Rules that a tenant may disable or grade, and exceptions that it may have.
const MOST_CHANGED: usize = 10_000;
const MOST_EXCEPTIONS: usize = 500;
/// Bytes of an exception's filter, and of its name, author and reason.
const MOST_FILTER: usize = 32 << 10;
const MOST_WORDS: usize = 1_024;

impl Deployer {
    /// What a tenant has changed.
    #[must_use]
    pub fn changed_by(&self, tenant: &str) -> TenantRules {
        self.current().texts.tenants.get(tenant).cloned().unwrap_or_default()
    }

    /// Changes what a tenant has changed. When this returns, that is in force.
    ///
    /// # Errors
    /// What `change` says, when bounds are passed, and when catalog or log fail.
    async fn change(
        &self,
        tenant: &str,
        change: impl FnOnce(Option<&Rules>, &mut TenantRules) -> Result<(), DeployError>,
    ) -> Result<Arc<Current>, DeployError> {
        let held = self.files.lock().await;
        let (texts, rules) = self.compile_current(&held).await?;
        let mut changed = texts.tenants.get(tenant).cloned().unwrap_or_default();
        change(rules.as_deref(), &mut changed)?;
        if changed.disabled.len().max(changed.severity.len()) > MOST_CHANGED
            || changed.exceptions.len() > MOST_EXCEPTIONS
        {
            return Err(DeployError::Invalid {
                reason: format!(
                    "over {MOST_CHANGED} rules disabled or graded, or over {MOST_EXCEPTIONS} exceptions"
                ),
                hint: "take some back first",
            });
        }
        let text = serde_json::to_string(&changed)
            .map_err(|error| ControlError::Damaged(error.to_string()))?;
        let hash = content_hash(&text);
        let kept = self.catalog.activate(TENANT_RULES, tenant, &hash, text.as_bytes()).await?;
        self.catalog.settle_activation(kept).await?;
        self.put_in_force(&held, None).await
    }

    /// Sets for a tenant whether a rule or correlation is enabled, and its severity (`Some(None)`: as its text says).
    ///
    /// # Errors
    /// [`DeployError::Unknown`] when the tenant has no such rule, and when catalog or log fail.
    pub async fn grade(
        &self,
        tenant: &str,
        id: &str,
        enabled: Option<bool>,
        severity: Option<Option<Level>>,
    ) -> Result<Arc<Current>, DeployError> {
        self.change(tenant, |rules, changed| {
            let known = changed.disabled.contains(id) || changed.severity.contains_key(id);
            if !known && !rules.is_some_and(|rules| has(rules, tenant, id)) {
                return Err(unknown(id));
            }
            match enabled {
                Some(true) => {
                    changed.disabled.remove(id);
                }
                Some(false) => {
                    changed.disabled.insert(id.to_owned());
                }
                None => {}
            }
            match severity {
                Some(Some(level)) => {
                    changed.severity.insert(id.to_owned(), level);
                }
                Some(None) => {
                    changed.severity.remove(id);
                }
                None => {}
            }
            Ok(())
        })
        .await
    }

    /// Makes an exception of a tenant, or replaces that of its name.
    ///
    /// # Errors
    /// [`DeployError::Refused`] when its filter is wrong, [`DeployError::Invalid`] when it is for no rule of the tenant,
    /// and when catalog or log fail.
    pub async fn except(
        &self,
        tenant: &str,
        name: &str,
        exception: RuleException,
    ) -> Result<Arc<Current>, DeployError> {
        let long = exception.author.len().max(exception.reason.len()).max(name.len()) > MOST_WORDS;
        if name.is_empty() || long || exception.filter.len() > MOST_FILTER {
            return Err(DeployError::Invalid {
                reason: "an exception without a name, or one that is too long".to_owned(),
                hint: "use at most 1 KiB for name and reason, and 32 KiB for the filter",
            });
        }
        self.change(tenant, |rules, changed| {
            let filter = Filter::parse(name, &exception.filter).map_err(DeployError::Refused)?;
            let sees = |owner: Option<&str>| owner.is_none_or(|owner| owner == tenant);
            let mut all = rules.iter().flat_map(|rules| rules.book.rules());
            if !all.any(|rule| sees(rule.owner.as_deref()) && filter.is_for(rule)) {
                return Err(DeployError::Invalid {
                    reason: format!("the exception '{name}' is for no loaded rule"),
                    hint: "check the ids under `rules`, and that its `logsource` is theirs",
                });
            }
            changed.exceptions.insert(name.to_owned(), exception);
            Ok(())
        })
        .await
    }

    /// Takes an exception of a tenant back.
    ///
    /// # Errors
    /// [`DeployError::Unknown`] when the tenant has none of the name, and when catalog or log fail.
    pub async fn end_exception(
        &self,
        tenant: &str,
        name: &str,
    ) -> Result<Arc<Current>, DeployError> {
        self.change(tenant, |_, changed| match changed.exceptions.remove(name) {
            Some(_) => Ok(()),
            None => Err(DeployError::Unknown {
                what: "exception",
                name: name.to_owned(),
                hint: "list the exceptions to see their names".to_owned(),
            }),
        })
        .await
    }
}

/// Whether a rule or correlation of this id is tried on a tenant's records.
fn has(rules: &Rules, tenant: &str, id: &str) -> bool {
    let book = &rules.book;
    let of = |owner: Option<&str>| owner.is_none_or(|owner| owner == tenant);
    book.rules().any(|rule| rule.id == id && of(rule.owner.as_deref()))
        || book.correlations().iter().any(|(_, one)| one.id == id && one.is_of(tenant))
}

fn unknown(id: &str) -> DeployError {
    DeployError::Unknown {
        what: "rule",
        name: id.to_owned(),
        hint: "list the rules to see their ids".to_owned(),
    }
}
