//! What RBAC cannot say, as ValidatingAdmissionPolicies: of all who come with groups of Drover's, only owners change what
//! runs in system namespaces, and nobody makes a token of a service account, or a Secret with one, that has a right in the whole
//! cluster which they have not. Whoever may run pods in a namespace runs them as any account of it: no policy says otherwise.
//!
//! The gateway's rules say the first as well; here the cluster itself does, whatever a gateway asks for.

use drover_policy::templates::SYSTEM_NAMESPACES;
use serde_json::{Value, json};

use super::metadata;

const GROUP: &str = "admissionregistration.k8s.io";
const OWNER: &str = "drover:cluster-owner";

const IS_TOKEN: &str = "request.resource.resource == 'serviceaccounts'";

/// What makes a service account worth more than most: API group, resource, subresource and verb.
const POWERS: [(&str, &str, &str, &str); 13] = [
    ("*", "*", "", "*"),
    ("", "secrets", "", "get"),
    ("", "secrets", "", "list"),
    ("", "pods", "", "create"),
    ("", "pods", "exec", "create"),
    ("", "serviceaccounts", "token", "create"),
    ("", "nodes", "proxy", "get"),
    ("", "users", "", "impersonate"),
    ("", "groups", "", "impersonate"),
    ("rbac.authorization.k8s.io", "clusterroles", "", "escalate"),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "", "create"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations", "", "update"),
    ("certificates.k8s.io", "certificatesigningrequests", "approval", "update"),
];

pub(super) fn policies() -> Vec<Value> {
    let (system, tokens) = ("drover-system-namespaces", "drover-service-account-tokens");
    vec![
        policy(system, system_namespaces()),
        binding(system),
        policy(tokens, token_requests()),
        binding(tokens),
    ]
}

fn system_namespaces() -> Value {
    let namespaces = SYSTEM_NAMESPACES.map(|namespace| format!("'{namespace}'")).join(", ");
    json!({
        "failurePolicy": "Fail",
        "matchConstraints": { "resourceRules": [{
            "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"],
            "operations": ["CREATE", "UPDATE", "DELETE", "CONNECT"],
        }] },
        "matchConditions": [
            of_a_role(),
            { "name": "in-a-system-namespace", "expression": format!("request.namespace in [{namespaces}]") },
            // Everybody asks what they may do, and a review changes nothing.
            { "name": "no-review", "expression": "request.resource.group != 'authorization.k8s.io'" },
        ],
        "validations": [{
            "expression": format!("'{OWNER}' in request.userInfo.groups || authorizer.group('*').resource('*').check('*').allowed()"),
            "message": "only owners of the cluster change anything in this namespace",
            "reason": "Forbidden",
        }],
    })
}

fn token_requests() -> Value {
    let may = |who: &str, (group, resource, subresource, verb): &(&str, &str, &str, &str)| {
        let subresource =
            if subresource.is_empty() { String::new() } else { format!(".subresource('{subresource}')") };
        format!("{who}.group('{group}').resource('{resource}'){subresource}.check('{verb}').allowed()")
    };
    let account = "authorizer.serviceAccount(request.namespace, variables.account)";
    let validations = POWERS.iter().map(|power| {
        let (group, resource, subresource, verb) = power;
        let what = [*group, *resource, *subresource].map(str::to_owned).into_iter().filter(|part| !part.is_empty());
        let what = what.collect::<Vec<_>>().join("/");
        json!({
            "expression": format!("!{} || {}", may(account, power), may("authorizer", power)),
            "message": format!("the service account may {verb} {what}, and you may not: nobody makes a token that may do more than they"),
            "reason": "Forbidden",
        })
    });
    json!({
        "failurePolicy": "Fail",
        "matchConstraints": { "resourceRules": [
            { "apiGroups": [""], "apiVersions": ["v1"], "resources": ["serviceaccounts/token"], "operations": ["CREATE"] },
            { "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"], "operations": ["CREATE", "UPDATE"] },
        ] },
        "matchConditions": [
            of_a_role(),
            // Into such a Secret the cluster itself writes a token.
            { "name": "of-an-account", "expression": format!("{IS_TOKEN} || (has(object.type) && object.type == 'kubernetes.io/service-account-token')") },
        ],
        "variables": [{
            "name": "account",
            "expression": format!("{IS_TOKEN} ? request.name : object.metadata.annotations['kubernetes.io/service-account.name']"),
        }],
        "validations": validations.collect::<Vec<_>>(),
    })
}

/// Nobody else is meant: not the cluster's own, nor who came by another way.
fn of_a_role() -> Value {
    json!({ "name": "of-a-role", "expression": "request.userInfo.groups.exists(group, group.startsWith('drover:'))" })
}

fn policy(name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "ValidatingAdmissionPolicy",
        "metadata": metadata(name),
        "spec": spec,
    })
}

fn binding(policy: &str) -> Value {
    json!({
        "apiVersion": format!("{GROUP}/v1"),
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": metadata(policy),
        "spec": { "policyName": policy, "validationActions": ["Deny"] },
    })
}
