-- What an analyst asks first, as views with parameters. A question names its range, and the answer is exact to the microsecond:
--
--     SELECT * FROM cost_by(by = 'model', tenant = '*', since = '2026-11-01', until = '2026-12-01')
--
-- `since` is in, `until` is not; both are UTC, in any form that says so (2026-11-01, 2026-11-01T08:30:00Z, 1793491200).
-- `tenant = '*'` is everybody; `by` is tenant, team, user, service, environment, region, task_type, provider_name, model, prompt_name
-- or prompt (name@version). A value that no event told is NULL, as is an average of nothing. docs/analysts.md has each column.

-- The whole hours of a range from the rollup, its ragged ends from the calls themselves: exact, and as fast as the rollup.
CREATE VIEW IF NOT EXISTS usage_between AS
WITH
    parseDateTime64BestEffort({since:String}, 6, 'UTC') AS range_start,
    parseDateTime64BestEffort({until:String}, 6, 'UTC') AS range_end,
    least(toDateTime64(toStartOfHour(range_start + toIntervalMicrosecond(3599999999)), 6, 'UTC'), range_end) AS whole_start,
    greatest(toDateTime64(toStartOfHour(range_end), 6, 'UTC'), whole_start) AS whole_end
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
    time_to_first_token_s_state
FROM calls_1h
WHERE ({tenant:String} = '*' OR tenant = {tenant:String}) AND hour >= whole_start AND hour < whole_end
UNION ALL
SELECT
    toStartOfHour(toDateTime(started_at, 'UTC')) AS hour,
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
WHERE ({tenant:String} = '*' OR tenant = {tenant:String})
    AND ((started_at >= range_start AND started_at < whole_start) OR (started_at >= whole_end AND started_at < range_end))
GROUP BY hour, tenant, team, user, service, environment, region, task_type, provider_name, model, prompt_name, prompt_version;

-- What `by` names, for every measure at once: the views below choose from it, and what none of them asks for is never read.
CREATE VIEW IF NOT EXISTS usage_by AS
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
FROM usage_between(tenant = {tenant:String}, since = {since:String}, until = {until:String});

-- Cost, what it is a share of, and how many calls have no known price: those cost something too, and nobody knows what.
CREATE VIEW IF NOT EXISTS cost_by AS
SELECT
    value,
    requests,
    requests_without_price,
    toDecimal128(nano, 9) / 1000000000 AS cost_usd,
    nano / nullIf(sum(nano) OVER (), 0) AS cost_share,
    nano / 1000000000 / nullIf(requests - requests_without_price, 0) AS cost_usd_per_request,
    input_tokens,
    output_tokens,
    requests_without_tokens
FROM
(
    SELECT
        value,
        sum(u.requests) AS requests,
        sum(u.requests_without_price) AS requests_without_price,
        sum(u.cost_nano_usd) AS nano,
        sum(u.input_tokens) AS input_tokens,
        sum(u.output_tokens) AS output_tokens,
        sum(u.requests_without_tokens) AS requests_without_tokens
    FROM usage_by(by = {by:String}, tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
    GROUP BY value
)
ORDER BY cost_usd DESC, value;

-- The mix of tokens. `input_tokens` includes what was read from and written to the cache.
CREATE VIEW IF NOT EXISTS tokens_by AS
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
    sum(u.reasoning_tokens) / nullIf(sum(u.output_tokens), 0) AS reasoning_share
FROM usage_by(by = {by:String}, tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
GROUP BY value
ORDER BY input_tokens + output_tokens DESC, value;

-- Quantiles within 1 % of the value (2 % beside one second), of the calls that told a latency; the largest exactly.
CREATE VIEW IF NOT EXISTS latency_by AS
WITH
    arrayMap(v -> multiIf(isNaN(v), NULL, v < 0.995, v * 0.99 / 1.01, v < 1.015, 1., v), quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(u.latency_s_state)) AS latency,
    arrayMap(v -> multiIf(isNaN(v), NULL, v < 0.995, v * 0.99 / 1.01, v < 1.015, 1., v), quantilesDDMerge(0.01, 0.5, 0.95, 0.99)(u.time_to_first_token_s_state)) AS first_token
SELECT
    value,
    sum(u.requests) AS requests,
    latency[1] AS latency_p50_s,
    latency[2] AS latency_p95_s,
    latency[3] AS latency_p99_s,
    max(u.latency_s_max) AS latency_max_s,
    first_token[1] AS time_to_first_token_p50_s,
    first_token[2] AS time_to_first_token_p95_s,
    first_token[3] AS time_to_first_token_p99_s,
    max(u.time_to_first_token_s_max) AS time_to_first_token_max_s
FROM usage_by(by = {by:String}, tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
GROUP BY value
ORDER BY latency_p95_s DESC NULLS LAST, value;

-- A row for each kind of error that a value had; a value without errors has none. `requests` are all of the value's calls.
CREATE VIEW IF NOT EXISTS errors_by AS
SELECT value, requests, kind.1 AS error_type, kind.2 AS errors, errors / requests AS error_rate
FROM
(
    SELECT value, sum(u.requests) AS requests, sumMap(u.errors_by_type) AS kinds
    FROM usage_by(by = {by:String}, tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
    GROUP BY value
)
ARRAY JOIN CAST(kinds, 'Array(Tuple(String, UInt64))') AS kind
ORDER BY errors DESC, value, error_type;

-- Day by day, beside the same value a day and a week before; NULL where not all of that day is in the range.
CREATE VIEW IF NOT EXISTS days_by AS
WITH
    toDate(parseDateTime64BestEffort({since:String}, 6, 'UTC') + toIntervalMicrosecond(86399999999)) AS first_day,
    days AS
    (
        SELECT
            toDate(u.hour) AS day,
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

-- Who spends most. `dearest_model` is the one that cost this user most.
CREATE VIEW IF NOT EXISTS expensive_users AS
SELECT
    nullIf(toString(tenant), '') AS tenant,
    nullIf(user, '') AS user,
    sum(m.requests) AS requests,
    sum(m.requests_without_price) AS requests_without_price,
    toDecimal128(sum(m.nano), 9) / 1000000000 AS cost_usd,
    sum(m.nano) / nullIf(sum(sum(m.nano)) OVER (), 0) AS cost_share,
    nullIf(argMax(m.model, (m.nano, m.model)), '') AS dearest_model
FROM
(
    SELECT
        tenant,
        user,
        toString(model) AS model,
        sum(u.requests) AS requests,
        sum(u.requests_without_price) AS requests_without_price,
        sum(u.cost_nano_usd) AS nano
    FROM usage_between(tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
    GROUP BY tenant, user, model
) AS m
GROUP BY m.tenant, m.user
ORDER BY cost_usd DESC, tenant, user;

-- Models of which no price is known: a line in the price file makes them priced.
CREATE VIEW IF NOT EXISTS unpriced_models AS
SELECT
    nullIf(toString(u.provider_name), '') AS provider_name,
    nullIf(toString(u.model), '') AS model,
    sum(u.requests_without_price) AS requests_without_price,
    sum(u.requests) AS requests,
    minIf(u.hour, u.requests_without_price > 0) AS first_hour,
    maxIf(u.hour, u.requests_without_price > 0) AS last_hour
FROM usage_between(tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS u
GROUP BY u.provider_name, u.model
HAVING requests_without_price > 0
ORDER BY requests_without_price DESC, provider_name, model;

-- The slowest calls themselves, `rows` of them.
CREATE VIEW IF NOT EXISTS slowest_calls AS
SELECT
    started_at,
    latency_s,
    time_to_first_token_s,
    call_id,
    tenant,
    team,
    user,
    service,
    provider_name,
    model,
    prompt_name,
    prompt_version,
    input_tokens,
    output_tokens,
    error_type,
    trace_id
FROM calls
WHERE ({tenant:String} = '*' OR tenant = {tenant:String})
    AND started_at >= parseDateTime64BestEffort({since:String}, 6, 'UTC')
    AND started_at < parseDateTime64BestEffort({until:String}, 6, 'UTC')
    AND latency_s IS NOT NULL
ORDER BY latency_s DESC, started_at, producer, seq
LIMIT {rows:UInt64};

-- Verdicts of the guardrails in a range, by the time of their calls: whole hours from the rollup, the ends from the verdicts.
CREATE VIEW IF NOT EXISTS verdicts_between AS
WITH
    parseDateTime64BestEffort({since:String}, 6, 'UTC') AS range_start,
    parseDateTime64BestEffort({until:String}, 6, 'UTC') AS range_end,
    least(toDateTime64(toStartOfHour(range_start + toIntervalMicrosecond(3599999999)), 6, 'UTC'), range_end) AS whole_start,
    greatest(toDateTime64(toStartOfHour(range_end), 6, 'UTC'), whole_start) AS whole_end
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
    verdicts,
    judged,
    with_findings,
    with_leaks,
    scored_by_score,
    sum_by_score
FROM scored_1h
WHERE ({tenant:String} = '*' OR tenant = {tenant:String}) AND hour >= whole_start AND hour < whole_end
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
    count() AS verdicts,
    countIf(outcome IN ('scored', 'partial')) AS judged,
    countIf(length(scored_calls.findings) + more_findings > 0) AS with_findings,
    countIf(has(scored_calls.findings.leak, true)) AS with_leaks,
    sumMap(CAST(mapApply((name, score) -> (toString(name), toUInt64(1)), scores), 'Map(String, UInt64)')) AS scored_by_score,
    sumMap(CAST(mapApply((name, score) -> (toString(name), score), scores), 'Map(String, Float64)')) AS sum_by_score
FROM scored_calls
WHERE ({tenant:String} = '*' OR tenant = {tenant:String})
    AND ((started_at >= range_start AND started_at < whole_start) OR (started_at >= whole_end AND started_at < range_end))
GROUP BY hour, tenant, team, service, environment, provider_name, model, prompt_name, prompt_version;

CREATE VIEW IF NOT EXISTS findings_between AS
WITH
    parseDateTime64BestEffort({since:String}, 6, 'UTC') AS range_start,
    parseDateTime64BestEffort({until:String}, 6, 'UTC') AS range_end,
    least(toDateTime64(toStartOfHour(range_start + toIntervalMicrosecond(3599999999)), 6, 'UTC'), range_end) AS whole_start,
    greatest(toDateTime64(toStartOfHour(range_end), 6, 'UTC'), whole_start) AS whole_end
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
    detector,
    type,
    findings,
    leaks,
    calls,
    calls_with_leaks
FROM findings_1h
WHERE ({tenant:String} = '*' OR tenant = {tenant:String}) AND hour >= whole_start AND hour < whole_end
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
    kind.1 AS detector,
    kind.2 AS type,
    sum(kind.3) AS findings,
    sum(kind.4) AS leaks,
    count() AS calls,
    countIf(kind.4 > 0) AS calls_with_leaks
FROM
(
    SELECT
        started_at,
        tenant,
        team,
        service,
        environment,
        provider_name,
        model,
        prompt_name,
        prompt_version,
        arrayZip(findings.detector, findings.type) AS kinds,
        arrayJoin(
            arrayMap(
                one -> (one.1, one.2, countEqual(kinds, one), arrayCount((other, leak) -> other = one AND leak, kinds, findings.leak)),
                arrayDistinct(kinds)
            )
        ) AS kind
    FROM scored_calls
    WHERE ({tenant:String} = '*' OR tenant = {tenant:String})
        AND ((started_at >= range_start AND started_at < whole_start) OR (started_at >= whole_end AND started_at < range_end))
)
GROUP BY hour, tenant, team, service, environment, provider_name, model, prompt_name, prompt_version, detector, type;

-- Of the calls that were judged, how many had a finding of a type. Calls that nobody judged are no evidence of their innocence.
CREATE VIEW IF NOT EXISTS findings_by AS
WITH
    judged_by AS
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
            sum(v.verdicts) AS verdicts,
            sum(v.judged) AS judged
        FROM verdicts_between(tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS v
        GROUP BY value
    )
SELECT
    found.value AS value,
    judged_by.verdicts AS verdicts,
    judged_by.judged AS judged,
    detector,
    type,
    calls,
    calls / nullIf(judged_by.judged, 0) AS finding_rate,
    findings,
    calls_with_leaks,
    leaks
FROM
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
        detector,
        type,
        sum(f.calls) AS calls,
        sum(f.findings) AS findings,
        sum(f.calls_with_leaks) AS calls_with_leaks,
        sum(f.leaks) AS leaks
    FROM findings_between(tenant = {tenant:String}, since = {since:String}, until = {until:String}) AS f
    GROUP BY value, detector, type
) AS found
LEFT JOIN judged_by ON judged_by.value IS NOT DISTINCT FROM found.value
ORDER BY calls DESC, value, detector, type;

-- Each leak of health information: where it stands in its text, not what it says.
CREATE VIEW IF NOT EXISTS phi_leaks AS
SELECT
    started_at,
    scored_at,
    call_id,
    nullIf(toString(tenant), '') AS tenant,
    nullIf(toString(team), '') AS team,
    nullIf(user, '') AS user,
    nullIf(toString(service), '') AS service,
    nullIf(toString(model), '') AS model,
    nullIf(toString(prompt_name), '') AS prompt_name,
    nullIf(toString(prompt_version), '') AS prompt_version,
    toString(found.type) AS type,
    toString(found.where) AS found_in,
    found.start AS start,
    found.end AS end,
    found.score AS score
FROM
(
    SELECT * EXCEPT findings, model, arrayJoin(arrayFilter(one -> one.leak, findings)) AS found
    FROM scored_calls
    WHERE ({tenant:String} = '*' OR tenant = {tenant:String})
        AND started_at >= parseDateTime64BestEffort({since:String}, 6, 'UTC')
        AND started_at < parseDateTime64BestEffort({until:String}, 6, 'UTC')
        AND has(findings.leak, true)
)
ORDER BY started_at, call_id, found_in, start;

-- The versions of one prompt beside one another: what they cost, how fast and how good they are.
CREATE VIEW IF NOT EXISTS prompt_versions AS
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
        min(u.hour) AS first_hour,
        max(u.hour) AS last_hour,
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

-- How good what was retrieved is, by the calls that retrieved anything.
CREATE VIEW IF NOT EXISTS retrieval_by AS
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
            count() AS calls_with_retrieval,
            sum(length(retrieval)) AS chunks,
            countIf(notEmpty(known)) AS calls_with_scores,
            avgIf(arrayMax(known), notEmpty(known)) AS best_score,
            avgIf(arrayAvg(known), notEmpty(known)) AS mean_score
        FROM (SELECT *, model, arrayMap(s -> assumeNotNull(s), arrayFilter(s -> s IS NOT NULL, retrieval.score)) AS known FROM calls)
        WHERE ({tenant:String} = '*' OR tenant = {tenant:String})
            AND started_at >= parseDateTime64BestEffort({since:String}, 6, 'UTC')
            AND started_at < parseDateTime64BestEffort({until:String}, 6, 'UTC')
            AND notEmpty(retrieval.score)
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
    calls_with_retrieval,
    chunks,
    chunks / calls_with_retrieval AS chunks_per_call,
    calls_with_scores,
    if(isNaN(retrieved.best_score), NULL, retrieved.best_score) AS best_score,
    if(isNaN(retrieved.mean_score), NULL, retrieved.mean_score) AS mean_score,
    quality.total['context.relevance'] / nullIf(quality.scored['context.relevance'], 0) AS context_relevance,
    quality.total['response.faithfulness'] / nullIf(quality.scored['response.faithfulness'], 0) AS faithfulness
FROM retrieved
LEFT JOIN quality ON quality.value IS NOT DISTINCT FROM retrieved.value
ORDER BY calls_with_retrieval DESC, value;

-- What policies said of their scopes, and for how long: until the next word on the same scope, or still (NULL).
CREATE VIEW IF NOT EXISTS policy_states AS
SELECT
    at,
    policy,
    scope,
    state,
    previous_state,
    if(next_at = toDateTime64(0, 3, 'UTC'), NULL, next_at) AS ended_at,
    dateDiff('millisecond', at, ended_at) / 1000 AS lasted_s,
    spend,
    `limit`,
    spend / nullIf(`limit`, 0) AS limit_share,
    resets_at,
    exhausted_at,
    contributors,
    owner,
    runbook
FROM
(
    SELECT
        *,
        leadInFrame(at, 1, toDateTime64(0, 3, 'UTC'))
            OVER (PARTITION BY policy, scope ORDER BY at ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS next_at
    FROM alerts
    WHERE kind = 'policy' AND ({tenant:String} = '*' OR scope['tenant'] = {tenant:String})
)
WHERE at >= parseDateTime64BestEffort({since:String}, 6, 'UTC') AND at < parseDateTime64BestEffort({until:String}, 6, 'UTC')
ORDER BY at, policy;

-- The times when calls were kept from going: every block and every throttle, with who had spent it.
CREATE VIEW IF NOT EXISTS blocks AS
SELECT *
FROM policy_states(tenant = {tenant:String}, since = {since:String}, until = {until:String})
WHERE state IN ('block', 'throttle')
ORDER BY at, policy;
