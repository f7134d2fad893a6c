//! A gateway that somebody has taken over: whatever it makes up, withholds or replays, the agent refuses, each with a
//! reason of its own, and nothing reaches the API server.

use drover_api::assertion::proof_signer;
use drover_api::kinds::Domain;
use drover_api::roster::SignedRoster;
use drover_api::signed::Signer;
use drover_testkit::client::metric;
use drover_testkit::pki::Authority;
use drover_tunnel::{Delivered, RefusalCode, StreamRefusal};
use jiff::{SignedDuration, Timestamp};

use crate::agent::{GET, Harness, Word};
use crate::system::soon;

impl Harness {
    async fn refused(&self, word: &Word) -> StreamRefusal {
        soon(self.send_as(&word.header(), GET)).await.unwrap_err()
    }

    async fn counted(&self, name: &str) -> f64 {
        metric(&self.agent_metrics, name).await.unwrap().unwrap()
    }
}

type Lie = (&'static str, fn(&mut Word));

/// What it says about a user whose credential it has or has not seen.
const LIES: [Lie; 18] = [
    ("not signed by the key that it names", |word| {
        // The key's id is control's; the signature is not.
        word.assertion.identity.user = "root".to_owned();
        word.forged = true;
    }),
    ("signed by a key that is not control's", |word| {
        word.assertion.identity.user = "root".to_owned();
        word.signer = Signer::from_seed(&[9; 32]);
    }),
    ("signed by a key that is not control's", |word| {
        word.assertion.identity.groups.insert("local:group/platform".to_owned());
        word.signer = proof_signer(b"its own");
    }),
    ("not signed by the user's credential", |word| word.proof = proof_signer(b"never seen")),
    ("the proof is for another cluster", |word| word.delegation.cluster = "c-two2".to_owned()),
    ("the proof is for another gateway", |word| word.delegation.gateway = "gateway/other".to_owned()),
    ("the proof has expired", |word| {
        word.delegation.issued_at_s -= 1200;
        word.delegation.expires_at_s -= 1200;
    }),
    ("the proof has expired, or is from the future", |word| {
        word.delegation.issued_at_s += 300;
        word.delegation.expires_at_s += 300;
    }),
    ("good for longer than proofs may be", |word| word.delegation.expires_at_s += 1),
    ("the assertion has expired", |word| {
        word.assertion.issued_at_s -= 7200;
        word.assertion.expires_at_s -= 7200;
    }),
    ("the assertion has expired, or is from the future", |word| word.assertion.issued_at_s += 300),
    ("neither the user nor a group of theirs", |word| {
        // Even control's word is not enough for who has no role here.
        word.assertion.identity.uid = "local:user/unknown".to_owned();
    }),
    ("are the cluster's own", |word| {
        word.assertion.identity.groups.insert("system:masters".to_owned());
    }),
    ("are the cluster's own", |word| word.assertion.identity.user = "system:admin".to_owned()),
    ("are the cluster's own", |word| {
        word.assertion.identity.groups.insert("drover:cluster-owner".to_owned());
    }),
    ("does not let the user act as", |word| word.impersonate = br#"{"user":"root"}"#.to_vec()),
    ("does not let the user act as", |word| {
        word.impersonate = br#"{"user":"zoe","groups":["drover:cluster-owner"]}"#.to_vec();
    }),
    ("in more than 256 groups, and this cluster lists none", |word| word.assertion.groups_left_out = true),
];

#[tokio::test]
async fn whatever_a_gateway_makes_up_is_refused_for_its_own_reason() {
    let harness = Harness::start("hostile-lies").await;
    let before = harness.server.received().concat().len();
    for (reason, lie) in LIES {
        let mut word = harness.word();
        lie(&mut word);
        let refused = harness.refused(&word).await;
        assert!(refused.message.contains(reason), "{reason}: {}", refused.message);
        assert_eq!(
            (refused.code, refused.delivered),
            (RefusalCode::IdentityRefused, Delivered::No),
            "{reason}"
        );
    }
    let sound = harness.word().header();
    let mut without = sound.clone();
    without.assertion.clear();
    let mut unproved = sound.clone();
    unproved.proof.clear();
    let mut cut = sound.clone();
    cut.assertion.truncate(90);
    let mut without_a_key = sound.clone();
    without_a_key.assertion.truncate(7);
    let mut half_proved = sound.clone();
    half_proved.proof.truncate(70);
    let mut acting = sound.clone();
    acting.impersonate = b"{".as_slice().into();
    for (header, code) in [
        (without, RefusalCode::IdentityMissing),
        (unproved, RefusalCode::IdentityMissing),
        (cut, RefusalCode::IdentityRefused),
        (without_a_key, RefusalCode::IdentityMalformed),
        (half_proved, RefusalCode::IdentityMalformed),
        (acting, RefusalCode::IdentityMalformed),
    ] {
        assert_eq!(soon(harness.send_as(&header, GET)).await.unwrap_err().code, code);
    }
    for (reason, times) in
        [("proof_forged", 1.0), ("key_unknown", 2.0), ("impersonate_malformed", 1.0), ("user_unknown", 1.0)]
    {
        let counted = format!("agent_identities_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(harness.counted(&counted).await, times, "{reason}");
    }
    assert_eq!(harness.server.received().concat().len(), before, "nothing reached the API server");
    assert!(harness.send_as(&sound, GET).await.unwrap().contains("200 OK"));
}

#[tokio::test]
async fn clocks_may_differ_by_a_minute() {
    let harness = Harness::start("hostile-skew").await;
    for seconds in [-55i64, 55] {
        let mut word = harness.word();
        let moved = |at: u64| at.saturating_add_signed(seconds);
        word.assertion.issued_at_s = moved(word.assertion.issued_at_s);
        word.delegation.issued_at_s = moved(word.delegation.issued_at_s);
        word.delegation.expires_at_s = word.delegation.issued_at_s + 600;
        assert!(harness.send_as(&word.header(), GET).await.is_ok(), "{seconds}");
    }
}

#[tokio::test]
async fn signatures_are_checked_once_and_not_for_each_request() {
    let harness = Harness::start("hostile-cached").await;
    let header = harness.word().header();
    harness.send_as(&header, GET).await.unwrap();
    let checked = async || harness.counted("agent_signatures_checked_total").await;
    let before = checked().await;
    for _ in 0..50 {
        harness.send_as(&header, GET).await.unwrap();
    }
    assert_eq!(checked().await, before);
}

#[tokio::test]
async fn without_a_roster_nobody_is_spoken_for_and_a_withheld_one_ends() {
    let harness = Harness::without_roster("hostile-withheld").await;
    let refused = harness.refused(&harness.word()).await;
    assert!(refused.message.contains("no gateway has brought a roster"), "{}", refused.message);
    // One that ends at once: nobody brings the next.
    let mut ending = harness.unsigned_roster();
    let skew = SignedDuration::from_secs(60);
    ending.expires_at = Timestamp::now() - skew + SignedDuration::from_secs(2);
    assert_eq!(harness.deliver(&harness.roster.sign_roster(&ending)).await, ending.revision);
    let word = harness.word();
    let stale = soon(async {
        loop {
            match harness.send_as(&word.header(), GET).await {
                Err(refused) if refused.message.contains("roster has expired") => return refused,
                _ => tokio::task::yield_now().await,
            }
        }
    });
    assert_eq!(stale.await.delivered, Delivered::No);
}

#[tokio::test]
async fn a_roster_is_controls_for_this_cluster_and_never_an_older_one() {
    let mut harness = Harness::start("hostile-rosters").await;
    let first = harness.signed_roster();
    let member = harness.roster.user("yan", &[]).unwrap();
    harness.roster.bind(&member.principal, "cluster-owner", Domain::Global);
    let second = harness.roster.publish().unwrap();
    let newest = harness.signed_roster();
    assert_eq!(harness.deliver(&newest).await, second);
    // Rolled back: zoe could be let in again where she has lost her role.
    assert_eq!(harness.deliver(&first).await, second);

    let mut invented = harness.unsigned_roster();
    invented.revision += 10;
    let sound = harness.roster.sign_roster(&invented);
    let own = Authority::new("its own").unwrap();
    let key = Signer::from_seed(&[9; 32]);
    let certificates = [own.certify_signer(key.public()).unwrap()];
    let newer_format = {
        let mut roster = invented.clone();
        roster.format += 1;
        harness.roster.sign_roster(&roster)
    };
    let certificate = sound.signers[0].clone();
    let another = {
        let mut roster = invented.clone();
        roster.cluster = "c-two2".to_owned();
        harness.roster.sign_roster(&roster)
    };
    let expired = {
        let mut roster = invented.clone();
        roster.expires_at = Timestamp::now() - SignedDuration::from_secs(61);
        harness.roster.sign_roster(&roster)
    };
    let future = {
        let mut roster = invented.clone();
        roster.issued_at = Timestamp::now() + SignedDuration::from_secs(120);
        harness.roster.sign_roster(&roster)
    };
    for (what, roster) in [
        ("by a key of its own", SignedRoster::sign(&invented, &key, &certificates).unwrap()),
        ("changed", SignedRoster { payload: sound.payload.replace("viewer", "owner"), ..sound.clone() }),
        ("without a certificate", SignedRoster { signers: Vec::new(), ..sound.clone() }),
        ("with too many certificates", SignedRoster { signers: vec![certificate; 5], ..sound.clone() }),
        ("of a newer format", newer_format),
        ("for another cluster", another),
        ("expired", expired),
        ("from the future", future),
    ] {
        assert_eq!(harness.deliver(&roster).await, second, "{what}");
    }
    assert_eq!(harness.counted("agent_rosters_refused_total").await, 8.0);
    assert_eq!(harness.deliver(&sound).await, invented.revision, "control's own is taken up");
}

#[tokio::test]
async fn a_process_certificate_signs_nothing() {
    let harness = Harness::without_roster("hostile-certificate").await;
    let key = Signer::from_seed(&[9; 32]);
    // Of the right authority, for a gateway: its usage is not signing.
    let certificate = harness.roster.authority.certify_for_clients(key.public()).unwrap();
    let roster = SignedRoster::sign(&harness.unsigned_roster(), &key, &[certificate]).unwrap();
    assert_eq!(harness.deliver(&roster).await, 0);
}

#[tokio::test]
async fn control_may_sign_with_a_new_key_while_the_old_one_is_good() {
    let mut harness = Harness::start("hostile-rotation").await;
    let old = harness.word();
    harness.roster.rotate().unwrap();
    harness.roster.publish().unwrap();
    harness.deliver(&harness.signed_roster()).await;
    assert!(harness.send_as(&harness.word().header(), GET).await.is_ok());
    assert!(harness.send_as(&old.header(), GET).await.is_ok(), "what the old key signed");
}

#[tokio::test]
async fn a_disabled_user_is_refused_by_the_roster_whatever_assertion_is_left() {
    let mut harness = Harness::start("hostile-disabled").await;
    let header = harness.word().header();
    assert!(harness.send_as(&header, GET).await.is_ok());
    harness.roster.document.users[0].disabled = true;
    harness.roster.publish().unwrap();
    harness.deliver(&harness.signed_roster()).await;
    let refused = harness.send_as(&header, GET).await.unwrap_err();
    assert!(refused.message.contains("disabled"), "{}", refused.message);
}
