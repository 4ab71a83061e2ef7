-- What people were told, or should have been: every change of a policy's state on a scope, and trouble of the pipeline.
-- Amounts are in the measure's counted unit (money: nano-dollars). Nothing here was ever part of a prompt or an answer.

CREATE TABLE IF NOT EXISTS alerts
(
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `key` String CODEC(ZSTD(1)) COMMENT 'names the incident',
    `kind` LowCardinality(String) COMMENT 'policy, policy_file, ...',
    `severity` LowCardinality(String) COMMENT 'info, warning or critical',
    `title` String CODEC(ZSTD(1)),
    `policy` LowCardinality(String),
    `scope` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `state` LowCardinality(String),
    `previous_state` LowCardinality(String),
    `spend` Nullable(Float64) CODEC(ZSTD(1)),
    `limit` Nullable(Float64) CODEC(ZSTD(1)),
    `resets_at` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)),
    `exhausted_at` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)),
    `contributors` Map(String, Float64) CODEC(ZSTD(1)),
    `owner` LowCardinality(String),
    `runbook` String CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(at)
ORDER BY at
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
