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
        is_copy: false,
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

    let vms = [1, 2].map(|n| (Uuid::from_u128(n), "h".parse().unwrap())).to_vec();
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

    // Copies are two, each with a reservation of its own.
    let mut copies = request("e", 1, 2, 300);
    copies.candidates[0].is_copy = true;
    copies.candidates.push(Reservation { host: "h2".parse().unwrap(), ..copies.candidates[0].clone() });
    assert_eq!(store.change(reserve(copies.clone())).await.unwrap(), 2);
    let again = NewReservations { key: "f".to_owned(), ..copies };
    let error = store.change(reserve(again)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooFewFree { free: 0 }), "{error}");
    let vms = vec![(Uuid::from_u128(1), "h2".parse().unwrap())];
    assert_eq!(store.change(Change::Release { vms, owner: "e".to_owned(), by: None }).await.unwrap(), 1);
    let left = store.reservations(301).await.unwrap();
    assert_eq!((left.len(), left[0].host.as_str(), left[0].is_copy), (1, "h", true));
}

/// A reservation of a VM for ever.
const RESERVED: &str = "INSERT INTO reservations (uuid, host, vm, owner, until, by, request, body)
    VALUES ('00000000-0000-0000-0000-000000000001', 'h', 'vm1', 'old', 9000000000000, 'ann', 'old', 'x')";

/// The steps before that which tells copies apart.
fn before_copies(steps: &[&'static str]) -> Vec<&'static str> {
    steps.iter().copied().take_while(|step| !step.contains("copy_on")).collect()
}

/// Of a store whose tables did not tell copies apart.
async fn is_kept(store: &Store) {
    assert_eq!(names(store, 100).await, ["vm1 old"]);
    let mut copy = request("new", 1, 1, 100);
    copy.candidates[0].is_copy = true;
    let error = store.change(reserve(copy)).await.unwrap_err();
    assert!(matches!(error, StoreError::TooFewFree { free: 0 }), "{error}");
    store.change(reserve(request("new", 2, 1, 100))).await.unwrap();
    assert_eq!(names(store, 100).await, ["vm1 old", "vm2 new"]);
}

#[tokio::test]
async fn what_a_file_of_the_schema_before_has_reserved_stays_reserved() {
    let bed = Bed::sqlite();
    let Bed::Sqlite(folder) = &bed else { unreachable!() };
    let before = before_copies(schema::STEPS);
    let marks =
        format!("PRAGMA application_id = {}; PRAGMA user_version = {};", schema::APPLICATION, before.len());
    let all = sqlx::AssertSqlSafe(format!("{}{marks}{RESERVED}", before.concat()));
    execute(&folder.path().join("runs.sqlite"), all).await;
    is_kept(&bed.open().await.unwrap()).await;
}

#[tokio::test]
async fn what_a_database_of_the_schema_before_has_reserved_stays_reserved() {
    let (server, address) = Bed::own_server("before");
    let before = before_copies(schema::DATABASE_STEPS);
    let version = format!("UPDATE atp_store SET version = {};", before.len());
    server.execute("before", &format!("{}{version}{RESERVED}", before.concat())).unwrap();
    let database = Database::read(&address, "").unwrap();
    is_kept(&Store::open_database(database, Clock::system()).await.unwrap()).await;
}
