//! The description of the REST API for programs: OpenAPI 3.0, of the types that control reads and writes.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::{Map, Value, json};

use crate::enrolment;
use crate::kinds::{
    Binding, Cluster, Enrolment, Kind, Object, Provider, RegistrationToken, Role, Token, User,
};
use crate::rest::{
    Caller, ChangePassword, ChangeSecret, Created, DroverStatus, GATEWAY, GATEWAYS, GROUPS, GatewayStatus,
    Gateways, Groups, JWT, JwtLogin, JwtShown, LOGIN, List, Login, PASSWORD, PREFIX, PRINCIPALS,
    PROVIDER_SECRET, Principals, REFRESH_USER, RENEWAL, RenewLogin, Revoked, SELF, STATUS, Served,
    TEST_PROVIDER, TOKEN_USES, TokenUses, USER_TOKENS,
};
use crate::status::Status;

pub const PATH: &str = "/v1/openapi.json";

/// The whole description.
pub fn describe() -> Value {
    let mut paths = Paths { generator: SchemaSettings::openapi3().into_generator(), paths: Map::new() };
    let login = Operation::new("login", "Gets a token for a name and a password.");
    let login = login.takes::<Login>(&mut paths).gives::<Created<Token>>(&mut paths, 201).open();
    paths.add(LOGIN, "post", login);
    let renew = Operation::new("renewLogin", "Makes of a login's token the next one: it lasts longer.");
    let renew = renew.takes::<RenewLogin>(&mut paths).gives::<Created<Token>>(&mut paths, 201);
    paths.add(RENEWAL, "post", renew);
    let jwt = Operation::new(
        "loginByJwt",
        "Makes a JWT of a trusted issuer a token: it is shown as one from then on.",
    );
    let jwt = jwt.takes::<JwtLogin>(&mut paths).gives::<JwtShown>(&mut paths, 200).open();
    paths.add(JWT, "post", jwt);
    let who = Operation::new("whoAmI", "Tells who the token's user is.").gives::<Caller>(&mut paths, 200);
    paths.add(SELF, "get", who);
    let change = Operation::new("changePassword", "Changes one's own password, or another's by a rule.");
    let change = change.takes::<ChangePassword>(&mut paths).gives::<Created<User>>(&mut paths, 200).keyed();
    paths.add(PASSWORD, "post", change);
    let refresh = Operation::new(
        "refreshUser",
        "Asks the user's directory now; whoever it lets in no more is logged out.",
    );
    let refresh = refresh.gives::<Object<User>>(&mut paths, 200).keyed();
    paths.add(REFRESH_USER, "post", refresh);
    let test = Operation::new("testProvider", "Tries a provider that is kept, and changes nothing.");
    let test = test.gives::<Object<Provider>>(&mut paths, 200).keyed();
    paths.add(TEST_PROVIDER, "post", test);
    let secret = Operation::new(
        "changeProviderSecret",
        "Gives a provider another password or client's secret, which is tried first.",
    );
    let secret = secret.takes::<ChangeSecret>(&mut paths).gives::<Object<Provider>>(&mut paths, 200).keyed();
    paths.add(PROVIDER_SECRET, "post", secret);
    let groups = Operation::new(
        "listGroups",
        "Lists the groups of the users and bindings that the caller sees, with their names.",
    );
    let groups = groups.gives::<Groups>(&mut paths, 200);
    paths.add(GROUPS, "get", groups);
    let gateways =
        Operation::new("listGateways", "Lists the gateways that follow control, or did and may still serve.");
    let gateways = gateways.gives::<Gateways>(&mut paths, 200);
    paths.add(GATEWAYS, "get", gateways);
    let forget = Operation::new("forgetGateway", "Waits for a gateway no more that is gone for good.");
    let forget = forget.gives::<GatewayStatus>(&mut paths, 200).keyed();
    paths.add(GATEWAY, "delete", forget);
    let status =
        Operation::new("status", "Names objects that are not in force as they were written, and why.");
    let status = status.gives::<DroverStatus>(&mut paths, 200);
    paths.add(STATUS, "get", status);
    let search = Operation::new(
        "searchProvider",
        "Searches a directory for users and groups, whether or not anybody has logged in.",
    );
    let search = search.gives::<Principals>(&mut paths, 200).keyed().asks("name");
    paths.add(PRINCIPALS, "get", search);
    let uses = Operation::new("tokenUses", "Tells when the tokens that the caller sees were last used.");
    let uses = uses.gives::<TokenUses>(&mut paths, 200);
    paths.add(TOKEN_USES, "get", uses);
    let revoke =
        Operation::new("revokeAllTokens", "Ends every token of a user's, one's own or another's by a rule.");
    let revoke = revoke.gives::<Revoked>(&mut paths, 200).keyed();
    paths.add(USER_TOKENS, "delete", revoke);
    let enrol = Operation::new("enrol", "Gives a process its certificate, for a proof in the request.");
    let enrol =
        enrol.takes::<enrolment::Request>(&mut paths).gives::<enrolment::Answer>(&mut paths, 200).open();
    paths.add(enrolment::PATH, "post", enrol);
    let enrolments =
        Operation::new("listEnrolments", "Lists what the certificates of agents and gateways go back to.");
    let enrolments = enrolments.gives::<List<Enrolment>>(&mut paths, 200);
    paths.add(&format!("{PREFIX}/{}", Enrolment::PLURAL), "get", enrolments);
    let end =
        Operation::new("deleteEnrolment", "Ends a process: its certificates, its renewals and its sessions.");
    let end = end.gives::<Object<Enrolment>>(&mut paths, 200).keyed();
    paths.add(&format!("{PREFIX}/{}/{{key}}", Enrolment::PLURAL), "delete", end);
    paths.kind::<Binding>();
    paths.kind::<Cluster>();
    paths.kind::<Provider>();
    paths.kind::<RegistrationToken>();
    paths.kind::<Role>();
    paths.kind::<Token>();
    paths.kind::<User>();
    let schemas = paths.generator.take_definitions(true);
    json!({
        "openapi": "3.0.3",
        "info": { "title": "Drover", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths.paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }],
    })
}

struct Paths {
    generator: SchemaGenerator,
    paths: Map<String, Value>,
}

impl Paths {
    fn add(&mut self, path: &str, method: &str, operation: Operation) {
        self.paths.entry(path).or_insert_with(|| json!({}))[method] = operation.0;
    }

    fn kind<K>(&mut self)
    where
        K: Served<Create: JsonSchema> + JsonSchema,
    {
        let (all, name) = (format!("{PREFIX}/{}", K::PLURAL), K::KIND);
        let one = format!("{all}/{{key}}");
        let named = |verb: &str, words: &str| Operation::new(&format!("{verb}{name}"), words);
        let list = named("list", "Lists what the caller may see.").gives::<List<K>>(self, 200);
        self.add(&all, "get", list);
        let create = named("create", "Makes one; `secret` is shown this once.");
        let create = create.takes::<K::Create>(self).gives::<Created<K>>(self, 201);
        self.add(&all, "post", create);
        let read = named("read", "Reads one.").gives::<Object<K>>(self, 200);
        self.add(&one, "get", read.keyed());
        let replace = named("replace", "Replaces one, of the revision that it was made from.");
        let replace = replace.takes::<Object<K>>(self).gives::<Object<K>>(self, 200);
        self.add(&one, "put", replace.keyed());
        let delete = named("delete", "Deletes one, and what means nothing without it.");
        let delete = delete.gives::<Object<K>>(self, 200);
        self.add(&one, "delete", delete.keyed());
    }
}

struct Operation(Value);

impl Operation {
    fn new(id: &str, summary: &str) -> Self {
        Self(json!({ "operationId": id, "summary": summary, "responses": {} }))
    }

    fn takes<T: JsonSchema>(mut self, paths: &mut Paths) -> Self {
        let schema = paths.generator.subschema_for::<T>();
        self.0["requestBody"] = json!({ "required": true, "content": content(schema) });
        self
    }

    fn gives<T: JsonSchema>(mut self, paths: &mut Paths, code: u16) -> Self {
        let (given, status) =
            (paths.generator.subschema_for::<T>(), paths.generator.subschema_for::<Status>());
        self.0["responses"][code.to_string()] = json!({ "description": "done", "content": content(given) });
        self.0["responses"]["default"] = json!({ "description": "refused", "content": content(status) });
        self
    }

    /// Without a token.
    fn open(mut self) -> Self {
        self.0["security"] = json!([]);
        self
    }

    fn keyed(self) -> Self {
        self.parameter("key", "path")
    }

    /// With what is asked for in the query.
    fn asks(self, name: &str) -> Self {
        self.parameter(name, "query")
    }

    fn parameter(mut self, name: &str, place: &str) -> Self {
        let schema = json!({ "type": "string" });
        let parameter = json!({ "name": name, "in": place, "required": true, "schema": schema });
        let mut parameters = self.0["parameters"].as_array().cloned().unwrap_or_default();
        parameters.push(parameter);
        self.0["parameters"] = parameters.into();
        self
    }
}

fn content(schema: Schema) -> Value {
    json!({ "application/json": { "schema": schema } })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file that people read; `DROVER_WRITE=1` writes it anew.
    #[test]
    fn the_description_in_docs_is_the_one_that_is_served() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/openapi.json");
        let rendered = format!("{:#}\n", describe());
        if std::env::var_os("DROVER_WRITE").is_some() {
            std::fs::write(path, &rendered).unwrap();
        }
        assert!(std::fs::read_to_string(path).unwrap() == rendered, "run this test with DROVER_WRITE=1");
    }

    #[test]
    fn everything_that_is_referred_to_is_there() {
        let description = describe();
        let text = description.to_string();
        let references = text.split("\"$ref\":\"").skip(1).map(|rest| rest.split('"').next().unwrap());
        let mut found = 0;
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(description.pointer(pointer).is_some(), "{reference}");
            found += 1;
        }
        assert!(found > 50, "{found} references");
    }
}
