-- Ranges of months that nobody asks by user read days that do not tell users apart, and what was retrieved is summed up by the
-- hour.
--
-- calls_1d_totals is made of calls, not of hours: a person is forgotten by a move from one row of the hours to another
-- (docs/forgetting.md), which sums cancel out and quantile states do not. What the store has comes from calls_1d, which may be
-- older than the calls that are kept. Cut off half-way, this runs again from its first line, as 0011_days does.

CREATE TABLE IF NOT EXISTS calls_1d_totals
(
    `day` Date CODEC(Delta, ZSTD(1)),
    `tenant` LowCardinality(String),
    `team` LowCardinality(String),
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
    `cache_savings_nano_usd` SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)),
    `requests_with_cache_savings` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
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
ORDER BY (tenant, day, team, service, environment, region, task_type, provider_name, model, prompt_name, prompt_version)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

DROP VIEW IF EXISTS calls_to_1d_totals;

ALTER TABLE calls_1d_totals DROP PARTITION ALL;

INSERT INTO calls_1d_totals
SELECT * EXCEPT (user)
FROM calls_1d
SETTINGS insert_deduplicate = 0, min_insert_block_size_rows = 1048449, min_insert_block_size_bytes = 268402944;

CREATE MATERIALIZED VIEW IF NOT EXISTS calls_to_1d_totals TO calls_1d_totals AS
WITH
    toStartOfHour(
        toDateTime(
            least(greatest(started_at, toDateTime64('1970-01-01 00:00:00', 6, 'UTC')), toDateTime64('2105-12-31 23:59:59', 6, 'UTC')),
            'UTC'
        )
    ) AS hour
SELECT
    toDate(hour) AS day,
    tenant,
    team,
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
    ifNull(sum(calls.cache_savings_nano_usd), 0) AS cache_savings_nano_usd,
    count(calls.cache_savings_nano_usd) AS requests_with_cache_savings,
    max(latency_s) AS latency_s_max,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(latency_s) AS latency_s_state,
    max(time_to_first_token_s) AS time_to_first_token_s_max,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s) AS time_to_first_token_s_state,
    min(hour) AS first_hour,
    max(hour) AS last_hour,
    minOrNullIf(hour, isNull(calls.cost_nano_usd)) AS first_hour_without_price,
    maxOrNullIf(hour, isNull(calls.cost_nano_usd)) AS last_hour_without_price
FROM calls
GROUP BY day, tenant, team, service, environment, region, task_type, provider_name, model, prompt_name, prompt_version;

-- Calls that retrieved anything; of those whose chunks have scores, the sums of their best and of their mean. One in five calls
-- makes so few rows of an hour that days would save nothing.
CREATE TABLE IF NOT EXISTS retrieval_1h
(
    `hour` DateTime('UTC') CODEC(Delta, ZSTD(1)),
    `tenant` LowCardinality(String),
    `team` LowCardinality(String),
    `service` LowCardinality(String),
    `environment` LowCardinality(String),
    `provider_name` LowCardinality(String),
    `model` LowCardinality(String),
    `prompt_name` LowCardinality(String),
    `prompt_version` LowCardinality(String),
    `calls_with_retrieval` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `chunks` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `calls_with_scores` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `best_score_sum` SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1)),
    `mean_score_sum` SimpleAggregateFunction(sum, Float64) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant, hour, team, service, environment, provider_name, model, prompt_name, prompt_version)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

DROP VIEW IF EXISTS calls_to_retrieval_1h;

ALTER TABLE retrieval_1h DROP PARTITION ALL;

INSERT INTO retrieval_1h
WITH
    arrayMap(s -> assumeNotNull(s), arrayFilter(s -> s IS NOT NULL, retrieval.score)) AS known
SELECT
    toStartOfHour(
        toDateTime(
            least(greatest(started_at, toDateTime64('1970-01-01 00:00:00', 6, 'UTC')), toDateTime64('2105-12-31 23:59:59', 6, 'UTC')),
            'UTC'
        )
    ) AS hour,
    tenant,
    team,
    service,
    environment,
    provider_name,
    model,
    prompt_name,
    prompt_version,
    count() AS calls_with_retrieval,
    sum(length(retrieval.score)) AS chunks,
    countIf(notEmpty(known)) AS calls_with_scores,
    sumIf(arrayMax(known), notEmpty(known)) AS best_score_sum,
    sumIf(arrayAvg(known), notEmpty(known)) AS mean_score_sum
FROM calls
WHERE notEmpty(retrieval.score)
GROUP BY hour, tenant, team, service, environment, provider_name, model, prompt_name, prompt_version
SETTINGS insert_deduplicate = 0, max_partitions_per_insert_block = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS calls_to_retrieval_1h TO retrieval_1h AS
WITH
    arrayMap(s -> assumeNotNull(s), arrayFilter(s -> s IS NOT NULL, retrieval.score)) AS known
SELECT
    toStartOfHour(
        toDateTime(
            least(greatest(started_at, toDateTime64('1970-01-01 00:00:00', 6, 'UTC')), toDateTime64('2105-12-31 23:59:59', 6, 'UTC')),
            'UTC'
        )
    ) AS hour,
    tenant,
    team,
    service,
    environment,
    provider_name,
    model,
    prompt_name,
    prompt_version,
    count() AS calls_with_retrieval,
    sum(length(retrieval.score)) AS chunks,
    countIf(notEmpty(known)) AS calls_with_scores,
    sumIf(arrayMax(known), notEmpty(known)) AS best_score_sum,
    sumIf(arrayAvg(known), notEmpty(known)) AS mean_score_sum
FROM calls
WHERE notEmpty(retrieval.score)
GROUP BY hour, tenant, team, service, environment, provider_name, model, prompt_name, prompt_version;

-- What of a range is no whole day: its whole hours from their rollup, its ragged ends from the calls.
CREATE VIEW IF NOT EXISTS edges_between AS
WITH
    parseDateTime64BestEffort({since:String}, 6, 'UTC') AS range_start,
    parseDateTime64BestEffort({until:String}, 6, 'UTC') AS range_end,
    least(toDateTime64(toStartOfHour(range_start + toIntervalMicrosecond(3599999999)), 6, 'UTC'), range_end) AS hours_start,
    greatest(toDateTime64(toStartOfHour(range_end), 6, 'UTC'), hours_start) AS hours_end,
    least(toDateTime64(toStartOfDay(hours_start + toIntervalMicrosecond(86399999999)), 6, 'UTC'), hours_end) AS days_start,
    greatest(toDateTime64(toStartOfDay(hours_end), 6, 'UTC'), days_start) AS days_end
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
    cache_savings_nano_usd,
    requests_with_cache_savings,
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
    ifNull(sum(calls.cache_savings_nano_usd), 0) AS cache_savings_nano_usd,
    count(calls.cache_savings_nano_usd) AS requests_with_cache_savings,
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

-- Exact, with users told apart.
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
    cache_savings_nano_usd,
    requests_with_cache_savings,
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
SELECT *
FROM edges_between(tenant = {tenant:String}, since = {since:String}, until = {until:String});

-- The same, and as exact, without users.
CREATE VIEW IF NOT EXISTS totals_between AS
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
    cache_savings_nano_usd,
    requests_with_cache_savings,
    latency_s_max,
    latency_s_state,
    time_to_first_token_s_max,
    time_to_first_token_s_state,
    first_hour,
    last_hour,
    first_hour_without_price,
    last_hour_without_price
FROM calls_1d_totals
WHERE ({tenant:String} = '*' OR tenant = {tenant:String}) AND day >= days_start AND day < days_end
UNION ALL
SELECT * EXCEPT (user)
FROM edges_between(tenant = {tenant:String}, since = {since:String}, until = {until:String});

-- What `by` names, for every measure at once; of both rollups by day only one is read.
CREATE OR REPLACE VIEW usage_by AS
WITH
    parseDateTime64BestEffort({since:String}, 6, 'UTC') AS range_start,
    parseDateTime64BestEffort({until:String}, 6, 'UTC') AS range_end,
    least(toDateTime64(toStartOfHour(range_start + toIntervalMicrosecond(3599999999)), 6, 'UTC'), range_end) AS hours_start,
    greatest(toDateTime64(toStartOfHour(range_end), 6, 'UTC'), hours_start) AS hours_end,
    least(toDateTime64(toStartOfDay(hours_start + toIntervalMicrosecond(86399999999)), 6, 'UTC'), hours_end) AS days_start,
    greatest(toDateTime64(toStartOfDay(hours_end), 6, 'UTC'), days_start) AS days_end
SELECT
    nullIf(
        if({by:String} = 'tenant', toString(tenant),
        if({by:String} = 'team', toString(team),
        if({by:String} = 'user', user,
        if({by:String} = 'service', toString(service),
        if({by:String} = 'environment', toString(environment),
        if({by:String} = 'region', toString(region),
        if({by:String} = 'task_type', toString(task_type),
        if({by:String} = 'provider_name', toString(provider_name),
        if({by:String} = 'model', toString(model),
        if({by:String} = 'prompt_name', toString(prompt_name),
        if({by:String} = 'prompt', if(prompt_version = '', toString(prompt_name), concat(prompt_name, '@', prompt_version)),
        toString(throwIf(true, 'by is tenant, team, user, service, environment, region, task_type, provider_name, model, prompt_name or prompt'))
        ))))))))))),
        ''
    ) AS value,
    *
FROM
(
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
        cache_savings_nano_usd,
        requests_with_cache_savings,
        latency_s_max,
        latency_s_state,
        time_to_first_token_s_max,
        time_to_first_token_s_state,
        first_hour,
        last_hour,
        first_hour_without_price,
        last_hour_without_price
    FROM calls_1d
    WHERE {by:String} = 'user' AND ({tenant:String} = '*' OR tenant = {tenant:String}) AND day >= days_start AND day < days_end
    UNION ALL
    SELECT
        day,
        tenant,
        team,
        '' AS user,
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
        cache_savings_nano_usd,
        requests_with_cache_savings,
        latency_s_max,
        latency_s_state,
        time_to_first_token_s_max,
        time_to_first_token_s_state,
        first_hour,
        last_hour,
        first_hour_without_price,
        last_hour_without_price
    FROM calls_1d_totals
    WHERE {by:String} != 'user' AND ({tenant:String} = '*' OR tenant = {tenant:String}) AND day >= days_start AND day < days_end
    UNION ALL
    SELECT *
    FROM edges_between(tenant = {tenant:String}, since = {since:String}, until = {until:String})
);

-- A day without calls is 0 beside others, for so it was; before the store had any call nobody knows, and that is NULL.
CREATE OR REPLACE VIEW days_by AS
WITH
    (SELECT min(day) FROM calls_1d_totals WHERE {tenant:String} = '*' OR tenant = {tenant:String}) AS first_call,
    greatest(toDate(parseDateTime64BestEffort({since:String}, 6, 'UTC') + toIntervalMicrosecond(86399999999)), first_call) AS first_day
SELECT
    day,
    value,
    requests,
    errors,
    tokens,
    toDecimal128(nano, 9) / 1000000000 AS cost_usd,
    if(day - 1 < first_day, NULL, toDecimal128(sum(nano) OVER day_before, 9) / 1000000000) AS cost_usd_day_before,
    if(day - 7 < first_day, NULL, toDecimal128(sum(nano) OVER week_before, 9) / 1000000000) AS cost_usd_week_before,
    if(day - 1 < first_day, NULL, sum(requests) OVER day_before) AS requests_day_before,
    if(day - 7 < first_day, NULL, sum(requests) OVER week_before) AS requests_week_before,
    requests_without_price,
    requests_without_tokens
FROM
(
    SELECT
        u.day AS day,
        value,
        sum(u.requests) AS requests,
        sum(u.errors) AS errors,
        sum(u.input_tokens) + sum(u.output_tokens) AS tokens,
        sum(u.cost_nano_usd) AS nano,
        sum(u.requests_without_price) AS requests_without_price,
        sum(u.requests_without_tokens) AS requests_without_tokens
    FROM usage_by(by = {by:String}, tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
    GROUP BY day, value
)
WINDOW
    day_before AS (PARTITION BY value ORDER BY day RANGE BETWEEN 1 PRECEDING AND 1 PRECEDING),
    week_before AS (PARTITION BY value ORDER BY day RANGE BETWEEN 7 PRECEDING AND 7 PRECEDING)
ORDER BY day, cost_usd DESC, value;

CREATE OR REPLACE VIEW unpriced_models AS
SELECT
    nullIf(toString(u.provider_name), '') AS provider_name,
    nullIf(toString(u.model), '') AS model,
    sum(u.requests_without_price) AS requests_without_price,
    sum(u.requests) AS requests,
    assumeNotNull(min(u.first_hour_without_price)) AS first_hour,
    assumeNotNull(max(u.last_hour_without_price)) AS last_hour
FROM totals_between(tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
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
    FROM totals_between(tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
    WHERE prompt_name = {prompt:String}
    GROUP BY prompt_version
) AS used
LEFT JOIN quality ON quality.prompt_version = used.prompt_version
ORDER BY first_hour, prompt_version;

CREATE VIEW IF NOT EXISTS retrieval_between AS
WITH
    parseDateTime64BestEffort({since:String}, 6, 'UTC') AS range_start,
    parseDateTime64BestEffort({until:String}, 6, 'UTC') AS range_end,
    least(toDateTime64(toStartOfHour(range_start + toIntervalMicrosecond(3599999999)), 6, 'UTC'), range_end) AS hours_start,
    greatest(toDateTime64(toStartOfHour(range_end), 6, 'UTC'), hours_start) AS hours_end
SELECT
    hour,
    tenant,
    team,
    service,
    environment,
    provider_name,
    model,
    prompt_name,
    prompt_version,
    calls_with_retrieval,
    chunks,
    calls_with_scores,
    best_score_sum,
    mean_score_sum
FROM retrieval_1h
WHERE ({tenant:String} = '*' OR tenant = {tenant:String}) AND hour >= hours_start AND hour < hours_end
UNION ALL
SELECT
    toStartOfHour(toDateTime(started_at, 'UTC')) AS hour,
    tenant,
    team,
    service,
    environment,
    provider_name,
    model,
    prompt_name,
    prompt_version,
    count() AS calls_with_retrieval,
    sum(length(retrieval.score)) AS chunks,
    countIf(notEmpty(known)) AS calls_with_scores,
    sumIf(arrayMax(known), notEmpty(known)) AS best_score_sum,
    sumIf(arrayAvg(known), notEmpty(known)) AS mean_score_sum
FROM (SELECT *, model, arrayMap(s -> assumeNotNull(s), arrayFilter(s -> s IS NOT NULL, retrieval.score)) AS known FROM calls)
WHERE ({tenant:String} = '*' OR tenant = {tenant:String})
    AND notEmpty(retrieval.score)
    AND ((started_at >= range_start AND started_at < hours_start) OR (started_at >= hours_end AND started_at < range_end))
GROUP BY hour, tenant, team, service, environment, provider_name, model, prompt_name, prompt_version;

CREATE OR REPLACE VIEW retrieval_by AS
WITH
    retrieved AS
    (
        SELECT
            nullIf(
                if({by:String} = 'tenant', toString(tenant),
                if({by:String} = 'team', toString(team),
                if({by:String} = 'service', toString(service),
                if({by:String} = 'environment', toString(environment),
                if({by:String} = 'provider_name', toString(provider_name),
                if({by:String} = 'model', toString(model),
                if({by:String} = 'prompt_name', toString(prompt_name),
                if({by:String} = 'prompt', if(prompt_version = '', toString(prompt_name), concat(prompt_name, '@', prompt_version)),
                toString(throwIf(true, 'by is tenant, team, service, environment, provider_name, model, prompt_name or prompt'))
                )))))))),
                ''
            ) AS value,
            sum(r.calls_with_retrieval) AS calls_with_retrieval,
            sum(r.chunks) AS chunks,
            sum(r.calls_with_scores) AS calls_with_scores,
            sum(r.best_score_sum) AS best_score_sum,
            sum(r.mean_score_sum) AS mean_score_sum
        FROM retrieval_between(tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS r
        GROUP BY value
    ),
    quality AS
    (
        SELECT
            nullIf(
                if({by:String} = 'tenant', toString(tenant),
                if({by:String} = 'team', toString(team),
                if({by:String} = 'service', toString(service),
                if({by:String} = 'environment', toString(environment),
                if({by:String} = 'provider_name', toString(provider_name),
                if({by:String} = 'model', toString(model),
                if({by:String} = 'prompt_name', toString(prompt_name),
                if({by:String} = 'prompt', if(prompt_version = '', toString(prompt_name), concat(prompt_name, '@', prompt_version)),
                toString(throwIf(true, 'by is tenant, team, service, environment, provider_name, model, prompt_name or prompt'))
                )))))))),
                ''
            ) AS value,
            sumMap(v.scored_by_score) AS scored,
            sumMap(v.sum_by_score) AS total
        FROM verdicts_between(tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS v
        GROUP BY value
    )
SELECT
    retrieved.value AS value,
    retrieved.calls_with_retrieval AS calls_with_retrieval,
    retrieved.chunks AS chunks,
    retrieved.chunks / retrieved.calls_with_retrieval AS chunks_per_call,
    retrieved.calls_with_scores AS calls_with_scores,
    retrieved.best_score_sum / nullIf(retrieved.calls_with_scores, 0) AS best_score,
    retrieved.mean_score_sum / nullIf(retrieved.calls_with_scores, 0) AS mean_score,
    quality.total['context.relevance'] / nullIf(quality.scored['context.relevance'], 0) AS context_relevance,
    quality.total['response.faithfulness'] / nullIf(quality.scored['response.faithfulness'], 0) AS faithfulness
FROM retrieved
LEFT JOIN quality ON quality.value IS NOT DISTINCT FROM retrieved.value
ORDER BY calls_with_retrieval DESC, value;
