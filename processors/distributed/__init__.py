"""The topology on Kafka: the same steps as Faust agents, with aiokafka producers and sinks.

    calls (P partitions) ─► meter ─┬─► metered, requests, dead_letters (partition = source partition)  ─► sink ─► ClickHouse
                                   ├─► meter.changelog (compacted; its own memory of a source partition)
                                   └─► usage (Q partitions by scope, in blocks) ─► policies ─► signals (compacted), alerts

Nothing here is transactional; four rules make repetition harmless:

1. One flush of a source partition is one record batch of `meter.changelog`, which a broker appends whole or not at all, and
   holds the offset up to which it has applied. A worker that takes a partition over reads it from the start.
2. What flows on is absolute, and sent after the flush it belongs to is acknowledged; what may not have been sent when a
   worker died is sent again by the next one.
3. Every derived record says `source_partition` and `source_offset`; who reads it skips what is not beyond its high-water mark.
4. Envelopes are numbered by their producers.

What a record looks like:

    topic            key            headers                                                value
    calls            producer id    schema=calls/1 producer seq count [dropped]            NDJSON, one event a line
    metered, …       –              schema=rows/1 source_partition source_offset count     NDJSON, one row a line
    usage            –              schema=usage-block/1 source_partition source_offset    a `UsageBlock`
    meter.changelog  kind + name    –                                                      see `changelog.py`
    guardrails.names the name       –                                                      see `names_met.py`
    signals          as embedded    schema=signals/1                                       as embedded; none: taken back
    gates            gate id        –                                                      {}; none: goodbye
    alerts, signal_rows –            schema=rows/1 count                                    NDJSON, one row a line

Only `faust_engine.py` imports faust.
"""
