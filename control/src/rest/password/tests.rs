use drover_api::kinds::Domain;
use serde_json::json;

use crate::rest::tests::served;

#[tokio::test]
async fn none_of_the_last_five_passwords_is_taken_again() {
    let served = served().await;
    let admin = served.user("admin", &[("admin", Domain::Global)]).await;
    let first = "password number 0";
    let zoe = json!({ "name": "zoe", "password": first });
    assert_eq!(served.ask(&admin, "POST", "/v1/users", Some(zoe)).await.0, 201);
    let change = async |next: &str| {
        served.ask(&admin, "POST", "/v1/users/zoe/password", Some(json!({ "password": next }))).await
    };
    let refused = async |next: &str| {
        let (code, answer) = change(next).await;
        code == 422 && answer["message"].as_str().unwrap().contains("was the user's before")
    };
    assert!(refused(first).await, "the one that is");
    for number in 1..=5 {
        assert!(refused(first).await, "before the {number}th");
        assert_eq!(change(&format!("password number {number}")).await.0, 200);
    }
    // Five are remembered: the first is none of them any more.
    assert!(refused("password number 1").await && refused("password number 5").await);
    assert_eq!(change(first).await.0, 200);
}
