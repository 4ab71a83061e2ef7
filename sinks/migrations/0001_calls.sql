-- What the meter writes: one row per ended call, per announced call, and per line that could not be understood.
--
-- Names are those of the events. A word that is not known is '' and a number that is not known is NULL, never 0.
-- Rows are told apart by (producer, seq). `call_id` joins a request to its response and may repeat: never collapse by it.
-- The deduplication window counts blocks: a batch leaves one per month it holds, and the last batch of each source
-- partition must still be remembered when it is sent again. Inserts are fsynced: once the sink has moved its offset, nobody
-- will send the rows again, so they must outlive a power cut.

CREATE TABLE IF NOT EXISTS calls
(
    `event` String EPHEMERAL,
    `call_id` String CODEC(ZSTD(1)),
    `started_at` DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),

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
    `model` LowCardinality(String) MATERIALIZED if(response_model = '', request_model, response_model)
        COMMENT 'the model that answered, or the one that was asked when that is not known',
    `operation_name` LowCardinality(String),
    `prompt_name` LowCardinality(String),
    `prompt_version` LowCardinality(String),
    `temperature` Nullable(Float64) CODEC(ZSTD(1)),
    `top_p` Nullable(Float64) CODEC(ZSTD(1)),
    `top_k` Nullable(Float64) CODEC(ZSTD(1)),
    `frequency_penalty` Nullable(Float64) CODEC(ZSTD(1)),
    `presence_penalty` Nullable(Float64) CODEC(ZSTD(1)),
    `max_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)),
    `seed` Nullable(Int64) CODEC(ZSTD(1)),
    `choice_count` Nullable(UInt16) CODEC(ZSTD(1)),
    `stream` Nullable(Bool) CODEC(ZSTD(1)),
    `service_tier` LowCardinality(String),

    `attempt` Nullable(UInt16) CODEC(ZSTD(1)),
    `fallback_from` LowCardinality(String),
    `experiment` LowCardinality(String),
    `variant` LowCardinality(String),
    `conversation_id` String CODEC(ZSTD(1)),
    `trace_id` String CODEC(ZSTD(1)),
    `span_id` String CODEC(ZSTD(1)),
    `labels` Map(LowCardinality(String), String) CODEC(ZSTD(1)),

    `response_id` String CODEC(ZSTD(1)),
    `finish_reason` LowCardinality(String),
    `input_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)) COMMENT 'includes cached tokens',
    `output_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)) COMMENT 'includes reasoning tokens',
    `cache_read_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)),
    `cache_write_5m_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)),
    `cache_write_1h_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)),
    `reasoning_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)),
    `input_audio_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)),
    `output_audio_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)),
    `cache_audio_read_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)),
    `latency_s` Nullable(Float64) CODEC(ZSTD(1)),
    `time_to_first_token_s` Nullable(Float64) CODEC(ZSTD(1)),
    `error_type` LowCardinality(String),
    `error_code` LowCardinality(String),
    `cache_hit` Nullable(Bool) CODEC(ZSTD(1)),
    `retrieval` Array(Tuple(chunk_id String, score Nullable(Float32), source String)) CODEC(ZSTD(1)),
    `quality` Map(LowCardinality(String), Float64) CODEC(ZSTD(1)),

    `cost_nano_usd` Nullable(Int64) CODEC(T64, ZSTD(1)) COMMENT 'NULL: no price is known',
    `price_status` LowCardinality(String),
    `price_book` LowCardinality(String),

    `producer` String CODEC(ZSTD(1)),
    `seq` UInt64 CODEC(Delta, ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `source_partition` UInt16 CODEC(ZSTD(1)),
    `source_offset` UInt64 CODEC(Delta, ZSTD(1)),

    `status` LowCardinality(String) ALIAS if(error_type = '', 'ok', 'error'),
    `cost_usd` Nullable(Decimal(38, 9)) ALIAS toDecimal128(cost_nano_usd, 9) / 1000000000,
    `ended_at` Nullable(DateTime64(6, 'UTC')) ALIAS started_at + toIntervalMicrosecond(round(latency_s * 1000000)),
    `total_tokens` Nullable(UInt64) ALIAS input_tokens + output_tokens,

    INDEX calls_by_id call_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX calls_by_trace trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX calls_by_conversation conversation_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(started_at)
ORDER BY (tenant, started_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS call_requests
(
    `event` String EPHEMERAL,
    `call_id` String CODEC(ZSTD(1)),
    `started_at` DateTime64(6, 'UTC') CODEC(Delta, ZSTD(1)),

    `tenant` LowCardinality(String),
    `team` LowCardinality(String),
    `user` String CODEC(ZSTD(1)),
    `service` LowCardinality(String),
    `environment` LowCardinality(String),
    `region` LowCardinality(String),
    `task_type` LowCardinality(String),

    `provider_name` LowCardinality(String),
    `request_model` LowCardinality(String),
    `operation_name` LowCardinality(String),
    `prompt_name` LowCardinality(String),
    `prompt_version` LowCardinality(String),
    `temperature` Nullable(Float64) CODEC(ZSTD(1)),
    `top_p` Nullable(Float64) CODEC(ZSTD(1)),
    `top_k` Nullable(Float64) CODEC(ZSTD(1)),
    `frequency_penalty` Nullable(Float64) CODEC(ZSTD(1)),
    `presence_penalty` Nullable(Float64) CODEC(ZSTD(1)),
    `max_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)),
    `seed` Nullable(Int64) CODEC(ZSTD(1)),
    `choice_count` Nullable(UInt16) CODEC(ZSTD(1)),
    `stream` Nullable(Bool) CODEC(ZSTD(1)),
    `service_tier` LowCardinality(String),

    `attempt` Nullable(UInt16) CODEC(ZSTD(1)),
    `fallback_from` LowCardinality(String),
    `experiment` LowCardinality(String),
    `variant` LowCardinality(String),
    `conversation_id` String CODEC(ZSTD(1)),
    `trace_id` String CODEC(ZSTD(1)),
    `span_id` String CODEC(ZSTD(1)),
    `labels` Map(LowCardinality(String), String) CODEC(ZSTD(1)),

    `estimated_input_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)),
    `estimated_output_tokens` Nullable(UInt64) CODEC(T64, ZSTD(1)),

    `producer` String CODEC(ZSTD(1)),
    `seq` UInt64 CODEC(Delta, ZSTD(1)),
    `ingested_at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `source_partition` UInt16 CODEC(ZSTD(1)),
    `source_offset` UInt64 CODEC(Delta, ZSTD(1)),

    INDEX call_requests_by_id call_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(started_at)
ORDER BY (tenant, started_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS dead_letters
(
    `at` DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    `stage` LowCardinality(String) COMMENT 'who refused it: edge or meter',
    `source` String CODEC(ZSTD(1)),
    `line` Nullable(UInt64) CODEC(ZSTD(1)),
    `size_bytes` UInt64 CODEC(ZSTD(1)),
    `sha256` String CODEC(ZSTD(1)) COMMENT 'of the bytes, which are not kept',
    `reason` String CODEC(ZSTD(1)),
    `producer` String CODEC(ZSTD(1)),
    `seq` Nullable(UInt64) CODEC(ZSTD(1)),
    `source_partition` UInt16 CODEC(ZSTD(1)),
    `source_offset` UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(at)
ORDER BY at
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
