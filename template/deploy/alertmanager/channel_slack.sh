#!/bin/sh
# Slack, where SLACK_WEBHOOK_URL is set; its value stays in the secret's file.
set -eu

[ -s "$SECRETS/slack_webhook_url" ] || exit 0
echo "    slack_configs:"
echo "      - api_url_file: $SECRETS/slack_webhook_url"
cat << 'END'
        send_resolved: true
        color: '{{ if eq .Status "firing" }}danger{{ else }}good{{ end }}'
        title: '{{ if eq .Status "firing" }}{{ .CommonLabels.severity | toUpper }}{{ else }}Resolved{{ end }}: {{ .CommonLabels.alertname }}'
        text: |-
          {{ range .Alerts }}*{{ .Annotations.summary }}*
          {{ if eq .Status "firing" }}{{ range (.Annotations.Remove (stringSlice "summary")).SortedPairs }}{{ .Value }}
          {{ end }}{{ end }}{{ end }}
END
