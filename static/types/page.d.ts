// Types that several modules of the dashboard share.

declare namespace Page {
  type Child = import("../assets/vendor/htm-preact-standalone.module.d.ts").Child;
  type VNode = import("../assets/vendor/htm-preact-standalone.module.d.ts").VNode;
  type FieldEvent = import("../assets/vendor/htm-preact-standalone.module.d.ts").FieldEvent;

  /** A text with the key of its name, and whether it can be copied. */
  type Fact = [key: string, value: string | null | undefined, copies?: boolean];

  /** A value with followers. */
  interface Cell<T> {
    get(): T;
    set(next: T): void;
    follow(follower: (value: T) => void): () => void;
  }

  type Lang = "en" | "zh";

  /** Values of a query; null, undefined and "" are left out. */
  type Query = Record<string, string | number | null | undefined>;

  /** A page's component; `query` is the part of the address after `?`. */
  type View = (props: { query: URLSearchParams }) => Child;

  /** A failed request to the admin API: the API's code, or `unreachable`. */
  interface Fault {
    code: string;
    message: string;
    status?: number;
    retryAfter?: number | null;
    diff?: Api.DiffLine[];
    lines?: string[];
  }

  /** Data of the paths of the admin API. */
  interface Paths {
    "/audit": { items: Api.AuditLine[] };
    "/audit/verify": Api.AuditVerified;
    "/config": Api.Configuration;
    "/config/history": { items: Api.HistoryEntry[] };
    "/doctor": Api.LastDoctorRun & Api.DoctorReport;
    "/errors": Api.Errors;
    "/keys": Api.KeyList;
    "/limits": Api.UsedLimits;
    "/openapi.json": Api.Document;
    "/overview": Api.Overview;
    "/replicas": Api.Replicas;
    "/requests": Api.Page;
    "/session": Api.SessionStatus;
    "/sessions": Api.SessionPage;
    "/spend": { items: Api.SpendBar[] };
    "/upstreams": { items: Api.Upstream[] };
    "/usage": Api.Usage;
    "/usage/series": Api.UsageSeries;
  }

  type Data<P extends string> = P extends keyof Paths
    ? Paths[P]
    : P extends `/requests/${string}/end`
      ? null
      : P extends `/requests/${string}`
        ? Api.Detail
        : P extends `/sessions/${string}`
          ? Api.SessionDetail
          : P extends `/keys/${string}`
            ? Api.CreatedKey
            : P extends `/config/${string}`
              ? Api.RevisionResult
              : unknown;

  interface Answer<T> {
    data: T | null;
    fault: Fault | null;
    isStale: boolean;
    reload(): Promise<void>;
  }

  /** State of the event stream. */
  interface Link {
    state: "connecting" | "live" | "hidden" | "lost";
    retryAt: number | null;
  }

  type Colour = "accent" | "busy" | "edge" | "bad" | "warn";

  /** A line of a chart. */
  interface Line {
    label: string;
    values: (number | null)[];
    colour: Colour;
    kind: "line" | "bars" | "area";
    format?: (value: number | null | undefined) => string;
    /** A scale of its own, at the right. */
    own?: boolean;
  }

  type Tone = "good" | "warn" | "bad" | "busy" | "plain" | "accent";

  type FilterName = "status" | "method" | "path" | "model" | "session" | "upstream" | "user_agent" | "q";

  /** Filters of the list of requests; "" for none. */
  type Filters = Record<FilterName, string> & { since?: number | ""; until?: number | "" };
}
