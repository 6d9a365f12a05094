"""The commands of the identity service."""
import json
import os


def walk(w):
    domains(w)
    projects(w)
    users(w)
    roles(w)
    catalog(w)
    limits(w)
    credentials(w)
    application_credentials(w)
    trusts(w)
    policies(w)
    federation(w)
    oauth(w)
    w.do("token issue", has=dict(project_id=w.project, user_id=w.user))
    token = w.quiet("token issue")["id"]
    as_token = dict(OS_AUTH_TYPE="v3token", OS_TOKEN=token, OS_USERNAME="", OS_PASSWORD="", OS_USER_DOMAIN_NAME="")
    w.do(f"token revoke {token}", gone="token issue", by_env=as_token)


def file_of(w, name, value):
    path = os.path.join(w.work, name)
    with open(path, "w") as out:
        out.write(value if isinstance(value, str) else json.dumps(value))
    return path


def domains(w):
    w.do("domain create --description d d0", by="domain show d0", has=dict(description="d", enabled=True))
    w.do("domain set --name d1 --disable d0", by="domain show d1", has=dict(enabled=False))
    w.do("domain list", row=dict(name="d1", enabled=False))
    w.do("domain show d1", has=dict(name="d1"))
    w.do("domain delete d1", gone="domain show d1")


def projects(w):
    w.do("project create --description d --tag t pr0", by="project show pr0", has=dict(description="d", tags={"t"}))
    w.do("project set --name pr1 --description e --tag u pr0", by="project show pr1", has=dict(description="e", tags={"t", "u"}))
    w.do("project list", row=dict(name="pr1"))
    w.do("project show pr1", has=dict(name="pr1", enabled=True))
    w.quiet("project create pr2")
    w.do("project delete pr2", gone="project show pr2")


def users(w):
    w.do("user create --project pr1 --password first-one --email a@example.org u0", by="user show u0", has=dict(email="a@example.org", enabled=True))
    w.do("user set --name u1 --email b@example.org u0", by="user show u1", has=dict(email="b@example.org"))
    w.do("user list", row=dict(name="u1"))
    w.do("user show u1", has=dict(name="u1"))
    w.quiet("role add --user u1 --project pr1 member")
    login = dict(OS_USERNAME="u1", OS_PASSWORD="first-one", OS_PROJECT_NAME="pr1")
    w.do("user password set --original-password first-one --password second-one", env=login, by="token issue",
         by_env={**login, "OS_PASSWORD": "second-one"}, has=dict(id=lambda v: bool(v)))
    w.do("group create --description d g0", by="group show g0", has=dict(description="d"))
    w.do("group set --name g1 g0", by="group show g1", has=dict(name="g1"))
    w.do("group list", row=dict(name="g1"))
    w.do("group show g1", has=dict(name="g1"))
    w.do("group add user g1 u1", by="user list --group g1", row=dict(name="u1"))
    w.do("group contains user g1 u1", text="u1 in group g1")
    w.do("group remove user g1 u1", by="user list --group g1", norow=dict(name="u1"))
    w.do("group delete g1", gone="group show g1")
    w.quiet("user create u2")
    w.do("user delete u2", gone="user show u2")


def roles(w):
    w.do("role create --description d r0", by="role show r0", has=dict(description="d"))
    w.do("role set --name r1 r0", by="role show r1", has=dict(name="r1"))
    w.do("role list", row=dict(name="r1"))
    w.do("role show r1", has=dict(name="r1"))
    user, role, project = (w.quiet(line)["id"] for line in ("user show u1", "role show r1", "project show pr1"))
    w.do("role add --user u1 --project pr1 r1", by="role assignment list --user u1", row=dict(role=role, project=project))
    w.do("role assignment list --project pr1", row=dict(user=user, role=role))
    w.do("role remove --user u1 --project pr1 r1", by="role assignment list --user u1", norow=dict(role=role))
    w.quiet("role create r2")
    w.do("implied role create --implied-role r2 r1", by="implied role list", row=dict(prior_role_name="r1", implied_role_name="r2"))
    w.do("implied role list", row=dict(prior_role_name="r1"))
    w.do("implied role delete --implied-role r2 r1", by="implied role list", norow=dict(prior_role_name="r1"))
    w.quiet("role delete r2")
    w.do("role delete r1", gone="role show r1")


def catalog(w):
    w.do("service create --name sv0 --description d walked", by="service show sv0", has=dict(type="walked", description="d"))
    w.do("service set --name sv1 --disable sv0", by="service show sv1", has=dict(enabled=False))
    w.quiet("service set --enable sv1")
    w.do("service list", row=dict(name="sv1", type="walked"))
    w.do("service show sv1", has=dict(name="sv1"))
    w.do("region create --description d rg0", by="region show rg0", has=dict(description="d"))
    w.do("region set --description e rg0", by="region show rg0", has=dict(description="e"))
    w.do("region list", row=dict(region="rg0"))
    w.do("region show rg0", has=dict(region="rg0"))
    item = w.do("endpoint create sv1 public http://127.0.0.1:1/walked", by="endpoint list --service sv1", row=dict(url="http://127.0.0.1:1/walked"))["id"]
    w.do("catalog list", row=dict(name="sv1"))
    w.do("catalog show sv1", has=dict(type="walked", endpoints={"http://127.0.0.1:1/walked"}))
    w.do(f"endpoint set --url http://127.0.0.1:2/walked {item}", by=f"endpoint show {item}", has=dict(url="http://127.0.0.1:2/walked"))
    w.do("endpoint list", row=dict(id=item))
    w.do(f"endpoint show {item}", has=dict(service_type="walked"))
    w.do(f"endpoint add project {item} pr1", by="endpoint list --project pr1", row=dict(id=item))
    w.do(f"endpoint remove project {item} pr1", by="endpoint list --project pr1", norow=dict(id=item))
    filters = file_of(w, "filters", {"interface": "public", "service_id": w.quiet("service show sv1")["id"]})
    w.do(f"endpoint group create --description d eg0 {filters}", by="endpoint group show eg0", has=dict(description="d", filters={"public"}))
    w.do("endpoint group set --name eg1 eg0", by="endpoint group show eg1", has=dict(name="eg1"))
    w.do("endpoint group list", row=dict(name="eg1"))
    w.do("endpoint group show eg1", has=dict(name="eg1"))
    w.do("endpoint group add project eg1 pr1", by="endpoint group list --project pr1", row=dict(name="eg1"))
    w.do("endpoint group remove project eg1 pr1", by="endpoint group list --project pr1", norow=dict(name="eg1"))
    w.do("endpoint group delete eg1", gone="endpoint group show eg1")
    w.do(f"endpoint delete {item}", gone=f"endpoint show {item}")
    w.do("region delete rg0", gone="region show rg0")


def limits(w):
    item = w.do("registered limit create --service sv1 --default-limit 5 things", by="registered limit list", row=dict(resource_name="things",
                default_limit=5))["id"]
    w.do("registered limit list", row=dict(id=item))
    w.do(f"registered limit set --default-limit 7 {item}", by=f"registered limit show {item}", has=dict(default_limit=7))
    w.do(f"registered limit show {item}", has=dict(resource_name="things"))
    limit = w.do("limit create --project pr1 --service sv1 --resource-limit 3 things", by="limit list", row=dict(resource_name="things",
                 resource_limit=3))["id"]
    w.do("limit list", row=dict(id=limit))
    w.do(f"limit set --resource-limit 4 {limit}", by=f"limit show {limit}", has=dict(resource_limit=4))
    w.do(f"limit show {limit}", has=dict(resource_name="things"))
    w.do(f"limit delete {limit}", gone=f"limit show {limit}")
    w.do(f"registered limit delete {item}", gone=f"registered limit show {item}")
    w.do("service delete sv1", gone="service show sv1")


def credentials(w):
    item = w.do("credential create --type cert u1 some-data", by="credential list --type cert", row=dict(data="some-data"))["id"]
    w.do("credential list", row=dict(id=item))
    w.do(f"credential set --user u1 --type cert --data other-data {item}", by=f"credential show {item}", has=dict(blob="other-data"))
    w.do(f"credential show {item}", has=dict(id=item, type="cert"))
    w.do(f"credential delete {item}", gone=f"credential show {item}")
    access = w.do("ec2 credentials create", by="ec2 credentials list", row=dict(project_id=w.project))["access"]
    w.do("ec2 credentials list", row=dict(access=access))
    w.do(f"ec2 credentials show {access}", has=dict(access=access, project_id=w.project))
    w.do(f"ec2 credentials delete {access}", gone=f"ec2 credentials show {access}")


def application_credentials(w):
    rules = json.dumps([{"path": "/v2.1/servers", "method": "GET", "service": "compute"}])
    made = w.do(["application", "credential", "create", "--secret", "hush", "--role", "member", "--access-rules", rules, "ac0"],
                by="application credential list", row=dict(name="ac0"))
    login = dict(OS_AUTH_TYPE="v3applicationcredential", OS_APPLICATION_CREDENTIAL_ID=made["id"], OS_APPLICATION_CREDENTIAL_SECRET="hush",
                 OS_USERNAME="", OS_PASSWORD="", OS_PROJECT_NAME="", OS_USER_DOMAIN_NAME="", OS_PROJECT_DOMAIN_NAME="")
    w.do("application credential list", row=dict(name="ac0"))
    w.do("application credential show ac0", has=dict(name="ac0", project_id=w.project))
    rule = w.do("access rule list", row=dict(path="/v2.1/servers")).find(path="/v2.1/servers")["id"]
    w.do(f"access rule show {rule}", has=dict(method="GET", service="compute"))
    w.do("application credential delete ac0", gone="application credential show ac0")
    w.do(f"access rule delete {rule}", by="access rule list", norow=dict(id=rule))
    assert login


def trusts(w):
    item = w.do(f"trust create --project {w.project} --role member {w.user} u1", by="trust list", row=dict(trustor_user_id=w.user))["id"]
    w.do("trust list", row=dict(id=item))
    w.do(f"trust show {item}", has=dict(project_id=w.project, trustor_user_id=w.user))
    w.do(f"trust delete {item}", gone=f"trust show {item}")


def policies(w):
    path = file_of(w, "policy", "first")
    item = w.do(f"policy create {path}", by="policy list --long", row=dict(rules="first"))["id"]
    w.do("policy list", row=dict(id=item))
    other = file_of(w, "policy2", "second")
    w.do(f"policy set --rules {other} {item}", by=f"policy show {item}", has=dict(rules="second"))
    w.do(f"policy show {item}", has=dict(id=item))
    w.do(f"policy delete {item}", gone=f"policy show {item}")


def federation(w):
    w.do("federation project list", row=dict(id=w.project))
    w.quiet(f"role add --user {w.user} --domain default member")
    w.do("federation domain list", row=dict(id="default"))
    w.do("identity provider create --remote-id urn:one --description d ip0", by="identity provider show ip0", has=dict(description="d",
         remote_ids={"urn:one"}))
    w.do("identity provider set --description e ip0", by="identity provider show ip0", has=dict(description="e"))
    w.do("identity provider list", row=dict(id="ip0"))
    w.do("identity provider show ip0", has=dict(id="ip0"))
    rules = file_of(w, "mapping", [{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "REMOTE_USER"}]}])
    w.do(f"mapping create --rules {rules} m0", by="mapping show m0", has=dict(rules={"REMOTE_USER"}))
    other = file_of(w, "mapping2", [{"local": [{"user": {"name": "{0}"}}], "remote": [{"type": "OTHER_USER"}]}])
    w.do(f"mapping set --rules {other} m0", by="mapping show m0", has=dict(rules={"OTHER_USER"}))
    w.do("mapping list", row=dict(id="m0"))
    w.do("mapping show m0", has=dict(id="m0"))
    w.do("federation protocol create --identity-provider ip0 --mapping m0 saml2", by="federation protocol show --identity-provider ip0 saml2",
         has=dict(mapping="m0"))
    w.quiet(f"mapping create --rules {rules} m1")
    w.do("federation protocol set --identity-provider ip0 --mapping m1 saml2", by="federation protocol show --identity-provider ip0 saml2",
         has=dict(mapping="m1"))
    w.do("federation protocol list --identity-provider ip0", row=dict(id="saml2", mapping="m1"))
    w.do("federation protocol show --identity-provider ip0 saml2", has=dict(id="saml2"))
    w.do("federation protocol delete --identity-provider ip0 saml2", gone="federation protocol show --identity-provider ip0 saml2")
    w.quiet("mapping delete m1")
    w.do("mapping delete m0", gone="mapping show m0")
    w.do("identity provider delete ip0", gone="identity provider show ip0")
    w.do("service provider create --auth-url https://a.example/v3 --service-provider-url https://s.example/sp --description d sp0",
         by="service provider show sp0", has=dict(description="d", sp_url="https://s.example/sp"))
    w.do("service provider set --description e sp0", by="service provider show sp0", has=dict(description="e"))
    w.do("service provider list", row=dict(id="sp0"))
    w.do("service provider show sp0", has=dict(id="sp0"))
    w.do("service provider delete sp0", gone="service provider show sp0")


def oauth(w):
    made = w.do("consumer create --description d", by="consumer list", row=dict(description="d"))
    item = made["id"]
    w.do("consumer list", row=dict(id=item))
    w.do(f"consumer set --description e {item}", by=f"consumer show {item}", has=dict(description="e"))
    w.do(f"consumer show {item}", has=dict(id=item))
    request = w.do(f"request token create --consumer-key {item} --consumer-secret {made['secret']} --project {w.project}",
                   has=dict(key=lambda v: bool(v), secret=lambda v: bool(v)))
    verifier = w.do(f"request token authorize --request-key {request['key']} --role member", has=dict(oauth_verifier=lambda v: bool(v)))
    w.do(f"access token create --consumer-key {item} --consumer-secret {made['secret']} --request-key {request['key']} "
         f"--request-secret {request['secret']} --verifier {verifier['oauth_verifier']}", has=dict(key=lambda v: bool(v), secret=lambda v: bool(v)))
    w.do(f"consumer delete {item}", gone=f"consumer show {item}")
