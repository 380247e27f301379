#!/bin/sh
# Write a secret for each identity of compose.yaml to docker/secrets, where there is none yet.
#   sh docker/secrets.sh [FOLDER]
# The folder can be entered by its owner alone; the files can be read by anybody who is given one, since containers run as
# other users.
set -eu
umask 077
folder=${1:-$(dirname "$0")/secrets}
mkdir -p "$folder"

random() {
    od -An -v -N32 -tx1 /dev/urandom | tr -d ' \n'
}

write() {
    [ -s "$folder/$1" ] && return
    printf "$2\n" "$(random)" > "$folder/$1.new"
    chmod 0444 "$folder/$1.new"
    mv "$folder/$1.new" "$folder/$1"
}

for name in postgres_admin postgres_schema postgres_code postgres_daemon postgres_webserver store_root ray_token serve_token \
    grafana_admin; do
    write "$name" '%s'
done
# As the clients of S3 read them: of the service, which only reads, and of all that computes. For a bucket elsewhere, write
# its keys here, and its endpoint to docker/.env.
write store_reader '[default]\naws_access_key_id = mm-reader\naws_secret_access_key = %.40s'
write store_key '[default]\naws_access_key_id = mm-features\naws_secret_access_key = %.40s'
