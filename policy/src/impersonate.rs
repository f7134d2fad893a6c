//! Rights to act as others: of rules that name the verb `impersonate` itself, since a `*` that was meant for
//! everything else must not let anybody become somebody.

use std::time::SystemTime;

use crate::compiled::Compiled;
use crate::model::{ANY, Kind, Row};
use crate::rules::Effect;

pub(crate) const VERB: &str = "impersonate";
/// Of users, groups and service accounts; and of uids and extras.
const GROUPS: [&str; 2] = ["", "authentication.k8s.io"];

/// A resource (`users`, `groups`, `serviceaccounts`, `uids`, `userextras/<key>`, or `*`) and a name, or `*`.
pub type ImpersonationRow = (String, String);

/// What a subject may act as in a cluster, and what they must not whatever else allows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImpersonationRights {
    pub allow: Vec<ImpersonationRow>,
    pub deny: Vec<ImpersonationRow>,
}

impl ImpersonationRights {
    pub(crate) fn of(compiled: &Compiled) -> Self {
        let mut rights = Self::default();
        for row in compiled.rows_of_the_whole_cluster() {
            match row.effect {
                Effect::Allow => rights.allow.extend(allowed(row)),
                Effect::Deny => rights.deny.extend(denied(row)),
            }
        }
        rights
    }
}

/// The right that a row gives, if it names the verb.
pub(crate) fn allowed(row: &Row) -> Option<ImpersonationRow> {
    (row.effect == Effect::Allow && row.verb == VERB && concerns(row)).then(|| right(row))
}

fn denied(row: &Row) -> Option<ImpersonationRow> {
    ((row.verb == VERB || row.verb == ANY) && concerns(row)).then(|| right(row))
}

fn concerns(row: &Row) -> bool {
    row.kind == Kind::Resource && (row.group == ANY || GROUPS.contains(&row.group.as_str()))
}

fn right(row: &Row) -> ImpersonationRow {
    (row.resource.clone(), row.name.clone())
}

impl crate::Policy {
    /// What a subject may act as in a cluster: nothing, unless a rule says so.
    pub fn impersonation(
        &self,
        subject: &crate::Subject,
        cluster: &crate::ClusterId,
        now: SystemTime,
    ) -> ImpersonationRights {
        self.compiled_for(subject, cluster, now)
            .map_or_else(ImpersonationRights::default, |compiled| ImpersonationRights::of(&compiled))
    }
}
