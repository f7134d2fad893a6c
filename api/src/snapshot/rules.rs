//! The part of a snapshot that decisions are made from, in the policy's own types.
//!
//! What is wrong between rules is the policy's to say.

use std::collections::BTreeMap;
use std::time::SystemTime;

use drover_policy::{
    Binding, ClusterId, ClusterRules, Domain, Effect, IdInvalid, Part, Principal, ProjectId, Role, RoleName,
    Rule, Rules,
};

use super::Document;
use super::problems::{At, Field, Problems};
use crate::kinds;

pub(super) fn rules(document: &Document, problems: &mut Problems) -> Rules {
    let before = problems.is_empty();
    let rules = Rules {
        clusters: keep_all(Field::Clusters, &document.clusters, cluster, problems),
        roles: keep_all(Field::Roles, &document.roles, role, problems),
        bindings: bindings(&document.bindings, problems),
    };
    // Where an object was left out, what is wrong between the others is not known.
    if before && problems.is_empty() {
        for (part, problem) in rules.problems() {
            let at = match part {
                Part::Binding(index) => At(Field::Bindings, index),
                Part::Cluster(index) => At(Field::Clusters, index),
                Part::Role(index) => At(Field::Roles, index),
            };
            problems.add(at, "", problem);
        }
    }
    rules
}

fn keep_all<W, T>(
    field: Field,
    written: &[W],
    convert: fn(&W) -> Result<T, IdInvalid>,
    problems: &mut Problems,
) -> Vec<T> {
    let each = written.iter().enumerate();
    each.filter_map(|(index, object)| problems.keep(At(field, index), "", convert(object))).collect()
}

pub(super) fn cluster(written: &kinds::Cluster) -> Result<ClusterRules, IdInvalid> {
    let project =
        |(namespace, project): (&String, &String)| Ok((namespace.clone(), ProjectId::parse(project)?));
    let projects = written.projects.iter().map(project).collect::<Result<BTreeMap<_, _>, IdInvalid>>()?;
    Ok(ClusterRules { id: ClusterId::parse(&written.id)?, projects })
}

pub(super) fn role(written: &kinds::Role) -> Result<Role, IdInvalid> {
    let inherits = written.inherits.iter().map(|name| RoleName::parse(name)).collect::<Result<_, _>>()?;
    Ok(Role {
        name: RoleName::parse(&written.name)?,
        inherits,
        rules: written.rules.iter().map(rule).collect(),
    })
}

fn rule(written: &kinds::Rule) -> Rule {
    Rule {
        effect: match written.effect {
            kinds::Effect::Allow => Effect::Allow,
            kinds::Effect::Deny => Effect::Deny,
        },
        verbs: written.verbs.clone(),
        groups: written.api_groups.clone(),
        resources: written.resources.clone(),
        names: written.resource_names.clone(),
        paths: written.non_resource_urls.clone(),
    }
}

fn bindings(written: &[kinds::Binding], problems: &mut Problems) -> Vec<Binding> {
    let mut names = std::collections::BTreeSet::new();
    for (index, binding) in written.iter().enumerate() {
        problems.unique(&mut names, At(Field::Bindings, index), "name", &binding.name);
    }
    keep_all(Field::Bindings, written, binding, problems)
}

pub(super) fn binding(written: &kinds::Binding) -> Result<Binding, IdInvalid> {
    Ok(Binding {
        principal: Principal::parse(&written.principal)?,
        role: RoleName::parse(&written.role)?,
        domain: domain(&written.domain)?,
        expires_at: written.expires_at.map(SystemTime::from),
    })
}

fn domain(written: &kinds::Domain) -> Result<Domain, IdInvalid> {
    Ok(match written {
        kinds::Domain::Cluster(cluster) => Domain::Cluster(ClusterId::parse(cluster)?),
        kinds::Domain::Global => Domain::Global,
        kinds::Domain::Project { cluster, project } => {
            Domain::Project(ClusterId::parse(cluster)?, ProjectId::parse(project)?)
        }
    })
}
