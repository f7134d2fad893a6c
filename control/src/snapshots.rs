//! Makes what gateways serve from out of the store, and tells who follows that there is more.
//!
//! Only what a gateway would take up is published: an object that is not sound is set aside, and holds back no other.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anyhow::Context;
use drover_api::kinds::{Binding, Cluster, Enrolment, Kind, Role, Token, User};
use drover_api::snapshot::delta::Delta;
use drover_api::snapshot::signing::{Signing, Term};
use drover_api::snapshot::{Document, sift};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::authorizer::Authorizer;
use crate::objects::{Objects, ObjectsError};
use crate::signer::Signers;
use crate::store::{Change, Revision, Store, Watch};

mod around;
mod aside;
mod index;
mod signatures;
mod state;

use around::Around;
pub(crate) use aside::Aside;
use aside::Note;
use state::Freshness;
pub(crate) use state::State;

/// How long to wait after the store failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Changes of tokens that are published in place; with more the whole state is made anew, beside the threads that serve.
const TOKENS_IN_PLACE_MAX: usize = 1000;

/// What is published: it changes with the state, and with each renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    pub revision: Revision,
    pub issued_at: Timestamp,
}

pub struct Snapshots {
    state: RwLock<State>,
    /// Of the state: what is decided is decided by what is published.
    authorizer: RwLock<Arc<Authorizer>>,
    published: watch::Sender<Published>,
    max_staleness: Duration,
    signers: Signers,
    signing: RwLock<Arc<Signing>>,
    /// The whole state as it travels, made once for all that ask.
    whole: Mutex<Option<(Published, Arc<str>)>>,
    /// Something that was written is not published, for whatever reason.
    held_back: AtomicBool,
}

impl Snapshots {
    pub async fn load(
        store: &dyn Store,
        signers: Signers,
        max_staleness: Duration,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        // First: a new key is a change of the store too.
        let signing = Arc::new(signers.current(now).await?);
        let revision = *store.revision().borrow();
        let mut state = State::known_since(store.oldest().await?);
        let kinds = [
            (Cluster::KIND, Cluster::FORMAT),
            (User::KIND, User::FORMAT),
            (Token::KIND, Token::FORMAT),
            (Role::KIND, Role::FORMAT),
            (Binding::KIND, Binding::FORMAT),
        ];
        for (kind, known) in kinds {
            for record in store.list(kind).await? {
                // A program that was taken back would set aside all that the newer one wrote.
                if record.value.format > known {
                    let (key, found) = (record.key, record.value.format);
                    return Err(ObjectsError::TooNew { kind, key, found, known }.into());
                }
                state.take_in(Change::Put(record));
            }
        }
        for record in store.list(Enrolment::KIND).await? {
            state.take_in(Change::Put(record));
        }
        // And what was deleted, to tell a gateway that was away.
        let (mut watch, mut told) = (Watch::new(store, state.oldest), state.oldest);
        while told < revision {
            for change in watch.next().await? {
                told = change.revision();
                state.take_in(change);
            }
        }
        let known_since = state.oldest;
        let freshness = Freshness { issued_at: now, max_staleness };
        let checks = Checks { freshness, signing: signing.clone(), before: None };
        let (mut state, authorizer) = checks.run(state).await?;
        state.aside.tell(&Aside::default());
        // Gateways know what was set aside before this start.
        let note = signers.objects().get::<Note>(Note::KEY).await?.map(|stored| stored.object.spec);
        let note = note.unwrap_or_else(|| Note { digest: String::new(), revision: known_since });
        if note.digest == state.aside.digest() {
            state.oldest = known_since.max(note.revision);
        } else {
            state.revision = keep_note(signers.objects(), &state).await?;
            state.oldest = state.revision;
        }
        let (published, _) = watch::channel(Published { revision: state.revision, issued_at: now });
        Ok(Self {
            state: RwLock::new(state),
            authorizer: RwLock::new(Arc::new(authorizer)),
            published,
            max_staleness,
            signers,
            signing: RwLock::new(signing),
            whole: Mutex::new(None),
            held_back: AtomicBool::new(false),
        })
    }

    pub fn published(&self) -> watch::Receiver<Published> {
        self.published.subscribe()
    }

    /// What is published.
    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is published, without users and tokens, of which there are many more.
    pub(crate) fn rules(&self) -> Document {
        self.state().rules(self.freshness())
    }

    /// What is published, as a document.
    #[cfg(test)]
    pub(crate) fn document(&self) -> Document {
        self.state().document(self.freshness())
    }

    /// Decides by what is published.
    pub fn authorizer(&self) -> Arc<Authorizer> {
        self.authorizer.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What changed from a revision to the one that is published; none where that is too long ago. Whoever was told
    /// before says when.
    pub fn delta(&self, from: Revision, told_at: Option<Timestamp>) -> Option<Delta> {
        self.state().delta(from, told_at, self.freshness())
    }

    /// The whole state as JSON.
    pub fn whole(&self) -> anyhow::Result<(Revision, Arc<str>)> {
        let mut whole = self.whole.lock().unwrap_or_else(PoisonError::into_inner);
        let state = self.state();
        let freshness = self.freshness();
        let current = Published { revision: state.revision, issued_at: freshness.issued_at };
        if let Some((of, text)) = &*whole
            && *of == current
        {
            return Ok((of.revision, text.clone()));
        }
        let text: Arc<str> = serde_json::to_string(&state.signed_document(freshness))?.into();
        *whole = Some((current, text.clone()));
        Ok((current.revision, text))
    }

    /// Follows the store until cancelled, and renews what is published at half of its time.
    pub async fn follow(&self, store: &dyn Store, cancelled: CancellationToken) {
        let mut watch = Watch::new(store, self.published.borrow().revision);
        let mut held_back = Vec::new();
        let mut renewal = tokio::time::interval(self.max_staleness / 2);
        renewal.tick().await;
        loop {
            tokio::select! {
                () = cancelled.cancelled() => return,
                _ = renewal.tick() => {
                    if let Err(error) = self.renew(Timestamp::now()).await {
                        error!(error = format!("{error:#}"), "failed to renew: what is published stays");
                    }
                }
                changes = watch.next() => match changes {
                    Ok(changes) => {
                        held_back.extend(changes);
                        self.publish(&mut held_back, Timestamp::now()).await;
                    }
                    Err(error) => {
                        error!(error = %error, "failed to follow the store: what is published stays");
                        tokio::time::sleep(RETRY_INTERVAL).await;
                    }
                },
            }
        }
    }

    /// Signs all of it anew, by a new key where the one before has signed for long enough.
    async fn renew(&self, now: Timestamp) -> anyhow::Result<()> {
        let signing = Arc::new(self.signers.current(now).await?);
        *self.signing.write().unwrap_or_else(PoisonError::into_inner) = signing;
        let mut state = self.state().clone();
        state.signatures.forget_time();
        let before = Some(self.authorizer());
        let (state, _) = self.checks(now, before).run(state).await?;
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        self.published.send_modify(|published| published.issued_at = now);
        Ok(())
    }

    fn checks(&self, now: Timestamp, before: Option<Arc<Authorizer>>) -> Checks {
        let freshness = Freshness { issued_at: now, max_staleness: self.max_staleness };
        let signing = self.signing.read().unwrap_or_else(PoisonError::into_inner).clone();
        Checks { freshness, signing, before }
    }

    /// Whether all that was written is published.
    pub fn is_whole(&self) -> bool {
        !self.held_back.load(Ordering::Relaxed)
    }

    async fn publish(&self, changes: &mut Vec<Change>, now: Timestamp) {
        if self.publish_in_place(changes, now) {
            changes.clear();
            return;
        }
        let before = self.state().clone();
        let aside = before.aside.clone();
        let next = next(before, changes, self.checks(now, Some(self.authorizer()))).await;
        self.held_back.store(next.is_err(), Ordering::Relaxed);
        match next {
            Ok((state, authorizer)) => {
                changes.clear();
                if state.aside != aside {
                    state.aside.tell(&aside);
                    if let Err(error) = keep_note(self.signers.objects(), &state).await {
                        error!(%error, "failed to keep what is set aside: a gateway that is away may miss a change of it");
                    }
                }
                let published = Published { revision: state.revision, issued_at: now };
                *self.state.write().unwrap_or_else(PoisonError::into_inner) = state;
                *self.authorizer.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(authorizer);
                self.published.send_replace(published);
                debug!(revision = published.revision, "published");
            }
            Err(error) => {
                error!(
                    error = format!("{error:#}"),
                    "failed to publish what was written: what is published stays"
                );
            }
        }
    }

    /// Where nothing but tokens changed; whether it did, and all of it is sound.
    fn publish_in_place(&self, changes: &[Change], now: Timestamp) -> bool {
        let signing = self.signing.read().unwrap_or_else(PoisonError::into_inner).clone();
        let published = {
            let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
            if changes.len() > TOKENS_IN_PLACE_MAX || !state.change_tokens(changes, &signing) {
                return false;
            }
            Published { revision: state.revision, issued_at: now }
        };
        self.published.send_replace(published);
        debug!(revision = published.revision, "published in place");
        true
    }

    fn freshness(&self) -> Freshness {
        Freshness { issued_at: self.published.borrow().issued_at, max_staleness: self.max_staleness }
    }
}

async fn next(mut state: State, changes: &[Change], checks: Checks) -> anyhow::Result<(State, Authorizer)> {
    for change in changes {
        state.take_in(change.clone());
    }
    state.compact();
    checks.run(state).await
}

async fn keep_note(objects: &Objects, state: &State) -> Result<Revision, ObjectsError> {
    let note = Note { digest: state.aside.digest(), revision: state.revision };
    Ok(objects.put(&note, None).await?.metadata.revision)
}

/// What makes of a state one that is published.
struct Checks {
    freshness: Freshness,
    signing: Arc<Signing>,
    before: Option<Arc<Authorizer>>,
}

impl Checks {
    /// The state, signed, where a gateway would take it up, and what decides by it. A large one takes a while.
    async fn run(self, state: State) -> anyhow::Result<(State, Authorizer)> {
        tokio::task::spawn_blocking(move || self.check(state)).await?
    }

    fn check(self, mut state: State) -> anyhow::Result<(State, Authorizer)> {
        let Freshness { issued_at, max_staleness } = self.freshness;
        let (snapshot, unsound) = sift(state.written(self.freshness))?;
        let aside = Arc::new(state.unsound(unsound));
        let authorizer = Authorizer::new(snapshot.rules.clone(), self.before.as_deref());
        let authorizer = authorizer.context("the rules are not sound")?;
        let holdings = authorizer.holdings(issued_at.into());
        let mut touched = state.tokens_touched_since(state.signatures.revision());
        if aside != state.aside {
            touched.extend(aside.tokens_unlike(&state.aside));
            // What is in its place, or is back, changed with no change of its own: only the whole state tells.
            state.oldest = state.revision;
            state.aside = aside;
        }
        let term = Term { issued_at, lifetime: max_staleness };
        let around = Around::of(&snapshot);
        state.signatures.next(&self.signing, &snapshot, &around, &holdings, term, &touched)?;
        state.around = Arc::new(around);
        Ok((state, authorizer))
    }
}

#[cfg(test)]
mod tests;
