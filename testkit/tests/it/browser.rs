//! A real browser in the console, as people use it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use drover_testkit::client::post;
use drover_testkit::directories::OpenLdap;
use drover_testkit::fleet::output;
use drover_testkit::image::BUSYBOX;
use drover_testkit::installation::Installation;
use drover_testkit::process::{Process, free_port, until};
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;

use crate::control::installed;
use crate::directories::{add, skipped};
use crate::pods::noded;
use crate::system::{DEADLINE, folder, soon};

/// How long a script of a test may take.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(10);

/// What Chromium says of a page whose connection it gave up because some interface came or went.
const NETWORK_CHANGED: &str = "ERR_NETWORK_CHANGED";

/// Chromium and what drives it; both end when dropped.
pub(crate) struct Chromium {
    pub(crate) page: Client,
    /// Of what drives it.
    url: String,
    profile: PathBuf,
    _driver: Process,
}

impl Chromium {
    pub(crate) async fn start(folder: &Path) -> Self {
        let port = free_port().unwrap();
        let arguments = [format!("--port={port}")];
        let program = Path::new("/usr/bin/chromedriver");
        let driver = Process::start("chromedriver", folder, program, arguments).await.unwrap();
        let place = folder.join("profile");
        let profile = format!("--user-data-dir={}", place.display());
        // The tests' authority is none of the system's; and root has no sandbox.
        let options =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors", &profile];
        let mut capabilities = Map::new();
        capabilities.insert("goog:chromeOptions".into(), json!({ "args": options }));
        capabilities.insert("timeouts".into(), json!({ "script": SCRIPT_TIMEOUT.as_millis() as u64 }));
        let url = format!("http://127.0.0.1:{port}");
        let page = until("the browser", DEADLINE, async || {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            Ok(builder.capabilities(capabilities.clone()).connect(&url).await.ok())
        });
        Self { page: page.await.unwrap(), url, profile: place, _driver: driver }
    }

    pub(crate) async fn open(&self, url: &str) {
        until(url, DEADLINE, async || match self.page.goto(url).await {
            Err(error) if error.to_string().contains(NETWORK_CHANGED) => Ok(None),
            gone => gone.map(Some).map_err(Into::into),
        })
        .await
        .unwrap();
    }

    /// Types where the cursor is.
    pub(crate) async fn types(&self, keys: &str) {
        let focused = soon(self.page.active_element()).await.unwrap();
        soon(focused.send_keys(keys)).await.unwrap();
    }

    pub(crate) async fn click(&self, css: &str) {
        // A page may be on its way.
        let found = until(css, DEADLINE, async || {
            self.text().await;
            Ok(self.page.find(Locator::Css(css)).await.ok())
        });
        soon(found.await.unwrap().click()).await.unwrap();
    }

    /// What the page says; nothing while it is on its way out. One that did not come because this machine's network
    /// changed, as other tests' nodes change it, is asked for again.
    async fn text(&self) -> String {
        let Ok(body) = self.page.find(Locator::Css("body")).await else { return String::new() };
        let text = body.text().await.unwrap_or_default();
        if text.contains(NETWORK_CHANGED) {
            drop(self.page.refresh().await);
        }
        text
    }

    /// Waits until the page says something.
    pub(crate) async fn says(&self, text: &str) {
        let mut shown = String::new();
        let said = until(text, DEADLINE, async || {
            shown = self.text().await;
            Ok(shown.contains(text).then_some(()))
        })
        .await;
        if let Err(error) = said {
            panic!("{error}; {:?} shows {shown:?}", self.page.current_url().await);
        }
    }

    /// Has it send a field with every request, as extensions of browsers do.
    async fn sends(&self, name: &str, value: &str) {
        let session = soon(self.page.session_id()).await.unwrap().unwrap();
        let url = format!("{}/session/{session}/goog/cdp/execute", self.url);
        for (command, parameters) in [
            ("Network.enable", json!({})),
            ("Network.setExtraHTTPHeaders", json!({ "headers": { name: value } })),
        ] {
            let body = json!({ "cmd": command, "params": parameters }).to_string();
            soon(post(&url, &body)).await.unwrap();
        }
    }

    /// Grants a terminal the login that it asks for: the terminal then says as whom.
    pub(crate) async fn grants(&self, login: Child, user: &str) {
        self.says(&format!("A program asks to be logged in as {user}")).await;
        self.click("button[value=grant]").await;
        self.says("Granted.").await;
        let output = soon(login.wait_with_output()).await.unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && said.contains(&format!("as {user} until")), "{said}");
    }

    /// What a script of the page's own gives.
    pub(crate) async fn script(&self, script: &str) -> Value {
        soon(self.page.execute_async(script, Vec::new())).await.unwrap()
    }
}

impl Drop for Chromium {
    /// A browser outlives what drives it, where a test fails before it closes its page: its profile names its process.
    fn drop(&mut self) {
        let Ok(lock) = std::fs::read_link(self.profile.join("SingletonLock")) else { return };
        let lock = lock.to_string_lossy().into_owned();
        if let Some((_, id)) = lock.rsplit_once('-').filter(|(_, id)| id.parse::<u32>().is_ok()) {
            drop(std::process::Command::new("kill").arg(id).status());
        }
    }
}

/// `drover login`, and the address that it asks to be opened.
pub(crate) async fn terminal(
    installation: &Installation,
    name: &str,
) -> (Child, String, Lines<BufReader<ChildStderr>>) {
    let mut login = installation.person(name).drover(["login", &installation.url(), "--ca"]);
    let login = login.arg(installation.data().join("ca.crt")).stderr(Stdio::piped()).stdout(Stdio::piped());
    let mut login = login.spawn().unwrap();
    let mut lines = BufReader::new(login.stderr.take().unwrap()).lines();
    let first = soon(lines.next_line()).await.unwrap().unwrap();
    let url = first.split(' ').find(|word| word.starts_with("https://")).unwrap().to_owned();
    (login, url, lines)
}

#[tokio::test]
async fn somebody_of_a_directory_logs_a_terminal_in_with_the_keyboard_alone() {
    if skipped() {
        return;
    }
    let installed = installed("browser").await;
    let ldap = soon(OpenLdap::start(&folder("browser-ldap"))).await.unwrap();
    add(&installed, &ldap, &["--access", "unrestricted"]).await.unwrap();
    let chromium = Chromium::start(&folder("browser-chromium")).await;
    let (login, url, _lines) = terminal(&installed.installation, "terminal").await;
    chromium.open(&url).await;
    chromium.says("To log in the terminal that shows").await;
    // The cursor is at the name; the directory is chosen before it.
    chromium.click("#provider option[value=corp]").await;
    chromium.click("#name").await;
    chromium.types("bob\u{e004}").await;
    chromium.types("wrong\u{e007}").await;
    chromium.says("The name or the password is wrong.").await;
    chromium.click("#provider option[value=corp]").await;
    chromium.click("#password").await;
    chromium.types(&format!("{}\u{e007}", OpenLdap::PASSWORD)).await;
    chromium.grants(login, "bob@corp").await;

    // Another, which is refused.
    let (login, url, _lines) = terminal(&installed.installation, "another").await;
    chromium.open(&url).await;
    chromium.click("button[value=deny]").await;
    chromium.says("Refused.").await;
    assert!(!soon(login.wait_with_output()).await.unwrap().status.success());

    chromium.click(".who button").await;
    chromium.says("Sign in").await;
    soon(chromium.page.clone().close()).await.unwrap();
}

#[tokio::test]
async fn a_browser_on_the_same_machine_brings_the_terminal_its_code() {
    if skipped() {
        return;
    }
    let installed = installed("browser-loopback").await;
    let made = installed.says(&["user", "create", "zoe"]).await.unwrap();
    let password = drover_testkit::installation::drawn_password(&made).unwrap();
    let chromium = Chromium::start(&folder("browser-loopback-chromium")).await;
    let installation = &installed.installation;
    // What people have as their browser writes down what it is to open.
    let place = folder("browser-loopback-opener");
    let (opener, opened) = (place.join("open"), place.join("opened"));
    std::fs::write(&opener, format!("#!/bin/sh\necho \"$1\" >{0}.new && mv {0}.new {0}\n", opened.display()))
        .unwrap();
    std::fs::set_permissions(&opener, std::fs::Permissions::from_mode(0o755)).unwrap();
    let begin = |name: &str| {
        drop(std::fs::remove_file(&opened));
        let mut login = installation.person(name).drover(["login", &installation.url(), "--ca"]);
        login.arg(installation.data().join("ca.crt")).env("BROWSER", &opener).env_remove("SSH_CONNECTION");
        login.env_remove("SSH_TTY").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let address = async || {
        let read = async || Ok(std::fs::read_to_string(&opened).ok());
        until("the browser to be opened", DEADLINE, read).await.unwrap().trim().to_owned()
    };
    let login = begin("here");
    chromium.open(&address().await).await;
    chromium.click("#name").await;
    chromium.types("zoe\u{e004}").await;
    chromium.types(&format!("{password}\u{e007}")).await;
    chromium.says("It is a program on this computer").await;
    chromium.click("button[value=grant]").await;
    chromium.says("You are logged in. This page can be closed.").await;
    let said = soon(login.wait_with_output()).await.unwrap();
    assert!(String::from_utf8_lossy(&said.stdout).contains("as zoe until"), "{said:?}");
    let who = soon(output(&mut installation.person("here").drover(["whoami"]))).await.unwrap();
    assert!(who.contains("zoe"), "{who}");

    // Twenty kubectls that find the login at its end make one more, and share it.
    let config = installation.person("here").config;
    let kept = std::fs::read_to_string(&config).unwrap();
    let mut ended: Value = serde_json::from_str(&kept).unwrap();
    ended["expires_at"] = "2020-01-01T00:00:00Z".into();
    std::fs::write(&config, ended.to_string()).unwrap();
    drop(std::fs::remove_file(&opened));
    let mut kubectls = JoinSet::new();
    for _ in 0..20 {
        // Somebody sits there: with a terminal of its own for each.
        let mut ask = Command::new("script");
        ask.args(["-qec", &format!("{} credential", installation.drover.display()), "/dev/null"]);
        ask.env("DROVER_CONFIG", &config)
            .env("BROWSER", &opener)
            .env_remove("SSH_CONNECTION")
            .env_remove("SSH_TTY");
        let ask = ask.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        kubectls.spawn(soon(ask.wait_with_output()));
    }
    chromium.open(&address().await).await;
    chromium.click("button[value=grant]").await;
    chromium.says("You are logged in. This page can be closed.").await;
    let mut tokens = BTreeSet::new();
    while let Some(said) = kubectls.join_next().await {
        let said = said.unwrap().unwrap();
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.status.success(), "{text}");
        tokens.insert(text.split("\"token\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned());
    }
    assert_eq!(tokens.len(), 1, "{tokens:?}");

    let login = begin("refused");
    chromium.open(&address().await).await;
    chromium.click("button[value=deny]").await;
    chromium.says("Nobody is logged in. This page can be closed.").await;
    let said = soon(login.wait_with_output()).await.unwrap();
    assert!(String::from_utf8_lossy(&said.stderr).contains("refused in the browser"), "{said:?}");
    soon(chromium.page.clone().close()).await.unwrap();
}

#[tokio::test]
async fn no_page_of_another_origin_reads_the_console_or_acts_in_it() {
    if skipped() {
        return;
    }
    let installed = installed("browser-origin").await;
    let made = installed.says(&["user", "create", "zoe"]).await.unwrap();
    let password = drover_testkit::installation::drawn_password(&made).unwrap();
    let port = installed.installation.port;
    let console = format!("https://console.localhost:{port}");
    let chromium = Chromium::start(&folder("browser-origin-chromium")).await;
    chromium.open(&console).await;
    chromium.types("zoe\u{e004}").await;
    chromium.types(&format!("{password}\u{e007}")).await;
    chromium.says("Sign out").await;
    // Not even a script in the console's own page reads the session, or sends anything.
    assert_eq!(chromium.script("arguments[0](document.cookie)").await, "");
    let fetch = |url: &str| {
        format!(
            "const done = arguments[0]; fetch('{url}', {{ credentials: 'include' }}).then(r => r.text()).then(done, e => done('blocked'))"
        )
    };
    assert_eq!(chromium.script(&fetch(&format!("{console}/console"))).await, "blocked");
    // Where clusters' pages are.
    chromium.open(&format!("https://localhost:{port}/k8s/clusters/none/")).await;
    assert_eq!(chromium.script(&fetch(&format!("{console}/console"))).await, "blocked");
    let framed = format!(
        "const done = arguments[0]; const frame = document.createElement('iframe'); frame.src = '{console}/console'; \
         frame.onload = () => {{ let seen; try {{ seen = frame.contentDocument ? 'read' : 'closed' }} catch (e) {{ seen = 'closed' }}; done(seen) }}; \
         document.body.append(frame)"
    );
    assert_eq!(chromium.script(&framed).await, "closed");
    // A form of theirs brings no session, and is refused for where it comes from.
    let form = format!(
        "const form = document.createElement('form'); form.method = 'post'; form.action = '{console}/console/sign-out'; \
         form.innerHTML = '<input name=csrf value=0>'; document.body.append(form); form.submit(); arguments[0]('sent')"
    );
    assert_eq!(chromium.script(&form).await, "sent");
    chromium.says("That did not come from here").await;
    chromium.open(&format!("{console}/console")).await;
    chromium.says("Sign out").await;
    soon(chromium.page.clone().close()).await.unwrap();
}

/// What a page of somebody's pod tries: to read the console, to have its cookies or make some, to frame it, to send its
/// forms. It says in its body what came of each.
const HOSTILE: &str = r#"<!doctype html><body><script>
const console_ = location.origin.replace('//', '//console.') + '/console', said = [];
const say = (what, result) => { said.push(what + '=' + result); if (said.length === 5) document.body.innerText = said.sort().join(' '); };
const quiet = promise => promise.then(() => 'got', () => 'blocked');
quiet(fetch(console_, { credentials: 'include' }).then(answer => answer.text())).then(result => say('read', result));
quiet(fetch(console_ + '/sign-out', { method: 'POST', credentials: 'include', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: 'csrf=0' })).then(result => say('write', result));
document.cookie = '__Host-drover=evil; Secure; Path=/; Domain=console.localhost';
document.cookie = '__Host-drover-away=evil; Secure; Path=/; Domain=localhost';
say('cookies', document.cookie.includes('evil') ? 'made' : 'none');
const opened = window.open(console_); setTimeout(() => { let seen; try { seen = opened.document.body ? 'got' : 'none' } catch { seen = 'blocked' } say('window', opened ? seen : 'blocked') }, 1500);
const frame = document.createElement('iframe'); frame.src = console_;
frame.onload = () => { let seen; try { seen = frame.contentDocument && frame.contentDocument.body.innerText ? 'got' : 'blocked' } catch { seen = 'blocked' } say('frame', seen) };
document.body.append(frame);
</script>"#;

#[tokio::test]
async fn a_hostile_page_of_a_pod_reaches_nothing_of_the_console() {
    let (false, Some(noded)) = (skipped(), noded()) else { return };
    let installed = installed("browser-pod").await;
    installed.says(&["cluster", "create", "noded"]).await.unwrap();
    let kubeconfig = &noded.plane.admin_kubeconfig;
    let _agent = soon(installed.installation.import(&installed.admin, "noded", kubeconfig)).await.unwrap();
    let pod = "browser-hostile";
    let image = format!("--image={BUSYBOX}");
    let serve = format!(
        "mkdir /tmp/w; cat > /tmp/w/index.html <<'EOF'\n{HOSTILE}\nEOF\nexec httpd -f -p 8080 -h /tmp/w"
    );
    // On its node's network, where this cluster's API server reaches it.
    let overrides = r#"--overrides={"spec":{"hostNetwork":true}}"#;
    let run = [
        "run",
        pod,
        &image,
        "--restart=Never",
        "--image-pull-policy=Never",
        overrides,
        "--command",
        "--",
        "sh",
        "-c",
        &serve,
    ];
    soon(output(noded.plane.kubectl().args(run))).await.unwrap();

    let port = installed.installation.port;
    let made = installed.says(&["user", "create", "zoe"]).await.unwrap();
    let password = drover_testkit::installation::drawn_password(&made).unwrap();
    let token = installed.says(&["token", "create"]).await.unwrap().trim().to_owned();
    let page = format!("/k8s/clusters/noded/api/v1/namespaces/default/pods/http:{pod}:8080/proxy/");
    let client = installed.installation.client().unwrap();
    let mut last = String::new();
    let served = until("the pod's page", DEADLINE, async || {
        let path = page.strip_prefix("/k8s/clusters/noded").unwrap();
        let (code, said) = client.get("noded", path, &token).await?;
        last = format!("{code} {said}");
        Ok((code == 200).then_some(()))
    });
    if let Err(error) = served.await {
        panic!("{error}: {last}");
    }
    let chromium = Chromium::start(&folder("browser-pod-chromium")).await;
    let console = format!("https://console.localhost:{port}/console");
    chromium.open(&console).await;
    chromium.types("zoe\u{e004}").await;
    chromium.types(&format!("{password}\u{e007}")).await;
    chromium.says("Sign out").await;
    // Browsers send clusters no credential by themselves; this one has been made to.
    chromium.sends("Authorization", &format!("Bearer {token}")).await;
    chromium.open(&format!("https://localhost:{port}{page}")).await;
    chromium.says("cookies=none frame=blocked read=blocked window=blocked write=blocked").await;
    // The session that is there all along was not touched.
    chromium.open(&console).await;
    chromium.says("Sign out").await;
    soon(chromium.page.clone().close()).await.unwrap();
}
