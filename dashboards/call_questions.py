"""The questions behind a drill-down: from a moment of a panel to its calls, from a call to all that is known of it. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import orjson

from ..schemas.errors import UsageError

PAGE: Final = 50
# A call's columns in a list, and what one shows beside them.
_LISTED: Final = (
    "call_id, started_at, tenant, team, service, user, provider_name, model, prompt_name, prompt_version, input_tokens,"
    " output_tokens, toFloat64(cost_usd) AS cost_usd, latency_s, time_to_first_token_s, error_type"
)
_DETAILS: Final = (
    "environment, region, task_type, request_model, response_model, cache_read_tokens,"
    " if(cache_write_5m_tokens IS NULL AND cache_write_1h_tokens IS NULL, NULL,"
    " ifNull(cache_write_5m_tokens, 0) + ifNull(cache_write_1h_tokens, 0)) AS cache_write_tokens,"
    " reasoning_tokens, finish_reason, price_status, price_book, trace_id, attempt, fallback_from, operation_name, stream,"
    " temperature, max_tokens, service_tier, conversation_id, error_code, cache_hit, labels, ingested_at"
)
_RANGE: Final = (
    "started_at >= parseDateTime64BestEffort({since:String}, 6, 'UTC')"
    " AND started_at < parseDateTime64BestEffort({until:String}, 6, 'UTC')"
)
# What may be asked for: `*` is anything.
FILTERS: Final = ("tenant", "team", "service", "provider_name", "model", "prompt", "error_type")
_PROMPT: Final = (
    "({prompt:String} = '*' OR prompt_name = {prompt:String} OR concat(prompt_name, '@', prompt_version) = {prompt:String})"
)
_KEYS: Final = {
    "newest": "toFloat64(toUnixTimestamp64Micro(started_at))",
    "slowest": "latency_s",
    "dearest": "toFloat64(cost_nano_usd)",
    "errors": "toFloat64(toUnixTimestamp64Micro(started_at))",
}
_LONGEST: Final = 128

CALL: Final = f"SELECT {_LISTED}, {_DETAILS} FROM calls WHERE call_id = {{call_id:String}} ORDER BY started_at DESC LIMIT 1"
VERDICT: Final = (
    "SELECT outcome, scores, detectors, failed, scored_at, more_findings FROM scored_calls WHERE call_id = {call_id:String}"
    " ORDER BY scored_at DESC LIMIT 1"
)
FINDINGS_OF: Final = (
    "SELECT detector, type, found_in, chunk, start, end, score, leak, rule FROM findings WHERE call_id = {call_id:String}"
    " AND scored_at = (SELECT max(scored_at) FROM scored_calls WHERE call_id = {call_id:String})"
    " ORDER BY found_in, chunk, start, end, detector LIMIT 500"
)
FINDINGS: Final = f"""
SELECT call_id, started_at, tenant, team, service, model, prompt_name, prompt_version, detector, type, found_in, start, end,
    score, leak
FROM findings
WHERE {_RANGE} AND ({{tenant:String}} = '*' OR tenant = {{tenant:String}}) AND ({{type:String}} = '*' OR type = {{type:String}})
    AND ({{detector:String}} = '*' OR detector = {{detector:String}})
ORDER BY started_at DESC, call_id, found_in, start, end
LIMIT 100
"""
TRANSCRIPT: Final = (
    "SELECT redaction, redacted_prompt, redacted_response, redacted_context FROM transcripts WHERE call_id = {call_id:String}"
    " ORDER BY ingested_at DESC LIMIT 1"
)
# What it was priced at: the tenant's own price before everybody's, the tier that its length reaches.
PRICE: Final = """
SELECT provider_name, model, service_tier, tenant != '' AS of_tenant, price_book, valid_from, above_input_tokens,
    input_nano_usd_per_million / 1e9 AS input_usd_per_million, output_nano_usd_per_million / 1e9 AS output_usd_per_million,
    cache_read_nano_usd_per_million / 1e9 AS cache_read_usd_per_million,
    cache_write_5m_nano_usd_per_million / 1e9 AS cache_write_5m_usd_per_million
FROM prices FINAL
WHERE provider_name = {provider_name:String} AND model IN ({response_model:String}, {request_model:String})
    AND service_tier = {tier:String} AND tenant IN ('', {tenant:String}) AND price_book = {price_book:String}
    AND valid_from <= parseDateTime64BestEffort({at:String}, 6, 'UTC')
    AND (valid_until IS NULL OR valid_until > parseDateTime64BestEffort({at:String}, 6, 'UTC'))
    AND above_input_tokens <= {input_tokens:UInt64}
ORDER BY tenant = '', model = {response_model:String} DESC, above_input_tokens DESC, valid_from DESC
LIMIT 1
"""


def wished(asked: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    """The filters' values. Raises `UsageError`."""
    values = {name: asked.get(name) or "*" for name in names}
    if too_long := [name for name, value in values.items() if len(value) > _LONGEST]:
        raise UsageError(f"{too_long[0]} has at most {_LONGEST} characters")
    return values


def calls_question(asked: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """A page of calls: the statement and its parameters, but for the range. Raises `UsageError`."""
    order = asked.get("order", "newest")
    if order not in _KEYS:
        raise UsageError(f"order is one of {', '.join(_KEYS)}")
    values: dict[str, Any] = dict(wished(asked, FILTERS))
    conditions = [_RANGE, _PROMPT]
    conditions += [f"({{{name}:String}} = '*' OR {name} = {{{name}:String}})" for name in FILTERS if name != "prompt"]
    key = _KEYS[order]
    conditions += ["error_type != ''"] if order == "errors" else []
    conditions += [f"{key} IS NOT NULL"] if order in ("slowest", "dearest") else []
    if after := asked.get("after"):
        values |= _place(after)
        conditions.append(
            f"(assumeNotNull({key}), toUnixTimestamp64Micro(started_at), producer, seq)"
            " < ({after_key:Float64}, {after_at:Int64}, {after_producer:String}, {after_seq:UInt64})"
        )
    places = f"assumeNotNull({key}) AS key, toUnixTimestamp64Micro(started_at) AS at_us, producer, seq"
    sql = (
        f"SELECT {_LISTED}, {places} FROM calls WHERE {' AND '.join(conditions)}"
        f" ORDER BY key DESC, at_us DESC, producer DESC, seq DESC LIMIT {PAGE + 1}"
    )
    return sql, values


def page_of(calls: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str | None]:
    """The calls of a page without their places, and where the next one begins."""
    shown, rest = calls[:PAGE], calls[PAGE:]
    cursor = None
    if rest:
        last = shown[-1]
        place = [last["key"], last["at_us"], last["producer"], last["seq"]]
        cursor = base64.urlsafe_b64encode(orjson.dumps(place)).decode()
    hidden = ("key", "at_us", "producer", "seq")
    return [{name: value for name, value in call.items() if name not in hidden} for call in shown], cursor


def _place(cursor: str) -> dict[str, Any]:
    try:
        key, at, producer, seq = orjson.loads(base64.urlsafe_b64decode(cursor))
        return {"after_key": float(key), "after_at": int(at), "after_producer": str(producer), "after_seq": int(seq)}
    except (ValueError, TypeError, binascii.Error):
        raise UsageError("`after` is what the answer before called `next`") from None
