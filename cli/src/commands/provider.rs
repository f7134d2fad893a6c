//! Directories that users come from.

use anyhow::Context;
use drover_api::kinds::{self, Access, Directory, Object};
use drover_api::rest::CreateProvider;

use super::password;
use crate::args::{AddLdap, Output, Provider};
use crate::client::Client;
use crate::output::{Columns, print};

const COLUMNS: Columns<Object<kinds::Provider>> = (&["NAME", "DIRECTORY", "SERVERS", "ACCESS", "STATE"], row);

pub(super) fn run(client: &Client, command: Provider, output: Output) -> anyhow::Result<()> {
    match command {
        Provider::AddLdap(add) => add_ldap(client, *add),
        Provider::List => print(output, &client.list::<kinds::Provider>()?, COLUMNS),
        Provider::Test { name } => {
            client.test_provider(&name)?;
            println!(
                "Provider {name} works: its servers answer, who searches is let in, and users are found."
            );
            Ok(())
        }
        Provider::Disable { name } => set_disabled(client, &name, true),
        Provider::Enable { name } => set_disabled(client, &name, false),
        Provider::Delete { name } => {
            client.delete::<kinds::Provider>(&name)?;
            println!("Provider {name} deleted.");
            Ok(())
        }
    }
}

fn add_ldap(client: &Client, add: AddLdap) -> anyhow::Result<()> {
    let password = password(add.password_stdin, &format!("Password of {}: ", add.bind_name))?;
    let read = |file: &std::path::PathBuf| {
        std::fs::read_to_string(file).with_context(|| format!("failed to read {}", file.display()))
    };
    let ldap = kinds::Ldap {
        servers: add.servers,
        ca: add.ca.as_ref().map(read).transpose()?,
        schema: add.schema.into(),
        bind_name: add.bind_name,
        user_base: add.user_base,
        group_base: add.group_base,
        user_filter: add.user_filter,
        domain: add.domain,
    };
    let spec = kinds::Provider {
        name: add.name.clone(),
        disabled: false,
        access: add.access.into(),
        allowed: add.allowed,
        directory: Directory::Ldap(ldap),
    };
    client.create::<kinds::Provider>(&CreateProvider { spec, password })?;
    let name = add.name;
    println!("Provider {name} added: it was tried, and works.");
    println!("Next: drover login --provider {name}");
    Ok(())
}

fn set_disabled(client: &Client, name: &str, disabled: bool) -> anyhow::Result<()> {
    let mut provider = client.read::<kinds::Provider>(name)?;
    provider.spec.disabled = disabled;
    client.replace(&provider)?;
    let state = if disabled { "disabled: nobody logs in through it" } else { "enabled" };
    println!("Provider {name} {state}.");
    Ok(())
}

fn row(provider: &Object<kinds::Provider>) -> Vec<String> {
    let kinds::Provider { name, disabled, access, directory, .. } = &provider.spec;
    let (kind, servers) = match directory {
        Directory::Ldap(ldap) => ("ldap", ldap.servers.join(",")),
    };
    let access = match access {
        Access::Required => "required",
        Access::Restricted => "restricted",
        Access::Unrestricted => "unrestricted",
    };
    let state = if *disabled { "disabled" } else { "enabled" };
    vec![name.clone(), kind.to_owned(), servers, access.to_owned(), state.to_owned()]
}
