//! Reservations: two never get one VM.

use std::collections::HashSet;

use atp_api::serve::Reservation;
use uuid::Uuid;

use super::*;

/// A request of a job for some of the first VMs, at a time, for ten milliseconds.
fn request(job: &str, vms: u128, count: usize, now: i64) -> NewReservations {
    let candidate = |n: u128| Reservation {
        host: "h".parse().unwrap(),
        vm: format!("vm{n}"),
        uuid: Uuid::from_u128(n),
        owner: job.to_owned(),
        until_ms: u64::try_from(now + 10).unwrap(),
    };
    NewReservations {
        candidates: (1..=vms).map(candidate).collect(),
        count,
        by: "ann".to_owned(),
        key: job.to_owned(),
        body: format!("{count} of {vms}"),
        now,
    }
}

fn reserve(new: NewReservations) -> Change {
    Change::Reserve(Box::new(new))
}

async fn names(store: &Store, now: i64) -> Vec<String> {
    store
        .reservations(now)
        .await
        .unwrap()
        .into_iter()
        .map(|one| format!("{} {}", one.vm, one.owner))
        .collect()
}

pub(super) async fn of_many_at_once_none_gets_a_vm_of_another(bed: Bed) {
    let store = bed.open().await.unwrap();
    for round in 0..20 {
        let now = round * 100;
        let jobs: Vec<String> = (0..16).map(|job| format!("{round}-{job}")).collect();
        let asked = jobs.iter().map(|job| store.change(reserve(request(job, 20, 3, now))));
        let answers = futures_util::future::join_all(asked).await;
        let mut seen = HashSet::new();
        let mut granted = 0;
        for (job, answer) in jobs.iter().zip(answers) {
            match answer {
                Ok(count) => {
                    granted += 1;
                    let got = store.reservations_by("ann", job).await.unwrap();
                    assert_eq!((count, got.len()), (3, 3));
                    assert!(got.iter().all(|one| one.owner == *job && seen.insert(one.uuid)), "{got:?}");
                }
                Err(StoreError::TooFewFree { free }) => assert_eq!(free, 2),
                Err(error) => panic!("{error}"),
            }
        }
        assert_eq!((granted, seen.len()), (6, 18));
    }
}

pub(super) async fn a_reservation_ends_by_its_time_or_by_its_owner(bed: Bed) {
    let store = bed.open().await.unwrap();
    store.change(reserve(request("a", 2, 1, 100))).await.unwrap();
    // A request that was carried out and is sent again reserves nothing more; with this key no other is.
    assert_eq!(store.change(reserve(request("a", 2, 1, 105))).await.unwrap(), 1);
    let error = store.change(reserve(request("a", 2, 2, 105))).await.unwrap_err();
    assert!(matches!(error, StoreError::OtherReservation), "{error}");
    store.change(reserve(request("b", 2, 1, 109))).await.unwrap();
    assert_eq!(names(&store, 109).await, ["vm1 a", "vm2 b"]);
    // They outlast the service.
    let store = bed.reopen(store).await;
    assert_eq!(names(&store, 110).await, ["vm2 b"]);
    let error = store.change(reserve(request("c", 2, 2, 110))).await.unwrap_err();
    assert!(matches!(error, StoreError::TooFewFree { free: 1 }), "{error}");
    assert_eq!(names(&store, 110).await, ["vm2 b"]);

    let vms = vec![Uuid::from_u128(1).to_string(), Uuid::from_u128(2).to_string()];
    let release = |owner: &str, by: Option<&str>| Change::Release {
        vms: vms.clone(),
        owner: owner.to_owned(),
        by: by.map(str::to_owned),
    };
    assert_eq!(store.change(release("a", None)).await.unwrap(), 0);
    assert_eq!(store.change(release("b", Some("eve"))).await.unwrap(), 0);
    assert_eq!(store.reservations_of("b", Some("eve"), 110).await.unwrap().len(), 0);
    assert_eq!(store.reservations_of("b", Some("ann"), 110).await.unwrap().len(), 1);
    assert_eq!(store.change(release("b", Some("ann"))).await.unwrap(), 1);
    assert_eq!(store.change(reserve(request("c", 2, 2, 110))).await.unwrap(), 2);
    // A VM that two hosts list is one VM.
    let mut twice = request("d", 1, 2, 200);
    twice.candidates.push(Reservation { host: "h2".parse().unwrap(), ..twice.candidates[0].clone() });
    let error = store.change(reserve(twice)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooFewFree { free: 1 }), "{error}");
}
