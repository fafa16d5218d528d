//! Creations for audiences, what becomes of a request, and what users do not want.

use std::time::Duration;

use herald::store::jobs::{Audience, JobStatus, JobStep, NewJob, Template};
use herald::store::notification::Filter;
use herald::store::people::{Change, Inbound};
use herald::store::preferences::{Channel, Digest, Preference, Settings};
use herald::store::sending::{Create, Created, Wanted};
use herald::store::{Inbox, StoreError};
use serde_json::json;
use uuid::Uuid;

use super::support::{ANN, APP, Fixture, draft};

over_both! {
    an_audience_is_who_follows_who_is_a_member_or_everybody_in_the_order_of_ids,
    a_job_goes_on_behind_the_last_user_when_its_node_is_gone,
    what_is_cancelled_is_taken_back_and_its_job_ends,
    a_scheduled_one_that_is_cancelled_never_comes,
    the_id_of_a_job_is_no_other_requests,
    what_a_user_does_not_want_is_not_made_and_the_longest_pattern_decides,
    settings_are_kept_and_go_with_their_user,
}

const LOCK: Duration = Duration::from_secs(30);

fn template() -> Template {
    Template { draft: draft("News"), deliver_at: None, excluded: Vec::new() }
}

impl Fixture {
    async fn begin(&self, id: &str, hash: &str, audience: &Audience) -> Result<bool, StoreError> {
        let job = NewJob {
            id: Uuid::now_v7(),
            app: APP,
            transaction_id: id,
            request_hash: hash,
            audience,
            template: &template(),
        };
        self.store.begin_job(&job, self.at(0)).await
    }

    /// A step of a job for these users, at this second.
    async fn step(&self, id: Uuid, users: &[String], second: u64) -> Result<Created, StoreError> {
        let create = Create {
            app: APP,
            transaction_id: "news",
            request_hash: "hash",
            recipients: users,
            draft: &draft("News"),
            deliver_at: None,
            only_known: false,
            wanted: None,
            job: Some(JobStep { id, last_user: users.last().unwrap(), locked_until: self.at(second).after(LOCK) }),
        };
        self.store.create(&create, self.at(second)).await
    }

    async fn follow(&self, user: &str, topic: &str) {
        assert!(self.store.follow(APP, user, topic, true, self.at(0)).await.unwrap());
    }
}

async fn an_audience_is_who_follows_who_is_a_member_or_everybody_in_the_order_of_ids(fixture: Fixture) {
    for user in ["user_b", "user_a", "Zoe", "user_c"] {
        fixture.follow(user, "news").await;
    }
    assert!(!fixture.store.follow(APP, "user_a", "news", true, fixture.at(0)).await.unwrap(), "already");
    assert!(fixture.store.follow(APP, "user_c", "news", false, fixture.at(0)).await.unwrap());
    fixture.follow("user_c", "other").await;
    let member =
        Change::Member { org: "org_1".into(), user: "user_b".into(), role: "org:member".into(), updated_at: 1 };
    let inbound = Inbound { source: "clerk", event_id: "msg_1", kind: "organizationMembership.created" };
    fixture.store.apply(&inbound, &member, fixture.at(0)).await.unwrap();
    let users = async |audience: Audience, after: &str, limit| {
        fixture.store.audience(APP, &audience, after, limit).await.unwrap().join(" ")
    };
    assert_eq!(users(Audience::Topic("news".into()), "", 2).await, "Zoe user_a");
    assert_eq!(users(Audience::Topic("news".into()), "user_a", 2).await, "user_b");
    assert_eq!(users(Audience::OrgId("org_1".into()), "", 9).await, "user_b");
    assert_eq!(users(Audience::All, "", 9).await, "Zoe user_a user_b user_c");
    assert_eq!(fixture.store.topics(APP, "user_c").await.unwrap(), ["other"]);
}

async fn a_job_goes_on_behind_the_last_user_when_its_node_is_gone(fixture: Fixture) {
    let users: Vec<String> = (1..=4).map(|number| format!("user_{number}")).collect();
    for user in &users {
        fixture.follow(user, "news").await;
    }
    let news = Audience::Topic("news".to_owned());
    assert!(fixture.begin("news", "hash", &news).await.unwrap());
    assert!(!fixture.begin("news", "hash", &news).await.unwrap(), "the same once more");
    for (hash, audience) in [("other", &news), ("hash", &Audience::All)] {
        assert!(matches!(fixture.begin("news", hash, audience).await, Err(StoreError::Conflict)), "{audience:?}");
    }
    let job = fixture.store.take_job(fixture.at(0).after(LOCK), fixture.at(0)).await.unwrap().unwrap();
    assert_eq!((&job.audience, &job.template, &*job.last_user), (&news, &template(), ""));
    assert_eq!(fixture.store.take_job(fixture.at(40), fixture.at(10)).await.unwrap(), None, "it has its node");
    fixture.step(job.id, &users[..2], 10).await.unwrap();
    let again = fixture.store.take_job(fixture.at(80), fixture.at(50)).await.unwrap().unwrap();
    assert_eq!((again.id, &*again.last_user), (job.id, "user_2"));
    // The first node had not ended after all: what it repeats is not made twice.
    assert_eq!(fixture.step(job.id, &users[..2], 51).await.unwrap().duplicates, 2);
    fixture.step(job.id, &users[2..], 51).await.unwrap();
    fixture.store.end_job(job.id, JobStatus::Done, None, fixture.at(52)).await.unwrap();
    let known = fixture.store.transaction(APP, "news").await.unwrap().unwrap();
    let progress = known.job.unwrap();
    assert_eq!((known.created, progress.created, progress.status), (4, 4, JobStatus::Done));
    assert_eq!(fixture.store.take_job(fixture.at(99), fixture.at(99)).await.unwrap(), None);
}

async fn what_is_cancelled_is_taken_back_and_its_job_ends(fixture: Fixture) {
    let users: Vec<String> = (1..=4).map(|number| format!("user_{number}")).collect();
    fixture.begin("news", "hash", &Audience::All).await.unwrap();
    let job = fixture.store.take_job(fixture.at(30), fixture.at(0)).await.unwrap().unwrap();
    fixture.step(job.id, &users[..3], 1).await.unwrap();
    fixture.events(2).await;
    assert_eq!(fixture.store.cancel(APP, "news", 2, fixture.at(3)).await.unwrap(), Some(false), "there are more");
    assert_eq!(fixture.store.cancel(APP, "news", 2, fixture.at(3)).await.unwrap(), Some(true));
    assert_eq!(fixture.store.cancel(APP, "nothing", 2, fixture.at(3)).await.unwrap(), None);
    let events = fixture.events(4).await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|(rev, event, data)| {
        (*rev, &**event, &data["reason"]) == (2, "notification.deleted", &json!("cancelled"))
    }));
    assert!(matches!(fixture.step(job.id, &users[3..], 5).await, Err(StoreError::Cancelled)));
    let known = fixture.store.transaction(APP, "news").await.unwrap().unwrap();
    assert_eq!((known.created, known.deleted, known.job.unwrap().status), (3, 3, JobStatus::Cancelled));
    let inbox = Inbox { app: APP, user: "user_4" };
    assert_eq!(fixture.store.state(inbox, fixture.at(6)).await.unwrap().rev, 0, "nothing of the step is left");
}

async fn a_scheduled_one_that_is_cancelled_never_comes(fixture: Fixture) {
    let later = Some(fixture.at(100));
    fixture.try_create("t", "hash", &[ANN.user], &draft("Later"), later, 0).await.unwrap();
    assert_eq!(fixture.store.cancel(APP, "t", 10, fixture.at(1)).await.unwrap(), Some(true));
    assert_eq!(fixture.store.announce_due(10, fixture.at(200)).await.unwrap(), 0);
    assert_eq!(fixture.list(&Filter::default(), 200).await, []);
}

async fn the_id_of_a_job_is_no_other_requests(fixture: Fixture) {
    fixture.try_create("news", "other", &[ANN.user], &draft("One"), None, 0).await.unwrap();
    assert!(matches!(fixture.begin("news", "hash", &Audience::All).await, Err(StoreError::Conflict)));
    fixture.begin("all", "hash", &Audience::All).await.unwrap();
    let refused = fixture.try_create("all", "other", &[ANN.user], &draft("Two"), None, 1).await;
    assert!(matches!(refused, Err(StoreError::Conflict)));
}

async fn what_a_user_does_not_want_is_not_made_and_the_longest_pattern_decides(fixture: Fixture) {
    let say = async |kind: &str, channel, enabled| {
        let preference = Preference { kind: kind.to_owned(), channel, enabled };
        assert!(fixture.store.put_preferences(ANN, &[preference], fixture.at(0)).await.unwrap());
    };
    let patterns = ["comment.mentioned", "comment.*", "*"].map(str::to_owned);
    let create = async |id: &str, otherwise: bool| {
        let create = Create {
            app: APP,
            transaction_id: id,
            request_hash: "hash",
            recipients: &[ANN.user.to_owned()],
            draft: &draft("One"),
            deliver_at: None,
            only_known: false,
            wanted: Some(Wanted { patterns: &patterns, otherwise }),
            job: None,
        };
        let created = fixture.store.create(&create, fixture.at(1)).await.unwrap();
        (created.created, created.suppressed, created.duplicates)
    };
    assert_eq!(create("said nothing, off", false).await, (0, 1, 0));
    assert_eq!(create("said nothing, off", true).await, (0, 0, 1), "the request is known all the same");
    say("*", Channel::InApp, false).await;
    say("comment.*", Channel::Email, true).await;
    assert_eq!(create("all off", true).await, (0, 1, 0));
    say("comment.*", Channel::InApp, true).await;
    assert_eq!(create("a prefix on", false).await, (1, 0, 0));
    say("comment.mentioned", Channel::InApp, false).await;
    assert_eq!(create("the type off", true).await, (0, 1, 0));
    say("comment.mentioned", Channel::InApp, true).await;
    assert_eq!(create("the type on", false).await, (1, 0, 0));
    let said = fixture.store.preferences(ANN).await.unwrap();
    let said: Vec<_> = said.iter().map(|one| format!("{} {:?} {}", one.kind, one.channel, one.enabled)).collect();
    assert_eq!(said, ["* InApp false", "comment.* Email true", "comment.* InApp true", "comment.mentioned InApp true"]);
}

async fn settings_are_kept_and_go_with_their_user(fixture: Fixture) {
    assert_eq!(fixture.store.settings(ANN).await.unwrap(), Settings::default());
    let settings = Settings {
        timezone: Some("Europe/Berlin".to_owned()),
        quiet_hours: Some(json!({ "mon": [["22:00", "24:00"]] })),
        paused_until: Some(fixture.at(60)),
        digest: Digest::Daily,
    };
    assert!(fixture.store.put_settings(ANN, &settings, fixture.at(0)).await.unwrap());
    assert_eq!(fixture.store.settings(ANN).await.unwrap(), settings);
    let inbound = Inbound { source: "clerk", event_id: "msg_1", kind: "user.deleted" };
    let deleted = Change::UserDeleted { id: ANN.user.to_owned() };
    fixture.store.apply(&inbound, &deleted, fixture.at(1)).await.unwrap();
    assert_eq!(fixture.store.settings(ANN).await.unwrap(), Settings::default());
    assert!(!fixture.store.put_settings(ANN, &settings, fixture.at(2)).await.unwrap());
    assert!(!fixture.store.follow(APP, ANN.user, "news", true, fixture.at(2)).await.unwrap());
}
