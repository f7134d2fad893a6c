//! A second OpenID Provider, written by other people in another language: its refresh tokens are good for one use,
//! and its answers to them have no ID token.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use http::Request;
use http::header::{CONTENT_TYPE, COOKIE, HOST, SET_COOKIE};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::process::Command;

use crate::client::Client;
use crate::fleet::output;
use crate::pki;
use crate::process::{Process, free_port, until};

const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A running provider; ends when dropped.
pub struct Glewlwyd {
    pub ca: PathBuf,
    pub issuer: String,
    /// Of its administrator.
    session: String,
    client: Client,
    _process: Process,
}

impl Glewlwyd {
    pub const CLIENT: (&str, &str) = ("drover", "of-drover");
    /// Somebody with groups, and the password.
    pub const PERSON: (&str, &str) = ("carol", "of-carol-1");

    /// With where it is to send browsers back to.
    pub async fn start(folder: &Path, callback: &str) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (files, ca) = pki::local_server(folder, "glewlwyd")?;
        let port = free_port()?;
        let issuer = format!("https://localhost:{port}/api/oidc");
        let database = folder.join("glewlwyd.db");
        let create = format!(
            "zcat /usr/share/doc/glewlwyd/database/init.sqlite3.sql.gz | sqlite3 {}",
            database.display()
        );
        output(Command::new("sh").args(["-c", &create])).await?;
        let (key, public) = (folder.join("jwt.key"), folder.join("jwt.pub"));
        output(Command::new("openssl").args(["genrsa", "-traditional", "-out"]).arg(&key).arg("2048"))
            .await?;
        output(Command::new("openssl").args(["rsa", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public))
            .await?;
        let configuration = folder.join("glewlwyd.conf");
        pki::write(&configuration, &self::configuration(folder, port, &files.cert, &files.key, &ca))?;
        let arguments = ["-c".to_owned(), configuration.display().to_string()];
        let program = Path::new("/usr/bin/glewlwyd");
        let process = Process::start_disposable("glewlwyd", folder, program, arguments).await?;
        let client = Client::at(port, &std::fs::read_to_string(&ca)?, &[])?;
        let admin = json!({ "username": "admin", "password": "password" });
        let session = until("glewlwyd", READY_TIMEOUT, async || {
            Ok(call(&client, "", "POST", "auth/", &admin).await.ok().and_then(|(_, session)| session))
        })
        .await?;
        let provider = Self { ca, issuer, session, client, _process: process };
        provider.set_up(&std::fs::read_to_string(key)?, &std::fs::read_to_string(public)?, callback).await?;
        Ok(provider)
    }

    /// Forgets its person.
    pub async fn forget(&self) -> anyhow::Result<()> {
        let (name, _) = Self::PERSON;
        self.call("DELETE", &format!("user/{name}"), &Value::Null).await.map(drop)
    }

    async fn set_up(&self, key: &str, public: &str, callback: &str) -> anyhow::Result<()> {
        let groups = json!({ "multiple": true, "read": true, "write": true, "profile-read": true, "profile-write": false });
        let users = json!({
            "module": "database", "name": "database", "display_name": "database", "order_rank": 0, "readonly": false,
            "multiple_passwords": false,
            "parameters": { "use-glewlwyd-connection": true, "data-format": { "groups": groups } },
        });
        self.call("PUT", "mod/user/database", &users).await?;
        // What its users may have counts only after these two.
        self.call("PUT", "mod/user/database/reset/", &json!({})).await?;
        self.call("PUT", "mod/user/database/enable/", &json!({})).await?;
        let claim = json!({
            "name": "groups", "user-property": "groups", "type": "string", "mandatory": true, "on-demand": false, "scope": [],
        });
        let plugin = json!({ "module": "oidc", "name": "oidc", "display_name": "OIDC", "parameters": {
            "iss": self.issuer, "jwt-type": "rsa", "jwt-key-size": "256", "key": key, "cert": public,
            "access-token-duration": 300, "refresh-token-duration": 3600, "code-duration": 60,
            "refresh-token-rolling": true, "refresh-token-one-use": "always", "allow-non-oidc": true,
            "auth-type-code-enabled": true, "auth-type-code-revoke-replayed": true, "auth-type-token-enabled": false,
            "auth-type-id-token-enabled": true, "auth-type-none-enabled": false, "auth-type-password-enabled": false,
            "auth-type-client-enabled": false, "auth-type-refresh-enabled": true, "auth-type-device-enabled": false,
            "pkce-allowed": true, "pkce-method-plain-allowed": false, "pkce-required": true, "subject-type": "public",
            "jwks-show": true, "secret-type": "static", "scope": [], "additional-parameters": [], "claims": [claim],
            "name-claim": "mandatory", "email-claim": "mandatory",
        } });
        self.call("POST", "mod/plugin/", &plugin).await?;
        let (name, password) = Self::PERSON;
        let user = json!({
            "username": name, "name": name, "email": "carol@corp.example", "password": password, "enabled": true,
            "scope": ["openid"], "groups": ["engineering", "dev"],
        });
        self.call("POST", "user/", &user).await?;
        let (id, secret) = Self::CLIENT;
        let client = json!({
            "client_id": id, "name": id, "enabled": true, "confidential": true, "password": secret, "client_secret": secret,
            "token_endpoint_auth_method": ["client_secret_basic", "client_secret_post"],
            "redirect_uri": [callback], "authorization_type": ["code", "refresh_token"], "scope": ["openid"],
        });
        self.call("POST", "client/", &client).await.map(drop)
    }

    async fn call(&self, method: &str, path: &str, body: &Value) -> anyhow::Result<Value> {
        call(&self.client, &self.session, method, path, body).await.map(|(answer, _)| answer)
    }
}

/// What its API answers, and a session where it began one.
async fn call(
    client: &Client,
    session: &str,
    method: &str,
    path: &str,
    body: &Value,
) -> anyhow::Result<(Value, Option<String>)> {
    let request = Request::builder().method(method).uri(format!("/api/{path}")).header(HOST, "localhost");
    let request = request.header(CONTENT_TYPE, "application/json").header(COOKIE, session);
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let answer = client.send(request.body(body)?).await?;
    let code = answer.status();
    let cookies = answer.headers().get(SET_COOKIE).and_then(|cookie| cookie.to_str().ok());
    let session = cookies.and_then(|cookie| cookie.split(';').next()).map(str::to_owned);
    let bytes = answer.into_body().collect().await?.to_bytes();
    ensure!(code.is_success(), "{method} {path}: {code} {}", String::from_utf8_lossy(&bytes));
    let answer =
        if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).context("no JSON")? };
    Ok((answer, session))
}

fn configuration(folder: &Path, port: u16, cert: &Path, key: &Path, ca: &Path) -> String {
    let modules: String = [
        ("user_module_path", "user"),
        ("user_middleware_module_path", "user_middleware"),
        ("client_module_path", "client"),
        ("user_auth_scheme_module_path", "scheme"),
        ("plugin_module_path", "plugin"),
    ]
    .map(|(name, folder)| format!("{name}=\"/usr/lib/glewlwyd/{folder}\"\n"))
    .concat();
    let types: Vec<_> =
        [("html", "text/html"), ("css", "text/css"), ("js", "text/javascript"), ("json", "application/json")]
            .map(|(extension, kind)| {
                format!("{{ extension=\".{extension}\" mime_type=\"{kind}\" compress=0 }}")
            })
            .into();
    let types = types.join(", ");
    format!(
        "port={port}\nbind_address=\"127.0.0.1\"\nexternal_url=\"https://localhost:{port}\"\nlogin_url=\"login.html\"\napi_prefix=\"api\"\n\
         static_files_path=\"/usr/share/glewlwyd/webapp/\"\nlog_mode=\"console\"\nlog_level=\"WARNING\"\n\
         cookie_domain=\"localhost\"\ncookie_secure=1\nsession_expiration=2419200\nsession_key=\"GLEWLWYD2_SESSION_ID\"\n\
         admin_scope=\"g_admin\"\nprofile_scope=\"g_profile\"\n{modules}use_secure_connection=true\n\
         secure_connection_key_file=\"{key}\"\nsecure_connection_pem_file=\"{cert}\"\nsecure_connection_ca_file=\"{ca}\"\n\
         static_files_mime_types=({types})\nhash_algorithm=\"SHA512\"\ndatabase={{ type=\"sqlite3\" path=\"{db}\" }};\n",
        key = key.display(),
        cert = cert.display(),
        ca = ca.display(),
        db = folder.join("glewlwyd.db").display(),
    )
}
