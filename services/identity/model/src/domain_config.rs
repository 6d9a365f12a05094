//! Configuration of a domain: which options there are, and what a domain sets.

use maru_base::{DomainId, typed_id};
use maru_store::{Kind, Space};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

typed_id!(
    /// Id of a domain's configuration: the domain's.
    DomainConfigId
);

/// The groups with the options that a domain may set and anyone who may read the configuration sees (as Keystone's
/// domain configuration API lists them).
pub const DOMAIN_OPTIONS: [(&str, &[&str]); 2] = [
    ("identity", &["driver", "list_limit"]),
    (
        "ldap",
        &[
            "url",
            "user",
            "suffix",
            "query_scope",
            "page_size",
            "alias_dereferencing",
            "debug_level",
            "chase_referrals",
            "user_tree_dn",
            "user_filter",
            "user_objectclass",
            "user_id_attribute",
            "user_name_attribute",
            "user_mail_attribute",
            "user_description_attribute",
            "user_pass_attribute",
            "user_enabled_attribute",
            "user_enabled_invert",
            "user_enabled_mask",
            "user_enabled_default",
            "user_attribute_ignore",
            "user_default_project_id_attribute",
            "user_enabled_emulation",
            "user_enabled_emulation_dn",
            "user_enabled_emulation_use_group_config",
            "user_additional_attribute_mapping",
            "group_tree_dn",
            "group_filter",
            "group_objectclass",
            "group_id_attribute",
            "group_name_attribute",
            "group_members_are_ids",
            "group_member_attribute",
            "group_desc_attribute",
            "group_attribute_ignore",
            "group_additional_attribute_mapping",
            "tls_cacertfile",
            "tls_cacertdir",
            "use_tls",
            "tls_req_cert",
            "use_pool",
            "pool_size",
            "pool_retry_max",
            "pool_retry_delay",
            "pool_connection_timeout",
            "pool_connection_lifetime",
            "use_auth_pool",
            "auth_pool_size",
            "auth_pool_connection_lifetime",
        ],
    ),
];

/// Options that may be set and are never shown.
const SENSITIVE: [(&str, &str); 1] = [("ldap", "password")];

/// Whether there is such a group.
#[must_use]
pub fn is_group(group: &str) -> bool {
    DOMAIN_OPTIONS.iter().any(|(g, _)| *g == group)
}

/// Whether an option of a group is never shown.
#[must_use]
pub fn is_sensitive(group: &str, option: &str) -> bool {
    SENSITIVE.contains(&(group, option))
}

/// Whether a domain may set this option.
#[must_use]
pub fn is_option(group: &str, option: &str) -> bool {
    is_sensitive(group, option)
        || DOMAIN_OPTIONS
            .iter()
            .any(|(g, options)| *g == group && options.contains(&option))
}

/// What a domain sets. Its id is the domain's.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DomainConfig {
    /// By group: options with their values.
    pub shown: Map<String, Value>,
    /// By group: the options that are never shown.
    #[serde(default)]
    pub hidden: Map<String, Value>,
}

impl Kind for DomainConfig {
    type Id = DomainConfigId;
    const NAME: &'static str = "domain-config";
    const SECRETS: &'static [&'static str] = &["hidden"];
    const SPACE: Space = Space::Identity;
}

impl DomainConfig {
    /// The id of a domain's configuration.
    #[must_use]
    pub fn of(domain: &DomainId) -> DomainConfigId {
        DomainConfigId::from(domain.as_str())
    }
    /// Whether nothing is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shown.is_empty() && self.hidden.is_empty()
    }
    /// Sets an option.
    pub fn set(&mut self, group: &str, option: &str, value: Value) {
        let part = if is_sensitive(group, option) {
            &mut self.hidden
        } else {
            &mut self.shown
        };
        let group = part.entry(group).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(options) = group {
            options.insert(option.to_owned(), value);
        }
    }
    /// Whether a group, or an option of it, is set.
    #[must_use]
    pub fn has(&self, group: &str, option: Option<&str>) -> bool {
        [&self.shown, &self.hidden].iter().any(|part| match option {
            None => part.contains_key(group),
            Some(option) => part.get(group).is_some_and(|g| g.get(option).is_some()),
        })
    }
    /// Unsets a group, or an option of it.
    pub fn unset(&mut self, group: &str, option: Option<&str>) {
        for part in [&mut self.shown, &mut self.hidden] {
            let Some(option) = option else {
                part.remove(group);
                continue;
            };
            if let Some(Value::Object(options)) = part.get_mut(group) {
                options.remove(option);
                if options.is_empty() {
                    part.remove(group);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sensitive_is_kept_apart() {
        let mut config = DomainConfig::default();
        config.set("ldap", "url", "ldap://x".into());
        config.set("ldap", "password", "s3cret".into());
        assert!(!Value::Object(config.shown.clone()).to_string().contains("s3cret"));
        assert!(config.has("ldap", Some("password")) && config.has("ldap", None));
        config.unset("ldap", Some("url"));
        assert!(config.shown.is_empty() && config.has("ldap", None));
        config.unset("ldap", None);
        assert!(config.is_empty());
        assert!(
            !is_option("ldap", "unheard-of") && !is_option("assignment", "driver") && is_option("ldap", "password")
        );
    }
}
