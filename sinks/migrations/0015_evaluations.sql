-- How well detectors did on labelled lines: `tidegate evaluate … --store` writes a row for each figure. No line is in here, only
-- the SHA-256 of all of them.

CREATE TABLE IF NOT EXISTS evaluations
(
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `data_set` LowCardinality(String) COMMENT 'names of the files',
    `sha256` String CODEC(ZSTD(1)) COMMENT 'of the lines that were read',
    `lines` UInt64 CODEC(T64, ZSTD(1)) COMMENT 'with a label for a detector that was asked',
    `detector` LowCardinality(String),
    `version` String CODEC(ZSTD(1)) COMMENT 'of the detector, with what its models hash to',
    `failed` UInt64 CODEC(T64, ZSTD(1)) COMMENT 'lines on which the detector failed',
    `source` LowCardinality(String) COMMENT 'all, or what lines say of where they are from',
    `type` LowCardinality(String) COMMENT 'of PHI; empty: all of them',
    `metric` LowCardinality(String) COMMENT 'f1, precision, recall, auroc, length_auroc, ...',
    `value` Nullable(Float64) CODEC(ZSTD(1)) COMMENT 'NULL: there is none, as of a share of nothing'
)
ENGINE = MergeTree
ORDER BY (data_set, detector, source, type, metric, at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- The last figures of each detector on each data set.
CREATE VIEW IF NOT EXISTS evaluations_latest AS
SELECT *
FROM evaluations
ORDER BY data_set, detector, source, type, metric, at DESC
LIMIT 1 BY data_set, detector, source, type, metric;
