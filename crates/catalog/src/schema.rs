//! Schema versions and their migrations.
//!
//! A database carries its version in `user_version`, and in `schema_versions` one row per applied
//! migration with the release that brought it. That table keeps its form for ever: it is what an
//! older release reads to name the release that is needed.

use crate::error::CatalogError;
use sqlx::{Connection, SqliteConnection};

/// The schema version that this release reads and writes.
pub const SCHEMA_VERSION: u32 = 3;

/// `PLSD`, in the header of the database file.
const APPLICATION_ID: i64 = 0x504c_5344;

/// One step: the statements that lead to `version` from the one before.
pub(crate) struct Migration {
    /// The version that the database has afterwards.
    pub(crate) version: u32,
    /// The release that brought this version.
    pub(crate) release: &'static str,
    /// The statements.
    pub(crate) sql: &'static str,
    /// The `PRAGMA user_version` of that version; SQLite takes no parameter there.
    pub(crate) stamp: &'static str,
}

/// All steps, ascending without gaps from 1.
pub(crate) const MIGRATIONS: &[Migration] = &[
    Migration {
        version: 1,
        release: "0.1.0",
        sql: include_str!("../migrations/0001_initial.sql"),
        stamp: "PRAGMA user_version = 1",
    },
    Migration {
        version: 2,
        release: "0.2.0",
        sql: include_str!("../migrations/0002_alerts.sql"),
        stamp: "PRAGMA user_version = 2",
    },
    Migration {
        version: 3,
        release: "0.3.0",
        sql: include_str!("../migrations/0003_hunts.sql"),
        stamp: "PRAGMA user_version = 3",
    },
];

/// Brings the database to the last version of `migrations`. `name` is the file's name, for messages.
/// Two processes may do this at once: each step checks again inside its transaction.
pub(crate) async fn migrate(
    connection: &mut SqliteConnection,
    migrations: &[Migration],
    name: &str,
) -> Result<(), CatalogError> {
    let known = migrations.last().map_or(0, |last| last.version);
    loop {
        // Looked at without a write lock first, so that an up-to-date database is opened even while
        // another process writes.
        let version = version(connection, name).await?;
        if version > known {
            return Err(CatalogError::Newer {
                found: version,
                known,
                release: release_of(connection, version).await?,
            });
        }
        let Some(next) = migrations.iter().find(|step| step.version == version + 1) else {
            return Ok(());
        };
        let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
        if self::version(&mut transaction, name).await? != version {
            transaction.rollback().await?;
            continue;
        }
        if version == 0 {
            sqlx::raw_sql(
                "PRAGMA application_id = 0x504c5344;
                 CREATE TABLE schema_versions (version INTEGER PRIMARY KEY, release TEXT NOT NULL) STRICT;",
            )
            .execute(&mut *transaction)
            .await?;
        }
        sqlx::raw_sql(next.sql).execute(&mut *transaction).await?;
        sqlx::query("INSERT INTO schema_versions (version, release) VALUES (?, ?)")
            .bind(next.version)
            .bind(next.release)
            .execute(&mut *transaction)
            .await?;
        sqlx::raw_sql(next.stamp).execute(&mut *transaction).await?;
        transaction.commit().await?;
    }
}

/// The version of the database, 0 for an empty one; refuses databases of something else.
async fn version(connection: &mut SqliteConnection, name: &str) -> Result<u32, CatalogError> {
    let application: i64 =
        sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let version: i64 =
        sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut *connection).await?;
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(connection).await?;
    match (application, version, tables) {
        (0, 0, 0) => Ok(0),
        (APPLICATION_ID, 1.., 1..) => u32::try_from(version)
            .map_err(|_| CatalogError::Damaged(format!("schema version {version}"))),
        _ => Err(CatalogError::Foreign(name.to_owned())),
    }
}

/// The release that brought a version.
async fn release_of(
    connection: &mut SqliteConnection,
    version: u32,
) -> Result<String, CatalogError> {
    let release: Option<String> =
        sqlx::query_scalar("SELECT release FROM schema_versions WHERE version = ?")
            .bind(version)
            .fetch_optional(connection)
            .await?;
    Ok(release.unwrap_or_else(|| "(unknown)".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: Migration = Migration {
        version: SCHEMA_VERSION + 1,
        release: "0.9.0",
        sql: "ALTER TABLE tenants ADD COLUMN colour TEXT NOT NULL DEFAULT 'blue';",
        stamp: "PRAGMA user_version = 4",
    };
    const BROKEN: Migration = Migration {
        version: SCHEMA_VERSION + 1,
        release: "0.9.0",
        sql: "CREATE TABLE half (x INTEGER) STRICT; INSERT INTO nowhere VALUES (1);",
        stamp: "PRAGMA user_version = 4",
    };

    fn steps(last: Migration) -> Vec<Migration> {
        MIGRATIONS.iter().map(|m| Migration { ..*m }).chain([last]).collect()
    }

    #[test]
    fn migrations_ascend_without_gaps() {
        for (index, step) in MIGRATIONS.iter().enumerate() {
            assert_eq!(step.version as usize, index + 1);
            assert_eq!(step.stamp, format!("PRAGMA user_version = {}", step.version));
        }
        assert_eq!(MIGRATIONS.last().map(|step| step.version), Some(SCHEMA_VERSION));
    }

    #[tokio::test]
    async fn a_database_is_migrated_and_an_older_release_names_the_newer() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        migrate(&mut connection, MIGRATIONS, "c").await.unwrap();
        migrate(&mut connection, MIGRATIONS, "c").await.unwrap();
        migrate(&mut connection, &steps(NEXT), "c").await.unwrap();
        let colours: Vec<String> = sqlx::query_scalar("SELECT colour FROM tenants")
            .fetch_all(&mut connection)
            .await
            .unwrap();
        assert_eq!(colours, ["blue", "blue"]);

        let refused = migrate(&mut connection, MIGRATIONS, "c").await.unwrap_err();
        assert_eq!(
            refused,
            CatalogError::Newer {
                found: SCHEMA_VERSION + 1,
                known: SCHEMA_VERSION,
                release: "0.9.0".to_owned()
            }
        );
        assert!(refused.to_string().contains("run palisade 0.9.0 or newer"), "{refused}");
    }

    #[tokio::test]
    async fn a_broken_step_changes_nothing() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        migrate(&mut connection, MIGRATIONS, "c").await.unwrap();
        migrate(&mut connection, &steps(BROKEN), "c").await.unwrap_err();
        let halves: i64 =
            sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE name = 'half'")
                .fetch_one(&mut connection)
                .await
                .unwrap();
        assert_eq!(halves, 0);
        assert_eq!(version(&mut connection, "c").await.unwrap(), SCHEMA_VERSION);
    }

    #[tokio::test]
    async fn foreign_databases_are_refused() {
        let mut connection = SqliteConnection::connect("sqlite::memory:").await.unwrap();
        sqlx::raw_sql("CREATE TABLE t (x)").execute(&mut connection).await.unwrap();
        assert_eq!(
            migrate(&mut connection, MIGRATIONS, "some.db").await.unwrap_err(),
            CatalogError::Foreign("some.db".to_owned())
        );
    }
}
