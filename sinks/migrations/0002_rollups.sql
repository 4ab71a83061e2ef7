-- Rollups of `calls`, fed as rows arrive. Additive measures equal a plain sum over `calls` exactly; quantiles are DDSketch
-- states, within 1 % of the value. Read the views v_calls_1m and v_calls_1h, whose columns need no -Merge functions.
--
-- Prompts, users and regions stay out of the minutes: they multiply the rows, and nobody watches a prompt by the minute.
-- A call from outside what DateTime can hold (1970 to 2105) counts in the first or last bucket instead of wrapping around.

CREATE TABLE IF NOT EXISTS calls_1m
(
    `minute` DateTime('UTC') CODEC(Delta, ZSTD(1)),
    `tenant` LowCardinality(String),
    `team` LowCardinality(String),
    `service` LowCardinality(String),
    `environment` LowCardinality(String),
    `provider_name` LowCardinality(String),
    `model` LowCardinality(String),
    `requests` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `errors` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `errors_by_type` SimpleAggregateFunction(sumMap, Map(String, UInt64)) CODEC(ZSTD(1)),
    `input_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `output_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `cache_read_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `cache_write_5m_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `cache_write_1h_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `reasoning_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `input_audio_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `output_audio_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `cache_audio_read_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `requests_without_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `requests_without_price` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `cost_nano_usd` SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    `latency_s_max` SimpleAggregateFunction(max, Nullable(Float64)) CODEC(ZSTD(1)),
    `latency_s_state` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Nullable(Float64)) CODEC(ZSTD(1)),
    `time_to_first_token_s_max` SimpleAggregateFunction(max, Nullable(Float64)) CODEC(ZSTD(1)),
    `time_to_first_token_s_state` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Nullable(Float64)) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (tenant, minute, team, service, environment, provider_name, model)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS calls_to_1m TO calls_1m AS
SELECT
    toStartOfMinute(
        toDateTime(
            least(greatest(started_at, toDateTime64('1970-01-01 00:00:00', 6, 'UTC')), toDateTime64('2105-12-31 23:59:59', 6, 'UTC')),
            'UTC'
        )
    ) AS minute,
    tenant,
    team,
    service,
    environment,
    provider_name,
    model,
    count() AS requests,
    countIf(error_type != '') AS errors,
    sumMap(CAST(if(error_type = '', map(), map(toString(error_type), toUInt64(1))), 'Map(String, UInt64)')) AS errors_by_type,
    ifNull(sum(calls.input_tokens), 0) AS input_tokens,
    ifNull(sum(calls.output_tokens), 0) AS output_tokens,
    ifNull(sum(calls.cache_read_tokens), 0) AS cache_read_tokens,
    ifNull(sum(calls.cache_write_5m_tokens), 0) AS cache_write_5m_tokens,
    ifNull(sum(calls.cache_write_1h_tokens), 0) AS cache_write_1h_tokens,
    ifNull(sum(calls.reasoning_tokens), 0) AS reasoning_tokens,
    ifNull(sum(calls.input_audio_tokens), 0) AS input_audio_tokens,
    ifNull(sum(calls.output_audio_tokens), 0) AS output_audio_tokens,
    ifNull(sum(calls.cache_audio_read_tokens), 0) AS cache_audio_read_tokens,
    countIf(isNull(calls.input_tokens) OR isNull(calls.output_tokens)) AS requests_without_tokens,
    countIf(isNull(calls.cost_nano_usd)) AS requests_without_price,
    ifNull(sum(calls.cost_nano_usd), 0) AS cost_nano_usd,
    max(latency_s) AS latency_s_max,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(latency_s) AS latency_s_state,
    max(time_to_first_token_s) AS time_to_first_token_s_max,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s) AS time_to_first_token_s_state
FROM calls
GROUP BY minute, tenant, team, service, environment, provider_name, model;

CREATE VIEW IF NOT EXISTS v_calls_1m AS
SELECT
    minute,
    tenant,
    team,
    service,
    environment,
    provider_name,
    model,
    sum(calls_1m.requests) AS requests,
    sum(calls_1m.errors) AS errors,
    sumMap(calls_1m.errors_by_type) AS errors_by_type,
    sum(calls_1m.input_tokens) AS input_tokens,
    sum(calls_1m.output_tokens) AS output_tokens,
    sum(calls_1m.cache_read_tokens) AS cache_read_tokens,
    sum(calls_1m.cache_write_5m_tokens) AS cache_write_5m_tokens,
    sum(calls_1m.cache_write_1h_tokens) AS cache_write_1h_tokens,
    sum(calls_1m.reasoning_tokens) AS reasoning_tokens,
    sum(calls_1m.input_audio_tokens) AS input_audio_tokens,
    sum(calls_1m.output_audio_tokens) AS output_audio_tokens,
    sum(calls_1m.cache_audio_read_tokens) AS cache_audio_read_tokens,
    sum(calls_1m.requests_without_tokens) AS requests_without_tokens,
    sum(calls_1m.requests_without_price) AS requests_without_price,
    sum(calls_1m.cost_nano_usd) AS cost_nano_usd,
    toDecimal128(sum(calls_1m.cost_nano_usd), 9) / 1000000000 AS cost_usd,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[1]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[1]) AS latency_p50_s,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[2]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[2]) AS latency_p95_s,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[3]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[3]) AS latency_p99_s,
    max(latency_s_max) AS latency_max_s,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[1]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[1]) AS time_to_first_token_p50_s,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[2]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[2]) AS time_to_first_token_p95_s,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[3]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[3]) AS time_to_first_token_p99_s,
    max(time_to_first_token_s_max) AS time_to_first_token_max_s
FROM calls_1m
GROUP BY minute, tenant, team, service, environment, provider_name, model;

CREATE TABLE IF NOT EXISTS calls_1h
(
    `hour` DateTime('UTC') CODEC(Delta, ZSTD(1)),
    `tenant` LowCardinality(String),
    `team` LowCardinality(String),
    `user` String CODEC(ZSTD(1)),
    `service` LowCardinality(String),
    `environment` LowCardinality(String),
    `region` LowCardinality(String),
    `task_type` LowCardinality(String),
    `provider_name` LowCardinality(String),
    `model` LowCardinality(String),
    `prompt_name` LowCardinality(String),
    `prompt_version` LowCardinality(String),
    `requests` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `errors` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `errors_by_type` SimpleAggregateFunction(sumMap, Map(String, UInt64)) CODEC(ZSTD(1)),
    `input_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `output_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `cache_read_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `cache_write_5m_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `cache_write_1h_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `reasoning_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `input_audio_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `output_audio_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `cache_audio_read_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `requests_without_tokens` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `requests_without_price` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `cost_nano_usd` SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    `latency_s_max` SimpleAggregateFunction(max, Nullable(Float64)) CODEC(ZSTD(1)),
    `latency_s_state` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Nullable(Float64)) CODEC(ZSTD(1)),
    `time_to_first_token_s_max` SimpleAggregateFunction(max, Nullable(Float64)) CODEC(ZSTD(1)),
    `time_to_first_token_s_state` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Nullable(Float64)) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant, hour, team, user, service, environment, region, task_type, provider_name, model, prompt_name, prompt_version)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS calls_to_1h TO calls_1h AS
SELECT
    toStartOfHour(
        toDateTime(
            least(greatest(started_at, toDateTime64('1970-01-01 00:00:00', 6, 'UTC')), toDateTime64('2105-12-31 23:59:59', 6, 'UTC')),
            'UTC'
        )
    ) AS hour,
    tenant,
    team,
    user,
    service,
    environment,
    region,
    task_type,
    provider_name,
    model,
    prompt_name,
    prompt_version,
    count() AS requests,
    countIf(error_type != '') AS errors,
    sumMap(CAST(if(error_type = '', map(), map(toString(error_type), toUInt64(1))), 'Map(String, UInt64)')) AS errors_by_type,
    ifNull(sum(calls.input_tokens), 0) AS input_tokens,
    ifNull(sum(calls.output_tokens), 0) AS output_tokens,
    ifNull(sum(calls.cache_read_tokens), 0) AS cache_read_tokens,
    ifNull(sum(calls.cache_write_5m_tokens), 0) AS cache_write_5m_tokens,
    ifNull(sum(calls.cache_write_1h_tokens), 0) AS cache_write_1h_tokens,
    ifNull(sum(calls.reasoning_tokens), 0) AS reasoning_tokens,
    ifNull(sum(calls.input_audio_tokens), 0) AS input_audio_tokens,
    ifNull(sum(calls.output_audio_tokens), 0) AS output_audio_tokens,
    ifNull(sum(calls.cache_audio_read_tokens), 0) AS cache_audio_read_tokens,
    countIf(isNull(calls.input_tokens) OR isNull(calls.output_tokens)) AS requests_without_tokens,
    countIf(isNull(calls.cost_nano_usd)) AS requests_without_price,
    ifNull(sum(calls.cost_nano_usd), 0) AS cost_nano_usd,
    max(latency_s) AS latency_s_max,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(latency_s) AS latency_s_state,
    max(time_to_first_token_s) AS time_to_first_token_s_max,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s) AS time_to_first_token_s_state
FROM calls
GROUP BY hour, tenant, team, user, service, environment, region, task_type, provider_name, model, prompt_name, prompt_version;

CREATE VIEW IF NOT EXISTS v_calls_1h AS
SELECT
    hour,
    tenant,
    team,
    user,
    service,
    environment,
    region,
    task_type,
    provider_name,
    model,
    prompt_name,
    prompt_version,
    sum(calls_1h.requests) AS requests,
    sum(calls_1h.errors) AS errors,
    sumMap(calls_1h.errors_by_type) AS errors_by_type,
    sum(calls_1h.input_tokens) AS input_tokens,
    sum(calls_1h.output_tokens) AS output_tokens,
    sum(calls_1h.cache_read_tokens) AS cache_read_tokens,
    sum(calls_1h.cache_write_5m_tokens) AS cache_write_5m_tokens,
    sum(calls_1h.cache_write_1h_tokens) AS cache_write_1h_tokens,
    sum(calls_1h.reasoning_tokens) AS reasoning_tokens,
    sum(calls_1h.input_audio_tokens) AS input_audio_tokens,
    sum(calls_1h.output_audio_tokens) AS output_audio_tokens,
    sum(calls_1h.cache_audio_read_tokens) AS cache_audio_read_tokens,
    sum(calls_1h.requests_without_tokens) AS requests_without_tokens,
    sum(calls_1h.requests_without_price) AS requests_without_price,
    sum(calls_1h.cost_nano_usd) AS cost_nano_usd,
    toDecimal128(sum(calls_1h.cost_nano_usd), 9) / 1000000000 AS cost_usd,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[1]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[1]) AS latency_p50_s,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[2]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[2]) AS latency_p95_s,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[3]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)[3]) AS latency_p99_s,
    max(latency_s_max) AS latency_max_s,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[1]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[1]) AS time_to_first_token_p50_s,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[2]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[2]) AS time_to_first_token_p95_s,
    if(isNaN(quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[3]), NULL, quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)[3]) AS time_to_first_token_p99_s,
    max(time_to_first_token_s_max) AS time_to_first_token_max_s
FROM calls_1h
GROUP BY hour, tenant, team, user, service, environment, region, task_type, provider_name, model, prompt_name, prompt_version;
