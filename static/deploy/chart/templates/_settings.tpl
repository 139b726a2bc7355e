{{/* A value as text; whole numbers come as float64 from YAML. */}}
{{- define "anthropic-proxy.text" -}}
{{- if kindIs "float64" . }}{{ . | int64 }}{{ else }}{{ . | toString }}{{ end }}
{{- end }}

{{/* The lines of `.env`: settings that take effect while the proxy runs. In single quotes, only the quote and
the backslash have a meaning. */}}
{{- define "anthropic-proxy.envFile" -}}
{{- $reload := .Files.Get "files/settings.yaml" | fromYaml }}
{{- range $name, $value := .Values.settings }}
{{- if eq (get $reload $name) "live" }}
{{ $name }}='{{ include "anthropic-proxy.text" $value | replace "\\" "\\\\" | replace "'" "\\'" }}'
{{- end }}
{{- end }}
{{- end }}

{{/* Settings that need a restart, as environment of the container: a change of them rolls the pods. */}}
{{- define "anthropic-proxy.env" -}}
{{- $reload := .Files.Get "files/settings.yaml" | fromYaml }}
- name: HOST
  value: {{ .Values.listenAddress | quote }}
- name: PORT
  value: {{ int .Values.port | quote }}
- name: DRAIN_DELAY
  value: {{ int .Values.drainDelay | quote }}
- name: SHUTDOWN_TIMEOUT
  value: {{ int .Values.shutdownTimeout | quote }}
{{- if .Values.tls.secretName }}
- name: TLS_CERT_FILE
  value: /tls/tls.crt
- name: TLS_KEY_FILE
  value: /tls/tls.key
{{- end }}
{{- if .Values.admin.enabled }}
- name: ADMIN_LISTEN
  value: {{ include "anthropic-proxy.adminListen" . | quote }}
{{- end }}
{{- if or .Values.persistence.enabled (include "anthropic-proxy.isShared" .) }}
- name: DATA_DIR
  # a folder in the volume, so that it belongs to the user of the proxy
  value: /data/anthropic-proxy
{{- end }}
{{- if include "anthropic-proxy.isShared" . }}
- name: STATE_URL
  value: {{ ternary (printf "redis://proxy@%s:6379" (include "anthropic-proxy.valkey" .)) (.Values.state.url | replace "$" "$$") .Values.valkey.enabled | quote }}
{{- if include "anthropic-proxy.stateSecret" . }}
- name: STATE_PASSWORD_FILE
  value: /state/password
{{- end }}
- name: REPLICAS
  value: {{ include "anthropic-proxy.mostReplicas" . | quote }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{- if eq (get $reload $name) "restart" }}
- name: {{ $name }}
  {{- /* Kubernetes would put values in place of $(NAME), and a $ in place of $$ */}}
  value: {{ include "anthropic-proxy.text" $value | replace "$" "$$" | quote }}
{{- end }}
{{- end }}
{{- end }}
