// The admin API as the dashboard reads it: the schemas of /admin/api/v1/openapi.json. A field without a
// value is null.

declare namespace Api {
  type Circuit = "unknown" | "closed" | "failing" | "open" | "half_open";
  type RowState = "pending" | "done";
  type By = "complete" | "client" | "upstream" | "proxy";

  type CheckStatus = "ok" | "skip" | "warn" | "fail";

  interface Check {
    id: string;
    group: "configuration" | "upstream" | "shared_state" | "listener" | "data" | "client";
    subject?: string;
    status: CheckStatus;
    ms: number;
    detail: string;
    fix: string | null;
    evidence: string[];
  }

  interface DoctorReport {
    version: string;
    at: number;
    ms: number;
    counts: Record<CheckStatus, number>;
    checks: Check[];
  }

  interface LastDoctorRun {
    running: boolean;
    report: DoctorReport | null;
  }

  type Role = "viewer" | "operator" | "admin";

  interface SessionStatus {
    authenticated: boolean;
    role: Role | null;
    user: string | null;
    method: "session" | "bearer" | "proxy" | "socket" | null;
    zone: string | null;
  }

  interface Tokens {
    input: number;
    output: number;
    cache_read: number;
    cache_write_5m: number;
    cache_write_1h: number;
  }

  interface Ended {
    by: By;
    phase: "request" | "response";
    label: string | null;
  }

  interface OtherModel {
    model: string;
    tokens: Tokens;
    cost_usd: number | null;
  }

  interface Row {
    seq: number;
    id: string;
    at: number;
    ended_at: number | null;
    state: RowState;
    ending: boolean;
    method: string;
    path: string;
    route: string;
    version: string;
    status: number | null;
    result: string | null;
    ended: Ended | null;
    error_type: string | null;
    client: string | null;
    session: string | null;
    agent: string | null;
    key: string | null;
    key_name: string | null;
    user: string | null;
    team: string | null;
    user_agent: string | null;
    upstream: string | null;
    upstream_request_id: string | null;
    edit: string | null;
    verify: "same" | "incomplete" | "differs" | null;
    model: string | null;
    stream: boolean | null;
    max_tokens: number | null;
    stop_reason: string | null;
    inference_geo: string | null;
    speed: string | null;
    service_tier: string | null;
    metering_failure: string | null;
    server_tools: number;
    output_events: number | null;
    tokens: Tokens | null;
    other_models: OtherModel[];
    cost_usd: number | null;
    at_least: boolean;
    estimate: { output: number; cost_usd: number | null } | null;
    bytes_in: number;
    bytes_out: number;
    connecting_ms: number | null;
    connected_ms: number | null;
    head_ms: number | null;
    ttft_ms: number | null;
    duration_ms: number;
    overhead_ms: number;
  }

  interface Field {
    name: string;
    value: string | null;
  }

  interface Detail extends Row {
    error: { content: string; truncated: boolean } | null;
    request_fields: Field[];
    response_fields: Field[];
    verified: Verified | null;
  }

  /** Comparison of content before and after the proxy. */
  interface Verified {
    result: string;
    request: VerifiedContent | null;
    response: VerifiedContent | null;
  }

  interface VerifiedContent {
    result: string;
    received: { octets: number; sha256: string };
    sent: { octets: number; sha256: string };
    edit: { at: number; replaced: number; inserted: number } | null;
  }

  /** Progress of an exchange in flight. */
  interface Running {
    seq: number;
    id: string;
    ending: boolean;
    upstream: string | null;
    bytes_in: number;
    bytes_out: number;
    duration_ms: number;
    ttft_ms: number | null;
    tokens: Tokens;
    output_events: number;
  }

  interface Tick {
    now: number;
    boot_id: string;
    in_flight: number;
    requests_per_second: number;
    error_rate: number;
    tokens_per_second: number;
    rows: Row[];
    running: Running[];
    dropped: number;
  }

  interface Page {
    items: Row[];
    total: number;
    next_before: number | null;
  }

  interface Quantiles {
    avg: number | null;
    p50: number | null;
    p95: number | null;
    p99: number | null;
  }

  interface Totals {
    requests: number;
    succeeded: number;
    failed: number;
    canceled: number;
    bytes_in: number;
    bytes_out: number;
    duration_ms: Quantiles;
    ttft_ms: Quantiles;
    tokens: Tokens;
    cache_hit_share: number;
    cost_usd: number;
    cost_estimate_usd: number;
    at_least_requests: number;
    unpriced_requests: number;
  }

  type SeriesName =
    | "requests"
    | "errors"
    | "canceled"
    | "bytes_in"
    | "bytes_out"
    | "tokens_in"
    | "tokens_out"
    | "cost_usd"
    | `${"duration" | "ttft"}_${"p50" | "p95" | "p99"}`;

  type Series = Record<SeriesName, (number | null)[]> & { t: number[] };

  interface PathRow {
    path: string;
    requests: number;
    errors: number;
    avg_ms: number;
    bytes_out: number;
  }

  interface Reload {
    at: number;
    ok: boolean;
    what: string;
  }

  interface Health {
    circuit: Circuit;
    failures: number;
    failures_to_open: number;
  }

  interface Overview {
    now: number;
    shared: boolean;
    step_ms: number;
    version: string;
    started_at: number;
    in_flight: number;
    connections: number;
    lost: number;
    totals: Totals;
    today: { requests: number; cost_usd: number; at_least_requests: number; tokens: Tokens };
    prices_date: string;
    zone: string;
    series: Series;
    paths: PathRow[];
    reloads: Reload[];
    upstreams: (Health & { name: string; url: string })[];
  }

  interface ErrorGroup {
    by: By;
    status: number | null;
    type: string | null;
    label: string | null;
    upstream: string | null;
    count: number;
    first_at: number;
    last_at: number;
    sample: { id: string; content: string | null };
  }

  interface Errors {
    groups: ErrorGroup[];
    items: Row[];
    kept: number;
    since: number;
  }

  interface UsageRow {
    key: string;
    at: number | null;
    name: string | null;
    model: string | null;
    day: string | null;
    requests: number;
    tokens: Tokens;
    cache_hit_share: number;
    cost_usd: number;
    cost_estimate_usd: number;
    cost_is_floor: boolean;
    at_least: boolean;
    unpriced: boolean;
    unpriced_requests: number;
  }

  /** Other replicas' part in sums. */
  interface SharedSums {
    complete: boolean;
    read_at: number;
  }

  interface Replica {
    boot_id: string;
    name: string;
    own: boolean;
    state: "running" | "draining" | "silent";
    version: string;
    version_differs: boolean;
    config: string;
    config_differs: boolean;
    config_differing: string[];
    started_at: number;
    seen_at: number;
    in_flight: number;
    requests: number;
    errors: number;
    open_circuits: string[];
  }

  interface Replicas {
    shared: boolean;
    fault: string | null;
    copy: { at: number; in_use: boolean } | null;
    read_at: number;
    items: Replica[];
    sums: { replicas: number; in_flight: number; requests: number; errors: number };
  }

  interface Usage {
    shared: SharedSums | null;
    rows: UsageRow[];
    not_priced: string[];
    prices_date: string;
    zone: string;
  }

  interface UsageLine {
    key: string;
    name: string | null;
    requests: number[];
    tokens_in: number[];
    tokens_out: number[];
    cost_usd: number[];
  }

  interface UsageSeries {
    step_ms: number;
    t: number[];
    lines: UsageLine[];
  }

  interface SessionSums {
    first_at: number;
    last_at: number;
    duration_ms: number;
    busy_ms: number;
    requests: number;
    errors: number;
    tokens: Tokens;
    cache_hit_share: number;
    cache_breaks: number;
    cost_usd: number;
    cost_is_floor: boolean;
  }

  interface Session extends SessionSums {
    id: string;
    key: string | null;
    key_name: string | null;
    user: string | null;
    team: string | null;
    user_agent: string | null;
    agents: number;
    models: string[];
  }

  interface Agent extends SessionSums {
    id: string | null;
    parent: string | null;
    depth: number;
    models: string[];
  }

  interface CacheBreak {
    at: number;
    request: string;
    agent: string | null;
    model: string;
    cause: string;
    message: number | null;
    expected: number;
    read: number;
    written: number;
  }

  interface SessionDetail extends Session {
    tree: Agent[];
    causes: { cause: string; count: number }[];
    breaks: CacheBreak[];
    last_requests: Row[];
  }

  interface SessionPage {
    shared: SharedSums | null;
    items: Session[];
    total: number;
    next_offset: number | null;
  }

  interface Limit {
    kind:
      "requests_per_minute" | "input_tokens_per_minute" | "output_tokens_per_minute" | "at_once" | "spend";
    amount?: number;
    amount_usd?: number;
    period?: string;
    zone?: string;
    models?: string;
  }

  interface Key {
    id: string;
    name: string;
    user: string | null;
    team: string | null;
    state: string;
    last4: string[];
    created_at: string;
    expires_at: string | null;
    last_used_at: string | null;
    revoked_at: string | null;
    revoked_reason: string | null;
    models: string[];
    paths: string[];
    sources: string[];
    limits: Limit[];
  }

  /** A key with its text, which is told this once. */
  interface CreatedKey extends Key {
    key: string | null;
    warnings: string[];
  }

  interface KeyList {
    items: Key[];
    total: number;
    next_after: string | null;
  }

  interface UsedLimits {
    items: UsedLimit[];
    total: number;
  }

  interface UsedLimit extends Limit {
    subject: string;
    name: string | null;
    bound: number;
    spent: number;
    percent: number;
    default_of: string | null;
  }

  interface SpendBar {
    subject: string;
    name: string | null;
    period: string;
    zone: string | null;
    models: string | null;
    limit_usd: number;
    spent_usd: number;
    held_usd: number;
    left_usd: number;
    percent: number;
    resets_at: string | null;
    forecast_usd: number | null;
    /** Null for a budget of this process alone. */
    shared: {
      state: string;
      age_seconds: number | null;
      replicas: number;
      counts: string;
      unreachable: string;
    } | null;
  }

  interface AuditLine {
    seq: number;
    at: string;
    actor: { type: string; id: string; ip: string | null; ua: string | null };
    action: string;
    target: { type: string; id: string };
    before: unknown;
    after: unknown;
    reason: string | null;
    request_id: string;
    result: string;
    replica: string;
  }

  interface AuditVerified {
    ok: boolean;
    unanchored: string | null;
    chains: {
      chain: string;
      first: number;
      last: number;
      broken: { seq: number; file: string; line: number } | null;
    }[];
  }

  interface Pair {
    p50: number | null;
    p95: number | null;
  }

  interface Upstream extends Health {
    name: string;
    url: string;
    http: string;
    own_key: boolean;
    idle_connections: number;
    requests: number;
    errors: number;
    status_429: number;
    status_529: number;
    connects: number;
    connect_failures: number;
    connect_ms: Pair;
    head_ms: Pair;
    rate_limit: { name: string; value: string; at: number }[];
  }

  interface Setting {
    name: string;
    section: string;
    section_zh: string;
    doc: string;
    doc_zh: string;
    value: string | null;
    default: string;
    next: string | null;
    origin: string;
    applies: "live" | "restart";
    secret: boolean;
  }

  interface Configuration {
    settings: Setting[];
    last_reload: { at: number; ok: boolean; faults: string[] } | null;
    pending_restart: string[];
    file: SettingsFile;
    proxy_urls: string[];
    data_dir: string | null;
  }

  interface SettingsFile {
    path: string;
    version: string | null;
    read_only: string | null;
    names: string[];
  }

  interface DiffLine {
    kind: "same" | "removed" | "added";
    text: string;
  }

  interface HistoryEntry {
    id: number;
    at: string;
    actor: string;
    changed: string[];
    reason: string | null;
  }

  interface RevisionResult {
    applied: "unchanged" | "shown" | "written" | "in_effect";
    id: number | null;
    version: string;
    changed: { name: string; before: string | null; after: string | null }[];
    diff: DiffLine[];
    warnings: string[];
    pending_restart: string[];
  }

  /** Part of an OpenAPI document that the API page reads. */
  interface Schema {
    $ref?: string;
    type?: string | string[];
    format?: string;
    description?: string;
    enum?: unknown[];
    items?: Schema;
    properties?: Record<string, Schema>;
    required?: string[];
    oneOf?: Schema[];
    anyOf?: Schema[];
    allOf?: Schema[];
  }

  interface Parameter {
    $ref?: string;
    name: string;
    in: string;
    required?: boolean;
    description?: string;
    schema?: Schema;
  }

  interface Content {
    $ref?: string;
    description?: string;
    content?: Record<string, { schema?: Schema }>;
  }

  type Method = "get" | "post" | "put" | "patch" | "delete";

  interface Operation {
    tags?: string[];
    summary?: string;
    description?: string;
    parameters?: Parameter[];
    requestBody?: Content;
    responses?: Record<string, Content>;
  }

  interface Document {
    info?: { title: string; description?: string };
    paths?: Record<string, { parameters?: Parameter[] } & Partial<Record<Method, Operation>>>;
    components?: { schemas?: Record<string, Schema> };
  }
}
