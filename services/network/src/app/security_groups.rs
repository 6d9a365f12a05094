//! Security groups and their rules.

use super::{App, access};
use maru_auth::Target;
use maru_base::{ProjectId, Result};
use maru_http::Request;
use maru_network_model::{
    Meta, Port, RuleRequest, SecurityGroup, SecurityGroupId, SecurityGroupRule, SecurityGroupRuleId,
    default_statefulness::default_statefulness, errors, plan_create_group, plan_create_rule, plan_delete_group,
    plan_delete_rule,
};

/// A wished group.
#[derive(Debug, Clone)]
pub(crate) struct GroupRequest {
    pub(crate) project: ProjectId,
    pub(crate) name: String,
    pub(crate) description: String,
    /// As the cloud's or the project's setting says, if `None`.
    pub(crate) stateful: Option<bool>,
}

impl App {
    pub(crate) async fn create_groups(
        &self,
        request: &Request,
        requests: Vec<GroupRequest>,
    ) -> Result<Vec<(SecurityGroupId, SecurityGroup)>> {
        self.plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(requests.len());
            for r in &requests {
                request.authorize(&Target::project(&r.project))?;
                let meta = Meta::new(r.description.clone());
                let stateful = r.stateful.unwrap_or_else(|| default_statefulness(snapshot, &r.project));
                made.push(plan_create_group(snapshot, txn, &r.project, &r.name, stateful, meta)?);
            }
            Ok(made)
        })
        .await
    }

    pub(crate) async fn update_group(
        &self,
        request: &Request,
        id: &str,
        name: Option<String>,
        description: Option<String>,
        stateful: Option<bool>,
    ) -> Result<(SecurityGroupId, SecurityGroup)> {
        self.plan(|snapshot, txn| {
            let read = access::group(request, snapshot, id)?;
            request.authorize(&Target::project(&read.value.project_id))?;
            access::check_revision(request, &read.value.meta)?;
            let mut group = (*read.value).clone();
            if let Some(name) = &name {
                if group.is_default && *name != group.name {
                    return Err(errors::conflict(
                        "SecurityGroupCannotUpdateDefault",
                        "Updating the name of the default security group is not allowed.",
                    ));
                }
                if !group.is_default && name.eq_ignore_ascii_case("default") {
                    return Err(errors::conflict(
                        "SecurityGroupDefaultAlreadyExists",
                        "Every project has one security group named 'default'; choose another name.",
                    ));
                }
                group.name.clone_from(name);
            }
            if let Some(description) = &description {
                group.meta.description.clone_from(description);
            }
            if let Some(stateful) = stateful
                && stateful != group.stateful
            {
                if let Some(port) = snapshot.find::<Port>("security_group", &read.id).next() {
                    return Err(errors::conflict(
                        "SecurityGroupInUse",
                        format!(
                            "Security Group {} in use by port {}: its statefulness cannot change now.",
                            read.id, port.id
                        ),
                    ));
                }
                group.stateful = stateful;
            }
            group.meta.touch();
            txn.update(&read, &group);
            Ok((read.id, group))
        })
        .await
    }

    pub(crate) async fn delete_group(&self, request: &Request, id: &str) -> Result<()> {
        let privileged = request.caller()?.is_admin();
        self.plan(|snapshot, txn| {
            let read = access::group(request, snapshot, id)?;
            request.authorize(&Target::project(&read.value.project_id))?;
            access::check_revision(request, &read.value.meta)?;
            plan_delete_group(snapshot, txn, &read, privileged)
        })
        .await
    }

    pub(crate) async fn create_rules(
        &self,
        request: &Request,
        requests: Vec<RuleRequest>,
    ) -> Result<Vec<(SecurityGroupRuleId, SecurityGroupRule)>> {
        self.plan(|snapshot, txn| {
            let mut made = Vec::with_capacity(requests.len());
            for r in &requests {
                let group = access::group(request, snapshot, &r.security_group_id)?;
                request.authorize(&Target::project(&group.value.project_id))?;
                if let Some(remote) = &r.remote_group_id {
                    access::group(request, snapshot, remote)?;
                }
                if let Some(remote) = &r.remote_address_group_id {
                    access::address_group(request, snapshot, remote)?;
                }
                // A rule belongs to whom its group belongs to, so that its quota and its deletion do.
                let r = RuleRequest {
                    project_id: group.value.project_id.clone(),
                    ..r.clone()
                };
                made.push(plan_create_rule(snapshot, txn, r)?);
            }
            Ok(made)
        })
        .await
    }

    pub(crate) async fn delete_rule(&self, request: &Request, id: &str) -> Result<()> {
        self.plan(|snapshot, txn| {
            let read = access::rule(request, snapshot, id)?;
            request.authorize(&Target::project(&read.value.project_id))?;
            plan_delete_rule(txn, &read);
            Ok(())
        })
        .await
    }
}
