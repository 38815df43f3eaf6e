//! What a foreground run does for the state before it begins and when it has ended.

use super::{
    exit::Exit,
    run::{job_of, lost},
    screen::{complain, say},
    state::Desk,
};
use lamplighter::{
    limits::RETAIN_STEPS,
    run::Runner,
    store::{Notice, RunKind},
    world::failpoint::{Point, pass},
};
use std::collections::BTreeMap;

/// Sends the notices of earlier runs of a job whose processes died before they did: at least once.
pub async fn send_notices(desk: &Desk, job: &str, instance: &str) -> Result<(), Exit> {
    let mut left: BTreeMap<String, Vec<u16>> = BTreeMap::new();
    for Notice { run, place, alive } in desk.state.notices().await.map_err(lost)? {
        if !alive {
            left.entry(run.to_string()).or_default().push(place);
        }
    }
    for (run, places) in left {
        let Some(details) = desk.state.details(&run).await.map_err(lost)? else { continue };
        if details.head.job != job || details.head.kind != RunKind::Foreground {
            continue;
        }
        say(&format!("lamplighter: the notices of {run} were not sent: they are sent now"));
        // What cannot be sent now is asked for again by the next run; this one goes on.
        let Ok((job, mut options)) = job_of(&desk.settings, &details) else { continue };
        options.instance = instance.to_owned();
        let runner = Runner::new(desk.world.clone());
        if let Err(error) = runner.send_notices(&job, options, &desk.state, &details, &places).await {
            complain(&format!("the notices of {run} cannot be sent: {error}"));
        }
    }
    Ok(())
}

/// Lets go what the configuration does not keep.
pub async fn retain(desk: &Desk) {
    pass(Point::RetainBegins);
    for _ in 0..RETAIN_STEPS {
        match desk.state.retain(desk.settings.config.retention(desk.world.wall().as_millisecond())).await {
            Ok(done) if done.more => {}
            Ok(_) => return,
            Err(error) => return complain(&format!("old runs cannot be let go: {error}")),
        }
    }
}
