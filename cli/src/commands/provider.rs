//! Directories that users come from.

use anyhow::bail;
use drover_api::kinds::{self, Access, Directory, JwtRule, Keys, Object};
use drover_api::rest::{CreateProvider, FoundPrincipal};

use super::password;
use crate::args::{AddGithub, AddIssuer, AddLdap, AddOidc, App, LdapServers, Output, Provider, SetServers};
use crate::client::Client;
use crate::files;
use crate::output::{Columns, print};

const COLUMNS: Columns<Object<kinds::Provider>> = (&["NAME", "DIRECTORY", "SERVERS", "ACCESS", "STATE"], row);

const FOUND: Columns<FoundPrincipal> = (&["PRINCIPAL", "NAME", "IS"], found_row);

pub(super) fn run(client: &Client, command: Provider, output: Output) -> anyhow::Result<()> {
    match command {
        Provider::AddLdap(add) => add_ldap(client, *add),
        Provider::AddOidc(add) => {
            let AddOidc { name, issuer, app, scopes, login_claim, groups_claim } = *add;
            let (ca, client_id) = (app.ca.as_deref().map(files::text).transpose()?, app.client_id.clone());
            let oidc = kinds::Oidc { issuer, ca, client_id, scopes, login_claim, groups_claim };
            add_app(client, name, app, Directory::Oidc(oidc))
        }
        Provider::AddGithub(add) => {
            let AddGithub { name, server, app } = *add;
            let (ca, client_id) = (app.ca.as_deref().map(files::text).transpose()?, app.client_id.clone());
            add_app(client, name, app, Directory::Github(kinds::Github { server, ca, client_id }))
        }
        Provider::AddIssuer(add) => add_issuer(client, *add),
        Provider::SetRules { name, rules } => set_rules(client, &name, rules.rules),
        Provider::List => print(output, &client.list::<kinds::Provider>()?, COLUMNS),
        Provider::Test { name } => {
            client.test_provider(&name)?;
            println!("Provider {name} works: what a login asks it for is there.");
            Ok(())
        }
        Provider::SetAccess { name, access, allowed } => {
            let mut provider = client.read::<kinds::Provider>(&name)?;
            (provider.spec.access, provider.spec.allowed) = (access.into(), allowed);
            let changed = client.replace(&provider)?;
            print(output, &[changed], COLUMNS)
        }
        Provider::SetServers(set) => set_servers(client, *set),
        Provider::Search { name, text } => {
            let found = client.search_provider(&name, &text)?;
            print(output, &found.items, FOUND)?;
            if found.more {
                eprintln!("There are more than these: ask for a longer part of the name.");
            }
            Ok(())
        }
        Provider::SetPassword { name, password_stdin } => {
            let password = password(password_stdin, &format!("Password or secret for {name}: "))?;
            client.change_provider_secret(&name, password, None)?;
            println!("Provider {name} works with it.");
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

fn found_row(found: &FoundPrincipal) -> Vec<String> {
    let is = found.display_name.iter().chain(&found.dn).map(String::as_str).collect::<Vec<_>>().join(", ");
    vec![found.principal.clone(), found.name.clone(), is]
}

fn add_ldap(client: &Client, add: AddLdap) -> anyhow::Result<()> {
    let LdapServers { servers, referrals, ca, password_stdin } = add.servers;
    let password = password(password_stdin, &format!("Password of {}: ", add.bind_name))?;
    let ldap = kinds::Ldap {
        servers,
        referrals,
        ca: ca.as_deref().map(files::text).transpose()?,
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

fn add_app(client: &Client, name: String, app: App, directory: Directory) -> anyhow::Result<()> {
    let password = password(app.secret_stdin, &format!("Secret of the client {}: ", app.client_id))?;
    let access = app.access.into();
    let spec =
        kinds::Provider { name: name.clone(), disabled: false, access, allowed: app.allowed, directory };
    client.create::<kinds::Provider>(&CreateProvider { spec, password })?;
    println!("Provider {name} added: it was tried, and works.");
    println!("Next: drover login");
    Ok(())
}

fn add_issuer(client: &Client, add: AddIssuer) -> anyhow::Result<()> {
    let keys = match (add.keys_url, add.keys_file) {
        (Some(url), _) => Keys::Url(url),
        (None, Some(file)) => Keys::Set(files::text(&file)?),
        (None, None) => Keys::Discovery,
    };
    let jwt = kinds::Jwt {
        issuer: add.issuer,
        audience: add.audience.clone(),
        keys,
        ca: add.ca.as_deref().map(files::text).transpose()?,
        rules: add.rules.rules,
    };
    let spec = kinds::Provider {
        name: add.name.clone(),
        disabled: false,
        access: add.access.into(),
        allowed: Vec::new(),
        directory: Directory::Jwt(jwt),
    };
    client.create::<kinds::Provider>(&CreateProvider { spec, password: String::new() })?;
    let AddIssuer { name, audience, .. } = add;
    println!("Provider {name} added: its keys are known.");
    println!("Next: give its identities roles (drover binding create --user {name}:user/NAME ...),");
    println!("and let programs show JWTs for the audience {audience} as bearer tokens.");
    Ok(())
}

fn set_rules(client: &Client, name: &str, rules: Vec<JwtRule>) -> anyhow::Result<()> {
    let mut provider = client.read::<kinds::Provider>(name)?;
    match &mut provider.spec.directory {
        Directory::Jwt(issuer) => issuer.rules = rules,
        Directory::Github(_) | Directory::Ldap(_) | Directory::Oidc(_) => {
            bail!("{name} is no issuer of JWTs: it has no rules")
        }
    }
    client.replace(&provider)?;
    println!("Provider {name} has new rules: JWTs that were shown before are looked at anew.");
    Ok(())
}

fn set_servers(client: &Client, set: SetServers) -> anyhow::Result<()> {
    let SetServers { name, servers: LdapServers { servers, referrals, ca, password_stdin } } = set;
    let mut provider = client.read::<kinds::Provider>(&name)?;
    let Directory::Ldap(ldap) = &mut provider.spec.directory else {
        bail!("{name} is no Active Directory and no LDAP server: add another provider")
    };
    (ldap.servers, ldap.referrals) = (servers, referrals);
    if let Some(ca) = ca {
        ldap.ca = Some(files::text(&ca)?);
    }
    let password = password(password_stdin, &format!("Password of {}: ", ldap.bind_name))?;
    client.change_provider_secret(&name, password, Some(provider))?;
    println!("Provider {name} works with them.");
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
        Directory::Github(github) => {
            ("github", github.server.clone().unwrap_or_else(|| "https://github.com".to_owned()))
        }
        Directory::Oidc(oidc) => ("oidc", oidc.issuer.clone()),
        Directory::Jwt(issuer) => ("jwt", issuer.issuer.clone()),
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
