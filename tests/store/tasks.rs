//! What is noted as work left to be done: once for what was announced, taken by one node at a time, gone with its user.

use std::time::Duration;

use herald::store::notification::{Draft, Filter};
use herald::store::people::{Change, Inbound};
use herald::store::preferences::{Channel, Settings};
use herald::store::tasks::{Dispatch, NewTask, Task, TaskKind};
use uuid::Uuid;

use super::support::{ANN, Fixture, draft};

over_both! {
    what_is_announced_is_noted_and_what_only_comes_back_is_not,
    a_task_is_one_nodes_until_it_is_done_or_put_off,
    settings_that_change_have_what_waits_looked_at_again,
    whoever_is_deleted_leaves_no_task,
    the_ways_that_were_named_are_kept,
    a_task_of_its_own_is_noted_once_and_not_before_its_time,
}

const LOCK: Duration = Duration::from_secs(30);

async fn take(db: &Fixture, second: u64) -> Vec<Task> {
    let now = db.at(second);
    db.store.take_tasks(TaskKind::Dispatch, 100, now.after(LOCK), now).await.unwrap()
}

fn ids(tasks: &[Task]) -> Vec<Uuid> {
    tasks.iter().map(|task| task.id).collect()
}

fn about(task: &Task) -> Uuid {
    serde_json::from_str::<Dispatch>(&task.payload).unwrap().notification
}

async fn what_is_announced_is_noted_and_what_only_comes_back_is_not(db: Fixture) {
    let first = db.one("first", 1).await;
    db.create("first", &[ANN.user], &draft("first"), 1).await;
    let tasks = take(&db, 1).await;
    assert_eq!(tasks.iter().map(about).collect::<Vec<_>>(), [first.id], "what was repeated is none");
    assert_eq!((tasks[0].user.as_deref(), tasks[0].attempts), (Some(ANN.user), 0));
    db.store.finish_tasks(&ids(&tasks), None, db.at(1)).await.unwrap();

    db.try_create("later", "hash", &[ANN.user], &draft("later"), Some(db.at(10)), 2).await.unwrap();
    assert_eq!(take(&db, 9).await, [], "it is not there yet");
    db.store.announce_due(100, db.at(10)).await.unwrap();
    let tasks = take(&db, 10).await;
    assert_eq!(tasks.len(), 1);
    db.store.finish_tasks(&ids(&tasks), None, db.at(10)).await.unwrap();

    let grouped = Draft { group_key: Some("g".to_owned()), ..draft("grouped") };
    for (second, id) in [(11, "g1"), (12, "g2")] {
        db.create(id, &[ANN.user], &grouped, second).await;
    }
    let tasks = take(&db, 12).await;
    assert_eq!((tasks.len(), about(&tasks[0])), (2, about(&tasks[1])), "it has grown: that is news");
    db.store.finish_tasks(&ids(&tasks), None, db.at(12)).await.unwrap();

    let action = herald::store::action::Action::Snooze(db.at(20));
    db.store.act(ANN, first.id, &[action], db.at(13)).await.unwrap();
    db.store.announce_due(100, db.at(20)).await.unwrap();
    assert_eq!(take(&db, 20).await, [], "that was seen before");
}

async fn a_task_is_one_nodes_until_it_is_done_or_put_off(db: Fixture) {
    db.create("t", &["user_ann", "user_bob"], &draft("Hello"), 1).await;
    let taken = take(&db, 1).await;
    assert_eq!((taken.len(), take(&db, 2).await.len()), (2, 0));
    assert_eq!(take(&db, 31).await, taken, "its node has died");
    let [done, failed] = &taken[..] else { panic!() };
    db.store.finish_tasks(&[done.id], None, db.at(32)).await.unwrap();
    db.store.postpone_tasks(&[failed.id], db.at(40), Some("it answered 500")).await.unwrap();
    assert_eq!(take(&db, 39).await, []);
    let again = take(&db, 40).await;
    assert_eq!((ids(&again), again[0].attempts), (vec![failed.id], 1));
    db.store.postpone_tasks(&[failed.id], db.at(50), None).await.unwrap();
    assert_eq!(take(&db, 50).await[0].attempts, 1, "put off is not tried");
    db.store.finish_tasks(&[failed.id], Some("it answered 500"), db.at(51)).await.unwrap();
    assert_eq!(take(&db, 99).await, []);
    db.store.purge(Duration::from_secs(1), 100, db.at(60 * 60 * 25)).await.unwrap();
    db.create("t", &["user_ann"], &draft("Hello"), 60 * 60 * 26).await;
    assert_eq!(take(&db, 60 * 60 * 27).await.len(), 1, "a new one, since the request was forgotten too");
}

async fn settings_that_change_have_what_waits_looked_at_again(db: Fixture) {
    db.create("t", &["user_ann", "user_bob"], &draft("Hello"), 1).await;
    let taken = take(&db, 1).await;
    db.store.postpone_tasks(&ids(&taken), db.at(1_000), None).await.unwrap();
    db.store.put_settings(ANN, &Settings::default(), db.at(2)).await.unwrap();
    let woken = take(&db, 2).await;
    assert_eq!(woken.iter().filter_map(|task| task.user.as_deref()).collect::<Vec<_>>(), [ANN.user]);
}

async fn whoever_is_deleted_leaves_no_task(db: Fixture) {
    db.create("t", &["user_ann", "user_bob"], &draft("Hello"), 1).await;
    let inbound = Inbound { source: "clerk", event_id: "e", kind: "user.deleted" };
    db.store.apply(&inbound, &Change::UserDeleted { id: ANN.user.to_owned() }, db.at(2)).await.unwrap();
    let left = take(&db, 3).await;
    assert_eq!(left.iter().filter_map(|task| task.user.as_deref()).collect::<Vec<_>>(), ["user_bob"]);
}

async fn the_ways_that_were_named_are_kept(db: Fixture) {
    let by_mail = Draft { channels: Some(vec![Channel::Email]), ..draft("by mail") };
    db.create("t1", &[ANN.user], &by_mail, 1).await;
    db.create("t2", &[ANN.user], &Draft { channels: Some(Vec::new()), ..draft("none") }, 2).await;
    db.create("t3", &[ANN.user], &draft("any"), 3).await;
    let found = db.list(&Filter::default(), 4).await;
    let ways: Vec<_> = found.iter().map(|item| item.draft.channels.clone()).collect();
    assert_eq!(ways, [None, Some(Vec::new()), Some(vec![Channel::Email])]);
}

async fn a_task_of_its_own_is_noted_once_and_not_before_its_time(db: Fixture) {
    let task =
        |available_at| NewTask { kind: TaskKind::Dispatch, dedupe_key: "own", user: None, payload: "{}", available_at };
    let add = async |second| db.store.add_task(&task(db.at(second)), db.at(1)).await.unwrap();
    assert_eq!((add(5).await, add(1).await), (true, false), "the first one counts");
    assert_eq!(take(&db, 4).await, []);
    let taken = take(&db, 5).await;
    assert_eq!((taken.len(), taken[0].user.as_deref(), taken[0].payload.as_str()), (1, None, "{}"));
    db.store.finish_tasks(&ids(&taken), None, db.at(5)).await.unwrap();
    assert!(!add(6).await, "what was done is not done again");
}
