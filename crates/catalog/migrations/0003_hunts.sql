-- Hunts: rules over stored history, asked for and worked off one after the other. Times are microseconds since the epoch.

-- state: 0 queued, 1 running, 2 done, 3 failed, 4 cancelled, 5 interrupted (the process ended while it ran).
-- request and report are JSON of whoever runs hunts; what a hunt found lies in files beside the catalog.
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
CREATE INDEX hunts_by_tenant ON hunts (tenant, number);
CREATE INDEX hunts_by_state ON hunts (state, number);
