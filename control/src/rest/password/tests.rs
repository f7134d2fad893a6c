use drover_api::kinds::Domain;
use serde_json::{Value, json};

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

#[tokio::test]
async fn a_password_is_changed_with_the_one_that_is_or_by_a_rule_and_ends_other_logins() {
    let served = served().await;
    let admin = served.user("admin", &[("admin", Domain::Global)]).await;
    let login = async |password: &str| {
        let zoe = json!({ "name": "zoe", "password": password });
        served.ask("", "POST", "/v1/login", Some(zoe)).await
    };
    let zoe = json!({ "name": "zoe", "password": "correct horse" });
    assert_eq!(served.ask(&admin, "POST", "/v1/users", Some(zoe)).await.0, 201);
    let token = |login: (u16, Value)| login.1["secret"].as_str().unwrap().to_owned();
    let (one, other) = (token(login("correct horse").await), token(login("correct horse").await));
    let path = "/v1/users/zoe/password";
    for (wrong, field) in [
        (json!({ "password": "another horse" }), "current"),
        (json!({ "current": "wrong horse!", "password": "another horse" }), "current"),
        (json!({ "current": "correct horse", "password": "short" }), "password"),
    ] {
        let (code, answer) = served.ask(&one, "POST", path, Some(wrong)).await;
        assert_eq!((code, &answer["details"]["causes"][0]["field"]), (422, &json!(field)), "{answer}");
    }
    let change = json!({ "current": "correct horse", "password": "another horse" });
    assert_eq!(served.ask(&one, "POST", path, Some(change)).await.0, 200);
    assert_eq!(served.ask(&one, "GET", "/v1/self", None).await.0, 200);
    assert_eq!(served.ask(&other, "GET", "/v1/self", None).await.0, 401);
    assert_eq!(login("correct horse").await.0, 401);
    let two = token(login("another horse").await);

    let stranger = served.user("stranger", &[("cluster-owner", Domain::Global)]).await;
    assert_eq!(served.ask(&stranger, "POST", path, Some(json!({}))).await.0, 404);
    let (code, reset) = served.ask(&admin, "POST", path, Some(json!({}))).await;
    assert_eq!(code, 200, "{reset}");
    assert_eq!(served.ask(&two, "GET", "/v1/self", None).await.0, 401);
    assert_eq!(login(reset["secret"].as_str().unwrap()).await.0, 201);
}
