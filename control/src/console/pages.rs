//! The console's pages: plain HTML that works without scripts.

use std::fmt::Write;

use drover_api::kinds::{Cluster, Object, Token};

use super::kubeconfig::KUBECONFIG;
use super::{DEVICE, HOME, REVOKE, SIGN_IN, SIGN_OUT, STYLE, letters};
use crate::devices::Waiting;

/// What a page says at its top, of what was just done or refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    None,
    Done(String),
    Problem(String),
}

/// Who is signed in, and what their forms carry so that no other page can send them.
pub(super) struct Session<'a> {
    pub name: &'a str,
    pub csrf: &'a str,
}

/// How people may sign in: with passwords at these providers, and at those themselves.
pub(super) struct Ways<'a> {
    pub passwords: &'a [String],
    pub browsers: &'a [String],
    /// It is for a program on this computer, which shows no code.
    pub for_here: bool,
}

pub(super) fn sign_in(ways: &Ways<'_>, user_code: &str, name: &str, notice: &Notice) -> String {
    let mut options = String::from("<option value=\"local\">Drover</option>");
    for provider in ways.passwords {
        let provider = escaped(provider);
        _ = write!(options, "<option value=\"{provider}\">{provider}</option>");
    }
    let choice = if ways.passwords.is_empty() {
        "<input type=\"hidden\" name=\"provider\" value=\"local\">".to_owned()
    } else {
        format!(
            "<label for=\"provider\">Directory</label><select id=\"provider\" name=\"provider\">{options}</select>"
        )
    };
    let (name, user_code) = (escaped(name), escaped(user_code));
    let why = if ways.for_here {
        "<p>To log in the program on this computer that has opened this page.</p>".to_owned()
    } else if user_code.is_empty() {
        String::new()
    } else {
        format!("<p>To log in the terminal that shows <strong class=\"code\">{user_code}</strong>.</p>")
    };
    let mut links = String::new();
    let letters = letters(&user_code);
    for provider in ways.browsers {
        let provider = escaped(provider);
        _ = write!(
            links,
            "<a class=\"button\" href=\"{SIGN_IN}/{provider}?user_code={letters}\">Sign in with {provider}</a>"
        );
    }
    let links = if links.is_empty() { links } else { format!("<nav class=\"ways\">{links}</nav>") };
    // Of somebody who has said who they are, the password was wrong.
    let (at_name, at_password) = if name.is_empty() { (" autofocus", "") } else { ("", " autofocus") };
    let body = format!(
        "{why}{links}<form method=\"post\" action=\"{SIGN_IN}\">{choice}\
         <label for=\"name\">Name</label>\
         <input id=\"name\" name=\"name\" value=\"{name}\" autocomplete=\"username\" autocapitalize=\"none\" spellcheck=\"false\" required{at_name}>\
         <label for=\"password\">Password</label>\
         <input id=\"password\" name=\"password\" type=\"password\" autocomplete=\"current-password\" required{at_password}>\
         <input type=\"hidden\" name=\"user_code\" value=\"{user_code}\">\
         <button>Sign in</button></form>"
    );
    page("Sign in", None, notice, &body)
}

/// Goes on by itself, to where no form and no answer from elsewhere leads a browser.
pub(super) fn going(title: &str, next: &str) -> String {
    let next = escaped(next);
    let body = format!(
        "<meta http-equiv=\"refresh\" content=\"0; url={next}\"><p><a class=\"button\" href=\"{next}\">Continue</a></p>"
    );
    page(title, None, &Notice::None, &body)
}

/// Asks for the code that a terminal shows.
pub(super) fn enter_code(session: &Session<'_>, user_code: &str, notice: &Notice) -> String {
    let user_code = escaped(user_code);
    let body = format!(
        "<p>Your terminal shows a code. Enter it here to log that terminal in as you.</p>\
         <form method=\"get\" action=\"{DEVICE}\"><label for=\"code\">Code</label>\
         <input id=\"code\" name=\"user_code\" class=\"code\" value=\"{user_code}\" placeholder=\"XXXX-XXXX\" autocomplete=\"off\" \
         autocapitalize=\"characters\" spellcheck=\"false\" required autofocus><button>Continue</button></form>"
    );
    page("Log in a terminal", Some(session), notice, &body)
}

pub(super) fn confirm(session: &Session<'_>, waiting: &Waiting) -> String {
    let (name, code, csrf) = (escaped(session.name), escaped(&waiting.user_code), escaped(session.csrf));
    let known_by = if waiting.is_here {
        "<p>It is a program on this computer: grant it only if you have just started it yourself.</p>"
            .to_owned()
    } else {
        format!(
            "<p class=\"code\" aria-label=\"The code\">{code}</p>\
             <p>Grant it only if you have just started it yourself, and it shows this code. Nobody from support will ever send you one.</p>"
        )
    };
    let body = format!(
        "<p>A program asks to be logged in as <strong>{name}</strong>, with all that you may do, for 12 hours.</p>{known_by}\
         <form method=\"post\" action=\"{DEVICE}\"><input type=\"hidden\" name=\"csrf\" value=\"{csrf}\">\
         <input type=\"hidden\" name=\"user_code\" value=\"{code}\">\
         <button name=\"decision\" value=\"grant\">Log it in</button> \
         <button name=\"decision\" value=\"deny\" class=\"quiet\">It was not me</button></form>"
    );
    page("Log in a terminal?", Some(session), &Notice::None, &body)
}

pub(super) fn home(
    session: &Session<'_>,
    clusters: &[String],
    downloads: bool,
    tokens: &[Object<Token>],
    own: &str,
    notice: &Notice,
) -> String {
    let mut body = format!("<p><a href=\"{DEVICE}\">Log in a terminal</a></p><h2>Clusters</h2>");
    if clusters.is_empty() {
        body.push_str("<p>You have no role in any cluster yet. Who manages Drover gives you one.</p>");
    } else {
        body.push_str("<p>In a terminal, once: <code>drover kubeconfig</code>. Then:</p><ul>");
        for cluster in clusters {
            let cluster = escaped(cluster);
            _ = write!(
                body,
                "<li><strong>{cluster}</strong> <code>kubectl --context {cluster} get namespaces</code></li>"
            );
        }
        body.push_str("</ul>");
        if downloads {
            let csrf = escaped(session.csrf);
            _ = write!(
                body,
                "<form method=\"post\" action=\"{KUBECONFIG}\"><input type=\"hidden\" name=\"csrf\" value=\"{csrf}\">\
                 <button class=\"quiet\" aria-describedby=\"kubeconfig\">Download a kubeconfig</button>\
                 <p id=\"kubeconfig\">For machines without <code>drover</code>: it holds a token of its own, for 30 days, which is \
                 listed below and can be revoked there.</p></form>"
            );
        }
    }
    body.push_str(
        "<h2>Tokens</h2><table><thead><tr><th scope=\"col\">Token</th><th scope=\"col\">For</th><th scope=\"col\">Until</th>\
         <th scope=\"col\"><span class=\"hidden\">Revoke</span></th></tr></thead><tbody>",
    );
    let csrf = escaped(session.csrf);
    for Object { spec, .. } in tokens {
        let id = escaped(spec.id.as_str());
        let kind = match spec.kind {
            drover_api::kinds::TokenKind::Bot => "a script or machine",
            drover_api::kinds::TokenKind::Jwt => "a JWT",
            drover_api::kinds::TokenKind::Kubeconfig => "a kubeconfig",
            drover_api::kinds::TokenKind::Login if spec.id.as_str() == own => "this browser",
            drover_api::kinds::TokenKind::Login => "a login",
        };
        let until = escaped(&spec.expires_at.strftime("%Y-%m-%d %H:%M UTC").to_string());
        _ = write!(
            body,
            "<tr><td><code>{id}</code></td><td>{kind}</td><td>{until}</td><td><form method=\"post\" action=\"{REVOKE}\">\
             <input type=\"hidden\" name=\"csrf\" value=\"{csrf}\"><input type=\"hidden\" name=\"id\" value=\"{id}\">\
             <button class=\"quiet\" aria-label=\"Revoke token {id}\">Revoke</button></form></td></tr>"
        );
    }
    body.push_str("</tbody></table>");
    page("Drover", Some(session), notice, &body)
}

/// Names of clusters, in order.
pub(super) fn names(clusters: impl IntoIterator<Item = Cluster>) -> Vec<String> {
    let mut names: Vec<_> = clusters.into_iter().map(|cluster| cluster.name).collect();
    names.sort();
    names
}

pub(super) fn message(title: &str, notice: &Notice) -> String {
    page(title, None, notice, &format!("<p><a href=\"{HOME}\">To the console</a></p>"))
}

fn page(title: &str, session: Option<&Session<'_>>, notice: &Notice, body: &str) -> String {
    let title = escaped(title);
    let header = session.map_or_else(String::new, |session| {
        let (name, csrf) = (escaped(session.name), escaped(session.csrf));
        format!(
            "<form method=\"post\" action=\"{SIGN_OUT}\" class=\"who\"><span>{name}</span>\
             <input type=\"hidden\" name=\"csrf\" value=\"{csrf}\"><button class=\"quiet\">Sign out</button></form>"
        )
    });
    let notice = match notice {
        Notice::None => String::new(),
        Notice::Done(text) => format!("<p class=\"done\" role=\"status\">{}</p>", escaped(text)),
        Notice::Problem(text) => format!("<p class=\"problem\" role=\"alert\">{}</p>", escaped(text)),
    };
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{title} · Drover</title>\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><link rel=\"stylesheet\" href=\"{STYLE}\"></head>\
         <body><header><a href=\"{HOME}\" class=\"mark\">Drover</a>{header}</header>\
         <main><h1>{title}</h1>{notice}{body}</main></body></html>"
    )
}

/// Text as HTML, in elements and in quoted attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_typed_stays_text() {
        let hostile = "\"><script>alert('x')</script>&";
        let session = Session { name: hostile, csrf: hostile };
        let notice = Notice::Problem(hostile.to_owned());
        let names = [hostile.to_owned()];
        for page in [
            sign_in(
                &Ways { passwords: &names, browsers: &names, for_here: false },
                hostile,
                hostile,
                &notice,
            ),
            going(hostile, hostile),
            enter_code(&session, hostile, &notice),
            confirm(&session, &Waiting { user_code: hostile.to_owned(), is_here: false }),
            home(&session, &[hostile.to_owned()], true, &[], hostile, &notice),
            message(hostile, &notice),
        ] {
            assert!(!page.contains("<script") && !page.contains("('x')"), "{page}");
        }
    }
}
