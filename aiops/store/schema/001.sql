-- One row an incident; `body` is the JSON form of aiops.serial, the other columns exist to search and sort.
CREATE TABLE incidents (
    id TEXT PRIMARY KEY,
    opened_at REAL NOT NULL,
    updated_at REAL NOT NULL,
    closed_at REAL,
    state TEXT NOT NULL,
    severity TEXT NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX incidents_newest ON incidents (state, opened_at DESC);

CREATE TABLE actions (
    id TEXT PRIMARY KEY,
    incident TEXT NOT NULL,
    policy TEXT NOT NULL,
    type TEXT NOT NULL,
    target TEXT NOT NULL,
    decision TEXT NOT NULL,
    at REAL NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX actions_newest ON actions (at DESC);
CREATE INDEX actions_of ON actions (incident);

CREATE TABLE outcomes (
    action TEXT NOT NULL,
    status TEXT NOT NULL,
    at REAL NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (action, status, at)
) WITHOUT ROWID;

-- What is drawn: one plot for each signal of an incident, its samples in `points`.
CREATE TABLE plots (
    id INTEGER PRIMARY KEY,
    incident TEXT NOT NULL,
    entity TEXT NOT NULL,
    signal TEXT NOT NULL,
    UNIQUE (incident, entity, signal)
);
CREATE TABLE points (
    plot INTEGER NOT NULL REFERENCES plots (id) ON DELETE CASCADE,
    at REAL NOT NULL,
    value REAL,
    expected REAL,
    lower REAL,
    upper REAL,
    PRIMARY KEY (plot, at)
) WITHOUT ROWID;

CREATE TABLE feedback (
    incident TEXT NOT NULL,
    verdict TEXT NOT NULL,
    at REAL NOT NULL,
    said_by TEXT NOT NULL,
    PRIMARY KEY (incident, at, verdict)
) WITHOUT ROWID;

CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
