-- Who may read what on a ClickHouse server, as roles. Run it as somebody who may grant, after the first `tidegate db migrate`
-- and again after every upgrade; it changes nothing that stands:
--
--     clickhouse-client --multiquery < deploy/clickhouse/access.sql
--
--     CREATE USER ann IDENTIFIED WITH sha256_password BY '…';  GRANT tidegate_analyst TO ann;
--
-- A tenant's people see the rows of their tenant alone. Which one that is says a role that bears its name, and opens nothing:
--
--     CREATE ROLE `tidegate_tenant_harbor-health`;
--     GRANT tidegate_tenant, `tidegate_tenant_harbor-health` TO harbor;
--
-- docs/access.md tells it with examples.

CREATE ROLE IF NOT EXISTS tidegate_sink, tidegate_analyst, tidegate_oncall, tidegate_compliance, tidegate_tenant;

-- ---- What a worker does: migrations, rows, and the questions that bring a new policy its past.

GRANT CREATE DATABASE, CREATE TABLE, CREATE VIEW, ALTER, DROP VIEW, SELECT, INSERT ON tidegate.* TO tidegate_sink;
GRANT SELECT ON system.databases TO tidegate_sink;
GRANT SELECT ON system.tables TO tidegate_sink;
GRANT SELECT ON system.columns TO tidegate_sink;

-- ---- How the pipeline is doing: rollups, policies, what was refused. No call, and of persons only who spends a budget.

GRANT SELECT ON tidegate.calls_1m TO tidegate_oncall, tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.calls_1h TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.calls_1d TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.calls_1d_totals TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.v_calls_1m TO tidegate_oncall, tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.v_calls_1h TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.v_calls_1d TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.retrieval_1h TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.scored_1h TO tidegate_oncall, tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.v_scored_1h TO tidegate_oncall, tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.findings_1h TO tidegate_oncall, tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.v_findings_1h TO tidegate_oncall, tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.alerts TO tidegate_oncall, tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.signals TO tidegate_oncall, tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.signals_now TO tidegate_oncall, tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.policy_states TO tidegate_oncall, tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.blocks TO tidegate_oncall, tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.dead_letters TO tidegate_oncall, tidegate_analyst, tidegate_compliance;
GRANT SELECT ON tidegate.dead_letter_states TO tidegate_oncall, tidegate_analyst, tidegate_compliance;
GRANT SELECT ON tidegate.schema_migrations TO tidegate_oncall, tidegate_analyst, tidegate_compliance;

-- ---- Calls and findings: who called, what it cost, what was found. No text.

GRANT SELECT ON tidegate.calls TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.call_requests TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.scored_calls TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.findings TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.edges_between TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.totals_between TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.usage_between TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.usage_by TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.cost_by TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.tokens_by TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.latency_by TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.errors_by TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.days_by TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.expensive_users TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.unpriced_models TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.slowest_calls TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.verdicts_between TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.findings_between TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.findings_by TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.phi_leaks TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.prompt_versions TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.retrieval_between TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.retrieval_by TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.usage_ledger TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.usage_ledger_totals TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.prices TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.prices_now TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.evaluations TO tidegate_analyst, tidegate_compliance;
GRANT SELECT ON tidegate.evaluations_latest TO tidegate_analyst, tidegate_compliance;
GRANT SELECT ON tidegate.hours_before_ledger TO tidegate_analyst, tidegate_compliance;
GRANT SELECT ON tidegate.repriced TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.repricings TO tidegate_analyst, tidegate_compliance, tidegate_tenant;
GRANT SELECT ON tidegate.repriced_calls TO tidegate_analyst, tidegate_compliance, tidegate_tenant;

-- ---- Redacted texts, and who has read them.

GRANT SELECT ON tidegate.transcripts TO tidegate_compliance;
GRANT SELECT ON tidegate.audit TO tidegate_compliance;

-- The server's diary holds every question. Who may read this view need not read the diary, and a question comes without the
-- values in it. The view is its definer's, whom nobody can log in as.
CREATE USER IF NOT EXISTS tidegate_definer HOST NONE;
GRANT SELECT ON system.query_log TO tidegate_definer;
CREATE OR REPLACE VIEW tidegate.transcript_reads
DEFINER = tidegate_definer SQL SECURITY DEFINER
AS
SELECT
    event_time_microseconds AS at,
    user,
    toString(address) AS client_address,
    http_user_agent AS client,
    query_id,
    normalizeQuery(query) AS question,
    exception_code AS error_code,
    result_rows,
    read_rows
FROM system.query_log
WHERE has(tables, 'tidegate.transcripts') AND type != 'QueryStart' AND is_initial_query
ORDER BY at DESC;
GRANT SELECT ON tidegate.transcript_reads TO tidegate_compliance;

-- ---- A tenant's rows. The first policy is the tenant's people's, the second everybody else's: a table that has a policy shows
-- ---- nothing to those whom none names.

CREATE ROW POLICY OR REPLACE tidegate_own_tenant ON
    tidegate.calls, tidegate.call_requests, tidegate.calls_1m, tidegate.calls_1h, tidegate.calls_1d,
    tidegate.calls_1d_totals, tidegate.retrieval_1h, tidegate.scored_calls, tidegate.scored_1h, tidegate.findings_1h,
    tidegate.repriced, tidegate.repricings, tidegate.transcripts, tidegate.usage_ledger
    FOR SELECT USING has(enabledRoles(), concat('tidegate_tenant_', tenant)) TO tidegate_tenant;
CREATE ROW POLICY OR REPLACE tidegate_own_tenant ON tidegate.prices
    FOR SELECT USING tenant = '' OR has(enabledRoles(), concat('tidegate_tenant_', tenant)) TO tidegate_tenant;
CREATE ROW POLICY OR REPLACE tidegate_own_tenant ON tidegate.alerts, tidegate.signals
    FOR SELECT USING has(enabledRoles(), concat('tidegate_tenant_', scope['tenant'])) TO tidegate_tenant;
CREATE ROW POLICY OR REPLACE tidegate_all_tenants ON
    tidegate.calls, tidegate.call_requests, tidegate.calls_1m, tidegate.calls_1h, tidegate.calls_1d,
    tidegate.calls_1d_totals, tidegate.retrieval_1h, tidegate.scored_calls, tidegate.scored_1h, tidegate.findings_1h,
    tidegate.repriced, tidegate.repricings, tidegate.transcripts, tidegate.alerts, tidegate.signals, tidegate.usage_ledger, tidegate.prices
    FOR SELECT USING 1 TO ALL EXCEPT tidegate_tenant;

-- ---- What one question, and one person, may take.

CREATE SETTINGS PROFILE OR REPLACE tidegate_reader SETTINGS
    readonly = 2,
    max_execution_time = 60 MAX 120,
    max_memory_usage = 4000000000 MAX 4000000000,
    max_result_rows = 1000000 MAX 1000000,
    result_overflow_mode = 'throw'
    TO tidegate_analyst, tidegate_oncall, tidegate_compliance, tidegate_tenant;
CREATE QUOTA OR REPLACE tidegate_reader KEYED BY user_name
    FOR INTERVAL 1 hour MAX queries = 5000, execution_time = 3600
    TO tidegate_analyst, tidegate_oncall, tidegate_compliance;
CREATE QUOTA OR REPLACE tidegate_tenant KEYED BY user_name
    FOR INTERVAL 1 hour MAX queries = 500, execution_time = 600
    TO tidegate_tenant;
