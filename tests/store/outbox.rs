//! Events that wait: each is taken by one, in order, and again if whoever took it ends.

use std::time::Duration;

use herald::store::action::Action;
use herald::store::notification::Filter;
use herald::store::tasks::TaskKind;

use super::support::{ANN, Fixture, draft, titles};

over_both! {
    while_one_relay_has_the_older_events_of_an_inbox_another_gets_none_of_it,
    what_a_relay_has_taken_and_not_published_comes_again,
    a_clock_that_goes_back_holds_nothing_up,
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

async fn a_clock_that_goes_back_holds_nothing_up(db: Fixture) {
    const AHEAD: u64 = 100_000;
    db.create("t1", &["user_ann"], &draft("From the future"), AHEAD).await;
    let taken = |second: u64| {
        let now = db.at(second);
        db.store.take_outgoing(10, now.after(LOCK), now)
    };
    // Its node dies, and the clock is put right.
    assert_eq!(taken(AHEAD).await.unwrap().len(), 1);
    db.create("t2", &["user_ann"], &draft("From now"), 10).await;
    let events = taken(11).await.unwrap();
    assert_eq!(events.iter().map(|event| event.rev).collect::<Vec<_>>(), [1, 2], "in order, and at once");
    assert_eq!(taken(12).await.unwrap(), [], "this lock holds");
    assert_eq!(db.state(12).await, (2, 2, 2));
    let listed = db.list(&Filter::default(), 12).await;
    assert_eq!(titles(&listed), ["From the future", "From now"], "what was announced is there");
    let read = db.store.act(ANN, listed[0].id, &[Action::Read], db.at(13)).await.unwrap().unwrap();
    assert_eq!((read.state.rev, read.state.counts.unread), (3, 1));
    let work = |second: u64| {
        let now = db.at(second);
        db.store.take_tasks(TaskKind::Dispatch, 10, now.after(LOCK), now)
    };
    assert_eq!(work(AHEAD).await.unwrap().len(), 2);
    assert_eq!(work(14).await.unwrap().len(), 1, "what is due by this clock is not held by a lock of the other");
}
