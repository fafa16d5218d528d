//! Users' files: what Cloudinary's notifications change, by the scenario of the specification, in whatever order they come.

use std::time::Duration;

use herald::integrations::cloudinary::notification;
use herald::store::StoreError;
use herald::store::files::{Destroy, File, FileChange, FileEvent, FileEventName, FileStatus, NewFile};
use herald::store::people::{Change, Inbound};
use herald::store::tasks::{Task, TaskKind};
use serde_json::{Value, json};

use super::support::{ANN, APP, Fixture};

over_both! {
    cloudinarys_notifications_have_the_effects_that_the_scenario_says,
    what_comes_late_brings_nothing_back,
    a_renamed_file_keeps_its_row_and_leaves_its_owner_with_the_folder,
    what_was_made_later_is_the_small_picture,
    a_deleted_user_leaves_a_task_for_each_file,
    a_file_is_deleted_once_and_its_place_may_be_taken_again,
    the_clients_word_counts_until_the_services_comes,
    pages_of_files_hold_each_once,
    strangers_have_files_only_where_nobody_tells_of_users,
    the_same_upload_told_by_many_at_once_is_one_file,
}

const MAX: u64 = 10_000_000;

async fn try_told(db: &Fixture, body: &Value, second: u64) -> Result<Vec<FileEvent>, StoreError> {
    let body = body.to_string();
    let read = notification::read(body.as_bytes(), MAX).unwrap();
    let inbound = Inbound { source: "cloudinary", event_id: &body, kind: &read.kind };
    db.store.apply_to_files(APP, &inbound, &read.change, false, db.at(second)).await
}

/// What is told of this notification.
async fn told(db: &Fixture, body: &Value, second: u64) -> Vec<(FileEventName, String)> {
    let events = try_told(db, body, second).await.unwrap();
    events.into_iter().map(|event| (event.name, event.file.service_file_id)).collect()
}

async fn list(db: &Fixture, user: &str) -> Vec<File> {
    db.store.files(APP, user, None, 100).await.unwrap().items
}

async fn meet(db: &Fixture, users: &[&str]) {
    for user in users {
        assert!(db.store.meet(user, db.at(0)).await.unwrap());
    }
}

async fn tasks(db: &Fixture, second: u64) -> Vec<Task> {
    let now = db.at(second);
    db.store.take_tasks(TaskKind::Destroy, 100, now.after(Duration::from_secs(1)), now).await.unwrap()
}

fn destroyed(tasks: &[Task]) -> Vec<String> {
    let names = tasks.iter().map(|task| serde_json::from_str::<Destroy>(&task.payload).unwrap().key.service_file_id);
    names.collect()
}

fn upload(name: &str, version: i64, more: &Value) -> Value {
    let mut body = json!({
        "notification_type": "upload", "public_id": format!("users/{}/{name}", ANN.user), "version": version, "bytes": 10, "format": "jpg",
        "secure_url": format!("https://res.cloudinary.com/demo/image/upload/v{version}/users/{}/{name}.jpg", ANN.user),
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn deletion(name: &str, version: Option<i64>) -> Value {
    let resource = json!({ "public_id": format!("users/{}/{name}", ANN.user), "version": version });
    json!({ "notification_type": "delete", "resources": [resource], "version": version })
}

fn reported(name: &str, version: i64) -> NewFile {
    let body = upload(name, version, &json!({})).to_string();
    match notification::read(body.as_bytes(), MAX).unwrap().change {
        FileChange::Uploaded(file) => *file,
        other => panic!("{other:?}"),
    }
}

async fn cloudinarys_notifications_have_the_effects_that_the_scenario_says(db: Fixture) {
    let vectors: Value = serde_json::from_str(include_str!("../vectors/webhook_events.json")).unwrap();
    let scenario = &vectors["cloudinary"];
    let users: Vec<&str> =
        scenario["start"]["users"].as_array().unwrap().iter().map(|user| user.as_str().unwrap()).collect();
    meet(&db, &users).await;
    let mut second = 1;
    for step in scenario["deliveries"].as_array().unwrap() {
        second += 10;
        let (note, expect) = (step["note"].as_str().unwrap(), &step["expect"]);
        let before = list(&db, users[0]).await;
        let events = try_told(&db, &step["body"], second).await.unwrap();
        let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
        assert_eq!(names, expect["event"].as_str().into_iter().collect::<Vec<_>>(), "{note}");
        let after = list(&db, users[0]).await;
        if expect["unchanged"] == true {
            assert_eq!(before, after, "{note}");
        }
        if let Some(expected) = expect["file"].as_object() {
            let file = after.iter().find(|file| file.service_file_id == expected["service_file_id"]).unwrap();
            assert_eq!(*file, events[0].file, "{note}");
            let file = serde_json::to_value(file).unwrap();
            for (member, value) in expected {
                assert_eq!(&file[member], value, "{note}: {member}");
            }
        }
        let strings = |list: &Value| -> Vec<String> {
            list.as_array().into_iter().flatten().map(|name| name.as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(destroyed(&tasks(&db, second).await), strings(&expect["destroy"]), "{note}");
        for gone in strings(&expect["deleted"]) {
            assert!(after.iter().all(|file| file.service_file_id != gone), "{note}");
        }
        let open = tasks(&db, second + 5).await;
        db.store.finish_tasks(&open.iter().map(|task| task.id).collect::<Vec<_>>(), None, db.at(second)).await.unwrap();
    }
}

async fn what_comes_late_brings_nothing_back(db: Fixture) {
    meet(&db, &[ANN.user]).await;
    let id = |name: &str| format!("users/{}/{name}", ANN.user);
    assert_eq!(told(&db, &deletion("early", Some(5)), 1).await, [], "of what is not there nobody is told");
    assert_eq!(told(&db, &upload("early", 5, &json!({})), 2).await, [], "its deletion came before");
    assert_eq!(told(&db, &upload("early", 6, &json!({})), 3).await, [(FileEventName::Created, id("early"))]);

    assert_eq!(told(&db, &upload("a", 5, &json!({})), 4).await, [(FileEventName::Created, id("a"))]);
    assert_eq!(told(&db, &upload("a", 4, &json!({ "bytes": 1 })), 5).await, [], "older");
    assert_eq!(told(&db, &upload("a", 5, &json!({ "etag": "x" })), 6).await, [(FileEventName::Updated, id("a"))]);
    assert_eq!(told(&db, &deletion("a", Some(4)), 7).await, [], "that one was replaced");
    assert_eq!(told(&db, &deletion("a", None), 8).await, [(FileEventName::Deleted, id("a"))]);
    assert_eq!(told(&db, &upload("a", 5, &json!({ "etag": "y" })), 9).await, []);
    assert_eq!(list(&db, ANN.user).await.len(), 1);
    db.store.purge(Duration::from_secs(60), 100, db.at(100)).await.unwrap();
    assert_eq!(
        told(&db, &upload("a", 5, &json!({ "etag": "z" })), 101).await.len(),
        1,
        "that it was deleted is forgotten"
    );

    // The same file under another name, whose renaming was not told; what had that name before is no more.
    assert_eq!(told(&db, &upload("b", 7, &json!({ "asset_id": "a1" })), 102).await.len(), 1);
    assert_eq!(told(&db, &upload("c", 7, &json!({ "asset_id": "a2" })), 103).await.len(), 1);
    let moved = told(&db, &upload("c", 8, &json!({ "asset_id": "a1" })), 104).await;
    assert_eq!(moved, [(FileEventName::Updated, id("c"))]);
    let names: Vec<String> = list(&db, ANN.user).await.into_iter().map(|file| file.service_file_id).collect();
    assert_eq!(names, [id("b").replace("/b", "/c"), id("a"), id("early")]);
    // The same name as a video's is another file.
    let video = json!({ "resource_type": "video", "format": "mp4" });
    assert_eq!(told(&db, &upload("a", 5, &video), 105).await, [(FileEventName::Created, id("a"))]);
}

async fn a_renamed_file_keeps_its_row_and_leaves_its_owner_with_the_folder(db: Fixture) {
    meet(&db, &[ANN.user, "user_bob"]).await;
    told(&db, &upload("a", 1, &json!({})), 1).await;
    let row = list(&db, ANN.user).await[0].clone();
    let rename = |from: String, to: String| json!({ "notification_type": "rename", "resource_type": "image", "type": "upload", "from_public_id": from, "to_public_id": to });
    let id = |name: &str| format!("users/{}/{name}", ANN.user);
    told(&db, &upload("b", 1, &json!({})), 2).await;
    let renamed = told(&db, &rename(id("a"), id("b")), 3).await;
    assert_eq!(renamed, [(FileEventName::Updated, id("b"))], "what was called so before is overwritten");
    let [file] = &list(&db, ANN.user).await[..] else { panic!() };
    assert_eq!((file.id, file.service_file_id.as_str()), (row.id, id("b").as_str()));
    assert_eq!(told(&db, &rename(id("nothing"), id("c")), 4).await, []);
    let away = told(&db, &rename(id("b"), "users/user_bob/b".to_owned()), 5).await;
    assert_eq!(away, [(FileEventName::Deleted, "users/user_bob/b".to_owned())]);
    assert!(list(&db, ANN.user).await.is_empty() && list(&db, "user_bob").await.is_empty());
}

async fn what_was_made_later_is_the_small_picture(db: Fixture) {
    meet(&db, &[ANN.user]).await;
    told(&db, &upload("a", 1, &json!({})), 1).await;
    let made = json!({
        "notification_type": "eager", "batch_id": "1", "public_id": format!("users/{}/a", ANN.user),
        "eager": [{ "status": "completed", "secure_url": "https://res.cloudinary.com/demo/image/upload/c_thumb/v1/a.jpg" }],
    });
    assert_eq!(told(&db, &made, 2).await.len(), 1);
    let thumbnail = list(&db, ANN.user).await[0].thumbnail_url.clone();
    assert_eq!(thumbnail.as_deref(), Some("https://res.cloudinary.com/demo/image/upload/c_thumb/v1/a.jpg"));
}

async fn a_deleted_user_leaves_a_task_for_each_file(db: Fixture) {
    meet(&db, &[ANN.user, "user_bob"]).await;
    for (name, bytes) in [("a", 1), ("b", 1), ("big", 10_000_001), ("gone", 1)] {
        told(&db, &upload(name, 1, &json!({ "bytes": bytes })), 1).await;
    }
    told(&db, &deletion("gone", None), 2).await;
    let of_bob = json!({ "public_id": "users/user_bob/x" });
    told(&db, &upload("x", 1, &of_bob), 2).await;
    let first = tasks(&db, 2).await;
    assert_eq!(destroyed(&first), ["users/user_ann/big"]);
    db.store.finish_tasks(&[first[0].id], None, db.at(3)).await.unwrap();
    let inbound = Inbound { source: "clerk", event_id: "msg_1", kind: "user.deleted" };
    db.store.apply(&inbound, &Change::UserDeleted { id: ANN.user.to_owned() }, db.at(4)).await.unwrap();
    let mut left = destroyed(&tasks(&db, 5).await);
    left.sort_unstable();
    assert_eq!(left, ["users/user_ann/a", "users/user_ann/b", "users/user_ann/big"]);
    assert!(list(&db, ANN.user).await.is_empty());
    assert_eq!(list(&db, "user_bob").await.len(), 1);
    assert_eq!(told(&db, &upload("late", 2, &json!({})), 6).await, [], "nobody is there to have it");
    assert!(destroyed(&tasks(&db, 6).await).contains(&"users/user_ann/late".to_owned()), "nor does it stay");
    assert_eq!(db.store.report_file(APP, &reported("late", 2), db.at(7)).await.unwrap(), None);
    assert!(!db.store.meet(ANN.user, db.at(8)).await.unwrap());
}

async fn a_file_is_deleted_once_and_its_place_may_be_taken_again(db: Fixture) {
    meet(&db, &[ANN.user]).await;
    told(&db, &upload("a", 1, &json!({})), 1).await;
    let id = list(&db, ANN.user).await[0].id;
    assert_eq!(db.store.delete_file(APP, "user_bob", id, db.at(2)).await.unwrap(), None, "it is not bob's");
    assert_eq!(db.store.delete_file("other", ANN.user, id, db.at(2)).await.unwrap(), None);
    let (file, is_new) = db.store.delete_file(APP, ANN.user, id, db.at(2)).await.unwrap().unwrap();
    assert_eq!((file.status, is_new), (FileStatus::Deleting, true));
    assert!(!db.store.delete_file(APP, ANN.user, id, db.at(3)).await.unwrap().unwrap().1, "asked for again");
    assert!(list(&db, ANN.user).await.is_empty());
    assert_eq!(tasks(&db, 3).await.len(), 1);
    assert!(db.store.is_to_be_destroyed(id).await.unwrap());

    // It is uploaded anew before it was deleted: that one stays.
    assert_eq!(told(&db, &upload("a", 2, &json!({})), 4).await.len(), 1);
    assert!(!db.store.is_to_be_destroyed(id).await.unwrap());
    db.store.destroyed(id, db.at(5)).await.unwrap();
    assert_eq!(list(&db, ANN.user).await.len(), 1);

    db.store.delete_file(APP, ANN.user, id, db.at(6)).await.unwrap().unwrap();
    assert_eq!(tasks(&db, 6).await.len(), 2, "another version is another task");
    db.store.destroyed(id, db.at(7)).await.unwrap();
    assert_eq!(db.store.delete_file(APP, ANN.user, id, db.at(8)).await.unwrap(), None);
    assert_eq!(told(&db, &deletion("a", Some(2)), 9).await, [], "the owner knows");
}

async fn the_clients_word_counts_until_the_services_comes(db: Fixture) {
    let report = async |version, second| {
        db.store.report_file(APP, &reported("a", version), db.at(second)).await.unwrap().unwrap()
    };
    let (file, event) = report(1, 1).await;
    assert_eq!((event, file.file_size), (Some(FileEventName::Created), Some(10)));
    assert_eq!(report(1, 2).await, (file.clone(), None));
    let large = told(&db, &upload("a", 1, &json!({ "bytes": 10_000_001 })), 3).await;
    assert_eq!(large.len(), 1, "the client said it was small");
    let (known, event) = report(1, 4).await;
    assert_eq!((known.id, known.status, event), (file.id, FileStatus::Rejected, None));
    assert_eq!(report(2, 5).await.1, Some(FileEventName::Created), "another one in its place");
    let bobs = NewFile { user: "user_bob".to_owned(), ..reported("a", 3) };
    assert_eq!(db.store.report_file(APP, &bobs, db.at(6)).await.unwrap(), None, "it is not bob's");
}

async fn pages_of_files_hold_each_once(db: Fixture) {
    meet(&db, &[ANN.user]).await;
    for number in 0..7 {
        told(&db, &upload(&number.to_string(), 1, &json!({})), 1 + number / 3).await;
    }
    let (mut after, mut names) = (None, Vec::new());
    loop {
        let page = db.store.files(APP, ANN.user, after, 3).await.unwrap();
        names.extend(page.items.into_iter().map(|file| file.service_file_id.chars().last().unwrap()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names, ['6', '5', '4', '3', '2', '1', '0']);
    assert_eq!(db.store.files(APP, ANN.user, None, 7).await.unwrap().next, None);
}

async fn strangers_have_files_only_where_nobody_tells_of_users(db: Fixture) {
    let body = upload("a", 1, &json!({}));
    assert_eq!(told(&db, &body, 1).await, [], "Clerk has not told of her");
    let read = notification::read(body.to_string().as_bytes(), MAX).unwrap();
    let inbound = Inbound { source: "cloudinary", event_id: "another", kind: &read.kind };
    let events = db.store.apply_to_files(APP, &inbound, &read.change, true, db.at(2)).await.unwrap();
    assert_eq!(events.len(), 1);
    assert!(db.store.standing(ANN.user, None, None).await.unwrap().user.is_some());
}

async fn the_same_upload_told_by_many_at_once_is_one_file(db: Fixture) {
    meet(&db, &[ANN.user]).await;
    let tell = async |number: u64| {
        let body = upload("a", 1, &json!({ "request_id": number })); // not the same to the byte
        let events = try_told(&db, &body, 1).await.unwrap().len();
        let reported = db.store.report_file(APP, &reported("a", 1), db.at(1)).await.unwrap().unwrap();
        events + usize::from(reported.1.is_some())
    };
    let told = futures_util::future::join_all((0..8).map(tell)).await;
    assert_eq!((told.iter().sum::<usize>(), list(&db, ANN.user).await.len()), (1, 1), "{told:?}");
}
