-- Which rule a finding goes by, where its detector has a file of rules: the id that the rule has there.

ALTER TABLE scored_calls MODIFY COLUMN `findings` Array(Tuple(
    detector LowCardinality(String), type LowCardinality(String), where LowCardinality(String), chunk UInt32,
    start UInt32, end UInt32, score Float64, leak Bool, fingerprint String, rule LowCardinality(String))) CODEC(ZSTD(1));

CREATE OR REPLACE VIEW findings AS
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
    found.rule AS rule,
    producer,
    seq
FROM scored_calls
ARRAY JOIN findings AS found;
