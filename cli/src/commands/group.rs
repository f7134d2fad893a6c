//! Groups: who is in which, and what they may by that.

use anyhow::{bail, ensure};
use drover_api::kinds::{Binding, Object, User};
use drover_api::rest;

use super::binding;
use super::user::principal_of_group;
use crate::args::{Group, Output};
use crate::client::Client;
use crate::output::{Columns, print};

const COLUMNS: Columns<rest::Group> = (&["GROUP", "MEMBERS", "BINDINGS"], row);

pub(super) fn run(client: &Client, command: Group, output: Output) -> anyhow::Result<()> {
    match command {
        Group::List => print(output, &client.groups()?, COLUMNS),
        Group::Show { name } => show(client, &principal_of_group(&name), output),
        Group::Add { name, users } => change(client, &name, &users, |groups, group| {
            if !groups.contains(group) {
                groups.push(group.clone());
            }
        }),
        Group::Remove { name, users } => {
            change(client, &name, &users, |groups, group| groups.retain(|other| other != group))
        }
    }
}

fn show(client: &Client, principal: &str, output: Output) -> anyhow::Result<()> {
    let found = client.groups()?.into_iter().find(|group| group.principal == principal);
    let Some(group) = found else {
        bail!("no user is in {principal}, and no binding names it: drover group list shows those there are");
    };
    if output != Output::Table {
        return print(output, &[group], COLUMNS);
    }
    println!("Members of {principal}, {}:", group.members.len());
    group.members.iter().for_each(|name| println!("  {name}"));
    println!();
    let mut bindings = client.list::<Binding>()?;
    bindings.retain(|binding| group.bindings.contains(&binding.spec.name));
    print(output, &bindings, binding::COLUMNS)
}

/// Changes users of Drover's own; none of them where one is unknown or another's.
fn change(
    client: &Client,
    name: &str,
    users: &[String],
    change: fn(&mut Vec<String>, &String),
) -> anyhow::Result<()> {
    let group = principal_of_group(name);
    ensure!(group.starts_with("local:group/"), "{group} is a directory's: who is in it is changed there");
    let mut changed = Vec::new();
    for name in users {
        let mut user: Object<User> = client.read(name)?;
        let principal = &user.spec.principal;
        ensure!(principal.starts_with("local:"), "{name} is a directory's user: groups are changed there");
        change(&mut user.spec.groups, &group);
        changed.push(user);
    }
    for user in changed {
        let User { name, groups, .. } = client.replace(&user)?.spec;
        let groups = if groups.is_empty() { "no group".to_owned() } else { groups.join(", ") };
        println!("User {name} is in {groups}.");
    }
    Ok(())
}

fn row(group: &rest::Group) -> Vec<String> {
    vec![group.principal.clone(), group.members.len().to_string(), group.bindings.len().to_string()]
}
