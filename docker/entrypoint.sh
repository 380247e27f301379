#!/bin/sh
# Fill the container's home, which is empty at each start, and run the command. Without a command, as BASH_ENV of a container
# whose command is given as `bash -c` (kubernetes/dagster-values.yaml), it leaves the environment to that.
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
# The driver of a run needs a Ray node on its machine; this one takes no work.
if [ "${MM_JOIN_RAY:-}" = true ]; then
    ray start --address="$RAY_ADDRESS" --num-cpus=0 --disable-usage-stats
fi
exec "$@"
