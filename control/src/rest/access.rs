//! Roles and who holds them: nobody gives what they do not hold, nor for longer.

use std::time::SystemTime;

use drover_api::kinds::{Binding, Domain, Kind, Object, Role};
use drover_api::rest::{CreateBinding, Created};
use drover_api::snapshot::{SET_ASIDE_ROLE, Snapshot};
use drover_api::status::Status;
use drover_api::token;
use drover_policy::{self as policy, ClusterId, Principal, ProjectId, RoleName, Rules, later};
use jiff::Timestamp;

use super::caller::Caller;
use super::{Writes, field};
use crate::authorizer::Authorizer;
use crate::objects::Stored;
use crate::placed::{Place, Placed};
use crate::routes::{Control, Refused};

impl Writes for Binding {
    async fn create(
        control: &Control,
        caller: &Caller,
        create: CreateBinding,
    ) -> Result<Created<Self>, Refused> {
        let CreateBinding { name, principal, role, domain, expires_at } = create;
        let name = name.unwrap_or_else(|| format!("{role}-{}", token::random_id()));
        let binding = Binding { name, principal, role, domain, expires_at };
        check_cluster(control, &binding)?;
        caller.may(control, "POST", Self::PLURAL, None, &binding.place())?;
        check_reach(control, caller, "POST", &binding)?;
        check(control, caller, &binding).await?;
        Ok(Created { object: control.objects.create(&binding, None).await?, secret: None })
    }

    /// Where it was, and where it will be.
    async fn replace(
        control: &Control,
        caller: &Caller,
        current: Stored<Self>,
        next: Self,
    ) -> Result<Object<Self>, Refused> {
        check_cluster(control, &next)?;
        caller.may(control, "PUT", Self::PLURAL, Some(next.key()), &next.place())?;
        check_reach(control, caller, "PUT", &current.object.spec)?;
        check_reach(control, caller, "PUT", &next)?;
        check(control, caller, &next).await?;
        Ok(control.objects.update(current.object.metadata.revision, &next, None).await?)
    }

    async fn before_delete(control: &Control, caller: &Caller, binding: &Self) -> Result<(), Refused> {
        check_reach(control, caller, "DELETE", binding)
    }
}

fn check_cluster(control: &Control, binding: &Binding) -> Result<(), Refused> {
    let cluster = match &binding.domain {
        Domain::Global => None,
        Domain::Cluster(cluster) | Domain::Project { cluster, .. } => Some(cluster),
    };
    if let Some(cluster) = cluster
        && control.snapshots.state().cluster(cluster).is_none()
    {
        return Err(Refused::of(Status::invalid("domain", format!("there is no cluster {cluster:?}"))));
    }
    Ok(())
}

async fn check(control: &Control, caller: &Caller, binding: &Binding) -> Result<(), Refused> {
    check_name("name", &binding.name)?;
    let principal = field("principal", Principal::parse(&binding.principal))?;
    if principal.as_str().starts_with("local:user/")
        && control.snapshots.state().user(&binding.principal).is_none()
    {
        let problem = format!("there is no user with the principal {:?}", binding.principal);
        return Err(Refused::of(Status::invalid("principal", problem)));
    }
    let role = field("role", RoleName::parse(&binding.role))?;
    let domain = match &binding.domain {
        Domain::Global => policy::Domain::Global,
        Domain::Cluster(cluster) => {
            policy::Domain::Cluster(field("domain.cluster", ClusterId::parse(cluster))?)
        }
        Domain::Project { cluster, project } => policy::Domain::Project(
            field("domain.project.cluster", ClusterId::parse(cluster))?,
            field("domain.project.project", ProjectId::parse(project))?,
        ),
    };
    let known = policy::templates::is_one(role.as_str())
        || control.objects.get::<Role>(role.as_str()).await?.is_some();
    if !known {
        return Err(Refused::of(Status::invalid("role", format!("there is no role {:?}", binding.role))));
    }
    let Some(until) = control.snapshots.authorizer().covers(&caller.subject, &role, &domain, caller.now)
    else {
        let message =
            format!("role {:?} gives more than you hold there, so you cannot give it", binding.role);
        return Err(Refused::of(Status::failure(403, "Forbidden", message)));
    };
    if later(until, binding.expires_at.map(SystemTime::from)) != until {
        let end = until.and_then(|until| Timestamp::try_from(until).ok()).unwrap_or_default();
        let message = format!("what you hold there ends at {end}, and so must what you give: say expires_at");
        return Err(Refused::of(Status::failure(403, "Forbidden", message)));
    }
    Ok(())
}

/// What takes more than the right to bind in a place: a role that denies takes an administrator; and such a role, one to
/// act as others, and a place that is everywhere take a login of now.
fn check_reach(control: &Control, caller: &Caller, method: &str, binding: &Binding) -> Result<(), Refused> {
    let role = RoleName::parse(&binding.role).ok();
    let authorizer = control.snapshots.authorizer();
    let denies = role.as_ref().is_some_and(|role| authorizer.denies(role));
    let impersonates = role.as_ref().is_some_and(|role| authorizer.impersonates(role));
    if denies {
        caller.may(control, method, Binding::PLURAL, Some(&binding.name), &Place::Drover)?;
        caller.must_administer_for_good(control)?;
    }
    if denies || impersonates || binding.place() == Place::Drover {
        caller.must_have_just_logged_in()?;
    }
    Ok(())
}

impl Writes for Role {
    async fn create(control: &Control, caller: &Caller, role: Role) -> Result<Created<Self>, Refused> {
        caller.may(control, "POST", Self::PLURAL, None, &Place::Drover)?;
        caller.must_have_just_logged_in()?;
        check_role(control, caller, &role).await?;
        Ok(Created { object: control.objects.create(&role, None).await?, secret: None })
    }

    async fn replace(
        control: &Control,
        caller: &Caller,
        current: Stored<Self>,
        next: Self,
    ) -> Result<Object<Self>, Refused> {
        caller.must_have_just_logged_in()?;
        // What it denies would be denied to nobody any more.
        if RoleName::parse(&next.name).is_ok_and(|role| control.snapshots.authorizer().denies(&role)) {
            caller.must_administer_for_good(control)?;
        }
        check_role(control, caller, &next).await?;
        Ok(control.objects.update(current.object.metadata.revision, &next, None).await?)
    }

    async fn before_delete(control: &Control, _caller: &Caller, role: &Self) -> Result<(), Refused> {
        let bindings = control.objects.list::<Binding>().await?;
        let binding = bindings.iter().find(|binding| binding.spec.role == role.name);
        let roles = control.objects.list::<Role>().await?;
        let heir = roles.iter().find(|other| other.spec.inherits.contains(&role.name));
        let used = binding.map(|binding| format!("role binding {:?}", binding.spec.name));
        let Some(used) = used.or_else(|| heir.map(|heir| format!("role {:?}", heir.spec.name))) else {
            return Ok(());
        };
        Err(Refused::of(Status::failure(409, "Conflict", format!("{used} uses it: delete that first"))))
    }
}

/// Sound by itself and beside the others, and no more than its author holds everywhere.
async fn check_role(control: &Control, caller: &Caller, role: &Role) -> Result<(), Refused> {
    check_name("name", &role.name)?;
    if policy::templates::OF_PROJECTS.contains(&role.name.as_str()) || role.name == SET_ASIDE_ROLE {
        return Err(Refused::of(Status::invalid("name", "is kept by Drover: choose another")));
    }
    let mut document = control.snapshots.rules();
    document.roles.retain(|known| known.name != role.name);
    document.roles.push(role.clone());
    let rules: Rules = field("spec", Snapshot::try_from(document))?.rules;
    let authorizer = field("spec", Authorizer::new(rules, None))?;
    let name = field("name", RoleName::parse(&role.name))?;
    // Whoever is bound to it, and will be, holds it for longer than what ends.
    if authorizer.covers(&caller.subject, &name, &policy::Domain::Global, caller.now) != Some(None) {
        let message = "the role gives more than you hold everywhere and for good, so you cannot make it";
        return Err(Refused::of(Status::failure(403, "Forbidden", message)));
    }
    Ok(())
}

/// Names that stand in paths.
fn check_name(name_field: &str, name: &str) -> Result<(), Refused> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=128).contains(&name.len()) && name.bytes().all(plain) && !matches!(name, "." | "..") {
        return Ok(());
    }
    Err(Refused::of(Status::invalid(name_field, "must be 1 to 128 of letters, digits, '-', '_' and '.'")))
}
