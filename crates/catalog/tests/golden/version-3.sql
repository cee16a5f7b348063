-- A catalog of schema version 3, as Palisade 0.3.0 wrote it. Never changed; see tests/golden.rs.
PRAGMA application_id = 0x504c5344;
PRAGMA user_version = 3;
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE activations (
    generation   INTEGER PRIMARY KEY,
    kind         TEXT    NOT NULL,
    name         TEXT    NOT NULL,
    content_hash TEXT    REFERENCES contents (hash),
    settled      INTEGER NOT NULL DEFAULT 0 CHECK (settled IN (0, 1))
) STRICT;
INSERT INTO "activations" VALUES(1,'threshold','anomaly','aa',1);
INSERT INTO "activations" VALUES(2,'reputation_list','blocked','bb',0);
CREATE TABLE alert_notes (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant   TEXT    NOT NULL,
    alert_id TEXT    NOT NULL,
    actor    TEXT    NOT NULL,
    time     INTEGER NOT NULL,
    text     TEXT    NOT NULL
) STRICT;
INSERT INTO "alert_notes" VALUES(1,'acme','0123456789abcdef0123456789abcdef','local',2100,'looked at it');
CREATE TABLE alert_states (
    tenant   TEXT    NOT NULL,
    alert_id TEXT    NOT NULL,
    status   INTEGER NOT NULL CHECK (status IN (0, 1, 2)),
    reason   TEXT,
    assignee TEXT,
    actor    TEXT    NOT NULL,
    time     INTEGER NOT NULL,
    PRIMARY KEY (tenant, alert_id)
) STRICT, WITHOUT ROWID;
INSERT INTO "alert_states" VALUES('acme','0123456789abcdef0123456789abcdef',2,'benign','ada','local',2050);
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
INSERT INTO "api_keys" VALUES('4rprd7tohju5','acme','beats',3,X'76720E1352B2FBCE163A6FC3D98B04BD6B9FC0E0974E0F386A41BF2B1D2CCC6C',1500,9000,NULL);
INSERT INTO "api_keys" VALUES('jviwz3m3dolu','acme','old',3,X'A3139F216503CD26D87F54A1D15753C0817A31C143A856D57A9E01BDE1A27B0D',1200,NULL,1300);
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
INSERT INTO "audits" VALUES(1,1500,'acme','local','key:create','beats','{"scopes":"ingest,query"}','');
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
INSERT INTO "checkpoints" VALUES(1,0,5,'checkpoints/5',7,-1,1,1);
INSERT INTO "checkpoints" VALUES(2,0,10,'checkpoints/10',7,-1,1,0);
INSERT INTO "checkpoints" VALUES(3,0,20,'checkpoints/20',7,-1,1,0);
CREATE TABLE contents (
    hash    TEXT PRIMARY KEY,
    content BLOB NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "contents" VALUES('aa',X'302E37');
INSERT INTO "contents" VALUES('bb',X'3139322E302E322E302F32340A');
CREATE TABLE counters (
    name  TEXT    PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "counters" VALUES('generation',2);
INSERT INTO "counters" VALUES('manifest_version',4);
INSERT INTO "counters" VALUES('ownership_epoch',2);
INSERT INTO "counters" VALUES('segment_id',5);
CREATE TABLE dead_letter_states (
    tenant  TEXT    NOT NULL,
    id      TEXT    NOT NULL,
    state   INTEGER NOT NULL CHECK (state IN (1, 2)),
    retries INTEGER NOT NULL,
    actor   TEXT    NOT NULL,
    time    INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
INSERT INTO "dead_letter_states" VALUES('acme','0123456789abcdef0123456789abcdef',1,1,'local',2000);
CREATE TABLE deliveries (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    receiver   TEXT    NOT NULL,
    tenant     TEXT    NOT NULL,
    alert_id   TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    state      INTEGER NOT NULL CHECK (state IN (0, 1, 2)),
    attempts   INTEGER NOT NULL,
    due        INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    changed_at INTEGER NOT NULL,
    error      TEXT    NOT NULL,
    content    TEXT    NOT NULL,
    UNIQUE (receiver, tenant, alert_id, revision)
) STRICT;
INSERT INTO "deliveries" VALUES(1,'soc','acme','0123456789abcdef0123456789abcdef',0,1,1,2300,2200,2300,'','{}');
INSERT INTO "deliveries" VALUES(2,'soc','acme','0123456789abcdef0123456789abcdef',1,2,1,2300,2200,2300,'status 400','{}');
INSERT INTO "deliveries" VALUES(3,'soc','acme','0123456789abcdef0123456789abcdef',2,0,0,2200,2200,2200,'','{}');
CREATE TABLE gateways (
    region  INTEGER NOT NULL,
    gateway INTEGER NOT NULL,
    epoch   INTEGER NOT NULL,
    PRIMARY KEY (region, gateway)
) STRICT, WITHOUT ROWID;
INSERT INTO "gateways" VALUES(1,1,2);
CREATE TABLE hunts (
    number     INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    tenant     TEXT    NOT NULL,
    actor      TEXT    NOT NULL,
    state      INTEGER NOT NULL CHECK (state BETWEEN 0 AND 5),
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at   INTEGER,
    request    TEXT    NOT NULL,
    report     TEXT    NOT NULL,
    error      TEXT    NOT NULL
) STRICT;
INSERT INTO "hunts" VALUES(1,'00112233445566778899aabbccddeeff','acme','local',2,3000,3100,3200,'{"rules":"in_force","from":null,"to":9000,"include_late":false}','{"rows":12}','');
INSERT INTO "hunts" VALUES(2,'112233445566778899aabbccddeeff00','acme','local',1,3300,3400,NULL,'{"rules":"in_force","from":null,"to":9000,"include_late":false}','','');
INSERT INTO "hunts" VALUES(3,'2233445566778899aabbccddeeff0011','acme','local',0,3500,NULL,NULL,'{"rules":"in_force","from":null,"to":9000,"include_late":false}','','');
CREATE TABLE identity (
    only_row   INTEGER PRIMARY KEY CHECK (only_row = 1),
    log_id     BLOB    NOT NULL CHECK (length(log_id) = 16),
    partitions INTEGER NOT NULL CHECK (partitions BETWEEN 1 AND 4096)
) STRICT;
INSERT INTO "identity" VALUES(1,X'F51E66831E6C14AE8B41FA217A7C62D5',8);
CREATE TABLE lists (
    id      INTEGER PRIMARY KEY,
    hash    BLOB    NOT NULL UNIQUE,
    content TEXT    NOT NULL
) STRICT;
INSERT INTO "lists" VALUES(1,X'882112E32D1E7FD81997B6DC02FA48049A922E64DD582010A6F47188B5CF9C80','["winlog.event_data.Field0","text","winlog.event_data.Field1","text","winlog.event_data.Field2","text"]');
INSERT INTO "lists" VALUES(2,X'1C69DDFF45BA81EF7D14A4F81FC53783EF1157DC1F2E71EACCF8011293C5843B','acme,default');
CREATE TABLE partitions (
    partition INTEGER PRIMARY KEY,
    epoch     INTEGER NOT NULL,
    position  INTEGER NOT NULL
) STRICT;
INSERT INTO "partitions" VALUES(0,1,30);
INSERT INTO "partitions" VALUES(1,0,0);
INSERT INTO "partitions" VALUES(2,0,0);
INSERT INTO "partitions" VALUES(3,0,0);
INSERT INTO "partitions" VALUES(4,0,0);
INSERT INTO "partitions" VALUES(5,0,0);
INSERT INTO "partitions" VALUES(6,0,0);
INSERT INTO "partitions" VALUES(7,0,0);
CREATE TABLE receiver_memory (
    receiver TEXT NOT NULL,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (receiver, key)
) STRICT, WITHOUT ROWID;
INSERT INTO "receiver_memory" VALUES('soc','d/1','{}');
CREATE TABLE receivers (
    name     TEXT    PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    alert_id TEXT    NOT NULL,
    revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "receivers" VALUES('soc',2,7,'0123456789abcdef0123456789abcdef',2);
CREATE TABLE schema_versions (version INTEGER PRIMARY KEY, release TEXT NOT NULL) STRICT;
INSERT INTO "schema_versions" VALUES(1,'0.1.0');
INSERT INTO "schema_versions" VALUES(2,'0.2.0');
INSERT INTO "schema_versions" VALUES(3,'0.3.0');
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
INSERT INTO "segments" VALUES(1,2,'events','tables/events/0000000000000001.parquet',1,1,4,10,1000,-5,1700000000000010,2,0,10,0,1,-2);
INSERT INTO "segments" VALUES(2,2,'events','tables/events/0000000000000002.parquet',1,2,4,10,1000,-5,1700000000000020,2,10,20,0,1,-3);
INSERT INTO "segments" VALUES(3,1,'events','tables/events/0000000000000003.parquet',1,3,NULL,10,1000,-5,1700000000000030,2,20,30,0,1,-4);
INSERT INTO "segments" VALUES(4,1,'events','tables/events/0000000000000004.parquet',1,4,NULL,20,2000,-5,1700000000000020,2,0,20,1,1,-5);
INSERT INTO "segments" VALUES(5,0,'events','tables/events/0000000000000005.parquet',1,NULL,NULL,0,0,0,0,NULL,0,0,0,NULL,0);
CREATE TABLE silences (
    id         TEXT    PRIMARY KEY,
    tenant     TEXT    NOT NULL,
    matchers   TEXT    NOT NULL,
    starts_at  INTEGER NOT NULL,
    ends_at    INTEGER NOT NULL,
    creator    TEXT    NOT NULL,
    comment    TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    muted      INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
INSERT INTO "silences" VALUES('ddd14813571e6b0b6b0b82344696086a','acme','["user=alice"]',2000,9000,'local','maintenance',2000,2);
CREATE TABLE tenants (
    name                TEXT    PRIMARY KEY,
    spread              INTEGER NOT NULL CHECK (spread BETWEEN 1 AND 4096),
    max_dynamic_columns INTEGER NOT NULL,
    retention_days      TEXT    NOT NULL,
    daily_limits        TEXT    NOT NULL,
    created_at          INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "tenants" VALUES('acme',16,50,'{"events":30}','{"records":1000000}',1000);
INSERT INTO "tenants" VALUES('default',4096,1000,'{}','{}',0);
INSERT INTO "tenants" VALUES('public',4096,1000,'{}','{}',0);
CREATE INDEX segments_not_live ON segments (state) WHERE state <> 1;
CREATE INDEX audits_by_tenant ON audits (tenant, id);
CREATE INDEX audits_by_time ON audits (time);
CREATE INDEX dead_letter_states_by_time ON dead_letter_states (time);
CREATE INDEX activations_by_name ON activations (kind, name, generation);
CREATE INDEX alert_states_by_status ON alert_states (tenant, status, time);
CREATE INDEX alert_states_by_time ON alert_states (time);
CREATE INDEX alert_notes_by_alert ON alert_notes (tenant, alert_id, id);
CREATE INDEX alert_notes_by_time ON alert_notes (time);
CREATE INDEX silences_by_end ON silences (ends_at);
CREATE INDEX silences_by_tenant ON silences (tenant, ends_at);
CREATE INDEX deliveries_due ON deliveries (receiver, due) WHERE state = 0;
CREATE INDEX deliveries_by_tenant ON deliveries (tenant, state, id);
CREATE INDEX deliveries_by_alert ON deliveries (tenant, alert_id);
CREATE INDEX deliveries_by_change ON deliveries (changed_at) WHERE state <> 0;
CREATE INDEX hunts_by_tenant ON hunts (tenant, number);
CREATE INDEX hunts_by_state ON hunts (state, number);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('checkpoints',3);
INSERT INTO "sqlite_sequence" VALUES('audits',1);
INSERT INTO "sqlite_sequence" VALUES('alert_notes',1);
INSERT INTO "sqlite_sequence" VALUES('deliveries',3);
INSERT INTO "sqlite_sequence" VALUES('hunts',3);
COMMIT;
