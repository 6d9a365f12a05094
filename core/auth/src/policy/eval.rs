//! Evaluation: three-valued, without allocation.
//!
//! | | Allow | Deny | Unknown |
//! |---|---|---|---|
//! | not | Deny | Allow | Unknown |
//! | and | all allow | one denies | otherwise |
//! | or | one allows | all deny | otherwise |
//!
//! `Unknown` arises only in the coarse pass before an object is loaded (the target has `__coarse`): an attribute that
//! the target lacks may turn out either way. In the fine pass a missing attribute makes its check deny.

use super::{
    Target,
    check::{Check, Left, Part, Template},
};
use crate::{Caller, Scope};

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Deny,
    /// Cannot be told without the object.
    Unknown,
}

impl From<bool> for Verdict {
    fn from(yes: bool) -> Self {
        if yes { Self::Allow } else { Self::Deny }
    }
}

/// One evaluation: all rules, and whom and what it is about.
pub(super) struct Evaluation<'a> {
    pub(super) rules: &'a [Check],
    pub(super) caller: &'a Caller,
    pub(super) target: &'a Target,
    /// What a missing attribute gives.
    pub(super) missing: Verdict,
}

impl Evaluation<'_> {
    pub(super) fn run(&self, check: &Check) -> Verdict {
        match check {
            Check::Allow => Verdict::Allow,
            Check::Deny | Check::Rule(_) => Verdict::Deny,
            Check::Bound(at) => self.rules.get(*at).map_or(Verdict::Deny, |rule| self.run(rule)),
            Check::Not(inner) => match self.run(inner) {
                Verdict::Allow => Verdict::Deny,
                Verdict::Deny => Verdict::Allow,
                Verdict::Unknown => Verdict::Unknown,
            },
            Check::And(all) => self.fold(all, Verdict::Deny, Verdict::Allow),
            Check::Or(any) => self.fold(any, Verdict::Allow, Verdict::Deny),
            Check::Role(name) => self.role(name),
            Check::Field {
                attribute,
                value,
                prefix,
            } => match self.target.get(attribute) {
                None => self.missing,
                Some(have) if *prefix => have.starts_with(value.as_str()).into(),
                Some(have) => have.eq_ignore_ascii_case(value).into(),
            },
            Check::Compare { left, right } => self.compare(left, right),
        }
    }

    /// `stop` decides at once; with none of it, an unknown stays unknown, otherwise `rest`.
    fn fold(&self, checks: &[Check], stop: Verdict, rest: Verdict) -> Verdict {
        let mut verdict = rest;
        for check in checks {
            match self.run(check) {
                v if v == stop => return stop,
                Verdict::Unknown => verdict = Verdict::Unknown,
                _ => {}
            }
        }
        verdict
    }

    fn role(&self, name: &Template) -> Verdict {
        if let [Part::Text(name)] = name.0.as_slice() {
            return self.caller.has_role(name).into();
        }
        let mut unknown = false;
        for role in &self.caller.roles {
            match self.matches(role, name, true) {
                Verdict::Allow => return Verdict::Allow,
                Verdict::Unknown => unknown = true,
                Verdict::Deny => {}
            }
        }
        if unknown { Verdict::Unknown } else { Verdict::Deny }
    }

    fn compare(&self, left: &Left, right: &Template) -> Verdict {
        let caller = self.caller;
        let have = match left {
            Left::Literal(text) => Some(text.as_str()),
            Left::UserId => Some(caller.user_id.as_str()),
            Left::UserDomainId => Some(caller.user_domain_id.as_str()),
            Left::ProjectId => caller.project_id().map(|p| p.as_str()),
            Left::ProjectDomainId => caller.project_domain_id.as_ref().map(|d| d.as_str()),
            Left::DomainId => caller.domain_id().map(|d| d.as_str()),
            Left::SystemScope => (caller.scope == Scope::System).then_some("all"),
            Left::IsAdmin => Some(if caller.is_admin() { "True" } else { "False" }),
            Left::IsAdminProject => Some("True"),
            Left::Absent(_) => None,
        };
        match have {
            Some(have) => self.matches(have, right, false),
            // `domain_id:None` asks whether the caller has none. An object without an owner is not thereby the
            // object of a caller without a project: only a literal None matches what is not there.
            None if right.is_text() => self.matches("None", right, false),
            None => Verdict::Deny,
        }
    }

    /// Whether `have` is the template's text; walks the parts, builds nothing.
    fn matches(&self, have: &str, template: &Template, any_case: bool) -> Verdict {
        let mut rest = have;
        for part in &template.0 {
            let text = match part {
                Part::Text(text) => text.as_str(),
                Part::Attribute(name) => match self.target.get(name) {
                    Some(value) => value,
                    None => return self.missing,
                },
            };
            let Some((head, tail)) = rest.split_at_checked(text.len()) else {
                return Verdict::Deny;
            };
            if !(head == text || any_case && head.eq_ignore_ascii_case(text)) {
                return Verdict::Deny;
            }
            rest = tail;
        }
        rest.is_empty().into()
    }
}
