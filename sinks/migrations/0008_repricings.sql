-- Calls at other prices than those of the day: `tidegate reprice` writes a version beside what was metered, and changes nothing.
--
-- A version is whole once it stands in `repricings`; what a run that was cut off has left is not in the view, and goes with the
-- next run of that name. (producer, seq) is the call's, as in `calls`.

CREATE TABLE IF NOT EXISTS repriced
(
    `version` String CODEC(ZSTD(1)),
    `started_at` DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    `tenant` LowCardinality(String),
    `team` LowCardinality(String),
    `service` LowCardinality(String),
    `provider_name` LowCardinality(String),
    `model` LowCardinality(String),
    `prompt_name` LowCardinality(String),
    `prompt_version` LowCardinality(String),
    `producer` String CODEC(ZSTD(1)),
    `seq` UInt64 CODEC(Delta, ZSTD(1)),
    `metered_nano_usd` Nullable(Int64) CODEC(T64, ZSTD(1)) COMMENT 'what it cost when it was metered',
    `cost_nano_usd` Nullable(Int64) CODEC(T64, ZSTD(1)) COMMENT 'at the prices of this version; NULL: no price is known',
    `price_status` LowCardinality(String)
)
ENGINE = MergeTree
PARTITION BY version
ORDER BY (tenant, started_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS repricings
(
    `version` String,
    `made_at` DateTime64(3, 'UTC'),
    `since` DateTime64(6, 'UTC'),
    `until` DateTime64(6, 'UTC'),
    `tenant` String COMMENT '* is all',
    `price_book` String,
    `calls` UInt64
)
ENGINE = MergeTree
ORDER BY made_at
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- One row per call and version. Only calls with a price on both sides have a difference.
CREATE VIEW IF NOT EXISTS repriced_calls AS
SELECT
    *,
    toDecimal128(metered_nano_usd, 9) / 1000000000 AS metered_usd,
    toDecimal128(cost_nano_usd, 9) / 1000000000 AS cost_usd,
    cost_usd - metered_usd AS difference_usd
FROM repriced
WHERE version IN (SELECT version FROM repricings);
