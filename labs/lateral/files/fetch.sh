#!/bin/sh
# Brings the ledger from the vault. ssh asks this program for the password.
set -eu
export SSH_ASKPASS=/opt/ledger/askpass SSH_ASKPASS_REQUIRE=force
setsid --wait ssh -o StrictHostKeyChecking=accept-new clerk@10.62.2.20 cat ledger.csv >/var/backups/ledger.csv
