//! Projects and users with real tokens.

use crate::Kit;
use serde_json::{Value, json};

/// A user with a token.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Its token.
    pub token: String,
    /// The user's id.
    pub user: String,
    /// The user's name.
    pub name: String,
    /// The project that the token is scoped to.
    pub project: String,
    /// The password.
    pub password: String,
}

/// A project with a user for each role.
#[derive(Debug, Clone)]
pub struct Project {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Holds `manager`.
    pub manager: Actor,
    /// Holds `member`.
    pub member: Actor,
    /// Holds `reader`.
    pub reader: Actor,
    /// Holds a role that no rule names.
    pub nobody: Actor,
}

/// Signs a user of the domain `default` in to a project.
pub(crate) async fn sign_in(kit: &Kit, user: &str, password: &str, project: &str) -> Actor {
    let body = json!({"auth": {
        "identity": {"methods": ["password"], "password": {"user": {
            "name": user, "domain": {"id": "default"}, "password": password}}},
        "scope": {"project": {"name": project, "domain": {"id": "default"}}}}});
    let answer = kit.call("POST", "/identity/v3/auth/tokens", "", body).await;
    let token = answer.expect(201)["token"].clone();
    Actor {
        token: answer.header("x-subject-token").to_owned(),
        user: text(&token["user"]["id"]),
        name: user.to_owned(),
        project: text(&token["project"]["id"]),
        password: password.to_owned(),
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is not text"))
        .to_owned()
}

impl Kit {
    /// Makes a project with users, through the identity API.
    pub async fn project(&self, name: &str) -> Project {
        let admin = self.admin();
        let made = self
            .post(
                &admin,
                "/identity/v3/projects",
                json!({"project": {"name": name, "domain_id": "default"}}),
            )
            .await;
        let id = text(&made["project"]["id"]);
        self.role("bystander").await;
        Project {
            manager: self.user_of(name, &id, "manager").await,
            member: self.user_of(name, &id, "member").await,
            reader: self.user_of(name, &id, "reader").await,
            nobody: self.user_of(name, &id, "bystander").await,
            name: name.to_owned(),
            id,
        }
    }

    /// The id of a role; it is made if there is none.
    pub async fn role(&self, name: &str) -> String {
        let admin = self.admin();
        let found = self.get(&admin, &format!("/identity/v3/roles?name={name}")).await;
        if let Some(id) = found["roles"][0]["id"].as_str() {
            return id.to_owned();
        }
        let made = self
            .post(&admin, "/identity/v3/roles", json!({"role": {"name": name}}))
            .await;
        text(&made["role"]["id"])
    }

    /// Signs a user in anew: tokens of before a restore are not taken after it.
    pub async fn sign_in_again(&self, who: &Actor, project: &str) -> Actor {
        sign_in(self, &who.name, &who.password, project).await
    }

    /// Makes a user with a role on a project, and signs it in.
    pub async fn user_of(&self, project: &str, project_id: &str, role: &str) -> Actor {
        let admin = self.admin();
        let name = format!("{project}-{role}");
        let password = format!("{name}-secret");
        let body = json!({"user": {"name": name, "password": password, "domain_id": "default"}});
        let made = self.post(&admin, "/identity/v3/users", body).await;
        let user = text(&made["user"]["id"]);
        let role = self.role(role).await;
        let path = format!("/identity/v3/projects/{project_id}/users/{user}/roles/{role}");
        self.put(&admin, &path, Value::Null).await;
        sign_in(self, &name, &password, project).await
    }
}
