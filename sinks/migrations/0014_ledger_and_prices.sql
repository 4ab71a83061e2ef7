-- The meter's own sums by hour, counted beside the rows that it sends: what `calls` and its rollups must add up to, and
-- `tidegate db check` says whether they do. A row has all that one source partition has counted of a scope in an hour up to an
-- offset; of several the one with the highest offset counts. What came so late that the meter did not have the bucket any more
-- may stand beside it in rows of its own. No scope names a user.

CREATE TABLE IF NOT EXISTS usage_ledger
(
    `hour` DateTime('UTC') CODEC(Delta, ZSTD(1)),
    `scope_set` LowCardinality(String) COMMENT 'the dimensions of the scope; empty: everything',
    `scope_key` String CODEC(ZSTD(1)) COMMENT 'the values of the scope, as JSON',
    `tenant` LowCardinality(String) COMMENT 'of scopes that have one',
    `scope` Map(LowCardinality(String), String) CODEC(ZSTD(1)),
    `requests` UInt64 CODEC(T64, ZSTD(1)),
    `errors` UInt64 CODEC(T64, ZSTD(1)),
    `errors_by_type` Map(LowCardinality(String), UInt64) CODEC(ZSTD(1)),
    `cache_hits` UInt64 CODEC(T64, ZSTD(1)) COMMENT 'answered from a gateway''s own cache',
    `cost_nano_usd` Int64 CODEC(T64, ZSTD(1)),
    `unpriced` UInt64 CODEC(T64, ZSTD(1)) COMMENT 'requests without a price',
    `unknown_tokens` UInt64 CODEC(T64, ZSTD(1)) COMMENT 'requests of which no token is known',
    `input_tokens` UInt64 CODEC(T64, ZSTD(1)),
    `output_tokens` UInt64 CODEC(T64, ZSTD(1)),
    `cache_read_tokens` UInt64 CODEC(T64, ZSTD(1)),
    `cache_write_5m_tokens` UInt64 CODEC(T64, ZSTD(1)),
    `cache_write_1h_tokens` UInt64 CODEC(T64, ZSTD(1)),
    `reasoning_tokens` UInt64 CODEC(T64, ZSTD(1)),
    `input_audio_tokens` UInt64 CODEC(T64, ZSTD(1)),
    `output_audio_tokens` UInt64 CODEC(T64, ZSTD(1)),
    `cache_audio_read_tokens` UInt64 CODEC(T64, ZSTD(1)),
    `scored` UInt64 CODEC(T64, ZSTD(1)) COMMENT 'calls that were judged',
    `findings` UInt64 CODEC(T64, ZSTD(1)),
    `source_partition` UInt16 CODEC(ZSTD(1)),
    `source_offset` Int64 CODEC(Delta, ZSTD(1)) COMMENT 'the last one that is counted in',
    `beside` UInt64 CODEC(ZSTD(1)) COMMENT '0: the bucket; else what was counted late, beside it',
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'when it was written'
)
ENGINE = ReplacingMergeTree(source_offset)
PARTITION BY toYYYYMM(hour)
ORDER BY (scope_set, hour, scope_key, source_partition, beside)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE VIEW IF NOT EXISTS usage_ledger_totals AS
SELECT
    hour,
    scope_set,
    any(l.tenant) AS tenant,
    any(l.scope) AS scope,
    sum(l.requests) AS requests,
    sum(l.errors) AS errors,
    sumMap(l.errors_by_type) AS errors_by_type,
    sum(l.cache_hits) AS cache_hits,
    sum(l.cost_nano_usd) AS cost_nano_usd,
    toDecimal128(sum(l.cost_nano_usd), 9) / 1000000000 AS cost_usd,
    sum(l.unpriced) AS unpriced,
    sum(l.unknown_tokens) AS unknown_tokens,
    sum(l.input_tokens) AS input_tokens,
    sum(l.output_tokens) AS output_tokens,
    sum(l.cache_read_tokens) AS cache_read_tokens,
    sum(l.cache_write_5m_tokens) AS cache_write_5m_tokens,
    sum(l.cache_write_1h_tokens) AS cache_write_1h_tokens,
    sum(l.reasoning_tokens) AS reasoning_tokens,
    sum(l.input_audio_tokens) AS input_audio_tokens,
    sum(l.output_audio_tokens) AS output_audio_tokens,
    sum(l.cache_audio_read_tokens) AS cache_audio_read_tokens,
    sum(l.scored) AS scored,
    sum(l.findings) AS findings
FROM usage_ledger AS l FINAL
GROUP BY hour, scope_set, scope_key;

-- Hours of which the store had calls before there was a ledger: nobody can say what they should add up to.
CREATE TABLE IF NOT EXISTS hours_before_ledger (`hour` DateTime('UTC')) ENGINE = ReplacingMergeTree ORDER BY hour;

INSERT INTO hours_before_ledger (hour) SELECT DISTINCT hour FROM calls_1h;

-- What tokens cost where the meter priced them, from when on: the rates that it looked up, with tiers, discounts and the price
-- file applied. Written when a rate is first needed, and again by each process that needs it: the same row.

CREATE TABLE IF NOT EXISTS prices
(
    `provider_name` LowCardinality(String),
    `model` LowCardinality(String) COMMENT 'as the call named it',
    `service_tier` LowCardinality(String),
    `tenant` LowCardinality(String) COMMENT 'whose own price it is; empty: everybody''s',
    `price_book` LowCardinality(String),
    `valid_from` DateTime64(3, 'UTC') CODEC(ZSTD(1)) COMMENT '1970: always',
    `valid_until` Nullable(DateTime64(3, 'UTC')) CODEC(ZSTD(1)) COMMENT 'NULL: no end is known',
    `above_input_tokens` UInt64 CODEC(ZSTD(1)) COMMENT 'of prompts longer than this',
    `input_nano_usd_per_million` Int64 CODEC(ZSTD(1)),
    `output_nano_usd_per_million` Nullable(Int64) CODEC(ZSTD(1)) COMMENT 'NULL: there is none',
    `cache_read_nano_usd_per_million` Int64 CODEC(ZSTD(1)),
    `cache_write_5m_nano_usd_per_million` Int64 CODEC(ZSTD(1)),
    `cache_write_1h_nano_usd_per_million` Int64 CODEC(ZSTD(1)),
    `reasoning_nano_usd_per_million` Nullable(Int64) CODEC(ZSTD(1)),
    `input_audio_nano_usd_per_million` Int64 CODEC(ZSTD(1)),
    `output_audio_nano_usd_per_million` Nullable(Int64) CODEC(ZSTD(1)),
    `cache_audio_read_nano_usd_per_million` Int64 CODEC(ZSTD(1)),
    `request_nano_usd_per_million` Int64 CODEC(ZSTD(1)) COMMENT 'of requests',
    `at` DateTime64(3, 'UTC') CODEC(ZSTD(1)) COMMENT 'when it was last looked up'
)
ENGINE = ReplacingMergeTree(at)
ORDER BY (provider_name, model, service_tier, tenant, price_book, valid_from, above_input_tokens)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- The prices now: of each model, by the price book that was asked last.
CREATE VIEW IF NOT EXISTS prices_now AS
SELECT *
FROM
(
    SELECT *
    FROM prices FINAL
    WHERE valid_from <= now64(3) AND (valid_until IS NULL OR valid_until > now64(3))
    ORDER BY provider_name, model, service_tier, tenant, above_input_tokens, at DESC, valid_from DESC
    LIMIT 1 BY provider_name, model, service_tier, tenant, above_input_tokens
);
