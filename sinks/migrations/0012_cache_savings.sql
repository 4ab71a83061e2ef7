-- What the provider's cache saved: the price of the same call with nothing cached, less what it cost. Below 0 where what was written
-- to the cache cost more than what was read from it saved. NULL: no price, or nobody told of the cache, or a call of the time
-- before this. The rollups count the calls of which it is known, so that those of before are unknown and not 0.

ALTER TABLE calls
    ADD COLUMN IF NOT EXISTS `cache_savings_nano_usd` Nullable(Int64) CODEC(T64, ZSTD(1))
        COMMENT 'below 0: writing cost more than reading saved; NULL: not known' AFTER cost_nano_usd,
    ADD COLUMN IF NOT EXISTS `cache_savings_usd` Nullable(Decimal(38, 9)) ALIAS toDecimal128(cache_savings_nano_usd, 9) / 1000000000
        AFTER cost_usd;

ALTER TABLE calls_1h
    ADD COLUMN IF NOT EXISTS `cache_savings_nano_usd` SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)) AFTER cost_nano_usd,
    ADD COLUMN IF NOT EXISTS `requests_with_cache_savings` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1))
        AFTER cache_savings_nano_usd;

-- calls_to_1d carries every column that both rollups have.
ALTER TABLE calls_1d
    ADD COLUMN IF NOT EXISTS `cache_savings_nano_usd` SimpleAggregateFunction(sum, Int64) CODEC(T64, ZSTD(1)) AFTER cost_nano_usd,
    ADD COLUMN IF NOT EXISTS `requests_with_cache_savings` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1))
        AFTER cache_savings_nano_usd;

-- Made anew and not MODIFY QUERY: the engine names a batch in a rollup by the view as it was loaded, and would know no batch again
-- that came between the change and the next start.
DROP VIEW IF EXISTS calls_to_1h;

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
    ifNull(sum(calls.cache_savings_nano_usd), 0) AS cache_savings_nano_usd,
    count(calls.cache_savings_nano_usd) AS requests_with_cache_savings,
    max(latency_s) AS latency_s_max,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(latency_s) AS latency_s_state,
    max(time_to_first_token_s) AS time_to_first_token_s_max,
    quantilesDDState(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s) AS time_to_first_token_s_state
FROM calls
GROUP BY hour, tenant, team, user, service, environment, region, task_type, provider_name, model, prompt_name, prompt_version;

CREATE OR REPLACE VIEW v_calls_1h AS
WITH
    arrayMap(v -> multiIf(isNaN(v), NULL, v < 0.995, v * 0.99 / 1.01, v < 1.015, 1., v), quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(latency_s_state)) AS latency,
    arrayMap(v -> multiIf(isNaN(v), NULL, v < 0.995, v * 0.99 / 1.01, v < 1.015, 1., v), quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(time_to_first_token_s_state)) AS first_token
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
    if(sum(calls_1h.requests_with_cache_savings) = 0, NULL, sum(calls_1h.cache_savings_nano_usd)) AS cache_savings_nano_usd,
    toDecimal128(cache_savings_nano_usd, 9) / 1000000000 AS cache_savings_usd,
    sum(calls_1h.requests) - sum(calls_1h.requests_with_cache_savings) AS requests_without_cache_savings,
    latency[1] AS latency_p50_s,
    latency[2] AS latency_p95_s,
    latency[3] AS latency_p99_s,
    max(latency_s_max) AS latency_max_s,
    first_token[1] AS time_to_first_token_p50_s,
    first_token[2] AS time_to_first_token_p95_s,
    first_token[3] AS time_to_first_token_p99_s,
    max(time_to_first_token_s_max) AS time_to_first_token_max_s
FROM calls_1h
GROUP BY hour, tenant, team, user, service, environment, region, task_type, provider_name, model, prompt_name, prompt_version;

CREATE OR REPLACE VIEW v_calls_1d AS
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
    if(sum(calls_1d.requests_with_cache_savings) = 0, NULL, sum(calls_1d.cache_savings_nano_usd)) AS cache_savings_nano_usd,
    toDecimal128(cache_savings_nano_usd, 9) / 1000000000 AS cache_savings_usd,
    sum(calls_1d.requests) - sum(calls_1d.requests_with_cache_savings) AS requests_without_cache_savings,
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

-- The mix of tokens, and what the cache saved. `input_tokens` includes what was read from and written to the cache.
CREATE OR REPLACE VIEW tokens_by AS
SELECT
    value,
    sum(u.requests) AS requests,
    sum(u.requests_without_tokens) AS requests_without_tokens,
    sum(u.input_tokens) AS input_tokens,
    sum(u.cache_read_tokens) AS cache_read_tokens,
    sum(u.cache_write_5m_tokens) + sum(u.cache_write_1h_tokens) AS cache_write_tokens,
    sum(u.output_tokens) AS output_tokens,
    sum(u.reasoning_tokens) AS reasoning_tokens,
    sum(u.input_audio_tokens) AS input_audio_tokens,
    sum(u.output_audio_tokens) AS output_audio_tokens,
    sum(u.cache_read_tokens) / nullIf(sum(u.input_tokens), 0) AS cache_read_share,
    sum(u.reasoning_tokens) / nullIf(sum(u.output_tokens), 0) AS reasoning_share,
    if(sum(u.requests_with_cache_savings) = 0, NULL, toDecimal128(sum(u.cache_savings_nano_usd), 9) / 1000000000) AS cache_savings_usd,
    sum(u.requests) - sum(u.requests_with_cache_savings) AS requests_without_cache_savings
FROM usage_by(by = {by:String}, tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
GROUP BY value
ORDER BY input_tokens + output_tokens DESC, value;
