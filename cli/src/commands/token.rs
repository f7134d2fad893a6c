//! Tokens for scripts and machines.

use std::time::SystemTime;

use drover_api::kinds::{self, Cluster, Object, TokenScope};
use drover_api::rest::CreateToken;

use crate::args::{Output, Token, TokenKind};
use crate::client::Client;
use crate::output::{Columns, print};

const COLUMNS: Columns<Object<kinds::Token>> = (&["ID", "KIND", "USER", "SCOPE", "EXPIRES"], row);

pub(super) fn run(client: &Client, command: Token, output: Output) -> anyhow::Result<()> {
    match command {
        Token::Create { kind, clusters, lifetime, user } => {
            let kind = match kind {
                TokenKind::Bot => kinds::TokenKind::Bot,
                TokenKind::Kubeconfig => kinds::TokenKind::Kubeconfig,
            };
            let scope = scope(client, &clusters)?;
            let lifetime_s = lifetime.map(|lifetime| lifetime.as_secs());
            let created = client.create::<kinds::Token>(&CreateToken { kind, scope, lifetime_s, user })?;
            match (output, &created.secret) {
                // Alone on its line: a script takes it as it is.
                (Output::Table, Some(token)) => println!("{token}"),
                _ => print(output, std::slice::from_ref(&created), (&[], |_| Vec::new()))?,
            }
            Ok(())
        }
        Token::List => print(output, &client.list::<kinds::Token>()?, COLUMNS),
        Token::Revoke { id } => {
            client.delete::<kinds::Token>(&id)?;
            println!("Token {id} revoked: every gateway refuses it.");
            Ok(())
        }
    }
}

/// Clusters by name, as ids.
pub(super) fn scope(client: &Client, clusters: &[String]) -> anyhow::Result<TokenScope> {
    if clusters.is_empty() {
        return Ok(TokenScope::All);
    }
    let ids = clusters.iter().map(|name| Ok(client.read::<Cluster>(name)?.spec.id));
    Ok(TokenScope::Clusters(ids.collect::<anyhow::Result<_>>()?))
}

fn row(token: &Object<kinds::Token>) -> Vec<String> {
    let kinds::Token { id, user, kind, scope, expires_at, .. } = &token.spec;
    let kind = match kind {
        kinds::TokenKind::Bot => "bot",
        kinds::TokenKind::Kubeconfig => "kubeconfig",
        kinds::TokenKind::Login => "login",
    };
    let scope = match scope {
        TokenScope::All => "all".to_owned(),
        TokenScope::Clusters(ids) => ids.join(","),
    };
    let ended = SystemTime::from(*expires_at) <= SystemTime::now();
    let expires = if ended { "expired".to_owned() } else { expires_at.to_string() };
    vec![id.as_str().to_owned(), kind.to_owned(), user.clone(), scope, expires]
}
