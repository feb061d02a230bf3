{{/* What the operator does in a namespace that it serves. Of Secrets it reads those that a KafkaCluster names, and writes those of the cluster's own CAs and SCRAM credentials: it lists, watches and deletes none. Nothing of brokers' pods but to see and to delete them. */}}
{{- define "weir.rules" -}}
- apiGroups: [weir.dev]
  resources: [kafkaclusters, topics, consumergroups, partitiontables]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [weir.dev]
  resources: [kafkaclusters/status, topics/status, consumergroups/status]
  verbs: [get, update, patch]
# OwnerReferencesPermissionEnforcement: only who may update finalizers may block the owner's
# deletion.
- apiGroups: [weir.dev]
  resources: [kafkaclusters/finalizers, topics/finalizers, consumergroups/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, update, patch, delete]
# The workloads that a ConsumerGroup scales by lag. Other kinds need another rule, from
# .Values.rbac.scaleTargets.
- apiGroups: [apps]
  resources: [deployments/scale, statefulsets/scale]
  verbs: [get, update, patch]
{{- range .Values.rbac.scaleTargets }}
- apiGroups: [{{ .apiGroup | quote }}]
  resources: [{{ printf "%s/scale" .resource | quote }}]
  verbs: [get, update, patch]
{{- end }}
- apiGroups: [""]
  resources: [services, configmaps, serviceaccounts]
  verbs: [get, list, watch, create, update, patch, delete]
# By name only: those of a cluster's CAs and of its SCRAM credentials, and those that
# spec.listeners[].tls names.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, update, patch]
- apiGroups: [discovery.k8s.io]
  resources: [endpointslices]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [monitoring.coreos.com]
  resources: [podmonitors]
  verbs: [get, list, watch, create, update, patch, delete]
- apiGroups: [events.k8s.io, ""]
  resources: [events]
  # It also reads events: only they say why Kubernetes refuses a pod.
  verbs: [get, list, create, update, patch]
{{- end -}}
