//! The console through a gateway: a terminal's login that a browser grants, and a host that has nothing else.

use std::process::Stdio;

use drover_testkit::client::{Client, status};
use drover_testkit::installation::Person;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::control::installed;
use crate::system::soon;

/// A browser, as far as a gateway knows one.
struct Browser {
    client: Client,
    host: String,
    cookie: String,
}

impl Browser {
    async fn send(&self, method: &str, path: &str, form: &str) -> String {
        self.send_to(&self.host, method, path, form).await
    }

    async fn send_to(&self, host: &str, method: &str, path: &str, form: &str) -> String {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: https://{host}\r\nCookie: {}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{form}",
            self.cookie,
            form.len()
        );
        soon(self.client.raw(request.as_bytes())).await.unwrap()
    }

    async fn sign_in(&mut self, name: &str, password: &str) {
        let form = format!("provider=local&name={name}&password={password}");
        let answer = self.send("POST", "/console/sign-in", &form).await;
        assert_eq!(status(&answer).unwrap(), 303, "{answer}");
        let set = answer.lines().find(|line| line.to_lowercase().starts_with("set-cookie: "));
        self.cookie = set.unwrap()["set-cookie: ".len()..].split(';').next().unwrap().to_owned();
    }

    /// What a page's forms carry.
    async fn csrf(&self) -> String {
        let page = self.send("GET", "/console", "").await;
        let (_, rest) = page.split_once("name=\"csrf\" value=\"").unwrap_or_else(|| panic!("{page}"));
        rest.split('"').next().unwrap().to_owned()
    }
}

#[tokio::test]
async fn a_terminal_is_logged_in_by_whoever_grants_it_in_a_browser() {
    let installed = installed("console").await;
    let made = installed.says(&["user", "create", "zoe"]).await.unwrap();
    let password = drover_testkit::installation::drawn_password(&made).unwrap();
    let installation = &installed.installation;
    let host = format!("console.localhost:{}", installation.port);
    let mut browser =
        Browser { client: installation.client().unwrap(), host: host.clone(), cookie: String::new() };

    let terminal: Person = installation.person("terminal");
    let mut login = terminal.drover(["login", &installation.url(), "--ca"]);
    let login = login.arg(installation.data().join("ca.crt")).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut login = login.spawn().unwrap();
    let mut said = BufReader::new(login.stderr.take().unwrap()).lines();
    let first = soon(said.next_line()).await.unwrap().unwrap();
    let code = first.rsplit(' ').next().unwrap().to_owned();
    assert!(first.contains(&format!("https://{host}/console/device?user_code={code}")), "{first}");

    browser.sign_in("zoe", &password).await;
    let confirm = browser.send("GET", &format!("/console/device?user_code={code}"), "").await;
    assert!(confirm.contains("Log it in") && confirm.contains(&code), "{confirm}");
    let form = format!("csrf={}&user_code={code}&decision=grant", browser.csrf().await);
    assert!(browser.send("POST", "/console/device", &form).await.contains("Granted."));
    let output = soon(login.wait_with_output()).await.unwrap();
    let logged_in = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && logged_in.contains("as zoe until"), "{logged_in}");
    let who = soon(drover_testkit::fleet::output(&mut terminal.drover(["whoami"]))).await.unwrap();
    assert!(who.contains("zoe"), "{who}");

    // The login is one of the tokens that the console shows; revoked there, the terminal is out.
    let shown = soon(terminal.drover(["whoami", "-o", "json"]).output()).await.unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    let id = shown[0]["token"]["spec"]["id"].as_str().unwrap();
    let form = format!("csrf={}&id={id}", browser.csrf().await);
    assert!(browser.send("POST", "/console/tokens/revoke", &form).await.contains("is revoked"));
    soon(drover_testkit::fleet::output(&mut terminal.drover(["whoami"]))).await.unwrap_err();
}

#[tokio::test]
async fn the_console_shares_no_host_and_no_session_with_clusters() {
    let installed = installed("console-host").await;
    let _agent = installed.import("console").await;
    let made = installed.says(&["user", "create", "zoe"]).await.unwrap();
    let password = drover_testkit::installation::drawn_password(&made).unwrap();
    let installation = &installed.installation;
    let host = format!("console.localhost:{}", installation.port);
    let main = format!("localhost:{}", installation.port);
    let mut browser = Browser { client: installation.client().unwrap(), host, cookie: String::new() };
    browser.sign_in("zoe", &password).await;
    // Nothing but the console at its host.
    for path in ["/k8s/clusters/console/version", "/v1/self", "/version", "/consoles"] {
        let answer = browser.send("GET", path, "").await;
        assert_eq!(status(&answer).unwrap(), 404, "{path}: {answer}");
    }
    // No console, and no session, at others.
    for path in ["/console", "/console/device", "/"] {
        let answer = browser.send_to(&main, "GET", path, "").await;
        assert_eq!(status(&answer).unwrap(), 404, "{path}: {answer}");
    }
    for path in ["/k8s/clusters/console/version", "/v1/self"] {
        let answer = browser.send_to(&main, "GET", path, "").await;
        assert_eq!(status(&answer).unwrap(), 401, "{path}: {answer}");
    }
    let answer = browser.send("GET", "/", "").await;
    assert_eq!(status(&answer).unwrap(), 303, "{answer}");
    // A token of the API's is no session.
    let token = browser.cookie.split_once('=').unwrap().1.to_owned();
    browser.cookie = String::new();
    let request = format!(
        "GET /console HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n",
        browser.host
    );
    let answer = soon(browser.client.raw(request.as_bytes())).await.unwrap();
    assert!(answer.contains("name=\"password\""), "{answer}");
}
