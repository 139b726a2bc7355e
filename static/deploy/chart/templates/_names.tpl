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
