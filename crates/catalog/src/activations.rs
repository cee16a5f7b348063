//! Activations (C1): what is in force, under its content hash and with a generation.
//!
//! An activation is an intent: the pipeline appends its control record to every partition, repeats
//! that after a crash while the activation is not *settled*, and a partition ignores a generation
//! that is not above its own. So a rollback to an older content is a new generation, and a late
//! repeat undoes nothing.

use crate::error::CatalogError;
use crate::identity::next_number;
use crate::open::{Catalog, from_sql, to_sql};

/// The largest content, in bytes.
const MAX_CONTENT: usize = 64 << 20;
/// The longest kind, name or hash, in bytes.
const MAX_TEXT: usize = 256;

/// Something that is in force, or was taken out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activation {
    /// Above that of every earlier activation, of any kind.
    pub generation: u64,
    /// What kind of thing: `reputation_list`, `threshold`, `rule`, …
    pub kind: String,
    /// Its name within the kind.
    pub name: String,
    /// The content's hash, hexadecimal; `None`: taken out of force.
    pub content_hash: Option<String>,
    /// The content; `None` with the hash.
    pub content: Option<Vec<u8>>,
}

impl Catalog {
    /// Brings a content into force under a name and returns the generation. If it is in force
    /// already, that generation is returned and nothing changes. The hash is the caller's (a
    /// correlation's covers the rules that it refers to).
    ///
    /// # Errors
    /// [`CatalogError::Invalid`] for texts or contents out of bounds and for another content under
    /// a known hash, and storage errors.
    pub async fn activate(
        &self,
        kind: &str,
        name: &str,
        content_hash: &str,
        content: &[u8],
    ) -> Result<u64, CatalogError> {
        check_text("content hash", content_hash)?;
        if content.len() > MAX_CONTENT {
            return Err(CatalogError::invalid("content", "use at most 64 MiB"));
        }
        self.add_activation(kind, name, Some((content_hash, content))).await
    }

    /// Takes a name out of force and returns the generation of that.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] when it was never in force, and storage errors.
    pub async fn deactivate(&self, kind: &str, name: &str) -> Result<u64, CatalogError> {
        self.add_activation(kind, name, None).await
    }

    /// What is in force of a kind, by name.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn active(&self, kind: &str) -> Result<Vec<Activation>, CatalogError> {
        let mut connection = self.reader().await?;
        let rows: Vec<ActivationRow> = sqlx::query_as(
            "SELECT generation, kind, name, content_hash, content
             FROM activations JOIN contents ON hash = content_hash
             WHERE kind = ?1 AND generation IN
                 (SELECT max(generation) FROM activations WHERE kind = ?1 GROUP BY name)
             ORDER BY name",
        )
        .bind(kind)
        .fetch_all(&mut *connection)
        .await?;
        rows.into_iter().map(from_row).collect()
    }

    /// A content by its hash, in force or not: what was in force once can be asked for.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] for a hash that nothing was ever kept under, and storage errors.
    pub async fn content(&self, hash: &str) -> Result<Vec<u8>, CatalogError> {
        let mut connection = self.reader().await?;
        let content: Option<Vec<u8>> =
            sqlx::query_scalar("SELECT content FROM contents WHERE hash = ?")
                .bind(hash)
                .fetch_optional(&mut *connection)
                .await?;
        content.ok_or_else(|| CatalogError::Unknown { what: "content", name: hash.to_owned() })
    }

    /// The newest activation of each name whose control record may be missing in the log, by
    /// generation; those taken out of force are among them.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn unsettled_activations(&self) -> Result<Vec<Activation>, CatalogError> {
        let mut connection = self.reader().await?;
        let rows: Vec<ActivationRow> = sqlx::query_as(
            "SELECT generation, kind, name, content_hash, content
             FROM activations LEFT JOIN contents ON hash = content_hash
             WHERE settled = 0 AND generation IN
                 (SELECT max(generation) FROM activations GROUP BY kind, name)
             ORDER BY generation",
        )
        .fetch_all(&mut *connection)
        .await?;
        rows.into_iter().map(from_row).collect()
    }

    /// Notes that every partition has the control record of a generation.
    ///
    /// # Errors
    /// [`CatalogError::Unknown`] for a generation that was never given, and storage errors.
    pub async fn settle_activation(&self, generation: u64) -> Result<(), CatalogError> {
        let mut transaction = self.begin().await?;
        let done = sqlx::query("UPDATE activations SET settled = 1 WHERE generation = ?")
            .bind(to_sql(generation, "generation")?)
            .execute(&mut *transaction)
            .await?;
        if done.rows_affected() == 0 {
            let name = generation.to_string();
            return Err(CatalogError::Unknown { what: "generation", name });
        }
        self.finish(transaction).await
    }

    async fn add_activation(
        &self,
        kind: &str,
        name: &str,
        content: Option<(&str, &[u8])>,
    ) -> Result<u64, CatalogError> {
        check_text("kind", kind)?;
        check_text("name", name)?;
        let mut transaction = self.begin().await?;
        let current: Option<(i64, Option<String>)> = sqlx::query_as(
            "SELECT generation, content_hash FROM activations WHERE kind = ? AND name = ?
             ORDER BY generation DESC LIMIT 1",
        )
        .bind(kind)
        .bind(name)
        .fetch_optional(&mut *transaction)
        .await?;
        if current.is_none() && content.is_none() {
            return Err(CatalogError::Unknown { what: "activation", name: name.to_owned() });
        }
        if let Some((hash, content)) = content {
            sqlx::query(
                "INSERT INTO contents (hash, content) VALUES (?, ?) ON CONFLICT DO NOTHING",
            )
            .bind(hash)
            .bind(content)
            .execute(&mut *transaction)
            .await?;
            let same: bool = sqlx::query_scalar("SELECT content = ? FROM contents WHERE hash = ?")
                .bind(content)
                .bind(hash)
                .fetch_one(&mut *transaction)
                .await?;
            if !same {
                return Err(CatalogError::invalid(
                    "content hash",
                    "another content is stored under it; hash the whole content",
                ));
            }
        }
        let hash = content.map(|(hash, _)| hash);
        let generation = match current {
            Some((generation, current)) if current.as_deref() == hash => generation,
            _ => {
                let generation = next_number(&mut transaction, "generation", 1).await?;
                sqlx::query(
                    "INSERT INTO activations (generation, kind, name, content_hash)
                     VALUES (?, ?, ?, ?)",
                )
                .bind(generation)
                .bind(kind)
                .bind(name)
                .bind(hash)
                .execute(&mut *transaction)
                .await?;
                generation
            }
        };
        self.finish(transaction).await?;
        from_sql(generation, "generation")
    }
}

/// generation, kind, name, hash, content
type ActivationRow = (i64, String, String, Option<String>, Option<Vec<u8>>);

fn from_row(row: ActivationRow) -> Result<Activation, CatalogError> {
    let (generation, kind, name, content_hash, content) = row;
    let generation = from_sql(generation, "generation")?;
    Ok(Activation { generation, kind, name, content_hash, content })
}

fn check_text(what: &'static str, text: &str) -> Result<(), CatalogError> {
    if text.is_empty() || text.len() > MAX_TEXT {
        return Err(CatalogError::invalid(what, "use 1 to 256 bytes"));
    }
    Ok(())
}
