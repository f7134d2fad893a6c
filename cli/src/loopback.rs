//! A login whose code a browser on this machine brings (RFC 8252, 7.3): a port of this process's own, for one answer.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use drover_api::rest::{AUTHORIZE, CLIENT_ID};
use sha2::{Digest, Sha256};

use crate::client::encoded;

/// How long a person has.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(600);
/// How long one connection may take to say what it wants, and how much of it is read.
const READ_TIMEOUT: Duration = Duration::from_secs(2);
const READ_BYTES_MAX: usize = 8 << 10;
const POLL_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) struct Loopback {
    listener: TcpListener,
    state: String,
    verifier: String,
}

/// A code, and what it is exchanged with.
pub(crate) struct Brought {
    pub code: String,
    pub redirect_uri: String,
    pub verifier: String,
}

/// What a browser says in the first line of its request.
#[derive(Debug, PartialEq, Eq)]
enum Said {
    Code(String),
    Error(String),
    /// Something else, such as the page's icon.
    Nothing,
}

impl Loopback {
    pub(crate) fn open() -> anyhow::Result<Self> {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port can be had for the browser")?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, state: drawn(), verifier: drawn() })
    }

    /// Where the browser is to begin.
    pub(crate) fn url(&self, console: &str) -> anyhow::Result<String> {
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&self.verifier));
        let back = encoded(&self.redirect_uri()?);
        let state = &self.state;
        Ok(format!(
            "{console}{AUTHORIZE}?response_type=code&client_id={CLIENT_ID}&redirect_uri={back}&state={state}\
             &code_challenge={challenge}&code_challenge_method=S256"
        ))
    }

    fn redirect_uri(&self) -> anyhow::Result<String> {
        Ok(format!("http://127.0.0.1:{}/", self.listener.local_addr()?.port()))
    }

    /// Waits for the browser.
    pub(crate) fn wait(self) -> anyhow::Result<Brought> {
        let ends = Instant::now() + LOGIN_TIMEOUT;
        while Instant::now() < ends {
            let Ok((stream, _)) = self.listener.accept() else {
                std::thread::sleep(POLL_INTERVAL);
                continue;
            };
            // A connection that fails says nothing: browsers open some that they never use.
            match self.hear(stream).unwrap_or(Said::Nothing) {
                Said::Code(code) => {
                    return Ok(Brought { code, redirect_uri: self.redirect_uri()?, verifier: self.verifier });
                }
                Said::Error(error) if error == "access_denied" => {
                    bail!("the login was refused in the browser")
                }
                Said::Error(error) => bail!("the server refuses the login: {error}"),
                Said::Nothing => {}
            }
        }
        bail!("nobody granted the login in time: drover login begins anew")
    }

    fn hear(&self, mut stream: TcpStream) -> std::io::Result<Said> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(READ_TIMEOUT))?;
        stream.set_write_timeout(Some(READ_TIMEOUT))?;
        let (mut head, mut part) = (Vec::new(), [0; 1024]);
        while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") && head.len() < READ_BYTES_MAX {
            match stream.read(&mut part)? {
                0 => break,
                count => head.extend_from_slice(&part[..count]),
            }
        }
        let head = String::from_utf8_lossy(&head);
        let said = said(head.lines().next().unwrap_or_default(), &self.state);
        let (code, text) = match said {
            Said::Code(_) => ("200 OK", "You are logged in. This page can be closed."),
            Said::Error(_) => ("200 OK", "Nobody is logged in. This page can be closed."),
            Said::Nothing => ("404 Not Found", "There is nothing here."),
        };
        write!(
            stream,
            "HTTP/1.1 {code}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             Referrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{text}",
            text.len()
        )?;
        Ok(said)
    }
}

/// What a request says, if it is the answer to this login.
fn said(line: &str, state: &str) -> Said {
    let query = line.strip_prefix("GET /?").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    let find = |name: &str| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.find(|(of, _)| *of == name).map(|(_, value)| value)
    };
    // All that is drawn, and every code, is of letters that URLs do not encode.
    match (find("state") == Some(state), find("code"), find("error")) {
        (true, Some(code), None) if code.bytes().all(|byte| byte.is_ascii_alphanumeric()) => {
            Said::Code(code.to_owned())
        }
        (true, None, Some(error)) if error.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') => {
            Said::Error(error.to_owned())
        }
        _ => Said::Nothing,
    }
}

/// 256 random bits, in base64url.
fn drawn() -> String {
    BASE64_URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_answer_to_this_login_is_heard() {
        for (line, expected) in [
            ("GET /?code=abc1&state=s HTTP/1.1", Said::Code("abc1".into())),
            ("GET /?state=s&code=abc1 HTTP/1.1", Said::Code("abc1".into())),
            ("GET /?error=access_denied&state=s HTTP/1.1", Said::Error("access_denied".into())),
            ("GET /?code=abc1&state=other HTTP/1.1", Said::Nothing),
            ("GET /?code=abc1 HTTP/1.1", Said::Nothing),
            ("GET /?code=abc1&error=x&state=s HTTP/1.1", Said::Nothing),
            ("GET /?code=a%0A&state=s HTTP/1.1", Said::Nothing),
            ("POST /?code=abc1&state=s HTTP/1.1", Said::Nothing),
            ("GET /favicon.ico HTTP/1.1", Said::Nothing),
            ("", Said::Nothing),
        ] {
            assert_eq!(said(line, "s"), expected, "{line}");
        }
    }
}
