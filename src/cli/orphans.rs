//! Orphans of children come to `serve`, which is process 1 of a container or a child subreaper: when they end they are reaped.

use async_signal::{Signal, Signals};
use futures_lite::{StreamExt, future};
use lamplighter::{action::reap_orphans, limits::ORPHANS_REAP_EVERY, world::World};

/// Reaps until the task is dropped. Sleeps while no child ends.
pub async fn reap(world: World) {
    let mut signals = match Signals::new([Signal::Child]) {
        Ok(signals) => signals,
        Err(error) => {
            log::warn!(target: "lamplighter::daemon", "processes that outlive their parents stay as zombies: {error}");
            return;
        }
    };
    loop {
        // Who ends after this is told of by a signal that comes after it.
        while let Some(Some(_)) = future::poll_once(signals.next()).await {}
        if world.unblock(reap_orphans).await {
            let _ = signals.next().await;
        }
        // A run may end thousands.
        world.sleep(ORPHANS_REAP_EVERY).await;
    }
}
