# shellcheck shell=sh
# E-mail, where SMTP_HOST is set; the password stays in the secret's file. Part of start.sh.

[ -z "${SMTP_PASSWORD:-}" ] || printf '%s' "$SMTP_PASSWORD" > "$SECRETS/smtp_password"
unset SMTP_PASSWORD

[ -n "${SMTP_HOST:-}" ] || return 0

quoted() {
    printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"
}

case ${SMTP_SECURITY:-starttls} in
    starttls) port=587 require_tls=true ;;
    # Alertmanager uses implicit TLS on this port only.
    tls) port=465 require_tls=false ;;
    none) port=25 require_tls=false ;;
    *)
        echo "SMTP_SECURITY is '$SMTP_SECURITY', not one of starttls, tls, none" >&2
        exit 1
        ;;
esac
if [ "${SMTP_SECURITY:-}" = tls ] && [ "${SMTP_PORT:-465}" != 465 ]; then
    echo "SMTP_SECURITY=tls works on port 465 only, and SMTP_PORT is $SMTP_PORT" >&2
    exit 1
fi
for name in SMTP_FROM SMTP_TO; do
    eval "value=\${$name:-}"
    if [ -z "$value" ]; then
        echo "SMTP_HOST is set, but $name is not" >&2
        exit 1
    fi
done
# Alertmanager would start but lose every mail.
if printf '%s' "$SMTP_TO" | grep -Eq '@[^,; >]+>?[; ]+[^,]*@'; then
    echo "SMTP_TO is '$SMTP_TO', and addresses have commas in between" >&2
    exit 1
fi

cat << END
    email_configs:
      - smarthost: $(quoted "$SMTP_HOST:${SMTP_PORT:-$port}")
        require_tls: $require_tls
        from: $(quoted "$SMTP_FROM")
        to: $(quoted "$SMTP_TO")
        send_resolved: true
END
if [ -n "${SMTP_USER:-}" ]; then
    cat << END
        auth_username: $(quoted "$SMTP_USER")
        auth_password_file: $SECRETS/smtp_password
END
fi
