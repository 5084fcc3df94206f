# shellcheck shell=sh
# Slack, where SLACK_WEBHOOK_URL is set; its value stays in the secret's file. Part of start.sh.

[ -z "${SLACK_WEBHOOK_URL:-}" ] || printf '%s' "$SLACK_WEBHOOK_URL" > "$SECRETS/slack_webhook_url"
unset SLACK_WEBHOOK_URL

[ -s "$SECRETS/slack_webhook_url" ] || return 0
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
