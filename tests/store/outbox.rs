//! Events that wait: each is taken by one, in order, and again if whoever took it ends.

use std::time::Duration;

use super::support::{Fixture, draft};

over_both! {
    while_one_relay_has_the_older_events_of_an_inbox_another_gets_none_of_it,
    what_a_relay_has_taken_and_not_published_comes_again,
}

const LOCK: Duration = Duration::from_secs(30);

async fn while_one_relay_has_the_older_events_of_an_inbox_another_gets_none_of_it(db: Fixture) {
    for number in 1..=3 {
        db.create(&format!("t{number}"), &["user_ann"], &draft("Hello"), number).await;
    }
    db.create("t4", &["user_bob"], &draft("Hello"), 4).await;
    let now = db.at(5);
    let first = db.store.take_outgoing(2, now.after(LOCK), now).await.unwrap();
    assert_eq!(
        first.iter().map(|event| (event.user.as_str(), event.rev)).collect::<Vec<_>>(),
        [("user_ann", 1), ("user_ann", 2)]
    );
    let other = db.store.take_outgoing(10, now.after(LOCK), now).await.unwrap();
    assert_eq!(other.iter().map(|event| (event.user.as_str(), event.rev)).collect::<Vec<_>>(), [("user_bob", 1)]);
    db.store.published(&[first[0].id, first[1].id], now).await.unwrap();
    let next = db.store.take_outgoing(10, now.after(LOCK), now).await.unwrap();
    assert_eq!(next.iter().map(|event| event.rev).collect::<Vec<_>>(), [3]);
}

async fn what_a_relay_has_taken_and_not_published_comes_again(db: Fixture) {
    db.create("t1", &["user_ann"], &draft("Hello"), 1).await;
    let now = db.at(2);
    let taken = db.store.take_outgoing(10, now.after(LOCK), now).await.unwrap();
    assert_eq!(db.store.take_outgoing(10, now.after(LOCK), now).await.unwrap(), []);
    let later = now.after(LOCK);
    assert_eq!(db.store.take_outgoing(10, later.after(LOCK), later).await.unwrap(), taken, "its node has died");
    db.store.release(&[taken[0].id]).await.unwrap();
    assert_eq!(db.store.take_outgoing(10, later.after(LOCK), later).await.unwrap(), taken, "it gave it back");
}
