//! Application credentials: a secret of a user's own for one project, with some of the user's roles there and, if it is
//! so made, for some requests only.

use crate::{Password, RoleId};
use maru_base::{ProjectId, UserId, typed_id};
use maru_store::{Index, Kind, Space};
use serde::{Deserialize, Serialize};

typed_id!(
    /// Id of an application credential.
    ApplicationCredentialId
);
typed_id!(
    /// Id of an access rule.
    AccessRuleId
);

/// An application credential.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplicationCredential {
    /// Unique among the user's.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// Whose.
    pub user_id: UserId,
    /// The scope of its tokens.
    pub project_id: ProjectId,
    /// The roles of its tokens, as far as the user still has them.
    pub roles: Vec<RoleId>,
    /// Its end in microseconds since 1970.
    pub expires_at: Option<i64>,
    /// Its tokens may make and delete application credentials, trusts and other credentials.
    pub unrestricted: bool,
    /// The only requests that its tokens are good for; `None` for all.
    pub access_rules: Option<Vec<AccessRuleId>>,
    /// The secret's hash.
    pub secret: Password,
}

impl Kind for ApplicationCredential {
    type Id = ApplicationCredentialId;
    const NAME: &'static str = "application-credential";
    const SECRETS: &'static [&'static str] = &["secret"];
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![
            Index {
                name: "user",
                values: |c| vec![c.user_id.to_string()],
            },
            Index {
                name: "project",
                values: |c| vec![c.project_id.to_string()],
            },
        ]
    }
}

/// A form of request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessRule {
    /// Whose.
    pub user_id: UserId,
    /// Type of the service: `compute`.
    pub service: String,
    /// Path below the service's prefix. `*` and `{name}` stand for one part, `**` for any number of parts.
    pub path: String,
    /// HTTP method, upper case.
    pub method: String,
}

impl Kind for AccessRule {
    type Id = AccessRuleId;
    const NAME: &'static str = "access-rule";
    const SPACE: Space = Space::Identity;
    fn indexes() -> Vec<Index<Self>> {
        vec![Index {
            name: "user",
            values: |r| vec![r.user_id.to_string()],
        }]
    }
}

impl AccessRule {
    /// Whether a request is of this form. The path is compared as it was sent: whatever is written otherwise (case,
    /// escapes, a slash at its end) is another path.
    #[must_use]
    pub fn admits(&self, service: &str, method: &str, path: &str) -> bool {
        let volume = ["volume", "volumev2", "volumev3", "block-storage", "block-store"];
        let same = self.service == service || (volume.contains(&service) && volume.contains(&self.service.as_str()));
        let (rule, path): (Vec<&str>, Vec<&str>) = (self.path.split('/').collect(), path.split('/').collect());
        same && self.method == method && fits(&rule, &path)
    }
}

/// Whether parts of a path fit the parts of a rule. Who takes a rule lets few `**` in: each multiplies the work by the path's length.
fn fits(rule: &[&str], path: &[&str]) -> bool {
    match (rule.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((&"**", [])), Some(_)) => true,
        (Some((&"**", rest)), _) => (0..=path.len()).any(|n| fits(rest, &path[n..])),
        (Some((r, rule)), Some((p, path))) => {
            let any = *r == "*" || (r.starts_with('{') && r.ends_with('}'));
            ((any && !p.is_empty()) || r == p) && fits(rule, path)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn access_rules_admit_what_they_say_and_no_other_spelling() {
        let rule = |path: &str| AccessRule {
            user_id: "u".into(),
            service: "compute".to_owned(),
            path: path.to_owned(),
            method: "GET".to_owned(),
        };
        let one = rule("/v2.1/servers/*/ips");
        assert!(one.admits("compute", "GET", "/v2.1/servers/a/ips"));
        for other in [
            "/v2.1/servers/a/ips/",
            "/v2.1/servers//ips",
            "/v2.1/Servers/a/ips",
            "/v2.1/servers/a/b/ips",
            "/v2.1/%73ervers/a/ips",
            "//v2.1/servers/a/ips",
            "/v2.1/servers/a",
        ] {
            assert!(!one.admits("compute", "GET", other), "{other}");
        }
        assert!(!one.admits("network", "GET", "/v2.1/servers/a/ips"));
        assert!(!one.admits("compute", "POST", "/v2.1/servers/a/ips"));
        assert!(rule("/v2.1/**").admits("compute", "GET", "/v2.1/servers/a/ips"));
        assert!(rule("/v2.1/**/ips").admits("compute", "GET", "/v2.1/servers/a/ips"));
        assert!(!rule("/v2.1/**/ips").admits("compute", "GET", "/v2.1/servers/a/tags"));
        assert!(rule("/v2.1/servers/{id}").admits("compute", "GET", "/v2.1/servers/x"));
    }
}
