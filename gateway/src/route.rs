//! Which cluster a request is for: by host, or by the path under any name that the certificate covers.
//!
//! `https://<cluster>.<domain>/api/...` and `https://<any other name>/k8s/clusters/<cluster>/api/...`
//! are equal. The TLS server name decides nothing here: it only picked the certificate.

/// Prefix of the path form, as Rancher has it.
const PREFIX: &str = "/k8s/clusters/";

/// A request's way: the cluster as the client named it, and the path as its API server will see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route<'a> {
    pub cluster: &'a str,
    /// Path without query.
    pub path: &'a str,
    pub form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Host,
    /// The API server knows nothing of the prefix: server-relative redirects need it back.
    Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RouteRefused {
    #[error("the request names no host that this gateway answers for")]
    HostUnknown,
    #[error("no cluster is named: use /k8s/clusters/<name>/...")]
    PageUnknown,
}

/// Which names mean what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// Its first labels are clusters.
    pub domain: Option<String>,
    /// Has the console, and nothing else: no cluster's content shares an origin with it.
    pub console: Option<String>,
}

impl Names {
    /// Whether an authority is the console's.
    pub(crate) fn is_console(&self, authority: &str) -> bool {
        let console = self.console.as_deref();
        console.is_some_and(|console| host(authority).is_some_and(|host| host.eq_ignore_ascii_case(console)))
    }
}

/// Parses an authority (host with an optional port) and a path. `covers` says which hosts are ours.
pub(crate) fn route<'a>(
    authority: &'a str,
    path: &'a str,
    names: &Names,
    covers: impl Fn(&str) -> bool,
) -> Result<Route<'a>, RouteRefused> {
    let host = host(authority).ok_or(RouteRefused::HostUnknown)?;
    if !covers(host) {
        return Err(RouteRefused::HostUnknown);
    }
    if names.is_console(authority) {
        return Err(RouteRefused::PageUnknown);
    }
    if let Some(cluster) = names.domain.as_deref().and_then(|domain| label_under(host, domain)) {
        return Ok(Route { cluster, path, form: Form::Host });
    }
    let (cluster, path) = in_cluster(path).ok_or(RouteRefused::PageUnknown)?;
    Ok(Route { cluster, path, form: Form::Path })
}

/// What the path form names: a cluster, and the path there.
pub(crate) fn in_cluster(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix(PREFIX)?;
    let (cluster, path) = match rest.find('/') {
        Some(end) => rest.split_at(end),
        None => (rest, "/"),
    };
    (!cluster.is_empty()).then_some((cluster, path))
}

/// Gives a server-relative `Location` its prefix back; anything else is the upstream's own business.
pub(crate) fn location(value: &str, cluster: &str) -> Option<String> {
    let relative = value.starts_with('/') && !value.starts_with("//");
    relative.then(|| format!("{PREFIX}{cluster}{value}"))
}

/// The host of an authority: user information and garbage are refused, brackets of IPv6 removed.
fn host(authority: &str) -> Option<&str> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
    } else {
        match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port_sound = port.is_none_or(|port| port.parse::<u16>().is_ok());
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
    (port_sound && !host.is_empty() && host.bytes().all(allowed)).then_some(host)
}

fn label_under<'a>(host: &'a str, domain: &str) -> Option<&'a str> {
    let split = host.len().checked_sub(domain.len())?;
    let (label, rest) = host.split_at_checked(split)?;
    let label = label.strip_suffix('.')?;
    (rest.eq_ignore_ascii_case(domain) && !label.is_empty() && !label.contains('.')).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(authority: &str, path: &str, expected: Result<(&str, &str, Form), RouteRefused>) {
        let covers = |host: &str| !host.ends_with("elsewhere.test");
        let (domain, console) = (Some("k8s.example.test".into()), Some("console.k8s.example.test".into()));
        let found = route(authority, path, &Names { domain, console }, covers);
        let expected = expected.map(|(cluster, path, form)| Route { cluster, path, form });
        assert_eq!(found, expected, "{authority} {path}");
    }

    #[test]
    fn both_forms_name_the_same_cluster() {
        check("prod.k8s.example.test", "/api/v1/pods", Ok(("prod", "/api/v1/pods", Form::Host)));
        check("prod.K8S.example.test:8443", "/", Ok(("prod", "/", Form::Host)));
        check("gw.example.test", "/k8s/clusters/prod/api/v1/pods", Ok(("prod", "/api/v1/pods", Form::Path)));
        check("127.0.0.1:8443", "/k8s/clusters/prod", Ok(("prod", "/", Form::Path)));
        check("[::1]:8443", "/k8s/clusters/prod/", Ok(("prod", "/", Form::Path)));
    }

    #[test]
    fn the_host_form_takes_the_whole_path_and_never_a_second_cluster() {
        let path = "/k8s/clusters/other/api";
        check("prod.k8s.example.test", path, Ok(("prod", path, Form::Host)));
    }

    #[test]
    fn the_consoles_host_has_no_cluster_by_name_or_path() {
        for authority in ["console.k8s.example.test", "CONSOLE.k8s.example.test:8443"] {
            for path in ["/", "/api", "/k8s/clusters/prod/api", "/v1/self"] {
                check(authority, path, Err(RouteRefused::PageUnknown));
            }
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for authority in
            ["", ":8443", "a.elsewhere.test", "user@gw.example.test", "gw.example.test:x", "[::1", "[::1]x"]
        {
            check(authority, "/k8s/clusters/prod/api", Err(RouteRefused::HostUnknown));
        }
        for path in
            ["/", "/api", "/k8s/clusters", "/k8s/clusters/", "/k8s/clusters//api", "/K8S/clusters/prod"]
        {
            check("gw.example.test", path, Err(RouteRefused::PageUnknown));
        }
        check("a.prod.k8s.example.test", "/api", Err(RouteRefused::PageUnknown));
        check("k8s.example.test", "/api", Err(RouteRefused::PageUnknown));
    }

    #[test]
    fn only_server_relative_locations_get_the_prefix() {
        assert_eq!(
            location("/openapi/v3?hash=1", "prod").as_deref(),
            Some("/k8s/clusters/prod/openapi/v3?hash=1")
        );
        for value in ["//evil.test/", "https://evil.test/", "relative", ""] {
            assert_eq!(location(value, "prod"), None, "{value}");
        }
    }
}
