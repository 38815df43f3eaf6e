//! What calls go through: where a service stands, its limits, its retries and its connections; one file each.
//!
//! `job` checks [`ServiceSpec`] into a [`ServicePlan`], `run` starts a [`Service`] from it, and actions call through it:
//! [`Attempts`] is the loop of one call. A service spawns nothing: a connection lives in the call that uses it or in the
//! pool, and goes with either. Nothing of a request's query or body, or of an answer, ever stands in a message.

mod admission;
mod answer;
mod body;
mod call;
mod exchange;
mod limits;
mod pool;
mod rate;
pub mod retry;
mod spec;
#[cfg_attr(not(feature = "tls"), path = "no_tls.rs")]
mod tls;
mod transport;
pub mod url;

#[cfg(test)]
pub(crate) mod tests;
#[cfg(all(test, feature = "tls"))]
mod tls_tests;

pub use admission::Admitted;
pub use answer::{Answer, Body};
pub use call::{Attempts, Ended};
pub use exchange::{Request, Sink};
pub use limits::SharedLimits;
pub use retry::{Jitter, Retry, RetrySpec};
pub use spec::{AuthSpec, BasicSpec, ServicePlan, ServiceSpec, TlsSpec, check, check_headers, header_value};

use crate::{
    flow::{Slot, WaitRefused},
    world::World,
};
use hyper::HeaderMap;
use std::{fmt, sync::Arc, time::Duration};

/// A started service: what all calls of a run through it share. Its limits it may share with other runs: [`SharedLimits`].
pub struct Service {
    name: String,
    world: World,
    prefix: String,
    headers: HeaderMap,
    timeout: Duration,
    connect_timeout: Duration,
    admission: Arc<admission::Admission>,
    retry: Retry,
    pool: pool::Pool,
    max_body: u64,
    max_file: u64,
    retry_after_max: Duration,
}

impl Service {
    /// What `via` names.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Waits until a call may leave, and counts it; see [`Attempts::send`] for a call that is made here.
    ///
    /// # Errors
    /// When the rate alone makes it leave after the item's deadline.
    ///
    /// # Cancel safety
    /// Dropping it gives the place in the queue back; nothing was counted.
    pub async fn admit(&self, slot: &Slot) -> Result<Admitted, WaitRefused> {
        self.admission.enter(slot).await
    }

    /// Where it stands.
    pub fn origin(&self) -> &url::Origin {
        self.pool.dialer().origin()
    }

    /// The target of a request below the service's base for a rendered path. With `whole` the text may as well be a URL
    /// from data, if it is one of this service.
    ///
    /// # Errors
    /// A sentence, when it is no usable path or leads elsewhere; it does not repeat the text.
    pub fn target(&self, rendered: &str, whole: bool) -> Result<String, String> {
        let rendered = rendered.trim();
        if whole && (!rendered.starts_with('/') || rendered.starts_with("//")) {
            return match url::split(rendered) {
                Ok((origin, target)) if origin == *self.origin() => Ok(target),
                _ => {
                    let here = self.origin();
                    Err(format!("the URL from data is not of service {:?}, which stands at {here}", self.name))
                }
            };
        }
        let slash =
            if rendered.starts_with('/') || rendered.is_empty() || rendered.starts_with('?') { "" } else { "/" };
        let mut target = format!("{}{slash}{rendered}", self.prefix);
        if !target.starts_with('/') {
            target.insert(0, '/');
        }
        url::usable(&target)?;
        Ok(target)
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name).finish_non_exhaustive()
    }
}
