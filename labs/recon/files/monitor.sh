#!/bin/sh
# SNMP for everybody who knows the word that everybody knows.
set -eu
cat >/etc/snmp/snmpd.conf <<END
agentaddress udp:161
rocommunity public
sysdescr Acme room monitor, asset tag $(cat "$LABCTL_SECRETS/contact")
END
chmod 600 /etc/snmp/snmpd.conf
systemctl enable snmpd
systemctl restart snmpd
