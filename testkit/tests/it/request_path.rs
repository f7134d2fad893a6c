//! What a hostile or odd client can make of the request path, seen from the API server's end.

use drover_testkit::api_server::AGENT_TOKEN;
use drover_testkit::client::status;
use serde_json::Value;

use crate::system::Fleet;

const PODS: &str = "/k8s/clusters/one/api/v1/namespaces/default/pods";

/// An HTTP/1.1 request of the administrator's with more header lines, and what follows it.
fn request(fleet: &Fleet, method: &str, target: &str, lines: &[&str], after: &str) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    text.push_str(&format!("Authorization: Bearer {}\r\n", fleet.admin.token));
    for line in lines {
        text.push_str(line);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    text.push_str(after);
    text.into_bytes()
}

/// The Status or the API server's answer in a raw response.
pub(crate) fn body(answer: &str) -> Value {
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    // Chunked or not, the object is what lies between the braces.
    let object = body.find('{').zip(body.rfind('}')).map_or("", |(begin, end)| &body[begin..=end]);
    serde_json::from_str(object).unwrap_or_default()
}

fn cause(answer: &str) -> String {
    body(answer)["details"]["causes"][0]["reason"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_api_server_sees_exactly_the_users_identity_and_the_agents_credential() {
    let (fleet, _server) = Fleet::with_api_server("exact").await;
    let client = fleet.client();
    // Whatever a client nominates, repeats or disguises, the identity is the same.
    for lines in [
        &[][..],
        &["Connection: Impersonate-User, Impersonate-Group, Authorization"],
        &["Connection: close, impersonate-uid", "Connection: authorization"],
        &["Impersonate_User: root", "impersonate%2dgroup: system:masters", "X-Remote-User: root"],
        &["X-Remote-Group: system:masters", "X_Remote_User: root", "Cookie: a=b"],
        &["Connection: Upgrade, Impersonate-User", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"],
    ] {
        let answer = client.raw(&request(&fleet, "GET", PODS, lines, "")).await.unwrap();
        assert_eq!(status(&answer).unwrap(), 200, "{lines:?}: {answer}");
        let said = body(&answer);
        assert_eq!(said["target"], "/api/v1/namespaces/default/pods");
        let headers: Vec<_> = said["headers"].as_array().unwrap().iter().collect();
        let identity = |line: &&&Value| {
            let name = line[0].as_str().unwrap();
            ["authorization", "cookie"].contains(&name)
                || name.contains("impersonate")
                || name.contains("remote")
        };
        let identity: Vec<_> =
            headers.iter().filter(identity).map(|line| format!("{}: {}", line[0], line[1])).collect();
        let token_id = identity.last().cloned().unwrap();
        assert_eq!(
            identity[..identity.len() - 1],
            [
                format!(r#""authorization": "Bearer {AGENT_TOKEN}""#),
                r#""impersonate-user": "admin""#.to_owned(),
                r#""impersonate-uid": "local:user/admin""#.to_owned(),
                r#""impersonate-group": "drover:cluster-owner""#.to_owned(),
                r#""impersonate-group": "local:group/platform""#.to_owned(),
            ],
            "{lines:?}"
        );
        assert!(token_id.starts_with(r#""impersonate-extra-drover.io%2ftoken-id""#), "{token_id}");
    }
}

#[tokio::test]
async fn what_must_not_pass_is_refused_in_our_own_words_and_reaches_nobody() {
    let (fleet, server) = Fleet::with_api_server("refused").await;
    let client = fleet.client();
    let long_line = format!("X-Long: {}", "x".repeat(2 << 20));
    let long_target = format!("{PODS}?x={}", "y".repeat(70_000));
    let within = |path: &str| format!("/k8s/clusters/one{path}");
    let cases: Vec<(&str, String, Vec<&str>, u16, &str)> = vec![
        ("GET", PODS.to_owned(), vec!["Impersonate-User: root"], 403, "Impersonation"),
        ("GET", PODS.to_owned(), vec!["Impersonate-Extra-a: b"], 400, "ImpersonationMalformed"),
        ("GET", PODS.to_owned(), vec!["Connection: host"], 400, "ConnectionNominatesFraming"),
        ("GET", within("/api/v1/namespaces/default/../kube-system/secrets"), vec![], 400, "PathNotCanonical"),
        ("GET", within("/api/v1/namespaces/default/%2e%2e/secrets"), vec![], 400, "PathNotCanonical"),
        ("GET", within("/api/v1/namespaces/default%2fpods"), vec![], 400, "PathNotCanonical"),
        ("GET", within("/api/v1//pods"), vec![], 400, "PathNotCanonical"),
        ("GET", within("/api/v1/pods;x=y"), vec![], 400, "PathNotCanonical"),
        ("GET", long_target, vec![], 414, "TargetTooLong"),
        ("GET", PODS.to_owned(), vec![&long_line], 431, "HeadTooLarge"),
        ("CONNECT", "localhost:443".to_owned(), vec![], 405, "MethodConnect"),
        ("GET", "/elsewhere".to_owned(), vec![], 404, "PageUnknown"),
        ("GET", "/k8s/clusters/none/api".to_owned(), vec![], 404, "ClusterUnknown"),
        ("TRACE", PODS.to_owned(), vec![], 405, "MethodUnknown"),
    ];
    let before = server.received().concat().len();
    for (method, target, lines, code, reason) in cases {
        let answer = client.raw(&request(&fleet, method, &target, &lines, "")).await.unwrap();
        let shown = target.get(..80).unwrap_or(&target);
        assert_eq!(status(&answer).unwrap(), code, "{method} {shown}: {answer}");
        assert_eq!(cause(&answer), reason, "{method} {shown}: {answer}");
        assert_eq!(body(&answer)["kind"], "Status", "{answer}");
    }
    let host = String::from_utf8(request(&fleet, "GET", PODS, &[], "")).unwrap();
    let elsewhere = host.replace("Host: localhost", "Host: evil.example");
    let answer = client.raw(elsewhere.as_bytes()).await.unwrap();
    assert_eq!((status(&answer).unwrap(), cause(&answer).as_str()), (421, "HostUnknown"));
    assert_eq!(server.received().concat().len(), before, "nothing reached the API server");
}

#[tokio::test]
async fn a_credential_must_be_one_and_whole() {
    let (fleet, _server) = Fleet::with_api_server("credential").await;
    let client = fleet.client();
    let good = format!("Authorization: Bearer {}", fleet.admin.token);
    let basic = format!("Authorization: Basic {}", "eDp5");
    let cases: [(&[&str], &str); 7] = [
        (&[], "CredentialAbsent"),
        (&["Authorization: Bearer "], "CredentialMalformed"),
        (&["Authorization: Bearer a, b"], "CredentialMalformed"),
        (&["Authorization: Negotiate abc"], "CredentialMalformed"),
        (&[&good, &good], "CredentialAmbiguous"),
        (&[&basic], "CredentialMalformed"),
        (
            &[
                "Authorization: Bearer drv_abcdefghijkl_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
            ],
            "CredentialMalformed",
        ),
    ];
    for (lines, reason) in cases {
        let head = format!("GET {PODS} HTTP/1.1\r\nHost: localhost\r\n{}\r\n\r\n", lines.join("\r\n"));
        let answer = client.raw(head.as_bytes()).await.unwrap();
        assert_eq!((status(&answer).unwrap(), cause(&answer).as_str()), (401, reason), "{lines:?}: {answer}");
    }
}
