//! Tokens for scripts and machines.

use std::time::SystemTime;

use drover_api::kinds::{self, Cluster, Object, TokenScope};
use drover_api::rest::CreateToken;
use jiff::Timestamp;
use serde::Serialize;

use crate::args::{Output, Token, TokenKind};
use crate::client::Client;
use crate::output::{Columns, print};

const COLUMNS: Columns<Listed> = (&["ID", "KIND", "USER", "SCOPE", "EXPIRES", "LAST USED"], row);

pub(super) fn run(client: &Client, command: Token, output: Output) -> anyhow::Result<()> {
    match command {
        Token::Create { kind, clusters, lifetime, idle, user } => {
            let kind = match kind {
                TokenKind::Bot => kinds::TokenKind::Bot,
                TokenKind::Kubeconfig => kinds::TokenKind::Kubeconfig,
            };
            let scope = scope(client, &clusters)?;
            let lifetime_s = lifetime.map(|lifetime| lifetime.as_secs());
            let idle_s = idle.map(|idle| idle.as_secs());
            let create = CreateToken { kind, scope, lifetime_s, idle_s, user };
            let created = client.create::<kinds::Token>(&create)?;
            match (output, &created.secret) {
                // Alone on its line: a script takes it as it is.
                (Output::Table, Some(token)) => println!("{token}"),
                _ => print(output, std::slice::from_ref(&created), (&[], |_| Vec::new()))?,
            }
            Ok(())
        }
        Token::List => list(client, output),
        Token::RevokeAll { user } => {
            let user = match user {
                Some(user) => user,
                None => client.who_am_i()?.user.spec.name,
            };
            let revoked = client.revoke_all(&user)?.tokens.len();
            println!("{revoked} tokens of {user} revoked: every gateway refuses them.");
            Ok(())
        }
        Token::Revoke { id } => {
            client.delete::<kinds::Token>(&id)?;
            println!("Token {id} revoked: every gateway refuses it.");
            Ok(())
        }
    }
}

/// A token and its last use, as far as it is known.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    token: Object<kinds::Token>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_at: Option<Timestamp>,
}

fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let mut uses = client.token_uses()?.last_used_at;
    let tokens = client.list::<kinds::Token>()?.into_iter();
    let listed: Vec<_> =
        tokens.map(|token| Listed { last_used_at: uses.remove(token.spec.id.as_str()), token }).collect();
    print(output, &listed, COLUMNS)
}

/// Clusters by name, as ids.
pub(super) fn scope(client: &Client, clusters: &[String]) -> anyhow::Result<TokenScope> {
    if clusters.is_empty() {
        return Ok(TokenScope::All);
    }
    let ids = clusters.iter().map(|name| Ok(client.read::<Cluster>(name)?.spec.id));
    Ok(TokenScope::Clusters(ids.collect::<anyhow::Result<_>>()?))
}

fn row(Listed { token, last_used_at }: &Listed) -> Vec<String> {
    let kinds::Token { id, user, kind, scope, expires_at, .. } = &token.spec;
    let kind = match kind {
        kinds::TokenKind::Bot => "bot",
        kinds::TokenKind::Jwt => "jwt",
        kinds::TokenKind::Kubeconfig => "kubeconfig",
        kinds::TokenKind::Login => "login",
    };
    let scope = match scope {
        TokenScope::All => "all".to_owned(),
        TokenScope::Clusters(ids) => ids.join(","),
    };
    let ended = SystemTime::from(*expires_at) <= SystemTime::now();
    let expires = if ended { "expired".to_owned() } else { expires_at.to_string() };
    let last_used = last_used_at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    vec![id.as_str().to_owned(), kind.to_owned(), user.clone(), scope, expires, last_used]
}
