#!/bin/sh
# Write the secrets of docker/secrets (made by ../secrets.sh where there are none) to the namespace `mm`, and the script that
# creates the roles in Postgres. Write the bucket's keys to docker/secrets/store_key and store_reader before.
#   sh docker/kubernetes/secrets.sh [FOLDER]
set -eu
umask 077
here=$(dirname "$0")
folder=${1:-$here/../secrets}
sh "$here/../secrets.sh" "$folder"

# kubectl reads the files itself: no secret is among the arguments, which others can read.
apply() {
    kubectl create "$@" --namespace mm --dry-run=client --output yaml | kubectl apply --filename -
}

for name in postgres_admin postgres_schema postgres_code postgres_daemon postgres_webserver store_key store_reader ray_token serve_token; do
    apply secret generic "$(echo "$name" | tr _ -)" --from-file="$name=$folder/$name"
done
# Dagster's chart wants one, and gives it to services that do not read it.
apply secret generic postgres-unused --from-literal=postgresql-password=unused
apply configmap postgres-roles --from-file="roles.sh=$here/../postgres-roles.sh"
