{{- define "anthropic-proxy.name" -}}
{{- .Values.nameOverride | default .Chart.Name | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* Short enough for what is added to it, within the 63 characters of a label of DNS. */}}
{{- define "anthropic-proxy.fullname" -}}
{{- $name := include "anthropic-proxy.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "anthropic-proxy.selector" -}}
app.kubernetes.io/name: {{ include "anthropic-proxy.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "anthropic-proxy.labels" -}}
{{ include "anthropic-proxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "anthropic-proxy.image" -}}
{{- if .Values.image.digest }}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}
{{- end }}

{{/* An address and a port; an IPv6 address stands in brackets. */}}
{{- define "anthropic-proxy.adminListen" -}}
{{- if contains ":" .Values.listenAddress }}
{{- printf "[%s]:%d" .Values.listenAddress (int .Values.admin.port) }}
{{- else }}
{{- printf "%s:%d" .Values.listenAddress (int .Values.admin.port) }}
{{- end }}
{{- end }}

{{/* More than one pod may run at a time. */}}
{{- define "anthropic-proxy.isReplicated" -}}
{{- if .Values.autoscaling.enabled }}
{{- if gt (int .Values.autoscaling.maxReplicas) 1 }}yes{{ end }}
{{- else if gt (int .Values.replicas) 1 }}yes{{ end }}
{{- end }}

{{/* Replicas share keys, limits and spend. */}}
{{- define "anthropic-proxy.isShared" -}}
{{- if or .Values.valkey.enabled .Values.state.url }}yes{{ end }}
{{- end }}

{{/* Each replica has a volume of its own. */}}
{{- define "anthropic-proxy.kind" -}}
{{- if and (include "anthropic-proxy.isShared" .) .Values.persistence.enabled }}StatefulSet{{ else }}Deployment{{ end }}
{{- end }}

{{/* Replicas at most. */}}
{{- define "anthropic-proxy.mostReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ int .Values.autoscaling.maxReplicas }}{{ else }}{{ int .Values.replicas }}{{ end }}
{{- end }}

{{/* Short enough for the hash that a StatefulSet adds, within the 63 characters of a label. */}}
{{- define "anthropic-proxy.valkey" -}}
{{- printf "%s-valkey" (include "anthropic-proxy.fullname" . | trunc 43 | trimSuffix "-") }}
{{- end }}

{{/* The Secret that has the password of the shared state. */}}
{{- define "anthropic-proxy.stateSecret" -}}
{{- if .Values.valkey.enabled }}
{{- .Values.valkey.existingSecret | default (include "anthropic-proxy.valkey" .) }}
{{- else if .Values.state.url }}
{{- .Values.state.passwordSecret }}
{{- end }}
{{- end }}

{{- define "anthropic-proxy.valkeySelector" -}}
app.kubernetes.io/name: {{ include "anthropic-proxy.name" . }}-valkey
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{/* The least rights of docs/access.md, for a prefix. */}}
{{- define "anthropic-proxy.rights" -}}
~{{ . }}:* &{{ . }}:* -@all +@hash +@sortedset +@string +@set +evalsha +script|load +exists +type +time +expire +pexpire +persist +del +unlink +scan +info +xadd +xread +publish +subscribe +unsubscribe +punsubscribe +role +cluster|slots +select +ping
{{- end }}
