#!/bin/sh
# Fill the container's home, which is empty at each start, and run the command.
set -eu
umask 077
mkdir -p "$DAGSTER_HOME"
cat /etc/mm/dagster.yaml > "$DAGSTER_HOME/dagster.yaml"
# A password reaches libpq by a file that nobody else may read, the only kind it accepts; never by the environment, which
# all children inherit.
if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then
    IFS= read -r password < "$POSTGRES_PASSWORD_FILE"
    printf '%s:%s:%s:%s:%s\n' "$POSTGRES_HOST" "$POSTGRES_PORT" "$POSTGRES_DB" "$POSTGRES_USER" "$password" > "$HOME/.pgpass"
    unset password POSTGRES_PASSWORD_FILE
    export PGPASSFILE="$HOME/.pgpass"
fi
exec "$@"
