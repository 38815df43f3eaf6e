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
/// not begin with an empty window. Cheap to clone.
#[derive(Clone)]
pub struct SharedLimits {
    world: World,
    known: Arc<Mutex<BTreeMap<Named, Known>>>,
}

/// Whose service it is, `None` for that of the configuration; its name; where it stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Named(pub Option<String>, pub String, pub String);

struct Known {
    rates: Vec<(u64, Duration)>,
    in_flight: Option<usize>,
    admission: Arc<Admission>,
}

impl SharedLimits {
    /// None so far; they count by the clock of `world`.
    pub fn new(world: World) -> SharedLimits {
        SharedLimits { world, known: Arc::default() }
    }

    /// The way into a service with these limits. One that was declared anew, with others, begins anew.
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
        // No code that can panic runs under this lock.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let named = Named(owner, name.to_owned(), origin.to_string());
        if let Some(same) = known.get(&named).filter(|known| known.rates == rates && known.in_flight == in_flight) {
            return same.admission.clone();
        }
        if known.len() >= SHARED_SERVICES_MAX {
            // Addresses may come from params: those that no run uses go.
            known.retain(|_, known| Arc::strong_count(&known.admission) > 1);
        }
        let admission = begin();
        known.insert(named, Known { rates: rates.to_vec(), in_flight, admission: admission.clone() });
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
    use crate::{service::url, world::sim::Sim};

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
}
