-- Who did what with keys, sealed texts, policies, the schema, transcripts and the node: the copy of a data folder's audit log,
-- which is the file audit.jsonl. Each entry is chained to the one before by its hash; `tidegate audit verify` compares both.
-- Nothing here was ever part of a prompt or an answer. Kept for ever.

CREATE TABLE IF NOT EXISTS audit
(
    `log` LowCardinality(String) COMMENT 'names the chain: one a data folder',
    `seq` UInt64 CODEC(Delta, ZSTD(1)),
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `actor` LowCardinality(String) COMMENT 'user:… on the machine, or token: whoever has the node''s',
    `action` LowCardinality(String) COMMENT 'key.shredded, quarantine.opened, transcripts.read, ...',
    `subject` String CODEC(ZSTD(1)) COMMENT 'a tenant, mostly',
    `details` String CODEC(ZSTD(1)) COMMENT 'JSON',
    `prev_hash` String CODEC(ZSTD(1)),
    `hash` String CODEC(ZSTD(1)) COMMENT 'SHA-256 of the entry, that of the one before included'
)
ENGINE = MergeTree
ORDER BY (log, seq)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
