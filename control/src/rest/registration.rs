//! Clusters, and the tokens that processes enrol with.

use std::time::Duration;

use drover_api::identity::GROUPS_SENT_MAX;
use drover_api::kinds::{
    Binding, Cluster, Domain, Enrolment, Kind, Object, Process, RegistrationToken, Token, TokenScope,
};
use drover_api::rest::{CreateCluster, CreateRegistrationToken, Created};
use drover_api::snapshot::ClusterName;
use drover_api::status::Status;
use drover_api::token;

use drover_policy::{self as policy, ClusterId, RoleName};

use super::caller::Caller;
use super::tokens::seconds;
use super::{Writes, field};
use crate::objects::{ObjectsError, RegistrationSecret, Stored};
use crate::placed::{Place, Placed};
use crate::routes::{Control, Refused};

/// How long a registration token lasts: usually, and at most.
const LIFETIME_S: u64 = 24 * 3600;
const LIFETIME_S_MAX: u64 = 30 * 24 * 3600;

impl Writes for Cluster {
    async fn create(
        control: &Control,
        caller: &Caller,
        create: CreateCluster,
    ) -> Result<Created<Self>, Refused> {
        caller.may(control, "POST", Self::PLURAL, None, &Place::Drover)?;
        field("name", ClusterName::parse(&create.name))?;
        let id = format!("c-{}", token::random_id());
        let cluster = Cluster { name: create.name, id, projects: Default::default(), groups_listed: None };
        Ok(Created { object: control.objects.create(&cluster, None).await?, secret: None })
    }

    async fn replace(
        control: &Control,
        caller: &Caller,
        current: Stored<Self>,
        next: Self,
    ) -> Result<Object<Self>, Refused> {
        if next.projects != current.object.spec.projects {
            check_projects(control, caller, &next)?;
        }
        if next.id != current.object.spec.id {
            return Err(Refused::of(Status::invalid("spec.id", "does not change")));
        }
        for project in next.projects.values() {
            field("spec.projects", drover_policy::ProjectId::parse(project))?;
        }
        let listed = next.groups_listed.iter().flatten();
        for group in listed.clone() {
            field("spec.groups_listed", drover_policy::Principal::parse(group))?;
        }
        if listed.count() > GROUPS_SENT_MAX {
            let problem = format!("has more than {GROUPS_SENT_MAX} groups");
            return Err(Refused::of(Status::invalid("spec.groups_listed", &problem)));
        }
        Ok(control.objects.update(current.object.metadata.revision, &next, None).await?)
    }

    /// First what names the cluster: it would be set aside without.
    async fn before_delete(control: &Control, _caller: &Caller, cluster: &Self) -> Result<(), Refused> {
        let objects = &control.objects;
        for binding in objects.list::<Binding>().await? {
            let of = match &binding.spec.domain {
                Domain::Cluster(id) | Domain::Project { cluster: id, .. } => *id == cluster.id,
                Domain::Global => false,
            };
            if of {
                objects.delete::<Binding>(binding.spec.key(), binding.metadata.revision).await?;
            }
        }
        for token in objects.list::<Token>().await? {
            let TokenScope::Clusters(ids) = &token.spec.scope else { continue };
            let rest: Vec<_> = ids.iter().filter(|id| **id != cluster.id).cloned().collect();
            if rest.is_empty() {
                objects.delete::<Token>(token.spec.key(), token.metadata.revision).await?;
            } else if rest.len() < ids.len() {
                let spec = Token { scope: TokenScope::Clusters(rest), ..token.spec };
                objects.update(token.metadata.revision, &spec, None).await?;
            }
        }
        for enrolment in objects.list::<Enrolment>().await? {
            if enrolment.spec.place() == cluster.place() {
                objects.delete::<Enrolment>(enrolment.spec.key(), enrolment.metadata.revision).await?;
            }
        }
        for registration in objects.list::<RegistrationToken>().await? {
            if registration.spec.place() == cluster.place() {
                let revision = registration.metadata.revision;
                objects.delete::<RegistrationToken>(registration.spec.key(), revision).await?;
            }
        }
        Ok(())
    }
}

/// Who says which namespaces a project has gives all of them to who holds roles in it, and takes them out of what is
/// denied there.
fn check_projects(control: &Control, caller: &Caller, next: &Cluster) -> Result<(), Refused> {
    for namespace in policy::templates::SYSTEM_NAMESPACES {
        if next.projects.contains_key(namespace) {
            let problem = format!("{namespace} is in no project: it is the cluster's own");
            return Err(Refused::of(Status::invalid("spec.projects", problem)));
        }
    }
    let id = field("spec.id", ClusterId::parse(&next.id))?;
    let authorizer = control.snapshots.authorizer();
    if authorizer.denies_in_projects(&id) {
        caller.must_administer_for_good(control)?;
    }
    if authorizer.covers(&caller.subject, &owner(), &policy::Domain::Cluster(id), caller.now) != Some(None) {
        let message = "to say what a project has takes all of cluster-owner there, without an end";
        return Err(Refused::of(Status::failure(403, "Forbidden", message)));
    }
    Ok(())
}

fn owner() -> RoleName {
    RoleName::parse("cluster-owner").expect("it has a role's form")
}

impl Writes for Enrolment {
    async fn create(_control: &Control, _caller: &Caller, _create: Self) -> Result<Created<Self>, Refused> {
        let message = "a process enrols itself, with a registration token";
        Err(Refused::of(Status::failure(405, "MethodNotAllowed", message)))
    }

    async fn before_delete(control: &Control, _caller: &Caller, enrolment: &Self) -> Result<(), Refused> {
        Ok(end_registrations(control, &enrolment.process).await?)
    }
}

/// Registration tokens by which a process that is ended would enrol again. Whoever calls it holds the lock of all writes.
pub(super) async fn end_registrations(control: &Control, process: &Process) -> Result<(), ObjectsError> {
    for token in control.objects.list::<RegistrationToken>().await? {
        if token.spec.process == *process {
            control.objects.delete::<RegistrationToken>(token.spec.key(), token.metadata.revision).await?;
        }
    }
    Ok(())
}

impl Writes for RegistrationToken {
    async fn create(
        control: &Control,
        caller: &Caller,
        create: CreateRegistrationToken,
    ) -> Result<Created<Self>, Refused> {
        let generated = token::generate();
        let lifetime_s = create.lifetime_s.unwrap_or(LIFETIME_S);
        if !(1..=LIFETIME_S_MAX).contains(&lifetime_s) {
            return Err(Refused::of(Status::invalid("lifetime_s", format!("must be 1 to {LIFETIME_S_MAX}"))));
        }
        let expires_at = caller.now + Duration::from_secs(lifetime_s);
        let expires_at = field("lifetime_s", seconds(expires_at))?;
        let spec = RegistrationToken { id: generated.id, process: create.process, expires_at };
        if let Process::Agent(id) = &spec.process
            && control.snapshots.state().cluster(id.as_str()).is_none()
        {
            return Err(Refused::of(Status::invalid("process", format!("there is no cluster {id}"))));
        }
        caller.may(control, "POST", Self::PLURAL, None, &spec.place())?;
        // A gateway sees what everybody does.
        if let Process::Gateway(_) = &spec.process {
            caller.must_have_just_logged_in()?;
            caller.must_administer_for_good(control)?;
        }
        // An agent sees what everybody asks of its cluster.
        if let Process::Agent(id) = &spec.process {
            let domain = policy::Domain::Cluster(id.clone());
            let until = control.snapshots.authorizer().covers(&caller.subject, &owner(), &domain, caller.now);
            if until.is_none_or(|until| policy::later(until, Some(expires_at.into())) != until) {
                let message = "an agent takes all of cluster-owner there, for as long as its token lasts";
                return Err(Refused::of(Status::failure(403, "Forbidden", message)));
            }
        }
        let secret = RegistrationSecret { hash: generated.hash };
        let object = control.objects.create(&spec, Some(&secret)).await?;
        Ok(Created { object, secret: Some(generated.secret.expose().to_owned()) })
    }
}
