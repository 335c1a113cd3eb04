#!/usr/bin/env bash
# Compares the published images that .env pins with images.tsv: pulls each one, and asks it. Needs Docker and a network;
# with --no-pull no network, but the images; it leaves out Grafana's plug-in, which has to be fetched. Exits with 1 where
# something differs, with 2 where nothing could be asked.
set -euo pipefail
cd "$(dirname "$0")/../.."
case ${1-} in
  '') pull=yes ;;
  --no-pull) pull=no ;;
  *) echo "usage: $0 [--no-pull]" >&2; exit 2 ;;
esac
if ! command -v docker >/dev/null; then
  echo "$0 needs Docker: https://docs.docker.com/get-started/get-docker/" >&2
  exit 2
fi
docker version >/dev/null || exit 2 # says itself why the engine does not answer
set -a
# shellcheck source=/dev/null
source .env
set +a

wrong=0
complain() {
  echo "$image: $*" >&2
  wrong=1
}
get() {
  if [ "$pull" = yes ]; then docker pull --quiet "$1" >/dev/null; else docker image inspect "$1" >/dev/null 2>&1; fi
}

while IFS= read -r line; do
  case $line in '#'*) continue ;; esac
  # A tab would be taken for white space, of which several are one.
  IFS=$'\x1f' read -r variable entry user folder programs <<<"${line//$'\t'/$'\x1f'}"
  image=${!variable}
  get "$image" || { complain "cannot be had"; continue; }
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
if [ "$pull" = yes ] && get "$GRAFANA_IMAGE" 2>/dev/null &&
  ! docker run --rm --entrypoint grafana "$GRAFANA_IMAGE" cli --pluginsDir /tmp/plugins plugins install "$plugin" "$version" >/dev/null; then
  image=$GRAFANA_IMAGE complain "cannot install the plug-in $plugin $version"
fi
exit "$wrong"
