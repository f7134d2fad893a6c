//! A kubeconfig to take away, with a token of its own: for machines without `drover`.

use std::sync::Arc;

use axum::extract::rejection::FormRejection;
use axum::extract::{Form, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use drover_api::kinds::{TokenKind, TokenScope};
use serde::Deserialize;
use serde_json::{Value, json};
use tracing::info;

use super::pages::Notice;
use super::{Signed, foreign, sentence, shown, theirs};
use crate::rest::tokens::{self, Lasts};
use crate::routes::{Control, Door, Refused};

pub(super) const KUBECONFIG: &str = "/console/kubeconfig";

#[derive(Deserialize)]
pub(super) struct Take {
    csrf: String,
}

pub(super) async fn take(
    State(control): State<Arc<Control>>,
    headers: HeaderMap,
    form: Result<Form<Take>, FormRejection>,
) -> Response {
    let Ok(Form(Take { csrf })) = form else { return foreign() };
    let Some(signed) = theirs(&control, &headers, &csrf).await else { return foreign() };
    match made(&control, &signed).await {
        Ok(text) => {
            let file = "attachment; filename=\"drover.kubeconfig\"";
            ([(CONTENT_TYPE, "application/yaml"), (CONTENT_DISPOSITION, file)], text).into_response()
        }
        Err(refused) => shown(&control, &signed, &Notice::Problem(sentence(refused.message()))).await,
    }
}

async fn made(control: &Control, signed: &Signed) -> Result<String, Refused> {
    let door = control.door.as_ref().ok_or_else(|| {
        Refused::unauthorized("control does not know where clients reach gateways: it needs --server-url")
    })?;
    let clusters = signed.clusters(control).await?;
    let (caller, writing) = signed.caller.clone().begin_write(control).await?;
    let (user, kind) = (&caller.user.spec, TokenKind::Kubeconfig);
    let (maker, now) = (&caller.token.spec, caller.now);
    let made = tokens::make(control, maker, user, kind, TokenScope::All, Lasts::default(), now).await?;
    drop(writing);
    info!(user = user.name, token = %made.object.spec.id, "kubeconfig taken in the console");
    let config = kubeconfig(door, &user.name, &made.secret.unwrap_or_default(), &clusters);
    // JSON is YAML.
    Ok(serde_json::to_string_pretty(&config).unwrap_or_default())
}

fn kubeconfig(door: &Door, user: &str, token: &str, clusters: &[String]) -> Value {
    let cluster = |name: &String| {
        let mut cluster = json!({ "server": format!("{}/k8s/clusters/{name}", door.url.as_str()) });
        if let Some(ca) = &door.ca {
            cluster["certificate-authority-data"] = BASE64_STANDARD.encode(ca).into();
        }
        json!({ "name": name, "cluster": cluster })
    };
    let context = |name: &String| json!({ "name": name, "context": { "cluster": name, "user": user } });
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": clusters.iter().map(cluster).collect::<Vec<_>>(),
        "contexts": clusters.iter().map(context).collect::<Vec<_>>(),
        "current-context": clusters.first(),
        "users": [{ "name": user, "user": { "token": token } }],
    })
}
