//! `lamplighter show`: one run as a timeline, with counts, what is missing and why.

use super::{
    Format, Global,
    exit::Exit,
    print,
    run::lost,
    screen,
    state::{Desk, consult, find},
};
use clap::ValueEnum;
use lamplighter::{
    limits::PAGE_ROWS,
    report::{self, Look},
    run::{Outline, account},
    store::{RowEnd, RowFilter, RowHead, RowQuery, RunStore},
};
use serde_json::json;
use std::io::IsTerminal;

/// Arguments of `show`.
#[derive(clap::Args)]
pub struct ShowArguments {
    /// Id of a run, or name of a job: its last run
    #[arg(value_name = "RUN|JOB")]
    run: String,
    /// List its items as well
    #[arg(long, value_enum, value_name = "WHICH")]
    items: Option<Which>,
    /// How it is printed
    #[arg(long, value_enum, default_value = "human")]
    format: Format,
}

/// Which items are listed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Which {
    /// Those that are missing
    Missing,
    /// All
    All,
}

/// Runs the command.
pub fn main(global: &Global, arguments: &ShowArguments) -> Exit {
    consult(global, async |desk: &Desk| show(desk, arguments).await).unwrap_or(Exit::Usage)
}

async fn show(desk: &Desk, arguments: &ShowArguments) -> Result<Exit, Exit> {
    let details = find(desk, &arguments.run).await?;
    let outline = Outline::of(&details);
    let account = account(&desk.world, &desk.state, &details, &outline).await.map_err(lost)?;
    let rows = desk.state.rows(&details.head.run);
    if arguments.format == Format::Json {
        let text = account.json().to_string();
        let Some(which) = arguments.items else { return print(&format!("{text}\n")).map(|()| Exit::Done) };
        // Items may be many: they are printed page by page, as a field of the object.
        print(&format!("{},\"items\":[", text.trim_end_matches('}')))?;
        let mut comma = "";
        each_page(&rows, which, async |page: &[RowHead]| {
            let mut text = String::new();
            for row in page {
                let (missing, class) = end_of(row);
                let class = missing.then_some(class);
                let stage = outline.name(row.stage);
                let item = json!({
                    "stage": stage, "key": row.key, "outcome": outcome_of(row), "class": class, "attempts": row.attempts,
                    "took_ms": row.took_ms, "message": row.message, "pass": row.pass,
                });
                text.push_str(comma);
                text.push_str(&item.to_string());
                comma = ",";
            }
            print(&text)
        })
        .await?;
        return print("]}\n").map(|()| Exit::Done);
    }
    let stdout = std::io::stdout();
    let ink = screen::ink(&stdout);
    let width = if stdout.is_terminal() { screen::size().0 } else { 80 };
    print(&report::account(&account, Look { ink, out: None }, width))?;
    let Some(which) = arguments.items else { return Ok(Exit::Done) };
    if !account.has_rows {
        return print("\nits items are not stored any more\n").map(|()| Exit::Done);
    }
    print("\n")?;
    each_page(&rows, which, async |page: &[RowHead]| {
        let row = |row: &RowHead| {
            let stage = outline.name(row.stage)?;
            let (missing, end) = end_of(row);
            let message = row.message.as_deref().unwrap_or_default();
            Some(report::item_row(ink, stage, &row.key, (missing, &end), row.attempts, row.took_ms, message))
        };
        print(&report::table(&[], &page.iter().filter_map(row).collect::<Vec<_>>(), &[3, 4]))
    })
    .await?;
    Ok(Exit::Done)
}

async fn each_page(
    rows: &RunStore,
    which: Which,
    mut each: impl AsyncFnMut(&[RowHead]) -> Result<(), Exit>,
) -> Result<(), Exit> {
    let filter = if which == Which::All { RowFilter::All } else { RowFilter::Missing };
    let mut after = None;
    loop {
        let query = RowQuery { filter, after: after.take(), limit: PAGE_ROWS, ..RowQuery::default() };
        let page = rows.row_heads(query).await.map_err(lost)?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some((last.stage, last.lineage.clone()));
        each(&page).await?;
    }
}

/// Whether the item is missing, and the text that says how it ended.
fn end_of(row: &RowHead) -> (bool, String) {
    match row.end {
        RowEnd::Done(outcome) => (outcome.is_missing(), outcome.class_text()),
        _ => (false, outcome_of(row).to_owned()),
    }
}

fn outcome_of(row: &RowHead) -> &'static str {
    match row.end {
        RowEnd::Done(outcome) => outcome.name(),
        RowEnd::Started => "started",
        RowEnd::Retry { .. } => "waiting",
    }
}
