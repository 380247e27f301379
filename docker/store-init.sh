#!/bin/sh
# Create the bucket, and the keys that reach this bucket alone: one that reads and writes, and one that only reads; at each
# start, so that a changed key or policy counts. Run by the image of MinIO's client, with the key of root, which only the
# store itself has beside. Built-ins only: the image has hardly any programs.
set -eu
IFS= read -r root < /run/mm/store_root
export MC_HOST_store="http://root:$root@store:9000"

# grant FILE POLICY: create the key of a file, with a policy
grant() {
    while IFS=' =' read -r name value; do
        case "$name" in
            aws_access_key_id) key=$value ;;
            aws_secret_access_key) secret=$value ;;
        esac
    done < "$1"
    mc admin user add store "$key" "$secret"
    if ! attached=$(mc admin policy attach store "$2" --user "$key" 2>&1); then
        case "$attached" in
            *"already in effect"*) ;;
            *) printf '%s\n' "$attached" >&2; exit 1 ;;
        esac
    fi
}

mc mb --ignore-existing store/features
mc admin policy create store features /etc/mm/store-policy.json
grant /run/mm/store_key features
mc admin policy create store features-reader /etc/mm/store-reader-policy.json
grant /run/mm/store_reader features-reader
