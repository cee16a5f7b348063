-- Schema version 2 of the catalog: the mutable side of alerts (M1) and what became of notifications (M5).
-- Times are microseconds since the epoch.

-- What people decided about an alert; a row is made when it is first touched.
-- status: 0 new, 1 acknowledged, 2 closed.
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
CREATE INDEX alert_states_by_status ON alert_states (tenant, status, time);
CREATE INDEX alert_states_by_time ON alert_states (time);

CREATE TABLE alert_notes (
    id       INTEGER PRIMARY KEY AUTOINCREMENT,
    tenant   TEXT    NOT NULL,
    alert_id TEXT    NOT NULL,
    actor    TEXT    NOT NULL,
    time     INTEGER NOT NULL,
    text     TEXT    NOT NULL
) STRICT;
CREATE INDEX alert_notes_by_alert ON alert_notes (tenant, alert_id, id);
CREATE INDEX alert_notes_by_time ON alert_notes (time);

-- matchers is a JSON list of texts. A silence that is lifted ends at that moment; its row stays.
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
CREATE INDEX silences_by_end ON silences (ends_at);
CREATE INDEX silences_by_tenant ON silences (tenant, ends_at);

-- How far each receiver has come in the table alerts, and who delivers to it (ownership as in partitions).
CREATE TABLE receivers (
    name     TEXT    PRIMARY KEY,
    epoch    INTEGER NOT NULL,
    position INTEGER NOT NULL,
    alert_id TEXT    NOT NULL,
    revision INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What deduplication and inhibition remember for a receiver: JSON by key.
CREATE TABLE receiver_memory (
    receiver TEXT NOT NULL,
    key      TEXT NOT NULL,
    value    TEXT NOT NULL,
    PRIMARY KEY (receiver, key)
) STRICT, WITHOUT ROWID;

-- Notifications. state: 0 pending, 1 delivered, 2 dead. due: when a pending one is tried (again).
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
CREATE INDEX deliveries_due ON deliveries (receiver, due) WHERE state = 0;
CREATE INDEX deliveries_by_tenant ON deliveries (tenant, state, id);
CREATE INDEX deliveries_by_alert ON deliveries (tenant, alert_id);
CREATE INDEX deliveries_by_change ON deliveries (changed_at) WHERE state <> 0;
