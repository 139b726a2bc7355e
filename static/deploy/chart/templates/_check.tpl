{{/* Refuses combinations that would not do what they say. All faults are named at once. */}}
{{- define "anthropic-proxy.check" -}}
{{- $faults := list }}
{{- $reload := .Files.Get "files/settings.yaml" | fromYaml }}
{{- $owned := dict
      "HOST" "listenAddress" "PORT" "port" "DRAIN_DELAY" "drainDelay" "SHUTDOWN_TIMEOUT" "shutdownTimeout"
      "TLS_CERT_FILE" "tls.secretName" "TLS_KEY_FILE" "tls.secretName" "TLS_PORT" "tls.secretName"
      "ADMIN_LISTEN" "admin" "ENABLE_DASHBOARD" "admin" "DATA_DIR" "persistence" "HEADERS_FILE" "headers"
      "STATE_URL" "state.url, or valkey.enabled" "STATE_PASSWORD_FILE" "state.passwordSecret" "REPLICAS" "replicas" }}
{{- /* a webhook's URL is its credential */}}
{{- $secret := "_(KEYS?|PEPPER|PASSWORD|WEBHOOK)$" }}

{{- range $place := list "settings" "secrets" }}
{{- range $name, $value := get $.Values $place }}
{{- if hasKey $owned $name }}
{{- $faults = append $faults (printf "%s.%s is set by the chart: use the value %s" $place $name (get $owned $name)) }}
{{- else if not (hasKey $reload $name) }}
{{- $faults = append $faults (printf "%s.%s is no setting of the proxy: docs/configuration.md lists them all" $place $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- if and (hasKey $reload $name) (regexMatch $secret $name) }}
{{- $faults = append $faults (printf "settings.%s would be readable in a ConfigMap or a Deployment: move it to secrets.%s" $name $name) }}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.secrets }}
{{- if hasKey $.Values.settings $name }}
{{- $faults = append $faults (printf "%s is in settings and in secrets: leave one" $name) }}
{{- end }}
{{- end }}
{{- $settings := merge (dict) .Values.settings .Values.secrets }}

{{- if .Values.settingsSecret }}
{{- range $name, $value := .Values.settings }}
{{- if eq (get $reload $name | default "") "live" }}
{{- $faults = append $faults (printf "settings.%s would have no effect beside settingsSecret, which is the whole file: move it into that Secret" $name) }}
{{- end }}
{{- end }}
{{- else if not (or .Values.existingSecret (hasKey $settings "API_BASE_URL") (hasKey $settings "API_BASE_URLS")) }}
{{- $faults = append $faults "no upstream is named: set settings.API_BASE_URL (https://api.anthropic.com, for example); without it, requests and the keys in them would go to a relay that a third party runs" }}
{{- end }}
{{- if and .Values.headers .Values.headersSecret }}
{{- $faults = append $faults "headers and headersSecret are both set: leave one" }}
{{- end }}
{{- if hasKey $settings "UNIX_SOCKET" }}
{{- $faults = append $faults "settings.UNIX_SOCKET cannot be made: the root of the container is read-only, and no other pod could reach it" }}
{{- end }}
{{- if not (has (get $settings "ACCESS_LOG" | default "off" | toString) (list "off" "stdout")) }}
{{- $faults = append $faults "settings.ACCESS_LOG can be off or stdout: the root of the container is read-only" }}
{{- end }}

{{- $isShared := include "anthropic-proxy.isShared" . }}
{{- if $isShared }}
{{- if and .Values.valkey.enabled .Values.state.url }}
{{- $faults = append $faults "valkey.enabled and state.url are both set: leave one" }}
{{- end }}
{{- if and .Values.valkey.enabled (not (or .Values.valkey.password .Values.valkey.existingSecret)) }}
{{- $faults = append $faults "valkey.enabled needs valkey.password (openssl rand -hex 24 makes one) or valkey.existingSecret: one that is made anew with each rendering would lock the replicas out" }}
{{- end }}
{{- if and .Values.valkey.password .Values.valkey.existingSecret }}
{{- $faults = append $faults "valkey.password and valkey.existingSecret are both set: leave one" }}
{{- end }}
{{- if regexMatch "^[a-z-]+://[^/@]*:[^@]*@" .Values.state.url }}
{{- $faults = append $faults "state.url has a password, which would be readable in the Deployment: put it into a Secret and name that in state.passwordSecret" }}
{{- end }}
{{- if not (or (hasKey .Values.secrets "ACCESS_PEPPER") .Values.existingSecret .Values.settingsSecret) }}
{{- $faults = append $faults "replicas that share keys need one pepper: set secrets.ACCESS_PEPPER to 32 or more random characters (openssl rand -hex 32 makes them), and never change it" }}
{{- end }}
{{- if eq (get $settings "ACCESS" | default "" | toString) "off" }}
{{- $faults = append $faults "ACCESS is off, and keys and limits are all that replicas share: leave valkey.enabled and state.url out, or ACCESS" }}
{{- end }}
{{- if .Values.persistence.existingClaim }}
{{- $faults = append $faults "persistence.existingClaim is one volume, and each of the replicas needs its own: leave it out" }}
{{- end }}
{{- else }}
{{- if .Values.state.passwordSecret }}
{{- $faults = append $faults "state.passwordSecret is for state.url, which is empty" }}
{{- end }}
{{- if and .Values.persistence.enabled .Values.autoscaling.enabled }}
{{- $faults = append $faults "persistence.enabled and autoscaling.enabled exclude one another: keys, limits and budgets live in one SQLite file, which one replica holds; switch one of them off, or share them with valkey.enabled or state.url" }}
{{- else if and .Values.persistence.enabled (gt (int .Values.replicas) 1) }}
{{- $faults = append $faults (printf "persistence.enabled needs replicas: 1, and replicas is %d: keys, limits and budgets live in one SQLite file, which one replica holds; or share them with valkey.enabled or state.url" (int .Values.replicas)) }}
{{- end }}
{{- if and (has (get $settings "ACCESS" | default "off" | toString) (list "required" "optional")) (not .Values.persistence.enabled) }}
{{- $faults = append $faults "settings.ACCESS needs persistence.enabled and replicas: 1, or valkey.enabled or state.url: keys are kept in DATA_DIR or there" }}
{{- end }}
{{- end }}

{{- if and .Values.admin.enabled (eq (int .Values.admin.port) (int .Values.port)) }}
{{- $faults = append $faults "admin.port and port are the same" }}
{{- end }}
{{- if and .Values.admin.enabled (not (or (hasKey .Values.secrets "DASHBOARD_API_KEY") .Values.existingSecret .Values.settingsSecret)) }}
{{- $faults = append $faults "admin.enabled needs a key: set secrets.DASHBOARD_API_KEY (or existingSecret, settingsSecret); without it, each pod would write a generated one into its log" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled (not .Values.admin.enabled) }}
{{- $faults = append $faults "serviceMonitor.enabled needs admin.enabled, which serves /metrics" }}
{{- end }}
{{- if and .Values.serviceMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.admin) }}
{{- $faults = append $faults "networkPolicy.admin is empty, so Prometheus cannot reach /metrics: name its namespace there" }}
{{- end }}
{{- if .Values.autoscaling.enabled }}
{{- if not (or .Values.admin.enabled (has (include "anthropic-proxy.text" (get $settings "METRICS_PUBLIC") | lower) (list "true" "1" "yes" "on"))) }}
{{- $faults = append $faults "autoscaling.enabled needs metrics: set admin.enabled (or settings.METRICS_PUBLIC, which shows them to every client)" }}
{{- end }}
{{- if gt (int .Values.autoscaling.minReplicas) (int .Values.autoscaling.maxReplicas) }}
{{- $faults = append $faults "autoscaling.minReplicas is above autoscaling.maxReplicas" }}
{{- end }}
{{- end }}

{{- if $faults }}
{{- printf "\n\n%d fault(s) in the values:\n- %s\n" (len $faults) (join "\n- " $faults) | fail }}
{{- end }}
{{- end }}
