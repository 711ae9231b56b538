-- What became of models: which took over from which, when and why.
CREATE TABLE model_events (
    id INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    detector TEXT NOT NULL,
    kind TEXT NOT NULL,
    model TEXT NOT NULL,
    text TEXT NOT NULL
);
