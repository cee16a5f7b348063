-- Schema version 1 of the catalog.
-- Times are microseconds since the epoch. Offsets, row and byte counts are signed 64-bit integers
-- and never negative; checksums are the 64 bits of an unsigned integer.

-- What this database is. `partitions` is fixed when the log is made.
CREATE TABLE identity (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    log_id     BLOB    NOT NULL CHECK (length(log_id) = 16),
    partitions INTEGER NOT NULL CHECK (partitions BETWEEN 1 AND 4096)
) STRICT;

-- Numbers that only grow: segment_id, ownership_epoch, manifest_version, generation.
CREATE TABLE counters (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counters (name, value) VALUES
    ('segment_id', 0), ('ownership_epoch', 0), ('manifest_version', 0), ('generation', 0);

-- How often each gateway was started (I1).
CREATE TABLE gateways (
    region  INTEGER NOT NULL,
    gateway INTEGER NOT NULL,
    epoch   INTEGER NOT NULL,
    PRIMARY KEY (region, gateway)
) STRICT, WITHOUT ROWID;

-- Who owns a partition, and its committed position (M1). Epoch 0: never owned.
CREATE TABLE partitions (
    partition INTEGER PRIMARY KEY,
    epoch     INTEGER NOT NULL,
    position  INTEGER NOT NULL
) STRICT;

-- Lists of columns and of tenants, each stored once, named by their SHA-256.
CREATE TABLE lists (
    id      INTEGER PRIMARY KEY,
    hash    BLOB    NOT NULL UNIQUE,
    content TEXT    NOT NULL
) STRICT;

-- The files of all tables. state: 0 pending, 1 live, 2 retired (M3).
CREATE TABLE segments (
    id              INTEGER PRIMARY KEY,
    state           INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
    table_name      TEXT    NOT NULL,
    path            TEXT    NOT NULL UNIQUE,
    epoch           INTEGER NOT NULL,
    added_version   INTEGER,
    removed_version INTEGER,
    row_count       INTEGER NOT NULL DEFAULT 0,
    bytes           INTEGER NOT NULL DEFAULT 0,
    min_time        INTEGER NOT NULL DEFAULT 0,
    max_time        INTEGER NOT NULL DEFAULT 0,
    tenants         INTEGER REFERENCES lists (id),
    from_offset     INTEGER NOT NULL DEFAULT 0,
    to_offset       INTEGER NOT NULL DEFAULT 0,
    level           INTEGER NOT NULL DEFAULT 0,
    columns         INTEGER REFERENCES lists (id),
    checksum        INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX segments_not_live ON segments (state) WHERE state <> 1;

-- Where operator state is kept (M2). retired = 1: the file may be deleted.
CREATE TABLE checkpoints (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    partition INTEGER NOT NULL REFERENCES partitions (partition),
    position  INTEGER NOT NULL,
    path      TEXT    NOT NULL UNIQUE,
    bytes     INTEGER NOT NULL,
    checksum  INTEGER NOT NULL,
    epoch     INTEGER NOT NULL,
    retired   INTEGER NOT NULL DEFAULT 0 CHECK (retired IN (0, 1))
) STRICT;

-- retention_days and daily_limits are JSON objects.
CREATE TABLE tenants (
    name                TEXT    PRIMARY KEY,
    spread              INTEGER NOT NULL CHECK (spread BETWEEN 1 AND 4096),
    max_dynamic_columns INTEGER NOT NULL,
    retention_days      TEXT    NOT NULL,
    daily_limits        TEXT    NOT NULL,
    created_at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO tenants (name, spread, max_dynamic_columns, retention_days, daily_limits, created_at) VALUES
    ('default', 4096, 1000, '{}', '{}', 0), ('public', 4096, 1000, '{}', '{}', 0);

-- Keys, without their secrets. scopes: 1 ingest, 2 query, 4 admin.
CREATE TABLE api_keys (
    id            TEXT    PRIMARY KEY,
    tenant        TEXT    NOT NULL REFERENCES tenants (name),
    name          TEXT    NOT NULL,
    scopes        INTEGER NOT NULL,
    secret_sha256 BLOB    NOT NULL CHECK (length(secret_sha256) = 32),
    created_at    INTEGER NOT NULL,
    expires_at    INTEGER,
    revoked_at    INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE audits (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    time       INTEGER NOT NULL,
    tenant     TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    subject    TEXT    NOT NULL,
    detail     TEXT    NOT NULL,
    request_id TEXT    NOT NULL
) STRICT;
CREATE INDEX audits_by_tenant ON audits (tenant, id);
CREATE INDEX audits_by_time ON audits (time);

-- What people did about dead letters; a row is made when a letter is first touched.
CREATE TABLE dead_letter_states (
    tenant  TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    state   INTEGER NOT NULL CHECK (state IN (1, 2)),
    retries INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    time    INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_letter_states_by_time ON dead_letter_states (time);

-- Rules, lists, exceptions, thresholds under their content hash, and when they came into force (C1).
-- content_hash NULL: taken out of force. settled = 1: every partition has the control record.
CREATE TABLE contents (
    hash    TEXT PRIMARY KEY,
    content BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE activations (
    generation   INTEGER PRIMARY KEY,
    kind         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    content_hash TEXT    REFERENCES contents (hash),
    settled      INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1))
) STRICT;
CREATE INDEX activations_by_name ON activations (kind, name, generation);
