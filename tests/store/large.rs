//! One user with 100,000 notifications, and a job for 100,000 users: slower than small ones, and otherwise the same.

use std::time::{Duration, Instant};

use herald::store::action::{Action, MarkAll};
use herald::store::jobs::{Audience, JobStatus, JobStep, NewJob, Template};
use herald::store::notification::{Counts, Filter, Since};
use herald::store::people::{Change, Inbound};
use herald::store::sending::Create;
use uuid::Uuid;

use super::support::{ANN, APP, Fixture, draft};

over_both! {
    all_of_a_hundred_thousand_are_marked_in_one_revision_and_their_user_can_go,
    a_job_for_a_hundred_thousand_says_how_far_it_is_and_serves_everybody_once,
}

const MANY: i64 = 100_000;
const LOCK: Duration = Duration::from_secs(30);
/// Longer than that nobody's request would wait.
const PATIENCE: Duration = Duration::from_secs(10);

async fn all_of_a_hundred_thousand_are_marked_in_one_revision_and_their_user_can_go(db: Fixture) {
    db.one("The newest", 2_000_000).await;
    db.execute(
        "UPDATE user_notifications SET rev = 100001;
        INSERT INTO user_notifications (id, app_id, user_id, type, title, rev, visible_at, announced_at, created_at, updated_at)
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
            SELECT printf('01900000-0000-7000-8000-%012x', i), 'shop', 'user_ann', 'comment.mentioned', 'Title', i,
                1790000000000000 + i * 1000000, 1, 1, 1 FROM n;
        UPDATE inbox_state SET rev = 100001;",
        "UPDATE user_notifications SET rev = 100001;
        INSERT INTO user_notifications (app_id, user_id, type, title, rev, visible_at, announced_at)
            SELECT 'shop', 'user_ann', 'comment.mentioned', 'Title', i, to_timestamp(1790000000 + i), now() FROM generate_series(1, 100000) AS i;
        UPDATE inbox_state SET rev = 100001;",
    )
    .await;
    let now = db.at(3_000_000);
    let most = Counts { unread: Counts::MOST, unseen: Counts::MOST };
    let state = db.store.state(ANN, now).await.unwrap();
    assert_eq!((state.rev, state.counts), (MANY + 1, most));

    let start = Instant::now();
    let (updated, state) = db.store.mark_all(ANN, MarkAll::Read, MANY, &Filter::default(), now).await.unwrap();
    assert_eq!((updated, state.rev), (MANY as u64, MANY + 2));
    assert_eq!(state.counts, Counts { unread: 1, unseen: 1 }, "the newest is newer than what was known");
    assert!(start.elapsed() < PATIENCE, "marked in {:?}", start.elapsed());

    // All of one revision, which is read page by page.
    let (mut since, mut seen, start) = (Since { rev: MANY + 1, id: None }, 0, Instant::now());
    loop {
        let changes = db.store.changes(ANN, since, 500, now).await.unwrap();
        seen += changes.items.len();
        assert!(changes.items.len() <= 500 && !changes.reset);
        match changes.next {
            Some(next) => since = next,
            None => break,
        }
    }
    assert_eq!(seen, MANY as usize);
    assert!(start.elapsed() < PATIENCE * 6, "{seen} changes in {:?}", start.elapsed());
    let first = db.store.list(ANN, &Filter::default(), None, 20, now).await.unwrap().items[0].id;
    let acted = db.store.act(ANN, first, &[Action::Archive], now).await.unwrap().unwrap();
    assert_eq!(acted.state.rev, MANY + 3);

    let start = Instant::now();
    let inbound = Inbound { source: "clerk", event_id: "e", kind: "user.deleted" };
    db.store.apply(&inbound, &Change::UserDeleted { id: ANN.user.to_owned() }, now).await.unwrap();
    assert!(start.elapsed() < PATIENCE, "deleted in {:?}", start.elapsed());
    assert_eq!(db.store.state(ANN, now).await.unwrap().counts, Counts::default());
}

async fn a_job_for_a_hundred_thousand_says_how_far_it_is_and_serves_everybody_once(db: Fixture) {
    db.execute(
        "INSERT INTO users (id, created_at, updated_at) WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)
            SELECT printf('user_%06d', i), 1, 1 FROM n;
        INSERT INTO topic_subscriptions (app_id, topic, user_id, created_at) SELECT 'shop', 'news', id, 1 FROM users;",
        "INSERT INTO users (id) SELECT 'user_' || lpad(i::text, 6, '0') FROM generate_series(1, 100000) AS i;
        INSERT INTO topic_subscriptions (app_id, topic, user_id, created_at) SELECT 'shop', 'news', id, now() FROM users;",
    )
    .await;
    let (id, draft, audience) = (Uuid::now_v7(), draft("News"), Audience::Topic("news".to_owned()));
    let template = Template { draft: draft.clone(), deliver_at: None, excluded: Vec::new() };
    let job =
        NewJob { id, app: APP, transaction_id: "news", request_hash: "h", audience: &audience, template: &template };
    assert!(db.store.begin_job(&job, db.at(0)).await.unwrap());
    let start = Instant::now();
    let (mut steps, mut told) = (0, 0);
    let now = db.at(1);
    let mut taken = db.store.take_job(now.after(LOCK), now).await.unwrap().unwrap();
    loop {
        let users = db.store.audience(APP, &audience, &taken.last_user, 500).await.unwrap();
        let Some(last_user) = users.last() else { break };
        let create = Create {
            app: APP,
            transaction_id: "news",
            request_hash: "h",
            recipients: &users,
            draft: &draft,
            deliver_at: None,
            only_known: false,
            wanted: None,
            job: Some(JobStep { id, last_user, locked_until: now.after(LOCK) }),
        };
        db.store.create(&create, now).await.unwrap();
        steps += 1;
        let progress = db.store.transaction(APP, "news").await.unwrap().unwrap().job.unwrap();
        assert!(progress.created > told && progress.status == JobStatus::Running, "{progress:?}");
        told = progress.created;
        taken.last_user = last_user.clone();
        if steps == 100 {
            // Its node dies after a step that was committed and that it did not hear of any more.
            let later = now.after(LOCK * 2);
            taken = db.store.take_job(later.after(LOCK), later).await.unwrap().unwrap();
            assert_eq!(&taken.last_user, last_user, "another one goes on from there");
        }
    }
    db.store.end_job(id, JobStatus::Done, None, now).await.unwrap();
    println!("{MANY} users in {steps} steps: {:?}", start.elapsed());
    let known = db.store.transaction(APP, "news").await.unwrap().unwrap();
    assert_eq!((known.created, known.job.unwrap().created), (MANY as u64, MANY as u64));
}
