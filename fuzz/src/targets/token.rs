//! Tokens: the payload's bytes, and whole tokens as a stranger sends them, against a real store.

use super::{Target, words};
use anyhow::{Context, Result};
use base64::Engine;
use maru_auth::{Scope, TokenVerifier};
use maru_identity::{App, Bootstrap, Secret, Settings};
use maru_identity_model::{TokenScope, decode_receipt, decode_token};
use maru_store::{Registry, Store};
use std::{collections::HashSet, sync::Arc};

struct World {
    runtime: tokio::runtime::Runtime,
    verifier: Arc<dyn TokenVerifier>,
    /// The payloads, or rather the whole decoded bytes, of the tokens that were issued.
    issued: HashSet<Vec<u8>>,
    tokens: Vec<String>,
}

fn world() -> Result<World> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (verifier, tokens) = runtime.block_on(async {
        let mut registry = Registry::new();
        maru_identity_model::register(&mut registry);
        let store = Store::in_memory(registry);
        let settings = Settings {
            bcrypt_cost: 4,
            ..Settings::default()
        };
        let made = maru_identity::bootstrap(
            &store,
            &Bootstrap {
                admin_password: Secret::new("secret"),
                reset_password: false,
                region: "r".into(),
                public_url: "http://t/identity".into(),
                bcrypt_cost: 4,
            },
        )
        .await?;
        let app = App::new(store, settings);
        let mut tokens = Vec::new();
        for scope in [
            Scope::Project(made.admin_project.clone()),
            Scope::System,
            Scope::Unscoped,
        ] {
            tokens.push(maru_identity::issue_for_tests(&app, &made.admin_user, scope)?);
        }
        anyhow::Ok((maru_identity::verifier(app), tokens))
    })?;
    let issued = tokens.iter().filter_map(|t| envelope(t)).collect();
    Ok(World {
        runtime,
        verifier,
        issued,
        tokens,
    })
}

/// A token's bytes beneath its spelling.
fn envelope(token: &str) -> Option<Vec<u8>> {
    let lenient = base64::engine::GeneralPurpose::new(
        &base64::alphabet::URL_SAFE,
        base64::engine::GeneralPurposeConfig::new()
            .with_decode_allow_trailing_bits(true)
            .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
    );
    lenient.decode(token.trim_end_matches('=')).ok()
}

/// The first byte chooses: `p` payload bytes, `r` a receipt's bytes, anything else a token's text.
pub fn target() -> Result<Target> {
    let world = world()?;
    let mut seeds: Vec<Vec<u8>> = world.tokens.iter().map(|t| format!("t{t}").into_bytes()).collect();
    let payload = maru_identity_model::Payload {
        incarnation: "0123456789abcdef0123456789abcdef".into(),
        revision: 7,
        issued_at: 1,
        expires_at: 2,
        methods: maru_identity_model::Methods::PASSWORD,
        user_id: "0123456789abcdef0123456789abcdef".into(),
        scope: TokenScope::Unscoped,
        audit_ids: vec![[7; 16]],
        delegation: None,
    };
    let scopes = [
        TokenScope::Unscoped,
        TokenScope::Project("fedcba9876543210fedcba9876543210".into()),
        TokenScope::Domain("default".into()),
        TokenScope::System,
    ];
    for scope in scopes {
        let payload = maru_identity_model::Payload {
            user_id: "not-hexadecimal".into(),
            audit_ids: vec![[1; 16], [2; 16]],
            scope,
            ..payload.clone()
        };
        seeds.push([b"p", payload.encode().as_slice()].concat());
    }
    seeds.push([b"p", payload.encode().as_slice()].concat());
    let receipt = maru_identity_model::Receipt {
        incarnation: payload.incarnation.clone(),
        revision: 7,
        issued_at: 1,
        expires_at: 2,
        methods: maru_identity_model::Methods::PASSWORD,
        user_id: "0123456789abcdef0123456789abcdef".into(),
    };
    seeds.push([b"r", receipt.encode().as_slice()].concat());
    let first = world.tokens.first().context("no token was issued")?.clone();
    let run = move |input: &[u8]| {
        let Some((kind, rest)) = input.split_first() else {
            return false;
        };
        if *kind == b'r' {
            let Ok(receipt) = decode_receipt(rest) else {
                return false;
            };
            assert_eq!(receipt.encode(), rest, "another spelling of a receipt was taken");
            assert!(decode_token(rest).is_err(), "a receipt is read as a token");
            return true;
        }
        if *kind == b'p' {
            let Ok(payload) = decode_token(rest) else { return false };
            // One payload has one form: two tokens never differ only in how they are written.
            assert_eq!(payload.encode(), rest, "another spelling of a payload was taken");
            return true;
        }
        let Ok(text) = std::str::from_utf8(rest) else {
            return false;
        };
        let Ok(caller) = world.runtime.block_on(world.verifier.verify(text)) else {
            return false;
        };
        let bytes = envelope(text);
        assert!(
            bytes.is_some_and(|b| world.issued.contains(&b)),
            "a token that nobody issued was taken"
        );
        assert_eq!(caller.user_name, "admin");
        true
    };
    Ok(Target {
        name: "token",
        seeds,
        words: words(&[
            "gAAAA",
            "=",
            "==",
            "-",
            "_",
            &first,
            "\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}\u{0}",
        ]),
        most: 2_048,
        run: Box::new(run),
    })
}
