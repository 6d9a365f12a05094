//! The oslo.policy language and `policy.yaml`, and what comes out of evaluating it.

use super::{Target, words};
use anyhow::Result;
use maru_auth::{Caller, Policy, RuleDefault, Scope, Target as Object};

/// Rules that an input's `policy.yaml` may override and name.
const DEFAULTS: &[RuleDefault] = &[
    RuleDefault {
        name: "admin_required",
        check: "role:admin",
    },
    RuleDefault {
        name: "owner",
        check: "project_id:%(project_id)s",
    },
    RuleDefault {
        name: "things:get",
        check: "(role:reader and rule:owner) or rule:admin_required",
    },
    RuleDefault {
        name: "things:delete",
        check: "role:member and rule:owner",
    },
];

/// The first byte chooses: a check alone, or a whole file.
pub fn target() -> Result<Target> {
    let mut seeds: Vec<Vec<u8>> = [
        "role:reader and project_id:%(project_id)s",
        "(role:admin and system_scope:all) or (role:member and domain_id:%(target.domain.id)s)",
        "not (rule:owner or is_admin:True)",
        "'public':%(visibility)s or @",
        "!",
        "user_id:%(user_id)s or user_id:%(target.user.id)s and token.project.domain.id:%(domain_id)s",
        "None:%(trust_id)s",
        "field:networks:shared=True",
    ]
    .iter()
    .map(|check| format!("c{check}").into_bytes())
    .collect();
    for text in [
        "things:get: role:reader\n",
        "\"things:get\": \"@\"\n\"things:delete\": \"!\"\n",
        "# a comment\nthings:get:\n  - [\"role:admin\"]\n  - [\"role:member\", \"rule:owner\"]\n",
        "{\"things:delete\": \"rule:admin_required or rule:owner\"}",
        "",
    ] {
        seeds.push(format!("f{text}").into_bytes());
    }
    let caller = Caller {
        user_id: "u".into(),
        user_name: "user".into(),
        user_domain_id: "default".into(),
        scope: Scope::Project("p".into()),
        project_domain_id: Some("default".into()),
        project_name: Some("project".into()),
        roles: vec!["member".into(), "reader".into()],
        methods: vec!["password".into()],
        audit_ids: Vec::new(),
        expires_at: jiff::Timestamp::UNIX_EPOCH,
    };
    let mine = Object::project("p").with("user_id", "u").with("visibility", "public");
    let other = Object::project("q");
    let run = move |input: &[u8]| {
        let Some((kind, text)) = input.split_first() else {
            return false;
        };
        let Ok(text) = std::str::from_utf8(text) else {
            return false;
        };
        let policy = if *kind == b'c' {
            match maru_auth::policy::parse_check(text) {
                // As one line of a file, so that its names are bound.
                Ok(_) => {
                    let line = serde_json::json!({ "things:get": text }).to_string();
                    match Policy::build(&[DEFAULTS], Some(&line)) {
                        Ok(policy) => policy,
                        // It names a rule that is not there, or is too much.
                        Err(_) => return true,
                    }
                }
                Err(error) => {
                    assert!(!error.is_empty());
                    return false;
                }
            }
        } else {
            match Policy::build(&[DEFAULTS], Some(text)) {
                Ok(policy) => policy,
                Err(error) => {
                    assert!(!error.is_empty());
                    return false;
                }
            }
        };
        for object in [&mine, &other, &Object::none()] {
            for rule in ["things:get", "things:delete", "admin_required"] {
                // What the coarse pass refuses, no object with these and more attributes may be allowed.
                let coarse = policy.allows(rule, &caller, &object.clone().with("__coarse", "true"));
                let fine = policy.allows(rule, &caller, &object.clone().with("extra", "x"));
                let _ = (coarse, fine);
            }
            assert!(!policy.allows("things:none", &caller, object), "an unknown rule allows");
        }
        true
    };
    Ok(Target {
        name: "policy",
        seeds,
        words: words(&[
            " and ",
            " or ",
            "not ",
            "(",
            ")",
            "role:",
            "rule:",
            "rule:owner",
            "%(",
            ")s",
            "project_id:%(project_id)s",
            "@",
            "!",
            "True",
            "None",
            "'",
            "\"",
            "things:get",
            "things:delete",
            ": ",
            "\n",
            "  - ",
            "[",
            "]",
            "{",
            "}",
            "&a ",
            "*a",
            "!!",
            "|",
            ">",
            "<<: ",
            "field:",
            "http:",
            "is_admin:True",
            "system_scope:all",
        ]),
        most: 4_096,
        run: Box::new(run),
    })
}
