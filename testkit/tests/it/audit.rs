//! What the gateway's own record says of what ran, and what is never in it.

use std::process::Stdio;

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use drover_api::kinds::TokenScope;
use drover_testkit::process::until;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::pods::with_pod;
use crate::system::{DEADLINE, Fleet, soon};

impl Fleet {
    fn audited(&self, chosen: impl Fn(&Value) -> bool) -> Vec<Value> {
        let log = std::fs::read_to_string(self.gateway.audit_log()).unwrap();
        let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.filter(chosen).collect()
    }

    /// The start and the end of the one request whose URI has all of `marks` in it.
    async fn both_ends(&self, marks: &[&str]) -> (Value, Value) {
        let marked = |event: &Value| {
            let uri = event["requestURI"].as_str().unwrap_or_default();
            marks.iter().all(|mark| uri.contains(mark))
        };
        let ends = until("both ends to be recorded", DEADLINE, async || {
            let stage = |stage: &str| self.audited(|event| marked(event) && event["stage"] == stage);
            Ok(stage("ResponseStarted").pop().zip(stage("ResponseComplete").pop()))
        });
        let (start, end) = ends.await.unwrap();
        assert_eq!(start["auditID"], end["auditID"], "{marks:?}");
        (start, end)
    }
}

fn number(event: &Value, annotation: &str) -> u64 {
    let text = event["annotations"][annotation].as_str();
    text.unwrap_or_else(|| panic!("no {annotation}: {event}")).parse().unwrap()
}

#[tokio::test]
async fn every_session_in_a_pod_is_recorded_at_its_start_and_at_its_end() {
    let Some((fleet, pod)) = with_pod("audited").await else { return };
    for (websocket, mark) in [("true", "by-websocket"), ("false", "by-spdy")] {
        let script = format!("cat > /dev/null; seq 1000; # {mark}");
        let arguments = ["exec", "-i", &pod, "-c", "audited", "--", "sh", "-c", &script];
        let mut command = fleet.by(websocket, &arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        soon(tokio::io::AsyncWriteExt::write_all(&mut input, &vec![b'x'; 100_000])).await.unwrap();
        drop(input);
        assert!(soon(child.wait()).await.unwrap().success());
        let (start, end) = fleet.both_ends(&["/exec", mark]).await;
        assert_eq!(start["verb"], "create", "{start}");
        assert_eq!(
            (&end["objectRef"]["subresource"], &end["user"]["username"]),
            (&"exec".into(), &"admin".into())
        );
        for event in [&start, &end] {
            let annotations = &event["annotations"];
            assert_eq!(annotations["drover.io/command"], format!("sh -c {script}"), "{event}");
            assert_eq!(annotations["drover.io/container"], "audited");
            assert_eq!(annotations["drover.io/cluster"], "noded");
        }
        // Framing comes on top of what went each way.
        assert!(number(&end, "drover.io/bytes-received") >= 100_000, "{end}");
        assert!(number(&end, "drover.io/bytes-sent") >= 3_893, "{end}");
        assert!(number(&end, "drover.io/duration-ms") > 0);
    }
    let mut logs = fleet.by("true", &["logs", "-f", &pod, "--limit-bytes=12345"]).spawn().unwrap();
    until("the logs to begin", DEADLINE, async || {
        let begun =
            fleet.audited(|event| event["requestURI"].as_str().is_some_and(|uri| uri.contains("12345")));
        Ok((!begun.is_empty()).then_some(()))
    })
    .await
    .unwrap();
    logs.kill().await.unwrap();
    let (_, end) = fleet.both_ends(&["/log?", "12345"]).await;
    assert_eq!(end["annotations"]["drover.io/reason"], "ClientGone", "{end}");
}

#[tokio::test]
async fn a_watch_is_recorded_at_its_start_and_at_its_end() {
    let fleet = Fleet::start("audit-watch").await;
    let arguments =
        ["get", "configmaps", "-w", "-n", "kube-system", "--field-selector=metadata.name=kube-root-ca.crt"];
    let mut watch =
        fleet.kubectl(&fleet.viewer, "one").args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    while !soon(lines.next_line()).await.unwrap().unwrap().contains("kube-root-ca.crt") {}
    let watching = |event: &Value| event["verb"] == "watch";
    until("the watch to be recorded", DEADLINE, async || Ok(fleet.audited(watching).pop())).await.unwrap();
    watch.kill().await.unwrap();
    let (start, end) = fleet.both_ends(&["watch=true"]).await;
    assert_eq!((&start["user"]["username"], &end["verb"]), (&"viewer".into(), &"watch".into()));
    assert_eq!(end["annotations"]["drover.io/reason"], "ClientGone", "{end}");
}

#[tokio::test]
async fn no_credential_is_in_any_record() {
    let (mut fleet, _server) = Fleet::with_api_server("audit-secrets").await;
    let principal = fleet.admin.principal.clone();
    let narrow = TokenScope::Clusters(vec!["c-one1".to_owned()]);
    let other = fleet.roster.token(&principal, narrow, std::time::Duration::from_secs(600)).unwrap();
    fleet.roster.publish().unwrap();
    let client = fleet.client();
    let tokens =
        [fleet.admin.token.clone(), fleet.viewer.token.clone(), other, "drv_0123456789ab_wrong".to_owned()];
    for token in &tokens {
        let path = "/k8s/clusters/one/api/v1/namespaces/default/pods";
        let (id, secret) = token["drv_".len()..].split_once('_').unwrap();
        let basic = BASE64_STANDARD.encode(format!("{id}:{secret}"));
        let protocol =
            format!("base64url.bearer.authorization.k8s.io.{}", BASE64_URL_SAFE_NO_PAD.encode(token));
        for lines in [
            format!("GET {path} HTTP/1.1\r\nUser-Agent: {token}\r\nAuthorization: Bearer {token}"),
            format!("GET {path} HTTP/1.1\r\nAuthorization: Basic {basic}"),
            format!(
                "GET {path} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: {protocol}, v4.channel.k8s.io"
            ),
            // Where it does not belong.
            format!(
                "GET {path}/p/exec?command=login&command={token} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nAuthorization: Bearer {token}"
            ),
            format!("GET {path}?token={token} HTTP/1.1\r\nAuthorization: Bearer {token}"),
            format!("GET /k8s/clusters/{token}/api HTTP/1.1\r\nAuthorization: Bearer {token}"),
        ] {
            client
                .raw(format!("{lines}\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
                .await
                .unwrap();
        }
    }
    until("all to be recorded", DEADLINE, async || {
        let count = fleet.audited(|event| event["stage"] == "ResponseComplete").len();
        Ok((count >= 24).then_some(()))
    })
    .await
    .unwrap();
    let log = std::fs::read_to_string(fleet.gateway.audit_log()).unwrap();
    let logs = [log, fleet.running.log_tail(), fleet.agents[0].log_tail()].concat();
    assert!(logs.contains("/pods?token=drv_..."), "what is left out is marked");
    assert!(logs.contains(r#""drover.io/command":"login drv_...""#), "in what ran, too");
    for token in &tokens {
        let secret = token.rsplit('_').next().unwrap();
        for form in [secret.to_owned(), BASE64_STANDARD.encode(token), BASE64_URL_SAFE_NO_PAD.encode(token)] {
            assert!(!logs.contains(&form), "{form}");
        }
    }
    assert!(!logs.contains(drover_testkit::api_server::AGENT_TOKEN));
}
