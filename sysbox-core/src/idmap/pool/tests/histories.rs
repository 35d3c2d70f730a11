//! Many owners, at once and one after the other.

use super::*;

/// Each thread opens the lock for itself, as a process would: flock(2) is of the open file description.
fn race(threads: usize, each: usize, shared: bool) {
    let host = Host::new("", &format!("sysbox:100000:{}\n", 65536 * threads * each));
    let shared = shared.then(|| host.pool(65536));
    let maps: Vec<Maps> = std::thread::scope(|scope| {
        let work = |t: usize| {
            let (host, shared) = (&host, &shared);
            scope.spawn(move || {
                let pool = shared.clone().unwrap_or_else(|| host.pool(65536));
                let take = |n| {
                    let extra = host.owner(&format!("x{t}-{n}"));
                    let owner = host.owner(&format!("c{t}-{n}"));
                    let maps = pool.allocate(&owner).unwrap();
                    assert_eq!(pool.lookup(&owner).unwrap().as_ref(), Some(&maps));
                    // There may be no room for it, but what it gets must not be anybody's.
                    if pool.allocate(&extra).is_ok() {
                        pool.release(&extra).unwrap();
                    }
                    maps
                };
                (0..each).map(take).collect::<Vec<_>>()
            })
        };
        let handles: Vec<_> = (0..threads).map(work).collect();
        handles.into_iter().flat_map(|h| h.join().unwrap()).collect()
    });
    assert_eq!(maps.len(), threads * each);
    assert_disjoint(&maps);
    assert_eq!(host.pool(65536).list().unwrap().len(), threads * each);
}

#[test]
fn eight_threads_of_one_process_get_different_ids() {
    race(8, 12, true);
}

#[test]
fn four_processes_get_different_ids() {
    race(4, 25, false);
}

#[test]
fn many_live_containers_are_no_burden() {
    let host = Host::both("");
    let pool = host.pool(65536);
    let owners: Vec<_> = (0..500).map(|n| host.owner(&format!("c{n}"))).collect();
    for owner in &owners {
        pool.allocate(owner).unwrap();
    }
    let mut all: Vec<Duration> = Vec::new();
    for owner in &owners[..20] {
        pool.release(owner).unwrap();
        let started = Instant::now();
        pool.allocate(owner).unwrap();
        all.push(started.elapsed());
    }
    // One that was kept waiting says nothing.
    all.sort_unstable();
    let each = all[10];
    println!("allocate among 500: {each:?}");
    // The aim is 2 ms; this is unoptimised, and the machine may be busy.
    assert!(each < Duration::from_millis(100), "{each:?}");
}

#[derive(Debug, Clone)]
enum Step {
    Allocate(u8, u32),
    Release(u8),
    Vanish(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..12, 1u32..40).prop_map(|(n, size)| Step::Allocate(n, size)),
        1 => (0u8..12).prop_map(Step::Release),
        1 => (0u8..12).prop_map(Step::Vanish),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn no_history_makes_ranges_overlap(steps in prop::collection::vec(step(), 1..40)) {
        let host = Host::new("sysbox:1000:120\nsysbox:5000:60\nsysbox:5010:20\nx:1050:7\n", "sysbox:9000:100\n");
        let pool = host.pool(10);
        let mut live: HashMap<u8, (Owner, Maps)> = HashMap::new();
        for step in steps {
            match step {
                Step::Allocate(n, size) => {
                    let owner = host.owner(&n.to_string());
                    match pool.allocate_sized(&owner, size) {
                        Ok(maps) => {
                            let had = live.insert(n, (owner, maps.clone()));
                            match had {
                                Some((_, before)) => prop_assert_eq!(before, maps),
                                None => prop_assert_eq!(maps.uid.size(), u64::from(size)),
                            }
                        }
                        Err(e) => {
                            prop_assert_eq!(e.kind(), Kind::Exhausted);
                            prop_assert!(!live.contains_key(&n));
                            fs::remove_dir(&owner.state_dir).unwrap();
                        }
                    }
                }
                Step::Release(n) => {
                    if let Some((owner, _)) = live.remove(&n) {
                        pool.release(&owner).unwrap();
                        fs::remove_dir(&owner.state_dir).unwrap();
                    }
                }
                Step::Vanish(n) => {
                    if let Some((owner, _)) = live.remove(&n) {
                        // Kept under another name, so that no new directory gets its inode number.
                        let old = tempfile::tempdir_in(host.0.path()).unwrap().keep();
                        fs::rename(&owner.state_dir, old.join("old")).unwrap();
                    }
                }
            }
            let maps: Vec<_> = live.values().map(|(_, m)| m.clone()).collect();
            assert_disjoint(&maps);
            for m in &maps {
                for id in (0..40).filter_map(|i| m.uid.to_outside(i)) {
                    prop_assert!((1000..1050).contains(&id) || (1057..1120).contains(&id) || (5000..5060).contains(&id));
                }
                prop_assert!((0..40).filter_map(|i| m.gid.to_outside(i)).all(|id| (9000..9100).contains(&id)));
            }
        }
    }
}
