//! Lists that many segments share: their columns and their tenants, each stored once under the
//! SHA-256 of its text.
//!
//! A column list is a JSON array of names and kinds in turn: `["tenant","text","time","timestamp"]`.
//! A tenant list is the names, sorted and separated by commas, which no tenant's name contains.

use crate::error::CatalogError;
use crate::types::SegmentColumn;
use sha2::{Digest, Sha256};
use sqlx::SqliteConnection;
use std::collections::BTreeMap;

/// The longest list's text. 100,000 columns with names of 80 bytes fit.
const MAX_TEXT: usize = 16 << 20;

pub(crate) fn columns_to_text(columns: &[SegmentColumn]) -> Result<String, CatalogError> {
    let flat: Vec<&str> =
        columns.iter().flat_map(|column| [column.name.as_str(), column.kind.as_str()]).collect();
    serde_json::to_string(&flat)
        .map_err(|error| CatalogError::invalid("column list", error.to_string()))
}

pub(crate) fn columns_from_text(text: &str) -> Result<Vec<SegmentColumn>, CatalogError> {
    let damaged = || CatalogError::Damaged("a column list".to_owned());
    let flat: Vec<String> = serde_json::from_str(text).map_err(|_| damaged())?;
    let mut columns = Vec::with_capacity(flat.len() / 2);
    let mut names = flat.into_iter();
    while let Some(name) = names.next() {
        columns.push(SegmentColumn { name, kind: names.next().ok_or_else(damaged)? });
    }
    Ok(columns)
}

pub(crate) fn tenants_to_text(tenants: &[String]) -> Result<String, CatalogError> {
    if !tenants.is_sorted_by(|a, b| a < b) {
        return Err(CatalogError::invalid("tenant list", "sort it and name each tenant once"));
    }
    if let Some(bad) = tenants.iter().find(|name| palisade_event::TenantId::new(name).is_err()) {
        return Err(CatalogError::invalid("tenant list", format!("'{bad}' is no tenant name")));
    }
    Ok(tenants.join(","))
}

pub(crate) fn tenants_from_text(text: &str) -> Vec<String> {
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The ids of lists within one transaction.
#[derive(Default)]
pub(crate) struct Lists {
    known: BTreeMap<[u8; 32], i64>,
}

impl Lists {
    /// The id of a list, stored if it is new.
    pub(crate) async fn id(
        &mut self,
        connection: &mut SqliteConnection,
        text: String,
    ) -> Result<i64, CatalogError> {
        if text.len() > MAX_TEXT {
            return Err(CatalogError::invalid("list", "its text must be below 16 MiB"));
        }
        let hash: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        if let Some(id) = self.known.get(&hash) {
            return Ok(*id);
        }
        let found: Option<i64> = sqlx::query_scalar("SELECT id FROM lists WHERE hash = ?")
            .bind(hash.as_slice())
            .fetch_optional(&mut *connection)
            .await?;
        let id = match found {
            Some(id) => id,
            None => {
                sqlx::query_scalar("INSERT INTO lists (hash, content) VALUES (?, ?) RETURNING id")
                    .bind(hash.as_slice())
                    .bind(text)
                    .fetch_one(connection)
                    .await?
            }
        };
        self.known.insert(hash, id);
        Ok(id)
    }
}

/// Deletes the lists that no segment names any more.
pub(crate) async fn collect_garbage(connection: &mut SqliteConnection) -> Result<(), CatalogError> {
    sqlx::query(
        "DELETE FROM lists WHERE id NOT IN (
             SELECT columns FROM segments WHERE columns IS NOT NULL
             UNION SELECT tenants FROM segments WHERE tenants IS NOT NULL)",
    )
    .execute(connection)
    .await?;
    Ok(())
}
