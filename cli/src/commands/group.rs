//! Groups: who is in which, and what they may by that.

use anyhow::{bail, ensure};
use drover_api::kinds::{Binding, Object, User};
use drover_api::rest;

use super::binding;
use super::user::{LOCAL_GROUP, principal_of_group};
use crate::args::{Group, Output};
use crate::client::Client;
use crate::output::{Columns, print};

const COLUMNS: Columns<rest::Group> = (&["GROUP", "NAME", "MEMBERS", "BINDINGS"], row);

pub(super) fn run(client: &Client, command: Group, output: Output) -> anyhow::Result<()> {
    match command {
        Group::List => print(output, &client.groups()?, COLUMNS),
        Group::Show { name } => show(client, &name, output),
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

fn show(client: &Client, name: &str, output: Output) -> anyhow::Result<()> {
    let groups = client.groups()?;
    let group = named(&groups, name)?;
    if output != Output::Table {
        return print(output, std::slice::from_ref(group), COLUMNS);
    }
    println!("Members of {}, {}:", group.principal, group.members.len());
    group.members.iter().for_each(|name| println!("  {name}"));
    println!();
    let mut bindings = client.list::<Binding>()?;
    bindings.retain(|binding| group.bindings.contains(&binding.spec.name));
    binding::table(client, &bindings, &groups)
}

/// The one group that a name or a principal is of.
fn named<'a>(groups: &'a [rest::Group], name: &str) -> anyhow::Result<&'a rest::Group> {
    let principal = principal_of_group(name);
    if let Some(group) = groups.iter().find(|group| group.principal == principal) {
        return Ok(group);
    }
    let called: Vec<_> = groups.iter().filter(|group| group.name.as_deref() == Some(name)).collect();
    match called.as_slice() {
        [group] => Ok(group),
        [] => bail!(
            "no user is in {principal}, and no binding names it: drover group list shows those there are"
        ),
        several => {
            let all = several.iter().map(|group| group.principal.as_str()).collect::<Vec<_>>().join(", ");
            bail!("{name} is the name of {all}: say which")
        }
    }
}

/// Changes users of Drover's own; none of them where one is unknown or another's.
fn change(
    client: &Client,
    name: &str,
    users: &[String],
    change: fn(&mut Vec<String>, &String),
) -> anyhow::Result<()> {
    let group = principal_of_group(name);
    ensure!(group.starts_with(LOCAL_GROUP), "{group} is a directory's: who is in it is changed there");
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
    let name = group.name.clone().unwrap_or_else(|| "-".to_owned());
    vec![group.principal.clone(), name, group.members.len().to_string(), group.bindings.len().to_string()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_named_by_its_principal_or_by_a_name_that_is_one_groups() {
        let group = |principal: &str, name: Option<&str>| rest::Group {
            principal: principal.to_owned(),
            name: name.map(str::to_owned),
            members: Vec::new(),
            bindings: Vec::new(),
        };
        let groups = vec![
            group("local:group/ops", None),
            group("ad:group/S-1-5-21-7", Some("ops")),
            group("ad:group/S-1-5-21-8", Some("Dev Team")),
            group("ad:group/S-1-5-21-9", Some("web")),
            group("gh:group/team-9", Some("web")),
            group("gh:group/team-10", Some("corp/web")),
        ];
        for (name, expected) in [
            ("ops", "local:group/ops"),
            ("ad:group/S-1-5-21-7", "ad:group/S-1-5-21-7"),
            ("Dev Team", "ad:group/S-1-5-21-8"),
            ("corp/web", "gh:group/team-10"),
            ("web", "web is the name of ad:group/S-1-5-21-9, gh:group/team-9: say which"),
            ("none", "no user is in local:group/none, and no binding names it"),
            ("", "no user is in local:group/, and no binding names it"),
        ] {
            let found = named(&groups, name).map(|group| group.principal.clone());
            let said = found.unwrap_or_else(|error| error.to_string());
            assert!(said.starts_with(expected), "{name}: {said}");
        }
    }
}
