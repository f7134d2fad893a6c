//! What directories call groups, for people who read lists: rules know their ids alone.
//!
//! Logins, refreshes and searches tell them. They are kept in memory and written in batches, never for a request: what
//! was not written comes again with the next refresh.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drover_api::kinds::{Binding, Kind, User};
use drover_api::texts::DisplayName;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::objects::{Kept, NoSecret, Objects, ObjectsError};
use crate::people;

/// How often what was heard is written.
const WRITE_INTERVAL: Duration = Duration::from_secs(300);
/// Names that are held at most until the next writing forgets those that are of no use.
const NAMES_MAX: usize = 1_000_000;

/// What a provider calls its groups.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OfProvider {
    provider: String,
    /// By principal.
    names: BTreeMap<String, String>,
}

impl Kind for OfProvider {
    const KIND: &'static str = "GroupNames";
    const PLURAL: &'static str = "groupnames";

    fn key(&self) -> &str {
        &self.provider
    }
}

impl Kept for OfProvider {
    type Secret = NoSecret;
}

pub(crate) struct GroupNames {
    objects: Objects,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// By principal.
    names: BTreeMap<String, String>,
    /// Providers whose names are not written yet as they are here.
    unwritten: BTreeSet<String>,
}

impl GroupNames {
    pub(crate) async fn load(objects: Objects) -> Result<Self, ObjectsError> {
        let mut heard = Heard::default();
        for of in objects.list::<OfProvider>().await? {
            heard.names.extend(of.spec.names);
        }
        Ok(Self { objects, heard: Mutex::new(heard) })
    }

    /// Takes what a provider calls groups, by their ids.
    pub(crate) fn note<'a>(&self, provider: &str, groups: impl Iterator<Item = (&'a str, &'a str)>) {
        let mut heard = self.heard();
        for (id, name) in groups {
            let principal = people::group(provider, id);
            let known = heard.names.get(&principal);
            let full = known.is_none() && heard.names.len() >= NAMES_MAX;
            let Some(name) = DisplayName::of_directory(name).filter(|_| !full) else { continue };
            if known.is_some_and(|known| known == name.as_str()) {
                continue;
            }
            heard.names.insert(principal, name.into());
            heard.unwritten.insert(provider.to_owned());
        }
    }

    pub(crate) fn name(&self, principal: &str) -> Option<String> {
        self.heard().names.get(principal).cloned()
    }

    /// Of a provider that goes: another of that name has other groups.
    pub(crate) fn forget(&self, provider: &str) {
        let prefix = people::group(provider, "");
        let mut heard = self.heard();
        heard.names.retain(|principal, _| !principal.starts_with(&prefix));
        heard.unwritten.insert(provider.to_owned());
    }

    /// Writes now and then, and once more when cancelled.
    pub(crate) async fn run(self: Arc<Self>, cancelled: CancellationToken) {
        let mut ended = false;
        while !ended {
            ended = cancelled.run_until_cancelled(tokio::time::sleep(WRITE_INTERVAL)).await.is_none();
            if let Err(error) = self.write().await {
                warn!(%error, "what directories call groups is not written");
            }
        }
    }

    /// Those of providers that have changed, without groups that nobody is in and no binding names.
    pub(crate) async fn write(&self) -> Result<(), ObjectsError> {
        if self.heard().unwritten.is_empty() {
            return Ok(());
        }
        let users = self.objects.list::<User>().await?.into_iter().flat_map(|user| user.spec.groups);
        let bindings =
            self.objects.list::<Binding>().await?.into_iter().map(|binding| binding.spec.principal);
        let of_use: BTreeSet<_> = users.chain(bindings).collect();
        let (providers, names) = {
            let mut heard = self.heard();
            heard.names.retain(|principal, _| of_use.contains(principal));
            (std::mem::take(&mut heard.unwritten), heard.names.clone())
        };
        for provider in &providers {
            if let Err(error) = self.write_of(provider, &names).await {
                // Those that are written already are only written once more.
                self.heard().unwritten.extend(providers);
                return Err(error);
            }
        }
        Ok(())
    }

    async fn write_of(&self, provider: &str, names: &BTreeMap<String, String>) -> Result<(), ObjectsError> {
        let prefix = people::group(provider, "");
        let of_provider = names.iter().filter(|(principal, _)| principal.starts_with(&prefix));
        let names: BTreeMap<_, _> =
            of_provider.map(|(principal, name)| (principal.clone(), name.clone())).collect();
        if !names.is_empty() {
            self.objects.put(&OfProvider { provider: provider.to_owned(), names }, None).await?;
        } else if let Some(known) = self.objects.get::<OfProvider>(provider).await? {
            self.objects.delete::<OfProvider>(provider, known.object.metadata.revision).await?;
        }
        Ok(())
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::tests::served;

    #[tokio::test]
    async fn so_many_names_are_held_and_those_that_are_still_change() {
        let names = GroupNames::load(served().await.control.objects.clone()).await.unwrap();
        let ids: Vec<_> = (0..=NAMES_MAX).map(|number| number.to_string()).collect();
        names.note("corp", ids.iter().map(|id| (id.as_str(), "a")));
        let last = people::group("corp", &ids[NAMES_MAX]);
        assert_eq!(names.name(&last), None);
        assert_eq!(names.heard().names.len(), NAMES_MAX);
        names.note("corp", [("0", "b")].into_iter());
        assert_eq!(names.name("corp:group/0").as_deref(), Some("b"));
    }

    #[tokio::test]
    async fn what_was_heard_is_there_after_a_restart_as_long_as_it_is_of_use() {
        let objects = served().await.control.objects.clone();
        let user = User {
            principal: "corp:user/1".into(),
            name: "zoe@corp".into(),
            display_name: None,
            groups: vec!["corp:group/1".into(), "corp-2:group/1".into()],
            disabled: false,
        };
        let user = objects.create(&user, None).await.unwrap();
        let names = GroupNames::load(objects.clone()).await.unwrap();
        names.note("corp", [("1", "Dev"), ("2", "Ops"), ("3", "a\nb"), ("4", &"x".repeat(257))].into_iter());
        names.note("corp-2", [("1", "Sales")].into_iter());
        let of = |names: &GroupNames| {
            ["corp:group/1", "corp:group/2", "corp:group/3", "corp:group/4", "corp-2:group/1"]
                .map(|principal| names.name(principal).unwrap_or_default())
        };
        assert_eq!(of(&names), ["Dev", "Ops", "", "", "Sales"]);
        names.write().await.unwrap();
        let written = *objects.store().revision().borrow();
        names.note("corp", [("1", "Dev")].into_iter());
        names.write().await.unwrap();
        assert_eq!(*objects.store().revision().borrow(), written, "nothing to write");
        // Nobody is in the other group, and no binding names it.
        assert_eq!(of(&names), ["Dev", "", "", "", "Sales"]);
        let again = GroupNames::load(objects.clone()).await.unwrap();
        assert_eq!(of(&again), ["Dev", "", "", "", "Sales"]);
        again.note("corp", [("1", "Developers")].into_iter());
        assert_eq!(of(&again)[0], "Developers");

        again.forget("corp");
        again.write().await.unwrap();
        let last = GroupNames::load(objects.clone()).await.unwrap();
        assert_eq!(of(&last), ["", "", "", "", "Sales"]);
        objects.delete::<User>("zoe@corp", user.metadata.revision).await.unwrap();
        last.note("corp-2", [("2", "Gone")].into_iter());
        last.write().await.unwrap();
        assert!(objects.list::<OfProvider>().await.unwrap().is_empty());
    }
}
