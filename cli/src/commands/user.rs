//! Local users.

use drover_api::kinds::{self, Object};
use drover_api::rest::{ChangePassword, CreateUser};

use super::password;
use crate::args::{Output, User};
use crate::client::Client;
use crate::output::{Columns, print};

const COLUMNS: Columns<Object<kinds::User>> = (&["NAME", "PRINCIPAL", "GROUPS", "STATE"], row);

pub(super) fn run(client: &Client, command: User, output: Output) -> anyhow::Result<()> {
    match command {
        User::Create { name, display_name, groups, password_stdin } => {
            let password = password_stdin.then(|| password(true, "")).transpose()?;
            let groups = groups.iter().map(|group| principal_of_group(group)).collect();
            let create = CreateUser { name: name.clone(), display_name, groups, password };
            let created = client.create::<kinds::User>(&create)?;
            if output != Output::Table {
                return print(output, &[created], (&[], |_| Vec::new()));
            }
            println!("User {name} created.");
            if let Some(password) = created.secret {
                println!("Password, shown this once: {password}");
            }
            println!("Next: drover binding create --user {name} --role cluster-viewer --cluster NAME");
            Ok(())
        }
        User::List => print(output, &client.list::<kinds::User>()?, COLUMNS),
        User::Disable { name } => set_disabled(client, &name, true),
        User::Enable { name } => set_disabled(client, &name, false),
        User::Refresh { name } => {
            let user = client.refresh_user(&name)?.spec;
            println!("User {name} is as the directory has it now, in {} groups.", user.groups.len());
            Ok(())
        }
        User::ResetPassword { name } => {
            let changed = client.change_password(&name, &ChangePassword { current: None, password: None })?;
            println!("Password of {name}, shown this once: {}", changed.secret.unwrap_or_default());
            Ok(())
        }
        User::Delete { name } => {
            client.delete::<kinds::User>(&name)?;
            println!("User {name} deleted, with their tokens and bindings.");
            Ok(())
        }
    }
}

/// What principals of local groups begin with; the rest is the name.
pub(super) const LOCAL_GROUP: &str = "local:group/";

/// A local group, by its short name or as its principal.
pub(super) fn principal_of_group(group: &str) -> String {
    if group.contains('/') { group.to_owned() } else { format!("{LOCAL_GROUP}{group}") }
}

fn set_disabled(client: &Client, name: &str, disabled: bool) -> anyhow::Result<()> {
    let mut user = client.read::<kinds::User>(name)?;
    user.spec.disabled = disabled;
    client.replace(&user)?;
    println!(
        "User {name} {}.",
        if disabled { "disabled: every gateway refuses their tokens" } else { "enabled" }
    );
    Ok(())
}

fn row(user: &Object<kinds::User>) -> Vec<String> {
    let kinds::User { name, principal, groups, disabled, .. } = &user.spec;
    let state = if *disabled { "disabled" } else { "enabled" };
    vec![name.clone(), principal.clone(), groups.join(","), state.to_owned()]
}
