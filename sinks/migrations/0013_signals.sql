-- What policies said of scopes, and when: each word that changed something (state, action, limit, terms), and of the many that
-- only tell what is left the first in five minutes. The word in force until the next one of its policy and scope.
-- Amounts are in the measure's counted unit (money: nano-dollars; rates: 0 to 1; latencies: seconds).
--
-- A worker that could not tell whether a word was written writes it again, the same: read with FINAL, or `signals_now`.

CREATE TABLE IF NOT EXISTS signals
(
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `policy` LowCardinality(String),
    `policy_version` LowCardinality(String) COMMENT 'of the whole set',
    `scope` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `scope_key` String CODEC(ZSTD(1)) COMMENT 'the values of the scope, as JSON',
    `state` LowCardinality(String) COMMENT 'ok, warn, downgrade, throttle or block',
    `withdrawn` Bool COMMENT 'the policy says nothing of this scope any more',
    `measure` LowCardinality(String),
    `spend` Float64 CODEC(ZSTD(1)),
    `reserved` Float64 CODEC(ZSTD(1)) COMMENT 'held for calls in flight',
    `limit` Nullable(Float64) CODEC(ZSTD(1)) COMMENT 'NULL: none for this scope',
    `remaining` Nullable(Float64) CODEC(ZSTD(1)),
    `model` LowCardinality(String) COMMENT 'what a downgrade goes to',
    `per_minute` Nullable(Float64) CODEC(ZSTD(1)) COMMENT 'calls that a throttle lets through',
    `probe_every_s` Nullable(Float64) CODEC(ZSTD(1)),
    `window_start` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `window_end` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `resets_at` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)),
    `burn_per_s` Nullable(Float64) CODEC(ZSTD(1)),
    `exhausted_at` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'forecast',
    `reason` String CODEC(ZSTD(1)),
    `contributors` Map(String, Float64) CODEC(ZSTD(1)),
    `since` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'from when on the policy has said this',
    `sequence` UInt64 CODEC(Delta, ZSTD(1)) COMMENT 'grows with each word on a scope',
    `gates` UInt32 CODEC(T64, ZSTD(1)) COMMENT 'how many shared what remained',
    `owner` LowCardinality(String),
    `runbook` String CODEC(ZSTD(1)),
    INDEX signals_by_at at TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (policy, scope_key, sequence)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- The last word of each policy on each scope, of those that were not taken back.
CREATE VIEW IF NOT EXISTS signals_now AS
SELECT *
FROM
(
    SELECT *
    FROM signals
    ORDER BY policy, scope_key, sequence DESC
    LIMIT 1 BY policy, scope_key
)
WHERE NOT withdrawn;
