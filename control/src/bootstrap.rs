//! What a first start needs: an administrator, and what the first gateway enrols with.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use drover_api::bootstrap::{Admin, Bootstrapped, Door};
use drover_api::kinds::{Binding, Domain, Process, RegistrationToken, User};
use drover_api::token;
use jiff::Timestamp;

use crate::authority::Authority;
use crate::config::Bootstrap;
use crate::objects::{Objects, RegistrationSecret, UserSecret};
use crate::passwords::{self, Passwords};
use crate::run::open;

const ADMIN: &str = "admin";
/// How long the gateway has to enrol.
const REGISTRATION_LIFETIME: Duration = Duration::from_secs(3600);

pub(crate) async fn run(config: Bootstrap) -> anyhow::Result<()> {
    let objects = open(&config.files)?;
    let authority = Authority::load(&objects, config.files.certificate_lifetime).await?;
    let now = SystemTime::now();
    let admin = admin(&objects).await?;
    let gateway_token = gateway_token(&objects, config.gateway, now).await?;
    let door = match config.hosts[..] {
        [] => None,
        [..] => {
            let (certificate, key) = authority.door(&config.hosts, now)?;
            Some(Door { certificate, key })
        }
    };
    let ca = authority.pem().to_owned();
    println!("{}", serde_json::to_string(&Bootstrapped { admin, gateway_token, ca, door })?);
    Ok(())
}

/// The first administrator, where there is no user yet.
async fn admin(objects: &Objects) -> anyhow::Result<Option<Admin>> {
    if !objects.list::<User>().await?.is_empty() {
        return Ok(None);
    }
    let password = passwords::generate();
    let secret = UserSecret { password: Passwords::new().hash(&password).await?, former: Vec::new() };
    let user = User {
        principal: format!("local:user/{}", token::random_id()),
        name: ADMIN.to_owned(),
        display_name: None,
        groups: Vec::new(),
        disabled: false,
    };
    let binding = Binding {
        name: ADMIN.to_owned(),
        principal: user.principal.clone(),
        role: "admin".to_owned(),
        domain: Domain::Global,
        expires_at: None,
    };
    // The binding first: a user without it, after a crash between the two, would stay without.
    match objects.get::<Binding>(ADMIN).await? {
        None => drop(objects.create(&binding, None).await?),
        Some(former) => drop(objects.update(former.object.metadata.revision, &binding, None).await?),
    }
    objects.create(&user, Some(&secret)).await?;
    Ok(Some(Admin { name: user.name, password }))
}

async fn gateway_token(objects: &Objects, name: String, now: SystemTime) -> anyhow::Result<String> {
    let process = Process::try_from(format!("gateway/{name}"))
        .with_context(|| format!("--gateway {name:?} is not a DNS label"))?;
    // Of earlier starts: one is enough, and the last one is known.
    for known in objects.list::<RegistrationToken>().await? {
        if known.spec.process == process {
            objects.delete::<RegistrationToken>(known.spec.id.as_str(), known.metadata.revision).await?;
        }
    }
    let token = token::generate();
    let expires_at = Timestamp::try_from(now + REGISTRATION_LIFETIME)?;
    let spec = RegistrationToken { id: token.id, process, expires_at };
    objects.create(&spec, Some(&RegistrationSecret { hash: token.hash })).await?;
    Ok(token.secret.expose().to_owned())
}
