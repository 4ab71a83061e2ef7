-- What became of each line that was refused. `dead_letters` is only added to: a row for the refusal, and one of stage `person`
-- for each thing that was done with it. What the store itself refused (stage `sink`) stays in the log, and is not to be mended.

CREATE OR REPLACE VIEW dead_letter_states AS
SELECT
    concat(toString(source_partition), ':', toString(source_offset), if(isNull(seq), '', concat(':', toString(seq)))) AS letter,
    minIf(d.at, d.stage != 'person') AS refused_at,
    anyIf(d.stage, d.stage != 'person') AS refused_by,
    anyIf(d.reason, d.stage != 'person') AS why,
    anyIf(d.producer, d.stage != 'person') AS sent_by,
    anyIf(d.size_bytes, d.stage != 'person') AS size,
    anyIf(d.sha256, d.stage != 'person') AS fingerprint,
    if(countIf(d.stage = 'person') = 0, 'refused', argMaxIf(d.reason, d.at, d.stage = 'person')) AS state,
    if(countIf(d.stage = 'person') = 0, refused_at, maxIf(d.at, d.stage = 'person')) AS since
FROM dead_letters AS d
WHERE d.stage IN ('edge', 'meter', 'person')
GROUP BY source_partition, source_offset, seq
HAVING countIf(d.stage != 'person') > 0;
