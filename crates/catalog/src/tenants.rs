//! Tenants. `default` and `public` exist from the start.

use crate::error::CatalogError;
use crate::open::Catalog;
use palisade_event::{TenantId, slot};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What a tenant may have and keep.
#[derive(Debug, Clone, PartialEq)]
pub struct TenantSettings {
    /// Over how many of the 4,096 slots the tenant's entities are spread (P1): 1 keeps it together.
    /// Fixed when the tenant is made.
    pub spread: u16,
    /// How many dynamic columns a source of the tenant may have; further fields go to the overflow
    /// column.
    pub max_dynamic_columns: u32,
    /// Days that a table's rows are kept, by table; a table that is not named has the server's
    /// default.
    pub retention_days: BTreeMap<String, u32>,
    /// Limits a day, a JSON object whose names belong to the gateway (for example `records`,
    /// `bytes`).
    pub daily_limits: Map<String, Value>,
}

impl Default for TenantSettings {
    fn default() -> Self {
        Self {
            spread: slot::SLOTS,
            max_dynamic_columns: 1000,
            retention_days: BTreeMap::new(),
            daily_limits: Map::new(),
        }
    }
}

/// A tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct Tenant {
    /// Its name.
    pub name: TenantId,
    /// What it may have and keep.
    pub settings: TenantSettings,
    /// When it was made, microseconds since the epoch; 0 for those that exist from the start.
    pub created_at: i64,
}

impl Catalog {
    /// Makes a tenant. `now` is in microseconds since the epoch.
    ///
    /// # Errors
    /// [`CatalogError::Exists`] when the name is taken, [`CatalogError::Invalid`] for settings out
    /// of bounds, and storage errors.
    pub async fn create_tenant(
        &self,
        name: &TenantId,
        settings: TenantSettings,
        now: i64,
    ) -> Result<Tenant, CatalogError> {
        let texts = check(&settings)?;
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO tenants
                 (name, spread, max_dynamic_columns, retention_days, daily_limits, created_at)
             VALUES (?, ?, ?, ?, ?, ?)",
        )
        .bind(name.as_str())
        .bind(settings.spread)
        .bind(settings.max_dynamic_columns)
        .bind(texts.0)
        .bind(texts.1)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(|error| CatalogError::taken(error, "tenant", name.as_str()))?;
        self.finish(transaction).await?;
        Ok(Tenant { name: name.clone(), settings, created_at: now })
    }

    /// Changes a tenant's settings, all but its spread, which would scatter its state (P1).
    ///
    /// # Errors
    /// [`CatalogError::Unknown`], [`CatalogError::Invalid`] for settings out of bounds or another
    /// spread, and storage errors.
    pub async fn update_tenant(
        &self,
        name: &TenantId,
        settings: TenantSettings,
    ) -> Result<(), CatalogError> {
        let texts = check(&settings)?;
        let mut transaction = self.begin().await?;
        let spread: Option<i64> = sqlx::query_scalar("SELECT spread FROM tenants WHERE name = ?")
            .bind(name.as_str())
            .fetch_optional(&mut *transaction)
            .await?;
        match spread {
            None => return Err(unknown(name)),
            Some(spread) if spread != i64::from(settings.spread) => {
                return Err(CatalogError::invalid(
                    "spread",
                    format!("it is {spread} since the tenant was made and cannot change"),
                ));
            }
            Some(_) => {}
        }
        sqlx::query(
            "UPDATE tenants SET max_dynamic_columns = ?, retention_days = ?, daily_limits = ?
             WHERE name = ?",
        )
        .bind(settings.max_dynamic_columns)
        .bind(texts.0)
        .bind(texts.1)
        .bind(name.as_str())
        .execute(&mut *transaction)
        .await?;
        self.finish(transaction).await
    }

    /// A tenant.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`], and storage errors.
    pub async fn tenant(&self, name: &TenantId) -> Result<Tenant, CatalogError> {
        let mut connection = self.reader().await?;
        let row: Option<TenantRow> = sqlx::query_as(
            "SELECT name, spread, max_dynamic_columns, retention_days, daily_limits, created_at
             FROM tenants WHERE name = ?",
        )
        .bind(name.as_str())
        .fetch_optional(&mut *connection)
        .await?;
        row.map_or_else(|| Err(unknown(name)), from_row)
    }

    /// All tenants, by name.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn tenants(&self) -> Result<Vec<Tenant>, CatalogError> {
        let mut connection = self.reader().await?;
        let rows: Vec<TenantRow> = sqlx::query_as(
            "SELECT name, spread, max_dynamic_columns, retention_days, daily_limits, created_at
             FROM tenants ORDER BY name",
        )
        .fetch_all(&mut *connection)
        .await?;
        rows.into_iter().map(from_row).collect()
    }
}

/// name, spread, columns, retention, limits, created
type TenantRow = (String, i64, i64, String, String, i64);

fn from_row(row: TenantRow) -> Result<Tenant, CatalogError> {
    let (name, spread, columns, retention, limits, created_at) = row;
    let damaged = || CatalogError::Damaged(format!("tenant '{name}'"));
    Ok(Tenant {
        settings: TenantSettings {
            spread: u16::try_from(spread).map_err(|_| damaged())?,
            max_dynamic_columns: u32::try_from(columns).map_err(|_| damaged())?,
            retention_days: serde_json::from_str(&retention).map_err(|_| damaged())?,
            daily_limits: serde_json::from_str(&limits).map_err(|_| damaged())?,
        },
        name: TenantId::new(&name).map_err(|_| damaged())?,
        created_at,
    })
}

/// The settings' JSON texts: retention and limits.
fn check(settings: &TenantSettings) -> Result<(String, String), CatalogError> {
    if !(1..=slot::SLOTS).contains(&settings.spread) {
        return Err(CatalogError::invalid("spread", "use 1 to 4096 slots"));
    }
    if settings.retention_days.values().any(|days| *days == 0) {
        return Err(CatalogError::invalid("retention", "use at least one day"));
    }
    let text = |value: Result<String, serde_json::Error>| {
        let text =
            value.map_err(|error| CatalogError::invalid("tenant settings", error.to_string()))?;
        if text.len() > 64 << 10 {
            return Err(CatalogError::invalid("tenant settings", "use at most 64 KiB of JSON"));
        }
        Ok(text)
    };
    Ok((
        text(serde_json::to_string(&settings.retention_days))?,
        text(serde_json::to_string(&settings.daily_limits))?,
    ))
}

fn unknown(name: &TenantId) -> CatalogError {
    CatalogError::Unknown { what: "tenant", name: name.to_string() }
}
