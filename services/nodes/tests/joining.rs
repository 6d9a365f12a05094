//! Join tokens as they age. In a file of its own: it moves the clock.
#![allow(clippy::unwrap_used)]

use jiff::SignedDuration;
use maru_base::ErrorKind;
use maru_nodes::joining::{JoinToken, Redeem, admit, issue, redeem, register};
use maru_store::{Registry, Store};

#[tokio::test]
async fn a_token_ends_when_it_says() {
    let mut registry = Registry::new();
    register(&mut registry);
    maru_compute_model::register(&mut registry);
    let store = Store::in_memory(registry);
    let (hour, week) = (3_600, 7 * 24 * 3_600);
    let (token, secret) = issue(&store, None, SignedDuration::from_hours(1)).await.unwrap();
    let (unused, other) = issue(&store, None, SignedDuration::from_hours(1)).await.unwrap();
    let request = |token, secret, node| Redeem {
        token,
        secret,
        node,
        key: "k",
        from: "192.0.2.7",
    };
    let used = request(&token, &secret, "far");
    let late = request(&unused, &other, "late");
    maru_base::time::advance(hour - 60);
    redeem(&store, &used).await.unwrap();
    admit(&store.snapshot(), "far", "k").unwrap();
    assert_eq!(
        admit(&store.snapshot(), "far", "other").unwrap_err().kind(),
        ErrorKind::Forbidden
    );

    maru_base::time::advance(120);
    let ended = redeem(&store, &late).await.unwrap_err();
    assert!(ended.message().contains("This token ended at"), "{}", ended.message());
    assert!(admit(&store.snapshot(), "late", "k").is_err());
    // The machine that used it may ask again all the same, and the secret is kept nowhere.
    redeem(&store, &used).await.unwrap();
    let kept = store
        .snapshot()
        .list::<JoinToken>()
        .map(|t| format!("{t:?}"))
        .collect::<String>();
    assert!(!kept.contains(&secret));

    // What ended long ago is forgotten when the next one is made.
    maru_base::time::advance(week + hour);
    issue(&store, None, SignedDuration::from_hours(1)).await.unwrap();
    assert_eq!(store.snapshot().list::<JoinToken>().count(), 1);
    assert!(
        redeem(&store, &used)
            .await
            .unwrap_err()
            .message()
            .contains("not of this cloud")
    );
    admit(&store.snapshot(), "far", "k").unwrap();
}
