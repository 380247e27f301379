#!/bin/sh
# Create the bucket, and the key that reaches this bucket alone; at each start, so that a changed key or policy counts. Run
# by the image of MinIO's client, with the key of root, which only the store itself has beside. Built-ins only: the image
# has hardly any programs.
set -eu
IFS= read -r root < /run/mm/store_root
while IFS=' =' read -r name value; do
    case "$name" in
        aws_access_key_id) key=$value ;;
        aws_secret_access_key) secret=$value ;;
    esac
done < /run/mm/store_key
export MC_HOST_store="http://root:$root@store:9000"

mc mb --ignore-existing store/features
mc admin policy create store features /etc/mm/store-policy.json
mc admin user add store "$key" "$secret"
if ! attached=$(mc admin policy attach store features --user "$key" 2>&1); then
    case "$attached" in
        *"already in effect"*) ;;
        *) printf '%s\n' "$attached" >&2; exit 1 ;;
    esac
fi
