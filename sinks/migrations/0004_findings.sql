-- What the guardrails say of content: one row per verdict, its findings in it; rollups by the hour; and redacted texts.
--
-- A finding is a type, a place and a score: no text, and nothing that text could be had back from. A score that was not
-- computed is not in `scores`: unknown, never 0. Verdicts come through the meter, so that (producer, seq) tells them apart as
-- it does calls: `producer` is guardrails:<who sent the content>, and `seq` the number that it bore there.
-- After 400 days verdicts go, a month at a time; the rollups stay. ALTER TABLE … MODIFY TTL makes it another number.

CREATE TABLE IF NOT EXISTS scored_calls
(
    `event` String EPHEMERAL,
    `call_id` String CODEC(ZSTD(1)),
    `started_at` DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'of the call',

    `tenant` LowCardinality(String),
    `team` LowCardinality(String),
    `user` String CODEC(ZSTD(1)),
    `service` LowCardinality(String),
    `environment` LowCardinality(String),
    `region` LowCardinality(String),
    `task_type` LowCardinality(String),

    `provider_name` LowCardinality(String),
    `request_model` LowCardinality(String),
    `response_model` LowCardinality(String),
    `model` LowCardinality(String) MATERIALIZED if(response_model = '', request_model, response_model),
    `prompt_name` LowCardinality(String),
    `prompt_version` LowCardinality(String),

    `scored_at` DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),
    `outcome` LowCardinality(String) COMMENT 'scored, partial: judged; sampled_out, hashed, unreadable, quarantined: unknown',
    `findings` Array(Tuple(
        detector LowCardinality(String), type LowCardinality(String), where LowCardinality(String), chunk UInt32,
        start UInt32, end UInt32, score Float64, leak Bool, fingerprint String)) CODEC(ZSTD(1)),
    `more_findings` UInt32 CODEC(T64, ZSTD(1)) COMMENT 'found, and left out for want of room',
    `evidence` Array(Tuple(
        start UInt32, end UInt32, score Float64, source LowCardinality(String),
        source_start UInt32, source_end UInt32, chunk UInt32)) CODEC(ZSTD(1)),
    `scores` Map(LowCardinality(String), Float64) CODEC(ZSTD(1)) COMMENT 'prompt.toxicity, response.faithfulness, ...',
    `detectors` Map(LowCardinality(String), LowCardinality(String)) CODEC(ZSTD(1)) COMMENT 'who judged, in which version',
    `failed` Map(LowCardinality(String), LowCardinality(String)) CODEC(ZSTD(1)) COMMENT 'who could not, and why',
    `cached` Bool,
    `scoring_s` Nullable(Float64) CODEC(ZSTD(1)),

    `producer` String CODEC(ZSTD(1)),
    `seq` UInt64 CODEC(Delta, ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `source_partition` UInt16 CODEC(ZSTD(1)),
    `source_offset` UInt64 CODEC(Delta, ZSTD(1)),

    INDEX scored_calls_by_id call_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(started_at)
ORDER BY (tenant, started_at)
TTL toDateTime(ingested_at) + INTERVAL 400 DAY
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;

-- One row per finding. Those left out for want of room are only in `more_findings` of their verdict.
CREATE VIEW IF NOT EXISTS findings AS
SELECT
    call_id,
    started_at,
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
    scored_at,
    outcome,
    found.detector AS detector,
    found.type AS type,
    found.where AS found_in,
    found.chunk AS chunk,
    found.start AS start,
    found.end AS end,
    found.score AS score,
    found.leak AS leak,
    found.fingerprint AS fingerprint,
    producer,
    seq
FROM scored_calls
ARRAY JOIN findings AS found;

-- Verdicts by the hour of their calls. A share of calls is `…` ÷ judged: verdicts of another outcome say nothing of the text.
CREATE TABLE IF NOT EXISTS scored_1h
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
    `verdicts` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `judged` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `verdicts_by_outcome` SimpleAggregateFunction(sumMap, Map(String, UInt64)) CODEC(ZSTD(1)),
    `failures_by_detector` SimpleAggregateFunction(sumMap, Map(String, UInt64)) CODEC(ZSTD(1)),
    `with_findings` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `with_leaks` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `findings` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `cached` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `scored_by_score` SimpleAggregateFunction(sumMap, Map(String, UInt64)) CODEC(ZSTD(1)),
    `sum_by_score` SimpleAggregateFunction(sumMap, Map(String, Float64)) CODEC(ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant, hour, team, service, environment, provider_name, model, prompt_name, prompt_version)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS scored_calls_to_1h TO scored_1h AS
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
    count() AS verdicts,
    countIf(outcome IN ('scored', 'partial')) AS judged,
    sumMap(CAST(map(toString(outcome), toUInt64(1)), 'Map(String, UInt64)')) AS verdicts_by_outcome,
    sumMap(CAST(mapApply((name, why) -> (toString(name), toUInt64(1)), failed), 'Map(String, UInt64)')) AS failures_by_detector,
    countIf(length(scored_calls.findings) + more_findings > 0) AS with_findings,
    countIf(has(scored_calls.findings.leak, true)) AS with_leaks,
    sum(length(scored_calls.findings) + more_findings) AS findings,
    countIf(scored_calls.cached) AS cached,
    sumMap(CAST(mapApply((name, score) -> (toString(name), toUInt64(1)), scores), 'Map(String, UInt64)')) AS scored_by_score,
    sumMap(CAST(mapApply((name, score) -> (toString(name), score), scores), 'Map(String, Float64)')) AS sum_by_score
FROM scored_calls
GROUP BY hour, tenant, team, service, environment, provider_name, model, prompt_name, prompt_version;

CREATE VIEW IF NOT EXISTS v_scored_1h AS
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
    sum(scored_1h.verdicts) AS verdicts,
    sum(scored_1h.judged) AS judged,
    sumMap(scored_1h.verdicts_by_outcome) AS verdicts_by_outcome,
    sumMap(scored_1h.failures_by_detector) AS failures_by_detector,
    sum(scored_1h.with_findings) AS with_findings,
    sum(scored_1h.with_leaks) AS with_leaks,
    sum(scored_1h.findings) AS findings,
    sum(scored_1h.cached) AS cached,
    sumMap(scored_1h.scored_by_score) AS scored_by_score,
    sumMap(scored_1h.sum_by_score) AS sum_by_score
FROM scored_1h
GROUP BY hour, tenant, team, service, environment, provider_name, model, prompt_name, prompt_version;

-- Findings by what they are. `calls` had at least one of that type; a call with two types counts in both.
CREATE TABLE IF NOT EXISTS findings_1h
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
    `detector` LowCardinality(String),
    `type` LowCardinality(String),
    `findings` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `leaks` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `calls` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1)),
    `calls_with_leaks` SimpleAggregateFunction(sum, UInt64) CODEC(T64, ZSTD(1))
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (tenant, hour, detector, type, team, service, environment, provider_name, model, prompt_name, prompt_version)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS findings_to_1h TO findings_1h AS
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
)
GROUP BY hour, tenant, team, service, environment, provider_name, model, prompt_name, prompt_version, detector, type;

CREATE VIEW IF NOT EXISTS v_findings_1h AS
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
    sum(findings_1h.findings) AS findings,
    sum(findings_1h.leaks) AS leaks,
    sum(findings_1h.calls) AS calls,
    sum(findings_1h.calls_with_leaks) AS calls_with_leaks
FROM findings_1h
GROUP BY hour, tenant, team, service, environment, provider_name, model, prompt_name, prompt_version, detector, type;

-- What was said, as far as it may be kept: texts in which every finding of PHI is replaced. Written by the guardrails alone,
-- and only where the PHI detector has judged all of it. `producer`, `seq` and the source are those of the content, which
-- may be scored again and be known: join verdicts by `call_id`. Thirty days after its content came a row goes, a day at a time.
CREATE TABLE IF NOT EXISTS transcripts
(
    `call_id` String CODEC(ZSTD(1)),
    `started_at` DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)) COMMENT 'of the call',

    `tenant` LowCardinality(String),
    `team` LowCardinality(String),
    `user` String CODEC(ZSTD(1)),
    `service` LowCardinality(String),
    `environment` LowCardinality(String),
    `region` LowCardinality(String),
    `task_type` LowCardinality(String),

    `provider_name` LowCardinality(String),
    `request_model` LowCardinality(String),
    `response_model` LowCardinality(String),
    `model` LowCardinality(String) MATERIALIZED if(response_model = '', request_model, response_model),
    `prompt_name` LowCardinality(String),
    `prompt_version` LowCardinality(String),

    `redaction` LowCardinality(String) COMMENT 'how: tag, surrogate or hash',
    `redacted_prompt` Nullable(String) CODEC(ZSTD(3)) COMMENT 'NULL: there was none',
    `redacted_response` Nullable(String) CODEC(ZSTD(3)),
    `redacted_context` Array(String) CODEC(ZSTD(3)),

    `producer` String CODEC(ZSTD(1)),
    `seq` UInt64 CODEC(Delta, ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `source_partition` UInt16 CODEC(ZSTD(1)),
    `source_offset` UInt64 CODEC(Delta, ZSTD(1)),

    INDEX transcripts_by_id call_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toDate(ingested_at)
ORDER BY (tenant, started_at)
TTL toDateTime(ingested_at) + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1, ttl_only_drop_parts = 1;
