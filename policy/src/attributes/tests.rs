use super::*;

/// Verb, group, version, namespace, resource, subresource, name; empty for none.
type Expected<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str, &'a str, &'a str);

fn parse(method: &str, url: &str) -> Result<Attributes, PathRefused> {
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
    Attributes::parse(method, path, query)
}

fn check(method: &str, url: &str, expected: Expected<'_>) {
    let attributes = parse(method, url).unwrap();
    let Target::Resource(found) = attributes.target() else { panic!("{method} {url}: not a resource") };
    let (sub, namespace, name) = (found.subresource(), found.namespace(), found.name());
    let found: Expected<'_> = (
        attributes.verb().as_str(),
        found.group(),
        found.version(),
        namespace.unwrap_or_default(),
        found.resource(),
        sub.unwrap_or_default(),
        name.unwrap_or_default(),
    );
    assert_eq!(found, expected, "{method} {url}");
}

/// The table of k8s.io/apiserver's own requestinfo_test.go.
#[test]
fn resources_are_read_as_kubernetes_reads_them() {
    for (method, url, expected) in [
        ("GET", "/api/v1/namespaces", ("list", "", "v1", "", "namespaces", "", "")),
        ("GET", "/api/v1/namespaces/other", ("get", "", "v1", "other", "namespaces", "", "other")),
        ("GET", "/api/v1/namespaces/other/pods", ("list", "", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/namespaces/other/pods/foo", ("get", "", "v1", "other", "pods", "", "foo")),
        ("HEAD", "/api/v1/namespaces/other/pods/foo", ("get", "", "v1", "other", "pods", "", "foo")),
        ("GET", "/api/v1/pods", ("list", "", "v1", "", "pods", "", "")),
        ("HEAD", "/api/v1/pods", ("list", "", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/proxy/namespaces/other/pods/foo", ("proxy", "", "v1", "other", "pods", "", "foo")),
        (
            "GET",
            "/api/v1/proxy/namespaces/other/pods/foo/subpath/x",
            ("proxy", "", "v1", "other", "pods", "", "foo"),
        ),
        ("GET", "/api/v1/watch/pods", ("watch", "", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?watch=true", ("watch", "", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?watch=false", ("list", "", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/watch/namespaces/other/pods", ("watch", "", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/namespaces/other/pods?watch=1", ("watch", "", "v1", "other", "pods", "", "")),
        ("GET", "/api/v1/namespaces/other/pods?watch=0", ("list", "", "v1", "other", "pods", "", "")),
        (
            "GET",
            "/api/v1/namespaces/other/pods/foo/status",
            ("get", "", "v1", "other", "pods", "status", "foo"),
        ),
        (
            "GET",
            "/api/v1/namespaces/other/pods/foo/proxy/sub",
            ("get", "", "v1", "other", "pods", "proxy", "foo"),
        ),
        (
            "PUT",
            "/api/v1/namespaces/other/finalize",
            ("update", "", "v1", "other", "namespaces", "finalize", "other"),
        ),
        (
            "PUT",
            "/api/v1/namespaces/other/status",
            ("update", "", "v1", "other", "namespaces", "status", "other"),
        ),
        ("PATCH", "/api/v1/namespaces/other/pods/foo", ("patch", "", "v1", "other", "pods", "", "foo")),
        ("DELETE", "/api/v1/namespaces/other/pods/foo", ("delete", "", "v1", "other", "pods", "", "foo")),
        ("POST", "/api/v1/namespaces/other/pods", ("create", "", "v1", "other", "pods", "", "")),
        ("DELETE", "/api/v1/nodes", ("deletecollection", "", "v1", "", "nodes", "", "")),
        ("DELETE", "/api/v1/namespaces", ("deletecollection", "", "v1", "", "namespaces", "", "")),
        ("DELETE", "/api/v1/namespaces/other/pods", ("deletecollection", "", "v1", "other", "pods", "", "")),
        (
            "POST",
            "/apis/extensions/v1beta3/namespaces/other/pods",
            ("create", "extensions", "v1beta3", "other", "pods", "", ""),
        ),
        ("GET", "/apis/g/v/r?fieldSelector=metadata.name=name1", ("list", "g", "v", "", "r", "", "name1")),
        (
            "GET",
            "/apis/g/v/r?watch=true&fieldSelector=metadata.name%3Dname1",
            ("watch", "g", "v", "", "r", "", "name1"),
        ),
        (
            "GET",
            "/apis/g/v/r?fieldSelector=foo=bar&labelSelector=baz=qux",
            ("list", "g", "v", "", "r", "", ""),
        ),
        ("GET", "/apis/g/v/r?fieldSelector=metadata.name=name1,foo", ("list", "g", "v", "", "r", "", "")),
        ("DELETE", "/apis/g/v/r?fieldSelector=foo=bar", ("deletecollection", "g", "v", "", "r", "", "")),
        (
            "GET",
            "/apis/g/v/r?fieldSelector=metadata.name=foo&fieldSelector=metadata.name=bar",
            ("list", "g", "v", "", "r", "", "foo"),
        ),
        ("GET", "/apis/g/v/r/name?fieldSelector=foo=bar", ("get", "g", "v", "", "r", "", "name")),
        ("GET", "/apis/g/v/watch/r?fieldSelector=metadata.name=foo", ("watch", "g", "v", "", "r", "", "")),
        ("GET", "/apis/g/v/watch/r/name", ("watch", "g", "v", "", "r", "", "name")),
        ("GET", "/apis/batch/v1/job/foo/scale", ("get", "batch", "v1", "", "job", "scale", "foo")),
        // Beyond Kubernetes' table.
        ("GET", "/api/v1/pods/", ("list", "", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?watch", ("watch", "", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?watch=0&watch=1", ("list", "", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/pods?%77atch=1", ("watch", "", "v1", "", "pods", "", "")),
        ("GET", "/api/v1/nodes/system%3Anode", ("get", "", "v1", "", "nodes", "", "system:node")),
        (
            "GET",
            "/api/v1/namespaces/a/services/https:web:443/proxy/b%20c?x=1;y",
            ("get", "", "v1", "a", "services", "proxy", "https:web:443"),
        ),
    ] {
        check(method, url, expected);
    }
}

#[test]
fn opening_a_session_in_a_pod_counts_as_create_whatever_the_method() {
    for subresource in ["attach", "exec", "portforward"] {
        for method in ["GET", "POST"] {
            let url = format!("/api/v1/namespaces/a/pods/b/{subresource}?command=sh");
            check(method, &url, ("create", "", "v1", "a", "pods", subresource, "b"));
        }
    }
    check("GET", "/apis/g/v1/namespaces/a/pods/b/exec", ("get", "g", "v1", "a", "pods", "exec", "b"));
    check("GET", "/api/v1/namespaces/a/pods/b/log", ("get", "", "v1", "a", "pods", "log", "b"));
}

#[test]
fn other_paths_keep_their_method_as_verb() {
    for (method, path, verb) in [
        ("GET", "/", "get"),
        ("GET", "/api", "get"),
        ("GET", "/api/v1", "get"),
        ("GET", "/apis/batch/v1/", "get"),
        ("HEAD", "/healthz", "head"),
        ("POST", "/badprefix/version/resource", "post"),
        ("GET", "/apis/version/resource", "get"),
        ("OPTIONS", "/openapi/v3", "options"),
    ] {
        let attributes = parse(method, path).unwrap();
        assert_eq!(
            (attributes.verb().as_str(), attributes.target()),
            (verb, &Target::NonResource(path.into()))
        );
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    for (method, url, expected) in [
        ("GET", "", PathRefused::Shape),
        ("GET", "api/v1/pods", PathRefused::Shape),
        ("GET", "/api/../api/v1/pods", PathRefused::DotSegment),
        ("GET", "/api/v1/./pods", PathRefused::DotSegment),
        ("GET", "/api/v1/pods/..", PathRefused::DotSegment),
        ("GET", "//api/v1/pods", PathRefused::EmptySegment),
        ("GET", "/api//v1/pods", PathRefused::EmptySegment),
        ("GET", "/api/v1/pods//", PathRefused::EmptySegment),
        ("GET", "/api/v1/%2e%2e/pods", PathRefused::Encoding),
        ("GET", "/api/v1/namespaces/a%2fb/pods", PathRefused::Encoding),
        ("GET", "/api/v1/namespaces/a%2Fb/pods", PathRefused::Encoding),
        ("GET", "/api/v1/namespaces/a%5cb", PathRefused::Encoding),
        ("GET", "/api/v1/namespaces/a%00", PathRefused::Encoding),
        ("GET", "/api/v1/namespaces/a%0d%0ab", PathRefused::Encoding),
        ("GET", "/api/v1/namespaces/a%252fb", PathRefused::Encoding),
        ("GET", "/api/v1/namespaces/a%3bb", PathRefused::Encoding),
        ("GET", "/api/v1/namespaces/%ff", PathRefused::Encoding),
        ("GET", "/api/v1/namespaces/a%2", PathRefused::Encoding),
        ("GET", "/api/v1/namespaces/a%+2", PathRefused::Encoding),
        ("GET", "/api/v1;x/pods", PathRefused::Characters),
        ("GET", "/api\\v1/pods", PathRefused::Characters),
        ("GET", "/api/v1/po ds", PathRefused::Characters),
        ("GET", "/api/v1/p\u{f6}ds", PathRefused::Characters),
        ("GET", "/api/v1/watch", PathRefused::ResourceMissing),
        ("GET", "/api/v1/pods?watch=1;watch=0", PathRefused::Query),
        ("GET", "/api/v1/pods?watch=%zz", PathRefused::Query),
        ("GET", "/api/v1/pods?x=%", PathRefused::Query),
        ("", "/api/v1/pods", PathRefused::Method),
        ("get", "/api/v1/pods", PathRefused::Method),
        ("CONNECT", "/api/v1/pods", PathRefused::Method),
        ("OPTIONS", "/api/v1/pods", PathRefused::Method),
        ("TRACE", "/healthz", PathRefused::Method),
        ("PROPFIND", "/api/v1/namespaces/a/services/b/proxy/", PathRefused::Method),
    ] {
        assert_eq!(parse(method, url), Err(expected), "{method} {url}");
    }
    assert_eq!(parse("GET", &format!("/{}", "a".repeat(path::PATH_BYTES_MAX))), Err(PathRefused::Shape));
}

#[test]
fn what_has_no_end_and_what_changes_something_are_told_apart() {
    for (method, url, long_running, mutating) in [
        ("GET", "/api/v1/pods", false, false),
        ("GET", "/api/v1/pods?watch=1", true, false),
        ("GET", "/api/v1/namespaces/a/pods/b/log", true, false),
        ("GET", "/api/v1/namespaces/a/pods/b/exec", true, true),
        ("POST", "/api/v1/namespaces/a/pods", false, true),
        ("GET", "/api/v1/namespaces/a/services/b/proxy/", true, false),
        ("GET", "/healthz", false, false),
        ("POST", "/healthz", false, true),
    ] {
        let attributes = parse(method, url).unwrap();
        assert_eq!(
            (attributes.is_long_running(), attributes.is_mutating()),
            (long_running, mutating),
            "{method} {url}"
        );
    }
}

#[test]
fn the_fuzz_corpus_is_replayed() {
    let corpus = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/attributes")).unwrap();
    let mut sound = 0;
    for entry in corpus {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let (method, target) = text.split_once(' ').unwrap();
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let Ok(attributes) = Attributes::parse(method, path, query) else { continue };
        sound += 1;
        if let Target::Resource(target) = attributes.target() {
            for part in [target.namespace(), target.name(), Some(target.resource())].into_iter().flatten() {
                assert!(!part.contains(['/', '%', '\\', '\0']) && part != "..", "{part:?} in {text:?}");
            }
        }
    }
    assert!(sound >= 4, "the corpus is gone");
}
