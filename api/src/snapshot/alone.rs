//! One object checked by itself, before it is kept: by the code that checks it among all others.

use drover_policy::{ClusterId, Principal};

use super::problems::{At, Field, Problems, Unsound};
use super::sift::SET_ASIDE_ROLE;
use super::{check, rules};
use crate::kinds::{Binding, Cluster, Role, Token, User};

/// The check of an object that is in snapshots; what it names is not looked for.
pub trait Alone {
    fn check_alone(&self) -> Result<(), Unsound>;
}

fn alone(field: Field, check: impl FnOnce(At, &mut Problems)) -> Result<(), Unsound> {
    let mut problems = Problems::default();
    check(At(field, 0), &mut problems);
    problems.first().map_or(Ok(()), Err)
}

impl Alone for Binding {
    fn check_alone(&self) -> Result<(), Unsound> {
        alone(Field::Bindings, |at, problems| {
            problems.keep(at, "", rules::binding(self));
        })
    }
}

impl Alone for Cluster {
    fn check_alone(&self) -> Result<(), Unsound> {
        alone(Field::Clusters, |at, problems| {
            check::cluster(self, at, problems);
            problems.keep(at, "projects", rules::cluster(self));
        })
    }
}

impl Alone for Role {
    fn check_alone(&self) -> Result<(), Unsound> {
        alone(Field::Roles, |at, problems| {
            if self.name == SET_ASIDE_ROLE {
                problems.add(at, "name", "is kept for what is set aside");
            }
            if let Some(role) = problems.keep(at, "", rules::role(self))
                && let Some(problem) = role.problem()
            {
                problems.add(at, "rules", problem);
            }
        })
    }
}

impl Alone for Token {
    fn check_alone(&self) -> Result<(), Unsound> {
        let user = |text: &str| Principal::parse(text).ok();
        let cluster = |text: &str| ClusterId::parse(text).ok();
        alone(Field::Tokens, |at, problems| {
            check::token(self, at, user, cluster, problems);
        })
    }
}

impl Alone for User {
    fn check_alone(&self) -> Result<(), Unsound> {
        alone(Field::Users, |at, problems| {
            check::user(self, at, problems);
        })
    }
}
