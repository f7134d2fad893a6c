//! Who holds which role, where.

use anyhow::Context;
use drover_api::kinds::{self, Cluster, Domain, Object, User};
use drover_api::rest;

use super::user::principal_of_group;
use crate::args::{Binding, CreateBinding, Output};
use crate::client::Client;
use crate::output::{Columns, print};

pub(super) const COLUMNS: Columns<Object<kinds::Binding>> =
    (&["NAME", "PRINCIPAL", "ROLE", "WHERE", "EXPIRES"], row);

pub(super) fn run(client: &Client, command: Binding, output: Output) -> anyhow::Result<()> {
    match command {
        Binding::Create(create) => {
            let created = client.create::<kinds::Binding>(&resolved(client, create)?)?;
            print(output, &[created.object], COLUMNS)
        }
        Binding::List => print(output, &client.list::<kinds::Binding>()?, COLUMNS),
        Binding::Delete { name } => {
            client.delete::<kinds::Binding>(&name)?;
            println!("Binding {name} deleted.");
            Ok(())
        }
    }
}

/// Names as the ids that rules are made of.
fn resolved(client: &Client, create: CreateBinding) -> anyhow::Result<rest::CreateBinding> {
    let CreateBinding { role, user, group, cluster, project, everywhere: _, name } = create;
    let principal = match (user, group) {
        // Of somebody who has not logged in yet: no user's name has a '/'.
        (Some(principal), _) if principal.contains(":user/") => principal,
        (Some(user), _) => client.read::<User>(&user)?.spec.principal,
        (None, group) => principal_of_group(&group.context("name a --user or a --group")?),
    };
    let domain = match (cluster, project) {
        (None, _) => Domain::Global,
        (Some(cluster), None) => Domain::Cluster(client.read::<Cluster>(&cluster)?.spec.id),
        (Some(cluster), Some(project)) => {
            Domain::Project { cluster: client.read::<Cluster>(&cluster)?.spec.id, project }
        }
    };
    Ok(rest::CreateBinding { name, principal, role, domain, expires_at: None })
}

fn row(binding: &Object<kinds::Binding>) -> Vec<String> {
    let kinds::Binding { name, principal, role, domain, expires_at } = &binding.spec;
    let place = match domain {
        Domain::Cluster(cluster) => cluster.clone(),
        Domain::Global => "everywhere".to_owned(),
        Domain::Project { cluster, project } => format!("{cluster}, project {project}"),
    };
    let expires = expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    vec![name.clone(), principal.clone(), role.clone(), place, expires]
}
