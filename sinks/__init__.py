"""Where derived records come to rest.

Enters: NDJSON lines of the log, batch by batch, each with a token that names where they came from.
Leaves: rows and rollups in ClickHouse (chDB in this process, or a server), and the answers to read-only questions.

    lines ──► Store.insert ──► calls ──(views)──► calls_1m, calls_1h ─► calls_1d ──► v_calls_1m, _1h, _1d ──► Store.query
                                                  calls_1d_totals, retrieval_1h ──► cost_by, latency_by, … ──►

May be imported by processors, dashboards and the command line. Imports schemas, and nothing else of Tidegate.
"""
