#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use crate::Scope;
use proptest::prelude::*;

fn caller(scope: Scope, roles: &[&str]) -> Caller {
    Caller {
        user_id: "u1".into(),
        user_name: "user".to_owned(),
        user_domain_id: "default".into(),
        project_domain_id: matches!(scope, Scope::Project(_)).then(|| "default".into()),
        project_name: None,
        scope,
        roles: roles.iter().map(|r| (*r).to_owned()).collect(),
        methods: vec![],
        audit_ids: vec![],
        expires_at: jiff::Timestamp::MAX,
    }
}

fn allows(check: &'static str, caller: &Caller, target: &Target) -> bool {
    let rules = [
        RuleDefault { name: "x", check },
        RuleDefault {
            name: "admin_required",
            check: "role:admin or is_admin:1",
        },
        RuleDefault {
            name: "owner",
            check: "user_id:%(user_id)s",
        },
    ];
    Policy::build(&[&rules], None).unwrap().allows("x", caller, target)
}

#[test]
fn every_kind_of_check_is_understood() {
    let member = caller(Scope::Project("p1".into()), &["member", "reader"]);
    let admin = caller(Scope::System, &["admin", "manager", "member", "reader"]);
    let domain = caller(Scope::Domain("d1".into()), &["manager"]);
    let mine = Target::project("p1")
        .with("user_id", "u1")
        .with("visibility", "private")
        .with("shared", "True");
    let theirs = Target::project("p2")
        .with("visibility", "public")
        .with("role_name", "MEMBER");
    for (check, who, target, expect) in [
        ("", &member, &theirs, true),
        ("@", &member, &theirs, true),
        ("!", &admin, &mine, false),
        ("role:Member", &member, &mine, true),
        ("role:%(role_name)s", &member, &theirs, true),
        ("rule:admin_required", &admin, &mine, true),
        ("rule:admin_required", &member, &mine, false),
        ("is_admin:True", &admin, &mine, true),
        ("is_admin:1", &admin, &mine, false),
        ("rule:owner", &member, &mine, true),
        ("role:member and project_id:%(project_id)s", &member, &mine, true),
        ("role:member and project_id:%(project_id)s", &member, &theirs, false),
        (
            "not role:admin and (role:x or tenant_id:%(tenant_id)s)",
            &member,
            &mine,
            true,
        ),
        ("NOT role:admin AND role:reader", &member, &mine, true),
        (
            "role:x or role:member and project_id:%(project_id)s",
            &member,
            &mine,
            true,
        ),
        ("(role:reader or role:x) and !", &member, &mine, false),
        ("system_scope:all", &admin, &mine, true),
        ("system_scope:all", &member, &mine, false),
        ("'public':%(visibility)s", &member, &theirs, true),
        ("'public':%(visibility)s", &member, &mine, false),
        ("None:%(owner)s", &member, &Target::none().with("owner", "None"), true),
        ("None:%(owner)s", &member, &Target::none(), false),
        ("True:%(shared)s", &member, &mine, true),
        ("field:networks:shared=true", &member, &mine, true),
        (
            "field:port:device_owner=~^network:",
            &member,
            &Target::none().with("device_owner", "network:dhcp"),
            true,
        ),
        (
            "token.domain.id:%(target.domain.id)s",
            &domain,
            &Target::none().with("target.domain.id", "d1"),
            true,
        ),
        (
            "token.project.domain.id:%(target.domain.id)s",
            &member,
            &Target::none().with("target.domain.id", "default"),
            true,
        ),
        ("domain_id:None", &member, &mine, true),
        ("not domain_id:None", &domain, &mine, true),
        (
            "project_id:%(project_id)s",
            &admin,
            &Target::none().with("project_id", "None"),
            false,
        ),
        (
            "project_id:pre-%(x)s-post",
            &caller(Scope::Project("pre-1-post".into()), &[]),
            &Target::none().with("x", "1"),
            true,
        ),
        ("service_user_id:%(user_id)s", &member, &mine, false),
    ] {
        assert_eq!(allows(check, who, target), expect, "{check}");
    }
}

#[test]
fn the_coarse_pass_leaves_open_what_only_the_object_can_tell() {
    let member = caller(Scope::Project("p1".into()), &["member"]);
    let reader = caller(Scope::Project("p1".into()), &["reader"]);
    let coarse = Target::of_caller(&member).with("__coarse", "true");
    assert!(allows("role:member and 'public':%(visibility)s", &member, &coarse));
    assert!(!allows("role:member and 'public':%(visibility)s", &reader, &coarse));
    assert!(allows("not 'public':%(visibility)s", &member, &coarse));
    assert!(allows(
        "role:member and not role:%(target.role.name)s",
        &member,
        &coarse
    ));
    assert!(!allows(
        "system_scope:all or domain_id:%(target.user.domain_id)s",
        &member,
        &coarse
    ));
    assert!(!allows("'public':%(visibility)s", &member, &Target::of_caller(&member)));
}

#[test]
fn bad_rules_are_refused_at_build() {
    let build = |check: &'static str| Policy::build(&[&[RuleDefault { name: "x", check }]], None).unwrap_err();
    for (check, says) in [
        ("rule:x", "names itself"),
        ("rule:y", "does not exist"),
        ("role:a role:b", "'and' or 'or'"),
        ("role:a and", "ends"),
        ("(role:a", "not closed"),
        ("role:a)", "not expected"),
        ("admin", "kind:match"),
        ("project_id:%(project_id", "without its )s"),
        ("'open:%(x)s", "quote"),
        ("http://example.org/", "another server"),
        ("field:shared", "field:resource"),
    ] {
        let error = build(check);
        assert!(error.contains(says) && error.contains("rule x"), "{check}: {error}");
    }
    let deep: &'static str = format!("{}role:a{}", "(".repeat(100), ")".repeat(100)).leak();
    assert!(build(deep).contains("nested"));
    let nots: &'static str = format!("{}role:a", "not ".repeat(100)).leak();
    assert!(build(nots).contains("nested"));
    let wide: Vec<RuleDefault> = (0..30)
        .map(|n| RuleDefault {
            name: format!("r{n}").leak(),
            check: if n == 29 {
                "role:a"
            } else {
                format!("rule:r{0} and rule:r{0}", n + 1).leak()
            },
        })
        .collect();
    assert!(Policy::build(&[&wide], None).unwrap_err().contains("at most"));
}

#[test]
fn a_policy_file_overrides_and_misspelt_names_are_pointed_out() {
    let a = [
        RuleDefault {
            name: "get_x",
            check: "rule:owner",
        },
        RuleDefault {
            name: "owner",
            check: "user_id:%(user_id)s",
        },
    ];
    let b = [
        RuleDefault {
            name: "get_y",
            check: "rule:owner",
        },
        RuleDefault {
            name: "owner",
            check: "project_id:%(project_id)s",
        },
    ];
    let who = caller(Scope::Project("p1".into()), &["member"]);
    let policy = Policy::build(&[&a, &b], None).unwrap();
    let mine = Target::project("p1");
    assert!(
        !policy.allows("get_x", &who, &mine) && policy.allows("get_y", &who, &mine),
        "each service has its own names"
    );
    let policy = Policy::build(
        &[&a, &b],
        Some("get_x: role:member\n\"get_y\": [[\"role:no\"], [\"role:member\", \"!\"]]\n"),
    )
    .unwrap();
    assert!(policy.allows("get_x", &who, &mine) && !policy.allows("get_y", &who, &mine));
    let error = Policy::build(&[&a], Some("get_z: '@'")).unwrap_err();
    assert!(error.contains("'get_z'; did you mean 'get_x'?"), "{error}");
    assert!(Policy::build(&[&a], Some("- a\n- b")).is_err());
    assert!(Policy::build(&[&a], Some("# nothing\n\n")).is_ok());
    assert!(!policy.allows("get_nothing", &who, &mine));
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in ".{0,200}") {
        let _ = parse_check(&text);
    }

    #[test]
    fn likely_texts_parse_or_are_refused(words in prop::collection::vec(
        prop::sample::select(vec!["and", "or", "not", "(", ")", "role:a", "@", "!", "'x':%(y)s", "project_id:%(project_id)s", "%(", ":"]), 0..40)) {
        let _ = parse_check(&words.join(" "));
        let _ = parse_check(&words.concat());
    }

    /// Kleene's law: what the coarse pass denies, no object can allow; what it grants without unknowns stays granted.
    #[test]
    fn the_coarse_pass_never_refuses_what_an_object_would_allow(
        words in prop::collection::vec((prop::sample::select(vec!["role:a", "role:b", "'1':%(x)s", "'1':%(y)s", "!", "@"]),
            prop::sample::select(vec!["and", "or", "and not", "or not"])), 1..8),
        x in prop::option::of(0..2), y in prop::option::of(0..2)) {
        let mut text = String::new();
        for (i, (atom, op)) in words.iter().enumerate() {
            if i > 0 { text.push_str(&format!(" {op} ")); }
            text.push_str(atom);
        }
        let who = caller(Scope::Unscoped, &["a"]);
        let rules = [RuleDefault { name: "x", check: text.leak() }];
        let policy = Policy::build(&[&rules], None).unwrap();
        // An object has both attributes.
        let full = Target::none().with("x", &x.unwrap_or(0).to_string()).with("y", &y.unwrap_or(0).to_string());
        let coarse = Target::none().with("__coarse", "true");
        prop_assert!(policy.allows("x", &who, &coarse) || !policy.allows("x", &who, &full));
    }
}
