#!/bin/sh
# Prints a certificate for the webhook as a Secret, and the webhook that trusts it:
#   sh deploy/kubernetes/certificate.sh | kubectl apply -f -
set -eu
here=$(dirname "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
name=tightfit.tightfit.svc

openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj "/CN=tightfit webhook authority" \
    -keyout "$folder/ca.key" -out "$folder/ca.crt" 2>/dev/null
openssl req -newkey rsa:2048 -nodes -subj "/CN=$name" \
    -keyout "$folder/tls.key" -out "$folder/tls.csr" 2>/dev/null
printf 'subjectAltName=DNS:%s,DNS:%s.cluster.local\n' "$name" "$name" >"$folder/names"
openssl x509 -req -days 3650 -in "$folder/tls.csr" -CA "$folder/ca.crt" -CAkey "$folder/ca.key" \
    -CAcreateserial -extfile "$folder/names" -out "$folder/tls.crt" 2>/dev/null

encoded() { base64 <"$1" | tr -d '\n'; }
cat <<YAML
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata:
  name: tightfit-webhook
  namespace: tightfit
data:
  tls.crt: $(encoded "$folder/tls.crt")
  tls.key: $(encoded "$folder/tls.key")
---
YAML
sed "s|caBundle: .*|caBundle: $(encoded "$folder/ca.crt")|" "$here/webhook.yaml"
