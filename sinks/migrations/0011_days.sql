-- The rollup by UTC day, with the dimensions of the hours and made of them: a range of months reads a row where it read up to
-- twenty-four. Its sums are those of the hours; so that nothing is lost, it keeps the hours of the first and the last call.
--
-- What the store has is carried over once. Cut off half-way, this runs again from its first line: the days are emptied before
-- they are filled, and no row comes in between, for a node and a sink migrate before they insert. Where several sinks write
-- to one server, stop them first (docs/operations.md).

CREATE TABLE IF NOT EXISTS calls_1d
(
    `day` Date CODEC(Delta, ZSTD(1)),
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
    `time_to_first_token_s_state` AggregateFunction(quantilesDD(0.01, 0.5, 0.95, 0.99), Nullable(Float64)) CODEC(ZSTD(1)),
    `first_hour` SimpleAggregateFunction(min, DateTime('UTC')) CODEC(ZSTD(1)),
    `last_hour` SimpleAggregateFunction(max, DateTime('UTC')) CODEC(ZSTD(1)),
    `first_hour_without_price` SimpleAggregateFunction(min, Nullable(DateTime('UTC'))) CODEC(ZSTD(1)),
    `last_hour_without_price` SimpleAggregateFunction(max, Nullable(DateTime('UTC'))) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (tenant, day, team, user, service, environment, region, task_type, provider_name, model, prompt_name, prompt_version)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

DROP VIEW IF EXISTS calls_to_1d;

ALTER TABLE calls_1d DROP PARTITION ALL;

-- Both tables have the same columns in the same order, but for the times; a column that both get later comes along. In blocks of
-- the engine's usual size: a batch of the sink is one block, and these are the rows of years.
INSERT INTO calls_1d
SELECT
    toDate(hour) AS day,
    * EXCEPT (hour),
    hour AS first_hour,
    hour AS last_hour,
    if(requests_without_price > 0, hour, NULL) AS first_hour_without_price,
    first_hour_without_price AS last_hour_without_price
FROM calls_1h
SETTINGS insert_deduplicate = 0, min_insert_block_size_rows = 1048449, min_insert_block_size_bytes = 268402944;

CREATE MATERIALIZED VIEW IF NOT EXISTS calls_to_1d TO calls_1d AS
SELECT
    toDate(hour) AS day,
    * EXCEPT (hour),
    hour AS first_hour,
    hour AS last_hour,
    if(requests_without_price > 0, hour, NULL) AS first_hour_without_price,
    first_hour_without_price AS last_hour_without_price
FROM calls_1h;

CREATE VIEW IF NOT EXISTS v_calls_1d AS
WITH
    arrayMap(v -> multiIf(isNaN(v), NULL, v < 0.995, v * 0.99 / 1.01, v < 1.015, 1., v), quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)) AS latency,
    arrayMap(v -> multiIf(isNaN(v), NULL, v < 0.995, v * 0.99 / 1.01, v < 1.015, 1., v), quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)) AS first_token
SELECT
    day,
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
    sum(calls_1d.requests) AS requests,
    sum(calls_1d.errors) AS errors,
    sumMap(calls_1d.errors_by_type) AS errors_by_type,
    sum(calls_1d.input_tokens) AS input_tokens,
    sum(calls_1d.output_tokens) AS output_tokens,
    sum(calls_1d.cache_read_tokens) AS cache_read_tokens,
    sum(calls_1d.cache_write_5m_tokens) AS cache_write_5m_tokens,
    sum(calls_1d.cache_write_1h_tokens) AS cache_write_1h_tokens,
    sum(calls_1d.reasoning_tokens) AS reasoning_tokens,
    sum(calls_1d.input_audio_tokens) AS input_audio_tokens,
    sum(calls_1d.output_audio_tokens) AS output_audio_tokens,
    sum(calls_1d.cache_audio_read_tokens) AS cache_audio_read_tokens,
    sum(calls_1d.requests_without_tokens) AS requests_without_tokens,
    sum(calls_1d.requests_without_price) AS requests_without_price,
    sum(calls_1d.cost_nano_usd) AS cost_nano_usd,
    toDecimal128(sum(calls_1d.cost_nano_usd), 9) / 1000000000 AS cost_usd,
    latency[1] AS latency_p50_s,
    latency[2] AS latency_p95_s,
    latency[3] AS latency_p99_s,
    max(latency_s_max) AS latency_max_s,
    first_token[1] AS time_to_first_token_p50_s,
    first_token[2] AS time_to_first_token_p95_s,
    first_token[3] AS time_to_first_token_p99_s,
    max(time_to_first_token_s_max) AS time_to_first_token_max_s
FROM calls_1d
GROUP BY day, tenant, team, user, service, environment, region, task_type, provider_name, model, prompt_name, prompt_version;

-- The whole days of a range from their rollup, the whole hours beside them from theirs, the ragged ends from the calls: exact.
CREATE OR REPLACE VIEW usage_between AS
WITH
    parseDateTime64BestEffort({since:String}, 6, 'UTC') AS range_start,
    parseDateTime64BestEffort({until:String}, 6, 'UTC') AS range_end,
    least(toDateTime64(toStartOfHour(range_start + toIntervalMicrosecond(3599999999)), 6, 'UTC'), range_end) AS hours_start,
    greatest(toDateTime64(toStartOfHour(range_end), 6, 'UTC'), hours_start) AS hours_end,
    least(toDateTime64(toStartOfDay(hours_start + toIntervalMicrosecond(86399999999)), 6, 'UTC'), hours_end) AS days_start,
    greatest(toDateTime64(toStartOfDay(hours_end), 6, 'UTC'), days_start) AS days_end
SELECT
    day,
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
    requests,
    errors,
    errors_by_type,
    input_tokens,
    output_tokens,
    cache_read_tokens,
    cache_write_5m_tokens,
    cache_write_1h_tokens,
    reasoning_tokens,
    input_audio_tokens,
    output_audio_tokens,
    cache_audio_read_tokens,
    requests_without_tokens,
    requests_without_price,
    cost_nano_usd,
    latency_s_max,
    latency_s_state,
    time_to_first_token_s_max,
    time_to_first_token_s_state,
    first_hour,
    last_hour,
    first_hour_without_price,
    last_hour_without_price
FROM calls_1d
WHERE ({tenant:String} = '*' OR tenant = {tenant:String}) AND day >= days_start AND day < days_end
UNION ALL
SELECT
    toDate(hour) AS day,
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
    requests,
    errors,
    errors_by_type,
    input_tokens,
    output_tokens,
    cache_read_tokens,
    cache_write_5m_tokens,
    cache_write_1h_tokens,
    reasoning_tokens,
    input_audio_tokens,
    output_audio_tokens,
    cache_audio_read_tokens,
    requests_without_tokens,
    requests_without_price,
    cost_nano_usd,
    latency_s_max,
    latency_s_state,
    time_to_first_token_s_max,
    time_to_first_token_s_state,
    hour AS first_hour,
    hour AS last_hour,
    if(requests_without_price > 0, hour, NULL) AS first_hour_without_price,
    first_hour_without_price AS last_hour_without_price
FROM calls_1h
WHERE ({tenant:String} = '*' OR tenant = {tenant:String})
    AND ((hour >= hours_start AND hour < days_start) OR (hour >= days_end AND hour < hours_end))
UNION ALL
SELECT
    toDate(toDateTime(started_at, 'UTC')) AS day,
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
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s) AS time_to_first_token_s_state,
    toStartOfHour(toDateTime(min(started_at), 'UTC')) AS first_hour,
    toStartOfHour(toDateTime(max(started_at), 'UTC')) AS last_hour,
    toStartOfHour(toDateTime(minOrNullIf(started_at, isNull(calls.cost_nano_usd)), 'UTC')) AS first_hour_without_price,
    toStartOfHour(toDateTime(maxOrNullIf(started_at, isNull(calls.cost_nano_usd)), 'UTC')) AS last_hour_without_price
FROM calls
WHERE ({tenant:String} = '*' OR tenant = {tenant:String})
    AND ((started_at >= range_start AND started_at < hours_start) OR (started_at >= hours_end AND started_at < range_end))
GROUP BY day, tenant, team, user, service, environment, region, task_type, provider_name, model, prompt_name, prompt_version;

CREATE OR REPLACE VIEW days_by AS
WITH
    toDate(parseDateTime64BestEffort({since:String}, 6, 'UTC') + toIntervalMicrosecond(86399999999)) AS first_day,
    days AS
    (
        SELECT
            u.day AS day,
            value,
            sum(u.requests) AS requests,
            sum(u.errors) AS errors,
            sum(u.input_tokens) + sum(u.output_tokens) AS tokens,
            sum(u.cost_nano_usd) AS nano
        FROM usage_by(by = {by:String}, tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
        GROUP BY day, value
    )
SELECT
    today.day AS day,
    today.value AS value,
    today.requests AS requests,
    today.errors AS errors,
    today.tokens AS tokens,
    toDecimal128(today.nano, 9) / 1000000000 AS cost_usd,
    if(today.day - 1 < first_day, NULL, toDecimal128(yesterday.nano, 9) / 1000000000) AS cost_usd_day_before,
    if(today.day - 7 < first_day, NULL, toDecimal128(last_week.nano, 9) / 1000000000) AS cost_usd_week_before,
    if(today.day - 1 < first_day, NULL, yesterday.requests) AS requests_day_before,
    if(today.day - 7 < first_day, NULL, last_week.requests) AS requests_week_before
FROM days AS today
LEFT JOIN days AS yesterday ON yesterday.day = today.day - 1 AND yesterday.value IS NOT DISTINCT FROM today.value
LEFT JOIN days AS last_week ON last_week.day = today.day - 7 AND last_week.value IS NOT DISTINCT FROM today.value
ORDER BY day, cost_usd DESC, value;

CREATE OR REPLACE VIEW unpriced_models AS
SELECT
    nullIf(toString(u.provider_name), '') AS provider_name,
    nullIf(toString(u.model), '') AS model,
    sum(u.requests_without_price) AS requests_without_price,
    sum(u.requests) AS requests,
    assumeNotNull(min(u.first_hour_without_price)) AS first_hour,
    assumeNotNull(max(u.last_hour_without_price)) AS last_hour
FROM usage_between(tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
GROUP BY u.provider_name, u.model
HAVING requests_without_price > 0
ORDER BY requests_without_price DESC, provider_name, model;

CREATE OR REPLACE VIEW prompt_versions AS
WITH
    arrayMap(v -> multiIf(isNaN(v), NULL, v < 0.995, v * 0.99 / 1.01, v < 1.015, 1., v), quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(u.latency_s_state)) AS latency,
    quality AS
    (
        SELECT
            prompt_version,
            sum(v.judged) AS judged,
            sum(v.with_findings) AS with_findings,
            sum(v.with_leaks) AS with_leaks,
            sumMap(v.scored_by_score) AS scored,
            sumMap(v.sum_by_score) AS total
        FROM verdicts_between(tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS v
        WHERE prompt_name = {prompt:String}
        GROUP BY prompt_version
    )
SELECT
    nullIf(toString(used.prompt_version), '') AS prompt_version,
    requests,
    requests_without_price,
    first_hour,
    last_hour,
    errors / nullIf(requests, 0) AS error_rate,
    toDecimal128(nano, 9) / 1000000000 AS cost_usd,
    nano / 1000000000 / nullIf(requests - requests_without_price, 0) AS cost_usd_per_request,
    input_tokens,
    output_tokens,
    requests_without_tokens,
    latency_p50_s,
    latency_p95_s,
    quality.judged AS judged,
    quality.with_findings / nullIf(quality.judged, 0) AS finding_rate,
    quality.with_leaks / nullIf(quality.judged, 0) AS leak_rate,
    quality.total['response.faithfulness'] / nullIf(quality.scored['response.faithfulness'], 0) AS faithfulness,
    quality.total['response.relevance'] / nullIf(quality.scored['response.relevance'], 0) AS relevance,
    quality.total['response.toxicity'] / nullIf(quality.scored['response.toxicity'], 0) AS toxicity
FROM
(
    SELECT
        prompt_version,
        sum(u.requests) AS requests,
        min(u.first_hour) AS first_hour,
        max(u.last_hour) AS last_hour,
        sum(u.errors) AS errors,
        sum(u.cost_nano_usd) AS nano,
        sum(u.requests_without_price) AS requests_without_price,
        sum(u.requests_without_tokens) AS requests_without_tokens,
        sum(u.input_tokens) AS input_tokens,
        sum(u.output_tokens) AS output_tokens,
        latency[1] AS latency_p50_s,
        latency[2] AS latency_p95_s
    FROM usage_between(tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
    WHERE prompt_name = {prompt:String}
    GROUP BY prompt_version
) AS used
LEFT JOIN quality ON quality.prompt_version = used.prompt_version
ORDER BY first_hour, prompt_version;
