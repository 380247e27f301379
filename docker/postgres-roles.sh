#!/bin/bash
# Create the roles of the services in a new cluster, each with a password of its own: `mm_schema` owns the database and its
# tables, the others read and write rows. Executed once by the image of Postgres, as its superuser.
set -euo pipefail
secrets=${MM_POSTGRES_SECRETS:-/run/mm}

password() {
    IFS= read -r word < "$secrets/postgres_$1"
    printf '%s' "$word"
}

# The passwords go by standard input: the arguments of a program can be read by others.
psql --no-psqlrc --quiet --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres <<SQL
\set schema_password $(password schema)
\set code_password $(password code)
\set daemon_password $(password daemon)
\set webserver_password $(password webserver)
CREATE ROLE mm_schema LOGIN PASSWORD :'schema_password';
CREATE ROLE mm_rows NOLOGIN;
CREATE ROLE mm_code LOGIN PASSWORD :'code_password' IN ROLE mm_rows;
CREATE ROLE mm_daemon LOGIN PASSWORD :'daemon_password' IN ROLE mm_rows;
CREATE ROLE mm_webserver LOGIN PASSWORD :'webserver_password' IN ROLE mm_rows CONNECTION LIMIT 50;
CREATE DATABASE dagster OWNER mm_schema;
REVOKE ALL ON DATABASE dagster FROM PUBLIC;
REVOKE ALL ON DATABASE postgres FROM PUBLIC;
REVOKE ALL ON DATABASE template1 FROM PUBLIC;
GRANT CONNECT ON DATABASE dagster TO mm_rows;
\connect dagster
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO mm_rows;
ALTER DEFAULT PRIVILEGES FOR ROLE mm_schema IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO mm_rows;
ALTER DEFAULT PRIVILEGES FOR ROLE mm_schema IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO mm_rows;
SQL
