"""Sets [service_available] of a tempest.conf to what the cloud's catalogue has: services.py CONF NAME..."""

import configparser
import sys

KNOWN = "nova glance neutron cinder swift heat mistral zaqar trove aodh sahara gnocchi ceilometer ironic barbican designate manila".split()

path, names = sys.argv[1], set(sys.argv[2:])
conf = configparser.RawConfigParser()
conf.read(path)
for service in KNOWN:
    conf.set("service_available", service, "true" if service in names else "false")
with open(path, "w", encoding="utf-8") as out:
    conf.write(out)
