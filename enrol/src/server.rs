//! Where somebody answers: a host and a port.

use std::fmt;
use std::str::FromStr;

/// HOST:PORT, an IPv6 host in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub host: String,
    pub port: u16,
}

#[derive(Debug, thiserror::Error)]
#[error("must be HOST:PORT, an IPv6 host in brackets")]
pub struct HostPortInvalid;

impl FromStr for Server {
    type Err = HostPortInvalid;

    fn from_str(text: &str) -> Result<Self, HostPortInvalid> {
        let (host, port) = text.rsplit_once(':').ok_or(HostPortInvalid)?;
        let port = port.parse().ok().filter(|port| *port > 0).ok_or(HostPortInvalid)?;
        let host = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.strip_suffix(']').ok_or(HostPortInvalid)?,
            None => host,
        };
        let bare_v6 = host.contains(':') && !text.starts_with('[');
        let sound =
            !host.is_empty() && !bare_v6 && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if sound { Ok(Self { host: host.to_owned(), port }) } else { Err(HostPortInvalid) }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports_are_read_strictly() {
        for (text, expected) in [
            ("gateway.example:8444", Some(("gateway.example", 8444))),
            ("127.0.0.1:1", Some(("127.0.0.1", 1))),
            ("[::1]:8444", Some(("::1", 8444))),
            ("::1:8444", None),
            ("gateway.example", None),
            ("gateway.example:0", None),
            ("gateway.example:http", None),
            ("https://gateway.example:443", None),
            (":8444", None),
        ] {
            let found = text.parse::<Server>().ok();
            assert_eq!(found.as_ref().map(|server| (server.host.as_str(), server.port)), expected, "{text}");
        }
    }
}
