//! Arguments of `drover provider`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use drover_api::kinds::{self, JwtRule};

#[derive(Subcommand)]
pub(crate) enum Provider {
    /// Let users of Active Directory or another LDAP server log in. It is tried first: what does not work is not kept.
    AddLdap(Box<AddLdap>),
    /// Let people log in in a browser, at an OpenID Provider. It is tried first.
    AddOidc(Box<AddOidc>),
    /// Let people log in in a browser, at GitHub or a GitHub Enterprise server. It is tried first.
    AddGithub(Box<AddGithub>),
    /// Let programs show JWTs of an issuer: of a CI system, or of a cluster for its service accounts.
    AddIssuer(Box<AddIssuer>),
    List,
    /// Replace the rules of an issuer of JWTs. Those that were shown before are looked at anew.
    SetRules {
        name: String,
        #[command(flatten)]
        rules: Rules,
    },
    /// Try one: all that a login asks it for, but what a person brings.
    Test {
        name: String,
    },
    /// Find users and groups by a part of their names, and what bindings call them; at GitHub, by a whole name.
    Search {
        name: String,
        text: String,
    },
    /// Say anew who may log in through one.
    SetAccess {
        name: String,
        #[arg(long, value_enum)]
        access: Access,
        /// Principal of a user or group that may log in; repeat the flag for more. Those before are forgotten.
        #[arg(long = "allow", value_name = "PRINCIPAL")]
        allowed: Vec<String>,
    },
    /// Ask an Active Directory or LDAP server elsewhere from here on. It is tried first, with the password of who searches, which
    /// has to be given again: what is kept is shown to no server that it was not given for. Servers from before are forgotten; the
    /// authority stays where none is named.
    SetServers(Box<SetServers>),
    /// Give one another password of who searches, or another client's secret. It is tried first.
    SetPassword {
        name: String,
        /// Read it from the standard input.
        #[arg(long)]
        password_stdin: bool,
    },
    /// Let nobody log in through it from here on; who is logged in stays so, but an issuer's JWTs end at once.
    Disable {
        name: String,
    },
    Enable {
        name: String,
    },
    /// Forget one: a directory of which no user and no binding is left, or an issuer of JWTs, which end at once.
    Delete {
        name: String,
    },
}

#[derive(Args)]
pub(crate) struct AddLdap {
    /// What its users and groups are known by, such as ad: it does not change.
    pub name: String,
    #[command(flatten)]
    pub servers: LdapServers,
    #[arg(long, value_enum, default_value_t)]
    pub schema: Schema,
    /// Who searches: a DN, or in Active Directory also name@domain.
    #[arg(long, value_name = "NAME")]
    pub bind_name: String,
    /// Where users are, such as DC=corp,DC=example.
    #[arg(long, value_name = "DN")]
    pub user_base: String,
    /// Where groups are; by default where users are.
    #[arg(long, value_name = "DN")]
    pub group_base: Option<String>,
    /// What users must match, such as (department=IT).
    #[arg(long, value_name = "FILTER")]
    pub user_filter: Option<String>,
    /// What may stand before a name, as CORP in CORP\alice.
    #[arg(long)]
    pub domain: Option<String>,
    #[arg(long, value_enum, default_value_t)]
    pub access: Access,
    /// Principal of a user or group that may log in; repeat the flag for more.
    #[arg(long = "allow", value_name = "PRINCIPAL")]
    pub allowed: Vec<String>,
}

#[derive(Args)]
pub(crate) struct SetServers {
    pub name: String,
    #[command(flatten)]
    pub servers: LdapServers,
}

/// Where an LDAP directory is, and the password that is shown there.
#[derive(Args)]
pub(crate) struct LdapServers {
    /// ldaps://HOST, or ldap://HOST for StartTLS; repeat the flag for more, which are tried in this order.
    #[arg(long = "server", required = true, value_name = "URL")]
    pub servers: Vec<String>,
    /// Another server, to which references (RFC 4511) are followed: it is asked with the same name and password; repeat the flag for
    /// more. References to any other are not followed.
    #[arg(long = "referral", value_name = "URL")]
    pub referrals: Vec<String>,
    /// Authority of their certificates (PEM), where the system does not know it.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// Read the password of who searches from the standard input.
    #[arg(long)]
    pub password_stdin: bool,
}

#[derive(Args)]
pub(crate) struct AddOidc {
    /// What its users and groups are known by, such as okta: it does not change.
    pub name: String,
    /// As the provider writes it, such as the one of corp.okta.com.
    #[arg(long, value_name = "URL")]
    pub issuer: String,
    #[command(flatten)]
    pub app: App,
    /// Ask for this scope, and openid; repeat the flag for more. Without offline_access groups follow at logins only.
    #[arg(long = "scope", default_values = ["profile", "email", "groups", "offline_access"])]
    pub scopes: Vec<String>,
    /// The claim that people are called by.
    #[arg(long, default_value = "preferred_username", value_name = "CLAIM")]
    pub login_claim: String,
    /// The claim with their groups.
    #[arg(long, default_value = "groups", value_name = "CLAIM")]
    pub groups_claim: String,
}

#[derive(Args)]
pub(crate) struct AddGithub {
    /// What its users and groups are known by, such as github: it does not change.
    pub name: String,
    /// A GitHub Enterprise server, https://HOST; by default github.com.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
    #[command(flatten)]
    pub app: App,
}

/// What Drover is at a provider. Its redirect URI there is https://CONSOLE/console/callback.
#[derive(Args)]
pub(crate) struct App {
    /// Drover's client id there.
    #[arg(long)]
    pub client_id: String,
    /// Read the client's secret from the standard input.
    #[arg(long)]
    pub secret_stdin: bool,
    /// Authority of the provider's certificate (PEM), where the system does not know it.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    pub access: Access,
    /// Principal of a user or group that may log in; repeat the flag for more.
    #[arg(long = "allow", value_name = "PRINCIPAL")]
    pub allowed: Vec<String>,
}

#[derive(Args)]
pub(crate) struct AddIssuer {
    /// What its identities are known by, such as actions: it does not change.
    pub name: String,
    /// The claim iss, exactly, such as that of token.actions.githubusercontent.com, with https:// before it.
    #[arg(long, value_name = "URL")]
    pub issuer: String,
    /// The claim aud that JWTs for Drover have, and no others.
    #[arg(long, default_value = "drover")]
    pub audience: String,
    /// Where its keys are; by default where ISSUER/.well-known/openid-configuration says.
    #[arg(long, value_name = "URL", conflicts_with = "keys_file")]
    pub keys_url: Option<String>,
    /// Its keys (a JWK Set), where control cannot reach it: kubectl get --raw /openid/v1/jwks
    #[arg(long, value_name = "FILE")]
    pub keys_file: Option<PathBuf>,
    /// Authority of its server's certificate (PEM), where the system does not know it.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    #[command(flatten)]
    pub rules: Rules,
    #[arg(long, value_enum, default_value_t)]
    pub access: Access,
}

#[derive(Args)]
pub(crate) struct Rules {
    /// An identity, and all that the claims of its JWTs must be, as deploy:repository_id=42,ref=refs/heads/main;
    /// /A/B is the claim B in A. Repeat the flag for more: the first that matches counts.
    #[arg(long = "rule", required = true, value_name = "NAME:CLAIM=VALUE,...", value_parser = rule)]
    pub rules: Vec<JwtRule>,
}

fn rule(text: &str) -> Result<JwtRule, String> {
    let malformed = || "must be NAME:CLAIM=VALUE,CLAIM=VALUE, as deploy:repository_id=42".to_owned();
    let (name, claims) = text.split_once(':').ok_or_else(malformed)?;
    let mut rule = JwtRule { name: name.to_owned(), claims: BTreeMap::new() };
    for claim in claims.split(',') {
        let (claim, value) = claim.split_once('=').ok_or_else(malformed)?;
        if claim.is_empty() || value.is_empty() || name.is_empty() {
            return Err(malformed());
        }
        if rule.claims.insert(claim.to_owned(), value.to_owned()).is_some() {
            return Err(format!("has the claim {claim} twice"));
        }
    }
    Ok(rule)
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum Schema {
    /// sAMAccountName, objectSid, and nested groups by the matching rule in chain.
    #[default]
    ActiveDirectory,
    /// uid and entryUUID, as OpenLDAP has them.
    InetOrgPerson,
}

#[derive(Clone, Copy, Default, ValueEnum)]
pub(crate) enum Access {
    /// Only who is allowed by name or group.
    Required,
    /// Those, and whoever has a role.
    #[default]
    Restricted,
    /// Everybody whom the directory knows.
    Unrestricted,
}

impl From<Schema> for kinds::Schema {
    fn from(schema: Schema) -> Self {
        match schema {
            Schema::ActiveDirectory => Self::ActiveDirectory,
            Schema::InetOrgPerson => Self::InetOrgPerson,
        }
    }
}

impl From<Access> for kinds::Access {
    fn from(access: Access) -> Self {
        match access {
            Access::Required => Self::Required,
            Access::Restricted => Self::Restricted,
            Access::Unrestricted => Self::Unrestricted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_name_and_claims() {
        let read = rule("deploy:sub=system:serviceaccount:ci:bot,/kubernetes.io/namespace=ci").unwrap();
        assert_eq!(read.name, "deploy");
        assert_eq!(read.claims["sub"], "system:serviceaccount:ci:bot");
        assert_eq!(read.claims["/kubernetes.io/namespace"], "ci");
        for malformed in [
            "",
            "deploy",
            "deploy:",
            "deploy:sub",
            "deploy:sub=",
            "deploy:=x",
            ":sub=x",
            "deploy:a=1,",
            "d:a=1,a=2",
        ] {
            assert!(rule(malformed).is_err(), "{malformed}");
        }
    }
}
