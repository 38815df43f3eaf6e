//! The limits of services that several runs name: they wait in the same queues, and count in the same windows.

use super::{admission::Admission, url::Origin};
use crate::{limits::SHARED_SERVICES_MAX, world::World};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The limits of all services that the runs of one [`Runner`](crate::run::Runner) call through: what stands in the
/// configuration is one service for all jobs, what stands in a job is one for its runs. They outlast a run: the next one does
/// not begin with an empty window. A service that is declared in two ways, as by a run that goes on with the definition it was
/// begun with and by new ones, is two. Cheap to clone.
#[derive(Clone)]
pub struct SharedLimits {
    world: World,
    known: Arc<Mutex<BTreeMap<Declared, Arc<Admission>>>>,
}

/// A service as it was declared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Declared {
    /// The job; `None` for one of the configuration.
    owner: Option<String>,
    name: String,
    origin: String,
    rates: Vec<(u64, Duration)>,
    in_flight: Option<usize>,
}

impl SharedLimits {
    /// None so far; they count by the clock of `world`.
    pub fn new(world: World) -> SharedLimits {
        SharedLimits { world, known: Arc::default() }
    }

    /// The way into a service with these limits.
    pub(super) fn of(
        &self,
        name: &str,
        owner: Option<String>,
        origin: &Origin,
        rates: &[(u64, Duration)],
        in_flight: Option<usize>,
    ) -> Arc<Admission> {
        let begin = || Arc::new(Admission::new(self.world.clone(), rates, in_flight));
        if rates.is_empty() && in_flight.is_none() {
            return begin();
        }
        let (name, origin) = (name.to_owned(), origin.to_string());
        let declared = Declared { owner, name, origin, rates: rates.to_vec(), in_flight };
        // No code that can panic runs under this lock.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(same) = known.get(&declared) {
            return same.clone();
        }
        while known.len() >= SHARED_SERVICES_MAX {
            // Addresses may come from params: of those that no run uses the one goes whose window has told nothing for longest.
            let unused = known.iter().filter(|(_, admission)| Arc::strong_count(admission) == 1);
            let idlest = unused.min_by_key(|(_, admission)| admission.last_call());
            let Some(idlest) = idlest.map(|(declared, _)| declared.clone()) else { break };
            known.remove(&idlest);
        }
        let admission = begin();
        known.insert(declared, admission.clone());
        admission
    }
}

impl fmt::Debug for SharedLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedLimits").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{flow::Slot, service::url, world::sim::Sim};

    fn origin(host: &str) -> Origin {
        url::split(&format!("http://{host}/")).expect("a URL").0
    }

    #[test]
    fn the_same_service_has_the_same_limits_and_another_one_its_own() {
        let limits = SharedLimits::new(Sim::new(1).world());
        let (here, there) = (origin("a.example"), origin("b.example"));
        let owner = || Some("job".to_owned());
        let first = limits.of("vendor", None, &here, &[], Some(2));
        assert!(Arc::ptr_eq(&first, &limits.clone().of("vendor", None, &here, &[], Some(2))));
        for other in [
            limits.of("vendor", None, &there, &[], Some(2)),
            limits.of("other", None, &here, &[], Some(2)),
            limits.of("vendor", owner(), &here, &[], Some(2)),
            limits.of("vendor", None, &here, &[], None),
        ] {
            assert!(!Arc::ptr_eq(&first, &other));
        }
        assert!(
            Arc::ptr_eq(&first, &limits.of("vendor", None, &here, &[], Some(2))),
            "one without limits is not counted"
        );
        let changed = limits.of("vendor", None, &here, &[], Some(3));
        assert!(!Arc::ptr_eq(&first, &changed));
        assert!(Arc::ptr_eq(&changed, &limits.of("vendor", None, &here, &[], Some(3))));
    }

    #[test]
    fn services_that_no_run_uses_do_not_add_up() {
        let limits = SharedLimits::new(Sim::new(1).world());
        let origin = |number: usize| origin(&format!("a{number}.example"));
        let used = limits.of("vendor", None, &origin(0), &[], Some(2));
        for number in 1..10 * SHARED_SERVICES_MAX {
            limits.of("vendor", None, &origin(number), &[], Some(2));
            assert!(limits.known.lock().expect("no test panicked").len() <= SHARED_SERVICES_MAX);
        }
        assert!(Arc::ptr_eq(&used, &limits.of("vendor", None, &origin(0), &[], Some(2))));
    }

    #[test]
    fn two_declarations_of_one_service_leave_each_other_its_window() {
        let limits = SharedLimits::new(Sim::new(1).world());
        let of = |calls| limits.of("vendor", None, &origin("a.example"), &[(calls, Duration::from_secs(60))], None);
        // A run that goes on by the definition that it was begun with, and new ones.
        let (kept, new) = (of(10), of(5));
        for _ in 0..3 {
            assert!(Arc::ptr_eq(&kept, &of(10)) && Arc::ptr_eq(&new, &of(5)));
        }
    }

    #[test]
    fn of_too_many_services_that_no_run_uses_the_one_goes_whose_last_call_is_the_oldest() {
        let sim = Sim::new(1);
        let (world, limits) = (sim.world(), SharedLimits::new(sim.world()));
        let of = |number: usize| {
            limits.of("vendor", None, &origin(&format!("a{number}.example")), &[(9, Duration::from_secs(600))], None)
        };
        let all: Vec<_> = (0..SHARED_SERVICES_MAX).map(of).collect();
        // Called in another order than they came to be.
        let order: Vec<usize> = (0..SHARED_SERVICES_MAX).map(|at| at * 7 % SHARED_SERVICES_MAX).collect();
        let calls = async {
            for number in &order {
                drop(all[*number].enter(&Slot::free(world.clone())).await.expect("no deadline"));
                world.sleep(Duration::from_secs(1)).await;
            }
        };
        sim.run(calls).expect("they end");
        let all: Vec<_> = all.into_iter().map(|used| Arc::downgrade(&used)).collect();
        let mut used = Vec::new();
        for gone in 1..10 {
            used.push(of(SHARED_SERVICES_MAX + gone));
            for (at, number) in order.iter().enumerate() {
                assert_eq!(
                    all[*number].upgrade().is_some(),
                    at >= gone,
                    "{gone} more, {at} in the order of their calls"
                );
            }
        }
    }
}
