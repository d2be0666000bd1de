-- Runs once, when the cluster is made. docs/operations.md tells what each role is for.
\set owner_password `cat /run/secrets/owner-password`
\set service_password `cat /run/secrets/service-password`

CREATE ROLE billing_app NOLOGIN;
CREATE ROLE billing_owner LOGIN CREATEROLE PASSWORD :'owner_password';
GRANT billing_app TO billing_owner;
CREATE ROLE billing_service LOGIN IN ROLE billing_app PASSWORD :'service_password';
CREATE DATABASE billing OWNER billing_owner;
