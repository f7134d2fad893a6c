//! How many requests run at once: in a cluster, and of one user there, so that nobody takes all of a cluster's streams.

use std::hash::Hash;
use std::sync::Arc;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use drover_policy::{ClusterId, Principal};

/// Most requests at once, watches and the like among them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    pub of_user: usize,
    pub of_cluster: usize,
}

pub(crate) struct Shares {
    most: Most,
    users: Counts<(Principal, ClusterId)>,
    clusters: Counts<ClusterId>,
}

/// Whose requests are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Cluster,
    User,
}

/// Requests at once by whose they are; who has none has no entry.
type Counts<K> = DashMap<K, usize>;

/// A request's place, for as long as it runs.
pub(crate) struct Share {
    shares: Arc<Shares>,
    user: (Principal, ClusterId),
}

impl Shares {
    pub(crate) fn new(most: Most) -> Arc<Self> {
        Arc::new(Self { most, users: DashMap::new(), clusters: DashMap::new() })
    }

    pub(crate) fn take(self: &Arc<Self>, user: &Principal, cluster: &ClusterId) -> Result<Share, Full> {
        let user = (user.clone(), cluster.clone());
        if !take(&self.users, &user, self.most.of_user) {
            return Err(Full::User);
        }
        if !take(&self.clusters, cluster, self.most.of_cluster) {
            give_back(&self.users, user);
            return Err(Full::Cluster);
        }
        Ok(Share { shares: self.clone(), user })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        give_back(&self.shares.clusters, self.user.1.clone());
        give_back(&self.shares.users, self.user.clone());
    }
}

fn take<K: Clone + Eq + Hash>(counts: &Counts<K>, key: &K, most: usize) -> bool {
    let mut count = counts.entry(key.clone()).or_default();
    let room = *count < most;
    *count += usize::from(room);
    room
}

fn give_back<K: Eq + Hash>(counts: &Counts<K>, key: K) {
    let Entry::Occupied(mut entry) = counts.entry(key) else { return };
    *entry.get_mut() -= 1;
    if *entry.get() == 0 {
        entry.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_a_cluster_have_so_many_and_what_ends_makes_room() {
        let shares = Shares::new(Most { of_user: 2, of_cluster: 3 });
        let user = |name: &str| Principal::parse(&format!("local:user/{name}")).unwrap();
        let (one, two) = (ClusterId::parse("c-1").unwrap(), ClusterId::parse("c-2").unwrap());
        let mut held = vec![shares.take(&user("a"), &one).unwrap(), shares.take(&user("a"), &one).unwrap()];
        assert_eq!(shares.take(&user("a"), &one).err(), Some(Full::User));
        held.push(shares.take(&user("b"), &one).unwrap());
        assert_eq!(shares.take(&user("c"), &one).err(), Some(Full::Cluster));
        held.push(shares.take(&user("a"), &two).unwrap());
        held.remove(0);
        held.push(shares.take(&user("c"), &one).unwrap());
        drop(held);
        assert!(shares.users.is_empty() && shares.clusters.is_empty(), "nobody is remembered");
    }
}
