//! What people do with kubectl, through gateway and agent, on a real API server.

use serde_json::Value;

use crate::system::Fleet;

#[tokio::test]
async fn whoami_shows_the_gateways_user_and_groups() {
    let fleet = Fleet::start("whoami").await;
    let said = fleet.says(&fleet.admin, "one", &["auth", "whoami", "-o", "json"]).await.unwrap();
    let review: Value = serde_json::from_str(&said).unwrap();
    let user = &review["status"]["userInfo"];
    assert_eq!(user["username"], "admin");
    assert_eq!(user["uid"], "local:user/admin");
    let groups: Vec<_> =
        user["groups"].as_array().unwrap().iter().map(|group| group.as_str().unwrap()).collect();
    assert_eq!(groups, ["drover:cluster-owner", "local:group/platform", "system:authenticated"]);
}
