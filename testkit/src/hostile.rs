//! Requests that try to be somebody else's, or more than one: a seeded generator of what an attacker would send.
//!
//! Each carries a mark in its query, by which the API server's own audit log is searched for it afterwards.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

/// A kind of attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// Fields that set identity elsewhere, and what some hop might read as them.
    LookAlikes,
    /// `Connection` names fields, so that a hop drops or keeps the wrong ones.
    Nominations,
    Duplicates,
    Trailers,
    Paths,
    /// Lengths, chunks and line ends that two hops could read in two ways.
    Framing,
    /// Bytes right behind a request for an upgrade.
    Upgrades,
    WebSocket,
    /// The same over HTTP/2.
    Http2,
}

pub const FAMILIES: [Family; 9] = [
    Family::LookAlikes,
    Family::Nominations,
    Family::Duplicates,
    Family::Trailers,
    Family::Paths,
    Family::Framing,
    Family::Upgrades,
    Family::WebSocket,
    Family::Http2,
];

/// What may become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// It runs as who presented the credential, or is refused.
    AsCaller,
    /// It never reaches an API server.
    Never,
}

/// One request and what is known of it.
#[derive(Clone, Debug)]
pub struct Hostile {
    pub family: Family,
    pub allowed: Allowed,
    /// In the query of the one request that may arrive.
    pub mark: String,
    /// Fields and path of an HTTP/2 request, or none.
    pub fields: Vec<(String, String)>,
    pub path: String,
    /// Of an HTTP/1.1 connection.
    pub bytes: Vec<u8>,
}

pub struct Generator {
    random: StdRng,
    next: usize,
    /// Of the cluster at the gateway.
    prefix: String,
}

const NAMES: [&str; 14] = [
    "Impersonate_User",
    "impersonate%2duser",
    "Impersonate%5FGroup",
    "X-Remote-User",
    "x_remote_user",
    "X-Remote-Group",
    "X-Remote-Extra-scopes",
    "X-Forwarded-For",
    "X-Real-Ip",
    "Forwarded",
    "Proxy-Authorization",
    "Cookie",
    "Via",
    "X-Original-URL",
];
const IDENTITIES: [&str; 5] =
    ["Impersonate-User", "Impersonate-Group", "Impersonate-Uid", "Impersonate-Extra-a", "impersonate-x"];
const VALUES: [&str; 6] = ["system:masters", "root", "system:admin", "admin", "Bearer drv_x", "127.0.0.1"];
const NOMINATED: [&str; 9] = [
    "Authorization",
    "Impersonate-User",
    "impersonate-group",
    "Audit-Id",
    "X-Forwarded-For",
    "Accept",
    "close",
    "keep-alive",
    "X-Remote-User",
];
const SPACE: [&str; 4] = ["", " ", "\t", "  "];
const RESOURCES: [&str; 4] = [
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces",
    "/api/v1/namespaces/kube-system/configmaps",
    "/version",
];
const PATHS: [&str; 14] = [
    "/api/v1/namespaces/default/../kube-system/secrets",
    "/api/v1/namespaces/default/%2e%2e/kube-system/secrets",
    "/api/v1/namespaces/default/configmaps/..%2f..%2fsecrets",
    "/api/v1//namespaces",
    "//api/v1/namespaces",
    "/api/v1/namespaces/",
    "/api/v1/namespaces/default/configmaps/a%00b",
    "/api/v1/namespaces/default/configmaps;a=b",
    "/API/v1/namespaces",
    "/api/v1/namespaces/default/%63onfigmaps",
    "/api/v1/namespaces/default\\..\\kube-system/secrets",
    "/./api/v1/namespaces",
    "/api/v1/namespaces/default/configmaps%3fwatch=true",
    "/api/v1/namespaces/default/configmaps/%25%32%65",
];

impl Generator {
    pub fn new(seed: u64, prefix: &str) -> Self {
        Self { random: StdRng::seed_from_u64(seed), next: 0, prefix: prefix.to_owned() }
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of.choose(&mut self.random).expect("there is something to choose")
    }

    /// The next request, with a credential in it.
    pub fn next(&mut self, token: &str) -> Hostile {
        let number = self.next;
        self.next += 1;
        let family = FAMILIES[number % FAMILIES.len()];
        let mark = format!("hostile-{number:07}");
        let resource = self.one(&RESOURCES);
        let path = format!("{}{resource}?fieldSelector=metadata.name%3D{mark}", self.prefix);
        let mut made =
            Hostile { family, allowed: Allowed::AsCaller, mark, fields: Vec::new(), path, bytes: Vec::new() };
        let mut lines = vec!["Host: localhost".to_owned(), format!("Authorization: Bearer {token}")];
        let (mut method, mut body) = ("GET", String::new());
        match family {
            Family::LookAlikes => self.look_alikes(&mut made, &mut lines),
            Family::Nominations => self.nominations(&mut made, &mut lines),
            Family::Duplicates => self.duplicates(&mut made, &mut lines, token),
            Family::Trailers => {
                (method, body) = ("GET", self.trailers(&mut lines));
            }
            Family::Paths => self.paths(&mut made),
            Family::Framing => (method, body) = self.framing(&mut made, &mut lines),
            Family::Upgrades => body = self.upgrades(&mut made, &mut lines),
            Family::WebSocket => body = self.web_socket(&mut made, &mut lines, token),
            Family::Http2 => self.http2(&mut made, token),
        }
        let head = format!("{method} {} HTTP/1.1\r\n{}\r\n\r\n", made.path, lines.join("\r\n"));
        made.bytes = [head.as_bytes(), body.as_bytes()].concat();
        made
    }

    fn look_alikes(&mut self, made: &mut Hostile, lines: &mut Vec<String>) {
        for _ in 0..self.random.random_range(1..5) {
            let (name, space, value) = (self.one(&NAMES), self.one(&SPACE), self.one(&VALUES));
            lines.insert(self.random.random_range(0..=lines.len()), format!("{name}:{space}{value}"));
        }
        if self.random.random_ratio(1, 6) {
            let (name, value) = (self.one(&IDENTITIES), self.one(&VALUES));
            lines.push(format!("{}: {value}", self.cased(name)));
            made.allowed = Allowed::Never;
        }
    }

    fn cased(&mut self, name: &str) -> String {
        let letter = |letter: char| match self.random.random_bool(0.5) {
            true => letter.to_ascii_uppercase(),
            false => letter.to_ascii_lowercase(),
        };
        name.chars().map(letter).collect()
    }

    fn nominations(&mut self, made: &mut Hostile, lines: &mut Vec<String>) {
        for _ in 0..self.random.random_range(1..4) {
            let tokens: Vec<_> =
                (0..self.random.random_range(1..4)).map(|_| self.one(&NOMINATED).to_owned()).collect();
            lines.push(format!("Connection: {}", tokens.join(self.one(&[",", ", ", " ,"]))));
        }
        if self.random.random_ratio(1, 6) {
            lines.push(format!("Connection: {}", self.one(&["Host", "content-length", "Transfer-Encoding"])));
            made.allowed = Allowed::Never;
        }
        lines.push(format!("{}: {}", self.one(&NAMES), self.one(&VALUES)));
    }

    fn duplicates(&mut self, made: &mut Hostile, lines: &mut Vec<String>, token: &str) {
        match self.random.random_range(0..6) {
            0 => {
                lines.push(format!("Authorization: Bearer {token}"));
                made.allowed = Allowed::Never;
            }
            1 => {
                lines.push("Authorization: Bearer drv_0123456789ab_other".to_owned());
                made.allowed = Allowed::Never;
            }
            2 => lines.push("Host: 127.0.0.1".to_owned()),
            3 => lines.extend(["Audit-Id: one".to_owned(), "Audit-Id: two".to_owned()]),
            4 => lines.extend(["Accept: application/json".to_owned(), "Accept: */*".to_owned()]),
            _ => lines.extend((0..5).map(|number| format!("X-Twice: {number}"))),
        }
    }

    fn trailers(&mut self, lines: &mut Vec<String>) -> String {
        lines.push("Transfer-Encoding: chunked".to_owned());
        let name = [&NAMES[..], &IDENTITIES].concat();
        let name = self.one(&name);
        if self.random.random_bool(0.5) {
            lines.push(format!("Trailer: {name}"));
        }
        format!("0\r\n{name}: {}\r\n\r\n", self.one(&VALUES))
    }

    fn paths(&mut self, made: &mut Hostile) {
        if self.random.random_bool(0.5) {
            let path = self.one(&PATHS);
            made.path = format!("{}{path}?fieldSelector=metadata.name%3D{}", self.prefix, made.mark);
        }
        match self.random.random_range(0..6) {
            0 => made.path.push_str("&fieldSelector=a%3Db"),
            1 => made.path.push_str("&limit=1&limit=2"),
            2 => made.path = made.path.replacen("/k8s/", self.one(&["/k8s//", "/K8S/", "/k8s/./"]), 1),
            3 => made.path.push_str("#fragment"),
            4 => made.path = format!("https://localhost{}", made.path),
            _ => made.path.push_str("&%66ieldSelector=&;=&&"),
        }
    }

    fn framing(&mut self, made: &mut Hostile, lines: &mut Vec<String>) -> (&'static str, String) {
        let second = format!(
            "GET {}/api/v1/secrets?smuggled={} HTTP/1.1\r\nHost: localhost\r\nImpersonate-User: root\r\n\r\n",
            self.prefix, made.mark
        );
        match self.random.random_range(0..9) {
            0 => {
                lines.extend(["Content-Length: 4".to_owned(), "Transfer-Encoding: chunked".to_owned()]);
                made.allowed = Allowed::Never;
                ("GET", format!("0\r\n\r\n{second}"))
            }
            1 => {
                lines.extend(["Content-Length: 0".to_owned(), format!("Content-Length: {}", second.len())]);
                made.allowed = Allowed::Never;
                ("GET", second)
            }
            2 => {
                lines.push(format!("Content-Length: {}", second.len()));
                ("GET", second)
            }
            3 => {
                lines.push("Transfer-Encoding: chunked".to_owned());
                ("GET", format!("{:x};a=b\r\n{second}\r\n0\r\n\r\n", second.len()))
            }
            4 => {
                lines.push(format!(
                    "Transfer-Encoding: {}",
                    self.one(&["xchunked", "chunked, identity", "gzip", "\"chunked\""])
                ));
                ("GET", second)
            }
            5 => {
                lines.push(format!("X-Folded: a\r\n Impersonate-User: {}", self.one(&VALUES)));
                ("GET", String::new())
            }
            6 => {
                lines.push(format!("X-Bare: a\nImpersonate-User: {}", self.one(&VALUES)));
                made.allowed = Allowed::Never;
                ("GET", String::new())
            }
            7 => {
                lines.push("Content-Length: +0".to_owned());
                ("GET", String::new())
            }
            _ => {
                lines.push("Content-Length: 0".to_owned());
                ("GET", String::new())
            }
        }
    }

    fn upgrades(&mut self, made: &mut Hostile, lines: &mut Vec<String>) -> String {
        let protocol = self.one(&["h2c", "SPDY/3.1", "websocket", "TLS/1.0", "websocket, h2c"]);
        lines.push(format!(
            "Connection: {}",
            self.one(&["Upgrade", "upgrade, Impersonate-User", "Upgrade, HTTP2-Settings"])
        ));
        lines.push(format!("Upgrade: {protocol}"));
        if self.random.random_bool(0.5) {
            lines.push("HTTP2-Settings: AAMAAABkAAQAAP__".to_owned());
        }
        format!(
            "GET {}/api/v1/secrets?smuggled={} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n",
            self.prefix, made.mark
        )
    }

    fn web_socket(&mut self, made: &mut Hostile, lines: &mut Vec<String>, token: &str) -> String {
        use base64::Engine;
        use base64::prelude::BASE64_URL_SAFE_NO_PAD;
        let bearer =
            format!("base64url.bearer.authorization.k8s.io.{}", BASE64_URL_SAFE_NO_PAD.encode(token));
        lines.extend(
            [
                "Connection: Upgrade",
                "Upgrade: websocket",
                "Sec-WebSocket-Version: 13",
                "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            ]
            .map(str::to_owned),
        );
        match self.random.random_range(0..4) {
            // Both places at once.
            0 => {
                lines.push(format!("Sec-WebSocket-Protocol: {bearer}, v4.channel.k8s.io"));
                made.allowed = Allowed::Never;
            }
            1 => {
                lines.retain(|line| !line.starts_with("Authorization"));
                lines.push(format!("Sec-WebSocket-Protocol: {bearer}, v4.channel.k8s.io"));
            }
            2 => {
                lines.retain(|line| !line.starts_with("Authorization"));
                lines.push(format!("Sec-WebSocket-Protocol: v4.channel.k8s.io,{bearer}"));
                lines.push(format!("{}: {}", self.one(&NAMES), self.one(&VALUES)));
            }
            _ => lines.push("Sec-WebSocket-Protocol: v4.channel.k8s.io".to_owned()),
        }
        String::new()
    }

    fn http2(&mut self, made: &mut Hostile, token: &str) {
        made.fields.push(("authorization".to_owned(), format!("Bearer {token}")));
        for _ in 0..self.random.random_range(1..4) {
            let field = (self.one(&NAMES).to_ascii_lowercase(), self.one(&VALUES).to_owned());
            made.fields.push(field);
        }
        match self.random.random_range(0..8) {
            0 => {
                made.fields.push((self.one(&IDENTITIES).to_ascii_lowercase(), self.one(&VALUES).to_owned()));
                made.allowed = Allowed::Never;
            }
            1 => {
                made.fields.push(("authorization".to_owned(), "Bearer drv_0123456789ab_other".to_owned()));
                made.allowed = Allowed::Never;
            }
            2 => made.fields.push(("host".to_owned(), "elsewhere".to_owned())),
            3 => self.paths(made),
            _ => {}
        }
        made.path = made.path.trim_start_matches("https://localhost").to_owned();
    }
}
