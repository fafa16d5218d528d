//! Whatever a user does in whatever order, list and counts are those of a plain list in memory.

use std::collections::HashMap;

use herald::store::action::{Action, MarkAll};
use herald::store::notification::{Archived, Filter, Notification};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use super::support::{ANN, Fixture};

over_both! {
    list_and_counts_are_what_was_done,
}

async fn list_and_counts_are_what_was_done(db: Fixture) {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut known: HashMap<Uuid, Notification> = HashMap::new();
    let mut rev = 0;
    for step in 1..400_u64 {
        let now = db.at(step);
        let ids: Vec<Uuid> = known.keys().copied().collect();
        let pick = |random: &mut SmallRng| (!ids.is_empty()).then(|| ids[random.random_range(0..ids.len())]);
        match random.random_range(0..10) {
            0..4 => {
                let item = db.one(&format!("n{step}"), step).await;
                known.insert(item.id, item);
                rev += 1;
            }
            4..9 => {
                let Some(id) = pick(&mut random) else { continue };
                let action = match random.random_range(0..6) {
                    0 => Action::Seen,
                    1 => Action::Read,
                    2 => Action::Unread,
                    3 => Action::Archive,
                    4 => Action::Unarchive,
                    _ => Action::Delete,
                };
                let acted = db.store.act(ANN, id, &[action], now).await.unwrap().unwrap();
                let changed = action.apply(known.get_mut(&id).unwrap(), now);
                assert_eq!(acted.changed, changed, "seed {seed}, step {step}: {action:?}");
                rev += i64::from(changed);
                if action == Action::Delete {
                    known.remove(&id);
                }
            }
            _ => {
                let (marked, _) = db.store.mark_all(ANN, MarkAll::Read, rev, &Filter::default(), now).await.unwrap();
                let mut expected = 0;
                for item in known.values_mut().filter(|item| item.archived_at.is_none() && item.read_at.is_none()) {
                    expected += 1;
                    Action::Read.apply(item, now);
                }
                assert_eq!(marked, expected, "seed {seed}, step {step}");
                rev += i64::from(expected > 0);
            }
        }
        let unread = known.values().filter(|item| item.archived_at.is_none() && item.read_at.is_none()).count();
        let unseen = known.values().filter(|item| item.archived_at.is_none() && item.seen_at.is_none()).count();
        assert_eq!(db.state(step).await, (rev, unread as i64, unseen as i64), "seed {seed}, step {step}");
    }
    let all = Filter { archived: Archived::Include, ..Filter::default() };
    let page = db.store.list(ANN, &all, None, 1_000, db.at(500)).await.unwrap();
    assert_eq!(page.items.len(), known.len(), "seed {seed}");
    for item in page.items {
        let expected = &known[&item.id];
        assert_eq!(
            (item.seen_at, item.read_at, item.archived_at),
            (expected.seen_at, expected.read_at, expected.archived_at),
            "seed {seed}"
        );
    }
    let revs: Vec<i64> = db.events(500).await.into_iter().map(|(rev, ..)| rev).collect();
    assert_eq!(revs, (1..=rev).collect::<Vec<_>>(), "seed {seed}: an event for each revision");
}
