//! `palisade key create|list|revoke`.

use crate::Outcome;
use crate::config::Config;
use crate::server::{Failure, check_data, open_catalog};
use clap::{Args, Subcommand};
use palisade_catalog::{AuditRecord, Catalog, ScopeSet};
use palisade_event::TenantId;
use palisade_pipeline::clock::{Clock, SystemClock};
use std::process::ExitCode;

/// Make, list and revoke API keys. Works while the server runs.
#[derive(Debug, Args)]
pub(crate) struct Key {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a key and print it; it can't be shown again.
    Create {
        /// What it is for.
        name: String,
        /// The tenant, made if there is none of this name.
        #[arg(long, default_value = TenantId::DEFAULT)]
        tenant: String,
        /// What it may do: any of ingest, query, admin.
        #[arg(long, value_delimiter = ',', default_value = "ingest,query")]
        scopes: Vec<String>,
        /// After how many days it is refused; never without.
        #[arg(long, value_name = "DAYS")]
        expires: Option<u32>,
    },
    /// List keys, without their secrets.
    List {
        /// Only of this tenant.
        #[arg(long)]
        tenant: Option<String>,
    },
    /// Refuse a key from now on.
    Revoke {
        /// Its id, as listed.
        id: String,
    },
}

impl Key {
    pub(crate) fn run(self, config: &Config) -> Outcome {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        runtime.block_on(self.work(config))
    }

    async fn work(self, config: &Config) -> Outcome {
        let create = matches!(self.verb, Verb::Create { .. });
        if !create {
            check_data(&config.data)?;
        }
        let catalog = open_catalog(config, create).await?;
        let now = SystemClock::new().now();
        match self.verb {
            Verb::Create { name, tenant, scopes, expires } => {
                let tenant = TenantId::new(&tenant)?;
                if catalog.tenant(&tenant).await.is_err() {
                    catalog
                        .create_tenant(&tenant, palisade_catalog::TenantSettings::default(), now)
                        .await?;
                }
                let expires = expires.map(|days| now + i64::from(days) * 86_400_000_000);
                let scopes = scope_set(&scopes)?;
                audit(&catalog, now, &tenant, "key:create", &name).await?;
                let key = catalog.create_key(&tenant, &name, scopes, expires, now).await?;
                println!("{}", key.text);
                eprintln!(
                    "This key is shown once. Send it as 'Authorization: Bearer KEY'; `palisade key revoke {}` ends it.",
                    key.id
                );
            }
            Verb::List { tenant } => {
                let tenant = tenant.map(|tenant| TenantId::new(&tenant)).transpose()?;
                let keys = catalog.list_keys(tenant.as_ref()).await?;
                println!("{:<18} {:<16} {:<24} {:<18} STATE", "ID", "TENANT", "NAME", "SCOPES");
                for key in keys {
                    let state = match (key.revoked_at, key.expires_at) {
                        (Some(_), _) => "revoked",
                        (None, Some(at)) if at <= now => "expired",
                        _ => "active",
                    };
                    let scopes = [
                        (key.scopes.ingest, "ingest"),
                        (key.scopes.query, "query"),
                        (key.scopes.admin, "admin"),
                    ];
                    let scopes: Vec<_> =
                        scopes.iter().filter(|(has, _)| *has).map(|(_, name)| *name).collect();
                    println!(
                        "{:<18} {:<16} {:<24} {:<18} {state}",
                        key.id,
                        key.tenant.as_str(),
                        key.name,
                        scopes.join(",")
                    );
                }
            }
            Verb::Revoke { id } => {
                let keys = catalog.list_keys(None).await?;
                let Some(key) = keys.into_iter().find(|key| key.id == id) else {
                    return Err(
                        format!("there is no key '{id}'; `palisade key list` shows all").into()
                    );
                };
                audit(&catalog, now, &key.tenant, "key:revoke", &id).await?;
                catalog.revoke_key(Some(&key.tenant), &id, now).await?;
                eprintln!("The key {id} is refused from now on.");
            }
        }
        catalog.close().await?;
        Ok(ExitCode::SUCCESS)
    }
}

fn scope_set(names: &[String]) -> Result<ScopeSet, Failure> {
    let mut scopes = ScopeSet { ingest: false, query: false, admin: false };
    for name in names {
        match name.as_str() {
            "ingest" => scopes.ingest = true,
            "query" => scopes.query = true,
            "admin" => scopes.admin = true,
            other => {
                return Err(format!("there is no scope '{other}': use ingest, query, admin").into());
            }
        }
    }
    Ok(scopes)
}

async fn audit(
    catalog: &Catalog,
    time: i64,
    tenant: &TenantId,
    action: &str,
    subject: &str,
) -> Result<(), Failure> {
    let record = AuditRecord {
        time,
        tenant: tenant.clone(),
        actor: "local".to_owned(),
        action: action.to_owned(),
        subject: subject.to_owned(),
        detail: serde_json::Value::Null,
        request_id: String::new(),
    };
    Ok(catalog.audit(record).await?)
}
