#!/usr/bin/env bash
# Compares the published images that .env pins with images.tsv: pulls each one, and asks it. Needs Docker and a network.
set -euo pipefail
cd "$(dirname "$0")/../.."
set -a
# shellcheck source=/dev/null
source .env
set +a

wrong=0
complain() {
  echo "$image: $*" >&2
  wrong=1
}

while IFS= read -r line; do
  case $line in '#'*) continue ;; esac
  # A tab would be taken for white space, of which several are one.
  IFS=$'\x1f' read -r variable entry user folder programs <<<"${line//$'\t'/$'\x1f'}"
  image=${!variable}
  docker pull --quiet "$image" >/dev/null || { complain "cannot be pulled"; continue; }
  found=$(docker image inspect --format '{{join .Config.Entrypoint " "}}|{{.Config.User}}|{{.Config.WorkingDir}}' "$image")
  IFS='|' read -r found_entry found_user found_folder <<<"$found"
  if [ -n "$entry" ] && [ "$found_entry" != "$entry" ]; then complain "the entry point is '$found_entry', not '$entry'"; fi
  if [ -n "$user" ] && [ "${found_user%%:*}" != "$user" ]; then complain "the user is '$found_user', not '$user'"; fi
  if [ -n "$folder" ] && [ "$found_folder" != "$folder" ]; then complain "the working directory is '$found_folder', not '$folder'"; fi
  for program in $programs; do
    docker run --rm --network none --entrypoint sh "$image" -c "command -v $program" >/dev/null 2>&1 ||
      complain "there is no $program in it"
  done
  echo "$image: looked at"
done <tools/stack/images.tsv

plugin=${VICTORIA_LOGS_PLUGIN%@*} version=${VICTORIA_LOGS_PLUGIN#*@}
if ! docker run --rm --entrypoint grafana "$GRAFANA_IMAGE" cli --pluginsDir /tmp/plugins plugins install "$plugin" "$version" >/dev/null; then
  image=$GRAFANA_IMAGE complain "cannot install the plug-in $plugin $version"
fi
exit "$wrong"
