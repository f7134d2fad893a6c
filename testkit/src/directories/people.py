"""Fills a new domain: people in every state that an account can be in, and groups in groups.

Arguments: Samba's configuration, its database, everybody's password. In one process: samba-tool costs 0.6 s a call.
"""

import sys

import ldb
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB

configuration, url, password = sys.argv[1:]
parameters = LoadParm()
parameters.load(configuration)
domain = SamDB(url=url, session_info=system_session(), lp=parameters)
base = str(domain.domain_dn())
SECOND, DAY = 10**7, 86400 * 10**7


def change(dn, controls=None, flag=ldb.FLAG_MOD_REPLACE, **attributes):
    message = ldb.Message(ldb.Dn(domain, dn))
    for name, value in attributes.items():
        message[name] = ldb.MessageElement(value, flag, name)
    domain.modify(message, controls=controls)


def person(name):
    return "CN=%s Test,CN=Users,%s" % (name, base)


def group(name, *members, account=None):
    dn = "CN=%s,CN=Users,%s" % (name, base)
    entry = {"dn": dn, "objectClass": "group", "sAMAccountName": account or name}
    domain.add({**entry, "member": list(members)} if members else entry)
    return dn


# No complexity; locked for 30 minutes after 3 wrong passwords; passwords last 42 days.
change(base, pwdProperties="0", minPwdLength="7", lockoutThreshold="3", lockoutDuration=str(-1800 * SECOND),
       lockOutObservationWindow=str(-1800 * SECOND), maxPwdAge=str(-42 * DAY))
domain.transaction_start()
for name in "alice bob disabled mustchange locked accountexpired passwordexpired searcher".split():
    domain.newuser(name, password, useusernameascn=None, givenname=name, surname="Test",
                   force_password_change_at_next_login_req=(name == "mustchange"))
domain.disable_account("(sAMAccountName=disabled)")
change(person("accountexpired"), accountExpires="129000000000000000")
# A principal name unlike the account's, at another domain.
change(person("alice"), userPrincipalName="alice.smith@brand.example")
developers = group("developers", person("bob"))
group("engineering", developers, person("alice"))
group("k8s\\, admins (EU)*", person("alice"), account="k8s-admins-eu")
ring = group("ring-a", person("alice"))
change(ring, flag=ldb.FLAG_MOD_ADD, member=group("ring-b", ring))
# Only so can the day of a password be set back.
change(person("passwordexpired"), controls=["local_oid:1.3.6.1.4.1.7165.4.3.12:0"], pwdLastSet="130000000000000000")
domain.transaction_commit()
