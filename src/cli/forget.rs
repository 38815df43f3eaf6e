//! `lamplighter forget`: an item, out of everything that is kept.

use super::{
    Format, Global,
    exit::Exit,
    print,
    run::lost,
    screen::{complain, ink},
    state::{Access, Desk, consult},
};
use lamplighter::{item::Key, report, run::Outline, store::Forgotten};
use serde_json::json;

/// Arguments of `forget`.
#[derive(clap::Args)]
pub struct ForgetArguments {
    /// The item, and those below it (`P1` and `P1/heart-rate`)
    #[arg(long, value_name = "KEY")]
    key: String,
    /// How it is told
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &ForgetArguments) -> Exit {
    consult(global, Access::Writes, async |desk: &Desk| forget(desk, arguments).await).unwrap_or(Exit::Usage)
}

async fn forget(desk: &Desk, arguments: &ForgetArguments) -> Result<Exit, Exit> {
    let key = Key::parse(&arguments.key).map_err(|error| {
        complain(&format!("`--key` is no key: {error}"));
        Exit::Usage
    })?;
    let forgotten = desk.state.forget_key(&key).await.map_err(lost)?;
    let mut gathers = Vec::new();
    for (run, place, group) in &forgotten.gathers {
        let details = desk.state.details(run).await.map_err(lost)?;
        let stage = details.as_ref().and_then(|details| Outline::of(details).name(*place).map(str::to_owned));
        gathers.push(report::GatherRow { run: run.to_string(), stage, key: group.clone() });
    }
    let Forgotten { rows, kept, events, ref outputs, ref unfinished, .. } = forgotten;
    let text = match arguments.format {
        Format::Json => {
            let outputs: Vec<_> = outputs.iter().map(|(run, path)| json!({ "run": &**run, "path": path })).collect();
            let unfinished: Vec<&str> = unfinished.iter().map(|run| &**run).collect();
            let told = json!({
                "key": key, "rows": rows, "kept": kept, "events": events, "outputs": outputs, "gathers": gathers,
                "unfinished": unfinished,
            });
            format!("{told}\n")
        }
        Format::Human => report::forgotten(&key, &forgotten, &gathers, ink(&std::io::stdout())),
    };
    print(&text)?;
    // What a run that has not ended holds is not forgotten: whoever asked for it must come back.
    Ok(if unfinished.is_empty() { Exit::Done } else { Exit::Refused })
}
