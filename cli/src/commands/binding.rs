//! Who holds which role, where.

use std::collections::HashMap;

use anyhow::Context;
use drover_api::kinds::{self, Cluster, Domain, Object, User};
use drover_api::rest::{self, Group};

use super::user::{LOCAL_GROUP, principal_of_group};
use crate::args::{Binding, CreateBinding, Output};
use crate::client::Client;
use crate::output::{Columns, print};

const COLUMNS: Columns<Vec<String>> = (&["NAME", "WHO", "PRINCIPAL", "ROLE", "WHERE", "EXPIRES"], Vec::clone);

pub(super) fn run(client: &Client, command: Binding, output: Output) -> anyhow::Result<()> {
    match command {
        Binding::Create(create) => {
            let created = client.create::<kinds::Binding>(&resolved(client, create)?)?;
            show(client, &[created.object], output)
        }
        Binding::List => show(client, &client.list::<kinds::Binding>()?, output),
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

fn show(client: &Client, bindings: &[Object<kinds::Binding>], output: Output) -> anyhow::Result<()> {
    match output {
        Output::Table => table(client, bindings, &client.groups()?),
        Output::Json | Output::Yaml => print(output, bindings, (&[], |_| Vec::new())),
    }
}

/// With names for what rules know by ids, as far as the caller sees it.
pub(super) fn table(
    client: &Client,
    bindings: &[Object<kinds::Binding>],
    groups: &[Group],
) -> anyhow::Result<()> {
    let (mut principals, mut clusters) = (HashMap::new(), HashMap::new());
    for User { principal, name, .. } in client.list::<User>()?.into_iter().map(|user| user.spec) {
        principals.insert(principal, name);
    }
    for Group { principal, name, .. } in groups {
        principals.extend(name.clone().map(|name| (principal.clone(), name)));
    }
    for Cluster { id, name, .. } in client.list::<Cluster>()?.into_iter().map(|cluster| cluster.spec) {
        clusters.insert(id, name);
    }
    let rows: Vec<_> = bindings.iter().map(|binding| row(&binding.spec, &principals, &clusters)).collect();
    print(Output::Table, &rows, COLUMNS)
}

/// With the names of principals, and those of clusters by their ids.
fn row(
    binding: &kinds::Binding,
    principals: &HashMap<String, String>,
    clusters: &HashMap<String, String>,
) -> Vec<String> {
    let kinds::Binding { name, principal, role, domain, expires_at } = binding;
    let named = |id: &String| clusters.get(id).unwrap_or(id).clone();
    let place = match domain {
        Domain::Cluster(cluster) => named(cluster),
        Domain::Global => "everywhere".to_owned(),
        Domain::Project { cluster, project } => format!("{}, project {project}", named(cluster)),
    };
    let of_group = principal.strip_prefix(LOCAL_GROUP);
    let who = principals.get(principal).map(String::as_str).or(of_group).unwrap_or("-");
    let expires = expires_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
    vec![name.clone(), who.to_owned(), principal.clone(), role.clone(), place, expires]
}
