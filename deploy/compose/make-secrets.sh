#!/bin/sh
# Makes the secrets that compose.yaml mounts, once: what is there already stays.
# The files can be read by all, because each container reads them as a user of its own; the directory cannot be entered.
set -eu
cd "$(dirname "$0")/.."
mkdir -p secrets
chmod 0700 secrets
cd secrets

for name in postgres owner service; do
  [ -s "$name-password" ] || head -c 24 /dev/urandom | od -An -vtx1 | tr -d ' \n' >"$name-password"
done
for name in owner service; do
  printf 'postgresql://billing_%s:%s@postgres:5432/billing\n' "$name" "$(cat "$name-password")" >"$name-database-url"
done
chmod 0644 ./*-password ./*-database-url

# A token issuer for trying things out. With one of your own, set JWKS_FILE to its public keys instead.
if [ -z "${JWKS_FILE:-}" ]; then
  env -i PATH="$PATH" BILLING_DATA_DIR="$PWD/issuer" billing token --tenant '*' --hours 1 >/dev/null
  echo "tokens: BILLING_DATA_DIR=$PWD/issuer billing token --tenant NAME"
fi
